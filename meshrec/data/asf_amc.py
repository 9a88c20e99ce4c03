"""Motions of the Acclaim format: a skeleton, `02.asf`, and beside it the motions of its owner, `02_01.amc`.

A bone turns at the end of the bone above it, about axes of its own. With C the rotation of those axes, given in the ASF
file, and R the rotation of the AMC file, it turns by C R C^T. Angles are about fixed axes, the first named first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.data.motion import Motion, Reading
from meshrec.data.retarget import Capture, motion_of
from meshrec.data.text_file import Line, TextFile, read_text
from meshrec.errors import MeshrecError

ROOT = "root"

SHIFTS, TURNS = ("tx", "ty", "tz"), ("rx", "ry", "rz")

INCH_M = 0.0254

BONE_FIELDS = ("name", "direction", "length", "axis")


@dataclass(frozen=True)
class Bone:
    """A bone of the skeleton; the root is one of no length."""

    name: str
    vector: Float[Tensor, "3"]
    """From its beginning to its end, in the file's unit, when all angles are zero."""
    axes: Float[Tensor, "3 3"]
    """C: the bone's own axes in the world's."""
    freedom: tuple[str, ...]
    """What the numbers of an AMC file are, in order: `tx` to `rz`."""


@dataclass(frozen=True)
class AcclaimSkeleton:
    """What an ASF file holds."""

    bones: tuple[Bone, ...]
    """The root first, parents before children."""
    parents: tuple[int, ...]
    unit_m: float | None
    """Metres in the unit of length, where the file tells; CMU's tells 0.45, which divides inches."""
    degrees: bool


def read_amc(path: Path, reading: Reading | None = None) -> Motion:
    """The motion of an AMC file on the skeleton of the ASF file beside it."""
    reading = reading or Reading()
    skeleton = read_asf(asf_of(path))
    file = read_text(path, comment="#")
    capture = _capture(file, skeleton, reading.amc_fps)
    return motion_of(path, capture, reading, "amc", skeleton.unit_m)


def asf_of(path: Path) -> Path:
    """The skeleton of a motion: of the same name up to the first `_`, or the only one in the folder."""
    named = path.with_name(path.stem.partition("_")[0] + ".asf")
    others = sorted(path.parent.glob("*.asf"))
    if not named.is_file() and len(others) != 1:
        raise MeshrecError(f"{path} needs the skeleton that it moves: put {named.name} beside it.")
    return named if named.is_file() else others[0]


def read_asf(path: Path) -> AcclaimSkeleton:
    """The skeleton of an ASF file."""
    file = read_text(path, comment="#")
    sections = _sections(file)
    units = {line.words[0].lower(): line for line in sections["units"]}
    degrees = "angle" not in units or units["angle"].words[1:2] != ("rad",)
    length = file.numbers(units["length"], units["length"].words[1:], 1)[0] if "length" in units else 1.0
    bones = [_root(file, sections["root"]), *(_bone(file, block, degrees) for block in _blocks(file, sections))]
    order, parents = _tree(file, sections["hierarchy"], [bone.name for bone in bones])
    unit_m = INCH_M / length if length not in (0.0, 1.0) else None
    return AcclaimSkeleton(tuple(bones[index] for index in order), parents, unit_m, degrees)


def _sections(file: TextFile) -> dict[str, list[Line]]:
    """The lines below each keyword."""
    sections: dict[str, list[Line]] = {"units": []}
    lines: list[Line] = []
    for line in file.lines:
        if line.words[0].startswith(":"):
            lines = sections.setdefault(line.words[0][1:].lower(), [])
        else:
            lines.append(line)
    if missing := [name for name in ("root", "bonedata", "hierarchy") if name not in sections]:
        raise file.fault(None, f"there is no :{missing[0]}; this is no ASF file, or it is cut off")
    return sections


def _root(file: TextFile, lines: Sequence[Line]) -> Bone:
    fields = {line.words[0].lower(): line for line in lines}
    for name in ("position", "orientation"):
        if name in fields and any(file.numbers(fields[name], fields[name].words[1:], 3)):
            raise file.fault(fields[name], f"a {name} of the root other than 0 is not understood")
    if "order" not in fields:
        raise file.fault(None, "the root has no order")
    none = torch.zeros(3, dtype=torch.float64)
    return Bone(ROOT, none, torch.eye(3, dtype=torch.float64), _freedom(file, fields["order"], SHIFTS + TURNS))


def _freedom(file: TextFile, line: Line, known: tuple[str, ...]) -> tuple[str, ...]:
    freedom = tuple(word.lower() for word in line.words[1:])
    if (unknown := set(freedom) - set(known)) or len(set(freedom)) < len(freedom):
        raise file.fault(line, f"{' '.join(sorted(unknown)) or 'one freedom twice'} is not understood")
    return freedom


