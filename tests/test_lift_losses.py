"""Laws of what a lifter learns from: novel views, and each term by its equation."""

import math
from dataclasses import replace

import pytest
import roma
import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from meshrec.models.lifting import BONE_UNITS, BONES, project_units, seen_everywhere, turned, with_root
from meshrec.models.vae_lifter import ELEVATION_REACH_RAD, Lifted, LifterConfig, VaeLifter
from meshrec.skeletons import H36M17
from meshrec.train.lift_losses import (
    BONE_SPREAD,
    Novel,
    Sight,
    inconsistency,
    novel_view,
    offset,
    slope_penalty,
    supervised_terms,
    unsupervised_terms,
    verdict,
)

BATCHES = [(), (1,), (3,), (2, 3)]
N = 6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(**settings) -> VaeLifter:
    lifter = VaeLifter(LifterConfig(**{"hidden": 8, "latent": 3, "scale": "pose"} | settings)).double().eval()
    lifter.path.fill_(0.17)
    return lifter


def lifted(seed: int = 0) -> Lifted:
    """Anybody anywhere."""
    return Lifted(
        with_root(0.4 * random(N, 16, 3, seed=seed)),
        6 + random(N, seed=seed + 1).tanh(),
        ELEVATION_REACH_RAD * random(N, seed=seed + 2).tanh(),
        random(N, 3, seed=seed + 3),
        random(N, 3, seed=seed + 4),
    )


def pictures(seed: int = 0) -> Tensor:
    return project_units(lifted(seed).joints, lifted(seed).distance)


def novel_of(pose: Lifted, lifter: VaeLifter) -> Novel:
    return novel_view(lifter, pose, random(N, seed=20), torch.zeros(N, dtype=torch.float64))


# ---- novel views


def test_a_novel_view_is_that_of_the_neighbours_camera_from_around():
    pose, around, raised = lifted(), random(N, seed=5), 0.1 * random(N, seed=6)
    novel, pair = novel_view(made(), pose, around, raised), [1, 0, 3, 2, 5, 4]
    torch.testing.assert_close(novel.distance, pose.distance[pair])
    torch.testing.assert_close(novel.elevation_rad, pose.elevation_rad[pair] + raised)
    torch.testing.assert_close(novel.joints, turned(pose.joints, novel.rotation))
    torch.testing.assert_close(novel.points, project_units(novel.joints, pose.distance[pair]))
    assert novel.shown.all() and novel.genuine.all()


def test_the_vertical_stays_the_vertical_in_a_novel_view():
    """Seen from an elevation e the world's way up is (0, -cos e, -sin e)."""
    pose = lifted()
    novel = novel_view(made(), pose, random(N, seed=5), 0.1 * random(N, seed=6))

    def up(elevation_rad: Tensor) -> Tensor:
        return torch.stack([0 * elevation_rad, -elevation_rad.cos(), -elevation_rad.sin()], dim=-1)

    seen = (novel.rotation @ up(pose.elevation_rad)[..., None])[..., 0]
    torch.testing.assert_close(seen, up(novel.elevation_rad))


def test_the_thesis_turns_about_the_vertical_alone():
    pose = replace(lifted(), elevation_rad=torch.zeros(N, dtype=torch.float64))
    novel = novel_of(pose, made())
    torch.testing.assert_close(novel.joints[..., 1], pose.joints[..., 1])
    torch.testing.assert_close(roma.rotmat_to_rotvec(novel.rotation)[:, 1].abs(), random(N, seed=20).abs())


