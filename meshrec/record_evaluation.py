"""How far a branch's bodies are from the true ones of people in records, by the protocol that methods are compared by.

The protocol of 3DPW (von Marcard et al. 2018) as SPIN (Kolotouros et al. 2019) and its successors have it: the H36M-17
joints of the answer and of the truth, both about their pelvis; 14 of them count.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from meshrec.body import BodyModel, load_body_model
from meshrec.branches.mesh import Sight
from meshrec.branches.registry import Branch, ask
from meshrec.camera import project
from meshrec.data.record_files import GENDERS, MARK
from meshrec.data.records import Gender, Record, Records
from meshrec.errors import MeshrecError
from meshrec.metrics import joint_error_mm, mpjpe_mm, n_mpjpe_mm, pa_joint_error_mm, pve_mm
from meshrec.skeletons import COCO17, H36M17
from meshrec.types import Batched, BodyParams, Camera, Estimate, joined, stack

ProtocolName = Literal["3dpw"]

UNCOUNTED = ("pelvis", "spine", "face")
JOINTS14 = tuple(joint for joint in H36M17.joints if joint not in UNCOUNTED)
"""LSP's joints by their places in Human3.6M."""
PLACES14 = H36M17.indices(*JOINTS14)

PEOPLE_AT_ONCE = 32
"""So many records are in the memory together."""

PVE_ALIGNMENT = "both bodies about their H36M-17 pelvis"


@dataclass(frozen=True)
class Protocol:
    """What was measured, and how: it stands beside every figure."""

    name: ProtocolName
    body: str
    """The body of the answers."""
    truth_bodies: dict[str, str]
    """The body of the truth, by gender."""
    gendered: bool
    """Whether the truth of men and women is shown by bodies of their own."""
    regressor: str
    """Where the joints come from."""
    joints: tuple[str, ...] = JOINTS14
    root: str = "pelvis"
    """What the joints are about before they are compared; it is no joint that counts."""
    pa_mpjpe: str = "after the best similarity of the counted joints, a proper rotation, person by person"
    pve: str = PVE_ALIGNMENT
    average: str = "over people, each frame of each counting once; who has no answer is in no mean, and counted"


@dataclass(frozen=True)
class Placed(Batched):
    """Bodies about the pelvis of H36M-17, and where that is in the frame of the camera; NaN is not known."""

    joints17_m: Float[Tensor, "*batch 17 3"]
    coco17_m: Float[Tensor, "*batch 17 3"]
    """COCO-17 joints."""
    vertices_m: Float[Tensor, "*batch V 3"]
    root_m: Float[Tensor, "*batch 3"]


@dataclass(frozen=True)
class PeopleErrors(Batched):
    """How far answers are from the truth; NaN where there is no answer, or nothing to compare it with."""

    joints_mm: Float[Tensor, "*batch 14"]
    """Of each counted joint, about the pelvis."""
    pa_joints_mm: Float[Tensor, "*batch 14"]
    """The same after the best similarity."""
    pve_mm: Float[Tensor, "*batch"]
    n_mpjpe_mm: Float[Tensor, "*batch"]
    """About the pelvis, after the best scale."""
    mpjpe17_mm: Float[Tensor, "*batch"]
    """Of all 17 joints, the pelvis among them."""
    pa_mpjpe17_mm: Float[Tensor, "*batch"]
    reprojection_px: Float[Tensor, "*batch"]
    """Mean distance of the counted joints in the photograph."""
    coco17_px: Float[Tensor, "*batch"]
    """Mean distance of the COCO-17 joints from where the true body's are, of those that are in the photograph."""
    coco17_percent: Float[Tensor, "*batch"]
    """The same, in hundredths of the longer side of the person's box."""

    @property
    def mpjpe_mm(self) -> Float[Tensor, "*batch"]:
        """Mean over the counted joints."""
        return self.joints_mm.mean(-1)

    @property
    def pa_mpjpe_mm(self) -> Float[Tensor, "*batch"]:
        """Mean over the counted joints after the best similarity."""
        return self.pa_joints_mm.mean(-1)


