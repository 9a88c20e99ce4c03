"""Key poses: people that stand, sit, lie, dance and play, written by hand as degrees about anatomical axes.

A pose says of each part of the body how far it turns from the plain stand: upright, facing +z, y up, legs straight,
arms hanging, palms to the thighs. Words are the same on both sides: what is said of a right part is the mirror image
of a left one, and a plural (`knees`) says it of both. Collars follow their arms, and a foot that is said to be flat
lies level on the ground, whatever the leg above it does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import roma
import torch
import yaml
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from meshrec.data.pose_augment import BODY_JOINTS, jittered, mirrored
from meshrec.errors import MeshrecError

FILE = Path(__file__).parent.parent / "poses" / "key_poses.yaml"
"""The key poses that ship."""

COLLAR_SHARE = 0.1
"""How much of an arm's way from the rest pose its collar bone goes along."""

REACH_DEG = 60.0
"""Poses whose whole bodies are tilted further from each other than this are not blended: one lies, the other stands."""

MOST_BLENDED = 0.5
"""A blend goes at most half of the way to the other pose."""

JITTER_DEG = 4.0
"""Standard deviation of the small turns about every axis of every joint of a blended pose."""


@dataclass(frozen=True)
class Turn:
    """A word for a turn of a joint: its axis in the left side of the body, and how far a living body goes."""

    axis: tuple[float, float, float]
    low_deg: int
    high_deg: int


_LEFT, _UP, _AHEAD = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_RIGHT, _DOWN, _BACK = (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)
_REFLECTION = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))


def _trunk(left_deg: int, back_deg: int, forward_deg: int, turn_deg: int) -> dict[str, Turn]:
    """To lean to the left, to lean forward, and to turn to the left."""
    return {
        "left": Turn(_BACK, -left_deg, left_deg),
        "forward": Turn(_LEFT, -back_deg, forward_deg),
        "turn": Turn(_UP, -turn_deg, turn_deg),
    }


TURNS: dict[str, dict[str, Turn]] = {
    "tilt": _trunk(180, 180, 180, 180),
    "spine": _trunk(50, 70, 100, 75),
    "neck": _trunk(45, 60, 60, 80),
    "collar": {"up": Turn(_AHEAD, -20, 40), "forward": Turn(_DOWN, -30, 40)},
    "shoulder": {"forward": Turn(_RIGHT, -65, 200), "out": Turn(_AHEAD, -60, 180), "twist": Turn(_DOWN, -100, 100)},
    "elbow": {"bend": Turn(_DOWN, 0, 150)},
    "wrist": {"twist": Turn(_LEFT, -70, 70), "bend": Turn(_BACK, -85, 85), "side": Turn(_DOWN, -30, 30)},
    "hand": {"bend": Turn(_BACK, -20, 40)},
    "hip": {"forward": Turn(_RIGHT, -40, 140), "out": Turn(_AHEAD, -35, 95), "twist": Turn(_DOWN, -75, 60)},
    "knee": {"bend": Turn(_LEFT, 0, 160)},
    "ankle": {"point": Turn(_LEFT, -45, 70), "side": Turn(_AHEAD, -30, 35), "twist": Turn(_DOWN, -35, 35)},
    "foot": {"up": Turn(_RIGHT, -30, 75)},
}
"""What is said of each part: matrices are multiplied in the order of these words, R = R_first R_second R_third.

The whole body, spine and neck lean to the `left` and `forward` and `turn` to the left. Limbs go `forward` and `out` to
their side and `twist` their front inwards: an arm against the chest, not its collar bone, and a leg against the pelvis.
Knees, elbows and wrists (palmwards) `bend`; a wrist goes to the `side` of its thumb, and the sole of an ankle inwards;
toes `point` down with the foot, or go `up` alone.
"""

SHARED = {"spine": ("spine1", "spine2", "spine3"), "neck": ("neck", "head")}
"""Parts of several joints, of which each takes an equal share of every turn."""

LEG = ("hip", "knee", "ankle", "foot")
ARM = ("collar", "shoulder", "elbow", "wrist", "hand")
PLURALS = {part: "feet" if part == "foot" else f"{part}s" for part in LEG + ARM}
FLAT = "flat"

_KINDS = {kind: kind for kind in ("tilt", *SHARED)} | {plural: kind for kind, plural in PLURALS.items()}
_KINDS |= {f"{side}_{kind}": kind for side in ("left", "right") for kind in PLURALS}

Words = Mapping[str, float]
Entry = dict[str, dict[str, float] | tuple[str, ...]]
"""A pose as it is written: degrees by word and part, and the sides whose foot is flat."""

