"""Laws of detection: what a picture shows moves with the picture, and what a file says arrives by name."""

import json
import math
import os
import warnings
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch

from meshrec.detect import FileDetector, KeypointRCNNDetector, MediaPipeDetector, build_detector
from meshrec.errors import MeshrecError
from meshrec.keypoint_files import OPENPOSE18_JOINTS
from meshrec.keypoints import SEEN_CONFIDENCE, agreement, box_of, enough_seen, only_inside
from meshrec.photo import Photo
from meshrec.skeletons import COCO17, MEDIAPIPE33, OPENPOSE25
from meshrec.types import Keypoints, Person

WIDTH, HEIGHT = 640, 480


@pytest.fixture
def photo() -> Photo:
    return Photo(np.zeros((HEIGHT, WIDTH, 3), np.uint8), Path("some/folder/COCO_val2014_000000000785.jpg"))


def some_keypoints(batch: tuple[int, ...] = (), seed: int = 0) -> Keypoints:
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(*batch, len(COCO17), 2, generator=generator, dtype=torch.float64) * torch.tensor([WIDTH, HEIGHT])
    confidence = 0.5 + 0.5 * torch.rand(*batch, len(COCO17), generator=generator, dtype=torch.float64)
    return Keypoints(xy, confidence, COCO17)


# -- keypoints


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)])
def test_a_box_moves_and_grows_with_its_keypoints(batch: tuple[int, ...]):
    keypoints = some_keypoints(batch)
    shift = torch.tensor([10.0, -20.0], dtype=torch.float64)
    moved = Keypoints(2 * keypoints.xy_px + shift, keypoints.confidence, COCO17)
    expected = 2 * box_of(keypoints, 0.1) + torch.cat([shift, shift])
    assert torch.allclose(box_of(moved, 0.1), expected)


def test_a_box_holds_the_seen_keypoints_alone():
    keypoints = Keypoints(
        torch.tensor([[10.0, 20.0], [110.0, 60.0], [1e6, -1e6]], dtype=torch.float64),
        torch.tensor([1.0, SEEN_CONFIDENCE, SEEN_CONFIDENCE - 0.01], dtype=torch.float64),
        COCO17,
    )
    assert box_of(keypoints, 0.0).tolist() == [10.0, 20.0, 110.0, 60.0]
    assert box_of(keypoints, 0.1).tolist() == [0.0, 10.0, 120.0, 70.0]


def test_agreement_is_one_with_itself_and_ignores_scale():
    keypoints, other = some_keypoints(), some_keypoints(seed=1)
    assert agreement(keypoints, keypoints) == pytest.approx(1.0)
    assert agreement(keypoints, other) == pytest.approx(agreement(other, keypoints))
    twice = [Keypoints(2 * k.xy_px, k.confidence, COCO17) for k in (keypoints, other)]
    assert agreement(twice[0], twice[1]) == pytest.approx(agreement(keypoints, other))
    mirrored = Keypoints(keypoints.xy_px[list(COCO17.mirror)], keypoints.confidence, COCO17)
    assert agreement(keypoints, mirrored) < 0.5
    assert agreement(keypoints, mirrored, ("nose",)) == pytest.approx(1.0)


def test_what_lies_outside_the_image_is_not_seen(photo: Photo):
    xy = torch.tensor([[0.0, 0.0], [WIDTH, HEIGHT], [-0.1, 5.0], [5.0, HEIGHT + 0.1], [HEIGHT + 1, 5.0], [5.0, WIDTH]])
    kept = only_inside(Keypoints(xy, torch.ones(6), COCO17), photo)
    assert kept.confidence.tolist() == [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("joints", "there"),
    [
        (("nose", "left_eye", "right_eye", "left_shoulder"), True),
        (("nose", "right_hip", "left_knee", "left_ankle"), True),
        (("nose", "left_eye", "right_eye", "left_ear", "right_ear"), False),
        (("left_shoulder", "right_shoulder", "left_hip"), False),
    ],
)
def test_somebody_is_there_if_enough_is_seen(joints: tuple[str, ...], there: bool):
    confidence = torch.full((len(COCO17),), SEEN_CONFIDENCE - 0.01, dtype=torch.float64)
    confidence[COCO17.indices(*joints)] = SEEN_CONFIDENCE
    assert enough_seen(Keypoints(some_keypoints().xy_px, confidence, COCO17)) == there


