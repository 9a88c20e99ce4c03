"""People as a network is taught with them: pixels, joints, body and camera move as one."""

from dataclasses import replace

import numpy as np
import pytest
import roma
import torch
from PIL import Image

from meshrec.body import BodyModel, load_body_model
from meshrec.camera import project
from meshrec.data.augment import PLAIN, Draw, Occluder
from meshrec.data.body_joints import BODY58, body_joints, placed
from meshrec.data.crop import cut, mirrored_camera, mirrored_params, square_of
from meshrec.data.people import GENDER_NAMES, People, RestPelvis, example_of
from meshrec.data.records import Record, Truth
from meshrec.skeletons import COCO17, H36M17, MPII16, Skeleton
from meshrec.types import BodyParams, Camera, Keypoints, stack

CROP_PX = 96
WIDTH, HEIGHT = 500, 400
MODEL = load_body_model()
REST_PELVIS = RestPelvis.of({"neutral": MODEL})
DRAWS = {
    "as it is": PLAIN,
    "turned, moved, scaled": Draw(angle_rad=0.7, scale=1.2, shift=(0.1, -0.05)),
    "all at once": Draw(True, -0.4, 0.8, (0.05, 0.1), (0.7, 1.0, 1.3), blur_px=5.0, blur_rad=0.6),
}


def params() -> BodyParams:
    random = torch.Generator().manual_seed(3)
    rotations = roma.rotvec_to_rotmat(0.4 * torch.randn(24, 3, generator=random))
    rotations[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ rotations[0]
    return BodyParams.from_rotations(rotations, torch.randn(10, generator=random), torch.tensor([0.1, 0.4, 4.0]))


def photograph() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def record(skeleton: Skeleton = COCO17) -> Record:
    """Someone whose joints were seen where the body has them, in a stored picture of half the photograph's size."""
    camera = Camera(torch.tensor(500.0), torch.tensor([240.0, 190.0]), WIDTH, HEIGHT, "true")
    joints_m = MODEL.regressed(params(), skeleton) if skeleton != MPII16 else torch.ones(16, 3)
    corner, scale = (60, 40), 0.5
    shown = Image.fromarray(photograph()[corner[1] : 360, corner[0] : 460]).resize((200, 160), Image.Resampling.BOX)
    return Record(
        pixels=np.asarray(shown),
        corner_px=torch.tensor(corner).float(),
        scale=scale,
        photo_size_px=(WIDTH, HEIGHT),
        box_xyxy_px=torch.tensor([180.0, 110.0, 300.0, 310.0]),
        keypoints=Keypoints(project(joints_m, camera), torch.linspace(0.2, 1.0, len(skeleton)), skeleton),
        camera=camera,
        truth=Truth(params(), "neutral"),
        joints_m=MODEL.regressed(params(), H36M17),
        joints_weight=torch.linspace(0.0, 1.0, 17),
        joints_skeleton=H36M17,
        dataset="lab",
        subject="",
        sequence="",
        frame=0,
        source="",
    )


def in_a_mirror(one: Record) -> Record:
    """The record that the mirrored photograph has."""
    assert one.camera and one.truth and one.joints_m is not None and one.joints_weight is not None
    x0, y0, x1, y1 = one.box_xyxy_px.tolist()
    mirror = list(one.keypoints.skeleton.mirror)
    x, y = one.keypoints.xy_px[mirror].unbind(-1)
    pelvis_m = MODEL.kinematics(one.truth.params).rest_m[0]
    return replace(
        one,
        pixels=np.ascontiguousarray(one.pixels[:, ::-1]),
        corner_px=torch.tensor([WIDTH - float(one.corner_px[0]) - one.pixels.shape[1] / one.scale, one.corner_px[1]]),
        box_xyxy_px=torch.tensor([WIDTH - x1, y0, WIDTH - x0, y1]),
        keypoints=Keypoints(torch.stack([WIDTH - x, y], -1), one.keypoints.confidence[mirror], one.keypoints.skeleton),
        camera=mirrored_camera(one.camera),
        truth=replace(one.truth, params=mirrored_params(one.truth.params, pelvis_m)),
        joints_m=one.joints_m[list(H36M17.mirror)] * torch.tensor([-1.0, 1.0, 1.0]),
        joints_weight=one.joints_weight[list(H36M17.mirror)],
    )


def assert_same(ours: People, theirs: People) -> None:
    assert (ours.pixels.float() - theirs.pixels.float()).abs().max() <= 2
    known, measured = theirs.weight > 0, theirs.joints_weight > 0
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.joints_weight, theirs.joints_weight)
    torch.testing.assert_close(ours.points[known], theirs.points[known], rtol=0, atol=2e-4)
    torch.testing.assert_close(ours.joints_m[measured], theirs.joints_m[measured], rtol=0, atol=2e-6)
    torch.testing.assert_close(ours.params.rotations, theirs.params.rotations, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.params.transl_m, theirs.params.transl_m, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.camera.center_px, theirs.camera.center_px, rtol=0, atol=2e-4)
    torch.testing.assert_close(ours.camera.focal_px, theirs.camera.focal_px)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_crops_camera_sees_the_body_at_the_joints_of_the_crop(draw):
    people = example_of(record(), REST_PELVIS, draw, CROP_PX)
    seen = project(body_joints(MODEL, people.params), people.camera)
    known = people.weight > 0
    assert known.sum() == 17
    torch.testing.assert_close(people.points[known], seen[known], rtol=0, atol=5e-3)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_measured_joints_move_with_the_body(draw):
    people = example_of(record(), REST_PELVIS, draw, CROP_PX)
    known = people.joints_weight > 0
    assert known.sum() == 16, "the first one has weight 0"
    joints_m = body_joints(MODEL, people.params)
    torch.testing.assert_close(people.joints_m[known], joints_m[known], rtol=0, atol=1e-5)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_way_back_to_the_photograph(draw):
    people = example_of(record(), REST_PELVIS, draw, CROP_PX)
    straight = people.mirrored() if draw.flip else people
    xy_px, weight = placed(record().keypoints.xy_px, record().keypoints.confidence, COCO17)
    back = straight.square.back(straight.points, CROP_PX)
    torch.testing.assert_close(back[weight > 0], xy_px[weight > 0], rtol=0, atol=1e-2)
    assert bool(people.flipped) == draw.flip and not straight.flipped


