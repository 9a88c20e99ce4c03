"""The body function equals smplx on the same file, moves rigidly, mirrors, and its fast paths are its slow one."""

from dataclasses import replace

import numpy as np
import pytest
import roma
import torch

from meshrec.assets import load_body_file, smpl_fields
from meshrec.body import BodyModel, load_body_model
from meshrec.body_file import BodyFile
from meshrec.kinematics import pose_tree
from meshrec.skeletons import COCO17, H36M17, LSP14, MEDIAPIPE33, SMPL24
from meshrec.types import BodyParams

BATCHES = [(), (0,), (1,), (3,), (2, 3)]


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model(dtype=torch.float64)


def random_params(*batch: int, betas: int = 10, spread: float = 0.5, seed: int = 0) -> BodyParams:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*batch, *shape, generator=random, dtype=torch.float64)

    rotations = roma.rotvec_to_rotmat(spread * normal(24, 3))
    return BodyParams.from_rotations(rotations, normal(betas), normal(3))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_equals_smplx_on_the_same_file(dtype: torch.dtype, tolerance: float) -> None:
    smplx = pytest.importorskip("smplx")
    file = load_body_file()
    params = random_params(5).to(dtype)
    peer = smplx.SMPL("", data_struct=smplx.utils.Struct(**smpl_fields(file)), batch_size=5, dtype=dtype)
    theirs = peer(
        betas=params.betas,
        global_orient=params.root[:, None],
        body_pose=params.pose,
        transl=params.transl_m,
        pose2rot=False,
    )
    ours = BodyModel(file, dtype)(params)
    assert (ours.vertices_m - theirs.vertices).abs().max() < tolerance
    assert (ours.joints_m - theirs.joints[:, :24]).abs().max() < tolerance


@pytest.mark.parametrize("dense", [False, True])
def test_gradients_equal_smplx(model: BodyModel, dense: bool) -> None:
    smplx = pytest.importorskip("smplx")
    file = load_body_file()
    if dense:
        model = BodyModel(_with_dense_correctives(file), torch.float64)
        file = model.file
    assert model.correctives.sparse is not dense
    peer = smplx.SMPL("", data_struct=smplx.utils.Struct(**smpl_fields(file)), batch_size=2, dtype=torch.float64)
    params = random_params(2)
    pull = torch.randn(2, len(file.v_template), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, theirs = (params.map(lambda tensor: tensor.clone().requires_grad_()) for _ in range(2))
    (model(ours).vertices_m * pull).sum().backward()
    posed = peer(
        betas=theirs.betas,
        global_orient=theirs.root[:, None],
        body_pose=theirs.pose,
        transl=theirs.transl_m,
        pose2rot=False,
    )
    (posed.vertices * pull).sum().backward()
    for name in ("root", "pose", "betas", "transl_m"):
        mine, other = getattr(ours, name).grad, getattr(theirs, name).grad
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-9), name


def _with_dense_correctives(file: BodyFile) -> BodyFile:
    random = np.random.default_rng(0)
    return replace(file, posedirs=random.normal(0, 1e-3, file.posedirs.shape).astype(np.float32))


def test_gradcheck(model: BodyModel) -> None:
    params = random_params(2)
    picked = torch.arange(0, len(model.weights), 977)

    def some_vertices(root, pose, betas, transl_m):
        return model(BodyParams(root, pose, betas, transl_m)).vertices_m[:, picked]

    def joints(root, pose, betas, transl_m):
        return model.regressed(BodyParams(root, pose, betas, transl_m), H36M17)

    inputs = tuple(
        tensor.clone().requires_grad_() for tensor in (params.root, params.pose, params.betas, params.transl_m)
    )
    assert torch.autograd.gradcheck(some_vertices, inputs, fast_mode=True)
    assert torch.autograd.gradcheck(joints, inputs, fast_mode=True)


@pytest.mark.parametrize("skeleton", [H36M17, COCO17, MEDIAPIPE33], ids=lambda skeleton: skeleton.name)
@pytest.mark.parametrize("batch", BATCHES)
def test_folded_regressors_are_the_regressed_vertices(model: BodyModel, skeleton, batch) -> None:
    params = random_params(*batch)
    rows = torch.tensor(model.file.regressors[skeleton.name], dtype=torch.float64)
    assert torch.allclose(model.regressed(params, skeleton), rows @ model(params).vertices_m, atol=1e-12)


@pytest.mark.parametrize("batch", BATCHES)
def test_joints_without_vertices_are_the_bodys_joints(model: BodyModel, batch) -> None:
    params = random_params(*batch)
    body = model(params)
    assert torch.allclose(model.joints24(params), body.joints_m, atol=1e-14)
    assert torch.allclose(model.regressed(params, SMPL24), body.joints_m, atol=1e-12)
    assert body.vertices_m.shape == (*batch, len(model.weights), 3)


