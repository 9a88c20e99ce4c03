"""The verb `lift`: files that agree with each other, every way in, and sentences for what cannot be lifted."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meshrec import skeleton_page
from meshrec.cli import main
from meshrec.errors import MeshrecError
from meshrec.lift import noise_of, picture_names
from meshrec.models.lifter_file import write_lifter
from meshrec.models.lifting import stature
from meshrec.models.vae_lifter import LifterConfig, VaeLifter
from meshrec.skeletons import COCO17, H36M17, OPENPOSE25

SIZE = (640, 480)


def standing(shift: float = 0.0) -> np.ndarray:
    """COCO keypoints of one who stands and faces the camera, pixels."""
    places = {"nose": (0, 60), "eye": (8, 55), "ear": (16, 58), "shoulder": (40, 110), "elbow": (60, 165)}
    places |= {"wrist": (70, 215), "hip": (25, 230), "knee": (28, 310), "ankle": (30, 390)}
    rows = []
    for joint in COCO17.joints:
        side, _, rest = joint.rpartition("_")
        x, y = places[rest]
        rows.append((320 + shift + (x if side == "left" else -x if side else 0), y))
    return np.array(rows, float)


@pytest.fixture(autouse=True)
def weights(tmp_path_factory, monkeypatch) -> Path:
    """A small lifter with random weights stands where the user's own would."""
    folder = tmp_path_factory.mktemp("data")
    lifter = VaeLifter(LifterConfig(hidden=16, latent=4, place="ray", scale="pose"), torch.Generator().manual_seed(0))
    with torch.no_grad():
        lifter.encoder.log_variance.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    monkeypatch.setenv("MESHREC_DATA", str(folder))
    return write_lifter(folder / "weights" / "lift.safetensors", lifter.eval())


def run(*arguments: object) -> int:
    return main(["lift", *map(str, arguments)])


def npz(path: Path, people: int = 1, **extra) -> Path:
    xy_px = np.stack([standing(30.0 * person) for person in range(people)])
    arrays = {"xy_px": xy_px, "confidence": np.ones((people, 17)), "skeleton": "coco17"} | extra
    np.savez(path, **arrays)
    return path


def coco(path: Path, images: int = 2, sizes: bool = True, spoil=lambda rows: rows) -> Path:
    triples = [np.column_stack([standing(10 * k) - 0.5, np.full(17, 2)]).ravel().tolist() for k in range(images)]
    size = {"width": SIZE[0], "height": SIZE[1]} if sizes else {}
    content = {
        "images": [{"id": k, "file_name": f"image{k}.jpg", **size} for k in range(images)],
        "annotations": spoil([{"image_id": k, "keypoints": triple} for k, triple in enumerate(triples)]),
    }
    path.write_text(json.dumps(content))
    return path


def record_of(folder: Path) -> dict:
    return json.loads((folder / "lift.json").read_text())


def test_every_file_says_the_same(tmp_path, capsys) -> None:
    file, out = coco(tmp_path / "k.json"), tmp_path / "out"
    flags = ["--height-m", "1.8", "--hypotheses", "3", "--interpolate", "5", "--format", "json", "npz", "csv", "--json"]
    assert run(file, "-o", out, *flags) == 0
    record, arrays = record_of(out), np.load(out / "lift.npz")
    assert json.loads(capsys.readouterr().out) == record
    assert [person["picture"] for person in record["people"]] == ["image0.jpg", "image1.jpg"] == list(arrays["picture"])
    for row, person in enumerate(record["people"]):
        np.testing.assert_allclose(arrays["joints17_m"][row], person["joints17_m"], atol=1e-5)
        np.testing.assert_allclose(arrays["hypotheses17_m"][row], person["hypotheses17_m"], atol=1e-5)
        np.testing.assert_allclose(arrays["root_m"][row], person["root_m"], atol=1e-5)
        assert person["joints17_m"][H36M17.index("pelvis")] == [0, 0, 0]
        assert person["image_size_px"] == list(SIZE) and person["image_size_source"] == "file"
    assert record["height_m"] == 1.8 and "1.8 m" in record["unit"]
    np.testing.assert_allclose(arrays["interpolation_joints17_m"], record["interpolation"]["joints17_m"], atol=1e-5)
    np.testing.assert_allclose(arrays["interpolation_joints17_m"][[0, -1]], arrays["joints17_m"], atol=1e-5)
    shifted = arrays["points17_px"][1] - arrays["points17_px"][0]
    np.testing.assert_allclose(shifted[H36M17.index("left_knee")], [10, 0], atol=1e-3)

    lines = list(csv.DictReader((out / "lift.csv").open()))
    assert len(lines) == 17 * (2 * (1 + 3) + 5)
    knee = next(line for line in lines if line["picture"] == "image1.jpg" and line["joint"] == "left_knee")
    place = [float(knee[f"{axis}_m"]) for axis in "xyz"]
    np.testing.assert_allclose(place, record["people"][1]["joints17_m"][H36M17.index("left_knee")], atol=1e-5)
    np.testing.assert_allclose([float(knee["x_px"]), float(knee["y_px"])], [320 + 10 + 28, 310], atol=1e-3)


