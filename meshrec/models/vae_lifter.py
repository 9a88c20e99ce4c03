"""The VAE-GAN lifter: a variational autoencoder from 2D poses to 3D, and the discriminator that trains it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu, mish
from torch.nn.utils.fusion import fuse_linear_bn_eval

from meshrec.config import require_range
from meshrec.models.lifting import (
    mean_path,
    mean_squares,
    on_rays,
    project_units,
    size_of,
    with_root,
    zeroed,
)
from meshrec.skeletons import H36M17
from meshrec.types import Batched

Precision = Literal["float32", "bfloat16"]

DISTANCE = 10.0
"""The thesis's c: units from the camera to the pelvis."""
DISTANCE_REACH = 0.5
"""A learned distance is at most e^0.5 times the expected one, or that much less."""
ELEVATION_REACH_RAD = 0.7
"""No learned elevation is beyond."""
LOG_VARIANCE_REACH = 10.0
SLOPE = 0.01
"""Of the leaky ReLU; every start is Kaiming's for it."""
MOST = 10_000
DEEPEST = 100
"""No layer is wider and no network deeper: what a file's header says cannot fill the memory."""
MOST_DROPPED = 0.95
LEAST = 1e-3

BELOW_ROOT = len(H36M17) - 1
"""Joints that the networks see and place: all but the pelvis."""

_LEGS = sum(joint.endswith(("_hip", "_knee", "_ankle")) for joint in H36M17.joints)
assert all(joint.endswith(("_hip", "_knee", "_ankle")) for joint in H36M17.joints[1 : 1 + _LEGS])


@dataclass(frozen=True)
class LifterConfig:
    """What a lifter is; the defaults are the thesis's, except for the radius (1.3 there, Human3.6M's)."""

    hidden: int = 1024
    latent: int = 51
    blocks: int = 1
    """Residual blocks of the encoder, and of the decoder."""
    dropout: float = 0.2
    place: Literal["free", "ray"] = "free"
    """All coordinates are the decoder's; or of a seen joint only the depth, and the joint stands on its ray."""
    radius: float = 1.6
    """No coordinate (on rays: no depth) leaves ±radius, units."""
    scale: Literal["split", "pose"] = "split"
    """Points are scaled by one number for the training split, or each pose by its size."""
    distance: Literal["fixed", "learned"] = "fixed"
    elevation: Literal["none", "learned"] = "none"
    """Of the camera, above the horizontal."""
    split_encoders: bool = False
    """One encoder of half the width for the legs, another one for all else."""
    start_gain: float = 1.0
    """Of the last layer's random start: the less, the closer to the pelvis all joints begin."""

    def __post_init__(self) -> None:
        require_range(self, hidden=(2, MOST), latent=(2, MOST), blocks=(0, DEEPEST), dropout=(0, MOST_DROPPED))
        require_range(self, radius=(LEAST, 1 / LEAST), start_gain=(0, 1 / LEAST))


@dataclass(frozen=True)
class Lifted(Batched):
    """A pose in 3D, in the camera that looks at its pelvis."""

    joints: Float[Tensor, "*batch 17 3"]
    """H36M-17, relative to the pelvis, units."""
    distance: Float[Tensor, "*batch"]
    """From the camera to the pelvis, units."""
    elevation_rad: Float[Tensor, "*batch"]
    """Of the camera, positive where it looks down; 0 unless it is learned."""
    mean: Float[Tensor, "*batch L"]
    log_variance: Float[Tensor, "*batch L"]


