"""The one place where a prior is put together from the numbers of its configuration."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from priors.charts import CentredLog, SixD
from priors.flow import Flow, FlowConfig
from priors.gaussian import Gaussian
from priors.mixture import Mixture
from priors.pose import PosePrior
from priors.prior import Chart, Density, Prior
from priors.student import StudentT
from priors.vae import VAE, VAEConfig

MOST = 10_000
"""No size is larger: what a file's header says cannot fill the memory."""

DEEPEST = 100
"""No flow has more activations."""


@dataclass(frozen=True)
class BaseConfig:
    """What a flow's latent coordinates are drawn from."""

    kind: Literal["normal", "student"] = "student"
    """N(0, I), or Student's t with the three coordinates of a joint as one block."""
    dof: float = 8.0
    """Student's degrees of freedom before training."""

    def __post_init__(self) -> None:
        if not 0 < self.dof < math.inf:
            raise ValueError(f"dof must be above 0 and finite; found {self.dof}")


@dataclass(frozen=True)
class PriorConfig:
    """Which prior on joint rotations, and of what size."""

    kind: Literal["gaussian", "mixture", "flow", "vae"] = "flow"
    joints: int = 23
    chart: Literal["centred_log", "six_d"] = "centred_log"
    """Coordinates of the rotations, three or six numbers a joint; a VAE has its own."""
    components: int = 8
    """Of a mixture."""
    flow: FlowConfig = field(default_factory=FlowConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)

    def __post_init__(self) -> None:
        sizes = {
            "joints": self.joints,
            "components": self.components,
            "flow.hidden": self.flow.hidden,
            "vae.latent": self.vae.latent,
            "vae.hidden": self.vae.hidden,
            "vae.draws": self.vae.draws,
        }
        for name, size in sizes.items():
            if not 1 <= size <= MOST:
                raise ValueError(f"{name} is {size}; it must be from 1 to {MOST}")
        if self.flow.depth > DEEPEST:
            raise ValueError(f"flow.depth is {self.flow.depth}; it must be {DEEPEST} or less")


def build_prior(config: PriorConfig, generator: torch.Generator | None = None, quantiles: int = 2) -> Prior:
    """The prior before it has seen a pose: standard normal, or random parameters."""
    energies = torch.zeros(quantiles)
    if config.kind == "vae":
        return VAE(config.joints, config.vae, generator, energies)
    means = torch.eye(3).repeat(config.joints, 1, 1)
    chart: Chart = CentredLog(means) if config.chart == "centred_log" else SixD(means)
    return PosePrior(chart, _density(config, chart.dimension, generator), energies)


def _density(config: PriorConfig, dimension: int, generator: torch.Generator | None) -> Density:
    zero, identity = torch.zeros(dimension), torch.eye(dimension)
    match config.kind:
        case "gaussian":
            return Gaussian(zero, identity)
        case "mixture":
            weights = torch.full((config.components,), 1 / config.components).log()
            return Mixture(weights, zero.repeat(config.components, 1), identity.repeat(config.components, 1, 1))
        case "flow":
            return Flow(dimension, config.flow, _base(config, dimension), generator)
    raise ValueError(f"there is no prior of the kind {config.kind!r}")


def _base(config: PriorConfig, dimension: int) -> Density | None:
    block = dimension // config.joints
    return None if config.base.kind == "normal" else StudentT(dimension, block, config.base.dof)
