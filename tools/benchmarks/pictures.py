"""Drawing a body, against a z-buffer in NumPy and rays in trimesh."""

from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from torch import Tensor

from benchmarks.clock import Figure, medians_s
from meshrec.body import load_body_model
from meshrec.camera import camera_from_body_axes, centered_camera
from meshrec.render import CLAY, paint, render_rgba
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams, Camera

SIDE_PX = 224
FOCAL_PX = 500.0
DEPTH_M = 4.5
LIGHT = np.array([-0.58, -0.70, -0.42])
RAYS_LEFT = 16
"""One ray of so many is cast."""


@dataclass(frozen=True)
class Scene:
    """The shipped body, upright, as tall as the picture nearly."""

    vertices_m: Tensor
    faces: Tensor
    camera: Camera


def against_numpy(repeats: int) -> Figure:
    """Projection, raster and shading of one picture, one sample a pixel, on both sides."""
    scene = _scene()
    colors = paint(CLAY, len(scene.vertices_m))
    vertices_m, faces = scene.vertices_m.numpy(), scene.faces.numpy()
    ours_s, peer_s = medians_s(
        lambda: render_rgba(scene.vertices_m, scene.faces, scene.camera, colors, samples=1),
        lambda: numpy_picture(vertices_m, faces),
        repeats=repeats,
    )
    note = f"{len(vertices_m):,} vertices, {len(faces):,} faces"
    return Figure(1e3 * ours_s, "ms", 1e3 * peer_s, "NumPy z-buffer", note)


def against_trimesh(repeats: int) -> Figure:
    """The peer casts a ray through each pixel and shades nothing."""
    scene = _scene()
    colors = paint(CLAY, len(scene.vertices_m))
    mesh = trimesh.Trimesh(scene.vertices_m.numpy(), scene.faces.numpy(), process=False)
    rays = _rays()[::RAYS_LEFT]
    origins = np.zeros_like(rays)
    ours_s, peer_s = medians_s(
        lambda: render_rgba(scene.vertices_m, scene.faces, scene.camera, colors, samples=1),
        lambda: mesh.ray.intersects_first(origins, rays),
        repeats=repeats,
        most=1,
    )
    caster = type(mesh.ray).__module__.rpartition(".")[2]
    note = f"by {caster}; one ray of {RAYS_LEFT} is cast and the time is scaled"
    return Figure(1e3 * ours_s, "ms", 1e3 * RAYS_LEFT * peer_s, "trimesh, rays alone", note)


def numpy_picture(vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """A shaded picture: every pixel of the triangles' boxes is tested, all triangles at once, the nearest is kept."""
    xy_px = FOCAL_PX * vertices_m[:, :2] / vertices_m[:, 2:] + SIDE_PX / 2
    corners, disparity = xy_px[faces], 1 / vertices_m[faces, 2]
    ab, ac = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    low = np.ceil(corners.min(axis=1) - 0.5).astype(int).clip(0, SIDE_PX)
    high = (np.floor(corners.max(axis=1) - 0.5).astype(int) + 1).clip(0, SIDE_PX)
    size = high - low
    nearest, face_of = np.zeros(SIDE_PX * SIDE_PX), np.full(SIDE_PX * SIDE_PX, -1)
    shares_of = np.zeros((SIDE_PX * SIDE_PX, 3))
    drawn = np.flatnonzero((area < 0) & (size > 0).all(axis=1))
    for step_y in range(size[drawn, 1].max(initial=0)):
        row = drawn[size[drawn, 1] > step_y]
        for step_x in range(size[row, 0].max(initial=0)):
            face = row[size[row, 0] > step_x]
            pixel = low[face] + (step_x, step_y)
            offset = pixel + 0.5 - corners[face, 0]
            b = (offset[:, 0] * ac[face, 1] - offset[:, 1] * ac[face, 0]) / area[face]
            c = (ab[face, 0] * offset[:, 1] - ab[face, 1] * offset[:, 0]) / area[face]
            shares = np.stack([1 - b - c, b, c], axis=1)
            inside = (shares >= 0).all(axis=1)
            face, shares = face[inside], shares[inside]
            place = pixel[inside, 1] * SIDE_PX + pixel[inside, 0]
            near = (shares * disparity[face]).sum(axis=1)
            order = np.argsort(near)
            order = order[near[order] > nearest[place[order]]]
            chosen = place[order]
            nearest[chosen], face_of[chosen], shares_of[chosen] = near[order], face[order], shares[order]
    return _shaded(vertices_m, faces, face_of, shares_of)


def _shaded(vertices_m: np.ndarray, faces: np.ndarray, face_of: np.ndarray, shares_of: np.ndarray) -> np.ndarray:
    """One lamp on smooth normals."""
    a, b, c = (vertices_m[faces[:, corner]] for corner in range(3))
    cross = np.cross(b - a, c - a)
    normals = np.stack(
        [np.bincount(faces.ravel(), np.repeat(cross[:, axis], 3), len(vertices_m)) for axis in range(3)], axis=1
    )
    seen = face_of >= 0
    normal = (shares_of[seen][..., None] * normals[faces[face_of[seen]]]).sum(axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    picture = np.zeros((SIDE_PX * SIDE_PX, 4), np.float32)
    light = 0.3 + 0.7 * (normal @ LIGHT).clip(min=0)
    picture[seen, :3], picture[seen, 3] = light[:, None] * CLAY, 1
    return picture.reshape(SIDE_PX, SIDE_PX, 4)


def _scene() -> Scene:
    model = load_body_model()
    joints = len(SMPL24) - 1
    params = BodyParams(
        camera_from_body_axes(), torch.eye(3).repeat(joints, 1, 1), torch.zeros(10), torch.tensor([0.0, 0.0, DEPTH_M])
    )
    vertices_m = model(params).vertices_m
    middle = (vertices_m.amin(0) + vertices_m.amax(0))[:2] / 2
    vertices_m = vertices_m - torch.nn.functional.pad(middle, (0, 1))
    return Scene(vertices_m, model.faces, centered_camera(SIDE_PX, SIDE_PX, FOCAL_PX, "given"))


def _rays() -> np.ndarray:
    """Through each pixel's centre."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] + 0.5 - SIDE_PX / 2
    return np.stack([x, y, np.full_like(x, FOCAL_PX)], axis=-1).reshape(-1, 3)
