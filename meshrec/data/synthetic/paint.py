"""Dressed bodies under a light, in Warp kernels: each sample of a pixel has its own place on the body at rest."""

# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false
# (annotations of a kernel are Warp's types, and its body is Warp's language)

from typing import no_type_check

import torch
import warp as wp
from jaxtyping import Float
from torch import Tensor

from meshrec.data.synthetic.looks import Light, Look
from meshrec.data.synthetic.surface import Surface
from meshrec.rasterize import Fragments, launch, points, rows, scalars

wp.set_module_options({"enable_backward": False})

SKIN = wp.constant(0)
HAIR = wp.constant(1)
SHIRT = wp.constant(2)
TROUSERS = wp.constant(3)
SHOES = wp.constant(4)

WRAP = wp.constant(0.2)
"""How far the key light reaches around the body: 0 (hard) to 1 (soft)."""


@no_type_check
@wp.func
def _region(p: wp.vec3, seams: wp.array2d(dtype=wp.float32), body: int) -> int:
    """What a place on the body at rest is made of."""
    across = wp.abs(p[0])
    if across < 0.11 and p[1] > 0.33:
        front = wp.clamp((p[2] - 0.07) / 0.04, 0.0, 1.0)
        if p[1] > seams[body, 5] + front * (wp.max(seams[body, 6], seams[body, 5]) - seams[body, 5]):
            return HAIR
        return SKIN
    if across > 0.19 and p[1] > 0.1:
        if across > seams[body, 0]:
            return SKIN
        return SHIRT
    if p[1] > seams[body, 4] + 0.25 * wp.min(across, 0.1) and across < 0.13:
        return SKIN
    if p[1] > seams[body, 1]:
        return SHIRT
    if p[1] > seams[body, 2]:
        return TROUSERS
    if p[1] < seams[body, 3] and seams[body, 7] < 0.5:
        return SHOES
    return SKIN


@no_type_check
@wp.func
def _albedo(p: wp.vec3, m: wp.array3d(dtype=wp.float32), body: int, r: int) -> wp.vec3:
    """The colour of a material's pattern."""
    first = wp.vec3(m[body, r, 0], m[body, r, 1], m[body, r, 2])
    pattern = int(m[body, r, 6])
    if pattern == 0:
        return first
    second = wp.vec3(m[body, r, 3], m[body, r, 4], m[body, r, 5])
    phase = m[body, r, 13]
    u = wp.dot(p, wp.vec3(m[body, r, 7], m[body, r, 8], m[body, r, 9])) + phase
    v = wp.dot(p, wp.vec3(m[body, r, 10], m[body, r, 11], m[body, r, 12])) + phase
    wave = wp.sin(u)
    if pattern == 2:
        wave = wave * wp.sin(v)
    if pattern == 3:
        wave = 0.8 * (wp.sin(u + 1.7 * wp.sin(0.7 * v)) + wp.sin(0.61 * v + 2.3 * wp.sin(0.53 * u + phase)))
    if wave > m[body, r, 14]:
        return second
    return first


@no_type_check
@wp.func
def _faced(p: wp.vec3, skin: wp.vec3) -> wp.vec3:
    """Skin with eyes, brows and a mouth where the face has them at rest."""
    if p[2] < 0.1 or p[1] < 0.36:
        return skin
    across = wp.abs(p[0])
    eye_x = (across - 0.030) / 0.012
    eye_y = (p[1] - 0.458) / 0.006
    if eye_x * eye_x + eye_y * eye_y < 1.0:
        return 0.15 * skin
    brow_x = (across - 0.032) / 0.018
    brow_y = (p[1] - 0.477) / 0.004
    if brow_x * brow_x + brow_y * brow_y < 1.0:
        return 0.35 * skin
    mouth_x = p[0] / 0.023
    mouth_y = (p[1] - 0.388) / 0.006
    if mouth_x * mouth_x + mouth_y * mouth_y < 1.0:
        return wp.cw_mul(skin, wp.vec3(0.7, 0.35, 0.4))
    return skin


@no_type_check
@wp.func
def _folded(p: wp.vec3, normal: wp.vec3, m: wp.array3d(dtype=wp.float32), body: int, r: int) -> wp.vec3:
    """The normal of cloth that falls in folds."""
    phase = m[body, r, 13]
    u = 38.0 * (p[0] + 0.6 * p[1]) + phase + 1.5 * wp.sin(17.0 * p[1] + 2.0 * phase)
    v = 29.0 * (p[1] - 0.4 * p[0] + 0.5 * p[2]) + 1.8 * wp.sin(23.0 * p[0] + phase)
    tilt = m[body, r, 15] * wp.vec3(wp.cos(u), wp.sin(v), wp.sin(u + v))
    return wp.normalize(normal + 0.6 * tilt)


@no_type_check
@wp.func
def _filled(face_in: wp.array2d(dtype=wp.int32), scene: int, corner: int, width: int, samples: int, faces: int) -> bool:
    """Whether all samples of a pixel, whose first one is `corner`, show one body."""
    first = face_in[scene, corner]
    if first < 0:
        return False
    filled = bool(True)  # noqa: UP018 (a value that a loop changes has to be made so)
    for j in range(samples):
        for i in range(samples):
            face = face_in[scene, corner + j * width + i]
            if face < 0 or face / faces != first / faces:
                filled = False
    return filled


