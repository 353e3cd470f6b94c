"""Files and folders that are written whole or not at all."""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from hcml_jax.config import ConfigError


def replace_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


@contextlib.contextmanager
def new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden folder to write to, which becomes `folder` at the end; an error leaves nothing behind.

    Raises:
      ConfigError: if `folder` is there already.
    """
    if folder.exists():
        raise ConfigError(f"{folder} is there already: move it away, or name another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp keeps others out
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
