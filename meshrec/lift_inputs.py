"""What `meshrec lift` is given: photographs, or files of keypoints without them, picture by picture."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.branches.lift import Points, points_of
from meshrec.camera import assumed_focal_px, centered_camera
from meshrec.detect import Detector
from meshrec.errors import MeshrecError
from meshrec.keypoint_entries import MOST_SIDE_PX, Listed
from meshrec.keypoint_files import KeypointFolder, open_keypoints
from meshrec.keypoints import box_of, enough_seen
from meshrec.photo import SUFFIXES, camera_of, entries_of, find_photos, look_at, read_photo
from meshrec.skeletons import H36M17
from meshrec.types import Camera, FocalSource, Keypoints, stack

IMAGE_PER_PERSON = 2.0
"""Side of the image that is assumed where its size is unknown, as a multiple of the largest person's."""

KEYPOINT_SUFFIXES = (".json", ".npz")

SizeSource = Literal["photo", "file", "given", "assumed"]
"""How the size of an image was found."""


@dataclass(frozen=True)
class Sizes:
    """What the user says of images."""

    size_px: tuple[int, int] | None = None
    focal_px: float | None = None


@dataclass(frozen=True)
class Picture:
    """An image and the people that are seen in it."""

    name: str
    source: Path
    """The photograph, or the file that lists its keypoints."""
    camera: Camera
    size_source: SizeSource
    people: tuple[Keypoints, ...]
    sights: tuple[Points, ...]
    """The people on the image plane."""
    persons: tuple[int, ...]
    """Which of the people of the image they are, counted from 0: some may be left out."""
    left_out: tuple[str, ...]
    """A sentence for each of those."""
    photo: Path | None = None


@dataclass(frozen=True)
class Job:
    """A picture that is still to be looked at."""

    name: str
    see: Callable[[], Picture]
    """A `MeshrecError` if there is nobody to lift in it."""


@dataclass(frozen=True)
class Jobs:
    """What the names on the command line lead to."""

    jobs: tuple[Job, ...]
    problems: tuple[str, ...]
    """A sentence for each name that leads nowhere."""
    photos: int
    """How many of the jobs are photographs."""


def find_jobs(names: Sequence[str], sizes: Sizes, detector: Callable[[Sequence[Path]], Detector]) -> Jobs:
    """Every picture that files, folders and patterns lead to, in their order.

    A folder with pictures is one of photographs, whatever else lies in it; any other one is of keypoint files.
    `detector` is built for the photographs once, and only if there are any. If no name leads anywhere it is a
    `MeshrecError`.
    """
    found: list[Listed | Path] = []
    sources: list[Path] = []
    problems: list[str] = []
    for name in names:
        try:
            for source, item in _meant_by(name):
                sources.append(source)
                found.append(item)
        except MeshrecError as error:
            problems.append(str(error))
    if not found:
        raise MeshrecError("\n".join(problems) or "Nothing was named to lift. Name photographs or keypoint files.")
    photos = [item for item in found if isinstance(item, Path)]
    detect = detector(photos) if photos else None
    jobs = []
    for source, item in zip(sources, found, strict=True):
        if isinstance(item, Listed):
            jobs.append(Job(item.name, partial(_listed, source, item, sizes)))
        else:
            assert detect is not None
            jobs.append(Job(item.name, partial(_photographed, item, detect, sizes)))
    return Jobs(tuple(jobs), tuple(problems), len(photos))


def _meant_by(name: str) -> list[tuple[Path, Listed | Path]]:
    """Pictures, each with its source: a photograph is its own."""
    path = Path(name).expanduser()
    if look_at(path) == "folder" and not any(entry.suffix.lower() in SUFFIXES for entry in entries_of(path)):
        return [pair for file in KeypointFolder(path).paths() for pair in _in_folder(file)]
    if path.suffix.lower() in KEYPOINT_SUFFIXES:
        return [(path, listed) for listed in _listed_in(path)]
    return [(photo, photo) for photo in find_photos([name]).photos]


def _in_folder(file: Path) -> list[tuple[Path, Listed | Path]]:
    """A bad file of a folder is told when its turn comes."""
    try:
        return [(file, listed) for listed in _listed_in(file)]
    except MeshrecError as error:
        return [(file, Listed(file.name, partial(_refuse, error)))]


def _refuse(error: MeshrecError) -> list:
    raise error


def _listed_in(path: Path) -> list[Listed]:
    """The pictures of a keypoint file; one without any is refused."""
    photos = open_keypoints(path).photos()
    if not photos:
        raise MeshrecError(f"{path} lists nobody: it has no keypoints of any image.")
    return photos


