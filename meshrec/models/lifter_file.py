"""Files of lifters: safetensors whose header is the lifter's configuration."""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from meshrec.assets import find_lifter
from meshrec.errors import MeshrecError
from meshrec.models.lifting import seen_everywhere
from meshrec.models.network_tensors import as_stored, run_settings
from meshrec.models.vae_lifter import LifterConfig, VaeLifter
from meshrec.tensor_files import read_tensors, write_tensors

DEFAULT_LIFTER = "lift"
"""The one that ships."""

OURS = "lifter."
"""What the names of a lifter's tensors and settings begin with in a training run's files."""

_HEADERS = TypeAdapter(tuple[LifterConfig], config=ConfigDict(extra="forbid"))
"""Of a tuple of one: pydantic takes no rules for a dataclass, but hands a tuple's down to its items."""


def open_lifter(name_or_path: str | Path = DEFAULT_LIFTER) -> VaeLifter:
    """A lifter by name or path."""
    return read_lifter(find_lifter(name_or_path))


def write_lifter(path: Path, lifter: VaeLifter) -> Path:
    """Write a lifter whole or not at all: what it learned in float16, its statistics in float32."""
    state, parameters = lifter.state_dict(), dict(lifter.named_parameters())
    if mismatch := _mismatch(state, _empty(lifter.config).state_dict()):
        raise ValueError(f"only a lifter as it was built can be written, not a folded one: {mismatch}")
    stored = {name: as_stored(tensor, name in parameters) for name, tensor in state.items()}
    for name, tensor in stored.items():
        if not tensor.isfinite().all():
            raise ValueError(f"the lifter's {name} has values that are not finite in {tensor.dtype}")
    return write_tensors(path, stored, TypeAdapter(LifterConfig).dump_json(lifter.config).decode())


def read_lifter(path: Path) -> VaeLifter:
    """What `write_lifter` wrote, or the best model of a training run, on the CPU, in float32 and without gradients.

    All else is refused with the reason.
    """
    tensors, header = read_tensors(path)
    try:
        (config,) = _HEADERS.validate_json(f"[{run_settings(header, OURS) or header}]")
    except ValidationError as error:
        raise MeshrecError(f"{path} is no lifter: its header is not that of one. Choose another file.") from error
    if any(name.startswith("optimizer/") for name in tensors):
        raise MeshrecError(f"{path} is the last checkpoint of a run; give the file best_*.safetensors beside it.")
    if run_settings(header, OURS):
        tensors = {name.removeprefix(OURS): one for name, one in tensors.items() if name.startswith(OURS)}
    lifter = _empty(config)
    if mismatch := _mismatch(tensors, lifter.state_dict()):
        raise _refused(path, mismatch)
    for name, tensor in tensors.items():
        if fault := _fault(name, tensor):
            raise _refused(path, f"its tensor {name} {fault}")
    floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    lifter.load_state_dict(floats, assign=True)
    lifter.eval().requires_grad_(False)
    if not _can_lift(lifter):
        raise _refused(path, "what it lifts is no finite number")
    return lifter


def _empty(config: LifterConfig) -> VaeLifter:
    """A lifter without memory: what a header asks for costs nothing."""
    with torch.device("meta"):
        return VaeLifter(config)


def _mismatch(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The first tensor that differs in kind or shape from what a lifter of the header has; empty where none does."""
    for name in [*wanted, *found]:
        there, here = (_described(tensors.get(name)) for tensors in (found, wanted))
        if there != here:
            return f"its tensor {name} is {there}, where a lifter of its header has {here}"
    return ""


def _described(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    return f"{'fractions' if tensor.is_floating_point() else 'integers'} of shape {tuple(tensor.shape)}"


def _fault(name: str, tensor: Tensor) -> str:
    """What no lifter's tensor may be; empty where all is well."""
    if not tensor.isfinite().all():
        return "has values that are not finite"
    match name.rpartition(".")[-1]:
        case "path" if not float(tensor) > 0:
            return "must be above 0"
        case "squares" if bool((tensor < 0).any()) or not float(tensor.sum()) > 0:
            return "must be 0 or more, and not all 0"
        case "running_var" if bool((tensor < 0).any()):
            return "must be 0 or more"
    return ""


def _can_lift(lifter: VaeLifter) -> bool:
    points = (lifter.squares / 2).sqrt()[:, None].expand(-1, 2)
    lifted = lifter(points, seen_everywhere(points))
    return all(bool(part.isfinite().all()) for part in (lifted.joints, lifted.distance, lifted.log_variance))


def _refused(path: Path, reason: str) -> MeshrecError:
    return MeshrecError(f"{path} is no lifter that can be read: {reason}. Choose another file.")
