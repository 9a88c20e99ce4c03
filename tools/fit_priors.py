"""Fits the pose priors that ship, a Gaussian and a mixture, to motion capture on the SMPL tree, and measures them.

    python tools/fit_priors.py CAPTURE.npz IDLE.npz --shares 0.95 0.05 -o meshrec/weights

A capture file holds `poses (N, 24, 3)` (axis-angle, SMPL joint order, the pelvis first), `valid (N,)`, and for each
clip, one after the other, `clip_len` and `clip_subject`. Excluded subjects are never fitted: they are what is measured
on.
"""

import hashlib
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import roma
import torch
import tyro
from jaxtyping import Float
from torch import Tensor
from tyro.conf import OmitArgPrefixes, Positional

from meshrec.arrays import read_arrays
from meshrec.errors import MeshrecError
from meshrec.files import write_text, write_whole
from meshrec.skeletons import SMPL24
from priors.gaussian import Gaussian, covariance_of, fit_gaussian, whitening_of
from priors.mixture import Mixture, fit_mixture
from priors.pose import PosePrior, centred_log, mean_rotations_of

BODY_JOINTS = SMPL24.joints[1:]
CAPTURE_FIELDS = ("poses", "valid", "clip_len", "clip_subject")
VALIDATION_SUBJECTS = ("02", "10", "27", "29", "131", "u_basketball_signal", "gs_charleston")
ACKNOWLEDGEMENT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. The database was created with funding from NSF "
    "EIA-0196217. CMU motion capture is free for research and may be part of commercial products; the data may not be "
    "resold, even in converted form. ReActIdle is under the MIT licence."
)


@dataclass(frozen=True)
class Recipe:
    """Every choice that makes a prior out of frames."""

    components: int = 8
    """Gaussians in the mixture."""
    jitter_rad: float = 0.03
    """Noise on every joint: what gives width to joints that the capture holds still, and the noise of the measure."""
    floor_rad: float = 0.02
    """Least standard deviation of any direction."""
    balance: float = 0.5
    """0: every frame counts alike; 1: every subject does; between: a subject of n frames counts as n^(1 - balance)."""
    shares: tuple[float, ...] = ()
    """What each capture file counts for, in the order given; empty: as much as its subjects do."""
    mirror: bool = True
    """Fit the frames and their mirror images."""
    shrinkage: float = 0.1
    """Pull of each component's covariance towards that of all frames, as a share of the total weight."""
    spread_rad: float = 0.0
    """Extra standard deviation of the joints of `spread_joints`, which the capture holds stiffer than people do."""
    spread_joints: tuple[str, ...] = ("collar", "wrist", "hand", "foot", "neck")
    """Names, or their ends, of the joints with extra spread."""
    stride: int = 6
    """Fit every so many frames: neighbours at 30 frames a second say the same."""
    folds: int = 5
    """Groups of subjects, each left out once, to learn what energies unseen people have."""
    quantiles: int = 257
    """Size of the table behind `score`."""
    seed: int = 0


@dataclass(frozen=True)
class Frames:
    """Poses without the pelvis, and whose they are."""

    rotations: Float[Tensor, "N 23 3 3"]
    subjects: np.ndarray
    capture: np.ndarray
    """Which file each frame is from."""

    def __len__(self) -> int:
        return len(self.subjects)

    def where(self, chosen: np.ndarray) -> "Frames":
        """The frames of a mask, of a slice, or of indices."""
        return Frames(self.rotations[chosen], self.subjects[chosen], self.capture[chosen])

    def by(self, subjects: Iterable[str]) -> np.ndarray:
        """The mask of the frames of these subjects."""
        return np.isin(self.subjects, list(subjects))


@dataclass(frozen=True)
class Priors:
    """One recipe's two priors."""

    gaussian: PosePrior
    mixture: PosePrior


def read_captures(paths: Sequence[Path]) -> Frames:
    """The valid frames of several capture files."""
    return joined([read_capture(path, index) for index, path in enumerate(paths)])


def joined(captures: Sequence[Frames]) -> Frames:
    """Frames one after another."""
    return Frames(
        torch.cat([frames.rotations for frames in captures]),
        np.concatenate([frames.subjects for frames in captures]),
        np.concatenate([frames.capture for frames in captures]),
    )


def read_capture(path: Path, index: int) -> Frames:
    """The valid frames of a capture file, the `index`-th."""
    fields = read_arrays(path, CAPTURE_FIELDS)
    if missing := [name for name in CAPTURE_FIELDS if name not in fields]:
        raise MeshrecError(f"{path} is no motion capture: it lacks {', '.join(missing)}. See the top of this tool.")
    poses, valid = fields["poses"], fields["valid"]
    subjects = np.repeat(fields["clip_subject"], fields["clip_len"])
    if poses.shape[1:] != (len(SMPL24), 3) or len(subjects) != len(poses):
        raise MeshrecError(f"{path}: poses are {poses.shape}, clips cover {len(subjects)} frames; give (N, 24, 3)")
    rotations = roma.rotvec_to_rotmat(torch.from_numpy(poses[valid][:, 1:]).double())
    return Frames(rotations, subjects[valid], np.full(len(rotations), index))


