"""Body parts: points that ride on the skin, masks that lose nothing, exact derivatives, and what must not matter."""

import importlib
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest
import roma
import torch
from torch import Tensor

from meshrec.assets import load_body_file
from meshrec.body import BodyModel
from meshrec.branches.fit import FitBranch, FitConfig
from meshrec.camera import camera_from_body_axes, project
from meshrec.kinematics import pose_features
from meshrec.losses import body_part_alignment, keypoint_alignment
from meshrec.minimize import MinimizeConfig, minimize
from meshrec.objective import Objective, ObjectiveConfig, Observations, PartSight, _projected_points, retract
from meshrec.part_alignment import NOISE_SHARE, OUTLIER, PartEvidence, alignment_energy, alignment_pull
from meshrec.part_masks import GRID, PARTS14, PARTS24, PartMasks, PartSet, part_masks
from meshrec.rasterize import rasterize
from meshrec.shading import vertex_labels, vertex_normals
from meshrec.skeletons import H36M17, SMPL24
from meshrec.skin_points import SkinPoints, skin_points
from meshrec.types import BodyParams, Camera, Keypoints

TOOLS = Path(__file__).parent.parent / "tools"
BATCHES = [(), (1,), (3,), (2, 3)]
PEOPLE = 3
SIZE = 256
POINTS = 12


def camera_of(*batch: int) -> Camera:
    focal = torch.full(batch, 360.0, dtype=torch.float64)
    return Camera(focal, torch.full((*batch, 2), SIZE / 2, dtype=torch.float64), SIZE, SIZE, "true")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Scene:
    """Three people from three sides, what is seen of their parts, and where their points are in the picture."""

    model: BodyModel
    params: BodyParams
    labels: Tensor
    masks: PartMasks
    skin: SkinPoints

    def points(self, params: BodyParams) -> tuple[Tensor, Tensor]:
        posed = self.skin.posed(self.model.kinematics(params), params.betas, pose_features(params.rotations))
        focal_px = camera_of(len(params.betas)).focal_px
        return _projected_points(posed, params.transl_m, focal_px)[0] + SIZE / 2, posed.facing(params.transl_m)

    def evidence(self, masks: PartMasks | None = None) -> PartEvidence:
        masks = (masks or self.masks).to(torch.float64)
        return PartEvidence(masks, NOISE_SHARE * masks.size_px, torch.arange(len(masks.size_px)))

    def objective(self, shape_weight: float = 0.0, parts_weight: float = 1.0) -> Objective:
        """Of parts and shape alone: the joints have no weight."""
        evidence = self.evidence()
        evidence = replace(evidence, masks=evidence.masks.about(camera_of(PEOPLE).center_px))
        nothing = torch.zeros(PEOPLE, len(H36M17), 3, dtype=torch.float64)
        ones = torch.ones(PEOPLE, dtype=torch.float64)
        seen = Observations(nothing[..., :2], nothing[..., 0], 2 * ones, 360 * ones, nothing, nothing[..., 0])
        settings = ObjectiveConfig(shape_weight=shape_weight, parts_weight=parts_weight)
        return Objective(self.model, None, H36M17, seen, settings, PartSight(evidence, self.skin))


def labels_of(model: BodyModel, params: BodyParams) -> Tensor:
    pictures = []
    for person in range(len(params.betas)):
        fragments = rasterize(model(params[person]).vertices_m, model.faces, camera_of())
        pictures.append(vertex_labels(fragments, model.faces, model.parts))
    return torch.stack(pictures)


@pytest.fixture(scope="module")
def scene() -> Scene:
    model = BodyModel(load_body_file(), torch.float64)
    turn = roma.rotvec_to_rotmat(torch.tensor([[0.0, yaw, 0.0] for yaw in (0.3, 2.0, 4.2)], dtype=torch.float64))
    pose = roma.rotvec_to_rotmat(0.2 * noise(PEOPLE, 23, 3))
    transl_m = torch.tensor([[0.05, 0.25, 3.6]], dtype=torch.float64).repeat(PEOPLE, 1)
    params = BodyParams(camera_from_body_axes().double() @ turn, pose, noise(PEOPLE, 10, seed=1) / 2, transl_m)
    labels = labels_of(model, params)
    return Scene(model, params, labels, part_masks(labels), skin_points(model, POINTS))


