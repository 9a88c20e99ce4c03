"""How plausible the poses of a file are to a prior, which are the least so, and which joints make them that."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import roma
import torch
import tyro
from jaxtyping import Bool, Float, UInt8
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from meshrec.arrays import read_arrays
from meshrec.body import BodyModel, load_body_model
from meshrec.camera import camera_from_body_axes
from meshrec.errors import MeshrecError
from meshrec.photo import write_png
from meshrec.pose_files import FRAME_RATES, Poses, read_poses_with_gaps
from meshrec.prior_files import DEFAULT_PRIOR, open_prior
from meshrec.render import Color, Studio, studio_view, turn
from meshrec.sheet import captioned, grid
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams
from priors.blame import blame, foretold_gains
from priors.prior import Prior

Ranking = Literal["pose", "joint"]
"""What makes a frame the worst: the energy of the whole pose, or the largest gain of a single joint."""

JOINTS = SMPL24.joints[1:]
"""The joints that a prior judges: all but the pelvis."""

BLAMED = 3
"""How many joints of a frame are looked for."""

NOTABLE_NATS = 4.0
"""Joints that gain less are not named. Of a Gaussian's own samples a joint gains 1.5 nats, and 1 in 20 more than 4."""

APART_S = 0.5
"""Frames of a motion that are nearer than this to a worse one are not listed."""

RATES = (*FRAME_RATES, "fps")
"""What files call their frame rate."""

FRAMES_AT_ONCE = 1024
FRAMES_BLAMED_AT_ONCE = 32

MANY = 20_000
"""From so many frames on, progress is shown."""

MOST_DRAWN = 48
"""Bodies that a picture has room for."""

INDICES_TOLD = 10

PAGE_WIDTH = 120
"""Columns of the table where it is not printed to a terminal."""

TINT: Color = (0.90, 0.33, 0.25)

WHITE = (1.0, 1.0, 1.0)

STUDIO = Studio(width_px=180, height_px=260, color=TINT, margin=1.25, top=WHITE, bottom=WHITE)

VIEWS_RAD = (0.0, math.pi / 2)
"""From the front and from the side."""


class Judgement(NamedTuple):
    """What a prior says of poses."""

    energy_nats: Float[Tensor, "*batch"]
    score: Float[Tensor, "*batch"]
    """The share of real poses that are less likely."""
    badness_nats: Float[Tensor, "*batch"]
    """What frames are ranked by."""


@dataclass(frozen=True)
class Suspect:
    """One of the least plausible frames of a file."""

    frame: int
    """From 0."""
    name: str
    score: float
    energy_nats: float
    badness_nats: float
    blamed_nats: dict[str, float]
    """The joints to blame, worst first, and what turning each to its best rotation gains after those before it."""
    alone_nats: dict[str, float]
    """What turning each of the 23 joints alone to its best rotation gains."""
    upright: Float[Tensor, "24 3 3"]
    """The pose, y up, facing +z."""

    @property
    def notable(self) -> dict[str, float]:
        """The blamed joints that are worth naming."""
        return {joint: gain for joint, gain in self.blamed_nats.items() if gain >= NOTABLE_NATS}

    @property
    def striking(self) -> list[str]:
        """Those worth pointing at: beside one that gains ten times as much, none is."""
        return [joint for joint, gain in self.notable.items() if 10 * gain >= max(self.notable.values())]


@dataclass(frozen=True)
class Report:
    """What a prior says of one file."""

    file: Path
    frames: int
    broken: tuple[int, ...]
    """Frames with numbers that are not finite, or too large to be computed with, which are not judged."""
    median_score: float
    apart: int
    """Frames nearer than this to a worse one are left out."""
    suspects: tuple[Suspect, ...]


def judge(prior: Prior, pose: Float[Tensor, "*batch 23 3 3"], by: Ranking = "pose") -> Judgement:
    """Energy and score of poses, and what they are ranked by."""
    energy = prior.energy(pose)
    badness = energy if by == "pose" else foretold_gains(prior, pose).amax(dim=-1)
    return Judgement(energy, prior.score(pose), badness.nan_to_num(nan=math.inf, posinf=math.inf))


