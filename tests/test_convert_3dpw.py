"""3DPW in records: bodies in the camera's frame, where the photographs show them, whatever the world is."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import roma
import torch

from meshrec.body import BodyModel, load_body_model
from meshrec.camera import project
from meshrec.data.records import Record, open_records
from meshrec.data.synthetic import old_pickle
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.errors import MeshrecError
from meshrec.keypoint_files import OPENPOSE18_JOINTS
from meshrec.skeletons import COCO17, SMPL24
from meshrec.smpl_pickle import unpickle_arrays
from meshrec.synthetic_folders import Wanted, make_layout

TOOLS = Path(__file__).parent.parent / "tools"
FRAMES, SIZE_PX = 6, (160, 120)

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences, of one person for training and of two for testing."""
    scene = SyntheticConfig(photo_px=SIZE_PX, portrait=0.0)
    wanted = Wanted(2 * FRAMES, "3dpw", 3, people=2, scene=scene, frames=FRAMES, genders=("f", "m"))
    folder = tmp_path_factory.mktemp("synthetic") / "3dpw"
    make_layout(folder, wanted)
    return folder


@pytest.fixture
def threedpw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.setenv("MESHREC_DATA", str(tmp_path / "no bodies of the user's"))
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("convert.threedpw")


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body_model(dtype=torch.float64)


def sequence_file(folder: Path) -> Path:
    return next((folder / "sequenceFiles" / "test").glob("*.pkl"))


def changed(synthetic: Path, folder: Path, change: Change) -> Path:
    """The testing sequence with other fields, and the same photographs."""
    source = sequence_file(synthetic)
    fields = unpickle_arrays(source, source.read_bytes())
    change(fields)
    file = folder / "sequenceFiles" / "test" / source.name
    file.parent.mkdir(parents=True)
    file.write_bytes(old_pickle.dumps(fields))
    (folder / "imageFiles").symlink_to(synthetic / "imageFiles")
    return folder


def see_everybody(fields: dict[str, Any]) -> None:
    """In every frame, as in the first."""
    fields["campose_valid"] = [np.ones(FRAMES, bool)] * 2
    fields["poses2d"] = [np.repeat(points[:1], FRAMES, axis=0) for points in fields["poses2d"]]


def people_of(threedpw: ModuleType, folder: Path, **options: Any) -> list[Any]:
    return [person for sheet in threedpw.read_3dpw(folder, "test", **options).sheets for person in sheet.people()]


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_truth_in_the_records_lands_on_the_2d_joints(
    threedpw: ModuleType, synthetic: Path, body: BodyModel, tmp_path: Path, split: str
) -> None:
    console = importlib.import_module("rich.console").Console(quiet=True)
    convert = importlib.import_module("convert.conversion").convert
    convert(threedpw.read_3dpw(synthetic, split), tmp_path / "out", 1, console)
    records = open_records(tmp_path / "out", verify=True)
    seen = 0
    for record in records:
        assert record.truth is not None and record.camera is not None and record.placed and record.shaped
        joints_m = body.regressed(record.truth.params.to(torch.float64), COCO17)
        known = record.keypoints.confidence > 0
        off = (project(joints_m, record.camera.to(torch.float64)) - record.keypoints.xy_px)[known].norm(dim=-1)
        assert off.max() < 0.01 and (joints_m[:, 2] > 1).all()
        seen += int(known.sum())
    assert seen > 10 * len(records)
    expected = {"train": {("synthetic_000", "synthetic_000_0", "female")}}
    expected["test"] = {("synthetic_001", "synthetic_001_0", "female"), ("synthetic_001", "synthetic_001_1", "male")}
    assert {_named(record) for record in records} == expected[split]


def _named(record: Record) -> tuple[str, str, str]:
    assert record.truth is not None
    assert record.source == f"{record.sequence}/image_{record.frame:05d}.jpg" and record.dataset == "3dpw"
    return record.sequence, record.subject, record.truth.gender


