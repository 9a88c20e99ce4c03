"""3DPW: sequenceFiles/SPLIT/*.pkl (SMPL in the world, a moving camera, 2D detections) and imageFiles/SEQUENCE/*.jpg.

Where things are. The root is turned by the camera, R' = R_c R. SMPL turns about its pelvis joint and not about the
origin, so the pelvis goes from J0 + t to p = R_c (J0 + t) + t_c, and the translation becomes t' = p - J0 with the rest
pelvis J0 of the shaped body. The data set tells J0 + t itself, as the first of `jointPositions`; where these are not
constant relative to t they are not believed, and J0 is that of the body of the actor's gender, or of the neutral one.

Boxes. The field's test figures (SPIN, PARE and their successors) crop 1.2 longer sides of the box around the 2D
detections of any confidence: `boxes="keypoints"`. `boxes="body"` is the box around the projected joints of the body.

2D detections are taken as they are: what the detector calls a pixel's centre is not told, and half a pixel is below its
noise. The focal lengths of 3DPW differ by 0.4 % between the axes; see `Lens.beside`.
"""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from convert.bodies import PELVIS, Bodies, first_betas, in_camera
from convert.source import Annotation, Lens, Sheet, Source, box_around, first_of, lens_of, numbers
from meshrec.data.record_files import Header
from meshrec.data.records import Gender, Truth
from meshrec.errors import MeshrecError
from meshrec.keypoint_files import OPENPOSE18_JOINTS
from meshrec.skeletons import COCO17, SMPL24
from meshrec.smpl_pickle import unpickle_arrays
from meshrec.types import BodyParams, Keypoints

Split = Literal["train", "validation", "test"]
Boxes = Literal["keypoints", "body"]

LICENCE = "3DPW is for non-commercial research; records of it stay under its licence and may not be passed on."

GENDERS: dict[str, Gender] = {"m": "male", "f": "female", "n": "neutral", "male": "male", "female": "female"}

FIELDS = ("sequence", "betas", "poses", "trans", "genders", "poses2d", "cam_poses", "campose_valid", "cam_intrinsics")

STEADY_M = 0.01
"""A rest pelvis that moves by more is none."""


@dataclass(frozen=True, eq=False)
class Actor:
    """One person of a sequence, frame by frame; in the camera's frame."""

    name: str
    gender: Gender
    betas: Float[Tensor, "10"]
    rotations: Float[Tensor, "F 24 3 3"]
    transl_m: Float[Tensor, "F 3"]
    keypoints: Float[Tensor, "F 17 3"]
    boxes: Float[Tensor, "F 4"]
    valid: Bool[Tensor, "F"]
    """Whether the camera was aligned to the image, and all numbers are finite."""

    @property
    def boxed(self) -> Bool[Tensor, "F"]:
        """Whether there is a box: with less than two detections there is none."""
        return self.boxes.isfinite().all(-1) & (self.boxes[:, 2:] > self.boxes[:, :2]).all(-1)


@dataclass(frozen=True, eq=False)
class Sequence3DPW:
    """One file."""

    name: str
    lens: Lens
    actors: tuple[Actor, ...]

    def frames(self, every: int) -> list[int]:
        """Every so manieth frame in which somebody can be used."""
        usable = torch.stack([actor.valid & actor.boxed for actor in self.actors]).any(0)
        return [frame for frame in usable.nonzero()[:, 0].tolist() if frame % every == 0]

    def not_aligned(self, every: int) -> int:
        """People in every so manieth frame whose place in the image is not known."""
        return sum(int((~actor.valid)[::every].sum()) for actor in self.actors)

    def without_box(self, every: int) -> int:
        """People in these frames that nothing can be cropped for."""
        return sum(int((actor.valid & ~actor.boxed)[::every].sum()) for actor in self.actors)

    def sheet(self, images: Path, frame: int) -> Sheet:
        """The photograph of a frame."""
        name = f"{self.name}/image_{frame:05d}.jpg"
        return Sheet(images / name, name, partial(self.people, frame))

    def people(self, frame: int) -> list[Annotation]:
        """Everybody who can be used in a frame."""
        usable = [actor for actor in self.actors if actor.valid[frame] and actor.boxed[frame]]
        return [self._person(actor, frame) for actor in usable]

    def _person(self, actor: Actor, frame: int) -> Annotation:
        params = BodyParams.from_rotations(actor.rotations[frame], actor.betas, actor.transl_m[frame])
        return Annotation(
            box_xyxy_px=actor.boxes[frame],
            keypoints=Keypoints(actor.keypoints[frame, :, :2], actor.keypoints[frame, :, 2], COCO17),
            lens=self.lens,
            truth=Truth(params, actor.gender),
            subject=actor.name,
            sequence=self.name,
            frame=frame,
        )


