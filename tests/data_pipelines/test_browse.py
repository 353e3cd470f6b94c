"""A look at what a method is trained on."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_pipelines import browse
from data_pipelines.video import read_frames
from hcml_jax.config import ConfigError
from hcml_jax.experiment import complete
from tests.data_pipelines.videos import write_video
from tests.methods import tiny


@pytest.fixture
def folder(tmp_path):
    """Videos of 20 frames of 60 x 48 whose red grows to the right, one without a label."""
    x = np.broadcast_to(4 * np.arange(60)[:, None], (20, 48, 60, 3)).astype(np.uint8)
    x[..., 2] = 9 * np.arange(20)[:, None, None]
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"{name}.mp4", x, crf="1", pix_fmt="yuv444p")
    (tmp_path / "table.csv").write_text("path,label,split\na.mp4,wave,train\nb.mp4,,train\nc.mp4,still,train\n")
    return tmp_path


def config_of(folder, **data):
    schedule = {"steps": 1, "warmup": 0.0, "optimizer": "sgd", "learning_rate": 0.1}
    method = {"name": "supervised", "backbone": tiny.BACKBONE, "flip": True, "stages": {"supervised": schedule}}
    given = {"root": str(folder), "frames": 4, "stride": 2, "crop": 32, "short_side": (36, 48), **data}
    return complete({"seed": 1, "method": method, "data": given, "training": {}, "evaluation": {}}).to_dict()


def test_clips_are_shown_with_where_they_come_from(folder, tmp_path, monkeypatch):
    seen, sheet = [], browse._sheet
    monkeypatch.setattr(browse, "_sheet", lambda given: seen.extend(given) or sheet(given))
    still, moving = browse.browse(config_of(folder), tmp_path / "out", 8)
    assert len(seen) == 8
    assert {one.title for one in seen} == {"a.mp4: wave", "c.mp4: still"}  # the stage learns from labels alone
    flipped = 0
    for one in seen:
        start = round(10 * float(one.times[0].split()[0]))
        assert one.times == [f"{(start + 2 * t) / 10:.2f} s" for t in range(4)]
        np.testing.assert_array_equal(one.frame, read_frames(folder / "a.mp4", [start])[0])
        _, left, _, width = one.box
        shown = 255 * one.clip[0, 16, :, 0] / 4
        flipped += shown[0] > shown[-1]
        centres = left + width * (np.arange(32) + 0.5) / 32 - 0.5
        np.testing.assert_allclose(np.sort(shown), centres, atol=1)
    assert 0 < flipped < 8
    with Image.open(still) as picture, Image.open(moving) as animation:
        assert picture.size[1] > 1000 and animation.n_frames == 4


def test_rendered_sprites_have_no_whole_frame(tmp_path):
    sprites = {"rendered": True, "size": 32, "frames": 8, "radius": (5.0, 6.0), "pair_radius": (3.0, 4.0)}
    sprites |= {"train_per_class": 1, "closing_speed": (0.7, 1.0), "zoom": (1.02, 1.04)}
    config = config_of("", sprites=sprites, stride=1, short_side=(32, 32), short_clips="error")
    still, _ = browse.browse(config, tmp_path / "out", 2)
    assert still.exists()


def test_wrong_flags_are_named(folder, tmp_path):
    with pytest.raises(ConfigError, match="--stage: there is no 'supervise'. Did you mean 'supervised'"):
        browse.browse(config_of(folder), tmp_path / "out", 1, "supervise")
    with pytest.raises(ConfigError, match="--clips must be 1 or more"):
        browse.browse(config_of(folder), tmp_path / "out", 0)
    command = [sys.executable, "-m", "data_pipelines.browse", "--config", "configs/hcml_folder.py", "--out", "x"]
    done = subprocess.run([*command, "--config.data.rot=y"], capture_output=True, text=True, check=False)
    assert done.returncode and "Traceback" not in done.stderr and "rot" in done.stderr
    done = subprocess.run([*command, "--config.data.root=gone"], capture_output=True, text=True, check=False)
    assert done.returncode and "Traceback" not in done.stderr and "gone: no such folder" in done.stderr
