"""Poses that can stand, and files of joints in the layouts that there are."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from meshrec.data.h36m_files import H36M32_JOINTS
from meshrec.skeletons import COCO17, H36M17

STANDING_M = {
    "pelvis": (0.0, 0.95, 0.0),
    "left_hip": (0.13, 0.95, 0.0),
    "left_knee": (0.15, 0.5, 0.03),
    "left_ankle": (0.16, 0.08, -0.02),
    "spine": (0.0, 1.2, -0.02),
    "thorax": (0.0, 1.45, -0.01),
    "face": (0.0, 1.58, 0.06),
    "head_top": (0.0, 1.7, 0.01),
    "left_shoulder": (0.18, 1.42, -0.01),
    "left_elbow": (0.3, 1.15, -0.03),
    "left_wrist": (0.33, 0.9, 0.08),
}
"""A person who faces +z, y up; the right is the left's mirror image."""

CAPTURE_NAMES = {"face": "neck_nose"}


def standing_m() -> np.ndarray:
    """(17, 3)"""
    rows = []
    for joint, other in enumerate(H36M17.mirror):
        name = H36M17.joints[joint]
        x, y, z = STANDING_M[name if name in STANDING_M else H36M17.joints[other]]
        rows.append((x if name in STANDING_M else -x, y, z))
    return np.array(rows)


def people_m(frames: int, seed: int = 0) -> np.ndarray:
    """Standing people, each joint moved a little, each person somewhere else and turned; (frames, 17, 3)."""
    noise = np.random.default_rng(seed)
    joints_m = standing_m() + noise.normal(scale=0.03, size=(frames, len(H36M17), 3))
    angle = noise.uniform(-np.pi, np.pi, frames)
    return turned(joints_m, angle) + noise.uniform(-2, 2, (frames, 1, 3))


def turned(joints_m: np.ndarray, angle_rad: float | np.ndarray) -> np.ndarray:
    """Turned to the person's left about the vertical: +z to +x."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    zero, one = np.zeros_like(cos), np.ones_like(cos)
    turn = np.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], axis=-1).reshape(*np.shape(angle_rad), 3, 3)
    return joints_m @ np.swapaxes(turn, -1, -2)


def write_capture(path: Path, clips: list[tuple[str, str, np.ndarray]], **changes: Any) -> Path:
    """Clips of (name, subject, joints); the names of joints and the actions as captures of ours have them."""
    lengths = np.array([len(joints_m) for _, _, joints_m in clips])
    names = [CAPTURE_NAMES.get(joint, joint) for joint in H36M17.joints]
    names = [name.replace("left_", "L_").replace("right_", "R_") for name in names]
    fields = {
        "joints17": np.concatenate([joints_m for _, _, joints_m in clips]).astype(np.float32),
        "h36m17_names": np.array(names),
        "valid": np.ones(lengths.sum(), bool),
        "clip_start": np.cumsum(lengths) - lengths,
        "clip_len": lengths,
        "clip_name": np.array([name for name, _, _ in clips]),
        "clip_subject": np.array([subject for _, subject, _ in clips]),
        "clip_action": np.array([f"doing {name}" for name, _, _ in clips]),
    } | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: array for name, array in fields.items() if array is not None})
    return path


def z_up(joints_m: np.ndarray) -> np.ndarray:
    """(x, y, z) to (x, -z, y)."""
    return np.stack([joints_m[..., 0], -joints_m[..., 2], joints_m[..., 1]], axis=-1).astype(np.float32)


def all32(joints: np.ndarray) -> np.ndarray:
    """The 17 joints among the 32 of the capture; the others are elsewhere."""
    whole = np.full((*joints.shape[:-2], len(H36M32_JOINTS), joints.shape[-1]), 77.0, joints.dtype)
    whole[..., [H36M32_JOINTS.index(joint) for joint in H36M17.joints], :] = joints
    return whole


def write_objects(path: Path, **objects: Any) -> Path:
    """An `.npz` of pickled dicts, as `np.savez` makes it of what is no array."""
    np.savez_compressed(path, **objects)
    return path


def write_coco(path: Path, people: list[dict[str, tuple[float, float, int]]], size_px: tuple[int, int]) -> Path:
    """One image for each person, who is told by joint: x, y and flag; what is not told is 0, 0, 0."""
    width, height = size_px
    images, rows = [], []
    for row, person in enumerate(people):
        images.append({"id": 10 + row, "file_name": f"{row}.jpg", "width": width, "height": height})
        keypoints = [number for joint in COCO17.joints for number in person.get(joint, (0, 0, 0))]
        rows.append({"image_id": 10 + row, "keypoints": keypoints, "num_keypoints": len(person), "segmentation": [[1]]})
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": rows}))
    return path
