"""What several branches said of the same people: figures, differences and the people that are shown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

TRUTH = "truth"
"""The name of the truth among the answers that an exhibit shows."""

Why = Literal["best", "median", "worst"]
"""Why somebody is shown."""

EVERYBODY = ""
"""The group of all people."""


@dataclass(frozen=True)
class Metric:
    """A figure that every person has for every branch."""

    name: str
    """In files."""
    label: str
    """In tables."""
    unit: str
    """Beside the numbers; empty for a share of one."""
    better: Literal["lower", "higher"]
    what: str
    """A sentence: what was measured, and how."""
    judges: bool = True
    """Whether a better figure makes a better branch; nearness to what was detected does not."""


@dataclass(frozen=True)
class Interval:
    """A mean over people, and where it would lie for 95 in 100 draws of as many people; NaN with nobody.

    The bounds are NaN with too few people to draw from.
    """

    mean: float
    low: float
    high: float
    people: int
    median: float = math.nan
    """Of the same people: a few who are far off do not move it."""


@dataclass(frozen=True)
class Difference:
    """How much larger a figure is for one branch than for another, of the same people."""

    metric: str
    one: str
    other: str
    group: str
    """A key of `Comparison.groups`; empty for everybody; "joint" or "noise" in the differences of these."""
    level: str
    """Of the group; the name of a joint, or as much noise as "5 px"; empty for everybody."""
    interval: Interval
    """One minus other."""
    wins: float
    """Share of the people for whom one is better; ties count half."""

    @property
    def settled(self) -> bool:
        """Whether the interval leaves no doubt of the sign."""
        return self.interval.low > 0 or self.interval.high < 0


@dataclass(frozen=True)
class NoiseCurve:
    """A branch's figure as the noise on the keypoints grows."""

    branch: str
    metric: str
    noise_px: tuple[float, ...]
    """Standard deviation of each coordinate, in pixels of a person whose box is 1000 px high or wide."""
    intervals: tuple[Interval, ...]


@dataclass(frozen=True)
class Flip:
    """As noise grows, one branch is better up to some noise, and the other beyond it."""

    metric: str
    one: str
    """Better with little noise."""
    other: str
    noise_px: Interval
    """Where the means meet. Below `low` one is better in 97.5 of 100 draws, from `high` on the other.

    `low` is 0 where nobody is so sure without noise, `high` infinite where nobody is at any noise that was asked.
    """


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several branches on the same people. Every figure is NaN where there is no answer or nothing to compare with."""

    title: str
    data: tuple[str, ...]
    """What the people are from."""
    against: Literal["truth", "each other"]
    """Agreement with each other is not accuracy."""
    protocol: Mapping[str, str]
    """What was measured and how: a few words and what they stand for."""
    branches: tuple[str, ...]
    metrics: tuple[Metric, ...]
    """The first is the one by which people are best, median and worst."""
    people: tuple[str, ...]
    """Where each person's record lies, in words."""
    groups: Mapping[str, tuple[str, ...]]
    """The level of each person: occlusion, truncation, sequence, view (front, side, back), size; empty: not known."""
    angle_rad: Float[np.ndarray, "N"]
    """Which way the true person faces: 0 to the camera, positive to the right of the picture; NaN is not known."""
    figures: Mapping[str, Mapping[str, Float[np.ndarray, "N"]]]
    """Of a branch, of a metric, of each person."""
    joint_names: tuple[str, ...]
    """Of H36M-17."""
    joint_errors_mm: Mapping[str, Float[np.ndarray, "N J"]]
    """Of a branch: distance of each joint about the pelvis, with no alignment, from the truth or from the others."""
    means: Mapping[str, Mapping[str, Interval]]
    """Of a branch, of a metric: over the people whom the branch answers."""
    differences: tuple[Difference, ...]
    """Of people whom both answer, a pair once."""
    noise: tuple[NoiseCurve, ...] = ()
    cost: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of a branch: `seconds` a person and `peak_mb` of memory."""
    unanswered: Mapping[str, int] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()
    flips: tuple[Flip, ...] = ()
    shared_means: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """As `means`, over the people of whom every branch that has the metric has it: the same people for all."""
    joint_differences: tuple[Difference, ...] = ()
    """Of the distances of single joints."""
    noise_differences: tuple[Difference, ...] = ()
    """At every noise, none among them."""

    @property
    def answers_differ(self) -> bool:
        """Whether the means of several branches are not of the same people."""
        return len(self.branches) > 1 and any(self.unanswered.values())

    def metric(self, name: str) -> Metric:
        """The metric of a name."""
        return next(metric for metric in self.metrics if metric.name == name)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a branch says of the person of an exhibit, or the truth."""

    overlay: UInt8[np.ndarray, "h w 3"] | None
    """On the photo of the exhibit."""
    joints17_m: Float[np.ndarray, "17 3"]
    """H36M-17 about the pelvis, in the frame of the camera (x right, y down, z forward)."""
    vertices_m: Float[np.ndarray, "V 3"] | None
    """In the same frame about the same point."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Of this person, by metric; none for the truth."""


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A person who is shown."""

    person: int
    """Place in `Comparison.people`."""
    why: Why
    photo: UInt8[np.ndarray, "h w 3"]
    box_xyxy_px: tuple[float, float, float, float]
    """About the person, on this photo."""
    answers: Mapping[str, Answer]
    """By branch; who has no answer is missing. `TRUTH` comes last where it is known."""
