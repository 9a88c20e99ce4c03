"""From fragments to quantities: normals, labels, interpolated attributes, and light, in Warp kernels."""

# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false
# (annotations of a kernel are Warp's types, and its body is Warp's language)

import math
from collections.abc import Sequence
from typing import no_type_check

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from meshrec.rasterize import BACKGROUND, Fragments, covered, intrinsics_of, launch, points, rows, scalars, triangles
from meshrec.types import Camera

wp.set_module_options({"enable_backward": False})

KEY_DIRECTION = wp.constant(wp.vec3(-0.58, -0.70, -0.42))
"""Towards the key light, in the camera frame: over the photographer's left shoulder."""

KEY = wp.constant(wp.vec3(0.78, 0.75, 0.70))
SKY = wp.constant(wp.vec3(0.36, 0.38, 0.42))
GROUND = wp.constant(wp.vec3(0.15, 0.135, 0.125))
"""Linear light of the key, of the sky above and of the ground below."""

WRAP = wp.constant(0.15)
"""How far the key light reaches around the body: 0 (hard) to 1 (soft)."""

FRONT = wp.constant(0.10)
RIM = wp.constant(0.16)
"""Light from the camera, and light at the outline from above."""


@no_type_check
@wp.func
def _lit(color: wp.vec3, normal: wp.vec3, towards_camera: wp.vec3) -> wp.vec3:
    """A matte surface in sRGB: wrapped Lambert for the key light, a hemisphere for sky and ground, and a rim.

    Light adds up linearly; a square stands for sRGB's power of 2.2.
    """
    key = wp.max((wp.dot(normal, wp.normalize(KEY_DIRECTION)) + WRAP) / (1.0 + WRAP), 0.0)
    up = 0.5 - 0.5 * normal[1]
    facing = wp.clamp(wp.dot(normal, towards_camera), 0.0, 1.0)
    away = 1.0 - facing
    front = FRONT * facing
    light = KEY * key + SKY * up + GROUND * (1.0 - up) + wp.vec3(front, front, front)
    rim = RIM * up * away * away * away
    linear = wp.cw_mul(wp.cw_mul(color, color), light) + wp.vec3(rim, rim, rim)
    return wp.vec3(
        wp.sqrt(wp.clamp(linear[0], 0.0, 1.0)),
        wp.sqrt(wp.clamp(linear[1], 0.0, 1.0)),
        wp.sqrt(wp.clamp(linear[2], 0.0, 1.0)),
    )


@no_type_check
@wp.kernel
def _shade_kernel(
    normals: wp.array2d(dtype=wp.vec3),
    colors: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    intrinsics: wp.array(dtype=wp.vec3),
    covered: wp.array(dtype=wp.int64),
    face_in: wp.array2d(dtype=wp.int32),
    barycentric: wp.array2d(dtype=wp.vec3),
    width: int,
    samples: int,
    out: wp.array2d(dtype=wp.vec4),
):
    """Light every covered fine pixel, and add its share to its coarse pixel."""
    spot = covered[wp.tid()]
    body = wp.int32(spot / wp.int64(face_in.shape[1]))
    pixel = wp.int32(spot % wp.int64(face_in.shape[1]))
    face = face_in[body, pixel]
    y = pixel / width
    x = pixel - y * width
    weight = barycentric[body, pixel]
    i = faces[face, 0]
    j = faces[face, 1]
    k = faces[face, 2]
    normal = wp.normalize(normals[body, i]) * weight[0]
    normal = normal + wp.normalize(normals[body, j]) * weight[1] + wp.normalize(normals[body, k]) * weight[2]
    color = colors[body, i] * weight[0] + colors[body, j] * weight[1] + colors[body, k] * weight[2]
    camera = intrinsics[body]
    ray = wp.vec3(float(x) + 0.5 - camera[1], float(y) + 0.5 - camera[2], camera[0])
    rgb = _lit(color, wp.normalize(normal), -wp.normalize(ray))
    share = 1.0 / float(samples * samples)
    coarse = (y / samples) * (width / samples) + x / samples
    wp.atomic_add(out, body, coarse, wp.vec4(rgb[0], rgb[1], rgb[2], 1.0) * share)


