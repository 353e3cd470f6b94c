"""Reading PyTorch's weight files as numpy arrays, without PyTorch and without running code from them.

A `.pth` file is a pickle, and a pickle can name any function for its reader to call. This reader knows the few names
that tensors and plain values need; any other ends the reading before anything has been called.
"""

import collections
import io
import math
import os
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

# Keys under which training programs save the tensors.
NESTED = ("state_dict", "model_state", "model_state_dict", "model")

MAGIC = 0x1950A86A20F9469CFC6C  # begins files that PyTorch wrote before its version 1.6
# what PyTorch and what safetensors call them
_NAMED_DTYPES = (
    ("Double", "F64", np.float64),
    ("Float", "F32", np.float32),
    ("Half", "F16", np.float16),
    ("BFloat16", "BF16", jnp.bfloat16),
    ("Long", "I64", np.int64),
    ("Int", "I32", np.int32),
    ("Short", "I16", np.int16),
    ("Char", "I8", np.int8),
    ("Byte", "U8", np.uint8),
    ("Bool", "BOOL", np.bool_),
)
DTYPES = {name: np.dtype(dtype) for name, _, dtype in _NAMED_DTYPES}
SAFE_DTYPES = {name: np.dtype(dtype) for _, name, dtype in _NAMED_DTYPES}


class WeightsError(UserError, ValueError):
    """A weight file cannot be read, or does not fit the network; the message says how."""


