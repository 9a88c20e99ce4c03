"""How good a branch is: virtual cameras around people whose 3D is known, beside what it has to beat."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape

from meshrec.baselines import MeanPose, ZeroDepth, mean_pose_m
from meshrec.body import load_body_model
from meshrec.branches.lift import HEIGHTS_M
from meshrec.branches.registry import MESH_BUILDERS
from meshrec.data.views import Views, ViewsConfig, open_views
from meshrec.errors import MeshrecError
from meshrec.estimators import LIFT, build_estimator
from meshrec.evaluate_records import evaluate_records
from meshrec.evaluation import (
    PERSON_PX,
    Errors,
    Estimator,
    Questions,
    measured,
    noisy,
    questions_of,
    without_limbs,
)
from meshrec.evaluation_plots import check_plots, write_plots
from meshrec.evaluation_report import (
    Evaluation,
    Kind,
    Row,
    angle_name,
    console_of,
    give,
    group_table,
    joint_table,
    main_table,
    progress,
    record_of,
)
from meshrec.files import make_folder
from meshrec.lift_evaluation import Sampler, latent_means, sampled
from meshrec.models.lifting import LIMB_JOINTS
from meshrec.prior_files import DEFAULT_PRIOR
from meshrec.record_evaluation import holds_records
from meshrec.record_report import Asked, RecordOptions

AS_IT_IS = "as it is"
"""The condition of a view to which nothing was done."""

DEFAULT_BODY = "neutral"

MOST_SAMPLES = 200
"""Of each view: the errors of all of them are in the memory at once."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What a branch is asked beside the views as they are."""

    noise_px: float = 5.0
    """Standard deviation of the keypoints' noise, for a person 1000 px tall; 0 asks nothing."""
    missing: int = 3
    """So many limb joints are hidden; 0 asks nothing."""
    hypotheses: int = 10
    """So many samples are drawn of each view; 0 draws none."""
    seed: int = 0


def conditions(questions: Questions, config: EvaluationConfig) -> dict[str, Questions]:
    """The same people as they are, with noise, and with limb joints missing."""
    shown = {AS_IT_IS: questions}
    if config.noise_px:
        shown[f"{config.noise_px:g} px noise"] = noisy(questions, config.noise_px, config.seed)
    if config.missing:
        shown[f"{config.missing} limb joints missing"] = without_limbs(questions, config.missing, config.seed)
    return shown


def evaluate(
    estimator: Estimator,
    views: Views,
    mean_pose: MeanPose,
    config: EvaluationConfig,
    latent_map: bool = False,
    advance: Callable[[int], object] = lambda done: None,
) -> Evaluation:
    """The branch under every condition, its samples if it has any, and the baselines; `advance` is told of each chunk.

    It is told of `work_of` views in all.
    """
    questions, rows, seconds = questions_of(views), [], []
    for condition, asked in conditions(questions, config).items():
        errors, took_s = measured(estimator, asked, advance)
        rows.append(Row(estimator.name, condition, "branch", errors))
        seconds.append(took_s)
    means = None
    if isinstance(estimator, Sampler):
        rows += _sample_rows(estimator, questions, config, advance)
        means = latent_means(estimator, questions) if latent_map else None
    for baseline in (ZeroDepth(), mean_pose):
        rows.append(Row(baseline.name, AS_IT_IS, "baseline", measured(baseline, questions, advance)[0]))
    return Evaluation(views, tuple(rows), len(questions) / max(seconds[0], 1e-9), means)


def _sample_rows(
    sampler: Sampler, questions: Questions, config: EvaluationConfig, advance: Callable[[int], object]
) -> list[Row]:
    """One sample, and the best of several."""
    count = config.hypotheses
    if not count:
        return []
    found = sampled(sampler, questions, count, config.seed, advance)
    named: tuple[tuple[str, Kind, Errors], ...] = (
        (f"{sampler.name}, one of {count} samples", "sample", found.mean),
        (f"{sampler.name}, best of {count} samples", "oracle", found.best),
    )
    return [Row(name, AS_IT_IS, kind, errors) for name, kind, errors in named]


def work_of(estimator: Estimator, views: Views, config: EvaluationConfig) -> int:
    """How many answers an evaluation asks for: 2 baselines' and the branch's."""
    samples = config.hypotheses if isinstance(estimator, Sampler) else 0
    return len(views) * (1 + bool(config.noise_px) + bool(config.missing) + samples + 2)


