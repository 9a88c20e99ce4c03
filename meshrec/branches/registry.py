"""The branches by name. Other packages add theirs through the entry-point group `meshrec.branches`."""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from meshrec.assets import find_prior
from meshrec.body import BodyModel
from meshrec.branches.fit import FitBranch, FitConfig
from meshrec.errors import MeshrecError
from meshrec.photo import Photo
from meshrec.types import Camera, Estimate, Person
from priors.pose import PosePrior, load_prior


@runtime_checkable
class Branch(Protocol):
    """A way from a photograph to bodies."""

    name: str

    def __call__(self, photo: Photo, people: Sequence[Person], camera: Camera) -> Estimate:
        """What the branch says of the people, one leading axis, in the frame of the camera."""
        ...


Builder = Callable[[BodyModel, PosePrior | None], Branch]
"""What an entry point of the group names."""

BUILDERS: dict[str, Builder] = {"fit": lambda model, prior: FitBranch(model, prior, FitConfig())}

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


def open_prior(name_or_path: str) -> PosePrior | None:
    """A pose prior by name or path; None for "none"."""
    if name_or_path == "none":
        return None
    path = find_prior(name_or_path)
    try:
        return load_prior(path)
    except ValueError as error:
        raise MeshrecError(
            f"{path} is no pose prior that can be read: {error}. Choose another one with --prior."
        ) from error
