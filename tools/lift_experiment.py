"""What makes a lifter good? Trains variants of a recipe, one thing changed at a time, and measures them.

    python tools/lift_experiment.py train.npz extra_idle_mit.npz -o out/lift --steps 3000 --hidden 512 --seeds 0 1
    python tools/lift_experiment.py train.npz extra_idle_mit.npz -o out/lift_full --variants best thesis supervised

Every variant is a run of `meshrec train` in a folder of its own, which goes on where it stood. All see the same views
in the same number of steps. The truth of the held-out subjects is used to measure alone: 17 joints, zero variance,
proper rotation, true 2D; then with 5 px of noise on people 1000 px tall, with three limb joints missing, with the
joints missing that COCO does not name, and the best of ten samples.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from fit_priors import best_file
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from meshrec.baselines import ZeroDepth
from meshrec.branches.lift import LiftBranch, LiftConfig
from meshrec.config import read_config
from meshrec.data.views import Views, open_views
from meshrec.estimators import LiftSampler
from meshrec.evaluation import Questions, measured, noisy, questions_of, unseen, without_limbs
from meshrec.files import make_folder, write_text, write_whole
from meshrec.lift_evaluation import sampled
from meshrec.models.lifter_file import read_lifter
from meshrec.skeletons import H36M17
from meshrec.train.lift import LiftRun, LiftTask
from meshrec.train.lift_draws import UNNAMED
from meshrec.train.loop import run

CONFIGS = Path(__file__).parents[1] / "configs"

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "best": ("lift", {}),
    "no ray: free joints": ("lift", {"lifter.place": "free"}),
    "one scale for all": ("lift", {"lifter.scale": "split"}),
    "fixed distance": ("lift", {"lifter.distance": "fixed"}),
    "no elevation": ("lift", {"lifter.elevation": "none"}),
    "no likelihood": ("lift", {"losses.likelihood": 0.0}),
    "GAN for likelihood": ("lift", {"losses.likelihood": 0.0, "losses.adversarial": 1.0, "gan.dropout": 0.0}),
    "GAN beside likelihood": ("lift", {"losses.adversarial": 1.0, "gan.dropout": 0.0}),
    "not lifted again": ("lift", {"losses.again": 0.0}),
    "2D after lifting again": ("lift", {"losses.again_2d": 10.0}),
    "nobody imagined": ("lift", {"imagine.share": 0.0}),
    "no symmetry": ("lift", {"losses.symmetry": 0.0}),
    "no bones": ("lift", {"losses.bones": 0.0}),
    "no chirality": ("lift", {"losses.chirality": 0.0}),
    "no joints hidden": ("lift", {"augment.drop_limbs": 0.0, "augment.drop_unnamed": 0.0}),
    "more joints hidden": ("lift", {"augment.drop_limbs": 0.5, "imagine.drop_limbs": 0.9}),
    "no average": ("lift", {"loop.ema": 0.0}),
    "constant rate": ("lift", {"loop.optimizer.schedule": "constant"}),
    "dropout 0.2": ("lift", {"lifter.dropout": 0.2}),
    "split encoders": ("lift", {"lifter.split_encoders": True}),
    "more divergence": ("lift", {"losses.kld": 0.1}),
    "thesis": ("lift_thesis", {}),
    "supervised": ("lift_supervised", {}),
}
"""What differs from which recipe."""

FIGURES = ("clean", "flip_averaged", "noise_5_px", "missing_3_limbs", "without_unnamed", "sample", "best_of_10")
"""PA-MPJPE, mm."""


@dataclass(frozen=True)
class Setting:
    """What all variants have in common."""

    data: Positional[tuple[Path, ...]]
    """3D poses."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Runs, table and picture."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    seeds: tuple[int, ...] = (0,)
    steps: int = 10_000
    hidden: int = 1024
    precision: Literal["float32", "bf16"] = "bf16"
    views: int = 4000
    """Held-out views to measure on, evenly spread."""


def changed(config: Any, settings: Mapping[str, Any]) -> Any:
    """The configuration with settings, named by their dotted paths, at other values."""
    for path, value in settings.items():
        name, _, rest = path.partition(".")
        config = replace(config, **{name: changed(getattr(config, name), {rest: value}) if rest else value})
    return config


