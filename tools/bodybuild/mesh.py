"""From MakeHuman's mesh to one of SMPL's size: closed, mirror symmetric, 6,890 vertices, numbered as SMPL's."""

from dataclasses import dataclass

import numpy as np
import pyfqmr
import scipy.sparse as sp
import trimesh
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from bodybuild.rig import EYEBALL, Rig, boundary_loops, eye_and_mouth_rims, visible_faces
from bodybuild.skinning import apply, joint_motions, rotation
from meshrec.skeletons import SMPL24
from meshrec.surface_points import SURFACE_POINTS

VERTICES = 6890
EYE_CAP_RADIUS_M = 0.004
"""How much of the eyeball shows between the lids: what lies this close to its front."""

FINGERS = ("index", "middle", "ring", "pinky")
COARSE = {
    "head": ("head",),
    "left_wrist": ("left_wrist", "left_hand"),
    "right_wrist": ("right_wrist", "right_hand"),
    "left_ankle": ("left_ankle", "left_foot"),
    "right_ankle": ("right_ankle", "right_foot"),
}
"""Parts that the simplification sees at half their size, drawn to a joint: so that they do not take all vertices."""


HALF_BENT_DEG = {
    "hip": (-45, 0, 15),
    "knee": (70, 0, 0),
    "ankle": (20, 0, 0),
    "shoulder": (0, 0, -30),
    "elbow": (0, -70, 0),
}
"""Rotation vectors of the left side in the pose that the simplification sees."""


@dataclass(frozen=True)
class Remesh:
    """A new surface whose vertices are weighted means of the old one's."""

    samples: sp.csr_array
    faces: Int[np.ndarray, "F 3"]
    mirror: Int[np.ndarray, "V"]
    distance_m: float
    """How far the farthest new vertex lay from the old surface before it was laid on it."""


def closed_half(rig: Rig) -> Int[np.ndarray, "F 3"]:
    """Faces of the left half of the skin, with the lips sewn together and the eye's front sewn into its lids."""
    eye_rim, mouth_rim = eye_and_mouth_rims(rig)
    left = (rig.skin_m[rig.faces][..., 0] > -1e-7).all(1)
    cap = _eye_cap(rig)
    (cap_rim,) = boundary_loops(cap)
    seams = [_sew_rings(rig.skin_m, eye_rim[::-1], cap_rim), _sew_lips(rig.skin_m, mouth_rim[::-1])]
    half = np.concatenate([rig.faces[visible_faces(rig) & left], cap, *seams])
    (midline,) = boundary_loops(half)
    assert np.abs(rig.skin_m[midline, 0]).max() < 1e-7, "half a body is open at its middle alone"
    return half


def simplify(rig: Rig, seen_m: Float[np.ndarray, "V 3"]) -> Remesh:
    """The closed body with 6,890 vertices: its left half simplified by quadric errors, and the mirror image of that.

    `seen_m` is the surface that the simplification sees (Garland and Heckbert 1997).
    """
    half = closed_half(rig)
    on_middle = np.abs(rig.skin_m[:, 0]) < 1e-7
    seen_m = np.where(on_middle[:, None], seen_m * np.array([0, 1, 1]), seen_m)
    vertices, faces = _simplify_half(seen_m, half)
    middle = vertices[:, 0] == 0
    corners, shares, distance = _lay_on(seen_m, half, np.flatnonzero(on_middle), vertices, middle)
    return _mirrored(rig, corners, shares, faces, middle, distance)


def seen_by_simplification(
    skin_m: Float[np.ndarray, "V 3"], weights: Float[np.ndarray, "V 24"], joints_m: Float[np.ndarray, "24 3"]
) -> Float[np.ndarray, "V 3"]:
    """The skin with head, hands and feet at half their size, and every limb half bent.

    A bent knee is round where a straight one is flat, so that it keeps the vertices it needs to bend.
    """
    drawn = skin_m.copy()
    for centre, parts in COARSE.items():
        share = weights[:, SMPL24.indices(*parts)].sum(1, keepdims=True)
        drawn -= 0.5 * share * (skin_m - joints_m[SMPL24.index(centre)])
    bent = np.zeros((len(SMPL24), 3))
    for joint, degrees in HALF_BENT_DEG.items():
        bent[SMPL24.index(f"left_{joint}")] = np.deg2rad(degrees)
        bent[SMPL24.index(f"right_{joint}")] = np.deg2rad(degrees) * np.array([1, -1, -1])
    matrices, shifts = joint_motions(weights, rotation(bent), joints_m)
    return apply(matrices, drawn) + shifts


def renumbered(remesh: Remesh, points: dict[str, int]) -> Remesh:
    """The same mesh with the named surface points at the ids every SMPL tool uses."""
    assert points.keys() == SURFACE_POINTS.keys()
    assert len(set(points.values())) == len(points), f"surface points coincide: {points}"
    old_of_new = np.full(VERTICES, -1)
    old_of_new[list(SURFACE_POINTS.values())] = [points[name] for name in SURFACE_POINTS]
    old_of_new[old_of_new < 0] = np.setdiff1d(np.arange(VERTICES), list(points.values()))
    new_of_old = np.argsort(old_of_new)
    return Remesh(
        samples=remesh.samples[old_of_new],
        faces=new_of_old[remesh.faces],
        mirror=new_of_old[remesh.mirror[old_of_new]],
        distance_m=remesh.distance_m,
    )


