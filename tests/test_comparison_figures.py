"""Figures of comparisons: who knows the truth makes no error, and a known error is found as large as it is."""

from dataclasses import replace

import pytest
import roma
import torch

from meshrec.camera import project
from meshrec.comparison.figures import (
    ACCURACY,
    LIMB_JOINTS,
    Found,
    Seen,
    accuracy,
    agreement,
    agreement_metrics,
    counted_errors_mm,
    detection_px,
    joints_apart_mm,
)
from meshrec.record_evaluation import JOINTS14
from meshrec.skeletons import COCO17, H36M17
from meshrec.types import Camera, Keypoints

PEOPLE = 3


def true_of(people=PEOPLE):
    generator = torch.Generator().manual_seed(1)
    joints = 0.4 * torch.randn(people, 17, 3, generator=generator)
    joints -= joints[:, H36M17.indices("pelvis")]
    root = torch.tensor([0.1, -0.2, 4.0]) + 0.2 * torch.randn(people, 3, generator=generator)
    return Found(joints, root, torch.randn(people, 50, 3, generator=generator))


def seen_of(true, scale=1.0):
    """People shown by a camera, whose boxes are 500 px high at scale 1."""
    people = len(true.root_m)
    camera = Camera(torch.full((people,), 900.0 * scale), torch.full((people, 2), 500.0 * scale), 0, 0, "true")
    xy_px = project(true.joints17_m + true.root_m[:, None], camera)
    box = torch.tensor([100.0, 100.0, 400.0, 600.0]).expand(people, 4) * scale
    return Seen(Keypoints(xy_px, torch.ones(people, 17), H36M17), camera, box)


def moved(found, *joints, by=(0.0, 0.03, 0.0)):
    joints17 = found.joints17_m.clone()
    joints17[:, H36M17.indices(*joints)] += torch.tensor(by)
    return replace(found, joints17_m=joints17)


def figures_of(found, true=None):
    true = true_of() if true is None else true
    return accuracy(found, true, seen_of(true))


def close(values, goal, tolerance=1e-3):
    return values == pytest.approx([goal] * PEOPLE, abs=tolerance)


def test_who_knows_the_truth_makes_no_error():
    figures = figures_of(true_of())
    assert set(figures) == {metric.name for metric in ACCURACY}
    for metric in ACCURACY:
        assert close(figures[metric.name], 0.0 if metric.better == "lower" else 1.0, 1e-2)


def test_a_known_error_is_as_large_as_it_is():
    figures = figures_of(moved(true_of(), "left_wrist"))
    assert close(figures["mpjpe_mm"], 30 / 14) and close(figures["pck_150mm"], 1.0)
    uncounted = figures_of(moved(true_of(), "spine", "face"))
    assert close(uncounted["mpjpe_mm"], 0.0)
    errors = counted_errors_mm(moved(true_of(), "left_wrist"), true_of())
    assert close(errors[:, JOINTS14.index("left_wrist")].tolist(), 30.0)
    assert close(errors[:, JOINTS14.index("right_wrist")].tolist(), 0.0)


def test_each_alignment_forgives_what_it_aligns():
    true = true_of()
    far = figures_of(replace(true, root_m=true.root_m + torch.tensor([0.0, 0.3, 0.4])))
    assert close(far["mrpe_mm"], 500.0, 0.01) and close(far["mpjpe_mm"], 0.0) and far["reprojection_px"].min() > 10
    large = figures_of(replace(true, joints17_m=1.2 * true.joints17_m))
    assert close(large["n_mpjpe_mm"], 0.0, 0.01) and large["mpjpe_mm"].min() > 30
    turn = roma.rotvec_to_rotmat(torch.tensor([0.1, 0.5, -0.2]))
    turned = figures_of(replace(true, joints17_m=true.joints17_m @ turn.T))
    assert close(turned["pa_mpjpe_mm"], 0.0, 0.05) and turned["n_mpjpe_mm"].min() > 30
    mirrored = figures_of(replace(true, joints17_m=true.joints17_m * torch.tensor([-1.0, 1.0, 1.0])))
    assert mirrored["pa_mpjpe_mm"].min() > 20, "the rotation is proper"


def test_shares_of_joints_within_reach():
    true = true_of()
    near = figures_of(moved(true, *JOINTS14, by=(0.0, 0.0, 0.0749)))
    assert close(near["pck_150mm"], 1.0) and close(near["auc_150mm"], 16 / 31)
    wrist = figures_of(moved(true, "left_wrist", by=(0.2, 0.0, 0.0)))
    assert close(wrist["pck_150mm"], 13 / 14)


def test_the_skin_s_error_is_its_mean_distance_and_joints_alone_have_none():
    true = true_of()
    swollen = figures_of(replace(true, vertices_m=true.vertices_m + torch.tensor([0.0, 0.02, 0.0])))
    assert close(swollen["pve_mm"], 20.0, 0.01)
    bare = figures_of(replace(true, vertices_m=None, root_m=torch.full_like(true.root_m, torch.nan)))
    for name in ("pve_mm", "mrpe_mm", "reprojection_px", "detection_px"):
        assert torch.from_numpy(bare[name]).isnan().all()
    assert close(bare["mpjpe_mm"], 0.0)


