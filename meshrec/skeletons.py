"""Every joint set once: names, parents, mirror pairs, bones, and conversion by name.

Left and right are the person's own. A name that stands in two skeletons means the same joint, as far as the data sets
agree where a joint is, so values travel from one skeleton to another by name alone.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Skeleton:
    """A named joint set, and the tree it hangs on."""

    name: str
    tree: tuple[tuple[str, str], ...]
    """(joint, parent) in the order of the array axis; the parent of a root is empty."""

    @cached_property
    def joints(self) -> tuple[str, ...]:
        """Joint names in the order of the array axis."""
        return tuple(joint for joint, _ in self.tree)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """Index of each joint's parent; -1 for a root."""
        return tuple(self.joints.index(parent) if parent else -1 for _, parent in self.tree)

    @cached_property
    def mirror(self) -> tuple[int, ...]:
        """Index of each joint's mirror image; the joint itself on the midline."""
        return tuple(self.joints.index(_other_side(joint)) for joint in self.joints)

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) indices."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent >= 0)

    def index(self, joint: str) -> int:
        """Where `joint` stands on the array axis."""
        if joint not in self.joints:
            raise ValueError(f"skeleton {self.name} has no joint {joint!r}; it has {', '.join(self.joints)}")
        return self.joints.index(joint)

    def indices(self, *joints: str) -> list[int]:
        """Where several joints stand on the array axis."""
        return [self.index(joint) for joint in joints]

    def __len__(self) -> int:
        return len(self.tree)


def convert(
    values: Shaped[Tensor, "*batch J D"], source: Skeleton, target: Skeleton
) -> tuple[Shaped[Tensor, "*batch K D"], Bool[Tensor, "K"]]:
    """Values of `source`'s joints in the order of `target`, and which of `target`'s joints `source` knows.

    Joints that `source` lacks are zero.
    """
    if values.shape[-2] != len(source):
        raise ValueError(f"{source.name} has {len(source)} joints, the values have {values.shape[-2]}")
    known = [joint in source.joints for joint in target.joints]
    gather = [source.joints.index(joint) if joint in source.joints else 0 for joint in target.joints]
    mask = torch.tensor(known, device=values.device)
    return torch.where(mask[:, None], values[..., gather, :], torch.zeros_like(values[..., :1, :])), mask


def visibility(confidence: Float[Tensor, "*batch J"], source: Skeleton, target: Skeleton) -> Float[Tensor, "*batch K"]:
    """How surely `target`'s joints are seen when `source`'s are: a joint's own confidence, else its witnesses' mean.

    A joint without itself or a witness in `source` has confidence 0.
    """
    columns = []
    for joint in target.joints:
        names = (joint,) if joint in source.joints else WITNESSES.get(joint, ())
        witnesses = [source.index(name) for name in names if name in source.joints]
        columns.append(confidence[..., witnesses].mean(-1) if witnesses else torch.zeros_like(confidence[..., 0]))
    return torch.stack(columns, dim=-1)


def _other_side(joint: str) -> str:
    side, _, rest = joint.partition("_")
    return {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, joint)


SMPL24 = Skeleton(
    "smpl24",
    (
        ("pelvis", ""),
        ("left_hip", "pelvis"),
        ("right_hip", "pelvis"),
        ("spine1", "pelvis"),
        ("left_knee", "left_hip"),
        ("right_knee", "right_hip"),
        ("spine2", "spine1"),
        ("left_ankle", "left_knee"),
        ("right_ankle", "right_knee"),
        ("spine3", "spine2"),
        ("left_foot", "left_ankle"),
        ("right_foot", "right_ankle"),
        ("neck", "spine3"),
        ("left_collar", "spine3"),
        ("right_collar", "spine3"),
        ("head", "neck"),
        ("left_shoulder", "left_collar"),
        ("right_shoulder", "right_collar"),
        ("left_elbow", "left_shoulder"),
        ("right_elbow", "right_shoulder"),
        ("left_wrist", "left_elbow"),
        ("right_wrist", "right_elbow"),
        ("left_hand", "left_wrist"),
        ("right_hand", "right_wrist"),
    ),
)

H36M17 = Skeleton(
    "h36m17",
    (
        ("pelvis", ""),
        ("right_hip", "pelvis"),
        ("right_knee", "right_hip"),
        ("right_ankle", "right_knee"),
        ("left_hip", "pelvis"),
        ("left_knee", "left_hip"),
        ("left_ankle", "left_knee"),
        ("spine", "pelvis"),
        ("thorax", "spine"),
        ("face", "thorax"),
        ("head_top", "face"),
        ("left_shoulder", "thorax"),
        ("left_elbow", "left_shoulder"),
        ("left_wrist", "left_elbow"),
        ("right_shoulder", "thorax"),
        ("right_elbow", "right_shoulder"),
        ("right_wrist", "right_elbow"),
    ),
)

COCO17 = Skeleton(
    "coco17",
    (
        ("nose", ""),
        ("left_eye", "nose"),
        ("right_eye", "nose"),
        ("left_ear", "left_eye"),
        ("right_ear", "right_eye"),
        ("left_shoulder", "nose"),
        ("right_shoulder", "nose"),
        ("left_elbow", "left_shoulder"),
        ("right_elbow", "right_shoulder"),
        ("left_wrist", "left_elbow"),
        ("right_wrist", "right_elbow"),
        ("left_hip", "left_shoulder"),
        ("right_hip", "right_shoulder"),
        ("left_knee", "left_hip"),
        ("right_knee", "right_hip"),
        ("left_ankle", "left_knee"),
        ("right_ankle", "right_knee"),
    ),
)

