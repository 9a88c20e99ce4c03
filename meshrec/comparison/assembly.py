"""From what was measured to a comparison: means, differences and where noise turns them, in numbers and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from meshrec.body import BodyModel
from meshrec.comparison.comparison import Comparison, Difference, Flip, Metric, NoiseCurve
from meshrec.comparison.figures import ACCURACY, agreement_metrics
from meshrec.comparison.groups import angles_rad, groups_of
from meshrec.comparison.measuring import Measured, against_of
from meshrec.comparison.people import People, RecordPeople
from meshrec.comparison.sentences import counted, sentences_of
from meshrec.comparison.statistics import (
    DRAWS,
    FEWEST,
    NOISE,
    Figures,
    clusters_of,
    differences_of,
    flips_of,
    joint_differences,
    level_differences,
    means_of,
)
from meshrec.errors import MeshrecError
from meshrec.record_evaluation import JOINTS14

GROUPED = 2
"""By so many metrics, the first ones, groups are told apart."""


def comparison_of(found: Measured, people: People, model: BodyModel, seed: int = 0) -> Comparison:
    """Everything that can be said of what was measured."""
    branches = tuple(found.figures[0.0])
    against = against_of(people)
    every = ACCURACY if people.known else agreement_metrics(branches)
    if not _told(found, every[0]):
        raise MeshrecError(
            "No two of them answer the same person, so there is nothing to compare. Name other branches."
        )
    metrics = tuple(metric for metric in every if _told(found, metric))
    figures = {
        branch: {metric.name: found.figures[0.0][branch][metric.name] for metric in metrics} for branch in branches
    }
    groups = groups_of(people) if isinstance(people, RecordPeople) else {}
    cluster = clusters_of(people.clips())
    main, grouped = metrics[0], metrics[:GROUPED]
    comparison = Comparison(
        title=f"{', '.join(branches)}: {counted(len(people))}",
        data=people.data,
        against=against,
        protocol=protocol_of(people, model, cluster),
        branches=branches,
        metrics=metrics,
        people=people.told(),
        groups=groups,
        angle_rad=angles_rad(people) if isinstance(people, RecordPeople) else np.full(len(people), np.nan),
        figures=figures,
        joint_names=JOINTS14,
        joint_errors_mm=found.joints_mm,
        means=means_of(figures, cluster, seed),
        differences=(
            *differences_of(figures, metrics, cluster, seed=seed),
            *level_differences(figures, grouped, groups, cluster, seed),
        ),
        joint_differences=tuple(joint_differences(found.joints_mm, JOINTS14, _joint_metric(metrics), cluster, seed)),
        noise_differences=tuple(_noise_differences(found, grouped, cluster, seed)),
        noise=_noise_curves(found, metrics, cluster, seed),
        cost=found.costs,
        shared_means=means_of(shared(figures, metrics), cluster, seed),
        unanswered={branch: int((~answered).sum()) for branch, answered in found.answered.items()},
        flips=tuple(_flips(found, main, cluster, seed)),
    )
    return replace(comparison, sentences=sentences_of(comparison))


def protocol_of(people: People, model: BodyModel, cluster: Int[np.ndarray, "N"]) -> dict[str, str]:
    """What the numbers mean."""
    clips = len(np.unique(cluster))
    alike = "" if clips == len(cluster) else f", {clips:,} clips or photographs drawn whole, for their people are alike"
    left_out = ""
    if isinstance(people, RecordPeople) and people.left_out:
        left_out = f"; {people.left_out:,} more have no known body, and are left out"
    file = model.file
    body = f"{file.name} (sha256 {file.sha256[:12]})"
    truth = (
        f"SMPL poses and shapes of the data, shown by the body {body} for everybody"
        if people.known
        else "none is known: branches are compared with each other and the keypoints; agreement is not accuracy"
    )
    return {
        "people": f"{len(people):,}, the same for every branch{left_out}",
        "truth": truth,
        "joints": f"14 of H36M-17, about the pelvis: {', '.join(JOINTS14)}",
        "scale": "as answered; lift is given a body height of 1.7 m, so PA-MPJPE is fairer to it than MPJPE",
        "intervals": f"bootstrap over people, {DRAWS:,} draws, 95 in 100{alike}; differences are of the same people; "
        f"of few people they are too narrow, of fewer than {FEWEST} people or clips there are none, and of many groups "
        "one in 20 misses by chance",
        "medians": "of the same people: a few who are lost, as by wrong keypoints, move a mean far",
        "noise": "Gaussian, added to the keypoints that the data hold, in pixels of a person whose box is 1000 px high "
        "or wide; boxes and pictures stay",
        "2D from detection": "nearness to the keypoints is no accuracy, and nobody is best by it: lift leaves joints "
        "on their rays",
        "no answer": "in no mean and in no difference, and counted",
        "cost": "seconds a person while asked about many; the peak is the whole process's, with all branches loaded",
    }


def shared(figures: Figures, metrics: Sequence[Metric]) -> dict[str, dict[str, Float[np.ndarray, "N"]]]:
    """The figures of the people of whom every branch that has a metric has it; NaN for the others."""
    kept: dict[str, dict[str, Float[np.ndarray, "N"]]] = {branch: {} for branch in figures}
    for metric in metrics:
        having = {branch: columns[metric.name] for branch, columns in figures.items()}
        having = {branch: values for branch, values in having.items() if np.isfinite(values).any()}
        common = np.isfinite(np.stack(list(having.values()))).all(axis=0)
        for branch in figures:
            kept[branch][metric.name] = np.where(common, figures[branch][metric.name], np.nan)
    return kept


def _told(found: Measured, metric: Metric) -> bool:
    """Whether anybody has it."""
    return any(np.isfinite(columns[metric.name]).any() for columns in found.figures[0.0].values())


def _joint_metric(metrics: Sequence[Metric]) -> Metric:
    """Joints are told by the metric that aligns nothing."""
    return next((metric for metric in metrics if metric.name in ("mpjpe_mm", "apart_mm")), metrics[0])


def _levels(found: Measured) -> dict[float, Mapping[str, Mapping[str, np.ndarray]]]:
    """Those who are asked at every noise, the least first; nobody where there is one noise."""
    noisy = sorted(found.figures)
    if len(noisy) < 2:
        return {}
    asked = list(found.figures[noisy[-1]])
    return {noise: {branch: found.figures[noise][branch] for branch in asked} for noise in noisy}


def _noise_curves(
    found: Measured, metrics: Sequence[Metric], cluster: Int[np.ndarray, "N"], seed: int
) -> tuple[NoiseCurve, ...]:
    levels = _levels(found)
    means = {noise: means_of(figures, cluster, seed) for noise, figures in levels.items()}
    if not levels:
        return ()
    return tuple(
        NoiseCurve(branch, metric.name, tuple(levels), tuple(means[noise][branch][metric.name] for noise in levels))
        for branch in means[0.0]
        for metric in metrics
    )


def _noise_differences(
    found: Measured, metrics: Sequence[Metric], cluster: Int[np.ndarray, "N"], seed: int
) -> list[Difference]:
    return [
        difference
        for noise, figures in _levels(found).items()
        for difference in differences_of(figures, metrics, cluster, NOISE, f"{noise:g} px", seed)
    ]


def _flips(found: Measured, metric: Metric, cluster: Int[np.ndarray, "N"], seed: int) -> list[Flip]:
    levels = _levels(found)
    return flips_of(levels, metric, cluster, seed) if levels else []
