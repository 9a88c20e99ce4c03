"""Points that ride on the skin: some vertices of every part, posed without the others, and what pulls on them.

A pull on a point turns every joint above it. The gradient sums exact moments, through the transforms that blend each
point; the Hessian takes each point as fixed to its part, and sums the parts' 6 x 6 spatial inertias down the tree, as
Featherstone's composite-rigid-body algorithm does. So the cost grows with the points alone, not with the unknowns.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import linear

from meshrec.body import BodyModel
from meshrec.body_file import BodyFile
from meshrec.kinematics import ANCESTORS, Kinematics, joints_by_betas
from meshrec.skeletons import SMPL24
from meshrec.types import Batched

NORMAL_M = 0.05
"""Opposite sides of a thin part count as so far apart, twice: each side gets points of its own."""

ROUNDS = 4
"""Of moving each point to the middle of the skin that is nearest to it."""


@dataclass(frozen=True)
class PosedPoints:
    """The points of N bodies, before translation."""

    rest_m: Float[Tensor, "N 24 n 3"]
    """In the rest pose, with shape and pose correctives."""
    blended: Float[Tensor, "N 24 n 3 4"]
    """The transform that skins each."""
    points_m: Float[Tensor, "N 24 n 3"]
    normals: Float[Tensor, "N 24 n 3"]
    """Outward, turned with the part."""

    def facing(self, transl_m: Float[Tensor, "N 3"]) -> Bool[Tensor, "N 24 n"]:
        """Whether the skin at each point faces the camera."""
        return (self.normals * (self.points_m + transl_m[:, None, None])).sum(-1) < 0


@dataclass(frozen=True)
class SkinPoints(Batched):
    """The rows of a body model that pose n vertices of each of the 24 parts."""

    vertex: Int[Tensor, "24 n"]
    template: Float[Tensor, "24 n 3"]
    normal: Float[Tensor, "24 n 3"]
    """Outward unit normals of the template."""
    shape_directions: Float[Tensor, "24 n 3 B"]
    pose_directions: Float[Tensor, "24 n 3 207"]
    weights: Float[Tensor, "24 n 24"]
    rest_directions: Float[Tensor, "24 3 B"]
    """How the joints of the rest pose move with the shape."""

    def posed(self, tree: Kinematics, betas: Float[Tensor, "N A"], features: Float[Tensor, "N 207"]) -> PosedPoints:
        """Linear blend skinning of the points; shape directions beyond those of `betas` are left out."""
        people, (parts, count) = len(betas), self.vertex.shape
        directions = self.shape_directions[..., : betas.shape[-1]].flatten(0, 2)
        offsets = linear(betas, directions) + linear(features, self.pose_directions.flatten(0, 2))
        rest = self.template + offsets.view(people, parts, count, 3)
        blended = self.weights.flatten(0, 1) @ tree.skinning.flatten(2)
        blended = blended.view(people, parts, count, 3, 4)
        points = (blended[..., :3] * rest[..., None, :]).sum(-1) + blended[..., 3]
        return PosedPoints(rest, blended, points, self.normal @ tree.world.mT)

    def gradient(
        self, tree: Kinematics, posed: PosedPoints, force: Float[Tensor, "N 24 n 3"], betas: int
    ) -> Float[Tensor, "N U"]:
        """The slope by every unknown where `force` is the slope by each point: rotations, betas, translation.

        Exact but for the motion of the pose correctives, as in `FoldedRegressor.with_jacobian`.
        """
        by_transform = _moments(self.weights, force, posed.rest_m)
        pulls = by_transform[..., 3]
        turning = by_transform[..., :3] @ tree.skinning[..., :3].mT + pulls[..., None] * tree.skinning[..., None, :, 3]
        moment = _axis(turning)
        below = ANCESTORS.to(force).mT
        moment = below @ moment - torch.linalg.cross(tree.joints_m, below @ pulls)
        by_rotation = (moment[..., None, :] @ tree.world)[..., 0, :]
        at_rest = (posed.blended[..., :3].mT @ force[..., None]).flatten(1)
        by_shape = at_rest @ self.shape_directions[..., :betas].flatten(0, 2)
        by_shape = by_shape + torch.einsum("njc,njcb->nb", pulls, self._origins_by_betas(tree, betas))
        return torch.cat([by_rotation.flatten(1), by_shape, force.sum((1, 2))], dim=-1)

    def hessian(
        self,
        tree: Kinematics,
        posed: PosedPoints,
        direction: Float[Tensor, "N 24 n 2 3"],
        curvature: Float[Tensor, "N 24 n 2 2"],
        betas: int,
    ) -> Float[Tensor, "N U U"]:
        """Gauss-Newton's Hessian where `curvature` is that by each point's two residuals, which move along `direction`.

        Every point rides on its own part alone. Joint i at o_i with the frame G_i moves what is below it by the twist
        W_i = (G_i, o_i x G_i); so the block (i, k), k above i, is W_i^T C_i W_k, C_i the sum of the inertias below i.
        """
        twist = torch.linalg.cross(posed.points_m[..., None, :].expand_as(direction), direction)
        rows = torch.cat([twist, direction, self._rows_by_betas(tree, direction, betas)], dim=-1)
        inertia = rows.flatten(2, 3).mT @ (curvature @ rows).flatten(2, 3)
        composite = (ANCESTORS.to(inertia).mT @ inertia.flatten(2)).view_as(inertia)
        offset = torch.linalg.cross(tree.joints_m[..., None].expand_as(tree.world), tree.world, dim=-2)
        motion = torch.cat([tree.world, offset], dim=-2)
        bands = motion.mT @ composite[..., :6, :]
        return _assembled(bands, motion, composite[:, 0, 3:, 3:])

    def _rows_by_betas(
        self, tree: Kinematics, direction: Float[Tensor, "N 24 n 2 3"], betas: int
    ) -> Float[Tensor, "N 24 n 2 A"]:
        """How the residuals move with the shape."""
        local = direction.flatten(2, 3) @ tree.world
        local = torch.einsum("njpri,jpib->njprb", local.view_as(direction), self.shape_directions[..., :betas])
        carried = direction.flatten(2, 3) @ self._origins_by_betas(tree, betas)
        return local + carried.view_as(local)

    def _origins_by_betas(self, tree: Kinematics, betas: int) -> Float[Tensor, "N 24 3 A"]:
        """How the skinning's origin of each joint, `o_j - G_j rest_j`, moves with the shape."""
        directions = self.rest_directions[..., :betas]
        return joints_by_betas(tree.world, directions) - tree.world @ directions