def worst_apart(badness: Float[np.ndarray, "N"], count: int, apart: int) -> list[int]:
    """The `count` worst frames, worst first, of which no two are less than `apart` frames apart; -inf is no frame."""
    free = badness > -math.inf
    chosen: list[int] = []
    for frame in np.argsort(-badness, kind="stable").tolist():
        if len(chosen) == count:
            break
        if free[frame]:
            chosen.append(frame)
            free[max(0, frame - apart + 1) : frame + apart] = False
    return chosen


def facing(rotations: Float[Tensor, "*batch 24 3 3"], upright: Float[Tensor, "3 3"]) -> Float[Tensor, "*batch 24 3 3"]:
    """The pose with y up, turned about it so that its pelvis faces +z; lying bodies stay lying."""
    root = upright @ rotations[..., 0, :, :]
    front = root[..., 2]
    yaw = torch.atan2(front[..., 0], front[..., 2])
    back = roma.rotvec_to_rotmat(yaw[..., None] * -yaw.new_tensor([0.0, 1.0, 0.0]))
    return torch.cat([(back @ root)[..., None, :, :], rotations[..., 1:, :, :]], dim=-3)


def score_file(
    path: Path, prior: Prior, count: int, apart: int | None = None, by: Ranking = "pose", console: Console | None = None
) -> Report:
    """Judge every frame of a file whose numbers are finite, and find what is wrong with the worst ones."""
    poses = read_poses_with_gaps(path)
    apart = _frames_apart(path, apart) if poses.motion else 1
    whole = poses.finite
    if not whole.any():
        raise MeshrecError(f"{path} has no frame whose numbers are finite and of sensible size: nothing to judge.")
    judgement = _judged(prior, poses.params.pose, whole, by, console or Console(stderr=True))
    frames = worst_apart(judgement.badness_nats.numpy(), count, apart)
    chunks = (frames[start : start + FRAMES_BLAMED_AT_ONCE] for start in range(0, len(frames), FRAMES_BLAMED_AT_ONCE))
    suspects = tuple(suspect for some in chunks for suspect in _suspects(prior, poses, judgement, some))
    broken = tuple((~whole).nonzero()[:, 0].tolist())
    return Report(path, len(whole), broken, float(judgement.score[whole].median()), apart, suspects)


def _frames_apart(path: Path, asked: int | None) -> int:
    """Half a second of a motion that says how fast it is; frames of what says nothing may have nothing in common."""
    if asked is not None:
        return asked
    rates = list(read_arrays(path, RATES).values())
    if not rates:
        return 1
    rate = float(rates[0].reshape(-1)[0]) if rates[0].size == 1 and rates[0].dtype.kind in "iuf" else math.nan
    if not 0 < rate < math.inf:
        raise MeshrecError(f"{path} has a frame rate that is not one number above 0: say --apart FRAMES.")
    return max(1, round(APART_S * rate))


@torch.no_grad()
def _judged(
    prior: Prior, pose: Float[Tensor, "N 23 3 3"], whole: Bool[Tensor, "N"], by: Ranking, console: Console
) -> Judgement:
    """A few frames at a time, with a progress bar where there are many; frames that are not whole are no frames."""
    shown = console.is_terminal and len(pose) >= MANY
    with Progress(console=console, transient=True, disable=not shown) as progress:
        chunks = pose[whole].split(FRAMES_AT_ONCE)
        parts = [judge(prior, chunk, by) for chunk in progress.track(chunks, description="frames")]
    gap = torch.full((len(pose),), -math.inf)
    return Judgement(*(gap.masked_scatter(whole, torch.cat(column)) for column in zip(*parts, strict=True)))