@dataclass(frozen=True, eq=False)
class Roll:
    """The people who are asked for: rows of records whose SMPL pose and shape are known."""

    records: tuple[Records, ...]
    which: Int[np.ndarray, "N"]
    """Of the records, for each person."""
    row: Int[np.ndarray, "N"]
    left_out: int = 0
    """People without SMPL truth."""

    def __len__(self) -> int:
        return len(self.row)

    def record(self, person: int) -> Record:
        """A person's record, its picture decoded."""
        return self.records[self.which[person]][int(self.row[person])]

    def told(self, person: int) -> str:
        """Where a person's record lies."""
        return self.records[self.which[person]].told(int(self.row[person]))

    @cached_property
    def datasets(self) -> Shaped[np.ndarray, "N"]:
        """The data set of each person."""
        return np.array([records.name for records in self.records])[self.which]

    @cached_property
    def sequences(self) -> Shaped[np.ndarray, "N"]:
        """The sequence of each person."""
        columns = [np.char.decode(records.column("sequence"), "utf-8", "replace") for records in self.records]
        return np.array([columns[which][row] for which, row in zip(self.which, self.row, strict=True)])

    @cached_property
    def genders(self) -> set[Gender]:
        """Whose bodies the truth is of."""
        codes = {bytes(code) for records in self.records for code in np.unique(records.column("gender"))}
        genders: tuple[Gender, ...] = ("male", "female")
        named: set[Gender] = {gender for gender in genders if GENDERS[gender] in codes}
        neutral: set[Gender] = {"neutral"}
        return named if codes == {GENDERS[gender] for gender in named} else named | neutral


class TruthBodies:
    """The bodies that show the truth: the answers' for everybody, or men's and women's own."""

    def __init__(self, model: BodyModel, genders: set[Gender], gendered: bool) -> None:
        self.model, self.gendered = model, gendered
        own = {gender: _gendered(gender) for gender in genders if gender != "neutral"} if gendered else {}
        self.models: dict[Gender, BodyModel] = {gender: own.get(gender, model) for gender in sorted(genders)}
        for body in self.models.values():
            if len(body.parts) != len(model.parts):
                raise MeshrecError(
                    f"The bodies {body.file.name} and {model.file.name} have {len(body.parts)} and {len(model.parts)} "
                    f"vertices and cannot be compared; name a body of the same kind with --body."
                )

    @torch.no_grad()
    def shown(self, records: Sequence[Record]) -> Placed:
        """The true bodies of records that have them."""
        return joined([self._shown(record) for record in records])

    def _shown(self, record: Record) -> Placed:
        assert record.truth is not None
        model = self.models[record.truth.gender]
        params = record.truth.params[None].to(model.template.device, model.template.dtype)
        joints17 = model.regressed(params, H36M17)
        root = joints17[:, H36M17.index("pelvis")]
        known = root if record.placed else torch.full_like(root, torch.nan)
        joints17, coco17, vertices = (
            points - root[:, None] for points in (joints17, _coco17_m(model, params), model(params).vertices_m)
        )
        return Placed(joints17, coco17, vertices, known)


def _coco17_m(model: BodyModel, params: BodyParams) -> Float[Tensor, "N 17 3"]:
    """The COCO-17 joints of bodies; NaN where their file has no regressor for them."""
    if COCO17.name not in model.regressors:
        return params.transl_m.new_full((len(params.transl_m), len(COCO17), 3), torch.nan)
    return model.regressed(params, COCO17)


def _gendered(gender: Gender) -> BodyModel:
    try:
        return load_body_model(gender)
    except MeshrecError as error:
        raise MeshrecError(
            f"--gendered shows the truth by the body {gender!r}: {error} Or leave --gendered out: everybody's truth is "
            f"then shown by the body of the answers, which is another protocol."
        ) from error


def protocol_of(name: ProtocolName, truth: TruthBodies) -> Protocol:
    """The protocol with its bodies."""
    file = truth.model.file
    composed = "composed of its joints" if H36M17.name in file.composed else "its file's own"
    bodies = {gender: _told(model) for gender, model in truth.models.items()}
    return Protocol(name, _told(truth.model), bodies, truth.gendered, f"H36M-17 of each body, {composed}")


def _told(model: BodyModel) -> str:
    return f"{model.file.name} (sha256 {model.file.sha256[:12]})"


