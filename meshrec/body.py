"""The SMPL function: shape, pose, skin (Loper et al., 2015), and its fast paths to joints alone.

`v = template + shapedirs . betas + posedirs . (R - I)`, joints from the shaped template, forward kinematics along the
tree, linear blend skinning. Every path takes any leading batch axes, keeps gradients, and follows the dtype and device
of the model.
"""

import warnings
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from meshrec.assets import load_body_file
from meshrec.body_file import BodyFile
from meshrec.folding import FoldedRegressor, fold_regressor, fold_tree
from meshrec.kinematics import Kinematics, pose_features, pose_tree
from meshrec.skeletons import SMPL24, Skeleton
from meshrec.types import Body, BodyParams

BODIES_IN_CACHE = 16
"""Bodies skinned at once: their vertices and blended transforms stay in the processor's cache."""

SPARSE_BELOW = 0.2
"""Pose correctives with a smaller share of non-zeros are multiplied as a sparse matrix."""


class BodyModel(nn.Module):
    """The SMPL function of one body file."""

    rest_template: Tensor
    rest_directions: Tensor
    template: Tensor
    shape_directions: Tensor
    weights: Tensor
    parts: Tensor
    """(V,) the tree joint that moves each vertex most."""
    faces: Tensor

    def __init__(self, file: BodyFile, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.file = file
        self.num_betas = file.shapedirs.shape[2]
        regressor = file.joint_regressor.astype(np.float64)
        buffers = {
            "rest_template": regressor @ file.v_template,
            "rest_directions": np.einsum("jv,vcb->jcb", regressor, file.shapedirs, optimize=True),
            "template": file.v_template.reshape(-1, 1),
            "shape_directions": file.shapedirs.reshape(-1, self.num_betas),
            "weights": file.weights,
        }
        for name, array in buffers.items():
            self.register_buffer(name, torch.tensor(array, dtype=dtype))
        self.register_buffer("parts", torch.tensor(file.weights.argmax(axis=1)))
        self.register_buffer("faces", torch.tensor(file.faces.astype(np.int64)))
        self.correctives = PoseCorrectives(torch.tensor(file.posedirs.reshape(-1, 207), dtype=dtype))
        folds = {SMPL24.name: fold_tree(file)}
        folds |= {skeleton: fold_regressor(file, rows) for skeleton, rows in file.regressors.items()}
        self.regressors = nn.ModuleDict({skeleton: FoldedRegressor(fold, dtype) for skeleton, fold in folds.items()})

    def forward(self, params: BodyParams) -> Body:
        """Vertices and the 24 joints of every body."""
        tree = self.kinematics(params)
        batch = tree.joints_m.shape[:-2]
        vertices = self._skin(
            self.pad_betas(params.betas).reshape(-1, self.num_betas),
            pose_features(params.rotations).reshape(-1, 207),
            tree.skinning.reshape(-1, 24, 12),
            params.transl_m.reshape(-1, 1, 3),
        )
        return Body(vertices.reshape(*batch, len(self.weights), 3), tree.joints_m + params.transl_m[..., None, :])

    def kinematics(self, params: BodyParams) -> Kinematics:
        """Forward kinematics of the shaped skeleton about the pelvis, without translation; touches no vertex."""
        rest = self.rest_template + torch.einsum("jcb,...b->...jc", self.rest_directions, self.pad_betas(params.betas))
        return pose_tree(params.rotations, rest)

    def joints24(self, params: BodyParams) -> Float[Tensor, "*batch 24 3"]:
        """The 24 joints of the kinematic tree; touches no vertex."""
        return self.kinematics(params).joints_m + params.transl_m[..., None, :]

    def regressed(self, params: BodyParams, skeleton: Skeleton) -> Float[Tensor, "*batch K 3"]:
        """The joints that the skeleton's regressor finds on the posed surface; touches no vertex."""
        regressor = self.regressor(skeleton)
        points = regressor(self.kinematics(params), self.pad_betas(params.betas), pose_features(params.rotations))
        return points + regressor.total[:, None] * params.transl_m[..., None, :]

    def regressor(self, skeleton: Skeleton) -> FoldedRegressor:
        """The regressor of a skeleton's joints."""
        if skeleton.name not in self.regressors:
            known = ", ".join(self.regressors)
            raise ValueError(f"body {self.file.name!r} has no regressor for {skeleton.name}; it has {known}")
        return cast(FoldedRegressor, self.regressors[skeleton.name])

    def pad_betas(self, betas: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch B"]:
        """Zeros for the shape directions that `betas` leaves out."""
        missing = self.num_betas - betas.shape[-1]
        if missing < 0:
            raise ValueError(f"body {self.file.name!r} has {self.num_betas} betas, {betas.shape[-1]} were given")
        return nn.functional.pad(betas, (0, missing))

    def _skin(
        self,
        betas: Float[Tensor, "N B"],
        features: Float[Tensor, "N 207"],
        transforms: Float[Tensor, "N 24 12"],
        transl_m: Float[Tensor, "N 1 3"],
    ) -> Float[Tensor, "N V 3"]:
        """Linear blend skinning of N bodies, a few at a time, each few put in their place while still in the cache."""
        parts = (betas, features, transforms, transl_m)
        few = zip(*(part.split(BODIES_IN_CACHE) for part in parts), strict=True)
        if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
            return torch.cat([self._skin_some(*some) + moved for *some, moved in few])
        vertices = transforms.new_empty(len(betas), len(self.weights), 3)
        for (*some, moved), place in zip(few, vertices.split(BODIES_IN_CACHE), strict=True):
            torch.add(self._skin_some(*some), moved, out=place)
        return vertices

    def _skin_some(
        self, betas: Float[Tensor, "n B"], features: Float[Tensor, "n 207"], transforms: Float[Tensor, "n 24 12"]
    ) -> Float[Tensor, "n V 3"]:
        """Blend, then transform; the bodies run along the last axis, where the processor's vectors lie."""
        bodies = len(betas)
        rest = torch.addmm(self.template, self.shape_directions, betas.T) + self.correctives(features)
        x, y, z = rest.view(len(self.weights), 3, 1, bodies).unbind(1)
        blended = self.weights @ transforms.permute(1, 2, 0).reshape(24, 12 * bodies)
        blended = blended.view(len(self.weights), 3, 4, bodies)
        posed = torch.addcmul(blended[:, :, 3], blended[:, :, 0], x)
        posed = posed.addcmul_(blended[:, :, 1], y).addcmul_(blended[:, :, 2], z)
        return posed.permute(2, 0, 1)


class PoseCorrectives(nn.Module):
    """The product `posedirs . features` for n bodies at once, as a sparse matrix where most of it is zero."""

    directions: Tensor

    def __init__(self, directions: Float[Tensor, "rows 207"]) -> None:
        super().__init__()
        self.sparse = bool((directions != 0).double().mean() < SPARSE_BELOW)
        if not self.sparse:
            self.register_buffer("directions", directions)
            return
        for name, matrix in (("forward", directions), ("backward", directions.T)):
            csr = _csr(matrix)
            self.register_buffer(f"{name}_starts", csr.crow_indices())
            self.register_buffer(f"{name}_columns", csr.col_indices())
            self.register_buffer(f"{name}_values", csr.values())
        self.rows = len(directions)

    def forward(self, features: Float[Tensor, "n 207"]) -> Float[Tensor, "rows n"]:
        """Offsets in the rest pose, bodies along the last axis."""
        if not self.sparse:
            return self.directions @ features.T
        return _SparseProduct.apply(
            self._matrix("forward", self.rows, 207), self._matrix("backward", 207, self.rows), features.T
        )

    def _matrix(self, name: str, rows: int, columns: int) -> Tensor:
        parts = (getattr(self, f"{name}_{part}") for part in ("starts", "columns", "values"))
        return torch.sparse_csr_tensor(*parts, size=(rows, columns), check_invariants=False)


class _SparseProduct(torch.autograd.Function):
    """matrix @ x for a constant sparse matrix, whose transpose carries the gradient back."""

    @staticmethod
    def forward(ctx, matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        ctx.matrix, ctx.transposed = matrix, transposed
        return matrix @ x.contiguous()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, None, Tensor]:  # type: ignore[override]
        return None, None, _SparseProduct.apply(ctx.transposed, ctx.matrix, gradient)


def _csr(matrix: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return matrix.to_sparse_csr()


def load_body_model(name_or_path: str | Path = "neutral", dtype: torch.dtype = torch.float32) -> BodyModel:
    """The SMPL function of a shipped body, of one added with `meshrec assets add`, or of a file."""
    return BodyModel(load_body_file(name_or_path), dtype)
