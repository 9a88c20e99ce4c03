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
from rich.console import Console

from meshrec.body import load_body_model
from meshrec.branches.registry import BUILDERS, MESH_BUILDERS, branch_names, build_branch
from meshrec.camera import camera_from_body_axes, centered_camera, project
from meshrec.cli import main
from meshrec.errors import MeshrecError
from meshrec.models.lifter_file import write_lifter
from meshrec.models.mesh_file import write_regressor
from meshrec.models.regressor import MeshNetConfig, MeshRegressor
from meshrec.models.vae_lifter import LifterConfig, VaeLifter
from meshrec.recover import Recoverer, folder_names, recover_all, recover_group, seen_vertices
from meshrec.recover_report import Outcome, tell
from meshrec.skeletons import COCO17, H36M17, SMPL24
from meshrec.types import BodyParams, Estimate, Keypoints, Person


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


def photo_in(folder: Path) -> tuple[Path, Path]:
    """A picture, and the folder with its keypoints."""
    picture, keypoints = folder / "somebody.png", folder / "keypoints"
    keypoints.mkdir()
    Image.fromarray(np.full((480, 640, 3), 200, np.uint8)).save(picture)
    xy_px, _ = keypoints_of_a_person()
    np.savez(keypoints / "somebody.npz", xy_px=xy_px, confidence=np.ones((1, 17)), skeleton="coco17")
    return picture, keypoints


@pytest.fixture
def photo(tmp_path: Path) -> tuple[Path, Path]:
    return photo_in(tmp_path)


@pytest.fixture
def lifter(tmp_path: Path, monkeypatch) -> None:
    """A small lifter with random weights stands where the user's own would."""
    network = VaeLifter(LifterConfig(hidden=16, latent=4, place="ray", scale="pose"), torch.Generator().manual_seed(0))
    write_lifter(tmp_path / "data" / "weights" / "lift.safetensors", network.eval())
    monkeypatch.setenv("MESHREC_DATA", str(tmp_path / "data"))


def run(*arguments: object) -> int:
    return main(["recover", *map(str, arguments)])


def run_fast(*arguments: object) -> int:
    """By a branch that answers at once: what is written and told has the same laws for all."""
    return run(*arguments, "--branch", "lift", "--prior", "none")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """The folder of a photograph's fitted person."""
    folder = tmp_path_factory.mktemp("fitted")
    picture, keypoints = photo_in(folder)
    assert run(picture, "--keypoints", keypoints, "-o", folder / "out") == 0
    return folder / "out" / "somebody"


def test_a_photograph_becomes_files_that_agree(fitted) -> None:
    folder = fitted
    record = json.loads((folder / "result.json").read_text())
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
    camera = centered_camera(640, 480, 800.0, "assumed")
    joints17 = load_body_model().regressed(
        BodyParams.from_rotations(rotations, smpl["betas"], smpl["transl_m"]), H36M17
    )
    assert np.allclose(person["joints17_m"], joints17, atol=1e-3), "in the frame of the camera"
    assert np.allclose(person["root_m"], person["joints17_m"][0], atol=1e-4)
    drawn = np.asarray(Image.open(folder / person["files"]["overlay"])).astype(int)
    x, y = project(joints17, camera)[H36M17.index("spine")].round().int().tolist()
    assert abs(drawn[y, x] - 200).max() > 20, "the body is drawn where its spine is"
    assert (drawn[5, 5] == 200).all(), "and not in the corner"
    assert np.asarray(Image.open(folder / person["files"]["side"])).std() > 5


def test_the_recovered_person_is_the_true_one(fitted) -> None:
    person = json.loads((fitted / "result.json").read_text())["people"][0]
    _, truth = keypoints_of_a_person()
    assert person["report"]["reprojection_px"] < 4
    facing = torch.tensor(person["smpl"]["rotations"])[0] @ torch.tensor([0.0, 0.0, 1.0])
    assert facing @ truth.root[:, 2] > 0.8, "it faces the way the person does"
    left, right = (np.array(person["joints17_m"][H36M17.index(f"{side}_hip")]) for side in ("left", "right"))
    assert left[0] > right[0], "a person who faces the camera has the left hip on the right of the picture"


