"""A body in SMPL's file format: the noun, how it is read, and a sentence for whatever is wrong with it."""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Int64

from meshrec.arrays import array_names, read_arrays
from meshrec.errors import MeshrecError
from meshrec.joint_regressors import REGRESSED, compose, read_regressor, wrong_row_sum
from meshrec.skeletons import COCO17, H36M17, SMPL24
from meshrec.smpl_pickle import read_smpl_pickle

Gender = Literal["neutral", "male", "female"]

PUBLISHED = {
    H36M17.name: "; add J_regressor_h36m.npy for the published protocol",
    COCO17.name: "; add J_regressor_coco.npy for the published protocol",
}
"""What a user can do about a composed regressor."""

NO_COMPANIONS: Mapping[str, Path] = MappingProxyType({})

MAX_BETAS = 300
MIN_BETAS = 10
REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
OPTIONAL = ("part", "mirror", "vt", "ft", "gender", "notes", *(f"J_regressor_{target.name}" for target in REGRESSED))

OTHER_BODIES = {5: "a FLAME head", 16: "a MANO hand", 52: "an SMPL-H body", 55: "an SMPL-X body"}
"""Models in the same format, by their number of joints."""

FRAME = "SMPL's frame has metres, y up, the person's left at +x and faces +z"

SPAN_M = (0.5, 3.0)
"""The largest extent of the template: from a newborn to a giant."""

MOST_PER_UNIT_M = 1.0
"""Real correctives stay below 0.1 m a unit, shape directions at a few millimetres: more are in millimetres."""

LEAST_BONE = 0.1
"""Of the span: so far must the head be above the hips, and these above the ankles."""

X, Y, Z = range(3)

LEAST_WEIGHT = -1e-3
"""Rounding may leave a skinning weight a little below zero."""


@dataclass(frozen=True, eq=False)
class BodyFile:
    """A checked body in SMPL's format: metres, y up, facing +z, the person's left at +x."""

    v_template: Float[np.ndarray, "V 3"]
    shapedirs: Float[np.ndarray, "V 3 B"]
    """Metres for each standard deviation of shape."""
    posedirs: Float[np.ndarray, "V 3 207"]
    """Metres for each entry of `R - I` of the 23 joints below the root, row by row."""
    joint_regressor: Float[np.ndarray, "24 V"]
    weights: Float[np.ndarray, "V 24"]
    faces: Int64[np.ndarray, "F 3"]
    regressors: Mapping[str, Float[np.ndarray, "_ V"]]
    """Rows that give a skeleton's joints from the posed vertices, by the skeleton's name."""
    composed: tuple[str, ...]
    """Those of `regressors` that the file lacks: composed here of its own joints and named surface points."""
    parts: Int[np.ndarray, "V"] | None
    """The SMPL24 joint that each vertex belongs to."""
    mirror: Int[np.ndarray, "V"] | None
    """The vertex on the other side of the body."""
    uv: Float[np.ndarray, "T 2"] | None
    uv_faces: Int[np.ndarray, "F 3"] | None
    name: str
    path: Path
    sha256: str
    gender: Gender
    remarks: tuple[str, ...]
    """What its file and its companions leave to say: it stays with the body."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user should know, one sentence each."""
        return (*self.remarks, *(_origin(skeleton.name, self) for skeleton in REGRESSED if self.lacks(skeleton.name)))

    def lacks(self, skeleton: str) -> bool:
        """Whether the file had no regressor of that skeleton."""
        return skeleton in self.composed or skeleton not in self.regressors


