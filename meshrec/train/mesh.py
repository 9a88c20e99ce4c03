"""The task that trains mesh regressors: from a crop of a photograph to a body, on a mix of data sets."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from meshrec.body import BodyModel, load_body_model
from meshrec.config import require_positive
from meshrec.data.augment import AugmentConfig
from meshrec.data.body_joints import BODY58, row_name
from meshrec.data.crop import normalised
from meshrec.data.loader import Loader, validation_batches
from meshrec.data.mixture import Mixture
from meshrec.data.people import People
from meshrec.data.record_files import BETAS
from meshrec.data.records import Gender, Records, open_records
from meshrec.errors import MeshrecError
from meshrec.metrics import mpjpe_mm, pa_mpjpe_mm, pve_mm
from meshrec.models.backbones import COARSEST
from meshrec.models.checkpoint import load_backbone
from meshrec.models.mesh_file import open_regressor
from meshrec.models.part_attention import Regressed
from meshrec.models.regressor import MeshNetConfig, MeshRegressor
from meshrec.prior_files import open_prior
from meshrec.record_evaluation import JOINTS14
from meshrec.skeletons import H36M17
from meshrec.train.descent import Phase
from meshrec.train.mesh_lesson import Bodies, Lesson, lesson_of
from meshrec.train.mesh_losses import MeshCriterion, MeshLosses
from meshrec.train.processes import Share
from meshrec.train.training import LoopConfig
from meshrec.types import BodyParams
from priors.prior import Prior

JUDGED = BODY58.indices(*(row_name(joint, H36M17) for joint in JOINTS14))
PELVIS = BODY58.index(row_name("pelvis", H36M17))


@dataclass(frozen=True)
class MeshRun:
    """Training of a mesh regressor; the defaults are end to end, as the network's own."""

    task: Literal["mesh"] = "mesh"
    data: tuple[Path, ...] = ()
    """Folders of records to train on."""
    mix: dict[str, float] = field(default_factory=dict)
    """How often each data set is drawn from, by its name; they need not sum to 1. Empty: everybody as often."""
    validation: tuple[Path, ...] = ()
    """Folders of records to validate on, of which those whose pose and shape are known count."""
    select_by: Literal["pa_mpjpe_mm", "mpjpe_mm", "pve_mm"] = "pa_mpjpe_mm"
    """The figure by which the best model is chosen."""
    network: MeshNetConfig = field(default_factory=MeshNetConfig)
    start: Path | None = None
    """Weights to start from."""
    start_is: Literal["regressor", "backbone"] = "regressor"
    """Whether they are a whole regressor's (of a run, or a published checkpoint), or a backbone's alone."""
    norms: Literal["batch", "frozen"] = "batch"
    """Batch norms take the means of each process's part of the batch, or keep those that they started with."""
    losses: MeshLosses = field(default_factory=MeshLosses)
    prior: str = "flow"
    """The pose prior of losses.prior, by name or path."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    body: str = "neutral"
    """The body that the answers are for, by name or path."""
    gendered: bool = False
    """Whether men's and women's true bodies are the models `male` and `female`; else all have the answers' body."""
    workers: int = 4
    """Threads of each process that decode and cut pictures."""
    channels_last: bool = True
    """How pictures lie in memory; it changes the speed alone."""
    compile: bool = False
    """Whether torch compiles the network: minutes at the start, faster steps after."""
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        require_positive(self, "workers")
        if self.network.input != "rgb":
            raise ValueError(f"network.input is {self.network.input}; records show colours, so it must be rgb")
        if self.norms == "batch" and self.loop.batch < 2 * self.loop.accumulate:
            raise ValueError(f"loop.batch is {self.loop.batch}; batch norms need 2 examples in each part at least")


@dataclass(frozen=True)
class Turn:
    """A share of a step's people, and what they teach."""

    step: int
    people: People
    lesson: Lesson


