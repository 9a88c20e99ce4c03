"""Cameras stand where they should, what they see is the projection of the truth, and files of 2D joints come back."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from joint_writers import people_m, standing_m, turned, write_capture, write_coco, write_objects, z_up
from torch import Tensor

from meshrec.data.joints import JointFrames
from meshrec.data.views import FEWEST_JOINTS, Views, ViewsConfig, open_views, read_views, virtual_views
from meshrec.errors import MeshrecError
from meshrec.skeletons import COCO17, H36M17

PELVIS = H36M17.index("pelvis")
LEVEL = ViewsConfig(elevation_rad=(0.0, 0.0))


def frames_of(joints_m: np.ndarray, subject: str = "ann") -> JointFrames:
    """In double precision, for the laws."""
    subject_of, action, clip, file = (np.full(len(joints_m), name) for name in (subject, "walk", "clip", "file"))
    return JointFrames(joints_m, subject_of, action, clip, file)


def seen_of(joints_m: np.ndarray, config: ViewsConfig) -> Views:
    return virtual_views(frames_of(joints_m), np.arange(len(joints_m)), config)


def truth_of(views: Views) -> Tensor:
    assert views.joints_m is not None
    return views.joints_m


def wrapped(angle_rad: Tensor) -> Tensor:
    return torch.atan2(angle_rad.sin(), angle_rad.cos())


# ---- virtual cameras


def test_every_camera_looks_at_the_pelvis_from_within_its_range_and_sees_the_projection_of_the_truth():
    config = ViewsConfig(views=3, distance_m=(3.0, 7.0), elevation_rad=(-0.2, 0.6))
    joints_m = people_m(200)
    views = seen_of(joints_m, config)
    truth_m = truth_of(views)
    assert views.seen.all() and not views.points[:, PELVIS].any()
    assert torch.allclose(truth_m[..., :2] / truth_m[..., 2:], views.points)
    distance_m = truth_m[:, PELVIS].norm(dim=-1)
    assert 3.0 <= distance_m.min() < 3.1 and 6.9 < distance_m.max() <= 7.0
    lengths = np.linalg.norm(joints_m[:, :, None] - joints_m[:, None], axis=-1)
    assert torch.allclose(torch.cdist(truth_m, truth_m), torch.from_numpy(np.repeat(lengths, 3, axis=0)), atol=1e-6)


def test_cameras_stand_upright_at_their_elevation_all_around():
    """The world's vertical, a mast on the pelvis, is vertical in the image and leans as the camera is raised."""
    mast_m = np.zeros((300, 17, 3))
    mast_m[:, H36M17.index("thorax"), 1] = 0.5
    mast_m[:, [H36M17.index("left_hip"), H36M17.index("left_shoulder")], 0] = 0.1
    views = seen_of(mast_m, ViewsConfig(elevation_rad=(0.1, 0.4)))
    up = (truth_of(views)[:, H36M17.index("thorax")] - truth_of(views)[:, PELVIS]) / 0.5
    assert up[:, 0].abs().max() < 1e-12 and (up[:, 1] < 0).all()
    elevation_rad = torch.atan2(-up[:, 2], -up[:, 1])
    assert 0.1 <= elevation_rad.min() < 0.11 and 0.39 < elevation_rad.max() <= 0.4
    quarters = torch.histc(views.azimuth_rad, 4, -math.pi, math.pi) / len(views)
    assert ((quarters - 0.25).abs() < 0.05).all()


@pytest.mark.parametrize("angle_rad", [math.pi / 2, -0.7, 3.0])
def test_turning_the_person_turns_the_azimuth(angle_rad):
    joints_m = people_m(20)
    before, after = seen_of(joints_m, LEVEL), seen_of(turned(joints_m, angle_rad), LEVEL)
    assert torch.allclose(
        wrapped(after.azimuth_rad - before.azimuth_rad - angle_rad), torch.zeros(80).double(), atol=1e-9
    )
    assert not torch.allclose(before.points, after.points, atol=1e-3)


