"""Probes and efficacy."""

import numpy as np
import pytest

from hcml_jax.evaluation.probe import efficacy, fit_probe


def test_the_probe_separates_what_is_linearly_separable():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    features = np.eye(3)[labels] * 3 + rng.normal(size=(150, 3))
    probe = fit_probe(features[:100], labels[:100])
    assert probe.train_accuracy == (probe.predict(features[:100]) == labels[:100]).mean() > 0.9
    assert (probe.predict(features[100:]) == labels[100:]).mean() > 0.8


def test_efficacy_is_the_papers_ratio():
    assert efficacy(0.9, 0.6) == pytest.approx(3.0)
    assert efficacy(0.5, 0.5) is None
