"""Synthetic people as a network is taught with them, and an endless loader of them."""

import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import conv2d, pad

from meshrec.body import BodyModel
from meshrec.camera import project
from meshrec.data.augment import BRIGHTEST, PLAIN, AugmentConfig, Draw, draw_of, line_kernel
from meshrec.data.body_joints import BODY58, body_joints
from meshrec.data.crop import crop_camera, square_of, turned
from meshrec.data.people import GENDER_NAMES, People
from meshrec.data.synthetic.draw import alike, pictures
from meshrec.data.synthetic.poses import PoseSource
from meshrec.data.synthetic.scene import Scene, Synthesizer
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.data.synthetic.surface import Surface
from meshrec.data.synthetic.visibility import first_hits
from meshrec.randomness import generator_of
from meshrec.types import Batched, joined, stack

HIDDEN = 0.3
"""How sure a joint is that something hides, or the own body does."""

NEAREST_M = 0.2
"""A nearer joint is not seen."""

CHUNK = 8
"""Places of a batch that are made at once: the same ones always, so that nothing depends on who asks for which."""

ROUND = 67
"""Steps, where everybody is seen more than once: a prime, so that chunks that met once do not soon meet again."""

FLESH = 1.2
SKIN_M = 0.03
"""A joint behind more of its own body than `FLESH` times the flesh about it, and `SKIN_M`, is hidden by the body."""


@dataclass(frozen=True)
class Seen(Batched):
    """What a photograph shows of the joints of the person whom it is about; the rows are BODY58's."""

    inside: Bool[Tensor, "*batch 58"]
    """Whether the joint lies in the photograph."""
    behind: Bool[Tensor, "*batch 58"]
    """Whether another body or a thing is before it."""
    own: Bool[Tensor, "*batch 58"]
    """Whether another part of the own body is before it."""

    @property
    def weight(self) -> Float[Tensor, "*batch 58"]:
        """1 seen, `HIDDEN` hidden, 0 beyond the photograph."""
        return torch.where(self.behind | self.own, HIDDEN, 1.0) * self.inside


def seen(scenes: Sequence[Scene], joints_m: Float[Tensor, "n 58 3"], surface: Surface) -> Seen:
    """What the photographs show of these joints of the first people, in the cameras' frames."""
    inside, behind = torch.zeros(len(scenes), len(BODY58), dtype=torch.bool), []
    own = torch.zeros_like(inside)
    reach_m = FLESH * surface.flesh_m.cpu() + SKIN_M
    for row, scene in enumerate(scenes):
        xy_px = project(joints_m[row].double(), scene.camera.to(torch.float64))
        within = ((xy_px >= 0) & (xy_px < torch.tensor(scene.photo_px))).all(-1)
        inside[row] = within & (joints_m[row, :, 2] >= NEAREST_M)
        hidden = np.zeros(len(BODY58), bool)
        for thing in scene.things:
            hidden |= thing.covers(xy_px.numpy())
        behind.append(torch.from_numpy(hidden))
    behind = torch.stack(behind)
    for rows in alike(scenes):
        vertices_m = torch.stack([scenes[row].vertices_m for row in rows])
        hits = first_hits(joints_m[rows].to(vertices_m), vertices_m, surface.faces).cpu()
        nearest, *others = hits.unbind(1)
        own[rows] = nearest < joints_m[rows, :, 2] - reach_m
        for other in others:
            behind[rows] |= other < torch.minimum(nearest, joints_m[rows, :, 2])
    return Seen(inside, behind, own)


@torch.no_grad()
def people_of_scenes(
    scenes: Sequence[Scene],
    synthesizer: Synthesizer,
    crop_px: int,
    draws: Sequence[Draw] | None = None,
    drawn: bool = True,
) -> People:
    """The people whom scenes are about, along one batch axis; the body is the neutral one.

    Where they are not `drawn`, their pictures are black.
    """
    draws, model, surface = draws or [PLAIN] * len(scenes), synthesizer.model, synthesizer.surface
    params = stack([scene.params[0] for scene in scenes])
    joints_m = body_joints(model, params)
    rest_pelvis_m = model.kinematics(params).rest_m[:, 0]
    camera = stack([replace(scene.camera, width_px=0, height_px=0, focal_source="given") for scene in scenes])
    square = stack([draw.square(square_of(box_of(scene))) for draw, scene in zip(draws, scenes, strict=True)])
    points, weight = square.into(project(joints_m, camera), crop_px), seen(scenes, joints_m, surface).weight
    pixels = torch.zeros(len(scenes), 3, crop_px, crop_px, dtype=torch.uint8)
    if drawn:
        pixels = _augmented(pictures(scenes, square, crop_px, surface), points, weight, draws)
    people = People(
        pixels=pixels,
        square=square,
        flipped=torch.zeros(len(scenes), dtype=torch.bool),
        points=points,
        weight=weight,
        joints_m=torch.zeros(len(scenes), len(BODY58), 3),
        joints_weight=torch.zeros(len(scenes), len(BODY58)),
        params=turned(params, square.angle_rad, rest_pelvis_m),
        rest_pelvis_m=rest_pelvis_m,
        camera=crop_camera(camera, square, crop_px),
        posed=torch.ones(len(scenes), dtype=torch.bool),
        shaped=torch.ones(len(scenes), dtype=torch.bool),
        placed=torch.ones(len(scenes), dtype=torch.bool),
        gender=torch.full((len(scenes),), GENDER_NAMES.index("neutral")),
        dataset=torch.zeros(len(scenes), dtype=torch.long),
        row=torch.arange(len(scenes)),
    )
    flip = torch.tensor([draw.flip for draw in draws]).long()
    return stack([people, people.mirrored()])[flip, torch.arange(len(scenes))]