def test_who_faces_the_camera_has_the_left_on_the_right_of_the_image_and_the_head_above():
    views = seen_of(turned(np.stack([standing_m()] * 500), np.linspace(-3, 3, 500)), LEVEL)
    facing = views[views.azimuth_rad.abs().numpy() < 0.2]
    away = views[views.azimuth_rad.abs().numpy() > math.pi - 0.2]
    to_the_right = views[(views.azimuth_rad - math.pi / 2).abs().numpy() < 0.2]
    for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
        left, right = H36M17.indices(f"left_{joint}", f"right_{joint}")
        assert (facing.points[:, left, 0] > facing.points[:, right, 0] + 0.02).all()
        assert (away.points[:, left, 0] < away.points[:, right, 0] - 0.02).all()
        assert (truth_of(to_the_right)[:, left, 2] > truth_of(to_the_right)[:, right, 2] + 0.1).all()
    face, thorax = H36M17.indices("face", "thorax")
    assert (truth_of(facing)[:, face, 2] < truth_of(facing)[:, thorax, 2]).all()
    assert (to_the_right.points[:, face, 0] > to_the_right.points[:, thorax, 0]).all()
    assert (views.points[:, H36M17.index("head_top"), 1] < views.points[:, PELVIS, 1]).all()


def test_a_mirrored_person_faces_the_other_way_in_mirrored_views():
    """The person in a mirror, seen by the camera in the mirror: sides swapped, x negated, in 2D as in 3D."""
    joints_m = people_m(30)
    views = seen_of(joints_m, LEVEL)
    mirror = list(H36M17.mirror)
    mirrored = replace(
        views,
        points=views.points[:, mirror] * torch.tensor([-1.0, 1.0]),
        joints_m=truth_of(views)[:, mirror] * torch.tensor([-1.0, 1.0, 1.0]),
    )
    truth_m = truth_of(mirrored)
    assert torch.allclose(truth_m[..., :2] / truth_m[..., 2:], mirrored.points)
    assert torch.allclose(wrapped(mirrored.azimuth_rad + views.azimuth_rad), torch.zeros(120).double(), atol=1e-9)


def test_a_row_has_the_same_cameras_whatever_the_other_rows_are():
    joints_m = people_m(12)
    views = seen_of(joints_m, ViewsConfig())
    fewer = seen_of(joints_m[:5], ViewsConfig())
    assert torch.equal(fewer.points, views.points[: 4 * 5])
    rows = np.array([7, 2, 11])
    some = virtual_views(frames_of(joints_m), rows, ViewsConfig())
    assert some.frame.tolist() == np.repeat(rows, 4).tolist()
    for row in rows:
        assert torch.equal(some[some.frame == row].points, views[views.frame == row].points)
    assert len(virtual_views(frames_of(joints_m), rows[:0], ViewsConfig())) == 0


def test_views_of_a_frame_differ_and_so_do_those_of_another_seed():
    same_m = np.stack([standing_m()] * 6)
    views, others = seen_of(same_m, ViewsConfig()), seen_of(same_m, ViewsConfig(seed=1))
    assert len(views) == 24
    for points in (views.points, torch.cat([views.points, others.points])):
        apart = torch.cdist(points.flatten(1), points.flatten(1)) + torch.eye(len(points))
        assert apart.min() > 1e-3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"views": 0}, "views is 0"),
        ({"distance_m": (0.5, 4.0)}, "distance_m is 0.5 to 4.0"),
        ({"distance_m": (5.0, 4.0)}, "must rise"),
        ({"elevation_rad": (0.0, 20.0)}, "elevation_rad is 0.0 to 20.0"),
    ],
)
def test_cameras_that_cannot_stand_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        ViewsConfig(**settings)


# ---- the noun


def test_without_truth_nothing_of_it_is_left():
    views = seen_of(people_m(3), ViewsConfig())
    blind = views.without_truth()
    assert blind.joints_m is None and blind[:2].joints_m is None
    shapes = {value.shape[-1] for value in vars(blind).values() if isinstance(value, Tensor)}
    assert shapes == {2, 17}, "no field holds three dimensions"
    assert torch.equal(blind.points, views.points) and not hasattr(blind, "distance_m")
    with pytest.raises(ValueError, match="without truth"):
        _ = blind.azimuth_rad