def mirrored(rotations: Float[Tensor, "*batch 23 3 3"]) -> Float[Tensor, "*batch 23 3 3"]:
    """The pose in a mirror: sides swapped, S R S with S the reflection of x."""
    swap = [BODY_JOINTS.index(SMPL24.joints[SMPL24.mirror[SMPL24.index(joint)]]) for joint in BODY_JOINTS]
    reflection = torch.diag(rotations.new_tensor([-1.0, 1.0, 1.0]))
    return reflection @ rotations[..., swap, :, :] @ reflection


def jittered(rotations: Float[Tensor, "N 23 3 3"], jitter_rad: float, seed: int) -> Float[Tensor, "N 23 3 3"]:
    """R exp(delta), delta from N(0, jitter^2 I)."""
    noise = np.random.default_rng(seed).normal(scale=jitter_rad, size=rotations.shape[:-1])
    return rotations @ roma.rotvec_to_rotmat(torch.from_numpy(noise))


def frame_weights(frames: Frames, recipe: Recipe) -> Float[Tensor, "N"]:
    """n^-balance for each frame of a subject with n frames; then each capture file its share."""
    _, which, counts = np.unique(frames.subjects, return_inverse=True, return_counts=True)
    weights = counts[which].astype(np.float64) ** -recipe.balance
    for index, share in enumerate(recipe.shares):
        rows = frames.capture == index
        weights[rows] *= share / weights[rows].sum()
    return torch.from_numpy(weights)


def fit(frames: Frames, recipe: Recipe) -> Priors:
    """Both priors of these frames, their scores not yet scaled."""
    frames = frames.where(np.arange(0, len(frames), recipe.stride))
    weights = frame_weights(frames, recipe)
    rotations = frames.rotations
    if recipe.mirror:
        rotations, weights = torch.cat([rotations, mirrored(rotations)]), torch.cat([weights, weights])
    rotations = jittered(rotations, recipe.jitter_rad, recipe.seed + 1)
    means = mean_rotations_of(rotations, weights)
    phi = centred_log(rotations, means).flatten(-2)
    gaussian = fit_gaussian(phi, weights, recipe.floor_rad)
    mixture = fit_mixture(phi, weights, recipe.components, recipe.floor_rad, recipe.shrinkage, seed=recipe.seed)
    spread, unscaled = spread_of(recipe), torch.zeros(2, dtype=torch.float64)
    return Priors(
        PosePrior(gaussian.widened(spread), means, unscaled), PosePrior(mixture.widened(spread), means, unscaled)
    )


def spread_of(recipe: Recipe) -> Float[Tensor, "69"]:
    """The extra standard deviation of every coordinate, radians."""
    loose = [joint.endswith(recipe.spread_joints) for joint in BODY_JOINTS]
    return recipe.spread_rad * torch.tensor(loose).double().repeat_interleave(3)


def scaled(priors: Priors, frames: Frames, recipe: Recipe) -> Priors:
    """The priors with the energies of unseen people: each fold of subjects under priors fitted to the others.

    Fitted frames would flatter themselves, and every later pose would score too low.
    """
    folds = np.array_split(np.random.default_rng(recipe.seed).permutation(np.unique(frames.subjects)), recipe.folds)
    unseen = [(fit(frames.where(~frames.by(fold)), recipe), frames.where(frames.by(fold))) for fold in folds]
    return Priors(
        _scaled(priors.gaussian, [(others.gaussian, some) for others, some in unseen], recipe),
        _scaled(priors.mixture, [(others.mixture, some) for others, some in unseen], recipe),
    )


def _scaled(prior: PosePrior, unseen: list[tuple[PosePrior, Frames]], recipe: Recipe) -> PosePrior:
    frames = joined([some for _, some in unseen])
    energies = torch.cat([others.energy(jittered(some.rotations, recipe.jitter_rad, 0)) for others, some in unseen])
    weights = frame_weights(frames, recipe)
    order = energies.argsort()
    levels = weights[order].cumsum(0) - weights[order] / 2
    levels = (levels - levels[0]) / (levels[-1] - levels[0])
    table = np.interp(np.linspace(0, 1, recipe.quantiles), levels.numpy(), energies[order].numpy())
    return PosePrior(prior.density, prior.mean_rotations, torch.from_numpy(table))