def energy(scene: Scene, params: BodyParams, masks: PartMasks | None = None) -> Tensor:
    xy_px, facing = scene.points(params)
    return body_part_alignment(xy_px, facing, masks or scene.masks)


def test_the_points_ride_on_the_skin(scene: Scene) -> None:
    """They are the body's own vertices, each of its own part, and know which way the skin there faces."""
    posed = scene.skin.posed(
        scene.model.kinematics(scene.params), scene.params.betas, pose_features(scene.params.rotations)
    )
    vertices = scene.model(scene.params).vertices_m
    placed = posed.points_m + scene.params.transl_m[:, None, None]
    assert torch.allclose(placed, vertices[:, scene.skin.vertex], atol=1e-9)
    normals = vertex_normals(vertices, scene.model.faces)[:, scene.skin.vertex].double()
    assert ((normals * posed.normals).sum(-1) > 0.8).double().mean() > 0.9
    agreed = posed.facing(scene.params.transl_m) == ((normals * placed).sum(-1) < 0)
    assert agreed.double().mean() > 0.93


def test_the_points_are_spread_over_every_part(scene: Scene) -> None:
    vertex = scene.skin.vertex
    assert (scene.model.parts[vertex] == torch.arange(24)[:, None]).all()
    assert all(len(row.unique()) == POINTS for row in vertex)
    template = scene.model.template.view(-1, 3)
    for part in range(24):
        own = template[scene.model.parts == part]
        away = torch.cdist(own, template[vertex[part]]).amin(1)
        assert away.max() < torch.cdist(own, own).max() / 2
    assert torch.equal(vertex, skin_points(scene.model, POINTS).vertex)


def test_part_sets_share_out_the_tree() -> None:
    assert PARTS24.label_of_joint == tuple(range(24))
    assert len(PARTS14) == 14 and set(PARTS14.label_of_joint) == set(range(14))
    for joint, label in enumerate(PARTS14.label_of_joint):
        name, other = PARTS14.names[label], PARTS14.names[PARTS14.label_of_joint[SMPL24.mirror[joint]]]
        assert other == name.replace("left", "?").replace("right", "left").replace("?", "right")


def test_the_pixels_stand_for_their_part(scene: Scene) -> None:
    """All of them in it, and their mean where the mask's is."""
    person, part = scene.masks.seen.nonzero().unbind(1)
    pixels = scene.masks.pixels_px[person, part]
    column, row = pixels.long().unbind(-1)
    assert (scene.labels[person[:, None], row, column] == part[:, None]).all()
    for pixel, own in zip(pixels, scene.labels[person] == part[:, None, None], strict=True):
        middle = own.nonzero().flip(-1).double().mean(0) + 0.5
        assert (pixel.double().mean(0) - middle).norm() < 2 * scene.masks.cell_px.max()


def test_the_field_is_the_distance_from_the_part(scene: Scene) -> None:
    part, labels = SMPL24.index("left_hip"), torch.nn.functional.pad(scene.labels[1], [60] * 4, value=-1)
    masks = part_masks(labels)
    centers = (torch.arange(GRID) + 0.5) * masks.cell_px
    grid = masks.corner_px + torch.stack(torch.meshgrid(centers, centers, indexing="xy"), dim=-1)
    own = (labels == part).nonzero().flip(-1) + 0.5
    away = torch.cdist(grid.flatten(0, 1), own).amin(1).view(GRID, GRID)
    assert (masks.distance_px[part] - away).abs().max() < 2 * masks.cell_px
    assert (masks.distance_px[part][away < 0.5] == 0).all()


def test_beyond_the_picture_a_part_may_be(scene: Scene) -> None:
    """Legs that the picture cuts off are not drawn back into it."""
    waist = int((scene.labels[0] >= 0).nonzero()[:, 0].double().mean())
    masks = part_masks(scene.labels[:, :waist])
    below = (torch.arange(GRID) + 0.5) * masks.cell_px[0] + masks.corner_px[0, 1] > waist
    assert below.any() and (masks.distance_px[0][:, below] == 0).all()
    cut = energy(scene, scene.params, masks)[0]
    whole = energy(scene, scene.params)[0]
    assert cut < 1.5 * whole