def test_rows_are_taken_of_every_field():
    views = seen_of(people_m(5), ViewsConfig())
    chosen = np.array([3, 0, 19])
    some = views[chosen]
    for name in ("points", "seen", "joints_m", "subject", "action", "frame"):
        assert len(getattr(some, name)) == 3
        assert np.array_equal(getattr(some, name)[0], getattr(views, name)[3])
    assert torch.equal(views[views.frame == 2].points, views[8:12].points)


# ---- files


def pixels(points: Tensor, focal_px: float, center_px: tuple[float, float]) -> np.ndarray:
    return (points * focal_px + torch.tensor(center_px)).numpy().astype(np.float32)


def coco_people(views: Views, flag: int = 2) -> list[dict[str, tuple[float, float, int]]]:
    """The COCO joints that H36M names too, in a picture of 640 x 480, as COCO counts pixels."""
    shared = [joint for joint in COCO17.joints if joint in H36M17.joints]
    people = pixels(views.points, 800.0, (320.0, 240.0)) - 0.5
    return [
        {joint: (*person[H36M17.index(joint)].tolist(), flag) for joint in shared} | {"nose": (320.0, 10.0, 2)}
        for person in people
    ]


def test_coco_comes_back_with_midpoints_for_pelvis_and_thorax(tmp_path):
    truth = seen_of(people_m(4), LEVEL)
    people = coco_people(truth)
    del people[1]["left_wrist"]
    del people[2]["right_hip"]
    people[3]["right_knee"] = (*people[3]["right_knee"][:2], 1)
    views = read_views([write_coco(tmp_path / "people.json", people, (640, 480))])
    assert len(views) == len(truth) - 1, "who lacks a hip has no pelvis and is left out"
    truth = truth[np.arange(len(truth)) != 2]
    named = H36M17.indices(*(joint for joint in COCO17.joints if joint in H36M17.joints))
    unseen = H36M17.indices("spine", "face", "head_top")
    assert not views.seen[:, unseen].any() and not views.points[:, unseen].any()
    wrist = H36M17.index("left_wrist")
    assert not views.seen[1, wrist] and views.seen[2, H36M17.index("right_knee")]
    seen = views.seen[:, named]
    assert seen.sum() == seen.numel() - 1
    assert torch.allclose(views.points[:, named][seen], truth.points.float()[:, named][seen], atol=1e-5)
    for joint, witnesses in {
        "pelvis": ("left_hip", "right_hip"),
        "thorax": ("left_shoulder", "right_shoulder"),
    }.items():
        middle = truth.points[:, H36M17.indices(*witnesses)].mean(dim=1)
        assert torch.allclose(views.points[:, H36M17.index(joint)], middle.float(), atol=1e-5)
    assert views.joints_m is None and set(views.subject.tolist()) == {""}


def test_what_an_unseen_joint_holds_never_matters(tmp_path):
    truth = seen_of(people_m(3), LEVEL)
    xy_px = pixels(truth.points, 500.0, (100.0, 200.0))
    confidence = np.ones(xy_px.shape[:2], np.float32)
    confidence[:, H36M17.index("face")] = 0.29
    confidence[0, H36M17.index("left_ankle")] = 0.0
    told = []
    for held in (0.0, 1e9, np.nan):
        written = np.where(confidence[..., None] < 0.3, np.float32(held), xy_px)
        path = keypoint_archive(tmp_path / "a.npz", written, confidence=confidence)
        told.append(read_views([path]))
    for views in told:
        assert torch.equal(views.points, told[0].points) and torch.equal(views.seen, told[0].seen)
        assert torch.equal(views.seen, torch.from_numpy(confidence >= 0.3))
        assert torch.allclose(views.points[views.seen], truth.points.float()[views.seen], atol=1e-5)


