"""How a detector errs about people of whom the truth is known, beside what `DetectorErrors` draws for the same people.

    python tools/detector_errors.py --people 504 --scenes.backgrounds FOLDER --scenes.mocap FILES -o errors.json
    python tools/detector_errors.py --photos FOLDER --annotations annotations.json

MediaPipe is given the box of one person in a photograph: a synthetic one, or an annotated one. Lengths are shares of
the longer side of the box. A person is lost whose joints are off by more than 0.12 in the mean, whichever side is
taken for the left; the rest is told of the others, left and right put right. The core and the wide errors are the two
parts of a mixture of Gaussians. "hidden" is behind something, or behind the own body.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float
from photo_fit import read_annotations
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from meshrec.blazepose import MediaPipeDetector
from meshrec.body import load_body_model
from meshrec.camera import project
from meshrec.data.body_joints import BODY58, body_joints, row_name
from meshrec.data.detector_errors import FRONT, KINDS, DetectorErrors, detected_like, facing
from meshrec.data.synthetic.people import box_of, seen
from meshrec.data.synthetic.photograph import photographed
from meshrec.data.synthetic.scene import Synthesizer
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.errors import MeshrecError
from meshrec.files import write_text
from meshrec.photo import Photo, read_photo
from meshrec.randomness import generator_of
from meshrec.skeletons import COCO17, convert
from meshrec.types import Batched, stack

ROWS = BODY58.indices(*(row_name(joint, COCO17) for joint in COCO17.joints))
MIRROR = list(COCO17.mirror)
KIND = np.array([KINDS.index(joint.rpartition("_")[2]) for joint in COCO17.joints])
BODY = KINDS.index("shoulder") <= KIND
LOST, FAR, SEEN = 0.12, 0.08, 0.3
SWAPPED = 0.7
"""Sides are swapped if that makes the error less than this share of what it is."""
APART = 0.03
"""Sides that are nearer to each other cannot be told apart."""
AT_ONCE = 24


@dataclass(frozen=True)
class Case(Batched):
    """What is true of somebody, and what was found."""

    points: Float[Tensor, "*batch 17 2"]
    weight: Float[Tensor, "*batch 17"]
    """1 seen, less hidden, 0 beyond the border."""
    size_px: Float[Tensor, "*batch"]
    found: Float[Tensor, "*batch 17 2"]
    confidence: Float[Tensor, "*batch 17"]
    """All 0 where nobody was found."""


@dataclass(frozen=True)
class Joints:
    """How joints of one kind are found."""

    joints: int
    core: float
    wide_share: float
    wide: float
    up: float
    out: float
    logit_right: float
    logit_far: float
    unsure: float
    """Share of confidences below 0.3."""


@dataclass(frozen=True)
class Errors:
    """How people are found."""

    people: int
    not_found: float
    lost: float
    swapped_front: float
    swapped_side: float
    swapped_back: float
    swapped_arms: float
    swapped_legs: float
    shift: float
    """Standard deviation of the mean error of a person's joints in view."""
    person_10: float
    person_50: float
    person_90: float
    """Tenth parts of the people have a median error below this, half of them, and nine tenths."""
    beyond_seen: float
    """Share of joints beyond the border whose confidence is 0.3 or more."""
    wrist_with_elbow: float
    ankle_with_knee: float
    """Share of those far off (0.08), where the other joint of the limb is far off too."""
    in_view: dict[str, Joints]
    hidden: dict[str, Joints]


def rendered(config: SyntheticConfig, people: int, seed: int) -> Iterator[tuple[Photo, Float[Tensor, "4"], Case]]:
    """Synthetic photographs, with the box and the truth of whom they are about; nothing found yet."""
    model = load_body_model()
    synthesizer = Synthesizer(config, model)
    for first in range(0, people, AT_ONCE):
        places = range(first, min(first + AT_ONCE, people))
        scenes = synthesizer.scenes([generator_of(seed, "detector errors", place) for place in places])
        joints_m = body_joints(model, stack([scene.params[0] for scene in scenes]))
        weight = seen(scenes, joints_m, synthesizer.surface).weight[:, ROWS]
        shots = photographed(scenes, synthesizer)
        for row, (scene, shot) in enumerate(zip(scenes, shots, strict=True)):
            box = box_of(scene)
            points = project(joints_m[row][ROWS], scene.camera)
            yield Photo(shot.pixels, Path(f"{places[row]}.png")), box, _unfound(points, weight[row], box)


def annotated(photos: Path, annotations: Path) -> Iterator[tuple[Photo, Float[Tensor, "4"], Case]]:
    """Annotated photographs; all that is annotated counts as seen."""
    for name, people in read_annotations(annotations).items():
        for person in people:
            points, weight = person.keypoints.xy_px, person.keypoints.confidence
            yield read_photo(photos / name), person.box_xyxy_px, _unfound(points, weight, person.box_xyxy_px)


def _unfound(points: Float[Tensor, "17 2"], weight: Float[Tensor, "17"], box: Float[Tensor, "4"]) -> Case:
    return Case(points, weight, (box[2:] - box[:2]).amax(), torch.zeros(17, 2), torch.zeros(17))


