"""A z-buffer rasteriser of triangle meshes in Warp kernels: any batch, on the processor or on CUDA, without a display.

Coverage is decided in homogeneous coordinates (Olano and Greer, "Triangle scan conversion using 2D homogeneous
coordinates", 1997): a pixel's ray q = (x - cx, y - cy, f) meets a front-facing triangle (a, b, c) where the three edge
functions q . (c x b), q . (a x c) and q . (b x a) are positive, and their shares of the sum are its perspective-correct
barycentrics. No vertex is divided by its depth, so a triangle that crosses the near plane needs no clipping. Products
of two float32 numbers are exact in float64, so two triangles see opposite values of their common edge, and a pixel
centre on it goes to exactly one of them by the top-left rule: no hole, no overlap.

Tensors are shared with Warp, not copied. The first call compiles the kernels (seconds); Warp keeps them on the disk.
"""

# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false
# (annotations of a kernel are Warp's types, and its body is Warp's language)

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, no_type_check

import torch
import warp as wp
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshrec.silence import quiet_stderr
from meshrec.types import Batched, Camera

NEAR_M = 0.05
"""Nothing nearer than this, along the optical axis, is drawn."""

BACKGROUND = -1
"""The face (and the label) of a pixel that no triangle covers."""

EMPTY = 2**63 - 1
"""The key of a pixel that no triangle covers: above every other."""

wp.config.log_level = wp.LOG_ERROR
wp.set_module_options({"enable_backward": False})

_NEAR = wp.constant(wp.float64(NEAR_M))
_GUARD = wp.constant(wp.float64(1.0e-3))
_LOW = wp.constant(wp.int64(2**32 - 1))


@dataclass(frozen=True)
class Fragments(Batched):
    """What every pixel of an image sees of a mesh: the nearest front-facing triangle at the pixel's centre."""

    face: Int[Tensor, "*batch H W"]
    """Row of `faces`; -1 where nothing is seen."""
    barycentric: Float[Tensor, "*batch H W 3"]
    """Perspective-correct weights of the face's three vertices; 0 where nothing is seen."""
    depth_m: Float[Tensor, "*batch H W"]
    """Z in the camera frame; infinite where nothing is seen."""


@no_type_check
@wp.func
def _owns(normal: wp.vec3d, edge: wp.float64) -> bool:
    """Inside an edge, or on it where it is a left or a top one."""
    on = edge == wp.float64(0.0)
    left = normal[0] > wp.float64(0.0)
    top = normal[0] == wp.float64(0.0) and normal[1] > wp.float64(0.0)
    return edge > wp.float64(0.0) or (on and (left or top))


@no_type_check
@wp.func
def _along(box: wp.vec4d, a: wp.vec3d, b: wp.vec3d, focal: wp.float64) -> wp.vec4d:
    """The box (x0, y0, x1, y1) grown by the visible part of the segment from a to b, relative to the image centre."""
    s = focal / a[2]
    p = wp.vec2d(a[0] * s, a[1] * s)
    if a[2] < _NEAR:
        t = (_NEAR - a[2]) / (b[2] - a[2])
        s = focal / _NEAR
        p = wp.vec2d((a[0] + t * (b[0] - a[0])) * s, (a[1] + t * (b[1] - a[1])) * s)
    if a[2] < _NEAR and b[2] < _NEAR:
        return box
    return wp.vec4d(wp.min(box[0], p[0]), wp.min(box[1], p[1]), wp.max(box[2], p[0]), wp.max(box[3], p[1]))


@no_type_check
@wp.func
def _box(a: wp.vec3d, b: wp.vec3d, c: wp.vec3d, focal: wp.float64) -> wp.vec4d:
    """Bounds in pixels of the visible part of a triangle, relative to the image centre: every end of every edge."""
    far = wp.float64(1.0e30)
    box = wp.vec4d(far, far, -far, -far)
    box = _along(box, a, b, focal)
    box = _along(box, b, c, focal)
    box = _along(box, c, a, focal)
    if wp.min(a[2], wp.min(b[2], c[2])) < _NEAR:
        box = _along(box, b, a, focal)
        box = _along(box, c, b, focal)
        box = _along(box, a, c, focal)
    return box


