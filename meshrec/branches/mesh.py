"""The `mesh` branch: a person's crop to SMPL by a network with part attention (Kocabas et al., PARE, 2021).

The network sees the crop alone: its colours, or its edges and the joints that a detector found in it. Where the body
stands follows from 2D joints in the photograph's own camera: the person's keypoints, or where these are too few what
the network itself shows in its crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.branches.estimate import estimate_of
from meshrec.branches.fit import closest_skeleton, only_finite
from meshrec.camera import project, sight_rotation
from meshrec.data.crop import cut, normalised, square_of
from meshrec.errors import MeshrecError
from meshrec.keypoints import FEWEST_SEEN, SEEN_CONFIDENCE, TRUNK
from meshrec.models.part_attention import Regressed
from meshrec.models.proxy import mirrored_proxy, proxy
from meshrec.models.regressor import MeshNetConfig, MeshRegressor, Precision, for_inference
from meshrec.photo import Photo
from meshrec.skeletons import COCO17, H36M17, SMPL24, convert, visibility
from meshrec.translation import iterated_translation
from meshrec.types import Batched, BodyParams, Camera, Crop, Estimate, Keypoints, Person, Square, joined, stack
from meshrec.weak_perspective import crop_project, photo_translation_m

LEAST_SCALE = 0.02
"""Of the weak-perspective camera: the square would be 100 m wide, or behind the camera."""

PARTS_OF = {"spine": ("spine2", "spine3"), "thorax": ("neck",), "face": ("head",), "head_top": ("head",)}
"""Body parts that show the joints of H36M-17 which SMPL-24 does not name."""


@dataclass(frozen=True)
class MeshConfig:
    """How people are read from their crops."""

    translation: Literal["keypoints", "network"] = "keypoints"
    """Solved from 2D joints in the photograph's camera; or such that the pelvis stands where the network shows it."""
    precision: Precision = "float32"
    """Of the network's layers."""
    flip: bool = False
    """Average with what the network says of the mirror image."""
    people_at_once: int = 16
    """So many crops go through the network together."""
    min_confidence: float = SEEN_CONFIDENCE
    """Joints below it count as not seen."""


@dataclass(frozen=True)
class Sight:
    """A photograph, whom to recover in it, and the camera that took it."""

    photo: Photo
    people: Sequence[Person]
    camera: Camera


@dataclass(frozen=True)
class Reading(Batched):
    """What the network said of a crop."""

    rotations: Float[Tensor, "*batch 24 3 3"]
    betas: Float[Tensor, "*batch B"]
    weak: Float[Tensor, "*batch 3"]
    looked: Float[Tensor, "*batch 24"]
    """How sharply it looked at something in the photograph, for each part: see `attention_confidence`."""


@runtime_checkable
class CropNetwork(Protocol):
    """Whatever reads crops: normalised RGB, or proxies, as its configuration says."""

    config: MeshNetConfig

    def __call__(self, image: Float[Tensor, "N C S S"]) -> Regressed: ...


