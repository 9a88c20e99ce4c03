"""Mesh files of bodies, and the verb that writes them from results and from pose files.

`upright`: y up, z towards the viewer, as glTF has it and as Blender reads OBJ. `camera`: x right, y down, z away.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import roma
import torch
import trimesh
import tyro
from jaxtyping import Float, Int
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import Tensor

from meshrec.body import BodyModel, load_body_model
from meshrec.camera import camera_from_body_axes
from meshrec.errors import MeshrecError
from meshrec.files import write_whole
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams

MeshFormat = Literal["obj", "ply", "glb"]
Frame = Literal["upright", "camera"]

BODIES_AT_ONCE = 32

MANY = 8
"""From so many meshes on, progress is shown."""

BODY_JOINTS = SMPL24.index("left_hand")
"""Joints that SMPL shares with SMPL+H and SMPL-X, in the same order: all but the two hands, which stay straight."""

POSE_WIDTHS = {3 * len(SMPL24): len(SMPL24)} | dict.fromkeys((3 * BODY_JOINTS, 3 * 52, 3 * 55), BODY_JOINTS)
"""Numbers in a row of `poses`, and how many joints of them are SMPL's: SMPL; its body alone, SMPL+H, SMPL-X."""

DAMAGED = (zipfile.BadZipFile, EOFError, LookupError, OSError, TypeError, ValueError)
"""What json, numpy and zipfile raise at a file that is not what it should be."""


@dataclass(frozen=True)
class Texture:
    """Where each corner of each face lies in a texture."""

    coordinates: Float[np.ndarray, "T 2"]
    corners: Int[np.ndarray, "F 3"]
    """Rows of `coordinates`."""


@dataclass(frozen=True)
class BodyName:
    """The body that a result was made with."""

    name: str
    path: str
    sha256: str

    def load(self) -> BodyModel:
        """The same body again; another one of this name would give another shape."""
        model = load_body_model(self.path if Path(self.path).is_file() else self.name)
        if self.sha256 and model.file.sha256 != self.sha256:
            raise MeshrecError(
                f"The result was made with another body {self.name!r} than the one found now (sha256 "
                f"{self.sha256[:12]}, found {model.file.sha256[:12]}): say which one to take with --body."
            )
        return model


@dataclass(frozen=True)
class Poses:
    """The posed bodies of one file: the people of a result, or the frames of a motion."""

    names: tuple[str, ...]
    """A mesh file's name for each body, without suffix."""
    params: BodyParams
    upright: Float[Tensor, "3 3"]
    """Rotation from the frame of `params` to upright."""
    motion: bool
    """One person in many frames."""
    body: BodyName | None = None
    """The body that the file was made with, where it says so."""


def write_mesh(
    path: Path,
    vertices_m: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    frame: Frame = "upright",
    texture: Texture | None = None,
) -> Path:
    """Write a mesh, given in the camera frame, as OBJ, PLY or GLB by the suffix of `path`; whole or not at all.

    Vertices keep their order and number, and the same mesh gives the same bytes. Only OBJ carries the texture: the
    others have one texture point a vertex, which would tear the vertices apart along its seams.
    """
    axes = camera_from_body_axes(vertices_m.device, vertices_m.dtype) if frame == "upright" else None
    placed = vertices_m if axes is None else vertices_m @ axes.T
    content = _encode(path.suffix, placed.detach().cpu().numpy(), faces.cpu().numpy(), texture)
    return write_whole(path, lambda neighbour: neighbour.write_bytes(content))


def _encode(
    suffix: str, vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], texture: Texture | None
) -> bytes:
    """The bytes of a mesh file."""
    if not np.isfinite(vertices).all():
        raise ValueError("a mesh to write has vertices that are not finite")
    if suffix.lower() == ".obj":
        return obj_text(vertices, faces, texture).encode()
    if suffix.lower() not in (".ply", ".glb"):
        raise MeshrecError(f"Cannot write a mesh as {suffix or 'a file without suffix'}: choose .obj, .ply or .glb.")
    mesh = trimesh.Trimesh(vertices.astype(np.float32), faces, process=False)
    content = mesh.export(file_type=suffix.lower()[1:])
    assert isinstance(content, bytes)
    return content


def obj_text(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], texture: Texture | None = None) -> str:
    """A Wavefront OBJ: nine digits bring every float32 back exactly; texture points are numbered on their own."""
    text = io.StringIO()
    np.savetxt(text, vertices.astype(np.float32) + 0.0, fmt="v %.9g %.9g %.9g")
    if texture is None:
        np.savetxt(text, faces + 1, fmt="f %d %d %d")
    else:
        np.savetxt(text, texture.coordinates, fmt="vt %.9g %.9g")
        corners = np.stack([faces, texture.corners], axis=-1).reshape(-1, 6) + 1
        np.savetxt(text, corners, fmt="f %d/%d %d/%d %d/%d")
    return text.getvalue()


