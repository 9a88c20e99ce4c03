"""The branches by name. Other packages add theirs through the entry-point group `meshrec.branches`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from meshrec.assets import REGRESSORS, SHIPPED
from meshrec.body import BodyModel
from meshrec.branches.fit import FitBranch, FitConfig
from meshrec.branches.lift import ASSUMED_HEIGHT_M, LiftBranch, LiftConfig
from meshrec.branches.mesh import MeshBranch, MeshConfig, Sight
from meshrec.branches.mesh_fit import REFINING, MeshFitBranch
from meshrec.errors import MeshrecError
from meshrec.models.lifter_file import open_lifter
from meshrec.models.mesh_file import open_regressor
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


@runtime_checkable
class Several(Protocol):
    """A branch that is faster with several photographs at once."""

    def several(self, sights: Sequence[Sight]) -> list[Estimate]:
        """What it would say of each alone."""
        ...


@dataclass(frozen=True)
class MeshChoice:
    """Which network the mesh branch asks, and how."""

    weights: str | None = None
    """By name or path: a file of ours, or an official checkpoint; None: the one that is named mesh, which ships."""
    config: MeshConfig = field(default_factory=MeshConfig)


Builder = Callable[[BodyModel, Prior | None], Branch]
"""What an entry point of the group names."""

BUILDERS: dict[str, Builder] = {
    "fit": lambda model, prior: FitBranch(model, prior, FitConfig()),
    "lift": lambda model, prior: LiftBranch(open_lifter(), LiftConfig(height_m=ASSUMED_HEIGHT_M)),
}

MESH_BUILDERS: dict[str, Callable[[BodyModel, Prior | None, MeshChoice], Branch]] = {
    "mesh": lambda model, prior, choice: mesh_branch(model, choice),
    "mesh+fit": lambda model, prior, choice: refining_branch(mesh_branch(model, choice), prior),
}
"""The branches that need a network's weights."""

REFINED = {"mesh": "mesh+fit"}
"""What each branch is called when a fit goes on from its answer."""

GROUP = "meshrec.branches"


def mesh_branch(model: BodyModel, choice: MeshChoice) -> MeshBranch:
    """The branch with the network of a file."""
    return MeshBranch(open_regressor(choice.weights or REGRESSORS.prefix), model, choice.config)


def refining_branch(mesh: MeshBranch, prior: Prior | None) -> MeshFitBranch:
    """A fit goes on from what the branch says; joints that its network was shown too are no news, and count less."""
    config = REFINING if mesh.reads.base == "joints" else FitConfig()
    return MeshFitBranch(mesh, FitBranch(mesh.model, prior, config))


def branch_names() -> list[str]:
    """Every branch that can be built, meshrec's own first."""
    return [*BUILDERS, *MESH_BUILDERS, *(point.name for point in entry_points(group=GROUP))]


def usual_branch(model: BodyModel, choice: MeshChoice) -> str:
    """mesh+fit where a network is named, or the body is the shipped one, which the shipped network was taught; or fit.

    Another body's betas mean other shapes, of which the shipped network knows nothing.
    """
    return "mesh+fit" if choice.weights or model.file.path.resolve().is_relative_to(SHIPPED) else "fit"


def refined(name: str) -> str:
    """The branch that goes on from a branch's answer with a fit."""
    if name in REFINED.values():
        return name
    if name not in REFINED:
        raise MeshrecError(
            f"--refine fits a body to what the branch {' or '.join(REFINED)} says, and this is {name}: leave it."
        )
    return REFINED[name]


def build_branch(name: str, model: BodyModel, prior: str, mesh: MeshChoice | None = None) -> Branch:
    """The branch of that name; `prior` is a pose prior's name or path, or "none"."""
    if name not in branch_names():
        raise MeshrecError(f"There is no branch {name!r}; choose one of {', '.join(branch_names())} with --branch.")
    choice = mesh or MeshChoice()
    if name in MESH_BUILDERS:
        return MESH_BUILDERS[name](model, open_prior(prior), choice)
    if choice != MeshChoice():
        raise MeshrecError(
            f"--mesh-weights, --flip and --precision belong to the branches {', '.join(MESH_BUILDERS)}, and this is "
            f"{name}: leave them."
        )
    builder = BUILDERS.get(name) or next(point for point in entry_points(group=GROUP) if point.name == name).load()
    return builder(model, open_prior(prior))


def ask(branch: Branch, sights: Sequence[Sight]) -> list[Estimate | MeshrecError]:
    """What a branch says of each photograph, asked for all together where it can be; or why it says nothing."""
    if isinstance(branch, Several) and len(sights) > 1:
        try:
            return list(branch.several(sights))
        except (MeshrecError, MemoryError):
            pass  # each is asked for alone, and what is wrong with one is told of that one
    return [_asked_alone(branch, sight) for sight in sights]


def _asked_alone(branch: Branch, sight: Sight) -> Estimate | MeshrecError:
    try:
        return branch(sight.photo, sight.people, sight.camera)
    except MeshrecError as error:
        return error
    except MemoryError:
        return MeshrecError(f"{sight.photo.path}: the memory is full; scale it down.")
