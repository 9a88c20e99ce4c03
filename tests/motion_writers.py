"""Writers of BVH and of ASF/AMC, for the tests: any skeleton, rest pose, order of channels, unit and up axis."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import roma
import torch
from torch import Tensor

from meshrec.kinematics import pose_tree
from meshrec.skeletons import SMPL24

INCH, CM, CMU = 0.0254, 0.01, 0.0254 / 0.45
EYE = torch.eye(3, dtype=torch.float64)
HANDS = SMPL24.indices("left_hand", "right_hand")


@dataclass(frozen=True)
class Rig:
    """A skeleton to write: (name, parent, SMPL's joint or nothing, offset in metres in a T-pose that faces +z)."""

    tree: tuple[tuple[str, str, str, tuple[float, float, float]], ...]

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.tree]

    @property
    def parents(self) -> list[int]:
        return [self.names.index(parent) if parent else -1 for _, parent, *_ in self.tree]

    @property
    def offsets(self) -> Tensor:
        return torch.tensor([offset for *_, offset in self.tree], dtype=torch.float64)

    def joint(self, name: str) -> str:
        return self.tree[self.names.index(name)][2]

    def without(self, name: str) -> "Rig":
        """The joint's children hang on its parent."""
        parent = self.tree[self.names.index(name)][1]
        kept = (row for row in self.tree if row[0] != name)
        return Rig(tuple((row[0], parent if row[1] == name else row[1], *row[2:]) for row in kept))

    def renamed(self, rename: Callable[[str], str]) -> "Rig":
        return Rig(tuple((rename(name), rename(parent) if parent else "", *rest) for name, parent, *rest in self.tree))


Row = tuple[str, str, str, tuple[float, float, float]]


def both_sides(*rows: Row) -> list[Row]:
    """The rows, and their mirror images."""
    swapped = [
        (other_side(name), other_side(parent), joint.replace("left", "right"), (-x, y, z))
        for name, parent, joint, (x, y, z) in rows
    ]
    return [*rows, *swapped]


def other_side(name: str) -> str:
    for left, right in (("Left", "Right"), ("LHip", "RHip"), ("LThumb", "RThumb")):
        name = name.replace(left, right)
    return name


CMU_RIG = Rig(
    (
        ("Hips", "", "pelvis", (0.0, 0.0, 0.0)),
        *both_sides(
            ("LHipJoint", "Hips", "", (0.0, 0.0, 0.0)),
            ("LeftUpLeg", "LHipJoint", "left_hip", (0.09, -0.09, 0.02)),
            ("LeftLeg", "LeftUpLeg", "left_knee", (0.0, -0.41, 0.0)),
            ("LeftFoot", "LeftLeg", "left_ankle", (0.0, -0.40, 0.0)),
            ("LeftToeBase", "LeftFoot", "left_foot", (0.0, -0.05, 0.13)),
        ),
        ("LowerBack", "Hips", "spine1", (0.0, 0.0, 0.0)),
        ("Spine", "LowerBack", "spine2", (0.0, 0.12, -0.01)),
        ("Spine1", "Spine", "spine3", (0.0, 0.13, 0.0)),
        ("Neck", "Spine1", "neck", (0.0, 0.11, 0.0)),
        ("Neck1", "Neck", "", (0.0, 0.08, 0.01)),
        ("Head", "Neck1", "head", (0.0, 0.08, 0.0)),
        *both_sides(
            ("LeftShoulder", "Spine1", "left_collar", (0.0, 0.11, 0.0)),
            ("LeftArm", "LeftShoulder", "left_shoulder", (0.19, 0.03, -0.02)),
            ("LeftForeArm", "LeftArm", "left_elbow", (0.27, 0.0, 0.0)),
            ("LeftHand", "LeftForeArm", "left_wrist", (0.25, 0.0, 0.0)),
            ("LeftFingerBase", "LeftHand", "", (0.0, 0.0, 0.0)),
            ("LThumb", "LeftHand", "", (0.0, 0.0, 0.0)),
        ),
    )
)
"""CMU's skeleton as its conversions name it."""

EXTRA = ("LHipJoint", "RHipJoint", "Neck1", "LeftFingerBase", "RightFingerBase", "LThumb", "RThumb")


def without_extra() -> Rig:
    rig = CMU_RIG
    for name in EXTRA:
        rig = rig.without(name)
    return rig


PLAIN_RIG = without_extra()
"""One joint for each of SMPL's but the hands."""


