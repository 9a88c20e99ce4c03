"""What all bodies of one model have in common for drawing: faces, the rest pose, and normals from them."""

# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false
# (annotations of a kernel are Warp's types, and its body is Warp's language)

from dataclasses import dataclass
from typing import no_type_check

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.data.body_joints import body_joints
from meshrec.data.synthetic.visibility import first_hits
from meshrec.rasterize import launch, points, rows, scalars, triangles
from meshrec.skeletons import SMPL24
from meshrec.types import Batched, BodyParams

wp.set_module_options({"enable_backward": False})

FAR_M = 100.0
"""So far away rays are parallel."""

ON_SKIN_M = 0.015
"""A joint so near the skin lies on it."""


@no_type_check
@wp.kernel
def _normal_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    starts: wp.array(dtype=wp.int32),
    around: wp.array(dtype=wp.int32),
    out: wp.array2d(dtype=wp.vec3),
):
    """The sum of the normals of the faces around a vertex, always in the same order."""
    body, vertex = wp.tid()
    total = wp.vec3(0.0, 0.0, 0.0)
    for place in range(starts[vertex], starts[vertex + 1]):
        face = around[place]
        a = vertices[body, faces[face, 0]]
        total = total + wp.cross(vertices[body, faces[face, 1]] - a, vertices[body, faces[face, 2]] - a)
    out[body, vertex] = wp.normalize(total)


@dataclass(frozen=True)
class Surface(Batched):
    """What all bodies of one model have in common."""

    rest_m: Float[Tensor, "V 3"]
    """The vertices of the mean shape at rest."""
    faces: Int[Tensor, "F 3"]
    parts: Int[Tensor, "V"]
    """The joint of SMPL24 that moves each vertex most."""
    flesh_m: Float[Tensor, "58"]
    """How much flesh is before and behind each joint of BODY58 at rest, the more of the two; 0: it is on the skin."""
    starts: Int[Tensor, "W"]
    """Where in `around` the faces of each vertex begin; one more than there are vertices."""
    around: Int[Tensor, "E"]
    """The faces at each vertex, vertex by vertex."""

    @classmethod
    def of(cls, model: BodyModel) -> "Surface":
        """Of a model, where it lives."""
        rest_m = model.template.view(-1, 3).float()
        corners = model.faces.flatten()
        order = corners.argsort(stable=True)
        counts = torch.bincount(corners, minlength=len(rest_m))
        starts = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        faces = triangles(model.faces, rest_m)
        return cls(
            rest_m, faces, model.parts.int(), _flesh_m(model).to(rest_m.device), starts.int(), (order // 3).int()
        )

    def faces_of(self, bodies: int) -> Int[Tensor, "G 3"]:
        """The faces of so many bodies whose vertices stand one after another."""
        starts = len(self.rest_m) * torch.arange(bodies, dtype=torch.int32, device=self.faces.device)
        return (self.faces + starts[:, None, None]).flatten(0, 1)

    def normals(self, vertices_m: Float[Tensor, "*batch V 3"]) -> Float[Tensor, "*batch V 3"]:
        """Outward unit normals of the vertices, to the last bit the same every time."""
        vertices = rows(vertices_m)
        out = torch.empty_like(vertices)
        mesh = [points(vertices), scalars(self.faces), scalars(self.starts), scalars(self.around)]
        launch(_normal_kernel, vertices.shape[:2], [*mesh, points(out)], vertices)
        return out.view(vertices_m.shape)


def _flesh_m(model: BodyModel) -> Float[Tensor, "58"]:
    """From each joint along z, forward and backward, to where a ray from far away first meets the body at rest."""
    upright, away = torch.eye(3), torch.tensor([0.0, 0.0, FAR_M])
    depth = []
    for turn in (upright, torch.diag(torch.tensor([-1.0, 1.0, -1.0]))):
        rotations = torch.cat([turn[None], upright.expand(len(SMPL24) - 1, 3, 3)])
        rest = BodyParams.from_rotations(rotations, torch.zeros(1), away).to(model.template)
        joints_m, skin_m = body_joints(model, rest), model(rest).vertices_m
        hits_m = first_hits(joints_m[None].float(), skin_m[None, None].float(), model.faces)[0, 0]
        depth.append((joints_m[:, 2] - hits_m).clamp(min=0))
        nearest_m = (joints_m[:, None] - skin_m).norm(dim=-1).amin(-1)
    return torch.where(nearest_m < ON_SKIN_M, 0.0, torch.maximum(*depth)).float()