@no_type_check
@wp.func
def _first(low: wp.float64, size: int) -> int:
    """The first pixel whose centre is not before `low`."""
    return int(wp.clamp(wp.ceil(low - wp.float64(0.5) - _GUARD), wp.float64(0.0), wp.float64(size)))


@no_type_check
@wp.func
def _last(high: wp.float64, size: int) -> int:
    """One past the last pixel whose centre is not after `high`."""
    return int(wp.clamp(wp.floor(high + wp.float64(0.5) + _GUARD), wp.float64(0.0), wp.float64(size)))


@no_type_check
@wp.kernel
def _raster_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    intrinsics: wp.array(dtype=wp.vec3),
    width: int,
    height: int,
    nearest: wp.array2d(dtype=wp.int64),
):
    """Write each triangle's (depth, face) into the pixels that it covers, the smallest wins: a tie goes to face order.

    A positive float's bits grow with it, so depth keeps the full precision of float32 in the upper half of the key.
    """
    body, face = wp.tid()
    a = wp.vec3d(vertices[body, faces[face, 0]])
    b = wp.vec3d(vertices[body, faces[face, 1]])
    c = wp.vec3d(vertices[body, faces[face, 2]])
    na = wp.cross(c, b)
    nb = wp.cross(a, c)
    nc = wp.cross(b, a)
    volume = wp.dot(a, na)
    if not (volume > wp.float64(0.0)) or not (wp.max(a[2], wp.max(b[2], c[2])) >= _NEAR):
        return
    camera = wp.vec3d(intrinsics[body])
    focal = camera[0]
    box = _box(a, b, c, focal)
    x0 = _first(box[0] + camera[1], width)
    x1 = _last(box[2] + camera[1], width)
    y0 = _first(box[1] + camera[2], height)
    y1 = _last(box[3] + camera[2], height)
    for y in range(y0, y1):
        qy = wp.float64(y) + wp.float64(0.5) - camera[2]
        row_a = na[1] * qy + na[2] * focal
        row_b = nb[1] * qy + nb[2] * focal
        row_c = nc[1] * qy + nc[2] * focal
        for x in range(x0, x1):
            qx = wp.float64(x) + wp.float64(0.5) - camera[1]
            ea = na[0] * qx + row_a
            eb = nb[0] * qx + row_b
            ec = nc[0] * qx + row_c
            if _owns(na, ea) and _owns(nb, eb) and _owns(nc, ec):
                z = focal * volume / (ea + eb + ec)
                if z >= _NEAR:
                    key = (wp.int64(wp.cast(wp.float32(z), wp.int32)) << wp.int64(32)) | wp.int64(face)
                    wp.atomic_min(nearest, body, y * width + x, key)


@no_type_check
@wp.kernel
def _resolve_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    intrinsics: wp.array(dtype=wp.vec3),
    width: int,
    nearest: wp.array2d(dtype=wp.int64),
    covered: wp.array(dtype=wp.int64),
    face_out: wp.array2d(dtype=wp.int32),
    barycentric_out: wp.array2d(dtype=wp.vec3),
    depth_out: wp.array2d(dtype=wp.float32),
):
    """Face, barycentrics and depth of every covered pixel from the keys."""
    spot = covered[wp.tid()]
    body = wp.int32(spot / wp.int64(nearest.shape[1]))
    pixel = wp.int32(spot % wp.int64(nearest.shape[1]))
    key = nearest[body, pixel]
    face = wp.int32(key & _LOW)
    camera = wp.vec3d(intrinsics[body])
    y = pixel / width
    qx = wp.float64(pixel - y * width) + wp.float64(0.5) - camera[1]
    qy = wp.float64(y) + wp.float64(0.5) - camera[2]
    ray = wp.vec3d(qx, qy, camera[0])
    a = wp.vec3d(vertices[body, faces[face, 0]])
    b = wp.vec3d(vertices[body, faces[face, 1]])
    c = wp.vec3d(vertices[body, faces[face, 2]])
    ea = wp.dot(wp.cross(c, b), ray)
    eb = wp.dot(wp.cross(a, c), ray)
    ec = wp.dot(wp.cross(b, a), ray)
    scale = wp.float64(1.0) / (ea + eb + ec)
    face_out[body, pixel] = face
    barycentric_out[body, pixel] = wp.vec3(wp.float32(ea * scale), wp.float32(eb * scale), wp.float32(ec * scale))
    depth_out[body, pixel] = wp.cast(wp.int32(key >> wp.int64(32)), wp.float32)


