"""The files of a run: `last`, from which it goes on, and the best models so far."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError, with_config
from torch import Tensor, nn

from meshrec.errors import MeshrecError
from meshrec.tensor_files import read_tensors, write_tensors

LAST = "last.safetensors"
LEFT_BEHIND = re.compile(r"best_(\d+)\.safetensors|\.(last|best_\d+)-.*\.safetensors")
"""The best models, and what a killed process left of any checkpoint half written."""


@dataclass(frozen=True)
class Best:
    """One of the best models: what the selecting figure was, and after how many steps."""

    figure: float
    step: int

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"best_{self.step:08d}.safetensors"


@with_config(extra="forbid")
@dataclass(frozen=True)
class State:
    """Where a run stands, tensors apart."""

    step: int = 0
    """Steps done."""
    stale: int = 0
    """Validations since the last one that was the best so far, or since the last drop."""
    best: tuple[Best, ...] = ()
    """From the best on."""
    recent: tuple[str, ...] = ()
    """What the columns of the tensor `recent` are: the losses since the last line of the log."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The configuration, flat."""
    fingerprint: str = ""
    """The task's: what data it learns from."""
    dropped: int = 0
    """How often training went back to the best model, with a lower rate."""


@with_config(extra="forbid")
@dataclass(frozen=True)
class Card:
    """What the file of a best model says of it."""

    step: int
    figures: dict[str, float]
    settings: dict[str, Any]


Header = TypeVar("Header", State, Card)
_ADAPTERS: dict[type, TypeAdapter] = {kind: TypeAdapter(kind) for kind in (State, Card)}


class Checkpoints:
    """The checkpoints in the folder of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def last(self) -> Path:
        """The file from which the run goes on."""
        return self.folder / LAST

    def read_last(self) -> tuple[State, dict[str, Tensor]] | None:
        """Where the run stands, if it has begun."""
        return read_checkpoint(self.last, State) if self.last.exists() else None

    def write_last(self, state: State, tensors: Mapping[str, Tensor]) -> None:
        """Replace `last`, and only then remove best models that it no longer lists: a kill at any time loses none."""
        write_checkpoint(self.last, state, tensors)
        self.sweep(state.best)

    def write_best(self, best: Best, model: nn.Module, card: Card) -> Path:
        """The weights and buffers of one of the best models, under the names that the model gives them."""
        return write_checkpoint(self.folder / best.file, card, model.state_dict())

    def sweep(self, best: tuple[Best, ...]) -> None:
        """Remove what a run leaves behind, except the best."""
        kept = {one.file for one in best}
        for path in self.folder.iterdir():
            if LEFT_BEHIND.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)

    def refuse_orphans(self) -> None:
        """A `MeshrecError` where best models lie without the `last` that lists them: a new run would remove them."""
        orphans = sorted(path.name for path in self.folder.glob("best_*.safetensors"))
        if orphans and not self.last.exists():
            raise MeshrecError(
                f"{self.folder} holds {', '.join(orphans)} of an earlier run but no {LAST} to go on from. Move them "
                f"away, or choose another folder with -o DIR."
            )


def write_checkpoint(path: Path, header: State | Card, tensors: Mapping[str, Tensor]) -> Path:
    """Tensors, and what is to be said of them."""
    return write_tensors(path, tensors, _ADAPTERS[type(header)].dump_json(header).decode())


def read_checkpoint(path: Path, kind: type[Header]) -> tuple[Header, dict[str, Tensor]]:
    """The header and the tensors of a file, on the CPU."""
    tensors, header = read_tensors(path)
    try:
        return _ADAPTERS[kind].validate_json(header), tensors
    except ValidationError as error:
        raise MeshrecError(f"{path} was not written by this training loop. Take another checkpoint.") from error


def load_best(path: Path, model: nn.Module) -> Card:
    """Put the weights of one of the best models into a model of the same build; returns what the file says of them."""
    card, tensors = read_checkpoint(path, Card)
    put_tensors(tensors, model, str(path))
    return card


def put_tensors(tensors: Mapping[str, Tensor], model: nn.Module, where: str) -> None:
    """Copy tensors into a model; the first one that does not fit is named in a `MeshrecError`."""
    wanted = model.state_dict()
    for name in [*wanted, *tensors]:
        there, here = (_described(found.get(name)) for found in (tensors, wanted))
        if there != here:
            raise MeshrecError(
                f"{where} is of another model: its tensor {name} is {there}, where the model to load has {here}. "
                f"Take the file of the same task and settings."
            )
    model.load_state_dict(dict(tensors))


def _described(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
