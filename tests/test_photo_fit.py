"""Agreement with photographs: nought where joints are where they were seen, and no credit for who was not found."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from meshrec.body import BodyModel, load_body_model
from meshrec.camera import camera_from_body_axes, project
from meshrec.photo import Photo, camera_of
from meshrec.recover import Recovery
from meshrec.skeletons import COCO17
from meshrec.types import BodyParams, Estimate, FitReport, FitTerms, Keypoints, Person, stack

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture
def photo_fit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("photo_fit")


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


def report(reprojection_px: float) -> FitReport:
    number, count = torch.tensor(0.5), torch.tensor(7)
    yes = torch.tensor(True)
    return FitReport(FitTerms(*[number] * 6), torch.tensor(reprojection_px), number, count, count, yes, yes)


def two_people(model: BodyModel) -> Recovery:
    """Two bodies side by side, seen where they are; the median joint of each is said to be 3 px off."""
    photo = Photo(np.zeros((480, 640, 3), np.uint8), Path("two.png"))
    camera = camera_of(photo)
    people, estimates = [], []
    for x_m in (-0.8, 0.8):
        rotations = torch.eye(3).repeat(24, 1, 1)
        rotations[0] = camera_from_body_axes()
        params = BodyParams.from_rotations(rotations, torch.zeros(10), torch.tensor([x_m, 0.2, 4.5]))
        xy_px = project(model.regressed(params, COCO17), camera)
        box = torch.cat([xy_px.amin(0), xy_px.amax(0)])
        people.append(Person(box, 0.9, Keypoints(xy_px, torch.ones(17), COCO17)))
        joints17 = torch.zeros(17, 3)
        seen = torch.ones(17)
        estimates.append(
            Estimate("fit", joints17, seen, seen > 0, None, params, model(params), camera, report(reprojection_px=3.0))
        )
    return Recovery(photo, tuple(people), stack(estimates))


def moved(person: Person, right_px: float) -> Person:
    shift = torch.tensor([right_px, 0.0])
    keypoints = replace(person.keypoints, xy_px=person.keypoints.xy_px + shift)
    return Person(person.box_xyxy_px + shift.repeat(2), 1.0, keypoints)


def longer_side(person: Person) -> float:
    return float((person.box_xyxy_px[2:] - person.box_xyxy_px[:2]).max())


def test_everybody_is_measured_against_their_own_annotation(photo_fit: ModuleType, model: BodyModel) -> None:
    recovery = two_people(model)
    left, right = recovery.people
    rows = photo_fit.measure(model, recovery, [moved(right, 0.07 * longer_side(right)), left], 1.0)
    assert [row.person for row in rows] == [0, 1]
    assert [row.pck_10 for row in rows] == [row.detector_pck_10 for row in rows] == [1, 1]
    assert [row.pck_05 for row in rows] == [row.detector_pck_05 for row in rows] == [1, 0]
    assert rows[0].off_percent == pytest.approx(0, abs=0.01)
    off = replace(recovery, people=(moved(left, 3.0), right))
    assert photo_fit.measure(model, off, [], 1.0)[0].off_percent == pytest.approx(100 * 3 / longer_side(left), rel=1e-3)


def test_body_and_detector_are_measured_apart(photo_fit: ModuleType, model: BodyModel) -> None:
    recovery = two_people(model)
    left, right = recovery.people
    unsure = replace(recovery, people=(moved(left, 0.07 * longer_side(left)), right))
    row = photo_fit.measure(model, unsure, [left], 1.0)[0]
    assert (row.pck_05, row.detector_pck_05) == (1, 0)


def test_whoever_was_not_found_scores_nothing(photo_fit: ModuleType, model: BodyModel) -> None:
    recovery = two_people(model)
    left, _ = recovery.people
    alone = replace(recovery, people=(left,), estimate=recovery.estimate[:1])
    rows = photo_fit.measure(model, alone, [left, moved(left, 3 * longer_side(left))], 1.0)
    assert [row.person for row in rows] == [0, None]
    said = photo_fit.summary(rows)
    assert (said["people"], said["annotated"], said["annotated_found"], said["pck_10"]) == (1, 2, 1, 0.5)


def test_a_photograph_becomes_a_row_and_a_strip(photo_fit: ModuleType, tmp_path: Path, capsys) -> None:
    pytest.importorskip("mediapipe")
    photo, annotations = tmp_path / "astronaut.png", tmp_path / "annotations.json"
    Image.fromarray(skimage.data.astronaut()).save(photo)
    joints = [[0.0, 0.0, 0.0] for _ in COCO17.joints]
    joints[COCO17.index("nose")] = [224.0, 120.0, 2.0]
    person = {"names": "coco17", "keypoints": joints, "bbox": [20.0, 0.0, 400.0, 512.0]}
    annotations.write_text(json.dumps({"images": [{"file": photo.name, "persons": [person]}]}))
    options = {"annotations": annotations, "output": tmp_path, "in_box": True, "json": True}
    assert photo_fit.main((str(photo),), **options) == 0
    row = json.loads(capsys.readouterr().out)["people"][0]
    assert row["person"] == 0 and row["off_percent"] < 2
    assert row["pck_05"] == row["detector_pck_05"] == 1
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 3 * photo_fit.CELL_PX and np.ptp(np.asarray(sheet)) > 200
