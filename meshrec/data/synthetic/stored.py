"""Synthetic people as records: the stored part of their photographs, joints as a detector would find them, the truth.

The photograph itself is never drawn: the part of it that a record keeps is, at the size that it is kept in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from meshrec.data.body_joints import BODY58
from meshrec.data.detector_errors import DetectorErrors, detected_like
from meshrec.data.record_writer import JPEG_QUALITY, PICTURE_MARGIN, PICTURE_PX, NewRecord, Picture
from meshrec.data.records import Truth
from meshrec.data.synthetic.draw import pictures
from meshrec.data.synthetic.photograph import (
    COCO_ROWS,
    LEAST_SEEN,
    Sitter,
    jpeg,
    photographed,
    sitters,
    whole_maps,
    whom_about,
    write_jpeg,
)
from meshrec.data.synthetic.scene import Scene, Synthesizer
from meshrec.data.synthetic.surface import Surface
from meshrec.files import write_whole
from meshrec.randomness import generator_of
from meshrec.skeletons import COCO17
from meshrec.types import Keypoints, Square, stack

STREAM = "synthesize"
"""Of chance."""

DRAWN_PX = PICTURE_PX + 2
"""Stored pictures are cut out of squares of so many pixels."""


def new_records(
    scenes: Sequence[Scene],
    people: Sequence[Sitter],
    surface: Surface,
    errors: DetectorErrors,
    randoms: Sequence[np.random.Generator],
) -> list[NewRecord]:
    """A record of each person, who is in the scene at the same place; the generators are the detector's chance."""
    weight = torch.stack([one.seen.weight[COCO_ROWS] for one in people])
    points = torch.stack([one.xy_px[COCO_ROWS] for one in people])
    size_px = torch.stack([one.size_px for one in people])
    xy_px, confidence = detected_like(points, weight, size_px, errors, randoms)
    stored = stored_pictures(scenes, [one.box_xyxy_px for one in people], surface)
    return [
        NewRecord(
            picture=picture,
            box_xyxy_px=one.box_xyxy_px,
            keypoints=Keypoints(xy_px[row], confidence[row], COCO17),
            camera=scene.camera,
            truth=Truth(one.params, "neutral"),
        )
        for row, (scene, one, picture) in enumerate(zip(scenes, people, stored, strict=True))
    ]


def stored_pictures(scenes: Sequence[Scene], boxes_px: Sequence[Float[Tensor, "4"]], surface: Surface) -> list[Picture]:
    """The part of each photograph around a box."""
    frames = [_frame(box_px, scene.photo_px) for scene, box_px in zip(scenes, boxes_px, strict=True)]
    square = stack([frame[0] for frame in frames])
    drawn = pictures(scenes, square, DRAWN_PX, surface).permute(0, 2, 3, 1).cpu().numpy()
    return [
        replace(picture, jpeg=jpeg(_upper_left(pixels, picture.size_px), JPEG_QUALITY))
        for (_, picture), pixels in zip(frames, drawn, strict=True)
    ]


