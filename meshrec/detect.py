"""Seeing people in a photograph: their boxes and keypoints.

One rule holds for every detector: a keypoint outside the image is not seen, whatever confidence it came with.
"""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor
from torchvision.models.detection import KeypointRCNN, KeypointRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from meshrec.blazepose import MediaPipeDetector
from meshrec.errors import MeshrecError
from meshrec.keypoint_entries import Entry
from meshrec.keypoint_files import open_keypoints, some
from meshrec.keypoints import FEWEST_SEEN, SEEN_CONFIDENCE, box_of, enough_seen, only_inside
from meshrec.photo import Photo
from meshrec.skeletons import COCO17
from meshrec.types import Keypoints, Person

__all__ = ["Detector", "FileDetector", "KeypointRCNNDetector", "MediaPipeDetector", "build_detector"]


@runtime_checkable
class Detector(Protocol):
    """Photo -> people, the surest first; an empty list if nobody is seen."""

    name: str

    def __call__(self, photo: Photo) -> list[Person]: ...


def build_detector(
    name: Literal["mediapipe", "rcnn"] = "mediapipe",
    weights: Path | None = None,
    keypoints: Path | None = None,
    photos: Sequence[Path] = (),
) -> Detector:
    """The detector called `name`, or the reader of a keypoint file or folder if there is one, for some `photos`."""
    if keypoints is not None and weights is not None:
        raise MeshrecError(f"With --keypoints nothing is detected, so the weights {weights} would not be used.")
    if keypoints is not None:
        return FileDetector(keypoints, photos)
    if name == "rcnn":
        return KeypointRCNNDetector(weights)
    if weights is not None:
        raise MeshrecError(f"MediaPipe brings its own weights; {weights} can only be given to the detector rcnn.")
    return MediaPipeDetector()


class FileDetector:
    """Keypoints that another program found: a file, or a folder of `STEM_keypoints.json`, `STEM.json` or `STEM.npz`.

    COCO's JSON knows its photos by name; a file in another format holds one photo, and is refused if there are several
    `photos` to be looked at. People outside the photo, or of whom too little is seen, are left out; it is a
    `MeshrecError` if nobody is left. A box that is not finite, is empty or lies beside the photo is replaced by the one
    around the keypoints.
    """

    name = "file"

    def __init__(self, path: Path, photos: Sequence[Path] = ()):
        self._path, self._file = path, open_keypoints(path)
        if self._file.holds_one_photo and len(photos) > 1:
            raise MeshrecError(
                f"{path} holds the keypoints of one photo, and {len(photos)} are named: {some(photos)}. Name one of "
                f"them, or a folder that holds a file for each."
            )

    def __call__(self, photo: Photo) -> list[Person]:
        entries = [entry for entry in self._file.entries(photo) if _any_known(entry)]
        inside = [replace(entry, keypoints=only_inside(entry.keypoints, photo)) for entry in entries]
        seen = [_person(entry, photo) for entry in inside if enough_seen(entry.keypoints)]
        people = [person for person in seen if _shows(person.box_xyxy_px, photo)]
        if not people or _are_shares(entries):
            raise self._nobody(entries, inside, photo)
        return sorted(people, key=lambda person: -person.score)

    def _nobody(self, entries: list[Entry], inside: list[Entry], photo: Photo) -> MeshrecError:
        """Why nobody is left of what the file lists."""
        if not entries:
            why = "it lists nobody there, or only keypoints of confidence 0. Leave --keypoints out to look for people"
        elif _are_shares(entries):
            why = (
                "the keypoints lie between -1 and 1, so they are shares of the image; pixels are needed (OpenPose: "
                "--keypoint_scale 0)"
            )
        elif not any(_any_known(entry) for entry in inside):
            why = (
                f"everybody lies wholly outside the photo, which is {photo.width_px}x{photo.height_px} pixels; these "
                f"are the keypoints of another photo, or of another size of it"
            )
        else:
            why = (
                f"nobody has {FEWEST_SEEN} keypoints in different places of the photo, a shoulder or hip among them, "
                f"of confidence {SEEN_CONFIDENCE} or more. Leave --keypoints out to look for people"
            )
        return MeshrecError(f"{self._path} knows nobody in {photo.path.name}: {why}.")