def test_a_given_focal_length_is_used(photo, fitted, tmp_path: Path) -> None:
    """The assumed one is 800 px."""
    picture, keypoints = photo
    assert run(picture, "--keypoints", keypoints, "--focal-px", 1600, "-o", tmp_path / "out") == 0
    near, far = (
        json.loads((folder / "result.json").read_text())["people"][0]
        for folder in (fitted, tmp_path / "out" / "somebody")
    )
    assert far["camera"]["focal_px"] == 1600 and far["camera"]["focal_source"] == "given"
    assert far["root_m"][2] / near["root_m"][2] == pytest.approx(2, rel=0.15), "twice the focal length, twice as far"


def test_two_people_get_two_bodies_and_one_picture(tmp_path: Path) -> None:
    Image.fromarray(np.full((480, 640, 3), 200, np.uint8)).save(tmp_path / "pair.png")
    xy_px, _ = keypoints_of_a_person()
    both = np.concatenate([xy_px - np.array([150, 0]), xy_px + np.array([150, 0])])
    np.savez(tmp_path / "pair.npz", xy_px=both, confidence=np.ones((2, 17)), skeleton="coco17")
    assert run(tmp_path / "pair.png", "--keypoints", tmp_path / "pair.npz", "-o", tmp_path / "out") == 0
    folder = tmp_path / "out" / "pair"
    assert {path.name for path in folder.iterdir()} >= {"person0.obj", "person1.obj", "overlay.png", "result.npz"}
    first, second = json.loads((folder / "result.json").read_text())["people"]
    assert abs(first["root_m"][0] - second["root_m"][0]) > 0.5


def test_a_person_who_cannot_be_placed_is_told_and_the_other_kept(tmp_path: Path, capsys) -> None:
    Image.fromarray(np.full((480, 640, 3), 200, np.uint8)).save(tmp_path / "pair.png")
    xy_px, _ = keypoints_of_a_person()
    both = np.concatenate([xy_px, np.full_like(xy_px, 300.0)])
    boxes = np.array([[100, 50, 500, 450], [250, 250, 350, 350]])
    file = tmp_path / "pair.npz"
    np.savez(file, xy_px=both, confidence=np.ones((2, 17)), skeleton="coco17", boxes_xyxy_px=boxes)
    arguments = (tmp_path / "pair.png", "--keypoints", tmp_path / "pair.npz", "-o", tmp_path / "out")
    assert run(*arguments, "--branch", "fit") == 0
    record = json.loads((tmp_path / "out" / "pair" / "result.json").read_text())
    assert len(record["people"]) == 1
    assert record["left_out"] == 1
    assert "too little is seen of 1 more" in capsys.readouterr().err
    assert run(*arguments) == 0
    record = json.loads((tmp_path / "out" / "pair" / "result.json").read_text())
    assert record["branch"] == "mesh+fit"
    off_px = [person["report"]["reprojection_px"] for person in record["people"]]
    assert off_px[0] < 5 and off_px[1] is None, "of whom there is only what the network says"


