"""From what light leaves on a sensor to the picture that it gives, in Warp kernels.

Every pixel is a function of its own picture alone, added up in one order: the same bits in any batch.
"""

# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false
# (annotations of a kernel are Warp's types, and its body is Warp's language)

from typing import no_type_check

import torch
import warp as wp
from jaxtyping import Float, UInt8
from torch import Tensor

from meshrec.data.synthetic.looks import Sensor
from meshrec.rasterize import launch, points, scalars
from meshrec.types import Square

wp.set_module_options({"enable_backward": False})

SHARP_PX = 0.2
"""A narrower blur is none."""

WIDEST_PX = 6
"""No blur reaches farther."""


@no_type_check
@wp.kernel
def _blend_kernel(
    people: wp.array2d(dtype=wp.vec4),
    ground: wp.array3d(dtype=wp.uint8),
    front: wp.array3d(dtype=wp.uint8),
    which: wp.array(dtype=wp.int32),
    out: wp.array2d(dtype=wp.vec3),
):
    """People before the ground, and things before all, 0 to 1; `which` is the picture's row of `front`, or -1."""
    picture, pixel = wp.tid()
    body = people[picture, pixel]
    behind = wp.vec3(
        float(ground[picture, pixel, 0]), float(ground[picture, pixel, 1]), float(ground[picture, pixel, 2])
    )
    rgb = wp.vec3(body[0], body[1], body[2]) + behind * ((1.0 - body[3]) / 255.0)
    row = which[picture]
    if row >= 0:
        share = float(front[row, pixel, 3]) / 255.0
        thing = wp.vec3(float(front[row, pixel, 0]), float(front[row, pixel, 1]), float(front[row, pixel, 2]))
        rgb = rgb * (1.0 - share) + thing / 255.0
    out[picture, pixel] = rgb


@no_type_check
@wp.kernel
def _soften_kernel(
    image: wp.array3d(dtype=wp.vec3), weights: wp.array2d(dtype=wp.float32), down: int, out: wp.array3d(dtype=wp.vec3)
):
    """Blur along one axis, the picture mirrored beyond its borders: weights of the middle and of one side."""
    picture, y, x = wp.tid()
    size = image.shape[1]
    total = image[picture, y, x] * weights[picture, 0]
    for step in range(1, weights.shape[1]):
        weight = weights[picture, step]
        if weight > 0.0:
            if down == 1:
                low = wp.abs(y - step)
                high = size - 1 - wp.abs(size - 1 - y - step)
                total = total + (image[picture, low, x] + image[picture, high, x]) * weight
            else:
                low = wp.abs(x - step)
                high = size - 1 - wp.abs(size - 1 - x - step)
                total = total + (image[picture, y, low] + image[picture, y, high]) * weight
    out[picture, y, x] = total


@no_type_check
@wp.kernel
def _expose_kernel(
    image: wp.array2d(dtype=wp.vec3),
    black: wp.array(dtype=wp.float32),
    gain: wp.array(dtype=wp.vec3),
    grain: wp.array(dtype=wp.float32),
    seed: wp.array(dtype=wp.int32),
    to_photo: wp.array2d(dtype=wp.float32),
    size: int,
    out: wp.array3d(dtype=wp.uint8),
):
    """Contrast, tint and noise, and black beyond the photograph; bytes of a random number added up are nearly normal.

    `to_photo` leads from pixels to pixels of the photograph (six numbers, row by row); then come its width and height,
    and how many pixels one of the photograph's is.
    """
    picture, pixel = wp.tid()
    row = pixel / size
    px = float(pixel - row * size) + 0.5
    py = float(row) + 0.5
    inside = float(1.0)  # noqa: UP018 (a number that a loop changes has to be made so)
    for axis in range(2):
        at = to_photo[picture, 3 * axis] * px + to_photo[picture, 3 * axis + 1] * py + to_photo[picture, 3 * axis + 2]
        room = wp.min(at, to_photo[picture, 6 + axis] - at) * to_photo[picture, 8]
        inside = inside * wp.clamp(room + 0.5, 0.0, 1.0)
    rgb = wp.cw_mul(image[picture, pixel], gain[picture])
    bits = wp.rand_init(seed[picture], pixel)
    a = float(bits & wp.uint32(255))
    b = float((bits >> wp.uint32(8)) & wp.uint32(255))
    c = float((bits >> wp.uint32(16)) & wp.uint32(255))
    d = float((bits >> wp.uint32(24)) & wp.uint32(255))
    spread = grain[picture] / 104.2
    noise = wp.vec3(a + b - 255.0, b + c - 255.0, c + d - 255.0) * spread
    for channel in range(3):
        value = 255.0 * inside * (black[picture] + rgb[channel] + noise[channel])
        out[picture, channel, pixel] = wp.uint8(wp.clamp(value + 0.5, 0.0, 255.0))