def read_body_file(path: Path, companions: Mapping[str, Path] = NO_COMPANIONS, name: str = "") -> BodyFile:
    """Read and check an `.npz` or an official `.pkl`.

    `companions` are published joint regressors, `.npy` files of (joints, V), by the name of their skeleton.
    """
    fields = _read_fields(path)
    fields.refuse_other_bodies()
    template = fields.template()
    count = len(template)
    dtype = fields.common_float()
    joint_regressor = fields.rows_of_one("J_regressor", len(SMPL24), count)
    fields.check_tree()
    fields.check_frame(joint_regressor @ template)
    faces = fields.integers("f", -1, 3, below=count)
    given, remarks = _regressors(fields, joint_regressor, companions)
    composed = _composed_regressors(given, joint_regressor)
    return BodyFile(
        v_template=template.astype(dtype),
        shapedirs=fields.shape_directions(count).astype(dtype),
        posedirs=fields.pose_directions(count).astype(dtype),
        joint_regressor=joint_regressor.astype(dtype),
        weights=fields.weights(count).astype(dtype),
        faces=faces,
        regressors={skeleton: rows.astype(dtype) for skeleton, rows in (given | composed).items()},
        composed=tuple(composed),
        parts=fields.integers("part", count, below=len(SMPL24)) if "part" in fields.arrays else None,
        mirror=fields.mirror(count),
        name=name or path.stem,
        path=path,
        sha256=_sha256(path),
        gender=fields.gender(),
        remarks=(*fields.notes(), *remarks),
        **fields.unwrapping(len(faces)),
    )


def smpl_fields(body: BodyFile) -> dict[str, np.ndarray]:
    """The body under SMPL's own field names, as `smplx.utils.Struct(**fields)` wants them.

    Composed regressors are left out: they follow from the rest.
    """
    parents = np.array(SMPL24.parents, dtype=np.int64) % 2**32
    optional = {"part": body.parts, "mirror": body.mirror, "vt": body.uv, "ft": body.uv_faces}
    regressors = {name: rows for name, rows in body.regressors.items() if name not in body.composed}
    return {
        "v_template": body.v_template,
        "f": body.faces.astype(np.uint32),
        "kintree_table": np.stack([parents, np.arange(len(SMPL24))]).astype(np.uint32),
        "weights": body.weights,
        "J_regressor": body.joint_regressor,
        "shapedirs": body.shapedirs,
        "posedirs": body.posedirs,
        **{f"J_regressor_{name}": rows for name, rows in regressors.items()},
        **{name: array for name, array in optional.items() if array is not None},
        "joint_names": np.array(SMPL24.joints),
        "gender": np.array(body.gender),
    }


