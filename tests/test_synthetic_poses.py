"""Settings, poses and cameras of synthetic photographs: within their bounds, as often as told, where they are told."""

from dataclasses import replace

import numpy as np
import pytest
import roma
import torch
import yaml

from meshrec.body import load_body_model
from meshrec.camera import project
from meshrec.config import config_text, decode_config
from meshrec.data.key_poses import key_poses
from meshrec.data.motion import Motion
from meshrec.data.poses import PoseCollection, write_collection
from meshrec.data.synthetic.camera import Shot, framed, seen_at, shot_of
from meshrec.data.synthetic.poses import (
    KeyPoseSource,
    Mix,
    MotionPoses,
    Poses,
    PoseSource,
    PriorPoses,
    poses_of,
)
from meshrec.data.synthetic.scene import Bodies
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.errors import MeshrecError
from meshrec.prior_files import open_prior
from meshrec.randomness import generator_of
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams, stack

MODEL = load_body_model()
CONFIG = SyntheticConfig()
SHOTS = stack([shot_of(CONFIG, generator_of(0, "shots", place)) for place in range(300)])


def still(seed: int) -> PoseSource:
    """Always the same pose."""
    rotations = roma.rotvec_to_rotmat(0.3 * torch.randn(23, 3, generator=torch.Generator().manual_seed(seed)))
    return lambda count, random: Poses(rotations.expand(count, 23, 3, 3), torch.eye(3).expand(count, 3, 3))


def joints_m() -> torch.Tensor:
    """Of upright people who face the cameras, about the origin."""
    pose, n = torch.eye(3).expand(300, 23, 3, 3), 300
    return MODEL.joints24(BodyParams(SHOTS.R_camera_world, pose, torch.zeros(n, 10), torch.zeros(n, 3)))


@pytest.mark.parametrize(
    ("name", "value"),
    [("mirror", 1.5), ("fov_rad", (1.0, 0.5)), ("size", (0.0, 1.0)), ("occluders_most", 0), ("photo_px", (0, 480))],
)
def test_settings_that_cannot_be_are_refused(name, value):
    with pytest.raises(ValueError, match=name.replace("photo_px", "photo_width_px")):
        replace(CONFIG, **{name: value})


def test_settings_pass_through_a_file(tmp_path):
    changed = replace(CONFIG, without=("02", "10"), backgrounds=tmp_path, fov_rad=(0.5, 0.6))
    assert decode_config(yaml.safe_load(config_text(changed)), SyntheticConfig, "here") == changed


def test_a_source_follows_its_generator_alone():
    prior = open_prior("gaussian")
    assert prior is not None
    one, same, other = (PriorPoses(prior)(3, generator_of(0, "poses", place)) for place in (1, 1, 2))
    assert torch.equal(one.rotations, same.rotations) and not torch.equal(one.rotations, other.rotations)
    calm = PriorPoses(prior, temperature=0.0)(2, generator_of(0, "poses"))
    torch.testing.assert_close(calm.rotations[0], calm.rotations[1])


def test_sources_are_drawn_from_by_their_shares():
    mix, random = Mix((still(0), still(1), still(2)), (1.0, 0.0, 3.0)), generator_of(0, "mix")
    poses = mix(2000, random)
    first = [torch.isclose(poses.rotations, still(seed)(1, random).rotations).flatten(1).all(1) for seed in range(3)]
    assert [float(one.float().mean()) for one in first] == pytest.approx([0.25, 0.0, 0.75], abs=0.03)
    with pytest.raises(ValueError, match="shares"):
        Mix((still(0),), (0.0,))


