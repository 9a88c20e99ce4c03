"""The shape space: a mean body and orthogonal directions with one standard deviation per unit of beta."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from bodybuild.mesh import vertex_areas
from bodybuild.rig import FLIP_X

DIRECTIONS = 16


@dataclass(frozen=True)
class ShapeSpace:
    """Bodies `mean_m + directions_m @ betas`; over the people it was fitted to, betas have unit variance."""

    mean_m: Float[np.ndarray, "V 3"]
    directions_m: Float[np.ndarray, "V 3 K"]
    areas_m2: Float[np.ndarray, "V"]
    explained: float
    """Share of the area-weighted variance that the directions hold."""

    def betas(self, skin_m: Float[np.ndarray, "N V 3"]) -> Float[np.ndarray, "N K"]:
        """The betas whose bodies are nearest, every square metre of skin counting the same."""
        directions = self.directions_m.reshape(-1, self.directions_m.shape[-1])
        weighted = directions * np.repeat(self.areas_m2, 3)[:, None]
        offsets = (skin_m - self.mean_m).reshape(len(skin_m), -1)
        return np.linalg.solve(directions.T @ weighted, (offsets @ weighted).T).T

    def residual_m(self, skin_m: Float[np.ndarray, "N V 3"], directions: int = DIRECTIONS) -> float:
        """Mean distance between people and the nearest bodies that the first directions can draw."""
        kept = replace(self, directions_m=self.directions_m[..., :directions])
        drawn = self.mean_m + np.einsum("vck,nk->nvc", kept.directions_m, kept.betas(skin_m))
        return float(np.linalg.norm(skin_m - drawn, axis=-1).mean())


def fit_shapes(
    skin_m: Float[np.ndarray, "N V 3"], faces: Int[np.ndarray, "F 3"], mirror: Int[np.ndarray, "V"]
) -> ShapeSpace:
    """Principal components of people, weighted by the area around each vertex and symmetric left to right.

    The first direction grows taller, the others slimmer.
    """
    mean = skin_m.mean(0, dtype=np.float64)
    mean = (mean + mean[mirror] * FLIP_X) / 2
    areas = vertex_areas(mean, faces)
    scale = np.sqrt(areas / areas.mean()).astype(np.float32)[:, None]
    offsets = ((skin_m - mean.astype(np.float32)) * scale).reshape(len(skin_m), -1)
    # offsets = U S W^T, where U and S^2 are the eigenvectors and eigenvalues of the small matrix offsets @ offsets^T.
    variances, people = np.linalg.eigh((offsets @ offsets.T).astype(np.float64))
    people = people[:, ::-1][:, :DIRECTIONS]
    directions = (offsets.T @ people / np.sqrt(len(skin_m))).T.reshape(DIRECTIONS, -1, 3) / scale
    directions = (directions + directions[:, mirror] * FLIP_X) / 2
    directions = np.stack([_oriented(k, direction, mean) for k, direction in enumerate(directions)], axis=-1)
    return ShapeSpace(mean, directions, areas, float(variances[::-1][:DIRECTIONS].sum() / variances.sum()))


def _oriented(k: int, direction: Float[np.ndarray, "V 3"], mean_m: Float[np.ndarray, "V 3"]) -> np.ndarray:
    """The direction or its opposite: taller for the first, a narrower waist for the others."""
    height = mean_m[:, 1]
    taller = direction[height.argmax(), 1] - direction[height.argmin(), 1]
    waist = (np.abs(height) < 0.1) & (np.abs(mean_m[:, 0]) < 0.25)
    wider = (direction[waist] * np.sign(mean_m[waist]) * np.array([1, 0, 1])).sum()
    return direction if (taller if k == 0 else -wider) > 0 else -direction