_FILES = TypeAdapter(dict[str, Entry])
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class KeyPoses:
    """Named poses, and how the whole body is tilted in each: yaw is left to the camera."""

    names: tuple[str, ...]
    """category/name"""
    rotations: Float[Tensor, "n 23 3 3"]
    tilt: Float[Tensor, "n 3 3"]
    """Root rotations in the body's frame, y up: they lay a standing body down."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def categories(self) -> tuple[str, ...]:
        """The first half of each name."""
        return tuple(name.partition("/")[0] for name in self.names)

    def to(self, dtype: torch.dtype) -> "KeyPoses":
        """The same in another type of numbers."""
        return KeyPoses(self.names, self.rotations.to(dtype), self.tilt.to(dtype))

    def split(self) -> tuple["KeyPoses", "KeyPoses"]:
        """Those to measure with and those to learn from: every other pose of each category, from its first one on."""
        places = [self.categories[:row].count(category) for row, category in enumerate(self.categories)]
        halves = ([row for row, place in enumerate(places) if place % 2 == half] for half in (0, 1))
        measuring, learning = (self._of(rows) for rows in halves)
        return measuring, learning

    def _of(self, rows: list[int]) -> "KeyPoses":
        return KeyPoses(tuple(self.names[row] for row in rows), self.rotations[rows], self.tilt[rows])


@cache
def key_poses() -> KeyPoses:
    """The key poses that ship, float32."""
    return read_key_poses(FILE).to(torch.float32)


def read_key_poses(path: Path) -> KeyPoses:
    """Poses written as `TURNS` says, in a YAML file of entries by category/name; float64."""
    try:
        entries = _FILES.validate_python(yaml.load(path.read_text(encoding="utf-8"), _LOADER))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise MeshrecError(f"{path} is no file of key poses ({error}): write it as {FILE} is written.") from error
    if not entries:
        raise MeshrecError(f"{path} has no key poses: write at least one, as in {FILE}.")
    for name, entry in entries.items():
        if fault := _fault(name, entry):
            raise MeshrecError(f"The key pose {name} in {path} cannot be read: {fault}.")
    poses = [posed(entry) for entry in entries.values()]
    return KeyPoses(tuple(entries), *(torch.stack(list(parts)) for parts in zip(*poses, strict=True)))


def _fault(name: str, entry: Entry) -> str | None:
    """What is wrong with an entry."""
    if not all(name.partition("/")[::2]):
        return "its name is not category/name"
    faults = (_part_fault(part, words) for part, words in entry.items())
    return next((fault for fault in faults if fault), None)


def _part_fault(part: str, words: dict[str, float] | tuple[str, ...]) -> str | None:
    """What is wrong with what is said of one part."""
    if part == FLAT:
        fits = isinstance(words, tuple) and {"left", "right"}.issuperset(words)
        return None if fits else f"{FLAT} takes a list of left and right, not {words}"
    if part not in _KINDS or not isinstance(words, dict):
        return f"it speaks of {part}: {words}, and what can be turned is {', '.join(_KINDS)}"
    turns = TURNS[_KINDS[part]]
    for word, degrees in words.items():
        if word not in turns:
            return f"{part} has no {word}, its words are {', '.join(turns)}"
        turn = turns[word]
        if not turn.low_deg <= degrees <= turn.high_deg:
            return f"{part} {word} is {degrees:g} degrees, a body goes from {turn.low_deg} to {turn.high_deg}"
    return None


def posed(entry: Entry) -> tuple[Float[Tensor, "23 3 3"], Float[Tensor, "3 3"]]:
    """The joint rotations of a written pose, and the tilt of the whole body; float64."""
    tilt = turned("tilt", _words(entry, "tilt"))
    joints = {}
    for part, chain in SHARED.items():
        share = {word: degrees / len(chain) for word, degrees in _words(entry, part).items()}
        joints |= dict.fromkeys(chain, turned(part, share))
    for side in ("left", "right"):
        words = {part: _words(entry, part, side) for part in LEG + ARM}
        level = _reflected(tilt, side) if side in entry.get(FLAT, ()) else None
        limbs = _leg(words, level) | _arm(words)
        joints |= {f"{side}_{part}": _reflected(rotation, side) for part, rotation in limbs.items()}
    return torch.stack([joints[joint] for joint in BODY_JOINTS]), tilt


def turned(part: str, words: Words) -> Float[Tensor, "3 3"]:
    """The product of a part's turns, in the order of `TURNS`, on the left side."""
    rotation = torch.eye(3, dtype=torch.float64)
    for word, turn in TURNS[part].items():
        if word in words:
            rotation = rotation @ _about(turn.axis, words[word])
    return rotation