def test_poses_are_of_the_prior_the_motion_and_the_key_poses_that_nothing_is_measured_with(tmp_path):
    mixed = poses_of(CONFIG)
    assert isinstance(mixed, Mix) and mixed.shares == pytest.approx((0.15, 0.85))
    keys, prior = mixed.sources
    assert isinstance(keys, KeyPoseSource) and keys.poses.names == key_poses().split()[1].names
    assert isinstance(prior, PriorPoses)
    write_collection(tmp_path / "motion", [motion("anna", 0.1)])
    with_motion = poses_of(replace(CONFIG, mocap=(tmp_path / "motion",), mocap_share=0.4, key_share=0.5))
    assert isinstance(with_motion, Mix) and with_motion.shares == pytest.approx((0.5, 0.3, 0.2))
    assert isinstance(with_motion.sources[2], MotionPoses)


def motion(subject: str, angle_rad: float) -> Motion:
    """Ten frames of one pose, the first of them not valid."""
    axis_angle = np.full((10, 24, 3), angle_rad, np.float32)
    valid = np.arange(10) > 0
    return Motion(subject, subject, "test", 30.0, axis_angle, np.zeros((10, 3), np.float32), valid)


def test_frames_of_people_left_out_never_come():
    collection = PoseCollection.of([motion("anna", 0.1), motion("bert", 0.2)])
    random = generator_of(0, "motion")
    poses = MotionPoses(collection, without=("anna",))(50, random)
    expected = roma.rotvec_to_rotmat(torch.full((3,), 0.2))
    torch.testing.assert_close(poses.rotations, expected.expand(50, 23, 3, 3))
    torch.testing.assert_close(poses.tilt, expected.expand(50, 3, 3))
    with pytest.raises(MeshrecError, match="anna, bert is to be left out"):
        MotionPoses(collection, without=("anna", "bert"))(1, random)
    with pytest.raises(MeshrecError, match="nothing to draw poses from"):
        poses_of(replace(CONFIG, prior="none", key_share=0.0))


def test_cameras_are_as_told():
    longer = SHOTS.photo_px.amax(-1)
    fov_rad = 2 * torch.atan(longer / 2 / SHOTS.camera.focal_px)
    low, high = CONFIG.fov_rad
    assert low <= float(fov_rad.min()) < low + 0.1 and high - 0.1 < float(fov_rad.max()) <= high
    assert float((SHOTS.photo_px[:, 0] > SHOTS.photo_px[:, 1]).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert float((SHOTS.aim.sum(-1) > 0).float().mean()) == pytest.approx(CONFIG.close, abs=0.08)
    R = SHOTS.R_camera_world
    torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5, rtol=0)
    assert (torch.linalg.det(R) > 0).all()


def test_a_camera_that_looks_down_sees_the_head_nearer_and_above():
    down = replace(CONFIG, anyhow=0.0, height_rad=1e-6, roll_rad=0.0)
    R = stack([shot_of(down, generator_of(0, "down", place)) for place in range(20)]).R_camera_world
    up = R[:, :, 1]
    assert (up[:, 1] < -0.9).all(), "up in the world is up in the picture"
    assert (up[:, 2] < -0.05).all(), "a camera that looks down sees what is higher nearer"
    facing = R[:, :, 2]
    assert float(facing[:, 2].min()) < -0.7 and float(facing[:, 2].max()) > 0.7, "people are seen from every side"


def test_people_are_where_the_shot_wants_them_and_not_too_near():
    joints = joints_m()
    placed = joints + framed(joints, SHOTS, CONFIG.nearest_m)[:, None]
    assert float(placed[..., 2].min()) >= CONFIG.nearest_m
    aim_px = (SHOTS.aim[:, None] @ project(placed, SHOTS.camera))[:, 0]
    closer = SHOTS.aim.sum(-1) > 0
    hit = (aim_px - SHOTS.spot_px).norm(dim=-1)[closer] < 0.01
    assert float(hit.float().mean()) > 0.8, "but where too little would be seen"
    heights_px = project(placed, SHOTS.camera)[..., 1].amax(1) - project(placed, SHOTS.camera)[..., 1].amin(1)
    level = ~closer & ((joints[..., 2].amax(1) - joints[..., 2].amin(1)) < 0.5)
    ratio = heights_px[level] / SHOTS.size_px[level]
    assert 0.6 < float(ratio.median()) < 1.05, "the body's size in the photograph is that of the shot"


