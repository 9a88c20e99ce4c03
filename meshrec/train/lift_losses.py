"""What a lifter learns from: one number for each pose, found in its 2D joints and in views of it that nobody took."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from meshrec.config import require_positive, require_range
from meshrec.models.lifting import (
    asymmetry,
    bone_lengths,
    bone_log_ratios,
    chirality,
    novel_rotation,
    path_length,
    seen_everywhere,
    turned,
)
from meshrec.models.pose_density import PoseDensity2D
from meshrec.models.vae_lifter import DISTANCE, MOST_DROPPED, Lifted, VaeLifter
from meshrec.skeletons import H36M17
from meshrec.train.descent import OptimizerConfig
from meshrec.types import Batched

ELEMENTS = 3 * (len(H36M17) - 1)
"""Numbers that a lifter gives: the coordinates of all joints but the root."""

BONE_SPREAD = 0.12
"""Standard deviation of the logarithms of people's bones about the table's: builds differ, and so do joint sets."""


Terms = dict[str, Callable[[], Tensor]]
"""What each term is, a number for each pose, before its weight."""


@dataclass(frozen=True)
class LossWeights:
    """What each term counts; 0 leaves it out. The first three are the thesis's, of the means that it takes."""

    reprojection: float = 1.0
    """Of |projected - seen|, the mean over coordinates, where the person is 1/10 high from pelvis to head."""
    kld: float = 0.001
    """Of the divergence from N(0, I) in nats over the 48 coordinates, times the beta of the cycle."""
    adversarial: float = 0.001
    """Of how surely the discriminator finds novel views false."""
    likelihood: float = 0.0
    """Of the novel views' -log p under the density of 2D poses, nats."""
    again: float = 0.0
    """Of what changes when a novel view is lifted in its turn."""
    again_2d: float = 0.0
    """Of the same, turned back and projected: |projected - seen| as for `reprojection`."""
    symmetry: float = 0.0
    """Of left bones' and right bones' difference in length, units."""
    bones: float = 0.0
    """Of the squared logarithms of bones over those of the table, in variances of people."""
    chirality: float = 0.0
    """Of knees and heads that bend the wrong way, units."""
    joints: float = 1.0
    """Of |lifted - true|, the mean over coordinates, units; of supervised runs alone."""

    def __post_init__(self) -> None:
        require_range(self, **dict.fromkeys(self.__dataclass_fields__, (0.0, math.inf)))

    @property
    def on_novel_views(self) -> bool:
        """Whether any term looks at novel views."""
        return any((self.adversarial, self.likelihood, self.lifts_again))

    @property
    def lifts_again(self) -> bool:
        """Whether any term looks at what is lifted from novel views."""
        return self.again > 0 or self.again_2d > 0


@dataclass(frozen=True)
class BetaCycle:
    """How the weight of the divergence goes, in steps: first 0, then again and again from 0 up to 1, and held there.

    The defaults are the thesis's epochs (10; 30 and 10) of 300,000 poses in batches of 256. Cyclic annealing: Fu et
    al., NAACL 2019. In steps, and not in shares of the run, so that a run can go on for longer than was planned.
    """

    wait: int = 11_720
    rise: int = 35_160
    hold: int = 11_720

    def __post_init__(self) -> None:
        require_range(self, wait=(0, math.inf), rise=(0, math.inf), hold=(0, math.inf))
        require_positive(self, "period")

    @property
    def period(self) -> int:
        """Steps from one fall to 0 to the next."""
        return self.rise + self.hold

    def beta(self, step: int) -> float:
        """0 to 1, at step 0, 1, ..."""
        if step < self.wait:
            return 0.0
        return min(1.0, (step - self.wait) % self.period / max(self.rise, 1)) if self.rise else 1.0


