"""The drawings of the page as SVG: spread, error by joint, error against the viewing angle and against noise."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from meshrec.comparison.comparison import Comparison, Interval, Metric, NoiseCurve
from meshrec.comparison.markup import Scale, decimals, ink, number, polyline, tag, text
from meshrec.comparison.summaries import SHOWN, AngleCurve, angle_curves, density, joint_means, measured, noise_curves
from meshrec.skeletons import H36M17

WIDTH = 440.0
"""Of every drawing, in its own pixels: it shrinks and grows with the page."""

LEFT, RIGHT, TOP, BOTTOM = 46.0, 16.0, 6.0, 40.0
"""Margins of a drawing with two axes."""

HEIGHT = 280.0
ROW, HALF_VIOLIN = 58.0, 17.0
"""Height of a branch's row, and half that of its violin."""

ROOM = 1.06
"""An axis ends so much beyond the largest value."""

FIGURE: Mapping[str, tuple[float, float]] = {
    "head_top": (0.0, 62.0),
    "face": (0.0, 128.0),
    "thorax": (0.0, 196.0),
    "shoulder": (72.0, 200.0),
    "elbow": (122.0, 262.0),
    "wrist": (176.0, 322.0),
    "spine": (0.0, 262.0),
    "pelvis": (0.0, 328.0),
    "hip": (52.0, 340.0),
    "knee": (66.0, 424.0),
    "ankle": (78.0, 508.0),
}
"""Where the joints of a person who faces the reader stand, beside the middle and down, in pixels of the drawing."""

FACING = {-180.0: "away", -90.0: "left", 0.0: "camera", 90.0: "right", 180.0: "away"}
"""Names of viewing angles, in degrees."""

FIGURE_HEIGHT = 530.0
TALLEST = 48.0
"""Height of the tallest bar that stands on a joint."""
CLUSTER = 36.0
"""Width of the bars of one joint."""


def place(joint: str) -> tuple[float, float]:
    """Where a joint of H36M-17 stands in the drawing: the person's left is to the right."""
    side, _, rest = joint.partition("_")
    x, y = FIGURE[rest if side in ("left", "right") else joint]
    return WIDTH / 2 + (x if side == "left" else -x), y


def spread(comparison: Comparison, metric: Metric) -> str:
    """A violin for each branch: density, quartiles, and the mean with its interval."""
    found = {branch: figures[metric.name] for branch, figures in measured(comparison, metric.name).items()}
    if not found:
        return ""
    ends = [np.quantile(values[np.isfinite(values)], [0, SHOWN]) for values in found.values()]
    scale = _roomy(min(end[0] for end in ends), max(end[1] for end in ends), 8.0, WIDTH - RIGHT)
    base = TOP + ROW * len(found)
    rows = [
        _violin(comparison, metric, branch, values, scale, TOP + ROW * row)
        for row, (branch, values) in enumerate(found.items())
    ]
    label = f"{_named(metric)} of each branch over {len(comparison.people):,} people"
    return _drawing(base + BOTTOM, label, _floor(scale, TOP, base, _named(metric)), *rows)


def _violin(
    comparison: Comparison, metric: Metric, branch: str, values: Float[np.ndarray, "N"], scale: Scale, top: float
) -> str:
    middle, mean = top + ROW - HALF_VIOLIN - 4, comparison.means[branch][metric.name]
    shape, told, found = "", _told(branch, mean, metric), density(values)
    if found is None:
        dots = [min(value, scale.high) for value in np.unique(values[np.isfinite(values)])]
        shape = "".join(tag("circle", class_="area", cx=scale.at(value), cy=middle, r=3.0) for value in dots)
    else:
        above = [(scale.at(x), middle - HALF_VIOLIN * h) for x, h in zip(found.places, found.heights, strict=True)]
        below = [(x, 2 * middle - y) for x, y in reversed(above)]
        low, median, high = (scale.at(min(value, scale.high)) for value in found.quartiles)
        shape = tag("polygon", class_="area", points=polyline(above + below))
        shape += tag("line", class_="box", x1=low, x2=high, y1=middle, y2=middle)
        shape += tag("line", class_="median", x1=median, x2=median, y1=middle - 8, y2=middle + 8)
        lower, mid, upper = (number(value, decimals(abs(mean.mean))) for value in found.quartiles)
        told += f"; half of the people between {lower} and {upper}, median {mid}"
    shape += _whisker(mean, scale, middle)
    name = tag("text", text(branch), class_="name", x=scale.start_px, y=top + 14)
    return tag("g", tag("title", text(told)), name, shape, class_=_ink(comparison, branch))


def _whisker(mean: Interval, scale: Scale, y: float) -> str:
    """A mean as a dot on its interval."""
    if not math.isfinite(mean.mean):
        return ""
    low, at, high = (scale.at(min(max(v, scale.low), scale.high)) for v in (mean.low, mean.mean, mean.high))
    line = tag("line", class_="whisker", x1=low, x2=high, y1=y, y2=y) if math.isfinite(mean.low) else ""
    return line + tag("circle", class_="mean", cx=at, cy=y, r=4.0)


