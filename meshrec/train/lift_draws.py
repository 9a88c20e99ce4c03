"""What a lifter is shown, step by step: which views, what is hidden of them, and all other random numbers."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshrec.config import require_range
from meshrec.data.views import Views
from meshrec.metrics import root_relative
from meshrec.models.lifting import (
    BONES,
    LIMB_JOINTS,
    look_at_root,
    mirrored_joints,
    mirrored_points,
    mirrored_seen,
    turned,
)
from meshrec.models.pose_density import COORDINATES
from meshrec.models.vae_lifter import DISTANCE
from meshrec.randomness import generator_of
from meshrec.skeletons import H36M17
from meshrec.train.lift_imagined import LIMBS, Fancy, ImagineConfig, symmetric
from meshrec.train.lift_losses import GanConfig
from meshrec.train.priors import subject_weights
from meshrec.types import Batched

_LIMBS = H36M17.indices(*LIMB_JOINTS)
"""What is often hidden."""

UNNAMED = H36M17.indices("spine", "face", "head_top")
"""What detectors of COCO's joints do not name."""


@dataclass(frozen=True)
class AugmentConfig:
    """What the lifter is given of a pose; what it is asked for stays the pose."""

    mirror: bool = True
    """Whether half the poses are seen in a mirror."""
    drop: float = 0.0
    """A joint is hidden with a probability that is drawn for each pose, from 0 to this."""
    drop_limbs: float = 0.0
    """Probability that one to three of knees, ankles, elbows and wrists are hidden as well."""
    drop_unnamed: float = 0.0
    """Probability that spine, face and top of the head are hidden as well, which COCO's joints lack."""
    noise: float = 0.0
    """Standard deviation of noise on the points, in pelvis-to-head lengths."""
    noise_steps: int = 0
    """The noise falls to nothing in so many steps; 0: it stays."""
    raise_rad: float = 0.0
    """The cameras of novel views are raised or lowered by up to this; the thesis tried pi / 9."""

    def __post_init__(self) -> None:
        require_range(
            self, drop=(0, 1), drop_limbs=(0, 1), drop_unnamed=(0, 1), noise=(0, math.inf), noise_steps=(0, math.inf)
        )
        require_range(self, raise_rad=(0, math.pi / 2))


@dataclass(frozen=True)
class Poses(Batched):
    """Views from cameras turned to the pelvis."""

    points: Float[Tensor, "*batch 17 2"]
    seen: Bool[Tensor, "*batch 17"]
    joints_m: Float[Tensor, "*batch 17 3"] | None = None
    """Relative to the pelvis, where the truth is known."""

    @classmethod
    def of(cls, views: Views) -> "Poses":
        """All views."""
        points, rotation = look_at_root(views.points, views.seen)
        joints_m = None if views.joints_m is None else turned(root_relative(views.joints_m, H36M17), rotation)
        return cls(points, views.seen, joints_m)

    def mirrored(self) -> "Poses":
        """The same people in a mirror."""
        joints_m = None if self.joints_m is None else mirrored_joints(self.joints_m)
        return Poses(mirrored_points(self.points), mirrored_seen(self.seen), joints_m)

    def half_mirrored(self, random: np.random.Generator) -> "Poses":
        """Each pose as it is or in a mirror, with even odds."""
        flip = torch.from_numpy(random.random(self.seen.shape[:-1]) < 0.5)[..., None]
        other, joints_m = self.mirrored(), None
        if self.joints_m is not None and other.joints_m is not None:
            joints_m = torch.where(flip[..., None], other.joints_m, self.joints_m)
        points = torch.where(flip[..., None], other.points, self.points)
        return Poses(points, torch.where(flip, other.seen, self.seen), joints_m)


@dataclass(frozen=True)
class Contest(Batched):
    """What a step of the discriminator needs besides novel views."""

    real: Float[Tensor, "*batch 17 2"]
    real_noise: Float[Tensor, "*batch 17 2"]
    fake_noise: Float[Tensor, "*batch 17 2"]
    """On points as the networks see them."""
    real_labels: Float[Tensor, "*batch"]
    fake_labels: Float[Tensor, "*batch"]
    wanted_labels: Float[Tensor, "*batch"]
    """What the lifter would have the discriminator say of novel views."""
    mix: Float[Tensor, "*batch"]
    """Where between a real and a fake pose the slope is penalised, 0 to 1."""


@dataclass(frozen=True)
class Draws(Batched):
    """All that is random in a step."""

    row: Int[Tensor, "*batch"]
    """Which view."""
    poses: Poses
    given: Float[Tensor, "*batch 17 2"]
    """The points that the lifter is given."""
    shown: Bool[Tensor, "*batch 17"]
    """Those of them that it may look at."""
    latent: Float[Tensor, "*batch L"]
    azimuth_rad: Float[Tensor, "*batch"]
    raised_rad: Float[Tensor, "*batch"]
    contest: Contest | None = None
    """With one more batch axis: the steps of the discriminator in this step."""
    real: Float[Tensor, "*batch 17 2"] | None = None
    """Poses for the density of 2D poses."""
    jitter: Float[Tensor, "*batch 32"] | None = None
    """Standard normal noise for its coordinates."""
    fancy: Fancy | None = None
    """What is imagined of the poses that are lifted again."""


@dataclass(frozen=True)
class Lottery:
    """Rows, and how often each is drawn."""

    rows: Int[np.ndarray, "N"]
    cumulative: Float[np.ndarray, "N"]

    @classmethod
    def of(cls, rows: Int[np.ndarray, "N"], weights: Float[np.ndarray, "M"]) -> "Lottery":
        """These rows of all, each as often as it weighs."""
        return cls(rows, weights[rows].cumsum())

    def draw(self, random: np.random.Generator, *shape: int) -> Int[Tensor, "..."]:
        """So many rows."""
        drawn = np.searchsorted(self.cumulative, self.cumulative[-1] * random.random(shape), side="right")
        return torch.from_numpy(self.rows[drawn.clip(max=len(self.rows) - 1)])


