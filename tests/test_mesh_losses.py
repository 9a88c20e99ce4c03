"""What a mesh regressor learns from: every term is of one person alone, and knows only what is known of that person."""

import math
from dataclasses import replace

import pytest
import roma
import torch
from torch import Tensor

from meshrec.body import BodyModel, load_body_model
from meshrec.camera import camera_from_body_axes, project
from meshrec.data.body_joints import BODY58, body_joints, placed
from meshrec.data.people import People
from meshrec.kinematics import pose_features
from meshrec.losses import body_part_alignment
from meshrec.models.part_attention import Regressed
from meshrec.part_masks import part_masks
from meshrec.prior_files import open_prior
from meshrec.rasterize import rasterize
from meshrec.shading import vertex_labels
from meshrec.skeletons import H36M17, SMPL24
from meshrec.skin_points import skin_points
from meshrec.train.mesh_lesson import Bodies, about_hips, lesson_of, middle_of_hips, part_labels
from meshrec.train.mesh_losses import MeshCriterion, MeshLosses, behind, mislabelled, off, on_crop
from meshrec.types import BodyParams, Camera, Square, joined
from meshrec.weak_perspective import CROP_FOCAL_AT_PX, CROP_FOCAL_PX, crop_project

CROP_PX = 64
ALL = MeshLosses(skin=1.0, parts=1.0, prior=0.1, keypoint_alignment=0.5, part_alignment=0.01, camera=1.0, parts_px=32)
KNOWN_IN_2D = {"points", "camera", "prior", "keypoint_alignment"}


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model(dtype=torch.float64).requires_grad_(False)


@pytest.fixture(scope="module")
def bodies(model: BodyModel) -> Bodies:
    return Bodies({"neutral": model})


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotations_of(people: int, seed: int, spread: float = 0.3) -> Tensor:
    rotations = roma.rotvec_to_rotmat(spread * noise(people, 24, 3, seed=seed))
    rotations[:, 0] = camera_from_body_axes().double() @ rotations[:, 0]
    return rotations


def people_of(model: BodyModel, count: int = 3, seed: int = 0) -> People:
    """People whose every number is known, seen from 5 m away."""
    transl_m = torch.tensor([[0.1, -0.2, 5.0]], dtype=torch.float64).repeat(count, 1)
    params = BodyParams.from_rotations(rotations_of(count, seed), noise(count, 10, seed=seed + 1), transl_m)
    focal_px = torch.full((count,), 150.0, dtype=torch.float64)
    camera = Camera(focal_px, torch.full((count, 2), CROP_PX / 2, dtype=torch.float64), CROP_PX, CROP_PX, "given")
    joints = body_joints(model, params)
    yes, zero, rows = torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.float64), torch.arange(count)
    return People(
        pixels=torch.zeros(count, 3, CROP_PX, CROP_PX, dtype=torch.uint8),
        square=Square(torch.zeros(count, 2, dtype=torch.float64), zero + CROP_PX, zero),
        flipped=~yes,
        points=project(joints, camera),
        weight=torch.ones(count, 58, dtype=torch.float64),
        joints_m=joints,
        joints_weight=torch.ones(count, 58, dtype=torch.float64),
        params=params,
        rest_pelvis_m=model.rest_template[0].expand(count, 3),
        camera=camera,
        posed=yes,
        shaped=yes,
        placed=yes,
        gender=torch.zeros(count, dtype=torch.long),
        dataset=torch.zeros(count, dtype=torch.long),
        row=rows,
    )


def in_2d_alone(people: People) -> People:
    """The same pictures, annotated in 2D; what is not known holds nonsense."""
    nonsense = replace(people.params, betas=people.params.betas + 9.0, transl_m=-people.params.transl_m)
    off = torch.zeros_like(people.posed)
    joints_m = torch.full_like(people.joints_m, 99.0)
    weight = torch.zeros_like(people.joints_weight)
    return replace(people, params=nonsense, posed=off, shaped=off, placed=off, joints_m=joints_m, joints_weight=weight)


