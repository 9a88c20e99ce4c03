"""Laws of the key poses: words turn what they name, poses keep to a body's limits, and each stands, sits or lies."""

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.body import BodyModel, load_body_model
from meshrec.data import key_poses as module
from meshrec.data.key_poses import FILE, KeyPoses, blended, key_poses, posed, read_key_poses
from meshrec.data.pose_augment import BODY_JOINTS, mirrored
from meshrec.errors import MeshrecError
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams

X, Y, Z = range(3)
REFLECTION = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
CATEGORIES = {"standing", "walking", "running", "chair", "floor", "kneeling", "lying", "crouching"}
CATEGORIES |= {"yoga", "sport", "dance", "everyday"}
FEET = ("left_ankle", "left_foot", "right_ankle", "right_foot")
HANDS = ("left_wrist", "left_hand", "right_wrist", "right_hand")
KNEES = ("left_hip", "left_knee", "right_hip", "right_knee")
"""A knee's skin goes with the thigh or with the shin."""
SEAT = ("pelvis", "left_hip", "right_hip")


def params(rotations: Float[Tensor, "n 23 3 3"], tilt: Float[Tensor, "n 3 3"]) -> BodyParams:
    return BodyParams(tilt, rotations, rotations.new_zeros(len(rotations), 10), rotations.new_zeros(len(rotations), 3))


@dataclass(frozen=True)
class Posed:
    """Every key pose's body, its joints, and how high above the lowest vertex each part's own lowest one is."""

    poses: KeyPoses
    joints: Float[Tensor, "n 24 3"]
    heights: Float[Tensor, "n 24"]

    def place(self, index: int, joint: str) -> Float[Tensor, "3"]:
        return self.joints[index, SMPL24.index(joint)]

    def lowest(self, index: int, *parts: str) -> float:
        return float(self.heights[index, SMPL24.indices(*parts)].min())

    def of(self, *categories: str) -> list[tuple[int, str]]:
        return [(i, name) for i, name in enumerate(self.poses.names) if name.partition("/")[0] in categories]

    def rise(self, index: int, lower: str, upper: str) -> float:
        """How much higher one joint is than another."""
        return float(self.place(index, upper)[Y] - self.place(index, lower)[Y])

    def slope_deg(self, index: int, start: str, end: str) -> float:
        """How far the line between two joints is from level."""
        line = self.place(index, end) - self.place(index, start)
        return float(torch.asin(line[Y] / line.norm()).abs().rad2deg())


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model(dtype=torch.float64)


@pytest.fixture(scope="module")
def poses() -> KeyPoses:
    return read_key_poses(FILE)


@pytest.fixture(scope="module")
def bodies(poses: KeyPoses) -> Posed:
    shipped = load_body_model()
    single = poses.to(torch.float32)
    body = shipped(params(single.rotations, single.tilt))
    heights = body.vertices_m[..., Y] - body.vertices_m[..., Y].amin(dim=-1, keepdim=True)
    of_parts = torch.full((len(poses), len(SMPL24)), torch.inf)
    of_parts.scatter_reduce_(1, shipped.parts.expand(len(poses), -1), heights, "amin")
    return Posed(poses, body.joints_m, of_parts)


def joints_of(entry: dict, model: BodyModel) -> Float[Tensor, "24 3"]:
    rotations, tilt = posed(entry)
    return model.joints24(params(rotations[None], tilt[None]))[0]


def both_sides(entry: dict) -> dict:
    """The entry said in the mirror."""
    image = {}
    for part, words in entry.items():
        side, _, rest = part.partition("_")
        name = {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, part)
        trunk = part in ("tilt", "spine", "neck")
        image[name] = {
            word: -degrees if trunk and word in ("left", "turn") else degrees for word, degrees in words.items()
        }
    return image