def keypoint_archive(path: Path, xy_px: np.ndarray, **changes) -> Path:
    fields = {
        "xy_px": xy_px,
        "confidence": np.ones(xy_px.shape[:2], np.float32),
        "skeleton": np.array("h36m17"),
        "focal_px": np.float32(500.0),
        "center_px": np.array([100.0, 200.0]),
    } | changes
    np.savez(path, **{name: array for name, array in fields.items() if array is not None})
    return path


def test_archives_name_people_actions_frames_and_cameras(tmp_path):
    truth = seen_of(people_m(3), LEVEL)
    subject = np.repeat(np.array(["ann", "bob", "cy"]), 4)
    fields = {"subject": subject, "action": np.array(["walk"] * 12), "frame": truth.frame}
    views = read_views([keypoint_archive(tmp_path / "a.npz", pixels(truth.points, 500.0, (100.0, 200.0)), **fields)])
    assert torch.allclose(views.points, truth.points.float(), atol=1e-5)
    assert views.subject.tolist() == subject.tolist() and set(views.action.tolist()) == {"walk"}
    assert views.frame.tolist() == truth.frame.tolist()
    size = {"size_px": np.array([600, 800]), "focal_px": None, "center_px": None}
    assumed = read_views([keypoint_archive(tmp_path / "b.npz", pixels(truth.points, 1000.0, (300.0, 400.0)), **size)])
    assert torch.allclose(assumed.points, truth.points.float(), atol=1e-5)


@pytest.mark.parametrize("hole", [math.nan, math.inf, 1e300])
def test_a_joint_without_a_place_is_unseen(tmp_path, hole):
    people = coco_people(seen_of(people_m(1), LEVEL))
    people[1]["left_wrist"] = (hole, 3.0, 2)
    views = read_views([write_coco(tmp_path / "people.json", people, (640, 480))])
    wrist = H36M17.index("left_wrist")
    assert views.seen[:, wrist].tolist() == [True, False, True, True]
    assert views.points.isfinite().all() and not views.points[1, wrist].any()


def test_poses_of_archives_are_numbered_on_whatever_their_own_numbers_are(tmp_path):
    xy_px = pixels(seen_of(people_m(1), LEVEL).points, 500.0, (100.0, 200.0))
    for name in ("a", "b"):
        keypoint_archive(tmp_path / f"{name}.npz", xy_px, frame=np.array([-3, 2**62, -3, 7]))
    assert read_views([tmp_path]).frame.tolist() == [0, 2, 0, 1, 3, 5, 3, 4]


@pytest.mark.parametrize("layout", ["h36m", "coco", "video"])
def test_videopose3d_2d_archives_share_frames_among_cameras(tmp_path, layout):
    truth = seen_of(people_m(5), replace(LEVEL, views=2))
    size = {"w": 300, "h": 400} if layout == "video" else None
    focal_px, center_px = (500.0, (150.0, 200.0)) if size else (1147.0, (514.0, 507.0))
    joints = pixels(truth.points, focal_px, center_px)
    if layout == "coco":
        named = [H36M17.index(joint) if joint in H36M17.joints else PELVIS for joint in COCO17.joints]
        joints = joints[:, named]
    first, second = joints[0::2], joints[1::2]
    positions = {"S1": {"Walking 1": [first[:3], second[:3]]}, "S9": {"Walking 1": [first[3:], second[3:]]}}
    metadata = {
        "layout_name": "coco" if layout == "coco" else "h36m",
        "num_joints": 17,
        "keypoints_symmetry": [[4], [1]],
    }
    if size:
        metadata["video_metadata"] = {"S1": size, "S9": size}
    views = read_views([write_objects(tmp_path / "2d.npz", positions_2d=positions, metadata=metadata)])
    assert views.frame.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 3, 4]
    assert views.subject.tolist() == ["S1"] * 6 + ["S9"] * 4 and set(views.action.tolist()) == {"Walking"}
    order = np.array([0, 2, 4, 1, 3, 5, 6, 8, 7, 9])
    knees = H36M17.indices("left_knee", "right_knee")
    assert torch.allclose(views.points[:, knees], truth.points[order][:, knees].float(), atol=1e-5)


