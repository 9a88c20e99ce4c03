"""The benchmark: 1,000 synthetic people, always the same, at stated levels of occlusion and truncation.

Half of their poses are samples of the prior that ships, half are key poses that nobody learns from, blended and shaken;
or all are frames of motion. Shapes are N(0, 1.25^2) clipped at 3, fields of view 25 to 75 degrees, grounds and clothes
made up. Of COCO's 17 joints, truncation is the share that lies beyond the photograph's border, and occlusion the share
of the others that another body or a thing hides; levels are none, up to a third, and up to two thirds. A person's
sequence tells of both, and of the poses: "poses_prior/occlusion_2/truncation_0".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from meshrec.arrays import read_array
from meshrec.body import BodyModel
from meshrec.data.detector_errors import DetectorErrors
from meshrec.data.key_poses import key_poses
from meshrec.data.poses import open_poses
from meshrec.data.record_writer import NewRecord
from meshrec.data.records import Records
from meshrec.data.synthetic.photograph import Sitter, sitters
from meshrec.data.synthetic.poses import HZ, KeyPoseSource, MotionPoses, PoseSource, PriorPoses
from meshrec.data.synthetic.scene import Scene, Synthesizer
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.data.synthetic.stored import new_records
from meshrec.errors import MeshrecError
from meshrec.prior_files import DEFAULT_PRIOR, open_prior
from meshrec.randomness import generator_of

PEOPLE = 1000

SEED, STREAM = 0, "benchmark"
"""Of chance: a stream that nobody is trained with."""

TRIES = 4
"""So many scenes are made at once, and the first that has the levels of its place is taken."""

MOST_TRIES = 512

LEAST_SHOWN = 4
"""COCO's joints that are left of anybody."""

OF_TWENTY = ((8, 2, 1), (3, 1, 1), (2, 1, 1))
"""How many of twenty people have each level of occlusion (a row) and of truncation (a column)."""

PLACES = tuple(
    (occlusion, truncation)
    for turn in range(max(map(max, OF_TWENTY)))
    for occlusion, row in enumerate(OF_TWENTY)
    for truncation, count in enumerate(row)
    if turn < count
)
"""The levels that people have, one after another."""

SETTINGS = SyntheticConfig(
    photo_px=(1280, 960),
    jitter_rad=0.0,
    lean_rad=0.1,
    tumble=0.02,
    size=(0.45, 0.95),
    anyhow=0.05,
    occluders_most=2,
)
"""Of everybody; chance and size of what hides, and of a photograph of a part, are those of the level."""

OCCLUDED = (
    {"occlude": 0.0, "others": 0.3},
    {"occlude": 0.9, "others": 0.4, "occluder_size": (0.08, 0.4)},
    {"occlude": 1.0, "others": 0.4, "occluder_size": (0.3, 0.9)},
)
TRUNCATED = (
    {"close": 0.0},
    {"close": 1.0, "close_size": (0.85, 1.5)},
    {"close": 1.0, "close_size": (1.2, 2.2)},
)

ERRORS = DetectorErrors()
"""Of the joints that every branch is given."""

SUMS = Path(__file__).parents[2] / "poses" / "benchmark.npy"
"""The sums of the benchmark as it ships, person by person: see `sums_of`."""

TOLERANCE = (2e-3, 2e-3, 0.5, 0.05)
"""How far a person's sums may be off and still be the same person's, by other processors' rounding."""


@dataclass(frozen=True, eq=False)
class Half:
    """One kind of poses."""

    name: str
    source: PoseSource


def shipped_halves() -> tuple[Half, ...]:
    """Of the benchmark that ships."""
    prior = open_prior(DEFAULT_PRIOR)
    assert prior is not None
    measuring, _ = key_poses().split()
    return Half("prior", PriorPoses(prior)), Half("key", KeyPoseSource(measuring))