def recipe(variant: str, seed: int, setting: Setting) -> LiftRun:
    """The run of a variant; the cycle of beta goes with the number of steps as the thesis's with 400 epochs."""
    file, changes = VARIANTS[variant]
    epoch = setting.steps / 400
    common = {
        "lifter.hidden": setting.hidden,
        "select_by": "last",
        "loop.steps": setting.steps,
        "loop.seed": seed,
        "loop.precision": setting.precision,
        "loop.validate_every": max(500, setting.steps // 10),
        "beta.wait": max(1, round(10 * epoch)),
        "beta.rise": max(1, round(30 * epoch)),
        "beta.hold": max(1, round(10 * epoch)),
    }
    return changed(read_config(CONFIGS / f"{file}.yaml", LiftRun), common | changes)


def questions(views: Views, count: int) -> Questions:
    """So many held-out views, evenly spread."""
    return questions_of(views[np.linspace(0, len(views) - 1, min(count, len(views))).round().astype(int)])


def figures_of(weights: Path, asked: Questions) -> dict[str, float]:
    """Every figure of `FIGURES`."""
    lifter = read_lifter(weights)
    plain, averaged = (LiftSampler(LiftBranch(lifter, LiftConfig(flip=flip))) for flip in (False, True))
    hidden = torch.zeros(len(asked), len(H36M17), dtype=torch.bool)
    hidden[:, UNNAMED] = True
    drawn = sampled(plain, asked, 10)
    errors = {
        "clean": measured(plain, asked)[0],
        "flip_averaged": measured(averaged, asked)[0],
        "noise_5_px": measured(plain, noisy(asked, 5.0))[0],
        "missing_3_limbs": measured(plain, without_limbs(asked, 3))[0],
        "without_unnamed": measured(plain, unseen(asked, hidden))[0],
        "sample": drawn.mean,
        "best_of_10": drawn.best,
    }
    figures = {name: float(error.pa_mpjpe_mm.mean()) for name, error in errors.items()}
    return figures | {"clean_thesis_figure": float(errors["clean"].pa_mpjpe_thesis_mm.mean())}


def main(setting: Setting) -> int:
    """Train what is not yet trained, measure, and write the table."""
    console, results = Console(stderr=True), {}
    cameras, held_out = (getattr(recipe("best", 0, setting), name) for name in ("cameras", "held_out"))
    views, others = open_views(setting.data, cameras, held_out)
    asked = questions(others, setting.views)
    zero_mm = float(measured(ZeroDepth(), asked)[0].pa_mpjpe_mm.mean())
    for variant in setting.variants:
        for seed in setting.seeds:
            folder = make_folder(setting.output / f"{variant.replace(' ', '_').replace(':', '')}_{seed}")
            config = recipe(variant, seed, setting)
            outcome = run(LiftTask(config, views, others, torch.device("cpu")), config, folder, console=console)
            if outcome.exit_code:
                return outcome.exit_code
            results.setdefault(variant, []).append(figures_of(best_file(folder), asked))
            console.print(f"{variant}, seed {seed}: {results[variant][-1]['clean']:.1f} mm")
            record = {"steps": setting.steps, "hidden": setting.hidden, "batch": config.loop.batch, "views": len(asked)}
            record |= {"seeds": list(setting.seeds), "zero_depth": zero_mm, "pa_mpjpe_mm": results}
            write_text(setting.output / "table.json", json.dumps(record, indent=1))
    console.print(table_of(results, zero_mm))
    write_whole(setting.output / "table.png", lambda path: draw(results, zero_mm, path))
    return 0


def table_of(results: Mapping[str, list[dict[str, float]]], zero_mm: float) -> Table:
    """The median over seeds, and their range where there are several."""
    table = Table(title=f"PA-MPJPE, mm; zero depth {zero_mm:.1f}")
    table.add_column("variant")
    for name in FIGURES:
        table.add_column(name.replace("_", " "), justify="right")
    for variant, runs in results.items():
        table.add_row(variant, *(spread([each[name] for each in runs]) for name in FIGURES))
    return table


def spread(values: list[float]) -> str:
    """The median, and the range where there are several."""
    told = f"{median(values):.1f}"
    return told if len(values) == 1 else f"{told} ({min(values):.1f} to {max(values):.1f})"


def draw(results: Mapping[str, list[dict[str, float]]], zero_mm: float, path: Path) -> None:
    """A bar for each variant, a dot for each seed."""
    from matplotlib.figure import Figure

    names = sorted(results, key=lambda name: median(each["clean"] for each in results[name]), reverse=True)
    figure = Figure(figsize=(8, 1 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [median(each["clean"] for each in results[name]) for name in names], color="#5b8db8")
    for place, name in enumerate(names):
        axes.plot([each["clean"] for each in results[name]], [place] * len(results[name]), "k.", markersize=4)
    axes.axvline(zero_mm, color="#a44", linestyle="--", label="zero depth")
    axes.set_xlabel("PA-MPJPE, mm, held-out subjects of synthetic views")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120, format="png")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Setting, description=__doc__)))
