"""Fitting: exact derivatives, monotone descent, the right person back, and nothing lost to a bad neighbour."""

import itertools
import math
from dataclasses import replace

import pytest
import roma
import torch

from meshrec.assets import load_body_file
from meshrec.body import BodyModel, load_body_model
from meshrec.branches.fit import FitBranch, FitConfig, closest_skeleton
from meshrec.camera import camera_from_body_axes, project
from meshrec.errors import MeshrecError
from meshrec.metrics import mpjpe_mm, pa_mpjpe_mm
from meshrec.minimize import MinimizeConfig, minimize
from meshrec.objective import Objective, ObjectiveConfig, Observations, Start, retract
from meshrec.prior_files import open_prior
from meshrec.skeletons import COCO17, H36M17, MEDIAPIPE33, MPII16, OPENPOSE25, SMPL24, Skeleton
from meshrec.types import BodyParams, Camera, Keypoints
from priors.pose import PosePrior


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model(dtype=torch.float64)


@pytest.fixture(scope="module")
def prior() -> PosePrior:
    return open_prior("mixture").double()


def camera_of(people: int, focal_px: float = 1000.0) -> Camera:
    focal = torch.full((people,), focal_px, dtype=torch.float64)
    return Camera(focal, torch.full((people, 2), 500.0, dtype=torch.float64), 1000, 1000, "true")