@dataclass(frozen=True)
class _Fields:
    """The arrays of one file, unchecked; every question about them is answered or refused in one sentence."""

    path: Path
    arrays: Mapping[str, np.ndarray]
    found: tuple[str, ...]

    def wrong(self, sentence: str) -> MeshrecError:
        return MeshrecError(f"{self.path}: {sentence}")

    def array(self, name: str, *shape: int) -> np.ndarray:
        """The field, of that shape; -1 stands for any size."""
        if name not in self.arrays:
            raise self.wrong(f"the field {name} is missing; SMPL has {', '.join(REQUIRED)}, this file {self._has()}.")
        array = self.arrays[name]
        fits = len(shape) == array.ndim and all(
            size in (-1, found) for size, found in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size == -1 else str(size) for size in shape)
            raise self.wrong(f"{name} has the shape {array.shape}, SMPL wants ({wanted}).")
        return array

    def floats(self, name: str, *shape: int) -> np.ndarray:
        """The field in float32, or in float64 where it has more."""
        array = self.array(name, *shape)
        if array.dtype.kind != "f":
            raise self.wrong(f"{name} holds {array.dtype}, SMPL wants floating-point numbers.")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64, copy=False)
        if not np.isfinite(array).all():
            raise self.wrong(f"{name} has {np.sum(~np.isfinite(array))} values that are NaN or infinite.")
        return array

    def integers(self, name: str, *shape: int, below: int) -> np.ndarray:
        array = self.array(name, *shape)
        if array.dtype.kind not in "iu":
            raise self.wrong(f"{name} holds {array.dtype}, SMPL wants integers.")
        if name == "f" and not len(array):
            raise self.wrong("f is empty: a body needs faces.")
        if array.size and not 0 <= array.min() <= array.max() < below:
            raise self.wrong(f"{name} counts from {array.min()} to {array.max()}, allowed is 0 to {below - 1}.")
        return array.astype(np.int64)

    def rows_of_one(self, name: str, *shape: int) -> np.ndarray:
        rows = self.floats(name, *shape)
        if (wrong := wrong_row_sum(rows)) is not None:
            raise self.wrong(f"a row of {name} sums to {wrong:.3f}; every row must sum to 1.")
        return rows

    def template(self) -> np.ndarray:
        template = self.floats("v_template", -1, 3)
        span_m = float(np.ptp(template, axis=0).max()) if len(template) else 0.0
        if not SPAN_M[0] < span_m < SPAN_M[1]:
            raise self.wrong(f"v_template spans {span_m:.4g}; a body in metres spans {SPAN_M[0]} to {SPAN_M[1]}.")
        return template

    def shape_directions(self, count: int) -> np.ndarray:
        directions = self.floats("shapedirs", count, 3, -1)
        if directions.shape[2] < MIN_BETAS:
            raise self.wrong(f"shapedirs has {directions.shape[2]} betas, at least {MIN_BETAS} are needed.")
        if (median_m := np.median(np.abs(directions[..., :MIN_BETAS]))) > MOST_PER_UNIT_M:
            raise self.wrong(f"half of shapedirs is above {median_m:.3g} a unit of beta; {FRAME}.")
        return directions[..., :MAX_BETAS]

    def pose_directions(self, count: int) -> np.ndarray:
        directions = self.floats("posedirs", count, 3, 207)
        if (most_m := np.abs(directions).max()) > MOST_PER_UNIT_M:
            raise self.wrong(f"posedirs reaches {most_m:.3g} a unit of R - I; {FRAME}.")
        return directions

    def weights(self, count: int) -> np.ndarray:
        weights = self.rows_of_one("weights", count, len(SMPL24))
        if weights.min() < LEAST_WEIGHT:
            raise self.wrong(f"weights go down to {weights.min():.3g}; skinning weights are shares, 0 to 1.")
        return weights

    def mirror(self, count: int) -> np.ndarray | None:
        if "mirror" not in self.arrays:
            return None
        mirror = self.integers("mirror", count, below=count)
        if not np.array_equal(mirror[mirror], np.arange(count)):
            raise self.wrong("mirror is no mirror: the mirror image of a vertex's mirror image is the vertex itself.")
        return mirror

    def common_float(self) -> np.dtype:
        """float64 where the file has it, else float32."""
        return np.result_type(np.float32, *(self.floats(name, *self.array_shape(name)) for name in REQUIRED[:5]))

    def array_shape(self, name: str) -> tuple[int, ...]:
        return self.arrays[name].shape if name in self.arrays else ()

    def refuse_other_bodies(self) -> None:
        """SMPL-H, SMPL-X, MANO and FLAME come in the same format with other numbers of joints."""
        columns = self.array_shape("weights")[1:2]
        features = self.array_shape("posedirs")[2:3]
        joints = next(iter(columns), next(iter(features), 0) // 9 + 1)
        if joints in OTHER_BODIES:
            raise self.wrong(
                f"this is {OTHER_BODIES[joints]} with {joints} joints; meshrec reads SMPL with 24. Get SMPL for Python "
                "from smpl.is.tue.mpg.de (basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl) and add that file."
            )

    def check_tree(self) -> None:
        """The tree of SMPL24; a root's parent is written as -1 or 2^32 - 1."""
        table = self.array("kintree_table", 2, len(SMPL24))
        if table.dtype.kind not in "iuf" or not np.isfinite(table).all():
            raise self.wrong(f"kintree_table holds {table.dtype} or NaN, SMPL wants integers.")
        for column, (parent, joint) in enumerate(zip(*table.tolist(), strict=True)):
            if joint != column:
                raise self.wrong(f"kintree_table is another tree than SMPL's: its joint {column} is number {joint}.")
            if 0 <= SMPL24.parents[column] != parent:
                raise self.wrong(
                    f"kintree_table is another tree than SMPL's: the parent of {SMPL24.joints[column]} is joint "
                    f"{parent}, SMPL's is {SMPL24.parents[column]}."
                )

    def check_frame(self, joints_m: Float[np.ndarray, "24 3"]) -> None:
        """The template stands upright, its left side at +x, its toes in front."""
        at = dict(zip(SMPL24.joints, joints_m.tolist(), strict=True))
        head, hips, ankles, feet = at["head"], at["left_hip"], at["left_ankle"], at["left_foot"]
        least_m = LEAST_BONE * np.ptp(self.template(), axis=0).max()
        if not head[Y] - least_m > hips[Y] > ankles[Y] + least_m:
            raise self.wrong(
                f"y is not up: the head lies at y = {head[Y]:.2f}, the hips at {hips[Y]:.2f}, the ankles at "
                f"{ankles[Y]:.2f}; {FRAME}."
            )
        for kind in ("hip", "knee", "shoulder", "wrist"):
            left, right = at[f"left_{kind}"][X], at[f"right_{kind}"][X]
            if left <= right:
                raise self.wrong(f"the left {kind} lies at x = {left:.2f}, the right at {right:.2f}; {FRAME}.")
        if feet[Z] <= ankles[Z]:
            raise self.wrong(f"the toes lie at z = {feet[Z]:.2f}, behind the ankles at {ankles[Z]:.2f}; {FRAME}.")

    def unwrapping(self, faces: int) -> dict[str, np.ndarray | None]:
        if "vt" not in self.arrays or "ft" not in self.arrays:
            return {"uv": None, "uv_faces": None}
        uv = self.floats("vt", -1, 2)
        return {"uv": uv, "uv_faces": self.integers("ft", faces, 3, below=len(uv))}

    def gender(self) -> Gender:
        """What the file says, else what its name says (`basicModel_f_lbs...`, `SMPL_MALE`), else neutral."""
        said = str(self.arrays["gender"]) if "gender" in self.arrays else self.path.stem
        words = re.split(r"[^a-z]+", said.lower())
        if "female" in words or "f" in words:
            return "female"
        return "male" if "male" in words or "m" in words else "neutral"

    def notes(self) -> tuple[str, ...]:
        return tuple(str(note) for note in self.arrays["notes"].ravel()) if "notes" in self.arrays else ()

    def _has(self) -> str:
        return f"has {', '.join(self.found[:30]) or 'none'}"


def _read_fields(path: Path) -> _Fields:
    names = (*REQUIRED, *OPTIONAL)
    if path.suffix.lower() == ".pkl":
        return _Fields(path, *read_smpl_pickle(path, names))
    if path.suffix.lower() == ".npz":
        return _Fields(path, read_arrays(path, names), array_names(path))
    raise MeshrecError(f"{path} is neither .npz nor .pkl: give an SMPL file in one of these formats.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _regressors(
    fields: _Fields, joint_regressor: Float[np.ndarray, "24 V"], companions: Mapping[str, Path]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The regressors that `companions` or the file itself give, and what is to be said of them."""
    template = fields.template()
    given, remarks = {}, []
    for skeleton in REGRESSED:
        field = f"J_regressor_{skeleton.name}"
        if skeleton.name in companions:
            joints_m = joint_regressor @ template
            given[skeleton.name], said = read_regressor(companions[skeleton.name], skeleton, joints_m, template)
            remarks += said
        elif field in fields.arrays:
            given[skeleton.name] = fields.rows_of_one(field, len(skeleton), len(template))
    return given, remarks


def _composed_regressors(
    given: Collection[str], joint_regressor: Float[np.ndarray, "24 V"]
) -> dict[str, Float[np.ndarray, "_ V"]]:
    """The regressors that are still missing, where this body lets them be composed."""
    rows = {skeleton.name: compose(skeleton, joint_regressor) for skeleton in REGRESSED if skeleton.name not in given}
    return {name: regressor for name, regressor in rows.items() if regressor is not None}


def _origin(skeleton: str, body: BodyFile) -> str:
    """Where the joints of a skeleton come from that the file has no regressor of."""
    if skeleton in body.composed:
        return f"{skeleton} joints are composed from the 24 SMPL joints{PUBLISHED.get(skeleton, '')}"
    return f"{skeleton} joints are not known: this body has not SMPL's 6,890 vertices"
