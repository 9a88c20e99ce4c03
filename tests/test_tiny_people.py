"""Tiny data sets are in the layouts of the large ones, and what they say of people is what their images show."""

import importlib
import json
import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import roma
import scipy.io
import torch

from meshrec.body import BodyModel, load_body_model
from meshrec.camera import camera_from_body_axes, project
from meshrec.data.motion import Motion
from meshrec.data.poses import write_collection
from meshrec.errors import MeshrecError
from meshrec.keypoint_files import OPENPOSE18_JOINTS
from meshrec.rasterize import rasterize
from meshrec.skeletons import COCO17, MPII16, SMPL24
from meshrec.smpl_pickle import unpickle_arrays
from meshrec.types import BodyParams, Camera

TOOLS = Path(__file__).parent.parent / "tools"
SIZE = (320, 240)
FRAMES = 8


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        return importlib.import_module("tiny_people")


@pytest.fixture(scope="module")
def made(tool, tmp_path_factory) -> Path:
    config = tool.TinyConfig(sequences=3, frames=FRAMES, mpii=16, size=SIZE, genders=("m", "f"))
    return tool.make(tmp_path_factory.mktemp("tiny") / "made", config)


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
def takes(made) -> list[Take]:
    files = sorted((made / "3dpw" / "sequenceFiles").rglob("*.pkl"), key=lambda path: path.stem)
    assert [file.parent.name for file in files] == ["train", "test", "validation"]
    fields = [unpickle_arrays(file, file.read_bytes()) for file in files]
    return [Take(one, made / "3dpw" / "imageFiles" / one["sequence"]) for one in fields]


def test_sequences_have_the_fields_of_3dpw(takes):
    for number, take in enumerate(takes):
        fields, people = take.fields, 1 + number % 2
        shapes = {
            "poses": (FRAMES, 72),
            "trans": (FRAMES, 3),
            "poses_60Hz": (2 * FRAMES, 72),
            "trans_60Hz": (2 * FRAMES, 3),
            "betas": (10,),
            "betas_clothed": (10,),
            "poses2d": (FRAMES, 3, 18),
            "jointPositions": (FRAMES, 72),
            "campose_valid": (FRAMES,),
        }
        for name, shape in shapes.items():
            assert [array.shape for array in fields[name]] == [shape] * people, name
        assert (fields["cam_poses"].shape, fields["cam_intrinsics"].shape) == ((FRAMES, 4, 4), (3, 3))
        assert fields["genders"] == ["m", "f"][:people] and fields["sequence"] == take.images.name
        assert np.array_equal(fields["poses_60Hz"][0][fields["img_frame_ids"]], fields["poses"][0])
        assert len(list(take.images.glob("image_*.jpg"))) == FRAMES and take.image(0).shape == (SIZE[1], SIZE[0], 3)
    lost = np.concatenate([take.fields["campose_valid"][0] for take in takes])
    assert 0 < (~lost).sum() < lost.size / 2


def test_joint_positions_are_those_of_the_body_in_the_world(takes, model):
    fields = takes[1].fields
    rotations = roma.rotvec_to_rotmat(torch.from_numpy(np.stack(fields["poses"])).view(2, FRAMES, 24, 3))
    betas = torch.from_numpy(np.stack(fields["betas"]))[:, None].expand(2, FRAMES, 10)
    params = BodyParams.from_rotations(rotations, betas, torch.from_numpy(np.stack(fields["trans"])))
    told = torch.from_numpy(np.stack(fields["jointPositions"])).view(2, FRAMES, 24, 3)
    assert torch.allclose(model.joints24(params), told, atol=1e-5)


def test_people_stand_upright_on_the_ground(takes, model):
    for take in takes:
        up = torch.from_numpy(np.linalg.inv(take.fields["cam_poses"][0]))
        world = [body @ up[:3, :3].T + up[:3, 3] for body in take.vertices(model, 0)]
        assert all(abs(float(body[:, 1].min())) < 1e-3 and float(body[:, 1].max()) > 1.0 for body in world)


def test_the_pictures_show_the_bodies_that_the_files_tell_of(takes, model):
    """Inside the projected silhouette the picture differs from the one without people; outside it does not."""
    for take in takes:
        fields, camera = take.fields, take.camera
        valid = np.flatnonzero(fields["campose_valid"][0])
        far = max(valid, key=lambda frame: _moved(take, model, 0, frame))
        here, there = (_silhouette(take, model, frame) for frame in (0, far))
        difference = np.abs(take.image(0).astype(int) - take.image(far).astype(int)).max(-1)
        nobody = cv2.dilate((here | there).astype(np.uint8), np.ones((5, 5))) == 0
        assert np.percentile(difference[nobody], 99.5) < 26
        entered = cv2.erode((here & ~there).astype(np.uint8), np.ones((3, 3))) > 0
        assert camera.width_px == here.shape[1] and (entered.sum() < 20 or np.median(difference[entered]) > 26)