def random_rotations(generator: torch.Generator, *shape: int, spread_rad: float = 0.5) -> Tensor:
    return roma.rotvec_to_rotmat(spread_rad * torch.randn(*shape, 3, generator=generator, dtype=torch.float64))


def random_motion(seed: int, frames: int = 4) -> tuple[Tensor, Tensor]:
    """Local rotations with straight hands and the root turned anyhow, and places of the pelvis."""
    generator = torch.Generator().manual_seed(seed)
    rotations = random_rotations(generator, frames, len(SMPL24))
    rotations[:, 0] = random_rotations(generator, frames, spread_rad=2.0)
    rotations[:, HANDS] = EYE
    return rotations, torch.randn(frames, 3, generator=generator, dtype=torch.float64)


def world_of(rotations: Tensor) -> Tensor:
    return pose_tree(rotations, rotations.new_zeros(rotations.shape[:-1])).world


@dataclass(frozen=True)
class Style:
    """How a BVH file is written."""

    unit_m: float = CM
    crooked: bool = False
    """Zero angles are some heap of bones, so the T-pose must stand in the first frame."""
    t_frame: bool = False
    facing: Tensor = EYE
    """The world to the axes of the person in the T-pose."""
    upright: Tensor = EYE
    """The world to y up."""
    slant: Mapping[str, Tensor] = field(default_factory=dict)
    """SMPL's bone to the skeleton's in the T-pose, by SMPL's joint; what is not named is as SMPL's."""


