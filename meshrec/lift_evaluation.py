"""What can be asked of a branch that draws its answers from a latent space: samples, and where people lie in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.evaluation import AT_ONCE, Errors, Questions, errors_of, joined
from meshrec.randomness import generator_of
from meshrec.types import Camera, Estimate, Keypoints, stack


@runtime_checkable
class Sampler(Protocol):
    """An estimator with a latent space: z = mean + standard deviation * noise, and z = mean without noise."""

    @property
    def name(self) -> str:
        """What its answers are called."""
        ...

    @property
    def latent(self) -> int:
        """Dimensions of the latent space."""
        ...

    def estimate(
        self, keypoints: Keypoints, camera: Camera, noise: Float[Tensor, "*batch L"] | None = None
    ) -> Estimate:
        """The answer at z."""
        ...

    def means(self, keypoints: Keypoints, camera: Camera) -> Float[Tensor, "*batch L"]:
        """Where the people lie in the latent space."""
        ...


@dataclass(frozen=True)
class Sampled:
    """What so many samples of each view are worth."""

    mean: Errors
    """The mean error of a sample: what one gets who draws once."""
    best: Errors
    """The least error of the samples, figure by figure: an oracle, as only the truth tells which one it is."""


@torch.no_grad()
def sampled(
    sampler: Sampler,
    questions: Questions,
    hypotheses: int,
    seed: int = 0,
    advance: Callable[[int], object] = lambda done: None,
) -> Sampled:
    """So many samples of each view; those of a seed are the same whatever number is asked for."""
    draws = []
    for index in range(hypotheses):
        numbers = generator_of(seed, "hypotheses", index).standard_normal((len(questions), sampler.latent))
        noise, parts = torch.from_numpy(numbers).to(questions.true_m), []
        for start in range(0, len(questions), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            chunk = questions[rows]
            estimate = sampler.estimate(chunk.keypoints, chunk.camera, noise[rows])
            parts.append(errors_of(estimate, chunk.true_m))
            advance(len(chunk))
        draws.append(joined(parts))
    samples = stack(draws)
    return Sampled(samples.map(lambda errors: errors.mean(0)), best_of(samples))


def best_of(samples: Errors) -> Errors:
    """The least of each figure along the first axis; the joints are those of the least PA-MPJPE."""
    winner = samples.pa_mpjpe_mm.argmin(0)[None, ..., None].expand(1, *samples.joints_mm.shape[1:])
    return Errors(
        joints_mm=samples.joints_mm.gather(0, winner)[0],
        pa_mpjpe_thesis_mm=samples.pa_mpjpe_thesis_mm.amin(0),
        n_mpjpe_mm=samples.n_mpjpe_mm.amin(0),
        mpjpe_mm=None if samples.mpjpe_mm is None else samples.mpjpe_mm.amin(0),
    )


@torch.no_grad()
def latent_means(sampler: Sampler, questions: Questions) -> Float[Tensor, "N L"]:
    """Where each view lies in the latent space."""
    chunks = (questions[start : start + AT_ONCE] for start in range(0, len(questions), AT_ONCE))
    return torch.cat([sampler.means(chunk.keypoints, chunk.camera) for chunk in chunks])
