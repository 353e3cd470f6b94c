"""Preparation by Apache Beam, which takes an older protobuf than the rest: `make test-prepare`."""
