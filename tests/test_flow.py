"""Laws of the flow: parameter counts, round trips, log-determinants, derivatives, probability, and its start."""

import math
from functools import cache

import normflows as nf
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.functional import jacobian as autograd_jacobian

from priors.flow import Flow, FlowConfig
from priors.flow_layers import WIDEST_LOG_SCALE, Coupling, Linear, PReLU, Solve
from priors.gaussian import Gaussian, whitening_of
from priors.mixture import Mixture
from priors.prior import Density

BATCHES = [(), (1,), (3,), (2, 3), (0,), (2, 0)]
ACTIVATIONS = ["prelu", "prelu_per_coordinate", "coupling"]
BASES = ["normal", "mixture"]
D = 5


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covariance(dimension: int, seed: int = 0) -> torch.Tensor:
    root = random(dimension, dimension, seed=seed)
    return root @ root.mT + 0.1 * torch.eye(dimension, dtype=torch.float64)


def toy_mixture(dimension: int) -> Mixture:
    covariances = torch.stack([covariance(dimension, seed) for seed in range(3)])
    log_weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    return Mixture(log_weights, random(3, dimension, seed=3), whitening_of(covariances))


def trained(activation: str, dimension: int = D, base: str = "normal", depth: int = 4, hidden: int = 7) -> Flow:
    """A flow whose every parameter has left the start."""
    config = FlowConfig(activation, depth=depth, hidden=hidden)
    flow = Flow(dimension, config, toy_mixture(dimension) if base == "mixture" else None, generator(1)).double()
    with torch.no_grad():
        for seed, parameter in enumerate(flow.parameters()):
            parameter += random(*parameter.shape, seed=100 + seed, scale=0.2)
    return flow


@cache
def frozen(activation: str, dimension: int = D, base: str = "normal") -> Flow:
    return trained(activation, dimension, base).requires_grad_(False)


def naive_log_prob(flow: Flow, points: torch.Tensor) -> torch.Tensor:
    """The change of variables as the formula says it, a solve and a determinant for each FC; PReLUs only."""
    log_det = torch.zeros(())
    for layer in reversed(flow.layers):
        if isinstance(layer, Linear):
            points = torch.linalg.solve(layer.weight, (points - layer.bias).mT).mT
            log_det = log_det - torch.linalg.det(layer.weight).abs().log()
        else:
            slope = torch.nn.functional.softplus(layer.raw_slope) + 1e-3
            negative = points < 0
            points = torch.where(negative, points / slope, points)
            log_det = log_det - torch.where(negative, slope.log(), 0.0).sum(-1)
    return log_det - points.square().sum(-1) / 2 - points.shape[-1] / 2 * math.log(2 * math.pi)


# ---- what it is


@pytest.mark.parametrize(
    ("dimension", "activation", "count"),
    [
        (138, "prelu", 95_914),
        (138, "prelu_per_coordinate", 5 * (138**2 + 138) + 4 * 138),
        (138, "coupling", 370_894),
        (69, "prelu", 5 * (69**2 + 69) + 4),
    ],
)
def test_parameters_are_as_many_as_published(dimension, activation, count):
    flow = Flow(dimension, FlowConfig(activation))
    assert sum(parameter.numel() for parameter in flow.parameters()) == count


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_flow_is_a_density(activation, base):
    assert isinstance(frozen(activation, base=base), Density)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_layers_are_normflows_layers(activation):
    flow = frozen(activation)
    normal = nf.distributions.DiagGaussian(D, trainable=False).double()
    model = nf.NormalizingFlow(normal, list(flow.layers))
    points = random(6, D, seed=2)
    torch.testing.assert_close(model.log_prob(points), flow.log_prob(points), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.forward(points), flow.decode(points), rtol=0, atol=0)


def test_a_config_or_point_of_no_flow_is_refused():
    with pytest.raises(ValueError, match="-1"):
        FlowConfig(depth=-1)
    with pytest.raises(ValueError, match="hidden"):
        FlowConfig(hidden=0)
    with pytest.raises(ValueError, match="two coordinates"):
        Flow(1, FlowConfig("coupling"))
    with pytest.raises(ValueError, match=r"R\^5.*\(2, 10\)"):
        frozen("prelu").log_prob(random(2, 2 * D))