def detected(detector: MediaPipeDetector, photo: Photo, box: Float[Tensor, "4"], case: Case) -> Case:
    """What a detector finds in the box."""
    person = detector.in_box(photo, box)
    if person is None:
        return case
    keypoints = person.keypoints
    values = torch.cat([keypoints.xy_px, keypoints.confidence[:, None]], dim=-1)
    found, _ = convert(values, keypoints.skeleton, COCO17)
    return replace(case, found=found[:, :2], confidence=found[:, 2])


def drawn(cases: Case, errors: DetectorErrors, seed: int) -> Case:
    """What is drawn for the same people."""
    randoms = [generator_of(seed, "drawn", person) for person in range(len(cases.points))]
    found, confidence = detected_like(cases.points, cases.weight, cases.size_px, errors, randoms)
    return replace(cases, found=found, confidence=confidence)


def measured(cases: Case) -> Errors:
    """The figures of some people."""
    found = (cases.confidence > 0).any(1)
    case = cases[found]
    inside = (case.weight > 0).numpy()
    straight, crossed = _errors(case, case.found), _errors(case, case.found[:, MIRROR])
    apart = _mean((case.points - case.points[:, MIRROR]).norm(dim=-1) / case.size_px[:, None], inside)
    straight_mean, crossed_mean = (_mean(each.norm(dim=-1), inside) for each in (straight, crossed))
    lost = np.minimum(straight_mean, crossed_mean) > LOST
    swapped = ~lost & (crossed_mean < SWAPPED * straight_mean) & (apart > APART)
    view, right = facing(case.points).numpy(), ~lost & ~swapped
    off = straight.norm(dim=-1).numpy()
    near = [one[one < FAR] for one in (row[use] for row, use in zip(off, inside, strict=True))]
    medians = np.array([np.median(one) for one, use in zip(near, right, strict=True) if use and len(one)])
    means = [straight[i][torch.from_numpy(inside[i] & (off[i] < FAR))].mean(0) for i in np.flatnonzero(right)]
    views = (view > FRONT, abs(view) <= FRONT, view < -FRONT)
    front, side, back = (_share(swapped[which & ~lost]) for which in views)
    arms, legs = (_limb_swaps(off, crossed.norm(dim=-1).numpy(), inside, kinds)[right] for kinds in LIMBS)
    sure = (case.confidence >= SEEN).numpy()
    hidden = (case.weight < 1).numpy() & inside
    return Errors(
        people=len(found),
        not_found=1 - float(found.float().mean()),
        lost=_share(lost),
        swapped_front=front,
        swapped_side=side,
        swapped_back=back,
        swapped_arms=_share(arms),
        swapped_legs=_share(legs),
        shift=float(torch.stack(means).nan_to_num().std()) if means else float("nan"),
        person_10=_quantile(medians, 0.1),
        person_50=_quantile(medians, 0.5),
        person_90=_quantile(medians, 0.9),
        beyond_seen=_share(sure[right][~inside[right]]),
        wrist_with_elbow=_together(off[right], inside[right], LIMBS[0]),
        ankle_with_knee=_together(off[right], inside[right], LIMBS[1]),
        in_view=_by_kind(case, straight, inside & ~hidden & right[:, None]),
        hidden=_by_kind(case, straight, hidden & right[:, None]),
    )


LIMBS = (("elbow", "wrist"), ("knee", "ankle"))


def _errors(case: Case, found: Float[Tensor, "n 17 2"]) -> Float[Tensor, "n 17 2"]:
    return (found - case.points) / case.size_px[:, None, None]


def _mean(values: Float[Tensor, "n 17"], inside: Bool[np.ndarray, "n 17"]) -> Float[np.ndarray, "n"]:
    """Over the joints of trunk and limbs within the border."""
    use = inside & BODY
    return (values.numpy() * use).sum(1) / np.maximum(use.sum(1), 1)


def _share(which: Bool[np.ndarray, "*n"]) -> float:
    return float(which.mean()) if which.size else float("nan")


