"""Batched metrics against a loop over the poses."""

import numpy as np
import torch

from benchmarks.clock import Figure, medians_s
from meshrec.metrics import pa_mpjpe_mm
from meshrec.skeletons import H36M17

POSES = 100_000
LOOPED = 5_000


def pa_mpjpe(repeats: int) -> Figure:
    """MPJPE of many poses after the best similarity."""
    random = np.random.default_rng(0)
    true_m = random.normal(0, 0.3, (POSES, len(H36M17), 3)).astype(np.float32)
    predicted_m = true_m + random.normal(0, 0.05, true_m.shape).astype(np.float32)
    ours = [torch.from_numpy(joints) for joints in (predicted_m, true_m)]
    ours_s, looped_s = medians_s(
        lambda: pa_mpjpe_mm(*ours),
        lambda: [_pa_mpjpe_mm(*pair) for pair in zip(predicted_m[:LOOPED], true_m[:LOOPED], strict=True)],
        repeats=repeats,
        most=3,
    )
    note = f"the loop is measured on {LOOPED:,} poses and scaled"
    return Figure(1e3 * ours_s, "ms", 1e3 * looped_s * POSES / LOOPED, "NumPy, pose by pose", note)


def _pa_mpjpe_mm(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """One pose, as it is commonly written (Umeyama 1991)."""
    predicted_mean, true_mean = predicted_m.mean(0), true_m.mean(0)
    predicted, true = predicted_m - predicted_mean, true_m - true_mean
    U, spread, Vt = np.linalg.svd(true.T @ predicted)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    rotation = U @ np.diag(signs) @ Vt
    scale = (spread * signs).sum() / (predicted**2).sum()
    aligned = scale * predicted @ rotation.T + true_mean
    return 1e3 * np.linalg.norm(aligned - true_m, axis=1).mean()
