"""Synthetic people in the layout of 3DPW: sequenceFiles/SPLIT/NAME.pkl and imageFiles/NAME/image_00000.jpg.

The truth is exact: the body of `poses`, `betas` and `trans`, taken into the camera by `cam_poses` and `cam_intrinsics`,
is what the image shows, in continuous pixels (the first pixel's centre is (0.5, 0.5)). Where `campose_valid` is 0 the
camera that is written is not the one that took the image. The world's y is up, and the first person's lowest vertex in
the first image is its origin's height.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.camera import project
from meshrec.data.synthetic import old_pickle
from meshrec.data.synthetic.photograph import COCO_ROWS, Photograph, Sitter, photographed, write_jpeg
from meshrec.data.synthetic.scene import Scene, Synthesizer
from meshrec.files import write_whole
from meshrec.keypoint_files import OPENPOSE18_JOINTS
from meshrec.randomness import generator_of
from meshrec.skeletons import COCO17
from meshrec.types import BodyParams, Camera

STREAM = "synthetic 3dpw"
"""Of chance."""

STEADY = {"occlude": 0.0, "close": 0.0, "anyhow": 0.0, "tumble": 0.0, "size": (0.45, 0.75)}
"""What scenes are like that are set in motion: whole bodies, upright."""

SPLITS = ("train", "test", "validation")
"""Sequences go to them in turn."""

HZ = 60
"""Frames a second of the motion; images show every second one."""

LEAST_DETECTED = 6
"""3DPW gives no 2D detections where fewer joints were found."""

SURE = 0.9
"""What its detector says of a joint that is seen."""

LOST_SHARE = 0.15
"""Of the images, whose camera is not aligned to them; never the first."""

SWAY_RAD = 0.12
"""Standard deviation of how far joints sway about each axis."""

SWAYS_HZ = (0.3, 1.0)
TURN_RAD_PER_S = 0.3
WALK_M_PER_S = 0.2

CAMERA_RAD_PER_S = 0.02
CAMERA_M_PER_S = 0.05
"""How fast the camera drifts in the hand that holds it."""

MISPLACED_RAD, MISPLACED_M = 0.05, 0.1
"""How far cameras that are not aligned are off."""


@dataclass(frozen=True, eq=False)
class Take:
    """One sequence: people who sway and walk about, and a camera that drifts."""

    name: str
    scene: Scene
    """Of the first image; looks, light and ground stay."""
    params: BodyParams
    """Of all people at `HZ` frames a second, in the world, float64: (2 images, k)."""
    T_camera_world: Float[Tensor, "F 4 4"]
    """Of each image."""

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.T_camera_world)

    @cached_property
    def rest_pelvis_m(self) -> Float[Tensor, "k 3"]:
        """What each body's root turns it about."""
        return _rest_pelvis_m(self.scene)

    def scene_at(self, image: int, model: BodyModel) -> Scene:
        """What the camera sees."""
        params = _moved(self.params[2 * image], self.T_camera_world[image], self.rest_pelvis_m).to(torch.float32)
        body, sensor = model(params), self.scene.sensor
        noise = replace(sensor, seed=sensor.seed + image)
        return replace(self.scene, params=params, vertices_m=body.vertices_m, joints_m=body.joints_m, sensor=noise)


def take_of(name: str, scene: Scene, images: int, random: np.random.Generator) -> Take:
    """A scene set in motion; its things in the way are gone."""
    T_camera_world = _first_camera(scene)
    rest_pelvis_m, still = _rest_pelvis_m(scene), scene.params.to(torch.float64)
    first = _moved(still, torch.linalg.inv(T_camera_world), rest_pelvis_m)
    seconds = torch.arange(images, dtype=torch.float64) * 2 / HZ
    drift = _transforms(
        torch.from_numpy(random.normal(0, CAMERA_RAD_PER_S, 3)) * seconds[:, None],
        torch.from_numpy(random.normal(0, CAMERA_M_PER_S, 3)) * seconds[:, None],
    )
    return Take(name, replace(scene, things=()), _swaying(first, 2 * images, random), drift @ T_camera_world)