def _moved(take: Take, model: BodyModel, first: int, second: int) -> int:
    return int((_silhouette(take, model, first) ^ _silhouette(take, model, second)).sum())


def _silhouette(take: Take, model: BodyModel, frame: int) -> np.ndarray:
    faces = [rasterize(body, model.faces, take.camera).face >= 0 for body in take.vertices(model, frame)]
    return torch.stack(faces).any(0).numpy()


def test_the_outline_is_where_the_truth_puts_it_to_a_fraction_of_a_pixel(model, tmp_path):
    """How much of each pixel is covered, by the difference of the pictures before black and before white."""
    threedpw, people = (importlib.import_module(f"tiny.{name}") for name in ("threedpw", "people"))
    small, random = load_body_model("neutral"), np.random.default_rng(3)
    cast = people.Cast(small, people.poses_of_prior("flow", 0.8), 1, SIZE, 0)
    take = threedpw.imagined("one", cast, 2, 1, random)
    fields = threedpw.fields_of(take, small, [np.zeros((2, 3, 18))], ("n",), random)
    told = Take(fields, tmp_path)
    grounds = (np.full((SIZE[1], SIZE[0], 3), tone, np.uint8) for tone in (0, 255))
    black, white = (threedpw.drawn_frame(take, 0, small, ground, torch.ones(3)).pixels[..., 0] for ground in grounds)
    coverage = 1 - (white.astype(float) - black) / 255
    truth = (rasterize(told.vertices(model, 0)[0], model.faces, told.camera).face >= 0).numpy()
    assert truth.sum() > 1000 and coverage.sum() == pytest.approx(truth.sum(), rel=0.01)
    middles = [_middle(weight) for weight in (coverage, truth.astype(float))]
    assert np.abs(middles[0] - middles[1]).max() < 0.05
    assert ((coverage > 0.5) ^ truth).sum() < 0.03 * truth.sum()


def _middle(weight: np.ndarray) -> np.ndarray:
    return np.array([(weight * axis).sum() for axis in np.indices(weight.shape)]) / weight.sum()


def test_detections_are_projected_joints(takes, model):
    for take in takes:
        rows = [OPENPOSE18_JOINTS.index(joint) for joint in COCO17.joints]
        for points, body in zip(take.fields["poses2d"], take.params(0), strict=True):
            T = torch.from_numpy(take.fields["cam_poses"][0])
            joints_m = model.regressed(body, COCO17) @ T[:3, :3].T + T[:3, 3]
            told, expected = points[0][:, rows], project(joints_m, take.camera).numpy()
            seen = told[2] > 0
            assert np.abs(told[:2, seen].T - expected[seen]).max(initial=0) < 0.01 and not told[:, ~seen].any()
        assert (take.fields["poses2d"][0][0, 2] > 0).sum() >= 6