class MeshNetworks(nn.Module):
    """The regressor, under the name that its file gives its tensors."""

    def __init__(self, network: MeshRegressor, frozen_norms: bool = False) -> None:
        super().__init__()
        self.network, self.frozen_norms = network, frozen_norms

    def train(self, mode: bool = True) -> "MeshNetworks":
        """Frozen batch norms stay as they are."""
        super().train(mode)
        if self.frozen_norms:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class MeshTask:
    """A mesh regressor, the people it learns from, and how well it does with others."""

    def __init__(
        self,
        config: MeshRun,
        network: MeshRegressor,
        bodies: Mapping[Gender, BodyModel],
        records: Sequence[Records],
        unseen: Sequence[Records],
        device: torch.device,
        prior: Prior | None = None,
    ) -> None:
        self.config, self.device, self.records, self.unseen = config, device, records, unseen
        self._refuse()
        self._models, self.bodies = bodies, Bodies(bodies).to(device).requires_grad_(False)
        self.mixture = Mixture.of(records, config.mix or {one.name: float(len(one)) for one in records})
        crop_px, seed = config.network.crop_px, config.loop.seed
        self.loader = Loader(records, self.mixture, bodies, crop_px, config.augment, seed, config.workers)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.networks = MeshNetworks(network, config.norms == "frozen").to(device)
        self.networks.to(memory_format=layout)  # type: ignore[call-overload]
        self._asked = torch.compile(network) if config.compile else network
        self.criterion = MeshCriterion(config.losses, self.bodies.neutral, prior).to(device)
        self.fingerprint = fingerprint_of(records, unseen)
        self._step, self._speed = 0, 0.0
        self._taken: tuple[int, slice, People] | None = None

    @property
    def model(self) -> nn.Module:
        """The regressor."""
        return self.networks

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One: everything steps together."""
        return (Phase("mesh", (self.networks,)),)

    @property
    def selected_by(self) -> str:
        """What the configuration says."""
        return self.config.select_by

    def batch(self, step: int, share: Share) -> Turn:
        """People of this step, with their crops cut, and what they teach."""
        self._step = step
        people = self._people(step, share).to(self.device)
        labels_px = self.config.losses.labels_px(step, self.config.network.crop_px)
        return Turn(step, people, lesson_of(people, self.bodies, labels_px))

    def losses(self, phase: str, batch: Turn) -> dict[str, Tensor]:
        """The network in the precision of the loop; bodies and losses in float32."""
        said = self._said(self._asked, batch.people)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.criterion(said, batch.lesson, batch.step)
            return {name: value.mean() for name, value in terms.items()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """3DPW's protocol, millimetres: 14 joints by the H36M regressor about the pelvis; vertices about it too."""
        assert isinstance(model, MeshNetworks)
        errors: dict[str, list[Tensor]] = {}
        for people in self._others():
            for name, each in self._errors(self._said(model.network, people), people).items():
                errors.setdefault(name, []).append(each)
        return {name: float(torch.cat(each).double().mean()) for name, each in errors.items()}

    def describe(self, batch: Turn) -> str:
        """Data set, source, sequence and frame of everybody."""
        places = zip(batch.people.dataset.tolist(), batch.people.row.tolist(), strict=True)
        return ", ".join(told(self.records[dataset], row) for dataset, row in places)

    def told(self) -> dict[str, float]:
        """How fast crops are made, and what share of the last steps' people each data set gave."""
        loop = self.config.loop
        steps = range(max(0, self._step + 1 - loop.log_every), self._step + 1)
        drawn = torch.cat([self.mixture.draw(loop.seed, step, loop.batch).dataset for step in steps])
        shares = {f"share/{name}": share for name, share in self.mixture.realised(drawn).items()}
        if not self._speed:
            self._speed = self._loader_alone()
        return shares | {"loader_images_per_s": self._speed}

    def _people(self, step: int, share: Share) -> People:
        """A share's people; what the process accumulates is taken from the loader in one piece."""
        batch, parts = self.config.loop.batch, self.config.loop.accumulate
        rows, own = share.rows(batch), Share(share.index // parts, share.count // parts).rows(batch)
        if self._taken is None or self._taken[:2] != (step, own):
            self._taken = step, own, self.loader.take(step, own)
        return self._taken[2][rows.start - own.start : rows.stop - own.start]

    def _loader_alone(self) -> float:
        """Crops a second while nothing else is done."""
        start = time.perf_counter()
        return len(self.loader.take(0, slice(0, self.config.loop.batch))) / (time.perf_counter() - start)

    def _said(self, network: Callable[[Tensor], Regressed], people: People) -> Regressed:
        """The network's answers, in float32 at least."""
        image = normalised(people.pixels).to(next(self.networks.parameters()).dtype)
        if self.config.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return network(image).map(lambda value: value.to(torch.promote_types(value.dtype, torch.float32)))

    # ---- people never trained on

    def _others(self) -> Iterator[People]:
        crop_px, batch = self.config.network.crop_px, self.config.loop.batch
        for records in self.unseen:
            for people in validation_batches(records, self._models, crop_px, batch, self.config.workers):
                if bool((people.posed & people.shaped).any()):
                    yield people.to(self.device)

    def _refuse(self) -> None:
        """Data that say nothing of any body cannot be validated on."""
        if not any(one.known_bodies.any() for one in self.unseen):
            raise MeshrecError(
                f"None of the people in {', '.join(str(one.path) for one in self.unseen)} has a known body, so nothing "
                f"can be measured on them. Name other folders with --validation FOLDER..."
            )

    def _errors(self, said: Regressed, people: People) -> dict[str, Float[Tensor, "n"]]:
        """Of each person whose body is known."""
        known = people.posed & people.shaped
        params = BodyParams.from_rotations(said.rotations, said.betas, torch.zeros_like(said.weak))[known]
        true_params, gender = people.params[known], people.gender[known]
        answers = torch.zeros_like(gender)
        found, true = self.bodies.joints(params, answers), self.bodies.joints(true_params, gender)
        vertices, true_vertices = self.bodies.vertices(params, answers), self.bodies.vertices(true_params, gender)
        pelvis, true_pelvis = (joints[:, PELVIS, None] for joints in (found, true))
        joints, true_joints = found[:, JUDGED] - pelvis, true[:, JUDGED] - true_pelvis
        return {
            "pa_mpjpe_mm": pa_mpjpe_mm(joints, true_joints),
            "mpjpe_mm": mpjpe_mm(joints, true_joints),
            "pve_mm": pve_mm(vertices - pelvis, true_vertices - true_pelvis),
        }


def told(records: Records, row: int) -> str:
    """Where a person is to be found."""
    return f"{records.name} {records.told(row)}, frame {int(records.column('frame')[row])}"


def fingerprint_of(*splits: Sequence[Records]) -> str:
    """A hash of the data sets' own."""
    digest = sha256()
    for records in splits:
        digest.update(repr([(one.name, one.split, one.fingerprint) for one in records]).encode())
    return digest.hexdigest()[:16]


def started(config: MeshRun) -> MeshRegressor:
    """The regressor at its start: random, but for the weights that it is given."""
    generator = torch.Generator().manual_seed(config.loop.seed)
    if config.start_is == "backbone":
        if config.start is None:
            raise MeshrecError(
                "start_is is backbone, and no weights are given. Name a backbone's with --start FILE, or begin at "
                "random ones with --start-is regressor."
            )
        network = MeshRegressor(config.network, generator)
        load_backbone(network, config.start)
        return network
    if config.start is None:
        return MeshRegressor(config.network, generator)
    given = open_regressor(config.start)
    wanted, found = (asdict(replace(each, crop_px=COARSEST)) for each in (config.network, given.config))
    for name, value in wanted.items():
        if found[name] != value:
            raise MeshrecError(
                f"start is {config.start}, a regressor whose {name} is {found[name]}; network.{name} is {value}. Name "
                f"the weights of such a network, or set network.{name} to {found[name]}."
            )
    given.config = config.network
    return given.requires_grad_(True)


def bodies_of(config: MeshRun) -> dict[Gender, BodyModel]:
    """The answers' body, and men's and women's own where they are asked for."""
    bodies: dict[Gender, BodyModel] = {"neutral": load_body_model(config.body)}
    if config.gendered:
        bodies |= {"male": load_body_model("male"), "female": load_body_model("female")}
    kind = len(bodies["neutral"].parts)
    for body in bodies.values():
        if body.num_betas < BETAS:
            raise MeshrecError(
                f"The body {body.file.name} has {body.num_betas} shape directions, and a mesh regressor answers with "
                f"{BETAS}. Name another with --body."
            )
        if len(body.parts) != kind:
            raise MeshrecError(
                f"The bodies {config.body} and {body.file.name} have {kind} and {len(body.parts)} vertices and cannot "
                f"be compared. Name a body of the same kind with --body."
            )
    return bodies


def build_mesh_task(config: MeshRun, device: torch.device) -> MeshTask:
    """The task of a configuration, its data, bodies and weights opened."""
    for name in ("data", "validation"):
        if not getattr(config, name):
            raise MeshrecError(f"No people for {name}: name folders of records with --{name} FOLDER...")
    records = [open_records(path) for path in config.data]
    unseen = [open_records(path) for path in config.validation]
    bodies, prior = bodies_of(config), open_prior(config.prior) if config.losses.prior else None
    return MeshTask(config, started(config), bodies, records, unseen, device, prior)
