"""The mesh branch with a network that sees edges and joints, and tells the root as seen along the line of sight."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch

from meshrec.body import load_body_model
from meshrec.branches.mesh import MeshBranch, MeshConfig, Sight, coco_of, mirrored
from meshrec.camera import camera_from_body_axes, centered_camera, project, sight_rotation
from meshrec.data.crop import crop_camera, cut, square_of
from meshrec.models.part_attention import Regressed
from meshrec.models.proxy import edges, heatmaps, mirrored_proxy
from meshrec.models.regressor import MeshNetConfig, MeshRegressor
from meshrec.photo import Photo
from meshrec.skeletons import COCO17, MEDIAPIPE33, SMPL24, convert
from meshrec.types import BodyParams, Crop, Keypoints, Person, Square, stack

WIDTH, HEIGHT = 640, 480
CAMERA = centered_camera(WIDTH, HEIGHT, 500.0, "given")
CONFIG = MeshNetConfig("hrnet_w18", "proxy", crop_px=64, root="sight")
PLACES = ((-1.4, 0.5, 3.6), (1.5, -0.4, 4.0), (0.0, 0.0, 4.0))
"""Of the first two the line of sight is 22 degrees off the optical axis."""


@pytest.fixture(scope="module")
def model():
    return load_body_model()


def people_of():
    generator = torch.Generator().manual_seed(0)
    rotations = roma.rotvec_to_rotmat(0.3 * torch.randn(len(PLACES), 24, 3, generator=generator))
    rotations[:, 0] = camera_from_body_axes() @ rotations[:, 0]
    return BodyParams.from_rotations(rotations, torch.zeros(len(PLACES), 10), torch.tensor(PLACES))


def persons_of(params, model):
    xy_px = project(model.regressed(params, COCO17), CAMERA)
    boxes = torch.cat([xy_px.amin(1) - 15, xy_px.amax(1) + 15], dim=-1)
    return [Person(box, 1.0, Keypoints(xy, torch.ones(17), COCO17)) for box, xy in zip(boxes, xy_px, strict=True)]


def squares_of(persons):
    return square_of(torch.stack([person.box_xyxy_px for person in persons]))


def photo():
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
    return Photo(np.kron(noise, np.ones((16, 16, 1), np.uint8)), Path("noise.png"))


class Knowing:
    """Answers the next people in turn, and keeps what it was shown."""

    def __init__(self, rotations, config=CONFIG):
        people = len(rotations)
        weak = torch.tensor([0.9, 0.0, 0.0]).expand(people, 3)
        self.answers = Regressed(rotations, torch.zeros(people, 10), weak, torch.zeros(people, 25, 8, 8))
        self.config, self.asked, self.shown = config, 0, []

    def __call__(self, image):
        rows = slice(self.asked, self.asked + len(image))
        self.asked += len(image)
        self.shown.append(image)
        return self.answers[rows]


def turn_to(xy_px):
    """The turn about the line across optical axis and ray, by the angle between them."""
    ray = torch.cat([(xy_px - CAMERA.center_px) / CAMERA.focal_px, torch.ones_like(xy_px[:, :1])], dim=-1)
    axis = torch.stack([-ray[:, 1], ray[:, 0], torch.zeros_like(ray[:, 0])], dim=-1)
    angle = torch.atan2(axis.norm(dim=-1), ray[:, 2])
    return roma.rotvec_to_rotmat(torch.nn.functional.normalize(axis, dim=-1) * angle[:, None])


def seen_from(turn, params):
    """The body's rotations, the root as the turned camera sees it."""
    return torch.cat([(turn.mT @ params.root)[:, None], params.pose], dim=1)


def test_who_knows_the_root_along_the_line_of_sight_gives_the_true_one(model):
    params = people_of()
    persons = persons_of(params, model)
    turn = turn_to(squares_of(persons).center_px)
    away = roma.rotmat_geodesic_distance(turn, torch.eye(3).expand_as(turn))
    assert (away[:2] > 0.3).all() and away[2] < 0.05
    estimate = MeshBranch(Knowing(seen_from(turn, params)), model, MeshConfig())(photo(), persons, CAMERA)
    assert estimate.params is not None and estimate.body is not None
    assert torch.allclose(estimate.params.rotations, params.rotations, atol=1e-5)
    assert (estimate.params.transl_m - params.transl_m).norm(dim=-1).max() < 5e-3
    assert (estimate.body.vertices_m - model(params).vertices_m).norm(dim=-1).max() < 1e-2
    other = MeshBranch(Knowing(seen_from(turn.mT, params)), model, MeshConfig())(photo(), persons, CAMERA)
    assert other.params is not None
    wrong = roma.rotmat_geodesic_distance(other.params.root, params.root)
    torch.testing.assert_close(wrong[:2], 2 * away[:2], atol=1e-3, rtol=0)