def _quantile(values: Float[np.ndarray, "n"], share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else float("nan")


def _limb_swaps(
    off: Float[np.ndarray, "n 17"],
    crossed: Float[np.ndarray, "n 17"],
    inside: Bool[np.ndarray, "n 17"],
    kinds: Sequence[str],
) -> Bool[np.ndarray, "n"]:
    """Whose arms, or legs, are taken for each other."""
    use = inside & np.isin(KIND, [KINDS.index(kind) for kind in kinds])
    straight, other = (off * use).sum(1), (crossed * use).sum(1)
    return (other < SWAPPED * straight) & (straight > 2 * LOST)


def _together(off: Float[np.ndarray, "n 17"], inside: Bool[np.ndarray, "n 17"], kinds: Sequence[str]) -> float:
    """How often the far joint of a limb is far off where the near one is."""
    near, far = ([COCO17.index(f"{side}_{kind}") for side in ("left", "right")] for kind in kinds)
    both = inside[:, near] & inside[:, far] & (off[:, near] > FAR)
    return _share(off[:, far][both] > FAR)


def _by_kind(case: Case, errors: Float[Tensor, "n 17 2"], which: Bool[np.ndarray, "n 17"]) -> dict[str, Joints]:
    up, left = _axes(case.points)
    side = torch.tensor([joint.startswith("left_") - float(joint.startswith("right_")) for joint in COCO17.joints])
    along, out = (errors * up).sum(-1).numpy(), ((errors * left).sum(-1) * side).numpy()
    frontal = (facing(case.points).abs() > FRONT).numpy()[:, None]
    logit = case.confidence.clamp(1e-3, 1 - 1e-3).logit().numpy()
    kinds = {}
    for place, kind in enumerate(KINDS):
        use = which & (place == KIND)
        off = errors.numpy()[use]
        if len(off) < 2 * len(KINDS):
            continue
        core, share, wide = _mixture((off**2).sum(1))
        far = use & (errors.norm(dim=-1).numpy() > FAR)
        kinds[kind] = Joints(
            joints=len(off),
            core=core,
            wide_share=share,
            wide=wide,
            up=_quantile(along[use & frontal], 0.5),
            out=_quantile(out[use & frontal], 0.5),
            logit_right=_quantile(logit[use & ~far], 0.5),
            logit_far=_quantile(logit[far], 0.5),
            unsure=_share(case.confidence.numpy()[use] < SEEN),
        )
    return kinds


def _axes(points: Float[Tensor, "n 17 2"]) -> tuple[Float[Tensor, "n 1 2"], Float[Tensor, "n 1 2"]]:
    """Unit vectors up the trunk, and to the person's left."""
    middles = [points[:, COCO17.indices(f"left_{one}", f"right_{one}")].mean(1) for one in ("shoulder", "hip")]
    up = torch.nn.functional.normalize(middles[0] - middles[1], dim=-1)
    left = torch.stack([-up[:, 1], up[:, 0]], dim=-1) * facing(points).sign()[:, None]
    return up[:, None], left[:, None]


def _mixture(squared: Float[np.ndarray, "n"]) -> tuple[float, float, float]:
    """Deviation of the core, share of the wide part and its deviation: two Gaussians about 0 by EM."""
    core, wide, share = np.median(squared) / (2 * np.log(2)), 0.15**2, 0.1
    for _ in range(200):
        narrow = (1 - share) / core * np.exp(-squared / (2 * core))
        broad = share / wide * np.exp(-squared / (2 * wide))
        belongs = broad / (narrow + broad + 1e-300)
        share = belongs.mean()
        wide = max((belongs * squared).sum() / (2 * belongs.sum() + 1e-9), 4 * core)
        core = ((1 - belongs) * squared).sum() / (2 * (1 - belongs).sum() + 1e-9)
    return float(np.sqrt(core)), float(share), float(np.sqrt(wide))


def _tell(console: Console, told: Mapping[str, Errors]) -> None:
    people = Table("", *told)
    for name, value in asdict(next(iter(told.values()))).items():
        if not isinstance(value, dict):
            people.add_row(name, *(f"{getattr(each, name):.4g}" for each in told.values()))
    console.print(people)
    for whose, errors in told.items():
        for group, kinds in (("in view", errors.in_view), ("hidden", errors.hidden)):
            table = Table(f"{whose}, {group}", *(one.name for one in fields(Joints)))
            for kind, row in kinds.items():
                table.add_row(kind, *(f"{value:.3g}" for value in asdict(row).values()))
            console.print(table)


def main(
    people: int = 504,
    seed: int = 7,
    photos: Path | None = None,
    annotations: Path | None = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    scenes: SyntheticConfig = SyntheticConfig(),  # noqa: B008
    errors: DetectorErrors = DetectorErrors(),  # noqa: B008
) -> int:
    """Measure MediaPipe's errors, and print them beside those that are drawn.

    Args:
        people: So many synthetic photographs.
        seed: Of the photographs.
        photos: Folder of annotated photographs, in place of synthetic ones.
        annotations: Their annotations.
        output: File for the figures, as JSON.
        scenes: What synthetic photographs are like.
        errors: What is drawn.
    """
    detector = MediaPipeDetector(1)
    if photos is not None and annotations is None:
        raise MeshrecError("--photos needs the --annotations of the photographs: give them too.")
    shown = rendered(scenes, people, seed) if photos is None or annotations is None else annotated(photos, annotations)
    told = track(shown, "detecting", console=Console(stderr=True), transient=True)
    found = [detected(detector, *each) for each in told]
    if not found:
        raise MeshrecError("There is nobody to look for: ask for some --people, or annotate some in the photographs.")
    cases = stack(found)
    told_of = {"detector": measured(cases), "drawn": measured(drawn(cases, errors, seed))}
    _tell(Console(), told_of)
    if output is not None:
        figures = {name: asdict(each) for name, each in told_of.items()}
        write_text(output, json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(main))
    except MeshrecError as wrong:
        sys.exit(str(wrong))
