"""Synthetic people for training: what is said of them holds in any crop; the same whatever the threads."""

import gc
import threading
import time
from dataclasses import fields, replace

import pytest
import torch

from meshrec.body import load_body_model
from meshrec.camera import project
from meshrec.data.augment import PLAIN, AugmentConfig, Draw, Occluder
from meshrec.data.body_joints import BODY58, body_joints
from meshrec.data.people import People
from meshrec.data.synthetic.people import HIDDEN, SyntheticLoader, box_of, people_of_scenes
from meshrec.data.synthetic.scene import Synthesizer
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.errors import MeshrecError
from meshrec.randomness import generator_of
from meshrec.types import Batched

CROP_PX = 32
CONFIG = SyntheticConfig(prior="gaussian", others=0.5)
MODEL = load_body_model()
MAKER = Synthesizer(CONFIG, MODEL)
SCENES = MAKER.scenes([generator_of(0, "people", place) for place in range(6)])
DRAWN = Draw(False, 0.5, 0.9, (0.05, -0.1), (0.7, 1.0, 1.2), blur_px=4.0, blur_rad=0.3)
AUGMENT = AugmentConfig(shift=0.1, blur_p=0.5)


def same(ours: Batched, theirs: Batched) -> bool:
    """Whether two nouns agree to the last bit."""
    for field in fields(ours):  # type: ignore[arg-type]
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        if not (same(one, other) if isinstance(one, Batched) else bool(torch.all(torch.as_tensor(one == other)))):
            return False
    return True


def taken(draw: Draw) -> People:
    return people_of_scenes(SCENES, MAKER, CROP_PX, [draw] * len(SCENES))


@pytest.mark.parametrize("draw", [PLAIN, DRAWN, replace(DRAWN, flip=True)])
def test_the_true_body_projects_onto_the_true_points(draw):
    people = taken(draw)
    joints_m = body_joints(MODEL, people.params)
    error_px = (project(joints_m, people.camera) - people.points).norm(dim=-1)
    most_px = 1.0 if draw.flip else 5e-3
    assert float(error_px.median()) < most_px and float(error_px.max()) < 20 * most_px, "the mirrored body: nearly"
    assert people.posed.all() and people.shaped.all() and people.placed.all() and (people.camera.width_px == CROP_PX)
    torch.testing.assert_close(people.rest_pelvis_m, MODEL.kinematics(people.params).rest_m[:, 0])


def test_the_mirror_image_is_all_mirrored():
    straight, flipped = taken(DRAWN), taken(replace(DRAWN, flip=True))
    assert same(flipped, straight.mirrored())
    assert flipped.flipped.all() and torch.equal(flipped.pixels, straight.pixels.flip(-1))
    left, right = (BODY58.index(f"{side}_knee@coco17") for side in ("left", "right"))
    torch.testing.assert_close(flipped.points[:, left, 0], CROP_PX - straight.points[:, right, 0])


def test_weights_tell_what_the_photograph_shows():
    people = taken(PLAIN)
    assert people.weight.unique().tolist() == pytest.approx([0.0, HIDDEN, 1.0])
    photo_px = torch.tensor([scene.photo_px for scene in SCENES])[:, None]
    at_px = people.square.back(people.points, CROP_PX)
    beyond = ((at_px < -0.01) | (at_px > photo_px + 0.01)).any(-1)
    assert beyond.any() and not people.weight[beyond].any()


def test_boxes_hold_what_the_photograph_has_of_the_body():
    for scene in SCENES:
        box = box_of(scene)
        xy_px = project(scene.vertices_m[0], scene.camera)
        inside = ((xy_px >= 0) & (xy_px <= torch.tensor(scene.photo_px))).all(-1)
        assert (xy_px[inside] >= box[:2]).all() and (xy_px[inside] <= box[2:]).all()
        assert (box >= 0).all() and (box[2:] <= torch.tensor(scene.photo_px)).all()


def test_colours_and_things_are_those_of_the_draw():
    plain = taken(PLAIN)
    dark = taken(Draw(colour=(0.5, 1.0, 1.0)))
    torch.testing.assert_close(dark.pixels[:, 0].float(), (plain.pixels[:, 0] * 0.5).round(), atol=1, rtol=0)
    assert torch.equal(dark.pixels[:, 1:], plain.pixels[:, 1:])
    thing = Occluder(round=False, blotched=False, where=0.5, size=(0.3, 0.3), angle_rad=0.0, seed=0)
    covered = taken(Draw(occluders=(thing,)))
    changed = (covered.pixels != plain.pixels).any(1).float().mean((1, 2))
    assert (changed > 0.01).all() and (changed < 0.12).all()
    assert torch.equal(covered.weight, plain.weight)


