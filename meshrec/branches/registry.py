"""The branches by name. Other packages add theirs through the entry-point group `meshrec.branches`."""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from meshrec.body import BodyModel
from meshrec.branches.fit import FitBranch, FitConfig
from meshrec.branches.lift import ASSUMED_HEIGHT_M, LiftBranch, LiftConfig
from meshrec.errors import MeshrecError
from meshrec.models.lifter_file import open_lifter
from meshrec.photo import Photo
from meshrec.prior_files import open_prior
from meshrec.types import Camera, Estimate, Person
from priors.prior import Prior


@runtime_checkable
class Branch(Protocol):
    """A way from a photograph to bodies, or to joints alone."""

    name: str

    def __call__(self, photo: Photo, people: Sequence[Person], camera: Camera) -> Estimate:
        """What the branch says of the people, one leading axis, in the frame of the camera.

        One of whom it can say nothing has joints that are not finite, or a report that says so.
        """
        ...


Builder = Callable[[BodyModel, Prior | None], Branch]
"""What an entry point of the group names."""

BUILDERS: dict[str, Builder] = {
    "fit": lambda model, prior: FitBranch(model, prior, FitConfig()),
    "lift": lambda model, prior: LiftBranch(open_lifter(), LiftConfig(height_m=ASSUMED_HEIGHT_M)),
}

GROUP = "meshrec.branches"


def branch_names() -> list[str]:
    """Every branch that can be built, meshrec's own first."""
    return [*BUILDERS, *(point.name for point in entry_points(group=GROUP))]


def build_branch(name: str, model: BodyModel, prior: str) -> Branch:
    """The branch of that name; `prior` is a pose prior's name or path, or "none"."""
    if name not in branch_names():
        raise MeshrecError(f"There is no branch {name!r}; choose one of {', '.join(branch_names())} with --branch.")
    builder = BUILDERS.get(name) or next(point for point in entry_points(group=GROUP) if point.name == name).load()
    return builder(model, open_prior(prior))
