"""Levenberg-Marquardt for many people at once, each with a damping and an end of its own."""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshrec.objective import Objective, retract
from meshrec.types import Batched, BodyParams, FitTerms


@dataclass(frozen=True)
class MinimizeConfig:
    """When to stop."""

    iterations: int = 40
    tolerance: float = 1e-3
    """A person has converged when a step promises or brings less than this, in nats, or when no step helps."""
    first_damping: float = 1e-2


@dataclass(frozen=True)
class Minimum(Batched):
    """Where the solver came to."""

    params: BodyParams
    terms: FitTerms
    iterations: Int[Tensor, "N"]
    converged: Bool[Tensor, "N"]


def minimize(objective: Objective, params: BodyParams, config: MinimizeConfig) -> Minimum:
    """Damped Gauss-Newton steps (Marquardt's scaling); only people who have not converged are worked on."""
    terms = objective.terms(params)
    damping = torch.full_like(terms.total, config.first_damping)
    iterations = torch.zeros(len(damping), dtype=torch.long, device=damping.device)
    converged = torch.zeros(len(damping), dtype=torch.bool, device=damping.device)
    for _ in range(config.iterations):
        open_people = (~converged).nonzero()[:, 0]
        if len(open_people) == 0:
            break
        step = _step(objective.of(open_people), params[open_people], damping[open_people])
        gain = terms.total[open_people] - step.terms.total
        better = gain > 0
        moved = open_people[better]
        params = _put(params, moved, step.params[better])
        terms = _put(terms, moved, step.terms[better])
        damping[open_people] = (damping[open_people] * torch.where(better, 0.2, 5.0)).clamp(1e-7, 1e7)
        iterations[open_people] += 1
        small = torch.where(better, gain, step.promise) < config.tolerance
        converged[open_people] = small | (damping[open_people] > 1e6)
    return Minimum(params, terms, iterations, converged)


@dataclass(frozen=True)
class _Step:
    params: BodyParams
    terms: FitTerms
    promise: Float[Tensor, "N"]
    """What the quadratic model says the step gains."""


def _step(objective: Objective, params: BodyParams, damping: Float[Tensor, "N"]) -> _Step:
    """One damped step: (H + damping diag H) step = -gradient."""
    model = objective.quadratic(params)
    diagonal = model.hessian.diagonal(dim1=1, dim2=2)
    damped = model.hessian + torch.diag_embed(damping[:, None] * diagonal + 1e-6)
    factor, failed = torch.linalg.cholesky_ex(damped)
    step = -torch.cholesky_solve(model.gradient[..., None], factor)[..., 0]
    step = torch.where((failed == 0)[:, None], step, torch.zeros_like(step))
    curvature = (step[:, None] @ model.hessian @ step[..., None])[:, 0, 0]
    promise = -(model.gradient * step).sum(dim=-1) - curvature / 2
    moved = retract(params, step)
    return _Step(moved, objective.terms(moved), torch.where(failed == 0, promise, torch.inf))


Noun = TypeVar("Noun", BodyParams, FitTerms)


def _put(noun: Noun, people: Int[Tensor, "M"], values: Noun) -> Noun:
    """The noun with some people's values replaced."""
    changed = {
        field.name: getattr(noun, field.name).index_copy(0, people, getattr(values, field.name))
        for field in fields(noun)
    }
    return replace(noun, **changed)
