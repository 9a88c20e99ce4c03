"""Pictures of scenes: any square of each photograph at any resolution, and what each of its pixels shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from meshrec.data.crop import crop_camera, turned_points
from meshrec.data.synthetic.canvas import centres_px
from meshrec.data.synthetic.develop import blended, exposed, softened
from meshrec.data.synthetic.occluders import front_of
from meshrec.data.synthetic.paint import dressed, painted
from meshrec.data.synthetic.scene import Scene
from meshrec.data.synthetic.surface import Surface
from meshrec.rasterize import BACKGROUND, rasterize
from meshrec.render import supersampled
from meshrec.shading import vertex_labels
from meshrec.types import Batched, Camera, Square, stack

SAMPLES = 2
"""Squared, in a pixel of a picture."""

NOBODY, THING = -1, -2
"""What a pixel shows where it shows none of the people."""


@dataclass(frozen=True)
class Maps(Batched):
    """What each pixel shows at its centre, of the bodies without clothes."""

    parts: Int[Tensor, "*batch S S"]
    """1 + j: the skin of SMPL24 joint j of the person whom the scene is about; 0: anything else."""
    depth_m: Float[Tensor, "*batch S S"]
    """Z of the nearest body, in the camera's frame, things looked through; infinite where there is none."""
    person: Int[Tensor, "*batch S S"]
    """Whose body it is, counted through the scene; -1 nobody's, -2 a thing is before all."""


@dataclass(frozen=True)
class Drawn(Batched):
    """Pictures, and what they show."""

    pixels: UInt8[Tensor, "*batch 3 S S"]
    """RGB; black beyond the photograph."""
    maps: Maps


def draw(scenes: Sequence[Scene], square: Square, size_px: int, surface: Surface) -> Drawn:
    """A square of each scene's photograph."""
    return Drawn(pictures(scenes, square, size_px, surface), maps(scenes, square, size_px, surface))


@torch.no_grad()
def pictures(scenes: Sequence[Scene], square: Square, size_px: int, surface: Surface) -> UInt8[Tensor, "n 3 S S"]:
    """What cameras make of the scenes."""
    device, camera = surface.rest_m.device, _crop_cameras(scenes, square, size_px)
    people = torch.empty(len(scenes), size_px, size_px, 4, device=device)
    fine = supersampled(camera.to(device), SAMPLES)
    for rows in alike(scenes):
        people[rows] = _people([scenes[row] for row in rows], square[rows], fine[rows], surface)
    images = softened(_before_grounds(scenes, square, people), _softness_px(scenes, square, size_px))
    photo_px = torch.tensor([scene.photo_px for scene in scenes], dtype=torch.float32)
    return exposed(images, stack([scene.sensor for scene in scenes]).to(device), square, photo_px)


