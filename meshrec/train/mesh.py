"""The task that trains mesh regressors: from a crop of a photograph to a body, on a mix of data sets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from meshrec.body import BodyModel, load_body_model
from meshrec.config import require_positive, require_range
from meshrec.data.augment import AugmentConfig
from meshrec.data.body_joints import BODY58, row_name
from meshrec.data.crop import normalised
from meshrec.data.detector_errors import DetectorErrors
from meshrec.data.loader import Loader
from meshrec.data.people import People
from meshrec.data.records import Gender, open_records
from meshrec.data.synthetic.people import SyntheticLoader
from meshrec.data.synthetic.poses import poses_of
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.errors import MeshrecError
from meshrec.metrics import mpjpe_mm, pa_mpjpe_mm, pve_mm
from meshrec.models.part_attention import Regressed
from meshrec.models.proxy import proxy
from meshrec.models.regressor import MeshNetConfig, MeshRegressor
from meshrec.prior_files import open_prior
from meshrec.record_evaluation import JOINTS14
from meshrec.skeletons import H36M17
from meshrec.train.descent import Phase
from meshrec.train.mesh_lesson import Bodies, Lesson, into_sight, lesson_of, turned_whole
from meshrec.train.mesh_losses import MeshCriterion, MeshLosses
from meshrec.train.mesh_people import UNSEEN_SEED, Crowd, Sighted, Unseen, fingerprint_of, mixture_of
from meshrec.train.mesh_start import StartIs, bodies_of, started
from meshrec.train.processes import Share
from meshrec.train.training import LoopConfig
from meshrec.types import BodyParams
from priors.prior import Prior

JUDGED = BODY58.indices(*(row_name(joint, H36M17) for joint in JOINTS14))
PELVIS = BODY58.index(row_name("pelvis", H36M17))

AHEAD = 2
"""Steps whose synthetic people are made ahead."""


@dataclass(frozen=True)
class MeshRun:
    """Training of a mesh regressor; the defaults are end to end, as the network's own."""

    task: Literal["mesh"] = "mesh"
    data: tuple[Path, ...] = ()
    """Folders of records to train on."""
    mix: dict[str, float] = field(default_factory=dict)
    """How often each data set is drawn from, by its name; they need not sum to 1. Empty: everybody as often."""
    synthetic_share: float = 0.0
    """How much of each batch is synthetic people instead; 1: all, and there is no `data`."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """Who these are, and how they are taken."""
    synthetic_repeats: int = 1
    """Each of them is learned from in so many steps, found with other errors each time: so much less is drawn. Those of
    up to 134 steps stay in the memory, and those of 67 are drawn first when a run goes on."""
    errors: DetectorErrors = field(default_factory=DetectorErrors)
    """How the detector errs that finds the joints of synthetic people; those of records count as found."""
    validation: tuple[Path, ...] = ()
    """Folders of records to validate on, of which those whose pose and shape are known count."""
    validation_synthetic: int = 0
    """Validate on so many synthetic people too, others than are trained on, the same in every run."""
    select_by: Literal["pa_mpjpe_mm", "mpjpe_mm", "pve_mm"] = "pa_mpjpe_mm"
    """The figure by which the best model is chosen."""
    network: MeshNetConfig = field(default_factory=MeshNetConfig)
    start: Path | None = None
    """Weights to start from."""
    start_is: StartIs = "regressor"
    """Whether they are a whole regressor's (of a run, or a published checkpoint), a backbone's alone, or a regressor's
    of which only the guess by its joints is taken, and stays as it is."""
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
    """Threads of each process that decode and cut pictures, and as many that draw synthetic people."""
    channels_last: bool = True
    """How pictures lie in memory; it changes the speed alone."""
    compile: bool = False
    """Whether torch compiles the network: minutes at the start, faster steps after."""
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        require_positive(self, "workers")
        require_range(self, synthetic_repeats=(1, 1000), synthetic_share=(0, 1), validation_synthetic=(0, 1_000_000))
        if self.network.backbone == "none" and self.losses.parts:
            raise ValueError(f"losses.parts is {self.losses.parts}; a network without a backbone draws no parts")
        if self.norms == "batch" and self.loop.batch < 2 * self.loop.accumulate:
            raise ValueError(f"loop.batch is {self.loop.batch}; batch norms need 2 examples in each part at least")


@dataclass(frozen=True)
class Turn:
    """A share of a step's people, and what they teach."""

    step: int
    sighted: Sighted
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
        crowd: Crowd,
        unseen: Unseen,
        fingerprint: str,
        device: torch.device,
        prior: Prior | None = None,
    ) -> None:
        self.config, self.device, self.crowd, self.unseen = config, device, crowd, unseen
        self.bodies = Bodies(bodies).to(device).requires_grad_(False)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.networks = MeshNetworks(network, config.norms == "frozen").to(device)
        self.networks.to(memory_format=layout)  # type: ignore[call-overload]
        self._asked = torch.compile(network) if config.compile else network
        self.criterion = MeshCriterion(config.losses, self.bodies.neutral, prior).to(device)
        self.fingerprint = fingerprint
        self._step = 0
        self._taken: tuple[int, slice, Sighted] | None = None

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
        sighted = self._people(step, share)
        labels_px = self.config.losses.labels_px(step, self.config.network.crop_px)
        return Turn(step, sighted, lesson_of(sighted.people, self.bodies, labels_px, self.config.network.root))

    def losses(self, phase: str, batch: Turn) -> dict[str, Tensor]:
        """The network in the precision of the loop; bodies and losses in float32."""
        said = self._said(self._asked, batch.sighted)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.criterion(said, batch.lesson, batch.step)
            return {name: value.mean() for name, value in terms.items()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """3DPW's protocol, millimetres: 14 joints by the H36M regressor about the pelvis; vertices about it too."""
        assert isinstance(model, MeshNetworks)
        errors: dict[str, list[Tensor]] = {}
        for sighted in self.unseen:
            for name, each in self._errors(self._said(model.network, sighted), sighted.people).items():
                errors.setdefault(name, []).append(each)
        return {name: float(torch.cat(each).double().mean()) for name, each in errors.items()}

    def describe(self, batch: Turn) -> str:
        """Data set, source, sequence and frame of everybody."""
        people = batch.sighted.people
        places = zip(people.dataset.tolist(), people.row.tolist(), strict=True)
        return ", ".join(self.crowd.told(dataset, row) for dataset, row in places)

    def told(self) -> dict[str, float]:
        """How fast crops are made, and what share of the last steps' people each data set gave."""
        loop = self.config.loop
        steps = range(max(0, self._step + 1 - loop.log_every), self._step + 1)
        shares = {f"share/{name}": share for name, share in self.crowd.shares(steps, loop.batch).items()}
        return shares | self.crowd.alone_per_s(loop.batch)

    def _people(self, step: int, share: Share) -> Sighted:
        """A share's people; what the process accumulates is taken from the loaders in one piece."""
        batch, parts = self.config.loop.batch, self.config.loop.accumulate
        rows, own = share.rows(batch), Share(share.index // parts, share.count // parts).rows(batch)
        if self._taken is None or self._taken[:2] != (step, own):
            self._taken = step, own, self.crowd.take(step, own)
        return self._taken[2][rows.start - own.start : rows.stop - own.start]

    def _said(self, network: Callable[[Tensor], Regressed], sighted: Sighted) -> Regressed:
        """The network's answers, in float32 at least."""
        image = self._image(sighted).to(next(self.networks.parameters()).dtype)
        if self.config.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return network(image).map(lambda value: value.to(torch.promote_types(value.dtype, torch.float32)))

    def _image(self, sighted: Sighted) -> Float[Tensor, "n C S S"]:
        """What the network looks at."""
        if self.config.network.input == "rgb":
            return normalised(sighted.people.pixels)
        return proxy(sighted.people.pixels, sighted.points, sighted.confidence)

    def _errors(self, said: Regressed, people: People) -> dict[str, Float[Tensor, "n"]]:
        """Of each person whose body is known."""
        known = people.posed & people.shaped
        rotations = said.rotations
        if self.config.network.root == "sight":
            rotations = turned_whole(into_sight(people).mT, rotations)
        params = BodyParams.from_rotations(rotations, said.betas, torch.zeros_like(said.weak))[known]
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


def build_mesh_task(config: MeshRun, device: torch.device) -> MeshTask:
    """The task of a configuration, its data, bodies and weights opened."""
    _refuse_nobody(config)
    records, unseen = ([open_records(path) for path in paths] for paths in (config.data, config.validation))
    bodies, prior = bodies_of(config.body, config.gendered), open_prior(config.prior) if config.losses.prior else None
    network = started(config.network, config.start, config.start_is, config.loop.seed)
    made, made_unseen = _synthetic(config, device)
    files = (*config.synthetic.mocap, *filter(None, [config.synthetic.backgrounds]))
    mark = fingerprint_of(records, unseen, files if made or made_unseen else ())
    crop_px, batch, workers, seed = config.network.crop_px, config.loop.batch, config.workers, config.loop.seed
    known = None
    if records:
        known = Loader(records, mixture_of(records, config.mix), bodies, crop_px, config.augment, seed, workers)
    crowd = Crowd(known, made, config.synthetic_share, config.errors, seed, device)
    sizes = {"crop_px": crop_px, "batch": batch, "workers": workers}
    others = Unseen(unseen, bodies, made_unseen, config.validation_synthetic, config.errors, **sizes, device=device)
    return MeshTask(config, network, bodies, crowd, others, mark, device, prior)


def _synthetic(config: MeshRun, device: torch.device) -> tuple[SyntheticLoader | None, SyntheticLoader | None]:
    """Synthetic people to train and to validate on, drawn on the device, where they are asked for.

    They have a body of their own, which stays where it is when the task's moves to the device.
    """
    if not config.synthetic_share and not config.validation_synthetic:
        return None, None
    body, poses = load_body_model(config.body), poses_of(config.synthetic)

    def loader(augment: AugmentConfig | None, seed: int, ahead: int, repeats: int) -> SyntheticLoader:
        workers, crop_px, drawn = config.workers, config.network.crop_px, config.network.backbone != "none"
        return SyntheticLoader(
            config.synthetic, body, crop_px, augment, seed, workers, ahead, poses, device, drawn=drawn, repeats=repeats
        )

    made = loader(config.augment, config.loop.seed, AHEAD, config.synthetic_repeats) if config.synthetic_share else None
    return made, loader(None, UNSEEN_SEED, 0, 1) if config.validation_synthetic else None


def _refuse_nobody(config: MeshRun) -> None:
    """A `MeshrecError` where there is nobody to train or to validate on, or somebody who would never be drawn."""
    if not config.data and config.synthetic_share < 1:
        raise MeshrecError(
            "No people for data: name folders of records with --data FOLDER..., or let all people be synthetic with "
            "--synthetic-share 1."
        )
    if config.data and config.synthetic_share == 1:
        raise MeshrecError(
            "synthetic_share is 1, so nobody of data would be drawn. Lower it, or leave the folders of data out."
        )
    if not config.validation and not config.validation_synthetic:
        raise MeshrecError(
            "No people for validation: name folders of records with --validation FOLDER..., or a number of synthetic "
            "people with --validation-synthetic."
        )
