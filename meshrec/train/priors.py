"""The task that trains pose priors: flows and VAEs, on motion capture, judged on people that they never see."""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from meshrec.config import require_positive, require_range
from meshrec.data.pose_augment import BODY_JOINTS, jittered, mirrored, recombined
from meshrec.data.poses import PoseCollection, open_poses
from meshrec.errors import MeshrecError
from meshrec.randomness import generator_of
from meshrec.train.descent import Phase
from meshrec.train.processes import Share
from meshrec.train.training import LoopConfig
from priors.build import PriorConfig, build_prior
from priors.gaussian import fit_gaussian
from priors.pose import PosePrior
from priors.prior import TrainedPrior
from priors.so3 import mean_rotations_of

FLOOR_RAD = 0.02
"""Least standard deviation, in any direction, of the Gaussian that a flow starts at."""

START_FRAMES = 20_000
"""Frames that this Gaussian is fitted to."""

CHUNK = 500
"""Poses whose likelihood is bounded together."""

BLOCK = 64
"""Steps whose batches are made together: the work a call costs by itself is shared."""


@dataclass(frozen=True)
class PosesConfig:
    """Which frames count how much, and what is made of them."""

    held_out: tuple[str, ...] = ()
    """Subjects to validate on, never trained on."""
    shares: tuple[float, ...] = ()
    """What each path of the data counts for, in the order given; empty: as much as its subjects do."""
    balance: float = 0.5
    """0: every frame counts alike; 1: every subject does; between: a subject of n frames counts as n^(1 - balance)."""
    mirror: bool = True
    """Whether half the poses are seen in a mirror."""
    recombine: float = 0.3
    """Probability that a limb is that of another pose."""
    jitter_rad: float = 0.03
    """Noise on every joint: joints that a capture holds still get some width."""
    validation_frames: int = 2000
    """Validate on so many held-out frames, evenly spread."""

    def __post_init__(self) -> None:
        require_positive(self, "validation_frames")
        require_range(self, balance=(0, 1), recombine=(0, 1), jitter_rad=(0, 1))
        if not all(0 < share < math.inf for share in self.shares):
            raise ValueError(f"shares is {self.shares}; they must be positive")


