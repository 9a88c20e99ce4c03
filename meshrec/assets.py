"""Finds, checks and imports bodies and weights: the user's, then those that ship.

The user's lie in the data directory: `bodies/NAME.npz` (or `.pkl`), `weights/prior_NAME.safetensors`, lifters as
`weights/lift.safetensors` or `weights/lift_NAME.safetensors`, and mesh regressors as `weights/mesh.safetensors` or
`weights/mesh_NAME.safetensors` (or `.ckpt`, a published checkpoint).
"""

import json
import os
import pickle
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from meshrec.body_file import NO_COMPANIONS, BodyFile, read_body_file, smpl_fields
from meshrec.errors import MeshrecError
from meshrec.files import write_whole
from meshrec.skeletons import COCO17, H36M17

__all__ = [
    "AssetReport",
    "BodyFile",
    "add_asset",
    "check_asset",
    "command",
    "data_directory",
    "export_pickle",
    "find_lifter",
    "find_prior",
    "find_regressor",
    "list_assets",
    "load_body_file",
    "smpl_fields",
]

SHIPPED = Path(__file__).parent

Owner = Literal["yours", "shipped", "given"]
"""The user's data directory, the package, or a path that the user named."""


@dataclass(frozen=True)
class _Room:
    """A kind of asset: the folder it lies in, how its files are named, and how a user gets one."""

    what: str
    folder: str
    prefix: str
    suffixes: tuple[str, ...]
    advice: str
    named_whole: bool = False
    """Whether the prefix is part of a name."""

    def folders(self) -> tuple[Path, Path]:
        """The user's, then the shipped."""
        return data_directory() / self.folder, SHIPPED / self.folder

    def files(self, folder: Path) -> dict[str, Path]:
        """The files of a folder by name; the first suffix wins, and what begins with a dot is half written."""
        found: dict[str, Path] = {}
        for suffix in self.suffixes:
            for path in sorted(folder.glob(f"{self.prefix or '[!.]'}*{suffix}")):
                found.setdefault(path.stem if self.named_whole else path.stem.removeprefix(self.prefix), path)
        return dict(sorted(found.items()))


BODIES = _Room("body", "bodies", "", (".npz", ".pkl"), "Add yours with `meshrec assets add FILE --name NAME`")
PRIORS = _Room("prior", "weights", "prior_", (".safetensors",), "Make one with `meshrec train` and tools/fit_priors.py")
REGRESSORS = _Room(
    "mesh regressor",
    "weights",
    "mesh",
    (".safetensors", ".ckpt", ".pt", ".pth"),
    "Make one with `meshrec train`",
    named_whole=True,
)
LIFTERS = _Room("lifter", "weights", "lift", (".safetensors",), "Make one with `meshrec train`", named_whole=True)


@dataclass(frozen=True)
class AssetReport:
    """What is known of one body file, good or bad."""

    name: str
    owner: Owner
    path: str
    problem: str = ""
    """What is wrong with the file; empty when nothing is."""
    vertices: int = 0
    betas: int = 0
    gender: str = ""
    regressors: tuple[str, ...] = ()
    composed: tuple[str, ...] = ()
    sha256: str = ""
    notes: tuple[str, ...] = ()