def blended(
    people: Float[Tensor, "n S S 4"],
    ground: UInt8[Tensor, "n S S 3"],
    front: UInt8[Tensor, "m S S 4"],
    which: Tensor,
) -> Float[Tensor, "n S S 3"]:
    """People before grounds, and things before some of them: `which` tells the row of `front`, -1 none."""
    pictures, size, *_ = people.shape
    out = people.new_empty(pictures, size * size, 3)
    rgba = wp.from_torch(people.reshape(pictures, -1, 4), wp.vec4, return_ctype=True)
    layers = [scalars(layer.flatten(1, 2)) for layer in (ground, front)]
    launch(_blend_kernel, out.shape[:2], [rgba, *layers, scalars(which), points(out)], out)
    return out.view(pictures, size, size, 3)


def softened(image: Float[Tensor, "n S S 3"], spread_px: Float[Tensor, "n"]) -> Float[Tensor, "n S S 3"]:
    """Gaussian blur of each picture with its own standard deviation."""
    weights = _half_kernels(spread_px).to(image)
    for down in (0, 1):
        blurred = torch.empty_like(image)
        launch(_soften_kernel, image.shape[:3], [points(image), scalars(weights), down, points(blurred)], image)
        image = blurred
    return image


def exposed(
    image: Float[Tensor, "n S S 3"], sensor: Sensor, square: Square, photo_px: Float[Tensor, "n 2"]
) -> UInt8[Tensor, "n 3 S S"]:
    """The pictures that sensors give, of squares of photographs so wide and high; smooth at the photograph's border."""
    pictures, size, *_ = image.shape
    out = torch.empty(pictures, 3, size * size, dtype=torch.uint8, device=image.device)
    numbers = [scalars(sensor.black), points(sensor.gain), scalars(sensor.grain), scalars(sensor.seed.int())]
    scale = size / square.side_px
    linear = square.matrix(size)[..., :2].mT / scale.square()[:, None, None]
    shift = square.center_px[..., None] - linear @ torch.full((2, 1), size / 2)
    to_photo = torch.cat([torch.cat([linear, shift], dim=-1).flatten(1), photo_px, scale[:, None]], dim=1)
    numbers += [scalars(to_photo.to(image).contiguous()), size]
    flat = image.reshape(pictures, -1, 3)
    launch(_expose_kernel, flat.shape[:2], [points(flat), *numbers, scalars(out)], image)
    return out.view(pictures, 3, size, size)


def _half_kernels(spread_px: Float[Tensor, "n"]) -> Float[Tensor, "n w"]:
    """Weights of the middle and of one side, three deviations far; the same in any batch."""
    spread = spread_px.double().clamp(SHARP_PX, WIDEST_PX / 3)[:, None]
    away = torch.arange(WIDEST_PX + 1, dtype=torch.float64)
    weights = torch.exp(-((away / spread) ** 2) / 2) * (away <= 3 * spread)
    return (weights / (2 * weights.sum(1, keepdim=True) - weights[:, :1])).float()
