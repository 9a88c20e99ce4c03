"""How sure a mean over people is, by the bootstrap (Efron 1979), and of two branches which is better.

All columns of a table see the same draws of people, so what is compared stays paired. People of one clip are alike and
are drawn together: a draw takes clusters with replacement, and everybody in them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from meshrec.comparison.comparison import EVERYBODY, Difference, Flip, Interval, Metric
from meshrec.randomness import generator_of

DRAWS = 2000
TAIL_PERCENT = 2.5
"""Of the draws lie on each side of an interval."""

FEWEST = 5
"""Of a group with fewer people nothing is said, and of a mean over fewer clusters not how sure it is."""

MOST_LEVELS = 40
"""Of a group with more levels nothing is said."""

COUNTS_AT_ONCE = 4_000_000
"""So many numbers say at once how often each cluster is drawn."""

NOISE, JOINT = "noise", "joint"
"""Groups whose levels are not people's."""

Figures = Mapping[str, Mapping[str, Float[np.ndarray, "N"]]]
"""Of a branch, of a metric, of each person."""


def clusters_of(names: Sequence[str]) -> Int[np.ndarray, "N"]:
    """A number for each cluster; who has no name is a cluster of their own."""
    own = [name or f"\0{place}" for place, name in enumerate(names)]
    return np.unique(np.array(own), return_inverse=True)[1].reshape(-1)


def drawn_means(
    values: Float[np.ndarray, "N C"], cluster: Int[np.ndarray, "N"] | None = None, seed: int = 0
) -> Float[np.ndarray, "draws C"]:
    """The mean of each column in each draw, over the people who have it (are not NaN); NaN where nobody does."""
    cluster = np.arange(len(values)) if cluster is None else np.unique(cluster, return_inverse=True)[1].reshape(-1)
    clusters = int(cluster.max()) + 1 if len(cluster) else 0
    if not clusters:
        return np.full((DRAWS, values.shape[1]), math.nan)
    known = np.isfinite(values)
    sums, people = (_summed(table, cluster, clusters) for table in (np.where(known, values, 0.0), known.astype(float)))
    parts = []
    for counts in _counts(clusters, generator_of(seed, "bootstrap")):
        total, weight = counts @ sums, counts @ people
        parts.append(np.divide(total, weight, out=np.full_like(total, math.nan), where=weight > 0))
    return np.concatenate(parts)


def _summed(
    table: Float[np.ndarray, "N C"], cluster: Int[np.ndarray, "N"], clusters: int
) -> Float[np.ndarray, "clusters C"]:
    sums = np.zeros((clusters, table.shape[1]))
    np.add.at(sums, cluster, table)
    return sums