@torch.no_grad()
def _suspects(prior: Prior, poses: Poses, judgement: Judgement, frames: list[int]) -> list[Suspect]:
    """What there is to know of some frames."""
    rotations = poses.params.rotations[frames]
    blamed = blame(prior, rotations[:, 1:].double(), BLAMED)
    upright = facing(rotations, poses.upright)
    suspects = []
    for row, frame in enumerate(frames):
        energy_nats, score, badness_nats = (float(values[frame]) for values in judgement)
        named = [JOINTS[joint] for joint in blamed.joints[row].tolist()]
        suspects.append(
            Suspect(
                frame=frame,
                name=poses.names[frame],
                score=score,
                energy_nats=energy_nats,
                badness_nats=badness_nats,
                blamed_nats=dict(zip(named, blamed.gain[row].tolist(), strict=True)),
                alone_nats=dict(zip(JOINTS, blamed.alone[row].tolist(), strict=True)),
                upright=upright[row],
            )
        )
    return suspects


def picture(model: BodyModel, suspects: Sequence[Suspect]) -> UInt8[np.ndarray, "H W 3"]:
    """Each frame from the front and from the side, on the mean shape, the parts of its blamed joints tinted."""
    rotations = torch.stack([suspect.upright for suspect in suspects])
    params = BodyParams.from_rotations(rotations, torch.zeros(len(rotations), 1), torch.zeros(len(rotations), 3))
    bodies = model(params).vertices_m @ camera_from_body_axes().T
    return grid([captioned(_views(model, *pair), _caption(pair[1])) for pair in zip(bodies, suspects, strict=True)])


def _views(model: BodyModel, body: Float[Tensor, "V 3"], suspect: Suspect) -> UInt8[np.ndarray, "h w 3"]:
    """All views at one scale."""
    blamed = torch.tensor(SMPL24.indices(*suspect.striking), dtype=model.parts.dtype)
    width, height, _ = torch.stack([turn(body, view).amax(0) for view in VIEWS_RAD]).amax(0).mul(2).tolist()
    studio = replace(STUDIO, extent_m=max(height, width * STUDIO.height_px / STUDIO.width_px))
    tinted = torch.isin(model.parts, blamed)
    return np.concatenate([studio_view(body, model.faces, view, tinted, studio) for view in VIEWS_RAD], axis=1)


def _caption(suspect: Suspect) -> tuple[str, str]:
    return f"{suspect.name}: {suspect.score:.1%}", _told(suspect.notable) or "no joint alone"


def _told(gains: dict[str, float]) -> str:
    return ", ".join(f"{joint.replace('_', ' ')} {gain:.0f}" for joint, gain in gains.items())


def command(
    inputs: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")]],
    prior: str = DEFAULT_PRIOR,
    worst: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 8,
    by: Ranking = "pose",
    apart: int | None = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = Path("worst.png"),
    body: str = "neutral",
    json: bool = False,
) -> int:
    """List the least plausible frames of pose files and of results, with a picture of the worst of all.

    A frame's score is the share of real poses that are less likely: near 100 % for usual poses, 0 % for no human one.
    The joints to blame stand beside it, with what turning each to its best place would bring, in nats: 1.5 is usual,
    over 8 is rare. Which way the body faces, where it is and its shape are not judged. Frames whose numbers are not
    finite are named and left out. A file that cannot be read is reported, and the others are judged all the same.

    Args:
        inputs: .npz files of poses (AMASS's layout, or poses, trans and betas), or result.json of `meshrec recover`.
        prior: Pose prior: a name or a file.
        worst: How many frames to list of each file, and how many to draw.
        by: Rank frames by the whole pose, or by the worst joint alone: a broken knee hides in a usual pose.
        apart: Of frames of a motion that are nearer to each other than this, list the worst alone; by default half a
            second where a file tells its frame rate, else 1: every frame counts.
        output: The picture, a PNG; None for no picture.
        body: Body to draw, by name or path.
        json: Print everything as JSON on standard output.
    """
    _check(inputs, worst, apart, output)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else PAGE_WIDTH)
    opened = open_prior(prior)
    if opened is None:
        raise MeshrecError("Without a prior nothing can be judged: name one with --prior, or give its file.")
    model = load_body_model(body) if output else None
    reports: list[Report] = []
    failures: list[tuple[Path, str]] = []
    for path in inputs:
        try:
            reports.append(score_file(path, opened, worst, apart, by, console))
        except MeshrecError as error:
            failures.append((path, str(error)))
            console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
            continue
        _tell(reports[-1], console)
    drawn = sorted((s for report in reports for s in report.suspects), key=lambda s: -s.badness_nats)
    drawn = drawn[: min(worst, MOST_DRAWN)]
    if json:
        _print_json(prior, by, reports, failures, output if drawn else None)
    if output and model and drawn:
        with torch.no_grad():
            write_png(output, picture(model, drawn))
        console.print(escape(f"wrote {output}, the worst {len(drawn)}"), soft_wrap=True)
    return 1 if failures else 0


