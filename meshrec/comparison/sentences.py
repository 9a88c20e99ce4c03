"""Which branch is better, where, and by how much, in words."""

import math
from collections.abc import Sequence

from meshrec.comparison.comparison import EVERYBODY, Comparison, Difference, Flip, Interval, Metric
from meshrec.comparison.statistics import FEWEST

AGREEMENT_ONLY = (
    "Nobody's true body is known here: the figures say how far the branches are from each other and from the "
    "keypoints. That is agreement, not accuracy, and branches that agree may all be wrong."
)

MOST_EXCEPTIONS = 12
"""So many exceptions are told."""


def sentences_of(comparison: Comparison) -> tuple[str, ...]:
    """From the whole to the exceptions; nothing is said to be better whose interval holds zero."""
    main = comparison.metrics[0]
    known = comparison.against == "truth"
    told = [] if known else [AGREEMENT_ONLY]
    told += _unanswered(comparison)
    if known:
        told += [*_order(comparison, main), *_pairs(comparison, main), *_exceptions(comparison, main)]
    else:
        told += _apart(comparison, main)
    noisy = [curve for curve in comparison.noise if curve.metric == main.name]
    if known and noisy:
        told += _noise(comparison, main)
    return tuple(told)


def amount(interval: Interval, metric: Metric) -> str:
    """`45.2 mm [44.1, 46.3]`; without bounds where these are not known."""
    digits = digits_of(metric)
    unit = f" {metric.unit}" if metric.unit else ""
    bounds = f" [{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if math.isfinite(interval.low) else ""
    return f"{interval.mean:.{digits}f}{unit}{bounds}"


def digits_of(metric: Metric) -> int:
    """Decimals that its figures are told with."""
    return 1 if metric.unit else 3


def _order(comparison: Comparison, metric: Metric) -> list[str]:
    """The branches from the best on, of people whom all of them answer."""
    means = {branch: comparison.shared_means[branch][metric.name] for branch in comparison.branches}
    means = {branch: mean for branch, mean in means.items() if mean.people}
    sign = 1 if metric.better == "lower" else -1
    ranked = sorted(means, key=lambda branch: sign * means[branch].mean)
    listed = ", ".join(f"{branch} {amount(means[branch], metric)}" for branch in ranked)
    if not ranked:
        return []
    people = means[ranked[0]].people
    whom = counted(people) if people == len(comparison.people) else f"the {counted(people)} whom all answer"
    return [f"By {metric.label} over {whom}, the best first: {listed}."]


def _pairs(comparison: Comparison, metric: Metric) -> list[str]:
    """A sentence for each pair of branches, of everybody."""
    return [_pair(difference, metric) for difference in _of(comparison, metric, EVERYBODY)]


def _pair(difference: Difference, metric: Metric) -> str:
    better, worse, by, wins = _turned(difference, metric)
    people = f"{counted(difference.interval.people)} whom both answer"
    if not math.isfinite(by.low):
        return (
            f"Between {better} and {worse} nothing is decided by {metric.label}: the difference is "
            f"{amount(by, metric)} over {people}, too few, or of too few clips, to say how sure that is."
        )
    if not difference.settled:
        return (
            f"Between {better} and {worse} {metric.label} does not decide: the difference is {amount(by, metric)} over "
            f"{people}, and its interval holds zero."
        )
    return (
        f"{better} is better than {worse} by {amount(by, metric)} of {metric.label}, and for {100 * wins:.0f} in 100 "
        f"of {people}."
    )


def _turned(difference: Difference, metric: Metric) -> tuple[str, str, Interval, float]:
    """The better branch, the other, by how much (positive), and the better one's share of the people."""
    interval, lower = difference.interval, metric.better == "lower"
    if (interval.mean <= 0) == lower:
        better, worse, wins = difference.one, difference.other, difference.wins
    else:
        better, worse, wins = difference.other, difference.one, 1 - difference.wins
    if interval.mean <= 0:
        mean, low, high = (0.0 - value for value in (interval.mean, interval.high, interval.low))
        interval = Interval(mean, low, high, interval.people, 0.0 - interval.median)
    return better, worse, interval, wins