def said_of(people: int, seed: int = 7) -> Regressed:
    """Some answers, from which gradients flow."""
    weak = torch.tensor([[0.8, 0.1, -0.2]], dtype=torch.float64) + 0.05 * noise(people, 3, seed=seed)
    said = Regressed(rotations_of(people, seed), noise(people, 10, seed=seed), weak, noise(people, 25, 8, 8, seed=seed))
    return said.map(lambda tensor: tensor.requires_grad_())


def true_answer(people: People, model: BodyModel) -> Regressed:
    """The answer without any error: the camera is far away, as the network's is."""
    logits = torch.zeros(len(people), 25, 8, 8, dtype=torch.float64)
    weak = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64).repeat(len(people), 1)
    return Regressed(people.params.rotations, people.params.betas, weak, logits)


def criterion_of(model: BodyModel, weights: MeshLosses = ALL) -> MeshCriterion:
    return MeshCriterion(weights, model, open_prior("gaussian") if weights.prior else None)


# ---- what is known


def test_the_truth_has_no_error_and_says_it_in_the_frame_of_the_crop(model, bodies):
    people = people_of(model)
    lesson = lesson_of(people, bodies)
    torch.testing.assert_close(lesson.points * CROP_PX / 2 + CROP_PX / 2, people.points)
    assert lesson.points.abs().max() < 3
    hips = BODY58.indices("left_hip@coco17", "right_hip@coco17")
    torch.testing.assert_close(lesson.joints_m[:, hips].mean(1), torch.zeros(3, 3, dtype=torch.float64))
    terms = criterion_of(model, MeshLosses(skin=1.0))(true_answer(people, model), lesson, 0)
    for name in ("joints", "skin", "pose", "shape"):
        torch.testing.assert_close(terms[name], torch.zeros(3, dtype=torch.float64))


def test_a_person_known_in_2d_teaches_that_alone(model, bodies):
    flat = in_2d_alone(people_of(model))
    terms = criterion_of(model)(said_of(3), lesson_of(flat, bodies, 32), 0)
    assert terms.keys() == {
        *("joints", "points", "skin", "pose", "shape", "camera", "parts", "prior"),
        *("keypoint_alignment", "part_alignment"),
    }
    for name, term in terms.items():
        assert (term > 0).all() if name in KNOWN_IN_2D else (term == 0).all(), name


@pytest.mark.parametrize("norm", ["mse", "l1"])
def test_the_skin_is_off_by_what_its_vertices_are(norm, model, bodies):
    """Of those points that are compared, about the pelvis, wherever the bodies stand."""
    people, said = people_of(model), said_of(3)
    criterion = criterion_of(model, MeshLosses(skin=2.0, norm=norm))
    found = criterion(said, lesson_of(people, bodies), 0)["skin"]
    answer = model(BodyParams.from_rotations(said.rotations, said.betas, torch.zeros_like(said.weak)))
    assert criterion.skin is not None
    truth, vertex = model(people.params), criterion.skin.vertex.flatten()
    pelvis = SMPL24.index("pelvis")
    one, other = (body.vertices_m[:, vertex] - body.joints_m[:, pelvis, None] for body in (answer, truth))
    size = (one - other).square() if norm == "mse" else (one - other).abs()
    torch.testing.assert_close(found, 2.0 * size.mean((1, 2)))
    some = replace(people, shaped=torch.tensor([True, False, True]))
    assert ((criterion(said, lesson_of(some, bodies), 0)["skin"] > 0) == some.shaped).all()
    some = replace(people, posed=torch.tensor([False, True, True]))
    assert ((criterion(said, lesson_of(some, bodies), 0)["skin"] > 0) == some.posed).all()


