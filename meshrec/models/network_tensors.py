"""Tensors of a file held against those of a network: what fits, and the first that does not."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from meshrec.errors import MeshrecError


def run_settings(header: str, prefix: str) -> str:
    """A network's own configuration in the header of a run's best model, which holds the whole run's; else empty."""
    try:
        settings = json.loads(header)["settings"]
        own = {name.removeprefix(prefix): value for name, value in settings.items() if name.startswith(prefix)}
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
    return json.dumps(own) if own else ""


def as_stored(tensor: Tensor, learned: bool) -> Tensor:
    """A tensor as files hold it: what was learned in half precision, statistics in single, integers as they are."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.half() if learned else tensor.float()


def first_mismatch(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The first tensor that is missing, unknown, of another kind or shape, in words; empty where all fit."""
    for name in [*wanted, *found]:
        there, here = (_described(tensors.get(name)) for tensors in (found, wanted))
        if there != here:
            return f"its tensor {name} is {there}, where the network has {here}"
    return ""


def put_checked(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, strict: bool = True) -> None:
    """Load tensors that fit, in single precision, without another copy; a number that is not finite is refused."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise refused(path, f"its tensor {name} has values that are not finite")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise refused(path, f"its tensor {name} must be 0 or more")
    floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    network.load_state_dict(floats, strict=strict, assign=strict)


def refused(path: Path, reason: str) -> MeshrecError:
    """What is said of a file that cannot be loaded."""
    return MeshrecError(f"{path} does not fit: {reason}. Choose another file.")


def _described(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    return f"{'fractions' if tensor.is_floating_point() else 'integers'} of shape {tuple(tensor.shape)}"