def angles(comparison: Comparison, metric: Metric) -> str:
    """A figure of each branch against the viewing angle; empty where no angle is known."""
    curves = angle_curves(comparison, metric.name)
    if not curves:
        return ""
    across = Scale(-180.0, 180.0, LEFT, WIDTH - RIGHT)
    up = _upwards([*(curve.low for curve in curves.values()), *(curve.high for curve in curves.values())])
    frame = _frame(across, up, FACING, "where the person faces, as the picture shows it", _named(metric))
    lines = [_angle_line(comparison, branch, curve, across, up, metric) for branch, curve in curves.items()]
    return _drawing(HEIGHT, f"{_named(metric)} against the viewing angle", frame, *lines)


def _angle_line(
    comparison: Comparison, branch: str, curve: AngleCurve, across: Scale, up: Scale, metric: Metric
) -> str:
    places = np.degrees(curve.angle_rad)
    intervals = [
        Interval(float(mean), float(low), float(high), int(people))
        for mean, low, high, people in zip(curve.mean, curve.low, curve.high, curve.people, strict=True)
    ]
    told = [f"{place:.0f}°" for place in places]
    return _line(comparison, branch, places.tolist(), intervals, across, up, metric, told)


def noise(comparison: Comparison, metric: Metric) -> str:
    """A figure of each branch over the noise on the keypoints; empty where there is only one level."""
    curves = noise_curves(comparison, metric.name)
    if not curves:
        return ""
    stops = sorted({level for curve in curves for level in curve.noise_px})
    across = Scale(stops[0], stops[-1], LEFT + 10, WIDTH - RIGHT - 10)
    found = [interval for curve in curves for interval in curve.intervals]
    up = _upwards([np.array([getattr(each, name) for each in found]) for name in ("low", "mean", "high")])
    marks = {level: f"{level:g}" for level in stops}
    frame = _frame(across, up, marks, "noise on the keypoints, px of a person 1000 px high", _named(metric))
    lines = [_noise_line(comparison, curve, across, up, metric) for curve in curves]
    return _drawing(HEIGHT, f"{_named(metric)} against noise on the keypoints", frame, *lines)


def _noise_line(comparison: Comparison, curve: NoiseCurve, across: Scale, up: Scale, metric: Metric) -> str:
    told = [f"{level:g} px" for level in curve.noise_px]
    return _line(comparison, curve.branch, curve.noise_px, curve.intervals, across, up, metric, told)


def _line(
    comparison: Comparison,
    branch: str,
    places: Sequence[float],
    intervals: Sequence[Interval],
    across: Scale,
    up: Scale,
    metric: Metric,
    told: Sequence[str],
) -> str:
    """Means joined by a line on a band of their intervals; a gap where there are none."""
    drawn = ""
    for run in _runs([math.isfinite(each.mean) for each in intervals]):
        xs = [across.at(places[index]) for index in run]
        lows, means, highs = (
            [up.at(getattr(intervals[index], name)) for index in run] for name in ("low", "mean", "high")
        )
        if all(map(math.isfinite, (*lows, *highs))):
            band = [*zip(xs, lows, strict=True), *reversed(list(zip(xs, highs, strict=True)))]
            drawn += tag("polygon", class_="band", points=polyline(band))
        drawn += tag("polyline", class_="line", points=polyline(zip(xs, means, strict=True)))
        for index, x, y in zip(run, xs, means, strict=True):
            title = tag("title", text(f"{told[index]}, {_told(branch, intervals[index], metric)}"))
            drawn += tag("circle", title, class_="mean", cx=x, cy=y, r=3.5)
    return tag("g", drawn, class_=_ink(comparison, branch))


def _runs(known: Sequence[bool]) -> list[list[int]]:
    """Places of the unbroken runs of what is known."""
    runs: list[list[int]] = []
    for index, here in enumerate(known):
        if here and index and known[index - 1]:
            runs[-1].append(index)
        elif here:
            runs.append([index])
    return runs


def joints(comparison: Comparison) -> str:
    """A person with bars on each joint, one a branch, as tall as its mean distance; empty where none is known."""
    means = joint_means(comparison)
    known = [each.mean for branch in means.values() for each in branch.values() if math.isfinite(each.mean)]
    if not known or max(known) <= 0:
        return ""
    limbs = [(H36M17.joints[parent], H36M17.joints[child]) for parent, child in H36M17.bones]
    bones = "".join(_bone(place(parent), place(child)) for parent, child in limbs)
    drawn = [joint for joint in comparison.joint_names if joint in H36M17.joints]
    bars = [_cluster(comparison, joint, means, TALLEST / max(known)) for joint in drawn]
    sides = tag("text", "person’s right", class_="axis", x=8.0, y=18.0)
    sides += tag("text", "person’s left", class_="axis end", x=WIDTH - 8.0, y=18.0)
    return _drawing(FIGURE_HEIGHT, "Mean distance of each joint in millimetres, on a figure", sides, bones, *bars)


