"""A comparison as tables for the terminal, CSV files and a record for JSON."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from meshrec.comparison.comparison import Comparison, Difference, Interval, Metric
from meshrec.comparison.sentences import digits_of
from meshrec.comparison.statistics import members_of

Row = Sequence[str | int | float]

PEAK, SECONDS = "peak_mb", "seconds"
"""Of `Comparison.cost`."""


def main_table(comparison: Comparison) -> Table:
    """A column for each branch: every mean with its interval, people without an answer, and the cost.

    Each mean is over the people whom the branch answers.
    """
    against = "from the truth" if comparison.against == "truth" else "from each other: agreement, not accuracy"
    table = Table(title=f"{len(comparison.people):,} people, {against}; 95 % intervals over people")
    table.add_column("", no_wrap=True)
    for branch in comparison.branches:
        table.add_column(escape(branch), justify="right")
    _add_means(table, comparison, comparison.means)
    table.add_row("no answer", *(str(comparison.unanswered.get(branch, 0)) for branch in comparison.branches))
    costs = [comparison.cost.get(branch, {}) for branch in comparison.branches]
    table.add_row("seconds a person", *(f"{cost.get(SECONDS, math.nan):.4f}" for cost in costs))
    table.add_row("peak memory, MB", *(f"{cost.get(PEAK, math.nan):.0f}" for cost in costs))
    return table


def shared_table(comparison: Comparison) -> Table:
    """The means over the people whom all answer."""
    table = Table(title="the same people for every branch: those whom all answer")
    table.add_column("", no_wrap=True)
    for branch in comparison.branches:
        table.add_column(escape(branch), justify="right")
    _add_means(table, comparison, comparison.shared_means)
    people = [next(iter(comparison.shared_means[branch].values())).people for branch in comparison.branches]
    table.add_row("people", *map(str, people))
    return table


def _add_means(table: Table, comparison: Comparison, means: Mapping[str, Mapping[str, Interval]]) -> None:
    for metric in comparison.metrics:
        cells = (told(means[branch][metric.name], metric) for branch in comparison.branches)
        table.add_row(escape(_heading(metric)), *cells)
        middles = (_median(means[branch][metric.name], metric) for branch in comparison.branches)
        table.add_row("  median", *middles, style="dim")


def noise_table(comparison: Comparison, metric: Metric) -> Table:
    """A row for each branch, a column for each noise on the keypoints."""
    curves = [curve for curve in comparison.noise if curve.metric == metric.name]
    table = Table(title=f"{_heading(metric)} with noise on the keypoints")
    table.add_column("", no_wrap=True)
    for noise_px in curves[0].noise_px if curves else ():
        table.add_column(f"{noise_px:g} px", justify="right")
    for curve in curves:
        table.add_row(escape(curve.branch), *(told(interval, metric) for interval in curve.intervals))
    return table


def told(interval: Interval, metric: Metric) -> str:
    """A mean and its interval, in brackets that are none of rich's markup."""
    if not interval.people:
        return "-"
    digits = digits_of(metric)
    bounds = f" [{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if math.isfinite(interval.low) else ""
    return escape(f"{interval.mean:.{digits}f}{bounds}")


def _median(interval: Interval, metric: Metric) -> str:
    return f"{interval.median:.{digits_of(metric)}f}" if math.isfinite(interval.median) else "-"


def _heading(metric: Metric) -> str:
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def tell(comparison: Comparison, console: Console) -> None:
    """Tables, sentences and the protocol, for reading."""
    console.print(main_table(comparison))
    if comparison.answers_differ:
        console.print(shared_table(comparison))
    if comparison.noise:
        console.print(noise_table(comparison, comparison.metrics[0]))
    for sentence in comparison.sentences:
        console.print(escape(sentence))
    for what, meaning in comparison.protocol.items():
        console.print(f"[dim]{escape(what)}: {escape(meaning)}[/dim]", highlight=False)


def csv_files(comparison: Comparison) -> dict[str, str]:
    """The text of each file by its name."""
    return {
        "summary.csv": csv_of(("branch", "metric", "unit", *_INTERVAL), _summary(comparison)),
        "levels.csv": csv_of(("group", "level", "branch", "metric", "mean", "people"), _levels(comparison)),
        "differences.csv": csv_of(
            ("metric", "one", "other", "group", "level", *_INTERVAL, "wins"),
            map(_difference, every_difference(comparison)),
        ),
        "joints.csv": csv_of(("branch", "joint", "mean_mm", "people"), _joints(comparison)),
        "noise.csv": csv_of(("branch", "metric", "noise_px", *_INTERVAL), _noise(comparison)),
        "people.csv": csv_of(_people_headings(comparison), _people(comparison)),
    }


_INTERVAL = ("mean", "low", "high", "people", "median")


