"""What chance does to a crop: within its bounds, as often as told, and to the picture what is said of it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from meshrec.data.augment import PLAIN, AugmentConfig, Draw, Occluder, draw_of, line_kernel
from meshrec.randomness import generator_of
from meshrec.types import Square

CONFIG = AugmentConfig(shift=0.1, occlude_p=0.5)
GREY = np.full((40, 40, 3), 100, np.uint8)
JOINT = np.array([[12.0, 30.0]])


def draws(config: AugmentConfig, number: int = 2000) -> list[Draw]:
    return [draw_of(config, generator_of(0, "augment", place)) for place in range(number)]


def test_a_draw_follows_its_generator_alone():
    assert draw_of(CONFIG, generator_of(3, "augment", 1)) == draw_of(CONFIG, generator_of(3, "augment", 1))
    assert draw_of(CONFIG, generator_of(3, "augment", 1)) != draw_of(CONFIG, generator_of(3, "augment", 2))


def test_draws_stay_within_their_bounds():
    for draw in draws(CONFIG):
        assert abs(draw.angle_rad) <= math.pi / 3 and 0.75 <= draw.scale <= 1.25
        assert max(map(abs, draw.shift)) <= 0.1 and 0 <= draw.blur_px <= 10
        assert all(0.6 <= one <= 1.4 for one in draw.colour)
        assert len(draw.occluders) <= 3
        assert all(0.1 <= side <= 0.4 for one in draw.occluders for side in one.size)


def test_draws_are_as_often_and_as_wide_as_told():
    drawn = draws(CONFIG)
    share = {
        "flip": np.mean([draw.flip for draw in drawn]),
        "rotate_p": np.mean([draw.angle_rad != 0 for draw in drawn]),
        "blur_p": np.mean([draw.blur_px > 0 for draw in drawn]),
        "occlude_p": np.mean([bool(draw.occluders) for draw in drawn]),
    }
    for name, realised in share.items():
        assert realised == pytest.approx(getattr(CONFIG, name), abs=0.04), name
    angles = np.array([draw.angle_rad for draw in drawn if draw.angle_rad])
    clipped = np.clip(np.random.default_rng(0).normal(0, math.pi / 6, 10**5), -math.pi / 3, math.pi / 3)
    assert np.std(angles) == pytest.approx(np.std(clipped), rel=0.06)
    assert np.mean([draw.colour for draw in drawn], axis=0) == pytest.approx(1.0, abs=0.02)
    at_an_end = np.mean([draw.scale in (0.75, 1.25) for draw in drawn])
    assert at_an_end == pytest.approx(0.317, abs=0.04), "one in three of N(1, 0.25) is beyond one deviation"


def test_what_is_switched_off_never_happens():
    still = AugmentConfig(flip=0.0, rotate_p=0.0, scale=0.0, colour=(1.0, 1.0), blur_p=0.0)
    assert all(replace(draw, blur_rad=0.0) == PLAIN for draw in draws(still, 50))


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)])
def test_the_square_moves_grows_and_turns(batch):
    side_px = torch.full(batch, 50.0)
    square = Square(torch.tensor([100.0, 80.0]).expand(*batch, 2), side_px, torch.full(batch, 0.1))
    changed = Draw(angle_rad=0.3, scale=1.2, shift=(0.1, -0.2)).square(square)
    torch.testing.assert_close(changed.center_px, torch.tensor([105.0, 70.0]).expand(*batch, 2))
    torch.testing.assert_close(changed.side_px, torch.full(batch, 60.0))
    torch.testing.assert_close(changed.angle_rad, torch.full(batch, 0.4))
    torch.testing.assert_close(PLAIN.square(square).center_px, square.center_px)


def test_colours_are_multiplied_and_end_at_white():
    painted = Draw(colour=(0.6, 1.0, 3.0)).painted(GREY, JOINT)
    assert (painted == [60, 100, 255]).all()
    assert (PLAIN.painted(GREY, JOINT) == GREY).all()


@pytest.mark.parametrize("length_px", [0.0, 1.0, 4.3, 10.0])
@pytest.mark.parametrize("angle_rad", [0.0, 0.7, math.pi / 2, 2.5])
def test_motion_is_a_line_about_its_place(length_px, angle_rad):
    kernel = line_kernel(length_px, angle_rad).astype(float)
    assert kernel.sum() == pytest.approx(1.0) and (kernel >= 0).all()
    reach = len(kernel) // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    assert (kernel * x).sum() == pytest.approx(0, abs=1e-5) and (kernel * y).sum() == pytest.approx(0, abs=1e-5)
    along, across = x * math.cos(angle_rad) + y * math.sin(angle_rad), y * math.cos(angle_rad) - x * math.sin(angle_rad)
    assert (kernel * along**2).sum() == pytest.approx(length_px**2 / 12, abs=0.26)
    assert (kernel * across**2).sum() <= 0.26, "as thin as one pixel"


def test_blur_runs_along_its_direction():
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[20, 20] = 255
    right = Draw(blur_px=10.0, blur_rad=0.0).painted(dot, JOINT)
    assert (right[20, 16:25] > 15).all() and right[18].max() == 0 and right[22].max() == 0
    down_right = Draw(blur_px=10.0, blur_rad=math.pi / 4).painted(dot, JOINT)
    assert (down_right[[18, 22], [18, 22]] > 10).all() and down_right[[18, 22], [22, 18]].max() == 0


@pytest.mark.parametrize("round_", [False, True])
@pytest.mark.parametrize("blotched", [False, True])
def test_what_stands_in_the_way_covers_a_seen_joint_and_as_much_as_it_is_large(round_, blotched):
    occluder = Occluder(round_, blotched, 0.9, (0.5, 0.25), 0.5, seed=1)
    two = np.array([[4.0, 4.0], [20.0, 20.0]])
    painted = Draw(occluders=(occluder,)).painted(GREY, two)
    changed = (painted != GREY).any(axis=-1)
    assert changed[20, 20] and not changed[4, 4]
    area = 20 * 10 * (math.pi / 4 if round_ else 1)
    assert changed.sum() == pytest.approx(area, rel=0.25)
    assert (len(np.unique(painted[changed], axis=0)) > 5) == blotched
    assert (GREY == 100).all(), "the crop that was given stays as it is"
    assert (Draw(occluders=(occluder,)).painted(GREY, two[:0]) == GREY).all(), "nobody is there to be covered"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"flip": 1.5}, "flip is 1.5"),
        ({"rotate_p": -0.1}, "rotate_p is -0.1"),
        ({"scale_range": (1.25, 0.75)}, "scale_range is 1.25 to 0.75"),
        ({"colour": (0.0, 1.0)}, "colour is 0.0 to 1.0"),
        ({"occluder_size": (0.1, 1.5)}, "occluder_size"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        AugmentConfig(**wrong)
