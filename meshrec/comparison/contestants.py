"""Who is asked about people: the branches, from keypoints alone where these suffice, and predictions of files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from meshrec.branches.fit import FitBranch
from meshrec.branches.lift import LiftBranch
from meshrec.branches.mesh import Sight
from meshrec.branches.registry import Branch, ask
from meshrec.comparison.figures import Found
from meshrec.comparison.people import Few
from meshrec.errors import MeshrecError
from meshrec.types import Camera, Estimate, Keypoints


@dataclass(frozen=True, eq=False)
class Said:
    """What somebody says of people."""

    found: Found
    """NaN for those of whom nothing is said."""
    problems: tuple[str, ...] = ()
    """Why, a sentence for each where there is one."""


@runtime_checkable
class Contestant(Protocol):
    """Whatever says something of people."""

    @property
    def name(self) -> str:
        """What its answers are called."""
        ...

    @property
    def asks(self) -> bool:
        """Whether it is asked anew when the keypoints change."""
        ...

    def about(self, few: Few) -> Said:
        """What it says of some people."""
        ...


@dataclass(frozen=True, eq=False)
class KeypointContestant:
    """A branch that needs no picture."""

    name: str
    estimate: Callable[[Keypoints, Camera], Estimate]
    asks: bool = True

    @torch.no_grad()
    def about(self, few: Few) -> Said:
        """Everybody at once."""
        return Said(found_of(self.estimate(few.seen.keypoints, few.seen.camera)))


@dataclass(frozen=True, eq=False)
class SightContestant:
    """A branch that looks at pictures."""

    branch: Branch
    name: str
    asks: bool = True

    @torch.no_grad()
    def about(self, few: Few) -> Said:
        """Everybody in a picture of their own; together where the branch can."""
        sights = few.sights
        readable = [sight for sight in sights if isinstance(sight, Sight)]
        answers = iter(ask(self.branch, readable)) if readable else iter(())
        every = [next(answers) if isinstance(sight, Sight) else sight for sight in sights]
        found = gathered([None if isinstance(answer, MeshrecError) else found_of(answer) for answer in every])
        told = zip(few.numbers, every, strict=True)
        problems = tuple(
            f"{self.name}, person {number}: {answer}" for number, answer in told if isinstance(answer, MeshrecError)
        )
        return Said(found, problems)


def contestant_of(branch: Branch) -> Contestant:
    """A branch as one who is asked."""
    if isinstance(branch, LiftBranch):
        return KeypointContestant(branch.name, branch.estimate)
    if isinstance(branch, FitBranch):
        return KeypointContestant(branch.name, branch.fit)
    return SightContestant(branch, branch.name)


def found_of(estimate: Estimate) -> Found:
    """What a branch says of people, its skin about the pelvis; NaN where its report says that nothing could be said."""
    joints17 = estimate.joints17_m.float().cpu()
    if estimate.report is not None:
        joints17 = torch.where(estimate.report.solvable.cpu()[:, None, None], joints17, torch.nan)
    answered = joints17.isfinite().all(-1).all(-1)
    joints17 = torch.where(answered[:, None, None], joints17, torch.nan)
    nowhere = torch.full_like(joints17[:, 0], torch.nan)
    if estimate.root_m is None:
        return Found(joints17, nowhere)
    root = torch.where(answered[:, None], estimate.root_m.float().cpu(), torch.nan)
    vertices = None if estimate.body is None else estimate.body.vertices_m.float().cpu() - root[:, None]
    return Found(joints17, root, vertices)


def gathered(every: Sequence[Found | None]) -> Found:
    """Answers about one person each, one after another; NaN for who has none."""
    skins = [found.vertices_m for found in every if found is not None and found.vertices_m is not None]
    nobody = Found(torch.full((1, 17, 3), torch.nan), torch.full((1, 3), torch.nan))
    whole = [nobody if found is None else found for found in every]
    joints17, root = (torch.cat([getattr(found, name) for found in whole]) for name in ("joints17_m", "root_m"))
    if not skins:
        return Found(joints17, root)
    bare = torch.full_like(skins[0], torch.nan)
    return Found(joints17, root, torch.cat([bare if found.vertices_m is None else found.vertices_m for found in whole]))
