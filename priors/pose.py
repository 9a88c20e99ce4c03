"""Binds a density on R^(3 J) to J joint rotations, through the logarithm centred on each joint's mean rotation."""

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.gaussian import Gaussian
from priors.mixture import Mixture
from priors.prior import Density, NormalEquations, half_squared_norm


class PosePrior(nn.Module):
    """A density on phi, phi_j = log(M_j^T R_j) with M_j the joint's mean rotation: an exact density on SO(3)^J.

    log p(R) = log p(phi) - sum over j of log(2 (1 - cos t_j) / t_j^2), t_j = ||phi_j||: the volume that the chart
    stretches. What the density on R^(3 J) has beyond angles of pi is not on SO(3): the little that it is, log_prob is
    too low. At an angle of pi from the mean the chart ends and the energy may jump; nothing there is NaN.
    """

    mean_rotations: Tensor
    energy_quantiles: Tensor

    def __init__(
        self, density: Density, mean_rotations: Float[Tensor, "J 3 3"], energy_quantiles: Float[Tensor, "Q"]
    ) -> None:
        """`energy_quantiles` are the energies of real poses at the levels 0, 1/(Q-1), ..., 1: the scale of `score`."""
        super().__init__()
        self.density = density
        self.register_buffer("mean_rotations", mean_rotations)
        self.register_buffer("energy_quantiles", energy_quantiles)

    def chart(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch J 3"]:
        """phi_j = log(M_j^T R_j), radians."""
        return centred_log(rotations, self.mean_rotations)

    def unchart(self, phi: Float[Tensor, "*batch J 3"]) -> Float[Tensor, "*batch J 3 3"]:
        """R_j = M_j exp(phi_j), the inverse of `chart`."""
        return self.mean_rotations.to(phi) @ roma.rotvec_to_rotmat(phi)

    def log_prob(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """Log-density on SO(3)^J in nats, per radian^3 a joint."""
        phi = self.chart(rotations)
        return self.density.log_prob(phi.flatten(-2)) - log_volume(phi).sum(dim=-1)

    def energy(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """1/2 ||residual||^2."""
        return half_squared_norm(self.residual(rotations))

    def residual(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch E"]:
        """The density's residual at phi."""
        return self.density.residual(self.chart(rotations).flatten(-2))

    def residual_and_jacobian(
        self, rotations: Float[Tensor, "*batch J 3 3"]
    ) -> tuple[Float[Tensor, "*batch E"], Float[Tensor, "*batch E T"]]:
        """The residual and its derivative along the right tangent: (dr/dphi) B, T = 3 J.

        B is block diagonal: phi moves by Jr^-1(phi_j) delta_j when R_j <- R_j exp(delta_j).
        """
        phi = self.chart(rotations)
        residual, jacobian = self.density.residual_and_jacobian(phi.flatten(-2))
        return residual, _pulled_back(inverse_right_jacobian(phi), jacobian.mT).mT

    def normal_equations(self, rotations: Float[Tensor, "*batch J 3 3"]) -> NormalEquations:
        """Energy, gradient B^T g and Gauss-Newton Hessian B^T H B along the right tangent, T = 3 J.

        The same as from `residual_and_jacobian`, without forming the Jacobian.
        """
        phi = self.chart(rotations)
        energy, gradient, hessian = self.density.normal_equations(phi.flatten(-2))
        blocks = inverse_right_jacobian(phi)
        half_way = _pulled_back(blocks, hessian)
        return NormalEquations(
            energy, _pulled_back(blocks, gradient[..., None]).squeeze(dim=-1), _pulled_back(blocks, half_way.mT)
        )

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n} J 3 3"]:
        """Random poses; `temperature` multiplies the standard deviations."""
        return self.unchart(self.density.sample(n, temperature, generator).unflatten(-1, (-1, 3)))

    def score(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """The share of real poses whose energy is higher, 0 to 1, linear between the stored quantiles."""
        energy = self.energy(rotations)
        table = self.energy_quantiles.to(energy)
        right = torch.searchsorted(table, energy.detach()).clamp(1, len(table) - 1)
        width = (table[right] - table[right - 1]).clamp_min(torch.finfo(table.dtype).tiny)
        share_lower = (right - 1 + ((energy - table[right - 1]) / width).clamp(0, 1)) / (len(table) - 1)
        return 1 - share_lower

    def save(self, path: Path) -> None:
        """Write the arrays that `load_prior` reads, as they are; no pickle."""
        density = self.density
        if not isinstance(density, Gaussian | Mixture):
            raise ValueError(f"a prior on {type(density).__name__} has no file format; only Gaussian and Mixture have")
        buffers = dict(density.named_buffers()) | dict(self.named_buffers(recurse=False))
        packed = {name: _packed(value) if name in _TRIANGULAR else value for name, value in buffers.items()}
        arrays = {name: value.detach().cpu().numpy() for name, value in packed.items()}
        np.savez(path, kind=np.array(type(density).__name__.lower()), **arrays)  # type: ignore[arg-type]


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


def _pulled_back(
    blocks: Float[Tensor, "*batch J 3 3"], rows: Float[Tensor, "*batch T N"]
) -> Float[Tensor, "*batch T N"]:
    """B^T rows for the block-diagonal B."""
    return torch.einsum("...jba,...jbn->...jan", blocks, rows.unflatten(-2, (-1, 3))).flatten(-3, -2)


_FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "gaussian": {"mean": ("D",), "whitening": ("T",)},
    "mixture": {"log_weights": ("K",), "means": ("K", "D"), "whitenings": ("K", "T")},
}
_POSE_FIELDS: dict[str, tuple[str, ...]] = {"mean_rotations": ("J", "3", "3"), "energy_quantiles": ("Q",)}
_TRIANGULAR = ("whitening", "whitenings")


def load_prior(path: Path) -> PosePrior:
    """Read what `PosePrior.save` wrote; a file that is anything else is a `ValueError` that names the field."""
    arrays = _arrays(path)
    kind = str(arrays.pop("kind", "absent"))
    if kind not in _FIELDS:
        raise ValueError(f"{path}: kind is {kind!r}; a pose prior's is {' or '.join(_FIELDS)}")
    _check_shapes(path, arrays, _POSE_FIELDS | _FIELDS[kind])
    _check_values(path, arrays)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    mean_rotations = nearest_rotations(tensors.pop("mean_rotations").double())
    quantiles = tensors.pop("energy_quantiles")
    full = {name: _unpacked(value) if name in _TRIANGULAR else value for name, value in tensors.items()}
    return PosePrior(Gaussian(**full) if kind == "gaussian" else Mixture(**full), mean_rotations, quantiles)


_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
"""What numpy and zipfile raise at a damaged or hostile file."""


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with file:
            return {name: np.asarray(file[name]) for name in file.files}
    except _UNREADABLE as error:
        raise ValueError(f"{path} is no pose prior: not a readable .npz without pickles ({error})") from error


def _check_shapes(path: Path, arrays: dict[str, np.ndarray], fields: dict[str, tuple[str, ...]]) -> None:
    """Exactly these fields, each with its named sizes: D = 3 J, and T = D (D + 1) / 2 of a lower triangle."""
    if set(arrays) != set(fields):
        missing, unknown = sorted(set(fields) - set(arrays)), sorted(set(arrays) - set(fields))
        raise ValueError(f"{path}: missing fields: {missing}; unknown fields: {unknown}")
    joints = len(np.atleast_1d(arrays["mean_rotations"]))
    sizes = {"3": 3, "J": joints, "D": 3 * joints, "T": 3 * joints * (3 * joints + 1) // 2}
    for name, axes in fields.items():
        shape = arrays[name].shape
        expected = tuple(sizes.setdefault(axis, size) for axis, size in zip(axes, shape, strict=False))
        if len(shape) != len(axes) or shape != expected or 0 in shape:
            wanted = ", ".join(f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in axes)
            raise ValueError(f"{path}: field {name} has shape {shape}, not ({wanted})")


def _check_values(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.dtype not in (np.float32, np.float64):
            raise ValueError(f"{path}: field {name} is {array.dtype}, not float32 or float64")
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: field {name} has values that are not finite")
    rotations = arrays["mean_rotations"].astype(np.float64)
    laws = {
        "mean_rotations": np.allclose(rotations @ rotations.swapaxes(-1, -2), np.eye(3), atol=1e-4)
        and bool((np.linalg.det(rotations) > 0).all()),
        "energy_quantiles": arrays["energy_quantiles"].size > 1
        and bool((np.diff(arrays["energy_quantiles"]) >= 0).all()),
        "log_weights": abs(np.logaddexp.reduce(arrays.get("log_weights", np.zeros(1)))) < 1e-3,
        **{name: bool((_diagonals(arrays[name]) > 0).all()) for name in _TRIANGULAR if name in arrays},
    }
    for name, holds in laws.items():
        if not holds:
            raise ValueError(f"{path}: field {name} {_LAWS[name]}")


_LAWS = {
    "mean_rotations": "has matrices that are no rotations",
    "energy_quantiles": "must be two or more energies in ascending order",
    "log_weights": "must be the logarithms of weights that sum to 1",
    "whitening": "must have a positive diagonal",
    "whitenings": "must have positive diagonals",
}


def _diagonals(packed: np.ndarray) -> np.ndarray:
    rows, columns = np.tril_indices(_side(packed.shape[-1]))
    return packed[..., rows == columns]


def _packed(square: Float[Tensor, "*batch D D"]) -> Float[Tensor, "*batch T"]:
    """The lower triangle, row by row."""
    rows, columns = torch.tril_indices(*square.shape[-2:])
    return square[..., rows, columns]


def _unpacked(packed: Float[Tensor, "*batch T"]) -> Float[Tensor, "*batch D D"]:
    side = _side(packed.shape[-1])
    rows, columns = torch.tril_indices(side, side)
    square = packed.new_zeros(*packed.shape[:-1], side, side)
    square[..., rows, columns] = packed
    return square


def _side(entries: int) -> int:
    """D of a triangle with D (D + 1) / 2 entries."""
    return (math.isqrt(8 * entries + 1) - 1) // 2
