"""MPII in records: its two files say the same, in continuous pixels, with the field's crop."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from dataset_writers import write_picture
from scipy.io import savemat

from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.errors import MeshrecError
from meshrec.photo import read_photo
from meshrec.skeletons import MPII16
from meshrec.synthetic_folders import Wanted, make_layout

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = SyntheticConfig(photo_px=(160, 120), portrait=0.0)
    folder = tmp_path_factory.mktemp("synthetic") / "mpii"
    make_layout(folder, Wanted(9, "mpii", people=2, scene=scene))
    return folder


@pytest.fixture
def mpii(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("convert.mpii")


def people_of(source: Any) -> dict[str, list[Any]]:
    return {sheet.name: sheet.people() for sheet in source.sheets}


def test_both_files_tell_of_the_same_people(mpii: ModuleType, synthetic: Path) -> None:
    mat = next(synthetic.glob("*/*.mat"))
    official = people_of(mpii.read_mpii(synthetic, annotations=mat, least_joints=1))
    parts = [people_of(mpii.read_mpii(synthetic, split, least_joints=1)) for split in ("train", "valid")]
    assert set(parts[0]) | set(parts[1]) == set(official) and not set(parts[0]) & set(parts[1])
    for name, people in (parts[0] | parts[1]).items():
        for ours, theirs in zip(official[name], people, strict=True):
            torch.testing.assert_close(ours.keypoints.xy_px, theirs.keypoints.xy_px, atol=1e-3, rtol=0)
            assert ((ours.keypoints.confidence > 0) == (theirs.keypoints.confidence > 0)).all()
            torch.testing.assert_close(ours.box_xyxy_px, theirs.box_xyxy_px, atol=0.6, rtol=0)


def test_hidden_joints_count_half_and_the_heads_in_full(mpii: ModuleType, synthetic: Path) -> None:
    mat = next(synthetic.glob("*/*.mat"))
    people = [person for some in people_of(mpii.read_mpii(synthetic, annotations=mat)).values() for person in some]
    confidence = torch.stack([person.keypoints.confidence for person in people])
    assert set(confidence.unique().tolist()) <= {0.0, 0.5, 1.0} and (confidence == 0.5).any()
    head = confidence[:, MPII16.indices("upper_neck", "head_top")]
    assert ((head == 0) | (head == 1)).all()


def row_of(image: str = "a.jpg", **changes: Any) -> dict[str, Any]:
    joints = [[20.0 + 5 * joint, 15.0 + 5 * joint] for joint in range(len(MPII16))]
    row = {"image": image, "joints": joints, "joints_vis": [1] * len(MPII16), "center": [61.0, 51.0], "scale": 0.4}
    return row | changes


def write_rows(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "annot").mkdir(exist_ok=True)
    (folder / "annot" / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "images").mkdir(exist_ok=True)
    return folder


def test_a_joint_is_the_middle_of_its_pixel(mpii: ModuleType, tmp_path: Path) -> None:
    """Matlab counts from 1: the dot at (61, 47) from 0 is annotated as (62, 48)."""
    pixels = read_photo(write_picture(tmp_path / "images" / "a.jpg", [(61, 47)])).pixels
    source = mpii.read_mpii(write_rows(tmp_path, row_of(joints=[[62.0, 48.0]] * len(MPII16))))
    x, y = source.sheets[0].people()[0].keypoints.xy_px[0].tolist()
    rows, columns = (pixels[..., 0] > 140).nonzero()
    assert (x, y) == (columns.mean() + 0.5, rows.mean() + 0.5)


def test_the_crop_is_the_field_s(mpii: ModuleType, tmp_path: Path) -> None:
    """The square of 250 scale, 15 scale below the centre."""
    person = mpii.read_mpii(write_rows(tmp_path, row_of())).sheets[0].people()[0]
    low, high = person.box_xyxy_px.view(2, 2)
    torch.testing.assert_close(1.2 * (high - low), torch.full((2,), 100.0))
    torch.testing.assert_close((low + high) / 2, torch.tensor([60.5, 56.5]))


def test_people_with_few_joints_are_counted(mpii: ModuleType, tmp_path: Path) -> None:
    few = [[-1.0, -1.0] if joint > 6 else [30.0, 30.0] for joint in range(len(MPII16))]
    rows = (row_of("b.jpg"), row_of(joints=few), row_of(joints_vis=[0, *[1] * 15]), row_of("b.jpg"), row_of(scale=-1.0))
    source = mpii.read_mpii(write_rows(tmp_path, *rows))
    people = people_of(source)
    assert {name: len(some) for name, some in people.items()} == {"b.jpg": 2, "a.jpg": 1}
    assert list(source.left_out.values()) == [2] and people["a.jpg"][0].keypoints.confidence[0] == 0.5


def point(joint: Any, **changes: Any) -> dict[str, Any]:
    return {"id": joint, "x": 10.0 + joint, "y": 20.0 + joint, "is_visible": 1} | changes


def write_release(folder: Path, *points: dict[str, Any]) -> Path:
    """The official file, of one person."""
    annotated = {"point": np.array(points, dtype=object)}
    person = {"annopoints": annotated, "scale": 0.3, "objpos": {"x": 60.0, "y": 50.0}}
    images = np.array([{"image": {"name": "a.jpg"}, "annorect": person}], dtype=object)
    (folder / "images").mkdir(exist_ok=True)
    savemat(folder / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": {"annolist": images, "img_train": np.array([1])}})
    return folder


def test_points_of_the_official_file_are_placed_by_their_id(mpii: ModuleType, tmp_path: Path) -> None:
    """Hidden is what is said to be 0, as a number or as text; without a word a joint is visible."""
    said = {0: 0, 1: 1, 2: "0", 3: "1", 4: np.zeros((0, 0))}
    points = [point(joint, is_visible=said.get(joint, 1)) for joint in (15, *range(12))]
    keypoints = people_of(mpii.read_mpii(write_release(tmp_path, *points)))["a.jpg"][0].keypoints
    known = [*range(12), 15]
    torch.testing.assert_close(keypoints.xy_px[known, 0], torch.tensor(known) + 9.5)
    assert keypoints.confidence.tolist() == [0.5, 1.0, 0.5, *[1.0] * 9, 0.0, 0.0, 0.0, 1.0]
    for wrong, says in (
        (point(16), r"a joint in a\.jpg has the id 16"),
        (point(-1), "has the id -1"),
        (point(0.5), "has the id 0.5"),
        (point(0, x=float("nan")), "id, x and y of a joint in"),
        (point(0, y="far"), "id, x and y of a joint in"),
    ):
        with pytest.raises(MeshrecError, match=says):
            mpii.read_mpii(write_release(tmp_path, *points, wrong))


def test_what_is_no_mpii_is_told_in_a_sentence(mpii: ModuleType, synthetic: Path, tmp_path: Path) -> None:
    with pytest.raises(MeshrecError, match=r"looked for .*annot.train\.json.*mpii_human_pose_v1_u12_1\.mat"):
        mpii.read_mpii(tmp_path)
    mat = next(synthetic.glob("*/*.mat"))
    with pytest.raises(MeshrecError, match="training images alone"):
        mpii.read_mpii(synthetic, "valid", annotations=mat)
    (tmp_path / "images").mkdir()
    short = tmp_path / "short.mat"
    short.write_bytes(mat.read_bytes()[: mat.stat().st_size // 2])
    with pytest.raises(MeshrecError, match="no annotation file of MPII, or is cut off"):
        mpii.read_mpii(tmp_path, annotations=short)
    with pytest.raises(MeshrecError, match=r"joints of a\.jpg should be 16 x 2 finite numbers, found 2 x 2"):
        mpii.read_mpii(write_rows(tmp_path, row_of(joints=[[1, 2], [3, 4]])))
