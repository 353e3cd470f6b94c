"""Weights that come with the package."""

import pathlib

SHIPPED = {"sprites": pathlib.Path(__file__).parent / "sprites"}
"""Name -> folder, an export with a README.md that tells of its data, recipe, scores and licence."""


def folder_of(path: str | pathlib.Path) -> pathlib.Path:
    """The folder of the weights of that name, unless there is one of one's own by that path; others as they are."""
    own = pathlib.Path(path)
    return own if own.exists() else SHIPPED.get(str(path), own)
