"""The runs that a benchmark is made of: one after another, or side by side in processes of their own."""

import concurrent.futures
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from hcml_jax.batch import Data
from hcml_jax.config import UserError, build
from hcml_jax.evaluation.compare import read_results
from hcml_jax.experiment import ExperimentConfig, complete, run
from hcml_jax.inference import Model, load
from hcml_jax.training.stopping import Stopped
from hcml_jax.training.workdir import Workdir

Config = dict[str, Any]


def finish(config: Config, workdir: pathlib.Path, mode: str = "train") -> Mapping[str, Any]:
    """The results of a run; one that has stopped goes on, one that is finished is not run again.

    `mode`: of `hcml_jax.experiment.run`; "evaluate" trains nothing and evaluates what `init_from` names.
    """
    if not _finished(config, workdir):
        print(f"== {workdir}", file=sys.stderr, flush=True)
        run(config, str(workdir), mode)
        jax.clear_caches()
    return read_results(workdir)


def _finished(config: Config, workdir: pathlib.Path) -> bool:
    """Whether the run is finished; raises UserError if it has another config."""
    folder = Workdir(workdir)
    folder.check(config=complete(config).to_dict())
    return folder.results.exists() and "unfinished" not in read_results(workdir)


def open_run(folder: pathlib.Path) -> tuple[Model, ExperimentConfig, Data]:
    """A finished run: its network, its config, and its clips.

    Raises:
      UserError: the folder holds no run.
    """
    from data_pipelines import open_data

    model, described = load(folder), Workdir(folder).read()
    config = build(ExperimentConfig, described["config"])
    future = max(stage.reads.future for stage in model.method.stages)
    return model, config, open_data(config.data, None, future=future)


class Processes:
    """Finishes runs in parallel, each in its own process, whose output goes to `log.txt` of its folder.

    A folder that several threads request at the same time is run once.
    """

    def __init__(self, count: int):
        """`count`: how many run at a time.

        Raises:
          UserError: it is not 1 or more.
        """
        if count < 1:
            raise UserError(f"--processes must be 1 or more, not {count}")
        self._free, self._folders, self._stopped = threading.Semaphore(count), {}, False

    def finish(self, config: Config, workdir: pathlib.Path, mode: str = "train") -> Mapping[str, Any]:
        """See `finish`.

        Raises:
          UserError: the run ended early; others go on.
        """
        with self._folders.setdefault(workdir, threading.Lock()):
            if not _finished(config, workdir):
                self._run(config, workdir, mode)
        return read_results(workdir)

    def side_by_side(self, function: Callable[[Any], Any], keys: Sequence[Any]) -> dict[Any, Any]:
        """The result of `function` for each key, called in parallel; after an interruption no more runs begin.

        Raises:
          UserError: what the first of them raised, once the others are finished.
        """
        with concurrent.futures.ThreadPoolExecutor(len(keys)) as threads:
            asked = {key: threads.submit(function, key) for key in keys}
            try:
                concurrent.futures.wait(asked.values())
            except KeyboardInterrupt:
                self._stopped = True
                raise
        return {key: one.result() for key, one in asked.items()}

    def _run(self, config: Config, workdir: pathlib.Path, mode: str) -> None:
        with self._free:
            if self._stopped:
                raise UserError(f"{workdir}: not begun")
            print(f"== {workdir}", file=sys.stderr, flush=True)
            process = multiprocessing.get_context("spawn").Process(target=_run_logged, args=(config, workdir, mode))
            process.start()
            process.join()
        if process.exitcode:
            raise UserError(f"{workdir}: the run ended early ({process.exitcode}); {workdir / 'log.txt'} says why")


def _run_logged(config: Config, workdir: pathlib.Path, mode: str) -> None:
    threading.Thread(target=_follow_parent, daemon=True).start()
    # Processes that share a GPU cannot each take most of its memory at the start, as JAX does unless told.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / "log.txt", "a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        call(lambda: run(config, str(workdir), mode))


def _follow_parent() -> None:
    """Asks this process to stop, as a scheduler would, once the one that began it has ended in any way."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def call(main: Callable[[], None]) -> None:
    """Calls `main`; an expected error or a signal ends in one line, not in a traceback."""
    try:
        main()
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except (UserError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
