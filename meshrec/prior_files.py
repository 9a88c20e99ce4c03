"""Files of pose priors: safetensors whose header is the prior's configuration; and priors by name."""

from pathlib import Path

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor, nn

from meshrec.assets import find_prior
from meshrec.errors import MeshrecError
from meshrec.skeletons import SMPL24
from meshrec.tensor_files import read_tensors, write_tensors
from priors.build import PriorConfig, build_prior
from priors.prior import Prior
from priors.so3 import nearest_rotations

DEFAULT_PRIOR = "flow"
"""The one that fits use, unless another is asked for."""

QUANTILES = "energy_quantiles"
ROTATION_TOLERANCE = 1e-4

_HEADERS = TypeAdapter(tuple[PriorConfig], config=ConfigDict(extra="forbid"))
"""Of a tuple of one: pydantic takes no rules for a dataclass, but hands a tuple's down to its items."""


def open_prior(name_or_path: str | Path) -> Prior | None:
    """A pose prior by name or path; None for "none"."""
    return None if name_or_path == "none" else read_prior(find_prior(name_or_path))


def write_prior(path: Path, prior: Prior, config: PriorConfig) -> Path:
    """Write a prior that was built from this configuration, whole or not at all."""
    assert isinstance(prior, nn.Module)
    return write_tensors(path, prior.state_dict(), TypeAdapter(PriorConfig).dump_json(config).decode())


def read_prior(path: Path) -> Prior:
    """Read what `write_prior` wrote, on the CPU, without gradients; anything else is refused with the reason."""
    tensors, header = read_tensors(path)
    try:
        (config,) = _HEADERS.validate_json(f"[{header}]")
    except ValidationError as error:
        raise MeshrecError(
            f"{path} is no pose prior: its header is not that of one. Choose another one with --prior."
        ) from error
    if config.joints != len(SMPL24) - 1:
        raise _refused(path, f"it is one of {config.joints} joints, where SMPL has {len(SMPL24) - 1} below the pelvis")
    quantiles = tensors.get(QUANTILES, torch.zeros(0))
    prior = build_prior(config, quantiles=quantiles.numel())
    assert isinstance(prior, nn.Module)
    _check_shapes(path, tensors, prior.state_dict())
    for name, tensor in tensors.items():
        if fault := _fault(name, tensor):
            raise _refused(path, f"its tensor {name} {fault}")
    prior.load_state_dict({name: _exact(name, tensor) for name, tensor in tensors.items()}, assign=True)
    prior.eval().requires_grad_(False)
    assert isinstance(prior, Prior)
    if not _can_be_evaluated(prior):
        raise _refused(path, "its energy or a derivative of it is no finite number at its own mean pose")
    return prior


def _can_be_evaluated(prior: Prior) -> bool:
    """Whether there is a finite energy with finite derivatives at the mean pose."""
    try:
        equations = prior.normal_equations(prior.mean_rotations)
    except RuntimeError:
        return False
    return all(bool(part.isfinite().all()) for part in equations)


def _exact(name: str, tensor: Tensor) -> Tensor:
    """Rotations lose their orthogonality in single precision: every chart would be off by as much."""
    return nearest_rotations(tensor.double()) if name.endswith("mean_rotations") else tensor


def _check_shapes(path: Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name in [*wanted, *found]:
        there, here = (_described(tensors.get(name)) for tensors in (found, wanted))
        if there != here:
            raise _refused(path, f"its tensor {name} is {there}, where a prior of its header has {here}")


def _described(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"


def _fault(name: str, tensor: Tensor) -> str:
    """What no prior's tensor may be; empty where all is well."""
    if tensor.dtype not in (torch.float32, torch.float64):
        return f"is {tensor.dtype}, not float32 or float64"
    if not tensor.isfinite().all():
        return "has values that are not finite"
    match name.rpartition(".")[-1]:
        case "mean_rotations" if not _are_rotations(tensor.double()):
            return "has matrices that are no rotations"
        case "energy_quantiles" if len(tensor) < 2 or bool((tensor.diff() < 0).any()):
            return "must be two or more energies in ascending order"
        case "log_weights" if abs(float(tensor.double().logsumexp(dim=0))) > 1e-3:
            return "must be the logarithms of weights that sum to 1"
        case "whitening" | "whitenings" if not bool((tensor.diagonal(dim1=-2, dim2=-1) > 0).all()):
            return "must have positive diagonals"
        case "whitening" | "whitenings" if bool(tensor.triu(1).any()):
            return "must be lower triangular"
    return ""


def _are_rotations(matrices: Tensor) -> bool:
    identity = torch.eye(3, dtype=matrices.dtype).expand_as(matrices)
    orthogonal = torch.allclose(matrices @ matrices.mT, identity, atol=ROTATION_TOLERANCE)
    return orthogonal and bool((torch.linalg.det(matrices) > 0).all())


def _refused(path: Path, reason: str) -> MeshrecError:
    return MeshrecError(f"{path} is no pose prior that can be read: {reason}. Choose another one with --prior.")
