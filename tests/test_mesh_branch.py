"""The mesh branch: a network that knows the truth of its crop gives the true body, in the photograph's own camera."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch

from meshrec.body import load_body_model
from meshrec.branches.fit import GIVEN_START, FitBranch, FitConfig
from meshrec.branches.mesh import (
    PARTS_OF,
    MeshBranch,
    MeshConfig,
    Sight,
    attention_confidence,
    mean_of,
    mirrored,
    no_keypoints,
)
from meshrec.branches.mesh_fit import REFINING, MeshFitBranch
from meshrec.branches.registry import (
    MESH_BUILDERS,
    MeshChoice,
    Several,
    ask,
    branch_names,
    build_branch,
    refined,
    usual_branch,
)
from meshrec.camera import camera_from_body_axes, centered_camera, project
from meshrec.data.crop import square_of
from meshrec.errors import MeshrecError
from meshrec.models.mesh_file import write_regressor
from meshrec.models.part_attention import Regressed
from meshrec.models.regressor import MeshNetConfig, MeshRegressor
from meshrec.photo import Photo
from meshrec.prior_files import open_prior
from meshrec.skeletons import COCO17, H36M17, SMPL24
from meshrec.types import BodyParams, Crop, Estimate, Keypoints, Person, Square, stack
from meshrec.weak_perspective import crop_focal_px, crop_project

WIDTH, HEIGHT, FOCAL_PX = 640, 480, 700.0
CAMERA = centered_camera(WIDTH, HEIGHT, FOCAL_PX, "given")
CONFIG = MeshNetConfig(backbone="hrnet_w18", crop_px=64)
BATCHES = [(), (1,), (3,), (2, 3)]


@pytest.fixture(scope="module")
def model():
    return load_body_model()


@pytest.fixture(scope="module")
def network():
    """A new network whose norms know its features, so that its answers are bodies."""
    network = MeshRegressor(CONFIG, torch.Generator().manual_seed(0)).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    return network.eval()


def people_of(count, seed=0):
    """People in different poses who face the camera, at different places of the picture."""
    generator = torch.Generator().manual_seed(seed)
    rotations = roma.rotvec_to_rotmat(0.3 * torch.randn(count, 24, 3, generator=generator))
    rotations[:, 0] = camera_from_body_axes() @ rotations[:, 0]
    places = torch.tensor([[-0.6, 0.1, 4.0], [0.7, 0.2, 5.0], [0.0, -0.1, 3.5]])
    betas = torch.randn(count, 10, generator=generator)
    return BodyParams.from_rotations(rotations, betas, places[torch.arange(count) % len(places)])


def persons_of(params, model):
    """The same people as a detector sees them."""
    xy_px = project(model.regressed(params, COCO17), CAMERA)
    boxes = torch.cat([xy_px.amin(1) - 15, xy_px.amax(1) + 15], dim=-1)
    return [
        Person(box, 1.0, Keypoints(xy, torch.ones(len(COCO17)), COCO17)) for box, xy in zip(boxes, xy_px, strict=True)
    ]


def weak_of(params, persons, model):
    """The crop's camera that shows the pelvis where the photograph does, and as large."""
    square = square_of(torch.stack([person.box_xyxy_px for person in persons]))
    pelvis_m = model.kinematics(params).joints_m[:, SMPL24.index("pelvis")]
    root_m = pelvis_m + params.transl_m
    focal_px = crop_focal_px(CONFIG.crop_px)
    depth_m = root_m[:, 2] / FOCAL_PX * focal_px * square.side_px / CONFIG.crop_px
    shown = square.into(project(root_m[:, None], CAMERA), CONFIG.crop_px)[:, 0]
    across_m = (shown - CONFIG.crop_px / 2) / focal_px * depth_m[:, None] - pelvis_m[:, :2]
    return torch.cat([(2 * focal_px / CONFIG.crop_px / (depth_m - pelvis_m[:, 2]))[:, None], across_m], dim=-1)


class Knowing:
    """A network that answers the next people in turn, whatever it is shown."""

    config = CONFIG

    def __init__(self, rotations, weak, betas, part_logits=None):
        self.answers = Regressed(
            rotations, betas, weak, torch.zeros(len(weak), 25, 8, 8) if part_logits is None else part_logits
        )
        self.asked, self.sizes = 0, []

    def __call__(self, image):
        rows = slice(self.asked, self.asked + len(image))
        self.asked += len(image)
        self.sizes.append(len(image))
        return self.answers[rows]