def test_a_root_in_the_camera_s_axes_is_left_alone(model):
    params = people_of()
    stub = Knowing(params.rotations, replace(CONFIG, root="camera"))
    estimate = MeshBranch(stub, model, MeshConfig())(photo(), persons_of(params, model), CAMERA)
    assert estimate.params is not None and torch.allclose(estimate.params.root, params.root, atol=1e-6)


def test_a_turned_crop_tells_the_same_root(model):
    """What it is taught: the turned body, along the line to the middle of the crop in the crop's own camera."""
    params, angle_rad = people_of(), torch.tensor([0.4, -0.7, 1.2])
    persons = persons_of(params, model)
    upright = squares_of(persons)
    square = Square(upright.center_px, upright.side_px, angle_rad)
    cameras = CAMERA.map(lambda tensor: tensor.expand(3, *tensor.shape))
    within = crop_camera(cameras, square, CONFIG.crop_px)
    turn = sight_rotation(within, torch.full((3, 2), CONFIG.crop_px / 2))
    about = roma.rotvec_to_rotmat(angle_rad[:, None] * torch.tensor([0.0, 0.0, 1.0]))
    stub = Knowing(seen_from(turn, replace(params, root=about @ params.root)))
    crop = Crop(torch.zeros(3, 18, 64, 64), square)
    keypoints = stack([person.keypoints for person in persons])
    estimate = MeshBranch(stub, model, MeshConfig()).estimate(crop, cameras, keypoints)
    assert estimate.params is not None and torch.allclose(estimate.params.root, params.root, atol=1e-5)


def test_the_network_sees_edges_of_the_crop_and_the_joints_in_it(model):
    params = people_of()
    sure = torch.linspace(0.1, 1.0, 17)
    persons = [replace(each, keypoints=replace(each.keypoints, confidence=sure)) for each in persons_of(params, model)]
    stub = Knowing(params.rotations)
    MeshBranch(stub, model, MeshConfig(people_at_once=2)).several([Sight(photo(), persons, CAMERA)])
    shown, square = torch.cat(stub.shown), squares_of(persons)
    assert shown.shape == (3, 18, 64, 64)
    for row in range(3):
        pixels = torch.from_numpy(cut(photo().pixels, square[row], 64)).permute(2, 0, 1)
        torch.testing.assert_close(shown[row, 0], edges(pixels))
        points = square[row].into(persons[row].keypoints.xy_px, 64)
        for joint in range(17):
            y, x = divmod(int(shown[row, 1 + joint].argmax()), 64)
            assert (torch.tensor([x + 0.5, y + 0.5]) - points[joint]).abs().max() <= 0.51
        torch.testing.assert_close(shown[row, 1:], heatmaps(points, sure, 64))


def test_without_keypoints_there_are_edges_alone(model):
    params = people_of()
    persons = persons_of(params, model)
    persons[0] = replace(persons[0], keypoints=replace(persons[0].keypoints, confidence=torch.zeros(17)))
    nowhere = replace(persons[1].keypoints, xy_px=persons[1].keypoints.xy_px * torch.nan)
    persons[1] = replace(persons[1], keypoints=nowhere)
    stub = Knowing(params.rotations)
    estimate = MeshBranch(stub, model, MeshConfig())(photo(), persons, CAMERA)
    assert (stub.shown[0][:2, 1:] == 0).all() and (stub.shown[0][:, 0] > 0.5).any()
    assert (stub.shown[0][2, 1:].amax((-2, -1)) > 0.8).all()
    assert estimate.joints17_m.isfinite().all()


def test_joints_of_another_skeleton_are_taken_by_name(model):
    person = persons_of(people_of(), model)[0]
    known = torch.cat([person.keypoints.xy_px, torch.rand(17, 1)], dim=-1)
    other, _ = convert(known, COCO17, MEDIAPIPE33)
    points, confidence = coco_of(Keypoints(other[:, :2], other[:, 2], MEDIAPIPE33))
    torch.testing.assert_close(points, known[:, :2])
    torch.testing.assert_close(confidence, known[:, 2])


def test_with_the_mirror_image_the_answer_to_it_is_the_mirrored_answer(model):
    network = MeshRegressor(CONFIG, torch.Generator().manual_seed(0)).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    image = torch.rand(2, 18, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network(image)
    branch = MeshBranch(network.eval(), model, MeshConfig(flip=True))
    square = Square(torch.tensor([[320.0, 240.0]] * 2), torch.tensor([300.0] * 2), torch.zeros(2))
    size_px = torch.tensor([[640.0, 480.0]] * 2)
    read, other = (branch._read(Crop(one, square), size_px) for one in (image, mirrored_proxy(image)))
    again = mirrored(Regressed(other.rotations, other.betas, other.weak, torch.zeros(2, 25, 2, 2)))
    assert torch.allclose(read.rotations, again.rotations, atol=1e-3)
    assert torch.allclose(read.weak, again.weak, rtol=1e-3, atol=1e-3)
    assert torch.allclose(read.looked, other.looked[:, SMPL24.mirror], atol=1e-3)