def read_poses(path: Path) -> Poses:
    """The bodies of a `result.json`, or of an `.npz` of poses: AMASS's layout, or `poses`, `trans` and `betas`."""
    if not path.is_file():
        raise MeshrecError(f"There is no file {path}: give a result.json of `meshrec recover` or an .npz of poses.")
    if path.suffix.lower() == ".json":
        return _read_result(path)
    if path.suffix.lower() == ".npz":
        return _read_pose_file(path)
    raise MeshrecError(f"{path} is neither a result.json of `meshrec recover` nor an .npz of poses.")


def _read_result(path: Path) -> Poses:
    """Every person of a result; its frame is the camera's."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        people = [person["smpl"] for person in result["people"]]
        rows = [np.asarray(person["pose_axis_angle"], np.float64).reshape(1, -1) for person in people]
        betas = [np.asarray(person["betas"], np.float64).reshape(1, -1) for person in people]
        transl_m = [np.asarray(person["transl_m"], np.float64).reshape(1, 3) for person in people]
        body = BodyName(*(str(result["body"].get(field) or "") for field in ("name", "path", "sha256")))
        stem = Path(result.get("photo") or path).stem
    except DAMAGED as error:
        raise MeshrecError(f"{path} is not a result of `meshrec recover`: {_why(error)}. Recover it again.") from error
    if not people:
        raise MeshrecError(f"{path} has no people in it, so there is nothing to export.")
    params = _params(path, np.concatenate(rows), np.concatenate(betas), np.concatenate(transl_m))
    names = tuple(f"{stem}_person{index}" for index in range(len(people)))
    return Poses(names, params, camera_from_body_axes(), motion=False, body=body)


def _read_pose_file(path: Path) -> Poses:
    """Every frame of a motion; a file that states a motion-capture frame rate is AMASS's, with z up, else y is up."""
    try:
        with np.load(path, allow_pickle=False) as file:
            fields = {name: file[name] for name in ("poses", "trans", "betas") if name in file.files}
            amass = any(name in file.files for name in ("mocap_framerate", "mocap_frame_rate"))
        poses = fields["poses"].astype(np.float64)
        poses = poses.reshape(len(poses), math.prod(poses.shape[1:]))
        transl_m = fields.get("trans", np.zeros((len(poses), 3))).astype(np.float64)
        betas = fields.get("betas", np.zeros(1)).astype(np.float64)
    except DAMAGED as error:
        raise MeshrecError(
            f"{path} is not an .npz of poses: {_why(error)}. It needs poses (frames, 72 or 156)."
        ) from error
    if not len(poses):
        raise MeshrecError(f"{path} has no frames in it, so there is nothing to export.")
    params = _params(path, poses, np.broadcast_to(betas, (len(poses), betas.shape[-1])), transl_m)
    names = tuple(f"{path.stem}_{index:06d}" for index in range(len(poses)))
    return Poses(names, params, _y_up_from_z_up() if amass else torch.eye(3), motion=True)


def _params(path: Path, poses: np.ndarray, betas: np.ndarray, transl_m: np.ndarray) -> BodyParams:
    """Rotations of SMPL's joints from rows of axis-angle; the hands of SMPL+H and SMPL-X are left straight."""
    if poses.shape[1] not in POSE_WIDTHS:
        known = ", ".join(map(str, sorted(POSE_WIDTHS)))
        raise MeshrecError(f"{path} has {poses.shape[1]} numbers a pose; SMPL's family has {known}.")
    if transl_m.shape != (len(poses), 3):
        raise MeshrecError(f"{path} has {len(poses)} poses but translations of shape {transl_m.shape}.")
    if not all(np.isfinite(array).all() for array in (poses, betas, transl_m)):
        raise MeshrecError(f"{path} has numbers that are not finite among its poses, betas or translations.")
    joints = POSE_WIDTHS[poses.shape[1]]
    vectors = torch.zeros(len(poses), len(SMPL24), 3)
    vectors[:, :joints] = torch.tensor(poses[:, : 3 * joints]).view(-1, joints, 3).float()
    rotations = roma.rotvec_to_rotmat(vectors)
    return BodyParams.from_rotations(rotations, torch.tensor(betas).float(), torch.tensor(transl_m).float())


def _y_up_from_z_up() -> Float[Tensor, "3 3"]:
    """A quarter turn back about x: (x, y, z) to (x, z, -y)."""
    return torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