class MeshBranch:
    """Crops to `Estimate`, for any number of people of any number of photographs at once."""

    name = "mesh"

    def __init__(self, network: CropNetwork, model: BodyModel, config: MeshConfig) -> None:
        if H36M17.name not in model.regressors:
            raise MeshrecError(
                f"The body {model.file.name!r} has no H36M-17 joint regressor; give one with "
                f"`meshrec assets add FILE --h36m J_regressor_h36m.npy`."
            )
        self.crop_px, self.reads, self.model, self.config = network.config.crop_px, network.config, model, config
        light = isinstance(network, MeshRegressor)
        self.network = for_inference(network, config.precision, model.template.device) if light else network

    def __call__(self, photo: Photo, people: Sequence[Person], camera: Camera) -> Estimate:
        """The people of one photograph."""
        return self.several([Sight(photo, people, camera)])[0]

    @torch.no_grad()
    def several(self, sights: Sequence[Sight]) -> list[Estimate]:
        """The people of several photographs; one whose box is none has joints that are not finite."""
        people = [(sight, person) for sight in sights for person in sight.people]
        squares, readings = [], []
        for start in range(0, len(people), self.config.people_at_once):
            crop, size_px = self._crops(people[start : start + self.config.people_at_once])
            squares.append(crop.square)
            readings.append(self._read(crop, size_px))
        square, reading = joined(squares), joined(readings)
        estimates, start = [], 0
        for sight in sights:
            rows = slice(start, start + len(sight.people))
            start = rows.stop
            camera = expanded(sight.camera, len(sight.people))
            keypoints = stack([person.keypoints for person in sight.people])
            estimate = self._estimate(reading[rows], square[rows], camera, keypoints)
            boxed = torch.tensor([_has_box(person) for person in sight.people], device=estimate.joints17_m.device)
            known_m = torch.where(boxed[:, None, None], estimate.joints17_m, torch.nan)
            estimates.append(replace(estimate, joints17_m=known_m))
        return estimates

    @torch.no_grad()
    def estimate(self, crop: Crop, camera: Camera, keypoints: Keypoints | None = None) -> Estimate:
        """N people from their crops, given nouns with one leading axis N; keypoints in pixels of the photograph.

        The crops are what the network takes: see `meshrec.data.crop.normalised` and `meshrec.models.proxy.proxy`.
        """
        size_px = torch.tensor([[float(camera.width_px), float(camera.height_px)]]).expand(len(crop.image), 2)
        rows = torch.arange(len(crop.image)).split(self.config.people_at_once)
        reading = joined([self._read(crop[some], size_px[some]) for some in rows])
        return self._estimate(reading, crop.square, camera, keypoints or no_keypoints(len(crop.image)))

    def _crops(self, people: Sequence[tuple[Sight, Person]]) -> tuple[Crop, Float[Tensor, "N 2"]]:
        """The crops of people, and the sizes of their photographs; the whole photograph where there is no box."""
        sizes = torch.tensor([[float(sight.photo.width_px), float(sight.photo.height_px)] for sight, _ in people])
        whole = torch.cat([torch.zeros_like(sizes), sizes], dim=-1)
        boxes = [
            person.box_xyxy_px if _has_box(person) else box for (_, person), box in zip(people, whole, strict=True)
        ]
        square = square_of(torch.stack(boxes).float())
        cuts = [cut(sight.photo.pixels, square[row], self.crop_px) for row, (sight, _) in enumerate(people)]
        pixels = torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2)
        if self.reads.input == "rgb":
            return Crop(normalised(pixels), square), sizes
        seen = [coco_of(person.keypoints) for _, person in people]
        points, confidence = (torch.stack(column) for column in zip(*seen, strict=True))
        return Crop(proxy(pixels, square.into(points, self.crop_px), confidence), square), sizes

    def _read(self, crop: Crop, size_px: Float[Tensor, "N 2"]) -> Reading:
        """The network's answer, averaged with its answer to the mirror image if so configured."""
        image = crop.image.to(self.model.template.device)
        answer = self.network(image)
        if self.config.flip:
            mirror = image.flip(-1) if self.reads.input == "rgb" else mirrored_proxy(image)
            answer = mean_of(answer, mirrored(self.network(mirror)))
        answer = answer.map(lambda tensor: tensor.to(self.model.template))
        height, width = answer.part_logits.shape[-2:]
        inside = _inside(crop.square.to(answer.weak), size_px.to(answer.weak), self.crop_px, (height, width))
        scale = answer.weak[:, :1].clamp_min(LEAST_SCALE)
        weak = torch.cat([scale, answer.weak[:, 1:]], dim=-1)
        looked = attention_confidence(answer.attention, inside)
        if self.reads.backbone == "none":
            looked = torch.ones_like(looked)
        return Reading(answer.rotations, answer.betas, weak, looked)

    def _estimate(self, reading: Reading, square: Square, camera: Camera, keypoints: Keypoints) -> Estimate:
        """The body in the photograph's camera, and how sure of each joint one may be."""
        like = self.model.template
        square, camera = square.to(like.device, like.dtype), camera.to(like.device, like.dtype)
        keypoints = only_finite(keypoints.to(like.device, like.dtype))
        unplaced = _in_photo(reading, square)
        if self.reads.root == "sight":
            unplaced = replace(unplaced, root=sight_rotation(camera, square.center_px) @ unplaced.root)
        params = replace(unplaced, transl_m=self._translation_m(reading, unplaced, square, camera, keypoints))
        joints17 = self.model.regressed(params, H36M17)
        confidence = self._visible(joints17, keypoints, camera) * _joints17_of_parts(reading.looked)
        return estimate_of(self.name, self.model, params, joints17, camera, confidence, self.config.min_confidence)

    def _translation_m(
        self, reading: Reading, params: BodyParams, square: Square, camera: Camera, keypoints: Keypoints
    ) -> Float[Tensor, "N 3"]:
        """As configured; the network's own where 2D joints tell none, as when they show the body upside down."""
        pelvis_m = self.model.kinematics(params).joints_m[:, SMPL24.index("pelvis")]
        own_m = photo_translation_m(reading.weak, pelvis_m, square, self.crop_px, camera)
        if self.config.translation == "network":
            return own_m
        skeleton = closest_skeleton(self.model, keypoints.skeleton)
        in_crop = BodyParams.from_rotations(reading.rotations, reading.betas, torch.zeros_like(own_m))
        shown = crop_project(self.model.regressed(in_crop, skeleton), reading.weak, self.crop_px)
        xy_px, _ = convert(keypoints.xy_px, keypoints.skeleton, skeleton)
        weight = convert(keypoints.confidence[..., None], keypoints.skeleton, skeleton)[0][..., 0]
        weight = torch.where(weight >= self.config.min_confidence, weight, 0.0)
        enough = self.enough(keypoints)[:, None]
        solved = iterated_translation(
            self.model.regressed(params, skeleton),
            torch.where(enough[..., None], xy_px, square.back(shown, self.crop_px)),
            torch.where(enough, weight, 1.0),
            camera,
        )
        return torch.where(solved.ok[:, None], solved.transl_m, own_m)

    def enough(self, keypoints: Keypoints) -> Bool[Tensor, "N"]:
        """Whether so much was detected of each person that it says where the body stands."""
        seen = keypoints.confidence >= self.config.min_confidence
        return (seen.sum(dim=-1) >= FEWEST_SEEN) & seen[:, keypoints.skeleton.indices(*TRUNK)].any(dim=-1)

    def _visible(
        self, joints17_m: Float[Tensor, "N 17 3"], keypoints: Keypoints, camera: Camera
    ) -> Float[Tensor, "N 17"]:
        """How surely keypoints show each joint; where there are too few of them, whether it lies in the photograph."""
        xy_px = project(joints17_m, camera)
        size_px = xy_px.new_tensor([camera.width_px, camera.height_px])
        inside = ((xy_px >= 0) & (xy_px <= size_px)).all(dim=-1) & (joints17_m[..., 2] > 0)
        detected = visibility(keypoints.confidence, keypoints.skeleton, H36M17)
        return torch.where(self.enough(keypoints)[:, None], detected, inside.to(detected))


