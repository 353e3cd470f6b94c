"""Trains, evaluates or exports: `python launch.py --config configs/hcml_sprites.py --workdir runs/sprites`.

Any field of the config can be set on the command line: `--config.training.batch_size=32`.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from hcml_jax.command_line import parse

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder: checkpoints, metrics, results.")
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "report", "export"],
    "train: all stages, from where the workdir left off, then evaluate; evaluate: the workdir as it is, or, in a new "
    "one, what config.init_from names; report: the page of what was evaluated; export: the recogniser alone.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "host:port of the first of several processes; Slurm, Open MPI and TPU pods tell it themselves."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "How many processes, with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Which of them this is, from 0.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Runs one experiment; an expected error ends in one line, not in a traceback."""
    if len(argv) > 1:
        sys.exit(f"launch.py takes flags alone; what is {argv[1]!r}?")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # Orbax logs a failure with its traceback several times before raising it.
    logging.get_absl_logger().addFilter(lambda record: not record.exc_info)
    from hcml_jax import cluster
    from hcml_jax.config import UserError
    from hcml_jax.experiment import run
    from hcml_jax.training.stopping import Stopped

    try:
        cluster.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        with cluster.noticing_lost_partners():
            run(_CONFIG.value.to_dict(), _WORKDIR.value, _MODE.value)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except (UserError, OSError) as error:
        cluster.end(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