def test_the_pull_is_the_energys_slope(scene: Scene) -> None:
    for masks in (scene.masks, coarse(scene.labels)):
        xy_px, facing = scene.points(retract(scene.params, 0.1 * noise(PEOPLE, 85, seed=3)))
        xy_px = xy_px.detach().requires_grad_()
        alignment_energy(xy_px, facing, scene.evidence(masks), OUTLIER).sum().backward()
        pull = alignment_pull(xy_px.detach(), facing, scene.evidence(masks), OUTLIER)
        assert xy_px.grad is not None
        assert torch.allclose(pull.gradient, xy_px.grad, rtol=1e-9, atol=1e-12)
        assert (torch.linalg.eigvalsh(pull.curvature) > -1e-12).all()
        assert (pull.gradient[~facing] == 0).all() and (pull.curvature[~facing] == 0).all()


def coarse(labels: Tensor) -> PartMasks:
    merged = torch.tensor(PARTS14.label_of_joint)[labels.clamp_min(0)]
    return part_masks(torch.where(labels >= 0, merged, -1), PARTS14)


@pytest.mark.parametrize("correctives", [False, True])
def test_the_gradient_is_the_terms_slope(scene: Scene, correctives: bool) -> None:
    """By every unknown, exactly; what the pose correctives add is left out on purpose, and small."""
    file = scene.model.file
    model = scene.model if correctives else BodyModel(replace(file, posedirs=0 * file.posedirs), torch.float64)
    plain = replace(scene, model=model, skin=skin_points(model, POINTS))
    objective = plain.objective(parts_weight=0.4)
    start = retract(scene.params, 0.1 * noise(PEOPLE, 85, seed=1))
    step = torch.zeros(PEOPLE, 85, dtype=torch.float64, requires_grad=True)
    objective.terms(retract(start, step)).parts.sum().backward()
    ours = objective.quadratic(start).gradient
    assert step.grad is not None
    assert torch.allclose(ours[:, 72:], step.grad[:, 72:], rtol=1e-8, atol=1e-8)
    if correctives:
        assert (torch.nn.functional.cosine_similarity(ours, step.grad) > 0.999).all()
    else:
        assert torch.allclose(ours, step.grad, rtol=1e-8, atol=1e-8)


def test_the_hessian_is_that_of_rigid_parts(scene: Scene) -> None:
    """Against Gauss-Newton's with the exact motion of every point: blending is all that is left out."""
    objective = scene.objective(parts_weight=0.4)
    start = retract(scene.params, 0.1 * noise(PEOPLE, 85, seed=1))
    xy_px, facing = scene.points(start)
    curvature = 0.4 * alignment_pull(xy_px, facing, scene.evidence(), OUTLIER).curvature[:1]

    def moved(step: Tensor) -> Tensor:
        return scene.points(retract(start[:1], step[None]))[0]

    motion = torch.autograd.functional.jacobian(moved, torch.zeros(85, dtype=torch.float64), vectorize=True)
    exact = torch.einsum("pjkau,pjkab,pjkbv->uv", motion, curvature, motion)
    hessian = objective.quadratic(start).hessian
    assert torch.allclose(hessian, hessian.mT, atol=1e-9)
    assert (torch.linalg.eigvalsh(hessian) > -1e-9).all()
    assert torch.allclose(hessian[0, 82:, 82:], exact[82:, 82:], rtol=1e-9)
    assert (hessian[0] - exact).norm() < 0.02 * exact.norm()


def test_the_truth_is_where_the_term_is_low(scene: Scene) -> None:
    truth = energy(scene, scene.params)
    assert (truth < 3 * scene.masks.seen.sum(-1)).all()
    for seed in range(4):
        assert (truth < energy(scene, retract(scene.params, 0.1 * noise(PEOPLE, 85, seed=seed))) / 2).all()