def mmpose(path: Path, truth: Views, **changes) -> Path:
    about_m = truth_of(truth) - truth_of(truth)[:, [PELVIS]]
    part = pixels(truth.points, 1150.0, (500.0, 490.0))
    names = [f"S{row % 2 + 1}/S{row % 2 + 1}_Eating_1.5413896{row // 2}_000007.jpg" for row in range(len(truth))]
    fields = {
        "imgname": np.array(names),
        "part": np.concatenate([part, np.ones((*part.shape[:2], 1))], axis=-1),
        "S": np.concatenate([about_m.numpy(), np.ones((*part.shape[:2], 1))], axis=-1),
        "K": np.array([[1150.0, 0.0, 500.0], [0.0, 1150.0, 490.0], [0.0, 0.0, 1.0]]),
    } | changes
    np.savez(path, **fields)
    return path


def test_mmpose_annotations_bring_the_truth_to_its_place(tmp_path):
    truth = seen_of(people_m(2), replace(LEVEL, views=2))
    views = read_views([mmpose(tmp_path / "h36m.npz", truth)])
    assert torch.allclose(views.points, truth.points.float(), atol=1e-5)
    assert torch.allclose(truth_of(views), truth_of(truth).float(), atol=5e-3)
    assert views.subject.tolist() == ["S1", "S2", "S1", "S2"] and set(views.action.tolist()) == {"Eating"}
    assert views.frame.tolist() == [0, 1, 0, 1]
    turned_m = truth_of(truth).numpy()[..., [0, 2, 1]]
    with pytest.raises(MeshrecError, match="must be in camera axes"):
        read_views([mmpose(tmp_path / "world.npz", truth, S=turned_m)])
    millimetres = (1000 * (truth_of(truth) - truth_of(truth)[:, [PELVIS]])).numpy()
    with pytest.raises(MeshrecError, match="in metres it would be"):
        read_views([mmpose(tmp_path / "mm.npz", truth, S=millimetres)])
    with pytest.raises(MeshrecError, match="focal length in `K` is 0"):
        read_views([mmpose(tmp_path / "flat.npz", truth, K=np.zeros((3, 3)))])


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: path.with_suffix(".json").write_text("{}"), "no file of COCO annotations.*images"),
        (lambda path: path.with_suffix(".json").write_text("[1"), "no file of COCO annotations"),
        (lambda path: write_coco(path.with_suffix(".json"), [{}], (64, 48)), "annotates nobody"),
        (
            lambda path: write_coco(path.with_suffix(".json"), [{"nose": (1, 2, 2)}], (64, 48)),
            "has nobody with the pelv",
        ),
        (lambda path: keypoint_archive(path, np.zeros((2, 16, 2))), r"\(2, 17, 2\) are needed"),
        (lambda path: keypoint_archive(path, np.zeros((2, 17, 2)), skeleton=np.array("dog")), "`skeleton` is dog"),
        (lambda path: keypoint_archive(path, np.zeros((2, 17, 2)), focal_px=None), "how large its images are"),
        (lambda path: keypoint_archive(path, np.zeros((2, 17, 2)), focal_px=np.float32(0)), "not above zero"),
        (lambda path: keypoint_archive(path, np.zeros((2, 17, 2)), focal_px=np.float32(np.inf)), "not above zero"),
        (lambda path: keypoint_archive(path, np.zeros((2, 17, 2)), size_px=np.array([np.nan, 5])), "not from 1 to"),
        (lambda path: keypoint_archive(path, np.zeros((2, 17, 2)), size_px=np.array([0, 0])), "not from 1 to"),
        (
            lambda path: keypoint_archive(path, np.zeros((0, 17, 2)), size_px=np.array([4, 5])),
            "has nobody with the pelv",
        ),
        (lambda path: write_coco(path.with_suffix(".json"), [{"nose": (1, 2, 2)}], (0, 0)), "width.*greater than 0"),
        (lambda path: keypoint_archive(path, np.zeros((2, 17, 2)), subject=np.array([1, 2])), "text .* is needed"),
        (lambda path: write_objects(path, positions_2d={"S1": {"a": [np.zeros((3, 15, 2))]}}), "are needed"),
        (
            lambda path: write_objects(path, positions_2d={}, metadata={"layout_name": "humaneva15"}),
            "layout humaneva15",
        ),
        (lambda path: write_objects(path, positions_2d={}, metadata={"layout_name": []}), r"layout \[\]"),
        (
            lambda path: write_objects(
                path, positions_2d={"S1": {"a": [np.zeros((3, 32, 2))]}}, metadata={"layout_name": "coco"}
            ),
            r"\(frames, 17, 2\) are needed",
        ),
        (lambda path: write_objects(path, positions_2d={"S1": {}}), "no frame"),
        (lambda path: np.savez(path, imgname=np.array(["a"]), part=np.zeros((2, 17, 3))), "`part` is"),
        (lambda path: write_capture(path, [("a", "ann", people_m(2))]), "poses in 3D; name"),
    ],
)
def test_a_bad_file_is_told_in_one_sentence_and_the_others_go_on(tmp_path, write, sentence):
    bad = tmp_path / "bad.npz"
    write(bad)
    bad = next(path for path in (bad, bad.with_suffix(".json")) if path.is_file())
    truth = seen_of(people_m(1), LEVEL)
    good = keypoint_archive(tmp_path / "good.npz", pixels(truth.points, 500.0, (100.0, 200.0)))
    views = read_views([bad, good])
    assert len(views) == 4 and len(views.problems) == 1 and bad.name in views.problems[0]
    with pytest.raises(MeshrecError, match=sentence):
        read_views([bad])