def attention_confidence(
    attention: Float[Tensor, "*batch 24 h w"], inside: Bool[Tensor, "*batch h w"]
) -> Float[Tensor, "*batch 24"]:
    """How sharply the network looked at something in the photograph, 0 to 1, for each part.

    Σ a over the pixels inside the photograph, times 1 - A / P: of the P pixels of the crop, attention that is spread
    evenly over A of them has 1 / Σ a² = A. Looking everywhere is knowing nothing, and so is looking beyond the border.
    """
    mass = (attention * inside[..., None, :, :]).sum(dim=(-2, -1))
    pixels = inside.shape[-2] * inside.shape[-1]
    spread = 1 / (pixels * attention.square().sum(dim=(-2, -1)))
    return mass * (1 - spread).clamp_min(0.0)


def mirrored(answer: Regressed) -> Regressed:
    """What the network says of a mirror image, told of the picture itself: x to -x, left to right."""
    flip = torch.diag(answer.rotations.new_tensor([-1.0, 1.0, 1.0]))
    parts = [0, *(1 + joint for joint in SMPL24.mirror)]
    return replace(
        answer,
        rotations=flip @ answer.rotations[..., SMPL24.mirror, :, :] @ flip,
        weak=answer.weak * answer.weak.new_tensor([1.0, -1.0, 1.0]),
        part_logits=answer.part_logits[..., parts, :, :].flip(-1),
    )


