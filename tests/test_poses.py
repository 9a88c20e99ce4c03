"""A collection gives back the poses that went in, by row and by person, on disk as in memory."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import roma
import torch

from meshrec.data.motion import Motion, Reading
from meshrec.data.poses import PoseCollection, open_collection, open_poses, write_collection
from meshrec.errors import MeshrecError
from meshrec.skeletons import SMPL24

TOOLS = Path(__file__).parent.parent / "tools"
PEOPLE = (("ann", 5), ("bob", 3), ("ann", 4), ("cy", 2))


def motion(name: str, subject: str, frames: int, seed: int) -> Motion:
    """Random rotations of every size; every third frame is not valid."""
    generator = torch.Generator().manual_seed(seed)
    axis_angle = roma.rotmat_to_rotvec(roma.random_rotmat((frames, len(SMPL24)), generator=generator))
    transl_m = torch.randn(frames, 3, generator=generator)
    return Motion(name, subject, "lab", 30.0, axis_angle.numpy(), transl_m.numpy(), np.arange(frames) % 3 != 2, "a.bvh")


def motions(seed: int = 0) -> list[Motion]:
    return [motion(f"clip{index}", *person, seed=seed + index) for index, person in enumerate(PEOPLE)]


def capture(path: Path, *given: Motion) -> Path:
    """A file of our own layout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lengths = np.array([len(one) for one in given])
    np.savez(
        path,
        poses=np.concatenate([one.axis_angle for one in given]),
        trans=np.concatenate([one.transl_m for one in given]),
        valid=np.concatenate([one.valid for one in given]),
        fps=np.float32(given[0].fps),
        clip_start=np.cumsum(lengths) - lengths,
        clip_len=lengths,
        clip_name=np.array([one.name for one in given]),
        clip_subject=np.array([one.subject for one in given]),
    )
    return path


def rotations_of(*given: Motion) -> torch.Tensor:
    return roma.rotvec_to_rotmat(torch.from_numpy(np.concatenate([one.axis_angle for one in given])))


def all_rows(collection: PoseCollection) -> np.ndarray:
    return np.arange(len(collection))


def test_memory_and_float32_on_disk_give_the_poses_back(tmp_path):
    given = motions()
    for collection in (PoseCollection.of(given), write_collection(tmp_path / "poses", iter(given), "float32")):
        rows = all_rows(collection)
        assert torch.equal(collection.rotations(rows), rotations_of(*given))
        assert np.array_equal(collection.transl_m(rows), np.concatenate([one.transl_m for one in given]))
        assert [(clip.name, clip.start, clip.length) for clip in collection.clips] == [
            ("clip0", 0, 5),
            ("clip1", 5, 3),
            ("clip2", 8, 4),
            ("clip3", 12, 2),
        ]
        assert {(clip.source, clip.fps, clip.file) for clip in collection.clips} == {("lab", 30.0, "a.bvh")}


def test_float16_is_as_precise_as_it_says(tmp_path):
    given = motion("a", "ann", 400, seed=1)
    collection = write_collection(tmp_path / "poses", [given], "float16")
    errors = roma.rotmat_geodesic_distance(
        collection.rotations(all_rows(collection), torch.float64), rotations_of(given).double()
    )
    small = np.linalg.norm(given.axis_angle, axis=-1) < 1
    assert 0.0005 < errors.max() < 0.0015
    assert errors[torch.from_numpy(small)].max() < 0.0005


def test_rows_come_in_the_order_that_they_are_asked_for(tmp_path):
    one = write_collection(tmp_path / "one", motions())
    both = open_poses([tmp_path / "one", capture(tmp_path / "two.npz", *motions(seed=9))])
    rows = np.array([20, 3, 13, 14, 3, 27, 0])
    assert torch.equal(both.rotations(rows), both.rotations(all_rows(both))[torch.from_numpy(rows)])
    assert torch.equal(both.rotations(np.arange(len(one))), one.rotations(all_rows(one)))
    assert both.rotations(np.arange(0)).shape == (0, 24, 3, 3)
    for wrong in (-1, len(both)):
        with pytest.raises(ValueError, match="rows are 0 to 27"):
            both.rotations(np.array([0, wrong]))


def test_every_row_knows_its_clip_its_person_and_its_path(tmp_path):
    write_collection(tmp_path / "one", motions())
    both = open_poses([capture(tmp_path / "dir" / "zero.npz", motion("x", "bob", 2, seed=3)), tmp_path / "one"])
    rows = all_rows(both)
    lengths = [2, 5, 3, 4, 2]
    assert both.subjects == ("ann", "bob", "cy")
    assert both.clip_of(rows).tolist() == np.repeat(np.arange(5), lengths).tolist()
    assert both.part_of(rows).tolist() == [0] * 2 + [1] * 14
    people = [both.subjects[index] for index in both.subject_of(rows)]
    assert people == np.repeat(["bob", "ann", "bob", "ann", "cy"], lengths).tolist()


