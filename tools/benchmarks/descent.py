"""The `fit` branch with an optimiser of torch in place of its solver: same objective, same starts, autograd."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.optim import LBFGS, Adam, Optimizer

from meshrec.body import BodyModel
from meshrec.branches.fit import FitBranch, FitConfig
from meshrec.minimize import Minimum
from meshrec.objective import Objective, retract
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams
from priors.prior import Prior

FAR = 1e6
"""Stands for an infinite objective, so that sums stay finite."""


@dataclass(frozen=True)
class Descent:
    """An optimiser, and when it stops."""

    optimizer: Callable[[list[Tensor]], Optimizer]
    steps: int
    goal: float = -math.inf
    """The mean objective, over people, of each one's best start."""
    patience: int = 10**9
    """So many steps that bring nothing end it as well."""


def adam(steps: int, goal: float = -math.inf) -> Descent:
    """Steps of 0.05 in radians, metres and standard deviations of shape: of 0.03 to 0.2 the soonest at its end."""
    return Descent(lambda unknowns: Adam(unknowns, lr=0.05), steps, goal)


def lbfgs(steps: int, goal: float = -math.inf) -> Descent:
    """Everybody as one problem, with a strong Wolfe line search; ten iterations a step."""
    return Descent(
        lambda unknowns: LBFGS(unknowns, max_iter=10, history_size=10, line_search_fn="strong_wolfe"), steps, goal, 1
    )


class DescentBranch(FitBranch):
    """`fit`, but every start goes down by an optimiser's steps."""

    name = "descent"

    def __init__(self, model: BodyModel, prior: Prior | None, config: FitConfig, descent: Descent) -> None:
        super().__init__(model, prior, config)
        self.descent = descent
        self.evaluations = 0
        """Of the objective and its gradient, in the last fit."""
        self.reached = math.inf
        """The mean objective of the last fit."""

    def _race(self, objective: Objective, starts: BodyParams) -> tuple[Minimum, Int[Tensor, "N"]]:
        count, people = starts.transl_m.shape[:2]
        everyone = objective.of(torch.arange(people).repeat(count))
        params = self._descend(everyone, starts.map(lambda tensor: tensor.flatten(0, 1)), count)
        terms = everyone.terms(params)
        start = terms.total.unflatten(0, (count, people)).argmin(dim=0)
        iterations = torch.full(terms.total.shape, self.evaluations)
        arrived = torch.full(terms.total.shape, self.reached <= self.descent.goal)
        return Minimum(params, terms, iterations, arrived)[start * people + torch.arange(people)], start

    @torch.enable_grad()
    def _descend(self, objective: Objective, starts: BodyParams, count: int) -> BodyParams:
        unknowns = starts.transl_m.new_zeros(len(starts.transl_m), 3 * len(SMPL24) + starts.betas.shape[-1] + 3)
        unknowns.requires_grad_()
        optimizer = self.descent.optimizer([unknowns])
        best = torch.full_like(starts.transl_m[:, 0], torch.inf)
        self.evaluations, self.reached, idle = 0, math.inf, 0

        def objective_of() -> float:
            optimizer.zero_grad()
            total = objective.terms(retract(starts, unknowns)).total.nan_to_num(posinf=FAR)
            total.sum().backward()
            best.copy_(torch.minimum(best, total.detach()))
            self.evaluations += 1
            return total.detach().double().sum().item()

        for _ in range(self.descent.steps):
            optimizer.step(objective_of)
            before, self.reached = self.reached, best.unflatten(0, (count, -1)).amin(dim=0).mean().item()
            idle = 0 if self.reached < before - 1e-4 else idle + 1
            if self.reached <= self.descent.goal or idle >= self.descent.patience:
                break
        return retract(starts, unknowns.detach())
