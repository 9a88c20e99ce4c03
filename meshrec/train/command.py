"""The verb `train`: a YAML file names the task, and the command line changes what it says."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from tyro.conf import Positional

from meshrec.config import read_config, task_of
from meshrec.errors import MeshrecError
from meshrec.train.loop import run
from meshrec.train.priors import PriorRun, build_prior_task
from meshrec.train.processes import launched
from meshrec.train.task import Task

SUFFIXES = (".yaml", ".yml")

USAGE = """usage: meshrec train CONFIG.yaml [-o RUN] [settings]

Trains what a YAML file describes into a folder: config.yaml, log.jsonl, the last checkpoint, the best model. The same
command goes on where a stopped run stood. `meshrec train CONFIG.yaml --help` lists every setting of the file's task.

  meshrec train configs/prior_flow.yaml --data POSES.npz -o runs/flow --loop.steps 2000
  torchrun --nproc-per-node 2 -m meshrec train CONFIG.yaml ...      # several processes, the same result
"""


@dataclass(frozen=True)
class Trainable:
    """The configuration of a task, and what makes the task of it."""

    config: type
    build: Callable[[Any, torch.device], Task]


TASKS = {"prior": Trainable(PriorRun, build_prior_task)}


def command(arguments: list[str]) -> int:
    """Train what a YAML file describes; which settings there are depends on the file."""
    file = next((Path(argument) for argument in arguments if argument.endswith(SUFFIXES)), None)
    if file is None and {"-h", "--help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0
    if file is None:
        raise MeshrecError("Name the YAML file of a training, such as configs/prior_flow.yaml.")
    trainable = TASKS[task_of(file, TASKS)]
    written = read_config(file, trainable.config)

    def train(
        config: Positional[Path],
        output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs") / file.stem,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        settings: Annotated[trainable.config, tyro.conf.arg(name="")] = written,  # type: ignore[name-defined]
    ) -> int:
        """Train what a YAML file describes, or go on with it.

        Args:
            config: The YAML file.
            output: The folder of the run.
            device: Where to train.
            settings: What to change of the file.
        """
        with launched(device) as processes:
            return run(trainable.build(settings, processes.device), settings, output, processes).exit_code

    return tyro.cli(train, prog="meshrec train", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
