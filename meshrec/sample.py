"""Bodies drawn from a pose prior: a picture of them, and a file of their poses."""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import roma
import torch
import tyro
from jaxtyping import Float, UInt8
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import Tensor

from meshrec.body import BodyModel, load_body_model
from meshrec.camera import camera_from_body_axes
from meshrec.errors import MeshrecError
from meshrec.files import write_whole
from meshrec.photo import write_png
from meshrec.prior_files import DEFAULT_PRIOR, open_prior
from meshrec.randomness import generator_of, sequence_of
from meshrec.render import Studio, body_sheet
from meshrec.sheet import grid
from meshrec.types import BodyParams
from priors.prior import Prior

MOST_DRAWN = 144
"""Bodies that a sheet has room for."""

LARGEST = 100.0
"""Temperatures and spreads beyond it leave nothing of a body."""

MANY = 1000
"""From so many poses on, progress is shown."""

WHITE = (1.0, 1.0, 1.0)

STUDIO = Studio(width_px=200, height_px=280, margin=1.25, top=WHITE, bottom=WHITE)

VIEWS_RAD = (0.0, math.radians(-40))
"""From the front, and turned so that depth shows."""


def draws(prior: Prior, temperature: float = 1.0, seed: int = 0) -> Iterator[Float[Tensor, "23 3 3"]]:
    """Poses without end: those of one seed are always the same, so the first k do not depend on how many are taken."""
    number = int(sequence_of(seed, "sampled poses").generate_state(1, np.uint64)[0])
    random = torch.Generator().manual_seed(number)
    while True:
        yield prior.sample(1, temperature, random)[0]


def standing(pose: Float[Tensor, "N 23 3 3"], betas: int = 0, spread: float = 0.0, seed: int = 0) -> BodyParams:
    """Bodies at the origin that face +z, y up; shapes from N(0, spread^2 I), the first k the same for every N."""
    shapes = spread * generator_of(seed, "sampled shapes").standard_normal((len(pose), betas))
    root = torch.eye(3).to(pose).expand(len(pose), 3, 3)
    return BodyParams(root, pose, torch.from_numpy(shapes).to(pose), pose.new_zeros(len(pose), 3))


def write_poses(path: Path, params: BodyParams) -> Path:
    """Write bodies that stand upright, y up, as `read_poses` reads them: `poses` (axis-angle), `trans` and `betas`."""
    arrays = {
        "poses": roma.rotmat_to_rotvec(params.rotations.double()).flatten(-2),
        "trans": params.transl_m.double(),
        "betas": params.betas.double(),
    }
    arrays = {name: tensor.cpu().numpy() for name, tensor in arrays.items()}
    return write_whole(path, lambda neighbour: np.savez_compressed(neighbour, allow_pickle=False, **arrays))


def sheet(model: BodyModel, params: BodyParams) -> UInt8[np.ndarray, "H W 3"]:
    """Bodies with y up, each on its own ground, at one scale, from the front and turned."""
    vertices_m = model(params.to(torch.float32)).vertices_m @ camera_from_body_axes().T
    views = body_sheet(list(vertices_m), model.faces, VIEWS_RAD, STUDIO)
    return grid(np.split(views, len(vertices_m)))


def command(
    prior: str = DEFAULT_PRIOR,
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("sheet.png"),
    temperature: float = 1.0,
    seed: int = 0,
    body: str = "neutral",
    shape_spread: float = 0.0,
    poses: Path | None = None,
) -> int:
    """Draw bodies from a pose prior, as a picture: each from the front and turned.

    The same prior, seed and temperature give the same bodies, and a larger number gives the same ones first.

    Args:
        prior: Pose prior: a name or a file.
        count: How many bodies.
        output: The picture, a PNG.
        temperature: Multiplies the prior's standard deviations; 0 gives its most usual poses alone.
        seed: Another number gives other bodies.
        body: Body to pose, by name or path.
        shape_spread: Standard deviation of the shape numbers; 0 gives every body the mean shape.
        poses: Also write the poses to this .npz, which `meshrec export` and `meshrec score` read.
    """
    _check(count, temperature, seed, shape_spread, output, poses)
    console = Console(stderr=True)
    opened = open_prior(prior)
    if opened is None:
        raise MeshrecError("No prior, no bodies: name a prior with --prior, or give its file.")
    model = load_body_model(body)
    with torch.no_grad():
        pose = _drawn(opened, count, temperature, seed, console)
        if not pose.isfinite().all():
            raise MeshrecError(f"At --temperature {temperature} {prior} draws poses beyond numbers: lower it.")
        params = standing(pose, model.num_betas, shape_spread, seed)
        written = [write_png(output, sheet(model, params[:MOST_DRAWN]))]
        plausible = float(opened.score(pose).median())
    if poses is not None:
        written.append(write_poses(poses, params))
    shown = f" (the first {MOST_DRAWN} of them)" if count > MOST_DRAWN else ""
    told = f"seed {seed}, median plausibility {plausible:.0%}; wrote {' and '.join(map(str, written))}{shown}"
    console.print(escape(f"{count} bodies from {prior}, {told}"), soft_wrap=True)
    return 0


def _drawn(prior: Prior, count: int, temperature: float, seed: int, console: Console) -> Float[Tensor, "N 23 3 3"]:
    """The first poses of a seed, with a progress bar where they are many."""
    shown = console.is_terminal and count >= MANY
    with Progress(console=console, transient=True, disable=not shown) as progress:
        drawn = islice(draws(prior, temperature, seed), count)
        return torch.stack(list(progress.track(drawn, total=count, description="poses")))


def _check(count: int, temperature: float, seed: int, spread: float, output: Path, poses: Path | None) -> None:
    """Refuse what cannot be drawn before anything is."""
    if count < 1:
        raise MeshrecError(f"-n takes a number of bodies from 1 on, not {count}.")
    if not 0 <= temperature <= LARGEST:
        raise MeshrecError(f"--temperature takes a number from 0 to {LARGEST:g}, not {temperature}.")
    if seed < 0:
        raise MeshrecError(f"--seed takes a whole number from 0 on, not {seed}.")
    if not 0 <= spread <= LARGEST:
        raise MeshrecError(f"--shape-spread takes a number from 0 to {LARGEST:g}, not {spread}.")
    if output.suffix.lower() != ".png":
        raise MeshrecError(f"The picture is a PNG, and {output} does not end in .png: choose another -o FILE.png.")
    if poses is not None and poses.suffix.lower() != ".npz":
        raise MeshrecError(f"Poses are written as .npz, and {poses} does not end in .npz: choose another --poses FILE.")
