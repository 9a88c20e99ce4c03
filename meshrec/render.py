"""Bodies as pictures: shaded meshes over a photograph, or alone on a plain ground.

Colours are sRGB, 0 to 1; pictures at the edge are uint8. Vertices are in the camera frame.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from meshrec.camera import centered_camera, project
from meshrec.rasterize import NEAR_M, rasterize
from meshrec.shading import shade
from meshrec.types import Camera

Color = tuple[float, float, float]
"""Red, green, blue in sRGB, 0 to 1."""

PALETTE: tuple[Color, ...] = (
    (0.62, 0.76, 0.91),
    (0.96, 0.72, 0.58),
    (0.66, 0.85, 0.66),
    (0.82, 0.70, 0.91),
    (0.97, 0.85, 0.55),
    (0.55, 0.84, 0.84),
    (0.95, 0.68, 0.78),
    (0.78, 0.80, 0.62),
)
"""Colours of the people in a picture, in turn."""

CLAY: Color = (0.80, 0.76, 0.72)
"""Colour of a body that stands alone."""

UNSEEN: Color = (0.88, 0.88, 0.89)
"""Tone of the parts of a body that were not seen."""

TILE_PX = 512
"""Side of the squares in which a large picture is drawn: memory follows it, not the picture."""


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: x0 <= x < x1, y0 <= y < y1."""

    x0: int
    y0: int
    x1: int
    y1: int

    def touches(self, other: "Window") -> bool:
        """Whether a pixel lies in both."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


def render_rgba(
    vertices_m: Float[Tensor, "*batch V 3"],
    faces: Int[Tensor, "F 3"],
    camera: Camera,
    vertex_colors: Float[Tensor, "*colors V 3"],
    samples: int = 2,
) -> Float[Tensor, "*batch H W 4"]:
    """Shaded bodies with smooth outlines: sRGB times coverage, and coverage, of `samples` squared points a pixel."""
    fine = supersampled(camera, samples)
    return shade(rasterize(vertices_m, faces, fine), vertices_m, faces, fine, vertex_colors, samples)


def supersampled(camera: Camera, samples: int) -> Camera:
    """The same view in an image `samples` times as wide and as high."""
    if samples == 1:
        return camera
    return replace(
        camera,
        focal_px=camera.focal_px * samples,
        center_px=camera.center_px * samples,
        width_px=camera.width_px * samples,
        height_px=camera.height_px * samples,
    )


def windowed(camera: Camera, window: Window) -> Camera:
    """The same view, only the pixels of a window of its image."""
    corner = camera.center_px.new_tensor([window.x0, window.y0])
    size = {"width_px": window.x1 - window.x0, "height_px": window.y1 - window.y0}
    return replace(camera, center_px=camera.center_px - corner, **size)


def merge(
    bodies: Sequence[Float[Tensor, "V 3"]], faces: Int[Tensor, "F 3"]
) -> tuple[Float[Tensor, "N 3"], Int[Tensor, "G 3"]]:
    """Several bodies of one topology as one mesh, so that they hide each other."""
    starts = [index * len(body) for index, body in enumerate(bodies)]
    return torch.cat(list(bodies)), torch.cat([faces + start for start in starts])


def paint(color: Color, vertices: int, seen: Bool[Tensor, "V"] | None = None) -> Float[Tensor, "V 3"]:
    """One colour for every vertex, and a pale grey for those that were not seen."""
    colors = torch.tensor(color).expand(vertices, 3)
    return colors if seen is None else torch.where(seen[:, None].cpu(), colors, torch.tensor(UNSEEN))


def overlay(
    pixels: UInt8[np.ndarray, "H W 3"],
    bodies: Sequence[Float[Tensor, "V 3"]],
    faces: Int[Tensor, "F 3"],
    camera: Camera,
    colors: Sequence[Color] = PALETTE,
    opacity: float = 0.9,
    vertex_seen: Sequence[Bool[Tensor, "V"]] | None = None,
    samples: int = 2,
) -> UInt8[np.ndarray, "H W 3"]:
    """A photograph with its people drawn over it, one colour each; what was not seen of them is drawn in grey.

    Only the tiles that a body reaches are drawn, so memory does not grow with the photograph.
    """
    size = (camera.height_px, camera.width_px)
    if pixels.shape[:2] != size:
        raise ValueError(f"the picture is {pixels.shape[:2]} high and wide, the camera's image is {size}")
    picture = pixels.copy()
    if not bodies:
        return picture
    seen = vertex_seen or [None] * len(bodies)
    paints = [
        paint(colors[index % len(colors)], len(body), mask)
        for index, (body, mask) in enumerate(zip(bodies, seen, strict=True))
    ]
    scene, scene_faces = merge(bodies, faces)
    for tile in _tiles([bounds(body, camera) for body in bodies], camera):
        rgba = render_rgba(scene, scene_faces, windowed(camera, tile), torch.cat(paints), samples)
        place = picture[tile.y0 : tile.y1, tile.x0 : tile.x1]
        place[:] = _blend(place, rgba.cpu().numpy(), opacity)
    return picture


def bounds(vertices_m: Float[Tensor, "V 3"], camera: Camera) -> Window:
    """The pixels that a body can reach: the whole image where it comes nearer than the near plane."""
    if not vertices_m.isfinite().all():
        raise ValueError("a body to draw has vertices that are not finite")
    size = torch.tensor([camera.width_px, camera.height_px])
    if vertices_m[:, 2].min() < NEAR_M:
        return Window(0, 0, camera.width_px, camera.height_px)
    xy = project(vertices_m.double().cpu(), camera.to(torch.float64).to("cpu"))
    low = torch.minimum(xy.amin(0).floor().clamp(min=0), size)
    high = torch.minimum(xy.amax(0).ceil().clamp(min=0), size)
    return Window(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _tiles(boxes: Sequence[Window], camera: Camera) -> Iterator[Window]:
    """The tiles of the image that a box touches, those at its edges cut off by it."""
    for y0 in range(0, camera.height_px, TILE_PX):
        for x0 in range(0, camera.width_px, TILE_PX):
            tile = Window(x0, y0, min(x0 + TILE_PX, camera.width_px), min(y0 + TILE_PX, camera.height_px))
            touching = [box for box in boxes if tile.touches(box)]
            if touching:
                yield Window(
                    max(tile.x0, min(box.x0 for box in touching)),
                    max(tile.y0, min(box.y0 for box in touching)),
                    min(tile.x1, max(box.x1 for box in touching)),
                    min(tile.y1, max(box.y1 for box in touching)),
                )


def _blend(
    pixels: UInt8[np.ndarray, "h w 3"], rgba: Float[np.ndarray, "h w 4"], opacity: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Premultiplied colour over a picture."""
    kept = 1 - opacity * rgba[..., 3:]
    return np.rint(pixels * kept + 255 * opacity * rgba[..., :3]).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Studio:
    """How a body alone is pictured: from a little above, on a plain light ground."""

    width_px: int = 384
    height_px: int = 512
    color: Color = CLAY
    extent_m: float | None = None
    """Height that fills the picture; the body's own where it is not given."""
    tilt_rad: float = math.radians(7.0)
    distance: float = 5.0
    """Of the camera, in extents: far enough for little perspective."""
    margin: float = 1.16
    top: Color = (0.965, 0.968, 0.975)
    bottom: Color = (0.885, 0.890, 0.900)
    shadow: float = 0.42
    blur: float = 0.016
    """Softness of the shadow, in picture heights."""