def holds_records(path: Path) -> bool:
    """Whether a path names a folder of records."""
    return (path / MARK).is_file()


def roll_of(records: Sequence[Records], most: int | None = None) -> Roll:
    """Everybody whose SMPL pose and shape are known; or so many of them, evenly spread."""
    known = [each.known_bodies for each in records]
    which = np.concatenate([np.full(mask.sum(), index) for index, mask in enumerate(known)])
    row = np.concatenate([mask.nonzero()[0] for mask in known])
    if not len(row):
        where = ", ".join(str(each.path) for each in records)
        raise MeshrecError(f"{where}: nobody's SMPL pose and shape are known there, so no answer can be measured.")
    kept = (
        np.arange(len(row)) if most is None else np.linspace(0, len(row) - 1, min(most, len(row))).round().astype(int)
    )
    return Roll(tuple(records), which[kept], row[kept], sum(map(len, known)) - len(row))


def errors_of(
    answer: Placed, truth: Placed, camera: Camera, box_px: Float[Tensor, "N"], inside: Bool[Tensor, "N 17"]
) -> PeopleErrors:
    """N answers against the truth, seen by cameras whose pixels are the photograph's.

    The longer sides of the people's boxes are given, and which of their COCO-17 joints lie in the photograph.
    """
    counted, true = answer.joints17_m[:, PLACES14], truth.joints17_m[:, PLACES14]
    coco17_px = _shown_px(answer, truth, answer.coco17_m, truth.coco17_m, camera)
    coco17_px = torch.where(inside, coco17_px, 0.0).sum(-1) / inside.sum(-1)
    return PeopleErrors(
        joints_mm=joint_error_mm(counted, true),
        pa_joints_mm=pa_joint_error_mm(counted, true),
        pve_mm=pve_mm(answer.vertices_m, truth.vertices_m),
        n_mpjpe_mm=n_mpjpe_mm(counted, true),
        mpjpe17_mm=mpjpe_mm(answer.joints17_m, truth.joints17_m),
        pa_mpjpe17_mm=pa_joint_error_mm(answer.joints17_m, truth.joints17_m).mean(-1),
        reprojection_px=_shown_px(answer, truth, counted, true, camera).mean(-1),
        coco17_px=coco17_px,
        coco17_percent=100 * coco17_px / box_px,
    )


def _shown_px(
    answer: Placed, truth: Placed, points_m: Float[Tensor, "N K 3"], true_m: Float[Tensor, "N K 3"], camera: Camera
) -> Float[Tensor, "N K"]:
    """Distances in the image of points about the pelvis; NaN where the answer's is behind the camera."""
    points_m, true_m = points_m + answer.root_m[:, None], true_m + truth.root_m[:, None]
    distance_px = (project(points_m, camera) - project(true_m, camera)).norm(dim=-1)
    return torch.where(points_m[..., 2] > 0, distance_px, torch.nan)


def placed_of(answer: Estimate | MeshrecError, model: BodyModel) -> Placed:
    """What a branch says of one person, with a leading axis; all NaN where it says nothing."""
    vertices = len(model.parts)
    unknown = Placed(*(torch.full((1, *shape), torch.nan) for shape in ((17, 3), (17, 3), (vertices, 3), (3,))))
    if isinstance(answer, MeshrecError):
        return unknown
    joints17 = answer.joints17_m.float().cpu()
    if answer.report is not None:
        joints17 = torch.where(answer.report.solvable.cpu()[:, None, None], joints17, torch.nan)
    if answer.root_m is None:
        return replace(unknown, joints17_m=joints17)
    root = answer.root_m.float().cpu()
    found = replace(unknown, joints17_m=joints17, root_m=root)
    answered = joints17.isfinite().all(-1).all(-1)[:, None, None]
    if answer.body is not None:
        vertices_m = answer.body.vertices_m.float().cpu() - root[:, None]
        found = replace(found, vertices_m=torch.where(answered, vertices_m, torch.nan))
    if answer.params is not None:
        coco17_m = _coco17_m(model, answer.params.to(model.template.device, model.template.dtype)).float().cpu()
        found = replace(found, coco17_m=torch.where(answered, coco17_m - root[:, None], torch.nan))
    return found


