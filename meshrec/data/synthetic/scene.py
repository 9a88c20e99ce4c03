"""Scenes: who stands where before which camera, how they look, and what is behind and before them."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.camera import project
from meshrec.data.pose_augment import mirrored
from meshrec.data.record_files import BETAS
from meshrec.data.synthetic.camera import Shot, framed, seen_at, shot_of
from meshrec.data.synthetic.grounds import Ground, ground_of
from meshrec.data.synthetic.looks import Light, Look, Sensor, light_of, look_of, sensor_of
from meshrec.data.synthetic.occluders import Thing, things_of
from meshrec.data.synthetic.pictures import Pictures
from meshrec.data.synthetic.poses import Poses, PoseSource, poses_of
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.data.synthetic.surface import Surface
from meshrec.skeletons import SMPL24
from meshrec.types import Batched, BodyParams, Camera, joined, stack

BEFORE = 0.4
"""Probability that another person stands before the person, touching them in the picture."""

TOUCHING = ("left_wrist", "right_wrist", "left_elbow", "right_elbow", "left_hand", "right_hand", "left_knee", "head")
"""With what."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A photograph before it is taken. The first person is the one that it is about."""

    camera: Camera
    params: BodyParams
    """Of k people, in the camera's frame."""
    vertices_m: Float[Tensor, "k V 3"]
    """Their bodies', in the camera's frame, without clothes."""
    joints_m: Float[Tensor, "k 24 3"]
    look: Look
    light: Light
    sensor: Sensor
    ground: Ground
    things: tuple[Thing, ...]
    """The last one is the nearest."""

    @property
    def photo_px(self) -> tuple[int, int]:
        """Width and height of the photograph."""
        return self.camera.width_px, self.camera.height_px

    def __len__(self) -> int:
        return len(self.vertices_m)


@dataclass(frozen=True)
class Bodies(Batched):
    """What is drawn of bodies before they are put together."""

    poses: Poses
    mirror: Bool[Tensor, "*batch"]
    jitter: Float[Tensor, "*batch 23 3"]
    """Rotation vectors that are added to the joints."""
    lean: Float[Tensor, "*batch 3"]
    yaw: Float[Tensor, "*batch 3"]
    """Rotation vectors in the world: first the lean, then the turn about its vertical."""
    anyhow: Float[Tensor, "*batch 4"]
    """A quaternion of any length."""
    tumbling: Bool[Tensor, "*batch"]
    """Whether `anyhow` is how the body stands."""
    betas: Float[Tensor, "*batch 10"]

    def __len__(self) -> int:
        return len(self.betas)

    def params(self, R_camera_world: Float[Tensor, "*batch 3 3"]) -> BodyParams:
        """In the camera's axes, the pelvis of the mean shape at the origin."""
        S = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
        seen_in_mirror = self.mirror[..., None, None]
        rotations = torch.where(seen_in_mirror[..., None], mirrored(self.poses.rotations), self.poses.rotations)
        tilt = torch.where(seen_in_mirror, S @ self.poses.tilt @ S, self.poses.tilt)
        lean, yaw = roma.rotvec_to_rotmat(torch.stack([self.lean, self.yaw])).unbind()
        anyhow = roma.unitquat_to_rotmat(torch.nn.functional.normalize(self.anyhow, dim=-1))
        world = torch.where(self.tumbling[..., None, None], anyhow, yaw @ lean @ tilt)
        return BodyParams(
            root=R_camera_world @ world,
            pose=rotations @ roma.rotvec_to_rotmat(self.jitter),
            betas=self.betas,
            transl_m=torch.zeros_like(self.lean),
        )


@dataclass(frozen=True)
class Cast:
    """What is drawn of a scene before anybody is put in their place."""

    shot: Shot
    bodies: Bodies
    before: tuple[bool, ...]
    """Of each of the others: whether they stand before the person."""
    ratio: Float[Tensor, "o"]
    """How deep the others stand, over the depth of the person."""
    where: Float[Tensor, "o 2"]
    """Where in the photograph: shares of its width and height."""
    joints: tuple[tuple[int, int], ...]
    """Which joint of each of those before is seen at which joint of the person."""