class Layer(nn.Module):
    """dropout(activation(norm(linear(x))))."""

    def __init__(
        self, linear: nn.Linear, norm: nn.Module, activation: Callable[..., Tensor], dropout_share: float
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = norm
        self.activation = activation
        self.dropout_share = dropout_share

    def forward(self, x: Float[Tensor, "N A"]) -> Float[Tensor, "N B"]:
        """In place where no gradient is asked for: fresh memory costs more than the activation."""
        y = self.activation(self.norm(self.linear(x)), inplace=not torch.is_grad_enabled())
        return dropout(y, self.dropout_share, self.training) if self.dropout_share else y


class Residual(nn.Sequential):
    """x + layers(x)."""

    def forward(self, x: Float[Tensor, "N A"]) -> Float[Tensor, "N A"]:  # type: ignore[override]
        """Nothing comes after the sum."""
        return x + super().forward(x)


class Encoder(nn.Module):
    """Points of the joints below the root to mean and log-variance of their latent: 2,241,638 parameters."""

    def __init__(self, config: LifterConfig) -> None:
        super().__init__()
        self.sizes = [2 * BELOW_ROOT] if not config.split_encoders else [2 * _LEGS, 2 * (BELOW_ROOT - _LEGS)]
        width = config.hidden // len(self.sizes)
        self.trunks = nn.ModuleList(_trunk(size, width, config) for size in self.sizes)
        self.mean = nn.Linear(width * len(self.sizes), config.latent)
        self.log_variance = nn.Linear(width * len(self.sizes), config.latent)

    def forward(self, inputs: Float[Tensor, "N 32"]) -> tuple[Float[Tensor, "N L"], Float[Tensor, "N L"]]:
        """Computed in the type of the weights, answered in that of the inputs."""
        parts = inputs.to(self.mean.weight.dtype).split(self.sizes, dim=-1)
        features = torch.cat([trunk(part) for trunk, part in zip(self.trunks, parts, strict=True)], dim=-1)
        log_variance = self.log_variance(features).to(inputs)
        return self.mean(features).to(inputs), log_variance.clamp(-LOG_VARIANCE_REACH, LOG_VARIANCE_REACH)


class Decoder(nn.Module):
    """Latent to the 48 numbers that place 16 joints, before the tanh: 2,205,744 parameters.

    A learned distance and a learned elevation are one linear unit each beside them, 0 at the start.
    """

    def __init__(self, config: LifterConfig) -> None:
        super().__init__()
        self.trunk = _trunk(config.latent, config.hidden, config)
        self.joints = nn.Linear(config.hidden, 3 * BELOW_ROOT)
        self.distance = nn.Linear(config.hidden, 1) if config.distance == "learned" else None
        self.elevation = nn.Linear(config.hidden, 1) if config.elevation == "learned" else None

    def forward(self, z: Float[Tensor, "N L"]) -> tuple[Float[Tensor, "N 48"], Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Raw places, distance and elevation; computed in the type of the weights, answered in that of z."""
        features = self.trunk(z.to(self.joints.weight.dtype))
        extras = [z.new_zeros(len(z)) if head is None else head(features).to(z)[:, 0] for head in self.extras]
        return self.joints(features).to(z), extras[0], extras[1]

    @property
    def extras(self) -> tuple[nn.Linear | None, nn.Linear | None]:
        """The heads of distance and elevation."""
        return self.distance, self.elevation


class VaeLifter(nn.Module):
    """2D to 3D: z = mean + exp(log_variance / 2) noise of the encoder, joints of the decoder.

    It sees points from a camera that looks at the pelvis, whose pelvis is at 0 (`look_at_root`). What an unseen joint
    holds never matters.

    With p the mean path length of the training split in 2D and s the size of a pose (`size_of`, where the scale is
    "pose"; else s = 1), the networks see points / (c p s), c = 10, whose path has the mean length 1 / c. The pelvis is
    expected at the distance 1 / (p s) units, where a path of 1 unit has its mean length in the image. Where s is the
    pose's, k times the points are the same to the networks, at 1 / k of the distance.

    With the scale "pose" the perspective is true: (x, y) / (distance + z). The thesis puts a camera at c = 10 units in
    front of the scaled points whatever p is: (x, y) / (10 + z) = points / (c p), which is (x, y) / (distance + zoom z)
    = points with zoom = 1 / (c p), and that is what the scale "split" does. Ask `project`.
    """

    path: Tensor
    squares: Tensor

    def __init__(self, config: LifterConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("path", torch.tensor(1 / DISTANCE))
        self.register_buffer("squares", torch.full((len(H36M17),), DISTANCE**-2))
        _start(self, generator)
        _zero(self.encoder.log_variance, *self.decoder.extras)
        with torch.no_grad():
            self.decoder.joints.weight.mul_(config.start_gain)

    @torch.no_grad()
    def start_at(self, points: Float[Tensor, "N 17 2"], seen: Bool[Tensor, "N 17"]) -> None:
        """Take the scale from a training split: mean path length and mean squares of its 2D points."""
        self.path.copy_(mean_path(points, seen))
        self.squares.copy_(mean_squares(points, seen))

    @property
    def zoom(self) -> Float[Tensor, ""]:
        """How deep the lifter's camera sees a depth: 1 is the true perspective."""
        return 1 / (DISTANCE * self.path) if self.config.scale == "split" else torch.ones_like(self.path)

    def normalised(
        self, points: Float[Tensor, "*batch 17 2"], seen: Bool[Tensor, "*batch 17"]
    ) -> Float[Tensor, "*batch 17 2"]:
        """The points as the networks see them: points / (c p s), unseen ones 0."""
        return zeroed(points, seen) * (self.expected_distance(points, seen) / DISTANCE)[..., None, None]

    def expected_distance(
        self, points: Float[Tensor, "*batch 17 2"], seen: Bool[Tensor, "*batch 17"]
    ) -> Float[Tensor, "*batch"]:
        """1 / (p s), units."""
        size = points.new_ones(points.shape[:-2])
        if self.config.scale == "pose":
            size = size_of(points, seen, self.squares.to(points))
        return 1 / (self.path.to(points) * size)

    def encode(
        self, points: Float[Tensor, "*batch 17 2"], seen: Bool[Tensor, "*batch 17"]
    ) -> tuple[Float[Tensor, "*batch L"], Float[Tensor, "*batch L"]]:
        """Mean and log-variance of the latent; the log-variance is 0 at the start of training and never beyond ±10."""
        batch = points.shape[:-2]
        inputs = self.normalised(points, seen)[..., 1:, :].reshape(-1, 2 * BELOW_ROOT)
        mean, log_variance = self.encoder(inputs)
        return mean.reshape(*batch, self.config.latent), log_variance.reshape(*batch, self.config.latent)

    def decode(
        self, z: Float[Tensor, "*batch L"], points: Float[Tensor, "*batch 17 2"], seen: Bool[Tensor, "*batch 17"]
    ) -> tuple[Float[Tensor, "*batch 17 3"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Joints, distance and elevation of a latent: places are radius tanh(.), the pelvis stands at the origin.

        A learned distance is the expected one times exp(0.5 tanh(.)), a learned elevation 0.7 tanh(.).
        """
        batch = z.shape[:-1]
        raw, raw_distance, raw_elevation = self.decoder(z.reshape(-1, z.shape[-1]))
        distance = self.expected_distance(points, seen) * (DISTANCE_REACH * raw_distance.tanh()).exp().reshape(batch)
        below = self.config.radius * raw.tanh().reshape(*batch, BELOW_ROOT, 3)
        if self.config.place == "ray":
            below = self._placed(below, zeroed(points, seen)[..., 1:, :], seen[..., 1:], distance)
        return with_root(below), distance, ELEVATION_REACH_RAD * raw_elevation.tanh().reshape(batch)

    def _placed(
        self,
        below: Float[Tensor, "*batch 16 3"],
        points: Float[Tensor, "*batch 16 2"],
        seen: Bool[Tensor, "*batch 16"],
        distance: Float[Tensor, "*batch"],
    ) -> Float[Tensor, "*batch 16 3"]:
        """Seen joints on their rays at the given depths, the others as they are."""
        return torch.where(seen[..., None], on_rays(points, below[..., 2], distance, self.zoom), below)

    def forward(
        self,
        points: Float[Tensor, "*batch 17 2"],
        seen: Bool[Tensor, "*batch 17"],
        noise: Float[Tensor, "*batch L"] | None = None,
    ) -> Lifted:
        """The pose of z = mean + exp(log_variance / 2) noise; without noise, of the mean."""
        mean, log_variance = self.encode(points, seen)
        z = mean if noise is None else mean + (log_variance / 2).exp() * noise
        return Lifted(*self.decode(z, points, seen), mean, log_variance)

    def project(
        self, joints: Float[Tensor, "*batch 17 3"], distance: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch 17 2"]:
        """The points that the lifter's camera sees of joints: what goes into `forward` again."""
        return project_units(joints, distance, self.zoom)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What a discriminator is; the defaults are the thesis's."""

    hidden: int = 1024
    blocks: int = 2
    dropout: float = 0.5

    def __post_init__(self) -> None:
        require_range(self, hidden=(2, MOST), blocks=(0, DEEPEST), dropout=(0, MOST_DROPPED))


class Discriminator(nn.Module):
    """2D poses, as `VaeLifter.normalised` gives them, to the logit of being a real one: 4,233,217 parameters."""

    def __init__(self, config: DiscriminatorConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()

        def layer(dropout_share: float, inputs: int = config.hidden) -> Layer:
            return Layer(nn.Linear(inputs, config.hidden), nn.Identity(), _leaky, dropout_share)

        blocks = (Residual(layer(config.dropout), layer(config.dropout)) for _ in range(config.blocks))
        self.trunk = nn.Sequential(layer(0.0, 2 * BELOW_ROOT), *blocks)
        self.logit = nn.Linear(config.hidden, 1)
        _start(self, generator)

    def forward(self, points: Float[Tensor, "*batch 17 2"]) -> Float[Tensor, "*batch"]:
        """The logit; its sigmoid is the probability of being real."""
        inputs = points[..., 1:, :].reshape(-1, 2 * BELOW_ROOT)
        return self.logit(self.trunk(inputs)).reshape(points.shape[:-2])


def folded(lifter: VaeLifter, precision: Precision = "float32") -> VaeLifter:
    """The same lifter for use alone: each batch norm is part of the linear layer before it, and nothing is learned.

    In "bfloat16" the networks compute in it; rays, distances and the answers stay in the type of the points. Otherwise
    the type is the lifter's own.
    """
    light = copy.deepcopy(lifter).eval().requires_grad_(False)
    for layer in light.modules():
        if isinstance(layer, Layer) and isinstance(layer.norm, nn.BatchNorm1d):
            layer.linear = fuse_linear_bn_eval(layer.linear, layer.norm)
            layer.norm = nn.Identity()
    if precision == "bfloat16":
        light.encoder.bfloat16()
        light.decoder.bfloat16()
    return light.requires_grad_(False)


def _trunk(inputs: int, width: int, config: LifterConfig) -> nn.Sequential:
    def layer(inputs: int, bias: bool) -> Layer:
        return Layer(nn.Linear(inputs, width, bias), nn.BatchNorm1d(width), mish, config.dropout)

    blocks = (Residual(layer(width, bias=False), layer(width, bias=False)) for _ in range(config.blocks))
    return nn.Sequential(layer(inputs, bias=True), *blocks)


def _leaky(x: Tensor, inplace: bool) -> Tensor:
    return leaky_relu(x, SLOPE, inplace)


@torch.no_grad()
def _start(network: nn.Module, generator: torch.Generator | None) -> None:
    """Kaiming's normal start for every linear layer, biases 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _zero(*layers: nn.Linear | None) -> None:
    for layer in filter(None, layers):
        nn.init.zeros_(layer.weight)