def test_a_shot_shows_enough_of_everybody():
    joints = joints_m()
    xy_px = project(joints + framed(joints, SHOTS, CONFIG.nearest_m)[:, None], SHOTS.camera)
    inside = ((xy_px >= 0) & (xy_px < SHOTS.photo_px[:, None])).all(-1).sum(-1)
    assert int(inside.min()) >= 8


@pytest.mark.parametrize("n", [1, 3, 4])
def test_points_are_seen_where_they_are_put(n):
    shots: Shot = SHOTS[:n]
    spot = shots.photo_px * torch.linspace(0.1, 0.9, n)[:, None]
    points = seen_at(spot, torch.linspace(1, 3, n), shots.camera)
    torch.testing.assert_close(project(points[:, None], shots.camera)[:, 0], spot, atol=1e-3, rtol=0)
    torch.testing.assert_close(points[:, 2], torch.linspace(1, 3, n))


def bodies(**changes: torch.Tensor) -> Bodies:
    """Three people as their poses have them."""
    random = torch.Generator().manual_seed(5)
    turned = roma.rotvec_to_rotmat(0.4 * torch.randn(3, 24, 3, generator=random))
    no, none = torch.zeros(3, 3), torch.zeros(3, dtype=torch.bool)
    poses, jitter = Poses(turned[:, 1:], turned[:, 0]), torch.zeros(3, 23, 3)
    plain = Bodies(poses, none, jitter, no, no, torch.ones(3, 4), none, torch.zeros(3, 10))
    return replace(plain, **changes)


def test_a_mirrored_body_is_the_mirror_image_tilt_and_all():
    flat = torch.eye(3).expand(3, 3, 3)
    joints, image = (MODEL.joints24(bodies(mirror=torch.full((3,), mirror)).params(flat)) for mirror in (False, True))
    reflected = joints[:, list(SMPL24.mirror)] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(image, reflected, atol=1e-5, rtol=0)
    assert (image - joints).abs().max() > 0.1


def test_bodies_lean_then_turn_about_the_vertical_and_are_seen_in_the_camera_s_axes():
    lean, yaw = torch.tensor([0.3, 0.0, -0.2]).expand(3, 3), torch.tensor([0.0, 1.1, 0.0]).expand(3, 3)
    axes = torch.eye(3).expand(3, 3, 3)
    tilt, leaning = bodies().params(axes).root, bodies(lean=lean).params(axes).root
    torch.testing.assert_close(leaning, roma.rotvec_to_rotmat(lean) @ tilt)
    R = SHOTS.R_camera_world[:3]
    seen = bodies(lean=lean, yaw=yaw).params(R).root
    torch.testing.assert_close(seen, R @ roma.rotvec_to_rotmat(yaw) @ leaning)
    anyhow = torch.tensor([0.0, 0.0, 2.0, 0.0]).expand(3, 4)
    tumbling = bodies(lean=lean, yaw=yaw, anyhow=anyhow, tumbling=torch.ones(3, dtype=torch.bool)).params(R).root
    torch.testing.assert_close(tumbling, R @ torch.diag(torch.tensor([-1.0, -1.0, 1.0])))


def test_jitter_turns_the_joints_on_from_their_pose():
    jitter = torch.linspace(-0.2, 0.2, 3 * 23 * 3).view(3, 23, 3)
    plain, shaken = (bodies(**change).params(torch.eye(3).expand(3, 3, 3)) for change in ({}, {"jitter": jitter}))
    torch.testing.assert_close(plain.pose.mT @ shaken.pose, roma.rotvec_to_rotmat(jitter), atol=1e-5, rtol=1e-4)