def read_3dpw(folder: Path, split: Split, boxes: Boxes = "keypoints", every: int = 1) -> Source:
    """A split of 3DPW, frame by frame; both people of a frame are one sheet."""
    images = first_of([folder / "imageFiles"], "images of 3DPW", "the folder that holds imageFiles and sequenceFiles")
    places = first_of([folder / "sequenceFiles" / split], f"sequences of 3DPW's {split} split", "another --split")
    files = sorted(places.glob("*.pkl"))
    if not files:
        raise MeshrecError(f"{places} holds no .pkl files. Unpack sequenceFiles.zip again.")
    bodies = Bodies()
    sequences = [read_sequence(file, bodies, boxes) for file in files]
    sheets = [sequence.sheet(images, frame) for sequence in sequences for frame in sequence.frames(every)]
    made_from = f"{len(files)} sequences, {len(sheets)} photographs, every {every}, boxes of {boxes}, {bodies.chosen}"
    header = Header("3dpw", split, COCO17.name, made_from=f"3DPW {split}: {made_from}", licence=LICENCE)
    left_out = {
        "camera not aligned, or numbers not finite": sum(sequence.not_aligned(every) for sequence in sequences),
        "no box: fewer than two joints detected": sum(sequence.without_box(every) for sequence in sequences),
    }
    return Source(header, sheets, left_out, bodies.told)


def read_sequence(path: Path, bodies: Bodies, boxes: Boxes = "keypoints") -> Sequence3DPW:
    """The people of a sequence in the frame of its camera."""
    fields = _fields(path)
    K = numbers(path, fields["cam_intrinsics"], "cam_intrinsics", 3, 3)
    lens = lens_of(path, K.diagonal()[:2].tolist(), K[:2, 2].tolist(), "cam_intrinsics")
    T_camera_world = numbers(path, fields["cam_poses"], "cam_poses", -1, 4, 4, finite=False)
    name = str(fields["sequence"])
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise MeshrecError(f"{path}: the sequence is called {name[:40]!r}, which names no folder of images.")
    told = [_of_actor(path, fields, index) for index in range(_entries(fields["poses"]))]
    if not told:
        raise MeshrecError(f"{path}: poses should have an entry for each person, and has none.")
    actors = [
        _actor(path, f"{name}_{index}", one, T_camera_world, lens, bodies, boxes) for index, one in enumerate(told)
    ]
    return Sequence3DPW(name, lens, tuple(actors))


def _fields(path: Path) -> dict[str, Any]:
    try:
        fields = unpickle_arrays(path, path.read_bytes())
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error
    missing = [name for name in FIELDS if not isinstance(fields, dict) or name not in fields]
    if missing:
        raise MeshrecError(f"{path} is no sequence of 3DPW: it has no {', '.join(missing)}.")
    return fields


def _entries(field: Any) -> int:
    """How many people, or frames, a field tells of."""
    return len(field) if isinstance(field, list) or (isinstance(field, np.ndarray) and field.ndim) else 0


def _of_actor(path: Path, fields: dict[str, Any], index: int) -> dict[str, Any]:
    """The fields that hold something for each person, for one of them."""
    names = ("poses", "trans", "betas", "genders", "poses2d", "campose_valid")
    short = [name for name in names if index >= _entries(fields[name])]
    if short:
        raise MeshrecError(f"{path}: {', '.join(short)} should have as many entries as poses.")
    joints = fields.get("jointPositions")
    told = joints[index] if joints is not None and index < _entries(joints) else None
    return {name: fields[name][index] for name in names} | {"jointPositions": told}