def test_nothing_depends_on_the_world(threedpw: ModuleType, synthetic: Path, body: BodyModel, tmp_path: Path) -> None:
    """The world turned and moved: poses, translations and joints with it, the cameras against it."""
    turn = roma.random_rotmat(dtype=torch.float64).numpy()
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = turn, (3.0, -2.0, 5.0)

    def move(fields: dict[str, Any]) -> None:
        for person, poses in enumerate(fields["poses"]):
            roots = roma.rotvec_to_rotmat(torch.from_numpy(poses[:, :3]))
            poses[:, :3] = roma.rotmat_to_rotvec(torch.from_numpy(turn) @ roots).numpy()
            joints = fields["jointPositions"][person].reshape(FRAMES, len(SMPL24), 3)
            rest = joints[0, 0] - fields["trans"][person][0]
            joints[:] = joints @ turn.T + T[:3, 3]
            fields["trans"][person][:] = joints[:, 0] - rest
        fields["cam_poses"] = fields["cam_poses"] @ np.linalg.inv(T)

    moved = people_of(threedpw, changed(synthetic, tmp_path, move))
    for one, other in zip(people_of(threedpw, synthetic), moved, strict=True):
        torch.testing.assert_close(one.truth.params.rotations, other.truth.params.rotations, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.truth.params.transl_m, other.truth.params.transl_m, atol=1e-5, rtol=0)


def test_frames_whose_camera_is_not_aligned_are_left_out(threedpw: ModuleType, synthetic: Path, tmp_path: Path) -> None:
    def lose(fields: dict[str, Any]) -> None:
        see_everybody(fields)
        fields["campose_valid"] = [np.arange(FRAMES) % 2 == 0, np.array([1, 0, 0, 1, 0, 0])]

    people = people_of(threedpw, changed(synthetic, tmp_path, lose))
    assert [(person.frame, person.subject[-1]) for person in people] == [
        *((0, "0"), (0, "1"), (2, "0"), (3, "1"), (4, "0"))
    ]
    assert [person.frame for person in people_of(threedpw, tmp_path, every=4)] == [0, 0, 4]
    told = [threedpw.read_3dpw(tmp_path, "test", every=every).left_out for every in (1, 2)]
    assert [one["camera not aligned, or numbers not finite"] for one in told] == [7, 2]


def test_frames_with_numbers_that_are_not_finite_are_left_out(
    threedpw: ModuleType, synthetic: Path, tmp_path: Path
) -> None:
    def lose(fields: dict[str, Any]) -> None:
        see_everybody(fields)
        fields["poses"][0][1] = np.nan
        fields["trans"][1][2] = np.nan
        fields["cam_poses"][4] = np.nan
        fields["betas"] = [betas[:, None] for betas in fields["betas"]]

    people = people_of(threedpw, changed(synthetic, tmp_path, lose))
    frames = [[person.frame for person in people if person.subject.endswith(actor)] for actor in ("_0", "_1")]
    assert frames == [[0, 2, 3, 5], [0, 1, 3, 5]]
    assert all(person.truth.params.transl_m.isfinite().all() for person in people)


def test_the_box_is_around_the_detections(
    threedpw: ModuleType, synthetic: Path, body: BodyModel, tmp_path: Path
) -> None:
    """Around all of them, the neck too; people without detections are counted, but have a box of their body."""
    neck = OPENPOSE18_JOINTS.index("upper_neck")

    def shift(fields: dict[str, Any]) -> None:
        see_everybody(fields)
        fields["poses2d"][0][:, :, neck] = (1.5, 2.5, 0.01)
        fields["poses2d"][1][1:] = 0.0
        fields["poses2d"][0][:, :, OPENPOSE18_JOINTS.index("nose")] = (np.nan, 1.0, 0.9)

    folder = changed(synthetic, tmp_path, shift)
    source = threedpw.read_3dpw(folder, "test")
    assert list(source.left_out.values()) == [0, FRAMES - 1]
    for sheet in source.sheets:
        first = sheet.people()[0]
        known = first.keypoints.xy_px[first.keypoints.confidence > 0]
        torch.testing.assert_close(first.box_xyxy_px[:2], torch.tensor([1.5, 2.5]))
        torch.testing.assert_close(first.box_xyxy_px[2:], known.amax(0))
    of_body = people_of(threedpw, folder, boxes="body")
    assert len(of_body) == 2 * FRAMES
    for person in of_body:
        joints_m = body.joints24(person.truth.params.to(torch.float64))
        shown = project(joints_m, person.lens.camera(*SIZE_PX).to(torch.float64))
        torch.testing.assert_close(
            person.box_xyxy_px.double(), torch.cat([shown.amin(0), shown.amax(0)]), atol=1e-3, rtol=0
        )