# -- files


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco_row(flag: float = 2, **more) -> dict:
    """Joint number k stands at (10 k + 5, 3 k + 7); the left wrist is not labelled."""
    rows = [[10 * k + 5, 3 * k + 7, flag] for k in range(len(COCO17))]
    rows[COCO17.index("left_wrist")] = [0, 0, 0]
    return {"image_id": 785, "keypoints": [value for row in rows for value in row], **more}


def test_coco_annotations(tmp_path: Path, photo: Photo):
    images = [{"id": 4, "file_name": "other.jpg"}, {"id": 785, "file_name": photo.path.name}]
    annotations = [coco_row(bbox=[10, 20, 30, 40]), coco_row(image_id=4), {"image_id": 785, "keypoints": [0] * 51}]
    detector = FileDetector(write(tmp_path / "a.json", {"images": images, "annotations": annotations}))
    (person,) = detector(photo)
    ankle = COCO17.index("right_ankle")
    assert person.keypoints.skeleton is COCO17
    assert person.keypoints.xy_px[ankle].tolist() == [10 * ankle + 5.5, 3 * ankle + 7.5]  # the middle of that pixel
    assert person.keypoints.confidence[ankle] == 1
    assert person.keypoints.confidence[COCO17.index("left_wrist")] == 0
    assert person.box_xyxy_px.tolist() == [10, 20, 40, 60]
    hidden = coco_row()
    hidden["keypoints"][2] = 1
    (person,) = FileDetector(write(tmp_path / "b.json", {"images": images, "annotations": [hidden]}))(photo)
    assert person.keypoints.confidence[COCO17.index("nose")] == 0.5


def test_coco_results_are_sorted_by_score(tmp_path: Path, photo: Photo):
    rows = [coco_row(0.4, score=0.2), coco_row(0.8, score=0.9), coco_row(image_id=3)]
    people = FileDetector(write(tmp_path / "a.json", rows))(photo)
    assert [person.score for person in people] == [0.9, 0.2]
    assert people[0].keypoints.confidence.max() == pytest.approx(0.8)
    by_name = [{**row, "image_id": photo.path.name} for row in rows]
    assert len(FileDetector(write(tmp_path / "b.json", by_name))(photo)) == 3


def test_who_is_unknown_is_told_who_is_known(tmp_path: Path, photo: Photo):
    results = write(tmp_path / "a.json", [coco_row(image_id=k) for k in (3, 4, 5, 6)])
    with pytest.raises(MeshrecError, match=r"image_id .*785\.jpg or .* or 785 \(there are 3, 4, 5, \.\.\.\)"):
        FileDetector(results)(photo)
    with pytest.raises(MeshrecError, match=r"image_id holiday\.jpg or holiday \("):
        FileDetector(results)(Photo(photo.pixels, Path("holiday.jpg")))
    images = [{"id": k, "file_name": f"{k}.jpg"} for k in (785, 4)]
    annotations = write(tmp_path / "b.json", {"images": images, "annotations": [coco_row(image_id=4)]})
    with pytest.raises(MeshrecError, match=r"785\.jpg \(there are 4\.jpg\)"):
        FileDetector(annotations)(Photo(photo.pixels, Path("785.jpg")))


@pytest.mark.parametrize("people", [[], [{"pose_keypoints_2d": [0.0] * 75}]])
def test_nobody_is_advice(tmp_path: Path, photo: Photo, people: list):
    with pytest.raises(MeshrecError, match=r"knows nobody in COCO_val.*Leave --keypoints out"):
        FileDetector(write(tmp_path / "a.json", {"people": people}))(photo)


