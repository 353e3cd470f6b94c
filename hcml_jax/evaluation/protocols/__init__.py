"""What can be measured of a network: one file a protocol.

A protocol is a function `parts(subject)` that gives, in order, names and functions; each function measures and returns
a nested dictionary of scores (`PerVideo`, or plain numbers), which `results.json` takes in.
"""