def test_pixels_that_are_not_square_leave_the_pelvis_in_its_place(
    threedpw: ModuleType, synthetic: Path, body: BodyModel, tmp_path: Path
) -> None:
    def stretch(fields: dict[str, Any]) -> None:
        fields["cam_intrinsics"][1, 1] *= 1.004

    folder = changed(synthetic, tmp_path, stretch)
    for exact, person in zip(people_of(threedpw, synthetic), people_of(threedpw, folder), strict=True):
        place = [
            project(body.joints24(one.truth.params.to(torch.float64)), one.lens.camera(*SIZE_PX).to(torch.float64))
            for one in (exact, person)
        ]
        center = torch.tensor(person.lens.center_px)
        stretched = (place[0] - center) * torch.tensor([1.0, 1.004]) + center
        off = (place[1] - stretched).norm(dim=-1)
        height = float((stretched.amax(0) - stretched.amin(0)).norm())
        assert off[SMPL24.index("pelvis")] < 1e-3 and off.max() < 0.003 * height


def test_the_pelvis_is_where_the_data_set_has_it(threedpw: ModuleType, synthetic: Path, tmp_path: Path) -> None:
    """Ours is put where a body has it whose rest pelvis is another; joints of other frames are not believed."""
    shift = np.array([0.01, -0.05, 0.02])

    def of_another_body(fields: dict[str, Any]) -> None:
        for person, trans in enumerate(fields["trans"]):
            trans -= shift
            assert fields["jointPositions"][person].shape == (FRAMES, 72)

    def without(fields: dict[str, Any]) -> None:
        del fields["jointPositions"]

    def of_other_frames(fields: dict[str, Any]) -> None:
        fields["jointPositions"] = [joints + np.linspace(0, 9, FRAMES)[:, None] for joints in fields["jointPositions"]]

    truth = [person.truth.params.transl_m for person in people_of(threedpw, synthetic)]
    for number, change in enumerate((of_another_body, without, of_other_frames)):
        people = people_of(threedpw, changed(synthetic, tmp_path / str(number), change))
        for expected, person in zip(truth, people, strict=True):
            torch.testing.assert_close(person.truth.params.transl_m, expected, atol=2e-5, rtol=0)


def test_a_gender_without_a_body_is_told(threedpw: ModuleType, synthetic: Path) -> None:
    """And the records say which body stood in: a conversion does not go on with another one."""
    source = threedpw.read_3dpw(synthetic, "test")
    assert [note.split()[:3] for note in source.notes] == [["No", "female", "body"], ["No", "male", "body"]]
    placed = "female placed by the body neutral, male placed by the body neutral"
    assert source.header.made_from.endswith(placed)


def test_what_is_no_3dpw_is_told_in_a_sentence(threedpw: ModuleType, synthetic: Path, tmp_path: Path) -> None:
    with pytest.raises(MeshrecError, match=r"no images of 3DPW: looked for .*imageFiles"):
        threedpw.read_3dpw(synthetic.parent, "test")
    with pytest.raises(MeshrecError, match=r"validation split: looked for .*sequenceFiles.validation"):
        threedpw.read_3dpw(synthetic, "validation")

    def unknown(fields: dict[str, Any]) -> None:
        fields["genders"] = ["x", "m"]

    with pytest.raises(MeshrecError, match="gender is 'x'"):
        threedpw.read_3dpw(changed(synthetic, tmp_path / "gender", unknown), "test")

    faults: dict[str, tuple[str, Any]] = {
        "an entry for each person": ("poses", 3),
        "genders should have as many": ("genders", ["m"]),
        "names no folder": ("sequence", ".."),
        "focal lengths": ("cam_intrinsics", np.zeros((3, 3))),
        "betas should be": ("betas", [np.full(10, np.nan)] * 2),
    }
    for says, (name, value) in faults.items():
        folder = changed(synthetic, tmp_path / name, lambda fields, told=(name, value): fields.update([told]))
        with pytest.raises(MeshrecError, match=says):
            threedpw.read_3dpw(folder, "test")

    def short(fields: dict[str, Any]) -> None:
        fields["trans"][1] = fields["trans"][1][:-1]

    with pytest.raises(MeshrecError, match=r"trans should be 6 x 3 finite numbers, found 5 x 3"):
        threedpw.read_3dpw(changed(synthetic, tmp_path / "short", short), "test")
    with pytest.raises(MeshrecError, match="has no cam_poses"):
        threedpw.read_3dpw(changed(synthetic, tmp_path / "less", lambda fields: fields.pop("cam_poses")), "test")
    file = sequence_file(tmp_path / "less")
    file.write_bytes(sequence_file(synthetic).read_bytes()[:900])
    with pytest.raises(MeshrecError, match="cut off"):
        threedpw.read_3dpw(tmp_path / "less", "test")
