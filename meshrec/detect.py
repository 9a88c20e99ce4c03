"""Seeing people in a photograph: their boxes and keypoints.

One rule holds for every detector: a keypoint outside the image is not seen, whatever confidence it came with.
"""

import pickle
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torchvision.models.detection import KeypointRCNN, KeypointRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from meshrec.blazepose import MediaPipeDetector
from meshrec.errors import MeshrecError
from meshrec.keypoint_files import FileDetector
from meshrec.keypoints import box_of, only_inside
from meshrec.photo import Photo
from meshrec.skeletons import COCO17, Skeleton
from meshrec.types import Keypoints, Person

__all__ = ["Detector", "FileDetector", "KeypointRCNNDetector", "MediaPipeDetector", "box_of", "build_detector"]


@runtime_checkable
class Detector(Protocol):
    """Photo -> people, the surest first; an empty list if nobody is seen."""

    name: str
    skeleton: Skeleton

    def __call__(self, photo: Photo) -> list[Person]: ...


def build_detector(
    name: Literal["mediapipe", "rcnn"] = "mediapipe", weights: Path | None = None, keypoints: Path | None = None
) -> Detector:
    """The detector called `name`, or the reader of a keypoint file or folder if there is one."""
    if keypoints is not None:
        return FileDetector(keypoints)
    if name == "rcnn":
        return KeypointRCNNDetector(weights)
    if weights is not None:
        raise MeshrecError(f"MediaPipe brings its own weights; {weights} can only be given to the detector rcnn.")
    return MediaPipeDetector()


class KeypointRCNNDetector:
    """Keypoint R-CNN (He et al. 2017) of torchvision: COCO-17 of every person; slow without a GPU.

    Its keypoint scores are heat map logits; confidence = sigmoid(logit - 2), so that Detectron's drawing threshold of 2
    stands at one half.
    """

    name = "rcnn"
    skeleton = COCO17

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
