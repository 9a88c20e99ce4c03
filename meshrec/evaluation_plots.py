"""Pictures of an evaluation: errors by action, by viewing angle and by joint, and a map of the latent space."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.errors import MeshrecError
from meshrec.evaluation_report import Evaluation, angle_name
from meshrec.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREY = "#2f6f9f", "#c8553d", "#b8c0c8"
DOTS_PER_INCH = 130
ROTATED_DEG = 35
"""How names under an axis lean."""

MOST_ACTIONS = 40
"""A picture has room for so many violins."""

LONGEST_NAME = 30

COLORS = tuple(f"C{index}" for index in (0, 1, 2, 3, 4, 5, 6, 8, 9))
"""Of the most frequent actions on the map: matplotlib's own but the grey one."""

MAPPED = 4000
"""So many views, evenly spread, are drawn on the map."""

NEIGHBORS = 15
"""UMAP's: with fewer views than this there is no map of it."""


def check_plots() -> None:
    """A `MeshrecError` where no pictures can be drawn."""
    if find_spec("matplotlib") is None:
        raise MeshrecError("--plots draws with matplotlib, which is not installed: pip install 'meshrec[plot]'.")


def write_plots(folder: Path, evaluation: Evaluation) -> tuple[Path, ...]:
    """Every picture that there is something to draw for, as PNG files in `folder`."""
    figures = {
        "actions.png": _violins(evaluation),
        "angles.png": _angles(evaluation),
        "joints.png": _joints(evaluation),
    }
    if evaluation.means is not None:
        figures["latent.png"] = _latent_map(evaluation.means, evaluation.actions)
    return tuple(_write(folder / name, figure) for name, figure in figures.items())


def _write(path: Path, figure: "Figure") -> Path:
    return write_whole(path, lambda neighbour: figure.savefig(neighbour, dpi=DOTS_PER_INCH))


