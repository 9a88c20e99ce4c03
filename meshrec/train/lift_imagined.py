"""People whom nobody saw: limbs of other poses on bones of another build. What is lifted from them can be checked."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from meshrec.config import require_range
from meshrec.models.lifting import BONE_MIRROR, BONES, from_to, turned
from meshrec.models.vae_lifter import VaeLifter
from meshrec.skeletons import H36M17
from meshrec.train.lift_losses import Novel
from meshrec.types import Batched

LIMBS = (
    (H36M17.indices("left_knee", "left_ankle"), "hips"),
    (H36M17.indices("right_knee", "right_ankle"), "hips"),
    (H36M17.indices("left_elbow", "left_wrist"), "shoulders"),
    (H36M17.indices("right_elbow", "right_wrist"), "shoulders"),
    (H36M17.indices("face", "head_top"), "shoulders"),
)
"""The joints that a limb moves, and the part of the trunk that it moves with."""


@dataclass(frozen=True)
class ImagineConfig:
    """How people are imagined, from those that the lifter has just lifted."""

    share: float = 0.0
    """Of the poses that are lifted again."""
    recombine: float = 0.4
    """Probability that a limb, or the head, is that of another pose."""
    stretch: float = 0.08
    """Standard deviation of the logarithms by which bones are stretched, the same on both sides."""
    drop: float = 0.3
    """A joint is hidden with a probability that is drawn for each pose, from 0 to this."""
    drop_limbs: float = 0.4
    """Probability that one to three of knees, ankles, elbows and wrists are hidden as well."""
    drop_unnamed: float = 0.3
    """Probability that spine, face and top of the head are hidden as well, which COCO's joints lack."""

    def __post_init__(self) -> None:
        require_range(self, share=(0, 1), recombine=(0, 1), drop=(0, 1), drop_limbs=(0, 1))
        require_range(self, drop_unnamed=(0, 1), stretch=(0, math.inf))


@dataclass(frozen=True)
class Fancy(Batched):
    """What is imagined of each pose."""

    chosen: Bool[Tensor, "*batch"]
    """Whether anything is."""
    swapped: Bool[Tensor, "*batch 5"]
    """Which of the `LIMBS` are another pose's."""
    stretch: Float[Tensor, "*batch 16"]
    """Logarithms by which the bones are stretched."""
    shown: Bool[Tensor, "*batch 17"]
    """What the lifter may look at."""


def reimagined(lifter: VaeLifter, novel: Novel, fancy: Fancy) -> Novel:
    """The novel views, the chosen ones of people imagined from theirs: these are given, and take no gradient."""
    joints = torch.where(fancy.chosen[:, None, None], imagined(novel.joints.detach(), fancy), novel.joints)
    distance = torch.where(fancy.chosen, novel.distance.detach(), novel.distance)
    elevation = torch.where(fancy.chosen, novel.elevation_rad.detach(), novel.elevation_rad)
    return replace(
        novel,
        joints=joints,
        distance=distance,
        elevation_rad=elevation,
        points=lifter.project(joints, distance),
        shown=fancy.shown | ~fancy.chosen[:, None],
        genuine=~fancy.chosen,
    )


def imagined(joints: Float[Tensor, "N 17 3"], fancy: Fancy) -> Float[Tensor, "N 17 3"]:
    """The poses with limbs of others in the batch, turned with hips or shoulders, and stretched bones.

    Limb k comes from the row whose number differs in the bits of k + 1: like the other views of `novel_view`, it is as
    good as drawn from all.
    """
    parents, children = ([bone[end] for bone in BONES] for end in (0, 1))
    bones = joints[:, children] - joints[:, parents]
    trunks = {"hips": _hips(joints), "shoulders": _shoulders(joints)}
    rows, mixed = torch.arange(len(joints), device=joints.device), list(bones.unbind(1))
    for limb, (ends, trunk) in enumerate(LIMBS):
        donor = (rows ^ (limb + 1)).clamp_max(len(rows) - 1)
        rotation = trunks[trunk] @ trunks[trunk][donor].mT
        for bone in (children.index(end) for end in ends):
            theirs = turned(bones[donor][:, bone : bone + 1], rotation)[:, 0]
            mixed[bone] = torch.where(fancy.swapped[:, limb, None], theirs, mixed[bone])
    return _grown(torch.stack(mixed, dim=1) * fancy.stretch.exp()[..., None])


def symmetric(stretch: Float[Tensor, "*batch 16"]) -> Float[Tensor, "*batch 16"]:
    """Both sides alike, with the variance that each bone had."""
    own = torch.tensor([mirror == bone for bone, mirror in enumerate(BONE_MIRROR)], device=stretch.device)
    return torch.where(own, stretch, (stretch + stretch[..., BONE_MIRROR]) / math.sqrt(2))


def _grown(bones: Float[Tensor, "*batch 16 3"]) -> Float[Tensor, "*batch 17 3"]:
    """Joints of bones, from the pelvis on: a parent stands before its children."""
    joints = [torch.zeros_like(bones[..., 0, :])]
    for bone, (parent, _) in enumerate(BONES):
        joints.append(joints[parent] + bones[..., bone, :])
    return torch.stack(joints, dim=-2)


def _hips(joints: Float[Tensor, "N 17 3"]) -> Float[Tensor, "N 3 3"]:
    return _axes(from_to(joints, "right_hip", "left_hip"), from_to(joints, "pelvis", "spine"))


def _shoulders(joints: Float[Tensor, "N 17 3"]) -> Float[Tensor, "N 3 3"]:
    return _axes(from_to(joints, "right_shoulder", "left_shoulder"), from_to(joints, "spine", "thorax"))


def _axes(across: Float[Tensor, "N 3"], along: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3 3"]:
    """The rotation whose columns are `across`, what is left of `along`, and their normal."""
    x = normalize(across, dim=-1)
    z = normalize(torch.linalg.cross(x, along, dim=-1), dim=-1)
    return torch.stack([x, torch.linalg.cross(z, x, dim=-1), z], dim=-1)