def studio_view(
    vertices_m: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    azimuth_rad: float = 0.0,
    vertex_seen: Bool[Tensor, "V"] | None = None,
    studio: Studio | None = None,
    samples: int = 2,
) -> UInt8[np.ndarray, "H W 3"]:
    """A body alone, turned about the camera's vertical through its middle; its lowest vertex stands on the ground."""
    studio = studio or Studio()
    body = turn(vertices_m.detach().to("cpu", torch.float32), azimuth_rad)
    flat = torch.stack([body[:, 0], body[:, 1].amax().expand(len(body)), body[:, 2]], dim=-1)
    place, camera = _stand(body, studio)
    floor = render_rgba(place(flat), faces, camera, torch.zeros_like(flat), samples)[..., 3].numpy()
    shadow = studio.shadow * cv2.GaussianBlur(floor, (0, 0), studio.blur * studio.height_px)
    rows = np.linspace(0, 1, studio.height_px)[:, None, None]
    ground = (np.array(studio.top) * (1 - rows) + np.array(studio.bottom) * rows) * (1 - shadow[..., None])
    rgba = render_rgba(place(body), faces, camera, paint(studio.color, len(body), vertex_seen), samples).numpy()
    return np.rint(255 * (ground * (1 - rgba[..., 3:]) + rgba[..., :3])).clip(0, 255).astype(np.uint8)


def side_view(
    vertices_m: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    vertex_seen: Bool[Tensor, "V"] | None = None,
    studio: Studio | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """The same body turned by 90 degrees: one that faced the camera looks to the left of the picture."""
    return studio_view(vertices_m, faces, math.pi / 2, vertex_seen, studio)


def body_sheet(
    bodies: Sequence[Float[Tensor, "V 3"]],
    faces: Int[Tensor, "F 3"],
    azimuths_rad: Sequence[float],
    studio: Studio | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """A grid of views at one scale: a row for each body, a column for each azimuth."""
    studio = studio or Studio()
    extent_m = studio.extent_m or max(
        _extent(turn(body, azimuth), studio) for body in bodies for azimuth in azimuths_rad
    )
    same = replace(studio, extent_m=extent_m)
    rows = [[studio_view(body, faces, azimuth, studio=same) for azimuth in azimuths_rad] for body in bodies]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def turn(vertices_m: Float[Tensor, "V 3"], azimuth_rad: float) -> Float[Tensor, "V 3"]:
    """The body turned about the camera's y axis through the middle of its box, which becomes the origin."""
    middle = (vertices_m.amin(0) + vertices_m.amax(0)) / 2
    rotation = roma.rotvec_to_rotmat(vertices_m.new_tensor([0.0, azimuth_rad, 0.0]))
    return (vertices_m - middle) @ rotation.T


def _stand(body: Float[Tensor, "V 3"], studio: Studio) -> tuple[Callable[[Tensor], Tensor], Camera]:
    """The camera of the studio, and the way of points about the body's middle into its frame."""
    extent_m = studio.extent_m or _extent(body, studio)
    tilt = roma.rotvec_to_rotmat(body.new_tensor([studio.tilt_rad, 0.0, 0.0]))
    away = body.new_tensor([0.0, 0.0, studio.distance * extent_m])
    lowered = body.new_tensor([0.0, extent_m / 2 - body[:, 1].amax(), 0.0])
    camera = centered_camera(
        studio.width_px, studio.height_px, studio.height_px * studio.distance / studio.margin, "given"
    )
    return lambda points: (points + lowered) @ tilt.T + away, camera


def _extent(body: Float[Tensor, "V 3"], studio: Studio) -> float:
    """The height of the picture that the body needs, in metres: its own, or its width where that is what fills it."""
    width, height, _ = (body.amax(0) - body.amin(0)).tolist()
    return max(height, width * studio.height_px / studio.width_px)