def _check(inputs: Sequence[Path], worst: int, apart: int | None, output: Path | None) -> None:
    """Refuse what makes no sense before anything is read."""
    if not inputs:
        raise MeshrecError("Nothing to judge: name an .npz of poses or a result.json of `meshrec recover`.")
    if worst < 1:
        raise MeshrecError(f"-n takes a number of frames from 1 on, not {worst}.")
    if apart is not None and apart < 1:
        raise MeshrecError(f"--apart takes a number of frames from 1 on (1: every frame counts), not {apart}.")
    if output is not None and output.suffix.lower() != ".png":
        raise MeshrecError(f"The picture is a PNG, and {output} does not end in .png: choose another -o FILE.png.")


def _tell(report: Report, console: Console) -> None:
    """A table of the worst frames, and what was left out."""
    judged = report.frames - len(report.broken)
    summary = f"{report.file}: {judged} frames, median plausibility {report.median_score:.0%}"
    console.print(escape(summary), soft_wrap=True)
    table = Table("rank", "frame", "plausible", "energy", "joints to blame (nats)")
    for rank, suspect in enumerate(report.suspects, start=1):
        joints = _told(suspect.notable) or "none alone"
        table.add_row(str(rank), suspect.name, f"{suspect.score:.1%}", f"{suspect.energy_nats:.0f}", joints)
    console.print(table)
    if broken := report.broken:
        more = f" and {len(broken) - INDICES_TOLD} more" if len(broken) > INDICES_TOLD else ""
        which = ", ".join(map(str, broken[:INDICES_TOLD]))
        told = f"{report.file}: left out, as their numbers are not finite or too large: frames {which}{more} (from 0)"
        console.print(f"[yellow]{escape(told)}[/yellow]", soft_wrap=True)


def _print_json(
    prior: str,
    by: Ranking,
    reports: Sequence[Report],
    failures: Sequence[tuple[Path, str]],
    drawn: Path | None,
) -> None:
    """Everything on standard output."""
    record = {
        "prior": prior,
        "by": by,
        "picture": None if drawn is None else str(drawn),
        "results": [_report_record(report) for report in reports],
        "failed": [{"file": str(path), "error": error} for path, error in failures],
    }
    sys.stdout.write(json.dumps(record, indent=1, allow_nan=False) + "\n")


def _report_record(report: Report) -> dict[str, Any]:
    return {
        "file": str(report.file),
        "frames": report.frames,
        "frames_not_finite": list(report.broken),
        "median_score": _plain(report.median_score),
        "apart_frames": report.apart,
        "worst": [_suspect_record(rank, suspect) for rank, suspect in enumerate(report.suspects, start=1)],
    }


def _suspect_record(rank: int, suspect: Suspect) -> dict[str, Any]:
    return {
        "rank": rank,
        "frame": suspect.frame,
        "name": suspect.name,
        "score": _plain(suspect.score),
        "energy_nats": _plain(suspect.energy_nats),
        "blamed": [{"joint": joint, "gain_nats": _plain(gain)} for joint, gain in suspect.blamed_nats.items()],
        "gain_alone_nats": {joint: _plain(gain) for joint, gain in suspect.alone_nats.items()},
    }


def _plain(number: float) -> float | None:
    """Seven digits; null for what JSON has no number for."""
    return float(f"{number:.7g}") if math.isfinite(number) else None