MOVES = [
    ("tilt", "forward", {}, "head", Z, 1),
    ("tilt", "left", {}, "head", X, 1),
    ("tilt", "turn", {}, "left_foot", X, 1),
    ("spine", "forward", {}, "head", Z, 1),
    ("spine", "left", {}, "head", X, 1),
    ("spine", "turn", {}, "left_shoulder", Z, -1),
    ("neck", "forward", {}, "head", Z, 1),
    ("neck", "left", {}, "head", X, 1),
    ("left_collar", "up", {}, "left_shoulder", Y, 1),
    ("left_collar", "forward", {}, "left_shoulder", Z, 1),
    ("left_shoulder", "forward", {}, "left_elbow", Z, 1),
    ("left_shoulder", "out", {}, "left_elbow", X, 1),
    ("left_shoulder", "twist", {"left_elbow": {"bend": 90.0}}, "left_wrist", X, -1),
    ("left_elbow", "bend", {}, "left_wrist", Z, 1),
    ("left_wrist", "bend", {}, "left_hand", X, -1),
    ("left_wrist", "side", {}, "left_hand", Z, 1),
    ("left_wrist", "twist", {"left_wrist": {"side": 20.0}}, "left_hand", X, -1),
    ("left_hip", "forward", {}, "left_knee", Z, 1),
    ("left_hip", "out", {}, "left_knee", X, 1),
    ("left_hip", "twist", {}, "left_foot", X, -1),
    ("left_knee", "bend", {}, "left_ankle", Z, -1),
    ("left_ankle", "point", {}, "left_foot", Y, -1),
    ("left_ankle", "twist", {}, "left_foot", X, -1),
]


@pytest.mark.parametrize(("part", "word", "entry", "joint", "axis", "sign"), MOVES)
def test_a_word_moves_what_it_names_the_way_it_says_and_its_mirror_image_the_other_side(
    model, part, word, entry, joint, axis, sign
):
    said = entry | {part: entry.get(part, {}) | {word: 20.0}}
    before, after = joints_of(entry, model), joints_of(said, model)
    moved = (after - before)[SMPL24.index(joint)]
    assert sign * moved[axis] > 0.005
    if part.startswith("left_"):
        others = [SMPL24.index(name) for name in SMPL24.joints if not name.startswith("left_")]
        torch.testing.assert_close(after[others], before[others], rtol=0, atol=1e-9)
    image = joints_of(both_sides(said), model)
    torch.testing.assert_close(image, after[list(SMPL24.mirror)] @ REFLECTION, rtol=0, atol=2e-6)


def test_nothing_said_is_a_plain_stand_with_hanging_arms(model):
    joints = joints_of({}, model)
    arm = [joints[SMPL24.index(f"left_{joint}")] for joint in ("shoulder", "elbow", "wrist", "hand")]
    for upper, lower in pairwise(arm):
        along = torch.nn.functional.normalize(lower - upper, dim=0)
        assert along[Y] < -0.98
    rotations, tilt = posed({})
    still = [BODY_JOINTS.index(name) for name in BODY_JOINTS if not name.endswith(("collar", "shoulder"))]
    torch.testing.assert_close(rotations[still], torch.eye(3, dtype=torch.float64).expand(len(still), 3, 3))
    torch.testing.assert_close(tilt, torch.eye(3, dtype=torch.float64))


def test_arms_are_told_against_the_chest_whatever_the_collar_does():
    entry = {"left_shoulder": {"forward": 40.0, "out": 30.0, "twist": 20.0}}
    for said in (entry, entry | {"left_collar": {"up": 25.0}}):
        rotations, _ = posed(said)
        swing = rotations[BODY_JOINTS.index("left_collar")] @ rotations[BODY_JOINTS.index("left_shoulder")]
        forward, out = np.deg2rad([40.0, 30.0])
        arm = [np.sin(out), -np.cos(out) * np.cos(forward), np.cos(out) * np.sin(forward)]
        torch.testing.assert_close(swing[:, X], torch.tensor(arm))