def _actor(
    path: Path,
    name: str,
    told: dict[str, Any],
    T_camera_world: Float[Tensor, "F 4 4"],
    lens: Lens,
    bodies: Bodies,
    boxes: Boxes,
) -> Actor:
    """One person's fields, from the world to the camera."""
    frames = len(T_camera_world)
    gender = GENDERS.get(str(told["genders"]))
    if gender is None:
        raise MeshrecError(f"{path}: a gender is {told['genders']!r}; it should be m or f.")
    betas = first_betas(numbers(path, np.ravel(told["betas"]), "betas", -1))
    rest_m = bodies.pelvis_m(gender, betas)
    pelvis_m = _moved(T_camera_world, _pelvis_m(path, told, rest_m, frames))
    poses = numbers(path, told["poses"], "poses", frames, 72, finite=False).view(frames, 24, 3)
    rotations = in_camera(roma.rotvec_to_rotmat(poses), T_camera_world[:, :3, :3])
    detected = numbers(path, told["poses2d"], "poses2d", frames, 3, len(OPENPOSE18_JOINTS), finite=False)
    detected = detected.transpose(1, 2)
    detected = detected.where(detected.isfinite().all(-1, keepdim=True), 0.0)
    if boxes == "body":
        params = BodyParams.from_rotations(rotations, betas.expand(frames, -1), pelvis_m - rest_m)
        shown = _projected(bodies.joints24(gender, params), lens)
    else:
        shown = detected
    finite = rotations.flatten(1).isfinite().all(-1) & pelvis_m.isfinite().all(-1)
    return Actor(
        name=name,
        gender=gender,
        betas=betas.float(),
        rotations=rotations.float(),
        transl_m=(lens.beside(pelvis_m) - rest_m).float(),
        keypoints=_coco17(detected).float(),
        boxes=box_around(shown).float(),
        valid=finite & (numbers(path, told["campose_valid"], "campose_valid", frames) > 0),
    )


def _pelvis_m(path: Path, told: dict[str, Any], rest_m: Float[Tensor, "3"], frames: int) -> Float[Tensor, "F 3"]:
    """The pelvis in the world: where the data set has it, if that is at rest relative to `trans`; else by the body."""
    trans_m = numbers(path, told["trans"], "trans", frames, 3, finite=False)
    if _entries(told["jointPositions"]) == frames:
        joints_m = numbers(path, told["jointPositions"], "jointPositions", frames, 3 * len(SMPL24), finite=False)
        told_m = joints_m.view(frames, len(SMPL24), 3)[:, PELVIS] - trans_m
        middle_m = told_m.nanmedian(0).values
        if not bool(((told_m - middle_m).norm(dim=-1) >= STEADY_M).any()) and bool(middle_m.isfinite().all()):
            rest_m = middle_m
    return trans_m + rest_m


def _moved(T_camera_world: Float[Tensor, "F 4 4"], points_m: Float[Tensor, "F 3"]) -> Float[Tensor, "F 3"]:
    return torch.einsum("fij,fj->fi", T_camera_world[:, :3, :3], points_m) + T_camera_world[:, :3, 3]


def _projected(joints_m: Float[Tensor, "F K 3"], lens: Lens) -> Float[Tensor, "F K 3"]:
    """Pixels, and 1 for what is in front of the camera."""
    return torch.cat([lens.project(joints_m), (joints_m[..., 2:] > 0).double()], dim=-1)


def _coco17(detected: Float[Tensor, "F 18 3"]) -> Float[Tensor, "F 17 3"]:
    """OpenPose's 18 detections as COCO's 17 joints; the neck has no place among them."""
    keypoints = detected[:, [OPENPOSE18_JOINTS.index(joint) for joint in COCO17.joints]]
    confidence = keypoints[..., 2:].clamp(0.0, 1.0)
    return torch.cat([keypoints[..., :2], confidence], dim=-1) * (confidence > 0)