class Synthesizer:
    """Makes scenes of one configuration, each a function of its generator alone."""

    def __init__(
        self,
        config: SyntheticConfig,
        model: BodyModel,
        poses: PoseSource | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Poses are those of the configuration unless others are given; vertices and pictures come to `device`."""
        self.config, self.device = config, torch.device(device)
        self.poses = poses or poses_of(config)
        self.model = BodyModel(model.file).eval().requires_grad_(False)
        self.skin = self.model if self.device.type == "cpu" else copy.deepcopy(self.model).to(self.device)
        self.surface = Surface.of(self.skin)
        self.pictures = Pictures(config.backgrounds) if config.backgrounds else None

    def scene(self, random: np.random.Generator) -> Scene:
        """One scene."""
        return self.scenes([random])[0]

    @torch.no_grad()
    def scenes(self, randoms: Sequence[np.random.Generator]) -> list[Scene]:
        """A scene for each generator; what is the same for all bodies is done at once."""
        casts = [self._cast(random) for random in randoms]
        counts = torch.tensor([len(cast.bodies) for cast in casts])
        shot = stack([cast.shot for cast in casts])
        bodies = joined([cast.bodies for cast in casts])
        params = bodies.params(shot.R_camera_world.repeat_interleave(counts, 0))
        params = replace(params, transl_m=self._places(casts, counts, shot, self.model.joints24(params)))
        skinned = self.skin(params.to(self.device))
        starts = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).tolist()
        slices = [slice(*ends) for ends in pairwise(starts)]
        joints_m = skinned.joints_m.cpu()
        return [
            self._scene(cast, params[rows], skinned.vertices_m[rows], joints_m[rows], random)
            for cast, rows, random in zip(casts, slices, randoms, strict=True)
        ]

    def _cast(self, random: np.random.Generator) -> Cast:
        config = self.config
        shot = shot_of(config, random)
        others = int(random.integers(1, config.others_most + 1)) if random.random() < config.others else 0
        before = tuple(bool(one) for one in random.random(others) < BEFORE)
        near, far = random.uniform(0.6, 0.95, others), random.uniform(0.9, 2.5, others)
        places = random.uniform(0, 1, (others, 2))
        touched = random.integers(len(SMPL24), size=others)
        touching = SMPL24.indices(*random.choice(TOUCHING, size=others)) if others else []
        return Cast(
            shot=shot,
            bodies=self._bodies(1 + others, random),
            before=before,
            ratio=torch.from_numpy(np.where(before, near, far)).float(),
            where=torch.from_numpy(places).float(),
            joints=tuple(zip(touching, touched.tolist(), strict=True)),
        )

    def _bodies(self, count: int, random: np.random.Generator) -> Bodies:
        config, poses = self.config, self.poses(count, random)
        turns = np.zeros((2, count, 3))
        turns[0, :, [0, 2]] = random.normal(0, config.lean_rad, (2, count))
        turns[1, :, 1] = random.uniform(-np.pi, np.pi, count)
        mirror, tumbling = random.random((2, count)) < [[config.mirror], [config.tumble]]
        betas = config.shape_spread * random.standard_normal((count, BETAS))
        betas = betas.clip(-config.shape_most, config.shape_most)
        jitter = config.jitter_rad * random.standard_normal((count, *poses.rotations.shape[1:3]))
        lean, yaw, anyhow, jitter, betas = (
            torch.from_numpy(part).float() for part in (*turns, random.normal(size=(count, 4)), jitter, betas)
        )
        return Bodies(poses, torch.from_numpy(mirror), jitter, lean, yaw, anyhow, torch.from_numpy(tumbling), betas)

    def _places(
        self, casts: Sequence[Cast], counts: Int[Tensor, "n"], shot: Shot, joints_m: Float[Tensor, "b 24 3"]
    ) -> Float[Tensor, "b 3"]:
        """Where everybody goes."""
        first = counts.cumsum(0) - counts
        transl_m = torch.zeros(len(joints_m), 3)
        transl_m[first] = framed(joints_m[first], shot, self.config.nearest_m)
        others = torch.ones(len(joints_m), dtype=torch.bool)
        others[first] = False
        if others.any():
            scene = torch.arange(len(casts)).repeat_interleave(counts - 1)
            person_m = (joints_m[first] + transl_m[first][:, None])[scene]
            transl_m[others] = _around(casts, shot[scene], person_m, joints_m[others], self.config.nearest_m)
        return transl_m

    def _scene(
        self,
        cast: Cast,
        params: BodyParams,
        vertices_m: Float[Tensor, "k V 3"],
        joints_m: Float[Tensor, "k 24 3"],
        random: np.random.Generator,
    ) -> Scene:
        config = self.config
        width, height = (int(side) for side in cast.shot.photo_px)
        camera = replace(cast.shot.camera, width_px=width, height_px=height)
        shown_px = project(joints_m[0], camera).numpy()
        return Scene(
            camera=camera,
            params=params,
            vertices_m=vertices_m,
            joints_m=joints_m,
            look=stack([look_of(config, random) for _ in range(len(vertices_m))]),
            light=light_of(cast.shot.R_camera_world, random),
            sensor=sensor_of(config, random),
            ground=ground_of(self.pictures, config.made_up, (width, height), random),
            things=things_of(config, shown_px, (width, height), self.pictures, random),
        )


def _around(
    casts: Sequence[Cast],
    shot: Shot,
    person_m: Float[Tensor, "o 24 3"],
    joints_m: Float[Tensor, "o 24 3"],
    nearest_m: float,
) -> Float[Tensor, "o 3"]:
    """Where the others go: a joint of theirs before one of the person's, or the pelvis anywhere in the photograph."""
    rows = torch.arange(len(joints_m))
    before = torch.tensor([one for cast in casts for one in cast.before])[:, None]
    own, touched = torch.tensor([pair for cast in casts for pair in cast.joints]).unbind(-1)
    touched_m = person_m[rows, touched]
    spot_px = torch.where(
        before,
        project(touched_m[:, None], shot.camera)[:, 0],
        torch.cat([cast.where for cast in casts]) * shot.photo_px,
    )
    own = torch.where(before[:, 0], own, SMPL24.index("pelvis"))
    target_m = joints_m[rows, own]
    depth_m = touched_m[:, 2] * torch.cat([cast.ratio for cast in casts])
    in_front_m = target_m[:, 2] - joints_m[..., 2].amin(1) + nearest_m
    return seen_at(spot_px, torch.maximum(depth_m, in_front_m), shot.camera) - target_m
