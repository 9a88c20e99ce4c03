"""The motion of a captured skeleton, whatever its joints and its rest pose, as rotations of SMPL's joints.

Every joint of SMPL has a joint of the skeleton that turns with it, its driver. With W the rotation of the driver since
the T-pose, in the world, the joint's frame in the world is

    G = U W A^T C,    and its local rotation is G_parent^T G,

where U makes the world y-up, A turns the T-pose to face +z and C is the smallest rotation that takes the bone of SMPL's
T-pose, straight down or straight to the side, to the skeleton's own. So limbs point in the world where the skeleton's
do, even if its legs are spread at rest. Feet and hands follow the bone above them; the trunk is upright in both.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.data.joint_names import drivers
from meshrec.data.motion import Motion, Reading, Rest, checked, subject_of
from meshrec.errors import MeshrecError
from meshrec.skeletons import SMPL24

UNITS_M = {"mm": 0.001, "cm": 0.01, "inch": 0.0254, "CMU": 0.0254 / 0.45, "m": 1.0}
"""The units of length that are guessed between."""

LEGS_M = 0.8
"""Thigh and shank of a grown person. The trunk is no measure: popular conversions have lost a bone of it."""

STANDS_RAD = math.radians(30)
"""Zero angles whose limbs are nearer than this to a T-pose are one: CMU's legs are spread by 20 degrees."""

POSES_RAD = math.radians(12)
"""A first frame this near to a T-pose was put there for reference and is no motion."""

SNAP_RAD = math.radians(10)
"""Someone in a T-pose who faces an axis of the world within this angle faces it exactly: shoulders are not even."""

TOLD_RAD = math.radians(60)
"""Who says where the T-pose is may have one with hanging arms, but not just any pose."""

DOWN, LEFT, RIGHT = (0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)

BONES = {
    ("left_hip", "left_knee"): DOWN,
    ("left_knee", "left_ankle"): DOWN,
    ("right_hip", "right_knee"): DOWN,
    ("right_knee", "right_ankle"): DOWN,
    ("left_shoulder", "left_elbow"): LEFT,
    ("left_elbow", "left_wrist"): LEFT,
    ("right_shoulder", "right_elbow"): RIGHT,
    ("right_elbow", "right_wrist"): RIGHT,
}
"""The bones that are matched, from joint to joint, and where they point in SMPL's T-pose."""


@dataclass(frozen=True)
class Capture:
    """A skeleton, and how it moved, in its file's unit and axes."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    """Every parent stands before its children; -1 for the root."""
    rest: Float[Tensor, "J 3"]
    """Each joint from its parent when all angles are zero."""
    rotations: Float[Tensor, "T J 3 3"]
    """Local rotations; identity when all angles are zero."""
    translations: Float[Tensor, "T J 3"]
    """Each joint from its parent; the root's place."""
    fps: float

    def __len__(self) -> int:
        return len(self.rotations)


@dataclass(frozen=True)
class Placed:
    """Every joint in the world."""

    rotations: Float[Tensor, "*batch J 3 3"]
    places: Float[Tensor, "*batch J 3"]


def placed(
    parents: tuple[int, ...], rotations: Float[Tensor, "*batch J 3 3"], translations: Float[Tensor, "*batch J 3"]
) -> Placed:
    """Down the tree: `G_child = G_parent R`, `p_child = p_parent + G_parent t`."""
    worlds: list[Tensor] = []
    places: list[Tensor] = []
    for joint, parent in enumerate(parents):
        rotation, translation = rotations[..., joint, :, :], translations[..., joint, :]
        worlds.append(rotation if parent < 0 else worlds[parent] @ rotation)
        place = translation if parent < 0 else places[parent] + (worlds[parent] @ translation[..., None])[..., 0]
        places.append(place)
    return Placed(torch.stack(worlds, dim=-3), torch.stack(places, dim=-2))


@dataclass(frozen=True)
class TPose:
    """A pose that is to be SMPL's T-pose."""

    rotations: Float[Tensor, "J 3 3"]
    bones: Float[Tensor, "B 3"]
    """Directions of `BONES`, facing +z, y up."""
    upright: Float[Tensor, "3 3"]
    """U: the world of the file to y up."""
    facing: Float[Tensor, "3 3"]
    """A: the world of the file to the person's own axes, x to the left, y up, z forward."""
    legs: float
    """Length of thigh and shank, in the file's unit."""

    @property
    def straight(self) -> Float[Tensor, "B 3"]:
        """Where `bones` point in SMPL's T-pose."""
        return self.bones.new_tensor(list(BONES.values()))

    @property
    def off_rad(self) -> float:
        """How far the worst limb is from where it should be."""
        return float(_angle(self.bones, self.straight).max())


def t_pose(pose: Placed, driven: dict[str, int]) -> TPose:
    """The axes of a person who stands in a T-pose; of one who does not, some axes, and limbs that are far off."""
    place = {joint: pose.places[driver] for joint, driver in driven.items()}
    across = place["left_hip"] - place["right_hip"] + place["left_shoulder"] - place["right_shoulder"]
    trunk = place["left_shoulder"] - place["left_hip"] + place["right_shoulder"] - place["right_hip"]
    up = _nearest_axis(trunk)
    left = across - (across @ up) * up
    if _angle(left, _nearest_axis(left)) < SNAP_RAD:
        left = _nearest_axis(left)
    left = _unit(left)
    facing = torch.stack([left, up, torch.linalg.cross(left, up)])
    bones = torch.stack([place[lower] - place[upper] for upper, lower in BONES])
    legs = float(bones[[bone == DOWN for bone in BONES.values()]].norm(dim=-1).sum()) / 2
    upright = turning(up, up.new_tensor([0.0, 1.0, 0.0]))
    return TPose(pose.rotations, _unit(bones @ facing.mT), upright, facing, legs)


