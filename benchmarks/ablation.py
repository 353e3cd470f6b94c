"""The paper's ablations on Motion Sprites with few labels: `python benchmarks/ablation.py --workdir runs/ablation`.

Table 2 (motion blocks, self-supervision), Table 1 (supervisions by level), one level at a time against all at once,
and Figure 3 (levels added one by one), over seeds. Every run has its own folder and resumes where it stopped.
"""

import argparse
import json
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from runs import call, finish

from configs import hcml_sprites, supervised_sprites

REPEATED = {
    "action": ("action",) * 3,
    "reconstruction": ("reconstruction",) * 3,
    "contrastive": ("reconstruction", "contrastive", "contrastive"),
}


def hcml(levels=REPEATED["contrastive"], joint=True, progressive=True) -> dict[str, Any]:
    """The demo with other levels."""
    config = hcml_sprites.get_config().to_dict()
    stages = config["method"]["stages"]
    kept = {
        f"level{level}": stages[f"level{level}"] | _rate(stages, supervision)
        for level, supervision in enumerate(levels)
    }
    if not progressive:  # as many steps as the levels have one after another
        kept = {"levels": kept["level0"] | {"steps": sum(s["steps"] for s in kept.values())}}
    if joint:
        kept["joint"] = stages["joint"]
    config["method"] |= {"levels": levels, "progressive": progressive, "stages": kept}
    return config


def _rate(stages: Mapping[str, Any], supervision: str) -> dict[str, float]:
    """A rate that suits the supervision: what the demo has for it; for contrast, what the level has."""
    like = {"reconstruction": "level0", "action": "joint"}
    if supervision not in like:
        return {}
    return {"learning_rate": stages[like[supervision]]["learning_rate"]}


def supervised(motion_blocks: tuple[str, ...]) -> dict[str, Any]:
    """The baseline with these motion blocks."""
    config = supervised_sprites.get_config().to_dict()
    config["method"]["motion_blocks"] = motion_blocks
    return config


def experiments() -> dict[str, dict[str, Any]]:
    """Run name -> config."""
    contrastive = REPEATED["contrastive"]
    return {
        "bare": supervised(()),
        "blocks": supervised(("res2", "res3", "res4")),
        "hcml": hcml(),
        "one_level": hcml(contrastive[:1]),
        "two_levels": hcml(contrastive[:2]),
        "all_at_once": hcml(progressive=False),
        "reconstruction": hcml(REPEATED["reconstruction"], joint=False),
        "action": hcml(REPEATED["action"], joint=False),
    }


def scale(config: dict[str, Any], factor: float) -> None:
    """Shortens the self-supervised stages of a config in place."""
    for name, stage in config["method"]["stages"].items():
        if name.startswith("level"):
            stage["steps"] = max(1, round(stage["steps"] * factor))
            stage["warmup"] = stage["warmup"] * factor


def tables(results: Mapping[str, list[Mapping[str, Any]]]) -> str:
    """The ablations as Markdown; each cell is the mean over seeds and, in brackets, every seed."""

    def row(head: str, name: str, *figure: str) -> str:
        return f"| {head} | {_cell([_read(r, figure) for r in results[name]])} |"

    lines = ["| Table 2 | top-1 |", "|---|---|"]
    lines += [row("R2D", "bare", "top1"), row("+ motion blocks", "blocks", "top1")]
    lines += [row("+ self-supervision", "hcml", "top1"), "", "| Figure 3 | top-1 |", "|---|---|"]
    for head, name in (("no level", "bare"), ("1", "one_level"), ("2", "two_levels"), ("3", "hcml")):
        lines.append(row(head, name, "top1"))
    lines += ["", "| training of the levels | top-1 |", "|---|---|"]
    lines += [row("one at a time", "hcml", "top1"), row("all at once", "all_at_once", "top1")]
    runs = {"action": "action", "reconstruction": "reconstruction", "contrastive": "hcml"}
    for kind in ("efficacy", "linear"):
        lines += ["", f"| Table 1: {kind} | {' | '.join(runs)} |", "|---" * 4 + "|"]
        for level in range(3):
            cells = [
                "-" if (level, head) == (0, "contrastive") else _level(results[name], kind, level)
                for head, name in runs.items()
            ]
            lines.append(f"| level {level} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _level(results, kind: str, level: int) -> str:
    return _cell([_read(r, (kind, f"level{level}")) for r in results])


def _read(results: Mapping[str, Any], figure: tuple[str, ...]) -> float | None:
    for name in figure:
        results = results[name]
    return results


def _cell(values: list[float | None]) -> str:
    if None in values:
        return "no gap"
    shown = ", ".join(f"{value:.3f}" for value in values)
    return f"{statistics.mean(values):.3f} ({shown})"


def main() -> None:
    """Runs what has not been run, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scale", type=float, default=0.6, help="of the demo's steps without labels")
    arguments = parser.parse_args()
    results: dict[str, list] = {name: [] for name in experiments()}
    for seed in arguments.seeds:
        for name, config in experiments().items():
            config["seed"] = seed
            scale(config, arguments.scale)
            config["evaluation"] |= {
                "protocols": ("recognition", "neighbours", "linear"),
                "readouts": (),
                "baselines": (),
            }
            results[name].append(finish(config, arguments.workdir / f"{name}_{seed}"))
    text = tables(results)
    (arguments.workdir / "ablation.json").write_text(json.dumps(results, indent=1))
    (arguments.workdir / "ablation.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    call(main)
