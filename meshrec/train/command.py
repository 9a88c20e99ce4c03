"""The verb `train`: a YAML file names the task, and the command line changes what it says."""

import importlib
import sys
from pathlib import Path
from typing import Annotated, Literal

from meshrec.errors import MeshrecError

USAGE = """usage: meshrec train CONFIG.yaml [-o RUN] [settings]

Trains what a YAML file describes into a folder: config.yaml, log.jsonl, the last checkpoint, the best model. The same
command goes on where a stopped run stood. `meshrec train CONFIG.yaml --help` lists every setting of the file's task.

  meshrec train configs/prior_flow.yaml --data POSES.npz -o runs/flow --loop.steps 2000
  torchrun --nproc-per-node 2 -m meshrec train CONFIG.yaml ...      # several processes, the same result
"""

TASKS = {
    "lift": ("meshrec.train.lift", "LiftRun", "build_lift_task"),
    "mesh": ("meshrec.train.mesh", "MeshRun", "build_mesh_task"),
    "prior": ("meshrec.train.priors", "PriorRun", "build_prior_task"),
}
"""For each task its module, and there the configuration and what makes the task of it."""


def command(arguments: list[str]) -> int:
    """Train what a YAML file describes; which settings there are depends on the file, so it comes first."""
    first = arguments[0] if arguments else ""
    if first and not first.startswith("-"):
        return _train(Path(first), arguments[1:])
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0
    raise MeshrecError(
        f"Name the YAML file of a training first, as in `meshrec train configs/prior_flow.yaml`; "
        f"found {first or 'nothing'}."
    )


def _train(file: Path, arguments: list[str]) -> int:
    import tyro

    from meshrec.config import checked_config, read_config, task_of
    from meshrec.train.loop import run
    from meshrec.train.processes import launched

    module, kind, build = TASKS[task_of(file, TASKS)]
    task = importlib.import_module(module)
    written = read_config(file, getattr(task, kind))

    def train(
        output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs") / file.stem,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        settings: Annotated[type(written), tyro.conf.arg(name="")] = written,  # type: ignore[name-defined]
    ) -> int:
        """Train what a YAML file describes, or go on with it.

        Args:
            output: The folder of the run.
            device: Where to train.
            settings: What to change of the file.
        """
        config = checked_config(settings, "The command line")
        with launched(device) as processes:
            made = processes.all_make(lambda: getattr(task, build)(config, processes.device))
            return run(made, config, output, processes).exit_code

    return tyro.cli(train, prog=f"meshrec train {file}", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
