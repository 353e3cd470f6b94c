"""Every rule of the data configs, by the message that names the field."""

import subprocess
import sys

import pytest

from data_pipelines.config import FAMILIES, DataConfig, SpritesConfig
from hcml_jax.config import ConfigError, build

SPRITES_FAULTS = [
    ({"size": 47}, "size: found 47, must be even"),
    ({"size": 8}, "size: found 8"),
    ({"frames": 1}, "frames: found 1, must be at least 2"),
    ({"train_per_class": 0}, "train_per_class: found 0"),
    ({"test_per_class": -1}, "test_per_class: found -1"),
    ({"val_per_class": -1}, "val_per_class: found -1"),
    ({"seed": -1}, "seed: found -1"),
    ({"crf": 52}, r"crf: found 52, must be in 0\.\.51"),
    ({"contrast": 0.0}, "contrast: found 0.0"),
    ({"background_speed": -0.1}, "background_speed: found -0.1"),
    ({"classes": ("zoom_in", "zoom_inn")}, "classes: found .*must be different names out of"),
    ({"classes": ("zoom_in", "zoom_in")}, "classes: found"),
    ({"classes": ()}, "classes: found"),
    ({"speed": (3.0, 1.0)}, r"speed: found \(3.0, 1.0\)"),
    ({"rotation": (-0.1, 0.1)}, "rotation: found"),
    ({"zoom": (0.9, 1.1)}, "zoom: found .*from 1 up"),
    ({"radius": (0.5, 9.0)}, "radius: found"),
    ({"wavelength": (1.0, 9.0)}, "wavelength: found .*from 2 up"),
    ({"radius": (8.0, 20.0)}, "radius: found 'up to .* px across'.*under size 48"),
    ({"frames": 16}, "radius: found"),
    ({"closing_speed": (1.0, 5.0)}, "closing_speed: found 'up to .* px apart'"),
]

DATA_FAULTS = [
    ({"root": ""}, "root: found '', must name a folder"),
    ({"frames": 1}, "frames: found 1"),
    ({"stride": 0}, "stride: found 0, must be at least 1"),
    ({"crop": 0}, "crop: found 0"),
    ({"labels_seed": -1}, "labels_seed: found -1"),
    ({"labels_per_class": -1}, "labels_per_class: found -1"),
    ({"validation_share": 1.0}, r"validation_share: found 1.0, must be in \[0, 1\)"),
    ({"validation_share": -0.1}, "validation_share: found -0.1"),
    ({"workers": -1}, "workers: found -1"),
    ({"cache_mb": -1}, "cache_mb: found -1"),
    ({"short_clips": "pad"}, r"short_clips: found 'pad', must be in \('error', 'loop'\)"),
    ({"short_side": (320, 256)}, "short_side: found"),
    ({"crop": 257}, "crop: found 257, must not exceed the least short_side, 256"),
    ({"flow": ""}, "flow: found '', must be 'truth', 'dis', 'raft:DIR', 'hcml:DIR' or a folder of computed flow"),
    ({"sprites": SpritesConfig(), "stride": 2}, "frames and stride: found 'span 31', must span"),
]


@pytest.mark.parametrize(("values", "message"), SPRITES_FAULTS)
def test_wrong_sprites_configs_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        SpritesConfig(**values)


@pytest.mark.parametrize(("values", "message"), DATA_FAULTS)
def test_wrong_data_configs_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**{"root": "videos", **values})


def test_configs_are_built_from_plain_values():
    config = build(
        DataConfig, {"root": "a", "frames": 4, "stride": 1, "sprites": {"size": 32, "frames": 4, "radius": (4, 6)}}
    )
    assert config.sprites == SpritesConfig(size=32, frames=4, radius=(4.0, 6.0)) and config.span() == 4


def test_there_are_three_families_of_classes():
    families = list(FAMILIES.values())
    assert [families.count(name) for name in ("elementary", "composed", "relational")] == [8, 4, 4]


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"tensorflow", "av", "jax"}
    code = f"import data_pipelines, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