def sharp(people, row, column, grid=8):
    """Part maps that look at one cell."""
    logits = torch.zeros(people, 25, grid, grid)
    logits[:, :, row, column] = 50.0
    return logits


def knowing(params, persons, model, **changed):
    return Knowing(params.rotations, weak_of(params, persons, model), params.betas, **changed)


def blank():
    return Photo(np.full((HEIGHT, WIDTH, 3), 128, np.uint8), Path("blank.png"))


@pytest.mark.parametrize("translation", ["keypoints", "network"])
def test_who_knows_the_truth_gives_the_true_body_in_its_place(model, translation):
    params = people_of(3)
    persons = persons_of(params, model)
    branch = MeshBranch(knowing(params, persons, model), model, MeshConfig(translation=translation))
    estimate = branch(blank(), persons, CAMERA)
    true17 = model.regressed(params, H36M17)
    pelvis = true17[:, H36M17.index("pelvis")]
    assert estimate.branch == "mesh" and estimate.report is None
    assert torch.allclose(estimate.joints17_m, true17 - pelvis[:, None], atol=1e-5)
    assert estimate.params is not None and torch.allclose(estimate.params.rotations, params.rotations, atol=1e-6)
    far = {"keypoints": 2e-3, "network": 1e-4}[translation]
    assert (estimate.params.transl_m - params.transl_m).norm(dim=-1).max() < far
    assert estimate.root_m is not None and (estimate.root_m - pelvis).norm(dim=-1).max() < far
    assert estimate.body is not None and estimate.camera is not None and estimate.camera.focal_px.shape == (3,)
    assert (estimate.body.vertices_m - model(params).vertices_m).norm(dim=-1).max() < 2 * far


def test_the_network_s_own_pelvis_stays_within_a_thousandth_of_a_pixel(model):
    params = people_of(3)
    persons = persons_of(params, model)
    weak = weak_of(params, persons, model) * torch.tensor([1.1, 1.0, 1.0]) + torch.tensor([0.0, 0.05, -0.08])
    network = Knowing(params.rotations, weak, params.betas)
    estimate = MeshBranch(network, model, MeshConfig(translation="network"))(blank(), persons, CAMERA)
    pelvis_m = model.kinematics(params).joints_m[:, SMPL24.index("pelvis")]
    square = square_of(torch.stack([person.box_xyxy_px for person in persons]))
    shown = square.back(crop_project(pelvis_m[:, None], weak, CONFIG.crop_px), CONFIG.crop_px)
    assert estimate.params is not None
    assert (project((pelvis_m + estimate.params.transl_m)[:, None], CAMERA) - shown).abs().max() < 1e-3


def test_keypoints_place_the_body_where_the_network_is_wrong(model):
    params = people_of(3)
    persons = persons_of(params, model)
    wrong = weak_of(params, persons, model) * torch.tensor([0.7, 1.0, 1.0]) + torch.tensor([0.0, 0.3, 0.3])
    placed = MeshBranch(Knowing(params.rotations, wrong, params.betas), model, MeshConfig())(blank(), persons, CAMERA)
    assert placed.params is not None
    assert (placed.params.transl_m - params.transl_m).norm(dim=-1).max() < 2e-3


def test_without_keypoints_the_network_s_own_joints_place_the_body(model):
    params = people_of(3)
    persons = persons_of(params, model)
    unseen = [replace(each, keypoints=no_keypoints(3)[index]) for index, each in enumerate(persons)]
    estimate = MeshBranch(knowing(params, persons, model), model, MeshConfig())(blank(), unseen, CAMERA)
    assert estimate.params is not None
    error_m = estimate.params.transl_m - params.transl_m
    assert (error_m[:, :2].norm(dim=-1) < 0.05).all() and (error_m[:, 2].abs() < 0.25).all()
    alone = unseen[:1] + persons[1:]
    mixed = MeshBranch(knowing(params, persons, model), model, MeshConfig())(blank(), alone, CAMERA)
    assert mixed.params is not None and torch.allclose(mixed.params.transl_m[0], estimate.params.transl_m[0], atol=1e-5)
    assert (mixed.params.transl_m[1:] - params.transl_m[1:]).norm(dim=-1).max() < 2e-3


