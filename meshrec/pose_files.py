"""Files of posed bodies: results of `recover`, and motions in AMASS's layout."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meshrec.arrays import array_names, read_arrays
from meshrec.body import BodyModel, load_body_model
from meshrec.camera import camera_from_body_axes
from meshrec.errors import MeshrecError
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams

SHARED_JOINTS = SMPL24.index("left_hand")
"""How many joints SMPL shares with SMPL+H and SMPL-X, in the same order: all but the hands, which stay straight."""

MAX_BETAS = 300
"""SMPL-X has the most."""

POSE_WIDTHS = {3 * len(SMPL24): len(SMPL24)} | dict.fromkeys((3 * SHARED_JOINTS, 3 * 52, 3 * 55), SHARED_JOINTS)
"""Numbers in a row of `poses`, and how many joints of them are SMPL's: SMPL; its body alone, SMPL+H, SMPL-X."""

FRAME_RATES = ("mocap_framerate", "mocap_frame_rate")
"""What AMASS calls the frame rate; a file that has one is AMASS's, with z up."""


@dataclass(frozen=True)
class BodyName:
    """The body that a result was made with."""

    name: str
    path: str
    sha256: str

    def load(self) -> BodyModel:
        """The same body again; another one of this name would give another shape."""
        model = load_body_model(self.path if Path(self.path).is_file() else self.name)
        if self.sha256 and model.file.sha256 != self.sha256:
            raise MeshrecError(
                f"The result was made with another body {self.name!r} than the one found now (sha256 "
                f"{self.sha256[:12]}, found {model.file.sha256[:12]}): say which one to take with --body."
            )
        return model


@dataclass(frozen=True)
class Poses:
    """The posed bodies of one file: the people of a result, or the frames of a motion."""

    names: tuple[str, ...]
    """A mesh file's name for each body, without suffix."""
    params: BodyParams
    upright: Float[Tensor, "3 3"]
    """Rotation from the frame of `params` to upright."""
    motion: bool
    """One person in many frames."""
    body: BodyName | None = None
    """The body that the file was made with, where it says so."""

    @property
    def finite(self) -> Bool[Tensor, "N"]:
        """The bodies all of whose numbers are finite."""
        numbers = (self.params.rotations.flatten(1), self.params.betas, self.params.transl_m)
        return torch.stack([rows.isfinite().all(dim=1) for rows in numbers]).all(dim=0)


def read_poses(path: Path) -> Poses:
    """The bodies of a `result.json`, or of an `.npz` of poses: AMASS's layout, or `poses`, `trans` and `betas`."""
    return _whole(path, read_poses_with_gaps(path))


def read_poses_without_shape(path: Path) -> Poses:
    """The frames of an `.npz` of poses, whosever they are: its betas are not read, and are 0."""
    return _whole(path, _read_motion(path, ("poses", "trans")))


def _whole(path: Path, poses: Poses) -> Poses:
    if not poses.finite.all():
        raise MeshrecError(f"{path} has numbers that are not finite among its poses, betas or translations.")
    return poses


def read_poses_with_gaps(path: Path) -> Poses:
    """The same, but bodies may have numbers that are not finite: `Poses.finite` tells which have none."""
    if path.suffix.lower() == ".json":
        return _read_result(path)
    if path.suffix.lower() == ".npz":
        return _read_motion(path, ("poses", "trans", "betas"))
    raise MeshrecError(f"{path} is neither a result.json of `meshrec recover` nor an .npz of poses.")


def _read_result(path: Path) -> Poses:
    """Every person of a result; its frame is the camera's."""
    try:
        result = json.loads(path.read_bytes())
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror}. Name a result.json of `meshrec recover`.") from error
    except (ValueError, RecursionError) as error:
        raise MeshrecError(f"{path} is no JSON file: {error}. Recover the photograph again.") from error
    people = _field(path, result, "people", list)
    if not people:
        raise MeshrecError(f"{path} has no people in it, so there is nothing to do.")
    bodies = [_field(path, person, "smpl", dict) for person in people]
    params = _params(path, *(_stacked(path, bodies, name) for name in ("pose_axis_angle", "betas", "transl_m")))
    body = _field(path, result, "body", dict)
    made_with = BodyName(*(str(body.get(field) or "") for field in ("name", "path", "sha256")))
    stem = Path(str(result.get("photo") or path)).stem
    names = tuple(f"{stem}_person{index}" for index in range(len(people)))
    return Poses(names, params, camera_from_body_axes(), motion=False, body=made_with)


