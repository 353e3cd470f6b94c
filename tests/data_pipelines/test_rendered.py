"""Clips rendered as they are read: those that would be written, new ones in every epoch, views as of videos."""

import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from data_pipelines import DataConfig, SpritesConfig, open_data
from data_pipelines.errors import DataError
from data_pipelines.sprites import render
from hcml_jax.batch import Reads, blank_batch
from hcml_jax.config import ConfigError

SPRITES = {
    "size": 32,
    "frames": 6,
    "radius": (5.0, 6.0),
    "pair_radius": (3.0, 4.0),
    "classes": ("translate_left", "zoom_in", "approach"),
    "train_per_class": 3,
    "val_per_class": 1,
    "test_per_class": 2,
    "closing_speed": (1.0, 2.0),
}
KEY = {"seed": 0, "stage": "level0"}


def opened(future=0, **fields):
    fields = {"frames": 4, "stride": 1, "jitter": False, "short_side": (32, 32), "crop": 32} | fields
    sprites = SpritesConfig(rendered=True, **SPRITES | fields.pop("sprites", {}))
    return open_data(DataConfig(root="", sprites=sprites, **fields), future=future)


def take(batches, count):
    return [jax.device_get(batch) for batch in itertools.islice(batches, count)]


def test_test_clips_are_those_that_would_be_written():
    data = opened()
    assert data.classes == SPRITES["classes"] and data.splits == ("train", "test", "val")
    assert {split: data.num_clips(split) for split in data.splits} == {"train": 9, "test": 6, "val": 3}
    batches = take(data.eval_batches("test", 4, reads=Reads(flow=True)), 9)
    assert [batch.valid.tolist() for batch in batches] == [[True] * 4, [True, True, False, False]]
    config = data.config.sprites
    for number, label, batch, row in ((9, 0, 0, 0), (14, 2, 1, 1)):
        key = jax.random.fold_in(jax.random.key(0), number)
        clip, flow, _ = jax.jit(render, static_argnums=2)(key, label, config)
        found = batches[batch]
        assert (found.index[row], found.label[row], found.start[row]) == (number, label, 1)
        np.testing.assert_array_equal(found.clip[row, 0], clip[1:5])
        np.testing.assert_allclose(found.flow[row, 0], flow[1:4], atol=1e-5)


def test_batches_have_the_shapes_that_are_promised():
    data = opened(future=1)
    reads = Reads(clips=2, future=1, flow=True)
    for batches in (data.train_batches(4, **KEY, reads=reads), data.eval_batches("val", 4, reads=reads)):
        (batch,) = take(batches, 1)
        wanted = blank_batch(4, data.clip_shape, reads)
        for name, array in wanted._asdict().items():
            assert getattr(batch, name).shape == array.shape and getattr(batch, name).dtype == array.dtype, name


def test_training_shows_new_clips_of_the_same_classes_in_every_epoch():
    data = opened()
    epochs = take(data.train_batches(9, **KEY), 2)
    shown = [{int(i): clip for i, clip in zip(batch.index, batch.clip, strict=True)} for batch in epochs]
    assert shown[0].keys() == shown[1].keys() == set(range(9))
    assert not any(np.array_equal(shown[0][i], shown[1][i]) for i in range(9))
    for batch in epochs:
        assert (batch.label == batch.index // 3).all()
    other = take(data.train_batches(9, seed=0, stage="joint"), 1)[0]
    assert not any(np.array_equal(clip, shown[0][int(i)]) for i, clip in zip(other.index, other.clip, strict=True))


def test_where_few_keep_their_label_there_are_few_labelled_clips():
    data = opened(labels_per_class=1)
    epochs = take(data.train_batches(9, **KEY), 2)
    shown = [{int(i): clip for i, clip in zip(batch.index, batch.clip, strict=True)} for batch in epochs]
    same = {i for i in range(9) if np.array_equal(shown[0][i], shown[1][i])}
    assert same == set(data.labelled) and len(same) == 3
    assert [int((batch.label >= 0).sum()) for batch in epochs] == [3, 3]


def test_a_share_of_the_training_clips_may_be_held_out():
    data = opened(validation_share=0.34)
    assert {split: data.num_clips(split) for split in ("train", "validation")} == {"train": 6, "validation": 3}
    held, again = (take(data.eval_batches("validation", 3), 1)[0] for _ in range(2))
    np.testing.assert_array_equal(held.clip, again.clip)
    assert not set(held.index.tolist()) & set(take(data.train_batches(6, **KEY), 1)[0].index.tolist())


def test_batches_are_a_function_of_the_step_whatever_the_shards():
    data = opened(jitter=True, short_side=(32, 40), sprites={"frames": 8})
    whole = take(data.train_batches(4, **KEY), 4)
    resumed = take(data.train_batches(4, **KEY, first_step=2), 2)
    jax.tree.map(np.testing.assert_array_equal, whole[2:], resumed)
    parts = [take(data.train_batches(4, **KEY, num_shards=2, shard_index=i), 4) for i in range(2)]
    for step, batch in enumerate(whole):
        joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *(part[step] for part in parts))
        jax.tree.map(np.testing.assert_array_equal, joined, batch)


