"""Fits, measures and publishes the pose priors that ship.

    python tools/fit_priors.py train.npz extra_idle_mit.npz --shares 0.95 0.05 --mixture --gaussian
    python tools/fit_priors.py train.npz extra_idle_mit.npz --runs flow runs/prior_flow paper runs/prior_paper

The Gaussian and the mixture are fitted here, in one go. Flows come from runs of `meshrec train`: their best weights are
taken, and the run is made again without each fifth of the subjects in turn, to learn what energies unseen people have;
that is the scale of `score`. The subjects held out by a run, or by --held-out, are what is measured on.
"""

import hashlib
import json
import math
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int
from rich.console import Console
from synthetic_fit import VALIDATION
from torch import Tensor, nn
from tyro.conf import OmitArgPrefixes, Positional

from meshrec.config import read_config
from meshrec.data.pose_augment import jittered, mirrored, recombined
from meshrec.data.poses import PoseCollection, open_poses
from meshrec.errors import MeshrecError
from meshrec.files import write_text
from meshrec.prior_files import write_prior
from meshrec.randomness import generator_of
from meshrec.train.checkpoint import Checkpoints, load_best
from meshrec.train.loop import run
from meshrec.train.priors import PosesConfig, PriorRun, PriorTask, frame_weights, nll_of
from priors.build import PriorConfig, build_prior
from priors.charts import CentredLog
from priors.gaussian import fit_gaussian
from priors.mixture import fit_mixture
from priors.pose import PosePrior
from priors.prior import TrainedPrior
from priors.so3 import centred_log, mean_rotations_of

ACKNOWLEDGEMENT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. The database was created with funding from NSF "
    "EIA-0196217. CMU motion capture is free for research and may be part of commercial products; the data may not be "
    "resold, even in converted form. ReActIdle is under the MIT licence."
)
QUANTILES = 257
FOLDS = 5
STILL_RAD = 0.01
"""A joint that leaves its mean by less does not move."""
CHUNK = 2000
DRAWS = 64
MOST_FRAMES = 10_000

Maker = Callable[[tuple[str, ...]], TrainedPrior]
"""A prior that was trained without these people."""


@dataclass(frozen=True)
class Recipe:
    """How the Gaussian and the mixture are fitted."""

    held_out: tuple[str, ...] = VALIDATION
    shares: tuple[float, ...] = ()
    """What each path counts for, in the order given; empty: as much as its subjects do."""
    components: int = 8
    floor_rad: float = 0.02
    """Least standard deviation of any direction."""
    shrinkage: float = 0.1
    """Pull of each component's covariance towards that of all frames, as a share of the total weight."""
    recombine: float = 0.4
    """Probability that a limb is that of another pose."""
    poses_made: int = 40_000
    """Fit so many poses, drawn by their weights, mirrored, recombined and jittered."""
    seed: int = 0

    @property
    def poses(self) -> PosesConfig:
        """The frames' weights and noise, as in training."""
        return PosesConfig(held_out=self.held_out, shares=self.shares)