def test_motion_blurs_as_it_does_on_records():
    blur = Draw(blur_px=6.0, blur_rad=0.7)
    plain, blurred = taken(PLAIN), taken(blur)
    for ours, before in zip(blurred.pixels, plain.pixels, strict=True):
        theirs = blur.painted(before.permute(1, 2, 0).contiguous().numpy(), torch.zeros(0, 2).numpy())
        assert abs(ours.permute(1, 2, 0).numpy().astype(int) - theirs).max() <= 1


def test_a_scene_follows_its_generator_and_people_differ():
    again = MAKER.scenes([generator_of(0, "people", place) for place in range(6)])
    people = people_of_scenes(again, MAKER, CROP_PX)
    assert same(people, taken(PLAIN))
    alone = MAKER.scene(generator_of(0, "people", 3))
    torch.testing.assert_close(alone.vertices_m, SCENES[3].vertices_m, atol=1e-5, rtol=1e-5)
    params = people.params
    assert (params.pose[1:] - params.pose[:-1]).abs().amax((1, 2, 3)).min() > 0.05
    assert float(params.betas.abs().max()) <= CONFIG.shape_most


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """So that few people take several of them."""
    monkeypatch.setattr("meshrec.data.synthetic.people.CHUNK", 3)


def loader(workers: int = 2, seed: int = 3, ahead: int = 1) -> SyntheticLoader:
    return SyntheticLoader(CONFIG, MODEL, CROP_PX, AUGMENT, seed, workers, ahead)


def test_batches_are_the_same_with_any_number_of_threads():
    one, three = loader(1, ahead=0), loader(3)
    for step in (0, 1):
        ours = one.take(step, slice(0, 5))
        assert same(ours, three.take(step, slice(0, 5)))
        assert ours.pixels.shape == (5, 3, CROP_PX, CROP_PX) and ours.row.tolist() == list(range(5))
    assert same(loader(2, ahead=0).take(1, slice(0, 5)), ours), "work resumes at any step"
    assert not same(loader(2, seed=4, ahead=0).take(1, slice(0, 5)), ours)


def test_shares_together_are_the_global_batch():
    whole, shared = loader(ahead=0).take(2, slice(0, 6)), loader(ahead=0)
    for part in (slice(0, 2), slice(2, 6)):
        assert same(shared.take(2, part), whole[part])


def test_people_come_back_among_others(monkeypatch):
    monkeypatch.setattr("meshrec.data.synthetic.people.ROUND", 3)

    def repeating(ahead: int) -> SyntheticLoader:
        return SyntheticLoader(CONFIG, MODEL, CROP_PX, AUGMENT, 3, 2, ahead, drawn=False, repeats=2)

    one, plain, rows = repeating(1), loader(ahead=0), slice(0, 6)
    batches = [one.take(step, rows) for step in range(9)]
    for chunk in (slice(0, 3), slice(3, 6)):
        found = [tuple(batch.points[chunk].flatten().tolist()) for batch in batches[:6]]
        assert sorted(found.count(each) for each in set(found)) == [2, 2, 2]
        assert (
            set(found[:3])
            == set(found[3:])
            == {tuple(plain.take(s, rows).points[chunk].flatten().tolist()) for s in range(3)}
        )
    assert not any(same(early, late) for early in batches[:3] for late in batches[3:6])
    assert same(batches[6], replace(plain.take(3, rows), pixels=torch.zeros(6, 3, CROP_PX, CROP_PX, dtype=torch.uint8)))
    assert len(one.begun) <= 2 * 2 * 3
    assert same(repeating(0).take(5, slice(1, 4)), batches[5][1:4]), "work resumes at any step, and in any share"


def test_people_who_are_not_drawn_are_the_same_but_black():
    drawn, black = (people_of_scenes(SCENES, MAKER, CROP_PX, [DRAWN] * len(SCENES), each) for each in (True, False))
    assert not black.pixels.any() and drawn.pixels.any()
    assert same(replace(drawn, pixels=black.pixels), black)


def threads() -> int:
    return sum(thread.name.startswith("synthetic") for thread in threading.enumerate())


def test_threads_end_when_the_loader_is_let_go():
    before = torch.get_num_threads()
    one = loader(ahead=0)
    one.take(0, slice(0, 1))
    assert threads() > 0 and torch.get_num_threads() == before
    del one
    gc.collect()
    ended = time.monotonic() + 10
    while threads() and time.monotonic() < ended:
        time.sleep(0.01)
    assert threads() == 0


def test_backgrounds_that_cannot_be_used_are_told(tmp_path):
    with pytest.raises(MeshrecError, match="no folder of backgrounds"):
        SyntheticLoader(replace(CONFIG, backgrounds=tmp_path / "nowhere"), MODEL, CROP_PX)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(MeshrecError, match=r"a\.png is no picture"):
        SyntheticLoader(replace(CONFIG, backgrounds=tmp_path), MODEL, CROP_PX)


def test_the_body_that_is_given_stays_as_it_is():
    model = load_body_model(dtype=torch.float64)
    Synthesizer(CONFIG, model)
    assert model.template.dtype == torch.float64