def _exceptions(comparison: Comparison, metric: Metric) -> list[str]:
    """Levels where a pair's order is another than among everybody, and settled."""
    whole = {(each.one, each.other): each for each in _of(comparison, metric, EVERYBODY)}
    found = []
    for difference in comparison.differences:
        everybody = whole.get((difference.one, difference.other))
        if difference.metric != metric.name or difference.group == EVERYBODY or not everybody:
            continue
        if difference.settled and difference.interval.mean * everybody.interval.mean < 0:
            better, worse, by, _ = _turned(difference, metric)
            turned = "though not among everybody" if everybody.settled else "where everybody together does not decide"
            found.append(
                f"{place_of(difference)} {better} is better than {worse}, {turned}: by {amount(by, metric)} of "
                f"{metric.label}, {difference.interval.people:,} people."
            )
    groups = {each.group for each in comparison.differences if each.metric == metric.name}
    groups -= {EVERYBODY}
    if groups and not found:
        where = listed(sorted(groups))
        return [
            f"At every level of {where} that has {FEWEST} people or more the order of any two branches is the same as "
            f"among everybody, or is not settled."
        ]
    more = len(found) - MOST_EXCEPTIONS
    rest = [f"{more:,} more such levels are in differences.csv."] if more > 0 else []
    return [*found[:MOST_EXCEPTIONS], *rest]


def place_of(difference: Difference) -> str:
    """Where a difference was found, to begin a sentence with."""
    return f"Where {difference.group} is {difference.level!r},"


def counted(people: int) -> str:
    """So many people."""
    return "1 person" if people == 1 else f"{people:,} people"


def listed(names: Sequence[str]) -> str:
    """Names as a list of words."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _unanswered(comparison: Comparison) -> list[str]:
    people = len(comparison.people)
    return [
        f"{branch} says nothing of {count:,} of {counted(people)}, who are in none of its means."
        for branch, count in comparison.unanswered.items()
        if count
    ]


def _apart(comparison: Comparison, metric: Metric) -> list[str]:
    """Who is nearest to the others, and who to the keypoints; no word of better."""
    if len(comparison.branches) == 2:
        one, other = comparison.branches
        apart = comparison.means[one][metric.name]
        return [f"{one} and {other} are {amount(apart, metric)} of PA-MPJPE apart."] if apart.people else []
    told = []
    for each in (metric, next((one for one in comparison.metrics if one.name == "detection_px"), None)):
        if each is None:
            continue
        means = {branch: comparison.means[branch][each.name] for branch in comparison.branches}
        means = {branch: mean for branch, mean in means.items() if mean.people}
        ranked = sorted(means, key=lambda branch: means[branch].mean)
        amounts = ", ".join(f"{branch} {amount(means[branch], each)}" for branch in ranked)
        told += [f"{each.label}, the nearest first: {amounts}."] if ranked else []
    return told


def _noise(comparison: Comparison, metric: Metric) -> list[str]:
    """How much worse each becomes, and where the order of two turns."""
    told = []
    for curve in comparison.noise:
        if curve.metric == metric.name:
            first, last = curve.intervals[0], curve.intervals[-1]
            told.append(
                f"With {curve.noise_px[-1]:g} px of noise on the keypoints {curve.branch} goes from "
                f"{amount(first, metric)} to {amount(last, metric)} of {metric.label}."
            )
    most = max(curve.noise_px[-1] for curve in comparison.noise)
    told += [_flip(flip, metric, most) for flip in comparison.flips]
    if not comparison.flips:
        told.append(f"With {most:g} px of noise no two branches stand in another order by mean {metric.label}.")
    return told


def _flip(flip: Flip, metric: Metric, most_px: float) -> str:
    """Where the order turns, and whether it is sure before and after."""
    noise = flip.noise_px
    sure_before, sure_after = noise.low > 0, noise.high <= most_px
    high = f"{noise.high:.1f}" if sure_after else f"beyond {most_px:g}"
    turn = f"by {metric.label} up to {noise.mean:.1f} px of noise on the keypoints [{noise.low:.1f}, {high}]"
    if not (sure_before or sure_after):
        return (
            f"{flip.one} is ahead of {flip.other} {turn}, and {flip.other} from there on, but neither is settled from "
            f"0 to {most_px:g} px."
        )
    first = f"{flip.one} is {'better than' if sure_before else 'ahead of'} {flip.other} {turn}"
    first += "," if sure_before else ", which is not settled without noise,"
    if sure_after:
        return f"{first} and {flip.other} is better from there on."
    return f"{first} and whether {flip.other} is better beyond is not settled at {most_px:g} px."


def _of(comparison: Comparison, metric: Metric, group: str) -> list[Difference]:
    return [each for each in comparison.differences if each.metric == metric.name and each.group == group]
