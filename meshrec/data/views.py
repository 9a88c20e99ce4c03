"""Poses as cameras see them: what a lifter learns from, and, where it is known, the truth behind it."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.camera import camera_from_body_axes, centered_camera
from meshrec.config import require_positive
from meshrec.data.h36m17 import h36m17_of
from meshrec.data.h36m_files import read_h36m_2d, read_mmpose
from meshrec.data.joints import JointFrames, joined_frames, joint_reader, require_metres, split_people
from meshrec.data.layouts import IN_2D, Layout, layout_of, read_each
from meshrec.data.sightings import Sightings, read_coco, read_keypoint_archive
from meshrec.errors import MeshrecError
from meshrec.keypoints import SEEN_CONFIDENCE
from meshrec.randomness import generator_of
from meshrec.skeletons import H36M17
from meshrec.translation import iterated_translation

FEWEST_JOINTS = 8
"""Of a person with fewer of the 17 joints seen too little is known."""

NEAREST_M = 2.0
"""A camera nearer to a pelvis may have a hand behind it."""

WORST_MISFIT = 0.05
"""The truth may miss the points by so much of the person's size, in the middle."""


@dataclass(frozen=True)
class Views:
    """N people, each as one camera sees them."""

    points: Float[Tensor, "N 17 2"]
    """H36M17 on the plane at distance 1, (xy_px - center_px) / focal_px; x right, y down; zero where not seen."""
    seen: Bool[Tensor, "N 17"]
    joints_m: Float[Tensor, "N 17 3"] | None
    """The truth in the camera's frame; None where it is not known."""
    subject: Shaped[np.ndarray, "N"]
    """Who is seen; empty where it is not known."""
    action: Shaped[np.ndarray, "N"]
    frame: Int[np.ndarray, "N"]
    """The row of the pose: views of one pose have the same."""
    problems: tuple[str, ...] = ()
    """What is wrong with the files that were left out."""

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, rows: Int[np.ndarray, "n"] | Bool[np.ndarray, "N"] | slice) -> "Views":
        """Some of the views."""
        joints_m = None if self.joints_m is None else self.joints_m[rows]
        columns = {name: getattr(self, name)[rows] for name in ("points", "seen", "subject", "action", "frame")}
        return replace(self, joints_m=joints_m, **columns)

    def without_truth(self) -> "Views":
        """The same in 2D alone: what learning without supervision may hold."""
        return replace(self, joints_m=None)

    def split(self, held_out: Collection[str]) -> tuple["Views", "Views"]:
        """The views of everyone else, and those of the people held out."""
        others, unseen = split_people(self.subject, held_out)
        return self[others], self[unseen]

    @property
    def azimuth_rad(self) -> Float[Tensor, "N"]:
        """Where hips and shoulders face: 0 towards the camera, pi/2 to the right of the image; from -pi to pi.

        Of a person turned by alpha about the camera's vertical it is alpha more.
        """
        if self.joints_m is None:
            raise ValueError("views without truth have no azimuth")
        left, right = (
            self.joints_m[:, H36M17.indices(f"{side}_hip", f"{side}_shoulder")].sum(dim=1) for side in ("left", "right")
        )
        across = (left - right) @ camera_from_body_axes().to(left)
        return torch.atan2(-across[:, 2], across[:, 0])


@dataclass(frozen=True)
class ViewsConfig:
    """Virtual cameras around a person: they look at the pelvis and do not roll."""

    views: int = 4
    """Cameras for each pose."""
    distance_m: tuple[float, float] = (4.0, 6.0)
    """From the pelvis."""
    elevation_rad: tuple[float, float] = (-math.pi / 9, math.pi / 9)
    """How far above the pelvis's horizon they stand; below it where negative."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "views")
        for name, (lowest, highest) in {
            "distance_m": (NEAREST_M, math.inf),
            "elevation_rad": (-math.pi / 2, math.pi / 2),
        }.items():
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise ValueError(f"{name} is {low} to {high}; it must rise within {lowest} to {highest}")


def virtual_views(frames: JointFrames, rows: Int[np.ndarray, "n"], config: ViewsConfig) -> Views:
    """Every row as all its cameras see it, azimuths uniform all around; a row's cameras depend on (seed, row) alone.

    X_camera = F Rx(elevation) Ry(azimuth) (X - pelvis) + (0, 0, distance), F the half turn from body to camera axes.
    """
    rotations, distance_m = _virtual_cameras(rows, config)
    joints_m = torch.from_numpy(frames.joints_m[rows])
    joints_m = joints_m - joints_m[:, [H36M17.index("pelvis")]]
    seen_m = joints_m[:, None] @ rotations.to(joints_m).mT
    seen_m[..., 2] += distance_m.to(joints_m)[..., None]
    seen_m = seen_m.flatten(0, 1)
    return Views(
        points=seen_m[..., :2] / seen_m[..., 2:],
        seen=torch.ones(seen_m.shape[:-1], dtype=torch.bool),
        joints_m=seen_m,
        subject=np.repeat(frames.subject[rows], config.views),
        action=np.repeat(frames.action[rows], config.views),
        frame=np.repeat(rows, config.views),
        problems=frames.problems,
    )


def _virtual_cameras(
    rows: Int[np.ndarray, "n"], config: ViewsConfig
) -> tuple[Float[Tensor, "n V 3 3"], Float[Tensor, "n V"]]:
    """Rotations from the world (y up) to the cameras' axes, and distances."""
    table = generator_of(config.seed, "cameras").random((int(rows.max(initial=-1)) + 1, config.views, 3))
    around, above, away = torch.from_numpy(table[rows]).unbind(-1)
    azimuth_rad = (2 * around - 1) * math.pi
    elevation_rad = _between(config.elevation_rad, above)
    turn = roma.euler_to_rotmat("XY", (elevation_rad, azimuth_rad))
    return camera_from_body_axes(dtype=torch.float64) @ turn, _between(config.distance_m, away)


