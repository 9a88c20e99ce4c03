"""Which points of a person a photograph shows: rays from the camera to the points, through every face, in Warp."""

# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false
# (annotations of a kernel are Warp's types, and its body is Warp's language)

from typing import no_type_check

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from meshrec.rasterize import NEAR_M, launch, points, rows, scalars, triangles

wp.set_module_options({"enable_backward": False})

_NEAR = wp.constant(float(NEAR_M))


@no_type_check
@wp.kernel
def _hit_kernel(
    rays: wp.array2d(dtype=wp.vec2),
    vertices: wp.array3d(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    depth: wp.array3d(dtype=wp.float32),
):
    """Lower the depth of every ray (x / z, y / z) that meets the front of a face."""
    scene, body, face = wp.tid()
    a = vertices[scene, body, faces[face, 0]]
    b = vertices[scene, body, faces[face, 1]]
    c = vertices[scene, body, faces[face, 2]]
    if wp.min(a[2], wp.min(b[2], c[2])) < _NEAR:
        return
    na = wp.cross(wp.vec3d(c), wp.vec3d(b))
    volume = wp.dot(wp.vec3d(a), na)
    if not (volume > wp.float64(0.0)):
        return
    ax = a[0] / a[2]
    bx = b[0] / b[2]
    cx = c[0] / c[2]
    ay = a[1] / a[2]
    by = b[1] / b[2]
    cy = c[1] / c[2]
    slack = 1.0e-6
    x0 = wp.min(ax, wp.min(bx, cx)) - slack
    x1 = wp.max(ax, wp.max(bx, cx)) + slack
    y0 = wp.min(ay, wp.min(by, cy)) - slack
    y1 = wp.max(ay, wp.max(by, cy)) + slack
    for place in range(rays.shape[1]):
        x = rays[scene, place][0]
        y = rays[scene, place][1]
        if x >= x0 and x <= x1 and y >= y0 and y <= y1:
            ray = wp.vec3d(wp.float64(x), wp.float64(y), wp.float64(1.0))
            ea = wp.dot(na, ray)
            eb = wp.dot(wp.cross(wp.vec3d(a), wp.vec3d(c)), ray)
            ec = wp.dot(wp.cross(wp.vec3d(b), wp.vec3d(a)), ray)
            if ea >= wp.float64(0.0) and eb >= wp.float64(0.0) and ec >= wp.float64(0.0):
                wp.atomic_min(depth, scene, body, place, wp.float32(volume / (ea + eb + ec)))


def first_hits(
    points_m: Float[Tensor, "n K 3"], vertices_m: Float[Tensor, "n k V 3"], faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "n k K"]:
    """How deep (Z, in the camera's frame) rays from the camera to points first meet each body; infinite: never.

    A body's face that reaches behind the camera is met nowhere.
    """
    scenes, bodies, count = len(points_m), vertices_m.shape[1], points_m.shape[1]
    depth = vertices_m.new_full((scenes, bodies, count), torch.inf, dtype=torch.float32)
    corners, vertices = triangles(faces, vertices_m), rows(vertices_m).view(vertices_m.shape)
    rays = (points_m[..., :2] / points_m[..., 2:]).to(depth).contiguous()
    inputs = [wp.from_torch(rays, wp.vec2, return_ctype=True), points(vertices), scalars(corners), scalars(depth)]
    launch(_hit_kernel, (scenes, bodies, len(corners)), inputs, depth)
    return depth
