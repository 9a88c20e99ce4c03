"""What a camera sees of people: where it stands, how they look in it, and which of their points are hidden."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from meshrec.camera import centered_camera, project
from meshrec.rasterize import Fragments, rasterize
from meshrec.render import Window, bounds, merge, supersampled, windowed
from meshrec.shading import shade
from meshrec.types import Camera

SAMPLES = 2
"""Squared, in a pixel."""

BEHIND_M = 0.1
"""A point that lies so far behind what another body shows is hidden by it."""

HEIGHT_M = 1.7

UP = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)


@dataclass(frozen=True)
class Shot:
    """A camera, and where it stands in the world."""

    camera: Camera
    T_camera_world: Float[Tensor, "4 4"]

    def to_camera(self, points_m: Float[Tensor, "*batch N 3"]) -> Float[Tensor, "*batch N 3"]:
        """Points of the world in the camera's frame."""
        T = self.T_camera_world.to(points_m)
        return points_m @ T[:3, :3].T + T[:3, 3]


@dataclass(frozen=True)
class Drawn:
    """A picture, and what is seen where in the window that has people."""

    pixels: UInt8[np.ndarray, "H W 3"]
    window: Window
    fragments: Fragments
    """Of `SAMPLES` squared points a pixel."""
    faces: int
    """Of one body: the first person's come first."""

    def seen(self, points_m: Float[Tensor, "N 3"], person: int, camera: Camera) -> Bool[Tensor, "N"]:
        """Which points of a person lie in the picture and behind nobody else; they may be inside their own body."""
        xy_px = project(points_m.double(), camera.to(torch.float64))
        size = torch.tensor([camera.width_px, camera.height_px])
        inside = ((xy_px >= 0) & (xy_px < size)).all(-1) & (points_m[:, 2] > 0)
        spots = ((xy_px - torch.tensor([self.window.x0, self.window.y0])) * SAMPLES).floor().long()
        height, width = self.fragments.face.shape
        drawn = ((spots >= 0) & (spots < torch.tensor([width, height]))).all(-1)
        x, y = spots.where(drawn[:, None], 0).unbind(-1)
        other = drawn & (self.fragments.face[y, x] >= 0) & (self.fragments.face[y, x] // self.faces != person)
        return inside & ~(other & (self.fragments.depth_m[y, x] < points_m[:, 2] - BEHIND_M))


def shots(
    frames: int, middle_m: Float[Tensor, "3"], size_px: tuple[int, int], random: np.random.Generator
) -> list[Shot]:
    """A camera in a hand that drifts, and looks at the middle from somewhere about."""
    width, height = size_px
    focal_px = random.uniform(0.95, 1.4) * max(size_px)
    camera = centered_camera(width, height, focal_px, "true")
    center_px = camera.center_px + torch.from_numpy(random.uniform(-0.02, 0.02, 2) * max(size_px)).float()
    camera = Camera(camera.focal_px, center_px, width, height, "true")
    share = random.uniform(0.5, 0.8) * min(1.0, 1.2 * width / height)
    distance_m = focal_px * HEIGHT_M / (share * height)
    azimuth, elevation = random.uniform(-np.pi, np.pi), random.uniform(-0.08, 0.3)
    drift = random.normal(0, 0.04, 3)
    aim = middle_m + torch.from_numpy(random.normal(0, [0.12, 0.08, 0.12]))
    roll = random.normal(0, 0.03)
    placed = []
    for frame in range(frames):
        turned = azimuth + 0.3 * drift[0] * frame / 30, elevation + 0.3 * drift[1] * frame / 30
        placed.append(Shot(camera, looking(aim, *turned, distance_m * (1 + drift[2] * frame / 30), roll)))
    return placed


def looking(
    aim_m: Float[Tensor, "3"], azimuth_rad: float, elevation_rad: float, distance_m: float, roll_rad: float
) -> Float[Tensor, "4 4"]:
    """T_camera_world of a camera that looks at a point from a distance; the world's y is up."""
    away = torch.tensor(
        [
            math.cos(elevation_rad) * math.sin(azimuth_rad),
            math.sin(elevation_rad),
            math.cos(elevation_rad) * math.cos(azimuth_rad),
        ],
        dtype=torch.float64,
    )
    right = torch.linalg.cross(-away, UP)
    right = right / right.norm()
    R = torch.stack([right, torch.linalg.cross(-away, right), -away])
    R = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, roll_rad], dtype=torch.float64)) @ R
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3], T[:3, 3] = R, -R @ (aim_m + distance_m * away)
    return T


