"""Coordinates of joint rotations: the centred logarithm in R^(3 J), and two columns of each matrix in R^(6 J)."""

import math

import roma
import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.so3 import centred_log, inverse_right_jacobian, log_volume

COLUMN_SPREAD = 0.1
"""Standard deviation of the lift's noise: of each column's log norm, and of the shear."""


class CentredLog(nn.Module):
    """phi_j = log(M_j^T R_j), M_j the joint's mean rotation; the volume it stretches is known, so densities are exact.

    What a density on R^(3 J) has beyond angles of pi is not on SO(3): the little that it is, p(R) is too low. At an
    angle of pi from the mean the chart ends and the energy may jump; nothing there is NaN.
    """

    mean_rotations: Tensor

    def __init__(self, mean_rotations: Float[Tensor, "J 3 3"]) -> None:
        super().__init__()
        self.register_buffer("mean_rotations", mean_rotations)

    @property
    def dimension(self) -> int:
        """3 J."""
        return 3 * len(self.mean_rotations)

    @property
    def noise_size(self) -> int:
        """None is needed."""
        return 0

    def points(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch D"]:
        """phi, radians."""
        return centred_log(rotations, self.mean_rotations).flatten(-2)

    def points_and_blocks(
        self, rotations: Float[Tensor, "*batch J 3 3"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch J 3 3"]]:
        """phi, and Jr^-1(phi_j): what phi_j moves by when R_j <- R_j exp(delta_j)."""
        phi = centred_log(rotations, self.mean_rotations)
        return phi.flatten(-2), inverse_right_jacobian(phi)

    def rotations(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch J 3 3"]:
        """R_j = M_j exp(phi_j)."""
        return self.mean_rotations.to(points) @ roma.rotvec_to_rotmat(points.unflatten(-1, (-1, 3)))

    def lift(
        self, rotations: Float[Tensor, "*batch J 3 3"], noise: Float[Tensor, "*batch L"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch"]]:
        """phi, and -sum over j of log(2 (1 - cos t_j) / t_j^2), t_j = ||phi_j||."""
        phi = centred_log(rotations, self.mean_rotations)
        return phi.flatten(-2), -log_volume(phi).sum(dim=-1)


class SixD(nn.Module):
    """The first two columns of each matrix (Zhou et al., CVPR 2019), row by row: 6 J numbers for 3 J freedoms.

    Poses fill no volume of R^(6 J), so `lift` gives the columns random norms r1, r2 and a shear s, x = [r1 b1, s b1 +
    r2 b2], which Gram-Schmidt takes away again. Its volume element is r1^2 r2 dr1 ds dr2 dR.
    """

    mean_rotations: Tensor

    def __init__(self, mean_rotations: Float[Tensor, "J 3 3"]) -> None:
        super().__init__()
        self.register_buffer("mean_rotations", mean_rotations)

    @property
    def dimension(self) -> int:
        """6 J."""
        return 6 * len(self.mean_rotations)

    @property
    def noise_size(self) -> int:
        """Two norms and a shear a joint."""
        return 3 * len(self.mean_rotations)

    def points(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch D"]:
        """The columns b1, b2 as they are."""
        return rotations[..., :2].flatten(-3)

    def points_and_blocks(
        self, rotations: Float[Tensor, "*batch J 3 3"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch J 6 3"]]:
        """The columns, and what they move by when R_j <- R_j exp(delta_j): R_j [delta]."""
        b1, b2, b3 = rotations.unbind(dim=-1)
        zero = torch.zeros_like(b1)
        by_b1 = torch.stack([zero, -b3, b2], dim=-1)
        by_b2 = torch.stack([b3, zero, -b1], dim=-1)
        return self.points(rotations), torch.stack([by_b1, by_b2], dim=-2).flatten(-3, -2)

    def rotations(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch J 3 3"]:
        """Gram-Schmidt of the columns."""
        rotations = roma.special_gramschmidt(points.unflatten(-1, (-1, 3, 2)))
        assert isinstance(rotations, Tensor)
        return rotations

    def lift(
        self, rotations: Float[Tensor, "*batch J 3 3"], noise: Float[Tensor, "*batch L"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch"]]:
        """x, and log(r1^2 r2) - log q(r1, s, r2): norms are log-normal about 1, the shear is normal about 0."""
        normal = noise.unflatten(-1, (-1, 3))
        log_r1, shear, log_r2 = (COLUMN_SPREAD * normal).unbind(dim=-1)
        b1, b2 = rotations[..., 0], rotations[..., 1]
        first = log_r1.exp()[..., None] * b1
        second = shear[..., None] * b1 + log_r2.exp()[..., None] * b2
        log_density = -normal.square().sum(dim=-1) / 2 - 3 * math.log(COLUMN_SPREAD * math.sqrt(2 * math.pi))
        log_weight = 3 * log_r1 + 2 * log_r2 - log_density
        return torch.stack([first, second], dim=-1).flatten(-3), log_weight.sum(dim=-1)
