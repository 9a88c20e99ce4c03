"""Everybody asked about the same people, some at a time, as they are and with noise on their keypoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from meshrec.body import BodyModel
from meshrec.comparison.contestants import Contestant, Said
from meshrec.comparison.cost import Cost
from meshrec.comparison.figures import Found, accuracy, agreement, counted_errors_mm, joints_apart_mm
from meshrec.comparison.people import Few, People, true_found

Columns = dict[str, dict[str, Float[np.ndarray, "N"]]]
"""Of a branch, of a metric, of some people."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What everybody said of some people, measured; a part of a comparison that can be made and kept by itself."""

    figures: dict[float, Columns]
    """By the noise on the keypoints, in pixels of a person whose box is 1000 px high or wide; 0 is always there."""
    joints_mm: dict[str, Float[np.ndarray, "N J"]]
    """Of each counted joint, without noise."""
    answered: dict[str, Bool[np.ndarray, "N"]]
    """Of whom each branch says something."""
    problems: tuple[str, ...]
    """Why it says nothing of others, a sentence for each where there is one."""


@dataclass(frozen=True, eq=False)
class Measured(Asked):
    """The same of all people, and what it cost."""

    costs: dict[str, dict[str, float]]
    """Of a branch: see `Cost.told`."""


def against_of(people: People) -> Literal["truth", "each other"]:
    """What answers are measured against."""
    return "truth" if people.known else "each other"


def measured(
    people: People,
    contestants: Sequence[Contestant],
    model: BodyModel,
    noise_px: Sequence[float] = (0.0,),
    seed: int = 0,
    advance: Callable[[int], object] = lambda done: None,
) -> Measured:
    """Ask about everybody; `advance` is told of each few."""
    costs = {contestant.name: Cost() for contestant in contestants}
    parts = []
    for span in people.spans():
        parts.append(asked(people.few(span), contestants, model, noise_px, seed, costs))
        advance(len(span))
    return whole_of(parts, {name: cost.told() for name, cost in costs.items()})


def whole_of(parts: Sequence[Asked], costs: dict[str, dict[str, float]]) -> Measured:
    """Parts one after another."""
    figures = {noise: _joined([part.figures[noise] for part in parts]) for noise in parts[0].figures}
    joints_mm = {name: np.concatenate([part.joints_mm[name] for part in parts]) for name in parts[0].joints_mm}
    answered = {name: np.concatenate([part.answered[name] for part in parts]) for name in parts[0].answered}
    problems = tuple(dict.fromkeys(problem for part in parts for problem in part.problems))
    return Measured(figures, joints_mm, answered, problems, costs)


@torch.no_grad()
def asked(
    few: Few,
    contestants: Sequence[Contestant],
    model: BodyModel,
    noise_px: Sequence[float],
    seed: int,
    costs: dict[str, Cost],
) -> Asked:
    """Ask about a few, at every level of noise those whom it concerns."""
    said: dict[str, Said] = {}
    for contestant in contestants:
        with costs[contestant.name].of(len(few)):
            said[contestant.name] = contestant.about(few)
    plain = {name: each.found for name, each in said.items()}
    true = _true(few, plain, model)
    figures = {0.0: _figures(few, plain, true)}
    for noise in (noise for noise in noise_px if noise):
        noisy = few.with_noise(noise, seed)
        anew = {contestant.name: contestant.about(noisy).found for contestant in contestants if contestant.asks}
        told = _figures(few, plain | anew, true)
        figures[noise] = {name: told[name] for name in anew}
    answered = {name: found.joints17_m.isfinite().all(-1).all(-1).numpy() for name, found in plain.items()}
    problems = tuple(problem for each in said.values() for problem in each.problems)
    return Asked(figures, _joints_mm(plain, true), answered, problems)


def _true(few: Few, found: dict[str, Found], model: BodyModel) -> Found | None:
    if few.params is None:
        return None
    return true_found(model, few, any(each.vertices_m is not None for each in found.values()))


def _figures(few: Few, found: dict[str, Found], true: Found | None) -> Columns:
    """Measured against the truth or each other; in the image always against what was seen without noise."""
    if true is None:
        return agreement(found, few.seen)
    return {name: accuracy(each, true, few.seen) for name, each in found.items()}


def _joints_mm(found: dict[str, Found], true: Found | None) -> dict[str, Float[np.ndarray, "N J"]]:
    errors = {
        name: joints_apart_mm(found, name) if true is None else counted_errors_mm(each, true)
        for name, each in found.items()
    }
    return {name: values.double().numpy() for name, values in errors.items()}


def _joined(parts: Sequence[Mapping[str, Mapping[str, Float[np.ndarray, "_"]]]]) -> Columns:
    """The figures of parts of the people, of as many as each has, one after another."""
    return {
        branch: {name: np.concatenate([part[branch][name] for part in parts]) for name in columns}
        for branch, columns in parts[0].items()
    }
