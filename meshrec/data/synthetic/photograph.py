"""Whole photographs of scenes, and all that is true of those who are in them, in pixels of the photograph."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from meshrec.camera import project
from meshrec.data.body_joints import BODY58, body_joints, row_name
from meshrec.data.synthetic.draw import maps, pictures
from meshrec.data.synthetic.people import Seen, box_of, seen
from meshrec.data.synthetic.scene import Scene, Synthesizer
from meshrec.files import write_whole
from meshrec.skeletons import COCO17
from meshrec.types import BodyParams, Camera, Square

LEAST_SEEN = 6
"""COCO's joints that must be seen of somebody who is in a photograph."""

QUALITY = 95
"""Of JPEGs."""

COCO_ROWS = BODY58.indices(*(row_name(joint, COCO17) for joint in COCO17.joints))
"""COCO-17 among the joints of a body."""


@dataclass(frozen=True, eq=False)
class Sitter:
    """Somebody in a photograph."""

    params: BodyParams
    """In the frame of the camera."""
    points_m: Float[Tensor, "58 3"]
    """The joints of BODY58, in the frame of the camera."""
    xy_px: Float[Tensor, "58 2"]
    seen: Seen
    """What the photograph shows of them."""
    box_xyxy_px: Float[Tensor, "4"]
    """Around the skin, as far as it lies in the photograph."""

    @property
    def visible(self) -> Bool[Tensor, "58"]:
        """Joints in the photograph, with no other body and no thing before them; their own may be."""
        return self.seen.inside & ~self.seen.behind

    @property
    def size_px(self) -> Float[Tensor, ""]:
        """The longer side of the box."""
        low, high = self.box_xyxy_px.view(2, 2)
        return (high - low).amax()

    @property
    def beyond(self) -> int:
        """How many of COCO's 17 joints lie beyond the border."""
        return int((~self.seen.inside[COCO_ROWS]).sum())

    @property
    def hidden(self) -> int:
        """How many of COCO's 17 joints lie in the photograph, behind another body or a thing."""
        return int((self.seen.inside & self.seen.behind)[COCO_ROWS].sum())

    @property
    def levels(self) -> tuple[int, int]:
        """How much of them is hidden and how much lies beyond the border: see `level`."""
        return level(self.hidden / max(1, len(COCO17) - self.beyond)), level(self.beyond / len(COCO17))

    @property
    def sequence(self) -> str:
        """What records call their sequence."""
        return "occlusion_{}/truncation_{}".format(*self.levels)

    @property
    def shown(self) -> int:
        """How many of COCO's 17 joints are left."""
        return len(COCO17) - self.beyond - self.hidden


@dataclass(frozen=True, eq=False)
class Photograph:
    """A picture, and who is in it."""

    pixels: UInt8[np.ndarray, "H W 3"]
    """RGB."""
    camera: Camera
    people: tuple[Sitter, ...]
    """Everybody of the scene, in its order."""


def level(share: float) -> int:
    """0: none, 1: up to a third, 2: up to two thirds, 3: more."""
    return int(np.searchsorted((0.0, 1 / 3, 2 / 3), share - 1e-9))


@torch.no_grad()
def sitters(scenes: Sequence[Scene], maker: Synthesizer) -> list[tuple[Sitter, ...]]:
    """Everybody in each scene."""
    which = [(row, index) for row, scene in enumerate(scenes) for index in range(len(scene))]
    about = [whom_about(scenes[row], index) for row, index in which]
    points_m = torch.stack([body_joints(maker.model, scene.params[0]) for scene in about])
    shown = seen(about, points_m, maker.surface)
    people: list[list[Sitter]] = [[] for _ in scenes]
    for place, ((row, _), scene) in enumerate(zip(which, about, strict=True)):
        xy_px = project(points_m[place], scene.camera)
        people[row].append(Sitter(scene.params[0], points_m[place], xy_px, shown[place], box_of(scene)))
    return [tuple(some) for some in people]


def whom_about(scene: Scene, index: int) -> Scene:
    """The same scene, which is about another one of its people."""
    order = torch.tensor([index, *(other for other in range(len(scene)) if other != index)])
    return replace(
        scene,
        params=scene.params[order],
        vertices_m=scene.vertices_m[order.to(scene.vertices_m.device)],
        joints_m=scene.joints_m[order],
        look=scene.look[order],
    )


def photographed(scenes: Sequence[Scene], maker: Synthesizer) -> list[Photograph]:
    """The photographs of scenes."""
    square, side_px = _whole(scenes)
    shown = pictures(scenes, square, side_px, maker.surface).permute(0, 2, 3, 1).cpu().numpy()
    everybody = sitters(scenes, maker)
    return [
        Photograph(_cut(pixels, scene), scene.camera, people)
        for scene, pixels, people in zip(scenes, shown, everybody, strict=True)
    ]


def whole_maps(scene: Scene, maker: Synthesizer) -> dict[str, np.ndarray]:
    """What the pixels of the photograph show, as `Maps` tells of them but of everybody's parts."""
    square, side_px = _whole([scene])
    about = [whom_about(scene, index) for index in range(len(scene))]
    known = [maps([one], square, side_px, maker.surface)[0] for one in about]
    columns = {
        "parts": torch.stack([one.parts for one in known]).amax(0).to(torch.uint8),
        "depth_m": known[0].depth_m.float(),
        "person": known[0].person.to(torch.int8),
    }
    return {name: _cut(tensor.cpu().numpy(), scene) for name, tensor in columns.items()}


def _whole(scenes: Sequence[Scene]) -> tuple[Square, int]:
    """The square whose upper left corner is the photograph's, and that holds all of it, pixel by pixel."""
    side_px = max(max(scene.photo_px) for scene in scenes)
    middle, side = torch.full((len(scenes), 2), side_px / 2), torch.full((len(scenes),), float(side_px))
    return Square(middle, side, torch.zeros_like(side)), side_px


def _cut(image: np.ndarray, scene: Scene) -> np.ndarray:
    width, height = scene.photo_px
    return np.ascontiguousarray(image[:height, :width])


def write_jpeg(path: Path, pixels: UInt8[np.ndarray, "H W 3"]) -> Path:
    """Write RGB pixels."""
    data = jpeg(pixels, QUALITY)
    return write_whole(path, lambda neighbour: neighbour.write_bytes(data))


def jpeg(pixels: UInt8[np.ndarray, "H W 3"], quality: int) -> bytes:
    """RGB pixels as a file."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "any 8-bit RGB picture can be a JPEG"
    return data.tobytes()