def test_of_somebody_hidden_too_little_is_known(tmp_path):
    confidence = np.zeros((2, 17))
    confidence[:, PELVIS] = 1.0
    confidence[0, :FEWEST_JOINTS] = 1.0
    confidence[1, : FEWEST_JOINTS - 1] = 1.0
    assert len(read_views([keypoint_archive(tmp_path / "a.npz", np.zeros((2, 17, 2)), confidence=confidence)])) == 1


# ---- everything at once


def test_people_held_out_are_in_no_other_half(tmp_path):
    people = people_m(6)
    lab = write_capture(tmp_path / "lab.npz", [("a", "ann", people[:2]), ("b", "bob", people[2:])])
    truth = seen_of(people_m(2), LEVEL)
    crowd = write_coco(tmp_path / "crowd.json", coco_people(truth), (640, 480))
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"nothing")
    config = ViewsConfig(views=3)
    training, unseen = open_views([crowd, broken, lab], config, ["bob"])
    assert set(unseen.subject.tolist()) == {"bob"} and len(unseen) == 4 * 3
    assert training.subject.tolist() == ["ann"] * 2 * 3 + [""] * len(truth)
    assert training.joints_m is None and truth_of(unseen).shape == (12, 17, 3)
    assert (
        len(set(training.frame.tolist())) == 2 + len(truth)
        and unseen.frame.tolist() == np.repeat(range(2, 6), 3).tolist()
    )
    assert len(training.problems) == 1 and "broken.npz" in training.problems[0]
    alone = open_views([lab], config, ["bob"])
    assert torch.equal(alone[1].points, unseen.points)
    assert torch.equal(alone[0].points, training.points[:6]) and alone[0].joints_m is not None
    with pytest.raises(MeshrecError, match="Nobody among the poses is called cy: ann, bob are"):
        open_views([lab, crowd], config, ["cy"])


def test_an_archive_of_human36m_is_seen_by_virtual_cameras(tmp_path):
    joints_m = people_m(4).astype(np.float32)
    people = {"S1": {"Walk 1": z_up(joints_m[:2])}, "S9": {"Walk 1": z_up(joints_m[2:])}}
    training, unseen = open_views([write_objects(tmp_path / "3d.npz", positions_3d=people)], ViewsConfig(), ["S9"])
    expected = seen_of(joints_m, ViewsConfig())
    assert torch.allclose(torch.cat([training.points, unseen.points]), expected.points, atol=1e-6)