def test_pixels_are_those_of_a_person_of_one_size():
    """A wrist 3 px off in one of 14 joints; a box of 500 px makes them 6, in a picture of any scale."""
    true = true_of()
    for scale in (0.25, 1.0, 3.0):
        seen = seen_of(true, scale)
        by = 3.0 * scale * true.root_m[:, 2:] / seen.camera.focal_px[:, None]
        flat = replace(true, joints17_m=true.joints17_m * torch.tensor([1.0, 1.0, 0.0]))
        joints17 = flat.joints17_m.clone()
        joints17[:, H36M17.index("left_wrist"), :1] += by
        figures = accuracy(
            replace(flat, joints17_m=joints17), flat, replace(seen, keypoints=seen_of(flat, scale).keypoints)
        )
        assert close(figures["reprojection_px"], 6 / 14) and close(figures["detection_px"], 6 / 12)


def test_only_seen_limb_joints_say_how_near_the_detection_is():
    true, seen = true_of(), seen_of(true_of())
    xy_px, confidence = seen.keypoints.xy_px.clone(), seen.keypoints.confidence.clone()
    xy_px[:, H36M17.index("head_top")] += 50
    xy_px[:, H36M17.index("left_knee")] = torch.nan
    xy_px[:, H36M17.index("right_knee")] += 70
    confidence[:, H36M17.index("right_knee")] = 0.1
    said = replace(seen, keypoints=replace(seen.keypoints, xy_px=xy_px, confidence=confidence))
    assert close(detection_px(true, said).tolist(), 0.0)
    unseen = replace(seen, keypoints=replace(seen.keypoints, confidence=torch.zeros(PEOPLE, 17)))
    assert detection_px(true, unseen).isnan().all()
    sides = [H36M17.mirror[joint] for joint in range(17)]
    swapped = replace(seen, keypoints=replace(seen.keypoints, xy_px=seen.keypoints.xy_px[:, sides]))
    assert detection_px(true, swapped).min() > 50, "left is not right"


def test_detections_of_another_skeleton_are_compared_by_name():
    true, seen = true_of(), seen_of(true_of())
    xy_px = torch.zeros(PEOPLE, 17, 2)
    confidence = torch.zeros(PEOPLE, 17)
    for joint in LIMB_JOINTS:
        xy_px[:, COCO17.index(joint)] = seen.keypoints.xy_px[:, H36M17.index(joint)]
        confidence[:, COCO17.index(joint)] = 1.0
    assert close(detection_px(true, replace(seen, keypoints=Keypoints(xy_px, confidence, COCO17))).tolist(), 0.0)


def test_behind_the_camera_there_are_no_pixels():
    true = true_of()
    behind = figures_of(replace(true, root_m=true.root_m * torch.tensor([1.0, 1.0, -1.0])))
    assert torch.from_numpy(behind["reprojection_px"]).isnan().all()


def test_who_has_no_answer_has_no_figure_and_the_others_keep_theirs():
    true = true_of()
    lost = true.joints17_m.clone()
    lost[1] = torch.nan
    figures = figures_of(replace(true, joints17_m=lost))
    for metric in ("pa_mpjpe_mm", "mpjpe_mm", "n_mpjpe_mm", "pck_150mm", "auc_150mm", "reprojection_px"):
        assert torch.from_numpy(figures[metric]).isfinite().tolist() == [True, False, True]


def test_agreement_is_the_same_both_ways_and_needs_another():
    true = true_of()
    found = {"one": true, "other": moved(true, "left_wrist", "left_knee", by=(0.0, 0.1, 0.0))}
    figures = agreement(found, seen_of(true))
    assert figures["one"]["pa_apart_mm"] == pytest.approx(figures["other"]["pa_apart_mm"], abs=1e-4)
    assert close(figures["one"]["apart_mm"], 200 / 14) and close(figures["one"]["detection_px"], 0.0)
    assert figures["other"]["detection_px"].min() > 1
    assert {metric.name for metric in agreement_metrics(("one", "other"))} == set(figures["one"])
    alone = agreement({"one": true}, seen_of(true))
    assert torch.from_numpy(alone["one"]["apart_mm"]).isnan().all()


def test_of_three_each_is_told_from_each_and_an_absent_one_counts_for_nobody():
    true = true_of()
    absent = replace(true, joints17_m=torch.full_like(true.joints17_m, torch.nan))
    found = {"one": true, "other": moved(true, "left_wrist"), "third": absent}
    figures = agreement(found, seen_of(true))
    assert {metric.name for metric in agreement_metrics(tuple(found))} == set(figures["one"])
    assert close(figures["one"]["apart_mm"], 30 / 14)
    assert torch.from_numpy(figures["third"]["apart_mm"]).isnan().all()
    assert torch.from_numpy(figures["one"]["pa_from_one_mm"]).isnan().all()
    assert figures["one"]["pa_from_other_mm"] == pytest.approx(figures["one"]["pa_apart_mm"])
    assert close(joints_apart_mm(found, "one")[:, JOINTS14.index("left_wrist")].tolist(), 30.0)
