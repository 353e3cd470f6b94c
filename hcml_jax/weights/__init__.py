"""Import and export of published weights: names of their tensors, torch files."""