def test_who_stands_behind_is_hidden_and_who_stands_in_front_is_not(tool, model):
    scene = importlib.import_module("tiny.scene")
    camera = Camera(torch.tensor(300.0), torch.tensor([160.0, 120.0]), *SIZE, "true")
    still = torch.eye(3, dtype=torch.float64).expand(24, 3, 3)
    rest = BodyParams.from_rotations(still, torch.zeros(10, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    flip, black = camera_from_body_axes(dtype=torch.float64), np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    trunk = torch.tensor(SMPL24.indices("pelvis", "spine1", "spine2", "spine3"))
    points = model.joints24(rest)[trunk] @ flip
    vertices = model(rest).vertices_m @ flip
    white = torch.ones(len(vertices), 3)
    for depths_m, hidden in (((3.0, 4.0), 1), ((4.0, 3.0), 0)):
        places = [torch.tensor([0.0, 0.0, depth_m], dtype=torch.float64) for depth_m in depths_m]
        bodies = [vertices + place for place in places]
        drawn = scene.draw(bodies, [white, white], model.faces, camera, black, torch.ones(3))
        seen = [bool(drawn.seen(points + place, person, camera).any()) for person, place in enumerate(places)]
        assert seen == [person != hidden for person in range(2)]
    aside = torch.tensor([9.0, 0.0, 3.0], dtype=torch.float64)
    assert not drawn.seen(points + aside, 0, camera).any()


def test_pickles_are_python_2s(tool, made):
    data = next((made / "3dpw").rglob("*.pkl")).read_bytes()
    steps = {opcode.name for opcode, _, _ in pickletools.genops(data)}
    assert data[:2] == b"\x80\x02" and {"SHORT_BINSTRING", "BINSTRING"} <= steps and "BINUNICODE" not in steps
    asked = {argument for opcode, argument, _ in pickletools.genops(data) if opcode.name == "GLOBAL"}
    assert asked == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    dumps = importlib.import_module("tiny.old_pickle").dumps
    value = {"a": [np.arange(300.0).reshape(3, 100), np.array([True, False])], "b": ["ä", -7], "c": np.zeros((0, 3))}
    again = pickle.loads(dumps(value), encoding="latin1")
    assert np.array_equal(again["a"][0], value["a"][0]) and np.array_equal(again["a"][1], value["a"][1])
    assert again["b"] == ["ä", -7] and again["c"].shape == (0, 3)


def test_mpii_s_two_files_tell_of_the_same_people(made):
    folder = made / "mpii"
    rows = {split: json.loads((folder / "annot" / f"{split}.json").read_text()) for split in ("train", "valid")}
    file = folder / "mpii_human_pose_v1_u12_2" / "mpii_human_pose_v1_u12_1.mat"
    release = scipy.io.loadmat(file, squeeze_me=True, struct_as_record=False)["RELEASE"]
    known = {(row["image"], tuple(np.round(row["center"]))): row for part in rows.values() for row in part}
    people = 0
    for image, train in zip(release.annolist, release.img_train, strict=True):
        assert cv2.imread(str(folder / "images" / image.image.name)).shape == (SIZE[1], SIZE[0], 3)
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


def test_mpii_s_joints_lie_on_the_person_with_left_and_right_told_apart(made):
    """Feet are lower than hips, these than heads; of those who face us the left hand side is on the right."""
    rows = json.loads((made / "mpii" / "annot" / "train.json").read_text())
    for row in rows:
        points = dict(zip(MPII16.joints, row["joints"], strict=True))
        if all(row["joints_vis"]):
            assert points["left_ankle"][1] > points["left_hip"][1] > points["upper_neck"][1]
    crossed = [
        np.sign(p["left_shoulder"][0] - p["right_shoulder"][0]) == np.sign(p["left_hip"][0] - p["right_hip"][0])
        for p in (dict(zip(MPII16.joints, row["joints"], strict=True)) for row in rows if all(row["joints_vis"]))
    ]
    assert np.mean(crossed) > 0.7


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_numbers_give_the_same_files_and_fewer_give_the_first_of_them(tool, made, tmp_path):
    config = tool.TinyConfig(sequences=1, frames=FRAMES, mpii=2, size=SIZE, genders=("m", "f"))
    first, again = (contents(tool.make(tmp_path / name, config)) for name in ("a", "b"))
    assert first == again
    whole = contents(made)
    assert all(whole[name] == data for name, data in first.items() if name.startswith(("3dpw", "mpii/images")))


def test_poses_may_come_from_files(tool, tmp_path):
    vectors = np.full((40, 24, 3), 0.05)
    motion = Motion("stand", "ann", "made", 30.0, vectors, np.zeros((40, 3)), np.ones(40, bool), "a")
    write_collection(tmp_path / "poses", [motion], "float32")
    config = tool.TinyConfig(sequences=1, frames=2, mpii=0, size=(96, 64), poses=(tmp_path / "poses",))
    made = tool.make(tmp_path / "made", config)
    data = next(made.rglob("*.pkl"))
    poses = unpickle_arrays(data, data.read_bytes())["poses"][0]
    assert np.allclose(poses[:, 3:], 0.05, atol=1e-6) and not (made / "mpii").exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"sequences": 0, "mpii": 0}, "Nothing to make"),
        ({"frames": 0}, "numbers from 1"),
        ({"size": (10, 480)}, "64 to 4096"),
        ({"genders": ()}, "--genders"),
        ({"temperature": 9.0}, "--temperature"),
    ],
)
def test_what_cannot_be_made_is_told(tool, tmp_path, wrong, says):
    with pytest.raises(MeshrecError, match=says):
        tool.make(tmp_path / "made", tool.TinyConfig(**wrong))
    assert not (tmp_path / "made").exists()


def test_a_folder_of_something_else_is_left_alone(tool, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(MeshrecError, match="left alone"):
        tool.make(tmp_path, tool.TinyConfig(sequences=0, mpii=1, size=(64, 64)))
    assert torch.is_grad_enabled()
