"""What a detector of joints does to the truth: places that are off, sides that are swapped, joints that are missed.

A person's errors are a function of the person's own generator, whoever else is in the batch: all numbers are drawn in
one call, of one size.

MediaPipe, given the box of the person, in 504 synthetic photographs (`tools/detector_errors.py`, seed 7): errors in
shares of the longer side of the box, as two Gaussians about the truth; logit is the median one of the confidences of
joints that are found within 0.08.

| | in view: core | wide share | wide | logit | hidden: core | wide share | wide | logit | up | out |
|---|---|---|---|---|---|---|---|---|---|---|
| nose | 0.013 | 0.20 | 0.05 | 6.9 | 0.030 | 0.17 | 0.08 | 6.2 | 0.006 | - |
| eye | 0.014 | 0.11 | 0.07 | 6.6 | 0.025 | 0.14 | 0.08 | 6.1 | 0.005 | -0.002 |
| ear | 0.019 | 0.05 | 0.08 | 6.7 | 0.022 | 0.10 | 0.08 | 6.1 | 0.005 | -0.016 |
| shoulder | 0.014 | 0.17 | 0.07 | 6.9 | 0.018 | 0.43 | 0.06 | 6.9 | 0.009 | -0.007 |
| elbow | 0.014 | 0.35 | 0.06 | 2.8 | 0.044 | 0.24 | 0.11 | -1.3 | 0.008 | -0.009 |
| wrist | 0.014 | 0.20 | 0.10 | 2.3 | 0.032 | 0.43 | 0.12 | -1.6 | -0.001 | -0.004 |
| hip | 0.019 | 0.21 | 0.04 | 6.9 | 0.026 | 0.19 | 0.06 | 6.8 | 0.009 | -0.015 |
| knee | 0.014 | 0.15 | 0.09 | 3.2 | 0.029 | 0.36 | 0.09 | 0.1 | 0.001 | -0.003 |
| ankle | 0.019 | 0.16 | 0.09 | 3.2 | 0.030 | 0.59 | 0.13 | 0.8 | 0.017 | 0.000 |

Where an elbow is off by more than 0.08 so is its wrist 64 times of 100, and an ankle 72 times with its knee. Of these
people, many of them cut off or behind things, 24 % are not found, and of 17 % of the others all is somewhere else; left
and right are swapped in 8, 7 and 11 % of those seen from the front, the side and the back, legs alone in 2.8 %, arms in
0.7 %; 35 % of the joints beyond the border are said to be seen within it.

Of 160 people wholly in view (`--scenes.close 0 --scenes.occlude 0 --scenes.others 0 --scenes.tumble 0
--scenes.anyhow 0`) 1.9 % are not found, 2.5 % are lost, sides are swapped in 7, 0 and 4 %, cores are 0.010 to 0.018,
and the median error is 0.019 where the defaults draw 0.023; of the harder ones above it is 0.022, and 0.025.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meshrec.config import require_range
from meshrec.skeletons import COCO17

KINDS = ("nose", "eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
"""Of the joints of COCO-17: left and right are alike."""

LIMBS = (("left", "arm"), ("right", "arm"), ("left", "leg"), ("right", "leg"))
LIMB_KINDS = {"arm": {"elbow": 0.7, "wrist": 1.0}, "leg": {"knee": 0.7, "ankle": 1.0}}
"""Joints that fail together, and how far each moves when they do."""

SHOWN = 0.5
"""A joint of less weight is behind something."""

FRONT = 0.25
"""How far the left side is to the right of the right side, in lengths of the trunk, of people seen from the front."""

WIDTH = 0.5
"""The mean of that of people seen from the front."""

LEAST_TRUNK = 0.1
"""A trunk that is shorter, in sizes of the person, is seen from its end."""


def _limbs() -> Float[Tensor, "4 17"]:
    """How far each joint moves with each limb."""
    shares = torch.zeros(len(LIMBS), len(COCO17))
    for row, (side, limb) in enumerate(LIMBS):
        for kind, share in LIMB_KINDS[limb].items():
            shares[row, COCO17.index(f"{side}_{kind}")] = share
    return shares


_KIND = torch.tensor([KINDS.index(joint.rpartition("_")[2]) for joint in COCO17.joints])
_MIRROR = torch.tensor(COCO17.mirror)
_SIDE = torch.tensor([float(joint.startswith("left_")) - joint.startswith("right_") for joint in COCO17.joints])
_LIMB = _limbs()
_LEAST = 1e-9

LOST_POWER = 4
"""Of the share of a person's joints that are not in view, by which being lost grows more likely."""


