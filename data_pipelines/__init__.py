"""Sources of clips: Motion Sprites, folders of videos, and the tf.data graph that reads them.

Neither tensorflow nor PyAV is imported before a source is opened.
"""

from importlib.util import find_spec
from pathlib import Path

from data_pipelines.config import DataConfig, SpritesConfig, is_network
from data_pipelines.errors import DataError


def open_data(config: DataConfig, workdir: str | Path | None = None, **options):
    """Opens the clips that `config` names: see `data_pipelines.videos.open_videos` for its options.

    Sprites that are rendered as they are read need neither tensorflow nor PyAV.

    Raises:
      DataError: what is needed to read them is not installed.
      ValueError: a network is given, and `config.flow` names none.
    """
    if options.get("network") and not is_network(config.flow):
        raise ValueError(f"flow is {config.flow!r}: no network computes it")
    if config.sprites and config.sprites.rendered:
        from data_pipelines.rendered import open_rendered

        wanted = ("future", "classes", "network")
        return open_rendered(config, **{name: options[name] for name in wanted if name in options})
    missing = [name for name in ("av", "tensorflow") if find_spec(name) is None]
    if missing:
        raise DataError(
            f"reading videos needs {' and '.join(missing)}: install the extra 'data', as in pip install '.[data]'"
        )
    from data_pipelines.videos import open_videos

    return open_videos(config, workdir, **options)