def _counts(clusters: int, random: np.random.Generator) -> Iterator[Float[np.ndarray, "some clusters"]]:
    """How often each cluster is in each draw, some draws at a time."""
    at_once = max(1, min(DRAWS, COUNTS_AT_ONCE // clusters))
    for start in range(0, DRAWS, at_once):
        draws = min(at_once, DRAWS - start)
        drawn = random.integers(0, clusters, (draws, clusters)) + clusters * np.arange(draws)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=draws * clusters).reshape(draws, clusters).astype(float)


def intervals(
    values: Float[np.ndarray, "N C"], cluster: Int[np.ndarray, "N"] | None = None, seed: int = 0
) -> list[Interval]:
    """The mean of each column over the people who have it, and its percentile interval."""
    drawn, having = drawn_means(values, cluster, seed), clusters_having(values, cluster)
    return [_interval(*each) for each in zip(values.T, drawn.T, having, strict=True)]


def clusters_having(
    values: Float[np.ndarray, "N C"], cluster: Int[np.ndarray, "N"] | None = None
) -> Int[np.ndarray, "C"]:
    """In how many clusters somebody has each column."""
    cluster = np.arange(len(values)) if cluster is None else cluster
    return np.array([len(np.unique(cluster[known])) for known in np.isfinite(values).T], int)


def _interval(
    column: Float[np.ndarray, "N"], drawn: Float[np.ndarray, "draws"], clusters: int | np.integer
) -> Interval:
    """Bounds are told of enough clusters: draws of one alone are all the same, and would look certain."""
    known, drawn = column[np.isfinite(column)], drawn[np.isfinite(drawn)]
    if not len(known):
        return Interval(math.nan, math.nan, math.nan, 0)
    low, high = np.percentile(drawn, (TAIL_PERCENT, 100 - TAIL_PERCENT)) if clusters >= FEWEST else (math.nan, math.nan)
    return Interval(float(known.mean()), float(low), float(high), len(known), float(np.median(known)))


def means_of(
    figures: Figures, cluster: Int[np.ndarray, "N"] | None = None, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Of a branch, of a metric: over the people who have it."""
    keys = [(branch, metric) for branch, columns in figures.items() for metric in columns]
    found = intervals(_table([figures[branch][metric] for branch, metric in keys]), cluster, seed)
    means: dict[str, dict[str, Interval]] = {branch: {} for branch in figures}
    for (branch, metric), interval in zip(keys, found, strict=True):
        means[branch][metric] = interval
    return means


def differences_of(
    figures: Figures,
    metrics: Sequence[Metric],
    cluster: Int[np.ndarray, "N"] | None = None,
    group: str = EVERYBODY,
    level: str = EVERYBODY,
    seed: int = 0,
) -> list[Difference]:
    """Every pair of branches by every metric that some people have of both."""
    keys = [(metric, one, other) for one, other in combinations(figures, 2) for metric in metrics]
    keys = [(metric, one, other) for metric, one, other in keys if metric.name in {*figures[one]} & {*figures[other]}]
    columns = [figures[one][metric.name] - figures[other][metric.name] for metric, one, other in keys]
    found = intervals(_table(columns), cluster, seed) if columns else []
    return [
        Difference(metric.name, one, other, group, level, interval, wins(column, metric))
        for (metric, one, other), column, interval in zip(keys, columns, found, strict=True)
        if interval.people
    ]


def wins(difference: Float[np.ndarray, "N"], metric: Metric) -> float:
    """The share of the people, of those who have a difference, for whom the first is better; ties count half."""
    known = difference[np.isfinite(difference)]
    better = known < 0 if metric.better == "lower" else known > 0
    return float((better + 0.5 * (known == 0)).mean()) if len(known) else math.nan


def level_differences(
    figures: Figures,
    metrics: Sequence[Metric],
    groups: Mapping[str, Sequence[str]],
    cluster: Int[np.ndarray, "N"],
    seed: int = 0,
) -> list[Difference]:
    """The same among the people of each level of each group, where there are several levels and enough people."""
    found = []
    for group, labels in groups.items():
        for level, members in members_of(labels).items():
            theirs = {
                branch: {metric.name: columns[metric.name][members] for metric in metrics if metric.name in columns}
                for branch, columns in figures.items()
            }
            found += differences_of(theirs, metrics, cluster[members], group, level, seed)
    return found


def members_of(labels: Sequence[str]) -> dict[str, Bool[np.ndarray, "N"]]:
    """Who belongs to each level of a group that has enough people; none where these levels are not two or very many."""
    names = np.array(labels)
    levels = [str(level) for level in np.unique(names) if level]
    if not 1 < len(levels) <= MOST_LEVELS:
        return {}
    members = {level: names == level for level in levels}
    members = {level: who for level, who in members.items() if who.sum() >= FEWEST}
    return members if len(members) > 1 else {}


def joint_differences(
    joints_mm: Mapping[str, Float[np.ndarray, "N J"]],
    joint_names: Sequence[str],
    metric: Metric,
    cluster: Int[np.ndarray, "N"],
    seed: int = 0,
) -> list[Difference]:
    """Every pair of branches joint by joint."""
    pairs = list(combinations(joints_mm, 2))
    columns = [joints_mm[one] - joints_mm[other] for one, other in pairs]
    if not columns:
        return []
    found = iter(intervals(np.concatenate(columns, axis=1).astype(float), cluster, seed))
    return [
        Difference(metric.name, one, other, JOINT, joint, interval, wins(errors[:, place], metric))
        for (one, other), errors in zip(pairs, columns, strict=True)
        for place, (joint, interval) in enumerate(zip(joint_names, found, strict=False))
        if interval.people
    ]


def flips_of(
    figures: Mapping[float, Figures], metric: Metric, cluster: Int[np.ndarray, "N"], seed: int = 0
) -> list[Flip]:
    """Pairs of branches of which one is better with the least noise and the other with the most, and where they meet.

    The figures are of every noise, in pixels, the least first. Of pairs with too few people nothing is said.
    """
    noise_px, levels = tuple(figures), tuple(figures.values())
    sign = 1.0 if metric.better == "lower" else -1.0
    found = []
    for one, other in combinations(levels[0], 2):
        curves = sign * _table([level[one][metric.name] - level[other][metric.name] for level in levels])
        known = np.isfinite(curves).all(axis=1)
        mean = curves[known].mean(axis=0) if known.any() else np.zeros(len(levels))
        if mean[0] * mean[-1] >= 0 or len(np.unique(cluster[known])) < FEWEST:
            continue
        turn = -np.sign(mean[0])
        drawn = turn * drawn_means(curves[known], cluster[known], seed)
        low = np.percentile(meetings_px(noise_px, drawn), TAIL_PERCENT, method="inverted_cdf")
        high = np.percentile(partings_px(noise_px, drawn), 100 - TAIL_PERCENT, method="inverted_cdf")
        middle = float(meetings_px(noise_px, turn * mean[None])[0])
        better, worse = (one, other) if mean[0] < 0 else (other, one)
        found.append(Flip(metric.name, better, worse, Interval(middle, float(low), float(high), int(known.sum()))))
    return found


def meetings_px(noise_px: Sequence[float], curves: Float[np.ndarray, "D L"]) -> Float[np.ndarray, "D"]:
    """Where each curve first rises to zero, on straight lines between the levels of noise; infinite: nowhere."""
    places, rises = _rises_px(noise_px, curves)
    return np.where(curves[:, 0] >= 0, noise_px[0], np.where(rises, places, math.inf).min(axis=1))


def partings_px(noise_px: Sequence[float], curves: Float[np.ndarray, "D L"]) -> Float[np.ndarray, "D"]:
    """From where on each curve is not below zero any more; infinite: it ends below."""
    places, rises = _rises_px(noise_px, curves)
    return np.where(curves[:, -1] < 0, math.inf, np.where(rises, places, noise_px[0]).max(axis=1))


def _rises_px(
    noise_px: Sequence[float], curves: Float[np.ndarray, "D L"]
) -> tuple[Float[np.ndarray, "D K"], Bool[np.ndarray, "D K"]]:
    """Where each curve rises to zero between two levels of noise, and whether it does."""
    noise, rise = np.array(noise_px, float), np.diff(curves, axis=1)
    rises = (curves[:, :-1] < 0) & (curves[:, 1:] >= 0)
    share = np.divide(-curves[:, :-1], rise, out=np.zeros_like(rise), where=rises)
    return noise[:-1] + share * np.diff(noise), rises


def _table(columns: Sequence[Float[np.ndarray, "N"]]) -> Float[np.ndarray, "N C"]:
    return np.stack(columns, axis=1).astype(float)