def _why(error: Exception) -> str:
    """An exception in words; a missing key is named."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__


def rest_shapes(poses: Poses) -> Poses:
    """The shapes alone, in the T-pose, upright, at the origin: one for each person, the first frame's of a motion."""
    people = 1 if poses.motion else len(poses.names)
    rotations = torch.eye(3).expand(people, len(SMPL24), 3, 3)
    params = BodyParams.from_rotations(rotations, poses.params.betas[:people], torch.zeros(people, 3))
    names = tuple(f"{name}_tpose" for name in poses.names[:people])
    return replace(poses, names=names, params=params, upright=torch.eye(3))


def every_nth(poses: Poses, step: int) -> Poses:
    """Every `step`-th frame of a motion, from the first; all people of a result."""
    if step < 1:
        raise MeshrecError(f"--every takes a number of frames from 1 on, not {step}.")
    if not poses.motion:
        return poses
    return replace(poses, names=poses.names[::step], params=poses.params[::step])


def posed(poses: Poses, model: BodyModel) -> Iterator[Float[Tensor, "V 3"]]:
    """The vertices of each body, in the camera frame."""
    camera = camera_from_body_axes() @ poses.upright
    for start in range(0, len(poses.names), BODIES_AT_ONCE):
        some = slice(start, start + BODIES_AT_ONCE)
        yield from model(_cut(poses.params[some], model.num_betas)).vertices_m @ camera.T


def _cut(params: BodyParams, betas: int) -> BodyParams:
    """The shape in the directions that a body has; AMASS gives sixteen, most bodies have ten."""
    return BodyParams(params.root, params.pose, params.betas[..., :betas], params.transl_m)


def texture_of(model: BodyModel) -> Texture | None:
    """The body's own texture coordinates, where its file has them."""
    if model.file.uv is None or model.file.uv_faces is None:
        return None
    return Texture(model.file.uv, model.file.uv_faces)


def command(
    inputs: tyro.conf.Positional[tuple[Path, ...]],
    format: Annotated[MeshFormat, tyro.conf.arg(aliases=["-f"])] = "obj",
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    body: str | None = None,
    zero_pose: bool = False,
    every: int = 1,
    frame: Frame = "upright",
    texture: bool = False,
) -> int:
    """Write the bodies of results and of pose files as meshes.

    A result gives one mesh a person, a motion (AMASS's layout, or poses, trans and betas with y up) one a frame. An
    input that cannot be exported is reported, and the others are exported all the same.

    Args:
        inputs: Files result.json of `meshrec recover`, or .npz files of poses.
        format: Kind of mesh file.
        output: Folder for the meshes; by default each input's own.
        body: Body to pose, by name or path; by default the result's own, and the shipped one for a motion.
        zero_pose: Write the shapes alone, in the T-pose.
        every: Write every N-th frame of a motion.
        frame: Upright (y up, z towards the viewer), or as the camera sees them (y down, z away).
        texture: Give OBJ files the body's texture coordinates; some readers then split the vertices along the seams.
    """
    console = Console(stderr=True)
    if not inputs:
        raise MeshrecError("Nothing to export: name a result.json of `meshrec recover` or an .npz of poses.")
    chosen = load_body_model(body) if body else None
    taken: set[Path] = set()
    failed = 0
    for path in inputs:
        try:
            poses = every_nth(read_poses(path), every)
            model = chosen or (poses.body.load() if poses.body else load_body_model())
            poses = rest_shapes(poses) if zero_pose else poses
            coordinates = texture_of(model) if texture else None
            written = _write_all(poses, model, output or path.parent, format, frame, coordinates, taken, console)
            console.print(f"{escape(str(path))}: {_told(written)}", soft_wrap=True)
        except MeshrecError as error:
            failed += 1
            console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
    return 1 if failed else 0


def _write_all(
    poses: Poses,
    model: BodyModel,
    folder: Path,
    suffix: str,
    frame: Frame,
    texture: Texture | None,
    taken: set[Path],
    console: Console,
) -> list[Path]:
    """Write every body, with a progress bar where there are many; `taken` are the files of earlier inputs."""
    paths = [folder / f"{name}.{suffix}" for name in poses.names]
    if again := taken.intersection(paths):
        raise MeshrecError(
            f"Two inputs would both write {min(again)}: export them one by one, each with its own -o DIR."
        )
    taken.update(paths)
    texture = texture_of(model)
    shown = console.is_terminal and len(paths) >= MANY
    with Progress(console=console, transient=True, disable=not shown) as progress, torch.no_grad():
        bodies = progress.track(posed(poses, model), total=len(paths), description=f"{folder}")
        for path, vertices_m in zip(paths, bodies, strict=True):
            write_mesh(path, vertices_m, model.faces, frame, texture)
    return paths


def _told(paths: list[Path]) -> str:
    """What was written, in a few words."""
    return f"wrote {paths[0]}" if len(paths) == 1 else f"wrote {len(paths)} meshes, {paths[0]} to {paths[-1].name}"
