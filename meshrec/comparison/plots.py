"""Pictures of a comparison as PNG files: spread, viewing angle, noise, joints, and differences with their intervals."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from meshrec.comparison.charts import FACING
from meshrec.comparison.comparison import EVERYBODY, Comparison, Interval, Metric
from meshrec.comparison.summaries import (
    angle_curves,
    better,
    density,
    joint_goal,
    joint_means,
    measured,
    noise_curves,
    winner,
)
from meshrec.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INKS = ("#2f6f9f", "#c8553d", "#8458ad", "#a9791f", "#20909a", "#b8487a", "#6d7530")
"""Colours of the branches, as on the page."""

Draw = Callable[["Axes"], None]
"""Draws on the axes of one metric."""

Drawing = Callable[[Comparison, Metric], Draw | None]
"""What there is to draw of a metric, if anything."""

GREY = "#858b96"
DOTS_PER_INCH = 130
COLUMNS = 2
PANEL = (5.6, 3.6)
"""Width and height of a metric's part, in inches."""


def write_plots(folder: Path, comparison: Comparison) -> tuple[Path, ...]:
    """Every picture that there is something to draw for, as PNG files in `folder`; a part for each metric.

    Needs matplotlib, of the extra `plot`.
    """
    by_metric: dict[str, tuple[str, Drawing]] = {
        "spread.png": ("Spread over people; dots are means, ticks medians", _spread),
        "angles.png": ("Against where the person faces, as the picture shows it", _angles),
        "noise.png": ("Against noise on the keypoints, pixels of a person 1000 px high", _noise),
        "differences.png": ("Differences on the same people, with 95 % intervals", _differences),
    }
    figures = {name: _panels(comparison, title, drawing) for name, (title, drawing) in by_metric.items()}
    figures["joints.png"] = _joints(comparison)
    return tuple(_write(folder / name, figure) for name, figure in figures.items() if figure is not None)


def _write(path: Path, figure: "Figure") -> Path:
    return write_whole(path, lambda neighbour: figure.savefig(neighbour, dpi=DOTS_PER_INCH))


def _panels(comparison: Comparison, title: str, drawing: Drawing) -> "Figure | None":
    """One part for each metric that has something to show; None where none has."""
    from matplotlib.figure import Figure

    drawn = {metric: draw for metric in comparison.metrics if (draw := drawing(comparison, metric)) is not None}
    if not drawn:
        return None
    rows = -(-len(drawn) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * PANEL[0], rows * PANEL[1] + 0.4), layout="constrained")
    figure.suptitle(title)
    places = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes, (metric, draw) in zip(places, drawn.items(), strict=False):
        _opened(axes, comparison, metric)
        draw(axes)
    for axes in places[len(drawn) :]:
        axes.remove()
    return figure


