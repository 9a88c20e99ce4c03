"""Which of the layouts that hold joints a file has, in 3D or in 2D, told by its name and by the arrays in it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from meshrec.arrays import array_names
from meshrec.data.motion_files import NO_MOTION
from meshrec.data.poses import MARK
from meshrec.errors import MeshrecError

Layout = Literal["capture", "motion", "h36m_3d", "h36m_2d", "mmpose", "keypoints", "coco"]

IN_2D: tuple[Layout, ...] = ("h36m_2d", "mmpose", "keypoints", "coco")

SUFFIXES = (".npz", ".bvh", ".amc", ".json")

Read = TypeVar("Read")

_MARKS: tuple[tuple[set[str], Layout], ...] = (
    ({"joints17", "clip_start"}, "capture"),
    ({"positions_3d"}, "h36m_3d"),
    ({"positions_2d"}, "h36m_2d"),
    ({"part", "imgname"}, "mmpose"),
    ({"xy_px", "confidence"}, "keypoints"),
)
"""The arrays by which each layout of `.npz` is known."""


def layout_of(path: Path) -> Layout:
    """The layout of a file, or of a folder that is a collection of poses; an `.npz` of none of them is a motion."""
    if path.is_dir() or path.suffix.lower() in (".bvh", ".amc"):
        return "motion"
    if path.suffix.lower() == ".json":
        return "coco"
    if path.suffix.lower() != ".npz":
        raise MeshrecError(f"{path} holds no joints that can be read: {', '.join(SUFFIXES)} are.")
    names = set(array_names(path))
    for marks, layout in _MARKS:
        if marks <= names:
            return layout
    return "motion"


def find_joint_files(paths: Iterable[Path]) -> list[Path]:
    """Every file that may hold joints among the paths and in the folders among them; a collection is one of them."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise MeshrecError(f"There is no {path}.")
        inside = _inside(path) if path.is_dir() else [path]
        if not inside:
            raise MeshrecError(f"{path} holds no file of joints: {', '.join(SUFFIXES)} are read.")
        files += inside
    return list(dict.fromkeys(files))


def _inside(folder: Path) -> list[Path]:
    """The files and collections in a folder, which may be a collection itself."""
    if (folder / MARK).is_file():
        return [folder]
    parts = [part for part in sorted(folder.iterdir()) if not part.name.startswith(".")]
    return [
        found for part in parts for found in (_inside(part) if part.is_dir() else [part]) if _may_hold_joints(found)
    ]


def _may_hold_joints(path: Path) -> bool:
    other = any(path.match(pattern) for pattern in NO_MOTION)
    return path.is_dir() or (path.suffix.lower() in SUFFIXES and path.is_file() and not other)


def read_each(paths: Sequence[Path], read: Callable[[Path], Read], what: str) -> tuple[list[Read], tuple[str, ...]]:
    """What each file among the paths gives, and a sentence for every one that cannot be read; none at all is an error.

    `what` is looked for, for messages.
    """
    if not paths:
        raise MeshrecError(f"No {what} are named: give files of them, or folders of such files.")
    found, problems = _told(paths, lambda path: find_joint_files([path]))
    files = list(dict.fromkeys(file for inside in found for file in inside))
    given, more = _told(files, read)
    if not given:
        raise MeshrecError("\n".join((*problems, *more)))
    return given, (*problems, *more)


def _told(paths: Iterable[Path], read: Callable[[Path], Read]) -> tuple[list[Read], tuple[str, ...]]:
    """What can be read, and what is wrong with the rest."""
    given: list[Read] = []
    problems: list[str] = []
    for path in paths:
        try:
            given.append(read(path))
        except MeshrecError as error:
            problems.append(str(error))
    return given, tuple(problems)
