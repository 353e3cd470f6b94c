"""Sources of clips: Motion Sprites, folders of videos, and the tf.data graph that reads them.

Neither tensorflow nor PyAV is imported before a source is opened.
"""

from importlib.util import find_spec
from pathlib import Path

from data_pipelines.config import DataConfig, SpritesConfig
from data_pipelines.errors import DataError


def open_data(config: DataConfig, workdir: str | Path | None = None, **options):
    """Opens the clips that `config` names; see `data_pipelines.data.open_data`."""
    missing = [name for name in ("av", "tensorflow") if find_spec(name) is None]
    if missing:
        raise DataError(
            f"reading videos needs {' and '.join(missing)}: install the extra 'data', as in pip install '.[data]'"
        )
    from data_pipelines import data

    return data.open_data(config, workdir, **options)
