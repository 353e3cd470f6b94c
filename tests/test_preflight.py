"""What an evaluation lacks is said before any training."""

import types

import pytest

from hcml_jax import preflight
from hcml_jax.config import ConfigError
from hcml_jax.evaluation.config import EvaluationConfig
from tests.methods.test_cgm_net import CLIP_SHAPE, built


@pytest.fixture
def data():
    sampling = {"crop": 16, "short_side": 16}
    return types.SimpleNamespace(clip_shape=CLIP_SHAPE, sampling=sampling, classes=(), splits=("test",))


@pytest.mark.parametrize(("protocol", "needed"), [("prediction", True), ("flow", True), ("recognition", False)])
def test_what_baselines_take_is_asked_for(data, monkeypatch, protocol, needed):
    asked = []
    monkeypatch.setattr(preflight, "check_baselines", asked.append)
    preflight.check_evaluation(data, EvaluationConfig(protocols=(protocol,), baselines=("optical_flow",)))
    assert asked == ([("optical_flow",)] if needed else [])


def test_a_crop_that_the_network_does_not_fit_is_refused(data):
    preflight.check_crop(built(), data, EvaluationConfig(crop=18))
    message = "config.evaluation.crop: the network does not fit clips of 17 x 17 pixels: scale: frames of 17 x 17"
    with pytest.raises(ConfigError, match=message):
        preflight.check_crop(built(), data, EvaluationConfig(crop=17))