def mean_of(one: Regressed, other: Regressed) -> Regressed:
    """Between two answers: rotations by the nearest rotation to their mean matrix, the rest by the mean."""
    middle = (torch.lerp(mine, theirs, 0.5) for mine, theirs in zip(_tensors(one), _tensors(other), strict=True))
    rotations, betas, weak, part_logits = middle
    return replace(one, rotations=roma.special_procrustes(rotations), betas=betas, weak=weak, part_logits=part_logits)


def _tensors(answer: Regressed) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return answer.rotations, answer.betas, answer.weak, answer.part_logits


def _has_box(person: Person) -> bool:
    """Whether a person's box is finite and not empty."""
    low, high = person.box_xyxy_px[:2], person.box_xyxy_px[2:]
    return bool(person.box_xyxy_px.isfinite().all() and (low < high).all())


def _inside(
    square: Square, size_px: Float[Tensor, "N 2"], crop_px: int, grid: tuple[int, int]
) -> Bool[Tensor, "N h w"]:
    """Which cells of a grid over each crop have their middle in the photograph."""
    y, x = (((torch.arange(count) + 0.5) * (crop_px / count)).to(size_px) for count in grid)
    middles = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
    xy_px = square.back(middles.expand(len(size_px), -1, 2), crop_px)
    return ((xy_px >= 0) & (xy_px <= size_px[:, None])).all(dim=-1).unflatten(1, grid)


def _in_photo(reading: Reading, square: Square) -> BodyParams:
    """The body, still at `transl_m` = 0, with its root turned back by what the crop is turned."""
    turned_back = -square.angle_rad[:, None] * reading.weak.new_tensor([0.0, 0.0, 1.0])
    root = roma.rotvec_to_rotmat(turned_back) @ reading.rotations[:, 0]
    return BodyParams(root, reading.rotations[:, 1:], reading.betas, torch.zeros_like(reading.weak))


def _joints17_of_parts(looked: Float[Tensor, "N 24"]) -> Float[Tensor, "N 17"]:
    """H36M-17 joints by the body parts that they move or lie in."""
    parts = [SMPL24.indices(*PARTS_OF.get(joint, (joint,))) for joint in H36M17.joints]
    return torch.stack([looked[:, some].mean(dim=1) for some in parts], dim=1)


def coco_of(keypoints: Keypoints) -> tuple[Float[Tensor, "*batch 17 2"], Float[Tensor, "*batch 17"]]:
    """COCO-17's joints by name, and their confidences; 0 where the keypoints have none or it is nowhere."""
    known = only_finite(keypoints)
    values = torch.cat([known.xy_px, known.confidence[..., None]], dim=-1)
    found, _ = convert(values, known.skeleton, COCO17)
    return found[..., :2], found[..., 2]


def no_keypoints(people: int) -> Keypoints:
    """Keypoints of people of whom none are known."""
    return Keypoints(torch.zeros(people, len(COCO17), 2), torch.zeros(people, len(COCO17)), COCO17)


def expanded(camera: Camera, people: int) -> Camera:
    """One camera for each person."""
    return camera.map(lambda tensor: tensor.expand(people, *tensor.shape))
