"""The body function and its fast paths, against smplx on the same file with the same bodies.

smplx is called as its users call it: axis-angle in, vertices and joints out.
"""

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Literal

import numpy as np
import roma
import torch
from smplx import SMPL
from smplx.utils import Struct
from torch import Tensor

from benchmarks.clock import Figure, Run, medians_s
from meshrec.assets import load_body_file
from meshrec.body import BodyModel
from meshrec.body_file import BodyFile, smpl_fields
from meshrec.skeletons import COCO17, H36M17, SMPL24
from meshrec.types import BodyParams

BETAS = 10
_SMPLX = version("smplx")


@dataclass(frozen=True)
class Sides:
    """One body file and the same bodies, as either side takes them."""

    model: BodyModel
    params: BodyParams
    peer: SMPL
    inputs: dict[str, Tensor]


def kinematics(bodies: int, repeats: int) -> Figure:
    """The 24 joints alone; the peer has no way to them but through the skin."""
    sides = _sides("shipped", bodies)
    return _figure(lambda: sides.model.joints24(sides.params), lambda: sides.peer(**sides.inputs), repeats)


def regressed(bodies: int, repeats: int) -> Figure:
    """The joints of H36M-17 and COCO-17; the peer regresses them from its vertices."""
    sides = _sides("shipped", bodies)
    skeletons = (H36M17, COCO17)
    tables = [torch.tensor(sides.model.file.regressors[skeleton.name]) for skeleton in skeletons]

    def peer() -> list[Tensor]:
        vertices = sides.peer(**sides.inputs).vertices
        return [table @ vertices for table in tables]

    return _figure(lambda: [sides.model.regressed(sides.params, skeleton) for skeleton in skeletons], peer, repeats)


def full(bodies: int, repeats: int) -> Figure:
    """Vertices and joints of the shipped body, whose pose correctives are mostly zero."""
    return _full("shipped", bodies, repeats)


def full_dense(bodies: int, repeats: int) -> Figure:
    """The same where every corrective and every skinning weight is random and none is zero."""
    return _full("dense", bodies, repeats)


def _full(kind: Literal["shipped", "dense"], bodies: int, repeats: int) -> Figure:
    sides = _sides(kind, bodies)
    return _figure(lambda: sides.model(sides.params), lambda: sides.peer(**sides.inputs), repeats)


def _figure(ours: Run, peer: Run, repeats: int) -> Figure:
    with torch.no_grad():
        ours_s, peer_s = medians_s(ours, peer, repeats=repeats)
    return Figure(1e3 * ours_s, "ms", 1e3 * peer_s, f"smplx {_SMPLX}")


def _sides(kind: Literal["shipped", "dense"], bodies: int, seed: int = 0) -> Sides:
    file = _file(kind)
    random = torch.Generator().manual_seed(seed)
    turns = 0.4 * torch.randn(bodies, len(SMPL24), 3, generator=random)
    betas = torch.randn(bodies, BETAS, generator=random)
    transl_m = torch.randn(bodies, 3, generator=random)
    with redirect_stdout(sys.stderr):  # it remarks on the number of betas
        peer = SMPL("", data_struct=Struct(**smpl_fields(file)), num_betas=BETAS, batch_size=bodies)
    return Sides(
        model=BodyModel(file),
        params=BodyParams.from_rotations(roma.rotvec_to_rotmat(turns), betas, transl_m),
        peer=peer,
        inputs={
            "global_orient": turns[:, 0],
            "body_pose": turns[:, 1:].flatten(1),
            "betas": betas,
            "transl": transl_m,
        },
    )


@cache
def _file(kind: Literal["shipped", "dense"]) -> BodyFile:
    file = load_body_file()
    if kind == "shipped":
        return file
    random = np.random.default_rng(0)
    weights = random.random(file.weights.shape)
    return replace(
        file,
        posedirs=random.normal(0, 1e-3, file.posedirs.shape).astype(file.posedirs.dtype),
        weights=(weights / weights.sum(axis=1, keepdims=True)).astype(file.weights.dtype),
    )