def test_three_keypoints_of_a_face_are_too_few(model):
    params = people_of(1)
    persons = persons_of(params, model)
    confidence = torch.zeros(len(COCO17))
    confidence[COCO17.indices("nose", "left_eye", "right_eye", "left_ear", "right_ear")] = 1.0
    keypoints = replace(persons[0].keypoints, confidence=confidence, xy_px=persons[0].keypoints.xy_px + 40)
    face = [replace(persons[0], keypoints=keypoints)]
    estimate = MeshBranch(knowing(params, persons, model), model, MeshConfig())(blank(), face, CAMERA)
    assert estimate.params is not None and (estimate.params.transl_m - params.transl_m)[:, :2].abs().max() < 0.05


def test_a_keypoint_that_is_not_sure_places_nothing(model):
    params = people_of(1)
    keypoints = persons_of(params, model)[0].keypoints
    confidence, xy_px, wrong = keypoints.confidence.clone(), keypoints.xy_px.clone(), COCO17.index("left_ankle")
    confidence[wrong], xy_px[wrong] = 0.2, xy_px[wrong] + 300
    persons = [replace(each, keypoints=Keypoints(xy_px, confidence, COCO17)) for each in persons_of(params, model)]
    estimate = MeshBranch(knowing(params, persons, model), model, MeshConfig())(blank(), persons, CAMERA)
    assert estimate.params is not None
    assert (estimate.params.transl_m - params.transl_m).norm() < 2e-3


def test_keypoints_of_another_pose_leave_the_network_s_place(model):
    """The detector has the body upside down: it would stand behind the camera."""
    params = people_of(1)
    persons = persons_of(params, model)
    xy_px = persons[0].keypoints.xy_px
    turned = [replace(persons[0], keypoints=replace(persons[0].keypoints, xy_px=xy_px.mean(0) * 2 - xy_px))]
    weak = weak_of(params, persons, model) + torch.tensor([0.0, 0.2, 0.1])
    placed, own = (
        MeshBranch(Knowing(params.rotations, weak, params.betas), model, MeshConfig(translation))
        for translation in ("keypoints", "network")
    )
    estimate, expected = placed(blank(), turned, CAMERA).params, own(blank(), turned, CAMERA).params
    assert estimate is not None and expected is not None
    assert torch.allclose(estimate.transl_m, expected.transl_m, atol=1e-5)


def test_a_turned_crop_shows_the_same_body(model):
    """The crop's root is turned with it, and turned back for the photograph."""
    params, angle_rad = people_of(2), torch.tensor([0.4, -0.7])
    persons = persons_of(params, model)
    upright = square_of(torch.stack([person.box_xyxy_px for person in persons]))
    square = Square(upright.center_px, upright.side_px, angle_rad)
    turn = roma.rotvec_to_rotmat(angle_rad[:, None] * torch.tensor([0.0, 0.0, 1.0]))
    rotations = torch.cat([(turn @ params.root)[:, None], params.pose], dim=1)
    weak = weak_of(params, persons, model)
    network = Knowing(rotations, weak, params.betas)
    crop = Crop(torch.zeros(2, 3, 64, 64), square)
    cameras = CAMERA.map(lambda tensor: tensor.expand(2, *tensor.shape))
    keypoints = stack([person.keypoints for person in persons])
    estimate = MeshBranch(network, model, MeshConfig()).estimate(crop, cameras, keypoints)
    assert estimate.params is not None and torch.allclose(estimate.params.root, params.root, atol=1e-5)
    assert (estimate.params.transl_m - params.transl_m).norm(dim=-1).max() < 2e-3