def open_questions(
    data: Sequence[Path],
    held_out: Sequence[str],
    config: ViewsConfig,
    frames: int | None = None,
    train_data: Sequence[Path] = (),
    body: str = DEFAULT_BODY,
) -> tuple[Views, MeanPose]:
    """The views to evaluate on, and the mean pose of those whom one may know.

    That is of the subjects of `train_data` who are not held out, else of the others in `data`, else of these very
    views, and the name says which.
    """
    model = None if body == DEFAULT_BODY else load_body_model(body)
    others, views = open_views(data, config, held_out, model)
    problems = others.problems
    if not held_out:
        others, views = views, others
    if train_data:
        others, _ = open_views(train_data, replace(config, views=1), (), model)
        others = others[np.flatnonzero(~np.isin(others.subject, held_out))]
    where = ", ".join(map(str, data))
    if views.joints_m is None:
        raise MeshrecError(
            f"{where}: joints in 2D alone, and no truth to measure an answer against. Name motion capture or other "
            f"files of 3D joints with --data."
        )
    if not len(views):
        raise MeshrecError(f"{where}: there is nobody to evaluate on.")
    known, whose = (others.joints_m, "training subjects") if len(others) else (None, "")
    if known is None:
        known, whose = views.joints_m, "subjects evaluated on"
    mean_pose = MeanPose(mean_pose_m(known), f"mean pose of the {whose}")
    views = replace(views, problems=problems)
    return views if frames is None else thinned(views, frames), mean_pose


def thinned(views: Views, frames: int) -> Views:
    """The views of so many frames, evenly spread."""
    every = np.unique(views.frame)
    kept = every[np.linspace(0, len(every) - 1, min(frames, len(every))).round().astype(int)]
    return views[np.flatnonzero(np.isin(views.frame, kept))]


def command(
    data: tuple[Path, ...] = (),
    branch: str = LIFT,
    held_out: tuple[str, ...] = (),
    weights: str | None = None,
    height_m: float | None = None,
    views: int = 4,
    noise_px: float = 5.0,
    missing: int = 3,
    hypotheses: int = 10,
    train_data: tuple[Path, ...] = (),
    frames: int | None = None,
    seed: int = 0,
    body: str = DEFAULT_BODY,
    prior: str = DEFAULT_PRIOR,
    plots: Path | None = None,
    per_joint: bool = False,
    json: bool = False,
    report: Path | None = None,
    of_records: tyro.conf.OmitArgPrefixes[RecordOptions] = RecordOptions(),  # noqa: B008  (it is frozen)
) -> int:
    """Measure a branch on people whose 3D is known: in pictures, or seen by virtual cameras.

    Of folders of records, which hold people in pictures and their SMPL truth, MPJPE, PA-MPJPE and PVE are told by a
    published protocol, which is printed with them; every branch is given the records' boxes, keypoints and cameras.
    `--page` shows the worst cases.

    Of files of 3D joints or motion, the branch is asked for 2D joints alone, beside what it has to beat. Cameras stand
    4 to 6 m away all around, and a person of 1.7 m is 1000 px tall in their images. PA-MPJPE is the mean error of 17
    joints after the best similarity; the thesis's figure fits it without the pelvis, allows reflections and counts the
    pelvis as a joint without error; N-MPJPE fits the scale alone; MPJPE is told where the branch knows metres. The best
    of several samples is chosen by the truth: an oracle.

    Args:
        data: Folders of records; or files of 3D joints or motion, or folders of them.
        branch: Who is asked: any branch about records, or several ("mesh,fit,mesh+fit"), who are told side by side; of
            3D joints lift, fit, or another that answers keypoints and a camera.
        held_out: Subjects to evaluate on; all when none is named.
        weights: The lifter's weights, by name or file.
        height_m: Everybody's body height for the lifter, which then answers in metres.
        views: Virtual cameras of each frame.
        noise_px: Standard deviation of the noise of another row, in pixels of a person 1000 px tall; 0 for no such row.
        missing: Hidden limb joints (of knees, ankles, elbows, wrists) of another row; 0 for no such row.
        hypotheses: Samples of each view, from branches that draw; 0 for none.
        train_data: Whom the mean pose, one of the baselines, is of; by default the subjects of the data who are not
            held out, or else those evaluated on.
        frames: At most so many frames, evenly spread; by default all.
        seed: Of cameras, noise, hidden joints and samples.
        body: Body model of the fit and of motion files, by name or path.
        prior: Pose prior of the fit.
        plots: Folder for pictures: errors by action, angle and joint, and the latent space.
        per_joint: Print the table of joints too.
        json: Print everything as JSON on standard output.
        report: Also write the JSON to this file.
        of_records: Of records alone.
    """
    _check(data, views, noise_px, missing, hypotheses, frames, seed, height_m)
    if all(map(holds_records, data)):
        _refuse(
            {"held-out": held_out, "weights": weights, "height-m": height_m, "train-data": train_data, "plots": plots}
        )
        branches = tuple(branch.split(","))
        return evaluate_records(Asked(data, branches, of_records, frames, body, prior), per_joint, json, report)
    _refuse_without_records(data, branch, of_records)
    if plots is not None:
        check_plots()
        make_folder(plots)
    if report is not None:
        make_folder(report.parent)
    config = EvaluationConfig(noise_px, missing, hypotheses, seed)
    estimator = build_estimator(branch, weights, height_m, body, prior)
    shown, mean_pose = open_questions(data, held_out, ViewsConfig(views=views, seed=seed), frames, train_data, body)
    asked = {"branch": branch, "weights": weights, "height_m": height_m, "data": [str(path) for path in data]}
    asked |= {"train_data": [str(path) for path in train_data], "body": body, "prior": prior}
    asked |= {"held_out": list(held_out), "views": views, "frames_at_most": frames, **asdict(config)}
    return _evaluate_views(estimator, shown, mean_pose, config, asked, plots, per_joint, json, report)


