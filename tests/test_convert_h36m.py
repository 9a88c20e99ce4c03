"""Human3.6M in records: joints in the camera's metres, where the images show them, and the SMPL fits with them."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from dataset_writers import h36m_joints_mm, looking_down, seen_by, standing, write_h36m, write_picture

from meshrec.body import BodyModel, load_body_model
from meshrec.camera import project
from meshrec.errors import MeshrecError
from meshrec.skeletons import H36M17

TOOLS = Path(__file__).parent.parent / "tools"
CAMERAS = {"1": looking_down(0.4), "2": looking_down(2.9)}
FRAMES = 6


@pytest.fixture
def h36m(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("convert.h36m")


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body_model(dtype=torch.float64)


def people_of(h36m: ModuleType, folder: Path, **options: Any) -> list[Any]:
    source = h36m.read_h36m(folder, "test", subjects=(9,), **{"every": 1, **options})
    return [person for sheet in source.sheets for person in sheet.people()]


@pytest.fixture
def people(h36m: ModuleType, body: BodyModel, tmp_path: Path) -> list[Any]:
    return people_of(h36m, write_h36m(tmp_path, standing(FRAMES), body, CAMERAS))


def test_joints_are_where_the_cameras_show_them(people: list[Any], body: BodyModel) -> None:
    joints_mm = h36m_joints_mm(body, standing(FRAMES))
    for row, person in enumerate(people):
        camera = CAMERAS[str(1 + row // FRAMES)]
        expected = torch.from_numpy(seen_by(camera, joints_mm[row % FRAMES]))
        torch.testing.assert_close(person.keypoints.xy_px.double(), expected, atol=1e-3, rtol=0)
        assert (person.keypoints.confidence == 1).all() and person.keypoints.skeleton is H36M17
        inside = (expected > person.box_xyxy_px[:2]) & (expected < person.box_xyxy_px[2:])
        assert inside.all()


def test_joints_in_3d_project_onto_those_in_2d(people: list[Any]) -> None:
    """The pelvis to the last digit; the rest by the 0.7 % that focal lengths differ here, of half a person."""
    for person in people:
        off = (project(person.joints_m, person.lens.camera(160, 120)) - person.keypoints.xy_px).norm(dim=-1)
        extent = float((person.keypoints.xy_px.amax(0) - person.keypoints.xy_px.amin(0)).norm())
        assert off[H36M17.index("pelvis")] < 1e-3 and off.max() < 0.007 * extent
        assert 4 < person.joints_m[:, 2].mean() < 7


def test_the_fit_is_the_body_of_the_joints(people: list[Any], body: BodyModel) -> None:
    """Up to the sideways shift for square pixels, 0.7 % of the 4 cm between the two pelvises."""
    for person in people:
        joints_m = body.regressed(person.truth.params.to(torch.float64), H36M17)
        torch.testing.assert_close(joints_m, person.joints_m.double(), atol=3e-4, rtol=0)
        assert person.truth.gender == "neutral" and person.truth.shaped and person.truth.placed


def test_who_when_and_where_are_kept(people: list[Any]) -> None:
    assert {person.subject for person in people} == {"S9"}
    assert [person.frame for person in people] == [*range(FRAMES), *range(FRAMES)]
    assert {person.sequence for person in people} == {"Directions 1 camera 1", "Directions 1 camera 2"}


def test_both_meanings_of_t_and_both_nestings_are_read(
    h36m: ModuleType, body: BodyModel, tmp_path: Path, people: list[Any]
) -> None:
    placed = {
        index: camera | {"t": (-np.array(camera["R"]).T @ np.array(camera["t"])).tolist()}
        for index, camera in CAMERAS.items()
    }
    folder = write_h36m(tmp_path / "other", standing(FRAMES), body, CAMERAS, above=True)
    (folder / "annotations" / "Human36M_subject9_camera.json").write_text(json.dumps(placed), encoding="utf-8")
    for other, person in zip(people_of(h36m, folder), people, strict=True):
        torch.testing.assert_close(other.joints_m, person.joints_m)
        torch.testing.assert_close(other.truth.params.transl_m, person.truth.params.transl_m, atol=1e-5, rtol=0)


def test_frames_are_thinned_and_fits_may_be_missing(h36m: ModuleType, body: BodyModel, tmp_path: Path) -> None:
    folder = write_h36m(tmp_path, standing(FRAMES), body, CAMERAS, fits=False)
    people = people_of(h36m, folder, every=3)
    assert [person.frame for person in people] == [0, 3, 0, 3] and all(person.truth is None for person in people)


def test_other_units_and_other_cameras_are_refused(h36m: ModuleType, body: BodyModel, tmp_path: Path) -> None:
    metres = write_h36m(tmp_path / "metres", standing(2), body, CAMERAS, unit=1e-3)
    with pytest.raises(MeshrecError, match="another unit"):
        people_of(h36m, metres)
    folder = write_h36m(tmp_path / "swapped", standing(2), body, CAMERAS)
    swapped = json.dumps({"1": CAMERAS["2"] | {"c": [900.0, 900.0]}, "2": CAMERAS["2"]})
    (folder / "annotations" / "Human36M_subject9_camera.json").write_text(swapped, encoding="utf-8")
    with pytest.raises(MeshrecError, match="camera 1 shows nobody"):
        people_of(h36m, folder)
    with pytest.raises(MeshrecError, match=r"Human36M_subject5_data\.json"):
        h36m.read_h36m(folder, "test", subjects=(5,))


def test_annotations_that_make_no_sense_are_told_in_a_sentence(
    h36m: ModuleType, body: BodyModel, tmp_path: Path
) -> None:
    folder = write_h36m(tmp_path, standing(2), body, CAMERAS)
    file = {
        name: folder / "annotations" / f"Human36M_subject9_{name}.json" for name in ("data", "camera", "smpl_param")
    }
    written = {name: path.read_text() for name, path in file.items()}

    def told(name: str, change: Callable[[Any], Any], says: str) -> None:
        content = json.loads(written[name])
        change(content)
        file[name].write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(MeshrecError, match=says):
            people_of(h36m, folder)
        file[name].write_text(written[name], encoding="utf-8")

    told("data", lambda content: content["images"][1].update(frame_idx="one"), "annotation 1 has no image with whole")
    told("data", lambda content: content["images"][1].update(file_name=None), "None is no name of an image")
    told("camera", lambda content: content["1"].update(f=[0.0, 0.0]), "focal lengths of camera 1 are 0 and 0")
    told("smpl_param", lambda content: content["2"]["1"].update({"1": "lost"}), "no named fields in the SMPL fit")
    assert len(people_of(h36m, folder)) == 2 * 2


def write_archive(folder: Path, body: BodyModel, unit: float = 1.0) -> Path:
    joints_mm = h36m_joints_mm(body, standing(4))
    camera = CAMERAS["1"]
    names = [f"S9/S9_Posing_1.54138969/S9_Posing_1.54138969_{frame + 1:06d}.jpg" for frame in range(4)]
    xy = np.stack([seen_by(camera, joints) for joints in joints_mm])
    seen = (joints_mm.numpy() @ np.array(camera["R"]).T + np.array(camera["t"])) / 1000
    np.savez(
        folder / "h36m_test.npz",
        imgname=np.array(names),
        center=xy.mean(1),
        scale=np.full(4, 0.5),
        part=np.concatenate([xy, np.full((4, 17, 1), 2.0)], axis=-1),
        S=np.concatenate([unit * (seen - seen[:, :1]), np.ones((4, 17, 1))], axis=-1),
    )
    for name in names:
        write_picture(folder / "images" / name)
    return folder


def test_an_archive_gives_joints_and_the_square_of_its_scale(h36m: ModuleType, body: BodyModel, tmp_path: Path) -> None:
    source = h36m.read_h36m(write_archive(tmp_path, body), "test", every=2)
    people = [person for sheet in source.sheets for person in sheet.people()]
    assert [person.frame for person in people] == [2, 4] and {person.subject for person in people} == {"S9"}
    for person in people:
        box = person.box_xyxy_px.view(2, 2)
        torch.testing.assert_close(1.2 * (box[1] - box[0]), torch.full((2,), 100.0))
        torch.testing.assert_close(box.mean(0), person.keypoints.xy_px.mean(0), atol=1e-3, rtol=0)
        assert person.joints_m[H36M17.index("pelvis")].abs().max() == 0 and person.truth is None
        assert (person.keypoints.confidence == 1).all() and (person.joints_weight == 1).all()
        head, ankle = H36M17.indices("head_top", "left_ankle")
        assert person.joints_m[head, 1] < -0.4 and person.joints_m[ankle, 1] > 0.4, "y is down"
    with pytest.raises(MeshrecError, match="another unit"):
        h36m.read_h36m(write_archive(tmp_path, body, unit=1000.0), "test")