def test_the_pixels_are_those_of_the_photograph():
    inside = Draw(angle_rad=0.3, shift=(0.05, -0.05))
    people = example_of(record(), REST_PELVIS, inside, CROP_PX)
    expected = torch.from_numpy(cut(photograph(), people.square, CROP_PX)).permute(2, 0, 1)
    assert (people.pixels.float() - expected.float()).abs().mean() < 3
    upright = torch.from_numpy(cut(photograph(), square_of(record().box_xyxy_px), CROP_PX)).permute(2, 0, 1)
    assert (people.pixels.float() - upright.float()).abs().mean() > 20


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_flipped_example_is_that_of_the_mirrored_photograph(draw):
    other = replace(draw, flip=not draw.flip, angle_rad=-draw.angle_rad, blur_rad=-draw.blur_rad)
    other = replace(other, shift=(-draw.shift[0], draw.shift[1]))
    ours = example_of(record(), REST_PELVIS, draw, CROP_PX)
    assert_same(ours, example_of(in_a_mirror(record()), REST_PELVIS, other, CROP_PX))


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)])
def test_a_mirror_undoes_itself_in_any_batch(batch):
    one = example_of(record(), REST_PELVIS, DRAWS["all at once"], CROP_PX)
    people = one.map(lambda tensor: tensor.expand((*batch, *tensor.shape)))
    twice = people.mirrored().mirrored()
    assert_same(twice, people)
    assert torch.equal(twice.flipped, people.flipped) and torch.equal(twice.pixels, people.pixels)
    assert_same(people.mirrored(), one.mirrored().map(lambda tensor: tensor.expand((*batch, *tensor.shape))))


def test_joints_change_sides_by_name():
    people = example_of(record(), REST_PELVIS, PLAIN, CROP_PX)
    flipped = people.mirrored()
    left, right = BODY58.indices("left_wrist@coco17", "right_wrist@coco17")
    torch.testing.assert_close(flipped.points[left, 0], CROP_PX - people.points[right, 0])
    torch.testing.assert_close(flipped.points[left, 1], people.points[right, 1])
    assert flipped.weight[left] == people.weight[right] != people.weight[left]
    assert (
        flipped.joints_weight[BODY58.index("left_knee@h36m17")]
        == people.joints_weight[BODY58.index("right_knee@h36m17")]
    )


@pytest.mark.parametrize("flip", [False, True])
def test_what_is_not_known_is_told_and_finite(flip):
    nobody = replace(record(MPII16), camera=None, truth=None, joints_m=None, joints_weight=None, joints_skeleton=None)
    people = example_of(nobody, REST_PELVIS, Draw(flip=flip, angle_rad=0.2), CROP_PX)
    assert not (people.posed or people.shaped or people.placed or people.joints_weight.any())
    people.map(lambda tensor: _assert_finite(tensor))
    both = stack([people, example_of(record(), REST_PELVIS, PLAIN, CROP_PX)])
    assert both.posed.tolist() == [False, True] and both.placed.tolist() == [False, True]
    assert (both.weight > 0).sum(dim=-1).tolist() == [14, 17]


def _assert_finite(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.isfinite().all()
    return tensor


def test_what_stands_in_the_way_hides_nothing_of_the_truth():
    hidden = example_of(
        record(), REST_PELVIS, Draw(occluders=(Occluder(False, False, 0.5, (0.3, 0.3), 0.0, seed=0),)), CROP_PX
    )
    plain = example_of(record(), REST_PELVIS, PLAIN, CROP_PX)
    assert (hidden.pixels != plain.pixels).any()
    assert_same(replace(hidden, pixels=plain.pixels), plain)


def test_the_root_turns_every_genders_body_about_its_own_pelvis():
    larger = _moved(MODEL, torch.tensor([0.0, 0.1, 0.0]))
    pelvis = RestPelvis.of({"neutral": MODEL, "female": larger})
    betas = torch.randn(10, generator=torch.Generator().manual_seed(0))
    own = MODEL.kinematics(replace(params(), betas=betas)).rest_m[0]
    neutral, male, female = pelvis(torch.arange(3), betas.expand(3, 10))
    assert GENDER_NAMES == ("neutral", "male", "female")
    torch.testing.assert_close(neutral, own)
    torch.testing.assert_close(male, own, msg="the neutral body stands in")
    torch.testing.assert_close(female, own + torch.tensor([0.0, 0.1, 0.0]))
    with pytest.raises(ValueError, match="the bodies are female"):
        RestPelvis.of({"female": larger})


def _moved(model: BodyModel, by_m: torch.Tensor) -> BodyModel:
    moved = load_body_model()
    moved.rest_template = model.rest_template + by_m
    return moved


def test_the_gender_of_the_truth_is_told():
    one = record()
    assert one.truth
    female = replace(one, truth=replace(one.truth, gender="female"))
    assert GENDER_NAMES[int(example_of(female, REST_PELVIS).gender)] == "female"
