"""COCO in records: pixels, boxes and flags as COCO means them; crowds and people with few joints passed over."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from dataset_writers import coco_person, write_coco, write_picture

from meshrec.errors import MeshrecError
from meshrec.photo import read_photo
from meshrec.skeletons import COCO17

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture
def coco(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("convert.coco")


def test_a_keypoint_is_the_middle_of_its_pixel(coco: ModuleType, tmp_path: Path) -> None:
    dot = (61, 47)
    keypoints = [*dot, 2] * len(COCO17)
    source = coco.read_coco(write_coco(tmp_path, [coco_person(1, 1, keypoints=keypoints)]), "val2017")
    pixels = read_photo(write_picture(source.sheets[0].photo, [dot])).pixels
    x, y = source.sheets[0].people()[0].keypoints.xy_px[0].tolist()
    rows, columns = (pixels[..., 0] > 140).nonzero()
    assert (x, y) == (columns.mean() + 0.5, rows.mean() + 0.5) == (61.5, 47.5)


def test_people_are_kept_by_image_with_boxes_and_flags(coco: ModuleType, tmp_path: Path) -> None:
    flags = [flag for row in range(17) for flag in (10 + row, 20 + row, (2, 1, 0)[row % 3])]
    people = [
        coco_person(7, 1, keypoints=flags),
        coco_person(9, 2),
        coco_person(7, 3),
        coco_person(9, 4, iscrowd=1),
        coco_person(9, 5, joints=7),
        coco_person(9, 6, bbox=[10.0, 10.0, 0.0, 40.0]),
    ]
    source = coco.read_coco(write_coco(tmp_path, people), "val2017")
    assert [sheet.name for sheet in source.sheets] == ["000000000007.jpg", "000000000009.jpg"]
    assert [len(sheet.people()) for sheet in source.sheets] == [2, 1]
    assert source.left_out == {"a crowd": 1, "fewer than 8 joints annotated": 1, "an empty box": 1}
    person = source.sheets[0].people()[0]
    assert person.keypoints.confidence.tolist() == [(1.0, 0.5, 0.0)[row % 3] for row in range(17)]
    assert (person.keypoints.xy_px[2::3] == 0).all()
    torch.testing.assert_close(person.box_xyxy_px, torch.tensor([15.5, 10.0, 110.5, 110.5]))
    assert person.truth is None and person.lens is None


def test_a_file_that_is_wrong_is_told_in_a_sentence(coco: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(MeshrecError, match=r"looked for .*person_keypoints_val2017\.json"):
        coco.read_coco(tmp_path, "val2017")
    write_coco(tmp_path, [coco_person(1, 1, bbox=[1, 2, 3])])
    with pytest.raises(MeshrecError, match="bbox of annotation 1 should be 4 finite numbers"):
        coco.read_coco(tmp_path, "val2017")
    write_coco(tmp_path, [coco_person(1, 1, keypoints=[5, 5, 3] * 17)])
    with pytest.raises(MeshrecError, match="flag 3"):
        coco.read_coco(tmp_path, "val2017").sheets[0].people()
    file = tmp_path / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "../../secret.jpg"
    file.write_text(json.dumps(content))
    with pytest.raises(MeshrecError, match="no name of an image"):
        coco.read_coco(tmp_path, "val2017")
    file.write_text(json.dumps(content)[:50])
    with pytest.raises(MeshrecError, match="cut off or no JSON"):
        coco.read_coco(tmp_path, "val2017")
