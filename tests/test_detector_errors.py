"""What is drawn for a detector: nothing where nothing goes wrong, and as often and as far as is asked otherwise."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from meshrec.body import load_body_model
from meshrec.camera import camera_from_body_axes, centered_camera, project
from meshrec.data.detector_errors import (
    KINDS,
    NO_ERRORS,
    Chance,
    Detection,
    DetectorErrors,
    detected_like,
    facing,
)
from meshrec.randomness import generator_of
from meshrec.skeletons import COCO17
from meshrec.types import BodyParams

MANY = 10_000
SIZE_PX = 200.0


@pytest.fixture(scope="module")
def standing():
    """The joints of somebody who faces the camera, 200 pixels high."""
    model = load_body_model()
    rotations = torch.eye(3).repeat(24, 1, 1)
    rotations[0] = camera_from_body_axes()
    params = BodyParams.from_rotations(rotations, torch.zeros(10), torch.tensor([0.0, 0.0, 5.0]))
    return project(model.regressed(params, COCO17), centered_camera(640, 480, 570.0, "given"))


def randoms_of(count, seed=0):
    return [generator_of(seed, "test", person) for person in range(count)]


@cache
def chance_of(seed):
    return Chance.of(randoms_of(MANY, seed))


def found_of(points, weight, errors, seed=0):
    """What `detected_like` says of many people, whose chance is drawn once."""
    return Detection(points, weight, torch.full((MANY,), SIZE_PX), errors, chance_of(seed)).said()


def drawn(standing, errors, weight=1.0, seed=0):
    """Errors in sizes of the person, and confidences."""
    points = standing.expand(MANY, 17, 2)
    found, confidence = found_of(points, torch.full((MANY, 17), weight), errors, seed)
    return (found - points) / SIZE_PX, confidence


def rows(*kinds):
    return [row for row, joint in enumerate(COCO17.joints) if joint.rpartition("_")[2] in kinds]


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_without_errors_the_truth_is_found_and_sure(standing, weight):
    off, confidence = drawn(standing, NO_ERRORS, weight)
    assert (off == 0).all() and (confidence == 1).all()
    off, confidence = drawn(standing, NO_ERRORS, 0.0)
    assert (confidence == 0).all()


def test_everybody_is_a_function_of_their_own_generator(standing):
    points, weight = standing + 5 * torch.arange(4.0)[:, None, None], torch.rand(4, 17)
    size = torch.tensor([100.0, 200.0, 300.0, 400.0])
    errors = DetectorErrors()
    together = detected_like(points, weight, size, errors, randoms_of(4))
    rest = [2, 0]
    some = detected_like(points[rest], weight[rest], size[rest], errors, [randoms_of(4)[row] for row in rest])
    for all_of, one in zip(together, some, strict=True):
        torch.testing.assert_close(all_of[rest], one)
    one, other = randoms_of(2)[0], randoms_of(2)[0]
    detected_like(points[:1], weight[:1], size[:1], errors, [one])
    Chance.of([other])
    assert one.random() == other.random(), "as much is drawn for everybody, whatever is made of it"


def test_lengths_are_shares_of_the_person(standing):
    size = torch.tensor([100.0, 300.0])
    errors = replace(DetectorErrors(), lost=(0.0, 0.0))
    points, weight = torch.stack([standing / 2, 3 * standing / 2]), torch.ones(2, 17)
    same = [generator_of(0, "test", 1) for _ in range(2)]
    found, _ = detected_like(points, weight, size, errors, same)
    torch.testing.assert_close(3 * found[0], found[1], atol=1e-2, rtol=0)


def test_joints_are_off_as_far_as_is_asked(standing):
    numbers = tuple(0.01 * (1 + place) for place in range(len(KINDS)))
    errors = replace(NO_ERRORS, spread=numbers, hidden_spread=tuple(2 * number for number in numbers))
    for weight, times in ((1.0, 1), (0.3, 2)):
        off, _ = drawn(standing, errors, weight=weight)
        for number, kind in zip(numbers, KINDS, strict=True):
            found = off[:, rows(kind)]
            assert abs(found.mean()) < 0.05 * times * number
            assert found.std(dim=0).sub(times * number).abs().max() < 0.03 * times * number


def test_a_person_s_own_luck_changes_all_joints(standing):
    off, _ = drawn(standing, replace(NO_ERRORS, spread=(0.01,) * len(KINDS), vary=0.5))
    luck = off.square().mean(dim=(1, 2)).sqrt().div(0.01).log()
    assert abs(luck.std() - 0.5) < 0.05 and abs(luck.mean()) < 0.05


def test_a_person_is_off_as_a_whole_and_a_detector_sure_of_its_own_measure(standing):
    off, confidence = drawn(standing, replace(NO_ERRORS, shift=0.02, sure=(0.0,) * len(KINDS), calibration=0.5))
    torch.testing.assert_close(off, off[:, :1].expand_as(off), atol=1e-5, rtol=0)
    assert (off[:, 0].std(dim=0) - 0.02).abs().max() < 1e-3
    assert torch.equal(confidence, confidence[:, :1].expand_as(confidence))
    assert abs(confidence[:, 0].logit().std() - 0.5) < 0.02


def test_far_joints_and_limbs_are_as_many_as_is_asked(standing):
    errors = replace(NO_ERRORS, wide=(0.1, 0.3), limb_wide=(0.0, 0.0), wide_spread=0.2)
    for weight, share in ((1.0, 0.1), (0.3, 0.3)):
        off, _ = drawn(standing, errors, weight=weight)
        assert ((off != 0).any(-1).float().mean(0) - share).abs().max() < 0.02
        assert abs(off[off != 0].std() - 0.2) < 0.01
    off, _ = drawn(standing, replace(NO_ERRORS, limb_wide=(0.2, 0.2), wide_spread=0.2))
    moved = (off != 0).any(-1)
    assert not moved[:, rows("nose", "eye", "ear", "shoulder", "hip")].any()
    for near, far in (("elbow", "wrist"), ("knee", "ankle")):
        assert torch.equal(moved[:, rows(near)], moved[:, rows(far)])
        torch.testing.assert_close(off[:, rows(near)], 0.7 * off[:, rows(far)], atol=1e-5, rtol=0)
        assert (moved[:, rows(far)].float().mean(0) - 0.2).abs().max() < 0.02
    left, right = moved[:, COCO17.index("left_wrist")].float(), moved[:, COCO17.index("right_wrist")].float()
    assert abs((left * right).mean() - 0.04) < 0.01, "limbs fail each by itself"


@pytest.mark.parametrize(("turn", "share"), [(1.0, 0.1), (0.05, 0.2), (-1.0, 0.4)])
def test_sides_are_swapped_as_often_as_one_is_seen_so(standing, turn, share):
    """Narrower, and from behind, which shows the left side on the left."""
    points = standing * torch.tensor([turn, 1.0])
    points = points.expand(MANY, 17, 2)
    errors = replace(NO_ERRORS, body_swap=(0.1, 0.2, 0.4))
    found, _ = found_of(points, torch.ones(MANY, 17), errors)
    swapped = (found != points).any(-1).any(-1)
    assert abs(swapped.float().mean() - share) < 0.015
    assert torch.equal(found[swapped], points[swapped][:, list(COCO17.mirror)])


def test_whose_sides_are_swapped_has_the_other_sides_confidences(standing):
    weight = torch.ones(MANY, 17)
    weight[:, COCO17.index("left_wrist")] = 0.3
    errors = replace(NO_ERRORS, missed=(0.0, 1.0), body_swap=(1.0, 1.0, 1.0))
    _, confidence = found_of(standing.expand(MANY, 17, 2), weight, errors)
    assert (confidence[0] == 0).nonzero().flatten().tolist() == [COCO17.index("right_wrist")]


def test_a_person_s_own_luck_changes_how_often_sides_are_swapped(standing):
    """The mean of exp(N(0, 1)) is the root of e."""
    off, _ = drawn(standing, replace(NO_ERRORS, body_swap=(0.05, 0.05, 0.05), vary=1.0))
    assert abs((off.abs() > 1e-3).any(-1).any(-1).float().mean() - 0.05 * math.exp(0.5)) < 0.01


def test_one_who_faces_the_camera_has_the_left_side_on_the_right(standing):
    assert 0.3 < facing(standing) < 1.0
    torch.testing.assert_close(facing(standing * torch.tensor([-1.0, 1.0])), -facing(standing))
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    torch.testing.assert_close(facing(standing @ turn), facing(standing))


def test_limbs_are_swapped_and_the_set_of_joints_stays(standing):
    off, confidence = drawn(standing, replace(NO_ERRORS, limb_swap=(0.3, 0.1)))
    found = standing + SIZE_PX * off
    for kinds, share in ((("elbow", "wrist"), 0.3), (("knee", "ankle"), 0.1)):
        moved = (off[:, rows(*kinds)].abs() > 1e-6).any(-1)
        assert torch.equal(moved.any(1), moved.all(1)) and abs(moved.any(1).float().mean() - share) < 0.03
    order = torch.argsort(standing[:, 0] + 1e-3 * standing[:, 1])
    again = torch.argsort(found[..., 0] + 1e-3 * found[..., 1], dim=1)
    torch.testing.assert_close(found.gather(1, again[..., None].expand_as(found)), standing[order].expand_as(found))
    assert (confidence == 1).all()


def test_hidden_joints_are_missed_more_and_sure_less(standing):
    errors = replace(NO_ERRORS, missed=(0.1, 0.4), sure=(2.0,) * 9, hidden_sure=(-1.0,) * 9, sure_spread=0.5)
    for weight, share, logit in ((1.0, 0.1, 2.0), (0.3, 0.4, -1.0)):
        _, confidence = drawn(standing, errors, weight=weight)
        assert abs((confidence == 0).float().mean() - share) < 0.01
        found = confidence[confidence > 0].logit()
        assert abs(found.mean() - logit) < 0.02 and abs(found.std() - 0.5) < 0.01


def test_nobody_is_surer_of_what_is_wrong(standing):
    errors = replace(NO_ERRORS, wide=(1.0, 1.0), wide_spread=0.1, wrong_sure=0.5, hidden_sure=(-2.0,) * 9)
    assert drawn(standing, errors)[1].logit().sub(0.5).abs().max() < 1e-3
    assert drawn(standing, errors, 0.3)[1].logit().add(2.0).abs().max() < 1e-3


def test_a_limb_is_missed_as_a_whole(standing):
    _, confidence = drawn(standing, replace(NO_ERRORS, limb_missed=(0.2, 0.2)))
    missed = confidence == 0
    assert torch.equal(missed[:, rows("elbow", "knee")], missed[:, rows("wrist", "ankle")])
    assert abs(missed[:, rows("knee")].float().mean() - 0.2) < 0.01


def test_people_are_lost_more_the_less_is_seen_of_them(standing):
    errors = replace(NO_ERRORS, lost=(0.1, 0.5), not_found=0.2)
    for weight, share in ((1.0, 0.1), (0.3, 0.5)):
        off, confidence = drawn(standing, errors, weight=weight)
        assert abs((off.norm(dim=-1).mean(1) > 0.01).float().mean() - share) < 0.02
        assert abs((confidence == 0).all(1).float().mean() - 0.2) < 0.02
        assert torch.equal((confidence == 0).all(1), (confidence == 0).any(1))
    most = torch.where(torch.arange(17) % 4 > 0, 0.3, 1.0).expand(MANY, 17)
    points = standing.expand(MANY, 17, 2)
    off = (found_of(points, most, errors)[0] - points) / SIZE_PX
    share = 0.1 + 0.4 * (12 / 17) ** 4
    assert abs((off.norm(dim=-1).mean(1) > 0.01).float().mean() - share) < 0.02, "as the fourth power of what is hidden"


def test_a_joint_beyond_the_border_is_found_within_it(standing):
    """The photograph ends at the hips."""
    weight = torch.ones(MANY, 17)
    weight[:, rows("knee", "ankle")] = 0.0
    points = standing.expand(MANY, 17, 2)
    errors = replace(NO_ERRORS, false_seen=0.3, wrong_sure=1.0)
    found, confidence = found_of(points, weight, errors)
    legs = rows("knee", "ankle")
    assert abs((confidence[:, legs] > 0).float().mean() - 0.3) < 0.01
    hips = standing[rows("hip"), 1].max()
    assert (found[:, legs, 1] <= hips + 1e-3).all() and (found[:, legs, 1] > hips - 0.1 * SIZE_PX).all()
    assert torch.equal(found[:, rows("hip", "wrist")], points[:, rows("hip", "wrist")])


def test_definitions_differ_along_the_trunk_and_outwards(standing):
    up = tuple(0.02 * (kind == "hip") for kind in KINDS)
    out = tuple(0.03 * (kind == "ear") for kind in KINDS)
    off, _ = drawn(standing, replace(NO_ERRORS, up=up, out=out))
    left, right = off[0, COCO17.index("left_ear")], off[0, COCO17.index("right_ear")]
    assert 0.01 < left[0] < 0.06 and abs(left[1]) < 2e-3, "the left is on the right of the picture"
    torch.testing.assert_close(left, -right)
    assert (off[0, rows("hip"), 1] + 0.02).abs().max() < 1e-3, "up is towards 0"
    off, _ = drawn(standing, replace(NO_ERRORS, up=up, habit=0.5))
    own = -off[:, rows("hip"), 1] / 0.02
    torch.testing.assert_close(own[:, 0], own[:, 1], atol=1e-3, rtol=0)
    assert abs(own.mean() - 1) < 0.02 and abs(own.std() - 0.5) < 0.02, "each person's own"
    behind = standing * torch.tensor([-1.0, 1.0])
    found, _ = detected_like(
        behind[None], torch.ones(1, 17), torch.full((1,), SIZE_PX), replace(NO_ERRORS, out=out), randoms_of(1)
    )
    ears = (found[0] - behind)[rows("ear")] / SIZE_PX
    torch.testing.assert_close(ears[0], left * torch.tensor([-1.0, 1.0]), atol=1e-5, rtol=0)


def test_mirror_images_err_alike(standing):
    """Sides swap their numbers and x its sign, so the law is of the distribution alone."""
    mirror = list(COCO17.mirror)
    off, confidence = drawn(standing, DetectorErrors())
    reflected = (640 - standing[:, 0], standing[:, 1])
    other, sure = drawn(torch.stack(reflected, dim=-1)[mirror], DetectorErrors(), seed=1)
    back = other[:, mirror] * torch.tensor([-1.0, 1.0])
    for share in (0.1, 0.5, 0.9):
        one, two = (each.quantile(share, dim=0) for each in (off, back))
        assert (one - two).abs().max() < 0.01
        assert (confidence.quantile(share, dim=0) - sure[:, mirror].quantile(share, dim=0)).abs().max() < 0.06


def test_points_that_are_nowhere_do_not_spread(standing):
    points = standing.repeat(2, 1, 1)
    points[0, rows("ankle")] = 1e6
    weight = torch.ones(2, 17)
    weight[0, rows("ankle")] = 0.0
    found, confidence = detected_like(points, weight, torch.full((2,), SIZE_PX), DetectorErrors(), randoms_of(2))
    assert found.isfinite().all() and ((confidence >= 0) & (confidence <= 1)).all()
    nothing = detected_like(points, 0 * weight, torch.full((2,), SIZE_PX), DetectorErrors(), randoms_of(2))
    assert all(each.isfinite().all() for each in nothing)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"spread": (0.1, 0.2)}, "spread is .* a number for each of nose"),
        ({"missed": (0.1, 1.2)}, "missed is .* between 0 and 1"),
        ({"not_found": -0.1}, "not_found"),
        ({"vary": 100.0}, "vary"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(DetectorErrors(), **change)


def test_most_people_are_found_about_where_they_are(standing):
    """The defaults: in view half of the joints are nearer than 4 % of the person, and one in ten farther than 5 %."""
    off, confidence = drawn(standing, DetectorErrors())
    near = off.norm(dim=-1)
    assert 0.01 < near.quantile(0.5) < 0.04 and 0.05 < near.quantile(0.9) < 0.2
    assert (confidence > 0.3).float().mean() > 0.8
    hidden, unsure = drawn(standing, DetectorErrors(), weight=0.3)
    assert hidden.norm(dim=-1).quantile(0.5) > 1.5 * near.quantile(0.5)
    assert unsure.mean() < confidence.mean() - 0.1
    assert np.isfinite(off.numpy()).all()