def measured(prior: PosePrior, frames: Frames, recipe: Recipe) -> dict[str, float]:
    """Negative log-likelihood of frames jittered once with seed 0, in nats a pose, and what `score` says of them.

    Moving joints are those that leave their mean in these frames; an informative degree of freedom is a direction in
    which one of them has a standard deviation of more than 0.01 rad.
    """
    noisy = jittered(frames.rotations, recipe.jitter_rad, 0)
    nll, score = -prior.log_prob(noisy), prior.score(noisy)
    by_subject = frame_weights(frames, replace(recipe, balance=1.0, shares=()))
    moving, degrees = motion(frames)
    nll_moving = -restricted(prior, moving).log_prob(noisy[:, moving]).mean()
    figures = {
        "nll": nll.mean(),
        "nll_mean_over_subjects": by_subject @ nll / by_subject.sum(),
        "nll_moving_joints": nll_moving,
        "moving_joints": len(moving),
        "informative_degrees_of_freedom": degrees,
        "nll_moving_joints_per_informative_degree": nll_moving / degrees,
        "score_mean": score.mean(),
        "score_below_0.05": (score < 0.05).double().mean(),
        "frames": len(frames),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


def motion(frames: Frames) -> tuple[list[int], int]:
    """The joints that move in these frames, and in how many directions they do so."""
    weights = torch.ones(len(frames), dtype=torch.float64)
    phi = centred_log(frames.rotations, mean_rotations_of(frames.rotations, weights))
    spread = torch.stack([torch.linalg.eigvalsh(joint.mT.cov()) for joint in phi.unbind(dim=1)]) > 0.01**2
    return spread.any(dim=-1).nonzero().flatten().tolist(), int(spread.sum())


def restricted(prior: PosePrior, joints: list[int]) -> PosePrior:
    """The marginal density of some of the joints."""
    axes = [3 * joint + axis for joint in joints for axis in range(3)]
    density = prior.density
    assert isinstance(density, Gaussian | Mixture)
    if isinstance(density, Gaussian):
        marginal = Gaussian.from_covariance(density.mean[axes], density.covariance[axes][:, axes])
    else:
        covariances = covariance_of(density.whitenings)[:, axes][:, :, axes]
        marginal = Mixture(density.log_weights, density.means[:, axes], whitening_of(covariances))
    return PosePrior(marginal, prior.mean_rotations[joints], prior.energy_quantiles)


def publish(name: str, prior: PosePrior, card: dict[str, object], folder: Path) -> None:
    """Write the prior in float32, and beside it a card with its checksum."""
    weights = write_whole(folder / f"{name}.npz", prior.float().save)
    checksum = hashlib.sha256(weights.read_bytes()).hexdigest()
    write_text(folder / f"{name}.json", json.dumps({"name": name, **card, "sha256": checksum}, indent=2) + "\n")


def command(
    mocap: Positional[tuple[Path, ...]],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    recipe: OmitArgPrefixes[Recipe],
    exclude: tuple[str, ...] = VALIDATION_SUBJECTS,
) -> None:
    """Fit a Gaussian and a mixture to motion capture, measure them on the excluded subjects, and write both.

    Args:
        mocap: Capture files.
        output: Folder for prior_gaussian and prior_mixture, each an .npz and its .json card.
        recipe: How.
        exclude: Subjects to measure on and never to fit.
    """
    frames = read_captures(mocap)
    unseen = frames.where(frames.by(exclude))
    seen = frames.where(~frames.by(exclude))
    if not (len(unseen) and len(seen)):
        raise MeshrecError(f"{len(seen)} frames to fit, {len(unseen)} to measure on: check --exclude {exclude}")
    priors = scaled(fit(seen, recipe), seen, recipe)
    for kind, prior in (("gaussian", priors.gaussian), ("mixture", priors.mixture)):
        figures = {"held_out": measured(prior, unseen, recipe), "fitted": measured(prior, seen, recipe)}
        print(kind, json.dumps(figures, indent=2))
        publish(f"prior_{kind}", prior, card_of(mocap, exclude, recipe, figures), output)


def card_of(
    mocap: tuple[Path, ...], exclude: tuple[str, ...], recipe: Recipe, figures: dict[str, dict[str, float]]
) -> dict[str, object]:
    """Trained on what, how, and measured how."""
    return {
        "what": "A density on the 23 joint rotations of SMPL (without the pelvis); read it with priors.pose.load_prior",
        "licence": "Apache-2.0",
        "trained_on": [f"{path.name} sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in mocap],
        "never_fitted": list(exclude),
        "acknowledgement": ACKNOWLEDGEMENT,
        "how": asdict(recipe),
        "command": shlex.join(["python", "tools/fit_priors.py", *(_bare(word, mocap) for word in sys.argv[1:])]),
        "measured_how": " ".join((measured.__doc__ or "").split()),
        "measured": figures,
    }


def _bare(word: str, mocap: tuple[Path, ...]) -> str:
    """A capture file by its name alone: where it lay concerns nobody."""
    return Path(word).name if Path(word) in mocap else word


if __name__ == "__main__":
    try:
        tyro.cli(command, description=__doc__)
    except MeshrecError as error:
        sys.exit(f"{error}")
