"""Does a fit help what a network says of a person, and how far must it be held to that? On synthetic people.

    python tools/mesh_fit_experiment.py train.npz --spreads 0.05 0.1 0.2 0.4

Half of the poses are held-out frames, half samples of the prior; shapes are N(0, 1), fields of view 25 to 75 degrees.
The detector is COCO-17 with noise of 1 to 2 % of the person's size and gaps; of every three people one is seen whole,
one has one or two limbs hidden, of one the picture shows the upper half. The network is the truth with errors: every
bone turned, mostly in depth, and like the bone above it; the whole body tilted; limbs that are hidden worse; betas
halved. By its size, `--setting.wrong-rad`, it has a PA-MPJPE of about 50 mm. What is compared, in means over everybody
or those seen in one way: the network alone, `fit` from starts of its own, and `fit` from the network's body at several
spreads; "inf" is no pull. The 2D error is that of the true places of all 17 joints.
"""

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import roma
import torch
import tyro
from jaxtyping import Bool, Float, Int
from rich.console import Console
from rich.table import Table
from synthetic_fit import VALIDATION, held_out_poses
from torch import Tensor

from meshrec.body import BodyModel, load_body_model
from meshrec.branches.fit import LEAST_SPREAD, FitBranch, FitConfig
from meshrec.camera import camera_from_body_axes, project
from meshrec.config import require_positive
from meshrec.errors import MeshrecError
from meshrec.metrics import mpjpe_mm, pa_mpjpe_mm, pve_mm, root_relative
from meshrec.prior_files import DEFAULT_PRIOR, open_prior
from meshrec.skeletons import COCO17, H36M17, SMPL24
from meshrec.translation import iterated_translation
from meshrec.types import Batched, BodyParams, Camera, Keypoints
from priors.prior import Prior

LEVELS = ("whole", "limbs", "half")
"""How people are seen: every joint; but for one or two limbs; without their legs."""

WIDTH, HEIGHT = 640, 480
TRUNK = ("pelvis", "spine1", "spine2", "spine3", "neck", "left_collar", "right_collar")
LIMBS = (
    ("left_elbow", "left_wrist"),
    ("right_elbow", "right_wrist"),
    ("left_knee", "left_ankle"),
    ("right_knee", "right_ankle"),
)
LEGS = ("left_knee", "right_knee", "left_ankle", "right_ankle")


@dataclass(frozen=True)
class Setting:
    """Who is seen, how well, and how wrong the network is."""

    subjects: tuple[str, ...] = VALIDATION
    people: int = 300
    seed: int = 0
    noise_share: tuple[float, float] = (0.01, 0.02)
    """Standard deviation of keypoints, as a share of the person's size in the picture: each person has one."""
    hidden_share: float = 0.05
    """That of hidden ones."""
    missed: float = 0.05
    """Share of the keypoints that are not found; half of the hidden ones."""
    wrong_rad: float = 0.22
    """Standard deviation of a limb's turn about the axes of the picture; half as much about the line of sight."""
    wrong_root_rad: float = math.radians(10)
    """That of the whole body's tilt."""
    focal_factor: float = 1.0
    """The camera's focal length is said to be so many times the true one, or 1 / so many."""

    def __post_init__(self) -> None:
        require_positive(self, "people", "focal_factor")


@dataclass(frozen=True)
class People(Batched):
    """Synthetic people, what is seen of them, and what the network says."""

    params: BodyParams
    keypoints: Keypoints
    camera: Camera
    """The true one."""
    told: Camera
    start: BodyParams
    level: Int[Tensor, "N"]


@dataclass(frozen=True)
class Score:
    """Mean errors of some people."""

    method: str
    seen: str
    off_px: float
    off_percent: float
    """Of the size of the person in the picture."""
    pa_mpjpe_mm: float
    mpjpe_mm: float
    pve_mm: float
    people_per_second: float | None = None
    """Of the fit."""


def make_people(model: BodyModel, prior: Prior, rotations: Float[Tensor, "N 24 3 3"], setting: Setting) -> People:
    """People in these poses, or in samples of the prior: every other one."""
    random = torch.Generator().manual_seed(setting.seed)
    count = len(rotations)
    sampled = prior.sample(count, generator=random).to(rotations)
    upright = torch.eye(3).expand(count, 1, 3, 3)
    odd = (torch.arange(count) % 2 == 1)[:, None, None, None]
    rotations = torch.where(odd, torch.cat([upright, sampled], dim=1), rotations)
    camera, params = _shot(model, rotations, random)
    level = torch.arange(count) // 2 % len(LEVELS)
    hidden = _hidden(level, random)
    keypoints = _detected(project(model.regressed(params, COCO17), camera), hidden, level, setting, random)
    factor = torch.where(torch.rand(count, generator=random) < 0.5, setting.focal_factor, 1 / setting.focal_factor)
    told = replace(camera, focal_px=camera.focal_px * factor)
    return People(params, keypoints, camera, told, _wrong(params, hidden, setting, random), level)