def test_the_last_of_an_odd_number_keeps_its_camera():
    pose = lifted()[:3]
    novel = novel_view(made(), pose, random(3), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(novel.distance, pose.distance[[1, 0, 2]])


# ---- distances


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("size", [2, 3])
def test_the_offset_is_the_mean_over_coordinates_of_known_joints_but_the_root(batch, size):
    found, wanted = random(*batch, 17, size), random(*batch, 17, size, seed=1)
    whole = offset(found, wanted, seen_everywhere(found[..., :2]))
    assert whole.shape == batch
    torch.testing.assert_close(whole.mean(), l1_loss(found[..., 1:, :], wanted[..., 1:, :]))
    known = torch.arange(17) < 5
    torch.testing.assert_close(
        offset(found, wanted.masked_fill(~known[:, None], math.nan), known.expand(*batch, 17)),
        (found - wanted)[..., 1:5, :].abs().mean((-1, -2)),
    )
    assert not offset(found, wanted, (torch.arange(17) < 1).expand(*batch, 17)).any()


def test_what_comes_back_is_consistent_and_all_else_costs_its_square():
    pose = lifted()
    novel = novel_of(pose, made())
    again = replace(pose, joints=novel.joints, distance=novel.distance, elevation_rad=novel.elevation_rad)
    assert not inconsistency(novel, again, True).any()
    moved = replace(again, joints=again.joints + torch.tensor([0.3, 0.0, 0.4]).double())
    torch.testing.assert_close(inconsistency(novel, moved, True), torch.full((N,), 0.25).double())
    farther = replace(again, distance=1.2 * again.distance)
    torch.testing.assert_close(inconsistency(novel, farther, True), torch.full((N,), 0.04).double())
    higher = replace(again, elevation_rad=again.elevation_rad + 0.5)
    torch.testing.assert_close(inconsistency(novel, higher, True), torch.full((N,), 0.25).double())
    assert not inconsistency(novel, higher, False).any()


# ---- the discriminator's terms


@pytest.mark.parametrize("batch", BATCHES)
def test_a_verdict_is_the_cross_entropy_of_labels_that_may_be_above_one(batch):
    scores, labels = random(*batch), 0.7 + 0.5 * random(*batch, seed=1).sigmoid()
    p = scores.sigmoid()
    torch.testing.assert_close(verdict(scores, labels, "bce"), -(labels * p.log() + (1 - labels) * (1 - p).log()))


def test_a_critic_lifts_the_real_and_lowers_the_false():
    scores = random(4)
    told = verdict(scores, torch.tensor([0.0, 0.3, 0.7, 1.2]).double(), "wasserstein")
    torch.testing.assert_close(told, scores * torch.tensor([1.0, 1.0, -1.0, -1.0]).double())


def test_slopes_are_penalised_between_the_real_and_the_fake():
    real, fake, mix = random(N, 17, 2), random(N, 17, 2, seed=1), random(N, seed=2).sigmoid()
    found = slope_penalty(lambda points: points.square().sum((1, 2)) / 2, real, fake, mix)
    between = fake + mix[:, None, None] * (real - fake)
    torch.testing.assert_close(found, (torch.linalg.vector_norm(between, dim=(1, 2)) - 1).square())


# ---- the terms


def term(name: str, pose: Lifted, points: Tensor, lifter: VaeLifter) -> Tensor:
    return unsupervised_terms(Sight(pose), points, seen_everywhere(points), lifter, None, True)[name]()


def test_true_joints_are_taken_in_units_of_each_pose():
    pose, true = lifted(), lifted(9).joints
    found, larger = (supervised_terms(Sight(pose), size * true)["joints"]() for size in (1.0, 1.7))
    torch.testing.assert_close(found, larger)
    head, thorax, spine = (true[:, H36M17.index(joint)] for joint in ("head_top", "thorax", "spine"))
    path = (head - thorax).norm(dim=-1) + (thorax - spine).norm(dim=-1) + spine.norm(dim=-1)
    torch.testing.assert_close(found.mean(), l1_loss(pose.joints[:, 1:], (true / path[:, None, None])[:, 1:]))


@pytest.mark.parametrize("scale", ["split", "pose"])
def test_the_miss_is_measured_where_the_networks_see(scale):
    """Of the thesis it is |(x, y) / (10 + z) - points at the scale of 1 / 10|."""
    lifter, points = made(scale=scale), pictures(9)
    pose = replace(lifted(), distance=lifter.expected_distance(points, seen_everywhere(points)))
    there = lifter.project(pose.joints, pose.distance) * pose.distance[:, None, None] / 10
    seen = lifter.normalised(points, seen_everywhere(points))
    found = term("reprojection", pose, points, lifter)
    torch.testing.assert_close(found, (there - seen)[:, 1:].abs().mean((1, 2)))
    if scale == "split":
        thesis = pose.joints[..., :2] / (10 + pose.joints[..., 2:])
        torch.testing.assert_close(found.mean(), l1_loss(thesis[:, 1:], points[:, 1:] * 0.1 / lifter.path))


def test_what_is_lifted_again_and_turned_back_misses_as_the_pose_itself_does():
    lifter, pose, points = made(), lifted(), pictures(9)
    novel = novel_of(pose, lifter)
    again = replace(pose, joints=novel.joints, distance=novel.distance)
    table = unsupervised_terms(Sight(pose, novel, novel, again), points, seen_everywhere(points), lifter, None, True)
    torch.testing.assert_close(table["again_2d"](), table["reprojection"]())
    genuine = torch.arange(N) < 2
    fancied = Sight(pose, novel, replace(novel, genuine=genuine), again)
    table = unsupervised_terms(fancied, points, seen_everywhere(points), lifter, None, True)
    torch.testing.assert_close(table["again_2d"](), torch.where(genuine, table["reprojection"](), 0.0))


def test_bones_count_in_variances_of_people():
    """Half the square of how many standard deviations they are off, as in -log of a normal density."""
    joints = [torch.zeros(N, 3, dtype=torch.float64)]
    for (parent, child), length in zip(BONES, BONE_UNITS, strict=True):
        way = random(N, 3, seed=child)
        joints.append(joints[parent] + length * way / way.norm(dim=-1, keepdim=True))
    table = torch.stack(joints, dim=1)
    for deviations in (0.0, 1.0, -2.0):
        pose = replace(lifted(), joints=table * math.exp(deviations * BONE_SPREAD))
        bones = term("bones", pose, pictures(), made())
        torch.testing.assert_close(bones, torch.full((N,), deviations**2 / 2).double())