def test_many_photographs_at_once_are_each_alone(model, network):
    params = people_of(3)
    persons = persons_of(params, model)
    noise = np.random.default_rng(0).integers(0, 255, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    photos = [Photo(pixels, Path(f"{index}.png")) for index, pixels in enumerate(noise)]
    sights = [
        Sight(photos[0], persons[:2], CAMERA),
        Sight(photos[1], persons[2:], CAMERA),
        Sight(photos[2], persons, CAMERA),
    ]
    branch = MeshBranch(network, model, MeshConfig(people_at_once=4))
    together = branch.several(sights)
    assert isinstance(branch, Several) and [len(each.joints17_m) for each in together] == [2, 1, 3]
    for sight, estimate in zip(sights, together, strict=True):
        alone = branch(sight.photo, sight.people, sight.camera)
        assert torch.allclose(estimate.joints17_m, alone.joints17_m, rtol=1e-3, atol=1e-4)
        assert torch.allclose(estimate.confidence, alone.confidence, atol=1e-4)


def test_the_network_is_asked_for_a_few_at_a_time(model):
    params = people_of(3)
    persons = persons_of(params, model)
    stub = knowing(params, persons, model)
    MeshBranch(stub, model, MeshConfig(people_at_once=2)).several([Sight(blank(), persons, CAMERA)])
    assert stub.sizes == [2, 1]


@pytest.mark.parametrize("box", [[float("nan"), 0, 10, 10], [50, 50, 50, 90]])
def test_a_person_without_a_box_has_no_answer_and_costs_the_others_nothing(model, box):
    params = people_of(2)
    persons = persons_of(params, model)
    broken = [persons[0], replace(persons[1], box_xyxy_px=torch.tensor([float(value) for value in box]))]
    estimate = MeshBranch(knowing(params, persons, model), model, MeshConfig())(blank(), broken, CAMERA)
    assert estimate.joints17_m[0].isfinite().all() and estimate.joints17_m[1].isnan().all()


@pytest.mark.parametrize("batch", BATCHES)
def test_attention_is_sure_where_it_is_sharp_and_in_the_photograph(batch):
    inside = torch.ones(*batch, 4, 8, dtype=torch.bool)
    inside[..., 6:] = False
    even = torch.full((*batch, 24, 4, 8), 1 / 32, dtype=torch.float64)
    assert torch.allclose(attention_confidence(even, inside), torch.zeros(*batch, 24, dtype=torch.float64))
    point = torch.zeros_like(even)
    point[..., 0, 1, 2], point[..., 1:, 1, 7] = 1.0, 1.0
    sure = attention_confidence(point, inside)
    assert sure.shape == (*batch, 24)
    assert torch.allclose(sure[..., 0], torch.tensor(1 - 1 / 32, dtype=torch.float64)) and (sure[..., 1:] == 0).all()
    four = torch.zeros_like(even)
    four[..., 0, 2:6] = 0.25
    assert torch.allclose(attention_confidence(four, inside), torch.tensor(1 - 4 / 32, dtype=torch.float64))


def test_what_a_crop_shows_beyond_the_photograph_is_not_looked_at(model):
    """A cell counts where its middle lies in the photograph: the crop begins 27 px left of it and 22 px above."""
    square = Square(torch.tensor([[5.0, 10.0]]), torch.tensor([64.0]), torch.zeros(1))
    for row, column, seen in ((3, 3, True), (3, 2, False), (2, 3, False), (7, 7, True), (7, 2, False), (2, 7, False)):
        stub = Knowing(torch.eye(3).expand(1, 24, 3, 3), torch.ones(1, 3), torch.zeros(1, 10), sharp(1, row, column))
        crop = Crop(torch.zeros(1, 3, 64, 64), square)
        looked = MeshBranch(stub, model, MeshConfig())._read(crop, torch.tensor([[64.0, 64.0]])).looked
        assert (looked > 0.9).all() if seen else (looked < 1e-6).all(), (row, column)


def test_a_person_whom_the_network_sees_behind_the_camera_stands_before_it(model):
    params = people_of(1)
    persons = [replace(each, keypoints=no_keypoints(1)[0]) for each in persons_of(params, model)]
    stub = Knowing(params.rotations, torch.tensor([[-0.3, 0.0, 0.0]]), params.betas)
    estimate = MeshBranch(stub, model, MeshConfig(translation="network"))(blank(), persons, CAMERA)
    assert estimate.root_m is not None and estimate.root_m[0, 2] > 0 and estimate.joints17_m.isfinite().all()


def test_every_joint_has_a_part_that_shows_it():
    assert all(part in SMPL24.joints for parts in PARTS_OF.values() for part in parts)
    assert {joint for joint in H36M17.joints if joint not in SMPL24.joints} == set(PARTS_OF)


def test_a_joint_is_as_sure_as_its_keypoint_and_its_part(model):
    params = people_of(1)
    persons = persons_of(params, model)
    confidence = torch.ones(len(COCO17))
    confidence[COCO17.index("left_wrist")] = 0.0
    confidence[COCO17.index("right_ankle")] = 0.5
    logits = sharp(1, 4, 4)
    logits[:, 1 + SMPL24.index("left_knee")] = 0.0
    seen = [replace(persons[0], keypoints=replace(persons[0].keypoints, confidence=confidence))]
    estimate = MeshBranch(knowing(params, persons, model, part_logits=logits), model, MeshConfig())(
        blank(), seen, CAMERA
    )
    sure = dict(zip(H36M17.joints, estimate.confidence[0].tolist(), strict=True))
    assert sure["left_wrist"] == 0 and sure["left_knee"] == pytest.approx(0.0, abs=1e-5)
    assert sure["right_ankle"] == pytest.approx(0.5 * sure["left_ankle"]) and sure["left_ankle"] > 0.9
    unsure = {joint for joint, seen in zip(H36M17.joints, estimate.seen[0].tolist(), strict=True) if not seen}
    assert unsure == {"left_wrist", "left_knee"}


def test_without_keypoints_what_lies_outside_the_photograph_is_not_seen(model):
    params = people_of(1)
    params = replace(params, transl_m=torch.tensor([[0.0, 1.3, 2.5]]))
    persons = persons_of(params, model)
    boxed = [replace(persons[0], keypoints=no_keypoints(1)[0])]
    logits = sharp(1, 2, 4)
    branch = MeshBranch(knowing(params, persons, model, part_logits=logits), model, MeshConfig())
    seen = dict(zip(H36M17.joints, branch(blank(), boxed, CAMERA).seen[0].tolist(), strict=True))
    assert seen["head_top"] and not seen["left_ankle"] and not seen["right_ankle"]


def test_the_mirror_image_of_a_mirror_image_is_the_picture():
    generator = torch.Generator().manual_seed(0)
    answer = Regressed(
        roma.random_rotmat((2, 24), generator=generator),
        torch.randn(2, 10),
        torch.randn(2, 3),
        torch.randn(2, 25, 4, 6),
    )
    once, twice = mirrored(answer), mirrored(mirrored(answer))
    for name in ("rotations", "betas", "weak", "part_logits"):
        assert torch.allclose(getattr(twice, name), getattr(answer, name), atol=1e-6)
    assert torch.allclose(
        roma.rotmat_to_rotvec(once.rotations)[:, SMPL24.index("left_knee"), 0],
        roma.rotmat_to_rotvec(answer.rotations)[:, SMPL24.index("right_knee"), 0],
        atol=1e-4,
    )
    assert torch.allclose(
        once.attention[:, SMPL24.index("left_foot"), :, 0], answer.attention[:, SMPL24.index("right_foot"), :, -1]
    )
    middle = mean_of(answer, once)
    assert torch.allclose(mirrored(middle).rotations, middle.rotations, atol=1e-5)
    assert torch.allclose(torch.linalg.det(middle.rotations), torch.ones(2, 24), atol=1e-5)
    assert torch.allclose(mean_of(answer, answer).rotations, answer.rotations, atol=1e-5)


def test_a_mirrored_body_is_the_body_in_a_mirror(model):
    params = people_of(2)
    weak = torch.tensor([[0.9, 0.2, -0.1], [0.7, -0.4, 0.3]])
    answer = Regressed(params.rotations, torch.zeros(2, 10), weak, torch.zeros(2, 25, 2, 2))
    joints, image = (
        model.joints24(BodyParams.from_rotations(each.rotations, each.betas, torch.zeros(2, 3)))
        for each in (answer, mirrored(answer))
    )
    expected = joints[:, SMPL24.mirror] * torch.tensor([-1.0, 1.0, 1.0])
    assert (image - expected).norm(dim=-1).max() < 0.01
    shown, mirror = crop_project(joints, weak, 64), crop_project(expected, mirrored(answer).weak, 64)
    in_mirror = torch.stack([64 - mirror[..., 0], mirror[..., 1]], dim=-1)
    assert torch.allclose(in_mirror, shown[:, SMPL24.mirror], atol=1e-2)


def test_with_the_mirror_image_the_answer_to_it_is_the_mirrored_answer(model, network):
    """Averaging makes a network fair: what it says of the mirror image mirrors what it says of the picture."""
    branch = MeshBranch(network, model, MeshConfig(flip=True))
    square = Square(torch.tensor([[WIDTH / 2, HEIGHT / 2]]), torch.tensor([300.0]), torch.zeros(1))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    size_px = torch.tensor([[float(WIDTH), float(HEIGHT)]])
    read, other = (branch._read(Crop(picture, square), size_px) for picture in (image, image.flip(-1)))
    again = mirrored(Regressed(other.rotations, other.betas, other.weak, torch.zeros(1, 25, 2, 2)))
    assert torch.allclose(read.rotations, again.rotations, atol=1e-3)
    assert torch.allclose(read.weak, again.weak, rtol=1e-3, atol=1e-3)
    assert torch.allclose(read.looked, other.looked[:, SMPL24.mirror], atol=1e-3)


@pytest.mark.parametrize(("config", "left"), [(FitConfig(), 0.5), (REFINING, 0.7)], ids=["fit", "refining"])
def test_a_fit_goes_on_from_the_network_s_body(config, left, model):
    """The network is somewhat wrong; the keypoints show where."""
    params = people_of(2)
    persons = persons_of(params, model)
    shaken = params.rotations @ roma.rotvec_to_rotmat(
        0.15 * torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(1))
    )
    network = Knowing(
        shaken.repeat(2, 1, 1, 1), weak_of(params, persons, model).repeat(2, 1), params.betas.repeat(2, 1)
    )
    mesh = MeshBranch(network, model, MeshConfig())
    fitted = MeshFitBranch(mesh, FitBranch(model, open_prior("gaussian"), config))(blank(), persons, CAMERA)
    read = mesh(blank(), persons, CAMERA)
    assert fitted.branch == "mesh+fit" and fitted.report is not None
    assert (fitted.report.start == GIVEN_START).all() and fitted.report.solvable.all()
    seen = torch.stack([person.keypoints.xy_px for person in persons])
    assert fitted.params is not None and read.params is not None
    before, after = (
        (project(model.regressed(each, COCO17), CAMERA) - seen).norm(dim=-1).mean()
        for each in (read.params, fitted.params)
    )
    assert after < left * before
    assert torch.equal(fitted.confidence, read.confidence)


