"""What is wrong with the user's data. All are ValueErrors; their messages name the file."""

from hcml_jax.config import UserError


class DataError(UserError, ValueError):
    """A folder, table or video is missing or unusable."""


class TableError(DataError):
    """The annotation table, or the folder of videos, does not say which clips there are."""


class VideoError(DataError):
    """A video file cannot be read."""