def data_directory() -> Path:
    """Where the user's assets lie: $MESHREC_DATA, else the platform's folder for data."""
    if chosen := os.environ.get("MESHREC_DATA"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "meshrec"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "meshrec"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "meshrec"


def load_body_file(name_or_path: str | Path = "neutral", companions: Mapping[str, Path] = NO_COMPANIONS) -> BodyFile:
    """A checked body: by name from the user's assets, else from those that ship; or a `.npz` or `.pkl` by its path.

    `companions` are published joint regressors, `.npy` files of (joints, V), by the name of their skeleton.
    """
    return read_body_file(_find(BODIES, name_or_path), companions)


def find_prior(name_or_path: str | Path) -> Path:
    """The weights of a pose prior: by name ("flow") from the user's assets, else from those that ship; or a path."""
    return _find(PRIORS, name_or_path)


def find_lifter(name_or_path: str | Path) -> Path:
    """The weights of a lifter: by name ("lift", "lift_mine") from the user's assets, else the shipped; or a path."""
    return _find(LIFTERS, name_or_path)


def find_regressor(name_or_path: str | Path) -> Path:
    """The weights of a mesh regressor: by name ("mesh", "mesh_mine"), the user's before the shipped; or a path."""
    return _find(REGRESSORS, name_or_path)


def check_asset(path: Path, companions: Mapping[str, Path] = NO_COMPANIONS, owner: Owner = "given") -> AssetReport:
    """What is known of a body file; what is wrong with it stands in `problem`."""
    try:
        body = read_body_file(path, companions)
    except MeshrecError as error:
        return AssetReport(path.stem, owner, str(path), problem=str(error))
    return AssetReport(
        name=body.name,
        owner=owner,
        path=str(path),
        vertices=len(body.v_template),
        betas=body.shapedirs.shape[2],
        gender=body.gender,
        regressors=tuple(body.regressors),
        composed=body.composed,
        sha256=body.sha256,
        notes=body.notes,
    )


def list_assets() -> list[AssetReport]:
    """Every body that has a name: the user's, then the shipped ones that they do not hide."""
    owners: tuple[Owner, Owner] = ("yours", "shipped")
    reports: dict[str, AssetReport] = {}
    for owner, folder in zip(owners, BODIES.folders(), strict=True):
        for name, path in BODIES.files(folder).items():
            if name not in reports:
                reports[name] = check_asset(path, owner=owner)
    return list(reports.values())


def add_asset(file: Path, companions: Mapping[str, Path] = NO_COMPANIONS, name: str = "") -> Path:
    """Check a body file and keep it as `.npz` in the user's data directory; a body of that name is replaced.

    Without a name it is called `smpl_` and its gender. The file stays under the licence that it came with.
    """
    body = read_body_file(file, companions)
    name = name or f"smpl_{body.gender}"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or name.lower().endswith(BODIES.suffixes):
        raise MeshrecError(
            f"{name!r} is no name for a body: use letters, digits, `_`, `-` and `.`, and leave "
            f"{' and '.join(BODIES.suffixes)} away."
        )
    licence = f"converted from {file.name}, whose licence still holds: do not pass it on"
    fields = smpl_fields(body) | {"notes": np.array([licence, *(note for note in body.remarks if note != licence)])}
    path = BODIES.folders()[0] / f"{name}.npz"
    return write_whole(path, lambda neighbour: np.savez_compressed(neighbour, **fields))  # type: ignore[arg-type]


def export_pickle(body: BodyFile, path: Path) -> Path:
    """Write a pickle of plain numpy arrays in SMPL's layout, which `smplx.SMPL(path)` and others read."""
    numbers = {name: array for name, array in smpl_fields(body).items() if array.dtype.kind != "U"}
    fields = {**numbers, "gender": body.gender}
    return write_whole(path, lambda neighbour: neighbour.write_bytes(pickle.dumps(fields, protocol=4)))


def _find(room: _Room, name_or_path: str | Path) -> Path:
    path = Path(name_or_path).expanduser()
    if isinstance(name_or_path, Path) or path.suffix in room.suffixes or len(path.parts) > 1:
        return _existing(room, path)
    for folder in room.folders():
        if found := room.files(folder).get(str(name_or_path)):
            return found
    known = sorted({name for folder in room.folders() for name in room.files(folder)})
    raise MeshrecError(
        f"There is no {room.what} named {str(name_or_path)!r}; there is {', '.join(known) or 'none'}. "
        f"Looked in {' and '.join(map(str, room.folders()))}. "
        f"{room.advice}, or give the path of a {' or '.join(room.suffixes)} file."
    )


def _existing(room: _Room, path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        inside = ", ".join(file.name for suffix in room.suffixes for file in sorted(path.glob(f"[!.]*{suffix}")))
        raise MeshrecError(f"{path} is a folder; give one of its files: {inside or 'it has none that fits'}.")
    raise MeshrecError(f"There is no file {path}. Give the path of a {' or '.join(room.suffixes)} file, or a name.")


@dataclass(frozen=True)
class List:
    """Every body that has a name, yours first."""

    json: bool = False
    """Write JSON to standard output."""


@dataclass(frozen=True)
class Add:
    """Check a body file and keep it among your assets."""

    file: tyro.conf.Positional[Path]
    """An SMPL file, .pkl or .npz."""
    name: str = ""
    """What to call it; otherwise smpl_ and its gender."""
    h36m: Path | None = None
    """J_regressor_h36m.npy: the published Human3.6M joints."""
    coco: Path | None = None
    """J_regressor_coco.npy: the published COCO joints."""


@dataclass(frozen=True)
class Check:
    """Say what body files hold and what is wrong with them."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """SMPL files, .pkl or .npz."""
    json: bool = False
    """Write JSON to standard output."""


@dataclass(frozen=True)
class Export:
    """Write a body as a plain pickle in SMPL's layout, for smplx and others."""

    body: tyro.conf.Positional[str]
    """A name, or the path of an SMPL file."""
    output: tyro.conf.Positional[Path]
    """The pickle to write, such as SMPL_NEUTRAL.pkl."""


Action = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Add, tyro.conf.subcommand("add")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Export, tyro.conf.subcommand("export")]
)


def command(action: Annotated[Action, tyro.conf.arg(name="")]) -> int:
    """List, check, add and export body files."""
    match action:
        case List():
            _show(list_assets(), action.json)
        case Check():
            reports = [check_asset(file.expanduser()) for file in action.files]
            _show(reports, action.json)
            return 1 if any(report.problem for report in reports) else 0
        case Add():
            companions = {H36M17.name: action.h36m, COCO17.name: action.coco}
            path = add_asset(action.file, {name: file for name, file in companions.items() if file}, action.name)
            _show([check_asset(path, owner="yours")], as_json=False)
        case Export():
            path = export_pickle(load_body_file(action.body), action.output)
            Console(stderr=True).print(f"wrote {escape(str(path))}")
    return 0


def _show(reports: list[AssetReport], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps([asdict(report) for report in reports], indent=2) + "\n")
        return
    headings = ("name", "vertices", "betas", "gender", "regressors", "where", "sha256")
    table = Table(*(Column(heading, overflow="fold") for heading in headings))
    for report in reports:
        regressors = (f"{name}*" if name in report.composed else name for name in report.regressors)
        facts = [str(report.vertices), str(report.betas), report.gender, " ".join(regressors)]
        row = [escape(report.name), *(facts if not report.problem else ["", "", "", "[red]refused[/red]"])]
        table.add_row(*row, report.owner, report.sha256[:12])
    console = Console()
    console.print(table)
    for report in reports:
        for line in filter(None, (report.problem, *report.notes)):
            console.print(f"{escape(report.name)}: {escape(line)}", soft_wrap=True)