def find_surface_points(
    rig: Rig, skin_m: Float[np.ndarray, "V 3"], marks_m: Float[np.ndarray, "K 3"]
) -> dict[str, int]:
    """Vertices at the tips of nose, fingers and toes, at eyes, ears and heels, and on top of the head."""
    across, up, front = skin_m.T

    def of_bone(bone: str, share: float = 0.5) -> Bool[np.ndarray, "V"]:
        return rig.weights[:, rig.bone(bone)] > share

    def farthest(among: Bool[np.ndarray, "V"], score: Float[np.ndarray, "V"]) -> int:
        return int(np.where(among, score, -np.inf).argmax())

    def nearest(mark: str) -> int:
        return int(np.linalg.norm(skin_m - marks_m[rig.marks.index(mark)], axis=1).argmin())

    middle = rig.mirror == np.arange(VERTICES)
    left = {
        "left_eye": nearest("left_eye"),
        "left_ear": nearest("left_ear"),
        "left_thumb": farthest(of_bone("finger1-3.L"), across + 0.3 * front),
        **{f"left_{f}": farthest(of_bone(f"finger{k}-3.L"), across) for k, f in enumerate(FINGERS, start=2)},
        "left_big_toe": farthest(of_bone("toe1-2.L"), front),
        "left_small_toe": farthest(of_bone("toe5-3.L", 0.3), front),
        "left_heel": farthest(of_bone("foot.L") & (up < up.min() + 0.04), -front),
    }
    right = {name.replace("left", "right"): int(rig.mirror[vertex]) for name, vertex in left.items()}
    at_nose = np.abs(up - marks_m[rig.marks.index("nose"), 1]) < 0.02
    return {
        "nose": farthest(middle & at_nose & of_bone("head"), front),
        "head_top": farthest(middle, up),
        **left,
        **right,
    }


def lay_out(
    rig: Rig, remesh: Remesh, skin_m: Float[np.ndarray, "V 3"]
) -> tuple[Float[np.ndarray, "T 2"], Int[np.ndarray, "F 3"]]:
    """MakeHuman's texture coordinates for the new faces, chart by chart."""
    shown = visible_faces(rig)
    old_faces, old_uv_faces = rig.faces[shown], rig.uv_faces[shown]
    new_m = remesh.samples @ skin_m
    charts = _charts(rig)[old_uv_faces[:, 0]]
    old = trimesh.Trimesh(skin_m, old_faces, process=False)
    _, _, nearest = trimesh.proximity.closest_point(old, new_m[remesh.faces].mean(1))
    uv, uv_faces = [], np.zeros_like(remesh.faces)
    for chart in np.unique(charts[nearest]):
        mine, theirs = charts[nearest] == chart, charts == chart
        vertices, index = np.unique(remesh.faces[mine], return_inverse=True)
        corners, shares, _ = _closest(skin_m, old_faces[theirs], old_uv_faces[theirs], new_m[vertices])
        uv_faces[mine] = index.reshape(-1, 3) + sum(map(len, uv))
        uv.append((rig.uv[corners] * shares[..., None]).sum(1))
    return np.concatenate(uv), uv_faces


def vertex_areas(skin_m: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "V"]:
    """A third of the area of the faces around each vertex, in square metres."""
    a, b, c = skin_m[faces].transpose(1, 0, 2)
    thirds = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return np.bincount(faces.ravel(), np.repeat(thirds, 3), minlength=len(skin_m))


def _eye_cap(rig: Rig) -> Int[np.ndarray, "F 3"]:
    """The front of the left eyeball."""
    eyeball = rig.faces[rig.regions[EYEBALL]]
    vertices = rig.skin_m[np.unique(eyeball)]
    front = vertices[vertices[:, 2].argsort()[-8:]].mean(0)
    return eyeball[(np.linalg.norm(rig.skin_m[eyeball] - front, axis=-1) < EYE_CAP_RADIUS_M).all(1)]


def _sew_rings(skin_m: Float[np.ndarray, "V 3"], outer: list[int], inner: list[int]) -> Int[np.ndarray, "F 3"]:
    """Faces between two closed loops that run the same way round."""
    distance = np.linalg.norm(skin_m[outer][:, None] - skin_m[inner], axis=-1)
    i, j = np.unravel_index(distance.argmin(), distance.shape)
    return _sew(skin_m, [*outer[i:], *outer[: i + 1]], [*inner[j:], *inner[: j + 1]])


def _sew_lips(skin_m: Float[np.ndarray, "V 3"], rim: list[int]) -> Int[np.ndarray, "F 3"]:
    """Faces between the upper and the lower lip, from the middle to the left corner of the mouth."""
    first, second = np.flatnonzero(np.abs(skin_m[rim, 0]) < 1e-7)
    arc = rim[first : second + 1]
    if skin_m[arc, 0].mean() < 0:
        arc = [*rim[second:], *rim[: first + 1]]
    corner = int(skin_m[arc, 0].argmax())
    return _sew(skin_m, arc[: corner + 1], arc[corner:][::-1])