def test_a_mirrored_entry_is_the_mirrored_pose():
    entry = {
        "tilt": {"left": 10.0, "forward": 20.0, "turn": 30.0},
        "spine": {"left": 5.0, "turn": 12.0},
        "left_hip": {"forward": 50.0, "out": 20.0, "twist": 10.0},
        "right_shoulder": {"forward": 70.0, "out": 15.0, "twist": -20.0},
        "knees": {"bend": 30.0},
    }
    rotations, tilt = posed(entry)
    image, image_tilt = posed(both_sides(entry))
    torch.testing.assert_close(image, mirrored(rotations))
    torch.testing.assert_close(image_tilt, REFLECTION @ tilt @ REFLECTION)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_flat_foot_is_level_and_goes_where_the_shin_goes(side):
    leg = {f"{side}_hip": {"forward": 60.0, "out": 25.0, "twist": -20.0}, f"{side}_knee": {"bend": 70.0}}
    rotations, tilt = posed({"tilt": {"forward": 15.0, "left": 9.0}, "flat": (side,)} | leg)
    shin = tilt @ rotations[BODY_JOINTS.index(f"{side}_hip")] @ rotations[BODY_JOINTS.index(f"{side}_knee")]
    foot = shin @ rotations[BODY_JOINTS.index(f"{side}_ankle")]
    torch.testing.assert_close(foot[:, Y], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert foot[X, Z] * shin[Z, Z] == pytest.approx(foot[Z, Z] * shin[X, Z])
    other = {"left": "right", "right": "left"}[side]
    torch.testing.assert_close(rotations[BODY_JOINTS.index(f"{other}_ankle")], torch.eye(3, dtype=torch.float64))


def test_there_are_enough_poses_of_every_kind_each_written_once(poses):
    written = re.findall(r"^(\w+/\w+):$", FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert list(poses.names) == written
    assert len(set(written)) == len(poses) >= 64
    assert set(poses.categories) == CATEGORIES
    assert min(poses.categories.count(category) for category in CATEGORIES) >= 5


def test_key_poses_are_rotations(poses):
    for rotations in (poses.rotations, poses.tilt):
        identity = torch.eye(3, dtype=torch.float64).expand_as(rotations)
        torch.testing.assert_close(rotations @ rotations.mT, identity)
        torch.testing.assert_close(torch.linalg.det(rotations), torch.ones_like(rotations[..., 0, 0]))
    assert key_poses().rotations.dtype == torch.float32


def test_no_two_poses_are_the_same(poses):
    apart = roma.rotmat_geodesic_distance(poses.rotations[:, None], poses.rotations[None]).amax(dim=-1)
    apart = apart + roma.rotmat_geodesic_distance(poses.tilt[:, None], poses.tilt[None])
    assert float((apart + torch.eye(len(poses))).min()) > np.deg2rad(10)


def test_knees_and_elbows_bend_one_way(poses):
    for side, along in (("left", 1.0), ("right", -1.0)):
        knee = poses.rotations[:, BODY_JOINTS.index(f"{side}_knee")]
        assert (-knee[:, Z, Y] <= 1e-12).all(), "a shin goes back"
        elbow = poses.rotations[:, BODY_JOINTS.index(f"{side}_elbow")]
        assert (along * elbow[:, Z, X] >= -1e-12).all(), "a forearm of the rest pose goes ahead"


def test_ankles_stay_in_reach_where_a_flat_foot_turns_them(poses):
    for side in ("left", "right"):
        ankle = poses.rotations[:, BODY_JOINTS.index(f"{side}_ankle")]
        up = torch.rad2deg(torch.asin(ankle[:, Y, Z]))
        worst = int(up.argmax())
        assert up[worst] < 45, f"{poses.names[worst]} lifts its {side} toes by {up[worst]:.0f} degrees"


def test_who_stands_or_walks_stands_on_a_foot_with_the_head_up(bodies):
    for index, name in bodies.of("standing", "walking"):
        assert bodies.lowest(index, *FEET) == 0, name
        assert bodies.rise(index, "pelvis", "head") > 0.5, name


def test_who_stands_on_both_feet_has_both_on_the_ground(bodies):
    for index, name in bodies.of("standing"):
        for side in ("left", "right"):
            lifted = bodies.lowest(index, f"{side}_ankle", f"{side}_foot")
            assert lifted < 0.02 or (name, side) == ("standing/leaning_on_wall", "right"), (name, side, lifted)


def test_thighs_of_who_sits_on_a_chair_are_level(bodies):
    for index, name in bodies.of("chair"):
        slopes = sorted(bodies.slope_deg(index, f"{side}_hip", f"{side}_knee") for side in ("left", "right"))
        assert slopes[0] < 20 and slopes[1] < 40, (name, slopes)
        assert bodies.lowest(index, *FEET) == 0, name
        assert bodies.rise(index, "pelvis", "head") > 0.25, name


def test_who_sits_on_the_floor_sits_on_it(bodies):
    for index, name in bodies.of("floor"):
        assert bodies.lowest(index, *SEAT) < 0.03, name
        assert bodies.rise(index, "pelvis", "head") > 0.3, name


def test_who_kneels_has_a_knee_and_a_foot_on_the_ground(bodies):
    for index, name in bodies.of("kneeling"):
        assert bodies.lowest(index, *KNEES) < 0.02, name
        assert bodies.lowest(index, *FEET) < 0.02, name


def test_who_lies_has_pelvis_and_head_near_the_ground(bodies):
    for index, name in bodies.of("lying"):
        assert abs(bodies.rise(index, "pelvis", "head")) < 0.35, name
        assert bodies.lowest(index, *SEAT, "spine1") < 0.06, name
        assert bodies.slope_deg(index, "pelvis", "spine2") < 25, name


def test_who_crouches_is_low_on_the_feet(bodies):
    upright = bodies.poses.names.index("standing/at_ease")
    for index, name in bodies.of("crouching"):
        feet = [bodies.rise(index, f"{side}_ankle", "pelvis") for side in ("left", "right")]
        assert min(feet) < 0.75 * bodies.rise(upright, "left_ankle", "pelvis"), name
        assert bodies.lowest(index, *FEET) < 0.01, name


def test_a_handstand_stands_on_its_hands(bodies):
    for name in ("sport/handstand", "sport/cartwheel"):
        index = bodies.poses.names.index(name)
        assert bodies.lowest(index, *HANDS) == 0
        assert bodies.rise(index, "head", "pelvis") > 0.3
        assert bodies.rise(index, "pelvis", "left_ankle") > 0.3


@pytest.mark.parametrize("count", [0, 1, 200])
def test_blends_follow_their_generator_and_are_rotations(poses, count):
    rotations, tilt, names = blended(poses, count, np.random.default_rng(4))
    again = blended(poses, count, np.random.default_rng(4))
    torch.testing.assert_close((rotations, tilt), again[:2], rtol=0, atol=0)
    assert names == again[2] and len(names) == count and set(names) <= set(poses.names)
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).double().expand_as(rotations))
    torch.testing.assert_close(torch.linalg.det(tilt), torch.ones(count, dtype=torch.float64))