@torch.no_grad()
def maps(scenes: Sequence[Scene], square: Square, size_px: int, surface: Surface) -> Maps:
    """What the pixels show."""
    device, camera = surface.rest_m.device, _crop_cameras(scenes, square, size_px)
    shape = (len(scenes), size_px, size_px)
    parts = torch.zeros(shape, dtype=torch.long, device=device)
    depth_m = torch.full(shape, torch.inf, device=device)
    person = torch.full(shape, NOBODY, dtype=torch.long, device=device)
    for rows in alike(scenes):
        some = [scenes[row] for row in rows]
        bodies = len(some[0])
        vertices_m = _turned([scene.vertices_m for scene in some], square[rows])
        fragments = rasterize(vertices_m.flatten(1, 2), surface.faces_of(bodies), camera[rows].to(device))
        labels = vertex_labels(fragments, surface.faces_of(bodies), surface.parts.repeat(bodies)) + 1
        person[rows] = torch.where(fragments.face == BACKGROUND, NOBODY, fragments.face // len(surface.faces)).long()
        parts[rows] = torch.where(person[rows] == 0, labels, 0).long()
        depth_m[rows] = fragments.depth_m
    hidden, outside = _hidden(scenes, square, size_px).to(device), _outside(scenes, square, size_px).to(device)
    parts[hidden | outside] = 0
    person[hidden] = THING
    person[outside] = NOBODY
    depth_m[outside] = torch.inf
    return Maps(parts, depth_m, person)


def _crop_cameras(scenes: Sequence[Scene], square: Square, size_px: int) -> Camera:
    cameras = [replace(scene.camera, width_px=0, height_px=0) for scene in scenes]
    return crop_camera(stack(cameras), square, size_px)


def alike(scenes: Sequence[Scene]) -> Iterator[list[int]]:
    """The rows of scenes with equally many people, who are drawn at once."""
    counts = [len(scene) for scene in scenes]
    for count in sorted(set(counts)):
        yield [row for row, one in enumerate(counts) if one == count]


def _turned(points_m: Sequence[Float[Tensor, "k V 3"]], square: Square) -> Float[Tensor, "n k V 3"]:
    """As the square shows them."""
    together = torch.stack(list(points_m))
    return turned_points(together.flatten(1, 2), square.angle_rad.to(together)).view(together.shape)


def _people(scenes: Sequence[Scene], square: Square, fine: Camera, surface: Surface) -> Float[Tensor, "n S S 4"]:
    """Equally many people in each scene, dressed and lit."""
    device, bodies = surface.rest_m.device, len(scenes[0])
    vertices_m = _turned([scene.vertices_m for scene in scenes], square)
    light = stack([scene.light for scene in scenes])
    directions = torch.stack([light.direction, light.up], dim=1)
    direction, up = turned_points(directions, square.angle_rad).unbind(1)
    light = replace(light, direction=direction, up=up).to(device)
    look = stack([scene.look for scene in scenes]).to(device)
    normals = surface.normals(vertices_m)
    worn = dressed(vertices_m, normals, surface, look)
    fragments = rasterize(worn.flatten(1, 2), surface.faces_of(bodies), fine)
    return painted(fragments, normals, surface, look, light, SAMPLES)


def _before_grounds(
    scenes: Sequence[Scene], square: Square, people: Float[Tensor, "n S S 4"]
) -> Float[Tensor, "n S S 3"]:
    size_px, device = people.shape[1], people.device
    grounds = np.stack([scene.ground.seen(square[row], size_px) for row, scene in enumerate(scenes)])
    fronts = [front_of(scene.things, square[row], size_px) for row, scene in enumerate(scenes) if scene.things]
    front = np.stack(fronts) if fronts else np.zeros((0, size_px, size_px, 4), np.uint8)
    some = torch.tensor([bool(scene.things) for scene in scenes])
    which = torch.where(some, some.cumsum(0) - 1, -1).int()
    ground, front = (torch.from_numpy(layer).to(device) for layer in (grounds, front))
    return blended(people, ground, front, which.to(device))


def _softness_px(scenes: Sequence[Scene], square: Square, size_px: int) -> Float[Tensor, "n"]:
    """Of the pictures' own pixels."""
    return torch.stack([scene.sensor.softness_px for scene in scenes]) * size_px / square.side_px


def _hidden(scenes: Sequence[Scene], square: Square, size_px: int) -> Bool[Tensor, "n S S"]:
    """Which pixels' centres show a thing."""
    hidden = np.zeros((len(scenes), size_px * size_px), bool)
    for row, scene in enumerate(scenes):
        at_px = centres_px(square[row], size_px).reshape(-1, 2)
        for thing in scene.things:
            hidden[row] |= thing.covers(at_px)
    return torch.from_numpy(hidden).view(-1, size_px, size_px)


def _outside(scenes: Sequence[Scene], square: Square, size_px: int) -> Bool[Tensor, "n S S"]:
    """Which pixels' centres lie beyond the photograph."""
    at_px = np.stack([centres_px(square[row], size_px) for row in range(len(scenes))])
    photo_px = np.array([scene.photo_px for scene in scenes])[:, None, None]
    return torch.from_numpy(~((at_px >= 0) & (at_px < photo_px)).all(-1))