def _shot(model: BodyModel, rotations: Float[Tensor, "N 24 3 3"], random: torch.Generator) -> tuple[Camera, BodyParams]:
    """A camera for each person, who takes 0.4 to 0.9 of the picture's height and stands somewhere about its middle."""
    count = len(rotations)

    def uniform(low: float, high: float) -> Float[Tensor, "N"]:
        return low + (high - low) * torch.rand(count, generator=random)

    def turn(angle_rad: Float[Tensor, "N"], axis: tuple[float, float, float]) -> Float[Tensor, "N 3 3"]:
        return roma.rotvec_to_rotmat(angle_rad[:, None] * torch.tensor(axis))

    roll = turn(0.1 * torch.randn(count, generator=random), (0.0, 0.0, 1.0))
    pitch = turn(uniform(-0.3, 0.5), (1.0, 0.0, 0.0))
    yaw = turn(uniform(-math.pi, math.pi), (0.0, 1.0, 0.0))
    root = roll @ camera_from_body_axes() @ pitch @ yaw @ rotations[:, 0]
    betas = torch.randn(count, 10, generator=random)
    at_origin = BodyParams(root, rotations[:, 1:], betas, torch.zeros(count, 3))
    joints = model.regressed(at_origin, H36M17)
    middle = (joints.amax(dim=1) + joints.amin(dim=1)) / 2
    size_m = (joints.amax(dim=1) - joints.amin(dim=1))[:, :2].amax(dim=-1)
    focal_px = WIDTH / 2 / torch.tan(torch.deg2rad(uniform(25.0, 75.0)) / 2)
    depth_m = focal_px * size_m / (HEIGHT * uniform(0.4, 0.9))
    across = torch.stack([uniform(-0.25, 0.25) * WIDTH, uniform(-0.1, 0.1) * HEIGHT], dim=-1) / focal_px[:, None]
    transl_m = torch.cat([across, torch.ones(count, 1)], dim=-1) * depth_m[:, None] - middle
    camera = Camera(focal_px, torch.tensor([[WIDTH / 2, HEIGHT / 2]]).repeat(count, 1), WIDTH, HEIGHT, "true")
    return camera, replace(at_origin, transl_m=transl_m)


def _hidden(level: Int[Tensor, "N"], random: torch.Generator) -> Bool[Tensor, "N 24"]:
    """Which joints of SMPL-24 are not to be seen."""
    hidden = torch.zeros(len(level), len(SMPL24), dtype=torch.bool)
    for limb in LIMBS:
        chance = torch.rand(len(level), generator=random) < 0.4
        hidden[:, SMPL24.indices(*limb)] = (chance & (level == LEVELS.index("limbs")))[:, None]
    hidden[:, SMPL24.indices(*LEGS)] |= (level == LEVELS.index("half"))[:, None]
    return hidden


def _detected(
    xy_px: Float[Tensor, "N 17 2"],
    hidden: Bool[Tensor, "N 24"],
    level: Int[Tensor, "N"],
    setting: Setting,
    random: torch.Generator,
) -> Keypoints:
    """True places as a detector reports them: sure and nearly right, doubtful and wrong, or not at all."""
    count = len(xy_px)
    joints = [joint for limb in LIMBS for joint in limb]
    covered = torch.zeros(count, len(COCO17), dtype=torch.bool)
    covered[:, COCO17.indices(*joints)] = hidden[:, SMPL24.indices(*joints)]
    low, high = setting.noise_share
    share = (low + (high - low) * torch.rand(count, 1, generator=random)).expand(-1, len(COCO17))
    noise_px = torch.where(covered, setting.hidden_share, share) * _size_px(xy_px)[:, None]
    chance, sure = torch.rand(2, count, len(COCO17), generator=random)
    confidence = torch.where(covered, 0.1 + 0.5 * sure, 0.7 + 0.3 * sure)
    lost = (chance < torch.where(covered, 0.5, setting.missed)) | (covered & (level == LEVELS.index("half"))[:, None])
    seen_px = xy_px + noise_px[..., None] * torch.randn(xy_px.shape, generator=random)
    return Keypoints(seen_px, torch.where(lost, 0.0, confidence), COCO17)


def _wrong(params: BodyParams, hidden: Bool[Tensor, "N 24"], setting: Setting, random: torch.Generator) -> BodyParams:
    """The truth with a network's errors: the orientation of each bone in the camera's frame is off."""
    spread = torch.full((len(SMPL24),), setting.wrong_rad)
    spread[SMPL24.indices(*TRUNK)] /= 3
    drawn = torch.randn(*hidden.shape, 3, generator=random) * torch.tensor([1.0, 1.0, 0.5])
    tilt = setting.wrong_root_rad / math.sqrt(3) * torch.randn(len(hidden), 1, 3, generator=random)
    world, off = [params.root], [drawn[:, 0]]
    for joint, parent in enumerate(SMPL24.parents[1:], start=1):
        world.append(world[parent] @ params.rotations[:, joint])
        off.append((off[parent] + drawn[:, joint]) / math.sqrt(2))
    turn = tilt + spread[:, None] * torch.stack(off, dim=1) * torch.where(hidden, 1.5, 1.0)[..., None]
    seen = roma.rotvec_to_rotmat(turn) @ torch.stack(world, dim=1)
    below = seen[:, list(SMPL24.parents[1:])].mT @ seen[:, 1:]
    return BodyParams(seen[:, 0], below, params.betas / 2, params.transl_m)


