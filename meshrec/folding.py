"""Joints regressed from the skin, folded through skinning so that no vertex is touched.

A regressed joint is linear in the posed vertices, and those are linear in the joints' transforms:
`x_k = sum_v r_kv sum_j w_vj (G_j v + t_j) = sum_j G_j c_kj + a_kj t_j`, with `a_kj = sum_v r_kv w_vj` and
`c_kj = sum_v r_kv w_vj v(betas, R)`, which is linear in betas and R - I. It is the same number, not an approximation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from meshrec.body_file import BodyFile
from meshrec.kinematics import ANCESTORS, Kinematics, joints_by_betas
from meshrec.skeletons import SMPL24


@dataclass(frozen=True)
class Fold:
    """P pairs (regressed joint k, tree joint j) that share skin, in the order of k."""

    keypoint: np.ndarray
    joint: np.ndarray
    share: np.ndarray
    """(P,) a_kj."""
    total: np.ndarray
    """(K,) the sum of each joint's row, 1 but for rounding: what a translation of the skin moves the joint by."""
    template: np.ndarray
    """(P, 3) c_kj of the mean shape in the rest pose."""
    shape_directions: np.ndarray
    """(P * 3, B) how c_kj changes with betas."""
    pose_directions: np.ndarray
    """(P * 3, 207) how c_kj changes with R - I."""


def fold_regressor(file: BodyFile, rows: np.ndarray) -> Fold:
    """The fold of a joint regressor with rows (K, V)."""
    folds = [_fold_row(file, keypoint, row.astype(np.float64)) for keypoint, row in enumerate(rows)]
    return Fold(*(np.concatenate([getattr(fold, name) for fold in folds]) for name in Fold.__dataclass_fields__))


def _fold_row(file: BodyFile, keypoint: int, row: np.ndarray) -> Fold:
    skin = np.flatnonzero(row)
    influence = row[skin, None] * file.weights[skin].astype(np.float64)
    joints = np.flatnonzero(np.any(influence != 0, axis=0))
    influence = influence[:, joints]

    def gather(values: np.ndarray) -> np.ndarray:
        return np.tensordot(influence, values[skin], axes=(0, 0))

    return Fold(
        keypoint=np.full(len(joints), keypoint),
        joint=joints,
        share=influence.sum(0),
        total=row.sum(keepdims=True),
        template=gather(file.v_template),
        shape_directions=gather(file.shapedirs).reshape(3 * len(joints), -1),
        pose_directions=gather(file.posedirs).reshape(3 * len(joints), -1),
    )


def fold_tree(file: BodyFile) -> Fold:
    """The 24 joints of the tree as if they were regressed: each rides on its own transform alone."""
    joints = np.arange(len(SMPL24))
    regressor = file.joint_regressor.astype(np.float64)
    return Fold(
        keypoint=joints,
        joint=joints,
        share=np.ones(len(joints)),
        total=np.ones(len(joints)),
        template=regressor @ file.v_template,
        shape_directions=np.tensordot(regressor, file.shapedirs, axes=1).reshape(3 * len(joints), -1),
        pose_directions=np.zeros((3 * len(joints), 207)),
    )


class FoldedRegressor(nn.Module):
    """K joints from 24 transforms, exactly, without vertices; and their Jacobian."""

    keypoint: Tensor
    joint: Tensor
    share: Tensor
    total: Tensor
    template: Tensor
    shape_directions: Tensor
    pose_directions: Tensor
    below: Tensor
    share_below: Tensor

    def __init__(self, fold: Fold, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("keypoint", torch.tensor(fold.keypoint))
        self.register_buffer("joint", torch.tensor(fold.joint))
        for name in ("share", "total", "template", "shape_directions", "pose_directions"):
            self.register_buffer(name, torch.tensor(getattr(fold, name), dtype=dtype))
        below = torch.zeros(len(fold.total), len(SMPL24), len(fold.joint), dtype=dtype)
        pairs = torch.arange(len(fold.joint))
        below[self.keypoint, :, pairs] = ANCESTORS.to(dtype)[self.joint]
        self.register_buffer("below", below)
        self.register_buffer("share_below", below @ self.share)

    def forward(
        self,
        tree: Kinematics,
        betas: Float[Tensor, "*batch B"],
        features: Float[Tensor, "*batch 207"],
    ) -> Float[Tensor, "*batch K 3"]:
        """The regressed joints, before translation."""
        return self._sum(self._pair_points(tree, betas, features))

    def with_jacobian(
        self,
        tree: Kinematics,
        betas: Float[Tensor, "*batch B"],
        features: Float[Tensor, "*batch 207"],
        rest_directions: Float[Tensor, "24 3 B"],
    ) -> tuple[Float[Tensor, "*batch K 3"], Float[Tensor, "*batch K 24 3"], Float[Tensor, "*batch K 3 B"]]:
        """The regressed joints, their lever arms and their derivative by betas.

        Turning tree joint i by the small outer-frame rotation w_i moves joint k by `w_i x lever_ki`. The motion of the
        pose correctives themselves, millimetres a radian, is left out of the derivatives, not of the joints.
        """
        points = self._pair_points(tree, betas, features)
        levers = torch.einsum("kip,...pc->...kic", self.below, points)
        levers = levers - self.share_below[..., None] * tree.joints_m[..., None, :, :]
        moved = joints_by_betas(tree.world, rest_directions) - tree.world @ rest_directions
        directions = tree.world[..., self.joint, :, :] @ self.shape_directions.unflatten(0, (-1, 3))
        by_betas = directions + self.share[:, None, None] * moved[..., self.joint, :, :]
        return self._sum(points), levers, self._sum(by_betas.flatten(-2)).unflatten(-1, (3, -1))

    def _pair_points(
        self,
        tree: Kinematics,
        betas: Float[Tensor, "*batch B"],
        features: Float[Tensor, "*batch 207"],
    ) -> Float[Tensor, "*batch P 3"]:
        """What each pair (k, j) adds to joint k: `G_j c_kj + a_kj t_j`."""
        shaped = nn.functional.linear(betas, self.shape_directions)
        posed = nn.functional.linear(features, self.pose_directions)
        rest = self.template + (shaped + posed).unflatten(-1, (-1, 3))
        transforms = tree.skinning[..., self.joint, :, :]
        return (transforms[..., :3] @ rest[..., None])[..., 0] + self.share[:, None] * transforms[..., 3]

    def _sum(self, values: Float[Tensor, "*batch P D"]) -> Float[Tensor, "*batch K D"]:
        """Sum over the pairs of each regressed joint."""
        zeros = values.new_zeros(*values.shape[:-2], len(self.total), values.shape[-1])
        return zeros.index_add(-2, self.keypoint, values)
