"""The task that trains lifters: 3D joints from 2D ones, learned from 2D alone or, for comparison, from the truth."""

import math
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.markup import escape
from torch import Tensor, nn

from meshrec.config import require_positive, require_range
from meshrec.data.views import Views, ViewsConfig, open_views
from meshrec.errors import MeshrecError
from meshrec.metrics import n_mpjpe_mm, pa_mpjpe_mm
from meshrec.models.lifting import seen_everywhere
from meshrec.models.pose_density import DENSITY, PoseDensity2D
from meshrec.models.vae_lifter import Discriminator, DiscriminatorConfig, LifterConfig, VaeLifter
from meshrec.randomness import generator_of
from meshrec.train.descent import OptimizerConfig, Phase
from meshrec.train.lift_draws import AugmentConfig, Dealer, Draws, Poses, between
from meshrec.train.lift_imagined import ImagineConfig, reimagined
from meshrec.train.lift_losses import (
    ELEMENTS,
    BetaCycle,
    GanConfig,
    LossWeights,
    Sight,
    kl_divergence,
    novel_view,
    slope_penalty,
    supervised_terms,
    unsupervised_terms,
    verdict,
)
from meshrec.train.processes import Share
from meshrec.train.training import LoopConfig
from priors.flow import FlowConfig

BLOCK = 16
"""Steps whose batches are made together: the work a call costs by itself is shared."""

START_VIEWS = 20_000
"""Poses that the density's Gaussian start is fitted to."""