def _upper_left(pixels: UInt8[np.ndarray, "H W 3"], size_px: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    width, height = size_px
    return np.ascontiguousarray(pixels[:height, :width])


def _frame(box_px: Float[Tensor, "4"], photo_px: tuple[int, int]) -> tuple[Square, Picture]:
    """The square to draw, at whose upper left the stored picture is, and that picture but for its pixels."""
    low, high = box_px.view(2, 2).double()
    side = PICTURE_MARGIN * float((high - low).amax())
    begin = [max(0, math.floor(float(middle) - side / 2)) for middle in (low + high) / 2]
    ends = ((low + high) / 2 + side / 2).tolist()
    end = [min(size, math.ceil(last)) for size, last in zip(photo_px, ends, strict=True)]
    scale = float(np.float32(min(1.0, PICTURE_PX / side)))
    width, height = (max(1, math.floor((last - first) * scale)) for first, last in zip(begin, end, strict=True))
    drawn_px = DRAWN_PX / scale
    corner = torch.tensor(begin, dtype=torch.float32)
    square = Square(corner + drawn_px / 2, torch.tensor(drawn_px), torch.tensor(0.0))
    return square, Picture(b"", (float(begin[0]), float(begin[1])), scale, (width, height), photo_px)


@dataclass(frozen=True, eq=False)
class Page:
    """A photograph, and a record of each of those in it of whom enough is seen."""

    scene: Scene
    records: tuple[NewRecord, ...]


@dataclass(frozen=True, eq=False)
class Album:
    """Photographs without end: each is a function of (seed, number)."""

    maker: Synthesizer
    seed: int
    people: int = 1
    """At most so many of each photograph are told of, those whom it is about first."""
    errors: DetectorErrors = field(default_factory=DetectorErrors)
    together: int = 4
    """So many are made at once, always the same ones, because rounding depends on it."""

    def pages(self, chunk: int) -> list[Page]:
        """The photographs from `chunk * together` on."""
        numbers = range(chunk * self.together, (chunk + 1) * self.together)
        scenes = self.maker.scenes([generator_of(self.seed, STREAM, number) for number in numbers])
        found = [
            (place, index, one)
            for place, people in enumerate(sitters(scenes, self.maker))
            for index, one in enumerate(people[: self.people])
            if one.shown >= LEAST_SEEN
        ]
        records: list[list[NewRecord]] = [[] for _ in scenes]
        if found:
            about = [whom_about(scenes[place], index) for place, index, _ in found]
            chance = [generator_of(self.seed, f"{STREAM} detector", numbers[place], index) for place, index, _ in found]
            made = new_records(about, [one for *_, one in found], self.maker.surface, self.errors, chance)
            for (place, index, one), record in zip(found, made, strict=True):
                records[place].append(_named(record, one, numbers[place], index))
        return [Page(scene, tuple(some)) for scene, some in zip(scenes, records, strict=True)]


def _named(record: NewRecord, person: Sitter, number: int, index: int) -> NewRecord:
    return replace(
        record,
        subject=f"person_{index}",
        sequence=person.sequence,
        frame=number,
        source=f"synthetic_{number:08d}.jpg",
    )


def map_file(folder: Path, number: int) -> Path:
    """Where `write_maps` writes what a photograph shows."""
    return folder / f"{number:08d}.npz"


def write_maps(folder: Path, number: int, scene: Scene, maker: Synthesizer) -> None:
    """The photograph, and what its pixels show: NUMBER.jpg and NUMBER.npz.

    The arrays are `parts` (H, W), 1 + j on the skin of SMPL24's joint j, of whomever, and 0 elsewhere; `depth_m`
    (H, W), of the nearest body, infinite where there is none; `person` (H, W), who it is, -1 nobody, -2 a thing before
    all; these are of the bodies, and clothes stand off them in the photograph. And of each person the joints of BODY58,
    named by `joints`: `xy_px` in the photograph and `points_m` in the camera's frame, whether they are `inside` the
    photograph, `behind` another body or a thing, and hidden by their `own` body.
    """
    photograph = photographed([scene], maker)[0]
    people = photograph.people
    arrays = whole_maps(scene, maker) | {
        "joints": np.array(BODY58.joints),
        "xy_px": torch.stack([one.xy_px for one in people]).numpy(),
        "points_m": torch.stack([one.points_m for one in people]).numpy(),
        **{
            name: torch.stack([getattr(one.seen, name) for one in people]).numpy()
            for name in ("inside", "behind", "own")
        },
    }
    write_jpeg(folder / f"{number:08d}.jpg", photograph.pixels)
    write_whole(
        map_file(folder, number),
        lambda neighbour: np.savez_compressed(neighbour, allow_pickle=False, **arrays),
    )
