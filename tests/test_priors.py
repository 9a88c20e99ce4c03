"""Laws of the pose priors: densities, derivatives on SO(3)^23, sampling, files, and what ships."""

import math
from copy import deepcopy
from functools import cache

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meshrec.data.pose_augment import mirrored
from meshrec.skeletons import SMPL24
from priors import charts
from priors.charts import CentredLog, SixD
from priors.gaussian import Gaussian, covariance_of, fit_gaussian, floored, whitening_of
from priors.mixture import Mixture, fit_mixture
from priors.pose import PosePrior
from priors.prior import Chart, Density, Prior, TrainedPrior
from priors.so3 import centred_log, inverse_right_jacobian, log_volume, mean_rotations_of

BATCHES = [(), (1,), (3,), (2, 3)]
KINDS = ["gaussian", "mixture"]
BODY = len(SMPL24) - 1


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_covariances(count: int, dimension: int, scale: float, seed: int = 0) -> torch.Tensor:
    root = random(count, dimension, dimension, seed=seed, scale=scale / math.sqrt(dimension))
    return root @ root.mT + (0.3 * scale) ** 2 * torch.eye(dimension, dtype=torch.float64)


def toy_density(kind: str, dimension: int, scale: float = 0.4) -> Gaussian | Mixture:
    covariances = random_covariances(3, dimension, scale)
    if kind == "gaussian":
        return Gaussian.from_covariance(random(dimension, seed=1, scale=0.1), covariances[0])
    log_weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    return Mixture(log_weights, random(3, dimension, seed=1, scale=0.5 * scale), whitening_of(covariances))


@cache
def toy_prior(kind: str, joints: int = BODY, scale: float = 0.4) -> PosePrior:
    means = roma.rotvec_to_rotmat(random(joints, 3, seed=2))
    prior = PosePrior(CentredLog(means), toy_density(kind, 3 * joints, scale), torch.zeros(2, dtype=torch.float64))
    energies = prior.energy(prior.sample(2000, generator=torch.Generator().manual_seed(3)))
    return PosePrior(prior.chart, prior.density, energies.quantile(torch.linspace(0, 1, 101, dtype=torch.float64)))


def poses(prior: PosePrior, *batch: int, seed: int = 4) -> torch.Tensor:
    sampled = prior.sample(math.prod(batch), generator=torch.Generator().manual_seed(seed))
    return sampled.reshape(*batch, *sampled.shape[1:])


def stepped(rotations: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """R_j exp(delta_j): a step along the right tangent."""
    return rotations @ roma.rotvec_to_rotmat(delta.unflatten(-1, (-1, 3)))


def tangent_differences(function, rotations: torch.Tensor, step: float = 1e-3) -> torch.Tensor:
    """The derivative along the right tangent by central differences of fourth order."""
    steps = step * torch.eye(3 * rotations.shape[-3], dtype=rotations.dtype)
    moved = [function(stepped(rotations[None], factor * steps)) for factor in (-2, -1, 1, 2)]
    return ((moved[0] - moved[3]) + 8 * (moved[2] - moved[1])).mT / (12 * step)


# ---- protocol and shapes


@pytest.mark.parametrize("kind", KINDS)
def test_a_pose_prior_is_a_prior_and_its_density_a_density(kind):
    prior = toy_prior(kind)
    assert isinstance(prior, TrainedPrior) and isinstance(prior, Prior)
    assert isinstance(prior.density, Density)
    assert isinstance(prior.chart, Chart)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", BATCHES)
def test_every_answer_is_the_same_in_any_batch(kind, batch):
    prior = toy_prior(kind)
    rotations = poses(prior, *batch)
    flat = rotations.reshape(-1, BODY, 3, 3)
    for method in ("log_prob", "energy", "residual", "residual_and_jacobian", "normal_equations", "score"):
        whole = getattr(prior, method)(rotations)
        rows = [getattr(prior, method)(row) for row in flat]
        pairs = [(whole, rows)] if isinstance(whole, torch.Tensor) else zip(whole, zip(*rows, strict=True), strict=True)
        for answer, singles in pairs:
            torch.testing.assert_close(answer, torch.stack(list(singles)).reshape(answer.shape), rtol=1e-9, atol=1e-9)
            assert answer.shape[: len(batch)] == batch


@pytest.mark.parametrize("kind", KINDS)
def test_answers_follow_the_type_of_the_rotations(kind):
    prior = toy_prior(kind)
    rotations = poses(prior, 5)
    exact, single = prior.normal_equations(rotations), prior.normal_equations(rotations.float())
    for precise, rough in zip(exact, single, strict=True):
        assert rough.dtype == torch.float32
        torch.testing.assert_close(rough.double(), precise, rtol=1e-3, atol=2e-3 * float(precise.abs().max()))
    assert deepcopy(prior).float().log_prob(rotations).dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_the_same_on_a_gpu(kind):
    prior = toy_prior(kind)
    rotations = poses(prior, 5)
    for here, there in zip(prior.normal_equations(rotations), prior.normal_equations(rotations.cuda()), strict=True):
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), here, rtol=1e-8, atol=1e-8)
    assert deepcopy(prior).cuda().sample(2, generator=torch.Generator().manual_seed(0)).is_cuda