@dataclass(frozen=True)
class DetectorErrors:
    """How a detector errs; lengths are shares of the person's size, the longer side of the box about the body.

    The defaults are what is measured of MediaPipe, about a fifth wider, since other detectors err otherwise. People who
    are not found are fewer, for of them there is nothing to recover, and so are swapped sides: synthetic people have no
    faces that would tell front from back.
    """

    spread: tuple[float, ...] = (0.013, 0.013, 0.016, 0.011, 0.012, 0.013, 0.015, 0.011, 0.015)
    """Standard deviation along each axis of a joint that is in view, for each of `KINDS`."""
    hidden_spread: tuple[float, ...] = (0.026, 0.022, 0.022, 0.018, 0.032, 0.036, 0.026, 0.030, 0.036)
    """That of a joint behind something."""
    wide: tuple[float, float] = (0.03, 0.06)
    """Probability of a joint, in view and behind something, that is far off."""
    wide_spread: float = 0.08
    """Standard deviation of those."""
    limb_wide: tuple[float, float] = (0.07, 0.25)
    """Probability of a limb that is off as a whole, by `wide_spread` again."""
    shift: float = 0.005
    """Standard deviation of what all joints of a person are off by together."""
    up: tuple[float, ...] = (0.0, 0.005, 0.005, 0.007, 0.005, -0.004, 0.011, 0.0, 0.017)
    """How much higher along the trunk joints are looked for than they are here, for each of `KINDS`."""
    out: tuple[float, ...] = (0.0, -0.005, -0.016, -0.007, -0.006, -0.003, -0.017, -0.004, 0.0)
    """How much farther from the body's middle, of people seen from the front or the back."""
    habit: float = 0.7
    """Standard deviation of a person's own factor of `up` and `out`, about 1."""
    missed: tuple[float, float] = (0.02, 0.12)
    """Probability of a joint, in view and behind something, that is not found."""
    limb_missed: tuple[float, float] = (0.01, 0.10)
    """Probability of a limb that is not found."""
    body_swap: tuple[float, float, float] = (0.03, 0.02, 0.06)
    """Probability that left and right are taken for each other, of people seen from the front, side and back."""
    limb_swap: tuple[float, float] = (0.008, 0.022)
    """Probability that the arms are, and that the legs are."""
    vary: float = 0.35
    """Standard deviation of the logarithm of what all the above, but `up` and `out`, is multiplied by for a person."""
    lost: tuple[float, float] = (0.015, 0.9)
    """Probability of a person all of whose joints are somewhere else, if all of them are in view and if none is."""
    not_found: float = 0.03
    """Probability of a person who is not found."""
    false_seen: float = 0.4
    """Probability of a joint beyond the border that is said to be seen within it."""
    sure: tuple[float, ...] = (5.5, 5.5, 5.5, 5.5, 3.5, 2.8, 5.5, 3.8, 3.5)
    """The mean logit of the confidence of a joint that is found about where it is, for each of `KINDS`."""
    hidden_sure: tuple[float, ...] = (4.5, 4.5, 4.5, 4.5, -0.5, -1.0, 4.5, 1.5, 1.5)
    """Of a joint behind something."""
    wrong_sure: float = 1.2
    """Of a joint that is far off, or beyond the border."""
    sure_spread: float = 2.0
    """Standard deviation of the logit."""
    calibration: float = 1.0
    """Standard deviation of a person's own shift of all logits: detectors mean different things by the same number."""

    def __post_init__(self) -> None:
        for name in ("spread", "hidden_spread", "up", "out", "sure", "hidden_sure"):
            if len(getattr(self, name)) != len(KINDS):
                raise ValueError(f"{name} is {getattr(self, name)}; it takes a number for each of {', '.join(KINDS)}")
        for name in ("wide", "limb_wide", "missed", "limb_missed", "body_swap", "limb_swap", "lost"):
            if not all(0 <= share <= 1 for share in getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; probabilities lie between 0 and 1")
        require_range(self, not_found=(0, 1), false_seen=(0, 1), wide_spread=(0, 1), shift=(0, 1), habit=(0, 10))
        require_range(self, vary=(0, 3), sure_spread=(0, 10), calibration=(0, 10))


_NONE, _SURE = (0.0,) * len(KINDS), (30.0,) * len(KINDS)

NO_ERRORS = DetectorErrors(
    **dict.fromkeys(("spread", "hidden_spread", "up", "out"), _NONE),
    **dict.fromkeys(("wide", "limb_wide", "missed", "limb_missed", "limb_swap", "lost"), (0.0, 0.0)),
    **dict.fromkeys(("shift", "habit", "vary", "not_found", "false_seen", "sure_spread", "calibration"), 0.0),
    body_swap=(0.0, 0.0, 0.0),
    sure=_SURE,
    hidden_sure=_SURE,
    wrong_sure=_SURE[0],
)
"""Of a detector that knows the truth, and is sure of it."""


@dataclass(frozen=True)
class Chance:
    """What is drawn for people: uniform between 0 and 1 where it decides something, else standard normal."""

    vary: Float[Tensor, "n"]
    habit: Float[Tensor, "n"]
    not_found: Float[Tensor, "n"]
    lost: Float[Tensor, "n"]
    body_swap: Float[Tensor, "n"]
    turn: Float[Tensor, "n"]
    calibration: Float[Tensor, "n"]
    shift: Float[Tensor, "n 2"]
    limb_swap: Float[Tensor, "n 2"]
    """Arms, legs."""
    limb_wide: Float[Tensor, "n 4"]
    limb_missed: Float[Tensor, "n 4"]
    limb_off: Float[Tensor, "n 4 2"]
    wide: Float[Tensor, "n 17"]
    missed: Float[Tensor, "n 17"]
    false_seen: Float[Tensor, "n 17"]
    sure: Float[Tensor, "n 17"]
    off: Float[Tensor, "n 17 2"]
    far: Float[Tensor, "n 17 2"]

    @classmethod
    def of(cls, randoms: Sequence[np.random.Generator]) -> "Chance":
        """From each person's own generator, in one call of one size."""
        sizes = [math.prod(shape) for shape in _SHAPES.values()]
        drawn = torch.from_numpy(np.stack([random.random(sum(sizes)) for random in randoms]))
        parts = drawn.clamp(_LEAST, 1 - _LEAST).split(sizes, dim=1)
        shaped = {
            name: (torch.special.ndtri(part) if name in _NORMAL else part).float().reshape(len(randoms), *shape)
            for (name, shape), part in zip(_SHAPES.items(), parts, strict=True)
        }
        return cls(**shaped)

    def to(self, device: torch.device) -> "Chance":
        """On a device."""
        return Chance(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


_SHAPES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("vary", "habit", "not_found", "lost", "body_swap", "turn", "calibration"), ()),
    **dict.fromkeys(("shift", "limb_swap"), (2,)),
    **dict.fromkeys(("limb_wide", "limb_missed"), (len(LIMBS),)),
    "limb_off": (len(LIMBS), 2),
    **dict.fromkeys(("wide", "missed", "false_seen", "sure"), (len(COCO17),)),
    **dict.fromkeys(("off", "far"), (len(COCO17), 2)),
}
_NORMAL = {"vary", "habit", "calibration", "shift", "limb_off", "sure", "off", "far"}