@no_type_check
@wp.kernel
def _interpolate_kernel(
    attributes: wp.array3d(dtype=wp.float32),
    faces: wp.array2d(dtype=wp.int32),
    covered: wp.array(dtype=wp.int64),
    face_in: wp.array2d(dtype=wp.int32),
    barycentric: wp.array2d(dtype=wp.vec3),
    channels: int,
    out: wp.array3d(dtype=wp.float32),
):
    """Write the weighted mean of the three corners' attributes to every covered pixel."""
    spot = covered[wp.tid()]
    body = wp.int32(spot / wp.int64(face_in.shape[1]))
    pixel = wp.int32(spot % wp.int64(face_in.shape[1]))
    face = face_in[body, pixel]
    weight = barycentric[body, pixel]
    i = faces[face, 0]
    j = faces[face, 1]
    k = faces[face, 2]
    for channel in range(channels):
        out[body, pixel, channel] = (
            weight[0] * attributes[body, i, channel]
            + weight[1] * attributes[body, j, channel]
            + weight[2] * attributes[body, k, channel]
        )


@no_type_check
@wp.kernel
def _normal_kernel(
    vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=wp.int32), out: wp.array2d(dtype=wp.vec3)
):
    """Add a face's normal, as long as twice its area, to each of its corners."""
    body, face = wp.tid()
    i = faces[face, 0]
    j = faces[face, 1]
    k = faces[face, 2]
    a = vertices[body, i]
    normal = wp.cross(vertices[body, j] - a, vertices[body, k] - a)
    wp.atomic_add(out, body, i, normal)
    wp.atomic_add(out, body, j, normal)
    wp.atomic_add(out, body, k, normal)


def interpolate(
    attributes: Float[Tensor, "*attributes V C"], faces: Int[Tensor, "F 3"], fragments: Fragments
) -> Float[Tensor, "*batch H W C"]:
    """Any quantity of the vertices at the pixels, perspective-correct; 0 where nothing is seen.

    Attributes of one body serve a batch of fragments, and fragments of one picture a batch of attributes.
    """
    *pictures, height, width = fragments.face.shape
    batch = _common_batch(attributes.shape[:-2], pictures)
    attributes = attributes.to(fragments.face.device).expand(*batch, -1, -1)
    values, corners = rows(attributes), triangles(faces, attributes)
    bodies, _, channels = values.shape
    out = values.new_zeros(bodies, height * width, channels)
    spots, seen = _seen(fragments, batch, len(corners))
    inputs = [scalars(values), scalars(corners), *seen, channels, scalars(out)]
    launch(_interpolate_kernel, (spots,), inputs, values)
    return out.view(*batch, height, width, channels)


