"""Laws of Student's t on blocks: a density, its energy, its derivatives, its samples."""

import math

import pytest
import torch
from scipy import stats

from priors.prior import Density
from priors.student import StudentT, log1p_ratio

BATCHES = [(), (1,), (3,), (2, 3)]


def student(dimension: int = 6, block: int = 3) -> StudentT:
    density = StudentT(dimension, block, dof=4.0).double()
    with torch.no_grad():
        density.log_dof += torch.linspace(-1, 1, dimension // block, dtype=torch.float64)
    return density


def points(*batch: int, dimension: int = 6, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(*batch, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_a_density():
    assert isinstance(student(), Density)


def test_log_density_is_the_textbook_one():
    density, x = student(), points(20)
    dof = density.log_dof.detach().exp()
    expected = sum(
        stats.multivariate_t(shape=torch.eye(3).numpy(), df=float(nu)).logpdf(x[:, 3 * g : 3 * g + 3].numpy())
        for g, nu in enumerate(dof)
    )
    torch.testing.assert_close(density.log_prob(x).detach(), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


def test_energy_is_minus_log_density_up_to_a_constant():
    density, x = student(), torch.cat([points(20), 1e-3 * points(20), 0 * points(1), 100 * points(5)])
    offset = density.log_prob(x) + density.residual(x).square().sum(-1) / 2
    torch.testing.assert_close(offset, offset[:1].expand_as(offset), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("scale", [0.0, 1e-4, 0.05, 1.0, 50.0])
def test_jacobian_is_autograds(scale):
    density, x = student(), scale * points()
    expected = torch.autograd.functional.jacobian(density.residual, x)
    torch.testing.assert_close(density.residual_and_jacobian(x)[1], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("batch", BATCHES)
def test_normal_equations_are_those_of_the_jacobian_in_any_batch(batch):
    density, x = student(), points(*batch)
    residual, jacobian = density.residual_and_jacobian(x)
    energy, gradient, hessian = density.normal_equations(x)
    assert energy.shape == batch and hessian.shape == (*batch, 6, 6)
    torch.testing.assert_close(gradient, torch.einsum("...ed,...e->...d", jacobian, residual))
    torch.testing.assert_close(hessian, torch.einsum("...ed,...ef->...df", jacobian, jacobian))


def test_series_and_formula_meet():
    u = torch.tensor([1e-2 - 1e-9, 1e-2 + 1e-9], dtype=torch.float64)
    for values in log1p_ratio(u):
        torch.testing.assert_close(values[0], values[1], rtol=1e-8, atol=1e-9)
    assert log1p_ratio(torch.zeros(1))[0] == 1


def test_samples_have_the_density_and_the_temperature_scales_them():
    density = student()
    draws = density.sample(40_000, generator=torch.Generator().manual_seed(1)).detach()
    norms = draws.unflatten(-1, (2, 3)).square().sum(-1) / 3
    for squared, nu in zip(norms.T, density.log_dof.detach().exp(), strict=True):
        assert stats.kstest(squared.numpy(), stats.f(3, float(nu)).cdf).pvalue > 1e-3
    cool = density.sample(40_000, 0.5, torch.Generator().manual_seed(1)).detach()
    torch.testing.assert_close(cool, draws / 2)


def test_blocks_must_fill_the_space():
    with pytest.raises(ValueError, match="blocks of 3"):
        StudentT(7, 3, dof=math.pi)
