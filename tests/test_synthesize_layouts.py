"""Synthetic people in the layouts of large data sets: what the files say of people is what their images show."""

import json
import pickle
import pickletools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import roma
import scipy.io
import torch

from meshrec.body import BodyModel, load_body_model
from meshrec.camera import project
from meshrec.data.motion import Motion
from meshrec.data.poses import write_collection
from meshrec.data.synthetic.layout_3dpw import fields_of, takes
from meshrec.data.synthetic.layout_mpii import ROWS, photographs, write_mpii
from meshrec.data.synthetic.old_pickle import dumps
from meshrec.data.synthetic.photograph import photographed
from meshrec.data.synthetic.scene import Synthesizer
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.errors import MeshrecError
from meshrec.keypoint_files import OPENPOSE18_JOINTS
from meshrec.rasterize import rasterize
from meshrec.skeletons import COCO17, MPII16
from meshrec.smpl_pickle import unpickle_arrays
from meshrec.synthetic_folders import Wanted, make_layout
from meshrec.types import BodyParams, Camera

SIZE = (240, 180)
FRAMES = 6
SCENE = SyntheticConfig(photo_px=SIZE, portrait=0.0)
SHARP = replace(SCENE, softness_px=(0.0, 0.0), grain=(0.0, 0.0), contrast=(1.0, 1.0), cloth_m=0.0, others=0.0)


def wanted(layout: str, count: int, **changes: Any) -> Wanted:
    known = {"layout": layout, "people": 2, "scene": SCENE, "frames": FRAMES, "genders": ("m", "f")}
    return Wanted(count, **(known | changes))


@pytest.fixture(scope="module")
def threedpw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "3dpw"
    make_layout(folder, wanted("3dpw", 3 * FRAMES - 1))
    return folder