@dataclass(frozen=True)
class GanConfig:
    """How the discriminator learns; it has a say where losses.adversarial is above 0."""

    loss: Literal["bce", "wasserstein"] = "bce"
    real_labels: tuple[float, float] = (0.7, 1.2)
    """The labels of real poses are drawn between these, and so are those that the lifter wants for its own."""
    fake_labels: tuple[float, float] = (0.0, 0.0)
    """The labels of novel views; (0, 0.3) smooths both sides."""
    flip: float = 0.0
    """Probability that the discriminator is told labels of the other kind."""
    noise: float = 0.0
    """Standard deviation of noise on all that the discriminator sees, in pelvis-to-head lengths."""
    noise_steps: int = 0
    """The noise falls to nothing in so many steps; 0: it stays."""
    gradient_penalty: float = 0.0
    """Weight of the penalty on slopes other than 1; with "wasserstein", 10 is usual."""
    clip_weights: float = 0.0
    """The discriminator's weights are kept within plus or minus this; 0 leaves them free."""
    dropout: float = 0.5
    times: int = 1
    """Steps of the discriminator in each step."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=2e-4, clip_norm=1.0))
    """The thesis clips the norm to 1 here and to 2 for the lifter; values at 1000 after that could never be reached."""

    def __post_init__(self) -> None:
        require_positive(self, "times")
        require_range(self, flip=(0, 1), dropout=(0, MOST_DROPPED), noise=(0, math.inf), noise_steps=(0, math.inf))
        require_range(self, gradient_penalty=(0, math.inf), clip_weights=(0, math.inf))


@dataclass(frozen=True)
class Novel(Batched):
    """A lifted pose as another camera sees it, one that nobody had."""

    joints: Float[Tensor, "*batch 17 3"]
    """In that camera's axes, relative to the pelvis, units."""
    distance: Float[Tensor, "*batch"]
    elevation_rad: Float[Tensor, "*batch"]
    rotation: Float[Tensor, "*batch 3 3"]
    """From the axes of the camera that looked."""
    points: Float[Tensor, "*batch 17 2"]
    """What it sees, as the lifter would be given it."""
    shown: Bool[Tensor, "*batch 17"]
    """What of that the lifter may look at."""
    genuine: Bool[Tensor, "*batch"]
    """Whether it shows the pose that was lifted."""


def novel_view(
    lifter: VaeLifter, lifted: Lifted, azimuth_rad: Float[Tensor, "N"], raised_rad: Float[Tensor, "N"]
) -> Novel:
    """The camera that looks at the next pose, set before this one: at its distance and elevation, from anywhere around.

    The rows of a batch are drawn on their own, so the next one's camera is as good as drawn from all. They swap in
    pairs: halves of a batch are then what they are in the whole.
    """
    pair = (torch.arange(len(azimuth_rad), device=azimuth_rad.device) ^ 1).clamp_max(len(azimuth_rad) - 1)
    elevation = lifted.elevation_rad[pair] + raised_rad
    rotation = novel_rotation(azimuth_rad, lifted.elevation_rad, elevation)
    joints, distance = turned(lifted.joints, rotation), lifted.distance[pair]
    points = lifter.project(joints, distance)
    shown = seen_everywhere(points)
    return Novel(joints, distance, elevation, rotation, points, shown, shown.any(-1))


