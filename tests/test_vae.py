"""Laws of the variational autoencoder: its bounds, its derivatives on SO(3)^J, its samples."""

import math
from dataclasses import replace

import pytest
import roma
import torch

import priors.vae
from priors.prior import TrainedPrior
from priors.so3 import log_volume
from priors.vae import VAE, Perceptron, VAEConfig, gram_schmidt_blocks

BATCHES = [(), (1,), (3,), (2, 3)]
ACTIVATIONS = ["leaky_relu", "elu", "tanh"]
JOINTS = 5
SMALL = VAEConfig(latent=4, hidden=16, draws=8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def turns(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return roma.rotvec_to_rotmat(random(*shape, 3, seed=seed, scale=scale))


def toy_vae(joints: int = JOINTS, config: VAEConfig = SMALL) -> VAE:
    """Random weights, no two joints alike."""
    quantiles = torch.linspace(0, 1000, 11, dtype=torch.float64)
    vae = VAE(joints, config, seeded(0), quantiles).double()
    vae.start_at(turns(joints, seed=1))
    with torch.no_grad():
        vae.log_growth.copy_(torch.linspace(1, 2, joints))
    return vae


def poses(vae: VAE, *batch: int, seed: int = 2) -> torch.Tensor:
    return vae.mean_rotations @ turns(*batch, len(vae.mean_rotations), seed=seed, scale=0.4)


def stepped(rotations: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """R_j exp(delta_j): a step along the right tangent."""
    return rotations @ roma.rotvec_to_rotmat(delta.unflatten(-1, (-1, 3)))


def constant(vae: VAE) -> VAE:
    """The same encoding for every pose, the same rotations for every latent: z = 0 and the mean rotations."""
    means = vae.mean_rotations
    with torch.no_grad():
        vae.encoder.last.weight.zero_()
        vae.decoder.last.weight.zero_()
    vae.start_at(means)
    return vae


# ---- what it is


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"draws": -5}, {"least_std_rad": 0.0}, {"least_std_rad": math.nan}])
def test_sizes_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VAEConfig(**wrong)


def test_the_decoder_of_21_joints_has_vposers_344190_parameters():
    assert sum(parameter.numel() for parameter in VAE(21, VAEConfig()).decoder.parameters()) == 344_190


def test_it_is_a_trained_prior():
    vae = toy_vae()
    assert isinstance(vae, TrainedPrior)
    assert vae.noise_size == SMALL.latent


