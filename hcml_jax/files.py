"""Files and folders that are written whole or not at all."""

import contextlib
import io
import pathlib
import shutil
import tempfile
import threading
import uuid
import zlib
from collections.abc import Iterator
from zipfile import BadZipFile, ZipFile

import numpy as np

from hcml_jax.config import ConfigError

# What numpy raises of a damaged `.npz`.
DAMAGED = (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error)

# Python 3.11 before 3.11.8 cannot parse literals, such as numpy's headers, in two threads at once
# (https://github.com/python/cpython/issues/106905).
_PARSING = threading.Lock()


def read_array(path: pathlib.Path, name: str) -> np.ndarray:
    """One array of an `.npz`, in any thread; raises one of `DAMAGED`."""
    with ZipFile(path) as file:
        content = file.read(f"{name}.npy")
    with _PARSING:
        return np.load(io.BytesIO(content))


@contextlib.contextmanager
def new_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden file to write to, which becomes `path` at the end; an error leaves what was there before."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with new_file(path) as partial:
        partial.write_text(text)


@contextlib.contextmanager
def new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden folder to write to, which becomes `folder` at the end; an error leaves nothing behind.

    Raises:
      ConfigError: if `folder` is there already, and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: move it away, or name another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp keeps others out
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
