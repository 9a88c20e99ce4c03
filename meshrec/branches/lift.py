"""The `lift` branch: 17 joints in 3D from 2D joints alone, by a network that need never have seen a 3D pose.

Keypoints become points on the image plane, the camera is turned to look at the pelvis, the network lifts, and the turn
is undone. Lengths come out in units of about one head-pelvis path; a body height turns them into metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meshrec.branches.fit import only_finite
from meshrec.data.h36m17 import h36m17_of
from meshrec.keypoints import SEEN_CONFIDENCE
from meshrec.models.lifting import look_at_root, mirrored_joints, mirrored_points, mirrored_seen, slerp, stature, turned
from meshrec.models.vae_lifter import Precision, VaeLifter, folded
from meshrec.photo import Photo
from meshrec.skeletons import H36M17
from meshrec.types import Batched, Camera, Estimate, Keypoints, Person, stack

HALF_HIPS_PER_SHOULDERS = 0.191 / 0.259 / 2
"""From a hip to the pelvis, as a share of the shoulders' width: hips 0.191, shoulders 0.259 of the height (Drillis and
Contini 1966)."""

ASSUMED_HEIGHT_M = 1.7
"""Body height where nobody gives one and metres are wanted."""

HEIGHTS_M = (0.3, 3.0)
"""Between these a body height is believed."""

_PELVIS = H36M17.index("pelvis")


@dataclass(frozen=True)
class LiftConfig:
    """How people are lifted."""

    height_m: float | None = None
    """Body height, which sets the scale by the limbs; without it lengths are in the lifter's units."""
    precision: Precision = "float32"
    """Of the network's layers."""
    flip: bool = True
    """Average with the mirrored pose of the mirrored points."""
    min_confidence: float = SEEN_CONFIDENCE
    """Joints below it count as not seen: where they were guessed never matters."""


@dataclass(frozen=True)
class Points(Batched):
    """2D joints on the image plane at distance 1, H36M-17."""

    points: Float[Tensor, "*batch 17 2"]
    known: Bool[Tensor, "*batch 17"]
    """What the network may look at: what is seen, and a pelvis that follows from what is seen."""
    seen: Bool[Tensor, "*batch 17"]
    confidence: Float[Tensor, "*batch 17"]

    @property
    def liftable(self) -> Bool[Tensor, "*batch"]:
        """Whether the pelvis is known, about which everything is lifted, and any joint beside it."""
        return self.known[..., _PELVIS] & (self.known.sum(dim=-1) > 1)


@dataclass(frozen=True)
class Placed(Batched):
    """Poses in the camera's axes and where their pelvis stands, units."""

    joints: Float[Tensor, "*batch 17 3"]
    """Relative to the pelvis."""
    root: Float[Tensor, "*batch 3"]


