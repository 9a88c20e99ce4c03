"""Motions of BVH files.

Any skeleton whose joints have the names of the trade, with channels in any order; joints that SMPL lacks give their
rotations to the next ones below. See `meshrec.data.retarget` for the T-pose and the unit of length.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.data.motion import Motion, Reading
from meshrec.data.retarget import Capture, motion_of
from meshrec.data.text_file import Line, TextFile, read_text

AXES = "xyz"

CHANNELS = {f"{axis}{kind}" for axis in AXES for kind in ("position", "rotation")}

FIELDS = ("OFFSET", "CHANNELS")


@dataclass(frozen=True)
class Block:
    """The statement before a pair of braces, and those between them."""

    head: Line
    parent: int
    """The block around it; -1 for the outermost."""
    fields: dict[str, Line]
    """The statements of `FIELDS`."""


@dataclass(frozen=True)
class Joint:
    """A joint of the hierarchy."""

    name: str
    parent: int
    offset: tuple[float, ...]
    """From the parent's joint, in the file's unit."""
    channels: tuple[str, ...]
    """In the order of the file, in small letters. Rotations are about axes that turn along: the first is outermost."""


def read_bvh(path: Path, reading: Reading | None = None) -> Motion:
    """The motion of a BVH file, without the T-pose that may stand before it."""
    file = read_text(path)
    start = next((index for index, line in enumerate(file.lines) if line.words[0].upper() == "MOTION"), None)
    if start is None:
        raise file.fault(None, "there is no MOTION; this is no BVH file, or it is cut off")
    joints = _joints(file, _blocks(file, file.lines[:start]))
    values, fps = _frames(file, file.lines[start + 1 :], joints)
    return motion_of(path, _capture(joints, values, fps), reading or Reading(), source="bvh")


def _blocks(file: TextFile, lines: Sequence[Line]) -> list[Block]:
    """The nested blocks of the hierarchy, outer ones first."""
    blocks: list[Block] = []
    around: list[int] = []
    last: Line | None = None
    for statement in _statements(lines):
        if statement.words == ("{",):
            if last is None:
                raise file.fault(statement, "a brace opens without a joint before it")
            blocks.append(Block(last, around[-1] if around else -1, {}))
            around.append(len(blocks) - 1)
            last = None
            continue
        if last and around:
            if last.words[0].upper() not in FIELDS:
                raise file.fault(last, f"{last.words[0]} has no place here")
            blocks[around[-1]].fields[last.words[0].upper()] = last
        last = statement
        if statement.words == ("}",):
            if not around:
                raise file.fault(statement, "a brace closes that was not opened")
            around.pop()
            last = None
    if around:
        raise file.fault(blocks[around[-1]].head, "its brace is never closed")
    return blocks


def _statements(lines: Iterable[Line]) -> Iterator[Line]:
    """Lines, with braces on lines of their own."""
    for line in lines:
        for part in re.split(r"([{}])", line.text):
            if part.strip():
                yield Line(line.number, part.strip())


def _joints(file: TextFile, blocks: list[Block]) -> list[Joint]:
    """The joints, parents first; End Sites are no joints."""
    kinds = [block.head.words[0].upper() for block in blocks]
    for block, kind in zip(blocks, kinds, strict=True):
        outermost = block.parent < 0
        if kind not in ("ROOT", "JOINT", "END") or outermost != (kind == "ROOT"):
            raise file.fault(block.head, f"{' '.join(block.head.words)} has no place here")
    if kinds.count("ROOT") != 1:
        raise file.fault(None, f"one ROOT is needed, {kinds.count('ROOT')} found")
    kept = [index for index, kind in enumerate(kinds) if kind != "END"]
    for index in kept[1:]:
        if blocks[index].parent not in kept:
            raise file.fault(blocks[index].head, "a joint stands inside an End Site")
    return [_joint(file, blocks[index], kept) for index in kept]


def _joint(file: TextFile, block: Block, kept: list[int]) -> Joint:
    for name in FIELDS:
        if name not in block.fields:
            raise file.fault(block.head, f"the joint has no {name}")
    offset, channels = block.fields["OFFSET"], block.fields["CHANNELS"]
    names = tuple(word.lower() for word in channels.words[2:])
    if unknown := set(names) - CHANNELS:
        raise file.fault(channels, f"{', '.join(sorted(unknown))} is no channel")
    if len(set(names)) < len(names):
        raise file.fault(channels, "one channel is named twice")
    if channels.words[1:2] != (str(len(names)),):
        raise file.fault(channels, f"{len(names)} channels are named, not {' '.join(channels.words[1:2])}")
    parent = kept.index(block.parent) if block.parent >= 0 else -1
    return Joint(" ".join(block.head.words[1:]), parent, tuple(file.numbers(offset, offset.words[1:], 3)), names)


def _frames(file: TextFile, lines: Sequence[Line], joints: list[Joint]) -> tuple[Float[Tensor, "T C"], float]:
    """The channels' values, in the file's units, and the frames a second."""
    announced = [" ".join(line.words).lower() for line in lines[:2]]
    if len(lines) < 2 or not announced[0].startswith("frames:") or not announced[1].startswith("frame time:"):
        raise file.fault(lines[0] if lines else None, "Frames: and Frame Time: should follow MOTION")
    (count,) = file.numbers(lines[0], lines[0].words[1:], 1)
    (seconds,) = file.numbers(lines[1], lines[1].words[2:], 1)
    if seconds <= 0:
        raise file.fault(lines[1], f"the time of a frame is {seconds} s; a number above 0 is needed")
    rows = lines[2:]
    if len(rows) != count or not rows:
        raise file.fault(lines[0], f"{count:.0f} frames are announced, {len(rows)} found")
    file.refuse_too_many(len(joints), len(rows))
    width = sum(len(joint.channels) for joint in joints)
    return file.table(((row, row.words) for row in rows), width), round(1 / seconds, 2)


def _capture(joints: list[Joint], values: Float[Tensor, "T C"], fps: float) -> Capture:
    """Channels as rotations and translations; a position channel takes the place of the offset along its axis."""
    rest = torch.tensor([joint.offset for joint in joints]).to(values)
    translations = rest.repeat(len(values), 1, 1)
    rotations: list[Tensor] = []
    columns = iter(values.unbind(dim=1))
    for index, joint in enumerate(joints):
        own = [(name[0], name[1:], next(columns)) for name in joint.channels]
        for axis, kind, column in own:
            if kind == "position":
                translations[:, index, AXES.index(axis)] = column
        turns = [(axis.upper(), column) for axis, kind, column in own if kind == "rotation"]
        rotations.append(_turned(turns, len(values)))
    return Capture(
        tuple(joint.name for joint in joints),
        tuple(joint.parent for joint in joints),
        rest,
        torch.stack(rotations, dim=1),
        translations,
        fps,
    )


def _turned(turns: list[tuple[str, Tensor]], frames: int) -> Float[Tensor, "T 3 3"]:
    """R = R_first ... R_last, from degrees; a joint without such channels does not turn."""
    if not turns:
        return torch.eye(3, dtype=torch.float64).expand(frames, 3, 3)
    axes, columns = zip(*turns, strict=True)
    return roma.euler_to_rotmat("".join(axes), list(columns), degrees=True)