def _person(entry: Entry, photo: Photo) -> Person:
    box = entry.box_xyxy_px
    if box is None or not _shows(box, photo):
        box = box_of(entry.keypoints)
    return Person(box, entry.score, entry.keypoints)


def _shows(box: Float[Tensor, "4"], photo: Photo) -> bool:
    """Whether a box is one, and some of it is in the photo."""
    low, high = box[:2].clamp(min=0), torch.minimum(box[2:], torch.tensor([photo.width_px, photo.height_px]))
    return bool(box.isfinite().all() and (low < high).all())


def _any_known(entry: Entry) -> bool:
    return bool((entry.keypoints.confidence > 0).any())


def _are_shares(entries: list[Entry]) -> bool:
    """Whether all coordinates are such as shares of the image are."""
    return all(bool((e.keypoints.xy_px[e.keypoints.confidence > 0].abs() <= 1).all()) for e in entries)


class KeypointRCNNDetector:
    """Keypoint R-CNN (He et al. 2017) of torchvision: COCO-17 of every person; slow without a GPU.

    Its keypoint scores are heat map logits; confidence = sigmoid(logit - 2), so that Detectron's drawing threshold of 2
    stands at one half.
    """

    name = "rcnn"

    def __init__(self, weights: Path | None = None, score: float = 0.7, device: torch.device | None = None):
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        norm = partial(FrozenBatchNorm2d, eps=0.0)  # as the published weights were converted
        backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=norm, trainable_layers=0)
        model = KeypointRCNN(backbone, num_classes=2, num_keypoints=len(COCO17), box_score_thresh=score)
        _load(model, _published_weights() if weights is None else _weights_in(weights), weights)
        self._model = model.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, photo: Photo) -> list[Person]:
        image = torch.from_numpy(photo.pixels).to(self._device).permute(2, 0, 1).float() / 255
        found = {name: values.cpu() for name, values in self._model([image])[0].items()}
        people = []
        for box, score, keypoints, logits in zip(
            found["boxes"], found["scores"], found["keypoints"], found["keypoints_scores"], strict=True
        ):
            seen = only_inside(Keypoints(keypoints[:, :2], torch.sigmoid(logits - 2), COCO17), photo)
            people.append(Person(box, float(score), seen))
        return sorted(people, key=lambda person: -person.score)


def _published_weights() -> dict[str, Tensor]:
    try:
        return dict(KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise MeshrecError(
            f"Cannot download Keypoint R-CNN's weights from {KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.url} ({error}). "
            f"Fetch them on another machine and give them with --weights PATH."
        ) from error


def _weights_in(path: Path) -> dict[str, Tensor]:
    """A state dict, alone or under `model` as torchvision's training script writes it."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise MeshrecError(f"Cannot read weights from {path}: {reason}. It should be a state dict.") from error
    content = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise MeshrecError(f"{path} holds no state dict (names and tensors) but a {type(content).__name__}.")
    return content


def _load(model: KeypointRCNN, weights: dict[str, Tensor], path: Path | None) -> None:
    """Load all weights or say which tensor differs first; batch counters are no weights."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in weights.items() if not name.endswith("num_batches_tracked")}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise MeshrecError(
                f"{path} does not hold Keypoint R-CNN (ResNet-50 FPN, 17 keypoints): tensor {name} should be "
                f"{wanted.get(name, 'absent')} and is {found.get(name, 'absent')}. Use torchvision's "
                f"keypointrcnn_resnet50_fpn weights."
            )
    model.load_state_dict({name: weights[name] for name in wanted})