@no_type_check
@wp.kernel
def _paint_kernel(
    normals: wp.array2d(dtype=wp.vec3),
    rest: wp.array(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    face_in: wp.array2d(dtype=wp.int32),
    barycentric: wp.array2d(dtype=wp.vec3),
    materials: wp.array3d(dtype=wp.float32),
    seams: wp.array2d(dtype=wp.float32),
    lights: wp.array2d(dtype=wp.vec3),
    width: int,
    samples: int,
    out: wp.array2d(dtype=wp.vec4),
):
    """The mean over a pixel's samples of their light and coverage; `normals` run through all bodies of a picture.

    Of a pixel that one body fills, the samples on its diagonal tell enough.
    """
    scene, pixel = wp.tid()
    coarse = width / samples
    y = pixel / coarse
    x = pixel - y * coarse
    bodies = materials.shape[0] / face_in.shape[0]
    filled = _filled(face_in, scene, (y * samples) * width + x * samples, width, samples, faces.shape[0])
    total = wp.vec4(0.0, 0.0, 0.0, 0.0)
    for j in range(samples):
        for i in range(samples):
            spot = (y * samples + j) * width + x * samples + i
            face = face_in[scene, spot]
            if face >= 0 and (i == j or not filled):
                slot = face / faces.shape[0]
                own = face - slot * faces.shape[0]
                first = slot * rest.shape[0]
                a = faces[own, 0]
                b = faces[own, 1]
                c = faces[own, 2]
                w = barycentric[scene, spot]
                p = rest[a] * w[0] + rest[b] * w[1] + rest[c] * w[2]
                normal = normals[scene, first + a] * w[0] + normals[scene, first + b] * w[1]
                normal = wp.normalize(normal + normals[scene, first + c] * w[2])
                body = scene * bodies + slot
                region = _region(p, seams, body)
                normal = _folded(p, normal, materials, body, region)
                key = wp.max((wp.dot(normal, lights[scene, 0]) + WRAP) / (1.0 + WRAP), 0.0)
                above = 0.5 + 0.5 * wp.dot(normal, lights[scene, 1])
                light = lights[scene, 2] * key + lights[scene, 3] * above + lights[scene, 4] * (1.0 - above)
                albedo = _albedo(p, materials, body, region)
                if region == SKIN:
                    albedo = _faced(p, albedo)
                rgb = wp.cw_mul(albedo, light)
                total = total + wp.vec4(wp.sqrt(rgb[0]), wp.sqrt(rgb[1]), wp.sqrt(rgb[2]), 1.0)
    count = samples if filled else samples * samples
    out[scene, pixel] = total / float(count)


@no_type_check
@wp.kernel
def _dress_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    normals: wp.array2d(dtype=wp.vec3),
    rest: wp.array(dtype=wp.vec3),
    seams: wp.array2d(dtype=wp.float32),
    thickness: wp.array2d(dtype=wp.float32),
    out: wp.array2d(dtype=wp.vec3),
):
    """Move each vertex out by as much as what covers it is thick."""
    body, vertex = wp.tid()
    p = rest[vertex]
    away = thickness[body, _region(p, seams, body)]
    out[body, vertex] = vertices[body, vertex] + away * normals[body, vertex]


def dressed(
    vertices_m: Float[Tensor, "*batch V 3"], normals: Float[Tensor, "*batch V 3"], surface: Surface, look: Look
) -> Float[Tensor, "*batch V 3"]:
    """Bodies as thick as what they wear."""
    vertices = rows(vertices_m)
    out = torch.empty_like(vertices)
    seams, thickness = (part.reshape(len(vertices), -1).contiguous() for part in (look.seams, look.thickness_m))
    wear = [scalars(seams), scalars(thickness), points(out)]
    launch(_dress_kernel, out.shape[:2], [points(vertices), points(rows(normals)), points(surface.rest_m), *wear], out)
    return out.view(vertices_m.shape)


def painted(
    fragments: Fragments,
    normals: Float[Tensor, "n k V 3"],
    surface: Surface,
    look: Look,
    light: Light,
    samples: int,
) -> Float[Tensor, "n h w 4"]:
    """Pictures of k bodies each: sRGB times coverage, and coverage, of `samples` squared points a pixel.

    The fragments are those of the fine image, and number the faces of a picture's bodies one after another.
    """
    scenes, height, width = fragments.face.shape
    out = normals.new_empty(scenes, (height // samples) * (width // samples), 4)
    lights = torch.stack([light.direction, light.up, light.key, light.sky, light.ground], dim=-2)
    parts = [
        points(normals.reshape(scenes, -1, 3)),
        points(surface.rest_m),
        scalars(surface.faces),
        scalars(fragments.face.reshape(scenes, -1)),
        points(fragments.barycentric.reshape(scenes, -1, 3)),
        scalars(look.materials.reshape(-1, *look.materials.shape[-2:])),
        scalars(look.seams.reshape(-1, look.seams.shape[-1])),
        points(lights),
    ]
    launch(_paint_kernel, out.shape[:2], [*parts, width, samples, wp.from_torch(out, wp.vec4, return_ctype=True)], out)
    return out.view(scenes, height // samples, width // samples, 4)