@pytest.mark.parametrize("kind", ["missing", "empty folder"])
def test_a_name_that_leads_nowhere_does_not_lose_the_others(photo, lifter, tmp_path: Path, capsys, kind: str) -> None:
    picture, keypoints = photo
    name = tmp_path / "nothing"
    if kind == "empty folder":
        name.mkdir()
    assert run_fast(name, picture, "--keypoints", keypoints, "-o", tmp_path / "out", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    record = json.loads((tmp_path / "out" / "somebody" / "result.json").read_text())
    assert [result["people"] for result in told["results"]] == [record["people"]]
    assert "nothing" in told["failed"][0]["error"]


def test_a_full_disk_leaves_nothing_half_written(photo, lifter, tmp_path: Path, capsys, monkeypatch) -> None:
    picture, keypoints = photo

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    assert run_fast(picture, "--keypoints", keypoints, "-o", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "No space left" in error
    assert "somebody" in error
    assert not list((tmp_path / "out").iterdir())


def test_an_output_that_cannot_be_made_is_a_sentence_before_any_work(photo, lifter, tmp_path: Path, capsys) -> None:
    picture, keypoints = photo
    (tmp_path / "file").write_text("in the way")
    assert run_fast(picture, "--keypoints", keypoints, "-o", tmp_path / "file" / "out") == 1
    assert "Cannot write" in capsys.readouterr().err


def test_another_photograph_of_the_same_name_does_not_replace_a_result(photo, lifter, tmp_path: Path, capsys) -> None:
    picture, keypoints = photo
    twin = tmp_path / "elsewhere" / picture.name
    twin.parent.mkdir()
    twin.write_bytes(picture.read_bytes())
    assert run_fast(picture, "--keypoints", keypoints, "-o", tmp_path / "out") == 0
    assert run_fast(twin, "--keypoints", keypoints, "-o", tmp_path / "out") == 1
    assert "holds the result of" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "somebody" / "result.json").read_text())["photo"] == str(picture)


def test_a_branch_that_knows_joints_alone_gives_numbers_alone(photo, tmp_path: Path, monkeypatch) -> None:
    class Sticks:
        name = "sticks"

        def __call__(self, photo, people, camera) -> Estimate:
            joints = torch.randn(len(people), 17, 3, generator=torch.Generator().manual_seed(0))
            return Estimate("sticks", joints, torch.ones(len(people), 17), torch.ones(len(people), 17).bool())

    monkeypatch.setitem(BUILDERS, "sticks", lambda model, prior: Sticks())
    picture, keypoints = photo
    assert run(picture, "--keypoints", keypoints, "--branch", "sticks", "-o", tmp_path / "out") == 0
    folder = tmp_path / "out" / "somebody"
    assert {path.name for path in folder.iterdir()} == {"result.json", "result.npz"}
    person = json.loads((folder / "result.json").read_text())["people"][0]
    assert person["files"] == {} and person["root_m"] is None


def test_the_lift_branch_gives_skeletons(photo, lifter, tmp_path: Path) -> None:
    picture, keypoints = photo
    assert run(picture, "--keypoints", keypoints, "--branch", "lift", "-o", tmp_path / "out") == 0
    folder = tmp_path / "out" / "somebody"
    record = json.loads((folder / "result.json").read_text())
    person = record["people"][0]
    names = {path.name for path in folder.iterdir()}
    assert names == {"result.json", "result.npz", *person["files"].values()} and len(names) == 4
    assert record["branch"] == "lift" and record["assumed_height_m"] == 1.7 and record["body"] is None
    assert person["camera"]["focal_px"] == pytest.approx(800) and "smpl" not in person
    camera = centered_camera(640, 480, 800.0, "assumed")
    xy_px = project(torch.tensor(person["joints17_m"]), camera)
    seen, _ = keypoints_of_a_person()
    for joint in ("left_wrist", "right_ankle"):
        assert torch.allclose(xy_px[H36M17.index(joint)], torch.tensor(seen[0, COCO17.index(joint)]), atol=0.1)
    drawn = np.asarray(Image.open(folder / person["files"]["overlay"])).astype(int)
    x, y = xy_px[H36M17.index("left_knee")].int().tolist()
    assert abs(drawn[y, x] - 200).max() > 20 and (drawn[5, 5] == 200).all()
    assert np.asarray(Image.open(folder / person["files"]["side"])).std() > 5


