"""Lifters: inference against the network as it was trained, and training against a plain loop over the same networks.

Where no lifter ships or is named, its weights are random: how long it takes does not depend on them.
"""

import math
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss

from benchmarks.clock import Figure, Run, medians_s
from meshrec.body import load_body_model
from meshrec.branches.lift import LiftBranch, LiftConfig
from meshrec.data.joints import JointFrames
from meshrec.data.views import Views, ViewsConfig, virtual_views
from meshrec.errors import MeshrecError
from meshrec.metrics import pa_mpjpe_mm, root_relative
from meshrec.models.lifter_file import open_lifter
from meshrec.models.lifting import mirrored_points, novel_rotation, turned
from meshrec.models.vae_lifter import Discriminator, DiscriminatorConfig, LifterConfig, VaeLifter
from meshrec.prior_files import DEFAULT_PRIOR, open_prior
from meshrec.skeletons import H36M17
from meshrec.train.lift import LiftRun, LiftTask
from meshrec.train.processes import Processes
from meshrec.train.training import LoopConfig, Training
from meshrec.types import BodyParams

POSES = 4096
BATCH = 256
STEPS = 8
"""Training steps in a measurement."""


def inference(precision: Literal["float32", "bfloat16"], repeats: int) -> Figure:
    """Poses a second by the branch, without flip averaging, turning the camera to the pelvis and back included."""
    views, lifter = _views(), _lifter()[0]
    branch = LiftBranch(lifter, LiftConfig(precision=precision, flip=False))

    def peer() -> Tensor:
        with torch.no_grad():
            return lifter(views.points, views.seen).joints

    ours_s, peer_s = medians_s(lambda: branch.lift(views.points, views.seen), peer, repeats=repeats)
    note = "" if precision == "float32" else "the peer computes in float32"
    return Figure(POSES / ours_s, "poses/s", POSES / peer_s, "the network, eager", note, more_is_better=True)


def bfloat16_loss(repeats: int) -> Figure:
    """By how much bfloat16 changes the PA-MPJPE of synthetic poses, up or down."""
    del repeats
    views, (lifter, whose) = _views(), _lifter()
    assert views.joints_m is not None
    true_m = root_relative(views.joints_m, H36M17)
    errors_mm = [
        pa_mpjpe_mm(LiftBranch(lifter, LiftConfig(precision=precision)).lift(views.points, views.seen), true_m).mean()
        for precision in ("float32", "bfloat16")
    ]
    note = f"{whose}: {errors_mm[0]:.2f} mm in float32"
    return Figure(abs(float(errors_mm[1] - errors_mm[0])), "mm", note=note)


def training(repeats: int) -> Figure:
    """Steps of the thesis's recipe: a discriminator's and a lifter's, batch 256."""
    ours_s, peer_s = medians_s(_training_by_the_loop(), _training_by_hand(), repeats=repeats)
    ours, peer = BATCH * STEPS / ours_s, BATCH * STEPS / peer_s
    return Figure(ours, "poses/s", peer, "a plain loop", more_is_better=True)


def _steps(step: Run) -> Run:
    """So many calls of a step."""

    def run() -> None:
        for _ in range(STEPS):
            step()

    return run


def _training_by_the_loop() -> Run:
    loop, views = LoopConfig(batch=BATCH, steps=10**6), _views()
    task = LiftTask(LiftRun(loop=loop), views, views[:64], torch.device("cpu"))
    return _steps(Training(task, loop, Processes()).advance)


def _training_by_hand() -> Run:
    """The same networks and losses as one writes them down, and torch's own Adam."""
    views, random = _views(), torch.Generator().manual_seed(0)
    lifter, discriminator = VaeLifter(LifterConfig(), random).train(), Discriminator(DiscriminatorConfig(), random)
    lifter.start_at(views.points, views.seen)
    networks = (lifter.encoder, lifter.decoder)
    optimizers = [torch.optim.Adam(network.parameters(), 2e-4) for network in (lifter, discriminator)]

    def judged(points: Tensor, labels: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(discriminator(lifter.normalised(points, seen)), labels)

    seen = torch.ones(BATCH, len(H36M17), dtype=torch.bool)

    def step() -> None:
        real, points = (_drawn(views.points) for _ in range(2))
        lifted = lifter(points, seen, torch.randn(BATCH, lifter.config.latent))
        turn = novel_rotation(math.pi * (2 * torch.rand(BATCH) - 1), lifted.elevation_rad, lifted.elevation_rad)
        novel = lifter.project(turned(lifted.joints, turn), lifted.distance)
        ones, zeros = 0.7 + 0.5 * torch.rand(BATCH), torch.zeros(BATCH)
        optimizers[1].zero_grad()
        (judged(real, ones) + judged(novel.detach(), zeros)).backward()
        nn.utils.clip_grad_norm_(discriminator.parameters(), 1.0)
        optimizers[1].step()
        optimizers[0].zero_grad()
        there = lifter.project(lifted.joints, lifted.distance)
        variance = lifted.log_variance.exp()
        kld = -(1 + lifted.log_variance - lifted.mean.square() - variance).sum() / (2 * BATCH * 48)
        loss = l1_loss(lifter.normalised(there, seen), lifter.normalised(points, seen))
        (loss + 1e-3 * kld + 1e-3 * judged(novel, 0.7 + 0.5 * torch.rand(BATCH))).backward()
        for network in networks:
            nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizers[0].step()

    return _steps(step)


def _drawn(points: Tensor) -> Tensor:
    """Random views, half of them mirrored."""
    chosen = points[torch.randint(len(points), (BATCH,))]
    return torch.where(torch.rand(BATCH, 1, 1) < 0.5, mirrored_points(chosen), chosen)


@cache
def _lifter() -> tuple[VaeLifter, str]:
    """The one that ships, or one at its random start, with statistics of some poses."""
    try:
        return open_lifter(), "the shipped lifter"
    except MeshrecError:
        views, lifter = _views(), VaeLifter(LifterConfig(), torch.Generator().manual_seed(0))
        lifter.start_at(views.points, views.seen)
        lifter.train()(views.points, views.seen)
        return lifter.eval().requires_grad_(False), "random weights"


@cache
@torch.no_grad()
def _views() -> Views:
    """Bodies that the default prior draws, as virtual cameras see them."""
    prior, model = open_prior(DEFAULT_PRIOR), load_body_model()
    assert prior is not None
    pose = prior.sample(POSES, 1.0, torch.Generator().manual_seed(1)).float()
    params = BodyParams(torch.eye(3).expand(POSES, 3, 3), pose, torch.zeros(POSES, 1), torch.zeros(POSES, 3))
    joints_m = model.regressed(params, H36M17).numpy()
    names = np.full(POSES, "synthetic")
    frames = JointFrames(joints_m, names, names, names, names)
    return virtual_views(frames, np.arange(POSES), ViewsConfig(views=1))