@pytest.mark.parametrize("batch", BATCHES)
def test_a_body_does_not_know_its_batch(model: BodyModel, batch) -> None:
    params = random_params(*batch)
    flat = params.map(lambda tensor: tensor.reshape(-1, *tensor.shape[len(batch) :]))
    alone = [model(flat[index]).vertices_m for index in range(len(flat.betas))]
    alone = torch.stack(alone) if alone else torch.zeros(0, len(model.weights), 3, dtype=torch.float64)
    assert torch.allclose(model(params).vertices_m.reshape(alone.shape), alone, atol=1e-12)


def test_turning_the_root_turns_the_body_about_the_pelvis(model: BodyModel) -> None:
    params = random_params(4)
    turn = roma.random_rotmat(4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    turned = BodyParams(turn @ params.root, params.pose, params.betas, params.transl_m)
    before, after = model(params), model(turned)
    pelvis = before.joints_m[:, :1]
    expected = (turn[:, None] @ (before.vertices_m - pelvis)[..., None])[..., 0] + pelvis
    assert torch.allclose(after.vertices_m, expected, atol=1e-6)  # skinning weights sum to 1 in float32


def test_the_mirrored_pose_is_the_mirrored_body(model: BodyModel) -> None:
    """Shipped bodies are symmetric: swapping sides and reflecting every rotation reflects the skin."""
    params = random_params(3)
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    mirrored = flip @ params.rotations[:, list(SMPL24.mirror)] @ flip
    other = model(BodyParams.from_rotations(mirrored, params.betas, params.transl_m @ flip))
    vertices = model(params).vertices_m[:, torch.tensor(model.file.mirror).long()]
    assert torch.allclose(other.vertices_m, vertices @ flip, atol=1e-5)


def test_bending_the_left_elbow_moves_only_the_left_forearm(model: BodyModel) -> None:
    straight = BodyParams.from_rotations(
        torch.eye(3, dtype=torch.float64).repeat(24, 1, 1), torch.zeros(10).double(), torch.zeros(3).double()
    )
    rotations = straight.rotations.clone()
    rotations[SMPL24.index("left_elbow")] = roma.rotvec_to_rotmat(torch.tensor([0.0, -1.5, 0.0]).double())
    bent = BodyParams.from_rotations(rotations, straight.betas, straight.transl_m)
    moved = (model.joints24(bent) - model.joints24(straight)).norm(dim=-1) > 1e-9
    assert [SMPL24.joints[index] for index in moved.nonzero()[:, 0]] == ["left_wrist", "left_hand"]
    wrist = model.joints24(bent)[SMPL24.index("left_wrist")] - model.joints24(bent)[SMPL24.index("left_elbow")]
    assert wrist[2] > 0.2, "a bent elbow brings the hand forward, to +z"


def test_missing_betas_are_zero_and_too_many_are_refused(model: BodyModel) -> None:
    params = random_params(2, betas=3)
    padded = BodyParams(params.root, params.pose, model.pad_betas(params.betas), params.transl_m)
    assert torch.equal(model(params).vertices_m, model(padded).vertices_m)
    with pytest.raises(ValueError, match="betas"):
        model(random_params(2, betas=model.num_betas + 1))


def test_an_unknown_regressor_is_refused_by_name(model: BodyModel) -> None:
    with pytest.raises(ValueError, match="lsp14"):
        model.regressed(random_params(1), LSP14)


def test_lever_arms_and_shape_derivatives_are_the_jacobian(model: BodyModel) -> None:
    """Against autograd, with the pose correctives held still as the derivative promises."""
    params = random_params(spread=0.4)
    regressor = model.regressor(H36M17)
    features = torch.zeros(207, dtype=torch.float64)

    def joints(tangent, betas):
        rotations = params.rotations @ roma.rotvec_to_rotmat(tangent)
        rest = model.rest_template + model.rest_directions @ model.pad_betas(betas)
        return regressor(pose_tree(rotations, rest), model.pad_betas(betas), features)

    zero = torch.zeros(24, 3, dtype=torch.float64)
    by_tangent, by_betas = torch.autograd.functional.jacobian(joints, (zero, params.betas))
    tree = model.kinematics(params)
    _, levers, shape = regressor.with_jacobian(tree, model.pad_betas(params.betas), features, model.rest_directions)
    axes = tree.world.mT[None]  # columns of the world rotation, one row each
    expected = torch.linalg.cross(axes, levers[:, :, None]).movedim(-1, 1)
    assert torch.allclose(by_tangent, expected, atol=1e-10)
    assert torch.allclose(by_betas, shape[..., : params.betas.shape[-1]], atol=1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("dense", [False, True])
def test_cuda_gives_what_the_processor_gives(model: BodyModel, dense: bool) -> None:
    file = _with_dense_correctives(model.file) if dense else model.file
    params = random_params(5)
    here, there = BodyModel(file, torch.float64)(params), BodyModel(file, torch.float64).cuda()(params.to("cuda"))
    assert torch.allclose(here.vertices_m, there.vertices_m.cpu(), atol=1e-10)
