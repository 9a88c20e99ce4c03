"""Grounds and things: the same at any resolution, told by the photograph's pixels; folders that cannot be used."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from meshrec.data.synthetic.canvas import Canvas
from meshrec.data.synthetic.grounds import MadeUpGround, PictureGround, ground_of
from meshrec.data.synthetic.occluders import Thing, front_of
from meshrec.data.synthetic.pictures import Pictures
from meshrec.errors import MeshrecError
from meshrec.randomness import generator_of
from meshrec.types import Square

PHOTO = (160, 120)
WHOLE = Square(torch.tensor([80.0, 60.0]), torch.tensor(160.0), torch.tensor(0.0))
TURNED = Square(torch.tensor([70.0, 50.0]), torch.tensor(60.0), torch.tensor(0.4))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two pictures that grow brighter to the right (red) and down (green), the second in a folder of its own."""
    y, x = np.mgrid[0:100, 0:200]
    bgr = np.dstack([np.zeros_like(x), 2 * y, x]).astype(np.uint8)
    (tmp_path / "more").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "more" / "b.png"):
        cv2.imwrite(str(path), bgr)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._a.png").write_text("what some systems keep beside a file")
    return tmp_path


def test_a_folder_that_is_missing_or_empty_is_told(tmp_path):
    with pytest.raises(MeshrecError, match="no folder of backgrounds"):
        Pictures(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(MeshrecError, match="has no pictures"):
        Pictures(tmp_path)


def test_a_broken_picture_is_told_with_its_path(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(MeshrecError, match=r"a\.jpg is no picture"):
        Pictures(tmp_path)
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((8, 8, 3), np.uint8))
    pictures = Pictures(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(MeshrecError, match=r"a\.jpg is no picture"):
        pictures[0]


def test_pictures_are_found_in_folders_and_kept_within_bounds(folder):
    pictures = Pictures(folder, kept_bytes=70_000)
    assert len(pictures) == 2
    assert pictures[0].shape == (100, 200, 3) and pictures[0][10, 150].tolist() == [150, 20, 0]
    assert pictures[0] is pictures[0]
    first = pictures[0]
    pictures[1]
    assert pictures[0] is not first and (pictures[0] == first).all(), "there was room for one"


def test_a_picture_covers_the_photograph_and_no_more(folder):
    pictures = Pictures(folder)
    ground = PictureGround(pictures, 0, PHOTO, 1.0, (0.0, 0.0), False)
    seen = ground.seen(WHOLE, 160)[20:140].astype(int)
    y, x = np.mgrid[0:120, 0:160]
    assert abs(seen[..., 0] - (x + 0.5) / 1.2).max() < 2.5 and abs(seen[..., 1] - 2 * (y + 0.5) / 1.2).max() < 3.5
    mirrored = PictureGround(pictures, 0, PHOTO, 1.0, (0.0, 0.0), True).seen(WHOLE, 160)[20:140].astype(int)
    assert abs(mirrored - seen[:, ::-1]).max() <= 2
    right, flipped = (
        PictureGround(pictures, 0, PHOTO, 1.0, (1.0, 0.0), flip).seen(WHOLE, 160)[20:140].astype(int)
        for flip in (False, True)
    )
    assert abs(right[:, -2, 0] - 198).max() < 4, "the other end of the picture"
    assert abs(flipped - right[:, ::-1]).max() <= 2


def test_pictures_and_fields_lie_where_their_matrix_puts_them():
    """A slope stays a slope: half a pixel off, it would be off by two."""
    y, x = np.mgrid[0:64, 0:64] + 0.5
    slope = (2 * x + 1.5 * y).astype(np.float32)
    canvas, matrix = Canvas.of(TURNED, 48), np.array([(1.6, 0.0, 20.0), (0.0, 1.6, 0.0)])
    middles = torch.from_numpy(np.stack(np.meshgrid(*2 * [np.arange(48) + 0.5]), axis=-1).reshape(-1, 2)).float()
    own = (TURNED.back(middles, 48).double().numpy() - (20.0, 0.0)) / 1.6
    expected = (own @ (2.0, 1.5)).reshape(48, 48)
    within = ((own > 1) & (own < 63)).all(1).reshape(48, 48)
    canvas.image(np.dstack(3 * [slope]).round().astype(np.uint8), matrix)
    assert within.mean() > 0.8
    assert abs(canvas.field(slope, matrix) - expected)[within].max() < 0.2
    assert abs((canvas.pixels[..., 0] - expected)[within].mean()) < 0.15


@pytest.mark.parametrize("square", [WHOLE, TURNED])
def test_a_ground_is_the_same_at_any_resolution(folder, square):
    square, photo_px = Square(4 * square.center_px, 4 * square.side_px, square.angle_rad), (640, 480)
    grounds = [ground_of(Pictures(folder), 0.5, photo_px, generator_of(0, "ground", place)) for place in range(12)]
    assert {type(ground) for ground in grounds} == {MadeUpGround, PictureGround}
    for ground in grounds:
        fine = ground.seen(square, 256)
        assert (fine == ground.seen(square, 256)).all()
        small = cv2.resize(fine, (128, 128), interpolation=cv2.INTER_AREA)
        assert np.corrcoef(small.ravel(), ground.seen(square, 128).ravel())[0, 1] > 0.9


def test_made_up_grounds_have_edges_and_differ():
    seen = [MadeUpGround(seed, PHOTO).seen(WHOLE, 64).astype(float) for seed in range(8)]
    for one, other in pairwise(seen):
        assert abs(one - other).mean() > 10
    assert np.mean([abs(np.diff(one, axis=1)).max(-1) > 20 for one in seen]) > 0.01


def test_polygons_lie_where_the_photograph_has_them():
    canvas = Canvas.of(TURNED, 96, 1)
    corners = np.array([(50.0, 40.0), (80.0, 45.0), (60.0, 70.0)])
    canvas.polygon(corners, (255.0,))
    y, x = np.nonzero(canvas.pixels[..., 0] > 127)
    mine = torch.from_numpy(np.stack([x, y], axis=1) + 0.5).float()
    middle = TURNED.back(mine.mean(0, keepdim=True), 96)[0].numpy()
    np.testing.assert_allclose(middle, corners.mean(0), atol=0.3)
    area = 0.5 * (30.0 * 30.0 - 5.0 * 10.0)
    assert len(x) == pytest.approx(area * (96 / 60) ** 2, rel=0.12), "OpenCV draws half a pixel beyond the outline"


@pytest.mark.parametrize("round_", [False, True])
@pytest.mark.parametrize("square", [WHOLE, TURNED])
def test_a_thing_covers_the_points_that_it_is_drawn_over(round_, square):
    thing = Thing(round_, np.array([65.0, 55.0]), np.array([20.0, 9.0]), 0.5, MadeUpGround(0, PHOTO))
    size_px = 128
    layer = front_of([thing], square, size_px)
    y, x = np.mgrid[0:size_px, 0:size_px]
    centres = torch.from_numpy(np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5).float()
    covered = thing.covers(square.back(centres, size_px).double().numpy()).reshape(size_px, size_px)
    assert covered.any()
    drawn = layer[..., 3] / 255
    edge = cv2.dilate(covered.astype(np.uint8), np.ones((3, 3))) != cv2.erode(covered.astype(np.uint8), np.ones((3, 3)))
    assert (drawn[~edge] == covered[~edge]).all(), "away from its edge"
    assert drawn.sum() == pytest.approx(covered.sum(), rel=0.01)
    assert (layer[drawn == 0] == 0).all()


def test_the_last_thing_is_the_nearest():
    place, half = np.array([65.0, 55.0]), np.array([30.0, 30.0])
    things = [Thing(False, place, half, 0.0, MadeUpGround(seed, PHOTO)) for seed in (0, 1)]
    both, last = front_of(things, TURNED, 64), front_of(things[1:], TURNED, 64)
    assert (both[20:40, 20:40] == last[20:40, 20:40]).all()