def test_only_valid_rows_are_given_and_people_are_never_split():
    collection = PoseCollection.of(motions())
    valid = np.concatenate([one.valid for one in motions()])
    assert np.array_equal(collection.rows(), np.flatnonzero(valid))
    seen, unseen = collection.split(["ann"])
    assert sorted([*seen, *unseen]) == collection.rows().tolist()
    assert {collection.subjects[index] for index in collection.subject_of(unseen)} == {"ann"}
    assert {collection.subjects[index] for index in collection.subject_of(seen)} == {"bob", "cy"}
    assert np.array_equal(seen, collection.rows(without=["ann"]))
    assert np.array_equal(collection.rows(["ann", "cy"], without=["cy"]), unseen)
    assert len(collection.rows([])) == 0


def test_a_held_out_person_who_is_not_there_is_told():
    collection = PoseCollection.of(motions())
    with pytest.raises(MeshrecError, match="called dan: ann, bob, cy are"):
        collection.split(["ann", "dan"])
    assert np.array_equal(collection.rows(without=["dan"]), collection.rows())


def test_paths_are_parts_and_files_of_a_folder_are_one(tmp_path):
    capture(tmp_path / "dir" / "a.npz", *motions())
    capture(tmp_path / "dir" / "sub" / "b.npz", *motions(seed=4))
    write_collection(tmp_path / "poses", motions(seed=8))
    both = open_poses([tmp_path / "poses", tmp_path / "dir"], hz=10.0, reading=Reading(source="x"))
    assert len(both.parts) == 2
    assert [clip.length for clip in both.clips] == [5, 3, 4, 2, *(2, 1, 2, 1), *(2, 1, 2, 1)]
    thinned = rotations_of(*(one.every_hz(10.0) for one in motions()))
    assert torch.equal(both.rotations(np.arange(14, 20)), thinned)
    assert [clip.source for clip in both.clips[3:5]] == ["lab", "x"]


def test_a_faulty_file_tells_of_the_tool_that_leaves_it_out(tmp_path):
    capture(tmp_path / "good.npz", *motions())
    (tmp_path / "bad.bvh").write_text("HIERARCHY\n")
    with pytest.raises(MeshrecError, match=r"bad\.bvh.*no MOTION.*tools/collect_poses\.py"):
        open_poses([tmp_path])


def test_a_collection_is_not_read_before_it_is_asked(tmp_path):
    part = write_collection(tmp_path / "poses", motions()).parts[0]
    assert isinstance(part.axis_angle, np.memmap)
    assert part.axis_angle.dtype == np.float16


def test_the_note_on_the_licence_stays_with_the_poses(tmp_path):
    write_collection(tmp_path / "poses", motions(), licence="ask first")
    assert open_collection(tmp_path / "poses").parts[0].licence == "ask first"
    assert json.loads((tmp_path / "poses" / "clips.json").read_text())["licence"] == "ask first"


def edit_index(folder: Path, **changes) -> None:
    path = folder / "clips.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_clip(folder: Path, **changes) -> None:
    index = json.loads((folder / "clips.json").read_text())
    index["clips"][1] |= changes
    edit_index(folder, clips=index["clips"])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


DAMAGES = {
    "no index": (lambda folder: (folder / "clips.json").unlink(), "is no collection of poses: cannot read clips.json"),
    "an index cut off": (lambda folder: cut(folder / "clips.json"), r"in clips\.json, the file: Invalid JSON"),
    "another version": (lambda folder: edit_index(folder, format="meshrec poses 2"), r"format: .*meshrec poses 1"),
    "frames miscounted": (lambda folder: edit_index(folder, frames=15), r"axis_angle\.npy is float16 \(14, 24, 3\)"),
    "valid frames miscounted": (lambda folder: edit_index(folder, valid_frames=3), "the valid ones"),
    "another precision": (lambda folder: edit_index(folder, precision="float32"), r"axis_angle\.npy is float16"),
    "a clip moved": (lambda folder: edit_clip(folder, start=4), "the clip clip1 has a start"),
    "a clip longer": (lambda folder: edit_clip(folder, length=4), "the clip clip2 has a start"),
    "a clip without a rate": (lambda folder: edit_clip(folder, fps=0.0), "the clip clip1 has a start"),
    "a clip of a wrong kind": (lambda folder: edit_clip(folder, length="three"), r"clips\.1\.length"),
    "no clips": (lambda folder: edit_index(folder, clips=[]), "not as many"),
    "a missing array": (lambda folder: (folder / "valid.npy").unlink(), r"cannot read valid\.npy"),
    "an array cut off": (lambda folder: cut(folder / "axis_angle.npy"), r"axis_angle\.npy is cut off"),
    "no array": (lambda folder: (folder / "transl_m.npy").write_text("none"), r"transl_m\.npy is cut off or no array"),
    "objects": (
        lambda folder: np.save(folder / "valid.npy", np.array([None]), allow_pickle=True),
        r"valid\.npy is cut off or no array",
    ),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_collection_is_told(tmp_path, damage, says):
    write_collection(tmp_path / "poses", motions())
    damage(tmp_path / "poses")
    with pytest.raises(MeshrecError, match=says) as caught:
        open_collection(tmp_path / "poses")
    assert str(tmp_path / "poses") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MeshrecError("a full disk")])