def read_tensors(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Read tensors of a `.pth`, `.pt`, `.pyth` or `.safetensors` file by name, without "module." or "model." prefix.

    Raises:
      WeightsError: if the file is cut off, damaged, holds code or holds no tensors.
      OSError: if it cannot be opened.
    """
    path = pathlib.Path(path)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    tensors = read(path)
    if not tensors:
        raise WeightsError("it holds no tensors by name: save a network's `state_dict()` there")
    for prefix in ("module.", "model."):  # what wrappers of networks put there
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        # not `safetensors.numpy`, which knows no bfloat16
        found = dict(safetensors.deserialize(path.read_bytes()))
    except safetensors.SafetensorError as error:
        raise WeightsError(f"it is cut off or no safetensors file: {error}") from error
    tensors = {}
    for name, view in sorted(found.items()):
        if view["dtype"] not in SAFE_DTYPES:
            raise WeightsError(f"{name} is of {view['dtype']}: save it as float32")
        values = np.frombuffer(view["data"], SAFE_DTYPES[view["dtype"]])
        tensors[name] = values.reshape(view["shape"])
    return tensors


def _named_tensors(saved: Any, storages: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """The tensors of a saved object: its own, or those under a key that training programs use."""
    for name in NESTED:
        if isinstance(saved, Mapping) and isinstance(saved.get(name), Mapping):
            saved = saved[name]
    if not isinstance(saved, Mapping):
        return {}
    return {
        name: value.array(storages)
        for name, value in saved.items()
        if isinstance(name, str) and isinstance(value, _Tensor)
    }


def _read_pickle(path: pathlib.Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        try:
            zipped = zipfile.is_zipfile(file)
            file.seek(0)
            return _named_tensors(*(_read_zip if zipped else _read_legacy)(file))
        except _ForbiddenError as error:
            raise WeightsError(
                f"it asks its reader to call {error}, which no weights need: nothing was run. If you trust it, "
                "save its network's `state_dict()` alone"
            ) from None
        except Exception as error:  # damage shows as almost any
            raise WeightsError(f"it is cut off, damaged or no PyTorch file: {error}") from error


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
    """Read the format of PyTorch since version 1.6: a zip archive of a pickle and one entry for each storage."""
    storages: dict[str, bytes] = {}
    with zipfile.ZipFile(file) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            order = archive.read(f"{folder}byteorder")
            if order != b"little":
                raise ValueError(f"it was written in {order.decode()} byte order")

        def found(storage: _Storage) -> None:
            storages[storage.key] = archive.read(f"{folder}data/{storage.key}")

        return _Unpickler(io.BytesIO(archive.read(pickled)), found).load(), storages


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
    """Read the older format: pickles one after another, then the storages' data."""
    size = os.fstat(file.fileno()).st_size
    known: dict[str, _Storage] = {}

    def found(storage: _Storage) -> None:
        known[storage.key] = storage

    def load() -> Any:
        return _Unpickler(file, found).load()

    if load() != MAGIC:
        raise ValueError("it does not begin as one")
    load()  # the protocol's version
    load()  # sizes of the writer's integers
    saved, storages = load(), {}
    for key in load():
        (count,) = struct.unpack("<q", file.read(8))
        length = count * DTYPES[known[key].dtype].itemsize
        if not 0 <= length <= size - file.tell():
            raise EOFError("the file ends inside a tensor")
        storages[key] = file.read(length)
    return saved, storages


class _ForbiddenError(Exception):
    """A name that no weights need."""


# A pickle can set attributes of the objects that its reader returns: these objects do not allow it.


class _Storage(NamedTuple):
    """Data that tensors are views of, given by a key of `DTYPES` and a key in the file."""

    dtype: str
    key: str


class _Tensor(NamedTuple):
    """A tensor to be made once its storage has been read; offset and strides count numbers."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, storages: Mapping[str, bytes]) -> np.ndarray:
        """A copy of its numbers; raises ValueError if they do not lie inside the storage."""
        values = np.frombuffer(storages[self.storage.key], DTYPES[self.storage.dtype])
        offset, size, strides = self.offset, self.size, self.strides
        if not all(type(n) is int and n >= 0 for n in (offset, *size, *strides)):
            raise ValueError("a tensor's shape is no shape")
        count = math.prod(size)
        last = offset + sum((n - 1) * s for n, s in zip(size, strides, strict=True))
        if count > len(values) or (count and last >= len(values)):
            raise ValueError("a tensor reaches outside its storage")
        # numpy checks the bounds once more
        steps = [stride * values.itemsize for stride in strides]
        return np.ndarray(size, values.dtype, values, offset * values.itemsize, steps).copy()


class _Callable:
    """A function that a pickle may call."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any):
        raise ValueError("it changes what reads it")


class _Dtype:
    """A numpy dtype's name; its byte order, which must be the machine's, is set by the pickle afterwards."""

    __slots__ = ("_name",)

    def __init__(self, name: str, *_: Any):
        self._name = str(name)

    def __setstate__(self, state: tuple):
        if state[1] not in ("<", "|"):
            raise ValueError("it holds numbers of another byte order")

    def scalar(self, content: bytes) -> np.generic:
        """The number of these bytes."""
        return np.frombuffer(content, np.dtype(self._name))[0]


def _rebuild_tensor(storage, offset, size, strides, *_) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has no storage")
    return _Tensor(storage, offset, tuple(size), tuple(strides))


def _scalar(dtype, content) -> np.generic:
    if not isinstance(dtype, _Dtype):
        raise ValueError("a number has no dtype")
    return dtype.scalar(content)


# Names allowed in a pickle: (module, name) -> the reader's stand-in.
KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _Callable(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Callable(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Callable(lambda tensor, *_: tensor),
    ("torch", "Size"): _Callable(tuple),
    ("torch", "device"): _Callable(lambda *names: ":".join(map(str, names))),
    ("_codecs", "encode"): _Callable(lambda text, _: text.encode("latin1")),
    **{("torch", f"{name}Storage"): name for name in DTYPES},
    # numbers that training programs save beside the weights
    ("numpy.core.multiarray", "scalar"): _Callable(_scalar),
    ("numpy._core.multiarray", "scalar"): _Callable(_scalar),
    ("numpy", "dtype"): _Callable(_Dtype),
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that calls only functions in `KNOWN`; it passes each storage to `found`."""

    def __init__(self, file: BinaryIO, found: Callable[[_Storage], None]):
        super().__init__(file, encoding="latin1")
        self._found = found

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; raises _ForbiddenError for one that is not known."""
        if (module, name) not in KNOWN:
            raise _ForbiddenError(f"{module}.{name}")
        return KNOWN[module, name]

    def persistent_load(self, identifier: Any) -> _Storage:
        """The storage of a tensor."""
        kind, dtype, key, _, _, *view = identifier
        if kind != "storage" or dtype not in DTYPES or not isinstance(key, str):
            raise ValueError("it refers to something that is no storage")
        if view not in ([], [None]):
            raise ValueError("it holds views of storages, as only PyTorch before 0.4 wrote them")
        storage = _Storage(dtype, key)
        self._found(storage)
        return storage
