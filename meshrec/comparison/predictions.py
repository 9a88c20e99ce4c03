"""Another system's answers from a file, compared like any branch.

A file is an `.npz` of plain arrays about P people, in metres and the axes of the camera (x right, y down, z forward):

| array | shape | |
|---|---|---|
| joints17_m | P, 17, 3 | joints in the order of H36M-17 (`meshrec.skeletons`), about any point |
| vertices_m | P, V, 3 | instead of the joints or beside them: the skin, V as many as the body of `--body` has |
| root_m | P, 3 | optional: where the pelvis stands before the camera; unknown without it |
| person | P | optional: whom each row is of, counted from 0 through the records of `--data` one after another |

Without `person` there is a row for each of these people, in their order. Rows that are not finite, and people who have
no row, have no answer. Joints and skin may stand anywhere: both are taken about their own pelvis.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshrec.arrays import read_arrays
from meshrec.body import BodyModel
from meshrec.comparison.contestants import Said
from meshrec.comparison.figures import Found
from meshrec.comparison.people import Few
from meshrec.errors import MeshrecError
from meshrec.skeletons import H36M17

JOINTS, VERTICES, ROOT, PERSON = "joints17_m", "vertices_m", "root_m", "person"

PERSON_M = (0.2, 5.0)
"""The joints of a person reach so far, in metres."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """Answers by the numbers of the people."""

    name: str
    answers: Found
    """One row a prediction."""
    rows: Int[np.ndarray, "people"]
    """Of each person of the data; -1: none."""
    asks: bool = False

    def about(self, few: Few) -> Said:
        """The rows of some people."""
        rows = torch.from_numpy(self.rows[few.numbers])
        theirs = self.answers[rows.clamp_min(0)]
        known = rows >= 0
        return Said(
            theirs.map(lambda values: torch.where(known.view(-1, *(1,) * (values.dim() - 1)), values, torch.nan))
        )


def parted(named: str) -> tuple[str, Path]:
    """`NAME=FILE` as its parts."""
    name, equals, file = named.partition("=")
    if not (name and equals and file):
        raise MeshrecError(f"--predictions takes NAME=FILE.npz, a name for the table and a file; not {named!r}.")
    return name, Path(file)


def open_predictions(named: str, model: BodyModel, people: int) -> Predicted:
    """The predictions of `NAME=FILE` about the people of the data, checked."""
    name, path = parted(named)
    arrays = read_arrays(path, (JOINTS, VERTICES, ROOT, PERSON))
    if not {JOINTS, VERTICES} & arrays.keys():
        raise MeshrecError(
            f"{path} has neither {JOINTS} (P, 17, 3) nor {VERTICES} (P, V, 3): one of them is needed, in metres and in "
            f"the axes of the camera."
        )
    given = next(arrays[array] for array in (JOINTS, VERTICES) if array in arrays)
    count = len(given) if given.ndim else 0
    shapes = {JOINTS: (count, len(H36M17), 3), VERTICES: (count, len(model.parts), 3), ROOT: (count, 3)}
    for array, shape in shapes.items():
        if array in arrays:
            _check(path, array, arrays[array], shape)
    rows = _rows(path, arrays.get(PERSON), count, people)
    return Predicted(name, _found(path, arrays, model), rows)


def _check(path: Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype.kind != "f":
        raise MeshrecError(
            f"{path}: {name} is {array.dtype} of {array.shape}, and floating-point of {shape} is needed: a row for "
            f"each prediction, metres."
        )


def _rows(path: Path, person: np.ndarray | None, count: int, people: int) -> Int[np.ndarray, "people"]:
    """The row of each person, or -1."""
    if person is None:
        if count != people:
            raise MeshrecError(
                f"{path} tells of {count} people, and the data hold {people}. Write a row for each, or an array "
                f"{PERSON!r} that says whom each row is of."
            )
        return np.arange(people)
    if person.shape != (count,) or person.dtype.kind not in "iu":
        raise MeshrecError(
            f"{path}: {PERSON} is {person.dtype} of {person.shape}, and {count} whole numbers are needed."
        )
    outside = person[(person < 0) | (person >= people)]
    if len(outside):
        raise MeshrecError(f"{path}: {PERSON} names number {outside[0]}, and the people are 0 to {people - 1}.")
    if len(np.unique(person)) < count:
        raise MeshrecError(f"{path}: {PERSON} names somebody twice; one row a person.")
    rows = np.full(people, -1)
    rows[person] = np.arange(count)
    return rows


def _found(path: Path, arrays: dict[str, np.ndarray], model: BodyModel) -> Found:
    """Joints and skin about the pelvis."""
    vertices = torch.from_numpy(arrays[VERTICES]).float() if VERTICES in arrays else None
    joints = torch.from_numpy(arrays[JOINTS]).float() if JOINTS in arrays else _regressed(path, vertices, model)
    _check_metres(path, joints)
    pelvis = joints[:, H36M17.index("pelvis")]
    answered = joints.isfinite().all(-1).all(-1)
    root = torch.from_numpy(arrays[ROOT]).float() if ROOT in arrays else torch.full_like(pelvis, torch.nan)
    centred = torch.where(answered[:, None, None], joints - pelvis[:, None], torch.nan)
    return Found(centred, root, None if vertices is None else _about_pelvis(path, vertices, model))


def _about_pelvis(path: Path, vertices: Float[Tensor, "P V 3"], model: BodyModel) -> Float[Tensor, "P V 3"]:
    return vertices - _regressed(path, vertices, model)[:, H36M17.index("pelvis"), None]


def _regressed(path: Path, vertices: Float[Tensor, "P V 3"] | None, model: BodyModel) -> Float[Tensor, "P 17 3"]:
    """The joints that the body's regressor finds in its skin."""
    assert vertices is not None
    if H36M17.name not in model.file.regressors:
        raise MeshrecError(f"The body {model.file.name!r} has no H36M-17 regressor: give {JOINTS} in {path} too.")
    return torch.from_numpy(model.file.regressors[H36M17.name]).float() @ vertices


def _check_metres(path: Path, joints_m: Float[Tensor, "P 17 3"]) -> None:
    known = joints_m[joints_m.isfinite().all(-1).all(-1)]
    if not len(known):
        raise MeshrecError(f"{path}: no row is finite, so there is nothing to compare.")
    reach_m = float((known.amax(1) - known.amin(1)).amax(-1).median())
    low, high = PERSON_M
    if not low < reach_m < high:
        raise MeshrecError(
            f"{path}: a person reaches {reach_m:.3g} m there, which nobody does. Write metres, not millimetres or "
            f"shares."
        )