def fitted(kind: str, collection: PoseCollection, recipe: Recipe, without: tuple[str, ...]) -> PosePrior:
    """The Gaussian or the mixture of poses made from everybody else's."""
    rows, random = collection.rows(without=without), generator_of(recipe.seed, "poses")
    drawn = random.choice(rows, recipe.poses_made // 2, p=frame_weights(collection, rows, recipe.poses))
    rotations = collection.rotations(drawn, torch.float64)[:, 1:]
    rotations = recombined(torch.cat([rotations, mirrored(rotations)]), recipe.recombine, random)
    rotations = jittered(rotations, recipe.poses.jitter_rad, random)
    weights = torch.ones(len(rotations), dtype=torch.float64)
    means = mean_rotations_of(rotations, weights)
    phi = centred_log(rotations, means).flatten(-2)
    if kind == "gaussian":
        density = fit_gaussian(phi, weights, recipe.floor_rad)
    else:
        density = fit_mixture(phi, weights, recipe.components, recipe.floor_rad, recipe.shrinkage, seed=recipe.seed)
    return PosePrior(CentredLog(means), density, torch.zeros(2, dtype=torch.float64))


def trained(config: PriorRun, collection: PoseCollection, folder: Path, without: tuple[str, ...]) -> TrainedPrior:
    """The best prior of a run in which these people are held out."""
    config = replace(config, poses=replace(config.poses, held_out=without))
    outcome = run(PriorTask(config, collection, torch.device("cpu")), config, folder)
    assert outcome.best_path is not None
    return best_of(outcome.best_path, config.prior)


def best_file(folder: Path) -> Path:
    """The best model of a run."""
    found = Checkpoints(folder).read_last()
    if found is None or not found[0].best:
        raise MeshrecError(f"{folder} holds no best model yet; train on until its first validation.")
    return folder / found[0].best[0].file


def best_of(path: Path, config: PriorConfig) -> TrainedPrior:
    """The prior in the file of a run's best model, in double precision."""
    prior = build_prior(config)
    assert isinstance(prior, nn.Module)
    load_best(path, prior)
    return prior.double().eval().requires_grad_(False)  # type: ignore[return-value]


def scaled(
    prior: TrainedPrior, make: Maker, collection: PoseCollection, poses: PosesConfig, folds: int, seed: int = 0
) -> None:
    """Give the prior the energies of unseen people: each fold of subjects under a prior made without them.

    People it has seen would flatter it, and every later pose would score too low.
    """
    seen = sorted(set(collection.subjects) - set(poses.held_out))
    groups = np.array_split(np.random.default_rng(seed).permutation(seen), folds)
    rows, energies = [], []
    for group in groups:
        own = collection.rows(set(group.tolist()))
        other = make((*poses.held_out, *group.tolist()))
        rows.append(own)
        energies.append(in_chunks(other.energy, noisy(collection, own, poses.jitter_rad)))
    weights = frame_weights(collection, np.concatenate(rows), poses)
    assert isinstance(prior, nn.Module)
    prior.register_buffer("energy_quantiles", weighted_quantiles(torch.cat(energies).numpy(), weights))


def weighted_quantiles(values: Float[np.ndarray, "N"], weights: Float[np.ndarray, "N"]) -> Float[Tensor, "257"]:
    """The values at evenly spaced levels of their weighted distribution."""
    order = values.argsort()
    levels = weights[order].cumsum() - weights[order] / 2
    levels = (levels - levels[0]) / (levels[-1] - levels[0])
    return torch.from_numpy(np.interp(np.linspace(0, 1, QUANTILES), levels, values[order]))


def noisy(collection: PoseCollection, rows: Int[np.ndarray, "n"], jitter_rad: float) -> Float[Tensor, "n 23 3 3"]:
    """Frames without the pelvis, jittered once with seed 0."""
    return jittered(collection.rotations(rows, torch.float64)[:, 1:], jitter_rad, np.random.default_rng(0))


def in_chunks(function: Callable[[Tensor], Tensor], rotations: Float[Tensor, "n 23 3 3"]) -> Float[Tensor, "n"]:
    """The function of all poses, some at a time."""
    return torch.cat([function(some) for some in rotations.split(CHUNK)])


def measured(
    prior: TrainedPrior, collection: PoseCollection, rows: Int[np.ndarray, "n"], jitter_rad: float
) -> dict[str, float]:
    """Negative log-likelihood of frames jittered once with seed 0, in nats a pose, and what `score` says of them.

    Where a likelihood is only bounded, it is bounded with 64 draws a pose. Of many frames, 10,000 evenly spread count.
    Joints that never leave their mean hold nothing but the jitter, whose entropy is known: without them the NLL is at
    most `nll_moving_joints`. An informative degree of freedom is a direction in which a joint has a standard deviation
    of more than 0.01 rad.
    """
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_FRAMES)).round().astype(int)]
    poses = noisy(collection, rows, jitter_rad)
    nll, score = nll_of(prior, poses, DRAWS), in_chunks(prior.score, poses)
    subject = collection.subject_of(rows)
    still, degrees = motion(collection, rows)
    jitter_entropy = 3 * still * math.log(jitter_rad * math.sqrt(2 * math.pi * math.e))
    moving = float(nll.mean()) - jitter_entropy
    figures = {
        "nll": nll.mean(),
        "nll_mean_over_subjects": np.mean([float(nll[subject == one].mean()) for one in np.unique(subject)]),
        "nll_moving_joints": moving,
        "still_joints": still,
        "informative_degrees_of_freedom": degrees,
        "nll_moving_joints_per_informative_degree": moving / degrees,
        "score_mean": score.mean(),
        "score_below_0.05": (score < 0.05).double().mean(),
        "frames": len(rows),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


def motion(collection: PoseCollection, rows: Int[np.ndarray, "n"]) -> tuple[int, int]:
    """How many joints never move in these frames, and in how many directions the others do."""
    rotations = collection.rotations(rows, torch.float64)[:, 1:]
    phi = centred_log(rotations, mean_rotations_of(rotations, torch.ones(len(rotations), dtype=torch.float64)))
    moves = torch.stack([torch.linalg.eigvalsh(joint.mT.cov()) for joint in phi.unbind(dim=1)]) > STILL_RAD**2
    return int((~moves.any(dim=-1)).sum()), int(moves.sum())


def publish(
    name: str, prior: TrainedPrior, config: PriorConfig, collection: PoseCollection, card: dict[str, Any], output: Path
) -> None:
    """Measure the prior on both sides of the split, and write it in single precision with a card beside it."""
    poses = PosesConfig(held_out=tuple(card["never_fitted"]))
    seen, unseen = collection.split(poses.held_out)
    figures = {
        "held_out": measured(prior, collection, unseen, poses.jitter_rad),
        "fitted": measured(prior, collection, seen, poses.jitter_rad),
    }
    assert isinstance(prior, nn.Module)
    weights = write_prior(output / f"prior_{name}.safetensors", prior.float(), config)  # type: ignore[arg-type]
    whole = {
        "name": f"prior_{name}",
        "what": "A density on the 23 joint rotations of SMPL (without the pelvis); meshrec.prior_files reads it",
        "licence": "Apache-2.0",
        "acknowledgement": ACKNOWLEDGEMENT,
        **card,
        "measured_how": " ".join((measured.__doc__ or "").split()),
        "measured": figures,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    write_text(output / f"prior_{name}.json", json.dumps(whole, indent=2) + "\n")
    Console().print(name, json.dumps(figures, indent=2))


def command(
    data: Positional[tuple[Path, ...]],
    recipe: OmitArgPrefixes[Recipe],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("meshrec/weights"),
    gaussian: bool = False,
    mixture: bool = False,
    runs: dict[str, Path] | None = None,
    folds: int = FOLDS,
    fold_steps: int | None = None,
) -> None:
    """Fit, measure and write priors: prior_NAME.safetensors, and prior_NAME.json, its card.

    Args:
        data: Pose collections or motion files; of runs, the same as they were trained on.
        recipe: How the Gaussian and the mixture are fitted.
        output: The folder to write to.
        gaussian: Fit the Gaussian.
        mixture: Fit the mixture.
        runs: Names, and the folders of runs of `meshrec train` to publish under them.
        folds: Groups of subjects, each left out once, to learn what energies unseen people have.
        fold_steps: Steps of the runs that leave them out; by default as many as the run itself has.
    """
    collection = open_poses(data)
    about = {
        "trained_on": [f"{path.name} sha256 {checksum(path)}" for path in data],
        "command": shlex.join(["python", "tools/fit_priors.py", *(_bare(word, data) for word in sys.argv[1:])]),
    }
    for kind in [name for name, wanted in (("gaussian", gaussian), ("mixture", mixture)) if wanted]:
        prior = fitted(kind, collection, recipe, recipe.held_out)
        scaled(prior, lambda w, k=kind: fitted(k, collection, recipe, w), collection, recipe.poses, folds)
        card = {"never_fitted": list(recipe.held_out), "how": asdict(recipe), **about}
        config = PriorConfig(kind=kind, components=recipe.components)  # type: ignore[arg-type]
        publish(kind, prior, config, collection, card, output)
    for name, folder in (runs or {}).items():
        _publish_run(name, folder, collection, about, folds, fold_steps, output)


def _publish_run(
    name: str,
    folder: Path,
    collection: PoseCollection,
    about: dict[str, Any],
    folds: int,
    fold_steps: int | None,
    output: Path,
) -> None:
    config = read_config(folder / "config.yaml", PriorRun)
    shorter = replace(config, loop=replace(config.loop, steps=fold_steps or config.loop.steps))
    best = best_file(folder)
    prior = best_of(best, config.prior)
    with tempfile.TemporaryDirectory() as scratch:

        def again(without: tuple[str, ...]) -> TrainedPrior:
            return trained(shorter, collection, Path(tempfile.mkdtemp(dir=scratch)), without)

        scaled(prior, again, collection, config.poses, folds)
    how = asdict(replace(config, data=()))
    card = {"never_fitted": list(config.poses.held_out), "how": how, "best_after": best.stem, **about}
    publish(name, prior, config.prior, collection, card, output)


def checksum(path: Path) -> str:
    """SHA-256 of a file, or of all the files of a folder in the order of their names."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _bare(word: str, paths: Sequence[Path]) -> str:
    """A path by its name alone: where it lay concerns nobody."""
    return Path(word).name if Path(word) in paths else word


if __name__ == "__main__":
    try:
        tyro.cli(command, description=__doc__)
    except MeshrecError as error:
        sys.exit(f"{error}")
