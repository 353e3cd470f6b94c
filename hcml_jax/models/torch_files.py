"""Reading PyTorch's weight files as numpy arrays, without PyTorch and without running code from them.

A `.pth` file is a pickle, and a pickle can name any function for its reader to call. This reader knows the few names
that tensors and plain values need; any other ends the reading before anything has been called.
"""

import collections
import io
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors

from hcml_jax.config import UserError

# Where training programs keep the tensors inside what they save.
NESTED = ("state_dict", "model_state", "model_state_dict", "model")

MAGIC = 0x1950A86A20F9469CFC6C  # begins files that PyTorch wrote before its version 1.6
DTYPES = {
    "Double": np.dtype(np.float64),
    "Float": np.dtype(np.float32),
    "Half": np.dtype(np.float16),
    "BFloat16": np.dtype(jnp.bfloat16),
    "Long": np.dtype(np.int64),
    "Int": np.dtype(np.int32),
    "Short": np.dtype(np.int16),
    "Char": np.dtype(np.int8),
    "Byte": np.dtype(np.uint8),
    "Bool": np.dtype(np.bool_),
}
SAFE_DTYPES = {
    "F64": DTYPES["Double"],
    "F32": DTYPES["Float"],
    "F16": DTYPES["Half"],
    "BF16": DTYPES["BFloat16"],
    "I64": DTYPES["Long"],
    "I32": DTYPES["Int"],
}


class WeightsError(UserError, ValueError):
    """A weight file cannot be read, or does not fit the network; the message says how."""


def read_tensors(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a `.pth`, `.pt`, `.pyth` or `.safetensors` file by name, "module." in front of all taken off.

    Raises:
      WeightsError: if the file is cut off, damaged, holds code or holds no tensors.
      OSError: if it cannot be opened.
    """
    path = pathlib.Path(path)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    tensors = read(path)
    if not tensors:
        raise WeightsError("it holds no tensors by name: save a network's `state_dict()` there")
    prefix = "module."
    if all(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        # not `safetensors.numpy`, which knows no bfloat16
        found = safetensors.deserialize(path.read_bytes())
        return {
            name: np.frombuffer(view["data"], SAFE_DTYPES[view["dtype"]]).reshape(view["shape"])
            for name, view in found
        }
    except (safetensors.SafetensorError, KeyError) as error:
        raise WeightsError(f"it is cut off or no safetensors file: {error}") from error


def _named_tensors(saved: Any) -> dict[str, np.ndarray]:
    """The tensors of what was saved: itself, or what it holds under a name that training programs use."""
    for name in NESTED:
        if isinstance(saved, Mapping) and isinstance(saved.get(name), Mapping):
            saved = saved[name]
    if not isinstance(saved, Mapping):
        return {}
    return {name: value.array() for name, value in saved.items() if isinstance(value, _Tensor)}


def _read_pickle(path: pathlib.Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        try:
            zipped = zipfile.is_zipfile(file)
            file.seek(0)
            return _named_tensors((_read_zip if zipped else _read_legacy)(file))
        except _ForbiddenError as error:
            raise WeightsError(
                f"it asks its reader to call {error}, which no weights need: nothing was run. If you trust it, "
                "save its network's `state_dict()` alone"
            ) from None
        except (
            pickle.UnpicklingError,
            zipfile.BadZipFile,
            struct.error,
            EOFError,
            LookupError,
            AttributeError,
            TypeError,
            ValueError,
            RecursionError,
        ) as error:
            raise WeightsError(f"it is cut off, damaged or no PyTorch file: {error}") from error


def _read_zip(file: BinaryIO) -> Any:
    """What PyTorch has written since its version 1.6: a zip archive of a pickle and one entry for each storage."""
    with zipfile.ZipFile(file) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            order = archive.read(f"{folder}byteorder")
            if order != b"little":
                raise ValueError(f"it was written in {order.decode()} byte order")

        def load(identifier: tuple) -> _Storage:
            _, dtype, key, *_ = identifier
            return _Storage(dtype, archive.read(f"{folder}data/{key}"))

        return _Unpickler(io.BytesIO(archive.read(pickled)), load).load()


def _read_legacy(file: BinaryIO) -> Any:
    """What it wrote before: pickles one after another, then the storages' numbers; tensors are made at the end."""
    storages: dict[str, _Storage] = {}

    def load(identifier: tuple) -> _Storage:
        _, dtype, key, _, _, view = (*identifier, None)[:6]
        if view is not None:
            raise ValueError("it holds views of storages, as only PyTorch before 0.4 wrote them")
        return storages.setdefault(key, _Storage(dtype, b""))

    if _Unpickler(file, load).load() != MAGIC:
        raise ValueError("it does not begin as one")
    _Unpickler(file, load).load()  # the protocol's version
    _Unpickler(file, load).load()  # sizes of the writer's integers
    saved = _Unpickler(file, load).load()
    for key in _Unpickler(file, load).load():
        (count,) = struct.unpack("<q", file.read(8))
        storage = storages[key]
        size = count * storage.dtype.itemsize
        storage.content = file.read(size)
        if len(storage.content) != size:
            raise EOFError("the file ends inside a tensor")
    return saved


class _ForbiddenError(Exception):
    """A name that no weights need."""


class _Storage:
    """The numbers that tensors are views of."""

    def __init__(self, dtype: np.dtype, content: bytes):
        self.dtype, self.content = dtype, content

    def view(self, offset: int, size: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
        """A copy of part of it; raises ValueError if that reaches outside."""
        values = np.frombuffer(self.content, self.dtype)
        last = offset + sum((n - 1) * s for n, s in zip(size, strides, strict=True))
        if min((offset, *size, *strides)) < 0 or (math.prod(size) and last >= len(values)):
            raise ValueError("a tensor reaches outside its storage")
        if not math.prod(size):
            return np.zeros(size, self.dtype)
        steps = [s * self.dtype.itemsize for s in strides]
        return np.lib.stride_tricks.as_strided(values[offset:], size, steps).copy()


class _Tensor(NamedTuple):
    """A tensor to be made once its storage has been read."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        return self.storage.view(self.offset, tuple(self.size), tuple(self.strides))


def _rebuild_tensor(storage, offset, size, strides, *_) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has no storage")
    return _Tensor(storage, offset, size, strides)


class _Dtype:
    """Stands for a numpy dtype."""

    def __init__(self, name: str, *_):
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple):
        self.dtype = self.dtype.newbyteorder(state[1])

    def scalar(self, content: bytes) -> np.generic:
        return np.frombuffer(content, self.dtype)[0]


# What a pickle may name: (module, name) -> what its reader takes for it.
KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch", "Size"): tuple,
    ("torch", "device"): lambda *names: ":".join(map(str, names)),
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
    **{("torch", f"{name}Storage"): dtype for name, dtype in DTYPES.items()},
    # numbers that training programs save beside the weights
    **{
        (f"numpy.{core}.multiarray", "scalar"): lambda dtype, content: dtype.scalar(content)
        for core in ("core", "_core")
    },
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that calls nothing but what `KNOWN` holds."""

    def __init__(self, file: BinaryIO, load_storage: Callable[[tuple], _Storage]):
        super().__init__(file, encoding="latin1")
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; raises _ForbiddenError for one that is not known."""
        if (module, name) not in KNOWN:
            raise _ForbiddenError(f"{module}.{name}")
        return KNOWN[module, name]

    def persistent_load(self, identifier: Any) -> _Storage:
        """The storage of a tensor."""
        if not (isinstance(identifier, tuple) and identifier[0] == "storage"):
            raise ValueError("it refers to something that is no storage")
        return self._load_storage(identifier)