def _size_px(xy_px: Float[Tensor, "N 17 2"]) -> Float[Tensor, "N"]:
    return (xy_px.amax(dim=1) - xy_px.amin(dim=1)).amax(dim=-1)


def placed(model: BodyModel, people: People) -> BodyParams:
    """The network's bodies where their keypoints show them, as the mesh branch does."""
    joints = model.regressed(replace(people.start, transl_m=torch.zeros_like(people.start.transl_m)), COCO17)
    solved = iterated_translation(joints, people.keypoints.xy_px, people.keypoints.confidence, people.told)
    return replace(people.start, transl_m=solved.transl_m)


def scores(
    method: str, model: BodyModel, people: People, found: BodyParams, people_per_second: float | None = None
) -> list[Score]:
    """The errors of everybody, and of those who are seen in each way."""
    true_px = project(model.regressed(people.params, COCO17), people.camera)
    off_px = (project(model.regressed(found, COCO17), people.told) - true_px).norm(dim=-1).mean(dim=-1)
    joints, truth = (root_relative(model.regressed(each, H36M17), H36M17) for each in (found, people.params))
    vertices, true_vertices = (
        model(each).vertices_m - model.regressed(each, H36M17)[:, :1] for each in (found, people.params)
    )
    columns = torch.stack(
        [
            off_px,
            100 * off_px / _size_px(true_px),
            pa_mpjpe_mm(joints, truth),
            mpjpe_mm(joints, truth),
            pve_mm(vertices, true_vertices),
        ]
    )
    ways = {"all": torch.ones_like(people.level) > 0} | {way: people.level == n for n, way in enumerate(LEVELS)}
    return [
        Score(method, way, *columns[:, rows].mean(dim=1).tolist(), people_per_second=people_per_second)
        for way, rows in ways.items()
    ]


def compared(
    model: BodyModel, prior: Prior | None, people: People, fit: FitConfig, spreads: Sequence[float]
) -> list[Score]:
    """The network alone, `fit` alone, and `fit` from the network's body at each spread."""
    found = [
        *scores("network", model, people, placed(model, people)),
        *_fitted("fit", model, prior, people, fit),
    ]
    for spread_rad in spreads:
        config = replace(fit, start_spread_rad=spread_rad)
        if math.isinf(spread_rad):
            config = replace(config, start_root_spread_rad=math.inf, start_betas_spread=math.inf)
        found += _fitted(f"network + fit, {spread_rad:g} rad", model, prior, people, config, people.start)
    return found


def _fitted(
    method: str, model: BodyModel, prior: Prior | None, people: People, fit: FitConfig, start: BodyParams | None = None
) -> list[Score]:
    began = time.perf_counter()
    params = FitBranch(model, prior, fit).fit(people.keypoints, people.told, start=start).params
    assert params is not None
    return scores(method, model, people, params, len(people.level) / (time.perf_counter() - began))


def main(
    poses: tyro.conf.Positional[list[Path]],
    /,
    setting: Setting = Setting(),
    spreads: tuple[float, ...] = (0.04, 0.08, 0.16, math.inf),
    prior: str = DEFAULT_PRIOR,
    body: str = "neutral",
    fit: FitConfig = FitConfig(),  # noqa: B008
    json: bool = False,
) -> None:
    """Compare a network with errors, a fit, and a fit that goes on from the network's body, on synthetic people.

    Args:
        poses: Collections or motion files of any kind that is read.
        setting: Who is seen, how well, and how wrong the network is.
        spreads: How far the network's joints are taken to be off, radians: one row each.
        prior: Pose prior: a name or a file.
        body: Body model: a name or a file.
        fit: Settings of the fit.
        json: Print JSON in place of a table.
    """
    torch.set_grad_enabled(False)
    if not all(spread_rad >= LEAST_SPREAD for spread_rad in spreads):
        raise MeshrecError(f"Spreads are from {LEAST_SPREAD} rad on; --spreads has {min(spreads)}.")
    model, pose_prior = load_body_model(body), open_prior(prior)
    if pose_prior is None:
        raise MeshrecError("Half of the people are samples of the prior, so there must be one: name it with --prior.")
    rotations = held_out_poses(poses, setting.subjects, setting.people)
    people = make_people(model, pose_prior, rotations, setting)
    _tell(compared(model, pose_prior, people, fit, spreads), f"{setting.people} synthetic people", as_json=json)


def _tell(found: Sequence[Score], title: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(score) for score in found], indent=1))
        return
    table = Table(*asdict(found[0]), title=title)
    for score in found:
        method, seen, *numbers = asdict(score).values()
        table.add_row(method, seen, *("-" if number is None else f"{number:.3g}" for number in numbers))
    Console().print(table)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except MeshrecError as error:
        sys.exit(f"{error}")
