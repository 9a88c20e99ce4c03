"""A tiny 3DPW: sequenceFiles/SPLIT/NAME.pkl and imageFiles/NAME/image_00000.jpg, with the keys of the large one.

The truth is exact: the body of `poses`, `betas` and `trans`, taken into the camera by `cam_poses` and `cam_intrinsics`,
is what the image shows, in continuous pixels (the first pixel's centre is (0.5, 0.5)). Where `campose_valid` is 0 the
camera that is written is not the one that took the image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.camera import project
from meshrec.files import write_whole
from meshrec.keypoint_files import OPENPOSE18_JOINTS
from meshrec.randomness import generator_of
from meshrec.skeletons import COCO17
from tiny import old_pickle
from tiny.people import Actor, Cast, actor
from tiny.pictures import write_jpeg
from tiny.scene import Drawn, Shot, backdrop, draw, grain, shots

SPLITS = ("train", "test", "validation")
"""Sequences go to them in turn."""

LEAST_DETECTED = 6
"""3DPW gives no 2D detections where fewer joints were found."""

LOST_SHARE = 0.15
"""Of the frames, whose camera is not aligned to the image; never the first."""

APART_M = 0.55
"""How far people stand from the middle of a picture, at most."""


@dataclass(frozen=True)
class Sequence:
    """One take: its people at 60 frames a second, its cameras at 30."""

    name: str
    actors: list[Actor]
    shots: list[Shot]

    def poses_at(self, frame: int) -> list[Actor]:
        """Everybody in the frame of an image."""
        return [Actor(one.params[2 * frame], one.colors) for one in self.actors]


def write_3dpw(
    folder: Path, cast: Cast, sequences: int, frames: int, genders: tuple[str, ...], advance: Callable[[], None]
) -> None:
    """Write so many sequences; each is a function of the seed and its number alone."""
    for number in range(sequences):
        random = generator_of(cast.seed, "tiny 3dpw", number)
        take = imagined(f"tiny_{number:03d}", cast, frames, 1 + number % cast.people, random)
        ground = backdrop(cast.size_px, random)
        light = torch.from_numpy(random.uniform(0.75, 1.25, 3)).float()
        points2d = [np.zeros((frames, 3, len(OPENPOSE18_JOINTS))) for _ in take.actors]
        for frame in range(frames):
            drawn = drawn_frame(take, frame, cast.model, ground, light)
            write_jpeg(folder / "imageFiles" / take.name / f"image_{frame:05d}.jpg", grain(drawn.pixels, random))
            for person, points in enumerate(points2d):
                points[frame] = detections(take, frame, person, cast.model, drawn)
            advance()
        fields = fields_of(take, cast.model, points2d, genders, random)
        path = folder / "sequenceFiles" / SPLITS[number % len(SPLITS)] / f"{take.name}.pkl"
        _write_pickle(path, fields)


def _write_pickle(path: Path, fields: dict[str, Any]) -> None:
    data = old_pickle.dumps(fields)
    write_whole(path, lambda neighbour: neighbour.write_bytes(data))


def imagined(name: str, cast: Cast, frames: int, people: int, random: np.random.Generator) -> Sequence:
    """People who move about one spot, and a camera that looks at it."""
    spots = random.uniform(-APART_M, APART_M, (people, 2)) * (people > 1)
    actors = [actor(cast.model, cast.poses, 2 * frames, (float(x), float(z)), random) for x, z in spots]
    middle_m = torch.stack([one.params.transl_m.mean(0) for one in actors]).mean(0)
    return Sequence(name, actors, shots(frames, middle_m, cast.size_px, random))


def drawn_frame(take: Sequence, frame: int, model: BodyModel, ground: np.ndarray, light: Float[Tensor, "3"]) -> Drawn:
    """The image of a frame."""
    actors, shot = take.poses_at(frame), take.shots[frame]
    bodies = [shot.to_camera(model(one.params.to(model.template.dtype)).vertices_m.double()) for one in actors]
    return draw(bodies, [one.colors for one in actors], model.faces, shot.camera, ground, light)


def detections(take: Sequence, frame: int, person: int, model: BodyModel, drawn: Drawn) -> Float[np.ndarray, "3 18"]:
    """What a 2D detector would say: x, y and confidence, all 0 for joints that are not seen."""
    shot, params = take.shots[frame], take.actors[person].params[2 * frame]
    joints_m = shot.to_camera(model.regressed(params.to(model.template.dtype), COCO17).double())
    shoulders = COCO17.indices("left_shoulder", "right_shoulder")
    joints_m = torch.cat([joints_m, joints_m[shoulders].mean(0, keepdim=True)])
    names = (*COCO17.joints, "upper_neck")
    rows = [names.index(joint) for joint in OPENPOSE18_JOINTS]
    seen = drawn.seen(joints_m, person, shot.camera)[rows]
    xy_px = project(joints_m, shot.camera.to(torch.float64))[rows]
    if seen.sum() < LEAST_DETECTED:
        return np.zeros((3, len(rows)))
    return torch.cat([xy_px, 0.9 * torch.ones(len(rows), 1)], dim=-1).where(seen[:, None], 0.0).T.numpy()


def fields_of(
    take: Sequence,
    model: BodyModel,
    points2d: list[np.ndarray],
    genders: tuple[str, ...],
    random: np.random.Generator,
) -> dict[str, Any]:
    """The dictionary of a sequence file."""
    frames, people = len(take.shots), [one.params for one in take.actors]
    T_camera_world = np.stack([shot.T_camera_world.numpy() for shot in take.shots])
    lost = (random.random(frames) < LOST_SHARE) & (np.arange(frames) > 0)
    T_camera_world[lost] = _misplaced(random, int(lost.sum())) @ T_camera_world[lost]
    camera = take.shots[0].camera
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
        "img_frame_ids": 2 * np.arange(frames),
        "cam_poses": T_camera_world,
        "campose_valid": [~lost for _ in people],
        "cam_intrinsics": K,
    }


def _misplaced(random: np.random.Generator, count: int) -> Float[np.ndarray, "n 4 4"]:
    """Cameras that are off by some 3 degrees and 10 cm."""
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = roma.rotvec_to_rotmat(torch.from_numpy(random.normal(0, 0.05, (count, 3)))).numpy()
    T[:, :3, 3] = random.normal(0, 0.1, (count, 3))
    return T