@pytest.fixture(scope="module")
def mpii(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "mpii"
    make_layout(folder, wanted("mpii", 16))
    return folder


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model("neutral", torch.float64)


@dataclass(frozen=True)
class Take:
    """A sequence file, as anyone may read it."""

    fields: dict[str, Any]
    images: Path

    @property
    def camera(self) -> Camera:
        K = torch.from_numpy(self.fields["cam_intrinsics"])
        assert K[0, 0] == K[1, 1] and K[0, 1] == 0
        return Camera(K[0, 0], K[:2, 2], *SIZE, "true")

    def image(self, frame: int) -> np.ndarray:
        return cv2.imread(str(self.images / f"image_{frame:05d}.jpg"))

    def params(self, frame: int) -> list[BodyParams]:
        """SMPL in the world."""
        people = []
        for poses, betas, trans in zip(*(self.fields[name] for name in ("poses", "betas", "trans")), strict=True):
            rotations = roma.rotvec_to_rotmat(torch.from_numpy(poses[frame]).view(24, 3))
            body = BodyParams.from_rotations(rotations, torch.from_numpy(betas), torch.from_numpy(trans[frame]))
            people.append(body)
        return people

    def vertices(self, model: BodyModel, frame: int) -> list[torch.Tensor]:
        """The surface of the bodies in the world, moved into the camera's frame."""
        T = torch.from_numpy(self.fields["cam_poses"][frame])
        return [model(params).vertices_m @ T[:3, :3].T + T[:3, 3] for params in self.params(frame)]


@pytest.fixture(scope="module")
def sequences(threedpw) -> list[Take]:
    files = sorted((threedpw / "sequenceFiles").rglob("*.pkl"), key=lambda path: path.stem)
    assert [file.parent.name for file in files] == ["train", "test", "validation"]
    fields = [unpickle_arrays(file, file.read_bytes()) for file in files]
    return [Take(one, threedpw / "imageFiles" / one["sequence"]) for one in fields]


def test_sequences_have_the_fields_of_3dpw(sequences):
    for number, take in enumerate(sequences):
        fields, people, frames = take.fields, 1 + number % 2, FRAMES - (number == 2)
        shapes = {
            "poses": (frames, 72),
            "trans": (frames, 3),
            "poses_60Hz": (2 * frames, 72),
            "trans_60Hz": (2 * frames, 3),
            "betas": (10,),
            "betas_clothed": (10,),
            "poses2d": (frames, 3, 18),
            "jointPositions": (frames, 72),
            "campose_valid": (frames,),
        }
        for name, shape in shapes.items():
            assert [array.shape for array in fields[name]] == [shape] * people, name
        assert (fields["cam_poses"].shape, fields["cam_intrinsics"].shape) == ((frames, 4, 4), (3, 3))
        assert fields["genders"] == ["m", "f"][:people] and fields["sequence"] == take.images.name
        assert np.array_equal(fields["poses_60Hz"][0][fields["img_frame_ids"]], fields["poses"][0])
        assert len(list(take.images.glob("image_*.jpg"))) == frames and take.image(0).shape == (SIZE[1], SIZE[0], 3)
    lost = np.concatenate([take.fields["campose_valid"][0] for take in sequences])
    assert 0 < (~lost).sum() < lost.size / 2


def test_joint_positions_are_those_of_the_body_in_the_world(sequences, model):
    fields = sequences[1].fields
    rotations = roma.rotvec_to_rotmat(torch.from_numpy(np.stack(fields["poses"])).view(2, FRAMES, 24, 3))
    betas = torch.from_numpy(np.stack(fields["betas"]))[:, None].expand(2, FRAMES, 10)
    params = BodyParams.from_rotations(rotations, betas, torch.from_numpy(np.stack(fields["trans"])))
    told = torch.from_numpy(np.stack(fields["jointPositions"])).view(2, FRAMES, 24, 3)
    assert torch.allclose(model.joints24(params), told, atol=1e-5)


def test_the_world_s_y_is_up_and_its_ground_is_under_the_first_person(sequences, model):
    for take in sequences:
        up = torch.from_numpy(np.linalg.inv(take.fields["cam_poses"][0]))
        body = take.vertices(model, 0)[0] @ up[:3, :3].T + up[:3, 3]
        assert abs(float(body[:, 1].min())) < 1e-3 and abs(float(body[:, [0, 2]].mean())) < 0.3
        people = take.params(0)
        assert torch.allclose(model(people[0]).vertices_m, body, atol=1e-5)


def test_people_and_camera_move(sequences):
    for take in sequences:
        poses, cameras = take.fields["poses"][0], take.fields["cam_poses"][take.fields["campose_valid"][0]]
        steps = np.abs(np.diff(poses, axis=0)).max(1)
        assert (steps > 1e-4).all() and (steps < 0.3).all() and np.abs(np.diff(cameras, axis=0)).max() < 0.05
        assert np.abs(cameras[-1] - cameras[0]).max() > 1e-4
        for trans_m in take.fields["trans_60Hz"]:
            assert np.ptp(trans_m[:, 1]) < 1e-9 < np.ptp(trans_m[:, [0, 2]], axis=0).min(), "nobody leaves the ground"


def silhouette(take: Take, model: BodyModel, frame: int) -> np.ndarray:
    faces = [rasterize(body, model.faces, take.camera).face >= 0 for body in take.vertices(model, frame)]
    return torch.stack(faces).any(0).numpy()


@dataclass(frozen=True)
class Plain:
    """A ground of one tone."""

    tone: int

    def seen(self, square, size_px):
        return np.full((size_px, size_px, 3), self.tone, np.uint8)


def test_the_outline_is_where_the_truth_puts_it_to_a_fraction_of_a_pixel(model, tmp_path):
    """How much of each pixel is covered, by the difference of the pictures before black and before white."""
    maker = Synthesizer(replace(SHARP, occlude=0.0, close=0.0, size=(0.6, 0.7)), load_body_model())
    take, random = next(iter(takes([maker], 5, 4, 4)))
    fields = fields_of(take, maker.model, [np.zeros((4, 3, 18))], ("n",), random)
    told, frame = Take(fields, tmp_path), int(np.flatnonzero(fields["campose_valid"][0])[-1])
    scene = take.scene_at(frame, maker.model)
    sensor = replace(scene.sensor, black=torch.tensor(0.0), gain=torch.ones(3))
    scene = replace(scene, sensor=sensor)
    grounds = (replace(scene, ground=Plain(tone)) for tone in (0, 255))
    black, white = (photographed([one], maker)[0].pixels[..., 0].astype(float) for one in grounds)
    coverage = 1 - (white - black) / 255
    truth = (rasterize(told.vertices(model, frame)[0], model.faces, told.camera).face >= 0).numpy()
    assert truth.sum() > 1000 and coverage.sum() == pytest.approx(truth.sum(), rel=0.02)
    middles = [_middle(weight) for weight in (coverage, truth.astype(float))]
    assert np.abs(middles[0] - middles[1]).max() < 0.08
    assert ((coverage > 0.5) ^ truth).sum() < 0.04 * truth.sum()


def _middle(weight: np.ndarray) -> np.ndarray:
    return np.array([(weight * axis).sum() for axis in np.indices(weight.shape)]) / weight.sum()


def test_detections_are_projected_joints(sequences, model):
    for take in sequences:
        rows = [OPENPOSE18_JOINTS.index(joint) for joint in COCO17.joints]
        for points, body in zip(take.fields["poses2d"], take.params(0), strict=True):
            T = torch.from_numpy(take.fields["cam_poses"][0])
            joints_m = model.regressed(body, COCO17) @ T[:3, :3].T + T[:3, 3]
            told, expected = points[0][:, rows], project(joints_m, take.camera).numpy()
            seen = told[2] > 0
            assert np.abs(told[:2, seen].T - expected[seen]).max(initial=0) < 0.01 and not told[:, ~seen].any()
        assert (take.fields["poses2d"][0][0, 2] > 0).sum() >= 6


def test_pickles_are_python_2s(threedpw):
    data = next(threedpw.rglob("*.pkl")).read_bytes()
    steps = {opcode.name for opcode, _, _ in pickletools.genops(data)}
    assert data[:2] == b"\x80\x02" and {"SHORT_BINSTRING", "BINSTRING"} <= steps and "BINUNICODE" not in steps
    asked = {argument for opcode, argument, _ in pickletools.genops(data) if opcode.name == "GLOBAL"}
    assert asked == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    value = {"a": [np.arange(300.0).reshape(3, 100), np.array([True, False])], "b": ["ä", -7], "c": np.zeros((0, 3))}
    again = pickle.loads(dumps(value), encoding="latin1")
    assert np.array_equal(again["a"][0], value["a"][0]) and np.array_equal(again["a"][1], value["a"][1])
    assert again["b"] == ["ä", -7] and again["c"].shape == (0, 3)


def test_mpii_s_two_files_tell_of_the_same_people(mpii):
    rows = {split: json.loads((mpii / "annot" / f"{split}.json").read_text()) for split in ("train", "valid")}
    file = mpii / "mpii_human_pose_v1_u12_2" / "mpii_human_pose_v1_u12_1.mat"
    release = scipy.io.loadmat(file, squeeze_me=True, struct_as_record=False)["RELEASE"]
    known = {(row["image"], tuple(np.round(row["center"]))): row for part in rows.values() for row in part}
    people = 0
    for image, train in zip(release.annolist, release.img_train, strict=True):
        assert cv2.imread(str(mpii / "images" / image.image.name)).shape == (SIZE[1], SIZE[0], 3)
        for rect in np.atleast_1d(image.annorect):
            assert hasattr(rect, "annopoints") == bool(train)
            if not train:
                continue
            row = known[image.image.name, (rect.objpos.x, rect.objpos.y)]
            people += 1
            assert rect.scale == pytest.approx(row["scale"])
            points = {point.id: point for point in np.atleast_1d(rect.annopoints.point)}
            assert sorted(points) == np.flatnonzero(row["joints_vis"]).tolist()
            for joint, point in points.items():
                assert row["joints"][joint] == pytest.approx([point.x, point.y])
            assert rect.x1 < rect.x2 and rect.y1 < rect.y2
    assert people == len(known) and (release.img_train == 0).sum() == 2
    assert not {row["image"] for row in rows["train"]} & {row["image"] for row in rows["valid"]}


def test_mpii_s_joints_are_told_apart_left_and_right(mpii):
    """Of most people hips and shoulders have their left on the same side."""
    rows = json.loads((mpii / "annot" / "train.json").read_text())
    people = [dict(zip(MPII16.joints, row["joints"], strict=True)) for row in rows if all(row["joints_vis"])]
    sides = [
        np.sign(p["left_shoulder"][0] - p["right_shoulder"][0]) == np.sign(p["left_hip"][0] - p["right_hip"][0])
        for p in people
    ]
    assert len(people) > 3 and np.mean(sides) > 0.7


def test_mpii_s_joints_are_those_of_the_people_as_matlab_counts_pixels(tmp_path):
    maker = Synthesizer(SCENE, load_body_model())
    shown = list(write_mpii(tmp_path, photographs([maker], 3, 2), maker.model))
    sitters = [person for photograph in shown for person in photograph.people]
    rows = json.loads((tmp_path / "annot" / "train.json").read_text())
    assert len(rows) == len(sitters) > 0
    for row, sitter, photograph in zip(rows, sitters, [one for one in shown for _ in one.people], strict=True):
        joints_px = project(maker.model.regressed(sitter.params, COCO17), photograph.camera).numpy()
        limbs = [joint for joint in COCO17.joints if joint in MPII16.joints]
        told = np.array(row["joints"])[[MPII16.index(joint) for joint in limbs]]
        beyond = (joints_px < 0).any(1) | (joints_px >= photograph.pixels.shape[1::-1]).any(1)
        expected = np.where(beyond[:, None], -1.0, joints_px + 0.5)
        np.testing.assert_allclose(told, expected[[COCO17.index(joint) for joint in limbs]], atol=0.01)
        ends = np.array([(one.min(), one.max()) for one in sitter.xy_px[ROWS].numpy().T])
        np.testing.assert_allclose(row["center"], ends.mean(1) + 0.5, atol=1e-3)
        assert row["scale"] == pytest.approx(np.ptp(ends, axis=1).max() / 200)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_numbers_give_the_same_files_and_fewer_give_the_first_of_them(threedpw, mpii, tmp_path):
    make_layout(tmp_path / "a", wanted("3dpw", FRAMES))
    whole = contents(threedpw)
    first = {name: data for name, data in contents(tmp_path / "a").items() if name != "synthetic.json"}
    assert len(first) == FRAMES + 1 and all(whole[name] == data for name, data in first.items())
    make_layout(tmp_path / "b", wanted("mpii", 2))
    images = {name: data for name, data in contents(tmp_path / "b").items() if name.startswith("images")}
    assert len(images) == 2 and all(contents(mpii)[name] == data for name, data in images.items())


def test_poses_may_come_from_files(tmp_path):
    vectors = np.full((40, 24, 3), 0.05)
    motions = [
        Motion("stand", who, "made", 30.0, scale * vectors, np.zeros((40, 3)), np.ones(40, bool), who)
        for who, scale in (("ann", 1.0), ("bob", 4.0))
    ]
    write_collection(tmp_path / "poses", motions, "float32")
    scene = replace(SCENE, mocap=(tmp_path / "poses",), mocap_share=1.0, jitter_rad=0.0, mirror=0.0)
    make_layout(tmp_path / "made", wanted("3dpw", 3, scene=scene, people=1, subjects=("bob",)))
    data = next((tmp_path / "made").rglob("*.pkl"))
    poses = unpickle_arrays(data, data.read_bytes())["poses"][0]
    assert np.allclose(poses[0, 3:], 0.2, atol=1e-5)
    with pytest.raises(MeshrecError, match="Nobody among the poses is called cia"):
        make_layout(tmp_path / "other", wanted("3dpw", 3, scene=scene, subjects=("cia",)))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(MeshrecError, match="left alone"):
        make_layout(tmp_path, wanted("mpii", 1))
    assert torch.is_grad_enabled() and [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
