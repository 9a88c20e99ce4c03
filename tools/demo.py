"""The demonstration: three pictures that need no download, and the bodies that meshrec recovers from them.

Two are photographs that scikit-image ships (a photographer, CC0; an astronaut, NASA, public domain); both show half a
person. The third, a whole one, meshrec renders itself.
"""

import math
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import roma
import skimage.data
import torch
import tyro
from jaxtyping import Float, UInt8
from rich.console import Console
from torch import Tensor

from meshrec.body import BodyModel, load_body_model
from meshrec.camera import camera_from_body_axes, centered_camera
from meshrec.cli import main as meshrec
from meshrec.photo import write_png
from meshrec.render import Color, render_rgba
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams

SKIN: Color = (0.80, 0.60, 0.48)
SHIRT: Color = (0.72, 0.16, 0.14)
TROUSERS: Color = (0.16, 0.20, 0.34)
SHOES: Color = (0.08, 0.08, 0.09)

CLOTHES: dict[str, Color] = {
    **dict.fromkeys(("spine1", "spine2", "spine3", "left_collar", "right_collar"), SHIRT),
    **dict.fromkeys(("left_shoulder", "right_shoulder"), SHIRT),
    **dict.fromkeys(("pelvis", "left_hip", "right_hip", "left_knee", "right_knee"), TROUSERS),
    **dict.fromkeys(("left_ankle", "right_ankle", "left_foot", "right_foot"), SHOES),
}
"""What covers the skin that a joint moves; the rest is bare."""

STRIDE_DEG: dict[str, tuple[float, float, float]] = {
    "left_hip": (-32, 0, 4),
    "right_hip": (18, 0, -4),
    "left_knee": (14, 0, 0),
    "right_knee": (34, 0, 0),
    "left_shoulder": (0, 22, -68),
    "right_shoulder": (0, 28, 62),
    "left_elbow": (0, -28, 0),
    "right_elbow": (0, 62, 0),
    "spine2": (4, -8, 0),
    "neck": (6, 10, 0),
}
"""A walking pose: rotation vectors in degrees."""


def walker() -> BodyParams:
    """Somebody who walks towards the camera and a little past it, three and a half metres away."""
    vectors = torch.zeros(len(SMPL24), 3)
    for joint, degrees in STRIDE_DEG.items():
        vectors[SMPL24.index(joint)] = torch.tensor(degrees) * math.pi / 180
    heading = roma.rotvec_to_rotmat(torch.tensor([0.0, math.radians(-28), 0.0]))
    rotations = roma.rotvec_to_rotmat(vectors)
    rotations[0] = camera_from_body_axes() @ heading
    return BodyParams.from_rotations(rotations, torch.tensor([0.6, 0.4, -0.3]), torch.tensor([0.0, 0.25, 3.4]))


def dressed(model: BodyModel) -> Float[Tensor, "V 3"]:
    """A colour for every vertex, by the joint that moves it most."""
    colors = torch.tensor([CLOTHES.get(joint, SKIN) for joint in SMPL24.joints])
    return colors[model.parts]


def picture_of(model: BodyModel, params: BodyParams) -> UInt8[np.ndarray, "720 540 3"]:
    """The person before a plain wall that darkens towards the floor."""
    camera = centered_camera(540, 720, 1200.0, "true")
    rgba = render_rgba(model(params).vertices_m, model.faces, camera, dressed(model), samples=3).numpy()
    wall = np.linspace(0.86, 0.62, camera.height_px)[:, None, None]
    return np.rint(255 * (wall * (1 - rgba[..., 3:]) + rgba[..., :3])).clip(0, 255).astype(np.uint8)


def main(output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out/demo")) -> int:
    """Write the three pictures and recover the bodies in them."""
    model = load_body_model()
    photos = output / "photos"
    write_png(photos / "photographer.png", np.repeat(skimage.data.camera()[..., None], 3, axis=-1))
    write_png(photos / "astronaut.png", skimage.data.astronaut())
    write_png(photos / "walker.png", picture_of(model, walker()))
    code = meshrec(["recover", str(photos), "--output", str(output)])
    if code == 0:
        Console().print(f"Open {output}/astronaut/person0_overlay.png, or person0.obj in Blender or MeshLab.")
    return code


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