class LiftBranch:
    """2D joints to `Estimate`, for any number of people at once."""

    name = "lift"

    def __init__(self, lifter: VaeLifter, config: LiftConfig) -> None:
        self.lifter, self.config = folded(lifter, config.precision), config

    def __call__(self, photo: Photo, people: Sequence[Person], camera: Camera) -> Estimate:
        """Lift the people of a photograph; their keypoints are of one skeleton."""
        cameras = camera.map(lambda tensor: tensor.expand(len(people), *tensor.shape))
        return self.estimate(stack([person.keypoints for person in people]), cameras)

    def estimate(self, keypoints: Keypoints, camera: Camera, noise: Float[Tensor, "N L"] | None = None) -> Estimate:
        """Lift N people, given nouns with one leading axis N: in metres for a body height, else in units.

        A person whose pelvis cannot be known, because no hip is seen, has joints that are not finite.
        """
        return replace(
            self.estimate_points(points_of(keypoints, camera, self.config.min_confidence), noise), camera=camera
        )

    @torch.no_grad()
    def estimate_points(self, sight: Points, noise: Float[Tensor, "N L"] | None = None) -> Estimate:
        """The same from points on the image plane; the camera stays unsaid."""
        placed = self._placed(sight.points, sight.known, noise)
        length = self.length_of_unit(placed.joints)
        nobody = ~sight.liftable[:, None]
        return Estimate(
            branch=self.name,
            joints17_m=(length[:, None, None] * placed.joints).masked_fill(nobody[..., None], torch.nan),
            confidence=sight.confidence,
            seen=sight.seen,
            root_m=(length[:, None] * placed.root).masked_fill(nobody, torch.nan),
        )

    def length_of_unit(self, joints: Float[Tensor, "N 17 3"]) -> Float[Tensor, "N"]:
        """Metres in a unit of each pose, whose limbs then go with the body height; 1 without one."""
        tall = stature(joints)
        return torch.ones_like(tall) if self.config.height_m is None else self.config.height_m / tall

    @torch.no_grad()
    def lift(
        self,
        points: Float[Tensor, "N 17 2"],
        seen: Bool[Tensor, "N 17"],
        noise: Float[Tensor, "N L"] | None = None,
    ) -> Float[Tensor, "N 17 3"]:
        """Joints relative to the pelvis in the axes of the camera of `points`, units.

        z = mean + standard deviation * noise; without noise z = mean.
        """
        return self._placed(points, seen, noise).joints

    @torch.no_grad()
    def between(self, first: Points, last: Points, shares: Float[Tensor, "T"]) -> Float[Tensor, "T 17 3"]:
        """Poses on the way from one person (share 0) to another (1), scaled as in `estimate_points`.

        Latents go along the sphere, points straight, and the axes of the cameras that look at the two pelvises by the
        shortest turn. Where both show the same joints, the ends are the two people's own poses.
        """
        (start, start_turn), (end, end_turn) = (look_at_root(person.points, person.known) for person in (first, last))
        joints = self._way(start, first.known, end, last.known, shares)
        if self.config.flip:
            ends = (mirrored_points(start), mirrored_seen(first.known), mirrored_points(end), mirrored_seen(last.known))
            joints = (joints + mirrored_joints(self._way(*ends, shares))) / 2
        return self.length_of_unit(joints)[:, None, None] * turned(
            joints, roma.rotmat_slerp(start_turn, end_turn, shares).mT
        )

    def _way(
        self,
        start: Float[Tensor, "17 2"],
        start_seen: Bool[Tensor, "17"],
        end: Float[Tensor, "17 2"],
        end_seen: Bool[Tensor, "17"],
        shares: Float[Tensor, "T"],
    ) -> Float[Tensor, "T 17 3"]:
        """The poses between two, in the camera that looks at the pelvis."""
        latents, _ = self.lifter.encode(torch.stack([start, end]), torch.stack([start_seen, end_seen]))
        first, last = latents.expand(len(shares), -1, -1).unbind(1)
        seen = (start_seen & end_seen).expand(len(shares), -1)
        return self.lifter.decode(slerp(first, last, shares), torch.lerp(start, end, shares[:, None, None]), seen)[0]

    def _placed(
        self, points: Float[Tensor, "N 17 2"], seen: Bool[Tensor, "N 17"], noise: Float[Tensor, "N L"] | None
    ) -> Placed:
        """Look at the pelvis, lift, and turn back.

        The mean pose is averaged with its mirror image, and a draw moves as its mean does: averages vary too little.
        Sums of poses on the same rays are on them too.
        """
        there, turn = look_at_root(points, seen)
        lifted = self.lifter(there, seen, noise)
        joints, distance = lifted.joints, lifted.distance
        if self.config.flip:
            mean = lifted if noise is None else self.lifter(there, seen)
            image = self.lifter(mirrored_points(there), mirrored_seen(seen))
            joints = joints + (mirrored_joints(image.joints) - mean.joints) / 2
            distance = distance + (image.distance - mean.distance) / 2
        return Placed(turned(joints, turn.mT), distance[:, None] * turn[:, 2])


def points_of(keypoints: Keypoints, camera: Camera, min_confidence: float = SEEN_CONFIDENCE) -> Points:
    """Keypoints of any skeleton on the image plane of their cameras; unseen joints are at 0."""
    people = h36m17_of(only_finite(keypoints))
    seen = people.confidence >= min_confidence
    points = (people.xy_px - camera.center_px[..., None, :]) / camera.focal_px[..., None, None]
    points, known = with_pelvis(torch.where(seen[..., None], points, 0.0), seen)
    return Points(points, known, seen, people.confidence)


def with_pelvis(
    points: Float[Tensor, "*batch 17 2"], seen: Bool[Tensor, "*batch 17"]
) -> tuple[Float[Tensor, "*batch 17 2"], Bool[Tensor, "*batch 17"]]:
    """The points with a pelvis wherever it follows from what is seen, and the mask with it.

    An unseen pelvis is midway between the hips; beside one hip it is half the hips' breadth towards the other shoulder.
    """
    hips, shoulders = (H36M17.indices(f"left_{joint}", f"right_{joint}") for joint in ("hip", "shoulder"))
    left, right = points[..., shoulders, :].unbind(-2)
    inwards = HALF_HIPS_PER_SHOULDERS * torch.stack([right - left, left - right], dim=-2)
    inwards = torch.where(seen[..., shoulders].all(dim=-1)[..., None, None], inwards, 0.0)
    witness = seen[..., hips, None].to(points)
    guess = ((points[..., hips, :] + inwards) * witness).sum(dim=-2) / witness.sum(dim=-2).clamp_min(1.0)
    pelvis = torch.arange(len(H36M17), device=seen.device) == H36M17.index("pelvis")
    guessed = pelvis & ~seen & seen[..., hips].any(dim=-1, keepdim=True)
    return torch.where(guessed[..., None], guess[..., None, :], points), seen | guessed