def test_it_starts_at_the_given_rotations():
    vae = toy_vae()
    torch.testing.assert_close(vae.mean_rotations, turns(JOINTS, seed=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(vae.decode(torch.zeros(4, dtype=torch.float64)), turns(JOINTS, seed=1))
    assert not vae.mean_rotations.requires_grad


def test_the_generator_alone_decides_the_parameters():
    before = torch.get_rng_state()
    first, again, other = (VAE(3, SMALL, seeded(seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["decoder.first.weight"], other["decoder.first.weight"])


def test_the_state_is_all_there_is():
    vae = toy_vae()
    copy = VAE(JOINTS, SMALL, seeded(9), torch.zeros(11)).double()
    copy.load_state_dict(vae.state_dict())
    rotations = poses(vae, 3)
    for method in ("log_prob", "energy", "score"):
        assert torch.equal(getattr(copy, method)(rotations), getattr(vae, method)(rotations))


def test_no_joint_is_narrower_than_the_least():
    vae = toy_vae()
    with torch.no_grad():
        vae.log_growth.fill_(-50.0)
    torch.testing.assert_close(vae.std_rad, torch.full((JOINTS,), 0.02, dtype=torch.float64))


@pytest.mark.parametrize("batch", BATCHES)
def test_every_answer_is_the_same_in_any_batch(batch):
    vae = toy_vae()
    rotations = poses(vae, *batch)
    flat = rotations.reshape(-1, JOINTS, 3, 3)
    methods = ("log_prob", "energy", "residual", "residual_and_jacobian", "normal_equations", "score", "encode")
    for method in methods:
        whole = getattr(vae, method)(rotations)
        rows = [getattr(vae, method)(row) for row in flat]
        pairs = [(whole, rows)] if isinstance(whole, torch.Tensor) else zip(whole, zip(*rows, strict=True), strict=True)
        for answer, singles in pairs:
            torch.testing.assert_close(answer, torch.stack(list(singles)).reshape(answer.shape), rtol=1e-9, atol=1e-9)
            assert answer.shape[: len(batch)] == batch
    noise = random(*batch, 4, seed=3)
    losses = torch.stack([vae.loss(*pair) for pair in zip(flat, noise.reshape(-1, 4), strict=True)])
    torch.testing.assert_close(vae.loss(rotations, noise), losses.reshape(batch), rtol=1e-9, atol=1e-9)
    assert vae.decode(vae.encode(rotations)).shape == rotations.shape


def test_chunks_change_nothing(monkeypatch):
    vae = toy_vae()
    rotations = poses(vae, 5)
    whole = [vae.log_prob(rotations), *vae.normal_equations(rotations)]
    monkeypatch.setattr(priors.vae, "_JACOBIANS_AT_ONCE", 2)
    monkeypatch.setattr(priors.vae, "_DRAWS_AT_ONCE", 1)
    torch.testing.assert_close([vae.log_prob(rotations), *vae.normal_equations(rotations)], whole)
    assert vae.normal_equations(rotations[:0]).hessian.shape == (0, 3 * JOINTS, 3 * JOINTS)


def test_answers_follow_the_type_of_the_rotations():
    vae = toy_vae()
    rotations = poses(vae, 5)
    exact = [vae.log_prob(rotations), vae.score(rotations), *vae.normal_equations(rotations)]
    rough = [vae.log_prob(rotations.float()), vae.score(rotations.float()), *vae.normal_equations(rotations.float())]
    for precise, single in zip(exact, rough, strict=True):
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), precise, rtol=1e-3, atol=1e-4 * float(precise.detach().abs().max()))
    assert vae.float().log_prob(rotations).dtype == torch.float64
    assert vae.sample(2).dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_answers_are_the_same_on_a_gpu():
    vae = toy_vae()
    rotations = poses(vae, 5)
    here = [vae.log_prob(rotations), *vae.normal_equations(rotations)]
    there = [vae.log_prob(rotations.cuda()), *vae.normal_equations(rotations.cuda())]
    torch.testing.assert_close([answer.cpu() for answer in there], here, rtol=1e-8, atol=1e-8)
    assert vae.cuda().sample(2, generator=seeded(0)).is_cuda


# ---- bounds


def exact_log_prob(vae: VAE, rotations: torch.Tensor) -> torch.Tensor:
    """The integral over one latent number, by the trapezium rule."""
    grid = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    log_normal = -grid.square() / 2 - math.log(2 * math.pi) / 2
    likelihood = vae.log_likelihood(
        rotations[:, None].expand(-1, len(grid), -1, -1, -1), grid.expand(len(rotations), -1)[..., None]
    )
    return (likelihood + log_normal).logsumexp(-1) + (grid[1] - grid[0]).log()


def test_evidence_bound_below_importance_bound_below_density():
    vae = toy_vae(2, VAEConfig(latent=1, hidden=8, draws=4096))
    rotations = poses(vae, 6)
    exact = exact_log_prob(vae, rotations)
    noise = random(1000, 6, 4, 1, seed=3)
    evidence = -vae.loss(rotations.expand(1000, -1, -1, -1, -1), noise[:, :, 0]).mean(0)
    weighted = vae.bound(rotations.expand(1000, -1, -1, -1, -1), noise).mean(0)
    assert (evidence < weighted).all() and (weighted < exact).all()
    assert (evidence < exact - 0.1).any()
    torch.testing.assert_close(vae.log_prob(rotations), exact, rtol=0, atol=0.1)


def test_the_loss_is_the_average_of_one_draws_importance_bound():
    vae = toy_vae()
    rotation = poses(vae)
    noise = random(20_000, 4, seed=3)
    loss = vae.loss(rotation.expand(len(noise), -1, -1, -1), noise)
    single = -vae.bound(rotation.expand(len(noise), -1, -1, -1), noise[:, None])
    loss, single = loss.detach(), single.detach()
    error = math.hypot(float(single.std()) / math.sqrt(len(single)), float(loss.std()) / math.sqrt(len(loss)))
    assert abs(float(loss.mean() - single.mean())) < 4 * error
    assert error < 0.05 * abs(float(loss.mean()))


def test_the_bound_is_the_density_where_the_latent_says_nothing():
    vae = constant(toy_vae())
    rotations = poses(vae, 4)
    likelihood = vae.log_likelihood(rotations, random(4, 4, seed=3))
    torch.testing.assert_close(vae.log_prob(rotations), likelihood)
    torch.testing.assert_close(-vae.loss(rotations, random(4, 4, seed=4)), likelihood)


def test_the_likelihood_of_one_joint_integrates_to_one():
    vae = toy_vae(1)
    with torch.no_grad():
        vae.log_growth.fill_(2.0)
    torch.manual_seed(4)
    uniform = roma.random_rotmat((400_000, 1), dtype=torch.float64)
    latent = random(4, seed=5).expand(len(uniform), -1)
    with torch.no_grad():
        ratio = vae.log_likelihood(uniform, latent).exp() * 8 * math.pi**2
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.02
    assert abs(float(ratio.mean()) - 1) < 4 * error


def test_the_config_weighs_the_divergence_alone():
    vae = toy_vae()
    rotations, noise = poses(vae, 3), random(3, 4, seed=3)
    none, half, full = (vae.negative_elbo(rotations, noise, weight) for weight in (0.0, 0.5, 1.0))
    mean, log_variance = vae.posterior(rotations)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    divergence = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(full - none, divergence)
    torch.testing.assert_close(half, none + divergence / 2)
    torch.testing.assert_close(vae.loss(rotations, noise), full)
    vae.config = replace(SMALL, kl_weight=0.5)
    torch.testing.assert_close(vae.loss(rotations, noise), half)


def test_the_loss_is_a_function_of_its_noise():
    vae = toy_vae()
    rotations, noise = poses(vae, 3), random(3, 4, seed=3)
    assert torch.equal(vae.loss(rotations, noise), vae.loss(rotations, noise))
    assert not torch.allclose(vae.loss(rotations, noise), vae.loss(rotations, -noise))
    torch.manual_seed(6)
    drawn = vae.loss(rotations)
    assert not torch.allclose(drawn, vae.loss(rotations))
    torch.manual_seed(6)
    assert torch.equal(drawn, vae.loss(rotations))


# ---- energy and derivatives


def test_energy_is_minus_the_joint_log_density_at_the_encoders_mean():
    vae = toy_vae()
    rotations = poses(vae, 7)
    latent = vae.encode(rotations)
    joint = vae.log_likelihood(rotations, latent) - latent.square().sum(-1) / 2
    offset = vae.energy(rotations) + joint + log_volume(vae.offsets(rotations, latent)).sum(-1)
    torch.testing.assert_close(offset, offset[:1].expand(7), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(vae.energy(rotations), vae.residual(rotations).square().sum(-1) / 2)


def test_offsets_turn_the_decoded_rotations_into_the_pose():
    vae = toy_vae()
    rotations = poses(vae, 3)
    latent = random(3, 4, seed=3)
    moved = stepped(vae.decode(latent), vae.offsets(rotations, latent).flatten(-2))
    torch.testing.assert_close(moved, rotations)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("inputs", "outputs", "asked"), [(3, 9, 9), (9, 3, 3), (9, 4, 2)])
def test_a_perceptrons_jacobian_is_autograds(activation, inputs, outputs, asked):
    net = Perceptron(inputs, 8, outputs, activation, seeded(0)).double()
    x = random(inputs, seed=1)
    value, jacobian = net.value_and_jacobian(x.expand(2, -1), asked)
    torch.testing.assert_close(value, net(x)[:asked].expand(2, -1))
    expected = torch.autograd.functional.jacobian(lambda point: net(point)[:asked], x)
    torch.testing.assert_close(jacobian, expected.expand(2, -1, -1), rtol=1e-10, atol=1e-12)


def test_gram_schmidts_derivative_is_autograds():
    columns = random(2, 6, seed=7)
    blocks = gram_schmidt_blocks(columns)
    for column, block in zip(columns, blocks, strict=True):
        moved = torch.autograd.functional.jacobian(lambda x: roma.special_gramschmidt(x.reshape(3, 2)), column)
        twist = torch.einsum("ab,acx->bcx", roma.special_gramschmidt(column.reshape(3, 2)), moved)
        torch.testing.assert_close(block, torch.stack([twist[2, 1], twist[0, 2], twist[1, 0]]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_jacobian_is_autograds_along_the_right_tangent(activation):
    vae = toy_vae(config=replace(SMALL, activation=activation))
    zero = torch.zeros(3 * JOINTS, dtype=torch.float64)
    for rotations in poses(vae, 3):
        residual, jacobian = vae.residual_and_jacobian(rotations)
        expected = torch.autograd.functional.jacobian(lambda delta, R=rotations: vae.residual(stepped(R, delta)), zero)
        torch.testing.assert_close(residual, vae.residual(rotations), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("batch", BATCHES)
def test_normal_equations_are_those_of_the_jacobian(batch):
    vae = toy_vae()
    rotations = poses(vae, *batch)
    residual, jacobian = vae.residual_and_jacobian(rotations)
    energy, gradient, hessian = vae.normal_equations(rotations)
    torch.testing.assert_close(energy, vae.energy(rotations), rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, (jacobian.mT @ residual[..., None])[..., 0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(hessian, jacobian.mT @ jacobian, rtol=1e-9, atol=1e-9)


def test_gradient_is_autograds():
    vae = toy_vae()
    rotations = poses(vae, 4)
    delta = torch.zeros(4, 3 * JOINTS, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(vae.energy(stepped(rotations, delta)).sum(), delta)
    torch.testing.assert_close(vae.normal_equations(rotations).gradient, expected, rtol=1e-7, atol=1e-7)


def test_the_losss_gradient_is_its_slope_in_every_parameter():
    vae = toy_vae()
    rotations, noise = poses(vae, 3), random(3, 4, seed=3)
    gradients = torch.autograd.grad(vae.loss(rotations, noise).sum(), list(vae.parameters()))
    for parameter, gradient in zip(vae.parameters(), gradients, strict=True):
        direction, losses = random(*parameter.shape, seed=8), []
        with torch.no_grad():
            for shift in (1e-5, -2e-5):
                parameter += shift * direction
                losses.append(vae.loss(rotations, noise).sum())
            parameter += 1e-5 * direction
        slope = (losses[0] - losses[1]) / 2e-5
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1e-2, math.pi - 1e-5, math.pi])
def test_nothing_is_nan_from_the_decoded_pose_to_half_a_turn_away(angle, dtype):
    vae = constant(toy_vae())
    axes = torch.nn.functional.normalize(random(JOINTS, 3, seed=8), dim=-1)
    rotations = stepped(vae.mean_rotations, (angle * axes).flatten()).to(dtype).requires_grad_()
    answers = [vae.log_prob(rotations), *vae.residual_and_jacobian(rotations), *vae.normal_equations(rotations)]
    answers += [vae.score(rotations), torch.autograd.grad(vae.log_prob(rotations), rotations)[0]]
    answers += [torch.autograd.grad(vae.energy(rotations), rotations)[0]]
    answers += torch.autograd.grad(vae.loss(rotations, random(4, seed=9)), list(vae.parameters()))
    assert all(answer.isfinite().all() for answer in answers)


# ---- samples, scores, training


def test_samples_have_the_likelihoods_spread_about_the_decoded_poses():
    vae = constant(toy_vae())
    for temperature in (0.5, 1.0):
        samples = vae.sample(4000, temperature, seeded(10))
        phi = vae.offsets(samples, torch.zeros(4000, 4, dtype=torch.float64))
        spread = phi.square().mean((0, 2)).sqrt() / vae.std_rad
        torch.testing.assert_close(spread, torch.full_like(spread, temperature), rtol=0.05, atol=0)


def test_samples_decode_normal_latents():
    vae = toy_vae()
    with torch.no_grad():
        vae.log_growth.fill_(-50.0)
    vae.config = replace(SMALL, least_std_rad=1e-9)
    drawn = vae.sample(50_000, 0.7, seeded(11))
    decoded = vae.decode(random(50_000, 4, seed=12, scale=0.7))
    torch.testing.assert_close(drawn.mean(0), decoded.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.std(0), decoded.std(0), rtol=0, atol=0.02)
    torch.testing.assert_close(vae.sample(1, 0.0)[0], vae.mean_rotations)
    assert torch.equal(vae.sample(3, generator=seeded(1)), vae.sample(3, generator=seeded(1)))
    assert not drawn.requires_grad


def test_score_falls_as_energy_rises():
    vae = toy_vae()
    rotations = poses(vae, 50)
    energy, score = vae.energy(rotations), vae.score(rotations)
    torch.testing.assert_close(score, (1 - energy / 1000).clamp(0, 1))
    assert VAE(JOINTS, SMALL).double().score(rotations).max() == 0


def test_a_few_poses_can_be_learned_by_heart():
    vae = VAE(JOINTS, VAEConfig(latent=8, hidden=64), seeded(0)).double()
    rotations = turns(8, JOINTS, seed=13)
    vae.start_at(rotations[0])
    optimiser = torch.optim.Adam(vae.parameters(), lr=1e-2)
    generator = seeded(14)
    for _ in range(300):
        noise = torch.randn(8, 8, generator=generator, dtype=torch.float64)
        optimiser.zero_grad()
        vae.loss(rotations, noise).mean().backward()
        optimiser.step()
    angles = vae.offsets(rotations, vae.encode(rotations)).norm(dim=-1).detach()
    assert float(angles.max()) < 0.2
    assert (vae.log_prob(rotations) > vae.log_prob(rotations.mT)).all()