def draw(
    bodies: Sequence[Float[Tensor, "V 3"]],
    colors: Sequence[Float[Tensor, "V 3"]],
    faces: Tensor,
    camera: Camera,
    ground: UInt8[np.ndarray, "H W 3"],
    light: Float[Tensor, "3"],
) -> Drawn:
    """People in the camera's frame before a picture; the light multiplies their colours."""
    window = _around([bounds(body, camera) for body in bodies])
    scene, scene_faces = merge([body.float() for body in bodies], faces)
    fine = supersampled(windowed(camera, window), SAMPLES)
    fragments = rasterize(scene, scene_faces, fine)
    lit = (torch.cat(list(colors)) * light.sqrt()).clamp(max=1.0)
    rgba = shade(fragments, scene, scene_faces, fine, lit, SAMPLES).numpy()
    pixels = ground.copy()
    place = pixels[window.y0 : window.y1, window.x0 : window.x1]
    place[:] = np.rint(place * (1 - rgba[..., 3:]) + 255 * rgba[..., :3]).clip(0, 255).astype(np.uint8)
    return Drawn(pixels, window, fragments, len(faces))


def _around(windows: Sequence[Window]) -> Window:
    """The smallest window around all that hold a pixel; one pixel where none does."""
    filled = [window for window in windows if window.x1 > window.x0 and window.y1 > window.y0] or [Window(0, 0, 1, 1)]
    return Window(
        min(window.x0 for window in filled),
        min(window.y0 for window in filled),
        max(window.x1 for window in filled),
        max(window.y1 for window in filled),
    )


def backdrop(size_px: tuple[int, int], random: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    """A wall and a floor that shade off, with blocks on them and clouds over all."""
    width, height = size_px
    horizon = int(height * random.uniform(0.45, 0.75))
    picture = np.empty((height, width, 3), np.float32)
    for rows in (slice(0, horizon), slice(horizon, height)):
        top, bottom = random.uniform(40, 220, (2, 3))
        share = np.linspace(0, 1, rows.stop - rows.start, dtype=np.float32)[:, None, None]
        picture[rows] = top * (1 - share) + bottom * share
    for _ in range(random.integers(4, 14)):
        x, y = (int(random.uniform(-0.1, 1) * side) for side in (width, height))
        w, h = (int(random.uniform(0.03, 0.35) * side) for side in (width, height))
        color = tuple(random.uniform(20, 235, 3).tolist())
        cv2.rectangle(picture, (x, y), (x + w, y + h), color, thickness=int(random.choice([-1, -1, 2])))
    picture = cv2.GaussianBlur(picture, (0, 0), max(size_px) / 1000)
    for cells, strength in ((5, 25), (20, 12), (90, 7)):
        grid = random.normal(0, strength, (cells, round(cells * width / height) + 1, 1)).astype(np.float32)
        picture += cv2.resize(grid, size_px, interpolation=cv2.INTER_CUBIC)[..., None]
    return picture.clip(0, 255).astype(np.uint8)


def grain(pixels: UInt8[np.ndarray, "H W 3"], random: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    """The noise of a sensor."""
    noise = random.integers(-4, 5, pixels.shape, dtype=np.int16)
    return (pixels + noise).clip(0, 255).astype(np.uint8)