def test_refining_trusts_the_network_where_a_detector_errs(model):
    """Joints that are off by a few hundredths of the person, as detectors' are, turn a true body by little."""
    params = people_of(2)
    persons = persons_of(params, model)
    network = knowing(params, persons, model)
    random = torch.Generator().manual_seed(3)
    for index, person in enumerate(persons):
        xy_px = person.keypoints.xy_px
        off_px = 0.03 * (xy_px.amax(0) - xy_px.amin(0)).amax() * torch.randn(xy_px.shape, generator=random)
        persons[index] = replace(person, keypoints=replace(person.keypoints, xy_px=xy_px + off_px))
    turned = {}
    for name, config in {"refining": REFINING, "fit": FitConfig()}.items():
        mesh = MeshBranch(copy.deepcopy(network), model, MeshConfig())
        fitted = MeshFitBranch(mesh, FitBranch(model, open_prior("gaussian"), config))(blank(), persons, CAMERA)
        assert fitted.params is not None
        turned[name] = roma.rotmat_geodesic_distance(fitted.params.rotations, params.rotations).mean()
    assert turned["refining"] < 0.5 * turned["fit"] and turned["refining"] < 0.06


def test_photographs_are_fitted_together_as_each_is_alone(model):
    """Of other cameras, of other numbers of people, with and without 3D landmarks."""
    params = people_of(4)
    persons = persons_of(params, model)
    landmarks_m = model.regressed(params, COCO17)
    persons[2:] = [
        replace(person, keypoints=replace(person.keypoints, landmarks_m=each))
        for person, each in zip(persons[2:], landmarks_m[2:], strict=True)
    ]
    other = replace(CAMERA, width_px=700, focal_px=CAMERA.focal_px * 1.1)
    people = (persons[:1], persons[1:2], persons[2:])
    sights = [Sight(blank(), some, camera) for some, camera in zip(people, (CAMERA, other, CAMERA), strict=True)]
    shaken = params.rotations @ roma.rotvec_to_rotmat(0.1 * torch.ones(4, 24, 3))
    weak, fit = weak_of(params, persons, model), FitBranch(model, None, REFINING)

    def branch(rows) -> MeshFitBranch:
        return MeshFitBranch(
            MeshBranch(Knowing(shaken[rows], weak[rows], params.betas[rows]), model, MeshConfig()), fit
        )

    together = branch(slice(None)).several(sights)
    rows = (slice(0, 1), slice(1, 2), slice(2, 4))
    for sight, estimate, row in zip(sights, together, rows, strict=True):
        alone = branch(row)(sight.photo, sight.people, sight.camera)
        torch.testing.assert_close(estimate.joints17_m, alone.joints17_m, atol=1e-3, rtol=0)
        assert estimate.camera is not None and estimate.camera.width_px == sight.camera.width_px
        assert (estimate.camera.focal_px == sight.camera.focal_px).all()
        assert estimate.report is not None and estimate.report.iterations.min() > 0


