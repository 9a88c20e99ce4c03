"""The pinhole camera and the pixel convention."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.types import Camera, FocalSource


def project(points_m: Float[Tensor, "*batch N 3"], camera: Camera) -> Float[Tensor, "*batch N 2"]:
    """Pixels of points in the camera frame: focal * (X, Y) / Z + centre.

    A point on or behind the camera plane has no pixel: its result is not finite or mirrored, so check Z > 0 first.
    """
    xy = points_m[..., :2] / points_m[..., 2:]
    return camera.focal_px[..., None, None] * xy + camera.center_px[..., None, :]


def unproject(
    xy_px: Float[Tensor, "*batch N 2"], depth_m: Float[Tensor, "*batch N"], camera: Camera
) -> Float[Tensor, "*batch N 3"]:
    """Points in the camera frame with the given pixels and depths Z; the inverse of `project`."""
    xy = (xy_px - camera.center_px[..., None, :]) / camera.focal_px[..., None, None]
    return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1) * depth_m[..., None]


def centered_camera(width_px: int, height_px: int, focal_px: float, focal_source: FocalSource) -> Camera:
    """A camera that looks through the middle of its image."""
    center_px = torch.tensor([width_px / 2, height_px / 2])
    return Camera(torch.tensor(float(focal_px)), center_px, width_px, height_px, focal_source)


def assumed_focal_px(width_px: int, height_px: int) -> float:
    """The image diagonal: a field of view of 53 degrees across it, a fair guess for an unknown photograph."""
    return math.hypot(width_px, height_px)


def camera_from_body_axes(device: torch.device | None = None, dtype: torch.dtype | None = None) -> Float[Tensor, "3 3"]:
    """Half a turn about x: the body's axes (y up, z towards the viewer) as the camera sees them (y down, z away).

    With this root rotation a body stands upright and faces the camera.
    """
    return torch.diag(torch.tensor([1.0, -1.0, -1.0], device=device, dtype=dtype))


def sight_rotation(camera: Camera, xy_px: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 3 3"]:
    """R_camera_sight: the least rotation that takes the optical axis to the ray through a point of the image.

    Its columns are the axes of a camera that stands where this one does and is turned to look at the point, in the
    frame of this one. With the ray r and v = z x r it is I + [v] + [v]^2 / (1 + r_z).
    """
    across = (xy_px - camera.center_px) / camera.focal_px[..., None]
    ray = torch.cat([across, torch.ones_like(across[..., :1])], dim=-1)
    x, y, z = (ray / ray.norm(dim=-1, keepdim=True)).unbind(-1)
    xx, xy, yy = x * x / (1 + z), x * y / (1 + z), y * y / (1 + z)
    rows = [torch.stack(row, dim=-1) for row in ((1 - xx, -xy, x), (-xy, 1 - yy, y), (-x, -y, z))]
    return torch.stack(rows, dim=-2)
