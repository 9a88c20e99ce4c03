"""The processes that train together: which one this is, what it works on, and how they agree."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from meshrec.errors import MeshrecError

PATIENCE = timedelta(hours=6)
"""How long processes wait for the first one while it validates."""


LAUNCH = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells every process."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class Share:
    """One of `count` equal parts of the global batch."""

    index: int = 0
    count: int = 1

    def rows(self, batch: int) -> slice:
        """Its rows among the `batch` rows of the global batch."""
        return slice(self.index * batch // self.count, (self.index + 1) * batch // self.count)


@dataclass(frozen=True)
class Processes:
    """This process among all: gradients are averaged over them, and the first alone writes and validates.

    Averaging with a plain `all_reduce` after the backward pass, not with DistributedDataParallel: it is exact, and asks
    nothing of how a task calls its networks, how many phases it has, or how often it runs backward in a step.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def shares(self, parts: int) -> list[Share]:
        """What this process works on, in `parts` pieces."""
        return [Share(self.rank * parts + part, self.count * parts) for part in range(parts)]

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the processes, in one message."""
        if self.count == 1:
            return
        message = torch.cat([tensor.flatten() for tensor in tensors])
        with _peers():
            dist.all_reduce(message)
        message /= self.count
        for tensor, mean in zip(tensors, message.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def follow_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of the first process."""
        if self.count > 1:
            with _peers():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def told(self, value: Any) -> Any:
        """What the first process says."""
        return self.all_told(value)[0]

    def all_told(self, value: Any) -> list[Any]:
        """What every process says, by rank."""
        answers = [value] * self.count
        if self.count > 1:
            with _peers():
                dist.all_gather_object(answers, value)
        return answers

    def all_make(self, make: Callable[[], Made]) -> Made:
        """What `make` gives; the `MeshrecError` of one process is raised in all."""
        made, trouble = None, None
        try:
            made = make()
        except MeshrecError as error:
            trouble = str(error)
        for told in self.all_told(trouble):
            if told is not None:
                raise MeshrecError(told)
        return cast(Made, made)

    def highest(self, value: int) -> int:
        """The highest of the processes' numbers."""
        if self.count == 1:
            return value
        answer = torch.tensor(value)
        with _peers():
            dist.all_reduce(answer, dist.ReduceOp.MAX)
        return int(answer)


@contextmanager
def _peers() -> Iterator[None]:
    """Say in a sentence that a process is lost, which torch says in a page."""
    try:
        yield
    except RuntimeError as error:
        raise MeshrecError(
            "Another process of this training has ended or cannot be reached. Look for what it said; the same command "
            "goes on from the last checkpoint."
        ) from error


@contextmanager
def launched(device: Literal["auto", "cpu", "cuda"] = "auto") -> Iterator[Processes]:
    """The processes that `torchrun` started (gloo on CPUs, nccl between GPUs), or this one alone."""
    if device == "cuda" and not torch.cuda.is_available():
        raise MeshrecError("There is no CUDA device here; leave the device to be chosen, or choose cpu.")
    cuda = device != "cpu" and torch.cuda.is_available()
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    told = [name for name in LAUNCH if name in os.environ]
    if not {"RANK", "WORLD_SIZE"} & set(told):
        yield Processes(device=place)
        return
    if len(told) < len(LAUNCH):
        missing = ", ".join(name for name in LAUNCH if name not in told)
        raise MeshrecError(
            f"The environment has {', '.join(told)} but not {missing}. Start with torchrun, which sets them all, or "
            f"unset these to train in one process."
        )
    # Its functions keep the group they find when imported, and with it gloo's threads, which may abort the exit.
    import_module("torch.distributed.nn.functional")
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()
