"""One photograph from file to folder, its stages, and the memory that it takes."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import skimage.data
import torch

from benchmarks.clock import Figure, medians_s
from benchmarks.descent import DescentBranch, adam
from meshrec.body import load_body_model
from meshrec.branches.fit import FitBranch, FitConfig
from meshrec.detect import build_detector
from meshrec.photo import camera_of, read_photo, write_png
from meshrec.prior_files import DEFAULT_PRIOR, open_prior
from meshrec.recover import Recoverer, recover_one, seen_vertices, write_recovery
from meshrec.render import overlay, side_view

ADAM_STEPS = 150
LAUNCH = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""A small process of its own: the peak of a child counts the memory of the process that it was started from."""


@dataclass(frozen=True)
class Stages:
    """Seconds of each stage of a warm photograph."""

    detect_s: float
    fit_s: float
    overlay_s: float
    files_s: float
    whole_s: float


def photo_warm(repeats: int) -> Figure:
    """Detect, fit, overlay, side view, mesh and numbers, files included; the peer differs in its solver alone."""
    with _photograph() as path:
        ours, peer = _recoverer(), _recoverer(ADAM_STEPS)
        ours_s, peer_s = medians_s(lambda: _recover(ours, path), lambda: _recover(peer, path), repeats=repeats, most=3)
    return Figure(ours_s, "s", peer_s, f"{ADAM_STEPS} steps of torch.optim.Adam")


def detect(repeats: int) -> Figure:
    """Finding the people."""
    return _share(stages(repeats).detect_s, repeats)


def fit(repeats: int) -> Figure:
    """Keypoints to a body."""
    return _share(stages(repeats).fit_s, repeats)


def drawing(repeats: int) -> Figure:
    """The overlay and the side view."""
    return _share(stages(repeats).overlay_s, repeats)


def files(repeats: int) -> Figure:
    """Mesh, pictures and numbers onto the disk."""
    return _share(stages(repeats).files_s, repeats)


def peak_memory(repeats: int) -> Figure:
    """Resident memory of `meshrec recover` at its highest, in a process of its own; once is enough."""
    with _photograph() as path:
        command = [sys.executable, "-m", "meshrec", "recover", str(path), "-o", str(_folder(path))]
        launched = subprocess.run(
            [sys.executable, "-c", LAUNCH, *command], check=True, stdout=subprocess.PIPE, text=True
        )
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return Figure(int(launched.stdout) * unit / 1e6, "MB")


@cache
def stages(repeats: int) -> Stages:
    """Each stage timed by itself; what it takes to write the files is what is left when nothing is drawn."""
    with _photograph() as path, torch.no_grad():
        recoverer, photo = _recoverer(), read_photo(path)
        recovery, model = recoverer(photo), recoverer.model
        camera, body = camera_of(photo), recovery.estimate.body
        assert body is not None
        masks = [seen_vertices(model, person) for person in recovery.people]

        def draw() -> None:
            for vertices_m, mask in zip(body.vertices_m, masks, strict=True):
                overlay(photo.pixels, [vertices_m], model.faces, camera, vertex_seen=[mask])
                side_view(vertices_m, model.faces, mask)

        detect_s, fit_s, draw_s, write_s, whole_s = medians_s(
            lambda: recoverer.detector(photo),
            lambda: recoverer.branch(photo, recovery.people, camera),
            draw,
            lambda: write_recovery(_folder(path), recovery, model),
            lambda: _recover(recoverer, path),
            repeats=repeats,
        )
    return Stages(detect_s, fit_s, draw_s, write_s - draw_s, whole_s)


def _share(stage_s: float, repeats: int) -> Figure:
    whole_s = stages(repeats).whole_s
    return Figure(stage_s, "s", whole_s, "the whole", f"{stage_s / whole_s:.0%} of the whole")


def _recoverer(adam_steps: int = 0) -> Recoverer:
    model, prior, config = load_body_model(), open_prior(DEFAULT_PRIOR), FitConfig()
    branch = DescentBranch(model, prior, config, adam(adam_steps)) if adam_steps else FitBranch(model, prior, config)
    return Recoverer(build_detector(), branch, model)


def _recover(recoverer: Recoverer, photo: Path) -> None:
    outcome = recover_one(recoverer, photo, _folder(photo))
    assert outcome.record is not None, outcome.error


def _folder(photo: Path) -> Path:
    return photo.parent / "recovered"


@contextmanager
def _photograph() -> Iterator[Path]:
    """One person, 512 x 512 pixels."""
    with tempfile.TemporaryDirectory() as folder:
        yield write_png(Path(folder) / "astronaut.png", skimage.data.astronaut())