def test_joints_project_where_they_were_seen(tmp_path) -> None:
    assert run(coco(tmp_path / "k.json"), "-o", tmp_path, "--height-m", "1.7") == 0
    for person in record_of(tmp_path)["people"]:
        joints = np.array(person["joints17_m"]) + person["root_m"]
        xy_px = joints[:, :2] / joints[:, 2:] * person["camera"]["focal_px"] + person["camera"]["center_px"]
        seen = np.array(person["joints17_seen"])
        wanted = [person["keypoints"]["xy_px"][COCO17.index(name)] for name in H36M17.joints if name in COCO17.joints]
        named = [index for index, name in enumerate(H36M17.joints) if name in COCO17.joints]
        np.testing.assert_allclose(xy_px[named], wanted, atol=0.05)
        assert seen.sum() == 12 + 2, "the pelvis and the thorax are seen where both of their neighbours are"


def test_without_a_height_lengths_are_units(tmp_path) -> None:
    assert run(npz(tmp_path / "k.npz"), "-o", tmp_path / "units") == 0
    assert run(tmp_path / "k.npz", "-o", tmp_path / "m", "--height-m", "2") == 0
    units, metres = (record_of(tmp_path / name) for name in ("units", "m"))
    assert "head-pelvis" in units["unit"] and units["height_m"] is None
    in_units = np.array(units["people"][0]["joints17_units"])
    in_metres = np.array(metres["people"][0]["joints17_m"])
    assert float(stature(torch.from_numpy(in_metres))) == pytest.approx(2, rel=1e-5)
    np.testing.assert_allclose(in_metres, 2 / float(stature(torch.from_numpy(in_units))) * in_units, atol=1e-5)
    assert np.abs(in_units).max() > 0.1


def test_every_way_in_gives_the_same_pose(tmp_path) -> None:
    """COCO annotations, a list of results, OpenPose, an archive, a folder of them, and a photograph with keypoints."""
    inputs = tmp_path / "in"
    inputs.mkdir()
    coco(inputs / "a.json", 1)
    triple = json.loads((inputs / "a.json").read_text())["annotations"][0]["keypoints"]
    confident = np.array(triple).reshape(17, 3) * [1, 1, 0.5]
    (inputs / "b.json").write_text(json.dumps([{"image_id": "x", "keypoints": confident.ravel().tolist(), "score": 1}]))
    rows = np.zeros((25, 3))
    shared = [name for name in COCO17.joints if name in OPENPOSE25.joints]
    rows[OPENPOSE25.indices(*shared)] = np.column_stack([standing()[COCO17.indices(*shared)], np.ones(len(shared))])
    (inputs / "c_keypoints.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": rows.ravel().tolist()}]}))
    npz(inputs / "d.npz", size_px=np.array(SIZE))
    assert run(inputs, "-o", tmp_path / "out", "--image-size", *SIZE) == 0
    Image.fromarray(np.full((SIZE[1], SIZE[0], 3), 200, np.uint8)).save(tmp_path / "photo.png")
    assert run(tmp_path / "photo.png", "--keypoints", inputs / "d.npz", "-o", tmp_path / "photo") == 0
    poses = [person["joints17_units"] for person in record_of(tmp_path / "out")["people"]]
    poses += [person["joints17_units"] for person in record_of(tmp_path / "photo")["people"]]
    assert len(poses) == 5
    coco_like = [np.array(pose) for index, pose in enumerate(poses) if index != 2]
    for pose in coco_like[1:]:
        np.testing.assert_allclose(pose, coco_like[0], atol=1e-4)
    sources = [person["image_size_source"] for person in record_of(tmp_path / "out")["people"]]
    assert sources == ["file", "given", "given", "file"]


