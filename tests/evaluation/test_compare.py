"""Runs side by side: figures, differences in pairs of videos, means."""

import json

import numpy as np
import pytest

from hcml_jax.evaluation.compare import differences, main, read_results, table
from hcml_jax.evaluation.intervals import paired_difference


def write(folder, results, **per_video):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results))
    if per_video:
        np.savez(folder / "per_video.npz", **per_video)
    return str(folder)


def test_runs_stand_side_by_side(tmp_path, capsys):
    one = write(tmp_path / "a", {"top1": 0.5, "knn": {"level0": 0.1}, "intervals": {"top1": [0.4, 0.6]}})
    other = write(tmp_path / "b", {"top1": 0.25, "knn": {}, "cost": {"device": "cpu"}})
    main([one, other])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["top1", "0.500", "0.250"]
    assert lines[2].split() == ["knn.level0", "0.100", "-"]
    assert len(lines) == 3
    assert table({}).strip() == ""
    with pytest.raises(FileNotFoundError, match="evaluate the run first"):
        read_results(tmp_path / "c")


def test_differences_are_of_the_videos_of_both(tmp_path, capsys):
    rng = np.random.default_rng(0)
    hits = {name: (rng.random(50) < share).astype(np.float32) for name, share in (("a", 0.4), ("b", 0.8))}
    names = np.array([f"{number}.mp4" for number in range(50)])
    one = write(tmp_path / "a", {"top1": 0.4}, video=names, top1=hits["a"])
    order = rng.permutation(50)[:40]  # fewer videos, in another order
    other = write(tmp_path / "b", {"top1": 0.8}, video=names[order], top1=hits["b"][order], more=hits["b"][order])
    found = differences(one, other)
    shared = order[np.argsort(names[order])]
    difference, (low, high), p = paired_difference(*(hits[run][shared].astype(float) for run in ("b", "a")))
    assert found == {
        "difference": {"top1": f"{difference:+.3f}"},
        "95%": {"top1": f"{low:+.3f} to {high:+.3f}"},
        "p": {"top1": f"{p:.4f}"},
    }
    main([one, other])
    assert f"{difference:+.3f}" in capsys.readouterr().out
    foreign = write(tmp_path / "c", {"top1": 0.8}, video=np.array(["other.mp4"]), top1=hits["b"][:1])
    assert not any(differences(one, foreign).values())


def test_of_several_runs_the_mean_is_shown(tmp_path, capsys):
    folders = [write(tmp_path / str(i), {"top1": i / 10, "knn": {"a": 0.1} if i else {}}) for i in range(3)]
    main(folders)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-1] == "mean"
    assert lines[1].split() == ["top1", "0.000", "0.100", "0.200", "0.100"]
    assert lines[2].split() == ["knn.a", "-", "0.100", "0.100", "-"]