def one_category(*entries: dict) -> KeyPoses:
    rotations, tilt = (torch.stack(parts) for parts in zip(*map(posed, entries), strict=True))
    return KeyPoses(tuple(f"some/{index}" for index in range(len(entries))), rotations, tilt)


def test_a_pose_alone_is_shaken_as_stated_and_mirrored_half_of_the_time():
    alone = one_category({"left_hip": {"forward": 90.0}, "tilt": {"left": 30.0}})
    rotations, tilt, _ = blended(alone, 1000, np.random.default_rng(5))
    image = tilt[:, X, Y] < 0
    assert 0.45 < float(image.double().mean()) < 0.55
    upright = torch.where(image[:, None, None, None], mirrored(rotations), rotations)
    shaken = roma.rotmat_to_rotvec(alone.rotations.mT @ upright)
    spread = shaken.flatten(0, 1).std(dim=0).rad2deg()
    torch.testing.assert_close(spread, torch.full((3,), module.JITTER_DEG).double(), rtol=0.03, atol=0)
    straight = torch.where(image[:, None, None], REFLECTION @ tilt @ REFLECTION, tilt)
    torch.testing.assert_close(straight, alone.tilt.expand(1000, 3, 3))


def test_blends_lie_on_the_way_to_another_pose_of_the_category(monkeypatch):
    monkeypatch.setattr(module, "JITTER_DEG", 0.0)
    pair = one_category({"left_hip": {"forward": 80.0}, "tilt": {"left": 30.0}}, {"left_knee": {"bend": 90.0}})
    other = KeyPoses(("other/0",), mirrored(pair.rotations[:1]), pair.tilt[:1])
    three = KeyPoses(
        pair.names + other.names, torch.cat([pair.rotations, other.rotations]), torch.cat([pair.tilt, other.tilt])
    )
    rotations, _, names = blended(three, 300, np.random.default_rng(6))
    distance = roma.rotmat_geodesic_distance
    blends = 0
    for rotation, name in zip(rotations, names, strict=True):
        start = three.names.index(name)
        goal = {0: 1, 1: 0, 2: 2}[start]
        images = (rotation, mirrored(rotation))
        gone, left = min(
            ((distance(three.rotations[start], image), distance(image, three.rotations[goal])) for image in images),
            key=lambda parts: float(sum(parts).sum()),
        )
        whole = distance(three.rotations[start], three.rotations[goal])
        torch.testing.assert_close(gone + left, whole, rtol=0, atol=1e-6)
        assert (gone <= module.MOST_BLENDED * whole + 1e-6).all()
        blends += int(gone.sum() > 1e-3)
    assert blends > 50