@pytest.mark.parametrize("seen", [(), ("nose", "left_eye", "right_eye", "left_ear", "right_ear")])
def test_who_has_too_few_keypoints_is_not_fitted(model, seen):
    params = people_of(2)
    persons = persons_of(params, model)
    confidence = torch.zeros(len(COCO17))
    confidence[COCO17.indices(*seen)] = 1.0
    persons[1] = replace(persons[1], keypoints=replace(persons[1].keypoints, confidence=confidence))
    sight = [Sight(blank(), persons, CAMERA)]
    truth = people_of(2)
    mesh = MeshBranch(knowing(truth, persons_of(truth, model), model), model, MeshConfig())
    estimate = MeshFitBranch(mesh, FitBranch(model, None, FitConfig())).several(sight)[0]
    assert estimate.params is not None and estimate.report is not None
    assert torch.allclose(estimate.params.rotations[1], params.rotations[1], atol=1e-5)
    assert estimate.report.solvable.tolist() == [True, True] and estimate.report.iterations[1] == 0
    assert estimate.report.terms.keypoints.isfinite().tolist() == [True, False]
    apart = [Sight(blank(), [person], CAMERA) for person in persons]
    mesh = MeshBranch(knowing(truth, persons_of(truth, model), model), model, MeshConfig())
    each = MeshFitBranch(mesh, FitBranch(model, None, FitConfig())).several(apart)
    assert each[1].report is not None and each[1].report.iterations[0] == 0, "nor in a second photograph"