def test_the_lift_branch_leaves_out_who_shows_no_hip(lifter, tmp_path: Path, capsys) -> None:
    Image.fromarray(np.full((480, 640, 3), 200, np.uint8)).save(tmp_path / "pair.png")
    both, confidence = np.repeat(keypoints_of_a_person()[0], 2, axis=0), np.ones((2, 17))
    confidence[0, COCO17.indices("left_hip", "right_hip")] = 0
    for name, rows in {"pair": slice(0, 2), "alone": slice(0, 1)}.items():
        np.savez(tmp_path / f"{name}.npz", xy_px=both[rows], confidence=confidence[rows], skeleton="coco17")
    flags = ["--branch", "lift", "-o", tmp_path / "out", "--keypoints"]
    assert run(tmp_path / "pair.png", *flags, tmp_path / "pair.npz") == 0
    record = json.loads((tmp_path / "out" / "pair" / "result.json").read_text())
    assert len(record["people"]) == 1 and record["left_out"] == 1
    assert run(tmp_path / "pair.png", *flags, tmp_path / "alone.npz") == 1
    assert "a hip" in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A small mesh regressor with random weights, whose norms know its features."""
    regressor = MeshRegressor(MeshNetConfig("hrnet_w18", crop_px=64), torch.Generator().manual_seed(0)).train()
    for module in regressor.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        regressor(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    return write_regressor(tmp_path_factory.mktemp("weights") / "mesh_small.safetensors", regressor.eval())


def test_the_mesh_branch_takes_several_photographs_and_loses_none(photo, network, tmp_path: Path, capsys) -> None:
    """What is wrong with one is told, the others come in their order, and each is what it is alone."""
    picture, keypoints = photo
    (tmp_path / "broken.jpg").write_bytes(b"not a picture at all")
    other = tmp_path / "other.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)).save(other)
    np.savez(keypoints / "other.npz", **np.load(keypoints / "somebody.npz"))
    flags = ["--keypoints", keypoints, "--branch", "mesh", "--mesh-weights", network, "--json", "--prior", "none"]
    assert run(other, tmp_path / "broken.jpg", picture, *flags, "-o", tmp_path / "out") == 1
    said = json.loads(capsys.readouterr().out)
    assert [Path(result["folder"]).name for result in said["results"]] == ["other", "somebody"]
    assert [Path(failure["photo"]).name for failure in said["failed"]] == ["broken.jpg"]
    person = said["results"][1]["people"][0]
    assert said["results"][1]["branch"] == "mesh" and "report" not in person and len(person["smpl"]["betas"]) == 10
    assert (tmp_path / "out" / "somebody" / person["files"]["mesh"]).is_file()
    assert run(picture, *flags, "-o", tmp_path / "alone") == 0
    alone = json.loads(capsys.readouterr().out)["results"][0]["people"][0]
    assert np.allclose(alone["joints17_m"], person["joints17_m"], atol=1e-3)


def outcome_of(name: str, **report: float | bool) -> Outcome:
    person = {"joints17_seen": 17 * [True], "root_m": [0.0, 0.0, 3.0]} | ({"report": report} if report else {})
    return Outcome(Path(name), Path("out"), 1.0, {"people": [person], "left_out": 0})


def headings(outcomes: list[Outcome], capsys) -> str:
    tell(outcomes, [], Path("out"), Console(stderr=True, width=120), as_json=False)
    return capsys.readouterr().err


def test_what_a_branch_says_of_nobody_has_no_column(capsys) -> None:
    unfitted = headings([outcome_of("a.png"), outcome_of("b.png")], capsys)
    assert "depth" in unfitted and "3.0 m" in unfitted and "b.png" in unfitted
    assert not any(heading in unfitted for heading in ("off by", "plausible", "converged"))
    fitted = headings([outcome_of("a.png"), outcome_of("b.png", reprojection_px=2.5, converged=True)], capsys)
    assert "off by" in fitted and "2.5 px" in fitted and "converged" in fitted and "plausible" not in fitted
    assert "recovered" not in headings([Outcome(Path("c.png"), Path("out"), error="no")], capsys).splitlines()[0]


class Blind:
    """A detector that sees nobody."""

    name = "blind"

    def __call__(self, photo):
        return []


class Several:
    """A branch that is asked for several photographs at once."""

    name = "several"

    def __call__(self, photo, people, camera):
        raise MeshrecError("nothing to say")

    def several(self, sights):
        raise MeshrecError("nothing to say")


def test_each_photograph_is_told_of_when_it_is_looked_at_and_when_it_is_done(photo, tmp_path: Path) -> None:
    """The branch is asked for many together, which is no reason for the bar to stand still until then."""
    recoverer = Recoverer(Blind(), Several(), load_body_model())
    told: list[Path] = []
    outcomes = recover_group(recoverer, [(photo[0], tmp_path / str(index)) for index in range(3)], told.append)
    assert "no person" in next(outcomes).error and len(told) == 3
    assert len(list(outcomes)) == 2 and len(told) == 3
    console = Console(stderr=True)
    assert [outcome.photo for outcome in recover_all(recoverer, 3 * [photo[0]], tmp_path, console)] == 3 * [photo[0]]


def test_the_body_of_the_mesh_branch_is_refined(photo, network, tmp_path: Path) -> None:
    picture, keypoints = photo
    flags = ["--keypoints", keypoints, "--branch", "mesh", "--refine", "--mesh-weights", network, "--prior", "none"]
    assert run(picture, *flags, "-o", tmp_path / "out") == 0
    record = json.loads((tmp_path / "out" / "somebody" / "result.json").read_text())
    assert record["branch"] == "mesh+fit" and record["people"][0]["report"]["start"] == -1
    assert record["people"][0]["report"]["reprojection_px"] < 3


def test_one_bad_photograph_does_not_lose_the_others(photo, lifter, tmp_path: Path, capsys) -> None:
    picture, keypoints = photo
    (tmp_path / "broken.jpg").write_bytes(b"not a picture at all")
    assert run_fast(tmp_path / "broken.jpg", picture, "--keypoints", keypoints, "-o", tmp_path / "out", "--json") == 1
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


def test_a_foreign_folder_is_left_alone(photo, lifter, tmp_path: Path, capsys) -> None:
    picture, keypoints = photo
    mine = tmp_path / "out" / "somebody" / "precious.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert run_fast(picture, "--keypoints", keypoints, "-o", tmp_path / "out") == 1
    assert mine.read_text() == "mine"
    assert "left alone" in capsys.readouterr().err
    assert [path.name for path in mine.parent.parent.iterdir()] == ["somebody"], "no half-written neighbour stays"


def test_an_earlier_result_is_replaced(photo, lifter, tmp_path: Path) -> None:
    picture, keypoints = photo
    for _ in range(2):
        assert run_fast(picture, "--keypoints", keypoints, "-o", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["somebody"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--branch", "crystal-ball"], "crystal-ball"),
        (["--body", "nobody"], "nobody"),
        (["--prior", "nothing-such"], "nothing-such"),
        (["--focal-px", "-5"], "focal"),
        (["--weights", "missing.pth"], "missing.pth"),
        (["--branch", "mesh", "--mesh-weights", "missing.safetensors"], "missing.safetensors"),
        (["--branch", "fit", "--mesh-weights", "some.safetensors"], "leave them"),
        (["--branch", "lift", "--refine"], "--refine"),
        (["--branch", "fit", "--precision", "bfloat16"], "leave them"),
        (["--detector", "rcnn", "--weights", "missing.pth"], "missing.pth"),
    ],
)
def test_wrong_choices_are_sentences(photo, tmp_path: Path, capsys, arguments: list[str], sentence: str) -> None:
    picture, keypoints = photo
    given = [] if "--detector" in arguments else ["--keypoints", keypoints]
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


def test_the_registry_builds_what_it_names(lifter) -> None:
    model = load_body_model()
    for name in set(branch_names()) - set(MESH_BUILDERS):
        assert build_branch(name, model, "none").name == name
    with pytest.raises(MeshrecError, match="fit"):
        build_branch("oracle", model, "none")
