"""Do pose priors help to fit bodies? Priors against each other, with keypoints alone and with body parts.

    python tools/prior_experiment.py train.npz extra_idle_mit.npz -o out/priors \\
        --priors none gaussian mixture vae=runs/prior_vae paper realnvp=runs/prior_realnvp flow

The experiment of Zanfir et al. (ECCV 2020, supplement, section 3) on synthetic people: poses of subjects that no prior
was trained on, random shapes and cameras (those of synthetic_fit.py), 17 joints with noise and gaps, and part masks of
the rendered truth with the corruption that part_noise.py states. Every fit starts from four directions at the prior's
mean. KA is the keypoint term of `fit`, BA its body-part term. What the prior's energy counts is chosen for each prior
and loss by MPJPE on other people. Errors are means, with the standard error of the mean.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from fit_priors import best_file, best_of
from part_noise import PartNoise, corrupted, true_part_maps
from rich.console import Console
from rich.progress import track
from rich.table import Table
from synthetic_fit import VALIDATION, People, held_out_poses, make_people
from torch import Tensor
from tyro.conf import OmitArgPrefixes, Positional

from meshrec.body import BodyModel, load_body_model
from meshrec.branches.fit import FitBranch, FitConfig
from meshrec.config import read_config
from meshrec.errors import MeshrecError
from meshrec.files import make_folder, write_text, write_whole
from meshrec.metrics import mpjpe_mm, pa_mpjpe_mm, pve_mm
from meshrec.objective import ObjectiveConfig
from meshrec.part_masks import PartMasks, part_masks
from meshrec.prior_files import open_prior
from meshrec.randomness import sequence_of
from meshrec.train.priors import PriorRun
from meshrec.types import BodyParams, Estimate, stack
from priors.prior import Prior

LOSSES = ("KA", "KA+BA")
FAILURE_MM = 150
BATCH = 100


@dataclass(frozen=True)
class Setting:
    """Who is fitted, and how badly they are seen."""

    subjects: tuple[str, ...] = VALIDATION
    people: int = 500
    noise_px: float = 3.0
    missing: float = 0.15
    """Probability that a joint is not seen."""
    parts: PartNoise = field(default_factory=PartNoise)
    weights: tuple[float, ...] = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
    """What the prior's energy may count."""
    tuning_people: int = 60
    """People on whom that is chosen; none of them is measured."""
    seed: int = 0


@dataclass(frozen=True)
class Errors:
    """Of one prior with one loss, for every person."""

    prior: str
    loss: Literal["KA", "KA+BA"]
    prior_weight: float
    mpjpe_mm: Tensor
    pa_mpjpe_mm: Tensor
    mpvpe_mm: Tensor
    converged: Tensor
    seconds: float

    @property
    def row(self) -> dict[str, str | float]:
        """The figures of a table's line."""
        means = {
            f"{name}{suffix}": value
            for name in ("mpjpe_mm", "pa_mpjpe_mm", "mpvpe_mm")
            for suffix, value in zip(("", "_standard_error"), mean_and_error(getattr(self, name)), strict=True)
        }
        return {
            "prior": self.prior,
            "loss": self.loss,
            "prior_weight": self.prior_weight,
            **means,
            f"over_{FAILURE_MM}_mm": (self.mpjpe_mm > FAILURE_MM).double().mean().item(),
            "converged": self.converged.double().mean().item(),
            "seconds": self.seconds,
        }


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean, and its standard error."""
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def people_of(model: BodyModel, poses: Tensor, setting: Setting, stream: str) -> tuple[People, PartMasks]:
    """The people as a keypoint detector and a part segmentation would report them."""
    seeds = sequence_of(setting.seed, stream).generate_state(2).tolist()
    people = make_people(model, poses, setting.noise_px, landmark_noise_m=0.0, seed=seeds[0])
    random = torch.Generator().manual_seed(seeds[1])
    seen = torch.rand(people.keypoints.confidence.shape, generator=random) >= setting.missing
    keypoints = replace(people.keypoints, confidence=seen.to(people.keypoints.confidence))
    masks = []
    for one in track(range(len(poses)), "part masks", console=Console(stderr=True)):
        person = slice(one, one + 1)
        maps = true_part_maps(model, people.params[person], people.camera[person])
        masks.append(part_masks(corrupted(maps, setting.parts, random))[0])
    return replace(people, keypoints=keypoints), stack(masks)


def fitted(
    model: BodyModel, prior: Prior | None, people: People, masks: PartMasks | None, weight: float, noise_px: float
) -> tuple[dict[str, Tensor], float]:
    """Every person's errors, and the seconds that all the fits took."""
    config = FitConfig(noise_px=noise_px, objective=ObjectiveConfig(prior_weight=weight))
    branch = FitBranch(model, prior, config)
    errors, seconds = [], 0.0
    for rows in torch.arange(len(people.joints17_m)).split(BATCH):
        began = time.perf_counter()
        estimate = branch.fit(people.keypoints[rows], people.camera[rows], None if masks is None else masks[rows])
        seconds += time.perf_counter() - began
        errors.append(errors_of(model, estimate, people.params[rows], people.joints17_m[rows]))
    return {name: torch.cat([some[name] for some in errors]) for name in errors[0]}, seconds


def errors_of(model: BodyModel, estimate: Estimate, params: BodyParams, joints17_m: Tensor) -> dict[str, Tensor]:
    """Of joints and vertices about the pelvis of H36M-17, in millimetres."""
    assert estimate.report is not None and estimate.body is not None and estimate.root_m is not None
    truth, pelvis_m = joints17_m - joints17_m[:, :1], joints17_m[:, :1]
    return {
        "mpjpe_mm": mpjpe_mm(estimate.joints17_m, truth),
        "pa_mpjpe_mm": pa_mpjpe_mm(estimate.joints17_m, truth),
        "mpvpe_mm": pve_mm(estimate.body.vertices_m - estimate.root_m[:, None], model(params).vertices_m - pelvis_m),
        "converged": estimate.report.converged,
    }