# ---- there and back


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch", BATCHES)
def test_encoding_undoes_decoding(activation, batch):
    flow, points = frozen(activation), random(*batch, D, seed=2)
    torch.testing.assert_close(flow.decode(flow.encode(points)), points, rtol=0, atol=1e-10)
    torch.testing.assert_close(flow.encode(flow.decode(points)), points, rtol=0, atol=1e-10)
    assert flow.decode(points).shape == points.shape


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_round_trip_at_the_published_size(activation):
    flow = Flow(138, FlowConfig(activation), generator=generator()).double()
    with torch.no_grad():
        for seed, parameter in enumerate(flow.parameters()):
            parameter += random(*parameter.shape, seed=seed, scale=0.02)
    points = random(20, 138, seed=2)
    torch.testing.assert_close(flow.decode(flow.encode(points)), points, rtol=0, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_log_determinants_are_autograds_layer_by_layer(activation):
    flow, points = frozen(activation), random(4, D, seed=2)
    for layer in flow.layers:
        image, forward = layer.forward(points)
        back, inverse = layer.inverse(image)
        torch.testing.assert_close(back, points, rtol=0, atol=1e-10)
        torch.testing.assert_close(layer.image(points), image, rtol=0, atol=0)
        torch.testing.assert_close(inverse, -forward, rtol=0, atol=1e-10)
        for point, determinant in zip(points, forward, strict=True):
            derivative = autograd_jacobian(lambda z, layer=layer: layer.forward(z[None])[0][0], point)
            torch.testing.assert_close(torch.linalg.slogdet(derivative)[1], determinant, rtol=0, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_log_density_is_the_change_of_variables(activation):
    flow, points = frozen(activation), random(4, D, seed=2)
    normal = torch.distributions.Normal(*torch.tensor([0.0, 1.0], dtype=torch.float64))
    for point in points:
        volume = torch.linalg.slogdet(autograd_jacobian(flow.encode, point))[1]
        expected = normal.log_prob(flow.encode(point)).sum() + volume
        torch.testing.assert_close(flow.log_prob(point), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS[:2])
def test_log_density_is_the_published_formula(activation):
    flow, points = frozen(activation), random(9, D, seed=2, scale=2)
    torch.testing.assert_close(flow.log_prob(points), naive_log_prob(flow, points), rtol=0, atol=1e-10)


def test_couplings_keep_every_scale_within_its_bound():
    coupling = Coupling(D, 7, first_moves=True)
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter += 50 * random(*parameter.shape).float()
    log_det = coupling.forward(random(50, D, seed=2).float())[1]
    assert 2 < log_det.abs().max() <= WIDEST_LOG_SCALE * (D // 2)


def test_couplings_move_one_half_after_the_other():
    flow, points = frozen("coupling"), random(3, D, seed=2)
    kept = [layer.image(points) == points for layer in flow.layers if isinstance(layer, Coupling)]
    first = torch.arange(D) < D // 2
    for step, same in enumerate(kept):
        assert (same == (first if step % 2 == 0 else ~first)).all()


# ---- derivatives


def test_the_solve_has_the_right_first_and_second_derivatives():
    arguments = [random(4, 3), random(3, 3, seed=1), random(3, seed=2)]
    arguments = [argument.requires_grad_() for argument in arguments]
    assert gradcheck(Solve.apply, arguments)
    assert gradgradcheck(Solve.apply, arguments)
    for part in range(3):
        assert gradcheck(lambda *inputs, part=part: Solve.apply(*inputs)[part], arguments)


def test_the_solve_gives_no_gradient_to_what_is_frozen():
    points, weight = random(4, 3).requires_grad_(), random(3, 3, seed=1)
    z, log_det, _ = Solve.apply(points, weight, random(3, seed=2))
    (slope,) = torch.autograd.grad(z.sum() + log_det, points)
    torch.testing.assert_close(slope, torch.linalg.inv(weight).sum(0).expand(4, 3), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_training_gradients_are_differences(activation):
    flow = trained(activation, dimension=3, depth=2, hidden=3)
    points = random(3, 3, seed=2).requires_grad_()
    assert gradcheck(lambda *_: flow.log_prob(points), (points, *flow.parameters()), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS[:2])
def test_training_gradients_are_the_naive_ones(activation):
    flow, points = trained(activation), random(9, D, seed=2)
    weights = random(9, seed=3)
    fast = torch.autograd.grad(weights @ flow.log_prob(points), list(flow.parameters()))
    naive = torch.autograd.grad(weights @ naive_log_prob(flow, points), list(flow.parameters()))
    for ours, theirs in zip(fast, naive, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_jacobian_is_autograds(activation, base):
    flow, points = frozen(activation, base=base), random(4, D, seed=2)
    residual, jacobian = flow.residual_and_jacobian(points)
    torch.testing.assert_close(residual, flow.residual(points), rtol=0, atol=1e-12)
    expected = torch.stack([autograd_jacobian(flow.residual, point) for point in points])
    torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_normal_equations_are_those_of_the_jacobian(activation, base):
    flow, points = frozen(activation, base=base), random(200, D, seed=2)
    residual, jacobian = flow.residual_and_jacobian(points)
    energy, gradient, hessian = flow.normal_equations(points)
    torch.testing.assert_close(energy, flow.residual(points).square().sum(-1) / 2, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, torch.einsum("ne,ned->nd", residual, jacobian), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(hessian, torch.einsum("nea,neb->nab", jacobian, jacobian), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_of_the_energy_is_autograds(activation, base):
    flow, points = trained(activation, base=base), random(4, D, seed=2).requires_grad_()
    (slope,) = torch.autograd.grad(flow.residual(points).square().sum() / 2, points)
    torch.testing.assert_close(flow.normal_equations(points).gradient, slope, rtol=1e-10, atol=1e-10)


def test_energy_is_continuous_where_the_density_jumps():
    flow = frozen("prelu")
    kink, step = torch.zeros(D, dtype=torch.float64), 1e-9 * random(D, seed=2).abs()
    at_last_activation = flow.layers[-1].image(torch.stack([kink + step, kink - step]))
    energies = flow.residual(at_last_activation).square().sum(-1) / 2
    log_slope = flow.layers[-2].forward(-torch.ones(1, D).double())[1] / D
    torch.testing.assert_close(energies[0], energies[1], rtol=1e-6, atol=0)
    jump = flow.log_prob(at_last_activation).diff()
    assert abs(float(jump + D * log_slope)) < 1e-6 < abs(float(jump))


# ---- batches, types, modes


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch", BATCHES)
def test_every_answer_is_the_same_in_any_batch(activation, base, batch):
    flow, points = frozen(activation, base=base), random(*batch, D, seed=2)
    for method in ("log_prob", "residual", "residual_and_jacobian", "normal_equations", "encode", "decode"):
        whole = getattr(flow, method)(points)
        for index, answer in enumerate([whole] if isinstance(whole, torch.Tensor) else whole):
            assert answer.shape[: len(batch)] == batch
            for row, single in zip(points.reshape(-1, D), answer.reshape(-1, *answer.shape[len(batch) :]), strict=True):
                alone = getattr(flow, method)(row)
                alone = alone if isinstance(alone, torch.Tensor) else alone[index]
                torch.testing.assert_close(single, alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_answers_follow_the_type_of_the_points(activation, base):
    flow, points = frozen(activation, base=base), random(6, D, seed=2)
    single = trained(activation, base=base).float()
    for method in ("log_prob", "residual_and_jacobian", "normal_equations", "decode"):
        exact, rough, doubled = (
            getattr(model, method)(rows) for model, rows in ((flow, points), (flow, points.float()), (single, points))
        )
        exact, rough, doubled = (
            (answers,) if isinstance(answers, torch.Tensor) else answers for answers in (exact, rough, doubled)
        )
        for precise, lower, from_single in zip(exact, rough, doubled, strict=True):
            assert (precise.dtype, lower.dtype, from_single.dtype) == (torch.float64, torch.float32, torch.float64)
            torch.testing.assert_close(lower.double(), precise, rtol=1e-3, atol=1e-3 * float(precise.abs().max()))
    back = single.decode(single.encode(points))
    torch.testing.assert_close(back, points, rtol=0, atol=1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_answers_are_the_same_on_a_gpu(activation):
    flow, points = frozen(activation, base="mixture"), random(6, D, seed=2)
    for here, there in zip(flow.normal_equations(points), flow.normal_equations(points.cuda()), strict=True):
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), here, rtol=1e-8, atol=1e-8)
    assert trained(activation).cuda().sample(2, generator=generator()).is_cuda


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_answers_are_the_same_without_gradients(activation):
    flow, points = trained(activation), random(6, D, seed=2)
    with torch.no_grad():
        quiet = [flow.log_prob(points), *flow.normal_equations(points)]
    loud = [flow.log_prob(points), *flow.normal_equations(points)]
    for without, with_graph in zip(quiet, loud, strict=True):
        assert with_graph.requires_grad and not without.requires_grad
        torch.testing.assert_close(without, with_graph.detach(), rtol=1e-12, atol=1e-12)


def test_a_training_step_factorises_each_matrix_once(monkeypatch):
    flow, factorise, calls = trained("prelu"), torch.linalg.lu_factor_ex, []
    monkeypatch.setattr(torch.linalg, "lu_factor_ex", lambda weight: calls.append(weight) or factorise(weight))
    for name in ("inv", "solve", "slogdet", "lu", "qr", "svd"):
        monkeypatch.setattr(torch.linalg, name, None)
    flow.log_prob(random(4, D)).mean().backward()
    assert len(calls) == sum(isinstance(layer, Linear) for layer in flow.layers)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_decoding_and_its_gradient_invert_no_matrix(activation, monkeypatch):
    flow, z = trained(activation), random(4, D).requires_grad_()
    for name in ("inv", "solve", "slogdet", "lu_factor_ex", "lu_solve", "qr", "svd"):
        monkeypatch.setattr(torch.linalg, name, None)
    flow.decode(z).sum().backward()


# ---- probability


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_density_integrates_to_one(activation, base):
    flow = frozen(activation, dimension=2, base=base)
    seen = flow.sample(20_000, generator=generator(4))
    wide = Gaussian.from_covariance(seen.mean(0), 4 * seen.mT.cov())
    points = wide.sample(50_000, generator=generator(5))
    ratio = (flow.log_prob(points) - wide.log_prob(points)).exp()
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.02
    assert abs(float(ratio.mean()) - 1) < 4 * error


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_samples_are_drawn_from_the_density(activation, base):
    """E over samples of q/p f is E over q of f, for a narrow q and f = 1, r, r r^T, r of unit variance under q."""
    flow = frozen(activation, dimension=2, base=base)
    points = flow.sample(50_000, generator=generator(6))
    narrow = Gaussian.from_covariance(flow.sample(2000, generator=generator(7)).median(0).values, 0.2 * points.mT.cov())
    ratio = (narrow.log_prob(points) - flow.log_prob(points)).exp()
    whitened = narrow.residual(points)
    products = (whitened[:, :, None] * whitened[:, None, :]).flatten(1)
    averages = torch.cat([ratio[:, None], ratio[:, None] * whitened, ratio[:, None] * products], dim=-1)
    expected = torch.tensor([1, 0, 0, 1, 0, 0, 1], dtype=torch.float64)
    error = averages.std(0) / math.sqrt(len(points))
    assert error.max() < 0.1
    assert ((averages.mean(0) - expected).abs() < 4.5 * error).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_temperature_multiplies_the_latent(activation):
    flow = trained(activation)
    hot, cold = (flow.sample(50, temperature, generator(8)) for temperature in (1.0, 0.5))
    assert not hot.requires_grad
    torch.testing.assert_close(flow.encode(cold), 0.5 * flow.encode(hot), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        flow.sample(3, 0.0), flow.decode(torch.zeros(3, D).double()).detach(), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_base_density_lives_in_the_latent(activation):
    flow, base, points = frozen(activation, base="mixture"), toy_mixture(D), random(6, D, seed=2)
    z = flow.encode(points)
    torch.testing.assert_close(flow.residual(points), base.residual(z), rtol=0, atol=1e-12)
    volume = flow.log_prob(points) - base.log_prob(z)
    expected = torch.stack([torch.linalg.slogdet(autograd_jacobian(flow.encode, point))[1] for point in points])
    torch.testing.assert_close(volume, expected, rtol=0, atol=1e-10)
    drawn = flow.encode(flow.sample(5, 0.7, generator(9)))
    torch.testing.assert_close(drawn, base.sample(5, 0.7, generator(9)), rtol=0, atol=1e-10)


# ---- the start


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_new_flow_is_the_identity(activation):
    flow, points = Flow(D, FlowConfig(activation, hidden=7), toy_mixture(D)), random(6, D, seed=2)
    torch.testing.assert_close(flow.encode(points), points, rtol=0, atol=1e-5)
    torch.testing.assert_close(flow.log_prob(points), toy_mixture(D).log_prob(points), rtol=1e-5, atol=1e-4)
    inner = [layer.weight for layer in flow.layers[:-1] if isinstance(layer, Linear)]
    eye = torch.eye(D)
    for weight in inner:
        torch.testing.assert_close(weight @ weight.mT, eye, rtol=0, atol=1e-6)
        assert (weight - eye).abs().max() > 0.1


@pytest.mark.parametrize("depth", [0, 1, 4])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_start_is_the_gaussian(activation, depth):
    gaussian = Gaussian.from_covariance(random(D, seed=10), covariance(D, seed=11))
    flow, points = trained(activation, depth=depth), random(20, D, seed=2, scale=3)
    flow.start_at(gaussian, generator(12))
    torch.testing.assert_close(flow.log_prob(points), gaussian.log_prob(points), rtol=1e-10, atol=1e-10)
    energy = gaussian.residual(points).square().sum(-1)
    torch.testing.assert_close(flow.residual(points).square().sum(-1), energy, rtol=1e-10, atol=1e-10)
    assert all(parameter.requires_grad for parameter in flow.parameters())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_start_can_be_left_in_every_layer(activation):
    flow = Flow(D, FlowConfig(activation, hidden=7), generator=generator())
    flow.log_prob(random(30, D, seed=2).float()).mean().backward()
    outputs = [parameter for name, parameter in flow.named_parameters() if "scale" not in name and "shift" not in name]
    outputs += [net.weights[-1] for layer in flow.layers if isinstance(layer, Coupling) for net in layer.children()]
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in outputs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_seed_gives_one_flow_and_leaves_other_randomness_alone(activation):
    config = FlowConfig(activation, hidden=7)
    state = torch.random.get_rng_state()
    first, again, other = (Flow(D, config, generator=generator(seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(first.state_dict(), again.state_dict(), rtol=0, atol=0)
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)
    assert activation != "coupling" or not torch.equal(
        first.layers[1].shift.weights[0], other.layers[1].shift.weights[0]
    )
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_state_is_all_of_the_flow(activation, base):
    flow, points = frozen(activation, base=base), random(6, D, seed=2)
    empty = Mixture(torch.zeros(3), torch.zeros(3, D), torch.eye(D).repeat(3, 1, 1)) if base == "mixture" else None
    copy = Flow(D, flow.config, empty).double()
    copy.load_state_dict(flow.state_dict())
    torch.testing.assert_close(copy.log_prob(points), flow.log_prob(points), rtol=0, atol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_training_from_the_gaussian_beats_it(activation):
    """On points that no Gaussian describes, a few steps lower the loss below where it started."""
    bent = random(200, 2, seed=13)
    bent = torch.stack([bent[:, 0], bent[:, 0].square() + 0.3 * bent[:, 1]], dim=-1)
    flow = Flow(2, FlowConfig(activation, hidden=16), generator=generator()).double()
    flow.start_at(Gaussian.from_covariance(bent.mean(0), bent.mT.cov()), generator())
    optimizer, losses = torch.optim.Adam(flow.parameters(), 2e-2), []
    for _ in range(40):
        loss = -flow.log_prob(bent).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_slopes_are_positive_whatever_the_parameter():
    layer = PReLU(1).double()
    with torch.no_grad():
        layer.raw_slope.fill_(-1e3)
    points = -torch.ones(1, 2, dtype=torch.float64)
    torch.testing.assert_close(layer.image(points), 1e-3 * points, rtol=1e-12, atol=0)
    torch.testing.assert_close(layer.inverse(layer.image(points))[0], points, rtol=1e-12, atol=0)