# ---- energy, residual, derivatives


@pytest.mark.parametrize("kind", KINDS)
def test_energy_is_half_the_squared_residual(kind):
    prior = toy_prior(kind)
    rotations = poses(prior, 7)
    expected = prior.residual(rotations).square().sum(-1) / 2
    torch.testing.assert_close(prior.energy(rotations), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(prior.residual_and_jacobian(rotations)[0], prior.residual(rotations), rtol=0, atol=0)


def test_gaussian_energy_is_minus_log_density_up_to_a_constant():
    density = toy_density("gaussian", 6)
    points = random(9, 6, seed=5)
    offset = density.log_prob(points) + density.residual(points).square().sum(-1) / 2
    torch.testing.assert_close(offset, offset[:1].expand(9), rtol=1e-12, atol=1e-12)


def test_gaussian_log_density_is_torchs_textbook_one():
    density = toy_density("gaussian", 4)
    points = random(9, 4, seed=5)
    expected = torch.distributions.MultivariateNormal(density.mean, density.covariance).log_prob(points)
    torch.testing.assert_close(density.log_prob(points), expected, rtol=1e-10, atol=1e-10)


def test_mixture_log_density_is_torchs_mixture():
    density = toy_density("mixture", 4)
    points = random(9, 4, seed=5)
    parts = torch.distributions.MultivariateNormal(density.means, covariance_of(density.whitenings))
    mixed = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=density.log_weights), parts)
    torch.testing.assert_close(density.log_prob(points), mixed.log_prob(points), rtol=1e-10, atol=1e-10)