def test_a_batch_teaches_what_its_people_do(model, bodies):
    """The gradient of a mixed batch is the mean of its people's own: nobody's lack is another's weight.

    Pictures of parts are in single precision.
    """
    whole, flat = people_of(model, 1, seed=3), in_2d_alone(people_of(model, 1, seed=5))
    criterion, said = criterion_of(model), said_of(2)

    def slopes(people: People, rows: slice) -> list[Tensor]:
        terms = criterion(said[rows], lesson_of(people, bodies, 32), 0)
        total = torch.stack(list(terms.values())).sum() / 2
        return list(torch.autograd.grad(total, [said.rotations, said.betas, said.weak, said.part_logits]))

    both = slopes(joined([whole, flat]), slice(0, 2))
    apart = zip(slopes(whole, slice(0, 1)), slopes(flat, slice(1, 2)), strict=True)
    for together, (first, second) in zip(both, apart, strict=True):
        torch.testing.assert_close(together, first + second, rtol=1e-4, atol=1e-7)
        assert together.isfinite().all()


@pytest.mark.parametrize("skeleton", [H36M17, SMPL24])
def test_joints_without_a_body_teach_about_their_own_hips(skeleton, model, bodies):
    people, count = people_of(model), len(skeleton)
    here = BODY58.indices(*(f"{joint}@{skeleton.name}" for joint in skeleton.joints))
    moved = people.joints_m[:, here] + torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)
    joints_m, weight = placed(moved, torch.ones(3, count, dtype=torch.float64), skeleton)
    some = replace(in_2d_alone(people), joints_m=joints_m, joints_weight=weight)
    lesson = lesson_of(some, bodies)
    assert (lesson.joints_weight > 0).sum() == 3 * count
    terms = criterion_of(model, MeshLosses())(true_answer(people, model), lesson, 0)
    torch.testing.assert_close(terms["joints"], torch.zeros(3, dtype=torch.float64))
    hips = torch.tensor(["hip" in joint for joint in BODY58.joints])
    lesson = lesson_of(replace(some, joints_weight=weight.masked_fill(hips, 0.0)), bodies)
    assert (lesson.joints_weight == 0).all()
    lesson = lesson_of(replace(some, joints_weight=weight * 0), bodies)
    assert (criterion_of(model, MeshLosses())(said_of(3), lesson, 0)["joints"] == 0).all()


def test_joints_without_hips_teach_nothing_in_3d():
    weight = torch.ones(58, dtype=torch.float64)
    for skeleton in ("coco17", "h36m17", "smpl24"):
        shares, known = middle_of_hips(weight)
        assert known
        assert shares[BODY58.index(f"left_hip@{skeleton}")] == shares[BODY58.index(f"right_hip@{skeleton}")] == 0.5
        assert shares.sum() == 1
        weight[BODY58.index(f"left_hip@{skeleton}")] = 0
    assert not middle_of_hips(weight)[1]


def test_a_body_without_a_place_is_compared_with_its_annotation(model, bodies):
    people = people_of(model)
    seen = replace(people, placed=~people.placed, points=people.points + 5.0, weight=0.5 * people.weight)
    lesson = lesson_of(seen, bodies, 32)
    assert not lesson.labelled.any()
    torch.testing.assert_close(lesson.points, 2 * seen.points / CROP_PX - 1)
    torch.testing.assert_close(lesson.points_weight, seen.weight)
    behind_us = replace(people, params=replace(people.params, transl_m=people.params.transl_m * 0))
    lesson = lesson_of(behind_us, bodies)
    assert (lesson.points_weight < 1).any()
    assert (criterion_of(model, MeshLosses())(said_of(3), lesson, 0)["points"]).isfinite().all()


def test_a_pose_without_a_shape_teaches_no_joints_of_its_body(model, bodies):
    people = people_of(model)
    lesson = lesson_of(
        replace(people, shaped=~people.shaped, weight=0.5 * people.weight, joints_weight=people.weight * 0), bodies
    )
    assert lesson.posed.all()
    assert (lesson.joints_weight == 0).all()
    torch.testing.assert_close(lesson.points_weight, 0.5 * people.weight)


