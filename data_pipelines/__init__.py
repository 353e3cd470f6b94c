"""Sources of clips: Motion Sprites, folders of videos, and the tf.data graph that reads them.

Neither tensorflow nor PyAV is imported before a source is opened.
"""

from pathlib import Path

from data_pipelines.config import DataConfig, SpritesConfig
from data_pipelines.errors import DataError

__all__ = ["DataConfig", "DataError", "SpritesConfig", "open_data"]


def open_data(config: DataConfig, workdir: str | Path | None = None):
    """Opens the clips that `config` names; see `data_pipelines.data.open_data`."""
    from data_pipelines import data

    return data.open_data(config, workdir)
