"""A square of a photograph to draw shapes on, told in the photograph's pixels: the same ones at any resolution."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from meshrec.types import Square

FIXED = 4
"""Bits of the fractions of a pixel in the corners that OpenCV draws between."""

FARTHEST_PX = 16000.0
"""Corners are drawn no farther out."""

BRIGHTEST = 255

Color = tuple[float, float, float]
"""Red, green, blue, 0 to 255."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """What has been drawn, and the map from the photograph's pixels to its own."""

    pixels: UInt8[np.ndarray, "S S C"]
    matrix: Float[np.ndarray, "2 3"]

    @classmethod
    def of(cls, square: Square, size_px: int, channels: int = 3) -> "Canvas":
        """A black one."""
        return cls(np.zeros((size_px, size_px, channels), np.uint8), square.matrix(size_px).double().numpy())

    @property
    def scale(self) -> float:
        """Pixels of the canvas in one of the photograph."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[0, 1]))

    def polygon(self, corners_px: Float[np.ndarray, "n 2"], color: tuple[float, ...]) -> None:
        """A filled convex polygon, smooth at its edges."""
        cv2.fillConvexPoly(self.pixels, self._fixed(corners_px), color, cv2.LINE_AA, FIXED)

    def lines(self, ends_px: Float[np.ndarray, "n m 2"], color: tuple[float, ...], width_px: float) -> None:
        """Lines through m points each."""
        width = max(1, round(width_px * self.scale))
        cv2.polylines(self.pixels, list(self._fixed(ends_px)), False, color, width, cv2.LINE_AA, FIXED)

    def image(self, picture: UInt8[np.ndarray, "h w 3"], matrix: Float[np.ndarray, "2 3"]) -> None:
        """A picture over all, mirrored beyond its borders; `matrix` leads from its pixels to the photograph's."""
        cv2.warpAffine(
            picture,
            _between_centres(self._after(matrix)),
            self.pixels.shape[1::-1],
            dst=self.pixels,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )

    def field(self, grid: Float[np.ndarray, "h w"], matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "S S"]:
        """A smooth function through the values of a grid, mirrored beyond its borders."""
        return cv2.warpAffine(
            grid,
            _between_centres(self._after(matrix)),
            self.pixels.shape[1::-1],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )

    def _after(self, matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
        """First `matrix`, then into the canvas."""
        linear, shift = self.matrix[:, :2], self.matrix[:, 2]
        return np.column_stack([linear @ matrix[:, :2], linear @ matrix[:, 2] + shift])

    def _fixed(self, points_px: Float[np.ndarray, "*n 2"]) -> np.ndarray:
        """As OpenCV takes them: fractions in the last bits, counted from the centre of the first pixel."""
        points = points_px @ self.matrix[:, :2].T + self.matrix[:, 2] - 0.5
        return np.rint(points.clip(-FARTHEST_PX, FARTHEST_PX) * 2**FIXED).astype(np.int32)


def _between_centres(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """An affine map of continuous pixels as OpenCV takes it."""
    return np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5])


def centres_px(square: Square, size_px: int) -> Float[np.ndarray, "S S 2"]:
    """Where in the photograph the centres of a square's pixels are."""
    middles = torch.arange(size_px, dtype=torch.float64) + 0.5
    grid = torch.stack(torch.meshgrid(middles, middles, indexing="xy"), dim=-1)
    return square.to(torch.float64).back(grid.flatten(0, 1), size_px).numpy().reshape(size_px, size_px, 2)


def ellipse(center_px: Float[np.ndarray, "2"], half_px: Float[np.ndarray, "2"], angle_rad: float, corners: int = 24):
    """The outline of an ellipse, as a polygon."""
    around = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return oriented(np.stack([np.cos(around), np.sin(around)], axis=1) * half_px, angle_rad) + center_px


def oriented(points: Float[np.ndarray, "n 2"], angle_rad: float) -> Float[np.ndarray, "n 2"]:
    """Points turned about the origin."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return points @ np.array([[cosine, sine], [-sine, cosine]])