@pytest.mark.parametrize("bbox", [None, [10, 20, 30, 40]])
def test_a_face_alone_is_nobody_even_in_a_box(tmp_path: Path, photo: Photo, bbox: list | None):
    face = coco_row(0.9, bbox=bbox)
    for joint in COCO17.joints:
        if "eye" not in joint and "ear" not in joint:
            face["keypoints"][3 * COCO17.index(joint) + 2] = 0
    with pytest.raises(MeshrecError, match="a shoulder or hip among them"):
        FileDetector(write(tmp_path / "a.json", [face]))(photo)
    assert len(FileDetector(write(tmp_path / "b.json", [face, coco_row()]))(photo)) == 1


def test_a_stray_person_does_not_hide_the_others(tmp_path: Path, photo: Photo):
    stray = {"pose_keypoints_2d": [9000.0, 9000.0, 0.9] * 25}
    shares = {"pose_keypoints_2d": [0.5, 0.4, 0.9] * 25}
    people = FileDetector(write(tmp_path / "a.json", {"people": [stray, shares, openpose_person(25)]}))(photo)
    assert len(people) == 1
    with pytest.raises(MeshrecError, match="wholly outside"):
        FileDetector(write(tmp_path / "b.json", {"people": [stray]}))(photo)


@pytest.mark.parametrize(
    "bbox", [[1, 2, math.nan, 4], [1, 2, None, 4], [50, 60, -5, -4], [50, 60, 0, 9], [1, 2, 1e300, 4], [900, 1, 5, 5]]
)
def test_a_box_that_is_none_is_taken_from_the_keypoints(tmp_path: Path, photo: Photo, bbox: list):
    (person,) = FileDetector(write(tmp_path / "a.json", [coco_row(bbox=bbox)]))(photo)
    assert torch.equal(person.box_xyxy_px, box_of(person.keypoints))


@pytest.mark.parametrize("huge", [math.nan, math.inf, 1e300, None])
def test_what_is_not_finite_in_single_precision_is_missing(tmp_path: Path, photo: Photo, huge: float | None):
    row = coco_row()
    row["keypoints"][0] = huge
    (person,) = FileDetector(write(tmp_path / "a.json", [row]))(photo)
    assert person.keypoints.confidence.tolist().count(0.0) == 2  # the nose, and the wrist that nobody labelled
    assert person.keypoints.confidence[COCO17.index("nose")] == 0 and person.keypoints.xy_px.isfinite().all()


def test_without_a_score_it_is_the_mean_confidence(tmp_path: Path, photo: Photo):
    for row in (coco_row(0.4), coco_row(0.4, score=None)):
        (person,) = FileDetector(write(tmp_path / "a.json", [row]))(photo)
        assert person.score == pytest.approx(0.4)  # the wrist that is not labelled does not count


def openpose_person(joints: int) -> dict:
    return {"pose_keypoints_2d": [v for k in range(joints) for v in (20 * k + 1, 10 * k + 2, 0.9)]}


def test_openpose_files_of_a_folder(tmp_path: Path, photo: Photo):
    write(tmp_path / f"{photo.path.stem}_keypoints.json", {"version": 1.3, "people": [openpose_person(25)]})
    detector = FileDetector(tmp_path, photos=[photo.path, Path("other.jpg")])
    (person,) = detector(photo)
    knee = OPENPOSE25.index("left_knee")
    assert person.keypoints.skeleton is OPENPOSE25
    assert person.keypoints.xy_px[knee].tolist() == [20 * knee + 1, 10 * knee + 2]
    assert person.keypoints.confidence[knee] == pytest.approx(0.9)
    assert torch.equal(person.box_xyxy_px, box_of(person.keypoints, 0.1))
    with pytest.raises(MeshrecError, match=r"nothing_keypoints\.json.*it has COCO_val"):
        detector(Photo(photo.pixels, Path("nothing.png")))


