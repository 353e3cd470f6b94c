"""Shortcuts in FIMA's tasks: `python benchmarks/fima_shortcuts.py RUN [RUN ...] [--split val]`.

L_Pix is meant to find a place by what moves there, L_Fra a half by how it moves; position alone may suffice for both.
The clips of a split are changed so that the answers differ, and a trained network is tested again, unaugmented:

- L_Pix: the other clip is shifted by one place to the right, with wrap-around. A network that matches content finds it
  one place further on; one that matches position does not. Or the other clip is of another video, which shows nothing
  of this one: only position can then be matched.
- L_Fra: the second half of a clip is its first half reversed, with the same positions and other motion; or it is the
  first half shifted by one place, with the same motion and other positions.
"""

import argparse
import functools
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from runs import call, open_run

from hcml_jax.batch import Batch
from hcml_jax.config import UserError
from hcml_jax.methods.fima import FIMA
from hcml_jax.methods.fima_config import FRAME, PIXEL

BATCH = 16


def moved(batch: Batch, pixels: int) -> Batch:
    """The second clip of each video moved to the right, round the border, and its box with it."""
    clip, box = batch.clip.copy(), batch.box.copy()
    clip[:, 1] = np.roll(clip[:, 1], pixels, axis=3)
    box[:, 1, 1] -= pixels * box[:, 1, 3] / clip.shape[4]
    return batch._replace(clip=clip, box=box)


def at_the_same_position(batch: Batch, pixels: int) -> Batch:
    """As `moved`, but the box is unchanged: the correct answer is the same position."""
    return moved(batch, pixels)._replace(box=batch.box)


def of_another_video(batch: Batch, pixels: int) -> Batch:
    """Replace the second clip of each video by that of another video, with the box of the first clip."""
    del pixels
    clip, box = batch.clip.copy(), batch.box.copy()
    clip[:, 1], box[:, 1] = np.roll(clip[:, 1], 1, axis=0), box[:, 0]
    return batch._replace(clip=clip, box=box)


def backwards(batch: Batch, pixels: int) -> Batch:
    """The second half of each clip is its first half backwards."""
    del pixels
    return _second_half(batch, lambda first: first[:, :, ::-1])


def elsewhere(batch: Batch, pixels: int) -> Batch:
    """The second half of each clip is its first half moved to the right, round the border."""
    return _second_half(batch, lambda first: np.roll(first, pixels, axis=4))


def _second_half(batch: Batch, of: Callable[[np.ndarray], np.ndarray]) -> Batch:
    first = batch.clip[:, :, : batch.clip.shape[2] // 2]
    return batch._replace(clip=np.concatenate([first, of(first)], axis=2))


QUESTIONS = {
    "a place, as clips are": (PIXEL, lambda batch, _: batch),
    "the place that shows the same, the other clip moved by one": (PIXEL, moved),
    "the place at the same position, the other clip moved by one": (PIXEL, at_the_same_position),
    "the place at the same position, the other clip of another video": (PIXEL, of_another_video),
    "a half, as clips are": (FRAME, lambda batch, _: batch),
    "a half by its motion: the second is the first backwards": (FRAME, backwards),
    "a half by where it is: the second is the first moved": (FRAME, elsewhere),
}


def answers(folder: pathlib.Path, split: str) -> dict[str, tuple[float, float]]:
    """Question -> (chance, how often the answer is right), among the places or halves of the clip."""
    model, _, data = open_run(folder)
    if not isinstance(model.method, FIMA):
        raise UserError(f"{folder} holds no run of the method 'fima'")
    (stage,) = model.method.stages
    backbone = model.method.config.backbone.bare
    pixels = backbone.feature_spec[backbone.stages[-1]].strides[2]
    ask = jax.jit(functools.partial(model.method.loss, stage=stage, train=False))
    found = {question: [] for question in QUESTIONS}
    for batch in data.eval_batches(split, BATCH, reads=stage.reads):
        if not batch.valid.all():
            continue  # the last batch, filled up
        for question, (term, change) in QUESTIONS.items():
            if term in stage.terms:
                _, outputs = ask(model.variables, change(batch, pixels), jax.random.key(0))
                found[question].append([outputs.metrics[f"{term}/{kind}_in_clip"] for kind in ("chance", "top1")])
    return {question: tuple(np.mean(values, axis=0)) for question, values in found.items() if values}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=pathlib.Path, nargs="+")
    parser.add_argument("--split", default="val")
    arguments = parser.parse_args()
    print("| found among those of its clip, in per cent | chance | found |\n|---|---|---|")
    for folder in arguments.runs:
        for question, values in answers(folder, arguments.split).items():
            print(f"| {folder.name}, {question} | {' | '.join(f'{100 * value:.1f}' for value in values)} |", flush=True)


if __name__ == "__main__":
    call(main)
