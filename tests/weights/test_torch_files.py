"""Reading weight files: every form of them, and nothing that a file asks to be run."""

import collections
import contextlib
import io
import json
import os
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from hcml_jax.weights.torch_files import WeightsError, read_tensors
from tests.weights.torch_writer import Tensor, write

ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def state_dict():
    state = collections.OrderedDict(
        {
            "conv.weight": Tensor(ARRAY),
            "norm.running_mean": Tensor(ARRAY[0, 0].astype(np.float16)),
            "norm.bias": Tensor(ARRAY[0].astype(jnp.bfloat16)),
            "norm.num_batches_tracked": Tensor(np.array(7)),
            "transposed": Tensor(ARRAY, offset=1, size=(3, 2), strides=(4, 12)),
        }
    )
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    return state


def check(tensors):
    assert list(tensors) == list(state_dict())
    np.testing.assert_array_equal(tensors["conv.weight"], ARRAY)
    assert tensors["norm.running_mean"].dtype == np.float16
    np.testing.assert_array_equal(tensors["norm.bias"], ARRAY[0].astype(jnp.bfloat16))
    assert tensors["norm.num_batches_tracked"] == 7
    np.testing.assert_array_equal(tensors["transposed"], ARRAY[:, :, 1].T)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["state_dict", "model_state", None])
def test_tensors_are_read_wherever_training_programs_keep_them(tmp_path, legacy, name):
    saved = state_dict()
    if name:
        best = np.float64(0.5)
        saved = {"epoch": 3, "arch": "resnet-18", "best": best, name: saved, "optimizer": {}}
    write(tmp_path / "file.pth", saved, legacy)
    check(read_tensors(tmp_path / "file.pth"))


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
def test_what_wrappers_put_in_front_of_every_name_is_taken_off(tmp_path, prefix):
    write(tmp_path / "file.pth", {f"{prefix}{k}": v for k, v in state_dict().items()})
    check(read_tensors(tmp_path / "file.pth"))


def write_safetensors(path, arrays):
    """Arrays by their dtype's name there."""
    header, data = {}, b""
    for dtype, array in arrays.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[dtype] = {"dtype": dtype, "shape": array.shape, "data_offsets": offsets}
        data += array.tobytes()
    header = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def test_safetensors_are_read(tmp_path):
    arrays = {
        "F32": ARRAY,
        "BF16": ARRAY.astype(jnp.bfloat16),
        "I64": np.array(7),
        "U8": np.arange(3, dtype=np.uint8),
        "BOOL": np.array([True, False]),
    }
    write_safetensors(tmp_path / "file.safetensors", arrays)
    found = read_tensors(tmp_path / "file.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_a_safetensor_of_another_dtype_is_refused_by_name(tmp_path):
    write_safetensors(tmp_path / "file.safetensors", {"F8_E4M3": np.zeros(3, np.uint8)})
    with pytest.raises(WeightsError, match="F8_E4M3 is of F8_E4M3: save it as float32"):
        read_tensors(tmp_path / "file.safetensors")


class Command:
    """Unpickled by an ordinary reader, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path, legacy):
    path, trace = tmp_path / "file.pth", tmp_path / "trace"
    write(path, {"weight": Tensor(ARRAY), "code": Command(trace)}, legacy)
    with pytest.raises(WeightsError, match=r"system.*nothing was run"):
        read_tensors(path)
    assert not trace.exists()


def test_a_whole_pickled_object_is_refused_by_name(tmp_path):
    write(tmp_path / "file.pth", {"model": io.BytesIO()})
    with pytest.raises(WeightsError, match=r"call _io\.BytesIO"):
        read_tensors(tmp_path / "file.pth")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path, kind):
    whole = tmp_path / ("whole.safetensors" if kind == "safetensors" else "whole.pth")
    if kind == "safetensors":
        safetensors.numpy.save_file({"a": ARRAY}, whole)
    else:
        write(whole, state_dict(), legacy=kind == "legacy")
    content = whole.read_bytes()
    for length in range(0, len(content) - 1, 7):
        whole.write_bytes(content[:length])
        with pytest.raises(WeightsError, match="cut off"):
            read_tensors(whole)


@pytest.mark.parametrize(
    ("offset", "size", "strides"),
    [
        (20, (5,), (1,)),
        (0, (2,), (24,)),
        (-1, (2,), (1,)),
        (5, (2,), (-1,)),
        (0, (2, 13), (1, 2)),
        (0, (2**42,), (0,)),
        (0, (2,), (2**62,)),
        (0, (2.0,), (1,)),
    ],
)
def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path, offset, size, strides):
    write(tmp_path / "file.pth", {"a": Tensor(ARRAY, offset, size, strides)})
    with pytest.raises(WeightsError, match="outside its storage|no shape"):
        read_tensors(tmp_path / "file.pth")


def changing(target, state):
    """A pickle that names `target` (or the storage of a tensor) and writes attributes on it."""
    named = b"c" + target.encode() + b"\n"
    return b"\x80\x02}U\x01a" + named + pickle.dumps(state, 2)[2:-1] + b"bs."


@pytest.mark.parametrize(
    "target", ["torch._utils\n_rebuild_tensor_v2", "torch\nBFloat16Storage", "numpy\ndtype", "torch\nSize"]
)
@pytest.mark.parametrize("state", [{"itemsize": 1000}, (None, {"_function": 1, "itemsize": 9})])
def test_what_a_pickle_is_handed_cannot_be_written_to(tmp_path, target, state):
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", changing(target, state))
    with pytest.raises(WeightsError, match="damaged"):
        read_tensors(path)
    assert np.dtype(jnp.bfloat16).itemsize == 2
    write(path, state_dict())
    check(read_tensors(path))


def test_any_damage_to_a_file_ends_in_one_error(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "file.pth"
    for legacy in (False, True):
        write(path, state_dict(), legacy)
        whole = path.read_bytes()
        for _ in range(200):
            content = bytearray(whole)
            for place in rng.integers(0, len(whole), 2):
                content[place] = rng.integers(0, 256)
            path.write_bytes(content)
            with contextlib.suppress(WeightsError):
                read_tensors(path)


def test_keys_that_are_no_strings_are_left_out(tmp_path):
    write(tmp_path / "file.pth", {1: Tensor(ARRAY), "a": Tensor(ARRAY)})
    assert list(read_tensors(tmp_path / "file.pth")) == ["a"]


def test_a_changed_byte_in_an_archive_is_noticed(tmp_path):
    path = tmp_path / "file.pth"
    write(path, state_dict())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("archive/data/0").header_offset
    content = bytearray(path.read_bytes())
    content[start + 60] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        read_tensors(path)


@pytest.mark.parametrize("saved", [{"epoch": 3}, [1, 2], {"state_dict": {}}])
def test_a_file_without_tensors_is_refused(tmp_path, saved):
    write(tmp_path / "file.pth", saved)
    with pytest.raises(WeightsError, match="no tensors by name"):
        read_tensors(tmp_path / "file.pth")
