"""What a prior is: probability on joint rotations, and probability on R^D, which it is built from."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


class NormalEquations(NamedTuple):
    """What a Gauss-Newton step asks of the energy 1/2 ||r||^2: its value, J^T r and J^T J."""

    energy: Float[Tensor, "*batch"]
    gradient: Float[Tensor, "*batch T"]
    hessian: Float[Tensor, "*batch T T"]


@runtime_checkable
class Prior(Protocol):
    """Probability on the rotations of J joints, each relative to its parent.

    Derivatives are along the right tangent: R_j <- R_j exp(delta_j), the 3 J numbers delta in radians. Every method
    takes any leading batch, float32 or float64, and answers in the type and on the device of the rotations.
    """

    @property
    def mean_rotations(self) -> Float[Tensor, "J 3 3"]:
        """The rotations that every chart is centred on, and a fair start for a fit."""
        ...

    def log_prob(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """Log-density on SO(3)^J in nats; the unit of volume is radians^3 a joint (SO(3) has 8 pi^2 of it)."""
        ...

    def energy(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """What a fit minimises: 1/2 ||residual||^2."""
        ...

    def residual(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch E"]:
        """The vector r whose half squared norm is the energy, in standard deviations."""
        ...

    def residual_and_jacobian(
        self, rotations: Float[Tensor, "*batch J 3 3"]
    ) -> tuple[Float[Tensor, "*batch E"], Float[Tensor, "*batch E T"]]:
        """The residual and its derivative along the right tangent, T = 3 J."""
        ...

    def normal_equations(self, rotations: Float[Tensor, "*batch J 3 3"]) -> NormalEquations:
        """Energy, gradient and Gauss-Newton Hessian along the right tangent, T = 3 J."""
        ...

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n} J 3 3"]:
        """Random poses; `temperature` multiplies the standard deviations."""
        ...

    def score(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """The share of real poses, 0 to 1, whose energy is higher: about 1 near the mode, 0 for no human pose."""
        ...


@runtime_checkable
class TrainedPrior(Prior, Protocol):
    """A prior whose parameters are found by gradient descent."""

    @property
    def noise_size(self) -> int:
        """How many standard-normal numbers a pose the loss consumes; none where it is 0."""
        ...

    def loss(
        self, rotations: Float[Tensor, "*batch J 3 3"], noise: Float[Tensor, "*batch L"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """What training minimises: nats a pose, a bound of -log p; `noise` is drawn afresh when it is None."""
        ...

    def bound(
        self, rotations: Float[Tensor, "*batch J 3 3"], noise: Float[Tensor, "*batch K L"]
    ) -> Float[Tensor, "*batch"]:
        """A lower bound of log p on average over noise, the closer the larger K; exact where L is 0."""
        ...


@runtime_checkable
class Chart(Protocol):
    """Coordinates of J rotations in R^D, each joint's own d = D / J of them.

    `lift` gives a point and a weight w with E[p(x) w] = p(R) over standard-normal noise, for every density p on R^D.
    """

    mean_rotations: Tensor

    @property
    def dimension(self) -> int:
        """D."""
        ...

    @property
    def noise_size(self) -> int:
        """How many standard-normal numbers `lift` consumes: 0 where R^D has as many dimensions as SO(3)^J."""
        ...

    def points(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch D"]:
        """The coordinates of the rotations."""
        ...

    def points_and_blocks(
        self, rotations: Float[Tensor, "*batch J 3 3"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch J d 3"]]:
        """The coordinates, and each joint's derivative along the right tangent."""
        ...

    def rotations(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch J 3 3"]:
        """The rotations of a point, of any point."""
        ...

    def lift(
        self, rotations: Float[Tensor, "*batch J 3 3"], noise: Float[Tensor, "*batch L"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch"]]:
        """A point of the rotations, and log w."""
        ...


@runtime_checkable
class Density(Protocol):
    """Probability on R^D; what the methods share with `Prior` means the same, with points for rotations."""

    def log_prob(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        ...

    def residual(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        """The vector r whose half squared norm is the energy."""
        ...

    def residual_and_jacobian(
        self, points: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch E"], Float[Tensor, "*batch E D"]]:
        """The residual and its derivative dr/dx."""
        ...

    def normal_equations(self, points: Float[Tensor, "*batch D"]) -> NormalEquations:
        """Energy, gradient and Gauss-Newton Hessian, T = D."""
        ...

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n} D"]:
        """Random points; `temperature` multiplies the standard deviations."""
        ...


def half_squared_norm(residual: Float[Tensor, "*batch E"]) -> Float[Tensor, "*batch"]:
    """The energy of a residual: 1/2 ||r||^2."""
    return residual.square().sum(dim=-1) / 2


def share_above(energies: Float[Tensor, "*batch"], quantiles: Float[Tensor, "Q"]) -> Float[Tensor, "*batch"]:
    """The share of a distribution above each energy, 0 to 1; its quantiles stand at the levels 0, 1/(Q-1), ..., 1."""
    table = quantiles.to(energies)
    right = torch.searchsorted(table, energies.detach()).clamp(1, len(table) - 1)
    width = (table[right] - table[right - 1]).clamp_min(torch.finfo(table.dtype).tiny)
    return 1 - (right - 1 + ((energies - table[right - 1]) / width).clamp(0, 1)) / (len(table) - 1)


def standard_normal(
    n: int, dimension: int, like: Tensor, generator: torch.Generator | None
) -> Float[Tensor, "{n} {dimension}"]:
    """N(0, I) draws in the type and on the device of `like`, drawn on the device of `generator`."""
    device = like.device if generator is None else generator.device
    return torch.randn(n, dimension, generator=generator, dtype=like.dtype, device=device).to(like.device)