def _about(axis: tuple[float, float, float], degrees: float) -> Float[Tensor, "3 3"]:
    return roma.rotvec_to_rotmat(torch.deg2rad(torch.tensor(degrees * np.array(axis))))


def _words(entry: Entry, part: str, side: str | None = None) -> Words:
    """What is said of a part: of both sides together first, then of its own."""
    said = [entry.get(name, {}) for name in ([part] if side is None else [PLURALS[part], f"{side}_{part}"])]
    return {word: degrees for words in said if isinstance(words, dict) for word, degrees in words.items()}


def _reflected(rotation: Float[Tensor, "3 3"], side: str) -> Float[Tensor, "3 3"]:
    """S R S on the right, with S the reflection of x: a right limb is the mirror image of a left one."""
    return rotation if side == "left" else _REFLECTION @ rotation @ _REFLECTION


def _leg(words: Mapping[str, Words], tilt: Float[Tensor, "3 3"] | None) -> dict[str, Float[Tensor, "3 3"]]:
    """A left leg; where the body's tilt is given, what is said of the ankle starts from a level foot."""
    leg = {part: turned(part, words[part]) for part in LEG}
    if tilt is not None:
        shin = tilt @ leg["hip"] @ leg["knee"]
        heading_deg = torch.atan2(shin[0, 2], shin[2, 2]).rad2deg().item()
        leg["ankle"] = shin.mT @ _about(_UP, heading_deg) @ leg["ankle"]
    return leg


def _arm(words: Mapping[str, Words]) -> dict[str, Float[Tensor, "3 3"]]:
    """A left arm: R_collar R_shoulder turns it against the chest, from the rest pose by way of hanging down."""
    arm = {part: turned(part, words[part]) for part in ARM}
    swing = arm["shoulder"] @ _about(_BACK, 90.0)
    arm["collar"] = arm["collar"] @ _part_of_the_way(swing[:, 0], COLLAR_SHARE)
    arm["shoulder"] = arm["collar"].mT @ swing
    return arm


def _part_of_the_way(direction: Float[Tensor, "3"], share: float) -> Float[Tensor, "3 3"]:
    """A share of the least turn that takes the left arm at rest, +x, to a direction."""
    rest = direction.new_tensor(_LEFT)
    axis = torch.linalg.cross(rest, direction)
    angle = torch.atan2(axis.norm(), rest @ direction)
    return roma.rotvec_to_rotmat(share * angle * axis / axis.norm().clamp(min=1e-12))


def blended(
    poses: KeyPoses, count: int, random: np.random.Generator
) -> tuple[Float[Tensor, "{count} 23 3 3"], Float[Tensor, "{count} 3 3"], tuple[str, ...]]:
    """Poses between the key poses: each on the way to another one of its category, shaken, and half of them mirrored.

    R = A exp(s log(A^T B)) for every joint and the tilt, s uniform up to `MOST_BLENDED`; the joints are then turned by
    N(0, JITTER_DEG^2) about every axis. Returns rotations, tilts, and the names of the poses that they start from.
    """
    start = random.integers(len(poses), size=count)
    neighbours = _neighbours(poses)
    goal = [int(random.choice(np.flatnonzero(neighbours[index]))) for index in start]
    share = torch.from_numpy(random.uniform(0.0, MOST_BLENDED, size=(count, 1))).to(poses.tilt)
    image = torch.from_numpy(random.random(count) < 0.5)
    rotations = _between(poses.rotations[start], poses.rotations[goal], share[:, None])
    rotations = jittered(rotations, float(np.deg2rad(JITTER_DEG)), random)
    tilt = _between(poses.tilt[start], poses.tilt[goal], share)
    rotations = torch.where(image[:, None, None, None], mirrored(rotations), rotations)
    reflection = _REFLECTION.to(tilt)
    tilt = torch.where(image[:, None, None], reflection @ tilt @ reflection, tilt)
    return rotations, tilt, tuple(poses.names[index] for index in start)


def _neighbours(poses: KeyPoses) -> np.ndarray:
    """Which poses are blended, (n, n): those of one category whose tilts are near; every pose is near to itself."""
    categories = np.array(poses.categories)
    apart = roma.rotmat_geodesic_distance(poses.tilt[:, None], poses.tilt[None])
    return (categories[:, None] == categories) & (apart.rad2deg().numpy() <= REACH_DEG)


def _between(
    start: Float[Tensor, "*batch 3 3"], goal: Float[Tensor, "*batch 3 3"], share: Float[Tensor, "*#batch 1"]
) -> Float[Tensor, "*batch 3 3"]:
    """A share of the way along the geodesic."""
    way = roma.rotmat_to_rotvec(start.mT @ goal)
    return start @ roma.rotvec_to_rotmat(share * way)
