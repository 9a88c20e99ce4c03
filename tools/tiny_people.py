"""Tiny data sets in the official layouts of 3DPW and MPII, from rendered people of whom everything is known.

    python tools/tiny_people.py -o out/tiny --sequences 2 --frames 16 --mpii 32

People are the shipped body in poses that the shipped prior draws (or in those of files), of random shapes, coloured,
one or more in a picture, before backgrounds that are drawn too. The folder is written whole or not at all, and the same
numbers give the same files.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from tiny.mpii import write_mpii
from tiny.people import Cast, Poses, poses_of_files, poses_of_prior
from tiny.threedpw import write_3dpw
from tyro.conf import OmitArgPrefixes

from meshrec.body import load_body_model
from meshrec.errors import MeshrecError
from meshrec.files import whole_folder, write_text
from meshrec.prior_files import DEFAULT_PRIOR

MARK = "tiny.json"
"""Holds the settings; its folder is one that may be written anew."""

OURS = re.compile(rf"3dpw|mpii|{re.escape(MARK)}")

Gender = Literal["n", "m", "f"]


@dataclass(frozen=True)
class TinyConfig:
    """What to make."""

    sequences: int = 2
    """Sequences in 3DPW's layout: train, test, validation in turn."""
    frames: int = 16
    """Images of each."""
    mpii: int = 32
    """Images in MPII's layout."""
    size: tuple[int, int] = (640, 480)
    """Width and height of every image."""
    people: int = 2
    """Most people in an image: one in the first, two in the second, and so on, then from one again."""
    seed: int = 0
    prior: str = DEFAULT_PRIOR
    """Pose prior that poses are drawn from, by name or file."""
    temperature: float = 0.8
    """Multiplies the prior's standard deviations."""
    poses: tuple[Path, ...] = ()
    """Collections or files of motion to take poses from instead."""
    body: str = "neutral"
    """Body to draw, by name or path."""
    genders: tuple[Gender, ...] = ("n",)
    """What 3DPW's files call the people, in turn; whatever it says, the truth is that of `body`."""


@torch.no_grad()
def make(folder: Path, config: TinyConfig, advance: Callable[[], None] = lambda: None) -> Path:
    """Write the data sets; `advance` is called after each image."""
    _check(config)
    cast = Cast(load_body_model(config.body), _poses(config), config.people, config.size, config.seed)
    with whole_folder(folder, MARK, OURS) as made:
        if config.sequences:
            write_3dpw(made / "3dpw", cast, config.sequences, config.frames, config.genders, advance)
        if config.mpii:
            write_mpii(made / "mpii", cast, config.mpii, advance)
        write_text(made / MARK, json.dumps(asdict(config), indent=1, default=str) + "\n")
    return folder


def _poses(config: TinyConfig) -> Poses:
    if config.poses:
        return poses_of_files(config.poses)
    return poses_of_prior(config.prior, config.temperature)


def _check(config: TinyConfig) -> None:
    """Refuse what cannot be drawn."""
    if min(config.sequences, config.mpii) < 0 or not config.sequences + config.mpii:
        raise MeshrecError("Nothing to make: give --sequences or --mpii a number from 1 on.")
    if min(config.frames, config.people) < 1 or config.seed < 0:
        raise MeshrecError("--frames and --people take numbers from 1 on, --seed from 0 on.")
    if not 64 <= min(config.size) <= max(config.size) <= 4096:
        raise MeshrecError(f"--size takes a width and a height from 64 to 4096 pixels, not {config.size}.")
    if not config.genders:
        raise MeshrecError("--genders takes one or more of n, m, f.")
    if not 0 <= config.temperature <= 2:
        raise MeshrecError(f"--temperature takes a number from 0 to 2, not {config.temperature}.")


def command(
    config: OmitArgPrefixes[TinyConfig],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
) -> int:
    """Make tiny data sets in the layouts of 3DPW and MPII.

    Args:
        config: What to make.
        output: Folder for `3dpw` and `mpii`; tiny data sets that were made there before are replaced.
    """
    console = Console(stderr=True)
    began = time.perf_counter()
    with Progress(console=console, transient=True) as progress:
        images = config.sequences * config.frames + config.mpii
        task = progress.add_task("images", total=images)
        make(output, config, lambda: progress.advance(task))
    seconds = time.perf_counter() - began
    console.print(f"{images} images in {output}, {seconds:.1f} s", soft_wrap=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(command, description=__doc__))
    except MeshrecError as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted: nothing was written.")
