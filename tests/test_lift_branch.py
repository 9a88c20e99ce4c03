"""The lift branch's laws: what the camera, the mirror, the mask and the height do to a lifted pose."""

import math
from dataclasses import replace

import pytest
import roma
import torch

from meshrec.branches.lift import LiftBranch, LiftConfig, points_of, with_pelvis
from meshrec.camera import centered_camera, project
from meshrec.models.lifting import look_at_root, mirrored_joints, mirrored_points, mirrored_seen, stature
from meshrec.models.vae_lifter import LifterConfig, VaeLifter
from meshrec.skeletons import COCO17, H36M17
from meshrec.types import Camera, Keypoints, stack

PLACES = ["free", "ray"]


def lifter_of(place="ray", scale="pose", learned="learned") -> VaeLifter:
    """A small lifter with random weights, which starts at random people."""
    config = LifterConfig(hidden=32, latent=6, place=place, scale=scale, distance=learned)
    lifter = VaeLifter(config, torch.Generator().manual_seed(0)).double().eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for head in (lifter.encoder.log_variance, lifter.decoder.distance):
            if head is not None:
                head.weight.normal_(0, 0.05, generator=random)
        points = 0.1 * torch.randn(64, 17, 2, dtype=torch.float64, generator=random)
        lifter.start_at(points, torch.ones(64, 17, dtype=torch.bool))
    return lifter


def branch_of(lifter=None, **config) -> LiftBranch:
    return LiftBranch(lifter or lifter_of(), LiftConfig(**config))


def cameras(people: int, focal_px: float = 900.0) -> Camera:
    one = centered_camera(640, 480, focal_px, "given").to(torch.float64)
    return one.map(lambda tensor: tensor.expand(people, *tensor.shape))


def people_of(count: int = 4, seed: int = 3) -> torch.Tensor:
    """Joints in front of the camera, metres; no people, but the laws hold for anything."""
    random = torch.Generator().manual_seed(seed)
    joints = 0.4 * torch.randn(count, 17, 3, dtype=torch.float64, generator=random)
    return joints + torch.tensor([0.3, -0.2, 4.0], dtype=torch.float64)


def keypoints_of(joints: torch.Tensor, camera: Camera) -> Keypoints:
    xy_px = project(joints, camera)
    return Keypoints(xy_px, torch.ones_like(xy_px[..., 0]), H36M17)


def about_pelvis(joints: torch.Tensor) -> torch.Tensor:
    return joints - joints[:, :1]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("flip", [True, False])
def test_a_camera_that_turns_sideways_turns_the_result(place, flip) -> None:
    branch, joints, camera = branch_of(lifter_of(place), flip=flip), people_of(), cameras(4)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.3, 0.0], dtype=torch.float64))
    before = branch.estimate(keypoints_of(joints, camera), camera)
    after = branch.estimate(keypoints_of(joints @ turn.T, camera), camera)
    torch.testing.assert_close(after.joints17_m, before.joints17_m @ turn.T)
    torch.testing.assert_close(after.root_m, before.root_m @ turn.T)


def test_a_camera_that_nods_turns_who_stands_in_the_middle() -> None:
    branch, camera = branch_of(), cameras(4)
    joints = people_of()
    joints = joints - joints[:, :1] * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.25, 0.0, 0.0], dtype=torch.float64))
    before = branch.estimate(keypoints_of(joints, camera), camera)
    after = branch.estimate(keypoints_of(joints @ turn.T, camera), camera)
    torch.testing.assert_close(after.joints17_m, before.joints17_m @ turn.T)


@pytest.mark.parametrize("place", PLACES)
def test_an_enlarged_image_changes_nothing(place) -> None:
    branch, joints = branch_of(lifter_of(place)), people_of()
    small, large = (branch.estimate(keypoints_of(joints, c), c) for c in (cameras(4), cameras(4, 2700.0)))
    torch.testing.assert_close(small.joints17_m, large.joints17_m)
    torch.testing.assert_close(small.root_m, large.root_m)