def detected_like(
    points: Float[Tensor, "n 17 2"],
    weight: Float[Tensor, "n 17"],
    size_px: Float[Tensor, "n"],
    errors: DetectorErrors,
    randoms: Sequence[np.random.Generator],
) -> tuple[Float[Tensor, "n 17 2"], Float[Tensor, "n 17"]]:
    """Where a detector says that COCO-17's joints are, and how surely: 0 where it does not find them.

    The weight is 1 where a joint is in view, less than `SHOWN` where it is behind something, and 0 where it lies beyond
    the border. Points and size are in pixels of the same picture.
    """
    return Detection(points, weight, size_px, errors, Chance.of(randoms).to(points.device)).said()


class Detection:
    """How people are seen, by chance."""

    def __init__(
        self,
        points: Float[Tensor, "n 17 2"],
        weight: Float[Tensor, "n 17"],
        size_px: Float[Tensor, "n"],
        errors: DetectorErrors,
        chance: Chance,
    ) -> None:
        self.points, self.size_px, self.errors, self.chance = points, size_px, errors, chance
        self.kind, self.limbs = _KIND.to(points.device), _LIMB.to(points)
        self.hidden, self.beyond = weight < SHOWN, weight <= 0
        self.limb_hidden = self.hidden.to(points) @ self.limbs.T > 0
        self.times = torch.exp(errors.vary * chance.vary)[:, None]
        unseen = self.hidden.to(points).mean(dim=1) ** LOST_POWER
        self.lost = chance.lost < errors.lost[0] + (errors.lost[1] - errors.lost[0]) * unseen

    def said(self) -> tuple[Float[Tensor, "n 17 2"], Float[Tensor, "n 17"]]:
        """Points and confidences."""
        points, wrong = self._moved()
        confidence = torch.where(self._missed(), 0.0, self._sure(wrong))
        swapped = self._swapped()
        points = torch.where(swapped[..., None], points[:, _MIRROR], points)
        return points, torch.where(swapped, confidence[:, _MIRROR], confidence)

    def _moved(self) -> tuple[Float[Tensor, "n 17 2"], Bool[Tensor, "n 17"]]:
        """Where the joints are found, and which of them far from where they are."""
        chance, errors = self.chance, self.errors
        near = self.times * torch.where(self.hidden, *map(self._of_kind, (errors.hidden_spread, errors.spread)))
        wide = chance.wide < self._share(errors.wide, self.hidden)
        limb = (chance.limb_wide < self._share(errors.limb_wide, self.limb_hidden)).to(self.points)
        far = wide[..., None] * chance.far + self.limbs.T @ (limb[..., None] * chance.limb_off)
        off = errors.shift * chance.shift[:, None] + near[..., None] * chance.off + errors.wide_spread * far
        points = self._turned(self.points + self.size_px[:, None, None] * (off + self._habit()))
        points = torch.where(self.beyond[..., None], self._within(points), points)
        return points, wide | (limb @ self.limbs > 0) | self.lost[:, None] | self.beyond

    def _habit(self) -> Float[Tensor, "n 17 2"]:
        """By how much joints are elsewhere by the detector's definition."""
        up, left = _trunk(self.points)
        length = up.norm(dim=-1, keepdim=True).clamp_min(LEAST_TRUNK * self.size_px[:, None] + _LEAST)
        up, left = up / length, left / length / WIDTH
        outwards = self._of_kind(self.errors.out) * _SIDE.to(self.points)
        habit = self._of_kind(self.errors.up)[:, None] * up[:, None] + outwards[:, None] * left[:, None]
        return (1 + self.errors.habit * self.chance.habit)[:, None, None] * habit

    def _turned(self, points: Float[Tensor, "n 17 2"]) -> Float[Tensor, "n 17 2"]:
        """Turned anyhow about their middle, of people who are lost."""
        angle = 2 * math.pi * self.chance.turn
        cosine, sine = angle.cos(), angle.sin()
        turn = torch.stack([cosine, -sine, sine, cosine], dim=-1).unflatten(-1, (2, 2))
        middle = points.mean(dim=1, keepdim=True)
        return torch.where(self.lost[:, None, None], middle + (points - middle) @ turn.mT, points)

    def _within(self, points: Float[Tensor, "n 17 2"]) -> Float[Tensor, "n 17 2"]:
        """As near as may be to where they are, among the joints that lie within the border."""
        inside = ~self.beyond[..., None]
        low = torch.where(inside, self.points, torch.inf).amin(dim=1, keepdim=True)
        high = torch.where(inside, self.points, -torch.inf).amax(dim=1, keepdim=True)
        return torch.where(low <= high, points.clamp(low, high.maximum(low)), points)

    def _missed(self) -> Bool[Tensor, "n 17"]:
        chance, errors = self.chance, self.errors
        limb = chance.limb_missed < self._share(errors.limb_missed, self.limb_hidden)
        missed = (chance.missed < self._share(errors.missed, self.hidden)) | (limb.to(self.points) @ self.limbs > 0)
        missed = torch.where(self.beyond, chance.false_seen >= errors.false_seen, missed)
        return missed | (chance.not_found < errors.not_found)[:, None]

    def _sure(self, wrong: Bool[Tensor, "n 17"]) -> Float[Tensor, "n 17"]:
        """Confidences of what is found; one is not surer of what is wrong."""
        chance, errors = self.chance, self.errors
        right = torch.where(self.hidden, *map(self._of_kind, (errors.hidden_sure, errors.sure)))
        logit = torch.where(wrong, right.clamp_max(errors.wrong_sure), right)
        return (logit + errors.sure_spread * chance.sure + errors.calibration * chance.calibration[:, None]).sigmoid()

    def _swapped(self) -> Bool[Tensor, "n 17"]:
        """Which joints are taken for the other side's."""
        chance, errors = self.chance, self.errors
        body = chance.body_swap < self.times[:, 0] * by_view(errors.body_swap, facing(self.points))
        pairs = chance.limb_swap < self.times * self.points.new_tensor(errors.limb_swap)
        limb = pairs.repeat_interleave(2, dim=1).to(self.points) @ self.limbs > 0
        return body[:, None] ^ limb

    def _share(self, shares: tuple[float, float], hidden: Bool[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """Probabilities in view and behind something."""
        return self.times * torch.where(hidden, shares[1], shares[0])

    def _of_kind(self, numbers: tuple[float, ...]) -> Float[Tensor, "17"]:
        return self.points.new_tensor(numbers)[self.kind]


def facing(points: Float[Tensor, "*batch 17 2"]) -> Float[Tensor, "*batch"]:
    """How far the left side is on the right of the right side, in lengths of the trunk; negative from behind."""
    up, left = _trunk(points)
    area = up[..., 0] * left[..., 1] - up[..., 1] * left[..., 0]
    return area / up.square().sum(-1).clamp_min(_LEAST)


def by_view(shares: tuple[float, float, float], facing: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The number for people seen from the front, the side or the back."""
    front, side, back = (torch.full_like(facing, share) for share in shares)
    return torch.where(facing > FRONT, front, torch.where(facing < -FRONT, back, side))


def _trunk(points: Float[Tensor, "*batch 17 2"]) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch 2"]]:
    """From the middle of the hips to that of the shoulders, and from the right side to the left."""

    def middle(*joints: str) -> Float[Tensor, "*batch 2"]:
        return points[..., COCO17.indices(*joints), :].mean(dim=-2)

    up = middle("left_shoulder", "right_shoulder") - middle("left_hip", "right_hip")
    return up, middle("left_shoulder", "left_hip") - middle("right_shoulder", "right_hip")