def test_the_registry_builds_the_mesh_branches_from_a_file(model, network, tmp_path):
    file = write_regressor(tmp_path / "small.safetensors", network)
    for name in MESH_BUILDERS:
        branch = build_branch(name, model, "none", MeshChoice(str(file)))
        assert branch.name == name and name in branch_names()
    with pytest.raises(MeshrecError, match="leave them"):
        build_branch("fit", model, "none", MeshChoice(str(file)))
    assert refined("mesh") == refined("mesh+fit") == "mesh+fit"
    with pytest.raises(MeshrecError, match="--refine"):
        refined("lift")


def test_bodies_that_the_shipped_network_does_not_know_are_fitted(model, tmp_path):
    assert usual_branch(model, MeshChoice()) == "mesh+fit"
    copied = shutil.copy(model.file.path, tmp_path / "neutral.npz")
    other = load_body_model(str(copied))
    assert usual_branch(other, MeshChoice()) == "fit"
    assert usual_branch(other, MeshChoice("a network that was taught it")) == "mesh+fit"


def test_the_regressor_named_mesh_needs_no_name(model, network, tmp_path, monkeypatch):
    monkeypatch.setenv("MESHREC_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    write_regressor(tmp_path / "weights" / "mesh.safetensors", network)
    assert build_branch("mesh", model, "none").name == "mesh"


def test_the_precision_is_that_of_the_network(model, network):
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        branch = MeshBranch(network, model, MeshConfig(precision=precision))
        assert isinstance(branch.network, torch.nn.Module)
        assert branch.network.get_submodule("network.backbone.conv1").weight.dtype == dtype


def test_one_bad_sight_does_not_lose_the_others(model):
    class Moody:
        name = "moody"

        def __call__(self, photo, people, camera):
            if photo.path.name == "bad.png":
                raise MeshrecError("a bad photograph")
            return Estimate(photo.path.name, torch.zeros(0, 17, 3), torch.zeros(0, 17), torch.zeros(0, 17).bool())

        def several(self, sights):
            return [self(sight.photo, sight.people, sight.camera) for sight in sights]

    sights = [Sight(replace(blank(), path=Path(name)), (), CAMERA) for name in ("a.png", "bad.png", "c.png")]
    first, bad, last = ask(Moody(), sights)
    assert isinstance(first, Estimate) and isinstance(last, Estimate) and isinstance(bad, MeshrecError)
    assert (first.branch, last.branch) == ("a.png", "c.png")