def test_each_gender_has_its_body(model):
    file = replace(model.file, v_template=model.file.v_template * 1.1)
    large = BodyModel(file, torch.float64)
    params = people_of(model).params
    bodies = Bodies({"neutral": model, "female": large})
    gender = torch.tensor([0, 2, 1])
    found = bodies.joints(params, gender)
    torch.testing.assert_close(found[[0, 2]], body_joints(model, params[[0, 2]]))
    torch.testing.assert_close(found[1], body_joints(large, params[1]))
    vertices = bodies.vertices(params, gender)
    torch.testing.assert_close(vertices[[0, 2]], model(params[[0, 2]]).vertices_m)
    torch.testing.assert_close(vertices[1], large(params[1]).vertices_m)
    people = replace(people_of(model), gender=gender)
    share = [(part_labels(one, people, 96) > 0).double().mean((-2, -1)) for one in (Bodies({"neutral": model}), bodies)]
    assert ((share[1] / share[0])[[0, 2]] == 1).all()
    assert float(share[1][1] / share[0][1]) == pytest.approx(1.21, abs=0.06)


def test_betas_of_another_body_tell_its_joints_alone(model):
    """A woman's betas mean nothing to the neutral body; where she has no body of her own, they are taken for its."""
    large = BodyModel(replace(model.file, v_template=model.file.v_template * 1.1), torch.float64)
    people, said = replace(people_of(model), gender=torch.tensor([0, 2, 1])), said_of(3)
    criterion, terms = criterion_of(model, MeshLosses()), []
    for bodies in (Bodies({"neutral": model}), Bodies({"neutral": model, "female": large})):
        terms.append(criterion(said, lesson_of(people, bodies), 0))
    assert (terms[0]["shape"] > 0).all()
    assert (terms[1]["shape"] > 0).tolist() == [True, False, True]
    assert (terms[1]["joints"] > 0).all()
    assert (terms[0]["joints"] != terms[1]["joints"]).tolist() == [False, True, False]


# ---- the terms


