"""What pictures of a comparison show of its people: spread, error against viewing angle, means by joint and group."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from meshrec.comparison.comparison import EVERYBODY, Comparison, Difference, Interval, Metric, NoiseCurve

BINS = 12
"""Of the viewing angle."""

FEWEST = 5
"""A mean of fewer people is not drawn."""

MOST_MEASURED = 2000
"""A density of more people looks the same: so many of their quantiles stand for them."""

PLACES = 64
"""A density is known at so many places."""

SHOWN = 0.98
"""Quantile up to which a density is drawn: a few lost people would hide all others."""

SURE = 1.96
"""Standard errors to each side that hold 95 in 100 means."""


@dataclass(frozen=True, eq=False)
class Density:
    """How people are spread over a figure; the heights are 1 at the most frequent place."""

    places: Float[np.ndarray, "P"]
    heights: Float[np.ndarray, "P"]
    quartiles: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class AngleCurve:
    """Mean of a figure over the viewing angle, from one back view to the next; NaN where there are too few people."""

    angle_rad: Float[np.ndarray, "B"]
    mean: Float[np.ndarray, "B"]
    low: Float[np.ndarray, "B"]
    high: Float[np.ndarray, "B"]
    people: Int[np.ndarray, "B"]


def better(comparison: Comparison, metric: Metric | None = None) -> str:
    """What a branch is that has the better figure: by what judges nobody, or without truth, it only agrees more."""
    return "better" if comparison.against == "truth" and (metric is None or metric.judges) else "nearer"


def winner(comparison: Comparison, each: Difference) -> str | None:
    """Who of a pair is better, if the metric judges and the interval leaves no doubt."""
    metric = comparison.metric(each.metric)
    if not (each.settled and metric.judges):
        return None
    return each.one if (each.interval.mean < 0) == (metric.better == "lower") else each.other


def density(values: Float[np.ndarray, "N"]) -> Density | None:
    """A Gaussian kernel density by Silverman's rule (1986, equation 3.31); None with too few different values."""
    values = np.sort(values[np.isfinite(values)])
    if len(np.unique(values)) < FEWEST:
        return None
    lower, middle, upper = np.quantile(values, [0.25, 0.5, 0.75])
    if len(values) > MOST_MEASURED:
        values = np.quantile(values, (np.arange(MOST_MEASURED) + 0.5) / MOST_MEASURED)
    spread = min(values.std(), (upper - lower) / 1.34) or values.std()
    width = 0.9 * spread * len(values) ** -0.2
    places = np.linspace(values[0], np.quantile(values, SHOWN), PLACES)
    heights = np.exp(-0.5 * ((places[:, None] - values) / width) ** 2).sum(1)
    return Density(places, heights / heights.max(), (float(lower), float(middle), float(upper)))


def angle_curve(angle_rad: Float[np.ndarray, "N"], values: Float[np.ndarray, "N"]) -> AngleCurve:
    """Means in bins around evenly spread angles, with 1.96 standard errors; the back views stand at both ends."""
    known = np.isfinite(angle_rad) & np.isfinite(values)
    bins = np.round(angle_rad[known] / (2 * np.pi / BINS)).astype(int) % BINS
    intervals = [mean_interval(values[known][bins == index]) for index in range(BINS)]
    order = np.arange(-BINS // 2, BINS // 2 + 1)
    means, lows, highs, people = (
        np.array([getattr(intervals[index], name) for index in order % BINS])
        for name in ("mean", "low", "high", "people")
    )
    return AngleCurve(order * (2 * np.pi / BINS), means, lows, highs, people)


def angle_curves(comparison: Comparison, metric: str) -> dict[str, AngleCurve]:
    """Of each branch that has enough people under some angle."""
    curves = {
        branch: angle_curve(comparison.angle_rad, figures[metric])
        for branch, figures in measured(comparison, metric).items()
    }
    return {branch: curve for branch, curve in curves.items() if np.isfinite(curve.mean).any()}


def noise_curves(comparison: Comparison, metric: str) -> list[NoiseCurve]:
    """Those that have at least two levels of noise."""
    return [
        each
        for each in comparison.noise
        if each.metric == metric and np.isfinite([interval.mean for interval in each.intervals]).sum() > 1
    ]


def mean_interval(values: Float[np.ndarray, "N"]) -> Interval:
    """The mean of the values that are known, with 1.96 standard errors within their range; NaN for fewer than five."""
    values = values[np.isfinite(values)]
    if len(values) < FEWEST:
        return Interval(np.nan, np.nan, np.nan, len(values))
    mean, reach = float(values.mean()), float(SURE * values.std(ddof=1) / np.sqrt(len(values)))
    low, high = max(mean - reach, float(values.min())), min(mean + reach, float(values.max()))
    return Interval(mean, low, high, len(values), float(np.median(values)))


def joint_goal(comparison: Comparison) -> str:
    """What the distances of joints are from."""
    return "its true place" if comparison.against == "truth" else "where the other branches have it"


def joint_means(comparison: Comparison) -> dict[str, dict[str, Interval]]:
    """Of a branch, of a joint: its mean distance from `joint_goal` in millimetres."""
    return {
        branch: {joint: mean_interval(column) for joint, column in zip(comparison.joint_names, errors.T, strict=True)}
        for branch, errors in comparison.joint_errors_mm.items()
        if np.isfinite(errors).any()
    }


def levels(comparison: Comparison) -> dict[str, tuple[str, ...]]:
    """The levels of each group that differences tell of, in their order."""
    found: dict[str, dict[str, None]] = {}
    for each in comparison.differences:
        if each.group != EVERYBODY:
            found.setdefault(each.group, {})[each.level] = None
    return {group: tuple(names) for group, names in found.items()}


def level_means(comparison: Comparison, metric: str, group: str, level: str) -> dict[str, Interval]:
    """Of a branch: a figure's mean over the people of a level."""
    chosen = np.array([each == level for each in comparison.groups[group]])
    return {branch: mean_interval(figures[metric][chosen]) for branch, figures in measured(comparison, metric).items()}


def measured(comparison: Comparison, metric: str) -> dict[str, Mapping[str, Float[np.ndarray, "N"]]]:
    """The figures of the branches that have this one for somebody."""
    return {
        branch: comparison.figures[branch]
        for branch in comparison.branches
        if metric in comparison.figures[branch] and np.isfinite(comparison.figures[branch][metric]).any()
    }