def test_mixture_energy_is_the_least_penalised_distance():
    density = toy_density("mixture", 5)
    points = random(40, 5, seed=6, scale=0.5)
    merits = [
        math.log(weight) - 0.5 * float(torch.logdet(covariance))
        for weight, covariance in zip((0.5, 0.3, 0.2), covariance_of(density.whitenings), strict=True)
    ]
    candidates = []
    for mean, covariance, merit in zip(density.means, covariance_of(density.whitenings), merits, strict=True):
        offset = points - mean
        squared = (offset @ torch.linalg.inv(covariance) * offset).sum(-1)
        candidates.append(squared / 2 + max(merits) - merit)
    expected = torch.stack(candidates).min(0)
    assert len(expected.indices.unique()) > 1
    torch.testing.assert_close(density.residual(points).square().sum(-1) / 2, expected.values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobian_is_the_derivative_along_the_right_tangent(kind):
    prior = toy_prior(kind)
    for rotations in poses(prior, 3):
        residual, jacobian = prior.residual_and_jacobian(rotations)
        expected = tangent_differences(prior.residual, rotations)
        assert jacobian.shape == (len(residual), 3 * BODY)
        torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-8 * float(jacobian.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_jacobian_is_autograds(kind):
    prior = toy_prior(kind)
    rotations = poses(prior, 2)[1]
    zero = torch.zeros(3 * BODY, dtype=torch.float64)

    expected = torch.autograd.functional.jacobian(lambda delta: prior.residual(stepped(rotations, delta)), zero)
    torch.testing.assert_close(prior.residual_and_jacobian(rotations)[1], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", BATCHES)
def test_normal_equations_are_those_of_the_jacobian(kind, batch):
    prior = toy_prior(kind)
    rotations = poses(prior, *batch)
    residual, jacobian = prior.residual_and_jacobian(rotations)
    energy, gradient, hessian = prior.normal_equations(rotations)
    torch.testing.assert_close(energy, prior.energy(rotations), rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, (jacobian.mT @ residual[..., None])[..., 0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(hessian, jacobian.mT @ jacobian, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_autograds(kind):
    prior = toy_prior(kind)
    rotations = poses(prior, 4)
    free = rotations.clone().requires_grad_()
    (slope,) = torch.autograd.grad(prior.energy(free).sum(), free)
    twist = rotations.mT @ slope
    skew = twist - twist.mT
    expected = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1).flatten(-2)
    torch.testing.assert_close(prior.normal_equations(rotations).gradient, expected, rtol=1e-7, atol=1e-7)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(0, math.pi - 1e-3))
@settings(max_examples=60, deadline=None)
def test_inverse_right_jacobian_moves_the_logarithm(direction, angle):
    axis = torch.tensor(direction, dtype=torch.float64)
    phi = angle * torch.nn.functional.normalize(axis, dim=0)
    rotation = roma.rotvec_to_rotmat(phi)[None]
    moved = tangent_differences(lambda R: roma.rotmat_to_rotvec(R).flatten(-2), rotation, step=1e-4)
    torch.testing.assert_close(inverse_right_jacobian(phi), moved, rtol=0, atol=1e-6)


def test_volume_is_the_determinant_of_the_right_jacobian():
    phi = random(50, 3, seed=7)
    phi = torch.cat([phi, 1e-3 * phi, 1e-6 * phi, 0 * phi[:1], math.pi * torch.nn.functional.normalize(phi[:5])])
    torch.testing.assert_close(log_volume(phi), -inverse_right_jacobian(phi).logdet(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1e-2, math.pi - 1e-5, math.pi])
def test_nothing_is_nan_from_the_mean_to_half_a_turn_away(kind, angle, dtype):
    prior = toy_prior(kind)
    axes = torch.nn.functional.normalize(random(BODY, 3, seed=8), dim=-1)
    rotations = prior.chart.rotations((angle * axes).flatten()).to(dtype).requires_grad_()
    answers = [prior.log_prob(rotations), *prior.residual_and_jacobian(rotations), *prior.normal_equations(rotations)]
    answers += [prior.score(rotations), torch.autograd.grad(prior.log_prob(rotations), rotations)[0]]
    answers += [torch.autograd.grad(prior.energy(rotations), rotations)[0]]
    assert all(answer.isfinite().all() for answer in answers)


# ---- probability


@pytest.mark.parametrize("kind", KINDS)
def test_density_on_one_joint_integrates_to_one(kind):
    prior = toy_prior(kind, joints=1)
    torch.manual_seed(9)
    uniform = roma.random_rotmat((400_000, 1), dtype=torch.float64)
    ratio = prior.log_prob(uniform).exp() * 8 * math.pi**2
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.015
    assert abs(float(ratio.mean()) - 1) < 4 * error


@pytest.mark.parametrize("kind", KINDS)
def test_density_does_not_depend_on_where_the_chart_is_centred(kind):
    prior = toy_prior(kind)
    turn = roma.rotvec_to_rotmat(random(BODY, 3, seed=10))
    turned = PosePrior(CentredLog(turn @ prior.mean_rotations), prior.density, prior.energy_quantiles)
    rotations = poses(prior, 3)
    torch.testing.assert_close(turned.log_prob(turn @ rotations), prior.log_prob(rotations), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(turned.log_prob(rotations @ turn), prior.log_prob(rotations))


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_samples_have_the_energy_of_their_degrees_of_freedom(temperature):
    prior = toy_prior("gaussian", scale=0.15)
    energy = prior.energy(prior.sample(2000, temperature, torch.Generator().manual_seed(11)))
    degrees = 3 * BODY / 2 * temperature**2
    assert abs(float(energy.mean()) - degrees) < 4 * float(energy.std()) / math.sqrt(len(energy))
    assert prior.energy(prior.mean_rotations @ roma.rotvec_to_rotmat(prior.density.mean.view(-1, 3))) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_moments_of_the_density(kind):
    density = toy_density(kind, 4)
    points = density.sample(100_000, generator=torch.Generator().manual_seed(12))
    if kind == "gaussian":
        mean, covariance = density.mean, density.covariance
    else:
        weights, parts = density.log_weights.exp(), covariance_of(density.whitenings)
        mean = weights @ density.means
        offsets = density.means - mean
        covariance = torch.einsum("k,kij->ij", weights, parts + offsets[:, :, None] * offsets[:, None, :])
    torch.testing.assert_close(points.mean(0), mean, rtol=0, atol=5e-3)
    torch.testing.assert_close(points.mT.cov(), covariance, rtol=0, atol=5e-3)


# ---- score


@pytest.mark.parametrize("kind", KINDS)
def test_score_falls_as_energy_rises(kind):
    prior = toy_prior(kind)
    rotations = torch.cat([poses(prior, 200), prior.sample(50, 2.0), prior.mean_rotations[None]])
    energy, score = prior.energy(rotations), prior.score(rotations)
    assert (score[energy.argsort()].diff() <= 0).all()
    assert ((score >= 0) & (score <= 1)).all()
    assert float(score[energy.argmax()]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_score_of_new_samples_is_uniform(kind):
    prior = toy_prior(kind)
    score = prior.score(poses(prior, 2000, seed=15)).sort().values
    gap = (score - torch.linspace(0, 1, 2000, dtype=torch.float64)).abs().max()
    assert gap < 0.06


# ---- fitting


def test_gaussian_fit_recovers_the_gaussian_and_counts_weights():
    truth = toy_density("gaussian", 4)
    points = truth.sample(50_000, generator=torch.Generator().manual_seed(16))
    outliers = torch.full((10, 4), 100.0, dtype=torch.float64)
    weights = torch.cat([torch.ones(50_000), torch.zeros(10)]).double()
    fitted = fit_gaussian(torch.cat([points, outliers]), weights, floor=1e-3)
    torch.testing.assert_close(fitted.mean, truth.mean, rtol=0, atol=0.01)
    torch.testing.assert_close(fitted.covariance, truth.covariance, rtol=0, atol=0.01)


def test_mixture_fit_recovers_the_mixture():
    means = torch.tensor([[-2.0, 0, 0], [2, 0, 0], [0, 3, 1]], dtype=torch.float64)
    truth = Mixture(torch.tensor([0.5, 0.3, 0.2]).double().log(), means, whitening_of(random_covariances(3, 3, 0.5)))
    points = truth.sample(20_000, generator=torch.Generator().manual_seed(17))
    fitted = fit_mixture(points, torch.ones(len(points)).double(), 3, floor=1e-3)
    order = fitted.log_weights.argsort(descending=True)
    torch.testing.assert_close(fitted.log_weights[order].exp(), truth.log_weights.exp(), rtol=0, atol=0.02)
    torch.testing.assert_close(fitted.means[order], truth.means, rtol=0, atol=0.05)
    torch.testing.assert_close(
        covariance_of(fitted.whitenings)[order], covariance_of(truth.whitenings), rtol=0, atol=0.05
    )


def test_no_direction_is_narrower_than_the_floor():
    flat = random(500, 5, seed=18) * torch.tensor([1, 1, 0, 0, 1e-4], dtype=torch.float64)
    weights = torch.ones(500, dtype=torch.float64)
    covariances = covariance_of(fit_mixture(flat, weights, 2, floor=0.1).whitenings)
    assert torch.linalg.eigvalsh(covariances).min() > 0.1**2 * (1 - 1e-6)
    assert torch.linalg.eigvalsh(floored(torch.zeros(2, 2).double(), 0.1)).min() > 0.1**2 * (1 - 1e-6)


def test_mean_rotation_is_the_middle():
    middle = roma.rotvec_to_rotmat(random(BODY, 3, seed=19))
    noise = random(400, BODY, 3, seed=20, scale=0.3)
    rotations = middle @ roma.rotvec_to_rotmat(torch.cat([noise, -noise]))
    mean = mean_rotations_of(rotations, torch.ones(800, dtype=torch.float64))
    torch.testing.assert_close(mean, middle, rtol=0, atol=1e-12)
    assert centred_log(rotations, mean).mean(0).abs().max() < 1e-12


# ---- the mirror


def test_a_gaussian_of_frames_and_their_images_has_no_side():
    rotations = poses(toy_prior("gaussian"), 300)
    both = torch.cat([rotations, mirrored(rotations)])
    weights = torch.ones(600, dtype=torch.float64)
    means = mean_rotations_of(both, weights)
    density = fit_gaussian(centred_log(both, means).flatten(-2), weights, floor=0.05)
    prior = PosePrior(CentredLog(means), density, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(prior.log_prob(mirrored(rotations)), prior.log_prob(rotations), rtol=0, atol=1e-6)


# ---- charts


CHARTS = [CentredLog, SixD]


def charted(chart: type[CentredLog] | type[SixD], joints: int = 4) -> CentredLog | SixD:
    return chart(roma.rotvec_to_rotmat(random(joints, 3, seed=24)))


def lifted(chart: CentredLog | SixD, rotations: torch.Tensor, seed: int = 25) -> tuple[torch.Tensor, torch.Tensor]:
    return chart.lift(rotations, random(*rotations.shape[:-3], chart.noise_size, seed=seed))


@pytest.mark.parametrize("kind", CHARTS)
@pytest.mark.parametrize("batch", BATCHES)
def test_points_of_a_chart_lead_back_to_the_rotations(kind, batch):
    chart = charted(kind)
    rotations = roma.rotvec_to_rotmat(random(*batch, 4, 3, seed=26))
    for points in (chart.points(rotations), lifted(chart, rotations)[0]):
        assert points.shape == (*batch, chart.dimension)
        torch.testing.assert_close(chart.rotations(points), rotations, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", CHARTS)
def test_blocks_of_a_chart_are_its_derivative_along_the_right_tangent(kind):
    chart = charted(kind)
    rotations = roma.rotvec_to_rotmat(random(4, 3, seed=27))
    points, blocks = chart.points_and_blocks(rotations)
    expected = tangent_differences(chart.points, rotations)
    torch.testing.assert_close(points, chart.points(rotations), rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.block_diag(*blocks), expected, rtol=0, atol=1e-9)


def test_the_six_numbers_of_a_joint_are_two_columns_row_by_row():
    rotation = roma.rotvec_to_rotmat(random(1, 3, seed=28))
    points = charted(SixD, joints=1).points(rotation)
    torch.testing.assert_close(points.reshape(3, 2), rotation[0, :, :2], rtol=0, atol=0)


def test_lifts_of_any_spread_carry_a_density_to_one_that_integrates_to_one(monkeypatch):
    """Of a density where the norms are far from 1, so that each power of them in the volume element matters."""
    monkeypatch.setattr(charts, "COLUMN_SPREAD", 0.5)
    chart = charted(SixD, joints=1)
    density = Gaussian.from_covariance(1.3 * chart.points(chart.mean_rotations), 0.4**2 * torch.eye(6).double())
    prior = PosePrior(chart, density, torch.zeros(2, dtype=torch.float64))
    torch.manual_seed(36)
    uniform = roma.random_rotmat((400_000, 1), dtype=torch.float64)
    weight = (-prior.loss(uniform, random(400_000, 3, seed=37))).exp() * 8 * math.pi**2
    error = float(weight.std()) / math.sqrt(len(weight))
    assert error < 0.04
    assert abs(float(weight.mean()) - 1) < 4 * error


@pytest.mark.parametrize("kind", CHARTS)
def test_lifts_carry_any_density_to_one_that_integrates_to_one(kind):
    chart = charted(kind, joints=1)
    mean, covariance = chart.points(chart.mean_rotations), random_covariances(1, chart.dimension, 0.08, seed=30)[0]
    none = torch.zeros(2, dtype=torch.float64)
    prior = PosePrior(chart, Gaussian.from_covariance(mean, covariance), none)
    wide = Gaussian.from_covariance(torch.zeros(3).double(), 0.2**2 * torch.eye(3).double())
    proposal = PosePrior(CentredLog(chart.mean_rotations), wide, none)
    rotations = proposal.sample(400_000, generator=torch.Generator().manual_seed(31))
    noise = random(400_000, chart.noise_size, seed=32)
    weight = (-prior.loss(rotations, noise) - proposal.log_prob(rotations)).exp()
    error = float(weight.std()) / math.sqrt(len(weight))
    assert error < 0.03
    assert abs(float(weight.mean()) - 1) < 4 * error


def test_more_lifts_raise_the_bound_and_one_lift_is_minus_the_loss():
    chart = charted(SixD, joints=2)
    density = Gaussian.from_covariance(chart.points(chart.mean_rotations), random_covariances(1, 12, 0.2)[0])
    prior = PosePrior(chart, density, torch.zeros(2, dtype=torch.float64))
    rotations = chart.rotations(density.sample(300, generator=torch.Generator().manual_seed(33)))
    noise = random(300, 512, 6, seed=35)
    bounds = [float(prior.bound(rotations, noise[:, :draws]).mean()) for draws in (1, 8, 64, 512)]
    assert bounds == sorted(bounds) and bounds[0] < bounds[-1] - 0.1
    assert abs(float(prior.log_prob(rotations).mean()) - bounds[2]) < 0.5
    torch.testing.assert_close(prior.bound(rotations, noise[:, :1]), -prior.loss(rotations, noise[:, 0]))


def test_a_prior_on_six_numbers_a_joint_has_the_derivatives_of_its_energy():
    chart = charted(SixD, joints=3)
    density = toy_density("mixture", 18)
    prior = PosePrior(chart, density, torch.zeros(2, dtype=torch.float64))
    rotations = roma.rotvec_to_rotmat(random(3, 3, seed=34))
    residual, jacobian = prior.residual_and_jacobian(rotations)
    torch.testing.assert_close(jacobian, tangent_differences(prior.residual, rotations), rtol=0, atol=1e-8)
    energy, gradient, hessian = prior.normal_equations(rotations)
    torch.testing.assert_close(gradient, jacobian.mT @ residual, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(hessian, jacobian.mT @ jacobian, rtol=1e-9, atol=1e-9)
    assert energy == prior.energy(rotations)
