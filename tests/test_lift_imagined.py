"""Laws of imagined people: whole bodies, in the posture of those they are made of, that the lifter is to know again."""

import math
from dataclasses import replace

import pytest
import roma
import torch

from meshrec.models.lifting import BONE_MIRROR, BONE_UNITS, BONES, asymmetry, bone_lengths, seen_everywhere, turned
from meshrec.models.vae_lifter import LifterConfig, VaeLifter
from meshrec.skeletons import H36M17
from meshrec.train.lift_imagined import LIMBS, Fancy, imagined, reimagined, symmetric
from meshrec.train.lift_losses import novel_view

N = 8


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def people(seed: int = 0) -> torch.Tensor:
    """Bones of the table's lengths in any direction."""
    joints = [torch.zeros(N, 3, dtype=torch.float64)]
    for (parent, child), length in zip(BONES, BONE_UNITS, strict=True):
        way = random(N, 3, seed=100 * seed + child)
        joints.append(joints[parent] + length * way / way.norm(dim=-1, keepdim=True))
    return torch.stack(joints, dim=1)


def fancy(**changes: torch.Tensor) -> Fancy:
    nothing = Fancy(
        chosen=torch.ones(N, dtype=torch.bool),
        swapped=torch.zeros(N, len(LIMBS), dtype=torch.bool),
        stretch=torch.zeros(N, len(BONES), dtype=torch.float64),
        shown=torch.ones(N, 17, dtype=torch.bool),
    )
    return replace(nothing, **changes)


def swapped(limb: int | None = None) -> torch.Tensor:
    which = torch.zeros(N, len(LIMBS), dtype=torch.bool)
    which[:, slice(None) if limb is None else limb] = True
    return which


def test_who_imagines_nothing_sees_what_is_there():
    torch.testing.assert_close(imagined(people(), fancy()), people())


@pytest.mark.parametrize("limb", range(len(LIMBS)))
def test_a_limb_comes_from_another_pose_and_nothing_else_does(limb):
    joints, made = people(), imagined(people(), fancy(swapped=swapped(limb)))
    moved = LIMBS[limb][0]
    still = [joint for joint in range(17) if joint not in moved]
    torch.testing.assert_close(made[:, still], joints[:, still])
    donor = torch.arange(N) ^ (limb + 1)
    torch.testing.assert_close(bone_lengths(made)[:, moved[0] - 1], bone_lengths(joints)[donor, moved[0] - 1])
    assert (made - joints)[:, moved].norm(dim=-1).min() > 1e-3


@pytest.mark.parametrize("limb", range(len(LIMBS)))
def test_a_limb_keeps_its_place_to_the_trunk(limb):
    """Each pose turned as a whole: its limbs go with it, whoever takes them."""
    turns = roma.random_rotmat(N, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    told = fancy(swapped=swapped(limb))
    torch.testing.assert_close(imagined(turned(people(), turns), told), turned(imagined(people(), told), turns))


def test_poses_of_one_posture_swap_nothing():
    """All alike but for where they look: every limb is as good as one's own."""
    turns = roma.random_rotmat(N, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    joints = turned(people()[:1].expand(N, -1, -1), turns)
    torch.testing.assert_close(imagined(joints, fancy(swapped=swapped())), joints)


def test_bones_are_stretched_where_they_point():
    stretch = 0.1 * random(N, len(BONES), seed=5)
    made = imagined(people(), fancy(stretch=stretch))
    torch.testing.assert_close(bone_lengths(made), bone_lengths(people()) * stretch.exp())
    parents, children = ([bone[end] for bone in BONES] for end in (0, 1))
    before, after = (joints[:, children] - joints[:, parents] for joints in (people(), made))
    torch.testing.assert_close(torch.linalg.cross(before, after), torch.zeros_like(before), rtol=0, atol=1e-12)


def test_both_sides_stretch_alike_and_no_less_than_the_middle():
    stretch = symmetric(random(20_000, len(BONES), seed=6))
    torch.testing.assert_close(stretch[:, BONE_MIRROR], stretch)
    torch.testing.assert_close(stretch.std(0), torch.ones(len(BONES), dtype=torch.float64), rtol=0.03, atol=0)
    even = torch.ones(17, 3, dtype=torch.float64).cumsum(0)
    assert asymmetry(symmetric(random(4, len(BONES))).exp()).max() < 1e-12 < asymmetry(bone_lengths(even * even)[None])


def test_only_the_chosen_are_imagined_and_they_take_no_gradient():
    lifter = VaeLifter(LifterConfig(hidden=8, latent=3, scale="pose", distance="learned", elevation="learned")).double()
    points = 0.1 * random(N, 17, 2, seed=7)
    points[:, H36M17.index("pelvis")] = 0
    lifted = lifter(points, seen_everywhere(points))
    around = torch.linspace(0, math.pi, N, dtype=torch.float64)
    novel = novel_view(lifter, lifted, around, torch.zeros_like(around))
    chosen = torch.arange(N) < 3
    hidden = torch.ones(N, 17, dtype=torch.bool)
    hidden[:, H36M17.index("left_wrist")] = False
    target = reimagined(lifter, novel, fancy(chosen=chosen, swapped=swapped(), shown=hidden))
    torch.testing.assert_close(target.joints[~chosen], novel.joints[~chosen])
    torch.testing.assert_close(target.points, lifter.project(target.joints, target.distance))
    assert (target.joints - novel.joints)[chosen].norm() > 0.01
    assert target.genuine.tolist() == (~chosen).tolist()
    assert target.shown.all(-1).tolist() == (~chosen).tolist()
    for value in (target.joints, target.distance, target.elevation_rad):
        (slope,) = torch.autograd.grad(value[chosen].sum(), [lifted.joints], retain_graph=True, allow_unused=True)
        assert slope is None or not slope.any()
    (slope,) = torch.autograd.grad(target.joints[~chosen].square().sum(), [lifted.joints])
    assert slope.abs().sum((1, 2)).gt(0).tolist() == (~chosen).tolist()