def box_of(scene: Scene) -> Float[Tensor, "4"]:
    """The box around the first body in the photograph, cut off at its border."""
    xy_px = project(scene.vertices_m[0], scene.camera.to(scene.vertices_m.device))
    ends = torch.stack([xy_px.amin(0), xy_px.amax(0)]).cpu()
    return ends.clamp(torch.zeros(2), torch.tensor(scene.photo_px).float()).flatten()


def _augmented(
    pixels: UInt8[Tensor, "n 3 S S"],
    points: Float[Tensor, "n 58 2"],
    weight: Float[Tensor, "n 58"],
    draws: Sequence[Draw],
) -> UInt8[Tensor, "n 3 S S"]:
    """Other colours, motion, and things in the way: what `Draw.painted` does to a crop of a record."""
    for row, draw in enumerate(draws):
        if draw.occluders:
            joints = points[row][weight[row] > 0].numpy()
            painted = replace(draw, colour=PLAIN.colour, blur_px=0.0).painted(_picture(pixels[row]), joints)
            pixels[row] = torch.from_numpy(painted).permute(2, 0, 1).to(pixels.device)
    factors = torch.tensor([draw.colour for draw in draws], device=pixels.device)[..., None, None]
    pixels = (pixels * factors).round_().clamp_(max=BRIGHTEST).to(torch.uint8)
    for row, draw in enumerate(draws):
        if draw.blur_px:
            pixels[row] = _blurred(pixels[row], draw)
    return pixels


def _picture(pixels: UInt8[Tensor, "3 S S"]) -> UInt8[np.ndarray, "S S 3"]:
    return np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())


def _blurred(pixels: UInt8[Tensor, "3 S S"], draw: Draw) -> UInt8[Tensor, "3 S S"]:
    """Motion during the exposure."""
    kernel = torch.from_numpy(line_kernel(draw.blur_px, draw.blur_rad)).to(pixels.device)
    reach = len(kernel) // 2
    padded = pad(pixels.float()[:, None], (reach, reach, reach, reach), mode="reflect")
    return conv2d(padded, kernel[None, None]).round_().clamp_(0, BRIGHTEST)[:, 0].to(torch.uint8)


class SyntheticLoader:
    """Training batches without end: everybody is a function of (seed, step, place), whatever the threads.

    Warp, torch and OpenCV work without Python's lock, so threads are enough. They end when the loader is let go.
    """

    def __init__(
        self,
        config: SyntheticConfig,
        model: BodyModel,
        crop_px: int = 224,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        workers: int = 2,
        ahead: int = 2,
        poses: PoseSource | None = None,
        device: torch.device | str = "cpu",
        *,
        drawn: bool = True,
        repeats: int = 1,
    ) -> None:
        """Pictures are drawn on `device`; where other poses than the configuration's are wanted, they are given.

        Everybody comes back in `repeats` steps, among others each time: what is made for `ROUND` steps does for
        `repeats` times as many. Where people are not `drawn` their pictures are black.
        """
        self.synthesizer = Synthesizer(config, model, poses, device)
        self.drawn, self.repeats, self.round = drawn, repeats, ROUND if repeats > 1 else 1
        self.crop_px, self.augment, self.seed, self.ahead = crop_px, augment, seed, ahead
        self.threads = ThreadPoolExecutor(workers, "synthetic", initializer=torch.set_num_threads, initargs=(1,))
        weakref.finalize(self, self.threads.shutdown, wait=False, cancel_futures=True)
        self.begun: dict[tuple[int, int], Future[People]] = {}

    def take(self, step: int, rows: slice) -> People:
        """The places `rows` of the global batch of a step; those that the next steps need are begun."""
        start, stop = rows.start or 0, rows.stop
        chunks = range(start // CHUNK, -(-stop // CHUNK))
        wanted = [(made, chunk) for made in self._needed(step) for chunk in chunks]
        for key in self.begun.keys() - set(wanted):
            self.begun.pop(key).cancel()
        for key in wanted:
            if key not in self.begun:
                self.begun[key] = self.threads.submit(self._made, *key)
        ready = [self.begun[self._made_as(step, chunk), chunk].result() for chunk in chunks]
        first = chunks.start * CHUNK
        return joined(ready)[start - first : stop - first]

    def _needed(self, step: int) -> range:
        """For which steps people are made who are seen in this round, and in the next as far as it should be begun."""
        rounds, place = divmod(step, self.repeats * self.round)
        first = rounds * self.round
        return range(first, first + self.round + min(place // self.repeats + self.ahead, self.round * self.ahead))

    def _made_as(self, step: int, chunk: int) -> int:
        """The step for which the people were made who are seen in a chunk of this one: chunks meet others each time."""
        rounds, place = divmod(step, self.repeats * self.round)
        time, place = divmod(place, self.round)
        return rounds * self.round + (place + time * (chunk + 1)) % self.round

    def _made(self, step: int, chunk: int) -> People:
        return made(self.synthesizer, self.crop_px, self.augment, self.seed, step, chunk, self.drawn)


def made(
    synthesizer: Synthesizer,
    crop_px: int,
    augment: AugmentConfig | None,
    seed: int,
    step: int,
    chunk: int,
    drawn: bool = True,
) -> People:
    """The people of one chunk of a step's global batch."""
    places = range(chunk * CHUNK, (chunk + 1) * CHUNK)
    scenes = synthesizer.scenes([generator_of(seed, "scene", step, place) for place in places])
    draws = [draw_of(augment, generator_of(seed, "augment", step, place)) if augment else PLAIN for place in places]
    people = people_of_scenes(scenes, synthesizer, crop_px, draws, drawn)
    return replace(people, row=torch.tensor(places))