def motion_halves(paths: Sequence[Path], subjects: Sequence[str] = ()) -> tuple[Half, ...]:
    """Frames of motion alone, of these people or of all."""
    collection = open_poses(paths, HZ)
    collection.rows(subjects or None)
    others = tuple(sorted(set(collection.subjects) - set(subjects))) if subjects else ()
    return (Half("motion", MotionPoses(collection, others)),)


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Makes its people, each a function of their number alone."""

    halves: tuple[Half, ...]
    model: BodyModel

    def __str__(self) -> str:
        return f"meshrec synthesize --benchmark: poses of {' and '.join(half.name for half in self.halves)}"

    @cached_property
    def synthesizers(self) -> dict[tuple[str, tuple[int, int]], Synthesizer]:
        """What makes scenes of each half, and of each of `PLACES`."""
        return {
            (half.name, place): Synthesizer(settings_of(*place), self.model, half.source)
            for half in self.halves
            for place in dict.fromkeys(PLACES)
        }

    def half(self, number: int) -> Half:
        """A person's."""
        return self.halves[number % len(self.halves)]

    def levels(self, number: int) -> tuple[int, int]:
        """A person's levels of occlusion and truncation."""
        return PLACES[number // len(self.halves) % len(PLACES)]

    @torch.no_grad()
    def scene(self, number: int) -> tuple[Scene, Sitter]:
        """A person, and the photograph that they are in."""
        synthesizer = self.synthesizers[self.half(number).name, self.levels(number)]
        for start in range(0, MOST_TRIES, TRIES):
            tries = range(start, start + TRIES)
            scenes = synthesizer.scenes([generator_of(SEED, STREAM, number, each) for each in tries])
            for scene, people in zip(scenes, sitters(scenes, synthesizer), strict=True):
                if people[0].levels == self.levels(number) and people[0].shown >= LEAST_SHOWN:
                    return scene, people[0]
        raise MeshrecError(
            f"None of {MOST_TRIES} scenes has the levels {self.levels(number)} of occlusion and truncation that person "
            f"{number} of the benchmark has: give more motion with --poses."
        )

    def record(self, number: int) -> NewRecord:
        """A person as a record."""
        scene, person = self.scene(number)
        random = generator_of(SEED, f"{STREAM} detector", number)
        surface = self.synthesizers[self.half(number).name, self.levels(number)].surface
        record = new_records([scene], [person], surface, ERRORS, [random])[0]
        sequence = f"poses_{self.half(number).name}/{person.sequence}"
        return replace(record, sequence=sequence, frame=number, source=f"benchmark_{number:04d}.jpg")


def settings_of(occlusion: int, truncation: int) -> SyntheticConfig:
    """Of scenes among which there are some of these levels."""
    return replace(SETTINGS, **OCCLUDED[occlusion], **TRUNCATED[truncation])


def sums_of(records: Records) -> Float[np.ndarray, "N 4"]:
    """Of each person: SMPL's pose (rad), shape and place (m), keypoints (px) and cameras, added up with random signs.

    They tell people apart, and hardly change where another processor rounds differently.
    """
    keypoints = records.column("keypoints")
    found = np.where(keypoints[..., 2:] > 0, keypoints[..., :2], 0.0)
    parts = (
        (records.column("pose_axis_angle"), records.column("transl_m")),
        (records.column("betas"),),
        (found,),
        (records.column("focal_px"), records.column("box_xyxy_px")),
    )
    rows = (np.concatenate([part.reshape(len(records), -1) for part in some], axis=1) for some in parts)
    return np.stack([row.astype(np.float64) @ _signs(place, row.shape[1]) for place, row in enumerate(rows)], axis=1)


def _signs(place: int, count: int) -> Float[np.ndarray, "D"]:
    return generator_of(SEED, f"{STREAM} signs", place).choice([-1.0, 1.0], count)


def as_shipped(records: Records) -> Bool[np.ndarray, "N"]:
    """Which of the people are those that ship, one by one from the first."""
    known = read_array(SUMS)[: len(records)]
    off = np.abs(sums_of(records)[: len(known)] - known)
    same = np.zeros(len(records), bool)
    same[: len(known)] = np.all(off <= TOLERANCE, axis=1)
    return same