class Dealer:
    """Deals out poses of a training split; what it deals is a function of the seed and the steps."""

    def __init__(self, poses: Poses, subjects: np.ndarray, balance: float, augment: AugmentConfig, seed: int) -> None:
        self.poses, self.augment, self.seed = poses, augment, seed
        weights, every = subject_weights(subjects, balance), np.arange(len(subjects))
        self.all = Lottery.of(every, weights)
        self.whole = Lottery.of(every[poses.seen.all(-1).numpy()], weights)
        """Poses that show all joints: what novel views are compared with."""

    def draws(self, steps: range, batch: int, latent: int, unit: float) -> Draws:
        """Everything but the contest and the density's share; `unit` is the mean pelvis-to-head length in the image."""
        random, augment, shape = self._generator("views", steps), self.augment, (len(steps), batch)
        row = self.all.draw(random, *shape)
        poses = self._mirrored(self.poses[row], random)
        noise = normal(random, *poses.points.shape) * unit * fading(augment.noise, augment.noise_steps, steps)
        noise[..., H36M17.index("pelvis"), :] = 0.0
        return Draws(
            row,
            poses,
            poses.points + noise,
            poses.seen & ~hidden(shape, augment.drop, augment.drop_limbs, augment.drop_unnamed, random),
            normal(random, *shape, latent),
            between(random, (-math.pi, math.pi), *shape),
            between(random, (-augment.raise_rad, augment.raise_rad), *shape),
        )

    def contest(self, steps: range, batch: int, gan: GanConfig) -> Contest:
        """Real poses, labels and noise for the discriminator."""
        random, shape = self._generator("contest", steps), (len(steps), batch, gan.times)
        real = self.reals(random, *shape)
        size = fading(gan.noise, gan.noise_steps, steps)[..., None] / DISTANCE
        noises = [normal(random, *real.shape) * size if gan.noise else torch.zeros_like(real) for _ in range(2)]
        real_labels, fake_labels, wanted_labels = (
            between(random, interval, *shape) for interval in (gan.real_labels, gan.fake_labels, gan.real_labels)
        )
        lies_of_real, lies_of_fake = (torch.from_numpy(random.random(shape) < gan.flip) for _ in range(2))
        return Contest(
            real=real,
            real_noise=noises[0],
            fake_noise=noises[1],
            real_labels=torch.where(lies_of_real, fake_labels, real_labels),
            fake_labels=torch.where(lies_of_fake, real_labels, fake_labels),
            wanted_labels=wanted_labels,
            mix=between(random, (0.0, 1.0), *shape),
        )

    def fancies(self, steps: range, batch: int, imagine: ImagineConfig) -> Fancy:
        """Who is imagined, and how."""
        random, shape = self._generator("imagined", steps), (len(steps), batch)
        return Fancy(
            chosen=torch.from_numpy(random.random(shape) < imagine.share),
            swapped=torch.from_numpy(random.random((*shape, len(LIMBS))) < imagine.recombine),
            stretch=imagine.stretch * symmetric(normal(random, *shape, len(BONES))),
            shown=~hidden(shape, imagine.drop, imagine.drop_limbs, imagine.drop_unnamed, random),
        )

    def sparring(self, steps: range, batch: int) -> tuple[Float[Tensor, "S B 17 2"], Float[Tensor, "S B 32"]]:
        """Real poses and noise for the density."""
        random = self._generator("density", steps)
        return self.reals(random, len(steps), batch), normal(random, len(steps), batch, COORDINATES)

    def reals(self, random: np.random.Generator, *shape: int) -> Float[Tensor, "..."]:
        """Points of whole poses."""
        return self._mirrored(self.poses[self.whole.draw(random, *shape)], random).points

    def _mirrored(self, poses: Poses, random: np.random.Generator) -> Poses:
        return poses.half_mirrored(random) if self.augment.mirror else poses

    def _generator(self, stream: str, steps: range) -> np.random.Generator:
        return generator_of(self.seed, stream, steps.start)


def normal(random: np.random.Generator, *shape: int) -> Float[Tensor, "..."]:
    """Standard normal numbers."""
    return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))


def between(random: np.random.Generator, interval: tuple[float, float], *shape: int) -> Float[Tensor, "..."]:
    """Uniform numbers."""
    return torch.from_numpy(random.uniform(*interval, shape).astype(np.float32))


def fading(size: float, over: int, steps: range) -> Float[Tensor, "S 1 1 1"]:
    """The size at each step, which falls linearly to 0 in so many of them; 0 steps: it stays."""
    left = [max(0.0, 1 - step / over) if over else 1.0 for step in steps]
    return size * torch.tensor(left)[:, None, None, None]


def hidden(
    shape: tuple[int, ...], drop: float, drop_limbs: float, drop_unnamed: float, random: np.random.Generator
) -> Bool[Tensor, "*batch 17"]:
    """Which joints the lifter may not look at, by the probabilities of `AugmentConfig`; never the pelvis."""
    gone = random.random((*shape, len(H36M17))) < drop * random.random((*shape, 1))
    if drop_limbs:
        rank = random.random((*shape, len(_LIMBS))).argsort(-1)
        lost = random.integers(1, 4, shape) * (random.random(shape) < drop_limbs)
        gone[..., _LIMBS] |= rank < lost[..., None]
    if drop_unnamed:
        gone[..., UNNAMED] |= random.random((*shape, 1)) < drop_unnamed
    gone[..., H36M17.index("pelvis")] = False
    return torch.from_numpy(gone)