def _unit(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _nearest_axis(direction: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
    axis = direction.abs().argmax()
    return torch.zeros_like(direction).index_fill(0, axis, 1.0) * direction[axis].sign()


def _angle(one: Float[Tensor, "*batch 3"], other: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
    """Between two directions; a vector of no length is at a right angle to all."""
    angle = torch.atan2(torch.linalg.cross(one, other).norm(dim=-1), (one * other).sum(dim=-1))
    return torch.where(one.norm(dim=-1) * other.norm(dim=-1) > 0, angle, math.pi / 2)


def turning(start: Float[Tensor, "3"], end: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The smallest rotation that takes one unit vector to another; a half turn is about any axis that does it."""
    axis = torch.linalg.cross(start, end)
    if axis.norm() < 1e-12:
        axis = torch.linalg.cross(start, start.roll(1))
    return roma.rotvec_to_rotmat(_unit(axis) * _angle(start, end))


def reference(capture: Capture, driven: dict[str, int], rest: Rest) -> tuple[TPose, int]:
    """The skeleton's T-pose, and the first frame that is motion.

    Zero angles are preferred: the T-pose frame of CMU's popular conversions was set by eye, its head bowed by 16
    degrees. Without a T-pose nothing can be told.
    """
    still = torch.eye(3).to(capture.rest).expand(len(capture.names), 3, 3)
    zero = t_pose(placed(capture.parents, still, capture.rest), driven)
    first = t_pose(placed(capture.parents, capture.rotations[0], capture.translations[0]), driven)
    start = 1 if rest == "first" or first.off_rad < POSES_RAD else 0
    if zero.off_rad < {"auto": STANDS_RAD, "zero": TOLD_RAD, "first": 0.0}[rest]:
        return zero, start
    if first.off_rad < {"auto": POSES_RAD, "zero": 0.0, "first": TOLD_RAD}[rest]:
        return first, start
    raise MeshrecError(
        f"no T-pose to start from: some limb is {math.degrees(zero.off_rad):.0f} degrees off when all angles are zero, "
        f"and {math.degrees(first.off_rad):.0f} in the first frame (say rest zero or first if it is one all the same)"
    )


def local_rotations(world: Float[Tensor, "T J 3 3"], pose: TPose, driven: dict[str, int]) -> Float[Tensor, "T 24 3 3"]:
    """`G = U W A^T C` for each joint of SMPL, and `G_parent^T G`; what nothing drives follows its parent."""
    bones = zip(BONES, pose.straight, pose.bones, strict=True)
    own = {upper: turning(straight, bone) for (upper, _), straight, bone in bones}
    corrections: list[Tensor] = []
    frames: list[Tensor] = []
    for joint, parent in zip(SMPL24.joints, SMPL24.parents, strict=True):
        above = corrections[parent] if parent >= 0 else torch.eye(3).to(world)
        corrections.append(own.get(joint, above))
        if joint in driven:
            turned = world[:, driven[joint]] @ pose.rotations[driven[joint]].mT
            frames.append(pose.upright @ turned @ pose.facing.mT @ corrections[-1])
        else:
            frames.append(frames[parent])
    local = [frames[0], *(frames[parent].mT @ frames[child] for parent, child in SMPL24.bones)]
    return torch.stack(local, dim=-3)


def motion_of(
    path: Path,
    capture: Capture,
    reading: Reading,
    source: str,
    unit_m: float | None = None,
) -> Motion:
    """The motion of the skeleton of the file at `path`, without the T-pose that stands before it."""
    try:
        driven = drivers(capture.names, capture.parents)
        pose, start = reference(capture, driven, reading.rest)
    except MeshrecError as error:
        raise MeshrecError(f"{path}: {error}. Its joints are {', '.join(capture.names)}.") from error
    if start == len(capture):
        raise MeshrecError(f"{path} has no frames but a T-pose.")
    world = placed(capture.parents, capture.rotations[start:], capture.translations[start:])
    rotations = local_rotations(world.rotations, pose, driven)
    unit_m = reading.unit_m or unit_m or guessed_unit_m(pose.legs)
    pelvis_m = unit_m * world.places[:, driven["pelvis"]] @ pose.upright.mT
    return checked(
        Motion(
            name=path.stem,
            subject=subject_of(path, reading.subject_from),
            source=reading.source or source,
            fps=capture.fps,
            axis_angle=roma.rotmat_to_rotvec(rotations).numpy(),
            transl_m=pelvis_m.numpy(),
            valid=np.ones(len(rotations), dtype=bool),
            file=str(path),
        )
    )


def guessed_unit_m(legs: float) -> float:
    """Of `UNITS_M` the one with which the legs come nearest, as a ratio, to those of a grown person."""
    return min(UNITS_M.values(), key=lambda unit_m: abs(math.log(unit_m * legs / LEGS_M)))
