"""Pose priors: energies against a VAE's, and the training of the low-capacity flow against plain torch.

All but the default prior have random weights: what is timed does not depend on them.
"""

import math
from collections.abc import Callable

import roma
import torch
from torch import Tensor, nn

from benchmarks.clock import Figure, medians_s
from meshrec.prior_files import DEFAULT_PRIOR, open_prior
from meshrec.train.descent import Descent, OptimizerConfig, Phase
from priors.build import BaseConfig, PriorConfig, build_prior
from priors.flow import FlowConfig
from priors.prior import Prior, TrainedPrior

POSES = 4096
BATCH = 64
STEPS = 50
"""Training steps in a measurement."""

PAPER = PriorConfig(chart="six_d", base=BaseConfig(kind="normal"), flow=FlowConfig(activation="prelu"))
"""The low-capacity flow: 95,914 parameters on six numbers a joint."""


def flow_energy(repeats: int) -> Figure:
    """Energy and gradient by the rotations, of the default prior."""
    prior = open_prior(DEFAULT_PRIOR)
    assert prior is not None
    return _against_vae(prior, repeats)


def paper_energy(repeats: int) -> Figure:
    """The same of the low-capacity flow."""
    return _against_vae(build_prior(PAPER, torch.Generator().manual_seed(0)), repeats)


def _against_vae(ours: Prior, repeats: int) -> Figure:
    rotations, peer = _poses(POSES), build_prior(PriorConfig(kind="vae"), torch.Generator().manual_seed(0))
    ours_s, peer_s = medians_s(_gradient(ours, rotations), _gradient(peer, rotations), repeats=repeats)
    return Figure(1e3 * ours_s, "ms", 1e3 * peer_s, "the VAE of VPoser's size")


def _gradient(prior: Prior, rotations: Tensor) -> Callable[[], Tensor]:
    assert isinstance(prior, nn.Module)
    prior.requires_grad_(False)

    def run() -> Tensor:
        free = rotations.clone().requires_grad_()
        return torch.autograd.grad(prior.energy(free).sum(), free)[0]

    return run


def paper_training(repeats: int) -> Figure:
    """Steps of the paper's recipe: batch 64, Adam, clipping; the peer solves and takes determinants layer by layer."""
    ours_s, peer_s = medians_s(_training_of_flow(), _training_of_plain_torch(), repeats=repeats)
    return Figure(STEPS / ours_s, "steps/s", STEPS / peer_s, "torch.linalg.solve and slogdet", more_is_better=True)


def _training_of_flow() -> Callable[[], None]:
    prior, rotations = build_prior(PAPER, torch.Generator().manual_seed(0)), _poses(BATCH)
    assert isinstance(prior, TrainedPrior) and isinstance(prior, nn.Module)
    noise = torch.randn(BATCH, prior.noise_size, generator=torch.Generator().manual_seed(1))
    descent = Descent(Phase("prior", (prior,)), OptimizerConfig(learning_rate=1e-4, clip_norm=100.0), prior)

    def run() -> None:
        for _ in range(STEPS):
            descent.backward(prior.loss(rotations, noise).mean())
            descent.step(1e-4)

    return run


class PlainFlow(nn.Module):
    """The same flow as one writes it down: five matrices, four slopes."""

    def __init__(self, dimension: int, depth: int = 4) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        turns = [nn.init.orthogonal_(torch.empty(dimension, dimension), generator=random) for _ in range(depth + 1)]
        self.weights = nn.ParameterList(turns)
        self.biases = nn.ParameterList([torch.zeros(dimension) for _ in range(depth + 1)])
        self.slopes = nn.ParameterList([torch.tensor(math.log(math.expm1(1 - 1e-3))) for _ in range(depth)])

    def log_prob(self, points: Tensor) -> Tensor:
        log_det = torch.zeros(len(points))
        for layer in reversed(range(len(self.weights))):
            points = torch.linalg.solve(self.weights[layer], (points - self.biases[layer]).T).T
            log_det = log_det - torch.linalg.slogdet(self.weights[layer])[1]
            if layer:
                slope = nn.functional.softplus(self.slopes[layer - 1]) + 1e-3
                log_det = log_det - (points < 0).sum(dim=1) * slope.log()
                points = torch.where(points < 0, points / slope, points)
        return log_det - points.square().sum(dim=1) / 2 - points.shape[1] / 2 * math.log(2 * math.pi)


def _training_of_plain_torch() -> Callable[[], None]:
    rotations, flow = _poses(BATCH), PlainFlow(6 * 23)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-4)
    points = rotations[..., :2].flatten(1)

    def run() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            (-flow.log_prob(points).mean()).backward()
            nn.utils.clip_grad_norm_(flow.parameters(), 100.0)
            optimizer.step()

    return run


def _poses(count: int) -> Tensor:
    return roma.rotvec_to_rotmat(0.3 * torch.randn(count, 23, 3, generator=torch.Generator().manual_seed(2)))