def test_poses_of_far_tilts_are_not_blended(monkeypatch):
    monkeypatch.setattr(module, "JITTER_DEG", 0.0)
    pair = one_category({"tilt": {"forward": 90.0}}, {"tilt": {"forward": -90.0}, "knees": {"bend": 40.0}})
    rotations, tilt, names = blended(pair, 50, np.random.default_rng(7))
    starts = [pair.names.index(name) for name in names]
    torch.testing.assert_close(rotations, pair.rotations[starts])
    torch.testing.assert_close(tilt, pair.tilt[starts])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no file of key poses"),
        ("{}", "no key poses"),
        ("[1, 2]", "no file of key poses"),
        ("a: {", "no file of key poses"),
        ("stand: {knees: {bend: 3}}", "category/name"),
        ("a/b: {wings: {up: 3}}", "wings"),
        ("a/b: {left_spine: {forward: 3}}", "left_spine"),
        ("a/b: {knees: {twist: 3}}", "its words are bend"),
        ("a/b: {left_knee: {bend: -3}}", "0 to 160"),
        ("a/b: {left_knee: {bend: .nan}}", "0 to 160"),
        ("a/b: {flat: [left, middle]}", "left and right"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_the_reason(tmp_path, text, told):
    path = tmp_path / "poses.yaml"
    path.write_text(text)
    with pytest.raises(MeshrecError, match=re.escape(told)):
        read_key_poses(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(MeshrecError, match="no file of key poses"):
        read_key_poses(tmp_path / "none.yaml")


def test_nobody_learns_from_the_poses_that_are_measured_with() -> None:
    poses = key_poses()
    measuring, learning = poses.split()
    assert sorted(measuring.names + learning.names) == sorted(poses.names)
    assert len(measuring) >= 60
    for half in (measuring, learning):
        assert set(half.categories) == set(poses.categories)
        rows = [poses.names.index(name) for name in half.names]
        assert torch.equal(half.rotations, poses.rotations[rows]) and torch.equal(half.tilt, poses.tilt[rows])
