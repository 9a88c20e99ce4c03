"""What a mesh regressor is taught about the people in a batch of crops, every number with how surely it is known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from meshrec.body import BodyModel
from meshrec.camera import project, sight_rotation
from meshrec.data.body_joints import BODY58, OWN, body_joints, row_name
from meshrec.data.people import GENDER_NAMES, People
from meshrec.data.records import Gender
from meshrec.models.regressor import Root
from meshrec.rasterize import rasterize
from meshrec.shading import vertex_labels
from meshrec.types import Batched, BodyParams

NEAREST_M = 0.2
"""A true joint that lies nearer to the camera is not compared in the picture."""

HIPS = tuple(BODY58.indices(*(row_name(f"{side}_hip", skeleton) for side in ("left", "right"))) for skeleton in OWN)
"""The rows of both hips by each definition; the first that is known says where the middle of the hips is."""


class Bodies(nn.Module):
    """The body that every answer is, and those that the truth may be given in."""

    def __init__(self, bodies: Mapping[Gender, BodyModel]) -> None:
        """The neutral body at least, which also stands for a gender without a body of its own."""
        super().__init__()
        self.neutral = bodies["neutral"]
        self.others = nn.ModuleDict({gender: body for gender, body in bodies.items() if gender != "neutral"})

    def joints(self, params: BodyParams, gender: Int[Tensor, "n"]) -> Float[Tensor, "n 58 3"]:
        """The joints of people of each gender, as `People` numbers them."""
        return self._of_each(params, gender, body_joints)

    def vertices(self, params: BodyParams, gender: Int[Tensor, "n"]) -> Float[Tensor, "n V 3"]:
        """Their vertices."""
        return self._of_each(params, gender, lambda model, some: model(some).vertices_m)

    def answer(self, gender: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
        """Whose truth is given in the body of the answers, so that its betas mean the same."""
        others = [GENDER_NAMES.index(cast(Gender, name)) for name in self.others]
        return torch.isin(gender, gender.new_tensor(others), invert=True)

    def _of_each(
        self, params: BodyParams, gender: Int[Tensor, "n"], points: Callable[[BodyModel, BodyParams], Tensor]
    ) -> Tensor:
        found = points(self.neutral, params)
        for name, model in self.others.items():
            assert isinstance(model, BodyModel)
            rows = (gender == GENDER_NAMES.index(cast(Gender, name))).nonzero()[:, 0]
            found = found.index_copy(0, rows, points(model, params[rows])) if len(rows) else found
        return found


@dataclass(frozen=True)
class Lesson(Batched):
    """What is known of people, in the frame of their crops."""

    points: Float[Tensor, "*batch 58 2"]
    """Joints in the crop, which goes from -1 to 1 along both axes."""
    points_weight: Float[Tensor, "*batch 58"]
    joints_m: Float[Tensor, "*batch 58 3"]
    """Joints in the axes that the network answers in, about the middle of the hips."""
    joints_weight: Float[Tensor, "*batch 58"]
    middle: Float[Tensor, "*batch 58"]
    """Shares of the joints whose mean is the middle of the hips."""
    rotations: Float[Tensor, "*batch 24 3 3"]
    """Of the root in these axes, of the others relative to their parents."""
    betas: Float[Tensor, "*batch 10"]
    posed: Bool[Tensor, "*batch"]
    shaped: Bool[Tensor, "*batch"]
    """Whether betas of the answers' body are known; another body's tell their joints alone."""
    labels: Int[Tensor, "*batch h w"] | None = None
    """What each pixel shows: 0 the background, 1 + j the skin of SMPL24 joint j; None where nobody asks."""
    labelled: Bool[Tensor, "*batch"] | None = None


@torch.no_grad()
def lesson_of(people: People, bodies: Bodies, labels_px: int = 0, root: Root = "camera") -> Lesson:
    """What people teach; their true bodies tell their joints where pose and shape are known, else what is annotated.

    With `labels_px` the true bodies are drawn too, in pictures so wide. `root` says in whose axes the network answers.
    """
    known = people.posed & people.shaped
    placed, crop_px = known & people.placed, people.crop_px
    joints = bodies.joints(people.params, people.gender)
    in_front = placed[:, None] & (joints[..., 2] > NEAREST_M)
    seen_px = torch.where(in_front[..., None], project(joints, people.camera), people.points)
    weight = torch.where(known[:, None], 1.0, people.joints_weight)
    middle, hips_known = middle_of_hips(weight)
    joints, rotations = torch.where(known[:, None, None], joints, people.joints_m), people.params.rotations
    if root == "sight":
        turn = into_sight(people)
        joints, rotations = joints @ turn.mT, turned_whole(turn, rotations)
    return Lesson(
        points=2 * seen_px / crop_px - 1,
        points_weight=torch.where(placed[:, None], in_front.to(people.weight.dtype), people.weight),
        joints_m=about_hips(joints, middle),
        joints_weight=weight * hips_known[:, None],
        middle=middle,
        rotations=rotations,
        betas=people.params.betas,
        posed=people.posed,
        shaped=people.shaped & bodies.answer(people.gender),
        labels=part_labels(bodies, people, labels_px) if labels_px else None,
        labelled=placed if labels_px else None,
    )


def into_sight(people: People) -> Float[Tensor, "*batch 3 3"]:
    """R_sight_camera: the camera's axes to those of a camera turned to look at the middle of each crop."""
    middle_px = torch.full_like(people.camera.center_px, people.crop_px / 2)
    return sight_rotation(people.camera, middle_px).mT


def turned_whole(
    R: Float[Tensor, "*batch 3 3"], rotations: Float[Tensor, "*batch 24 3 3"]
) -> Float[Tensor, "*batch 24 3 3"]:
    """The rotations of bodies that are turned as wholes: R times the root's."""
    return torch.cat([(R @ rotations[..., 0, :, :])[..., None, :, :], rotations[..., 1:, :, :]], dim=-3)


def middle_of_hips(
    weight: Float[Tensor, "*batch 58"],
) -> tuple[Float[Tensor, "*batch 58"], Bool[Tensor, "*batch"]]:
    """Which rows' mean is the middle of the hips, and whether any definition's hips are both known."""
    shares, known = torch.zeros_like(weight), torch.zeros_like(weight[..., 0], dtype=torch.bool)
    for rows in HIPS:
        here = (weight[..., rows] > 0).all(-1) & ~known
        shares[..., rows] = here[..., None].to(weight.dtype) / len(rows)
        known = known | here
    return shares, known


def about_hips(
    joints_m: Float[Tensor, "*batch 58 3"], middle: Float[Tensor, "*batch 58"]
) -> Float[Tensor, "*batch 58 3"]:
    """Joints about the middle of the hips."""
    return joints_m - middle[..., None, :] @ joints_m


@torch.no_grad()
def part_labels(bodies: Bodies, people: People, size_px: int) -> Int[Tensor, "n h w"]:
    """Pictures of the true bodies in their crops: 0 where there is nobody, 1 + j on the skin of SMPL24 joint j."""
    scale = size_px / people.crop_px
    camera = replace(
        people.camera,
        focal_px=scale * people.camera.focal_px,
        center_px=scale * people.camera.center_px,
        width_px=size_px,
        height_px=size_px,
    )
    model = bodies.neutral
    fragments = rasterize(bodies.vertices(people.params, people.gender), model.faces, camera)
    return vertex_labels(fragments, model.faces, model.parts) + 1
