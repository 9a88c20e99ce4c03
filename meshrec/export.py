"""Mesh files of bodies, and the verb that writes them from results and from pose files.

`upright`: y up, z towards the viewer, as glTF has it and as Blender reads OBJ. `camera`: x right, y down, z away.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
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
from meshrec.pose_files import Poses, read_poses
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams

MeshFormat = Literal["obj", "ply", "glb"]
Frame = Literal["upright", "camera"]

BODIES_AT_ONCE = 32

MANY = 8
"""From so many meshes on, progress is shown."""


@dataclass(frozen=True)
class Texture:
    """Where each corner of each face lies in a texture."""

    coordinates: Float[np.ndarray, "T 2"]
    corners: Int[np.ndarray, "F 3"]
    """Rows of `coordinates`."""


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
    inputs: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")]],
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
    shown = console.is_terminal and len(paths) >= MANY
    with Progress(console=console, transient=True, disable=not shown) as progress, torch.no_grad():
        bodies = progress.track(posed(poses, model), total=len(paths), description=f"{folder}")
        for path, vertices_m in zip(paths, bodies, strict=True):
            write_mesh(path, vertices_m, model.faces, frame, texture)
    return paths


def _told(paths: list[Path]) -> str:
    """What was written, in a few words."""
    return f"wrote {paths[0]}" if len(paths) == 1 else f"wrote {len(paths)} meshes, {paths[0]} to {paths[-1].name}"