def _opened(axes: "Axes", comparison: Comparison, metric: Metric) -> None:
    unit = f", {metric.unit}" if metric.unit else ""
    axes.set_title(f"{metric.label}{unit} ({metric.better} is {better(comparison, metric)})", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _spread(comparison: Comparison, metric: Metric) -> Draw | None:
    found = {branch: figures[metric.name] for branch, figures in measured(comparison, metric.name).items()}

    def draw(axes: "Axes") -> None:
        for row, (branch, values) in enumerate(found.items()):
            _violin(axes, row, values, comparison.means[branch][metric.name], _ink(comparison, branch))
        axes.set_yticks(range(len(found)), list(found))
        axes.invert_yaxis()

    return draw if found else None


def _violin(axes: "Axes", row: int, values: np.ndarray, mean: Interval, ink: str) -> None:
    """A lying density with its quartiles and its mean; too few different values are dots."""
    shape = density(values)
    if shape is None:
        axes.plot(values, np.full(len(values), row), ".", color=ink)
    else:
        half = 0.4 * shape.heights
        axes.fill_between(shape.places, row - half, row + half, color=ink, alpha=0.35, linewidth=0)
        low, median, high = shape.quartiles
        axes.plot([low, high], [row, row], color=ink, linewidth=4, alpha=0.6, solid_capstyle="butt")
        axes.plot([median, median], [row - 0.2, row + 0.2], color=ink, linewidth=1.5)
    axes.plot([mean.low, mean.high], [row, row], color=ink, linewidth=1.5)
    axes.plot([mean.mean], [row], "o", color=ink, markersize=6, markeredgecolor="white")


def _angles(comparison: Comparison, metric: Metric) -> Draw | None:
    curves = angle_curves(comparison, metric.name)

    def draw(axes: "Axes") -> None:
        for branch, curve in curves.items():
            _curve(axes, comparison, branch, np.degrees(curve.angle_rad), curve.mean, curve.low, curve.high)
        axes.set_xticks(list(FACING), list(FACING.values()))

    return draw if curves else None


def _noise(comparison: Comparison, metric: Metric) -> Draw | None:
    curves = noise_curves(comparison, metric.name)

    def draw(axes: "Axes") -> None:
        for each in curves:
            means, lows, highs = (
                np.array([getattr(interval, name) for interval in each.intervals]) for name in ("mean", "low", "high")
            )
            _curve(axes, comparison, each.branch, np.array(each.noise_px), means, lows, highs)

    return draw if curves else None


def _curve(
    axes: "Axes",
    comparison: Comparison,
    branch: str,
    places: np.ndarray,
    means: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
) -> None:
    """Means on a band of their intervals, with the branch's name in a legend."""
    ink = _ink(comparison, branch)
    axes.fill_between(places, lows, highs, color=ink, alpha=0.18, linewidth=0)
    axes.plot(places, means, "o-", color=ink, markersize=3.5, label=branch)
    axes.legend(frameon=False, fontsize=8)


def _joints(comparison: Comparison) -> "Figure | None":
    """Bars of all branches at each joint."""
    from matplotlib.figure import Figure

    means = joint_means(comparison)
    if not means:
        return None
    figure = Figure(figsize=(2 * PANEL[0], PANEL[1] + 0.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(means)
    for index, (branch, by_joint) in enumerate(means.items()):
        places = np.arange(len(by_joint)) + (index - (len(means) - 1) / 2) * width
        heights = [each.mean for each in by_joint.values()]
        axes.bar(
            places, heights, width, yerr=_reaches(list(by_joint.values())), color=_ink(comparison, branch), label=branch
        )
    names = [joint.replace("_", " ") for joint in comparison.joint_names]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    goal = joint_goal(comparison)
    axes.set_title(f"Distance of each joint from {goal}, about the pelvis, with 1.96 standard errors, mm")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _differences(comparison: Comparison, metric: Metric) -> Draw | None:
    """Every pair on everybody: the interval in the colour of the winner, grey where nobody wins."""
    found = [each for each in comparison.differences if each.metric == metric.name and each.group == EVERYBODY]
    found = [each for each in found if np.isfinite(each.interval.mean)]

    def draw(axes: "Axes") -> None:
        for row, each in enumerate(found):
            won = winner(comparison, each)
            ink = GREY if won is None else _ink(comparison, won)
            axes.plot([each.interval.low, each.interval.high], [row, row], color=ink, linewidth=2.5)
            axes.plot([each.interval.mean], [row], "o", color=ink, markeredgecolor="white")
        axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
        axes.set_yticks(range(len(found)), [f"{each.one} − {each.other}" for each in found])
        axes.set_ylim(len(found) - 0.4, -0.6)

    return draw if found else None


def _reaches(intervals: Sequence[Interval]) -> np.ndarray:
    """How far the intervals go below and above their means."""
    return np.array([[each.mean - each.low, each.high - each.mean] for each in intervals]).T


def _ink(comparison: Comparison, branch: str) -> str:
    return INKS[comparison.branches.index(branch) % len(INKS)]
