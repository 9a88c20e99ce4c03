"""Synthetic people in the layout of MPII: images/*.jpg, the official .mat, and the common JSON (annot/*.json).

Pixels in its annotations are Matlab's: the first pixel's centre is (1, 1), so they are ours plus a half. Every eighth
image is a test image, whose joints are withheld; a quarter of the others is for validation. Both of the last are told
by the JSON files alone.
"""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.io import savemat

from meshrec.body import BodyModel
from meshrec.camera import project
from meshrec.data.body_joints import BODY58, NEAREST
from meshrec.data.synthetic.photograph import LEAST_SEEN, Photograph, Sitter, photographed, write_jpeg
from meshrec.data.synthetic.scene import Synthesizer
from meshrec.files import write_text, write_whole
from meshrec.randomness import generator_of
from meshrec.skeletons import MPII16, SMPL24

STREAM = "synthetic mpii"
"""Of chance."""

MAT = Path("mpii_human_pose_v1_u12_2") / "mpii_human_pose_v1_u12_1.mat"

TEST_EVERY = 8
VALIDATION_EVERY = 4

MATLAB_PX = 0.5
"""What Matlab adds to continuous pixels."""

SCALE_PX = 200.0
"""`scale` is the height of a person in so many pixels."""

TEXT, TEXT_BYTES = "MATLAB 5.0 MAT-file", 116
"""What such a file begins with."""

OF_HEAD_BOX = ("upper_neck", "head_top")
"""Joints that MPII took from the box of the head, without a word on whether they are visible."""

ROWS = BODY58.indices(*(NEAREST[joint] for joint in MPII16.joints))
"""MPII's joints among those of a body: the limbs' as COCO has them, the trunk's as Human3.6M, the neck as SMPL."""

_SINGLE = np.dtype([("x", object), ("y", object)])
_POINT = np.dtype([("x", object), ("y", object), ("id", object), ("is_visible", object)])
_POINTS = np.dtype([("point", object)])
_PERSON = np.dtype([(name, object) for name in ("x1", "y1", "x2", "y2", "annopoints", "scale", "objpos")])
_WITHHELD = np.dtype([("scale", object), ("objpos", object)])
_IMAGE = np.dtype([(name, object) for name in ("image", "annorect", "frame_sec", "vididx")])
_NAME = np.dtype([("name", object)])
_ACT = np.dtype([("cat_name", object), ("act_name", object), ("act_id", object)])


@dataclass(frozen=True)
class Seen:
    """One person of an image, in continuous pixels."""

    xy_px: Float[np.ndarray, "16 2"]
    inside: Bool[np.ndarray, "16"]
    """Joints that lie in the image: those that are annotated."""
    visible: Bool[np.ndarray, "16"]
    """Joints that nobody and nothing else hides."""
    head_xyxy_px: Float[np.ndarray, "4"]

    @property
    def box_xyxy_px(self) -> Float[np.ndarray, "4"]:
        """Around the joints, in the image or not."""
        return np.concatenate([self.xy_px.min(0), self.xy_px.max(0)])

    @property
    def center_px(self) -> Float[np.ndarray, "2"]:
        """The middle of the box."""
        return self.box_xyxy_px.reshape(2, 2).mean(0)

    @property
    def scale(self) -> float:
        """The longer side of the box."""
        left, top, right, bottom = self.box_xyxy_px
        return float(max(right - left, bottom - top)) / SCALE_PX


def photographs(makers: Sequence[Synthesizer], seed: int, count: int) -> Iterator[Photograph]:
    """So many, of each maker in turn; each is a function of the seed and its number alone."""
    for number in range(count):
        maker = makers[number % len(makers)]
        photograph = photographed([maker.scene(generator_of(seed, STREAM, number))], maker)[0]
        people = tuple(person for person in photograph.people if person.shown >= LEAST_SEEN)
        yield replace(photograph, people=people)