def test_an_unknown_image_is_assumed_about_the_person_and_told(tmp_path, capsys) -> None:
    assert run(npz(tmp_path / "k.npz"), "-o", tmp_path) == 0
    assert "tell no size" in capsys.readouterr().err
    person = record_of(tmp_path)["people"][0]
    assert person["image_size_source"] == "assumed"
    height = 390 - 55
    assert person["image_size_px"] == [2 * height, 2 * height]
    assert person["camera"]["focal_px"] == pytest.approx(2 * height * 2**0.5)
    assert person["camera"]["center_px"] == pytest.approx([320, (390 + 55) / 2])
    assert run(tmp_path / "k.npz", "-o", tmp_path / "f", "--focal-px", "500") == 0
    assert record_of(tmp_path / "f")["people"][0]["camera"]["focal_px"] == 500
    assert run(coco(tmp_path / "k.json"), "-o", tmp_path / "sized", "--focal-px", "500") == 0
    camera = record_of(tmp_path / "sized")["people"][0]["camera"]
    assert camera == {"focal_px": 500, "center_px": [320, 240], "focal_source": "given"}


@pytest.mark.parametrize("size", [[0, 5], [np.nan, 5.0], [640, 1e300], [640], [1, 2, 3, 4, 5]])
def test_a_size_that_no_image_has_is_a_sentence(tmp_path, capsys, size) -> None:
    assert run(npz(tmp_path / "k.npz", size_px=np.array(size)), "-o", tmp_path / "out") == 1
    assert "`size_px` is" in capsys.readouterr().err
    content = json.loads(coco(tmp_path / "k.json").read_text())
    content["images"][0]["width"] = 10**400
    (tmp_path / "k.json").write_text(json.dumps(content))
    assert run(tmp_path / "k.json", "-o", tmp_path / "coco") == 1
    assert [person["picture"] for person in record_of(tmp_path / "coco")["people"]] == ["image1.jpg"]


def test_hypotheses_are_drawn_the_same_for_the_same_seed(tmp_path) -> None:
    file = npz(tmp_path / "k.npz", people=2)

    def drawn(count: int, seed: int) -> np.ndarray:
        assert run(file, "-o", tmp_path / "out", "--hypotheses", count, "--seed", seed) == 0
        return np.load(tmp_path / "out" / "lift.npz")["hypotheses17_units"]

    few, many, other = drawn(2, 0), drawn(5, 0), drawn(2, 1)
    np.testing.assert_allclose(few, many[:, :2], atol=1e-5)
    assert np.abs(few - other).max() > 1e-3
    assert np.abs(few[:, 0] - few[:, 1]).max() > 1e-3
    assert torch.equal(noise_of(3, 4, 0), noise_of(7, 4, 0)[:3])
    points = np.load(tmp_path / "out" / "lift.npz")["points17_px"][:, H36M17.index("left_hip")]
    np.testing.assert_allclose(points[1] - points[0], [30, 0], atol=1e-3)


def test_a_person_without_hips_is_left_out_and_told(tmp_path, capsys) -> None:
    confidence = np.ones((2, 17))
    confidence[0, COCO17.indices("left_hip", "right_hip")] = 0.1
    assert run(npz(tmp_path / "k.npz", 2, confidence=confidence), "-o", tmp_path) == 0
    record = record_of(tmp_path)
    assert [person["person"] for person in record["people"]] == [1]
    hip = np.load(tmp_path / "lift.npz")["points17_px"][0, H36M17.index("left_hip")]
    np.testing.assert_allclose(hip, [320 + 30 + 25, 230], atol=1e-3)
    assert "no hip is seen" in record["left_out"][0]
    assert "no hip is seen" in capsys.readouterr().err