def test_every_pixel_away_from_the_masks_costs(scene: Scene) -> None:
    xy_px, facing = scene.points(scene.params)
    for axis in range(2):
        shift = torch.eye(2, dtype=torch.float64)[axis]
        costs = [body_part_alignment(xy_px + distance * shift, facing, scene.masks) for distance in (0, 4, 8, 16, 32)]
        for near, far in itertools.pairwise(costs):
            assert (near < far).all()


def test_the_place_in_the_picture_does_not_matter(scene: Scene) -> None:
    xy_px, facing = scene.points(retract(scene.params, 0.05 * noise(PEOPLE, 85)))
    before = body_part_alignment(xy_px, facing, scene.masks)
    moved = part_masks(scene.labels.roll((7, -12), (1, 2)))
    after = body_part_alignment(xy_px + torch.tensor([-12.0, 7.0]), facing, moved)
    assert torch.allclose(before, after, rtol=1e-4)


def test_the_size_of_the_picture_does_not_matter(scene: Scene) -> None:
    xy_px, facing = scene.points(retract(scene.params, 0.05 * noise(PEOPLE, 85)))
    before = body_part_alignment(xy_px, facing, scene.masks)
    twice = part_masks(scene.labels.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert torch.allclose(before, body_part_alignment(2 * xy_px, facing, twice), rtol=1e-4)


def test_left_is_not_right(scene: Scene) -> None:
    swapped = torch.where(scene.labels >= 0, torch.tensor(SMPL24.mirror)[scene.labels.clamp_min(0)], -1)
    assert (energy(scene, scene.params, part_masks(swapped)) > 5 * energy(scene, scene.params)).all()


def test_the_far_side_does_not_count(scene: Scene) -> None:
    xy_px, facing = scene.points(scene.params)
    moved = torch.where(facing[..., None], xy_px, -300.0)
    before, after = (body_part_alignment(place, facing, scene.masks) for place in (xy_px, moved))
    assert torch.equal(before, after)
    turned = body_part_alignment(xy_px, torch.zeros_like(facing), scene.masks)
    assert torch.allclose(turned, OUTLIER**2 / 2 * scene.masks.seen.sum(-1).double()), "no pixel is covered"


def test_what_is_not_seen_costs_nothing(scene: Scene) -> None:
    xy_px, facing = scene.points(scene.params)
    nobody = part_masks(torch.full_like(scene.labels, -1))
    assert not nobody.seen.any()
    place = xy_px.detach().requires_grad_()
    nothing = body_part_alignment(place, facing, nobody)
    nothing.sum().backward()
    assert place.grad is not None
    assert (nothing == 0).all() and (place.grad == 0).all()
    lost = SMPL24.index("spine3")
    without = part_masks(torch.where(scene.labels == lost, -1, scene.labels))
    assert (scene.masks.seen & ~without.seen).any(0).nonzero().flatten().tolist() == [lost]
    aside = xy_px.clone()
    aside[:, lost] += 50
    assert torch.equal(body_part_alignment(xy_px, facing, without), body_part_alignment(aside, facing, without))


def test_a_part_of_two_cells_is_a_slip(scene: Scene) -> None:
    labels = torch.full((100, 100), -1)
    labels[10:90, 10:90] = SMPL24.index("spine3")
    hand = SMPL24.index("left_hand")
    for cells, seen in ((1, False), (2, False), (3, True), (4, True)):
        labels[50, 50 : 50 + cells] = hand
        masks = part_masks(labels)
        assert masks.cell_px == 1
        assert bool(masks.seen[hand]) == seen


def test_a_part_that_no_set_names_is_left_alone(scene: Scene) -> None:
    hands = PartSet("hands", (("left", ("left_hand",)), ("right", ("right_hand",))))
    labels = torch.full_like(scene.labels, -1)
    labels[scene.labels == SMPL24.index("left_hand")] = 0
    labels[scene.labels == SMPL24.index("right_hand")] = 1
    xy_px, facing = scene.points(retract(scene.params, 0.1 * noise(PEOPLE, 85)))
    pull = alignment_pull(xy_px, facing, scene.evidence(part_masks(labels, hands)), OUTLIER).gradient
    pulled = pull.abs().sum((0, 2, 3)).nonzero().flatten().tolist()
    assert pulled == SMPL24.indices("left_hand", "right_hand")


@pytest.mark.parametrize("batch", BATCHES)
def test_any_batch(scene: Scene, batch: tuple[int, ...]) -> None:
    xy_px, facing = scene.points(retract(scene.params, 0.05 * noise(PEOPLE, 85)))
    alone = body_part_alignment(xy_px, facing, scene.masks)
    person = torch.arange(torch.Size(batch).numel()).view(batch) % PEOPLE
    masks = part_masks(scene.labels[person])
    assert masks.pixels_px.shape == (*batch, *scene.masks.pixels_px.shape[1:])
    together = body_part_alignment(xy_px[person], facing[person], masks)
    assert together.shape == batch
    assert torch.allclose(together, alone[person])


def test_guesses_of_one_person_share_the_masks(scene: Scene) -> None:
    xy_px, facing = scene.points(retract(scene.params, 0.05 * noise(PEOPLE, 85)))
    evidence, bodies = scene.evidence(), torch.tensor([2, 0, 2, 1])
    some = evidence.of(bodies)
    assert some.masks is evidence.masks
    assert torch.equal(some.of(torch.tensor([3, 1])).person, torch.tensor([1, 0]))
    whole = alignment_energy(xy_px, facing, evidence, OUTLIER)
    assert torch.allclose(alignment_energy(xy_px[bodies], facing[bodies], some, OUTLIER), whole[bodies])


def test_the_objective_only_falls(scene: Scene) -> None:
    objective = scene.objective(shape_weight=1.0)
    start = retract(scene.params, 0.07 * noise(PEOPLE, 85, seed=2))
    totals = [objective.terms(start).total]
    for iterations in (1, 2, 4, 80):
        minimum = minimize(objective, start, MinimizeConfig(iterations))
        totals.append(minimum.terms.total)
    for before, after in itertools.pairwise(totals):
        assert (after <= before).all()
    assert (totals[-1] < totals[0] / 3).all()
    assert minimum.converged.all()


def test_masks_bring_the_surface_nearer(scene: Scene) -> None:
    camera = camera_of(PEOPLE)
    joints = scene.model.regressed(scene.params, H36M17)
    confidence = torch.ones(PEOPLE, len(H36M17), dtype=torch.float64)
    xy_px = project(joints, camera) + noise(PEOPLE, len(H36M17), 2, seed=5)
    keypoints = Keypoints(xy_px, confidence, H36M17)
    branch = FitBranch(scene.model, None, FitConfig())
    errors = []
    for masks in (None, scene.masks):
        estimate = branch.fit(keypoints, camera, masks)
        assert estimate.body is not None and estimate.report is not None
        assert ((estimate.report.terms.parts > 0) == (masks is not None)).all()
        assert ((estimate.report.terms.total - estimate.report.terms.parts) > 0).all()
        errors.append(project(estimate.body.vertices_m, camera) - project(scene.model(scene.params).vertices_m, camera))
    before, after = (error.norm(dim=-1).mean() for error in errors)
    assert after < 0.7 * before
    with pytest.raises(ValueError, match="part masks of 2 people"):
        branch.fit(keypoints, camera, scene.masks[:2])


def test_a_fit_reports_the_alignment_at_its_noise_and_weight(scene: Scene) -> None:
    """Which is the loss's, of the points of the body that it found."""
    joints, camera = scene.model.regressed(scene.params, H36M17), camera_of(PEOPLE)
    sure = torch.ones(PEOPLE, len(H36M17), dtype=torch.float64)
    settings = ObjectiveConfig(parts_weight=0.4, part_outlier=6.0)
    config = FitConfig(part_noise_share=0.03, starts=1, minimize=MinimizeConfig(2), objective=settings)
    estimate = FitBranch(scene.model, None, config).fit(
        Keypoints(project(joints, camera), sure, H36M17), camera, scene.masks
    )
    assert estimate.params is not None and estimate.report is not None
    alignment = body_part_alignment(*scene.points(estimate.params), scene.masks, noise_share=0.03, outlier=6.0)
    assert torch.allclose(estimate.report.terms.parts, 0.4 * alignment, rtol=1e-6)
    evidence = replace(scene.evidence(), noise_px=0.03 * scene.masks.size_px.double())
    assert torch.allclose(alignment, alignment_energy(*scene.points(estimate.params), evidence, 6.0))


def test_keypoint_alignment_is_a_mean_distance_in_pixels(scene: Scene) -> None:
    joints, camera = scene.model.regressed(scene.params, H36M17), camera_of(PEOPLE)
    xy_px, sure = project(joints, camera), torch.ones(PEOPLE, len(H36M17), dtype=torch.float64)
    assert (keypoint_alignment(joints, xy_px, sure, camera) < 1e-2).all()
    off = noise(PEOPLE, len(H36M17), 2)
    one, two = (keypoint_alignment(joints, xy_px + scale * off, sure, camera) for scale in (1, 2))
    assert torch.allclose(two, 2 * one, rtol=0.1), "it is not squared"
    assert ((one > 0.5) & (one < off.norm(dim=-1).mean(-1))).all(), "the translation takes some of it"
    elsewhere = keypoint_alignment(joints + torch.tensor([3.0, -1.0, 8.0]), xy_px + off, sure, camera)
    assert torch.allclose(elsewhere, one, rtol=1e-6), "where the joints stood before does not matter"


def test_keypoint_alignment_has_its_slope_through_the_translation(scene: Scene) -> None:
    joints, camera = scene.model.regressed(scene.params, H36M17)[:1], camera_of(1)
    xy_px = project(joints, camera) + 4 * noise(1, len(H36M17), 2)
    sure = torch.ones(1, len(H36M17), dtype=torch.float64)
    joints = joints.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda joints: keypoint_alignment(joints, xy_px, sure, camera), joints)
    keypoint_alignment(joints, xy_px, sure, camera).sum().backward()
    assert joints.grad is not None
    assert joints.grad.sum(1).abs().max() < 1e-6 * joints.grad.abs().max()