def vertex_normals(vertices_m: Float[Tensor, "*batch V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "*batch V 3"]:
    """Outward unit normals of the vertices: the sum of the normals of their faces, weighted by area."""
    sums = _normal_sums(rows(vertices_m), triangles(faces, vertices_m))
    return normalize(sums, dim=-1, eps=1e-20).view(vertices_m.shape)


def _normal_sums(vertices: Float[Tensor, "B V 3"], corners: Int[Tensor, "F 3"]) -> Float[Tensor, "B V 3"]:
    """The normals of the vertices, each as long as twice the area of its faces."""
    sums = torch.zeros_like(vertices)
    launch(_normal_kernel, (len(vertices), len(corners)), [points(vertices), scalars(corners), points(sums)], vertices)
    return sums


def normals(
    fragments: Fragments, vertices_m: Float[Tensor, "*batch V 3"], faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "*batch H W 3"]:
    """Smooth outward unit normals in the camera frame; 0 where nothing is seen."""
    return normalize(interpolate(vertex_normals(vertices_m, faces), faces, fragments), dim=-1)


def vertex_labels(
    fragments: Fragments, faces: Int[Tensor, "F 3"], labels: Int[Tensor, "V"]
) -> Int[Tensor, "*batch H W"]:
    """The label of the vertex that weighs most at each pixel; -1 where nothing is seen."""
    corner = fragments.barycentric.argmax(-1)
    seen = fragments.face != BACKGROUND
    vertex = faces.to(corner.device)[fragments.face.clamp(min=0).long(), corner]
    return torch.where(seen, labels.to(corner.device)[vertex.long()], BACKGROUND)


def face_labels(fragments: Fragments, labels: Int[Tensor, "F"]) -> Int[Tensor, "*batch H W"]:
    """The label of the face at each pixel; -1 where nothing is seen."""
    seen = fragments.face != BACKGROUND
    return torch.where(seen, labels.to(seen.device)[fragments.face.clamp(min=0).long()], BACKGROUND)


def shade(
    fragments: Fragments,
    vertices_m: Float[Tensor, "*bodies V 3"],
    faces: Int[Tensor, "F 3"],
    camera: Camera,
    vertex_colors: Float[Tensor, "*colors V 3"],
    samples: int = 1,
) -> Float[Tensor, "*batch h w 4"]:
    """The mesh under the lights: sRGB times coverage, and coverage; h, w are H, W divided by `samples`.

    Fragments and camera are those of the fine image, whose squares of `samples` x `samples` pixels are averaged.
    Each fine pixel is lit by its own smooth normal.
    """
    *pictures, height, width = fragments.face.shape
    if height % samples or width % samples:
        raise ValueError(f"an image of {width} x {height} pixels does not split into squares of {samples}")
    batch = _common_batch(vertices_m.shape[:-2], pictures)
    vertices_m = vertices_m.to(fragments.face.device).expand(*batch, -1, -1)
    corners = triangles(faces, vertices_m)
    normal = _normal_sums(rows(vertices_m), corners)
    color = rows(vertex_colors.to(normal.device).expand_as(vertices_m))
    bodies, pixels = len(normal), height * width
    out = normal.new_zeros(bodies, pixels // samples**2, 4)
    intrinsics = points(intrinsics_of(camera, batch, normal))
    spots, seen = _seen(fragments, batch, len(corners))
    mesh = [points(normal), points(color), scalars(corners), intrinsics, *seen]
    outputs = [width, samples, wp.from_torch(out, wp.vec4, return_ctype=True)]
    launch(_shade_kernel, (spots,), [*mesh, *outputs], normal)
    return out.view(*batch, height // samples, width // samples, 4)


def _common_batch(values: Sequence[int], pictures: Sequence[int]) -> torch.Size:
    """The batch axes over which both are spread."""
    try:
        return torch.broadcast_shapes(tuple(values), tuple(pictures))
    except RuntimeError as error:
        raise ValueError(f"values of {tuple(values)} bodies do not fit fragments of {tuple(pictures)}") from error


def _seen(fragments: Fragments, batch: torch.Size, faces: int) -> tuple[int, list[object]]:
    """How many pixels are covered; and which, their faces and barycentrics as the kernels read them: (B, pixels)."""
    face, barycentric = fragments.face, fragments.barycentric
    if face.numel() and (high := int(face.max())) >= faces:
        raise ValueError(f"the fragments name face {high}, the mesh has {faces}")
    image, bodies = face.shape[-2:], math.prod(batch)
    faces_seen = face.expand(*batch, *image).reshape(bodies, -1).contiguous()
    weights = barycentric.expand(*batch, *image, 3).reshape(bodies, -1, 3).contiguous()
    spots = covered(faces_seen != BACKGROUND)
    return len(spots), [scalars(spots), scalars(faces_seen), points(weights)]
