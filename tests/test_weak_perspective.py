"""The crop's camera and the photograph's: the pelvis stays where it is shown, and as large."""

import math

import pytest
import roma
import torch

from meshrec.camera import project
from meshrec.types import Camera, Square
from meshrec.weak_perspective import (
    CROP_FOCAL_PX,
    crop_camera_of,
    crop_focal_px,
    crop_project,
    crop_translation_m,
    photo_translation_m,
)

BATCHES = [(), (1,), (3,), (2, 3)]
CROP_PX = 224


def drawn(batch, seed=0):
    """Weak cameras, pelvises, squares and the photograph's camera."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand((*batch, *shape), generator=generator, dtype=torch.float64)

    weak = torch.cat([uniform(0.5, 1.2, 1), uniform(-0.3, 0.3, 2)], dim=-1)
    pelvis_m = uniform(-0.2, 0.2, 3)
    square = Square(uniform(100, 1500, 2), uniform(80, 900), uniform(-1.0, 1.0))
    camera = Camera(uniform(500, 3000), uniform(300, 1200, 2), 1920, 1080, "true")
    return weak, pelvis_m, square, camera


def seen_in_photo(points_m, transl_m, camera):
    return project(points_m[..., None, :] + transl_m[..., None, :], camera)[..., 0, :]


@pytest.mark.parametrize("batch", BATCHES)
def test_the_scale_is_the_size_and_the_translation_the_place(batch):
    weak, *_ = drawn(batch)
    focal_px = torch.full(batch, CROP_FOCAL_PX, dtype=torch.float64)
    transl_m = crop_translation_m(weak, focal_px, CROP_PX)
    assert transl_m.shape == (*batch, 3)
    assert torch.allclose(transl_m[..., :2], weak[..., 1:])
    assert torch.allclose(transl_m[..., 2] * weak[..., 0] * CROP_PX, 2 * focal_px)
    center = crop_project(torch.zeros(*batch, 1, 3, dtype=torch.float64), weak, CROP_PX)[..., 0, :]
    assert torch.allclose(center, CROP_PX / 2 * (1 + weak[..., :1] * weak[..., 1:]), atol=1e-9)


def test_the_crop_shows_right_to_the_right_and_below_below():
    weak = torch.tensor([1.0, 0.1, 0.2], dtype=torch.float64)
    points = torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, 0.3, 0.0]], dtype=torch.float64)
    middle, right, below = crop_project(points, weak, CROP_PX)
    assert (middle > CROP_PX / 2).all()
    assert torch.allclose(right - middle, torch.tensor([0.3 * CROP_PX / 2, 0.0], dtype=torch.float64))
    assert torch.allclose(below - middle, torch.tensor([0.0, 0.3 * CROP_PX / 2], dtype=torch.float64))


@pytest.mark.parametrize("crop_px", [64, 256])
def test_a_larger_crop_shows_the_same_larger(crop_px):
    weak, points_m, *_ = drawn((5,))
    small, large = (crop_project(points_m[:, None], weak, size) / size for size in (CROP_PX, crop_px))
    assert torch.allclose(small, large)
    assert crop_focal_px(CROP_PX) == CROP_FOCAL_PX and crop_camera_of(weak, crop_px).width_px == crop_px


@pytest.mark.parametrize("batch", BATCHES)
def test_the_pelvis_stays_where_the_crop_shows_it(batch):
    weak, pelvis_m, square, camera = drawn(batch)
    transl_m = photo_translation_m(weak, pelvis_m, square, CROP_PX, camera)
    shown = square.back(crop_project(pelvis_m[..., None, :], weak, CROP_PX), CROP_PX)[..., 0, :]
    assert torch.allclose(seen_in_photo(pelvis_m, transl_m, camera), shown, atol=1e-8)
    assert (transl_m[..., 2] + pelvis_m[..., 2] > 0).all()


def test_the_pelvis_stays_within_a_thousandth_of_a_pixel_in_single_precision():
    weak, pelvis_m, square, camera = drawn((1000,))
    weak, pelvis_m = weak.float(), pelvis_m.float()
    square, camera = square.to(torch.float32), camera.to(torch.float32)
    transl_m = photo_translation_m(weak, pelvis_m, square, CROP_PX, camera).double()
    within = crop_project(pelvis_m.double()[:, None], weak.double(), CROP_PX)
    shown = square.to(torch.float64).back(within, CROP_PX)[:, 0]
    assert (seen_in_photo(pelvis_m.double(), transl_m, camera.to(torch.float64)) - shown).abs().max() < 1e-3


@pytest.mark.parametrize("batch", BATCHES)
def test_what_lies_beside_the_pelvis_is_shown_as_large(batch):
    weak, pelvis_m, square, camera = drawn(batch)
    transl_m = photo_translation_m(weak, pelvis_m, square, CROP_PX, camera)
    turn = torch.zeros(*batch, 3, dtype=torch.float64)
    turn[..., 2] = square.angle_rad
    beside = roma.rotvec_to_rotmat(turn)[..., :, 0] * 0.2
    shown = crop_project(torch.stack([pelvis_m, pelvis_m + beside], dim=-2), weak, CROP_PX)
    in_photo = square.back(shown, CROP_PX)
    right = torch.tensor([0.2, 0.0, 0.0], dtype=torch.float64)
    seen = [seen_in_photo(point, transl_m, camera) for point in (pelvis_m, pelvis_m + right)]
    assert torch.allclose(seen[1] - seen[0], in_photo[..., 1, :] - in_photo[..., 0, :], atol=1e-8)


def test_twice_the_focal_length_is_twice_the_distance_and_half_the_square_too():
    weak, pelvis_m, square, camera = drawn((7,))
    depth_m = (photo_translation_m(weak, pelvis_m, square, CROP_PX, camera) + pelvis_m)[:, 2]
    longer = Camera(2 * camera.focal_px, camera.center_px, 1920, 1080, "true")
    smaller = Square(square.center_px, square.side_px / 2, square.angle_rad)
    for changed in ((square, longer), (smaller, camera)):
        farther_m = (photo_translation_m(weak, pelvis_m, changed[0], CROP_PX, changed[1]) + pelvis_m)[:, 2]
        assert torch.allclose(farther_m, 2 * depth_m)


def test_other_joints_move_towards_the_optical_axis_by_their_depth():
    """The residual that the module states: r dz / Z metres, to first order."""
    weak, pelvis_m, square, camera = drawn((200,))
    square = Square(square.center_px, square.side_px, torch.zeros_like(square.side_px))
    transl_m = photo_translation_m(weak, pelvis_m, square, CROP_PX, camera)
    behind = pelvis_m + torch.tensor([0.0, 0.0, 0.05], dtype=torch.float64)
    shown = square.back(crop_project(behind[:, None], weak, CROP_PX), CROP_PX)[:, 0]
    moved_px = seen_in_photo(behind, transl_m, camera) - shown
    place_m, depth_m = (pelvis_m + transl_m)[:, :2], (pelvis_m + transl_m)[:, 2:]
    expected_px = -camera.focal_px[:, None] / depth_m * place_m * 0.05 / depth_m
    assert ((moved_px - expected_px).norm(dim=-1) < 0.1 * expected_px.norm(dim=-1) + 0.05).all()
    assert math.isfinite(float(moved_px.norm(dim=-1).max()))