@dataclass(frozen=True)
class PriorRun:
    """Training of a pose prior."""

    task: Literal["prior"] = "prior"
    data: tuple[Path, ...] = ()
    """Pose collections, motion files, or folders of them."""
    poses: PosesConfig = field(default_factory=PosesConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.prior.kind not in ("flow", "vae"):
            raise ValueError(f"prior.kind is {self.prior.kind}, which is fitted in one go, by tools/fit_priors.py")
        if self.prior.joints != len(BODY_JOINTS):
            raise ValueError(f"prior.joints is {self.prior.joints}; the poses to train on have {len(BODY_JOINTS)}")


class PriorTask:
    """A prior, its poses, and how likely it finds poses of other people."""

    selected_by = "nll"

    def __init__(self, config: PriorRun, collection: PoseCollection, device: torch.device) -> None:
        self.config, self.collection, self.device = config, collection, device
        held_out = config.poses.held_out
        self.rows, unseen = collection.split(held_out)
        if not (len(self.rows) and len(unseen)):
            raise MeshrecError(
                f"{len(self.rows)} frames are there to train on and {len(unseen)} to validate on: poses.held_out is "
                f"{', '.join(held_out) or 'empty'}, and the subjects of the data are {_told(collection)}. Name "
                f"some of them, but not all, with --poses.held-out."
            )
        self.weights = frame_weights(collection, self.rows, config.poses)
        self.cumulative = self.weights.cumsum()
        self.prior = self._started().to(device)
        self.unseen = self._measured_on(unseen)
        self.seen = self._measured_on(self.rows)
        self.fingerprint = fingerprint_of(collection)
        self._block = lru_cache(maxsize=1)(self._made_block)

    @property
    def model(self) -> nn.Module:
        """The prior."""
        return self.prior

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One: everything steps together."""
        return (Phase("prior", (self.prior,)),)

    def batch(self, step: int, share: Share) -> tuple[Float[Tensor, "n J 3 3"], Float[Tensor, "n L"]]:
        """Poses of this step, and the noise of the loss."""
        poses, noise = self._block(step // BLOCK)
        rows = share.rows(self.config.loop.batch)
        return poses[step % BLOCK, rows], noise[step % BLOCK, rows]

    def losses(self, phase: str, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Nats a pose."""
        return {"nll": self._trained(self.prior).loss(*batch).mean()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """-log p of jittered frames, nats a pose: of people never seen, and of those trained on."""
        prior = self._trained(model)
        return {
            "nll": float(nll_of(prior, self.unseen).double().mean()),
            "nll_seen": float(nll_of(prior, self.seen).double().mean()),
        }

    def describe(self, batch: tuple[Tensor, Tensor]) -> str:
        """Poses come from everywhere."""
        return f"{len(batch[0])} poses of {_told(self.collection)}"

    def _made_block(self, block: int) -> tuple[Float[Tensor, "S B J 3 3"], Float[Tensor, "S B L"]]:
        """Everything random of `BLOCK` steps: which frames, what is made of them, and the noise of the loss."""
        poses, loop = self.config.poses, self.config.loop
        random = generator_of(loop.seed, "poses", block)
        drawn = np.searchsorted(self.cumulative, self.cumulative[-1] * random.random((BLOCK, loop.batch)), side="right")
        rows = self.rows[drawn.clip(max=len(self.rows) - 1)]
        rotations = self.collection.rotations(rows.ravel())[:, 1:].unflatten(0, rows.shape)
        if poses.mirror:
            flipped = torch.from_numpy(random.random(rows.shape) < 0.5)
            rotations[flipped] = mirrored(rotations[flipped])
        if poses.recombine:
            rotations = recombined(rotations, poses.recombine, random)
        noise = random.standard_normal((*rows.shape, self._trained(self.prior).noise_size), dtype=np.float32)
        rotations = jittered(rotations, poses.jitter_rad, random)
        return rotations.to(self.device), torch.from_numpy(noise).to(self.device)

    def _started(self) -> nn.Module:
        """The prior at its start: a flow at the Gaussian of the data, a VAE at the mean pose."""
        config = self.config
        generator = torch.Generator().manual_seed(config.loop.seed)
        prior = build_prior(config.prior, generator)
        random = generator_of(config.loop.seed, "start")
        chosen = np.sort(random.permutation(len(self.rows))[:START_FRAMES])
        weights = torch.from_numpy(self.weights[chosen])
        rotations = self.collection.rotations(self.rows[chosen], torch.float64)[:, 1:]
        if config.poses.mirror:
            weights, rotations = weights.repeat(2), torch.cat([rotations, mirrored(rotations)])
        rotations = jittered(rotations, config.poses.jitter_rad, random)
        means = mean_rotations_of(rotations, weights)
        if isinstance(prior, PosePrior):
            prior.chart.mean_rotations.copy_(means)
            noise = torch.from_numpy(random.standard_normal((len(rotations), prior.noise_size)))
            points, _ = prior.chart.lift(rotations, noise)
            prior.density.start_at(fit_gaussian(points, weights, FLOOR_RAD), generator)  # type: ignore[attr-defined]
        else:
            prior.start_at(means)  # type: ignore[attr-defined]
        assert isinstance(prior, nn.Module)
        return prior

    def _measured_on(self, rows: np.ndarray) -> Float[Tensor, "N J 3 3"]:
        """Some of the frames, evenly spread, jittered once."""
        spread = np.linspace(0, len(rows) - 1, min(len(rows), self.config.poses.validation_frames)).round().astype(int)
        rotations = self.collection.rotations(rows[spread])[:, 1:]
        return jittered(rotations, self.config.poses.jitter_rad, np.random.default_rng(0)).to(self.device)

    @staticmethod
    def _trained(model: nn.Module) -> TrainedPrior:
        assert isinstance(model, TrainedPrior)
        return model


def fingerprint_of(collection: PoseCollection) -> str:
    """A hash of who is in the data, how long, which frames count, and what every thousandth looks like."""
    digest = sha256(repr([(clip.subject, clip.length) for clip in collection.clips]).encode())
    for part in collection.parts:
        digest.update(np.packbits(part.valid).tobytes())
        digest.update(part.axis_angle[::1000].astype("<f4").tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def nll_of(prior: TrainedPrior, rotations: Float[Tensor, "N J 3 3"], draws: int = 16) -> Float[Tensor, "N"]:
    """-log p of each pose in nats, or an upper bound of it from so many draws of seeded noise of the pose's own."""
    random = np.random.default_rng(0)
    bounds = []
    for poses in rotations.split(CHUNK):
        noise = random.standard_normal((len(poses), draws if prior.noise_size else 1, prior.noise_size))
        bounds.append(prior.bound(poses, torch.from_numpy(noise).to(poses)))
    return -torch.cat(bounds)


def frame_weights(collection: PoseCollection, rows: np.ndarray, config: PosesConfig) -> Float[np.ndarray, "N"]:
    """n^-balance for each frame of a subject with n frames; then each path of the data its share; they sum to 1."""
    weights = subject_weights(collection.subject_of(rows), config.balance)
    for index, share in enumerate(config.shares):
        of_path = collection.part_of(rows) == index
        weights[of_path] *= share / weights[of_path].sum()
    return weights / weights.sum()


def subject_weights(subjects: np.ndarray, balance: float) -> Float[np.ndarray, "N"]:
    """n^-balance for each row of a subject with n rows."""
    _, subject, counts = np.unique(subjects, return_inverse=True, return_counts=True)
    return counts[subject].astype(np.float64) ** -balance


def build_prior_task(config: PriorRun, device: torch.device) -> PriorTask:
    """The task of a configuration, its data opened."""
    if not config.data:
        raise MeshrecError("No poses to train on: name pose collections or motion files with --data PATH...")
    if config.poses.shares and len(config.poses.shares) != len(config.data):
        raise MeshrecError(
            f"poses.shares has {len(config.poses.shares)} numbers for {len(config.data)} paths of data: give one for "
            f"each path, or none by a bare --poses.shares."
        )
    return PriorTask(config, open_poses(config.data), device)


def _told(collection: PoseCollection, most: int = 12) -> str:
    subjects = collection.subjects
    return ", ".join(subjects[:most]) + (f" and {len(subjects) - most} more" if len(subjects) > most else "")
