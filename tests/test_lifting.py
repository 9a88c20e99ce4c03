"""Laws of lifting's geometry: rays, virtual cameras, mirrors, and what is true of every body."""

import math

import pytest
import roma
import torch

from meshrec.models.lifting import (
    BONE_MIRROR,
    BONE_UNITS,
    BONES,
    HEAD_PELVIS_SHARE,
    NEAREST,
    asymmetry,
    bone_lengths,
    bone_log_ratios,
    chirality,
    facing,
    look_at_root,
    mean_path,
    mean_squares,
    mirrored_joints,
    mirrored_points,
    mirrored_seen,
    novel_rotation,
    on_rays,
    path_length,
    project_units,
    seen_everywhere,
    size_of,
    slerp,
    stature,
    turned,
    with_depth,
    with_root,
    zeroed,
)
from meshrec.skeletons import H36M17

BATCHES = [(), (1,), (3,), (2, 3)]
FLIP_X = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
FLIP_Z = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def angles(*batch: int, seed: int = 0) -> torch.Tensor:
    return random(*batch, seed=seed)


def person() -> torch.Tensor:
    """Somebody who stands before the camera and faces it, knees a little bent, head forwards: x right, y down, z away.

    The person's left is at the image's right.
    """
    half = {
        "hip": (0.12, 0.0, 0.0),
        "knee": (0.13, 0.5, -0.1),
        "ankle": (0.12, 1.0, 0.02),
        "shoulder": (0.25, -0.6, 0.0),
        "elbow": (0.35, -0.25, 0.02),
        "wrist": (0.4, 0.0, -0.12),
    }
    middle = {
        "pelvis": (0.0, 0.0, 0.0),
        "spine": (0.0, -0.3, 0.02),
        "thorax": (0.0, -0.6, 0.0),
        "face": (0.0, -0.78, -0.08),
        "head_top": (0.0, -0.96, -0.03),
    }
    left = {f"left_{joint}": place for joint, place in half.items()}
    right = {f"right_{joint}": (-x, y, z) for joint, (x, y, z) in half.items()}
    places = middle | left | right
    return torch.tensor([places[joint] for joint in H36M17.joints], dtype=torch.float64)


def people(*batch: int, seed: int = 1) -> torch.Tensor:
    """Persons who have moved every joint but the pelvis."""
    return with_root(person()[1:] + 0.05 * random(*batch, 16, 3, seed=seed))


def pictures(*batch: int, seed: int = 2) -> torch.Tensor:
    """Points of people somewhere in the picture."""
    return people(*batch, seed=seed)[..., :2] / 7 + 0.3 * random(*batch, 1, 2, seed=seed + 1)


def about(axis: str, angle: torch.Tensor) -> torch.Tensor:
    one = torch.zeros(3, dtype=torch.float64)
    one["xyz".index(axis)] = 1
    return roma.rotvec_to_rotmat(angle[..., None] * one)


# ---- rays


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("zoom", [1.0, 0.67])
def test_joints_on_rays_project_to_their_points_exactly(batch, zoom):
    points, depth = pictures(*batch), random(*batch, 17, seed=4)
    distance = 6 + random(*batch, seed=5).tanh()
    joints = on_rays(points, depth, distance, zoom)
    torch.testing.assert_close(project_units(joints, distance, zoom), points, rtol=0, atol=1e-14)
    torch.testing.assert_close(joints[..., 2], depth, rtol=0, atol=0)


