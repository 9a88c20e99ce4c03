"""What any branch has to beat: a flat person, and a person who always stands the same."""

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.metrics import root_relative
from meshrec.skeletons import H36M17
from meshrec.types import Camera, Estimate, Keypoints

PELVIS = H36M17.index("pelvis")
SIDES = ("left", "right")


@dataclass(frozen=True)
class ZeroDepth:
    """Every joint as far away as the pelvis: what is seen, taken for all there is."""

    name: str = "zero depth"

    def estimate(self, keypoints: Keypoints, camera: Camera) -> Estimate:
        """The image itself, at distance 1; no metres."""
        points = (keypoints.xy_px - camera.center_px[:, None]) / camera.focal_px[:, None, None]
        flat = torch.cat([points, torch.zeros_like(points[..., :1])], dim=-1)
        return _answer(self.name, root_relative(flat, H36M17), keypoints)


@dataclass(frozen=True)
class MeanPose:
    """One pose for everybody, upright and facing the camera, whatever is seen."""

    joints_m: Float[Tensor, "17 3"]
    """In camera axes, relative to the pelvis."""
    name: str = "mean pose"

    def estimate(self, keypoints: Keypoints, camera: Camera) -> Estimate:
        """The pose; where it stands nobody knows."""
        joints_m = self.joints_m.to(keypoints.xy_px).expand(*keypoints.xy_px.shape[:-1], 3)
        return _answer(self.name, joints_m, keypoints)


def mean_pose_m(joints_m: Float[Tensor, "N 17 3"]) -> Float[Tensor, "17 3"]:
    """The mean of poses that were turned upright to face the camera, about the pelvis."""
    upright = torch.einsum("nij,nkj->nki", facing_camera(joints_m), root_relative(joints_m, H36M17))
    return upright.mean(0)


def facing_camera(joints_m: Float[Tensor, "*batch 17 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation after which the trunk stands upright and faces the camera (x right, y down, z away).

    A person who faces the camera has the left hip and shoulder on the right of the image.
    """
    left, right = (joints_m[..., H36M17.indices(f"{side}_hip", f"{side}_shoulder"), :].mean(-2) for side in SIDES)
    down = joints_m[..., PELVIS, :] - joints_m[..., H36M17.index("thorax"), :]
    axes = roma.special_gramschmidt(torch.stack([down, left - right], dim=-1))
    y, x, _ = axes.unbind(-1)
    return torch.stack([x, y, torch.linalg.cross(x, y, dim=-1)], dim=-2)


def _answer(name: str, joints_m: Float[Tensor, "N 17 3"], keypoints: Keypoints) -> Estimate:
    return Estimate(name, joints_m, keypoints.confidence, keypoints.confidence > 0)