def _moments(
    weights: Float[Tensor, "24 n 24"], force: Float[Tensor, "N 24 n 3"], rest_m: Float[Tensor, "N 24 n 3"]
) -> Float[Tensor, "N 24 3 4"]:
    """The slope by each joint's skinning transform: `Q_j = sum_k w_kj f_k (rest_k, 1)^T`."""
    ends = torch.cat([rest_m, torch.ones_like(rest_m[..., :1])], dim=-1)
    products = (force[..., None] * ends[..., None, :]).flatten(1, 2).flatten(2)
    return (weights.flatten(0, 1).mT @ products).unflatten(-1, (3, 4))


def _axis(turning: Float[Tensor, "N 24 3 3"]) -> Float[Tensor, "N 24 3"]:
    """`sum y x f` of `sum f y^T`."""
    odd = turning - turning.mT
    return torch.stack([odd[..., 2, 1], odd[..., 0, 2], odd[..., 1, 0]], dim=-1)


def _assembled(
    bands: Float[Tensor, "N 24 3 M"], motion: Float[Tensor, "N 24 6 3"], rest: Float[Tensor, "N R R"]
) -> Float[Tensor, "N U U"]:
    """The whole Hessian of its rows below the diagonal; M = 6 + A, and `rest` is by translation and betas."""
    turns = bands[..., :6].flatten(1, 2) @ motion.transpose(1, 2).flatten(2)
    above = ANCESTORS.to(bands).repeat_interleave(3, 0).repeat_interleave(3, 1)
    own = torch.eye(len(SMPL24)).to(bands).repeat_interleave(3, 0).repeat_interleave(3, 1)
    turns = turns * above + (turns * (above - own)).mT
    others = torch.cat([bands[..., 6:], bands[..., 3:6]], dim=-1).flatten(1, 2)
    order = [*range(3, rest.shape[-1]), 0, 1, 2]
    rest = rest[:, order][:, :, order]
    return torch.cat([torch.cat([turns, others], dim=-1), torch.cat([others.mT, rest], dim=-1)], dim=-2)


def skin_points(model: BodyModel, count: int) -> SkinPoints:
    """`count` vertices of each part, evenly spread over its skin in the rest pose; the same ones every time."""
    file = model.file
    vertex = _chosen(file, count)
    rows = {
        "template": file.v_template,
        "normal": _unit(_area_normals(file)),
        "shape_directions": file.shapedirs,
        "pose_directions": file.posedirs,
        "weights": file.weights,
    }
    tensors = {name: torch.tensor(values[vertex]).to(model.template) for name, values in rows.items()}
    place = torch.tensor(vertex, device=model.template.device)
    return SkinPoints(vertex=place, rest_directions=model.rest_directions, **tensors)


def _chosen(file: BodyFile, count: int) -> np.ndarray:
    """(24, count) vertices; a part of fewer vertices takes those that its joint moves most of the others'."""
    normals = _area_normals(file)
    area = np.linalg.norm(normals, axis=-1)
    places = np.concatenate([file.v_template, NORMAL_M * _unit(normals)], axis=-1).astype(np.float64)
    owner, chosen = file.weights.argmax(1), []
    for part, weight in enumerate(file.weights.T):
        own = np.flatnonzero(owner == part)
        if len(own) < count:
            own = np.argsort(-weight, kind="stable")[:count]
        chosen.append(own[_spread(places[own], area[own], count)])
    return np.stack(chosen)


def _spread(places: np.ndarray, area: np.ndarray, count: int) -> np.ndarray:
    """Which `count` of the places (M, D) to take: the farthest from those taken before, then Lloyd's rounds."""
    away = np.linalg.norm(places - np.average(places, axis=0, weights=area), axis=-1)
    taken = [int(away.argmax())]
    away = np.linalg.norm(places - places[taken[0]], axis=-1)
    while len(taken) < count:
        taken.append(int(away.argmax()))
        away = np.minimum(away, np.linalg.norm(places - places[taken[-1]], axis=-1))
    for _ in range(ROUNDS):
        nearest = np.linalg.norm(places[:, None] - places[taken], axis=-1).argmin(1)
        for place in range(count):
            cell = np.flatnonzero(nearest == place)
            middle = np.average(places[cell], axis=0, weights=area[cell])
            taken[place] = int(cell[np.linalg.norm(places[cell] - middle, axis=-1).argmin()])
    return np.array(taken)


def _area_normals(file: BodyFile) -> np.ndarray:
    """(V, 3) outward normals of the template's vertices, as long as twice the area of their faces."""
    corners = file.v_template[file.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.zeros(file.v_template.shape)
    for corner in file.faces.T:
        np.add.at(sums, corner, normals)
    return sums


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