def _blocks(file: TextFile, sections: dict[str, list[Line]]) -> list[dict[str, Line]]:
    """The fields of each bone by their first word."""
    blocks: list[dict[str, Line]] = []
    for line in sections["bonedata"]:
        if line.words[0] == "begin":
            blocks.append({"begin": line})
        elif blocks:
            blocks[-1].setdefault(line.words[0].lower(), line)
    for block in blocks:
        if missing := [name for name in BONE_FIELDS if name not in block]:
            raise file.fault(block["begin"], f"the bone has no {missing[0]}")
    return blocks


def _bone(file: TextFile, block: dict[str, Line], degrees: bool) -> Bone:
    name, direction, length, axis = (block[field] for field in BONE_FIELDS)
    order = axis.words[4:5] or ("XYZ",)
    if not re.fullmatch(r"[xyzXYZ]{3}", order[0]):
        raise file.fault(axis, f"{order[0]} is no order of axes")
    vector = torch.tensor(file.numbers(direction, direction.words[1:], 3), dtype=torch.float64)
    angles = torch.tensor(file.numbers(axis, axis.words[1:4], 3), dtype=torch.float64)
    return Bone(
        " ".join(name.words[1:]).lower(),
        vector * file.numbers(length, length.words[1:], 1)[0],
        roma.euler_to_rotmat(order[0].lower(), angles, degrees=degrees),
        _freedom(file, block["dof"], TURNS) if "dof" in block else (),
    )


def _tree(file: TextFile, lines: Sequence[Line], names: list[str]) -> tuple[list[int], tuple[int, ...]]:
    """The bones from the root down, and each one's parent among them."""
    above: dict[str, str] = {}
    for line in lines:
        parent, *children = (word.lower() for word in line.words)
        for child in children:
            if child not in names or parent not in names or child in above or child == ROOT:
                raise file.fault(line, f"{parent} cannot be above {child}: one bone of each name, each below one other")
            above[child] = parent
    order = [ROOT]
    for parent in order:
        order += [child for child, upper in above.items() if upper == parent]
    if lost := set(names) - set(order):
        raise file.fault(None, f"the root has no {', '.join(sorted(lost))} below it")
    return [names.index(name) for name in order], (-1, *(order.index(above[name]) for name in order[1:]))


def _capture(file: TextFile, skeleton: AcclaimSkeleton, fps: float) -> Capture:
    """The motion of the skeleton; a bone's joint is at its beginning."""
    frames, degrees = _frames(file, skeleton)
    file.refuse_too_many(len(skeleton.bones), len(frames))
    bones, parents = skeleton.bones, skeleton.parents
    rest = torch.stack([bones[parent].vector if parent >= 0 else bones[0].vector for parent in parents])
    translations = rest.repeat(len(frames), 1, 1)
    rotations: list[Tensor] = []
    for bone in bones:
        values = file.table(((frame[bone.name], frame[bone.name].words[1:]) for frame in frames), len(bone.freedom))
        turns = [index for index, freedom in enumerate(bone.freedom) if freedom in TURNS]
        for index, freedom in enumerate(bone.freedom):
            if freedom in SHIFTS:
                translations[:, 0, SHIFTS.index(freedom)] = values[:, index]
        order = "".join(bone.freedom[index][1] for index in turns)
        turned = roma.euler_to_rotmat(order, values[:, turns], degrees=degrees) if turns else torch.eye(3).to(values)
        rotations.append((bone.axes @ turned @ bone.axes.mT).expand(len(frames), 3, 3))
    return Capture(tuple(bone.name for bone in bones), parents, rest, torch.stack(rotations, dim=1), translations, fps)


def _frames(file: TextFile, skeleton: AcclaimSkeleton) -> tuple[list[dict[str, Line]], bool]:
    """The line of every bone in every frame, and whether angles are in degrees."""
    frames: list[dict[str, Line]] = []
    names = {bone.name for bone in skeleton.bones}
    number, degrees, still = 0, skeleton.degrees, Line(0, "")
    for line in file.lines:
        word = line.words[0].lower()
        if word.startswith(":"):
            degrees = {":degrees": True, ":radians": False}.get(word, degrees)
        elif re.fullmatch(r"[0-9]{1,9}", line.text):
            _refuse_holes(file, skeleton, frames[-1:], line)
            if frames and int(word) != number + 1:
                raise file.fault(line, f"frame {number} is followed by frame {word}")
            number = int(word)
            frames.append({bone.name: still for bone in skeleton.bones if not bone.freedom})
        elif not frames:
            raise file.fault(line, "a frame should begin with its number")
        elif word not in names or word in frames[-1]:
            raise file.fault(line, f"{word} is no bone that can move, or stands twice in the frame")
        else:
            frames[-1][word] = line
    _refuse_holes(file, skeleton, frames[-1:], None)
    if not frames:
        raise file.fault(None, "there are no frames")
    return frames, degrees


def _refuse_holes(file: TextFile, skeleton: AcclaimSkeleton, frames: list[dict[str, Line]], next_: Line | None) -> None:
    """Every frame moves all bones that can move."""
    for frame in frames:
        if missing := [bone.name for bone in skeleton.bones if bone.name not in frame]:
            raise file.fault(next_, f"the frame above lacks {', '.join(missing)}")