def test_a_collection_that_is_interrupted_leaves_what_was_there(tmp_path, stop):
    write_collection(tmp_path / "poses", motions())

    def interrupted():
        yield motion("other", "dan", 5, seed=5)
        raise stop

    for name in ("poses", "new"):
        with pytest.raises((KeyboardInterrupt, MeshrecError)):
            write_collection(tmp_path / name, interrupted())
    assert [path.name for path in tmp_path.iterdir()] == ["poses"]
    assert open_collection(tmp_path / "poses").subjects == ("ann", "bob", "cy")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(MeshrecError, match=r"holds no clips\.json"):
        write_collection(tmp_path, motions())


def test_nothing_is_no_collection(tmp_path):
    with pytest.raises(MeshrecError, match="no motion to collect"):
        write_collection(tmp_path / "poses", [])
    with pytest.raises(MeshrecError, match="No poses are named"):
        open_poses([])
    with pytest.raises(MeshrecError, match="There is no"):
        open_poses([tmp_path / "poses"])


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("collect_poses")


def test_the_tool_leaves_out_what_is_broken_and_says_so(tmp_path, tool, capsys):
    capture(tmp_path / "in" / "good.npz", *motions())
    bad = tmp_path / "in" / "bad.bvh"
    bad.write_text("HIERARCHY\n")
    output = tmp_path / "out"
    code = tool.command((tmp_path / "in",), output, Reading(source="lab"), hz=15.0, license="free", json=True)
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert code == 1
    assert [one["file"] for one in summary["skipped"]] == [str(bad)]
    assert "no MOTION" in summary["skipped"][0]["error"]
    assert "bad.bvh" in captured.err.replace("\n", "")
    total = {"source": "all", "clips": 4, "frames": 8, "valid": 5, "subjects": 3, "minutes": 0.01}
    assert summary["counts"][-1] == total
    assert summary["counts"][0] == total | {"source": "lab"}
    assert len(open_collection(output)) == 8


def test_the_tool_ends_well_when_every_file_is_good(tmp_path, tool):
    path = capture(tmp_path / "good.npz", *motions())
    assert tool.command((path,), tmp_path / "out", Reading(), hz=None, dtype="float32") == 0
    collection = open_collection(tmp_path / "out")
    assert torch.equal(collection.rotations(all_rows(collection)), rotations_of(*motions()))


def test_the_tool_keeps_what_is_odd_and_writes_no_infinity(tmp_path, tool):
    odd = motion("a\ud800", "ann", 4, seed=2)
    angles = np.linalg.norm(odd.axis_angle, axis=-1, keepdims=True)
    wound = replace(odd, axis_angle=odd.axis_angle * (1 + 1400 * np.float32(2 * np.pi) / angles))
    far = replace(odd, transl_m=np.full((4, 3), 1e300))
    slow = replace(odd, fps=1e-310)
    inputs = tuple(
        capture(tmp_path / name, one) for name, one in {"\udcff.npz": wound, "far.npz": far, "slow.npz": slow}.items()
    )
    assert tool.command(inputs, tmp_path / "out", Reading(), hz=None) == 1
    collection = open_collection(tmp_path / "out")
    assert [clip.name for clip in collection.clips] == ["a?"]
    assert collection.rotations(collection.rows()).isfinite().all()
    assert np.abs(collection.parts[0].axis_angle[collection.rows()]).max() < 3.15
    for hz in (1e-310, float("nan"), float("inf"), 0.0):
        with pytest.raises(MeshrecError, match=r"--hz a number from 0\.01"):
            tool.command(inputs, tmp_path / "out", Reading(), hz=hz)


def test_the_tool_writes_nothing_when_no_file_is_good(tmp_path, tool):
    (tmp_path / "bad.bvh").write_text("HIERARCHY\n")
    with pytest.raises(MeshrecError, match="None of 1 file"):
        tool.command((tmp_path / "bad.bvh",), tmp_path / "out", Reading())
    with pytest.raises(MeshrecError, match="Nothing to collect"):
        tool.command((), tmp_path / "out", Reading())
    assert not (tmp_path / "out").exists()
