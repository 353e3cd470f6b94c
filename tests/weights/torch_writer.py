"""Writes files as PyTorch does, without it: pickles that name its functions, and storages beside them."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile
from unittest import mock

import jax.numpy as jnp
import numpy as np

STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(jnp.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
}


class Storage:
    """A tensor's numbers, which the pickle refers to by a key."""

    def __init__(self, array):
        self.array = array


class Tensor:
    """A view of a storage: `offset` and `strides` in elements."""

    def __init__(self, array, offset=0, size=None, strides=None):
        array = np.ascontiguousarray(array)
        self.storage, self.offset = Storage(array), offset
        self.size = array.shape if size is None else size
        steps = [step // array.itemsize for step in array.strides]
        self.strides = tuple(steps) if strides is None else strides

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        hooks = collections.OrderedDict()
        return rebuild, (self.storage, self.offset, self.size, self.strides, False, hooks)


class Pickler(pickle.Pickler):
    def __init__(self, file, legacy=False):
        super().__init__(file, protocol=2)
        self.storages, self.legacy = [], legacy

    def persistent_id(self, item):
        if not isinstance(item, Storage):
            return None
        if item not in self.storages:
            self.storages.append(item)
        key = str(self.storages.index(item))
        kind = getattr(sys.modules["torch"], STORAGES[item.array.dtype])
        identifier = ("storage", kind, key, "cpu", item.array.size)
        return (*identifier, None) if self.legacy else identifier


def _pretend_torch():
    """Modules with the names that pickles refer to."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        raise NotImplementedError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    return mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils})


def write(path, saved, legacy=False):
    """Writes what `torch.save(saved, path)` would; tensors are `Tensor`s."""
    with _pretend_torch():
        _write_legacy(path, saved) if legacy else _write_zip(path, saved)


def _write_zip(path, saved):
    pickled = io.BytesIO()
    pickler = Pickler(pickled)
    pickler.dump(saved)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", "little")
        for key, storage in enumerate(pickler.storages):
            archive.writestr(f"archive/data/{key}", storage.array.tobytes())
        archive.writestr("archive/version", "3\n")


def _write_legacy(path, saved):
    with path.open("wb") as file:
        for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(header, file, protocol=2)
        pickler = Pickler(file, legacy=True)
        pickler.dump(saved)
        pickle.dump([str(key) for key in range(len(pickler.storages))], file, protocol=2)
        for storage in pickler.storages:
            file.write(struct.pack("<q", storage.array.size))
            file.write(storage.array.tobytes())