def _listed(source: Path, listed: Listed, sizes: Sizes) -> Picture:
    """The people of one image of a keypoint file, which need not be here."""
    people = tuple(entry.keypoints for entry in listed.read())
    known = [person for person in people if (person.confidence > 0).any()]
    if not people:
        raise MeshrecError(f"{source} lists nobody in {listed.name}.")
    if not known:
        raise MeshrecError(
            f"{source}: nobody with a known keypoint is in {listed.name}: all are missing or not finite."
        )
    if any(bool((person.xy_px[person.confidence > 0].abs() > MOST_SIDE_PX).any()) for person in known):
        raise MeshrecError(
            f"{source}: keypoints of {listed.name} lie beyond {MOST_SIDE_PX:,} px: no image is so large."
        )
    if all(bool((person.xy_px[person.confidence > 0].abs() <= 1).all()) for person in known):
        raise MeshrecError(
            f"{source}: the keypoints of {listed.name} lie between -1 and 1, so they are shares of the image; pixels "
            f"are needed (OpenPose: --keypoint_scale 0)."
        )
    size_px = listed.size_px
    if size_px and max(size_px) > MOST_SIDE_PX:
        raise MeshrecError(f"{source}: {listed.name} is said to be larger than {MOST_SIDE_PX:,} px: no image is.")
    size_source: SizeSource = "file" if size_px else "given" if sizes.size_px else "assumed"
    size_px = size_px or sizes.size_px
    camera = camera_of_people(known, sizes.focal_px) if size_px is None else camera_of_size(size_px, sizes.focal_px)
    return _picture(listed.name, source, camera, size_source, people)


def _photographed(path: Path, detect: Detector, sizes: Sizes) -> Picture:
    """The people of a photograph, as a detector finds them."""
    photo = read_photo(path)
    people = tuple(person.keypoints for person in detect(photo))
    if not people:
        raise MeshrecError(
            f"{path}: no person was found. Crop the picture to the person, or give the keypoints with --keypoints FILE."
        )
    return _picture(path.name, path, camera_of(photo, sizes.focal_px), "photo", people, path)


def _picture(
    name: str,
    source: Path,
    camera: Camera,
    size_source: SizeSource,
    people: Sequence[Keypoints],
    photo: Path | None = None,
) -> Picture:
    """The people who can be lifted, and a sentence for each other one."""
    everybody = points_of(stack(list(people)), camera.map(lambda tensor: tensor.expand(len(people), *tensor.shape)))
    sights = [everybody[index] for index in range(len(people))]
    faults = [_fault(person, sight) for person, sight in zip(people, sights, strict=True)]
    left_out = tuple(f"{name}, person {index}: {fault}" for index, fault in enumerate(faults) if fault)
    kept = [index for index, fault in enumerate(faults) if not fault]
    if not kept:
        raise MeshrecError(f"{source}: nobody can be lifted. {' '.join(left_out)}")
    chosen = tuple(people[index] for index in kept), tuple(sights[index] for index in kept)
    return Picture(name, source, camera, size_source, *chosen, tuple(kept), left_out, photo)


def _fault(person: Keypoints, sight: Points) -> str:
    """Why a person cannot be lifted; empty where nothing is in the way."""
    low, high = box_of(person, 0.0).split(2)
    if not (enough_seen(person) and bool((high > low).any())):
        return "too little is seen: four keypoints in different places are needed, a shoulder or hip among them."
    if not sight.liftable:
        return "no hip is seen, so where the pelvis is cannot be known."
    return ""


def camera_of_size(size_px: tuple[int, int], focal_px: float | None) -> Camera:
    """A camera that looks through the middle of its image; the focal length is given, or the diagonal."""
    if focal_px is None:
        return centered_camera(*size_px, assumed_focal_px(*size_px), "assumed")
    return centered_camera(*size_px, focal_px, "given")


def camera_of_people(people: Sequence[Keypoints], focal_px: float | None) -> Camera:
    """A camera for an image of unknown size: it looks at the middle of the keypoints.

    Its image is a square of twice the longest side of a person's box, and its focal length, unless given, the diagonal.
    """
    boxes = torch.stack([_known_box(person) for person in people])
    low, high = boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)
    side = max(1, math.ceil(IMAGE_PER_PERSON * float((boxes[:, 2:] - boxes[:, :2]).max())))
    source: FocalSource = "assumed" if focal_px is None else "given"
    focal = assumed_focal_px(side, side) if focal_px is None else focal_px
    return Camera(torch.tensor(float(focal)), (low + high) / 2, side, side, source)


def _known_box(person: Keypoints) -> Float[Tensor, "4"]:
    """The box of the seen keypoints; where none is seen, of the known ones."""
    box = box_of(person, 0.0)
    known = person.xy_px[person.confidence > 0]
    return box if box.isfinite().all() else torch.cat([known.amin(dim=0), known.amax(dim=0)])


def in_h36m17_px(sight: Points, camera: Camera) -> Float[Tensor, "17 2"]:
    """The H36M-17 points in pixels again; those that are not known are not finite."""
    xy_px = sight.points * camera.focal_px + camera.center_px
    assert xy_px.shape[0] == len(H36M17)
    return torch.where(sight.known[:, None], xy_px, torch.nan)