def takes(
    makers: Sequence[Synthesizer], seed: int, images: int, frames: int
) -> Iterator[tuple[Take, np.random.Generator]]:
    """So many images in sequences of so many frames, of each maker in turn, and the chance that is left to each.

    Each is a function of the seed and its number alone.
    """
    for number in range(-(-images // frames)):
        random = generator_of(seed, STREAM, number)
        scene = makers[number % len(makers)].scene(random)
        yield take_of(f"synthetic_{number:03d}", scene, min(frames, images - number * frames), random), random


def _swaying(first: BodyParams, frames: int, random: np.random.Generator) -> BodyParams:
    """Joints that turn to and fro, bodies that turn about the vertical and walk; the first frame is as it was."""
    people = len(first.transl_m)
    seconds = torch.arange(frames, dtype=torch.float64)[:, None] / HZ
    sway = torch.from_numpy(random.normal(0, SWAY_RAD, (people, 23, 3)))
    swing = (2 * math.pi * torch.from_numpy(random.uniform(*SWAYS_HZ, people)) * seconds).sin()
    pose = first.pose @ roma.rotvec_to_rotmat(swing[..., None, None] * sway)
    turn = torch.from_numpy(random.normal(0, TURN_RAD_PER_S, people)) * seconds
    root = roma.rotvec_to_rotmat(turn[..., None] * turn.new_tensor([0.0, 1.0, 0.0])) @ first.root
    walk = torch.from_numpy(random.normal(0, WALK_M_PER_S, (people, 3)) * [1.0, 0.0, 1.0])
    transl_m = first.transl_m + walk * seconds[..., None]
    return BodyParams(root, pose, first.betas.expand(frames, -1, -1), transl_m)


def _first_camera(scene: Scene) -> Float[Tensor, "4 4"]:
    """T_camera_world: y up, x as near to the camera's as can be, the origin below the first person's pelvis."""
    up = scene.light.up.double().cpu()
    aside = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    right = torch.nn.functional.normalize(aside - (aside @ up) * up, dim=0)
    R = torch.stack([right, up, torch.linalg.cross(right, up)], dim=-1)
    vertices_m, pelvis_m = scene.vertices_m[0].double().cpu(), scene.joints_m[0, 0].double().cpu()
    depth_m = (vertices_m @ up).min() - pelvis_m @ up
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3], T[:3, 3] = R, pelvis_m + depth_m * up
    return T


def _rest_pelvis_m(scene: Scene) -> Float[Tensor, "k 3"]:
    """The pelvis without translation."""
    return (scene.joints_m[:, 0].cpu() - scene.params.transl_m).double()


def _moved(params: BodyParams, T: Float[Tensor, "4 4"], rest_pelvis_m: Float[Tensor, "k 3"]) -> BodyParams:
    """Bodies in another frame: x -> R x + t for all their points."""
    R, shift_m = T[:3, :3], T[:3, 3]
    place_m = (rest_pelvis_m + params.transl_m) @ R.T + shift_m
    return replace(params, root=R @ params.root, transl_m=place_m - rest_pelvis_m)


def _transforms(rotvec: Float[Tensor, "n 3"], shift_m: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4 4"]:
    T = torch.eye(4, dtype=torch.float64).repeat(len(rotvec), 1, 1)
    T[:, :3, :3], T[:, :3, 3] = roma.rotvec_to_rotmat(rotvec), shift_m
    return T


def write_3dpw(
    folder: Path,
    takes: Iterable[tuple[Take, np.random.Generator]],
    maker: Synthesizer,
    genders: tuple[str, ...],
) -> Iterator[Photograph]:
    """Write sequences, each with the chance that is left to it; gives every image once it is written."""
    for number, (take, random) in enumerate(takes):
        points2d = [np.zeros((take.images, 3, len(OPENPOSE18_JOINTS))) for _ in range(len(take.scene))]
        for image in range(take.images):
            photograph = photographed([take.scene_at(image, maker.model)], maker)[0]
            write_jpeg(folder / "imageFiles" / take.name / f"image_{image:05d}.jpg", photograph.pixels)
            for points, sitter in zip(points2d, photograph.people, strict=True):
                points[image] = detections(sitter, photograph.camera)
            yield photograph
        data = old_pickle.dumps(fields_of(take, maker.model, points2d, genders, random))
        path = folder / "sequenceFiles" / SPLITS[number % len(SPLITS)] / f"{take.name}.pkl"
        write_whole(path, lambda neighbour, data=data: neighbour.write_bytes(data))


def detections(sitter: Sitter, camera: Camera) -> Float[np.ndarray, "3 18"]:
    """What a 2D detector without error would say: x, y and confidence, all 0 for joints that are not seen."""
    xy_px, seen = sitter.xy_px[COCO_ROWS].double(), sitter.visible[COCO_ROWS]
    shoulders = COCO17.indices("left_shoulder", "right_shoulder")
    neck_px = project(sitter.points_m[COCO_ROWS][shoulders].double().mean(0, keepdim=True), camera.to(torch.float64))
    names = (*COCO17.joints, "upper_neck")
    xy_px, seen = torch.cat([xy_px, neck_px]), torch.cat([seen, seen[shoulders].all()[None]])
    order = [names.index(joint) for joint in OPENPOSE18_JOINTS]
    xy_px, seen = xy_px[order], seen[order]
    if seen.sum() < LEAST_DETECTED:
        return np.zeros((3, len(order)))
    return torch.cat([xy_px, SURE * torch.ones(len(order), 1)], dim=-1).where(seen[:, None], 0.0).T.numpy()


def fields_of(
    take: Take,
    model: BodyModel,
    points2d: list[Float[np.ndarray, "F 3 18"]],
    genders: tuple[str, ...],
    random: np.random.Generator,
) -> dict[str, Any]:
    """The dictionary of a sequence file."""
    images, people = take.images, [take.params[:, person] for person in range(len(take.scene))]
    T_camera_world = take.T_camera_world.numpy().copy()
    lost = (random.random(images) < LOST_SHARE) & (np.arange(images) > 0)
    T_camera_world[lost] = _misplaced(random, int(lost.sum())) @ T_camera_world[lost]
    camera = take.scene.camera
    K = np.eye(3)
    K[[0, 1], [0, 1]], K[:2, 2] = float(camera.focal_px), camera.center_px.numpy()
    vectors = [roma.rotmat_to_rotvec(params.rotations).flatten(-2).numpy() for params in people]
    betas = [params.betas[0].numpy() for params in people]
    joints_m = [model.joints24(params.to(model.template.dtype)).double().flatten(-2).numpy() for params in people]
    return {
        "sequence": take.name,
        "betas": betas,
        "poses": [rows[::2] for rows in vectors],
        "trans": [params.transl_m[::2].numpy() for params in people],
        "poses_60Hz": vectors,
        "trans_60Hz": [params.transl_m.numpy() for params in people],
        "betas_clothed": betas,
        "v_template_clothed": [np.zeros((0, 3)) for _ in people],
        "genders": [genders[index % len(genders)] for index in range(len(people))],
        "texture_maps": [],
        "poses2d": points2d,
        "jointPositions": [rows[::2] for rows in joints_m],
        "img_frame_ids": 2 * np.arange(images),
        "cam_poses": T_camera_world,
        "campose_valid": [~lost for _ in people],
        "cam_intrinsics": K,
    }


def _misplaced(random: np.random.Generator, count: int) -> Float[np.ndarray, "n 4 4"]:
    """Cameras that are off."""
    turns, shifts = random.normal(0, MISPLACED_RAD, (count, 3)), random.normal(0, MISPLACED_M, (count, 3))
    return _transforms(torch.from_numpy(turns), torch.from_numpy(shifts)).numpy()