def rasterize(vertices_m: Float[Tensor, "*batch V 3"], faces: Int[Tensor, "F 3"], camera: Camera) -> Fragments:
    """What every pixel sees: vertices in the camera frame, faces counter-clockwise from outside, back faces culled.

    The camera serves the whole batch, or has the batch axes itself. For several bodies in one picture, `merge` them.
    """
    batch, vertices, corners = vertices_m.shape[:-2], rows(vertices_m), triangles(faces, vertices_m)
    width, height = camera.width_px, camera.height_px
    bodies, pixels = len(vertices), width * height
    nearest = torch.full((bodies, pixels), EMPTY, dtype=torch.int64, device=vertices.device)
    face = torch.full((bodies, pixels), BACKGROUND, dtype=torch.int32, device=vertices.device)
    barycentric = vertices.new_zeros(bodies, pixels, 3)
    depth_m = vertices.new_full((bodies, pixels), torch.inf)
    mesh = [points(vertices), scalars(corners), points(intrinsics_of(camera, batch, vertices))]
    launch(_raster_kernel, (bodies, len(corners)), [*mesh, width, height, scalars(nearest)], vertices)
    outputs = [scalars(face), points(barycentric), scalars(depth_m)]
    spots = covered(nearest != EMPTY)
    launch(_resolve_kernel, (len(spots),), [*mesh, width, scalars(nearest), scalars(spots), *outputs], vertices)
    image = (*batch, height, width)
    return Fragments(face.view(image), barycentric.view(*image, 3), depth_m.view(image))


def covered(mask: Bool[Tensor, "B pixels"]) -> Int[Tensor, "N"]:
    """The marked pixels, counted through all pictures: most of a picture is background, which no kernel need visit."""
    return mask.flatten().nonzero()[:, 0]


def rows(values: Tensor) -> Tensor:
    """Values of vertices as (B, V, C) of float32: what the kernels read."""
    return values.detach().reshape(-1, *values.shape[-2:]).to(torch.float32).contiguous()


def triangles(faces: Int[Tensor, "F 3"], values: Tensor) -> Int[Tensor, "F 3"]:
    """The faces as int32 where the vertices' values are; a kernel would read whatever lies behind the last vertex."""
    vertices = values.shape[-2]
    if faces.numel():
        low, high = (int(end) for end in faces.aminmax())
        if low < 0 or high >= vertices:
            raise ValueError(f"the faces name vertices {low} to {high}, the mesh has {vertices}")
    return faces.to(values.device, torch.int32).contiguous()


def intrinsics_of(camera: Camera, batch: torch.Size, like: Tensor) -> Tensor:
    """(focal, centre x, centre y) of each body's camera."""
    rows = torch.cat([camera.focal_px[..., None], camera.center_px], dim=-1).to(like)
    return rows.expand(*batch, 3).reshape(-1, 3).contiguous()


def scalars(tensor: Tensor) -> Any:
    """A tensor as Warp's array of numbers, over the same memory."""
    return wp.from_torch(tensor, return_ctype=True)


def points(tensor: Tensor) -> Any:
    """A tensor as Warp's array of 3-vectors, over the same memory."""
    return wp.from_torch(tensor, dtype=wp.vec3, return_ctype=True)


def launch(kernel: Any, size: tuple[int, ...], inputs: list[Any], like: Tensor) -> None:
    """Run a kernel where the tensors live, in the order of torch's own work."""
    _start_warp()
    if 0 in size:
        return
    stream = wp.stream_from_torch(like.device) if like.is_cuda else None
    wp.launch(kernel, dim=size, inputs=inputs, device=str(like.device), stream=stream)


@cache
def _start_warp() -> None:
    """Start Warp; without a graphics driver its native code would write a warning on the standard error stream."""
    with nullcontext() if torch.cuda.is_available() else quiet_stderr():
        wp.init()
