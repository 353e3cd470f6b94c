"""Probes, efficacy, families, confusion, flow errors and read-outs, the table of runs."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as reference_confusion

from hcml_jax.evaluation.compare import main, read_results, table
from hcml_jax.evaluation.flow import LinearReadout, flow_over, read_out
from hcml_jax.evaluation.linear import efficacy, linear_probe
from hcml_jax.evaluation.scores import accuracy, confusion_matrix, family_accuracies


def test_the_probe_separates_what_is_linearly_separable():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    features = np.eye(3)[labels] * 3 + rng.normal(size=(150, 3))
    fitted, predicted = linear_probe(features[:100], labels[:100], features[100:])
    assert accuracy(fitted, labels[:100]) > 0.9
    assert accuracy(predicted, labels[100:]) > 0.8


def test_efficacy_is_the_papers_ratio():
    assert efficacy(0.9, 0.6) == pytest.approx(3.0)
    assert efficacy(0.5, 0.5) is None


def test_families_are_scored_apart():
    classes, families = ("a", "b", "c"), {"a": "one", "b": "one", "c": "two"}
    labels, predicted = np.array([0, 1, 2, 2]), np.array([0, 0, 2, 2])
    found = family_accuracies(predicted, labels, classes, families)
    assert found == {"one": 0.5, "two": 1.0}


def test_confusion_counts_true_rows_and_predicted_columns():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    expected = reference_confusion(labels, predicted, labels=range(4))
    np.testing.assert_array_equal(confusion_matrix(predicted, labels, 4), expected)


def test_a_read_out_finds_flow_that_is_linear_in_the_features():
    rng = np.random.default_rng(0)
    motion = rng.normal(size=(2, 3, 4, 4, 5))
    flow = motion @ rng.normal(size=(5, 2)) + np.array([0.5, -1])
    readout = LinearReadout(ridge=1e-9)
    for clip in range(2):
        readout.add(motion[clip : clip + 1], flow[clip : clip + 1])
    found = read_out(readout.weights, jnp.asarray(motion, jnp.float32))
    np.testing.assert_allclose(found, flow, atol=1e-5)


@pytest.mark.parametrize(
    ("frames", "stride", "pairs"), [(8, 1, 7), (8, 2, 3), (7, 2, 3), (10, 4, 2)]
)
def test_flow_over_several_frames_is_chained(frames, stride, pairs):
    """A zoom about the centre: over s frames, its factor to the power of s."""
    side, factor = 17, 1.1
    y, x = np.mgrid[:side, :side] - side // 2
    place = np.stack([x, y], -1).astype(np.float32)
    step = (factor - 1) * place + np.array([0.25, 0])
    flow = np.broadcast_to(step, (1, frames - 1, side, side, 2))
    found = flow_over(flow, stride)
    moved = place
    for _ in range(stride):
        moved = moved + (factor - 1) * moved + np.array([0.25, 0])
    assert found.shape == (1, pairs, side, side, 2)
    inner = slice(4, -4)  # what leaves the frame takes the flow of its border
    np.testing.assert_allclose(
        found[0, -1, inner, inner], (moved - place)[inner, inner], rtol=1e-4, atol=1e-4
    )


def test_flow_over_several_frames_begins_at_every_stride_th():
    flow = (
        np.arange(7.0, dtype=np.float32).reshape(1, 7, 1, 1, 1)
        * np.ones((1, 1, 9, 9, 2), np.float32)
        / 9
    )
    centre = flow_over(flow, 2)[0, :, 2, 2, 0]
    np.testing.assert_allclose(centre * 9, [0 + 1, 2 + 3, 4 + 5], rtol=1e-5)


def test_runs_stand_side_by_side(tmp_path, capsys):
    for name, top1 in (("a", 0.5), ("b", 0.25)):
        (tmp_path / name).mkdir()
        results = {"top1": top1, "knn": {"level0": 0.1} if name == "a" else {}}
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    main([str(tmp_path / "a"), str(tmp_path / "b")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["top1", "0.500", "0.250"]
    assert lines[2].split() == ["knn.level0", "0.100", "-"]
    assert table({}).strip() == ""
    with pytest.raises(FileNotFoundError, match="evaluate the run first"):
        read_results(tmp_path / "c")
