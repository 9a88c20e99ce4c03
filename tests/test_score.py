"""Judged poses: what was broken ranks first and is named, and one bad frame or file does not stop the others."""

import dataclasses
import json
import math

import numpy as np
import pytest
import roma
import torch
import tyro
from PIL import Image

from meshrec import score
from meshrec.body import load_body_model
from meshrec.data.pose_augment import mirrored
from meshrec.errors import MeshrecError
from meshrec.pose_files import read_poses
from meshrec.prior_files import open_prior
from meshrec.sheet import GAP_PX
from meshrec.skeletons import SMPL24
from priors.pose import PosePrior

FRAMES = 40


@pytest.fixture(scope="module")
def model():
    return load_body_model("neutral")


@pytest.fixture(scope="module")
def mixture():
    return open_prior("mixture")


@pytest.fixture(autouse=True)
def load_once(model, monkeypatch):
    """The shipped body is read once for all tests."""
    monkeypatch.setattr(score, "load_body_model", lambda name="neutral": model)


@pytest.fixture
def usual(mixture):
    """Axis-angles of ordinary poses, y up."""
    pose = mixture.sample(FRAMES, 0.5, torch.Generator().manual_seed(0)).double()
    rotvec = torch.cat([torch.zeros(FRAMES, 1, 3), roma.rotmat_to_rotvec(pose)], dim=1)
    return rotvec.numpy()


def turned(poses, frame, joint, *rotvec):
    """The same poses, a joint of one frame turned to this rotation."""
    result = poses.copy()
    result[frame, SMPL24.index(joint)] = rotvec
    return result


def write_motion(path, poses, **more):
    np.savez(path, poses=poses, trans=np.zeros((len(poses), 3)), betas=np.zeros(10), **more)
    return path


def write_result(path, poses):
    people = [
        {"smpl": {"pose_axis_angle": p.ravel().tolist(), "betas": [0.0] * 10, "transl_m": [0, 0, 3]}} for p in poses
    ]
    path.write_text(json.dumps({"photo": "beach.jpg", "body": {"name": "neutral"}, "people": people}))
    return path


@pytest.mark.parametrize("by", ["pose", "joint"])
def test_a_head_turned_round_ranks_first_and_is_named_first(tmp_path, mixture, usual, by):
    path = write_motion(tmp_path / "m.npz", turned(usual, 17, "head", 0.0, 2.5, 0.0))
    worst = score.score_file(path, mixture, 3, by=by).suspects[0]
    assert (worst.frame, worst.name, next(iter(worst.notable))) == (17, "m_000017", "head")
    assert worst.score < 0.05


def test_a_knee_bent_backwards_hides_in_the_whole_pose_but_not_from_the_joints(tmp_path, mixture, usual):
    path = write_motion(tmp_path / "m.npz", turned(usual, 30, "left_knee", -1.2, 0.0, 0.0))
    worst = score.score_file(path, mixture, 1, by="joint").suspects[0]
    assert worst.frame == 30
    assert next(iter(worst.blamed_nats)) == "left_knee"
    assert worst.blamed_nats["left_knee"] == max(worst.alone_nats.values()) > 10
    assert worst.score > 0.2


def test_a_mirrored_pose_has_mirrored_joints_to_blame(tmp_path, mixture, usual):
    """The prior was fitted to poses and their mirror images, so its energies are nearly those of the mirror."""
    broken = turned(turned(usual[:2], 0, "left_knee", -1.2, 0.0, 0.0), 1, "right_elbow", 0.0, -2.0, 0.0)
    rotations = mirrored(roma.rotvec_to_rotmat(torch.from_numpy(broken[:, 1:])))
    image = np.concatenate([broken[:, :1], roma.rotmat_to_rotvec(rotations).numpy()], axis=1)
    files = (write_motion(tmp_path / "a.npz", broken), write_motion(tmp_path / "b.npz", image))
    first = [
        {suspect.frame: next(iter(suspect.blamed_nats)) for suspect in score.score_file(file, mixture, 2).suspects}
        for file in files
    ]
    assert first[0] == {0: "left_knee", 1: "right_elbow"}
    assert first[1] == {0: "right_knee", 1: "left_elbow"}


