"""Where synthetic people's poses come from: priors, motion, and mixtures of these."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshrec.data.key_poses import KeyPoses, blended, key_poses
from meshrec.data.poses import PoseCollection, open_poses
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.errors import MeshrecError
from meshrec.prior_files import open_prior
from meshrec.types import Batched
from priors.prior import Prior

HZ = 30.0
"""Files of motion are thinned to so many frames a second."""


@dataclass(frozen=True)
class Poses(Batched):
    """Poses, and how the bodies stand in the world (y up); which way they face means nothing."""

    rotations: Float[Tensor, "*batch 23 3 3"]
    tilt: Float[Tensor, "*batch 3 3"]
    """The pelvis: body axes to the world's; the identity where the source does not know."""


@runtime_checkable
class PoseSource(Protocol):
    """Draws poses, a function of the generator alone."""

    def __call__(self, count: int, random: np.random.Generator) -> Poses:
        """So many poses."""
        ...


@dataclass(frozen=True, eq=False)
class PriorPoses:
    """Samples of a prior, upright."""

    prior: Prior
    temperature: float = 1.0

    def __call__(self, count: int, random: np.random.Generator) -> Poses:
        """As the prior draws them from a seed of the generator's."""
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        rotations = self.prior.sample(count, self.temperature, generator).float()
        return Poses(rotations, torch.eye(3).expand(count, 3, 3))


@dataclass(frozen=True, eq=False)
class MotionPoses:
    """Frames of motion, as they stood."""

    collection: PoseCollection
    without: tuple[str, ...] = ()
    """Whose frames are never drawn."""

    @cached_property
    def rows(self) -> Int[np.ndarray, "n"]:
        """The frames that may be drawn."""
        rows = self.collection.rows(without=self.without)
        if not len(rows):
            raise MeshrecError(
                f"No frame is left of the motion to draw poses from: it is of {', '.join(self.collection.subjects)}, "
                f"and {', '.join(self.without) or 'nobody'} is to be left out. Leave out fewer, or give more motion."
            )
        return rows

    def __call__(self, count: int, random: np.random.Generator) -> Poses:
        """Every frame as likely."""
        rotations = self.collection.rotations(self.rows[random.integers(len(self.rows), size=count)])
        return Poses(rotations[:, 1:], rotations[:, 0])


@dataclass(frozen=True, eq=False)
class KeyPoseSource:
    """Key poses on the way to each other, shaken, half of them mirrored."""

    poses: KeyPoses

    def __call__(self, count: int, random: np.random.Generator) -> Poses:
        """As `blended` has them."""
        rotations, tilt, _ = blended(self.poses, count, random)
        return Poses(rotations.float(), tilt.float())


@dataclass(frozen=True, eq=False)
class Mix:
    """One source or another for each pose."""

    sources: tuple[PoseSource, ...]
    shares: tuple[float, ...]
    """How often each is drawn from; they need not add up to one."""

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.shares) or min(self.shares, default=0) < 0 or not sum(self.shares) > 0:
            raise ValueError(f"{len(self.sources)} sources cannot be mixed by the shares {self.shares}")

    def __call__(self, count: int, random: np.random.Generator) -> Poses:
        """Which source comes first, then each source's poses in one go."""
        bounds = np.cumsum(self.shares) / np.sum(self.shares)
        which = np.searchsorted(bounds[:-1], random.random(count), side="right")
        rotations, tilt = torch.empty(count, 23, 3, 3), torch.empty(count, 3, 3)
        for source in np.unique(which):
            rows = np.flatnonzero(which == source)
            poses = self.sources[source](len(rows), random)
            rotations[rows], tilt[rows] = poses.rotations.float(), poses.tilt.float()
        return Poses(rotations, tilt)


def poses_of(config: SyntheticConfig) -> PoseSource:
    """The prior, the motion and the key poses of a configuration, each as often as it says."""
    moved = config.mocap_share if config.mocap else 0.0
    left = 1.0 - config.key_share
    sources: list[tuple[PoseSource, float]] = []
    if config.key_share > 0:
        _, learning = key_poses().split()
        sources.append((KeyPoseSource(learning), config.key_share))
    if left * (1 - moved) > 0 and (prior := open_prior(config.prior)) is not None:
        sources.append((PriorPoses(prior, config.temperature), left * (1 - moved)))
    if left * moved > 0:
        sources.append((MotionPoses(open_poses(config.mocap, HZ), config.without), left * moved))
    if not sources:
        raise MeshrecError("There is nothing to draw poses from: name a prior, or files of motion.")
    return Mix(tuple(source for source, _ in sources), tuple(share for _, share in sources))
