"""A comparison that no branch has made: its figures are drawn at random about known means."""

from dataclasses import replace

import numpy as np
import trimesh

from meshrec.comparison.comparison import TRUTH, Answer, Comparison, Difference, Exhibit, Interval, Metric, NoiseCurve
from meshrec.comparison.summaries import mean_interval
from meshrec.skeletons import H36M17

BRANCHES = ("lift", "mesh", "fit")
METRICS = (
    Metric("pa_mpjpe_mm", "PA-MPJPE", "mm", "lower", "Mean distance of 17 joints after the best similarity."),
    Metric("pve_mm", "PVE", "mm", "lower", "Mean distance of the vertices about the pelvis."),
    Metric("pck_150mm", "PCK@150mm", "", "higher", "Share of the joints within 150 mm."),
)
MEANS = {
    "lift": {"pa_mpjpe_mm": 60.0, "pve_mm": np.nan, "pck_150mm": 0.90},
    "mesh": {"pa_mpjpe_mm": 50.0, "pve_mm": 95.0, "pck_150mm": 0.86},
    "fit": {"pa_mpjpe_mm": 75.0, "pve_mm": 120.0, "pck_150mm": 0.80},
}
SPREAD = {"pa_mpjpe_mm": 0.3, "pve_mm": 0.25, "pck_150mm": 0.08}
STANDING = {"pelvis": (0, 0), "hip": (0.1, 0), "knee": (0.11, 0.45), "ankle": (0.12, 0.88), "spine": (0, -0.25)}
STANDING |= {"thorax": (0, -0.5), "face": (0, -0.6), "head_top": (0, -0.75), "shoulder": (0.18, -0.48)}
STANDING |= {"elbow": (0.42, -0.5), "wrist": (0.66, -0.52)}


def comparison(people: int = 60, seed: int = 0) -> Comparison:
    """Three branches on people of two groups, against truth."""
    random = np.random.default_rng(seed)
    figures = {branch: {m.name: _drawn(random, branch, m.name, people) for m in METRICS} for branch in BRANCHES}
    groups = {"occlusion": _levels(random, ("none", "some", "much"), people), "view": _levels(random, VIEWS, people)}
    return Comparison(
        title="lift, mesh and fit on invented people",
        data=("invented",),
        against="truth",
        protocol={"joints": "17 of Human3.6M", "intervals": "bootstrap over people, 1,000 draws"},
        branches=BRANCHES,
        metrics=METRICS,
        people=tuple(f"invented, person {index}" for index in range(people)),
        groups=groups,
        angle_rad=random.uniform(-np.pi, np.pi, people),
        figures=figures,
        joint_names=H36M17.joints,
        joint_errors_mm={branch: _joint_errors(random, branch, people) for branch in BRANCHES},
        means={b: {m: mean_interval(values) for m, values in found.items()} for b, found in figures.items()},
        differences=_differences(figures, groups),
        noise=tuple(_noise(branch, metric.name, people) for branch in BRANCHES for metric in METRICS[::2]),
        cost={"lift": {"seconds": 0.002, "peak_mb": 410.0}, "mesh": {"seconds": 0.31, "peak_mb": 900.0}},
        shared_means=_shared(figures),
        joint_differences=_joint_differences(),
        unanswered={"lift": 0, "mesh": 2, "fit": 0},
        sentences=("mesh has the lowest PA-MPJPE.",),
    )


VIEWS = ("front", "side", "back")


def photos_only(people: int = 60) -> Comparison:
    """The same branches with nothing to compare with but each other."""
    unknown = {branch: np.full((people, len(H36M17)), np.nan) for branch in BRANCHES}
    angle = np.full(people, np.nan)
    known = comparison(people)
    everybody = tuple(each for each in known.differences if not each.group)
    return replace(
        known,
        against="each other",
        joint_errors_mm=unknown,
        angle_rad=angle,
        groups={},
        noise=(),
        differences=everybody,
    )


def _drawn(random: np.random.Generator, branch: str, metric: str, people: int) -> np.ndarray:
    """About the mean, with those whom a branch does not answer."""
    values = MEANS[branch][metric] * np.exp(SPREAD[metric] * random.standard_normal(people))
    if branch == "mesh":
        values[:2] = np.nan
    return np.minimum(values, 1.0) if metric.startswith("pck") else values