def _field(path: Path, record: Any, name: str, kind: type) -> Any:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        raise MeshrecError(f"{path} is not a result of `meshrec recover`: its {name} is missing or of a wrong kind.")
    return value


def _stacked(path: Path, records: list[dict], name: str) -> np.ndarray:
    """One row of numbers a person."""
    try:
        rows = np.asarray([record[name] for record in records], np.float64)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise MeshrecError(
            f"{path} is not a result of `meshrec recover`: {name} is missing, too large, or not as many "
            "numbers for each person."
        ) from error
    return rows


def _read_motion(path: Path, fields_read: tuple[str, ...]) -> Poses:
    """Every frame of a motion; y is up but in AMASS's files."""
    names = array_names(path)
    fields = read_arrays(path, fields_read)
    if "poses" not in fields:
        needed = "name the result.json beside it" if "pose_axis_angle" in names else "poses (frames, 72) are needed"
        raise MeshrecError(f"{path} is not an .npz of poses: it has {', '.join(names) or 'nothing'}; {needed}.")
    if any(array.dtype.kind not in "iuf" for array in fields.values()):
        raise MeshrecError(f"{path} has poses, trans or betas that are not numbers.")
    poses = fields["poses"] if fields["poses"].ndim > 1 else fields["poses"][None]
    poses = poses.reshape(len(poses), int(np.prod(poses.shape[1:])))
    if not len(poses):
        raise MeshrecError(f"{path} has no frames in it, so there is nothing to do.")
    transl_m = np.atleast_2d(fields.get("trans", np.zeros((len(poses), 3))))
    betas = np.atleast_1d(fields.get("betas", np.zeros(1)))
    betas = betas if betas.ndim > 1 else np.broadcast_to(betas, (len(poses), len(betas)))
    params = _params(path, poses, betas, transl_m)
    upright = _y_up_from_z_up() if set(FRAME_RATES) & set(names) else torch.eye(3)
    return Poses(tuple(f"{path.stem}_{index:06d}" for index in range(len(poses))), params, upright, motion=True)


def _params(path: Path, poses: np.ndarray, betas: np.ndarray, transl_m: np.ndarray) -> BodyParams:
    """Rotations of SMPL's joints from rows of axis-angle; the hands of SMPL+H and SMPL-X are left straight."""
    if poses.ndim != 2 or poses.shape[1] not in POSE_WIDTHS:
        known = ", ".join(map(str, sorted(POSE_WIDTHS)))
        raise MeshrecError(f"{path} has {poses.shape[-1]} numbers a pose; SMPL's family has {known}.")
    if transl_m.shape != (len(poses), 3):
        raise MeshrecError(f"{path} has {len(poses)} poses but translations of shape {transl_m.shape}.")
    if betas.ndim != 2 or len(betas) != len(poses):
        raise MeshrecError(f"{path} has {len(poses)} poses but betas of shape {betas.shape}.")
    if betas.shape[1] > MAX_BETAS:
        raise MeshrecError(f"{path} has {betas.shape[1]} betas a person; SMPL's family has {MAX_BETAS} at most.")
    joints = POSE_WIDTHS[poses.shape[1]]
    vectors = torch.zeros(len(poses), len(SMPL24), 3)
    vectors[:, :joints] = _tensor(poses[:, : 3 * joints]).view(-1, joints, 3)
    return BodyParams.from_rotations(roma.rotvec_to_rotmat(vectors), _tensor(betas), _tensor(transl_m))


def _tensor(numbers: np.ndarray) -> Float[Tensor, "*shape"]:
    """Numbers of any kind and byte order; what float32 cannot hold is infinite."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(numbers.astype(np.float32))


def _y_up_from_z_up() -> Float[Tensor, "3 3"]:
    """A quarter turn back about x: (x, y, z) to (x, z, -y)."""
    return torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