@pytest.mark.parametrize("batch", BATCHES)
def test_keypoint_alignment_of_what_is_not_seen(batch: tuple[int, ...]) -> None:
    joints, xy_px = noise(*batch, len(H36M17), 3), 100 * noise(*batch, len(H36M17), 2, seed=1)
    confidence = torch.ones(*batch, len(H36M17), dtype=torch.float64)
    confidence[..., H36M17.index("left_wrist")] = 0
    joints.requires_grad_()
    before = keypoint_alignment(joints, xy_px, confidence, camera_of(*batch))
    xy_px[..., H36M17.index("left_wrist"), :] = torch.nan
    after = keypoint_alignment(joints, xy_px, confidence, camera_of(*batch))
    assert before.shape == batch and torch.equal(before, after)
    after.sum().backward()
    assert joints.grad is not None and joints.grad.isfinite().all()
    assert (keypoint_alignment(joints, xy_px, 0 * confidence, camera_of(*batch)) == 0).all()


@pytest.fixture
def part_noise(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("part_noise")


def test_corruption_is_as_stated(scene: Scene, part_noise: ModuleType) -> None:
    def corrupted(**noise: float) -> Tensor:
        stated = part_noise.PartNoise(**{"jitter": 0.0, "patches": 0.0, "lost": 0.0, **noise})
        return part_noise.corrupted(scene.labels, stated, torch.Generator().manual_seed(0))

    assert torch.equal(corrupted(), scene.labels)
    assert (corrupted(lost=1.0) == -1).all()
    assert torch.equal(corrupted(jitter=0.01, patches=3.0, lost=0.1), corrupted(jitter=0.01, patches=3.0, lost=0.1))
    for change in (corrupted(jitter=0.01), corrupted(patches=5.0)):
        changed = (change != scene.labels).sum() / (scene.labels >= 0).sum()
        assert 0.005 < changed < 0.3
        assert set(change.unique().tolist()) <= set(scene.labels.unique().tolist())
    maps = part_noise.true_part_maps(scene.model, scene.params, camera_of(PEOPLE))
    assert torch.equal(maps.long(), scene.labels.long())