def test_the_crop_is_seen_as_the_weak_camera_says():
    points, weak = noise(2, 3, 5, 3), noise(2, 3, 3, seed=1) * 0.1 + torch.tensor([0.9, 0.0, 0.0])
    torch.testing.assert_close((on_crop(points, weak) + 1) * 112, crop_project(points, weak, 224))
    nowhere = torch.zeros(2, 3, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(on_crop(points, nowhere)[..., 0].sum(), nowhere)
    assert slope.isfinite().all()


@pytest.mark.parametrize("norm", ["mse", "l1"])
def test_joints_count_by_their_weights(norm):
    found, wanted = noise(2, 4, 3), noise(2, 4, 3, seed=1)
    weight = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    size = (found - wanted).square() if norm == "mse" else (found - wanted).abs()
    expected = (size[0, 0].mean() + 0.5 * size[0, 1].mean()) / 2
    torch.testing.assert_close(off(found, wanted, weight, norm), torch.stack([expected, expected * 0]))


def test_the_camera_is_kept_in_front():
    scale = torch.tensor([-2.0, -1e-9, 0.0, 1e-9, 0.1, 0.9], dtype=torch.float64, requires_grad=True)
    value = behind(scale)
    torch.testing.assert_close(value[2:].detach(), (-10 * scale[2:]).exp().square().detach())
    (slope,) = torch.autograd.grad(value.sum(), scale)
    torch.testing.assert_close(slope[1:4], torch.full((3,), -20.0, dtype=torch.float64), rtol=1e-6, atol=0)
    assert float(value[0].detach()) == pytest.approx(41.0)


@pytest.mark.parametrize("trouble", [math.nan, math.inf])
def test_an_answer_that_is_no_number_is_one_of_every_term_that_it_enters(trouble, model, bodies):
    """No index is made of it; the others are judged as ever."""
    said, lesson = said_of(3), lesson_of(people_of(model), bodies, 32)
    spoil = torch.tensor([1.0, trouble, 1.0], dtype=torch.float64)
    honest = criterion_of(model)(said, lesson, 0)
    camera = criterion_of(model)(replace(said, weak=said.weak * spoil[:, None]), lesson, 0)
    pose = criterion_of(model)(replace(said, rotations=said.rotations * spoil[:, None, None, None]), lesson, 0)
    for terms, spoiled in ((camera, {"points", "part_alignment"}), (pose, {"joints", "pose", "part_alignment"})):
        for name in spoiled:
            assert terms[name].isfinite().tolist() == [True, False, True], name
            torch.testing.assert_close(terms[name][[0, 2]], honest[name][[0, 2]])


def test_parts_are_what_the_pictures_show(model, bodies):
    people = people_of(model)
    labels = lesson_of(people, bodies, CROP_PX).labels
    seen = people.points[:, BODY58.indices(*(f"{joint}@smpl24" for joint in ("left_knee", "right_knee")))]
    parts = 1 + torch.tensor(SMPL24.indices("left_hip", "right_hip", "left_knee", "right_knee"))
    found = torch.stack([labels[n, int(y), int(x)] for n in range(3) for x, y in seen[n].tolist()]).view(3, 2)
    assert torch.isin(found, parts).all()
    left = found == parts[0], found == parts[2]
    assert (left[0] | left[1])[:, 0].all(), "the left knee is in the left leg"
    assert not (left[0] | left[1])[:, 1].any()
    assert 0.05 < (labels > 0).double().mean() < 0.6
    small = lesson_of(people, bodies, CROP_PX // 2).labels
    finer = labels.view(3, CROP_PX // 2, 2, CROP_PX // 2, 2)
    inside = (finer == finer[:, :, :1, :, :1]).all(-1).all(2)
    assert (small == finer[:, :, 0, :, 0])[inside].double().mean() > 0.995, "half as wide, the picture is the same"
    assert int(labels.min()) == 0
    assert int(labels.max()) <= 24


def test_maps_that_show_the_parts_are_right():
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, 2:6, 2:6] = 5
    logits = 50.0 * torch.nn.functional.one_hot(labels, 25).permute(0, 3, 1, 2).double()
    torch.testing.assert_close(mislabelled(logits, labels), torch.zeros(1, dtype=torch.float64), atol=1e-12, rtol=0)
    even = mislabelled(torch.zeros(1, 25, 4, 4, dtype=torch.float64), labels)
    torch.testing.assert_close(even, torch.full((1,), math.log(25), dtype=torch.float64))


def test_maps_are_scaled_up_about_the_centres_of_their_pixels():
    logits = torch.zeros(1, 25, 2, 2, dtype=torch.float64)
    logits[:, 1, :, 1] = 1.0
    across = torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=torch.float64)
    found = mislabelled(logits, torch.zeros(1, 4, 4, dtype=torch.long))
    torch.testing.assert_close(found, (24 + across.exp()).log().mean()[None])


def test_skin_is_compared_with_its_parts_where_the_camera_shows_it(model, bodies):
    """Seen by the network's own camera, the answer's skin is what the pinhole camera shows of the body."""
    focal_px, scale = CROP_FOCAL_PX * CROP_PX / CROP_FOCAL_AT_PX, 0.9
    people = people_of(model)
    depth_m = torch.full((3,), 2 * focal_px / (CROP_PX * scale), dtype=torch.float64)
    transl_m = torch.stack([0.1 * noise(3), 0.1 * noise(3, seed=1), depth_m], dim=-1)
    camera = replace(people.camera, focal_px=torch.full((3,), focal_px, dtype=torch.float64))
    people = replace(people, camera=camera, params=replace(people.params, transl_m=transl_m))
    said = said_of(3)
    answer = replace(said, weak=torch.cat([torch.full((3, 1), scale), transl_m[:, :2]], dim=-1))
    found = criterion_of(model, MeshLosses(part_alignment=1.0))(answer, lesson_of(people, bodies, CROP_PX), 0)

    params = BodyParams.from_rotations(said.rotations, said.betas, torch.zeros_like(transl_m))
    skin = skin_points(model, 16).posed(model.kinematics(params), params.betas, pose_features(params.rotations))
    points = skin.points_m + transl_m[:, None, None]
    seen_px = project(points.flatten(1, 2), camera).unflatten(1, points.shape[1:3])
    fragments = rasterize(model(people.params).vertices_m, model.faces, camera)
    masks = part_masks(vertex_labels(fragments, model.faces, model.parts))
    wanted = body_part_alignment(seen_px, skin.facing(transl_m), masks)
    torch.testing.assert_close(found["part_alignment"], wanted)


def test_parts_are_taught_until_their_step(model, bodies):
    weights = MeshLosses(parts=1.0, parts_until=5)
    assert [weights.labels_px(step, CROP_PX) for step in (0, 4, 5, 99)] == [CROP_PX, CROP_PX, 0, 0]
    assert MeshLosses(parts=1.0).labels_px(10**6, CROP_PX) == CROP_PX
    assert MeshLosses(part_alignment=1.0, parts_px=32).labels_px(0, CROP_PX) == 32
    people = people_of(model)
    for step in (4, 5):
        lesson = lesson_of(people, bodies, weights.labels_px(step, CROP_PX))
        assert bool((criterion_of(model, weights)(said_of(3), lesson, step)["parts"] > 0).all()) == (step < 5)


def test_weights_multiply_and_zero_leaves_out(model, bodies):
    lesson, said = lesson_of(people_of(model), bodies), said_of(3)
    plain = criterion_of(model, MeshLosses())(said, lesson, 0)
    more = criterion_of(model, MeshLosses(joints=10.0, shape=0.0, scale=60.0))(said, lesson, 0)
    assert plain.keys() - more.keys() == {"shape"}
    torch.testing.assert_close(more["joints"], 120 * plain["joints"])
    torch.testing.assert_close(more["pose"], 60 * plain["pose"])
    with pytest.raises(ValueError, match="joints is -1"):
        MeshLosses(joints=-1.0)
    with pytest.raises(ValueError, match=r"losses\.prior is 1\.0, and there is no pose prior"):
        MeshCriterion(MeshLosses(prior=1.0), model)


@pytest.mark.parametrize("rotations", ["flow", "gaussian"])
def test_the_prior_draws_towards_real_poses_and_never_hard(rotations, model, bodies):
    prior, lesson = open_prior(rotations), lesson_of(people_of(model), bodies)
    criterion = MeshCriterion(MeshLosses(prior=1.0), model, prior)
    sizes = []
    for spread in (0.0, 0.3, 1.0, 2.5):
        turns = (spread * noise(3, 24, 3)).requires_grad_()
        said = replace(said_of(3), rotations=roma.rotvec_to_rotmat(turns))
        term = criterion(said, lesson, 0)["prior"]
        sizes.append(float(term.detach().mean()))
        assert float(torch.autograd.grad(term.sum(), turns)[0].norm()) < 100
    assert sizes[0] < sizes[1] < sizes[2] < 30


def test_the_prior_asks_how_the_body_is_posed_and_not_how_it_stands(model, bodies):
    said, lesson = said_of(3), lesson_of(people_of(model), bodies)
    prior = open_prior("gaussian")
    term = MeshCriterion(MeshLosses(prior=1.0), model, prior)(said, lesson, 0)["prior"]
    torch.testing.assert_close(term, (1 + prior.energy(said.rotations[:, 1:]) / 34.5).log())


# ---- laws


def test_a_turned_crop_teaches_the_same(model, bodies):
    """All that is seen turns about the middle of the crop; so do the answers, and no error changes."""
    people, said, angle = people_of(model), said_of(3), 0.7
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, angle], dtype=torch.float64))
    middle = CROP_PX / 2
    root = turn @ people.params.root
    pelvis = body_joints(model, people.params)[:, BODY58.index("pelvis@smpl24")]
    transl_m = (turn @ pelvis[..., None])[..., 0] - (pelvis - people.params.transl_m)
    turned = replace(
        people,
        params=replace(people.params, root=root, transl_m=transl_m),
        points=(people.points - middle) @ turn[:2, :2].mT + middle,
        joints_m=people.joints_m @ turn.mT,
    )
    rest = model.rest_template[0] + said.betas @ model.rest_directions[0].mT[: said.betas.shape[-1]]
    along = rest - (turn @ rest[..., None])[..., 0]
    t = torch.cat([said.weak[:, 1:], 2 * 5000 / 224 / said.weak[:, :1]], dim=-1)
    t = (turn @ t[..., None])[..., 0] - along
    weak = torch.cat([2 * 5000 / 224 / t[:, 2:], t[:, :2]], dim=-1)
    rotations = torch.cat([turn @ said.rotations[:, :1], said.rotations[:, 1:]], dim=1)
    answer = replace(said, rotations=rotations, weak=weak)
    for flat in (lambda one: one, in_2d_alone):
        before = criterion_of(model, MeshLosses())(said, lesson_of(flat(people), bodies), 0)
        after = criterion_of(model, MeshLosses())(answer, lesson_of(flat(turned), bodies), 0)
        for name, term in before.items():
            torch.testing.assert_close(after[name], term, rtol=1e-8, atol=1e-10, msg=lambda text, at=name: at + text)