def test_where_a_body_is_and_which_way_it_faces_is_not_judged(tmp_path, mixture, usual):
    moved = usual.copy()
    moved[:, 0] = np.random.default_rng(0).normal(size=(FRAMES, 3))
    np.savez(tmp_path / "b.npz", poses=moved, trans=np.ones((FRAMES, 3)), betas=np.ones(10), mocap_framerate=2.0)
    write_motion(tmp_path / "a.npz", usual)
    plain, other = (score.score_file(tmp_path / name, mixture, 2) for name in ("a.npz", "b.npz"))
    assert plain.median_score == other.median_score
    assert [s.frame for s in plain.suspects] == [s.frame for s in other.suspects]


@pytest.mark.parametrize("yaw", [0.0, 1.0, math.pi, -2.5])
def test_bodies_are_turned_to_the_front_and_stay_lying(usual, yaw):
    rotations = roma.rotvec_to_rotmat(torch.from_numpy(usual[:3]))
    rotations[1, 0] = roma.rotvec_to_rotmat(torch.tensor([1.2, 0.0, 0.0], dtype=torch.float64))
    rotations[2, 0] = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 1.4], dtype=torch.float64))
    about_y = roma.rotvec_to_rotmat(torch.tensor([0.0, yaw, 0.0], dtype=torch.float64))
    upright = roma.random_rotmat(dtype=torch.float64)
    asked = rotations.clone()
    asked[:, 0] = upright.mT @ about_y @ rotations[:, 0]
    torch.testing.assert_close(score.facing(asked, upright), rotations)


def test_frames_that_are_not_finite_are_told_and_change_nothing(tmp_path, mixture, usual):
    whole = write_motion(tmp_path / "whole.npz", np.delete(usual, [5, 33], axis=0))
    poses = turned(turned(usual, 5, "neck", np.nan, 0.0, 0.0), 33, "pelvis", 0.0, np.inf, 0.0)
    report, plain = (score.score_file(path, mixture, 3) for path in (write_motion(tmp_path / "gaps.npz", poses), whole))
    kept = np.delete(np.arange(FRAMES), [5, 33])
    assert report.broken == (5, 33)
    assert (report.frames, plain.frames) == (FRAMES, FRAMES - 2)
    assert report.median_score == pytest.approx(plain.median_score, abs=1e-6)
    assert [s.frame for s in report.suspects] == [kept[s.frame] for s in plain.suspects]


def test_a_file_without_a_whole_frame_fails(tmp_path, mixture, usual):
    path = write_motion(tmp_path / "m.npz", usual * np.nan)
    with pytest.raises(MeshrecError, match="nothing to judge"):
        score.score_file(path, mixture, 1)


@pytest.mark.parametrize("apart", [1, 2, 7, 100])
def test_worst_frames_are_apart_and_nothing_worse_is_left_out(apart):
    badness = np.random.default_rng(0).normal(size=50)
    badness[[3, 20]] = -math.inf
    for count in (1, 5, 50):
        chosen = score.worst_apart(badness, count, apart)
        assert (np.diff(badness[chosen]) <= 0).all()
        assert all(abs(a - b) >= apart for a in chosen for b in chosen if a != b)
        assert not {3, 20} & set(chosen)
        for frame in set(range(50)) - {3, 20} - set(chosen):
            near = any(abs(frame - other) < apart and badness[other] >= badness[frame] for other in chosen)
            assert near or (len(chosen) == count and badness[frame] <= badness[chosen[-1]])


@pytest.mark.parametrize(
    ("rate", "asked", "apart"),
    [
        ({"mocap_framerate": 120.0}, None, 60),
        ({"mocap_frame_rate": 30}, None, 15),
        ({"fps": np.float32(30)}, None, 15),
        ({}, None, 1),
        ({"fps": 30.0}, 4, 4),
    ],
)
def test_frames_of_a_motion_are_half_a_second_apart(tmp_path, mixture, usual, rate, asked, apart):
    path = write_motion(tmp_path / "m.npz", usual, **rate)
    report = score.score_file(path, mixture, 4, asked)
    assert report.apart == apart
    frames = sorted(suspect.frame for suspect in report.suspects)
    assert frames
    assert min(np.diff(frames), default=apart) >= apart


