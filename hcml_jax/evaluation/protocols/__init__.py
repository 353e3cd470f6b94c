"""Evaluation protocols, one per file.

A protocol is a function `parts(subject)` that yields names and functions, in order. Each function measures and returns
a nested dictionary of scores (`PerVideo`, or plain numbers), which is merged into `results.json`.
"""