def people_of(prior: PosePrior, count: int, seed: int = 0) -> BodyParams:
    """Likely poses from every side, a few metres away."""
    random = torch.Generator().manual_seed(seed)
    pose = prior.sample(count, temperature=0.7, generator=random).double()
    yaw = 2 * math.pi * torch.rand(count, generator=random, dtype=torch.float64)
    turn = roma.rotvec_to_rotmat(yaw[:, None] * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    transl_m = torch.tensor([[0.1, 0.2, 4.0]], dtype=torch.float64).repeat(count, 1)
    betas = torch.randn(count, 10, generator=random, dtype=torch.float64) / 2
    return BodyParams(camera_from_body_axes().double() @ turn, pose, betas, transl_m)


def seen_by(model: BodyModel, params: BodyParams, skeleton: Skeleton, landmarks: bool = False) -> Keypoints:
    joints = model.regressed(params, skeleton)
    xy_px = project(joints, camera_of(len(joints)))
    return Keypoints(xy_px, torch.ones(xy_px.shape[:2], dtype=torch.float64), skeleton, joints if landmarks else None)


def objective_of(
    model: BodyModel,
    prior: PosePrior | None,
    params: BodyParams,
    landmarks: bool,
    config: ObjectiveConfig = ObjectiveConfig(),  # noqa: B008
) -> Objective:
    keypoints = seen_by(model, params, H36M17, landmarks=True)
    assert keypoints.landmarks_m is not None
    people = len(params.betas)
    observations = Observations(
        xy_px=keypoints.xy_px - 500,
        weight=keypoints.confidence,
        noise_px=torch.full((people,), 3.0, dtype=torch.float64),
        focal_px=torch.full((people,), 1000.0, dtype=torch.float64),
        landmarks_m=keypoints.landmarks_m,
        landmark_weight=keypoints.confidence * float(landmarks),
    )
    return Objective(model, prior, H36M17, observations, config)


@pytest.mark.parametrize("landmarks", [False, True])
def test_the_gradient_is_the_objectives_slope(model: BodyModel, prior: PosePrior, landmarks: bool) -> None:
    """Against autograd; what the pose correctives add to the slope is left out on purpose, and small."""
    truth = people_of(prior, 3)
    weights = ObjectiveConfig(prior_weight=3.0, shape_weight=0.4)
    objective = objective_of(model, prior, truth, landmarks, weights)
    start = retract(truth, 0.1 * torch.randn(3, 85, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    step = torch.zeros(3, 85, dtype=torch.float64, requires_grad=True)
    objective.terms(retract(start, step)).total.sum().backward()
    assert step.grad is not None
    ours = objective.quadratic(start).gradient
    cosine = torch.nn.functional.cosine_similarity(ours, step.grad)
    assert (cosine > 0.999).all()
    assert torch.allclose(ours[:, -3:], step.grad[:, -3:], rtol=1e-8, atol=1e-8), "translation has no correctives"
    exact = 1e-2 if landmarks else 1e-9  # the landmarks' scale is found in a few rounds
    assert torch.allclose(ours[:, 72:82], step.grad[:, 72:82], rtol=exact, atol=exact), "nor has shape"


def test_weights_multiply_their_terms_and_no_other(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 3)
    plain = objective_of(model, prior, truth, landmarks=True).terms(truth)
    weights = ObjectiveConfig(prior_weight=3.0, shape_weight=0.4)
    weighted = objective_of(model, prior, truth, landmarks=True, config=weights).terms(truth)
    assert torch.allclose(plain.prior, prior.energy(truth.pose)) and (plain.prior > 0).all()
    assert torch.allclose(weighted.prior, 3 * plain.prior)
    assert torch.allclose(weighted.shape, 0.4 * plain.shape) and (plain.shape > 0).all()
    assert torch.equal(weighted.keypoints, plain.keypoints) and torch.equal(weighted.landmarks, plain.landmarks)


def test_the_quadratic_is_symmetric_and_positive(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 2)
    hessian = objective_of(model, prior, truth, landmarks=True).quadratic(truth).hessian
    assert torch.allclose(hessian, hessian.mT)
    assert (torch.linalg.eigvalsh(hessian) > 0).all()


def test_the_objective_only_falls(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 4)
    objective = objective_of(model, prior, truth, landmarks=False)
    start = retract(truth, 0.2 * torch.randn(4, 85, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    totals = [objective.terms(start).total]
    for iterations in range(1, 8):
        totals.append(minimize(objective, start, MinimizeConfig(iterations)).terms.total)
    for before, after in itertools.pairwise(totals):
        assert (after <= before).all()
    assert (totals[-1] < totals[0] / 3).all()


def test_landmarks_bring_the_pose_back(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 12)
    config = FitConfig(
        noise_px=1.0,
        objective=ObjectiveConfig(landmark_noise_m=(0.005,) * 3, landmark_scale_spread=0.01, prior_weight=0.1),
    )
    estimate = FitBranch(model, prior, config).fit(seen_by(model, truth, H36M17, landmarks=True), camera_of(12))
    expected = model.regressed(truth, H36M17)
    error = mpjpe_mm(estimate.joints17_m, expected - expected[:, :1])
    assert error.median() < 15
    assert estimate.root_m is not None
    assert ((estimate.root_m - expected[:, 0]).norm(dim=-1) < 0.4).all()


def test_two_dimensions_bring_the_projection_back(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 12)
    estimate = FitBranch(model, prior, FitConfig(noise_px=2.0)).fit(seen_by(model, truth, COCO17), camera_of(12))
    expected = model.regressed(truth, H36M17)
    assert estimate.report is not None and estimate.params is not None
    assert estimate.report.reprojection_px.median() < 3
    assert estimate.report.converged.float().mean() > 0.8
    assert (estimate.report.iterations > 3).all() and (estimate.report.iterations <= 48).all()
    assert pa_mpjpe_mm(estimate.joints17_m, expected).median() < 60
    left, right = H36M17.indices("left_wrist", "right_wrist")
    found, true = project(model.regressed(estimate.params, H36M17), camera_of(12)), project(expected, camera_of(12))
    swapped = (found[:, left] - true[:, right]).norm(dim=-1) + (found[:, right] - true[:, left]).norm(dim=-1)
    straight = (found[:, left] - true[:, left]).norm(dim=-1) + (found[:, right] - true[:, right]).norm(dim=-1)
    assert (straight <= swapped).all()


def test_lying_and_upside_down_people_are_found(model: BodyModel, prior: PosePrior) -> None:
    upright = people_of(prior, 1, seed=4)
    angles = torch.tensor([[0.0, 0.0, angle] for angle in (math.pi / 2, math.pi, -math.pi / 2)]).double()
    turned = roma.rotvec_to_rotmat(angles) @ upright.root
    transl_m = torch.tensor([[0.0, 0.0, 4.0]]).double().repeat(3, 1)
    truth = BodyParams(turned, upright.pose.repeat(3, 1, 1, 1), upright.betas.repeat(3, 1), transl_m)
    estimate = FitBranch(model, prior, FitConfig(noise_px=2.0)).fit(seen_by(model, truth, H36M17), camera_of(3))
    assert estimate.report is not None
    assert estimate.report.solvable.all()
    assert (estimate.report.reprojection_px < 4).all()


def test_people_do_not_influence_each_other(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 3)
    keypoints, branch = seen_by(model, truth, H36M17), FitBranch(model, prior, FitConfig(noise_px=3.0))
    together = branch.fit(keypoints, camera_of(3))
    alone = branch.fit(keypoints[1:2], camera_of(1))
    assert torch.allclose(together[1:2].joints17_m, alone.joints17_m, atol=1e-6)


def test_an_unseen_person_is_flagged_and_nobody_else_is_lost(model: BodyModel, prior: PosePrior) -> None:
    keypoints = seen_by(model, people_of(prior, 2), H36M17)
    confidence = keypoints.confidence.clone()
    confidence[0] = 0
    estimate = FitBranch(model, prior, FitConfig(noise_px=3.0)).fit(
        replace(keypoints, confidence=confidence), camera_of(2)
    )
    assert estimate.report is not None
    assert estimate.report.solvable.tolist() == [False, True]
    assert estimate.joints17_m.isfinite().all()
    assert not estimate.seen[0].any()
    assert estimate.report.reprojection_px[1] < 4


def test_unseen_legs_come_out_as_the_prior_expects(model: BodyModel, prior: PosePrior) -> None:
    keypoints = seen_by(model, people_of(prior, 4), COCO17)
    confidence = keypoints.confidence.clone()
    hidden = COCO17.indices("left_knee", "right_knee", "left_ankle", "right_ankle")
    confidence[:, hidden] = 0
    wrong = keypoints.xy_px.clone()
    wrong[:, hidden] = -5000
    estimate = FitBranch(model, prior, FitConfig(noise_px=3.0)).fit(Keypoints(wrong, confidence, COCO17), camera_of(4))
    assert estimate.params is not None
    assert (prior.energy(estimate.params.pose) < prior.energy(prior.sample(500)).quantile(0.9)).all()
    knees = H36M17.indices("left_knee", "right_knee")
    assert not estimate.seen[:, knees].any()
    assert estimate.seen[:, H36M17.indices("left_shoulder", "right_elbow", "thorax")].all()


def test_one_wild_keypoint_does_not_bend_the_body(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 4)
    clean = seen_by(model, truth, H36M17)
    xy_px = clean.xy_px.clone()
    xy_px[:, H36M17.index("right_ankle"), 0] += 400
    branch = FitBranch(model, prior, FitConfig(noise_px=3.0))
    before, after = branch.fit(clean, camera_of(4)), branch.fit(replace(clean, xy_px=xy_px), camera_of(4))
    arms = H36M17.indices("left_elbow", "left_wrist", "right_elbow", "right_wrist", "thorax")
    assert mpjpe_mm(before.joints17_m[:, arms], after.joints17_m[:, arms]).median() < 40


def test_without_a_prior_only_the_joints_count(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 2)
    estimate = FitBranch(model, None, FitConfig(noise_px=3.0)).fit(seen_by(model, truth, SMPL24), camera_of(2))
    assert estimate.report is not None
    assert (estimate.report.terms.prior == 0).all()
    assert (estimate.report.reprojection_px < 1.5).all()
    assert estimate.report.plausibility.isnan().all()


def test_foreign_skeletons_are_read_by_name(model: BodyModel) -> None:
    assert closest_skeleton(model, H36M17) is H36M17
    assert closest_skeleton(model, OPENPOSE25) is MEDIAPIPE33
    assert closest_skeleton(model, MPII16) is H36M17


@pytest.mark.parametrize("broken", ["xy_px", "landmarks_m"])
@pytest.mark.parametrize("people", [1, 3])
def test_a_joint_that_is_no_number_is_not_seen(model: BodyModel, prior: PosePrior, broken: str, people: int) -> None:
    """Nor does it touch anybody else, and the person comes out as without that joint."""
    truth = people_of(prior, people)
    keypoints = seen_by(model, truth, H36M17, landmarks=True)
    values = getattr(keypoints, broken).clone()
    values[0, H36M17.index("left_wrist")] = torch.nan
    estimate = FitBranch(model, prior, FitConfig(noise_px=3.0)).fit(
        replace(keypoints, **{broken: values}), camera_of(people)
    )
    assert estimate.report is not None
    assert estimate.report.solvable.all()
    expected = model.regressed(truth, H36M17)
    error = mpjpe_mm(estimate.joints17_m, expected - expected[:, :1])
    assert (error < 150).all()
    assert (estimate.report.reprojection_px < 4).all()


def test_an_objective_that_is_no_number_is_flagged(model: BodyModel, prior: PosePrior) -> None:
    keypoints = seen_by(model, people_of(prior, 2), H36M17)
    camera = camera_of(2)
    wild = replace(camera, focal_px=torch.tensor([1e300, 1000.0], dtype=torch.float64))
    estimate = FitBranch(model, prior, FitConfig(noise_px=3.0)).fit(keypoints, wild)
    assert estimate.report is not None
    assert estimate.report.solvable.tolist()[1]
    assert estimate.report.reprojection_px[1] < 4


def test_every_start_faces_another_way(model: BodyModel, prior: PosePrior) -> None:
    """Whoever the truth faces, one start faces within 45 degrees of it: none alone would do."""
    truth = people_of(prior, 24, seed=3)
    keypoints = seen_by(model, truth, H36M17)
    four = FitBranch(model, prior, FitConfig(noise_px=3.0)).fit(keypoints, camera_of(24))
    one = FitBranch(model, prior, FitConfig(noise_px=3.0, starts=1)).fit(keypoints, camera_of(24))
    assert four.report is not None and one.report is not None
    assert len(four.report.start.unique()) == 4
    assert four.report.terms.total.mean() < one.report.terms.total.mean()


def test_depth_is_the_landmarks_doubtful_axis(model: BodyModel, prior: PosePrior) -> None:
    """An error of the landmarks along x costs more than the same one along z."""
    truth = people_of(prior, 2)
    objective = objective_of(model, prior, truth, landmarks=True)
    costs = []
    for axis in range(3):
        landmarks = objective.observations.landmarks_m.clone()
        landmarks[:, H36M17.index("left_wrist"), axis] += 0.1
        moved = replace(objective.observations, landmarks_m=landmarks)
        costs.append(Objective(model, prior, H36M17, moved, ObjectiveConfig()).terms(truth).landmarks)
    assert (costs[0] > 1.5 * costs[2]).all() and (costs[1] > 1.5 * costs[2]).all()


def test_a_doubtful_keypoint_still_counts(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 8)
    keypoints = seen_by(model, truth, H36M17)
    ends = H36M17.indices("left_wrist", "right_wrist", "left_elbow", "right_elbow")
    expected = model.regressed(truth, H36M17)
    errors = []
    for doubt in (0.05, 0.0):
        confidence = keypoints.confidence.clone()
        confidence[:, ends] = doubt
        estimate = FitBranch(model, prior, FitConfig(noise_px=3.0)).fit(
            replace(keypoints, confidence=confidence), camera_of(8)
        )
        assert not estimate.seen[:, ends].any()
        placed = estimate.joints17_m + estimate.root_m[:, None]
        errors.append((project(placed, camera_of(8)) - project(expected, camera_of(8)))[:, ends].norm(dim=-1).mean())
    assert errors[0] < errors[1] / 2


def test_a_body_without_the_joints_of_a_result_is_refused(prior: PosePrior) -> None:
    file = load_body_file()
    with pytest.raises(MeshrecError, match="H36M-17"):
        FitBranch(BodyModel(replace(file, regressors={})), prior, FitConfig())


def shaken(params: BodyParams, spread_rad: float, seed: int = 5) -> BodyParams:
    """The same people with every joint turned at random, and other shapes."""
    random = torch.Generator().manual_seed(seed)
    turn = spread_rad * torch.randn(*params.rotations.shape[:-1], generator=random, dtype=torch.float64)
    betas = params.betas + 0.3 * torch.randn(params.betas.shape, generator=random, dtype=torch.float64)
    return BodyParams.from_rotations(params.rotations @ roma.rotvec_to_rotmat(turn), betas, params.transl_m)


def pull_of(model: BodyModel, start: BodyParams, outlier: float = 1e9) -> Objective:
    """The objective of nothing but the start, every joint of which has a spread of its own."""
    unseen = objective_of(model, None, start, landmarks=False, config=ObjectiveConfig(shape_weight=0.0))
    people = len(start.betas)
    spread_rad = torch.linspace(0.1, 0.4, 24 * people, dtype=torch.float64).reshape(people, 24)
    betas_spread = torch.linspace(0.5, 2.0, people, dtype=torch.float64)
    return Objective(
        model,
        None,
        H36M17,
        replace(unseen.observations, weight=torch.zeros_like(unseen.observations.weight)),
        ObjectiveConfig(shape_weight=0.0, start_outlier=outlier),
        start=Start(start.rotations, start.betas, spread_rad, betas_spread),
    )


@pytest.mark.parametrize("people", [1, 3])
@pytest.mark.parametrize("outlier", [3.0, 1e9])
def test_the_pull_is_the_slope_of_its_energy(model: BodyModel, prior: PosePrior, people: int, outlier: float) -> None:
    start = people_of(prior, people)
    objective, away = pull_of(model, start, outlier), shaken(start, 0.5)
    step = torch.zeros(people, 85, dtype=torch.float64, requires_grad=True)
    terms = objective.terms(retract(away, step))
    terms.pull.sum().backward()
    assert step.grad is not None
    quadratic = objective.quadratic(away)
    assert torch.allclose(quadratic.gradient, step.grad, rtol=1e-8, atol=1e-8)
    assert (quadratic.gradient[:, -3:] == 0).all(), "a start says nothing of the place"
    assert torch.equal(terms.total, terms.pull) and (terms.pull > 0).all()


@pytest.mark.parametrize("people", [1, 3])
def test_the_curvature_of_the_pull_is_that_of_its_residuals(model: BodyModel, prior: PosePrior, people: int) -> None:
    """J^T J, with the derivative of log(S^T R exp(delta)) / spread by autograd."""
    start = people_of(prior, people)
    objective, away = pull_of(model, start), shaken(start, 0.5)
    pull = objective.start
    assert pull is not None

    def residual(step: torch.Tensor) -> torch.Tensor:
        moved = retract(away, step)
        turned = roma.rotmat_to_rotvec(start.rotations.mT @ moved.rotations) / pull.spread_rad[..., None]
        return torch.cat([turned.flatten(1), (moved.betas - start.betas) / pull.betas_spread[:, None]], dim=1).sum(0)

    jacobian = torch.autograd.functional.jacobian(residual, torch.zeros(people, 85, dtype=torch.float64))
    jacobian = jacobian.transpose(0, 1)  # type: ignore[union-attr]
    assert torch.allclose(objective.quadratic(away).hessian, jacobian.mT @ jacobian, rtol=1e-8, atol=1e-8)


def test_the_pull_alone_leads_back_to_the_start_in_one_step(model: BodyModel, prior: PosePrior) -> None:
    start = people_of(prior, 3)
    objective, away = pull_of(model, start), shaken(start, 0.5)
    quadratic = objective.quadratic(away)
    told = slice(0, 82)
    step = torch.zeros(3, 85, dtype=torch.float64)
    step[:, told] = -torch.linalg.solve(quadratic.hessian[:, told, told], quadratic.gradient[:, told])
    back = retract(away, step)
    assert torch.allclose(back.rotations, start.rotations, atol=1e-10)
    assert torch.allclose(back.betas, start.betas, atol=1e-10)
    assert (objective.terms(back).pull < 1e-12).all()


def test_the_pull_is_half_the_squared_angle_in_spreads(model: BodyModel, prior: PosePrior) -> None:
    """And for each person alone; beyond the outlier's bound it grows less."""
    start = people_of(prior, 3)
    turn = torch.zeros(3, 24, 3, dtype=torch.float64)
    turn[1, SMPL24.index("left_knee"), 0] = 0.3
    turned = replace(start, pose=(start.rotations @ roma.rotvec_to_rotmat(turn))[:, 1:])
    objective = pull_of(model, start)
    pull = objective.start
    assert pull is not None
    expected = (0.3 / pull.spread_rad[1, SMPL24.index("left_knee")]).square() / 2
    assert torch.allclose(objective.terms(turned).pull, expected * torch.tensor([0.0, 1.0, 0.0]).double())
    alone = objective.of(torch.tensor([1])).terms(turned[1:2]).pull
    assert torch.allclose(alone, expected)
    assert pull_of(model, start, 0.5).terms(turned).pull[1] < expected


def test_without_a_start_there_is_no_pull(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 2)
    keypoints, branch = seen_by(model, truth, H36M17), FitBranch(model, prior, FitConfig(noise_px=3.0))
    free, held = branch.fit(keypoints, camera_of(2)), branch.fit(keypoints, camera_of(2), start=shaken(truth, 0.1))
    assert free.report is not None and held.report is not None
    assert (free.report.terms.pull == 0).all() and (held.report.terms.pull > 0).all()


def test_a_start_of_no_spread_is_kept_and_placed(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 3)
    start = shaken(truth, 0.1)
    sure = FitConfig(start_spread_rad=1e-4, start_root_spread_rad=1e-4, start_betas_spread=1e-4)
    away = replace(start, transl_m=torch.zeros_like(start.transl_m))
    params = FitBranch(model, prior, sure).fit(seen_by(model, truth, COCO17), camera_of(3), start=away).params
    assert params is not None
    assert torch.allclose(params.rotations, start.rotations, atol=1e-3)
    assert torch.allclose(params.betas, start.betas, atol=1e-3)
    assert ((params.transl_m - truth.transl_m).norm(dim=-1) < 0.5).all()


def test_each_spread_of_a_start_is_its_own(model: BodyModel, prior: PosePrior) -> None:
    config = FitConfig(start_spread_rad=0.1, start_root_spread_rad=0.2, start_betas_spread=0.3)
    pull = FitBranch(model, prior, config)._pull(people_of(prior, 2))
    expected = torch.full((2, 24), 0.1, dtype=torch.float64)
    expected[:, SMPL24.index("pelvis")] = 0.2
    assert torch.equal(pull.spread_rad, expected)
    assert torch.equal(pull.betas_spread, torch.full((2,), 0.3, dtype=torch.float64))


def test_a_start_of_endless_spread_is_a_start_and_no_more(
    model: BodyModel, prior: PosePrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = people_of(prior, 3)
    keypoints, start = seen_by(model, truth, COCO17), shaken(truth, 0.1)
    spread = FitConfig(start_spread_rad=math.inf, start_root_spread_rad=math.inf, start_betas_spread=math.inf)
    loose = FitBranch(model, prior, spread).fit(keypoints, camera_of(3), start=start)
    monkeypatch.setattr(FitBranch, "_pull", lambda branch, given: None)
    unheld = FitBranch(model, prior, FitConfig()).fit(keypoints, camera_of(3), start=start)
    assert torch.allclose(loose.joints17_m, unheld.joints17_m, atol=1e-9)
    assert loose.report is not None and (loose.report.terms.pull == 0).all()


def test_clear_keypoints_correct_the_start_and_hidden_limbs_stay(model: BodyModel, prior: PosePrior) -> None:
    """An arm and a leg are wrong, and of the two only the arm is seen."""
    truth, camera = people_of(prior, 6), camera_of(6)
    pose, (shoulder, hip) = truth.rotations.clone(), SMPL24.indices("left_shoulder", "left_hip")
    pose[:, [shoulder, hip]] @= roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 0.4]).double())
    start = BodyParams.from_rotations(pose, truth.betas, truth.transl_m)
    keypoints = seen_by(model, truth, COCO17)
    confidence = keypoints.confidence.clone()
    confidence[:, COCO17.indices("left_knee", "left_ankle")] = 0.0
    keypoints = replace(keypoints, confidence=confidence)
    held = FitBranch(model, prior, FitConfig()).fit(keypoints, camera, start=start).params
    loose = FitBranch(model, prior, FitConfig(start_spread_rad=math.inf)).fit(keypoints, camera, start=start).params
    assert held is not None and loose is not None
    arm = COCO17.indices("left_elbow", "left_wrist")
    off, was_off = (
        (project(model.regressed(each, COCO17), camera) - keypoints.xy_px)[:, arm] for each in (held, start)
    )
    assert off.norm(dim=-1).mean() < was_off.norm(dim=-1).mean() / 4
    went, would = (
        roma.rotmat_geodesic_distance(start.rotations, each.rotations)[:, hip].mean() for each in (held, loose)
    )
    assert went < 0.15 and went < would / 2


def test_a_fit_from_a_fair_start_beats_the_start_and_the_fit_alone(model: BodyModel, prior: PosePrior) -> None:
    truth, camera = people_of(prior, 12), camera_of(12)
    start, clean = shaken(truth, 0.15), seen_by(model, truth, COCO17)
    noise = 4 * torch.randn(clean.xy_px.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    keypoints, branch = replace(clean, xy_px=clean.xy_px + noise), FitBranch(model, prior, FitConfig())
    alone, both = branch.fit(keypoints, camera).params, branch.fit(keypoints, camera, start=start).params
    assert alone is not None and both is not None
    joints = {name: model.regressed(params, H36M17) for name, params in {"alone": alone, "both": both}.items()}
    joints |= {"start": model.regressed(start, H36M17), "truth": model.regressed(truth, H36M17)}
    centred = {name: each - each[:, :1] for name, each in joints.items()}
    for error in (mpjpe_mm, pa_mpjpe_mm):
        errors = {name: error(each, centred["truth"]).mean() for name, each in centred.items()}
        assert errors["both"] < 0.85 * errors["start"] and errors["both"] < 0.85 * errors["alone"]
    off = {
        name: (project(each, camera) - project(joints["truth"], camera)).norm(dim=-1).mean()
        for name, each in joints.items()
    }
    assert off["both"] < off["start"] / 2 and off["both"] < off["alone"]


def test_a_spread_is_above_nothing() -> None:
    for name in ("start_spread_rad", "start_root_spread_rad", "start_betas_spread"):
        for value in (0.0, -1.0, math.nan):
            with pytest.raises(ValueError, match=name):
                FitConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_cuda_gives_what_the_processor_gives(model: BodyModel, prior: PosePrior) -> None:
    truth = people_of(prior, 3)
    keypoints = seen_by(model, truth, H36M17, landmarks=True)
    here = FitBranch(model, prior, FitConfig(noise_px=3.0)).fit(keypoints, camera_of(3))
    there_model = load_body_model(dtype=torch.float64).cuda()
    there = FitBranch(there_model, prior, FitConfig(noise_px=3.0)).fit(keypoints, camera_of(3))
    assert torch.allclose(here.joints17_m, there.joints17_m.cpu(), atol=1e-4)