def test_a_frame_rate_that_is_none_is_refused(tmp_path, mixture, usual):
    path = write_motion(tmp_path / "m.npz", usual, mocap_framerate=0.0)
    with pytest.raises(MeshrecError, match="--apart"):
        score.score_file(path, mixture, 1)
    assert score.score_file(path, mixture, 1, apart=3).apart == 3


def test_people_of_a_result_are_not_neighbours(tmp_path, mixture, usual):
    report = score.score_file(write_result(tmp_path / "result.json", usual[:3]), mixture, 9, apart=5)
    assert sorted(suspect.name for suspect in report.suspects) == [f"beach_person{index}" for index in range(3)]


def test_many_frames_are_judged_as_few_are(tmp_path, mixture, usual, monkeypatch):
    path = write_motion(tmp_path / "m.npz", usual)
    at_once = score.score_file(path, mixture, 3, by="joint")
    monkeypatch.setattr(score, "FRAMES_AT_ONCE", 7)
    monkeypatch.setattr(score, "FRAMES_BLAMED_AT_ONCE", 2)
    in_parts = score.score_file(path, mixture, 3, by="joint")
    for one, other in zip(at_once.suspects, in_parts.suspects, strict=True):
        assert (one.frame, list(one.blamed_nats)) == (other.frame, list(other.blamed_nats))
        assert one.energy_nats == pytest.approx(other.energy_nats, rel=1e-4)


def test_an_energy_beyond_numbers_is_the_worst_of_all(mixture, usual):
    class Overflowing(PosePrior):
        """A prior that overflows at the second pose."""

        def energy(self, rotations):
            return super().energy(rotations) * torch.tensor([1.0, math.nan, 1.0])

    prior = Overflowing(mixture.chart, mixture.density, mixture.energy_quantiles)
    pose = roma.rotvec_to_rotmat(torch.from_numpy(usual[:3, 1:])).float()
    badness = score.judge(prior, pose).badness_nats
    assert badness.tolist()[1] == math.inf
    assert score.worst_apart(badness.numpy(), 1, 1) == [1]


def suspect_of(mixture, usual, tmp_path, joint):
    path = write_motion(tmp_path / "m.npz", usual[:1])
    suspect = score.score_file(path, mixture, 1).suspects[0]
    upright = torch.eye(3).expand(len(SMPL24), 3, 3)
    return dataclasses.replace(suspect, blamed_nats={joint: 99.0} if joint else {}, upright=upright)


def red(pixels):
    """Where the tint is: columns of its pixels."""
    image = pixels.astype(int)
    return np.nonzero(image[..., 0] - image[..., 1] > 60)[1]


def test_the_parts_to_blame_are_tinted_on_the_side_where_they_are(tmp_path, mixture, usual, model):
    """In the front view of a T-pose the person's left hand is on the right of the picture."""
    half = score.STUDIO.width_px / 2
    for joint, side in (("left_wrist", 1), ("right_wrist", -1)):
        pixels = score.picture(model, [suspect_of(mixture, usual, tmp_path, joint)])
        front = pixels[:, GAP_PX : GAP_PX + score.STUDIO.width_px]
        assert len(red(front)) > 20
        assert side * (red(front).mean() - half) > half / 3
    assert not len(red(score.picture(model, [suspect_of(mixture, usual, tmp_path, "")])))


def test_joints_that_matter_little_are_not_named_and_beside_a_broken_one_not_tinted(tmp_path, mixture, usual):
    suspect = dataclasses.replace(
        suspect_of(mixture, usual, tmp_path, "head"), blamed_nats={"head": 300.0, "neck": 12.0, "left_hip": 1.0}
    )
    assert list(suspect.notable) == ["head", "neck"]
    assert suspect.striking == ["head"]
    assert suspect_of(mixture, usual, tmp_path, "").striking == []


FIELDS = {"rank", "frame", "name", "score", "energy_nats", "blamed", "gain_alone_nats"}