def _sheet(width: float, height: float, title: str, unit: str = "PA-MPJPE, mm") -> "tuple[Figure, Axes]":
    """An empty figure in inches, its vertical axis named."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _named(axes: "Axes", places: Sequence[int], names: Sequence[str]) -> None:
    """Leaning names under the axis."""
    axes.set_xticks(places, names, rotation=ROTATED_DEG, ha="right", rotation_mode="anchor")


def _violins(evaluation: Evaluation) -> "Figure":
    """How the errors of each action are spread, the easiest first; a dot is the mean, a line the median."""
    errors, actions = evaluation.main.pa_mpjpe_mm.numpy(), evaluation.actions
    groups = {name: _finite(errors[actions == name]) for name in _most_frequent(actions, MOST_ACTIONS)}
    groups = {name: values for name, values in sorted(groups.items(), key=lambda item: _mean(item[1])) if len(values)}
    left_out = len(np.unique(actions)) - len(groups)
    more = f" ({left_out} rarer ones left out)" if left_out else ""
    figure, axes = _sheet(max(6.0, 2.0 + 0.6 * len(groups)), 5.0, f"Error by action, lines are medians{more}")
    places = list(range(len(groups)))
    for place, values in zip(places, groups.values(), strict=True):
        _violin(axes, place, values)
    axes.plot(places, [_mean(values) for values in groups.values()], "o", color=RED, markersize=4, label="mean")
    _named(axes, places, [f"{_short(name)} ({len(values):,})" for name, values in groups.items()])
    axes.set_ylim(0, 1.1 * max(float(np.quantile(values, 0.995)) for values in groups.values()))
    axes.legend(frameon=False, loc="upper left")
    return figure


def _violin(axes: "Axes", place: int, values: np.ndarray) -> None:
    """One distribution with its median; too few different values have no density and are drawn as dots."""
    if len(np.unique(values)) < 3:
        axes.plot(np.full(len(values), place), values, ".", color=BLUE)
        return
    drawn = axes.violinplot([values], [place], widths=0.85, showmedians=True, showextrema=False)
    parts = cast(Mapping[str, Any], drawn)
    for body in parts["bodies"]:
        body.set_facecolor(BLUE)
        body.set_alpha(0.55)
    parts["cmedians"].set_color(BLUE)


def _angles(evaluation: Evaluation) -> "Figure":
    """A bar for each bin of the viewing angle."""
    found = evaluation.by_angle
    figure, axes = _sheet(7.5, 4.2, "Error by viewing angle")
    heights = [0.0 if count == 0 else mean for count, mean in found.values()]
    labels = ["none" if count == 0 else f"{mean:.1f}" for count, mean in found.values()]
    bars = axes.bar(range(len(found)), heights, 0.75, color=BLUE)
    axes.bar_label(bars, labels, fontsize=8, padding=2)
    axes.set_xticks(range(len(found)), [angle_name(angle).replace("° ", "°\n") for angle in found])
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("direction that the person faces, 0° towards the camera")
    return figure


def _joints(evaluation: Evaluation) -> "Figure":
    """A bar for each joint, and their mean as a line."""
    errors = evaluation.by_joint_mm
    mean = _mean(np.array(list(errors.values())))
    figure, axes = _sheet(8.5, 4.2, "Error of each joint after the best similarity", "mm")
    bars = axes.bar(range(len(errors)), list(errors.values()), 0.75, color=BLUE)
    axes.bar_label(bars, [f"{error:.0f}" for error in errors.values()], fontsize=8, padding=2)
    axes.axhline(mean, color=RED, linewidth=1, label=f"mean, {mean:.1f} mm")
    _named(axes, list(range(len(errors))), [joint.replace("_", " ") for joint in errors])
    axes.legend(frameon=False)
    return figure


def _latent_map(means: Float[Tensor, "N L"], actions: np.ndarray) -> "Figure":
    """Each view's mean in the plane, coloured by its action; the axes have no unit."""
    rows = np.linspace(0, len(means) - 1, min(len(means), MAPPED)).round().astype(int)
    places, method = _in_the_plane(means[torch.from_numpy(rows)])
    figure, axes = _sheet(9.0, 6.5, f"Latent means of {len(rows):,} views: {method}", "")
    for name, color, chosen in _colored(actions[rows]):
        axes.scatter(*places[chosen].T, s=5, color=color, alpha=0.6, linewidths=0, label=_short(name))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.legend(frameon=False, markerscale=3, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _colored(actions: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, colour and members of the most frequent actions, after those of all others, which lie below."""
    named = _most_frequent(actions, len(COLORS))
    others = ~np.isin(actions, named)
    if others.any():
        yield "others", GREY, others
    for name, color in zip(named, COLORS, strict=False):
        yield name, color, actions == name


def _in_the_plane(means: Float[Tensor, "N L"]) -> tuple[np.ndarray, str]:
    """Two coordinates each, and by what: UMAP (McInnes et al. 2018) where it is installed, else principal axes."""
    if find_spec("umap") is not None and len(means) > NEIGHBORS:
        reducer = importlib.import_module("umap").UMAP(n_neighbors=NEIGHBORS, random_state=0, n_jobs=1)
        return np.asarray(reducer.fit_transform(means.float().numpy())), "UMAP"
    return _principal_axes(means)


def _principal_axes(means: Float[Tensor, "N L"]) -> tuple[np.ndarray, str]:
    centred = (means - means.mean(0)).double()
    left, spread, _ = torch.linalg.svd(centred, full_matrices=False)
    share = spread[:2].square().sum() / spread.square().sum().clamp_min(torch.finfo(spread.dtype).tiny)
    return (left[:, :2] * spread[:2]).numpy(), f"PCA, {share:.0%} of their variance"


def _most_frequent(labels: np.ndarray, count: int) -> list[str]:
    names, counts = np.unique(labels, return_counts=True)
    return [str(name) for name in names[np.argsort(-counts, kind="stable")[:count]]]


def _short(name: str) -> str:
    """The beginning of a long name."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