def _bone(one: tuple[float, float], other: tuple[float, float]) -> str:
    return tag("line", class_="bone", x1=one[0], y1=one[1], x2=other[0], y2=other[1])


def _cluster(comparison: Comparison, joint: str, means: Mapping[str, Mapping[str, Interval]], px_per_mm: float) -> str:
    """The bars of one joint, which stand on it, the smallest error below them in numbers."""
    x, y = place(joint)
    found = {branch: by_joint[joint] for branch, by_joint in means.items() if math.isfinite(by_joint[joint].mean)}
    if not found or max(each.mean for each in found.values()) <= 0:
        return tag("circle", class_="joint", cx=x, cy=y, r=3.5)
    width, bars = CLUSTER / len(found), ""
    for index, (branch, interval) in enumerate(found.items()):
        height, name = interval.mean * px_per_mm, joint.replace("_", " ")
        title = tag("title", text(f"{name}, {branch}: {number(interval.mean, 1)} mm"))
        start = x - CLUSTER / 2 + width * index
        size = {"x": start, "y": y - height, "width": max(width - 1, 1.0), "height": height}
        bars += tag("rect", title, class_=f"bar {_ink(comparison, branch)}", **size)
    ground = tag("line", class_="ground", x1=x - CLUSTER / 2 - 2, x2=x + CLUSTER / 2 + 2, y1=y, y2=y)
    told = number(min(each.mean for each in found.values()), 0)
    return bars + ground + tag("text", told, class_="tick middle", x=x, y=y + 13)


def _drawing(height: float, label: str, *content: str) -> str:
    box = f"0 0 {WIDTH:g} {height:g}"
    return tag("svg", *content, viewBox=box, role="img", aria_label=label, xmlns="http://www.w3.org/2000/svg")


def _frame(across: Scale, up: Scale, marks: Mapping[float, str], below: str, beside: str) -> str:
    """Grid, numbers and names of two axes."""
    lines = "".join(
        tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=up.at(value), y2=up.at(value))
        + tag("text", _tick(value, up), class_="tick end", x=LEFT - 6.0, y=up.at(value) + 4)
        for value in up.ticks()
    )
    foot = HEIGHT - BOTTOM
    for value, name in marks.items():
        lines += tag("text", text(name), class_="tick middle", x=across.at(value), y=foot + 15.0)
    lines += tag("text", text(below), class_="axis middle", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6.0)
    return lines + tag("text", text(beside), class_="axis", x=4.0, y=11.0)


def _floor(scale: Scale, top: float, base: float, name: str) -> str:
    """Grid and numbers of the axis under violins."""
    lines = "".join(
        tag("line", class_="grid", x1=scale.at(value), x2=scale.at(value), y1=top, y2=base)
        + tag("text", _tick(value, scale), class_="tick middle", x=scale.at(value), y=base + 15)
        for value in scale.ticks()
    )
    middle = (scale.start_px + scale.end_px) / 2
    return lines + tag("text", text(name), class_="axis middle", x=middle, y=base + 34)


def _tick(value: float, scale: Scale) -> str:
    steps = scale.ticks()
    apart = steps[1] - steps[0] if len(steps) > 1 else 1.0
    return number(value, max(0, -math.floor(math.log10(apart) + 1e-9)))


def _roomy(low: float, high: float, start_px: float, end_px: float) -> Scale:
    """From zero if that is near, to a little beyond the largest value."""
    low = min(0.0, low) if low < 0.5 * high else low - (ROOM - 1) * (high - low)
    high = low + ROOM * (high - low)
    return Scale(float(low), float(high) if high > low else float(low) + 1.0, start_px, end_px)


def _upwards(bounds: Sequence[np.ndarray]) -> Scale:
    known = np.concatenate([each[np.isfinite(each)] for each in bounds])
    return _roomy(known.min(), known.max(), HEIGHT - BOTTOM, TOP + 16)


def _named(metric: Metric) -> str:
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def _told(branch: str, interval: Interval, metric: Metric) -> str:
    places = decimals(abs(interval.mean))
    mean, low, high = (number(value, places) for value in (interval.mean, interval.low, interval.high))
    unit = f" {metric.unit}" if metric.unit else ""
    bounds = f" [{low}, {high}]" if math.isfinite(interval.low) else ""
    return f"{branch}: {mean}{unit}{bounds}, {interval.people:,} people"


def _ink(comparison: Comparison, branch: str) -> str:
    """The class that gives a branch its colour."""
    return ink(comparison.branches.index(branch))
