"""The weak-perspective camera of a crop, and the way from it into the photograph's pinhole.

A network that sees only a crop of S x S pixels says (s, tx, ty): the body, placed by its own `transl_m` = 0, is moved
by t = (tx, ty, 2 f / (S s)) and seen by a pinhole through the middle of the crop with the focal length f, 5000 px for a
crop of 224 (HMR, Kanazawa et al. 2018; SPIN, Kolotouros et al. 2019). f is so long that depth hardly counts:
x = S / 2 (1 + s (X + tx)) but for about a hundredth.

In the photograph the pelvis is shown where the crop shows it, and as large. The other joints are not: one dz metres
behind the pelvis and r metres off the photograph's optical axis is drawn r dz / Z metres nearer to that axis. Of 600
mocap poses in any direction this moves the joints by these shares of the square's side (median, 95 in 100):

| distance | in the picture's middle | 20 degrees off it |
|---|---|---|
| 2 m | 0.7 %, 4.5 % | 1.6 %, 8.2 % |
| 4 m | 0.4 %, 2.1 % | 1.6 %, 7.2 % |
| 8 m | 0.2 %, 1.0 % | 1.5 %, 6.9 % |

So a translation that is solved for from 2D joints (`meshrec.translation`) fits the picture better.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.camera import project, unproject
from meshrec.types import Camera, Square

CROP_FOCAL_PX = 5000.0
"""Focal length of the crop's camera where the crop is `CROP_FOCAL_AT_PX` wide; it grows with the crop."""

CROP_FOCAL_AT_PX = 224


def crop_focal_px(crop_px: int) -> float:
    """Focal length of the camera of a crop: its field of view is the same for every size."""
    return CROP_FOCAL_PX * crop_px / CROP_FOCAL_AT_PX


def crop_translation_m(
    weak: Float[Tensor, "*batch 3"], focal_px: Float[Tensor, "*batch"], crop_px: int
) -> Float[Tensor, "*batch 3"]:
    """The translation in the frame of the crop's camera: t = (tx, ty, 2 f / (S s))."""
    return torch.cat([weak[..., 1:], (2 * focal_px / (crop_px * weak[..., 0]))[..., None]], dim=-1)


def crop_camera_of(weak: Float[Tensor, "*batch 3"], crop_px: int) -> Camera:
    """The crop's own pinhole, one for each `weak`."""
    focal_px = torch.full_like(weak[..., 0], crop_focal_px(crop_px))
    return Camera(focal_px, torch.full_like(weak[..., :2], crop_px / 2), crop_px, crop_px, "given")


def crop_project(
    points_m: Float[Tensor, "*batch K 3"], weak: Float[Tensor, "*batch 3"], crop_px: int
) -> Float[Tensor, "*batch K 2"]:
    """Crop pixels of points of a body whose `transl_m` is 0."""
    camera = crop_camera_of(weak, crop_px)
    return project(points_m + crop_translation_m(weak, camera.focal_px, crop_px)[..., None, :], camera)


def photo_translation_m(
    weak: Float[Tensor, "*batch 3"],
    pelvis_m: Float[Tensor, "*batch 3"],
    square: Square,
    crop_px: int,
    camera: Camera,
) -> Float[Tensor, "*batch 3"]:
    """The translation in the frame of the photograph's camera: the pelvis stays where the crop shows it, and as large.

    `pelvis_m` is the pelvis joint of the body at `transl_m` = 0, about which its root turns, so that it is the same for
    every root. With the focal length F and a square of side a, the depth is Z = (Z_crop / f) F S / a. A crop that is
    turned asks for a root that is turned back by as much. The root is not corrected for the line of sight.
    """
    within = crop_camera_of(weak, crop_px)
    placed = pelvis_m + crop_translation_m(weak, within.focal_px, crop_px)
    xy_px = square.back(project(placed[..., None, :], within), crop_px)
    depth_m = placed[..., 2] / within.focal_px * camera.focal_px * crop_px / square.side_px
    return unproject(xy_px, depth_m[..., None], camera)[..., 0, :] - pelvis_m