def test_on_true_rays_joints_are_multiples_of_their_rays():
    points, depth = pictures(3), random(3, 17, seed=4)
    distance = torch.tensor([5.0, 6.0, 7.0], dtype=torch.float64)
    from_camera = on_rays(points, depth, distance) + distance[:, None, None] * torch.tensor([0.0, 0.0, 1.0])
    rays = with_depth(points, torch.ones_like(depth))
    torch.testing.assert_close(
        torch.linalg.cross(from_camera, rays, dim=-1), torch.zeros_like(rays), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("zoom", [1.0, 0.67])
def test_nobody_is_behind_the_camera(zoom):
    points, distance = pictures(), torch.tensor(1.0, dtype=torch.float64)
    joints = on_rays(points, torch.full((17,), -1.5, dtype=torch.float64), distance, zoom)
    torch.testing.assert_close(distance + zoom * joints[:, 2], torch.full((17,), NEAREST, dtype=torch.float64))
    torch.testing.assert_close(project_units(joints, distance, zoom), points)
    far_too_near = joints - torch.tensor([0.0, 0.0, 5.0])
    torch.testing.assert_close(project_units(far_too_near, distance, zoom), joints[:, :2] / NEAREST)


# ---- the camera that looks at the pelvis


@pytest.mark.parametrize("batch", BATCHES)
def test_looking_at_the_root_is_a_rotation_that_puts_the_pelvis_on_the_axis(batch):
    points = pictures(*batch)
    there, rotation = look_at_root(points)
    assert roma.is_rotation_matrix(rotation, epsilon=1e-12)
    torch.testing.assert_close(there[..., 0, :], torch.zeros(*batch, 2, dtype=torch.float64), rtol=0, atol=1e-15)
    back = turned(with_depth(there, torch.ones_like(there[..., 0])), rotation.mT)
    torch.testing.assert_close(back[..., :2] / back[..., 2:], points, rtol=0, atol=1e-14)
    assert (back[..., 2] > 0).all()


def test_joints_follow_the_camera_that_looks_at_the_root():
    joints, root = people(3), torch.tensor([[0.5, 1.0, 6.0], [-2.0, 0.3, 5.0], [1.0, -1.0, 8.0]], dtype=torch.float64)
    placed = joints + root[:, None]
    there, rotation = look_at_root(placed[..., :2] / placed[..., 2:])
    distance = torch.linalg.vector_norm(root, dim=-1)
    torch.testing.assert_close(project_units(turned(joints, rotation), distance), there)
    lifted = on_rays(there, turned(joints, rotation)[..., 2], distance)
    torch.testing.assert_close(turned(lifted, rotation.mT), joints)


def test_looking_at_the_root_keeps_a_level_camera_upright():
    _, rotation = look_at_root(pictures(20))
    torch.testing.assert_close(rotation[:, 0, 1], torch.zeros(20, dtype=torch.float64))
    assert (rotation[:, 0, 0] > 0).all()
    assert (rotation[:, 1, 1] > 0).all()


def test_who_is_looked_at_already_is_left_alone():
    points = people(3)[..., :2] / 7
    there, rotation = look_at_root(points)
    torch.testing.assert_close(there, points, rtol=0, atol=0)
    torch.testing.assert_close(rotation, torch.eye(3, dtype=torch.float64).expand(3, 3, 3), rtol=0, atol=0)


def test_the_view_of_a_mirrored_picture_is_the_mirrored_view():
    points = pictures(5)
    there, rotation = look_at_root(points)
    mirrored, turn = look_at_root(mirrored_points(points))
    torch.testing.assert_close(mirrored, mirrored_points(there))
    torch.testing.assert_close(turn, FLIP_X @ rotation @ FLIP_X)


def test_without_a_seen_pelvis_the_camera_looks_at_the_hips_or_at_what_there_is():
    points = pictures()
    hips, pelvis = H36M17.indices("left_hip", "right_hip"), H36M17.index("pelvis")
    seen = seen_everywhere(points)
    cases = [(seen.clone(), [pelvis])]
    seen[pelvis] = False
    cases.append((seen.clone(), hips))
    seen[hips] = False
    cases.append((seen.clone(), seen.nonzero()[:, 0].tolist()))
    for mask, aimed in cases:
        noisy = points.masked_fill(~mask[:, None], torch.nan)
        there, rotation = look_at_root(noisy, mask)
        middle = points.clone()
        middle[pelvis] = points[aimed].mean(0)
        torch.testing.assert_close(rotation, look_at_root(middle)[1])
        assert (there[~mask] == 0).all()
        assert there.isfinite().all()
    assert (look_at_root(points, torch.zeros(17, dtype=torch.bool))[1] == torch.eye(3)).all()


# ---- novel views


@pytest.mark.parametrize("batch", BATCHES)
def test_a_novel_rotation_is_the_product_of_its_three_turns(batch):
    azimuth, old, new = (angles(*batch, seed=seed) for seed in (1, 2, 3))
    expected = about("x", new) @ about("y", azimuth) @ about("x", -old)
    torch.testing.assert_close(novel_rotation(azimuth, old, new), expected)


@pytest.mark.parametrize("batch", BATCHES)
def test_novel_views_compose_and_the_same_view_is_the_identity(batch):
    first, second, e0, e1, e2 = (angles(*batch, seed=seed) for seed in range(5))
    composed = novel_rotation(second, e1, e2) @ novel_rotation(first, e0, e1)
    torch.testing.assert_close(composed, novel_rotation(first + second, e0, e2))
    identity = torch.eye(3, dtype=torch.float64).expand(*batch, 3, 3)
    torch.testing.assert_close(novel_rotation(torch.zeros_like(e0), e0, e0), identity)


@pytest.mark.parametrize("batch", BATCHES)
def test_a_novel_rotation_keeps_the_root_the_bones_and_the_vertical(batch):
    azimuth, old, new = (angles(*batch, seed=seed) for seed in (1, 2, 3))
    rotation = novel_rotation(azimuth, old, new)
    joints = people(*batch)
    seen = turned(joints, rotation)
    torch.testing.assert_close(bone_lengths(seen), bone_lengths(joints))
    assert (seen[..., 0, :] == 0).all()
    up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(rotation @ (about("x", old) @ up)[..., None], (about("x", new) @ up)[..., None])


def test_from_above_the_head_is_nearer_and_below_in_azimuth_the_person_turns():
    zero, some = torch.tensor(0.0), torch.tensor(0.5)
    head, left = H36M17.indices("head_top", "left_shoulder")
    from_above = turned(person(), novel_rotation(zero, zero, some).double())
    assert from_above[head, 2] < person()[head, 2] - 0.4
    around = turned(person(), novel_rotation(some, zero, zero).double())
    assert around[left, 2] < person()[left, 2] - 0.1
    torch.testing.assert_close(around[:, 1], person()[:, 1])


# ---- size


def test_the_path_is_from_head_over_thorax_and_spine_to_pelvis():
    straight = with_root(torch.zeros(16, 3, dtype=torch.float64))
    for joint, y in (("spine", -0.3), ("thorax", -0.65), ("head_top", -1.0), ("face", 5.0), ("left_wrist", 9.0)):
        straight[H36M17.index(joint), 1] = y
    torch.testing.assert_close(path_length(straight), torch.tensor(1.0, dtype=torch.float64))
    straight[H36M17.index("spine"), 0] = 0.4
    torch.testing.assert_close(
        path_length(straight[:, :2]), torch.tensor(0.35 + 0.5 + (0.35**2 + 0.4**2) ** 0.5).double()
    )


def test_the_mean_path_is_of_poses_that_show_it_and_else_of_the_trunk():
    points, seen = pictures(4), seen_everywhere(pictures(4))
    seen[:2, H36M17.index("head_top")] = False
    torch.testing.assert_close(mean_path(points, seen), path_length(points[2:]).mean())
    seen[:, H36M17.index("head_top")] = False
    upright = project_units(with_root(torch.zeros(4, 16, 3, dtype=torch.float64)), torch.ones(4, dtype=torch.float64))
    upright[:, H36M17.index("thorax"), 1] = -0.288 / 0.470
    torch.testing.assert_close(mean_path(upright, seen), torch.tensor(1.0, dtype=torch.float64))
    with pytest.raises(ValueError, match="none of 4 poses shows both thorax and pelvis"):
        mean_path(points, torch.zeros_like(seen))


@pytest.mark.parametrize("batch", BATCHES)
def test_a_pose_k_times_as_large_has_k_times_the_size(batch):
    points, squares = pictures(*batch), random(17).square()
    seen = random(*batch, 17, seed=8) > -0.5
    size = size_of(points, seen, squares)
    torch.testing.assert_close(size_of(3.7 * points, seen, squares), 3.7 * size)
    torch.testing.assert_close(size_of(points.masked_fill(~seen[..., None], 1e30), seen, squares), size)
    expected = (points.square().sum(-1) * seen).sum(-1) / (squares * seen).sum(-1)
    torch.testing.assert_close(size.square(), expected)


def test_mean_squares_make_the_mean_squared_size_one():
    points, seen = pictures(50), seen_everywhere(pictures(50))
    squares = mean_squares(points, seen)
    torch.testing.assert_close(size_of(points, seen, squares).square().mean(), torch.tensor(1.0, dtype=torch.float64))
    seen[:25, 3] = False
    torch.testing.assert_close(mean_squares(points, seen)[3], points[25:, 3].square().sum(-1).mean())
    seen[:, 3] = False
    assert mean_squares(points, seen)[3] == 0


def test_nothing_seen_has_the_size_one():
    squares = torch.cat([torch.zeros(1), torch.ones(16)]).double()
    only_root = torch.zeros(17, dtype=torch.bool)
    only_root[0] = True
    points = pictures().requires_grad_()
    for mask in (only_root, torch.zeros_like(only_root)):
        assert size_of(points, mask, squares) == 1
    size_of(zeroed(points, only_root), seen_everywhere(points), squares).backward()
    assert points.grad.isfinite().all()


# ---- mirrors and bodies


@pytest.mark.parametrize("batch", BATCHES)
def test_mirroring_twice_changes_nothing_and_commutes_with_projection_and_views(batch):
    joints, distance = people(*batch), 6 + angles(*batch).tanh()
    torch.testing.assert_close(mirrored_joints(mirrored_joints(joints)), joints, rtol=0, atol=0)
    picture = project_units(joints, distance)
    torch.testing.assert_close(project_units(mirrored_joints(joints), distance), mirrored_points(picture))
    azimuth, old, new = (angles(*batch, seed=seed) for seed in (1, 2, 3))
    there = turned(mirrored_joints(joints), novel_rotation(-azimuth, old, new))
    torch.testing.assert_close(there, mirrored_joints(turned(joints, novel_rotation(azimuth, old, new))))
    seen = torch.arange(17) == H36M17.index("left_wrist")
    assert mirrored_seen(seen)[H36M17.index("right_wrist")]


def test_the_symmetric_person_is_their_own_mirror_image():
    torch.testing.assert_close(mirrored_joints(person()), person(), rtol=0, atol=0)
    assert asymmetry(bone_lengths(person())) < 1e-15


def test_the_person_faces_the_camera():
    assert facing(person())[2] < -0.99
    turned_left = turned(person(), about("y", torch.tensor(-math.pi / 2, dtype=torch.float64)))
    assert facing(turned_left)[0] > 0.99


def test_chirality_is_nothing_for_a_person_facing_anywhere_and_much_for_a_depth_inversion():
    azimuths = torch.linspace(-math.pi, math.pi, 24, dtype=torch.float64)
    around = turned(person().expand(24, -1, -1), about("y", azimuths))
    assert chirality(around).max() < 1e-12
    inverted = chirality(around * FLIP_Z)
    assert inverted.min() > 0.1
    torch.testing.assert_close(inverted, inverted[:1].expand(24))


@pytest.mark.parametrize("joint", ["left_knee", "right_knee", "head_top"])
def test_chirality_tells_every_joint_that_bends_backwards(joint):
    bent = person()
    bent[H36M17.index(joint), 2] += 0.4
    assert chirality(bent) > 0.15


@pytest.mark.parametrize("batch", BATCHES)
def test_chirality_survives_turns_and_mirrors(batch):
    joints = people(*batch) * FLIP_Z
    rotation = roma.random_rotmat(batch or 1, dtype=torch.float64).reshape(*batch, 3, 3)
    assert (chirality(joints) > 0).all()
    torch.testing.assert_close(chirality(turned(joints, rotation)), chirality(joints))
    torch.testing.assert_close(chirality(mirrored_joints(joints)), chirality(joints))
    torch.testing.assert_close(chirality(3 * joints), 3 * chirality(joints))


@pytest.mark.parametrize("batch", BATCHES)
def test_bones_of_the_mirror_image_are_the_mirrored_bones(batch):
    joints = people(*batch)
    lengths, mirrored = bone_lengths(joints), bone_lengths(mirrored_joints(joints))
    torch.testing.assert_close(mirrored, lengths[..., BONE_MIRROR])
    torch.testing.assert_close(asymmetry(mirrored), asymmetry(lengths))
    assert (asymmetry(lengths) > 0).all()


def test_each_bone_is_measured_from_its_parent():
    lengths = bone_lengths(person())
    for (parent, child), length in zip(BONES, lengths, strict=True):
        torch.testing.assert_close(length, (person()[parent] - person()[child]).norm())


def test_the_table_is_of_a_body_whose_path_is_a_unit():
    lengths = torch.tensor(BONE_UNITS, dtype=torch.float64)
    named = {H36M17.joints[child]: length for (_, child), length in zip(BONES, BONE_UNITS, strict=True)}
    assert sum(named[joint] for joint in ("spine", "thorax", "face", "head_top")) == pytest.approx(1)
    assert named["left_knee"] * HEAD_PELVIS_SHARE == pytest.approx(0.245)
    assert pytest.approx(0.470) == HEAD_PELVIS_SHARE
    assert asymmetry(lengths) == 0
    assert (bone_log_ratios(lengths) == 0).all()
    torch.testing.assert_close(bone_log_ratios(2 * lengths), torch.full((16,), math.log(2), dtype=torch.float64))
    assert bone_log_ratios(torch.zeros(3, 16)).isfinite().all()
    assert bone_log_ratios(bone_lengths(person())).abs().max() < 0.35


# ---- the latent sphere


@pytest.mark.parametrize("batch", BATCHES)
def test_slerp_begins_and_ends_where_it_should_and_keeps_the_norm(batch):
    start, end = random(*batch, 8), random(*batch, 8, seed=1)
    end = end * (start.norm(dim=-1) / end.norm(dim=-1))[..., None]
    zero, one = torch.zeros(batch).double(), torch.ones(batch).double()
    torch.testing.assert_close(slerp(start, end, zero), start)
    torch.testing.assert_close(slerp(start, end, one), end)
    for share in (0.2, 0.5, 0.9):
        torch.testing.assert_close(slerp(start, end, share * one).norm(dim=-1), start.norm(dim=-1))
    torch.testing.assert_close(slerp(start, end, 0.3 * one), slerp(end, start, 0.7 * one))


def test_slerp_goes_at_an_even_pace_and_between_norms():
    start, end = torch.tensor([2.0, 0.0]).double(), torch.tensor([0.0, 4.0]).double()
    third = slerp(start, end, torch.tensor(1 / 3).double())
    torch.testing.assert_close(third, (2 + 2 / 3) * torch.tensor([math.cos(math.pi / 6), 0.5]).double())
    assert slerp(start, start, torch.tensor(0.5).double()).tolist() == [2.0, 0.0]
    assert slerp(start, -start, torch.tensor(0.5).double()).isfinite().all()
    assert slerp(start, 0 * start, torch.tensor(0.5).double()).isfinite().all()


def test_the_limbs_tell_the_stature():
    joints = torch.zeros(17, 3, dtype=torch.float64)
    for (parent, child), length in zip(BONES, BONE_UNITS, strict=True):
        joints[child] = joints[parent] + length * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    torch.testing.assert_close(stature(1.7 * HEAD_PELVIS_SHARE * joints), torch.tensor(1.7, dtype=torch.float64))
    joints[H36M17.index("head_top")] += 1.0
    torch.testing.assert_close(stature(joints) * HEAD_PELVIS_SHARE, torch.tensor(1.0, dtype=torch.float64))