def _evaluate_views(
    estimator: Estimator,
    shown: Views,
    mean_pose: MeanPose,
    config: EvaluationConfig,
    asked: dict[str, Any],
    plots: Path | None,
    per_joint: bool,
    json: bool,
    report: Path | None,
) -> int:
    """Measure what answers keypoints and a camera, and tell it."""
    console = console_of()
    for problem in shown.problems:
        console.print(f"[yellow]{escape(problem)}[/yellow]", soft_wrap=True)
    with progress(console, work_of(estimator, shown, config)) as advance:
        evaluation = evaluate(estimator, shown, mean_pose, config, plots is not None, advance)
    if not evaluation.main.pa_mpjpe_mm.isfinite().any():
        raise MeshrecError(f"The branch {asked['branch']} answered none of the {len(shown)} views.")
    pictures = write_plots(plots, evaluation) if plots is not None else ()
    record = record_of(evaluation, asked) | {"pictures": [str(picture) for picture in pictures]}
    give(record, json, report, console)
    _tell(evaluation, per_joint, console)
    for picture in pictures:
        console.print(escape(f"wrote {picture}"), soft_wrap=True)
    return 0


def _check(
    data: Sequence[Path],
    views: int,
    noise_px: float,
    missing: int,
    hypotheses: int,
    frames: int | None,
    seed: int,
    height_m: float | None,
) -> None:
    """Refuse what makes no sense before anything is read."""
    if not data:
        raise MeshrecError("Nothing to evaluate on: name files of 3D joints or motion with --data PATH...")
    if views < 1:
        raise MeshrecError(f"--views takes a number of cameras from 1 on, not {views}.")
    if not 0 <= noise_px < PERSON_PX:
        raise MeshrecError(f"--noise-px takes pixels from 0 to below {PERSON_PX:g}, a person's height, not {noise_px}.")
    if not 0 <= missing <= len(LIMB_JOINTS):
        raise MeshrecError(f"--missing takes 0 to {len(LIMB_JOINTS)} limb joints, not {missing}.")
    if not 0 <= hypotheses <= MOST_SAMPLES:
        raise MeshrecError(f"--hypotheses takes a number of samples from 0 to {MOST_SAMPLES}, not {hypotheses}.")
    if frames is not None and frames < 1:
        raise MeshrecError(f"--frames takes a number of frames from 1 on, not {frames}.")
    if seed < 0:
        raise MeshrecError(f"--seed takes a whole number from 0 on, not {seed}.")
    low, high = HEIGHTS_M
    if height_m is not None and not low <= height_m <= high:
        raise MeshrecError(f"--height-m takes metres from {low:g} to {high:g}, not {height_m:g}.")


def _refuse_without_records(data: Sequence[Path], branch: str, options: RecordOptions) -> None:
    """Refuse what is asked of records alone, or of some records among other files."""
    other = next(path for path in data if not holds_records(path))
    several, meshes = "," in branch, branch in MESH_BUILDERS
    if options != RecordOptions() or several or meshes or any(map(holds_records, data)):
        raise MeshrecError(
            f"--data {other} holds no records; branches that want photographs ({', '.join(MESH_BUILDERS)}), several "
            f"branches at once, and --page and its like are asked of records alone: name these with --data."
        )


def _refuse(given: dict[str, Any]) -> None:
    """Refuse flags of virtual cameras about records."""
    if wrong := [f"--{flag}" for flag, value in given.items() if value]:
        raise MeshrecError(f"{' '.join(wrong)}: not for records. Leave it out, or name files of 3D joints with --data.")


def _tell(evaluation: Evaluation, per_joint: bool, console: Console) -> None:
    """The tables."""
    console.print(main_table(evaluation))
    if unanswered := int((~evaluation.main.pa_mpjpe_mm.isfinite()).sum()):
        console.print(f"[yellow]{unanswered} views have no answer, and are in no mean[/yellow]")
    if per_joint:
        console.print(joint_table(evaluation))
    angles = {angle_name(angle): figure for angle, figure in evaluation.by_angle.items()}
    for what, groups in (
        ("action", evaluation.by("action")),
        ("subject", evaluation.by("subject")),
        ("viewing angle", angles),
    ):
        console.print(group_table(what, groups))
    console.print(f"{evaluation.answers_per_s:,.0f} views answered a second")