def _between(ends: tuple[float, float], share: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    return ends[0] + (ends[1] - ends[0]) * share


def read_views(paths: Sequence[Path]) -> Views:
    """People seen in 2D, as files of keypoints have them; a file that cannot be read is a problem, unless all are.

    COCO's annotations, archives of keypoints (`read_keypoint_archive`), VideoPose3D's 2D archives, and mmpose's, which
    have the truth too. A skeleton that lacks pelvis and thorax has them midway between its hips and its shoulders.
    Left out is who has no pelvis or fewer than eight joints.
    """
    parts, problems = read_each(paths, _read_sighted, "keypoints")
    return joined(parts, problems)


def open_views(
    paths: Sequence[Path], config: ViewsConfig, held_out: Collection[str], body: BodyModel | None = None
) -> tuple[Views, Views]:
    """Views to train on, and those of the people held out: 3D as virtual cameras see it, 2D as it is.

    Who is seen in 2D by a file that names nobody is never held out. The truth is there where all of a half have it. A
    file that cannot be read is a problem of the first half, unless all are.
    """
    read_frames = joint_reader(body)

    def read(path: Path) -> JointFrames | Views:
        return _read_sighted(path) if layout_of(path) in IN_2D else read_frames(path)

    sources, problems = read_each(paths, read, "poses")
    views = [source for source in sources if isinstance(source, Views)]
    if frames := [source for source in sources if isinstance(source, JointFrames)]:
        together = joined_frames(frames)
        views.insert(0, virtual_views(together, np.arange(len(together)), config))
    people = [np.unique(part.subject) for part in views]
    split_people(np.concatenate(people), held_out)
    halves = [part.split(set(held_out) & set(known.tolist())) for part, known in zip(views, people, strict=True)]
    return joined([half[0] for half in halves], problems), joined([half[1] for half in halves])


def joined(parts: Sequence[Views], problems: tuple[str, ...] = ()) -> Views:
    """The parts one after another, poses numbered on; the truth where all parts that are not empty have it."""
    some = [part for part in parts if len(part)] or list(parts[:1])
    starts = np.cumsum([0, *(int(part.frame.max(initial=-1)) + 1 for part in some)])
    truths = [part.joints_m for part in some if part.joints_m is not None]
    return Views(
        points=torch.cat([part.points for part in some]),
        seen=torch.cat([part.seen for part in some]),
        joints_m=torch.cat(truths) if len(truths) == len(some) else None,
        subject=np.concatenate([part.subject for part in some]),
        action=np.concatenate([part.action for part in some]),
        frame=np.concatenate([part.frame + start for part, start in zip(some, starts[:-1], strict=True)]),
        problems=tuple(said for part in parts for said in part.problems) + problems,
    )


def _read_sighted(path: Path) -> Views:
    """The people of one file of keypoints."""
    readers: dict[Layout, Callable[[Path], Sightings]] = {
        "coco": read_coco,
        "keypoints": read_keypoint_archive,
        "h36m_2d": read_h36m_2d,
        "mmpose": read_mmpose,
    }
    if (layout := layout_of(path)) not in readers:
        raise MeshrecError(f"{path} holds poses in 3D; name files of keypoints.")
    return _views_of(path, readers[layout](path))


def _views_of(path: Path, sightings: Sightings) -> Views:
    """The people of whom enough is seen."""
    keypoints = h36m17_of(sightings.keypoints)
    points = (keypoints.xy_px - sightings.center_px[:, None]) / sightings.focal_px[:, None, None]
    seen = (keypoints.confidence >= SEEN_CONFIDENCE) & points.isfinite().all(dim=-1)
    points = torch.where(seen[..., None], points, 0.0)
    enough = seen[:, H36M17.index("pelvis")] & (seen.sum(dim=-1) >= FEWEST_JOINTS)
    if not enough.any():
        raise MeshrecError(f"{path} has nobody with the pelvis, or both hips, and {FEWEST_JOINTS} joints in all seen.")
    joints_m = None if sightings.joints_m is None else _placed(path, sightings.joints_m, points, seen)
    return Views(points, seen, joints_m, sightings.subject, sightings.action, sightings.frame)[enough.numpy()]


def _placed(
    path: Path, joints_m: Float[Tensor, "N 17 3"], points: Float[Tensor, "N 17 2"], seen: Bool[Tensor, "N 17"]
) -> Float[Tensor, "N 17 3"]:
    """The truth, known about the pelvis, where its points show it; it must be in metres and in the camera's axes."""
    camera = centered_camera(0, 0, 1.0, "assumed")
    placed_m = joints_m + iterated_translation(joints_m, points, seen.float(), camera).transl_m[:, None]
    misses = (placed_m[..., :2] / placed_m[..., 2:] - points).norm(dim=-1)[seen]
    size = points[seen].std(dim=0).norm()
    if not (joints_m.isfinite().all() and misses.median() < WORST_MISFIT * size):
        raise MeshrecError(f"{path} has 3D joints that are not what its 2D joints show: they must be in camera axes.")
    require_metres(path, joints_m.numpy())
    return placed_m