def test_each_file_of_a_folder_stands_for_itself(tmp_path: Path, photo: Photo):
    """A broken file first in the alphabet hurts its own photo alone, and suffixes may be written in capitals."""
    write(tmp_path / "aaa.json", {"no": "keypoints"})
    np.savez(tmp_path / "b.npz", **arrays())
    (tmp_path / "b.npz").rename(tmp_path / "b.NPZ")
    write(tmp_path / "c.JSON", {"people": [openpose_person(18)]})
    detector = FileDetector(tmp_path)
    assert detector(Photo(photo.pixels, Path("b.jpg")))[0].keypoints.skeleton is COCO17
    assert detector(Photo(photo.pixels, Path("c.jpg")))[0].keypoints.skeleton is OPENPOSE25
    with pytest.raises(MeshrecError, match=r"aaa\.json is no keypoint file"):
        detector(Photo(photo.pixels, Path("aaa.jpg")))


def test_a_file_of_one_photo_is_refused_for_two(tmp_path: Path, photo: Photo):
    one, two = photo.path, Path("other.jpg")
    np.savez(tmp_path / "a.npz", **arrays())
    for path in (tmp_path / "a.npz", write(tmp_path / "b.json", {"people": [openpose_person(25)]})):
        assert FileDetector(path, [one])(photo)
        with pytest.raises(MeshrecError, match=r"one photo, and 2 are named: .*785\.jpg, other\.jpg"):
            build_detector(keypoints=path, photos=[one, two])
    assert FileDetector(write(tmp_path / "c.json", [coco_row()]), [one, two])(photo)


def test_openpose18_is_read_by_name(tmp_path: Path, photo: Photo):
    (person,) = FileDetector(write(tmp_path / "a.json", {"people": [openpose_person(18)]}))(photo)
    keypoints = person.keypoints
    for k, joint in enumerate(OPENPOSE18_JOINTS):
        assert keypoints.xy_px[OPENPOSE25.index(joint)].tolist() == [20 * k + 1, 10 * k + 2]
    missing = [joint for joint in OPENPOSE25.joints if joint not in OPENPOSE18_JOINTS]
    assert "pelvis" in missing and (keypoints.confidence[OPENPOSE25.indices(*missing)] == 0).all()


def arrays(**changed) -> dict:
    people = [some_keypoints(seed=seed) for seed in range(2)]
    return {
        "xy_px": np.stack([k.xy_px.numpy() for k in people]),
        "confidence": np.stack([k.confidence.numpy() for k in people]),
        "skeleton": "coco17",
        "landmarks_m": np.stack([np.eye(17, 3)] * 2),
    } | changed


def test_npz_round_trip(tmp_path: Path, photo: Photo):
    content = arrays(boxes_xyxy_px=np.array([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]))
    np.savez(tmp_path / "a.npz", **content)
    detector = FileDetector(tmp_path / "a.npz")
    people = sorted(detector(photo), key=lambda person: float(person.box_xyxy_px[0]))
    for person, xy, confidence, box in zip(
        people, content["xy_px"], content["confidence"], content["boxes_xyxy_px"], strict=True
    ):
        assert np.allclose(person.keypoints.xy_px, xy) and np.allclose(person.keypoints.confidence, confidence)
        assert np.allclose(person.box_xyxy_px, box)
        assert person.keypoints.landmarks_m is not None and np.allclose(person.keypoints.landmarks_m, np.eye(17, 3))


@pytest.mark.parametrize("field", ["xy_px", "confidence"])
def test_nan_is_missing(tmp_path: Path, photo: Photo, field: str):
    content = arrays()
    content[field][0, 3] = np.nan
    content["landmarks_m"][0, 3] = np.nan  # nobody needs it
    np.savez(tmp_path / "a.npz", **content)
    people = FileDetector(tmp_path / "a.npz")(photo)
    assert sum(bool(person.keypoints.confidence[3] == 0) for person in people) == 1
    for person in people:
        assert person.keypoints.landmarks_m is not None
        assert person.keypoints.xy_px.isfinite().all() and person.keypoints.landmarks_m.isfinite().all()
        assert math.isfinite(person.score) and person.box_xyxy_px.isfinite().all()