def kl_divergence(mean: Float[Tensor, "*batch D"], log_variance: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
    """KL(N(mean, variance) || N(0, I)) in nats: -1/2 sum(1 + log variance - mean^2 - variance)."""
    return -(1 + log_variance - mean.square() - log_variance.exp()).sum(-1) / 2


def offset(
    found: Float[Tensor, "*batch 17 D"], wanted: Float[Tensor, "*batch 17 D"], known: Bool[Tensor, "*batch 17"]
) -> Float[Tensor, "*batch"]:
    """Mean |found - wanted| over the coordinates of the known joints but the root; 0 where none is known."""
    counts = known[..., 1:]
    off = (found - wanted)[..., 1:, :].abs().mean(-1)
    return torch.where(counts, off, 0.0).sum(-1) / counts.sum(-1).clamp_min(1)


def inconsistency(novel: Novel, again: Lifted, elevation_learned: bool) -> Float[Tensor, "*batch"]:
    """How a novel view and what is lifted from it differ; both get the gradient.

    Mean squared distance of the joints, plus the square of the distances' ratio less 1, plus, where it is learned, the
    squared difference of the elevations.
    """
    moved = (again.joints - novel.joints).square().sum(-1).mean(-1)
    farther = (again.distance / novel.distance - 1).square()
    higher = (again.elevation_rad - novel.elevation_rad).square() if elevation_learned else torch.zeros_like(farther)
    return moved + farther + higher


def verdict(
    scores: Float[Tensor, "*batch"], labels: Float[Tensor, "*batch"], loss: Literal["bce", "wasserstein"]
) -> Float[Tensor, "*batch"]:
    """How far scores are from labels, 1 for real and 0 for false.

    "bce": -(y log p + (1 - y) log(1 - p)) with the score as logit of p, so that y may be above 1. "wasserstein": the
    score itself, up or down (Arjovsky et al., 2017).
    """
    if loss == "wasserstein":
        return torch.where(labels > 0.5, -scores, scores)
    return binary_cross_entropy_with_logits(scores, labels, reduction="none")


def slope_penalty(
    score: Callable[[Float[Tensor, "N 17 2"]], Float[Tensor, "N"]],
    real: Float[Tensor, "N 17 2"],
    fake: Float[Tensor, "N 17 2"],
    mix: Float[Tensor, "N"],
) -> Float[Tensor, "N"]:
    """(|gradient of the score| - 1)^2 somewhere between the real and the fake pose (Gulrajani et al., 2017)."""
    between = torch.lerp(fake, real, mix[:, None, None]).detach().requires_grad_()
    (slope,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
    return (slope.flatten(1).square().sum(-1).add(1e-12).sqrt() - 1).square()


@dataclass(frozen=True)
class Sight:
    """What the lifter makes of views, and of novel views of that."""

    lifted: Lifted
    novel: Novel | None = None
    target: Novel | None = None
    """What is lifted again: the novel views, some of them of people imagined."""
    again: Lifted | None = None

    @property
    def fake(self) -> Novel:
        """The novel view."""
        assert self.novel is not None
        return self.novel

    @property
    def returned(self) -> tuple[Novel, Lifted]:
        """What was lifted again, and what came of it."""
        assert self.target is not None and self.again is not None
        return self.target, self.again


def supervised_terms(sight: Sight, joints_m: Float[Tensor, "*batch 17 3"]) -> Terms:
    """The true joints, each pose in units of its own way from pelvis to head."""
    true = joints_m / path_length(joints_m)[..., None, None]
    return {"joints": lambda: offset(sight.lifted.joints, true, seen_everywhere(true[..., :2]))}


def unsupervised_terms(
    sight: Sight,
    points: Float[Tensor, "*batch 17 2"],
    seen: Bool[Tensor, "*batch 17"],
    lifter: VaeLifter,
    density: PoseDensity2D | None,
    elevation_learned: bool,
) -> Terms:
    """What 2D joints alone tell of the pose, whatever part of them the lifter was shown."""
    lifted = sight.lifted

    def misses(joints: Float[Tensor, "*batch 17 3"]) -> Float[Tensor, "*batch"]:
        scale = lifter.expected_distance(points, seen) / DISTANCE
        return scale * offset(lifter.project(joints, lifted.distance), points, seen)

    def unlikelihood() -> Float[Tensor, "*batch"]:
        assert density is not None
        return -density.log_likelihood(sight.fake.points)

    def misses_again() -> Float[Tensor, "*batch"]:
        target, again = sight.returned
        return torch.where(target.genuine, misses(turned(again.joints, target.rotation.mT)), 0.0)

    return {
        "reprojection": lambda: misses(lifted.joints),
        "likelihood": unlikelihood,
        "again": lambda: inconsistency(*sight.returned, elevation_learned),
        "again_2d": misses_again,
        "symmetry": lambda: asymmetry(bone_lengths(lifted.joints)),
        "bones": lambda: bone_log_ratios(bone_lengths(lifted.joints)).square().mean(-1) / (2 * BONE_SPREAD**2),
        "chirality": lambda: chirality(lifted.joints),
    }
