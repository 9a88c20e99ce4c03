"""Crops: where every pixel comes from, and the camera and the body that agree with them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import roma
import torch

from meshrec.body import load_body_model
from meshrec.camera import project
from meshrec.data.crop import (
    CROP_MARGIN,
    IMAGENET_MEAN,
    IMAGENET_STD,
    crop_camera,
    cut,
    mirrored_camera,
    mirrored_params,
    normalised,
    square_of,
    turned,
    turned_points,
)
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams, Camera, Square

BATCHES = [(), (1,), (3,), (2, 3)]
CROP_PX = 64
WIDTH, HEIGHT = 400, 300
MODEL = load_body_model(dtype=torch.float64)


def squares(*batch: int) -> Square:
    random = torch.Generator().manual_seed(0)
    center_px = torch.tensor([180.0, 140.0], dtype=torch.float64) + 30 * torch.randn(
        *batch, 2, generator=random, dtype=torch.float64
    )
    side_px = 60 + 100 * torch.rand(batch, generator=random, dtype=torch.float64)
    return Square(center_px, side_px, torch.randn(batch, generator=random, dtype=torch.float64))


def square(x: float, y: float, side: float, angle: float = 0.0) -> Square:
    return Square(torch.tensor([x, y]), torch.tensor(side), torch.tensor(angle))


def points(*batch: int) -> torch.Tensor:
    return 200 * torch.rand(*batch, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def people(*batch: int) -> tuple[BodyParams, torch.Tensor]:
    """Bodies some metres away, and where their pelvis is at rest."""
    random = torch.Generator().manual_seed(2)
    rotations = roma.rotvec_to_rotmat(0.5 * torch.randn(*batch, 24, 3, generator=random, dtype=torch.float64))
    betas = torch.randn(*batch, 10, generator=random, dtype=torch.float64)
    transl_m = 0.5 * torch.randn(*batch, 3, generator=random, dtype=torch.float64)
    params = BodyParams.from_rotations(rotations, betas, transl_m + torch.tensor([0.2, 0.1, 5.0]).double())
    return params, MODEL.kinematics(params).rest_m[..., 0, :]


def camera(*batch: int) -> Camera:
    focal_px = torch.linspace(300, 900, max(1, math.prod(batch)), dtype=torch.float64).reshape(batch)
    center_px = torch.tensor([210.0, 160.0], dtype=torch.float64).expand(*batch, 2)
    return Camera(focal_px, center_px, WIDTH, HEIGHT, "given")


def smooth(xy_px: np.ndarray, wave_px: float) -> np.ndarray:
    """A picture in closed form: three channels of waves about 128."""
    x, y = 2 * math.pi * xy_px[..., 0] / wave_px, 2 * math.pi * xy_px[..., 1] / wave_px
    return 128 + 100 * np.stack([np.sin(x), np.sin(y + 1), np.sin(x + y)], axis=-1)


def picture(wave_px: float) -> np.ndarray:
    return np.rint(smooth(centres(WIDTH, HEIGHT), wave_px)).astype(np.uint8)


def centres(width: int, height: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)


@pytest.mark.parametrize("batch", BATCHES)
def test_into_and_back_undo_each_other_and_are_the_matrix(batch):
    where, xy_px = squares(*batch), points(*batch)
    there = where.into(xy_px, CROP_PX)
    assert there.shape == (*batch, 5, 2)
    torch.testing.assert_close(where.back(there, CROP_PX), xy_px)
    matrix = where.matrix(CROP_PX)
    torch.testing.assert_close(xy_px @ matrix[..., :2].mT + matrix[..., None, :, 2], there)


def test_the_centre_is_the_middle_and_x_turns_towards_y():
    where = square(50.0, 40.0, 32.0, math.pi / 2)
    shown = where.into(torch.tensor([[50.0, 40.0], [66.0, 40.0], [50.0, 56.0]]), CROP_PX)
    torch.testing.assert_close(shown, torch.tensor([[32.0, 32.0], [32.0, 64.0], [0.0, 32.0]]))


@pytest.mark.parametrize("batch", BATCHES)
def test_the_square_of_a_box_is_about_its_middle_and_wider(batch):
    box = torch.tensor([10.0, 20.0, 50.0, 120.0]).expand(*batch, 4)
    where = square_of(box)
    torch.testing.assert_close(where.center_px, torch.tensor([30.0, 70.0]).expand(*batch, 2))
    torch.testing.assert_close(where.side_px, torch.full(batch, 100 * CROP_MARGIN))
    assert (where.angle_rad == 0).all()


@pytest.mark.parametrize("side", [30.0, 64.0, 70.0, 100.0, 150.0, 200.0])
@pytest.mark.parametrize("angle", [0.0, 0.6, -2.5])
def test_a_crop_shows_what_the_picture_shows_there(side, angle):
    wave_px = 60.0 * max(1.0, side / CROP_PX)
    where = square(201.3, 149.2, side, angle)
    shown = cut(picture(wave_px), where, CROP_PX)
    there = where.back(torch.from_numpy(centres(CROP_PX, CROP_PX).reshape(-1, 2)).float(), CROP_PX)
    expected = smooth(there.double().numpy(), wave_px).reshape(CROP_PX, CROP_PX, 3)
    assert shown.dtype == np.uint8
    error = shown.astype(float) - expected
    assert np.abs(error).max() < 4 and np.abs(error.mean(axis=(0, 1))).max() < 0.6


def test_a_whole_picture_is_its_own_crop():
    pixels = np.random.default_rng(0).integers(0, 256, (CROP_PX, CROP_PX, 3), dtype=np.uint8)
    assert np.array_equal(cut(pixels, square(32.0, 32.0, 64.0), CROP_PX), pixels)


@pytest.mark.parametrize("times", [2, 3, 4, 5])
def test_a_picture_that_shrinks_to_a_whole_part_is_the_mean_of_its_pixels(times):
    pixels = np.random.default_rng(1).integers(0, 256, (16 * times, 16 * times, 3), dtype=np.uint8)
    mean = pixels.reshape(16, times, 16, times, 3).astype(float).mean(axis=(1, 3))
    shown = cut(pixels, square(8.0 * times, 8.0 * times, 16.0 * times), 16)
    assert np.abs(shown - mean).max() <= 0.51


@pytest.mark.parametrize("shrink", [1.4, 1.6, 1.95, 2.0, 2.7, 4.0, 5.3])
def test_what_is_too_fine_for_the_crop_becomes_grey(shrink):
    board = 255 * (np.indices((HEIGHT, WIDTH)).sum(axis=0) % 2).astype(np.uint8)
    shown = cut(np.repeat(board[..., None], 3, axis=-1), square(200.0, 150.0, shrink * 32, 0.3), 32)
    assert np.abs(shown.astype(float) - 127.5).max() < 50 and shown.std() < 12


def test_beyond_the_picture_is_black():
    white = np.full((50, 50, 3), 255, np.uint8)
    shown = cut(white, square(0.0, 25.0, 32.0), 64)
    assert (shown[:, :30] == 0).all() and (shown[:, 34:] == 255).all()
    for side in (20.0, 500.0):
        assert (cut(white, square(-400.0, 25.0, side), 64) == 0).all()


def test_a_large_square_keeps_its_edges():
    """The part of the picture that is read is enough, and ends where the picture ends."""
    white = np.full((300, 301, 3), 255, np.uint8)
    shown = cut(white, square(150.5, 150.0, 602.0), 43)
    inside = (shown > 127).all(axis=-1)
    assert inside.any(axis=0).sum() == pytest.approx(301 / 14, abs=1)
    assert inside.any(axis=1).sum() == pytest.approx(300 / 14, abs=1)
    assert (cut(white, square(150.0, 150.0, 200.0, 0.7), 43) == 255).all()


def test_a_panorama_may_be_wider_than_opencv_warps():
    wide = np.zeros((40, 70_000, 3), np.uint8)
    wide[:, 60_000:] = 255
    shown = cut(wide, square(60_000.0, 20.0, 24.0), 24)
    assert (shown[:, :12] == 0).all() and (shown[:, 12:] == 255).all()


@pytest.mark.parametrize("batch", BATCHES)
def test_the_network_sees_the_statistics_of_imagenet(batch):
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    pixels = torch.randint(0, 256, (*batch, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    back = (normalised(pixels).movedim(-3, -1) * std + mean) * 255
    torch.testing.assert_close(back, pixels.movedim(-3, -1).float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("batch", BATCHES)
def test_the_crops_camera_sees_the_turned_body_where_the_crop_shows_it(batch):
    params, pelvis_m = people(*batch)
    where, photo_camera = squares(*batch), camera(*batch)
    shown = where.into(project(MODEL(params).vertices_m, photo_camera), CROP_PX)
    body = MODEL(turned(params, where.angle_rad, pelvis_m))
    seen = project(body.vertices_m, crop_camera(photo_camera, where, CROP_PX))
    torch.testing.assert_close(seen, shown, rtol=0, atol=1e-4)
    measured = turned_points(MODEL.joints24(params), where.angle_rad)
    torch.testing.assert_close(body.joints_m, measured)


@pytest.mark.parametrize("batch", BATCHES)
def test_the_mirrored_camera_sees_the_mirrored_body_in_the_mirror_image(batch):
    params, pelvis_m = people(*batch)
    seen = project(MODEL.joints24(mirrored_params(params, pelvis_m)), mirrored_camera(camera(*batch)))
    shown = project(MODEL.joints24(params), camera(*batch))[..., list(SMPL24.mirror), :]
    shown = torch.stack([WIDTH - shown[..., 0], shown[..., 1]], dim=-1)
    torch.testing.assert_close(seen, shown, rtol=0, atol=1e-4)
    torch.testing.assert_close(seen[..., 0, :], shown[..., 0, :], rtol=0, atol=1e-9)


@pytest.mark.parametrize("batch", BATCHES)
def test_a_mirror_undoes_itself_and_a_turn_is_undone_by_its_opposite(batch):
    params, pelvis_m = people(*batch)
    angle_rad = squares(*batch).angle_rad
    for there_and_back in (
        mirrored_params(mirrored_params(params, pelvis_m), pelvis_m),
        turned(turned(params, angle_rad, pelvis_m), -angle_rad, pelvis_m),
        mirrored_params(
            turned(mirrored_params(turned(params, angle_rad, pelvis_m), pelvis_m), angle_rad, pelvis_m), pelvis_m
        ),
    ):
        torch.testing.assert_close(there_and_back.rotations, params.rotations)
        torch.testing.assert_close(there_and_back.transl_m, params.transl_m)
    twice = mirrored_camera(mirrored_camera(camera(*batch)))
    torch.testing.assert_close(twice.center_px, camera(*batch).center_px)


def test_a_crop_of_the_whole_photograph_has_its_camera():
    photo_camera = replace(camera(), height_px=WIDTH)
    whole = square_of(torch.tensor([0.0, 0.0, WIDTH, WIDTH], dtype=torch.float64), 1.0)
    same = crop_camera(photo_camera, whole, WIDTH)
    torch.testing.assert_close(same.focal_px, photo_camera.focal_px)
    torch.testing.assert_close(same.center_px, photo_camera.center_px)
    assert (same.width_px, same.height_px) == (WIDTH, WIDTH)
