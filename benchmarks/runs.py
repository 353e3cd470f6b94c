"""The runs that a benchmark is made of."""

import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax

from hcml_jax.config import UserError
from hcml_jax.evaluation.compare import read_results
from hcml_jax.experiment import complete, run
from hcml_jax.training.workdir import Workdir


def finish(config: dict[str, Any], workdir: pathlib.Path) -> Mapping[str, Any]:
    """The results of a run; one that has stopped goes on, one that is finished is not run again."""
    folder = Workdir(workdir)
    folder.check(config=complete(config).to_dict())
    if not folder.results.exists() or "unfinished" in read_results(workdir):
        print(f"== {workdir}", file=sys.stderr, flush=True)
        run(config, str(workdir), "train")
        jax.clear_caches()
    return read_results(workdir)


def call(main: Callable[[], None]) -> None:
    """Calls `main`; an expected error ends in one line, not in a traceback."""
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
