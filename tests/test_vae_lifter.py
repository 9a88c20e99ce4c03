"""Laws of the lifter's networks: sizes, starts, scales, rays, masks; and of the density of 2D poses."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import mish

from meshrec.models.lifting import mirrored_points, path_length, project_units, seen_everywhere, size_of
from meshrec.models.pose_density import SPREAD, PoseDensity2D
from meshrec.models.vae_lifter import (
    Discriminator,
    DiscriminatorConfig,
    Lifted,
    LifterConfig,
    VaeLifter,
    folded,
)
from meshrec.skeletons import H36M17
from priors.flow import FlowConfig

BATCHES = [(), (1,), (3,), (2, 3)]
THESIS = LifterConfig(radius=1.3)
SMALL = LifterConfig(hidden=32, latent=6)
BEST = replace(SMALL, place="ray", scale="pose", distance="learned", elevation="learned", dropout=0.0)
CONFIGS = {
    "thesis": SMALL,
    "ray": replace(SMALL, place="ray"),
    "pose": replace(SMALL, scale="pose"),
    "best": BEST,
    "split": replace(BEST, split_encoders=True, blocks=2),
    "no block": replace(BEST, blocks=0),
}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def pictures(*batch: int, seed: int = 2) -> torch.Tensor:
    """Points about a pelvis at 0, a tenth from it."""
    points = 0.1 * random(*batch, 17, 2, seed=seed)
    points[..., H36M17.index("pelvis"), :] = 0
    return points


def masks(*batch: int) -> torch.Tensor:
    """Some joints unseen; not the pelvis."""
    seen = random(*batch, 17, seed=7) > -0.7
    seen[..., H36M17.index("pelvis")] = True
    return seen


def made(config: LifterConfig) -> VaeLifter:
    """A lifter in float64 whose every tensor is far from its start, for use alone."""
    lifter = VaeLifter(config, generator()).double()
    points = 1.7 * pictures(100)
    lifter.start_at(points, seen_everywhere(points))
    for index, (name, tensor) in enumerate(lifter.state_dict().items()):
        if name.endswith("running_var"):
            tensor.copy_(0.5 + random(*tensor.shape, seed=index).square())
        elif tensor.is_floating_point() and name not in ("path", "squares"):
            tensor.add_(0.1 * random(*tensor.shape, seed=index))
    return lifter.eval()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ---- sizes and starts


def test_the_thesis_networks_have_its_numbers_of_parameters():
    lifter = VaeLifter(THESIS)
    assert parameters(lifter.encoder) == 2_241_638
    assert parameters(lifter.decoder) == 2_205_744
    assert parameters(Discriminator(DiscriminatorConfig())) == 4_233_217


def test_learned_distance_and_elevation_are_a_linear_unit_each():
    learned = VaeLifter(replace(THESIS, distance="learned", elevation="learned", place="ray", scale="pose"))
    assert parameters(learned.decoder) == 2_205_744 + 2 * 1025
    assert parameters(learned.encoder) == 2_241_638


def test_split_encoders_are_no_larger_than_one():
    assert parameters(VaeLifter(replace(THESIS, split_encoders=True)).encoder) <= 2_241_638


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_training_starts_with_unit_variance_the_expected_distance_and_a_level_camera(config):
    lifter = VaeLifter(config, generator()).double()
    lifted = lifter(pictures(8), seen_everywhere(pictures(8)))
    assert (lifted.log_variance == 0).all()
    assert (lifted.elevation_rad == 0).all()
    torch.testing.assert_close(lifted.distance, lifter.expected_distance(pictures(8), seen_everywhere(pictures(8))))
    assert (lifted.joints[..., 1:, 2].std() > 0.1).all()


def test_every_linear_layer_starts_as_kaiming_asks():
    lifter = VaeLifter(replace(THESIS, start_gain=0.1), generator())
    judge = Discriminator(DiscriminatorConfig(), generator())
    for name, layer in (*lifter.named_modules(), *judge.named_modules()):
        if isinstance(layer, nn.Linear) and name != "encoder.log_variance":
            gain = 0.1 if name == "decoder.joints" else 1.0
            expected = gain * math.sqrt(2 / (1 + 0.01**2) / layer.in_features)
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.1), name
            assert layer.bias is None or (layer.bias == 0).all()


def test_the_same_generator_makes_the_same_lifter():
    ours, theirs = (VaeLifter(SMALL, generator()).state_dict() for _ in range(2))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)


def test_the_log_variance_is_clamped():
    lifter = made(BEST)
    lifter.encoder.log_variance.bias.data.copy_(torch.tensor([1e9, -1e9, 0, 1e9, 0, 0]))
    assert lifter.encode(pictures(2), masks(2))[1][:, [0, 1, 3]].tolist() == [[10, -10, 10]] * 2


def test_the_encoder_is_the_thesis_one_step_by_step():
    """Linear, norm, Mish; twice linear, norm, Mish, plus what went in; then the heads."""
    lifter = made(SMALL)
    first, block = lifter.encoder.trunks[0]
    x = 0.1 / lifter.path * pictures(5)[:, 1:].flatten(1)
    h = mish(first.norm(first.linear(x)))
    inner = mish(block[0].norm(block[0].linear(h)))
    h = h + mish(block[1].norm(block[1].linear(inner)))
    mean, log_variance = lifter.encode(pictures(5), seen_everywhere(pictures(5)))
    torch.testing.assert_close(mean, lifter.encoder.mean(h))
    torch.testing.assert_close(log_variance, lifter.encoder.log_variance(h))


@pytest.mark.parametrize(
    "wrong",
    [{"hidden": 0}, {"hidden": 10**9}, {"latent": 1}, {"blocks": -1}, {"dropout": 1.0}, {"radius": math.nan}],
)
def test_senseless_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; it must be from"):
        LifterConfig(**wrong)
    if "hidden" in wrong:
        with pytest.raises(ValueError, match="hidden is"):
            DiscriminatorConfig(**wrong)


# ---- lifting


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_batch_is_its_poses_one_by_one(config, batch):
    lifter, points, seen, noise = made(config), pictures(*batch), masks(*batch), random(*batch, 6)
    lifted = lifter(points, seen, noise)
    assert isinstance(lifted, Lifted)
    assert lifted.joints.shape == (*batch, 17, 3)
    assert lifted.distance.shape == lifted.elevation_rad.shape == batch
    assert lifted.mean.shape == lifted.log_variance.shape == (*batch, 6)
    assert (lifted.joints[..., H36M17.index("pelvis"), :] == 0).all()
    rows = [
        lifter(p, s, n)
        for p, s, n in zip(points.reshape(-1, 17, 2), seen.reshape(-1, 17), noise.reshape(-1, 6), strict=True)
    ]
    for name in ("joints", "distance", "elevation_rad", "mean", "log_variance"):
        alone = torch.stack([getattr(row, name) for row in rows])
        torch.testing.assert_close(getattr(lifted, name), alone.reshape(getattr(lifted, name).shape))


def test_an_empty_batch_stays_empty():
    assert made(BEST)(pictures(0), masks(0)).joints.shape == (0, 17, 3)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_noise_moves_the_latent_by_standard_deviations(config):
    lifter, points, seen, noise = made(config), pictures(3), masks(3), random(3, 6)
    mean, log_variance = lifter.encode(points, seen)
    assert log_variance.abs().max() > 0.01
    z = mean + torch.exp(log_variance).sqrt() * noise
    torch.testing.assert_close(lifter(points, seen, noise).joints, lifter.decode(z, points, seen)[0])
    torch.testing.assert_close(lifter(points, seen).joints, lifter.decode(mean, points, seen)[0])
    assert (lifter(points, seen).joints - lifter(points, seen, noise).joints).abs().max() > 1e-3


@pytest.mark.parametrize("config", [CONFIGS["ray"], CONFIGS["best"]], ids=["split scale", "pose scale"])
def test_seen_joints_project_to_their_points_exactly(config):
    lifter, points, seen = made(config), pictures(4), masks(4)
    lifted = lifter(points, seen, random(4, 6))
    there = lifter.project(lifted.joints, lifted.distance)
    torch.testing.assert_close(there[seen], points[seen], rtol=0, atol=1e-14)
    assert (there - points)[~seen].abs().max() > 1e-3
    if config.scale == "pose":
        torch.testing.assert_close(there, project_units(lifted.joints, lifted.distance))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_no_coordinate_leaves_the_radius(config):
    lifter, points = made(replace(config, radius=1.3)), 0.001 * pictures(20)
    lifter.decoder.joints.bias.data.fill_(1e6)
    nothing = torch.zeros(20, 17, dtype=torch.bool)
    torch.testing.assert_close(lifter(points, nothing).joints[:, 1:], torch.full((20, 16, 3), 1.3).double())
    assert (lifter(points, seen_everywhere(points)).joints[..., 2] <= 1.3).all()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("junk", [0.0, 1e6, -1e300, math.nan, math.inf])
def test_what_an_unseen_joint_holds_never_matters(config, junk):
    lifter, points, seen, noise = made(config), pictures(3), masks(3), random(3, 6)
    assert not seen.all()
    clean = lifter(points, seen, noise)
    spoilt = lifter(points.masked_fill(~seen[..., None], junk), seen, noise)
    for name in ("joints", "distance", "elevation_rad", "mean", "log_variance"):
        assert torch.equal(getattr(clean, name), getattr(spoilt, name)), name


def test_gradients_pass_by_unseen_joints_and_are_finite():
    lifter = made(BEST)
    points, seen = pictures(3).masked_fill(~masks(3)[..., None], 1e30).requires_grad_(), masks(3)
    lifter(points, seen).joints.square().sum().backward()
    assert points.grad.isfinite().all()
    assert (points.grad[~seen] == 0).all()
    assert (points.grad[seen][1:] != 0).any()


def test_latent_gradients_reach_encoder_and_decoder():
    lifter = VaeLifter(BEST, generator()).train()
    points = pictures(8).float()
    lifted = lifter(points, seen_everywhere(points), random(8, 6).float())
    (lifted.joints.square().sum() + lifted.distance.sum() + lifted.elevation_rad.sum()).backward()
    assert all(parameter.grad is not None for parameter in lifter.parameters())


# ---- scale


@pytest.mark.parametrize("k", [0.25, 3.0])
def test_a_larger_picture_of_a_pose_is_the_same_pose_nearer(k):
    lifter, points, seen, noise = made(BEST), pictures(4) / 10, masks(4), random(4, 6)
    once, again = lifter(points, seen, noise), lifter(k * points, seen, noise)
    torch.testing.assert_close(lifter.normalised(k * points, seen), lifter.normalised(points, seen))
    torch.testing.assert_close(again.mean, once.mean)
    torch.testing.assert_close(again.joints[..., 2], once.joints[..., 2])
    torch.testing.assert_close(again.elevation_rad, once.elevation_rad)
    torch.testing.assert_close(again.distance, once.distance / k)


@pytest.mark.parametrize("scale", ["split", "pose"])
def test_on_the_training_split_the_path_is_a_tenth_and_expected_to_be_a_unit(scale):
    lifter, points = VaeLifter(replace(BEST, scale=scale)).double(), 2.3 * pictures(200)
    seen = seen_everywhere(points)
    lifter.start_at(points, seen)
    normalised = lifter.normalised(points, seen)
    expected = lifter.expected_distance(points, seen)
    if scale == "split":
        torch.testing.assert_close(path_length(normalised).mean(), torch.tensor(0.1).double())
        torch.testing.assert_close((path_length(points) * expected).mean(), torch.tensor(1.0).double())
    else:
        assert float(path_length(normalised).mean()) == pytest.approx(0.1, rel=0.05)
        torch.testing.assert_close(expected, 1 / (size_of(points, seen, lifter.squares) * path_length(points).mean()))


def test_the_split_scale_is_the_thesis_camera_at_ten_units():
    lifter, points = made(SMALL), pictures(4)
    seen = seen_everywhere(points)
    lifted = lifter(points, seen)
    torch.testing.assert_close(lifted.distance / lifter.zoom, torch.full((4,), 10.0).double())
    thesis = lifted.joints[..., :2] / (10 + lifted.joints[..., 2:])
    torch.testing.assert_close(lifter.normalised(lifter.project(lifted.joints, lifted.distance), seen), thesis)
    torch.testing.assert_close(lifter.normalised(points, seen), points * 0.1 / lifter.path)


def test_a_split_at_the_thesis_scale_needs_no_scaling():
    lifter, points = VaeLifter(SMALL).double(), pictures(50)
    points = points * 0.1 / path_length(points).mean()
    lifter.start_at(points, seen_everywhere(points))
    torch.testing.assert_close(lifter.zoom, torch.tensor(1.0).double())
    torch.testing.assert_close(lifter.normalised(points, seen_everywhere(points)), points)
    torch.testing.assert_close(
        lifter.expected_distance(points, seen_everywhere(points)), torch.full((50,), 10.0).double()
    )


@pytest.mark.parametrize("unit", [1.0, -1.0])
def test_a_learned_distance_and_elevation_stay_within_reach(unit):
    lifter, points, seen = made(BEST), pictures(3), masks(3)
    for head in lifter.decoder.extras:
        head.bias.data.fill_(unit * 1e6)
    lifted = lifter(points, seen)
    torch.testing.assert_close(lifted.distance, lifter.expected_distance(points, seen) * math.exp(unit * 0.5))
    torch.testing.assert_close(lifted.elevation_rad, torch.full((3,), unit * 0.7).double())


# ---- the discriminator, folding, the density


@pytest.mark.parametrize("batch", BATCHES)
def test_the_discriminator_gives_a_logit_a_pose_and_looks_at_no_pelvis(batch):
    judge = Discriminator(DiscriminatorConfig(hidden=32), generator()).double().eval()
    points = pictures(*batch)
    logits = judge(points)
    assert logits.shape == batch
    moved = points.clone()
    moved[..., 0, :] = 5
    torch.testing.assert_close(judge(moved), logits, rtol=0, atol=0)
    assert (judge(mirrored_points(points)) != logits).all()
    assert not any(isinstance(module, nn.BatchNorm1d) for module in judge.modules())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_folded_lifter_gives_the_same_answers_without_norms(config):
    lifter, points, seen, noise = made(config), pictures(5), masks(5), random(5, 6)
    before = {name: tensor.clone() for name, tensor in lifter.state_dict().items()}
    light = folded(lifter)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in light.modules())
    assert not any(parameter.requires_grad for parameter in light.parameters())
    ours, theirs = lifter(points, seen, noise), light(points, seen, noise)
    for name in ("joints", "distance", "elevation_rad", "mean", "log_variance"):
        torch.testing.assert_close(getattr(theirs, name), getattr(ours, name), rtol=0, atol=1e-10)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lifter.state_dict().items())


def test_in_half_precision_only_the_networks_are():
    lifter = made(BEST).float()
    points, seen = pictures(5).float(), masks(5)
    exact, rough = lifter(points, seen), folded(lifter, "bfloat16")(points, seen)
    assert rough.joints.dtype == rough.mean.dtype == torch.float32
    torch.testing.assert_close(rough.joints, exact.joints, rtol=0, atol=0.1)
    there = folded(lifter, "bfloat16").project(rough.joints, rough.distance)
    torch.testing.assert_close(there[seen], points[seen], rtol=0, atol=1e-6)


def test_without_gradients_the_answers_are_the_same():
    lifter, points, seen = made(BEST), pictures(3), masks(3)
    with torch.no_grad():
        alone = lifter(points, seen)
    assert torch.equal(alone.joints, lifter(points, seen).joints)


SMALL_FLOW = FlowConfig(depth=2, hidden=8)


@pytest.mark.parametrize("batch", BATCHES)
def test_a_density_knows_no_scale_and_reads_each_pose_alone(batch):
    density = PoseDensity2D(SMALL_FLOW, generator()).double()
    density.start_at(pictures(300, seed=5), seen_everywhere(pictures(300)), generator())
    points = pictures(*batch)
    likelihood = density.log_likelihood(points)
    assert likelihood.shape == batch
    torch.testing.assert_close(density.log_likelihood(4 * points), likelihood)
    torch.testing.assert_close(density.coordinates(points).square().sum(-1), torch.full(batch, 32.0).double())


def test_a_density_starts_as_the_gaussian_of_its_poses():
    density, points = PoseDensity2D(SMALL_FLOW, generator()).double(), pictures(400)
    seen = seen_everywhere(points)
    seen[300:, 4] = False
    density.start_at(points, seen, generator())
    x = density.coordinates(points[:300])
    covariance = torch.cov(x.mT, correction=0)
    values, vectors = torch.linalg.eigh(covariance)
    covariance = vectors @ torch.diag(values.clamp_min(SPREAD**2)) @ vectors.mT
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), covariance)
    torch.testing.assert_close(density.log_likelihood(points[:300]), gaussian.log_prob(x))
    with pytest.raises(ValueError, match="none of 400 poses shows all 17 joints"):
        density.start_at(points, torch.zeros_like(seen))