def csv_of(headings: Sequence[str], rows: Iterable[Row]) -> str:
    """Rows of comma-separated values under their headings; a number that is not known is empty."""
    store = io.StringIO()
    writer = csv.writer(store, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows([["" if _unknown(cell) else cell for cell in row] for row in rows])
    return store.getvalue()


def _unknown(cell: str | int | float) -> bool:
    return isinstance(cell, float) and not math.isfinite(cell)


def _cells(interval: Interval) -> tuple[float, float, float, int, float]:
    return interval.mean, interval.low, interval.high, interval.people, interval.median


def _summary(comparison: Comparison) -> Iterator[Row]:
    for branch in comparison.branches:
        for metric in comparison.metrics:
            yield branch, metric.name, metric.unit, *_cells(comparison.means[branch][metric.name])


def _levels(comparison: Comparison) -> Iterator[Row]:
    for group, labels in comparison.groups.items():
        for level, members in members_of(labels).items():
            for branch in comparison.branches:
                for metric in comparison.metrics:
                    values = comparison.figures[branch][metric.name][members]
                    known = values[np.isfinite(values)]
                    if len(known):
                        yield group, level, branch, metric.name, float(known.mean()), len(known)


def every_difference(comparison: Comparison) -> tuple[Difference, ...]:
    """Of people, of joints and at every noise."""
    return (*comparison.differences, *comparison.joint_differences, *comparison.noise_differences)


def _difference(difference: Difference) -> Row:
    names = (difference.metric, difference.one, difference.other, difference.group, difference.level)
    return (*names, *_cells(difference.interval), difference.wins)


def _joints(comparison: Comparison) -> Iterator[Row]:
    for branch in comparison.branches:
        errors = comparison.joint_errors_mm[branch]
        for joint, column in zip(comparison.joint_names, errors.T, strict=True):
            known = column[np.isfinite(column)]
            yield branch, joint, float(known.mean()) if len(known) else math.nan, len(known)


def _noise(comparison: Comparison) -> Iterator[Row]:
    for curve in comparison.noise:
        for noise_px, interval in zip(curve.noise_px, curve.intervals, strict=True):
            yield curve.branch, curve.metric, noise_px, *_cells(interval)


def _people_headings(comparison: Comparison) -> list[str]:
    figures = [f"{branch} {metric.name}" for branch in comparison.branches for metric in comparison.metrics]
    return ["person", "angle_rad", *comparison.groups, *figures]


def _people(comparison: Comparison) -> Iterator[Row]:
    columns = [
        comparison.figures[branch][metric.name] for branch in comparison.branches for metric in comparison.metrics
    ]
    for place, where in enumerate(comparison.people):
        levels = [labels[place] for labels in comparison.groups.values()]
        yield (
            where,
            float(comparison.angle_rad[place]),
            *levels,
            *(round(float(column[place]), 4) for column in columns),
        )


def record_of(comparison: Comparison, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the people one by one, whose figures are in people.csv."""
    return {
        "meshrec": version("meshrec"),
        "asked": dict(asked),
        "data": list(comparison.data),
        "against": comparison.against,
        "people": len(comparison.people),
        "protocol": dict(comparison.protocol),
        "metrics": [vars(metric) for metric in comparison.metrics],
        "branches": [_branch_record(comparison, branch) for branch in comparison.branches],
        "differences": [_difference_record(difference) for difference in every_difference(comparison)],
        "noise": [
            {
                "branch": curve.branch,
                "metric": curve.metric,
                "levels": [
                    {"noise_px": noise_px, **interval_record(interval)}
                    for noise_px, interval in zip(curve.noise_px, curve.intervals, strict=True)
                ],
            }
            for curve in comparison.noise
        ],
        "flips": [
            {"metric": flip.metric, "better": flip.one, "then": flip.other, "noise_px": interval_record(flip.noise_px)}
            for flip in comparison.flips
        ],
        "sentences": list(comparison.sentences),
    }


def _branch_record(comparison: Comparison, branch: str) -> dict[str, Any]:
    return {
        "branch": branch,
        "unanswered": comparison.unanswered.get(branch, 0),
        "figures": {name: interval_record(interval) for name, interval in comparison.means[branch].items()},
        "figures_of_shared_people": {
            name: interval_record(interval) for name, interval in comparison.shared_means[branch].items()
        },
        "cost": {name: _plain(value) for name, value in comparison.cost.get(branch, {}).items()},
    }


def _difference_record(difference: Difference) -> dict[str, Any]:
    names = {name: getattr(difference, name) for name in ("metric", "one", "other", "group", "level")}
    return {**names, **interval_record(difference.interval), "wins": _plain(difference.wins)}


def interval_record(interval: Interval) -> dict[str, float | int | None]:
    """None for what is not finite."""
    return {name: _plain(value) for name, value in vars(interval).items()}


def _plain(value: float | int) -> float | int | None:
    return value if math.isfinite(value) else None