def test_the_json_says_everything_by_name(tmp_path, capsys, usual):
    good = write_motion(tmp_path / "good.npz", turned(usual, 9, "head", 0.0, 2.5, 0.0))
    gaps = write_motion(tmp_path / "gaps.npz", turned(usual, 2, "head", np.nan, 0.0, 0.0))
    flags = [str(good), str(gaps), str(tmp_path / "no.npz"), "--prior", "mixture", "-n", "2", "--json"]
    assert tyro.cli(score.command, args=[*flags, "-o", str(tmp_path / "w.png")]) == 1
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert record.keys() == {"prior", "by", "picture", "results", "failed"}
    assert [failure["file"] for failure in record["failed"]] == [str(tmp_path / "no.npz")]
    first, second = record["results"]
    assert first["file"] == str(good)
    assert (first["frames"], second["frames_not_finite"]) == (FRAMES, [2])
    assert all(worst.keys() == FIELDS for worst in first["worst"])
    worst = first["worst"][0]
    assert (worst["rank"], worst["frame"], worst["blamed"][0]["joint"]) == (1, 9, "head")
    assert worst["blamed"][0]["gain_nats"] == worst["gain_alone_nats"]["head"]
    assert set(worst["gain_alone_nats"]) == set(SMPL24.joints) - {"pelvis"}
    assert 0 <= first["median_score"] <= 1
    assert "frames 2 (from 0)" in captured.err


def test_the_json_is_told_though_the_picture_cannot_be_written(tmp_path, capsys, usual):
    good = write_motion(tmp_path / "good.npz", usual[:4])
    with pytest.raises(MeshrecError, match=r"good\.npz"):
        score.command((good,), "mixture", output=good / "worst.png", json=True)
    assert json.loads(capsys.readouterr().out)["results"][0]["frames"] == 4


@pytest.mark.parametrize("number", [np.nan, 1e30])
def test_a_file_without_a_frame_that_can_be_judged_is_told_why(tmp_path, mixture, usual, number):
    path = write_motion(tmp_path / "m.npz", turned(usual[:1], 0, "neck", number, 0.0, 0.0))
    with pytest.raises(MeshrecError, match="no frame whose numbers are finite and of sensible size"):
        score.score_file(path, mixture, 1)


def test_the_picture_shows_the_worst_of_all_files(tmp_path, capsys, usual):
    files = tuple(write_motion(tmp_path / f"{name}.npz", usual[start::2]) for start, name in enumerate("ab"))
    assert score.command(files, "mixture", worst=2, output=tmp_path / "w.png") == 0
    assert "the worst 2" in capsys.readouterr().err
    with Image.open(tmp_path / "w.png") as picture:
        assert picture.mode == "RGB"
    assert score.command(files, "mixture", worst=2, output=None) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz", "w.png"]


BAD = {"missing.npz": None, "broken.json": b"{", "foreign.npz": b"PK", "photo.jpg": b"x"}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_sentence_and_stops_nothing(tmp_path, capsys, usual, name):
    if BAD[name] is not None:
        (tmp_path / name).write_bytes(BAD[name])
    good = write_motion(tmp_path / "good.npz", usual[:4])
    assert score.command((tmp_path / name, good), "mixture", output=None) == 1
    told = capsys.readouterr().err
    assert name in told
    assert "good.npz: 4 frames" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"inputs": ()}, "Nothing to judge"),
        ({"prior": "none"}, "Without a prior"),
        ({"worst": 0}, "-n"),
        ({"apart": 0}, "--apart"),
        ({"output": "worst.gif"}, ".png"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(tmp_path, usual, flags, words):
    good = write_motion(tmp_path / "good.npz", usual[:2])
    paths = {"output": tmp_path / flags["output"]} if "output" in flags else {}
    with pytest.raises(MeshrecError, match=words):
        score.command(**({"inputs": (good,), "prior": "mixture", "output": None} | flags | paths))


def test_reading_without_gaps_still_refuses_them(tmp_path, usual):
    path = write_motion(tmp_path / "m.npz", turned(usual, 5, "neck", np.nan, 0.0, 0.0))
    with pytest.raises(MeshrecError, match="not finite"):
        read_poses(path)
