"""Which joints make a pose implausible: what the energy would lose if a joint alone were where it is best."""

from typing import NamedTuple

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from priors.prior import NormalEquations, Prior

STEPS = 6
"""Gauss-Newton steps to a joint's best rotation at most; the energy is nearly quadratic, so the first nearly hits."""

LEAST_STEP_RAD = 1e-4
"""Steps end when all are shorter."""

LONGEST_STEP_RAD = 1.0

LEAST_STIFFNESS = 1e-3
"""Nats per squared radian that are added to the Hessian, so that a joint which nothing holds stays where it is."""


class Turns(NamedTuple):
    """What each joint alone can do for a pose, the others staying as they are."""

    gain: Float[Tensor, "*batch J"]
    """By how much the energy falls when this joint turns to its best rotation, nats."""
    rotations: Float[Tensor, "*batch J 3 3"]
    """That rotation."""


class Blame(NamedTuple):
    """The joints that make a pose implausible, worst first."""

    joints: Int[Tensor, "*batch K"]
    gain: Float[Tensor, "*batch K"]
    """By how much the energy falls when this joint turns to its best rotation, after those before it have, nats."""
    alone: Float[Tensor, "*batch J"]
    """The gain of every joint when none has turned yet."""


def best_turns(prior: Prior, pose: Float[Tensor, "*batch J 3 3"]) -> Turns:
    """Each joint's best rotation given all the others, by Gauss-Newton steps that are kept if the energy falls.

    Of a Gaussian's own samples a joint gains half a chi-squared of 3 degrees of freedom: 1.5 nats on average, and 1 in
    1,000 joints more than 8.
    """
    start = prior.energy(pose)[..., None].expand(pose.shape[:-2])
    least, best, pace = start, pose, torch.ones_like(start)
    for _ in range(STEPS):
        step = _own_steps(prior.normal_equations(_each_turned(pose, best)))
        step = step * (pace * LONGEST_STEP_RAD / step.norm(dim=-1).clamp_min(LONGEST_STEP_RAD))[..., None]
        if bool((step.norm(dim=-1) < LEAST_STEP_RAD).all()):
            break
        turned = best @ roma.rotvec_to_rotmat(step)
        energy = prior.energy(_each_turned(pose, turned))
        falls = energy < least
        best, least = torch.where(falls[..., None, None], turned, best), torch.where(falls, energy, least)
        pace = torch.where(falls, pace, pace / 4)
    return Turns(start - least, best)


def foretold_gains(prior: Prior, pose: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch J"]:
    """1/2 g^T H^-1 g, g and H a joint's own gradient and Hessian: its gain if the energy were quadratic.

    About `best_turns(prior, pose).gain`, at a hundredth of the cost.
    """
    gradient, hessian = _blocks(prior.normal_equations(pose))
    return (gradient * torch.linalg.solve(hessian, gradient)).sum(dim=-1) / 2


def blame(prior: Prior, pose: Float[Tensor, "*batch J 3 3"], most: int) -> Blame:
    """The joint that gains most turns to its best rotation, then the one that now gains most, `most` times.

    A head turned round makes the neck below it look wrong as well, until the head is turned back.
    """
    if not 1 <= most <= pose.shape[-3]:
        raise ValueError(f"most is {most}; of {pose.shape[-3]} joints, 1 to {pose.shape[-3]} can be blamed")
    joints, gains = [], []
    turns = best_turns(prior, pose)
    alone, blameless = turns.gain, torch.ones_like(turns.gain, dtype=torch.bool)
    for place in range(most):
        turns = best_turns(prior, pose) if place else turns
        gain, joint = torch.where(blameless, turns.gain, -1).max(dim=-1)
        chosen = torch.nn.functional.one_hot(joint, pose.shape[-3]).bool()
        pose = torch.where(chosen[..., None, None], turns.rotations, pose)
        blameless = blameless & ~chosen
        joints.append(joint)
        gains.append(gain)
    return Blame(torch.stack(joints, dim=-1), torch.stack(gains, dim=-1), alone)


def _each_turned(
    pose: Float[Tensor, "*batch J 3 3"], turned: Float[Tensor, "*batch J 3 3"]
) -> Float[Tensor, "*batch J J 3 3"]:
    """For each joint the pose in which it alone has its rotation from `turned`."""
    own = torch.eye(pose.shape[-3], dtype=torch.bool, device=pose.device)[..., None, None]
    return torch.where(own, turned[..., None, :, :, :], pose[..., None, :, :, :])


def _own_steps(equations: NormalEquations) -> Float[Tensor, "*batch J 3"]:
    """-H^-1 g of the j-th joint of the j-th of J poses."""
    gradient, hessian = _blocks(equations)
    own_gradient, own_hessian = torch.einsum("...jja->...ja", gradient), torch.einsum("...jjab->...jab", hessian)
    return -torch.linalg.solve(own_hessian, own_gradient)


def _blocks(equations: NormalEquations) -> tuple[Float[Tensor, "*batch J 3"], Float[Tensor, "*batch J 3 3"]]:
    """Each joint's own part of the gradient, and its block on the diagonal of the Hessian."""
    gradient = equations.gradient.unflatten(-1, (-1, 3))
    square = equations.hessian.unflatten(-1, (-1, 3)).unflatten(-3, (-1, 3))
    stiffness = LEAST_STIFFNESS * torch.eye(3, dtype=square.dtype, device=square.device)
    return gradient, torch.einsum("...jajb->...jab", square) + stiffness