def _sew(skin_m: Float[np.ndarray, "V 3"], a: list[int], b: list[int]) -> Int[np.ndarray, "F 3"]:
    """Faces between two chains from their common start to their common end, always by the shorter diagonal."""
    i = j = 0
    faces = []
    while i < len(a) - 1 or j < len(b) - 1:
        ahead_a = np.linalg.norm(skin_m[a[i + 1]] - skin_m[b[j]]) if i < len(a) - 1 else np.inf
        ahead_b = np.linalg.norm(skin_m[b[j + 1]] - skin_m[a[i]]) if j < len(b) - 1 else np.inf
        if ahead_a <= ahead_b:
            faces.append((a[i], a[i + 1], b[j]))
            i += 1
        else:
            faces.append((a[i], b[j + 1], b[j]))
            j += 1
    return np.array([face for face in faces if len(set(face)) == 3])


def _simplify_half(
    skin_m: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> tuple[Float[np.ndarray, "W 3"], Int[np.ndarray, "G 3"]]:
    """The half whose union with its mirror image has exactly 6,890 vertices."""
    used, compact = np.unique(faces, return_inverse=True)
    middle = int((skin_m[used, 0] == 0).sum())
    # A disc with n vertices, m of them on its rim, has 2n - m - 2 faces, and its double has 2n - m vertices.
    target = VERTICES - 2
    assert middle % 2 == 0, f"{middle} vertices on the midline cannot give an even number of vertices"
    for wanted in range(target - 4, target + 5):
        simplifier = pyfqmr.Simplify()  # type: ignore[attr-defined]
        simplifier.setMesh(skin_m[used], compact.reshape(-1, 3))
        simplifier.simplify_mesh(target_count=wanted, aggressiveness=7, preserve_border=True, verbose=False)
        vertices, reduced, _ = simplifier.getMesh()
        vertices[np.abs(vertices[:, 0]) < 1e-6, 0] = 0
        if 2 * len(vertices) - int((vertices[:, 0] == 0).sum()) == VERTICES:
            return vertices, reduced
    raise AssertionError(f"no simplification of the body has {VERTICES} vertices")


def _lay_on(
    skin_m: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    rim: Int[np.ndarray, "M"],
    vertices: Float[np.ndarray, "W 3"],
    middle: Bool[np.ndarray, "W"],
) -> tuple[Int[np.ndarray, "W 3"], Float[np.ndarray, "W 3"], float]:
    """Each new vertex as a mean of three old ones, and the farthest distance; the midline keeps to the midline."""
    corners, shares, distance = _closest(skin_m, faces, faces, vertices)
    gap, nearest = KDTree(skin_m[rim]).query(vertices[middle])
    corners[middle] = rim[nearest][:, None]
    shares[middle] = (1, 0, 0)
    return corners, shares, float(max(distance.max(), gap.max()))


def _closest(
    skin_m: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    values: Int[np.ndarray, "F 3"],
    points: Float[np.ndarray, "P 3"],
) -> tuple[Int[np.ndarray, "P 3"], Float[np.ndarray, "P 3"], Float[np.ndarray, "P"]]:
    """What the corners of the nearest face carry, their barycentric shares, and the distance."""
    surface = trimesh.Trimesh(skin_m, faces, process=False)
    on_surface, distance, face = trimesh.proximity.closest_point(surface, points)
    shares = trimesh.triangles.points_to_barycentric(skin_m[faces[face]], on_surface, method="cramer").clip(0, 1)
    return values[face].copy(), shares / shares.sum(1, keepdims=True), distance


def _mirrored(
    rig: Rig,
    corners: Int[np.ndarray, "W 3"],
    shares: Float[np.ndarray, "W 3"],
    faces: Int[np.ndarray, "G 3"],
    middle: Bool[np.ndarray, "W"],
    distance_m: float,
) -> Remesh:
    """Left half and its mirror image as one mesh."""
    half, side = len(corners), np.flatnonzero(~middle)
    image = np.arange(half)
    image[side] = half + np.arange(len(side))
    all_corners = np.concatenate([corners, rig.mirror[corners[side]]])
    all_shares = np.concatenate([shares, shares[side]])
    rows = np.repeat(np.arange(len(all_corners)), 3)
    shape = (len(all_corners), len(rig.skin_m))
    return Remesh(
        samples=sp.coo_array((all_shares.ravel(), (rows, all_corners.ravel())), shape=shape).tocsr(),
        faces=np.concatenate([faces, image[faces][:, ::-1]]),
        mirror=np.concatenate([image, side]),
        distance_m=distance_m,
    )


def _charts(rig: Rig) -> Int[np.ndarray, "T"]:
    """Which connected piece of the texture each texture coordinate belongs to."""
    edges = rig.uv_faces[:, [0, 1, 1, 2]].reshape(-1, 2)
    graph = sp.coo_array((np.ones(len(edges)), edges.T), shape=(len(rig.uv),) * 2)
    return connected_components(graph, directed=False)[1]
