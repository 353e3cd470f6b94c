"""Published datasets: their annotations, as they are published, turned into tables (docs/datasets.md)."""

from collections.abc import Callable
from pathlib import Path

from data_pipelines.datasets import diving48, hmdb51, kinetics, something, ucf101
from data_pipelines.datasets.annotated import Annotated

DATASETS: dict[str, Callable[[Path], Annotated]] = {
    "diving48": diving48.read,
    "hmdb51": hmdb51.read,
    "kinetics400": kinetics.read_400,
    "kinetics600": kinetics.read_600,
    "something_v1": something.read_v1,
    "something_v2": something.read_v2,
    "ucf101": ucf101.read,
}
"""Name -> a function that reads the annotations below a folder and finds the videos there."""