def written_worlds(rig: Rig, rotations: Tensor, style: Style, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """World rotations of the rig's joints in the T-pose and in every frame, and the axes that they have at rest.

    A joint that is none of SMPL's turns as it likes; what is below makes up for it.
    """
    world = world_of(rotations)
    rest, frames = [], []
    for name in rig.names:
        own = random_rotations(generator, spread_rad=2.0) if style.crooked else EYE
        if joint := rig.joint(name):
            turned = world[:, SMPL24.index(joint)] @ style.slant.get(joint, EYE).mT
        else:
            turned = random_rotations(generator, len(rotations))
        rest.append(own)
        frames.append(style.upright.mT @ turned @ own)
    rest = torch.stack(rest)
    return rest, torch.cat([(style.facing.mT @ rest)[None], torch.stack(frames, dim=1)])


def write_bvh(
    path: Path, rig: Rig, rotations: Tensor, transl_m: Tensor, style: Style | None = None, seed: int = 0
) -> Path:
    """A BVH file with an order of channels for every joint."""
    style = style or Style()
    generator, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    rest, world = written_worlds(rig, rotations, style, generator)
    parents, columns, text = rig.parents, [], {}
    for joint, parent in enumerate(parents):
        local = world[:, parent].mT @ world[:, joint] if parent >= 0 else world[:, joint]
        order = "".join(random.permutation(list("XYZ")))
        angles = roma.rotmat_to_euler(order, local, as_tuple=True, degrees=True)
        channels = [f"{axis}rotation" for axis in order]
        offset = rig.offsets[joint] / style.unit_m
        if parent < 0:
            places = torch.cat([torch.zeros(1, 3), transl_m @ style.upright]) / style.unit_m
            shifts = random.permutation(3)
            channels = [f"{'XYZ'[axis]}position" for axis in shifts] + channels
            columns += [places[:, axis] for axis in shifts]
        else:
            offset = rest[parent].mT @ offset
        columns += list(angles)
        text[joint] = f"OFFSET {numbers(offset)}\nCHANNELS {len(channels)} {' '.join(channels)}\n"
    rows = torch.stack(columns, dim=1)[0 if style.t_frame else 1 :]
    motion = f"MOTION\nFrames: {len(rows)}\nFrame Time: .0083333\n" + "\n".join(map(numbers, rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"HIERARCHY\nROOT {branch(rig, 0, text)}{motion}\n")
    return path


END_SITE = "End Site\n{\nOFFSET 0 1 0\n}\n"


def branch(rig: Rig, joint: int, text: dict[int, str]) -> str:
    children = [child for child, parent in enumerate(rig.parents) if parent == joint]
    below = "".join(f"JOINT {branch(rig, child, text)}" for child in children)
    return f"{rig.names[joint]}\n{{\n{text[joint]}{below or END_SITE}}}\n"


def numbers(row: Tensor) -> str:
    return " ".join(f"{value:.12g}" for value in row.tolist())


ACCLAIM = {"UpLeg": "femur", "Leg": "tibia", "Foot": "foot", "ToeBase": "toes", "Shoulder": "clavicle"}
ACCLAIM |= {"Arm": "humerus", "ForeArm": "radius", "Hand": "wrist", "FingerBase": "hand"}
ACCLAIM_MIDDLE = {"Hips": "root", "LowerBack": "lowerback", "Spine": "upperback", "Spine1": "thorax"}
ACCLAIM_MIDDLE |= {"Neck": "lowerneck", "Neck1": "upperneck", "Head": "head", "LThumb": "lthumb", "RThumb": "rthumb"}
ACCLAIM_MIDDLE |= {"LHipJoint": "lhipjoint", "RHipJoint": "rhipjoint"}


def acclaim_name(name: str) -> str:
    for side in ("Left", "Right"):
        if name.startswith(side):
            return side[0].lower() + ACCLAIM[name.removeprefix(side)]
    return ACCLAIM_MIDDLE[name]


def write_amc(path: Path, rig: Rig, rotations: Tensor, transl_m: Tensor, style: Style, seed: int = 0) -> Path:
    """An AMC file and its ASF file, with axes and an order of angles for every bone."""
    generator, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    _, world = written_worlds(rig, rotations, style, generator)
    parents, data, frames = rig.parents, [], [[] for _ in rotations]
    ends = {name: rig.offsets[rig.parents.index(joint)] for joint, name in enumerate(rig.names) if joint in rig.parents}
    for joint, name in enumerate(rig.names):
        bone, order = acclaim_name(name), random.permutation(list("xyz"))
        dof = " ".join(f"r{axis}" for axis in order)
        local = (world[:, parents[joint]].mT if joint else EYE) @ world[:, joint]
        axis_order = "".join(random.permutation(list("XYZ")))
        angles = 180 * (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1)
        axes = EYE if not joint else roma.euler_to_rotmat(axis_order.lower(), angles, degrees=True)
        own = roma.rotmat_to_euler("".join(order), axes.mT @ local @ axes, degrees=True)[1:]
        vector = ends.get(name, torch.tensor([0.0, 0.1, 0.0], dtype=torch.float64)) / style.unit_m
        if joint:
            length = vector.norm()
            direction = numbers(vector / length.clamp(min=1e-9))
            data.append(
                f"begin\nid {joint}\nname {bone}\ndirection {direction}\nlength {length:.12g}\n"
                f"axis {numbers(angles)} {axis_order}\ndof {dof}\nlimits (-180 180)\n(-180 180)\n(-180 180)\nend\n"
            )
        else:
            own = torch.cat([own, transl_m / style.unit_m], dim=1)
            root = f"order {dof.upper()} TX TY TZ\naxis XYZ\nposition 0 0 0\norientation 0 0 0\n"
        for frame, row in zip(frames, own, strict=True):
            frame.append(f"{bone} {numbers(row)}")
    children = {
        parent: " ".join(acclaim_name(rig.names[child]) for child, other in enumerate(parents) if other == parent)
        for parent in sorted({parent for parent in parents if parent >= 0}, reverse=True)
    }
    hierarchy = "".join(f"{acclaim_name(rig.names[parent])} {names}\n" for parent, names in children.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.stem.partition("_")[0] + ".asf").write_text(
        f"# a comment\n:version 1.10\n:name VICON\n:units\nmass 1.0\nlength {0.0254 / style.unit_m:.12g}\nangle deg\n"
        f":documentation\nwritten for a test\n:root\n{root}:bonedata\n{''.join(data)}"
        f":hierarchy\nbegin\n{hierarchy}end\n"
    )
    rows = "".join(f"{number}\n" + "\n".join(frame) + "\n" for number, frame in enumerate(frames, start=1))
    path.write_text(f"#!OML:ASF F:\\x.ASF\n:FULLY-SPECIFIED\n:DEGREES\n{rows}")
    return path


def slanted(rig: Rig, turns: Mapping[str, Tensor]) -> Rig:
    """The rig with its bones turned at rest, by SMPL's joint at their beginning."""
    tree = []
    for name, parent, joint, offset in rig.tree:
        turn = turns.get(rig.joint(parent), EYE) if parent else EYE
        tree.append((name, parent, joint, tuple((turn @ torch.tensor(offset, dtype=torch.float64)).tolist())))
    return Rig(tuple(tree))
