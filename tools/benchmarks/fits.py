"""The solver of `fit` against optimisers of torch that go down the same objective by autograd.

The people are synthetic: poses of the shipped prior, random shapes, cameras and noise; shape is fitted too. The peers
run until their mean objective is within 1 % of ours, or to a stated end; the ratio is then too low, not too high.
"""

from collections.abc import Callable

import torch
from synthetic_fit import People, make_people

from benchmarks.clock import Figure, medians_s
from benchmarks.descent import Descent, DescentBranch, adam, lbfgs
from meshrec.body import load_body_model
from meshrec.branches.fit import FitBranch, FitConfig
from meshrec.prior_files import DEFAULT_PRIOR, open_prior

PEOPLE = 200
NOISE_PX = 3.0
SLACK = 1.01


def against_adam(repeats: int) -> Figure:
    """Adam, all starts of all people at once."""
    return _fit("torch.optim.Adam", lambda goal: adam(1000, goal), repeats)


def against_lbfgs(repeats: int) -> Figure:
    """L-BFGS, all starts of all people as one problem."""
    return _fit("torch.optim.LBFGS", lambda goal: lbfgs(60, goal), repeats)


def _fit(peer_name: str, descent_to: Callable[[float], Descent], repeats: int) -> Figure:
    branch, people = _branch_and_people()
    report = branch.fit(people.keypoints, people.camera).report
    assert report is not None
    objective = report.terms.total.mean().item()
    peer = DescentBranch(branch.model, branch.prior, branch.config, descent_to(SLACK * objective))
    ours_s, peer_s = medians_s(
        lambda: branch.fit(people.keypoints, people.camera),
        lambda: peer.fit(people.keypoints, people.camera),
        repeats=repeats,
        most=1,
    )
    fell_short = peer.reached > peer.descent.goal
    note = f"mean objective {objective:.2f}; the peer has {peer.reached:.2f} after {peer.evaluations} gradients"
    return Figure(
        PEOPLE / ours_s,
        "people/s",
        PEOPLE / peer_s,
        peer_name,
        note + " and was stopped there: the ratio is a lower bound" * fell_short,
        more_is_better=True,
    )


def _branch_and_people(seed: int = 0) -> tuple[FitBranch, People]:
    model, prior = load_body_model(), open_prior(DEFAULT_PRIOR)
    assert prior is not None
    pose = prior.sample(PEOPLE, generator=torch.Generator().manual_seed(seed)).to(model.template)
    rotations = torch.cat([torch.eye(3).expand(PEOPLE, 1, 3, 3), pose], dim=1)
    people = make_people(model, rotations, NOISE_PX, landmark_noise_m=0.0, seed=seed)
    return FitBranch(model, prior, FitConfig(noise_px=NOISE_PX)), people
