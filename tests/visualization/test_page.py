"""The report: what it tells, and that a browser shows it."""

import importlib.metadata
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from hcml_jax.config import ConfigError
from hcml_jax.visualization.moving import save_moving
from hcml_jax.visualization.page import PICTURES, write_page

RESULTS = {
    "top1": 0.925,
    "knn": {"level0": 0.5, "level1": 0.25},
    "linear": {"level0": 0.75},
    "untrained": {"knn": {"level0": 0.1}},
    "readouts": {"level0/3x3": {"knn": 0.625}},
    "baseline": {"knn": {"<pixels>": 0.125}, "readouts": {"pixels/2x2": {"retrieval": {"1": 0.25, "5": 0.375}}}},
    "retrieval": {"level0": {"1": 0.5, "5": 0.875}},
    "controls": {"reversed": {"top1": 0.0625, "knn": {"level0": 0.3}}},
    "gains": {"level0 to level1": {"left": 0.4}},
    "flow": {"epe_by_level": {"level0": 0.257}, "l1": {"learnt": {"level0": 0.02}}},
    "cost": {"parameters": 85374, "gflops": {"1x1": 0.0087}, "device": "cpu"},
    "families": {"elementary": {"top1": 0.9}},
    "knn_by_k": {"5": {"level0": 0.55}},
    "efficacy": {"level0": 8.6},
    "classes": {"knn": {"level0": {"left": 1.0}}},
    "checkpoint": {"last": 2400, "representation": 2100},
    "intervals": {"top1": [0.9, 0.95], "knn": {"level0": [0.45, None]}},
}


@pytest.fixture
def run(tmp_path):
    described = {
        "config": {
            "method": {"name": "hcml", "backbone": {"name": "r2d_10"}},
            "training": {"validation_split": "val"},
            "note": "</pre><script>alert(1)</script>",
        },
        "classes": ["a", "b"],
        "clip_shape": [8, 48, 48, 3],
        "clips": {"train": 16, "test": 8, "digest": "abc"},
    }
    (tmp_path / "run.json").write_text(json.dumps(described))
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    clip = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
    save_moving([[(clip, "query", "black"), (clip, "found", "green")]] * 2, tmp_path / "figures" / "retrieval.webp")
    return tmp_path


def test_the_page_tells_what_the_folder_holds(run):
    text = write_page(run).read_text()
    for cell in ("92.5 <small>(90.0 to 95.0)", "50.0 <small>(45.0 to ?)", "level0/3x3</td><td>62.5", "&lt;pixels&gt;"):
        assert cell in text
    for cell in ("knn, k 5</td><td>55.0", "8.600", "left</td><td>100.0", "representation at step 2100"):
        assert cell in text
    for cell in ("R@5", "87.5", "6.2", "0.257", "0.020", "85,374", "40.0", "16 train, 8 test"):
        assert cell in text
    for cell in ("pixels/2x2</td><td>25.0</td><td>37.5", "the best checkpoint and early ends: by split val"):
        assert cell in text
    assert text.count("level0/3x3</td>") == 1  # among features, not in the table of retrieval
    assert "<script" not in text and "http" not in text
    assert text.count("<img") == 1 and PICTURES["retrieval.webp"] in text


def test_a_checkout_need_not_be_installed(run, monkeypatch):
    def version(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "hcml_jax not installed, jax not installed" in write_page(run).read_text()


def test_a_run_that_was_not_evaluated_is_told_so(run):
    (run / "results.json").unlink()
    with pytest.raises(ConfigError, match="has no results.json: evaluate the run first"):
        write_page(run)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LOOK = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
  broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).length, images: document.images.length,
  overflow: document.documentElement.scrollWidth - innerWidth, font: getComputedStyle(document.body).fontSize,
  rows: document.querySelectorAll("tr").length, width: innerWidth }), "*"))</script></body>"""
# In a frame, for the browser's own window is never as narrow as a phone.
FRAME = """<!doctype html><title></title><link rel="icon" href="data:,">
<script>addEventListener("message", event => document.title = event.data)</script>
<iframe src="seen.html" style="width: WIDTHpx; height: 800px; border: 0"></iframe>"""


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here to show the page in")
@pytest.mark.parametrize("width", [390, 1100])
def test_a_browser_shows_it(run, width):
    """No console errors, every picture shown, no wider than the window."""
    (run / "seen.html").write_text(write_page(run).read_text().replace("</body>", LOOK))
    page = run / "frame.html"
    page.write_text(FRAME.replace("WIDTH", str(width)))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1300,900"]
    flags += [f"--user-data-dir={run / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    shown = subprocess.run([CHROMIUM, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    seen = json.loads(re.search("<title>(.*?)</title>", shown.stdout)[1].replace("&quot;", '"'))
    assert (seen["broken"], seen["images"], seen["font"], seen["width"]) == (0, 1, "15px", width)
    assert seen["overflow"] <= 0 and seen["rows"] > 15
    assert "CONSOLE" not in shown.stderr