@pytest.mark.parametrize("missing", [(0, 3), (0,), ()])
def test_keypoints_outlive_their_landmarks(tmp_path: Path, photo: Photo, missing: tuple[int, ...]):
    """Of one joint, one person or all: landmarks that are missing cost the landmarks, not the keypoints."""
    content = arrays()
    content["landmarks_m"][missing] = np.nan
    np.savez(tmp_path / "a.npz", **content)
    np.savez(tmp_path / "b.npz", **{name: array for name, array in content.items() if name != "landmarks_m"})
    people, without = (FileDetector(tmp_path / name)(photo) for name in ("a.npz", "b.npz"))
    for person, bare in zip(people, without, strict=True):
        assert person.keypoints.landmarks_m is None
        assert torch.equal(person.keypoints.confidence, bare.keypoints.confidence)
        assert torch.equal(person.keypoints.xy_px, bare.keypoints.xy_px)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"foo": 1}, "foo"),
        ("text", "text"),
        ({"annotations": [], "images": 3}, "images"),
        ([{"keypoints": []}], "image_id"),
        ([{"image_id": 785}], r"\[0\]\.keypoints is None"),
        ([{"image_id": 785, "keypoints": [1.0] * 50}], "50 values.* 51 numbers"),
        ([{"image_id": 785, "keypoints": ["1"] * 51}], r"\[0\]\.keypoints holds '1'"),
        ([{"image_id": 785, "keypoints": [True] * 51}], r"\[0\]\.keypoints holds True"),
        ([{"image_id": 785, "keypoints": [10**400] * 51}], r"\[0\]\.keypoints holds 1000"),
        ([coco_row(math.inf)], "0 to inf"),
        ([coco_row(score="high")], r"\[0\]\.score holds 'high'"),
        ([coco_row(score=[1])], r"\[0\]\.score holds \[1\]"),
        ([coco_row(score=True)], r"\[0\]\.score holds True"),
        ([coco_row(score=math.nan)], r"\[0\]\.score is nan"),
        ([coco_row(score=10**400)], r"\[0\]\.score holds 1000"),
        ([coco_row(image_id=[1])], r"\[0\]\.image_id is \[1\]"),
        ([coco_row(image_id={})], r"\[0\]\.image_id is {}"),
        ({"images": [{"id": [1]}], "annotations": []}, r"images\[0\]\.id is \[1\]"),
        ({"images": [{"id": 1, "file_name": 3}], "annotations": []}, r"images\[0\]\.file_name is 3"),
        ([coco_row(7.5)], "0 to 7.5"),
        ([coco_row(bbox=[1, 2])], r"bbox is 2 values"),
        ([coco_row(bbox=[1, 2, "3", 4])], r"bbox holds '3'"),
        ({"people": [{"face": []}]}, r"people\[0\]\.pose_keypoints_2d"),
        ({"people": [{"pose_keypoints_2d": [5.0, 5.0, 0.5] * 24}]}, "72 values.* 75 or 54"),
        (
            {"people": [{"pose_keypoints_2d": [v / 50 for k in range(25) for v in (k, 2 * k, 25)]}]},
            "shares of the image",
        ),
        ({"people": [{"pose_keypoints_2d": [900.0, 900.0, 0.5] * 25}]}, "wholly outside"),
        ({"images": [], "annotations": [coco_row()]}, "file_name"),
    ],
)
def test_a_wrong_file_is_told_its_field(tmp_path: Path, photo: Photo, content: object, words: str):
    with pytest.raises(MeshrecError, match=words):
        FileDetector(write(tmp_path / "a.json", content))(photo)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"skeleton": "octopus"}, "octopus"),
        ({"xy_px": np.zeros((3, 17, 2))}, "xy_px"),
        ({"confidence": np.zeros((2, 16))}, "confidence"),
        ({"confidence": np.full((2, 17), 3.0)}, "0 to 1"),
        ({"landmarks_m": np.zeros((2, 17, 2))}, "landmarks_m"),
        ({"boxes_xyxy_px": np.zeros((2, 5))}, "boxes_xyxy_px"),
        ({"xy_px": np.array(["a"])}, "xy_px"),
        ({"xy_px": np.array([{}])}, "xy_px"),
        ({"xy_px": np.zeros((2, 17, 2), complex)}, "xy_px"),
        ({"confidence": np.ones((2, 17), bool)}, "confidence"),
    ],
)
def test_a_wrong_archive_is_told_its_field(tmp_path: Path, photo: Photo, changed: dict, words: str):
    np.savez(tmp_path / "a.npz", **arrays(**changed))
    with pytest.raises(MeshrecError, match=words):
        FileDetector(tmp_path / "a.npz")(photo)


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "a.npz").write_text("{")
    np.savez(tmp_path / "cut.npz", **arrays())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-300])
    np.save(tmp_path / "lone.npy", np.zeros(3))
    (tmp_path / "lone.npy").rename(tmp_path / "lone.npz")
    (tmp_path / "empty").mkdir()
    for name, words in [
        ("a.json", "not JSON"),
        ("a.npz", r"a\.npz is no \.npz archive"),
        ("cut.npz", r"cut\.npz is no \.npz archive"),
        ("lone.npz", r"lone\.npz is no \.npz archive"),
        ("empty", "no keypoint files"),
        ("b", "no keypoint"),
        ("b" * 5000, "File name too long"),
    ]:
        with pytest.raises(MeshrecError, match=words):
            FileDetector(tmp_path / name)