def test_crops_are_what_pil_makes_of_them():
    reads = Reads(area=(0.3, 0.6), flow=True)
    data, plain = opened(jitter=True, labels_per_class=3), opened(labels_per_class=3)
    (batch,) = take(data.train_batches(9, **KEY, reads=reads), 1)
    frames = plain.config.sprites.frames
    whole = opened(labels_per_class=3, frames=frames)
    videos = {
        int(i): b for one in take(whole.train_batches(9, **KEY), 1) for i, b in zip(one.index, one.clip, strict=True)
    }
    for index, clip, box, start in zip(batch.index, batch.clip[:, 0], batch.box[:, 0], batch.start[:, 0], strict=True):
        top, left, height, width = box
        for time in range(4):
            image = Image.fromarray(videos[int(index)][0, start + time])
            expected = image.resize((32, 32), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
            # PIL does not look beyond the box, jax beyond it where there is a frame.
            difference = np.abs(np.asarray(expected, float) - clip[time])[1:-1, 1:-1]
            assert difference.max() <= 2.5


def test_flow_is_in_pixels_of_the_crop():
    """Of a translation, enlarged twice, all of the sprite moves by twice its speed."""
    sprites = {"classes": ("translate_left",), "speed": (1.0, 1.0), "background_speed": 0.0}
    flows = {}
    for crop in (32, 64):
        data = opened(crop=crop, short_side=(crop, crop), sprites=sprites)
        (batch,) = take(data.eval_batches("test", 2, reads=Reads(flow=True)), 1)
        flows[crop] = batch.flow
    assert flows[64].min() == pytest.approx(-2, abs=1e-3) and flows[32].min() == pytest.approx(-1, abs=1e-3)
    assert np.abs(flows[64][..., 1]).max() < 1e-3


def test_clips_of_other_sprites_are_another_census():
    assert opened().census != opened(sprites={"contrast": 0.3}).census


def test_a_folder_is_named_where_files_are_written_and_nowhere_else():
    with pytest.raises(ConfigError, match="root: found '', must name a folder"):
        DataConfig(root="", sprites=SpritesConfig())
    with pytest.raises(ConfigError, match="root: found 'data', must name a folder, unless sprites are rendered"):
        DataConfig(root="data", sprites=SpritesConfig(rendered=True))
    with pytest.raises(DataError, match="no clips of split 'tset'. Did you mean 'test'"):
        opened().eval_batches("tset", 4)


def test_neither_tensorflow_nor_av_is_needed():
    code = (
        "import sys; sys.modules['av'] = sys.modules['tensorflow'] = None\n"
        "from data_pipelines import DataConfig, SpritesConfig, open_data\n"
        "sprites = SpritesConfig(rendered=True, train_per_class=1)\n"
        "sampling = {'frames': 8, 'stride': 1, 'jitter': False, 'short_side': (48, 48), 'crop': 48}\n"
        "data = open_data(DataConfig('', sprites=sprites, **sampling))\n"
        "data.warm_up(); print(next(data.train_batches(2, seed=0, stage='level0')).clip.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 1, 8, 48, 48, 3)"
