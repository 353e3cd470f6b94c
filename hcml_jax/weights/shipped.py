"""Weights that come with the package."""

import pathlib

SHIPPED = {"sprites": pathlib.Path(__file__).parent / "sprites"}
"""Name -> folder, an export with a README.md that tells of its data, recipe, scores and licence."""


def folder_of(path: str | pathlib.Path) -> pathlib.Path:
    """The folder of the shipped weights of that name, unless a folder of that path exists; other paths unchanged."""
    own = pathlib.Path(path)
    return own if own.exists() else SHIPPED.get(str(path), own)