MPII16 = Skeleton(
    "mpii16",
    (
        ("right_ankle", "right_knee"),
        ("right_knee", "right_hip"),
        ("right_hip", "pelvis"),
        ("left_hip", "pelvis"),
        ("left_knee", "left_hip"),
        ("left_ankle", "left_knee"),
        ("pelvis", ""),
        ("thorax", "pelvis"),
        ("upper_neck", "thorax"),
        ("head_top", "upper_neck"),
        ("right_wrist", "right_elbow"),
        ("right_elbow", "right_shoulder"),
        ("right_shoulder", "thorax"),
        ("left_shoulder", "thorax"),
        ("left_elbow", "left_shoulder"),
        ("left_wrist", "left_elbow"),
    ),
)

LSP14 = Skeleton(
    "lsp14",
    (
        ("right_ankle", "right_knee"),
        ("right_knee", "right_hip"),
        ("right_hip", "upper_neck"),
        ("left_hip", "upper_neck"),
        ("left_knee", "left_hip"),
        ("left_ankle", "left_knee"),
        ("right_wrist", "right_elbow"),
        ("right_elbow", "right_shoulder"),
        ("right_shoulder", "upper_neck"),
        ("left_shoulder", "upper_neck"),
        ("left_elbow", "left_shoulder"),
        ("left_wrist", "left_elbow"),
        ("upper_neck", ""),
        ("head_top", "upper_neck"),
    ),
)

OPENPOSE25 = Skeleton(
    "openpose25",
    (
        ("nose", "upper_neck"),
        ("upper_neck", "pelvis"),
        ("right_shoulder", "upper_neck"),
        ("right_elbow", "right_shoulder"),
        ("right_wrist", "right_elbow"),
        ("left_shoulder", "upper_neck"),
        ("left_elbow", "left_shoulder"),
        ("left_wrist", "left_elbow"),
        ("pelvis", ""),
        ("right_hip", "pelvis"),
        ("right_knee", "right_hip"),
        ("right_ankle", "right_knee"),
        ("left_hip", "pelvis"),
        ("left_knee", "left_hip"),
        ("left_ankle", "left_knee"),
        ("right_eye", "nose"),
        ("left_eye", "nose"),
        ("right_ear", "right_eye"),
        ("left_ear", "left_eye"),
        ("left_foot_index", "left_ankle"),
        ("left_small_toe", "left_ankle"),
        ("left_heel", "left_ankle"),
        ("right_foot_index", "right_ankle"),
        ("right_small_toe", "right_ankle"),
        ("right_heel", "right_ankle"),
    ),
)

MEDIAPIPE33 = Skeleton(
    "mediapipe33",
    (
        ("nose", ""),
        ("left_eye_inner", "nose"),
        ("left_eye", "left_eye_inner"),
        ("left_eye_outer", "left_eye"),
        ("right_eye_inner", "nose"),
        ("right_eye", "right_eye_inner"),
        ("right_eye_outer", "right_eye"),
        ("left_ear", "left_eye_outer"),
        ("right_ear", "right_eye_outer"),
        ("left_mouth", "nose"),
        ("right_mouth", "nose"),
        ("left_shoulder", "nose"),
        ("right_shoulder", "nose"),
        ("left_elbow", "left_shoulder"),
        ("right_elbow", "right_shoulder"),
        ("left_wrist", "left_elbow"),
        ("right_wrist", "right_elbow"),
        ("left_pinky", "left_wrist"),
        ("right_pinky", "right_wrist"),
        ("left_index", "left_wrist"),
        ("right_index", "right_wrist"),
        ("left_thumb", "left_wrist"),
        ("right_thumb", "right_wrist"),
        ("left_hip", "left_shoulder"),
        ("right_hip", "right_shoulder"),
        ("left_knee", "left_hip"),
        ("right_knee", "right_hip"),
        ("left_ankle", "left_knee"),
        ("right_ankle", "right_knee"),
        ("left_heel", "left_ankle"),
        ("right_heel", "right_ankle"),
        ("left_foot_index", "left_heel"),
        ("right_foot_index", "right_heel"),
    ),
)

SKELETONS = {skeleton.name: skeleton for skeleton in (SMPL24, H36M17, COCO17, MPII16, LSP14, OPENPOSE25, MEDIAPIPE33)}

_HIPS = ("left_hip", "right_hip")
_SHOULDERS = ("left_shoulder", "right_shoulder")
_FACE = ("nose", "left_ear", "right_ear", "head_top")

WITNESSES = {
    "pelvis": _HIPS,
    "spine": _HIPS + _SHOULDERS,
    "spine1": _HIPS + _SHOULDERS,
    "spine2": _HIPS + _SHOULDERS,
    "spine3": _SHOULDERS,
    "thorax": _SHOULDERS,
    "neck": _SHOULDERS,
    "upper_neck": _SHOULDERS,
    "face": _FACE,
    "head": _FACE,
    "head_top": _FACE,
    **{f"{side}_collar": (f"{side}_shoulder",) for side in ("left", "right")},
    **{f"{side}_hand": (f"{side}_index", f"{side}_wrist") for side in ("left", "right")},
    **{f"{side}_foot": (f"{side}_foot_index", f"{side}_ankle") for side in ("left", "right")},
}
"""Joints that show where another one is: what is seen of a joint that a detector does not name."""
