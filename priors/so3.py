"""Rotations as densities see them: logarithms about a mean, their volume, their derivative."""

import roma
import torch
from jaxtyping import Float
from torch import Tensor


def centred_log(
    rotations: Float[Tensor, "*batch J 3 3"], mean_rotations: Float[Tensor, "J 3 3"]
) -> Float[Tensor, "*batch J 3"]:
    """log(M_j^T R_j): rotation vectors of at most pi radians, zero at the mean rotation."""
    return roma.rotmat_to_rotvec(mean_rotations.to(rotations).mT @ rotations)


def mean_rotations_of(rotations: Float[Tensor, "N J 3 3"], weights: Float[Tensor, "N"]) -> Float[Tensor, "J 3 3"]:
    """The chordal mean of each joint: the rotation nearest to the weighted mean matrix."""
    return nearest_rotations(torch.einsum("n,njab->jab", weights / weights.sum(), rotations))


def nearest_rotations(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation at the least Frobenius distance of each matrix."""
    rotations = roma.special_procrustes(matrices)
    assert isinstance(rotations, Tensor)
    return rotations


def log_volume(phi: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
    """log(2 (1 - cos t) / t^2), t = ||phi||: volume on SO(3) per volume in its logarithm, as (sin(t/2) / (t/2))^2."""
    return 2 * torch.sinc(phi.norm(dim=-1) / (2 * torch.pi)).log()


def inverse_right_jacobian(phi: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Jr^-1: log(exp(phi) exp(delta)) = phi + Jr^-1(phi) delta + O(delta^2), for angles up to pi.

    Jr^-1 = I + [phi]/2 + c [phi]^2 with c = (1 - t/2 cot(t/2)) / t^2 (Chirikjian, Stochastic Models, vol. 2, 10.86).
    """
    squared = phi.square().sum(dim=-1)
    c = _curvature(squared)[..., None, None]
    x, y, z = (phi / 2).unbind(dim=-1)
    diagonal = 1 - c[..., 0, 0] * squared
    rows = [diagonal, -z, y, z, diagonal, -x, -y, x, diagonal]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3)) + c * phi[..., :, None] * phi[..., None, :]


def _curvature(squared: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(1 - t/2 cot(t/2)) / t^2 of t^2, by its series below 0.1 rad."""
    small = squared < 1e-2
    safe = torch.where(small, torch.ones_like(squared), squared)
    half = safe.sqrt() / 2
    series = 1 / 12 + squared * (1 / 720 + squared * (1 / 30240 + squared / 1209600))
    return torch.where(small, series, (1 - half * half.cos() / half.sin()) / safe)