def experiment(priors: dict[str, Prior | None], setting: Setting, files: list[Path]) -> Iterator[Errors]:
    """Every prior, tuned, with either loss."""
    model = load_body_model()
    poses = held_out_poses(files, setting.subjects, setting.people + setting.tuning_people)
    apart = np.linspace(0, len(poses) - 1, setting.tuning_people).round().astype(int)
    measured = np.setdiff1d(np.arange(len(poses)), apart)
    tuning, tuning_masks = people_of(model, poses[apart], setting, "tuned on")
    people, masks = people_of(model, poses[measured], setting, "measured")
    for name, prior in priors.items():
        for loss in LOSSES:
            by_parts = loss == "KA+BA"
            weight = best_weight(model, prior, tuning, tuning_masks if by_parts else None, setting)
            errors, seconds = fitted(model, prior, people, masks if by_parts else None, weight, setting.noise_px)
            yield Errors(name, loss, weight, seconds=seconds, **errors)


def best_weight(
    model: BodyModel, prior: Prior | None, people: People, masks: PartMasks | None, setting: Setting
) -> float:
    """What the prior's energy should count, by the mean MPJPE."""
    if prior is None:
        return 0.0
    tried = [fitted(model, prior, people, masks, weight, setting.noise_px)[0] for weight in setting.weights]
    return setting.weights[int(torch.stack([errors["mpjpe_mm"].mean() for errors in tried]).argmin())]


def opened(name_or_path: str) -> tuple[str, Prior | None]:
    """A prior by its name or file, or NAME=RUN: the best of a run of `meshrec train`."""
    name, _, folder = name_or_path.partition("=")
    if not folder:
        return Path(name).stem, open_prior(name)
    prior = best_of(best_file(Path(folder)), read_config(Path(folder) / "config.yaml", PriorRun).prior)
    return name, prior.float()  # type: ignore[attr-defined]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars of MPJPE and MPVPE, with standard errors, of the table's rows; without a prior they are cut."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["prior"] for row in rows))
    top = 1.15 * max([row["mpvpe_mm"] for row in rows if row["prior"] != "none"], default=math.inf)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    titles = {"mpjpe_mm": "joints (MPJPE)", "mpvpe_mm": "vertices (MPVPE)"}
    for axes, (quantity, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        for place, (loss, color) in enumerate(zip(LOSSES, ("#9aa5b1", "#2f6f9f"), strict=True)):
            chosen = [row for row in rows if row["loss"] == loss]
            heights = [min(row[quantity], top) for row in chosen]
            errors = [row[f"{quantity}_standard_error"] if row[quantity] <= top else 0.0 for row in chosen]
            labels = [f"{row[quantity]:.0f}" + ("" if row[quantity] <= top else " ↑") for row in chosen]
            across = np.arange(len(names)) + 0.4 * (place - 0.5)
            bars = axes.bar(across, heights, 0.38, yerr=errors, color=color, label=loss, capsize=2)
            axes.bar_label(bars, labels, fontsize=7, padding=2)
        axes.set_xticks(np.arange(len(names)), names)
        axes.set_title(f"Error of {title}, mm")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("mm, about the pelvis")
    figure.axes[1].legend(frameon=False)
    write_whole(path, lambda neighbour: figure.savefig(neighbour, dpi=130))


def show(results: Sequence[Errors]) -> None:
    """The table."""
    table = Table(title="synthetic people, fitted")
    for heading in (
        "prior",
        "loss",
        "weight",
        "MPJPE mm",
        "PA-MPJPE mm",
        "MPVPE mm",
        f"> {FAILURE_MM} mm",
        "converged",
        "s",
    ):
        table.add_column(heading, justify="left" if heading in ("prior", "loss") else "right")
    for result in results:
        row = result.row
        errors = (f"{row[n]:.1f} ± {row[f'{n}_standard_error']:.1f}" for n in ("mpjpe_mm", "pa_mpjpe_mm", "mpvpe_mm"))
        shares = (f"{100 * float(row[n]):.1f} %" for n in (f"over_{FAILURE_MM}_mm", "converged"))
        table.add_row(result.prior, result.loss, f"{result.prior_weight:g}", *errors, *shares, f"{result.seconds:.0f}")
    Console(width=None if Console().is_terminal else 120).print(table)


def main(
    files: Positional[list[Path]],
    setting: OmitArgPrefixes[Setting],
    priors: tuple[str, ...] = ("none", "gaussian", "mixture", "paper", "flow"),
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out/priors"),
) -> None:
    """Fit synthetic people with several priors, and write results.json and bars.png.

    Args:
        files: Pose files.
        setting: Who is fitted.
        priors: Names or files of priors, "none", or NAME=RUN.
        output: A folder.
    """
    torch.set_grad_enabled(False)
    make_folder(output)
    results = []
    for errors in experiment(dict(map(opened, priors)), setting, files):
        results.append(errors)
        Console(stderr=True).print(f"{errors.prior} {errors.loss}: {errors.mpjpe_mm.mean():.1f} mm")
    rows = [result.row for result in results]
    write_text(output / "results.json", json.dumps({"setting": asdict(setting), "results": rows}, indent=1) + "\n")
    draw(rows, output / "bars.png")
    show(results)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except MeshrecError as error:
        sys.exit(f"{error}")
