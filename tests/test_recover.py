"""From photographs to files: named fields that agree with each other, and no bad picture that loses a good one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import roma
import skimage.data
import torch
import trimesh
from PIL import Image

from meshrec.body import load_body_model
from meshrec.branches.registry import branch_names, build_branch
from meshrec.camera import camera_from_body_axes, centered_camera, project
from meshrec.cli import main
from meshrec.errors import MeshrecError
from meshrec.recover import folder_names, seen_vertices
from meshrec.skeletons import COCO17, H36M17, SMPL24
from meshrec.types import BodyParams, Keypoints, Person


def keypoints_of_a_person(width: int = 640, height: int = 480) -> tuple[np.ndarray, BodyParams]:
    """A person seen from the left side, projected: COCO keypoints (1, 17, 2) and the truth."""
    model = load_body_model()
    rotations = torch.eye(3).repeat(24, 1, 1)
    rotations[0] = camera_from_body_axes() @ roma.rotvec_to_rotmat(torch.tensor([0.0, math.radians(40), 0.0]))
    rotations[SMPL24.index("left_shoulder")] = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, -1.2]))
    rotations[SMPL24.index("right_shoulder")] = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 1.2]))
    params = BodyParams.from_rotations(rotations, torch.zeros(10), torch.tensor([0.0, 0.2, 3.5]))
    camera = centered_camera(width, height, math.hypot(width, height), "assumed")
    return project(model.regressed(params, COCO17), camera)[None].numpy(), params


@pytest.fixture
def photo(tmp_path: Path) -> tuple[Path, Path]:
    """A picture, and the file with its keypoints."""
    picture, keypoints = tmp_path / "somebody.png", tmp_path / "keypoints.npz"
    Image.fromarray(np.full((480, 640, 3), 200, np.uint8)).save(picture)
    xy_px, _ = keypoints_of_a_person()
    np.savez(keypoints, xy_px=xy_px, confidence=np.ones((1, 17)), skeleton="coco17")
    return picture, keypoints


def run(*arguments: object) -> int:
    return main(["recover", *map(str, arguments)])


def test_a_photograph_becomes_files_that_agree(photo, tmp_path: Path, capsys) -> None:
    picture, keypoints = photo
    assert run(picture, "--keypoints", keypoints, "-o", tmp_path / "out", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    folder = tmp_path / "out" / "somebody"
    record = json.loads((folder / "result.json").read_text())
    assert printed["results"][0]["people"] == record["people"]
    person = record["people"][0]
    assert person["camera"]["focal_source"] == "assumed"
    assert person["camera"]["focal_px"] == pytest.approx(800)

    smpl = {name: torch.tensor(value) for name, value in person["smpl"].items()}
    rotations = roma.rotvec_to_rotmat(smpl["pose_axis_angle"].view(24, 3))
    assert torch.allclose(rotations, smpl["rotations"], atol=1e-4)
    body = load_body_model()(BodyParams.from_rotations(rotations, smpl["betas"], smpl["transl_m"]))
    mesh = trimesh.load(folder / person["files"]["mesh"], process=False)
    flip = np.diag([1.0, -1.0, -1.0])
    assert np.allclose(mesh.vertices, body.vertices_m.numpy() @ flip, atol=1e-3), "the OBJ is upright, in metres"
    assert np.allclose(person["joints24_m"], body.joints_m, atol=1e-3)

    arrays = np.load(folder / "result.npz")
    assert np.allclose(arrays["vertices_m"][0], body.vertices_m, atol=1e-3)
    assert np.allclose(arrays["joints17_m"][0], person["joints17_m"], atol=1e-4)
    for kind in ("overlay", "side"):
        assert Image.open(folder / person["files"][kind]).size[0] > 100


def test_the_recovered_person_is_the_true_one(photo, tmp_path: Path) -> None:
    picture, keypoints = photo
    assert run(picture, "--keypoints", keypoints, "-o", tmp_path / "out") == 0
    person = json.loads((tmp_path / "out" / "somebody" / "result.json").read_text())["people"][0]
    _, truth = keypoints_of_a_person()
    assert person["report"]["reprojection_px"] < 4
    facing = torch.tensor(person["smpl"]["rotations"])[0] @ torch.tensor([0.0, 0.0, 1.0])
    assert facing @ truth.root[:, 2] > 0.8, "it faces the way the person does"
    left, right = (np.array(person["joints17_m"][H36M17.index(f"{side}_hip")]) for side in ("left", "right"))
    assert left[0] > right[0], "a person who faces the camera has the left hip on the right of the picture"


def test_one_bad_photograph_does_not_lose_the_others(photo, tmp_path: Path, capsys) -> None:
    picture, keypoints = photo
    (tmp_path / "broken.jpg").write_bytes(b"not a picture at all")
    assert run(tmp_path / "broken.jpg", picture, "--keypoints", keypoints, "-o", tmp_path / "out", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert len(told["results"]) == 1
    assert "broken.jpg" in told["failed"][0]["error"]
    assert not (tmp_path / "out" / "broken").exists()


def test_nobody_in_the_photograph_is_a_sentence(tmp_path: Path, capsys) -> None:
    pytest.importorskip("mediapipe")
    Image.fromarray(np.full((200, 300, 3), 128, np.uint8)).save(tmp_path / "wall.png")
    assert run(tmp_path / "wall.png", "-o", tmp_path / "out") == 1
    assert "no person was found" in capsys.readouterr().err
    assert not (tmp_path / "out" / "wall").exists()


def test_half_a_person_has_plausible_unseen_legs(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "astronaut.png")
    assert run(tmp_path / "astronaut.png", "-o", tmp_path / "out") == 0
    person = json.loads((tmp_path / "out" / "astronaut" / "result.json").read_text())["people"][0]
    seen = dict(zip(H36M17.joints, person["joints17_seen"], strict=True))
    assert not any(seen[f"{side}_{joint}"] for side in ("left", "right") for joint in ("knee", "ankle"))
    assert seen["face"] and seen["left_shoulder"] and seen["right_shoulder"]
    assert person["report"]["plausibility"] > 0.1
    box = np.array(person["box_xyxy_px"])
    assert person["report"]["reprojection_px"] < 0.02 * (box[2:] - box[:2]).max()


def test_a_foreign_folder_is_left_alone(photo, tmp_path: Path, capsys) -> None:
    picture, keypoints = photo
    mine = tmp_path / "out" / "somebody" / "precious.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert run(picture, "--keypoints", keypoints, "-o", tmp_path / "out") == 1
    assert mine.read_text() == "mine"
    assert "left alone" in capsys.readouterr().err
    assert [path.name for path in mine.parent.parent.iterdir()] == ["somebody"], "no half-written neighbour stays"


def test_an_earlier_result_is_replaced(photo, tmp_path: Path) -> None:
    picture, keypoints = photo
    for _ in range(2):
        assert run(picture, "--keypoints", keypoints, "-o", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["somebody"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--branch", "crystal-ball"], "crystal-ball"),
        (["--body", "nobody"], "nobody"),
        (["--prior", "nothing-such"], "nothing-such"),
        (["--focal-px", "-5"], "focal"),
        (["--weights", "missing.pth"], "missing.pth"),
    ],
)
def test_wrong_choices_are_sentences(photo, tmp_path: Path, capsys, arguments: list[str], sentence: str) -> None:
    picture, keypoints = photo
    given = [] if "--weights" in arguments else ["--keypoints", keypoints]
    assert run(picture, *given, "-o", tmp_path / "out", *arguments) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_photographs_of_one_name_get_folders_of_their_own() -> None:
    names = folder_names([Path("a/x.jpg"), Path("b/x.png"), Path("c/x_2.jpg"), Path("y.jpg")])
    assert len(set(names)) == 4
    assert names[0] == "x" and names[3] == "y"


def test_unseen_legs_are_marked_on_the_skin() -> None:
    model = load_body_model()
    confidence = torch.ones(17)
    confidence[COCO17.indices("left_knee", "right_knee", "left_ankle", "right_ankle")] = 0
    person = Person(torch.zeros(4), 1.0, Keypoints(torch.zeros(17, 2), confidence, COCO17))
    seen = seen_vertices(model, person)
    heights = model.template.view(-1, 3)[:, 1]
    assert seen[heights > 0].float().mean() > 0.8
    assert not seen[heights < -0.7].any()


def test_the_registry_builds_what_it_names() -> None:
    model = load_body_model()
    for name in branch_names():
        assert build_branch(name, model, "none").name == name
    with pytest.raises(MeshrecError, match="fit"):
        build_branch("oracle", model, "none")