@dataclass(frozen=True)
class DensityConfig:
    """The density of real 2D poses, learned beside the lifter where losses.likelihood is above 0."""

    flow: FlowConfig = DENSITY
    jitter: float = 0.03
    """Standard deviation of noise on its coordinates, which are about 1: poses of one size fill no volume."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(clip_norm=5.0))

    def __post_init__(self) -> None:
        require_positive(self, "jitter")


@dataclass(frozen=True)
class LiftRun:
    """Training of a lifter; the defaults are the thesis's, but for `balance`."""

    task: Literal["lift"] = "lift"
    data: tuple[Path, ...] = ()
    """3D poses, which virtual cameras see, and files of 2D poses."""
    cameras: ViewsConfig = field(default_factory=ViewsConfig)
    held_out: tuple[str, ...] = ()
    """Subjects to validate on, never trained on."""
    balance: float = 0.5
    """0: every view counts alike; 1: every subject does; between: a subject of n views counts as n^(1 - balance)."""
    validation_views: int = 4000
    """Validate on so many held-out views, evenly spread."""
    supervision: Literal["none", "3d"] = "none"
    """Learn from 2D alone, or from the true joints: a rival that sees what the others do not."""
    select_by: Literal["loss", "last", "pa_mpjpe_mm"] = "loss"
    """What the best model is: the one of the lowest loss on held-out views, without the adversarial term, whose judge
    changes (with supervision none that takes 2D alone); the last one; or the one of the least error against held-out
    truth, by which a run that claims to need no truth must not be chosen."""
    lifter: LifterConfig = field(default_factory=LifterConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    beta: BetaCycle = field(default_factory=BetaCycle)
    gan: GanConfig = field(default_factory=GanConfig)
    density: DensityConfig = field(default_factory=DensityConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    imagine: ImagineConfig = field(default_factory=ImagineConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        require_positive(self, "validation_views")
        require_range(self, balance=(0, 1))
        if self.loop.batch < 2 * self.loop.accumulate:
            raise ValueError(f"loop.batch is {self.loop.batch}; batch norms need 2 examples in each part at least")
        if self.lifter.elevation == "learned" and not (self.unsupervised and self.losses.on_novel_views):
            raise ValueError("lifter.elevation is learned, which takes supervision none and a loss on novel views")
        if self.lifter.distance == "learned" and self.lifter.place == "free" and not self.unsupervised:
            raise ValueError("lifter.distance is learned, which supervision 3d cannot teach unless lifter.place is ray")

    @property
    def unsupervised(self) -> bool:
        """Whether it learns from 2D alone."""
        return self.supervision == "none"


class LiftNetworks(nn.Module):
    """The lifter, and what judges its novel views."""

    def __init__(self, lifter: VaeLifter, discriminator: Discriminator | None, density: PoseDensity2D | None) -> None:
        super().__init__()
        self.lifter, self.discriminator, self.density = lifter, discriminator, density


class Turn:
    """A share of a step's draws, and what its phases have in common."""

    def __init__(self, step: int, draws: Draws) -> None:
        self.step, self.draws = step, draws
        self.sight: Sight | None = None
        """Kept from phase to phase: the lifter stands still until its own."""
        self.round = 0
        """Steps of the discriminator done."""


class LiftTask:
    """A lifter, the views that it learns from, and how well it lifts views of other people."""

    def __init__(self, config: LiftRun, views: Views, held_out: Views, device: torch.device) -> None:
        self.config, self.device = config, device
        self.views = views.without_truth() if config.unsupervised else views
        self._refuse(held_out)
        self.poses = Poses.of(self.views)
        self.dealer = Dealer(self.poses, self.views.subject, config.balance, config.augment, config.loop.seed)
        self.networks = self._started().to(device)
        spread = np.linspace(0, len(held_out) - 1, min(len(held_out), config.validation_views)).round().astype(int)
        self.unseen = self._asked(Poses.of(held_out[spread]))
        self.fingerprint = fingerprint_of(self.views, held_out)
        self._step = 0
        self._block = lru_cache(maxsize=1)(self._made_block)

    @property
    def model(self) -> nn.Module:
        """The lifter and what judges its novel views."""
        return self.networks

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The density first, then the discriminator, then the lifter: encoder and decoder, each clipped on its own."""
        config, networks = self.config, self.networks
        phases = [Phase("lifter", (networks.lifter.encoder, networks.lifter.decoder))]
        if networks.discriminator is not None:
            phases.insert(0, Phase("discriminator", (networks.discriminator,), config.gan.optimizer, config.gan.times))
        if networks.density is not None:
            phases.insert(0, Phase("density", (networks.density,), config.density.optimizer))
        return tuple(phases)

    @property
    def selected_by(self) -> str:
        """What the configuration says."""
        return self.config.select_by

    def batch(self, step: int, share: Share) -> Turn:
        """The draws of this step."""
        self._step = step
        return Turn(step, self._block(step // BLOCK)[step % BLOCK, share.rows(self.config.loop.batch)])

    def losses(self, phase: str, batch: Turn) -> dict[str, Tensor]:
        """Networks in the precision of the loop; geometry, densities and losses in float32."""
        discriminator, most = self.networks.discriminator, self.config.gan.clip_weights
        if discriminator is not None and most and phase != "density":
            with torch.no_grad():
                for parameter in discriminator.parameters():
                    parameter.clamp_(-most, most)
        terms = {"density": self._of_density, "discriminator": self._of_discriminator, "lifter": self._of_lifter}
        return {name: value.mean() for name, value in terms[phase](batch).items()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Errors of the mean poses, where the truth is known; the loss and its terms on held-out views, at beta 1."""
        assert isinstance(model, LiftNetworks)
        sight, figures = self._look(model, self.unseen, None), {}
        if (true := self.unseen.poses.joints_m) is not None:
            figures["pa_mpjpe_mm"] = float(pa_mpjpe_mm(sight.lifted.joints, true).mean())
            figures["n_mpjpe_mm"] = float(n_mpjpe_mm(sight.lifted.joints, true).mean())
        losses = self._terms(model, self.unseen, sight, 1.0)
        terms = {f"loss_{name}": float(value.mean()) for name, value in losses.items()}
        return figures | terms | {"loss": sum(terms.values()), "last": -float(self._step)}

    def describe(self, batch: Turn) -> str:
        """Whose views they are."""
        names = sorted(set(self.views.subject[batch.draws.row.cpu().numpy()].tolist()))
        return f"{len(batch.draws.row)} views of {', '.join(name or 'people unnamed' for name in names)}"

    # ---- the phases

    def _of_density(self, turn: Turn) -> dict[str, Float[Tensor, "n"]]:
        """-log p of real poses, nats."""
        density, draws = self.networks.density, turn.draws
        assert density is not None and draws.real is not None and draws.jitter is not None
        with self._float32():
            x = density.coordinates(draws.real) + self.config.density.jitter * draws.jitter
            return {"nll": -density.flow.log_prob(x)}

    def _of_discriminator(self, turn: Turn) -> dict[str, Float[Tensor, "n"]]:
        """Verdicts on real and on fake poses, which go through it apart."""
        gan, contest = self.config.gan, turn.draws.contest
        assert contest is not None
        contest, turn.round = contest[:, turn.round], turn.round + 1
        real = self._judged(contest.real) + contest.real_noise
        fake = self._judged(self._sight(turn).fake.points.detach()) + contest.fake_noise
        terms = {
            "real": verdict(self._score(real), contest.real_labels, gan.loss),
            "fake": verdict(self._score(fake), contest.fake_labels, gan.loss),
        }
        if gan.gradient_penalty:
            terms["slope"] = gan.gradient_penalty * slope_penalty(self._score, real, fake, contest.mix)
        return terms

    def _of_lifter(self, turn: Turn) -> dict[str, Float[Tensor, "n"]]:
        """The weighted terms, the discriminator's opinion among them."""
        sight, turn.sight = self._sight(turn), None
        terms = self._terms(self.networks, turn.draws, sight, self.config.beta.beta(turn.step))
        contest = turn.draws.contest
        if contest is not None:
            scores = self._score(self._judged(sight.fake.points) + contest.fake_noise[:, 0])
            opinion = verdict(scores, contest.wanted_labels[:, 0], self.config.gan.loss)
            terms["adversarial"] = self.config.losses.adversarial * opinion
        return terms

    def _score(self, points: Float[Tensor, "n 17 2"]) -> Float[Tensor, "n"]:
        """The discriminator's logit, or the critic's score."""
        assert self.networks.discriminator is not None
        return self.networks.discriminator(points).float()

    def _judged(self, points: Float[Tensor, "*batch 17 2"]) -> Float[Tensor, "*batch 17 2"]:
        """Points as the discriminator sees them."""
        return self.networks.lifter.normalised(points, seen_everywhere(points))

    def _float32(self) -> torch.autocast:
        return torch.autocast(self.device.type, enabled=False)

    # ---- what the lifter makes of the draws

    def _sight(self, turn: Turn) -> Sight:
        """Looked once a step."""
        if turn.sight is None:
            turn.sight = self._look(self.networks, turn.draws, turn.draws.latent)
        return turn.sight

    def _look(self, networks: LiftNetworks, draws: Draws, latent: Float[Tensor, "n L"] | None) -> Sight:
        """Lift; then, without supervision, turn, and lift again if a term asks for it."""
        lifter, weights = networks.lifter, self.config.losses
        lifted = lifter(draws.given, draws.shown, latent)
        if not (self.config.unsupervised and weights.on_novel_views):
            return Sight(lifted)
        with self._float32():
            novel = novel_view(lifter, lifted, draws.azimuth_rad, draws.raised_rad)
        if not weights.lifts_again:
            return Sight(lifted, novel)
        with self._float32():
            target = novel if draws.fancy is None else reimagined(lifter, novel, draws.fancy)
        return Sight(lifted, novel, target, lifter(target.points, target.shown))

    def _terms(self, networks: LiftNetworks, draws: Draws, sight: Sight, beta: float) -> dict[str, Float[Tensor, "n"]]:
        """All that count but the adversarial one, times their weights."""
        weights, poses = asdict(self.config.losses), draws.poses
        if not self.config.unsupervised:
            assert poses.joints_m is not None
            table = supervised_terms(sight, poses.joints_m)
        else:
            learned = self.config.lifter.elevation == "learned"
            table = unsupervised_terms(sight, poses.points, poses.seen, networks.lifter, networks.density, learned)
        table["kld"] = lambda: beta * kl_divergence(sight.lifted.mean, sight.lifted.log_variance) / ELEMENTS
        with self._float32():
            return {name: weights[name] * value() for name, value in table.items() if weights[name]}

    # ---- the start

    def _refuse(self, held_out: Views) -> None:
        """What cannot be trained so is a `MeshrecError`."""
        config = self.config
        if not (len(self.views) and len(held_out)):
            raise MeshrecError(
                f"{len(self.views)} views are there to train on and {len(held_out)} to validate on: held_out is "
                f"{', '.join(config.held_out) or 'empty'}. Name some of the people in the data, but not all, with "
                f"--held-out."
            )
        if not config.unsupervised and (self.views.joints_m is None or held_out.joints_m is None):
            raise MeshrecError(
                "supervision is 3d, and some of the data are 2D alone. Leave those out, or learn without."
            )
        if config.select_by == "pa_mpjpe_mm" and held_out.joints_m is None:
            raise MeshrecError("select_by is pa_mpjpe_mm, and the held-out views have no truth. Choose loss or last.")
        if self._compared and not self.views.seen.all(-1).any():
            raise MeshrecError(
                "No view shows all 17 joints, so novel views can be compared with none. Set the losses "
                "adversarial and likelihood to 0, or add such views."
            )

    @property
    def _compared(self) -> bool:
        """Whether novel views are compared with real ones."""
        losses = self.config.losses
        return self.config.unsupervised and (losses.adversarial > 0 or losses.likelihood > 0)

    def _started(self) -> LiftNetworks:
        """All at their random starts, with the scale of the training split."""
        config = self.config
        generator = torch.Generator().manual_seed(config.loop.seed)
        lifter = VaeLifter(config.lifter, generator)
        lifter.start_at(self.poses.points, self.poses.seen)
        networks = LiftNetworks(lifter, None, None)
        if config.unsupervised and config.losses.adversarial:
            size = DiscriminatorConfig(config.lifter.hidden, dropout=config.gan.dropout)
            networks.discriminator = Discriminator(size, generator)
        if config.unsupervised and config.losses.likelihood:
            networks.density = PoseDensity2D(config.density.flow, generator)
            points = self.dealer.reals(generator_of(config.loop.seed, "start"), START_VIEWS)
            networks.density.start_at(points, seen_everywhere(points), generator)
        return networks

    def _made_block(self, block: int) -> Draws:
        """All that is random in `BLOCK` steps."""
        config, networks = self.config, self.networks
        steps, batch = range(block * BLOCK, (block + 1) * BLOCK), self.config.loop.batch
        draws = self.dealer.draws(steps, batch, config.lifter.latent, float(networks.lifter.path))
        if networks.discriminator is not None:
            draws = replace(draws, contest=self.dealer.contest(steps, batch, config.gan))
        if config.imagine.share and config.losses.lifts_again:
            draws = replace(draws, fancy=self.dealer.fancies(steps, batch, config.imagine))
        if networks.density is not None:
            real, jitter = self.dealer.sparring(steps, batch)
            draws = replace(draws, real=real, jitter=jitter)
        return draws.to(self.device)

    def _asked(self, poses: Poses) -> Draws:
        """Held-out poses as they are, to be turned as the validation of every run turns them."""
        random, n = generator_of(0, "validation"), len(poses.points)
        around = between(random, (-math.pi, math.pi), n)
        raised = between(random, (-self.config.augment.raise_rad, self.config.augment.raise_rad), n)
        latent = torch.zeros(n, self.config.lifter.latent)
        return Draws(torch.arange(n), poses, poses.points, poses.seen, latent, around, raised).to(self.device)


def fingerprint_of(*halves: Views) -> str:
    """A hash of who is in the data, what is seen of them, and what every thousandth view looks like."""
    digest = sha256()
    for views in halves:
        digest.update(repr(np.unique(views.subject, return_counts=True)).encode())
        digest.update(np.packbits(views.seen.numpy()).tobytes())
        digest.update(views.points[::1000].numpy().astype("<f4").tobytes())
        if views.joints_m is not None:
            digest.update(views.joints_m[::1000].numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def build_lift_task(config: LiftRun, device: torch.device) -> LiftTask:
    """The task of a configuration, its data opened."""
    if not config.data:
        raise MeshrecError("No poses to train on: name files or folders of them with --data PATH...")
    views, held_out = open_views(config.data, config.cameras, config.held_out)
    for problem in views.problems:
        Console(stderr=True).print(escape(f"Left out: {problem}"))
    return LiftTask(config, views, held_out, device)
