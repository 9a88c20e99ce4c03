"""Tiny data sets in the official layouts of COCO and Human3.6M, and pictures to tell pixels apart in."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.skeletons import COCO17, H36M17
from meshrec.types import BodyParams

SIZE_PX = (160, 120)


def write_picture(path: Path, dots: Sequence[tuple[int, int]] = ()) -> Path:
    """A dark picture; at the dots, pixels counted from 0, a white block of 5 x 5 around the pixel."""
    pixels = np.full((SIZE_PX[1], SIZE_PX[0], 3), 30, np.uint8)
    for x, y in dots:
        pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])
    return path


def coco_person(image: int, number: int, joints: int = 17, **changes: Any) -> dict[str, Any]:
    """A row of `annotations`: the joints a staircase of pixels, the rest not annotated."""
    keypoints = [[20 + 5 * row, 15 + 5 * row, 2] if row < joints else [0, 0, 0] for row in range(len(COCO17))]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": joints,
        "keypoints": [value for row in keypoints for value in row],
        "bbox": [15.5, 10.0, 95.0, 100.5],
    } | changes


def write_coco(folder: Path, people: Sequence[dict[str, Any]], split: str = "val2017") -> Path:
    """The annotation file and a picture for each image that somebody is in."""
    images = sorted({row["image_id"] for row in people})
    rows = [
        {"id": image, "file_name": f"{image:012d}.jpg", "width": SIZE_PX[0], "height": SIZE_PX[1]} for image in images
    ]
    for row in rows:
        write_picture(folder / split / row["file_name"])
    file = folder / "annotations" / f"person_keypoints_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": rows, "annotations": list(people)}), encoding="utf-8")
    return folder


def looking_down(turn_rad: float, center_px: tuple[float, float] = (80.0, 60.0)) -> dict[str, Any]:
    """A camera of Human3.6M's file, 5 m away on a circle and 1.5 m up: z is up in the world, in millimetres."""
    place_mm = 5000 * np.array([np.cos(turn_rad), np.sin(turn_rad), 0.3])
    forward = np.array([0.0, 0.0, 900.0]) - place_mm
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    return {"R": R.tolist(), "t": (-R @ place_mm).tolist(), "f": [150.0, 148.0], "c": list(center_px)}


def h36m_joints_mm(model: BodyModel, params: BodyParams) -> Float[Tensor, "*batch 17 3"]:
    """What the capture would say of a body."""
    return 1000 * model.regressed(params, H36M17)


def write_h36m(
    folder: Path,
    params: BodyParams,
    model: BodyModel,
    cameras: dict[str, dict[str, Any]],
    subject: int = 9,
    above: bool = False,
    fits: bool = True,
    unit: float = 1.0,
) -> Path:
    """One take, a frame for each body, seen by all cameras; `above`: the subject is a key above the action."""
    joints = unit * h36m_joints_mm(model, params)
    frames = range(len(joints))
    images, boxes = [], []
    for index, camera in cameras.items():
        for frame in frames:
            name = f"s_{subject:02d}_act_02_subact_01_ca_{int(index):02d}/{frame + 1:06d}.jpg"
            write_picture(folder / "images" / name)
            keys = {"subject": subject, "action_name": "Directions", "action_idx": 2, "subaction_idx": 1}
            keys |= {"cam_idx": int(index), "frame_idx": frame, "file_name": name, "id": len(images)}
            images.append(keys | {"width": SIZE_PX[0], "height": SIZE_PX[1]})
            boxes.append({"id": len(boxes), "image_id": len(boxes), "bbox": box_of(joints[frame], camera)})
    tree = {"2": {"1": {str(frame): joints[frame].tolist() for frame in frames}}}
    fit = {"2": {"1": {str(frame): fit_of(params[frame]) for frame in frames}}}
    files: dict[str, Any] = {"data": {"images": images, "annotations": boxes}, "camera": cameras}
    files |= {"joint_3d": {str(subject): tree} if above else tree}
    files |= {"smpl_param": {str(subject): fit} if above else fit} if fits else {}
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        file = folder / "annotations" / f"Human36M_subject{subject}_{name}.json"
        file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def seen_by(camera: dict[str, Any], joints_mm: Float[Tensor, "17 3"]) -> Float[np.ndarray, "17 2"]:
    """Where a camera of the file shows the joints, if its `t` is a translation."""
    points = joints_mm.numpy() @ np.array(camera["R"]).T + np.array(camera["t"])
    return points[:, :2] / points[:, 2:] * np.array(camera["f"]) + np.array(camera["c"])


def box_of(joints_mm: Float[Tensor, "17 3"], camera: dict[str, Any]) -> list[float]:
    """x, y, width and height; around nothing where the joints are no millimetres."""
    xy = seen_by(camera, joints_mm)
    return [*(xy.min(0) - 4).tolist(), *(xy.max(0) - xy.min(0) + 8).tolist()]


def fit_of(params: BodyParams) -> dict[str, Any]:
    """An SMPL fit in the world."""
    rotvecs = roma.rotmat_to_rotvec(params.rotations)
    return {
        "pose": rotvecs.flatten().tolist(),
        "shape": params.betas[:10].tolist(),
        "trans": params.transl_m.tolist(),
    }


def standing(frames: int, seed: int = 0) -> BodyParams:
    """Bodies that stand and bend, z up, about 0.95 m above the floor."""
    noise = torch.Generator().manual_seed(seed)
    rotvecs = 0.3 * torch.randn(frames, 24, 3, generator=noise, dtype=torch.float64)
    up = roma.rotvec_to_rotmat(torch.tensor([torch.pi / 2, 0.0, 0.0], dtype=torch.float64))
    rotations = roma.rotvec_to_rotmat(rotvecs)
    rotations[:, 0] = up @ rotations[:, 0]
    transl_m = 0.2 * torch.randn(frames, 3, generator=noise, dtype=torch.float64) + torch.tensor([0.0, 0.0, 1.15])
    betas = torch.randn(10, generator=noise, dtype=torch.float64).expand(frames, -1)
    return BodyParams.from_rotations(rotations, betas, transl_m)