def test_one_bad_item_never_loses_the_others(tmp_path, capsys) -> None:
    def spoil(rows: list[dict]) -> list[dict]:
        rows[0]["keypoints"] = rows[0]["keypoints"][:7]
        rows[1]["keypoints"][2::3] = [0] * 17
        return rows

    file = coco(tmp_path / "k.json", 3, spoil=spoil)
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / "bad.json").write_text("{")
    assert run(tmp_path / "none.json", tmp_path / "bad.json", tmp_path / "broken.jpg", file, "-o", tmp_path / "o") == 1
    record = record_of(tmp_path / "o")
    assert [person["picture"] for person in record["people"]] == ["image2.jpg"]
    assert len(record["failed"]) == 5
    error = " ".join(capsys.readouterr().err.split())
    for words in ("none.json", "is not JSON", "broken.jpg", "7 values", "nobody with a known keypoint"):
        assert words in error


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"what": 1}, "no keypoint file"),
        ({"annotations": [], "images": []}, "lists nobody"),
        ([], "lists nobody"),
        ({"people": []}, "lists nobody in k"),
        ({"people": [{"pose_keypoints_2d": [2e6, 50, 1.0] * 25}]}, "no image is so large"),
        ({"people": [{"pose_keypoints_2d": [None] * 75}]}, "nobody with a known keypoint"),
        ({"people": [{"pose_keypoints_2d": [0.5, 0.5, 1.0] * 25}]}, "shares of the image"),
        ({"people": [{"pose_keypoints_2d": [50, 50, 1.0] * 25}]}, "too little is seen"),
    ],
)
def test_what_is_no_person_is_a_sentence(tmp_path, capsys, content, words) -> None:
    (tmp_path / "k.json").write_text(json.dumps(content))
    assert run(tmp_path / "k.json", "-o", tmp_path / "out") == 1
    error = " ".join(capsys.readouterr().err.split())
    assert words in error and "Traceback" not in error
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--weights", "missing.safetensors"], "missing.safetensors"),
        (["--weights", "nobody"], "nobody"),
        (["--height-m", "175"], "--height-m"),
        (["--hypotheses", "-1"], "--hypotheses"),
        (["--interpolate", "1"], "--interpolate"),
        (["--interpolate", "4"], "name two people"),
        (["--seed", "-1"], "--seed"),
        (["--image-size", "0", "5"], "--image-size"),
        (["--image-size", "640", "1000001"], "--image-size"),
        (["--focal-px", "nan"], "--focal-px"),
        (["-o", "FILE/out"], "Cannot write"),
    ],
)
def test_wrong_choices_are_sentences(tmp_path, capsys, flags, words) -> None:
    (tmp_path / "file").write_text("in the way")
    flags = [flag.replace("FILE", str(tmp_path / "file")) for flag in flags]
    assert run(npz(tmp_path / "k.npz"), *([] if "-o" in flags else ["-o", tmp_path / "out"]), *flags) == 1
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


@pytest.mark.parametrize("flag", ["--keypoints", "--detector-weights"])
def test_what_is_for_photographs_alone_is_not_ignored(tmp_path, capsys, flag) -> None:
    file = coco(tmp_path / "k.json")
    assert run(file, "-o", tmp_path / "out", flag, file) == 1
    assert "k.json is for photographs, and no input is one" in capsys.readouterr().err


def test_a_lifter_that_is_none_is_a_sentence(tmp_path, capsys) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"no tensors")
    assert run(npz(tmp_path / "k.npz"), "-o", tmp_path, "--weights", tmp_path / "w.safetensors") == 1
    assert "safetensors" in capsys.readouterr().err


def test_plots_are_drawn_for_everybody(tmp_path) -> None:
    pytest.importorskip("plotly")
    file = coco(tmp_path / "k.json")
    assert run(file, "-o", tmp_path / "out", "--plot", "--hypotheses", "2", "--interpolate", "3") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"image0_person0.png", "image1_person0.png", "interpolation.png"}
    assert names == {"lift.json", "lift.npz", "lift.html", "interpolation.html"} | pictures
    page = (tmp_path / "out" / "lift.html").read_text()
    assert "image1.jpg, person 0" in page
    assert '<script src="http' not in page, "the page needs no network"


def test_without_plotly_there_are_still_pictures_and_numbers(tmp_path, capsys, monkeypatch) -> None:
    def missing() -> None:
        raise MeshrecError("The web page needs plotly")

    monkeypatch.setattr(skeleton_page, "_plotly", missing)
    assert run(npz(tmp_path / "k.npz"), "-o", tmp_path / "out", "--plot", "--json") == 1
    told = capsys.readouterr()
    assert "needs plotly" in told.err and "1 person in 1 of 1 inputs" in told.err
    assert json.loads(told.out) == record_of(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"lift.json", "lift.npz", "k_person0.png"}


def test_pictures_have_names_that_are_safe_and_their_own() -> None:
    names = picture_names(["a/b.jpg", "b.png", "../x y?.jpg", "", "785"])
    assert names[:2] == ["b", "b_2"] and len(set(names)) == 5
    assert not any(set(name) & set("/\\? ") for name in names)


def test_help_teaches(capsys) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    told = capsys.readouterr().out
    assert "meshrec lift photo.jpg -o out --plot" in told
    assert "--image-size" in told