def test_a_locked_folder_of_keypoints_is_advice(tmp_path: Path):
    if os.geteuid() == 0:
        pytest.skip("root may look everywhere")
    (tmp_path / "locked").mkdir(mode=0)
    for path in (tmp_path / "locked", tmp_path / "locked" / "a.json"):
        with pytest.raises(MeshrecError, match="Permission denied"):
            FileDetector(path)


def test_an_openpose_file_of_another_photo_is_refused(tmp_path: Path, photo: Photo):
    with pytest.raises(MeshrecError, match="of other, not of"):
        FileDetector(write(tmp_path / "other_keypoints.json", {"people": [openpose_person(25)]}))(photo)


# -- Keypoint R-CNN


@pytest.fixture(scope="module")
def rcnn_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, in half precision to keep the file small."""
    from torchvision.models.detection import keypointrcnn_resnet50_fpn

    torch.manual_seed(0)
    state = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    path = tmp_path_factory.mktemp("weights") / "a.pth"
    torch.save({"model": {name: tensor.half() for name, tensor in state.items()}, "epoch": 3}, path)
    return path


def test_rcnn_from_a_file_of_weights(tmp_path: Path, rcnn_weights: Path):
    photo = Photo(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8), Path("a.png"))
    detector = KeypointRCNNDetector(rcnn_weights, score=0.0)
    vars(detector._model.transform).update(min_size=(64,), max_size=64)  # a small picture, few proposals: fast
    vars(detector._model.rpn).update(_post_nms_top_n={"testing": 20})
    vars(detector._model.roi_heads).update(detections_per_img=4)
    people = detector(photo)
    assert people
    for person in people:
        assert person.keypoints.xy_px.shape == (17, 2) and person.keypoints.confidence.shape == (17,)
        assert (person.keypoints.confidence >= 0).all() and (person.keypoints.confidence <= 1).all()
    scores = [person.score for person in people]
    assert scores == sorted(scores, reverse=True)

    state = torch.load(rcnn_weights, weights_only=True)["model"]
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    again = KeypointRCNNDetector(tmp_path / "a.safetensors")._model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in detector._model.state_dict().items())


def test_rcnn_refuses_other_weights(tmp_path: Path):
    for content, words in [
        ({"backbone.body.conv1.weight": torch.zeros(64, 3, 3, 3)}, r"should be \(64, 3, 7, 7\) and is \(64, 3, 3, 3\)"),
        ({"extra": torch.zeros(2)}, r"tensor backbone\.body\.conv1\.weight should be .* and is absent"),
    ]:
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(MeshrecError, match=words):
            KeypointRCNNDetector(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"no weights")
    torch.save([1, 2], tmp_path / "c.pth")
    torch.save(Path("arbitrary object"), tmp_path / "d.pth")
    (tmp_path / "e.safetensors").write_bytes(b"no weights")
    for bad in ("b.pth", "c.pth", "d.pth", "e.safetensors", "missing.pth"):
        with pytest.raises(MeshrecError, match=bad):
            KeypointRCNNDetector(tmp_path / bad)


def test_rcnn_without_a_network_gives_advice(monkeypatch: pytest.MonkeyPatch):
    from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights as Published

    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(Published, "get_state_dict", offline)
    with pytest.raises(MeshrecError, match="--weights PATH"):
        build_detector("rcnn")


def test_build_detector(tmp_path: Path, rcnn_weights: Path):
    assert build_detector("rcnn", rcnn_weights).name == "rcnn"
    assert build_detector(keypoints=write(tmp_path / "a.json", [])).name == "file"
    with pytest.raises(MeshrecError, match="its own weights"):
        build_detector("mediapipe", rcnn_weights)


# -- MediaPipe


@pytest.fixture(scope="module")
def detector() -> MediaPipeDetector:
    pytest.importorskip("mediapipe")
    return MediaPipeDetector(threads=2)


@pytest.fixture(scope="module")
def astronaut() -> Photo:
    data = pytest.importorskip("skimage.data")
    return Photo(data.astronaut(), Path("astronaut.png"))


@pytest.fixture(scope="module")
def person(detector: MediaPipeDetector, astronaut: Photo) -> Person:
    (person,) = detector(astronaut)
    return person


def x_of(keypoints: Keypoints, joint: str) -> float:
    return float(keypoints.xy_px[MEDIAPIPE33.index(joint), 0])


def test_the_astronaut_is_seen_down_to_her_waist(person: Person):
    keypoints = person.keypoints
    seen = {j for j, c in zip(MEDIAPIPE33.joints, keypoints.confidence.tolist(), strict=True) if c >= SEEN_CONFIDENCE}
    assert {"nose", "left_eye", "right_eye", "left_shoulder", "right_shoulder"} <= seen
    assert not seen & {j for j in MEDIAPIPE33.joints if "hip" in j or "knee" in j or "ankle" in j or "foot" in j}
    assert keypoints.xy_px.isfinite().all() and person.score > 0.5
    face = keypoints.xy_px[MEDIAPIPE33.indices("nose", "right_eye", "left_eye")]
    marked_by_hand = torch.tensor([[222.0, 128.0], [203.0, 101.0], [246.0, 103.0]])
    # MediaPipe's own solution misses her left eye by 10 px; the eyes are 43 px apart, so swapped sides still fail.
    assert (face - marked_by_hand).norm(dim=-1).max() < 12
    assert x_of(keypoints, "left_shoulder") > x_of(keypoints, "right_shoulder")  # she faces us


def test_landmarks_are_metres_in_camera_axes(person: Person):
    landmarks = person.keypoints.landmarks_m
    assert landmarks is not None
    at = {joint: landmarks[MEDIAPIPE33.index(joint)] for joint in MEDIAPIPE33.joints}
    assert 0.2 < (at["left_shoulder"] - at["right_shoulder"]).norm() < 0.5
    assert at["left_shoulder"][0] > at["right_shoulder"][0]  # x right
    assert at["nose"][1] < at["left_shoulder"][1] < at["left_hip"][1]  # y down
    assert at["nose"][2] < at["left_ear"][2] and at["nose"][2] < at["right_ear"][2]  # z away


def test_a_mirrored_picture_gives_the_mirrored_person(detector: MediaPipeDetector, astronaut: Photo, person: Person):
    (mirrored,) = detector(Photo(np.ascontiguousarray(astronaut.pixels[:, ::-1]), astronaut.path))
    xy = mirrored.keypoints.xy_px[list(MEDIAPIPE33.mirror)]
    back = torch.stack([astronaut.width_px - xy[:, 0], xy[:, 1]], dim=-1)
    seen = person.keypoints.confidence > 0.5
    assert (back - person.keypoints.xy_px)[seen].norm(dim=-1).mean() < 15


def test_two_small_people_in_a_large_picture(detector: MediaPipeDetector, astronaut: Photo, person: Person):
    """She is found wherever she stands, at the place of the whole picture scaled and shifted."""
    import cv2

    small = cv2.resize(astronaut.pixels, (256, 256), interpolation=cv2.INTER_AREA)
    corners = [(60, 330), (700, 90)]
    pixels = np.full((620, 1000, 3), 200, np.uint8)
    for x, y in corners:
        pixels[y : y + 256, x : x + 256] = small
    people = sorted(detector(Photo(pixels, astronaut.path)), key=lambda p: float(p.box_xyxy_px[0]))
    assert len(people) == 2
    head = MEDIAPIPE33.indices("nose", "left_eye", "right_eye")
    for found, corner in zip(people, corners, strict=True):
        expected = person.keypoints.xy_px[head] / 2 + torch.tensor(corner)
        assert (found.keypoints.xy_px[head] - expected).norm(dim=-1).max() < 8


def test_the_number_of_threads_changes_nothing(astronaut: Photo, person: Person):
    pytest.importorskip("mediapipe")
    (alone,) = MediaPipeDetector(threads=1)(astronaut)
    assert torch.equal(alone.keypoints.xy_px, person.keypoints.xy_px)


def test_in_box(detector: MediaPipeDetector, astronaut: Photo, person: Person):
    found = detector.in_box(astronaut, person.box_xyxy_px)
    assert found is not None
    head = MEDIAPIPE33.indices("nose", "left_eye", "right_eye")
    assert (found.keypoints.xy_px[head] - person.keypoints.xy_px[head]).norm(dim=-1).max() < 15
    assert detector.in_box(astronaut, torch.tensor([0.0, 0.0, 60.0, 60.0])) is None
    assert detector.in_box(astronaut, torch.tensor([900.0, 900.0, 1000.0, 1000.0])) is None


def test_the_cameraman_is_seen_and_an_empty_picture_is_empty(detector: MediaPipeDetector):
    grey = pytest.importorskip("skimage.data").camera()
    assert len(detector(Photo(np.repeat(grey[..., None], 3, axis=-1), Path("camera.png")))) == 1
    for shape in ((32, 32, 3), (33, 700, 3), (700, 33, 3)):
        assert detector(Photo(np.full(shape, 90, np.uint8), Path("grey.png"))) == []


def test_mediapipe_is_silent_and_leaves_the_warnings_alone(capfd: pytest.CaptureFixture[str], astronaut: Photo):
    pytest.importorskip("mediapipe")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        detector = MediaPipeDetector(threads=2)
        (found,) = detector(astronaut)
        detector.in_box(astronaut, found.box_xyxy_px)
        assert warnings.filters == before
    assert [str(warning.message) for warning in warned] == []
    captured = capfd.readouterr()
    assert captured.err == "" and captured.out == ""


def test_without_mediapipe_there_is_advice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "mediapipe.python.solution_base", None)
    with pytest.raises(MeshrecError, match=r"meshrec\[detect\]"):
        build_detector()
