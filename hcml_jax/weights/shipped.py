"""Weights that come with the package."""

import pathlib

SHIPPED = {"sprites": pathlib.Path(__file__).parent / "sprites"}
"""Name -> folder, an export with a README.md that tells of its data, recipe, scores and licence."""


def folder_of(path: str | pathlib.Path) -> pathlib.Path:
    """The folder of the weights of that name; any other path as it is ("./sprites" is a folder of one's own)."""
    return SHIPPED.get(str(path), pathlib.Path(path))