def test_a_mirror_image_teaches_the_same(model, bodies):
    """A sided body's mirror image is another body, so the terms of joints are close, and those of pose are equal."""
    people = people_of(model)
    again = people.mirrored().mirrored()
    first, second = (lesson_of(one, bodies) for one in (people, again))
    torch.testing.assert_close(first.points, second.points, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(first.joints_m, second.joints_m, rtol=1e-6, atol=1e-6)
    mirror = list(BODY58.mirror)
    flipped = lesson_of(people.mirrored(), bodies)
    reflected = torch.stack([-first.points[..., 0], first.points[..., 1]], dim=-1)[:, mirror]
    assert (flipped.points - reflected).abs().max() < 0.02


def test_gradients_are_finite_differences(model, bodies):
    """But for the two alignments, which take part of what they depend on for fixed."""
    lesson = lesson_of(people_of(model, 2), bodies, 32)
    criterion = criterion_of(model, replace(ALL, part_alignment=0.0, keypoint_alignment=0.0))
    turns, betas, weak = 0.3 * noise(2, 24, 3, seed=4), noise(2, 10, seed=5), said_of(2).weak.detach()
    logits = noise(2, 25, 8, 8)

    def total(turns: Tensor, betas: Tensor, weak: Tensor) -> Tensor:
        said = Regressed(roma.rotvec_to_rotmat(turns), betas, weak, logits)
        return torch.stack(list(criterion(said, lesson, 0).values())).sum()

    at = [value.clone().requires_grad_() for value in (turns, betas, weak)]
    slopes = torch.autograd.grad(total(*at), at)
    for place, slope in enumerate(slopes):
        way = noise(*slope.shape, seed=9 + place)
        ends = [
            [v + (s * 1e-6 * way if i == place else 0) for i, v in enumerate((turns, betas, weak))] for s in (1, -1)
        ]
        difference = (total(*ends[0]) - total(*ends[1])) / 2e-6
        torch.testing.assert_close((slope * way).sum(), difference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)])
def test_any_batch_of_joints_has_its_middle(batch):
    joints = noise(*batch, 58, 3)
    shares, known = middle_of_hips(torch.ones(*batch, 58, dtype=torch.float64))
    assert known.shape == batch
    centred = about_hips(joints, shares)
    hips = BODY58.indices("left_hip@coco17", "right_hip@coco17")
    torch.testing.assert_close(centred[..., hips, :].mean(-2), torch.zeros(*batch, 3, dtype=torch.float64))
    torch.testing.assert_close(centred - centred[..., :1, :], joints - joints[..., :1, :])
