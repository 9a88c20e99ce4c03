"""Joints come out of every layout where they were put in, upright, in metres and on their side."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from joint_writers import all32, people_m, standing_m, write_capture, write_objects, z_up

from meshrec.body import load_body_model
from meshrec.data.joints import read_joint_frames, split_people
from meshrec.data.motion import Motion
from meshrec.data.poses import write_collection
from meshrec.errors import MeshrecError
from meshrec.skeletons import H36M17, SMPL24
from meshrec.types import BodyParams


def side_of(joints_m: np.ndarray, joint: str) -> np.ndarray:
    return joints_m[:, H36M17.index(f"left_{joint}")] - joints_m[:, H36M17.index(f"right_{joint}")]


def capture(path: Path) -> tuple[Path, np.ndarray]:
    """Two people in three clips; every third frame is not valid, and holds anything."""
    joints_m = people_m(14)
    valid = np.arange(14) % 3 != 2
    joints_m[~valid] = np.nan
    clips = [("a1", "ann", joints_m[:6]), ("b1", "bob", joints_m[6:9]), ("a2", "ann", joints_m[9:])]
    return write_capture(path, clips, valid=valid), joints_m[valid]


def test_a_capture_gives_its_own_joints_of_its_valid_frames(tmp_path):
    path, joints_m = capture(tmp_path / "lab.npz")
    frames = read_joint_frames([path])
    assert frames.joints_m.dtype == np.float32 and np.allclose(frames.joints_m, joints_m, atol=1e-6)
    assert frames.subject.tolist() == ["ann"] * 4 + ["bob"] * 2 + ["ann"] * 4
    assert frames.clip.tolist() == ["a1"] * 4 + ["b1"] * 2 + ["a2"] * 4
    assert frames.action.tolist() == [f"doing {clip}" for clip in frames.clip.tolist()]
    assert set(frames.file.tolist()) == {str(path)} and frames.problems == ()


def test_a_capture_names_its_joints_in_any_order(tmp_path):
    joints_m = people_m(5)
    path = write_capture(tmp_path / "lab.npz", [("a", "ann", joints_m)])
    with np.load(path) as fields:
        names = fields["h36m17_names"]
    order = np.random.default_rng(0).permutation(len(H36M17))
    write_capture(path, [("a", "ann", joints_m[:, order])], h36m17_names=names[order], clip_action=None)
    frames = read_joint_frames([path])
    assert np.allclose(frames.joints_m, joints_m, atol=1e-6)
    assert frames.action.tolist() == ["a"] * 5, "a clip that does not say what is done is called by its name"


def test_people_are_never_split(tmp_path):
    frames = read_joint_frames([capture(tmp_path / "lab.npz")[0]])
    seen, unseen = split_people(frames.subject, ["ann"])
    assert sorted([*seen, *unseen]) == list(range(len(frames)))
    assert set(frames.subject[unseen].tolist()) == {"ann"} and set(frames.subject[seen].tolist()) == {"bob"}
    with pytest.raises(MeshrecError, match="Nobody among the poses is called cy: ann, bob are"):
        split_people(frames.subject, ["ann", "cy"])
    assert len(split_people(frames.subject, [])[1]) == 0


def random_motion(frames: int) -> Motion:
    noise = np.random.default_rng(0)
    axis_angle = noise.normal(scale=0.3, size=(frames, len(SMPL24), 3)).astype(np.float32)
    transl_m = noise.normal(size=(frames, 3)).astype(np.float32)
    return Motion("walk", "ann", "lab", 30.0, axis_angle, transl_m, np.arange(frames) != 1, "a.bvh")


def test_motions_are_seen_through_the_body(tmp_path):
    """Collections, and captures that lack joints of their own."""
    motion = random_motion(5)
    body = load_body_model("neutral")
    collection = write_collection(tmp_path / "poses", [motion], "float32")
    rows = np.array([0, 2, 3, 4])
    params = BodyParams.from_rotations(collection.rotations(rows), torch.zeros(4, 1), collection.transl_m(rows))
    truth_m = body.regressed(params, H36M17).numpy()
    bare = write_capture(
        tmp_path / "lab.npz", [("walk", "ann", np.zeros((5, 17, 3)))], joints17=None, h36m17_names=None
    )
    with np.load(bare) as fields:
        poses = {"poses": motion.axis_angle, "trans": motion.transl_m, "fps": np.float32(30)}
        np.savez(bare, **{**fields, **poses, "valid": motion.valid})
    for path in (tmp_path / "poses", bare):
        frames = read_joint_frames([path], body)
        assert np.allclose(frames.joints_m, truth_m, atol=1e-5)
        assert frames.subject.tolist() == ["ann"] * 4 and frames.action.tolist() == ["walk"] * 4


def h36m(path: Path, joints: int) -> tuple[Path, np.ndarray]:
    joints_m = people_m(9)
    stored = z_up(joints_m) if joints == 17 else all32(z_up(joints_m))
    people = {"S1": {"Walking 1": stored[:3], "Walking": stored[3:5]}, "S9": {"Photo 2": stored[5:]}}
    return write_objects(path, positions_3d=people), joints_m


@pytest.mark.parametrize("joints", [17, 32])
def test_videopose3d_archives_stand_upright(tmp_path, joints):
    path, joints_m = h36m(tmp_path / "data_3d_h36m.npz", joints)
    frames = read_joint_frames([path])
    assert np.allclose(frames.joints_m, joints_m, atol=1e-6)
    assert frames.subject.tolist() == ["S1"] * 5 + ["S9"] * 4
    assert frames.action.tolist() == ["Walking"] * 5 + ["Photo"] * 4
    assert len(set(frames.clip.tolist())) == 3


def test_a_plain_array_is_read_in_its_place(tmp_path):
    joints_m = people_m(6)
    subject = np.array(["S1", "S1", "S5", "S5", "S5", "S1"])
    np.savez(tmp_path / "a.npz", positions_3d=z_up(joints_m), subject=subject, action=np.array(["walk"] * 6))
    np.savez(tmp_path / "b.npz", positions_3d=all32(z_up(joints_m)))
    frames = read_joint_frames([tmp_path / "a.npz", tmp_path / "b.npz"])
    assert np.allclose(frames.joints_m, np.concatenate([joints_m, joints_m]), atol=1e-6)
    assert frames.subject.tolist() == [*subject.tolist(), *[""] * 6]
    assert len(set(frames.clip[:6].tolist())) == 3


def test_the_person_stands_with_the_left_on_the_left(tmp_path):
    """Facing +z with y up, the left is at +x; so every layout must say."""
    joints_m = standing_m()[None]
    np.savez(tmp_path / "a.npz", positions_3d=z_up(joints_m))
    paths = [tmp_path / "a.npz", write_capture(tmp_path / "b.npz", [("a", "ann", joints_m)])]
    rest = Motion("t", "a", "", 30.0, np.zeros((1, 24, 3)), np.zeros((1, 3)), np.ones(1, bool))
    write_collection(tmp_path / "c", [rest])
    for frame in read_joint_frames([*paths, tmp_path / "c"]).joints_m[:, None]:
        for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
            assert side_of(frame, joint)[0, 0] > 0.1
        assert frame[0, H36M17.index("head_top"), 1] > frame[0, H36M17.index("pelvis"), 1] + 0.4


class Hostile:
    def __reduce__(self):
        return os.system, ("touch never",)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: np.savez(path, positions_3d=z_up(1000 * people_m(3))), "in metres it would be about 0.7"),
        (lambda path: np.savez(path, positions_3d=np.zeros((3, 16, 3))), r"\(frames, 17 or 32, 3\) are needed"),
        (lambda path: np.savez(path, positions_3d=np.zeros((0, 17, 3))), "no usable frame"),
        (lambda path: np.savez(path, positions_3d=z_up(np.full((3, 17, 3), np.nan))), "not finite"),
        (lambda path: np.savez(path, positions_3d=np.concatenate([people_m(3), np.full((1, 17, 3), 1e99)])), "frame 3"),
        (lambda path: write_objects(path, positions_3d={"S1": {"a": Hostile()}}), "asks for .*system.*refused"),
        (lambda path: write_objects(path, positions_3d={"S1": {"a": 3}}), "holds int under S1 a"),
        (lambda path: write_objects(path, positions_3d={1: np.zeros((3, 17, 3))}), "key that is no text"),
        (lambda path: write_objects(path, positions_3d={"S1": {3, 4}}), "holds a set, not"),
        (lambda path: path.write_bytes(b"PK\x03\x04 cut"), "no .npz archive"),
        (lambda path: write_capture(path, [("a", "b", people_m(3))], valid=np.ones(4, bool)), "has valid of shape"),
        (lambda path: write_capture(path, [("a", "b", people_m(3))], clip_len=np.array([4])), "beyond its 3 rows"),
        (
            lambda path: write_capture(path, [("a", "b", people_m(3))], h36m17_names=np.array(["x"] * 17)),
            "names no pel",
        ),
        (lambda path: write_capture(path, [("a", "b", people_m(3))], clip_name=None), "lacks clip_name"),
        (lambda path: write_capture(path, [("a", "b", people_m(2))] * 2, clip_len=np.array([4, 2])), "some overlap"),
        (lambda path: np.savez(path, positions_2d=np.zeros((3, 17, 2))), "2D alone"),
    ],
)
def test_a_bad_file_is_told_in_one_sentence_and_the_others_go_on(tmp_path, write, sentence):
    bad, good = tmp_path / "bad.npz", capture(tmp_path / "good.npz")[0]
    write(bad)
    frames = read_joint_frames([bad, good, tmp_path / "none.npz"])
    assert len(frames) == 10 and len(frames.problems) == 2
    assert "There is no" in frames.problems[0]
    with pytest.raises(MeshrecError, match=sentence) as raised:
        read_joint_frames([bad])
    assert frames.problems[1] == str(raised.value) and "bad.npz" in frames.problems[1]
    assert not Path("never").exists()


def test_one_part_named_a_million_times_is_not_unfolded(tmp_path):
    bomb: list = [np.zeros(1)]
    for _ in range(30):
        bomb = [bomb, bomb]
    with pytest.raises(MeshrecError, match="unfolds to more than"):
        read_joint_frames([write_objects(tmp_path / "bomb.npz", positions_3d={"S1": bomb})])


def test_an_archive_as_large_as_human36m_is_short_enough(tmp_path):
    """Seven people do sixty takes, which two times four cameras see."""
    takes = {f"S{person}": {f"Walk {take}": z_up(people_m(1)) for take in range(120)} for person in range(7)}
    assert len(read_joint_frames([write_objects(tmp_path / "many.npz", positions_3d=takes)])) == 840


def test_folders_hold_files_and_collections(tmp_path):
    path, _ = capture(tmp_path / "data" / "deep" / "lab.npz")
    write_collection(tmp_path / "data" / "poses", [random_motion(4)])
    (tmp_path / "data" / "notes.txt").write_text("nothing")
    frames = read_joint_frames([tmp_path / "data", path])
    assert len(frames) == 10 + 3 and frames.problems == ()
    with pytest.raises(MeshrecError, match="No poses in 3D are named"):
        read_joint_frames([])
    with pytest.raises(MeshrecError, match="holds no file of joints"):
        read_joint_frames([(tmp_path / "empty").mkdir() or tmp_path / "empty"])