def _joint_errors(random: np.random.Generator, branch: str, people: int) -> np.ndarray:
    """The farther from the pelvis, the worse."""
    weight = np.linalg.norm(standing(), axis=1)
    return MEANS[branch]["pa_mpjpe_mm"] * 2 * weight * random.uniform(0.5, 1.5, (people, 1))


def _shared(figures: dict) -> dict:
    """Without the two people whom one branch does not answer."""
    return {b: {m: mean_interval(values[2:]) for m, values in found.items()} for b, found in figures.items()}


def _joint_differences() -> tuple[Difference, ...]:
    known = [joint for joint in H36M17.joints if joint.endswith(("knee", "wrist"))]
    told = Interval(9.5, 7.0, 12.0, 58)
    return tuple(Difference("mpjpe_mm", "lift", "mesh", "joint", joint, told, 0.3) for joint in known)


def _levels(random: np.random.Generator, names: tuple[str, ...], people: int) -> tuple[str, ...]:
    return tuple(str(name) for name in random.choice(names, people))


def _differences(figures: dict, groups: dict) -> tuple[Difference, ...]:
    found = []
    for metric in METRICS:
        for one, other in (("lift", "mesh"), ("lift", "fit"), ("mesh", "fit")):
            values = figures[one][metric.name] - figures[other][metric.name]
            found.append(_difference(metric, one, other, "", "", values))
            for group, levels in groups.items():
                for level in dict.fromkeys(sorted(levels)):
                    chosen = values[np.array(levels) == level]
                    found.append(_difference(metric, one, other, group, level, chosen))
    return tuple(found)


def _difference(metric: Metric, one: str, other: str, group: str, level: str, values: np.ndarray) -> Difference:
    known = values[np.isfinite(values)]
    wins = float(((known < 0) == (metric.better == "lower")).mean()) if len(known) else float("nan")
    return Difference(metric.name, one, other, group, level, mean_interval(values), wins)


def _noise(branch: str, metric: str, people: int) -> NoiseCurve:
    levels = (0.0, 2.0, 5.0, 10.0)
    sign = -0.02 if metric.startswith("pck") else 0.05
    values = [MEANS[branch][metric] * (1 + sign * level) * (1 + 0.1 * np.sin(np.arange(people))) for level in levels]
    return NoiseCurve(branch, metric, levels, tuple(mean_interval(each) for each in values))


def standing() -> np.ndarray:
    """Joints of one who faces the camera and raises the left hand: y down, left on the right of the picture."""
    rows = []
    for joint in H36M17.joints:
        side, _, rest = joint.partition("_") if joint.startswith(("left_", "right_")) else ("", "", joint)
        x, y = STANDING[rest]
        rows.append((x if side == "left" else -x, y, 0.0))
    joints = np.array(rows)
    joints[H36M17.index("left_wrist")] = (0.52, -0.76, -0.12)
    return joints


def ball() -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=1, radius=0.07)


def body(joints: np.ndarray) -> np.ndarray:
    """A ball about each joint and each bone's middle."""
    middles = [(joints[parent] + joints[child]) / 2 for parent, child in H36M17.bones]
    return np.concatenate([ball().vertices + center for center in [*joints, *middles]])


def faces() -> np.ndarray:
    """Of `body`."""
    one, count = np.asarray(ball().faces), len(H36M17) + len(H36M17.bones)
    return np.concatenate([one + index * len(ball().vertices) for index in range(count)])


def exhibits(count: int = 3, seed: int = 0) -> list[Exhibit]:
    """People with every branch and the truth; the lifter has joints alone, and the last lacks an answer of `fit`."""
    random = np.random.default_rng(seed)
    photo = np.full((300, 200, 3), (90, 140, 180), np.uint8)
    photo[60:240, 60:140] = (230, 200, 170)
    shown = []
    for person, why in zip(range(count), ("best", "median", "worst") * count, strict=False):
        truth = standing() @ _about_y(random.uniform(-1, 1)).T
        found = {name: truth + 0.02 * random.standard_normal(truth.shape) for name in BRANCHES}
        answers = {name: _answer(joints, name != "lift", photo) for name, joints in found.items()}
        if person == count - 1:
            del answers["fit"]
        answers[TRUTH] = _answer(truth, True, photo)
        shown.append(Exhibit(person, why, photo, (55.0, 50.0, 145.0, 250.0), answers))
    return shown


def _about_y(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _answer(joints: np.ndarray, has_body: bool, photo: np.ndarray) -> Answer:
    return Answer(photo, joints, body(joints) if has_body else None, {"pa_mpjpe_mm": 51.26, "pve_mm": float("nan")})
