"""Crops: squares around people, cut out of photographs, and what the cut does to cameras and bodies.

A crop is a turned and scaled part of its photograph. The turn is about the square's centre, which is not where the
optical axis meets the picture; but a picture turned about any point is one turned about the optical axis and shifted,
and the shift is the principal point's. So a body turned by `turned` is seen by `crop_camera` exactly where the crop
shows the body that the photograph shows, and no perspective is lost.
"""

import math
from dataclasses import replace

import cv2
import numpy as np
import roma
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from meshrec.data.pose_augment import mirrored
from meshrec.types import BodyParams, Camera, Square

CROP_MARGIN = 1.2
"""The square's side over the longer side of the person's box: SPIN's."""

ROUNDING = 1e-3
"""A square of a whole number of crops stays one, whichever way its side was come by."""

HARDLY = 1.25
"""A picture that shrinks by less needs no mean: what it has of finer detail is little, and sharper is better."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB from 0 to 1."""


def square_of(box_xyxy_px: Float[Tensor, "*batch 4"], margin: float = CROP_MARGIN) -> Square:
    """The upright square about the middle of a box, `margin` times as wide as the box's longer side."""
    low, high = box_xyxy_px[..., :2], box_xyxy_px[..., 2:]
    side_px = margin * (high - low).amax(dim=-1)
    return Square((low + high) / 2, side_px, torch.zeros_like(side_px))


def cut(pixels: UInt8[np.ndarray, "H W 3"], square: Square, crop_px: int) -> UInt8[np.ndarray, "S S 3"]:
    """What a square shows, `crop_px` wide; black beyond the picture.

    Each pixel of the crop is the mean of the part of the picture that it covers, as far as two by two samples and whole
    pixels tell it; a square that is hardly larger than the crop, or smaller, is interpolated bilinearly.
    """
    matrix = square.matrix(crop_px).double().numpy()
    if not np.isfinite(matrix).all():
        raise ValueError(f"{square} is no square of a picture")
    pixels, matrix = _part(pixels, square, matrix)
    shrink = float(square.side_px) / crop_px
    if shrink + ROUNDING >= 2:
        times = math.floor(shrink + ROUNDING)
        pixels, matrix = _reduced(pixels, matrix, times)
        shrink /= times
    samples = 1 if shrink <= HARDLY else 2
    sampled = _warped(pixels, samples * matrix, samples * crop_px)
    return sampled if samples == 1 else cv2.resize(sampled, (crop_px, crop_px), interpolation=cv2.INTER_AREA)


def _part(
    pixels: UInt8[np.ndarray, "H W 3"], square: Square, matrix: Float[np.ndarray, "2 3"]
) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "2 3"]]:
    """The part of a picture around a square, whatever its angle, and the map from there to the crop."""
    reach = float(square.side_px) / math.sqrt(2) + 2
    center = square.center_px.double().numpy()
    size = np.array(pixels.shape[1::-1])
    low = np.clip(np.floor(center - reach), 0, size - 1).astype(int)
    high = np.clip(np.ceil(center + reach), low + 1, size).astype(int)
    shift = matrix[:, 2] + matrix[:, :2] @ low
    return pixels[low[1] : high[1], low[0] : high[0]], np.column_stack([matrix[:, :2], shift])


def _reduced(
    pixels: UInt8[np.ndarray, "H W 3"], matrix: Float[np.ndarray, "2 3"], times: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "2 3"]]:
    """The picture with the mean of every `times` by `times` pixels as one, and the map from there to the crop."""
    height, width = (-(-side // times) for side in pixels.shape[:2])
    below, right = height * times - pixels.shape[0], width * times - pixels.shape[1]
    whole = cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_CONSTANT)
    reduced = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return reduced, np.column_stack([times * matrix[:, :2], matrix[:, 2]])


def _warped(
    pixels: UInt8[np.ndarray, "H W 3"], matrix: Float[np.ndarray, "2 3"], size: int
) -> UInt8[np.ndarray, "S S 3"]:
    """The picture through an affine map of continuous pixels; OpenCV counts them from the centre of the first."""
    shift = matrix[:, 2] + matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    between_centres = np.column_stack([matrix[:, :2], shift])
    return cv2.warpAffine(pixels, between_centres, (size, size), flags=cv2.INTER_LINEAR)


def normalised(pixels: UInt8[Tensor, "*batch 3 S S"]) -> Float[Tensor, "*batch 3 S S"]:
    """RGB as the network takes it: about ImageNet's mean, in its standard deviations."""
    mean, std = (torch.tensor(three, device=pixels.device)[:, None, None] for three in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels / 255 - mean) / std


def crop_camera(camera: Camera, square: Square, crop_px: int) -> Camera:
    """The camera that sees bodies `turned` by the square's angle where the crop shows them."""
    focal_px = camera.focal_px * crop_px / square.side_px
    center_px = square.into(camera.center_px[..., None, :], crop_px)[..., 0, :]
    return replace(camera, focal_px=focal_px, center_px=center_px, width_px=crop_px, height_px=crop_px)


def mirrored_camera(camera: Camera) -> Camera:
    """The camera that sees `mirrored_params` where the mirror image of the picture shows them."""
    x, y = camera.center_px.unbind(-1)
    return replace(camera, center_px=torch.stack([camera.width_px - x, y], dim=-1))


def turned(
    params: BodyParams, angle_rad: Float[Tensor, "*batch"], rest_pelvis_m: Float[Tensor, "*batch 3"]
) -> BodyParams:
    """The body turned about the optical axis: x -> Rz(angle) x for all its points, in the camera frame.

    SMPL's points are `root (v - p) + p + transl`, p being the pelvis at rest (`Kinematics.rest_m`), so `transl` becomes
    Rz (p + transl) - p.
    """
    R = _about_z(angle_rad)
    place_m = (R @ (rest_pelvis_m + params.transl_m)[..., None])[..., 0]
    return replace(params, root=R @ params.root, transl_m=place_m - rest_pelvis_m)


def turned_points(
    points_m: Float[Tensor, "*batch K 3"], angle_rad: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch K 3"]:
    """Points turned about the optical axis."""
    return points_m @ _about_z(angle_rad).mT


def mirrored_params(params: BodyParams, rest_pelvis_m: Float[Tensor, "*batch 3"]) -> BodyParams:
    """The body that a mirror at x = 0 of the camera frame shows: sides swapped, S R S with S the reflection of x.

    The pelvis is where the mirror shows it; the rest is as exact as the body is symmetric, `betas` being the same.
    """
    S = torch.diag(params.root.new_tensor([-1.0, 1.0, 1.0]))
    transl_m = (rest_pelvis_m + params.transl_m) @ S - rest_pelvis_m
    return replace(params, root=S @ params.root @ S, pose=mirrored(params.pose), transl_m=transl_m)


def _about_z(angle_rad: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """From x towards y."""
    return roma.rotvec_to_rotmat(torch.nn.functional.pad(angle_rad[..., None], (2, 0)))
