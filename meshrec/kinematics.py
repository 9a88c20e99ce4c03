"""The kinematic tree of SMPL: posing it, and how its joints move with the shape."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.skeletons import SMPL24, Skeleton


@dataclass(frozen=True)
class Kinematics:
    """The posed tree of one or many bodies, before translation."""

    transforms: Float[Tensor, "*batch 24 3 4"]
    """Joint frame to outer frame: rotation, and the joint's place."""
    rest_m: Float[Tensor, "*batch 24 3"]
    """The joints of the shaped body in its rest pose."""

    @property
    def world(self) -> Float[Tensor, "*batch 24 3 3"]:
        """Rotation of each joint's frame in the outer frame."""
        return self.transforms[..., :3]

    @property
    def joints_m(self) -> Float[Tensor, "*batch 24 3"]:
        """The posed joints."""
        return self.transforms[..., 3]

    @property
    def skinning(self) -> Float[Tensor, "*batch 24 3 4"]:
        """x -> G_j (x - rest_j) + joint_j, rest pose to posed body."""
        offset = self.joints_m - (self.world @ self.rest_m[..., None])[..., 0]
        return torch.cat([self.world, offset[..., None]], dim=-1)


def pose_tree(rotations: Float[Tensor, "*batch 24 3 3"], rest_m: Float[Tensor, "*batch 24 3"]) -> Kinematics:
    """Joint frames along the tree, one level of it at a time: `G_child = G_parent [R | bone]`.

    The bodies run along the last axis meanwhile, where the processor's vectors lie.
    """
    bones = torch.cat([rest_m[..., :1, :], rest_m[..., 1:, :] - rest_m[..., SMPL24.parents[1:], :]], dim=-2)
    local = torch.cat([rotations, bones[..., None]], dim=-1).reshape(-1, len(SMPL24), 3, 4)
    local = local.permute(2, 3, 1, 0).contiguous()
    levels = [local[:, :, :1]]
    for start, stop, parents in _LEVELS:
        parent = levels[-1][:, :, parents]
        x, y, z = local[:, :, start:stop]
        child = torch.addcmul(torch.addcmul(parent[:, 0, None] * x, parent[:, 1, None], y), parent[:, 2, None], z)
        child[:, 3] += parent[:, 3]
        levels.append(child)
    transforms = torch.cat(levels, dim=2).permute(3, 2, 0, 1)
    return Kinematics(transforms.reshape(*rotations.shape[:-3], len(SMPL24), 3, 4), rest_m)


def pose_features(rotations: Float[Tensor, "*batch 24 3 3"]) -> Float[Tensor, "*batch 207"]:
    """R - I of the 23 joints below the root, row by row: what SMPL's pose correctives are linear in."""
    identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    return (rotations[..., 1:, :, :] - identity).flatten(-3)


def joints_by_betas(
    world: Float[Tensor, "*batch 24 3 3"], rest_directions: Float[Tensor, "24 3 B"]
) -> Float[Tensor, "*batch 24 3 B"]:
    """How the posed joints move with the shape: the root's own motion plus every bone's above the joint."""
    parents = list(SMPL24.parents[1:])
    bones = world[..., parents, :, :] @ (rest_directions[1:] - rest_directions[parents])
    moved = torch.cat([rest_directions[:1].expand(*bones.shape[:-3], -1, -1, -1), bones], dim=-3)
    return torch.einsum("ji,...icb->...jcb", ANCESTORS.to(moved), moved)


def ancestors(skeleton: Skeleton) -> Float[Tensor, "J J"]:
    """1 where the column's joint lies on the way from the root to the row's joint, itself included."""
    above = torch.eye(len(skeleton))
    for joint, parent in enumerate(skeleton.parents):
        if parent >= 0:
            above[joint] += above[parent]
    return above


ANCESTORS = ancestors(SMPL24)


def _levels(skeleton: Skeleton) -> list[tuple[int, int, list[int]]]:
    """The tree level by level: first joint, one past the last, and the parents' places within the level above."""
    depth = [0]
    for parent in skeleton.parents[1:]:
        depth.append(depth[parent] + 1)
    assert depth == sorted(depth), "SMPL numbers its joints level by level"
    starts = [depth.index(level) for level in range(depth[-1] + 1)] + [len(depth)]
    return [
        (start, stop, [parent - above for parent in skeleton.parents[start:stop]])
        for above, (start, stop) in zip(starts, pairwise(starts[1:]), strict=False)
    ]


_LEVELS = _levels(SMPL24)
