"""Evaluation: what the figures mean, what is asked of a branch, and what is told of its answers."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import roma
import torch
from PIL import Image

from meshrec import evaluate, evaluation_plots, lift_evaluation
from meshrec.baselines import MeanPose, ZeroDepth, facing_camera, mean_pose_m
from meshrec.camera import project
from meshrec.cli import main
from meshrec.data.views import Views, ViewsConfig
from meshrec.errors import MeshrecError
from meshrec.estimators import build_estimator
from meshrec.evaluation import (
    ANGLES_DEG,
    FIGURES,
    Errors,
    Estimator,
    angle_of,
    errors_of,
    joined,
    means_by,
    measured,
    noisy,
    questions_of,
    summary_of,
    unseen,
    without_limbs,
)
from meshrec.evaluation_report import record_of
from meshrec.lift_evaluation import Sampler, best_of, sampled
from meshrec.metrics import n_mpjpe_mm, pa_mpjpe_mm, root_relative
from meshrec.models.lifter_file import write_lifter
from meshrec.models.lifting import LIMB_JOINTS
from meshrec.models.vae_lifter import LifterConfig, VaeLifter
from meshrec.skeletons import H36M17
from meshrec.types import Estimate, stack

STANDING_M = {
    "pelvis": (0.0, 0.0, 0.0),
    "right_hip": (-0.1, 0.0, 0.0),
    "right_knee": (-0.12, 0.42, -0.04),
    "right_ankle": (-0.12, 0.82, 0.02),
    "left_hip": (0.1, 0.0, 0.0),
    "left_knee": (0.12, 0.42, -0.04),
    "left_ankle": (0.12, 0.82, 0.02),
    "spine": (0.0, -0.22, 0.02),
    "thorax": (0.0, -0.46, 0.0),
    "face": (0.0, -0.55, -0.06),
    "head_top": (0.0, -0.65, -0.02),
    "left_shoulder": (0.17, -0.44, 0.0),
    "left_elbow": (0.25, -0.2, 0.03),
    "left_wrist": (0.3, 0.0, -0.1),
    "right_shoulder": (-0.17, -0.44, 0.0),
    "right_elbow": (-0.25, -0.2, 0.03),
    "right_wrist": (-0.3, 0.0, -0.1),
}
"""Someone who faces the camera, in its axes: x right, y down, z away."""

FLIP_X = torch.tensor([-1.0, 1.0, 1.0])


def standing_m():
    return torch.tensor([STANDING_M[joint] for joint in H36M17.joints])


def people_m(count, azimuth_rad=None):
    """People who stand more or less, turned towards the right of the image, 4 to 6 m away."""
    random = torch.Generator().manual_seed(0)
    azimuth_rad = 2 * math.pi * torch.rand(count, generator=random) if azimuth_rad is None else azimuth_rad
    joints_m = standing_m() + 0.05 * torch.randn(count, 17, 3, generator=random)
    joints_m = root_relative(joints_m, H36M17)
    turns = roma.rotvec_to_rotmat(azimuth_rad[:, None] * torch.tensor([0.0, -1.0, 0.0]))
    joints_m = joints_m @ turns.mT
    distance_m = 4 + 2 * torch.rand(count, generator=random)
    return joints_m + distance_m[:, None, None] * torch.tensor([0.0, 0.0, 1.0])


def views_of(joints_m):
    count = len(joints_m)
    return Views(
        points=joints_m[..., :2] / joints_m[..., 2:],
        seen=torch.ones(count, 17, dtype=torch.bool),
        joints_m=joints_m,
        subject=np.array(["ann", "bob", "cy"])[np.arange(count) % 3],
        action=np.array(["walk", "run"])[np.arange(count) % 2],
        frame=np.arange(count) // 4,
    )


@pytest.fixture
def views():
    return views_of(people_m(48))


@pytest.fixture
def questions(views):
    return questions_of(views)


@dataclass(frozen=True)
class Knowing:
    """A branch that knows the truth of the people it is asked for, and says something made of it."""

    views: Views
    change: object = staticmethod(lambda joints_m: joints_m)
    metric: bool = True
    name: str = "knowing"

    def estimate(self, keypoints, camera):
        truth = self._truth(keypoints, camera)
        joints_m = self.change(root_relative(truth, H36M17))
        root_m = truth[:, H36M17.index("pelvis")] if self.metric else None
        return Estimate(self.name, joints_m, keypoints.confidence, keypoints.confidence > 0, root_m)

    def _truth(self, keypoints, camera):
        """The person at the same distance: its focal length tells."""
        every = questions_of(self.views).camera.focal_px
        return self.views.joints_m[(camera.focal_px[:, None] - every).abs().argmin(dim=1)]


class Drawing(Knowing):
    """The truth, off by a noise in its latent space of one number a coordinate."""

    @property
    def latent(self):
        return 51

    def estimate(self, keypoints, camera, noise=None):
        estimate = super().estimate(keypoints, camera)
        if noise is None:
            return estimate
        return replace(estimate, joints17_m=estimate.joints17_m + 0.05 * noise.unflatten(-1, (17, 3)))

    def means(self, keypoints, camera):
        return keypoints.xy_px.flatten(1).repeat(1, 2)[:, :51]


def error_of(change, views, figure="pa_mpjpe_mm"):
    return getattr(measured(Knowing(views, change), questions_of(views))[0], figure)


def test_who_knows_the_truth_makes_no_error(views):
    errors, seconds = measured(Knowing(views), questions_of(views))
    for figure in FIGURES:
        torch.testing.assert_close(getattr(errors, figure), torch.zeros(48), atol=1e-2, rtol=0)
    assert seconds > 0 and measured(Knowing(views, metric=False), questions_of(views))[0].mpjpe_mm is None


def test_a_mirrored_answer_is_wrong_but_for_the_thesis(views):
    def mirror(joints_m):
        return joints_m * FLIP_X

    assert (error_of(mirror, views) > 5).all()
    torch.testing.assert_close(error_of(mirror, views, "pa_mpjpe_thesis_mm"), torch.zeros(48), atol=1e-2, rtol=0)


def test_scale_and_rotation_cost_what_each_figure_says(views):
    turn = roma.rotvec_to_rotmat(torch.tensor([0.4, -0.2, 1.0]))
    off = 0.05 * torch.randn(48, 17, 3, generator=torch.Generator().manual_seed(1))
    plain = {figure: error_of(lambda j: j + off, views, figure) for figure in FIGURES}
    scaled = {figure: error_of(lambda j: 3 * (j + off), views, figure) for figure in FIGURES}
    turned = {figure: error_of(lambda j: 3 * (j + off) @ turn.mT, views, figure) for figure in FIGURES}
    for figure in ("pa_mpjpe_mm", "pa_mpjpe_thesis_mm"):
        torch.testing.assert_close(turned[figure], plain[figure], atol=1e-2, rtol=0)
    torch.testing.assert_close(scaled["n_mpjpe_mm"], plain["n_mpjpe_mm"], atol=1e-2, rtol=0)
    assert (turned["n_mpjpe_mm"] > plain["n_mpjpe_mm"]).all() and (scaled["mpjpe_mm"] > 100).all()


def test_the_figures_are_those_of_the_metrics_and_joints_add_up(views, questions):
    flat = ZeroDepth().estimate(questions.keypoints, questions.camera)
    errors = errors_of(flat, questions.true_m)
    torch.testing.assert_close(errors.pa_mpjpe_mm, pa_mpjpe_mm(flat.joints17_m, questions.true_m))
    torch.testing.assert_close(errors.joints_mm.mean(-1), errors.pa_mpjpe_mm)
    torch.testing.assert_close(errors.n_mpjpe_mm, n_mpjpe_mm(flat.joints17_m, questions.true_m))
    assert (errors.pa_mpjpe_thesis_mm < errors.pa_mpjpe_mm).float().mean() > 0.9


def test_a_question_is_the_person_in_pixels(views, questions):
    torch.testing.assert_close(project(views.joints_m, questions.camera), questions.keypoints.xy_px)
    torch.testing.assert_close(questions.true_m, root_relative(views.joints_m, H36M17))
    assert (questions.keypoints.confidence == 1).all()


@pytest.mark.parametrize("distance_m", [4.0, 6.0, 40.0])
def test_a_person_of_170_cm_stands_1000_px_tall_wherever_the_camera_is(distance_m):
    rod_m = torch.zeros(1, 17, 3)
    rod_m[..., 2] = distance_m
    rod_m[:, H36M17.index("head_top"), 1], rod_m[:, H36M17.index("left_ankle"), 1] = -0.85, 0.85
    xy_px = questions_of(views_of(rod_m)).keypoints.xy_px[0, :, 1]
    assert (xy_px.max() - xy_px.min()).item() == pytest.approx(1000, rel=1e-5)


def test_noise_is_as_large_as_asked_and_its_own(questions):
    many = stack([questions] * 40).map(lambda tensor: tensor.flatten(0, 1))
    moved = noisy(many, 5.0).keypoints.xy_px - many.keypoints.xy_px
    assert moved.std().item() == pytest.approx(5, rel=0.02) and abs(moved.mean().item()) < 0.1
    torch.testing.assert_close(noisy(many, 10.0).keypoints.xy_px - many.keypoints.xy_px, 2 * moved, atol=1e-3, rtol=0)
    assert not torch.equal(noisy(many, 5.0, seed=1).keypoints.xy_px, noisy(many, 5.0).keypoints.xy_px)
    assert torch.equal(noisy(many[:10], 5.0).keypoints.xy_px, noisy(many, 5.0).keypoints.xy_px[:10])


@pytest.mark.parametrize("missing", [0, 3, 8])
def test_limb_joints_go_missing_and_say_nothing(questions, missing):
    asked = without_limbs(questions, missing)
    hidden = asked.keypoints.confidence == 0
    assert (hidden.sum(-1) == missing).all()
    limbs = H36M17.indices(*LIMB_JOINTS)
    assert not hidden[:, [joint for joint in range(17) if joint not in limbs]].any()
    assert missing != 3 or hidden[:, limbs].any(0).all()
    kept = torch.where(hidden[..., None], 0.0, asked.keypoints.xy_px)
    torch.testing.assert_close(kept, torch.where(hidden[..., None], 0.0, questions.keypoints.xy_px))
    other = replace(questions, keypoints=replace(questions.keypoints, xy_px=questions.keypoints.xy_px + 50))
    torch.testing.assert_close(without_limbs(other, missing).keypoints.xy_px[hidden], asked.keypoints.xy_px[hidden])


def test_who_is_not_seen_by_the_view_is_not_asked_for(views):
    seen = views.seen.clone()
    seen[:, H36M17.index("face")] = False
    hidden = questions_of(replace(views, seen=seen)).keypoints.confidence == 0
    assert torch.equal(hidden, ~seen)


def test_views_without_truth_are_no_questions(views):
    with pytest.raises(ValueError, match="without their 3D joints"):
        questions_of(views.without_truth())


def test_the_best_of_samples_is_no_worse_than_any_and_their_mean_is_between(views, questions):
    found = sampled(Drawing(views), questions, 5)
    more = sampled(Drawing(views), questions, 8)
    for figure in FIGURES:
        best, mean = getattr(found.best, figure), getattr(found.mean, figure)
        assert (best < mean).all() and (getattr(more.best, figure) <= best).all()
    torch.testing.assert_close(found.best.joints_mm.mean(-1), found.best.pa_mpjpe_mm)
    one = sampled(Drawing(views), questions, 1)
    for figure in FIGURES:
        torch.testing.assert_close(getattr(one.best, figure), getattr(one.mean, figure))


def test_the_best_sample_is_chosen_pose_by_pose():
    joints_mm = torch.tensor([[1.0, 9.0], [5.0, 5.0]])[..., None].expand(2, 2, 17)
    samples = Errors(joints_mm, torch.tensor([[3.0, 1.0], [2.0, 4.0]]), joints_mm[..., 0])
    best = best_of(samples)
    assert best.pa_mpjpe_mm.tolist() == [1, 5] and best.pa_mpjpe_thesis_mm.tolist() == [2, 1] and best.mpjpe_mm is None


def test_answers_do_not_depend_on_how_many_are_asked_for_at_once(views, questions, monkeypatch):
    together = [measured(ZeroDepth(), questions)[0], sampled(Drawing(views), questions, 2).best]
    told = []
    monkeypatch.setattr("meshrec.evaluation.AT_ONCE", 7)
    monkeypatch.setattr(lift_evaluation, "AT_ONCE", 7)
    apart = [measured(ZeroDepth(), questions, told.append)[0], sampled(Drawing(views), questions, 2).best]
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one.joints_mm, other.joints_mm, atol=1e-3, rtol=1e-5)
    assert sum(told) == len(questions)


def test_angles_are_cut_into_eight_bins():
    degrees = torch.arange(-179.0, 181.0, 1.0)
    bins = angle_of(torch.deg2rad(degrees))
    names, counts = np.unique(bins, return_counts=True)
    assert sorted(names) == sorted(ANGLES_DEG) and counts.sum() == 360 and counts.min() >= 44
    assert angle_of(torch.deg2rad(torch.tensor([0.0, 22.0, 23.0, -89.0, 179.0, -179.0]))).tolist() == [
        0,
        0,
        45,
        -90,
        180,
        180,
    ]


@pytest.mark.parametrize("turn_deg", ANGLES_DEG)
def test_the_bin_of_a_view_is_where_the_person_faces(turn_deg):
    people = views_of(people_m(5, torch.full((5,), math.radians(turn_deg))))
    assert set(angle_of(people.azimuth_rad)) == {turn_deg}


def test_groups_partition_the_views(views):
    values = torch.arange(48.0)
    groups = means_by(values, views.action)
    assert sum(count for count, _ in groups.values()) == 48
    assert sum(count * mean for count, mean in groups.values()) == values.sum()
    assert groups["walk"] == (24, values[::2].mean())


def test_subjects_count_alike_whatever_they_were_seen():
    values, subjects = torch.tensor([1.0, 1.0, 1.0, 4.0, math.nan]), np.array(["a", "a", "a", "b", "b"])
    summary = summary_of(values, subjects)
    assert (summary.poses, summary.subjects, summary.unanswered) == (1.75, 2.5, 1)
    assert summary.subjects_sd == pytest.approx(3 / 2**0.5)
    assert summary_of(values[:3], subjects[:3]).subjects_sd is None


def test_joined_errors_have_metres_only_where_all_have():
    part = Errors(torch.ones(2, 17), torch.ones(2), torch.ones(2), torch.ones(2))
    assert joined([part, part]).mpjpe_mm.shape == (4,)
    assert joined([part, replace(part, mpjpe_mm=None)]).mpjpe_mm is None


def test_zero_depth_is_the_image(questions, views):
    joints = ZeroDepth().estimate(questions.keypoints, questions.camera).joints17_m
    assert (joints[..., 2] == 0).all()
    pelvis = views.points[:, [H36M17.index("pelvis")]]
    torch.testing.assert_close(joints[..., :2], views.points - pelvis, atol=1e-5, rtol=0)


def test_the_mean_pose_does_not_care_which_way_people_face():
    turns = roma.random_rotmat(30)
    joints_m = root_relative(people_m(30), H36M17)
    mean = mean_pose_m(joints_m)
    torch.testing.assert_close(mean_pose_m(joints_m @ turns.mT), mean, atol=1e-5, rtol=0)
    assert pa_mpjpe_mm(mean, root_relative(standing_m(), H36M17)) < 30
    torch.testing.assert_close(mean[H36M17.index("pelvis")], torch.zeros(3))


def test_facing_the_camera_is_upright_with_the_left_side_on_the_right():
    joints_m = standing_m() @ roma.random_rotmat(7).mT
    rotation = facing_camera(joints_m)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(7))
    upright = joints_m @ rotation.mT
    assert (upright[:, H36M17.index("left_shoulder"), 0] > 0.1).all()
    assert (upright[:, H36M17.index("thorax"), 1] < -0.4).all()
    assert (upright[:, H36M17.index("face"), 2] < 0).all()


def test_protocols_are_met_by_what_they_describe(views):
    assert isinstance(Knowing(views), Estimator) and not isinstance(Knowing(views), Sampler)
    assert isinstance(Drawing(views), Sampler) and isinstance(ZeroDepth(), Estimator)
    assert isinstance(MeanPose(standing_m()), Estimator)


def evaluated(views, estimator=None, **changed):
    config = evaluate.EvaluationConfig(**changed)
    mean_pose = MeanPose(mean_pose_m(views.joints_m), "mean pose")
    return evaluate.evaluate(estimator or Drawing(views, metric=False), views, mean_pose, config, True)


def test_every_row_stands_in_the_record(views):
    evaluation = evaluated(views, hypotheses=3)
    record = record_of(evaluation, {"branch": "knowing"})
    rows = {(row["method"], row["condition"]): row for row in record["rows"]}
    assert [name for name, _ in rows] == ["knowing"] * 3 + [
        "knowing, one of 3 samples",
        "knowing, best of 3 samples",
        "zero depth",
        "mean pose",
    ]
    assert [row["kind"] for row in record["rows"]] == ["branch"] * 3 + ["sample", "oracle", "baseline", "baseline"]
    clean = rows["knowing", "as it is"]
    assert set(clean) == {"method", "kind", "condition", "loss_mm", *FIGURES}
    assert set(clean["pa_mpjpe_mm"]) == {"poses", "subjects", "subjects_sd", "unanswered"}
    assert clean["mpjpe_mm"] is None and clean["loss_mm"] is None
    assert rows["knowing", "3 limb joints missing"]["loss_mm"] == pytest.approx(0, abs=1e-2)
    assert rows["zero depth", "as it is"]["pa_mpjpe_mm"]["poses"] > 30
    assert record["poses"] == 48 and record["frames"] == 12 and record["subjects"] == ["ann", "bob", "cy"]


def test_the_record_s_parts_add_up(views):
    record = record_of(evaluated(views, estimator=ZeroDepth()), {})
    total = record["rows"][0]["pa_mpjpe_mm"]["poses"]
    alone, _ = measured(ZeroDepth(), questions_of(views))
    assert total == pytest.approx(float(alone.pa_mpjpe_mm.mean()), rel=1e-5)
    assert [row["joint"] for row in record["per_joint"]] == list(H36M17.joints)
    assert np.mean([row["pa_mpjpe_mm"] for row in record["per_joint"]]) == pytest.approx(total, rel=1e-5)
    for part in ("per_action", "per_subject", "by_angle"):
        counts = [row["poses"] for row in record[part]]
        sums = [row["poses"] * (row["pa_mpjpe_mm"] or 0) for row in record[part]]
        assert sum(counts) == 48 and sum(sums) / 48 == pytest.approx(total, rel=1e-5)
    assert len(record["by_angle"]) == 8
    assert set(record) == {
        "meshrec", "poses", "frames", "subjects", "poses_per_s", "rows", "per_joint", "per_action", "per_subject",
        "by_angle",
    }  # fmt: skip


def test_noise_and_missing_joints_have_their_price(views):
    evaluation = evaluated(views, ZeroDepth(), noise_px=20.0, missing=3)
    assert evaluation.loss_mm(evaluation.rows[0]) is None
    assert evaluation.loss_mm(evaluation.rows[1]) > 0 and evaluation.loss_mm(evaluation.rows[2]) > 20
    assert [row.condition for row in evaluated(views, ZeroDepth(), noise_px=0.0, missing=0).rows[:2]] == [
        "as it is"
    ] * 2


def test_views_without_an_answer_are_counted_and_in_no_mean(views):
    def silent(joints_m):
        return torch.where((torch.arange(len(joints_m)) < 4)[:, None, None], torch.nan, joints_m)

    record = record_of(evaluated(views, Knowing(views, silent)), {})
    assert record["rows"][0]["pa_mpjpe_mm"]["unanswered"] == 4
    assert record["rows"][0]["pa_mpjpe_mm"]["poses"] == pytest.approx(0, abs=1e-2)
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("frames", [1, 5, 12, 100])
def test_thinned_views_are_whole_frames_evenly_spread(views, frames):
    kept = evaluate.thinned(views, frames)
    assert len(np.unique(kept.frame)) == min(frames, 12) and len(kept.frame) == 4 * min(frames, 12)
    assert frames == 1 or (kept.frame.min(), kept.frame.max()) == (0, 11)


@pytest.mark.parametrize("umap", [False, True])
def test_pictures_are_drawn_and_the_map_says_what_it_is(views, tmp_path, monkeypatch, umap):
    pytest.importorskip("matplotlib")
    found = evaluation_plots.find_spec
    if not umap:
        monkeypatch.setattr(evaluation_plots, "find_spec", lambda name: None if name == "umap" else found(name))
    elif found("umap") is None:
        pytest.skip("umap is not installed")
    evaluation = evaluated(views, hypotheses=1)
    _, method = evaluation_plots._in_the_plane(evaluation.means)
    assert method.startswith("UMAP" if umap else "PCA")
    written = evaluation_plots.write_plots(tmp_path, evaluation)
    assert [path.name for path in written] == ["actions.png", "angles.png", "joints.png", "latent.png"]
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 300 and len(np.unique(np.asarray(picture))) > 20


def test_the_two_principal_axes_hold_the_most_variance():
    means = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 5.0, 0.1, 3.0, 0.1])
    places = evaluation_plots._principal_axes(means)[0]
    assert abs(np.corrcoef(places[:, 0], means[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(places[:, 1], means[:, 3])[0, 1]) > 0.99


def write_capture(path):
    """Joints alone, in the layout of our captures: two people, two clips."""
    joints_m = root_relative(people_m(20), H36M17) * torch.tensor([1.0, -1.0, -1.0])
    np.savez(
        path,
        joints17=joints_m.numpy(),
        h36m17_names=np.array(H36M17.joints),
        valid=np.ones(20, bool),
        clip_start=np.array([0, 10]),
        clip_len=np.array([10, 10]),
        clip_name=np.array(["a_01", "b_01"]),
        clip_subject=np.array(["a", "b"]),
        clip_action=np.array(["walk", "run"]),
        fps=np.array(30.0),
    )
    return path


@pytest.fixture
def flat(monkeypatch):
    """The verb, its branch replaced by one that needs no weights."""
    monkeypatch.setattr(evaluate, "build_estimator", lambda *asked: ZeroDepth("lift"))
    return evaluate.command


def test_the_verb_prints_its_record_and_writes_it(flat, tmp_path, capsys):
    data, report = write_capture(tmp_path / "capture.npz"), tmp_path / "report.json"
    assert flat((data,), held_out=("b",), json=True, report=report, per_joint=True) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert json.loads(report.read_text()) == record
    assert record["subjects"] == ["b"] and record["frames"] == 10 and record["poses"] == 40
    assert record["rows"][-1]["method"] == "mean pose of the training subjects"
    assert record["held_out"] == ["b"] and record["noise_px"] == 5 and record["pictures"] == []
    assert (record["train_data"], record["body"], record["prior"]) == ([], "neutral", "flow")
    assert record["rows"][0]["pa_mpjpe_mm"] == record["rows"][3]["pa_mpjpe_mm"], "zero depth is zero depth"
    for told in ("PA-MPJPE", "zero depth", "left wrist", "run", "+90° side"):
        assert told in printed.err


def test_all_are_evaluated_where_nobody_is_named(flat, tmp_path, capsys):
    data = write_capture(tmp_path / "capture.npz")
    assert flat((data,), views=2, frames=7, json=True) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["subjects"] == ["a", "b"] and record["frames"] == 7 and record["poses"] == 14
    assert record["rows"][-1]["method"] == "mean pose of the subjects evaluated on"
    assert flat((data,), train_data=(data,), views=1, json=True) == 0
    assert json.loads(capsys.readouterr().out)["rows"][-1]["method"] == "mean pose of the training subjects"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"data": ()}, "--data PATH"),
        ({"views": 0}, "--views takes .* not 0"),
        ({"noise_px": -1.0}, "--noise-px .* not -1.0"),
        ({"noise_px": math.nan}, "--noise-px .* not nan"),
        ({"missing": 9}, "--missing takes 0 to 8"),
        ({"hypotheses": -1}, "--hypotheses .* not -1"),
        ({"hypotheses": 201}, "--hypotheses .* to 200, not 201"),
        ({"frames": 0}, "--frames .* not 0"),
        ({"seed": -1}, "--seed .* not -1"),
        ({"height_m": 170.0}, "--height-m takes metres .* not 170"),
        ({"held_out": ("zoe",)}, "zoe"),
        ({"branch": "fit", "weights": "mine"}, "--weights .* belong to the branch lift"),
    ],
)
def test_what_cannot_be_asked_is_advised_against(tmp_path, monkeypatch, asked, told):
    if "branch" not in asked:
        monkeypatch.setattr(evaluate, "build_estimator", lambda *asked: ZeroDepth())
    data = asked.pop("data", (write_capture(tmp_path / "capture.npz"),))
    with pytest.raises(MeshrecError, match=told):
        evaluate.command(data, **asked)


@pytest.fixture
def lifter(views):
    lifter = VaeLifter(LifterConfig(hidden=32, latent=8), torch.Generator().manual_seed(0))
    lifter.start_at(views.points, views.seen)
    return lifter.eval()


def test_the_lift_branch_draws_and_knows_metres_only_with_a_height(lifter, questions, tmp_path):
    path = write_lifter(tmp_path / "mine.safetensors", lifter)
    units, metres = (build_estimator("lift", str(path), height_m) for height_m in (None, 1.8))
    assert isinstance(units, Sampler) and units.latent == 8
    means = units.means(questions.keypoints, questions.camera)
    assert means.shape == (48, 8) and torch.equal(lift_evaluation.latent_means(units, questions), means)
    in_units, in_metres = (measured(each, questions)[0] for each in (units, metres))
    assert in_units.mpjpe_mm is None and in_metres.mpjpe_mm is not None
    torch.testing.assert_close(in_units.pa_mpjpe_mm, in_metres.pa_mpjpe_mm, atol=1e-2, rtol=1e-4)
    found = sampled(units, questions, 2)
    assert (found.best.pa_mpjpe_mm <= found.mean.pa_mpjpe_mm).all()


def test_where_people_lie_in_the_latent_space_does_not_depend_on_where_the_camera_looks(lifter, views, tmp_path):
    sampler = build_estimator("lift", str(write_lifter(tmp_path / "mine.safetensors", lifter)))
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.2, 0.0]))
    here, there = (
        lift_evaluation.latent_means(sampler, questions_of(views_of(joints_m)))
        for joints_m in (views.joints_m, views.joints_m @ turn.mT)
    )
    torch.testing.assert_close(there, here, atol=1e-3, rtol=1e-3)
    assert here.std(0).max() > 0.01


def test_the_mean_pose_never_knows_whom_it_is_compared_on(tmp_path):
    data, config = (write_capture(tmp_path / "capture.npz"),), ViewsConfig(views=1)
    poses = [evaluate.open_questions(data, ("b",), config, train_data=known)[1] for known in ((), data)]
    torch.testing.assert_close(poses[0].joints_m, poses[1].joints_m)
    everybody = evaluate.open_questions(data, (), config)[1]
    assert not torch.allclose(everybody.joints_m, poses[0].joints_m, atol=1e-4)


def test_a_fit_answers_in_metres_and_not_where_nobody_is_seen():
    two = questions_of(views_of((standing_m() + torch.tensor([0.0, 0.0, 5.0])).expand(2, 17, 3)))
    two = unseen(two, torch.tensor([[False], [True]]).expand(2, 17))
    errors, _ = measured(build_estimator("fit"), two)
    assert errors.mpjpe_mm is not None and errors.pa_mpjpe_mm[0] < 60
    assert errors.pa_mpjpe_mm[1].isnan() and errors.mpjpe_mm[1].isnan()


@pytest.mark.parametrize(
    "flags", [["--page", "page.html"], ["--gendered"], ["--mesh-weights", "some.safetensors"], ["--branch", "mesh"]]
)
def test_what_is_asked_of_records_is_not_asked_of_views(tmp_path, capsys, flags):
    assert main(["evaluate", "--data", str(write_capture(tmp_path / "capture.npz")), *flags]) == 1
    assert "holds no records" in capsys.readouterr().err


def test_a_branch_that_wants_a_photograph_is_not_asked(monkeypatch):
    monkeypatch.setattr("meshrec.estimators.build_branch", lambda *asked: object())
    with pytest.raises(MeshrecError, match="wants a photograph"):
        build_estimator("mesh")


def test_a_branch_that_answers_nothing_is_no_result(monkeypatch, tmp_path):
    silent = MeanPose(torch.full((17, 3), torch.nan))
    monkeypatch.setattr(evaluate, "build_estimator", lambda *asked: silent)
    with pytest.raises(MeshrecError, match="answered none of the 80 views"):
        evaluate.command((write_capture(tmp_path / "capture.npz"),))