@dataclass(frozen=True, eq=False)
class Case:
    """A person, what a branch says of them, and the truth."""

    record: Record
    sight: Sight
    answer: Estimate | MeshrecError
    placed: Placed
    truth: Placed

    @property
    def photo_camera(self) -> Camera:
        """The record's camera with a pixel of the photograph for its unit: where there is a truth to project."""
        camera = self.sight.camera
        return Camera(camera.focal_px / self.record.scale, camera.center_px / self.record.scale, 0, 0, "true")

    @property
    def inside(self) -> Bool[Tensor, "17"]:
        """Which of the true COCO-17 joints lie in the photograph; none where their place is not known."""
        true_m = self.truth.coco17_m[0] + self.truth.root_m[0]
        xy_px = project(true_m, self.photo_camera) + self.record.corner_px
        size_px = torch.tensor(self.record.photo_size_px)
        return ((xy_px >= 0) & (xy_px <= size_px)).all(-1) & (true_m[:, 2] > 0)

    @property
    def box_px(self) -> Float[Tensor, ""]:
        """The longer side of the person's box in the photograph."""
        low, high = self.record.box_xyxy_px.view(2, 2)
        return (high - low).amax()


def cases(branch: Branch, truth: TruthBodies, records: Sequence[Record]) -> list[Case]:
    """A branch is asked for the people of some records."""
    sights = []
    for record in records:
        photo, person, camera = record.as_photo()
        sights.append(Sight(photo, (person,), camera))
    answers, bodies = ask(branch, sights), truth.shown(records).to("cpu", torch.float32)
    return [
        Case(record, sight, answer, placed_of(answer, truth.model), bodies[index : index + 1])
        for index, (record, sight, answer) in enumerate(zip(records, sights, answers, strict=True))
    ]


@dataclass(frozen=True, eq=False)
class Measured:
    """The errors of everybody on the roll, in its order."""

    errors: PeopleErrors
    problems: tuple[str, ...]
    """A sentence for each who could not be read or asked for."""
    seconds: float

    @property
    def answered(self) -> Bool[Tensor, "N"]:
        """Of whom there is an answer."""
        return self.errors.joints_mm.isfinite().all(-1)


@torch.no_grad()
def measured(
    branch: Branch, truth: TruthBodies, roll: Roll, advance: Callable[[int], object] = lambda done: None
) -> Measured:
    """Ask for everybody on the roll, some at a time; `advance` is told of each few."""
    parts, problems, began = [], [], time.perf_counter()
    for start in range(0, len(roll), PEOPLE_AT_ONCE):
        people = range(start, min(start + PEOPLE_AT_ONCE, len(roll)))
        readable = {}
        for person in people:
            try:
                readable[person] = roll.record(person)
            except MeshrecError as error:
                problems.append(str(error))
        asked = cases(branch, truth, list(readable.values())) if readable else []
        problems += [
            f"{roll.told(person)}: {case.answer}"
            for person, case in zip(readable, asked, strict=True)
            if isinstance(case.answer, MeshrecError)
        ]
        parts.append(_spread(_errors_of(asked), [person - start for person in readable], len(people)))
        advance(len(people))
    return Measured(joined(parts), tuple(problems), time.perf_counter() - began)


def _errors_of(asked: Sequence[Case]) -> PeopleErrors | None:
    if not asked:
        return None
    answers, truths = (joined([getattr(case, what) for case in asked]) for what in ("placed", "truth"))
    cameras = stack([case.photo_camera for case in asked])
    box_px, inside = (torch.stack([getattr(case, what) for case in asked]) for what in ("box_px", "inside"))
    return errors_of(answers, truths, cameras, box_px, inside)


def _spread(errors: PeopleErrors | None, places: Sequence[int], people: int) -> PeopleErrors:
    """Errors at their places among all people; NaN for the others."""
    shapes = ((14,), (14,), (), (), (), (), (), (), ())
    unknown = PeopleErrors(*(torch.full((people, *shape), torch.nan) for shape in shapes))
    if errors is None:
        return unknown
    where = torch.tensor(places)
    columns = {
        name: getattr(unknown, name).index_copy(0, where, getattr(errors, name).float()) for name in vars(errors)
    }
    return PeopleErrors(**columns)
