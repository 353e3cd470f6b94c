"""Accuracy among queued keys that all come from one encoder: `python benchmarks/queue_age.py RUN [RUN ...]`.

While encoders change, a queued key differs from a query's own key by its age, a shortcut of momentum contrast. Here a
run's encoders are held fixed, clips augmented as in training: once new batches fill the queue, the remaining accuracy
is learnt. Prints, for each run, how often the best key is a positive, in its last record and over --batches batches.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import pathlib

import jax
import numpy as np
from runs import call, open_run

from hcml_jax.methods.base import QUEUE


def found(folder: pathlib.Path, count: int) -> dict[str, tuple[float, float, float]]:
    """Metric -> (chance, the run's last training record, the mean over `count` batches of still encoders)."""
    model, typed, data = open_run(folder)
    method = dataclasses.replace(model.method, config=dataclasses.replace(model.method.config, momentum=1.0))
    (stage,) = method.stages
    step = jax.jit(functools.partial(method.loss, stage=stage, train=True))
    size = typed.training.batch_size
    queues = [leaf for leaf in jax.tree.leaves(model.variables[QUEUE]) if leaf.ndim == 2]
    fill = -(-max(map(len, queues)) // size)  # a clip gives one key at least
    batches = data.train_batches(size, seed=typed.seed + 1, stage=stage.name, reads=stage.reads)
    variables, records = dict(model.variables), []
    for number, batch in enumerate(itertools.islice(batches, fill + count)):
        _, outputs = step(variables, batch, jax.random.key(number))
        variables[QUEUE] = outputs.collections[QUEUE]
        records.append(jax.device_get(outputs.metrics))
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    last = [line for line in lines if line["split"] == "train"][-1]
    still = {name: np.mean([record[name] for record in records[fill:]]) for name in last if name in records[0]}
    return {name: (still[chance], last[name], still[name]) for name, chance in stage.chances.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=pathlib.Path, nargs="+")
    parser.add_argument("--batches", type=int, default=32)
    arguments = parser.parse_args()
    print("| found, in per cent | chance | at the end of training | encoders held still |\n|---|---|---|---|")
    for folder in arguments.runs:
        for name, values in found(folder, arguments.batches).items():
            print(f"| {folder.name}, {name} | {' | '.join(f'{100 * value:.1f}' for value in values)} |", flush=True)


if __name__ == "__main__":
    call(main)