@pytest.mark.parametrize("place", PLACES)
def test_the_mirrored_picture_gives_the_mirrored_pose(place) -> None:
    camera = cameras(4)
    branch, keypoints = branch_of(lifter_of(place)), keypoints_of(people_of(), camera)
    points = (keypoints.xy_px - camera.center_px[:, None]) / 900.0
    mirrored = replace(keypoints, xy_px=mirrored_points(points) * 900.0 + camera.center_px[:, None])
    there, here = branch.estimate(mirrored, camera), branch.estimate(keypoints, camera)
    torch.testing.assert_close(there.joints17_m, mirrored_joints(here.joints17_m))
    torch.testing.assert_close(there.root_m, here.root_m * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    plain = branch_of(lifter_of(place), flip=False)
    assert not torch.allclose(plain.estimate(mirrored, camera).joints17_m, mirrored_joints(here.joints17_m), atol=1e-3)


@pytest.mark.parametrize("unseen", [("left_wrist",), ("right_ankle", "head_top", "spine"), ("right_hip", "pelvis")])
@pytest.mark.parametrize("value", [1e4, math.nan, math.inf])
def test_where_an_unseen_joint_was_guessed_never_matters(unseen, value) -> None:
    branch, camera = branch_of(), cameras(4)
    keypoints = keypoints_of(people_of(), camera)
    confidence, xy_px = keypoints.confidence.clone(), keypoints.xy_px.clone()
    confidence[:, H36M17.indices(*unseen)] = 0.29
    xy_px[:, H36M17.indices(*unseen)] = value
    here, there = (
        branch.estimate(replace(keypoints, confidence=confidence, xy_px=xy), camera) for xy in (keypoints.xy_px, xy_px)
    )
    assert torch.equal(here.joints17_m, there.joints17_m)
    assert torch.equal(here.root_m, there.root_m)
    assert here.joints17_m.isfinite().all()
    assert not there.seen[:, H36M17.indices(*unseen)].any()
    assert int(there.seen.sum()) == 4 * (17 - len(unseen))


def test_people_do_not_know_of_each_other_and_keep_their_order() -> None:
    branch, camera = branch_of(), cameras(4)
    keypoints = keypoints_of(people_of(), camera)
    noise = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for given in (None, noise):
        together = branch.estimate(keypoints, camera, given)
        for row in range(4):
            rows = slice(row, row + 1)
            alone = branch.estimate(keypoints[rows], camera[rows], None if given is None else given[rows])
            torch.testing.assert_close(alone.joints17_m, together.joints17_m[rows])
            torch.testing.assert_close(alone.root_m, together.root_m[rows])


def test_metres_grow_with_the_height() -> None:
    lifter, camera = lifter_of(), cameras(4)
    keypoints = keypoints_of(people_of(), camera)
    units, short, tall = (branch_of(lifter, height_m=h).estimate(keypoints, camera) for h in (None, 1.0, 2.0))
    torch.testing.assert_close(tall.joints17_m, 2 * short.joints17_m)
    torch.testing.assert_close(tall.root_m, 2 * short.root_m)
    torch.testing.assert_close(stature(tall.joints17_m), torch.full((4,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(short.joints17_m * stature(units.joints17_m)[:, None, None], units.joints17_m)


def test_joints_on_rays_project_where_they_were_seen() -> None:
    """Mean, draw and average alike: what is lifted along the rays stays on them."""
    camera = cameras(4)
    keypoints = keypoints_of(people_of(), camera)
    noise = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for given in (None, noise):
        found = branch_of(height_m=1.8).estimate(keypoints, camera, given)
        torch.testing.assert_close(project(found.joints17_m + found.root_m[:, None], camera), keypoints.xy_px)


def test_no_noise_is_the_mean_and_noise_is_not() -> None:
    branch, camera = branch_of(), cameras(4)
    sight = points_of(keypoints_of(people_of(), camera), camera)
    mean = branch.lift(sight.points, sight.known)
    torch.testing.assert_close(branch.lift(sight.points, sight.known, torch.zeros(4, 6, dtype=torch.float64)), mean)
    assert not torch.allclose(branch.lift(sight.points, sight.known, torch.ones(4, 6, dtype=torch.float64)), mean)


@pytest.mark.parametrize("place", PLACES)
def test_an_interpolation_begins_and_ends_with_the_two_people(place) -> None:
    branch, camera = branch_of(lifter_of(place), height_m=1.7), cameras(2)
    keypoints = keypoints_of(people_of(2), camera)
    ends, sight = branch.estimate(keypoints, camera), points_of(keypoints, camera)
    way = branch.between(sight[0], sight[1], torch.linspace(0, 1, 5, dtype=torch.float64))
    torch.testing.assert_close(way[[0, -1]], ends.joints17_m)
    back = branch.between(sight[1], sight[0], torch.linspace(0, 1, 5, dtype=torch.float64))
    torch.testing.assert_close(back.flip(0), way)
    assert not way[:, H36M17.index("pelvis")].any()


def test_an_interpolation_begins_with_one_who_shows_less_as_that_one_is() -> None:
    """What one of the two does not show is on no ray."""
    branch, camera = branch_of(height_m=1.7), cameras(2)
    keypoints = keypoints_of(people_of(2), camera)
    keypoints.confidence[0, H36M17.index("left_wrist")] = 0.0
    first, second = points_of(keypoints, camera)[0], points_of(keypoints, camera)[1]
    shares = torch.linspace(0, 1, 5, dtype=torch.float64)
    own = branch.estimate(keypoints, camera).joints17_m[0]
    torch.testing.assert_close(branch.between(first, second, shares)[0], own)
    torch.testing.assert_close(branch.between(second, first, shares)[-1], own)


def test_low_precision_says_nearly_the_same() -> None:
    camera = cameras(4)
    keypoints = keypoints_of(people_of(), camera)
    fine, coarse = (branch_of(precision=p).estimate(keypoints, camera).joints17_m for p in ("float32", "bfloat16"))
    assert fine.dtype == coarse.dtype
    assert 0 < float((fine - coarse).abs().max()) < 0.1


def test_a_pelvis_follows_from_the_hips() -> None:
    random = torch.Generator().manual_seed(0)
    points = torch.randn(3, 17, 2, dtype=torch.float64, generator=random)
    left, right, pelvis = (H36M17.index(name) for name in ("left_hip", "right_hip", "pelvis"))
    seen = torch.ones(3, 17, dtype=torch.bool)
    seen[:, pelvis] = False
    found, known = with_pelvis(points, seen)
    torch.testing.assert_close(found[:, pelvis], (points[:, left] + points[:, right]) / 2)
    assert known.all()

    seen[:, right] = False
    found, _ = with_pelvis(points, seen)
    across = points[:, H36M17.index("right_shoulder")] - points[:, H36M17.index("left_shoulder")]
    torch.testing.assert_close(found[:, pelvis] - points[:, left], across * 0.191 / 0.259 / 2)
    mirrored, _ = with_pelvis(mirrored_points(points), mirrored_seen(seen))
    torch.testing.assert_close(mirrored, mirrored_points(found))

    seen[:, H36M17.index("left_shoulder")] = False
    torch.testing.assert_close(with_pelvis(points, seen)[0][:, pelvis], points[:, left])
    seen[:, left] = False
    assert not with_pelvis(points, seen)[1][:, pelvis].any()


def test_without_a_hip_nothing_is_said_and_the_others_are_not_disturbed() -> None:
    branch, camera = branch_of(), cameras(2)
    joints = people_of(2)[:, : len(COCO17)]
    keypoints = Keypoints(project(joints, camera), torch.ones(2, 17, dtype=torch.float64), COCO17)
    hipless = keypoints.confidence.clone()
    hipless[0, COCO17.indices("left_hip", "right_hip")] = 0
    found = branch.estimate(replace(keypoints, confidence=hipless), camera)
    assert found.joints17_m[0].isnan().all() and found.root_m[0].isnan().all()
    torch.testing.assert_close(found.joints17_m[1], branch.estimate(keypoints, camera).joints17_m[1])


def test_keypoints_are_turned_into_points_of_the_image_plane() -> None:
    camera = cameras(4)
    joints = people_of()
    sight = points_of(keypoints_of(joints, camera), camera)
    torch.testing.assert_close(sight.points, joints[..., :2] / joints[..., 2:])
    assert sight.seen.all() and sight.liftable.all()


def test_the_root_stands_on_the_ray_of_the_pelvis() -> None:
    branch, camera, joints = branch_of(height_m=1.7), cameras(4), people_of()
    found = branch.estimate(keypoints_of(joints, camera), camera)
    expected = joints[:, 0] / joints[:, :1, 2]
    torch.testing.assert_close(found.root_m / found.root_m[:, 2:], expected)
    sight = points_of(keypoints_of(joints, camera), camera)
    there, _ = look_at_root(sight.points, sight.known)
    assert not there[:, 0].abs().gt(1e-12).any()


def test_a_branch_is_called_with_people_of_a_photograph() -> None:
    branch, camera = branch_of(height_m=1.7), cameras(4)
    keypoints = keypoints_of(people_of(), camera)
    stacked = stack([keypoints[row] for row in range(4)])
    found = branch.estimate(stacked, camera)
    assert found.branch == "lift" and found.body is None and found.params is None and found.camera is not None
    assert found.confidence.eq(1).all()