def write_mpii(folder: Path, photographs: Iterable[Photograph], model: BodyModel) -> Iterator[Photograph]:
    """Write the photographs as they come, then what is told of them; gives each once it is written."""
    seen: list[list[Seen]] = []
    for number, photograph in enumerate(photographs):
        write_jpeg(folder / "images" / name_of(number), photograph.pixels)
        seen.append([_seen(sitter, photograph, model) for sitter in photograph.people])
        yield photograph
    data = _mat({"RELEASE": _release(seen)})
    write_whole(folder / MAT, lambda neighbour: neighbour.write_bytes(data))
    for split in ("train", "valid"):
        rows = [row for number, known in enumerate(seen) if split_of(number) == split for row in _rows(number, known)]
        write_text(folder / "annot" / f"{split}.json", json.dumps(rows))


def _mat(variables: dict[str, Any]) -> bytes:
    """A file of Matlab 5 with a text that does not tell the time."""
    stream = io.BytesIO()
    savemat(stream, variables, do_compression=True)
    return TEXT.ljust(TEXT_BYTES).encode("ascii") + stream.getvalue()[TEXT_BYTES:]


def name_of(number: int) -> str:
    """The file of an image."""
    return f"{number + 1:09d}.jpg"


def split_of(number: int) -> str:
    """Which part an image belongs to."""
    if number % TEST_EVERY == TEST_EVERY - 1:
        return "test"
    return "valid" if number % VALIDATION_EVERY == VALIDATION_EVERY - 2 else "train"


def _seen(sitter: Sitter, photograph: Photograph, model: BodyModel) -> Seen:
    head = model.parts == SMPL24.index("head")
    head_m = model(sitter.params.to(model.template.dtype)).vertices_m[head]
    head_px = project(head_m, photograph.camera.to(model.template.dtype))
    box = np.concatenate([head_px.amin(0).numpy(), head_px.amax(0).numpy()])
    xy_px, inside, visible = (tensor[ROWS].numpy() for tensor in (sitter.xy_px, sitter.seen.inside, sitter.visible))
    return Seen(xy_px, inside, visible, box)


def _rows(number: int, people: list[Seen]) -> list[dict[str, Any]]:
    """The people of an image as the common JSON has them; a joint that is not annotated is (-1, -1)."""
    return [
        {
            "joints_vis": one.inside.astype(int).tolist(),
            "joints": np.where(one.inside[:, None], one.xy_px + MATLAB_PX, -1.0).tolist(),
            "image": name_of(number),
            "scale": one.scale,
            "center": (one.center_px + MATLAB_PX).tolist(),
        }
        for one in people
    ]


def _release(seen: list[list[Seen]]) -> dict[str, Any]:
    """The struct of the .mat."""
    count = len(seen)
    train = np.array([[split_of(number) != "test" for number in range(count)]], np.uint8)
    single, acts = np.empty((count, 1), object), np.empty((count, 1), _ACT)
    images = np.empty((1, count), _IMAGE)
    for number, people in enumerate(seen):
        single[number, 0] = np.arange(1, len(people) + 1, dtype=np.uint8)[:, None]
        acts[number, 0] = ("synthetic", "posing", number + 1)
        name = np.array([[(name_of(number),)]], _NAME)
        person = _person if train[0, number] else _withheld
        rects = np.array([[person(one) for one in people]], _PERSON if train[0, number] else _WITHHELD)
        images[0, number] = (name, rects, np.zeros((0, 0)), np.zeros((0, 0)))
    return {
        "annolist": images,
        "img_train": train,
        "version": "12",
        "single_person": single,
        "act": acts,
        "video_list": np.empty((1, 0), object),
    }


def _person(one: Seen) -> tuple[Any, ...]:
    points = [
        (
            float(one.xy_px[joint][0] + MATLAB_PX),
            float(one.xy_px[joint][1] + MATLAB_PX),
            joint,
            np.zeros((0, 0)) if name in OF_HEAD_BOX else np.uint8(one.visible[joint]),
        )
        for joint, name in enumerate(MPII16.joints)
        if one.inside[joint]
    ]
    annotated = np.array([[(np.array([points], _POINT),)]], _POINTS)
    return (*(one.head_xyxy_px + MATLAB_PX).tolist(), annotated, one.scale, _place(one))


def _withheld(one: Seen) -> tuple[Any, ...]:
    return one.scale, _place(one)


def _place(one: Seen) -> np.ndarray:
    x, y = np.rint(one.center_px + MATLAB_PX).tolist()
    return np.array([[(x, y)]], _SINGLE)
