"""SMPL bodies of data sets in the frame of a camera."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.assets import list_assets, load_body_file
from meshrec.data.record_files import BETAS
from meshrec.data.records import Gender
from meshrec.kinematics import pose_tree
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams

PELVIS = SMPL24.index("pelvis")


@dataclass(frozen=True, eq=False)
class Rest:
    """The 24 joints of a body in its rest pose, by its shape; in double precision."""

    joints_m: Float[Tensor, "24 3"]
    directions_m: Float[Tensor, "24 3 10"]

    def shaped(self, betas: Float[Tensor, "10"]) -> Float[Tensor, "24 3"]:
        """The joints of a shape."""
        return self.joints_m + self.directions_m @ betas.double()


@dataclass(frozen=True)
class Bodies:
    """The body of each gender: the user's own, called by the gender or `smpl_` and the gender; else the neutral one."""

    _rests: dict[str, Rest] = field(default_factory=dict)
    _names: dict[Gender, str] = field(default_factory=dict)

    def rest(self, gender: Gender) -> Rest:
        """The rest pose of the body that stands for a gender."""
        if gender not in self._names:
            known = {report.name for report in list_assets() if not report.problem} if gender != "neutral" else set()
            self._names[gender] = next((name for name in (gender, f"smpl_{gender}") if name in known), "neutral")
        name = self._names[gender]
        if name not in self._rests:
            self._rests[name] = _rest_of(name)
        return self._rests[name]

    def pelvis_m(self, gender: Gender, betas: Float[Tensor, "10"]) -> Float[Tensor, "3"]:
        """Where the pelvis joint of the shaped body is before it is posed: SMPL turns about this point."""
        return self.rest(gender).shaped(betas)[PELVIS]

    def joints24(self, gender: Gender, params: BodyParams) -> Float[Tensor, "F 24 3"]:
        """The posed joints of bodies that have one shape."""
        rest_m = self.rest(gender).shaped(params.betas[0]).expand(len(params.betas), -1, -1)
        return pose_tree(params.rotations, rest_m).joints_m + params.transl_m[:, None]

    @property
    def chosen(self) -> str:
        """Which body placed the people of each gender; with another one they are off by its pelvis at rest."""
        return ", ".join(f"{gender} placed by the body {name}" for gender, name in sorted(self._names.items()))

    @property
    def told(self) -> tuple[str, ...]:
        """What stood in for the genders that the user has no body of."""
        return tuple(
            f"No {gender} body is among your assets: bodies of that gender are placed with the neutral one, so that "
            f"its pelvis is where the true one is. Add yours with `meshrec assets add` and convert again."
            for gender, name in sorted(self._names.items())
            if gender != "neutral" and name == "neutral"
        )


def _rest_of(name: str) -> Rest:
    file = load_body_file(name)
    regressor = file.joint_regressor.astype(np.float64)
    directions = np.einsum("jv,vcb->jcb", regressor, file.shapedirs[..., :BETAS], optimize=True)
    return Rest(torch.from_numpy(regressor @ file.v_template.astype(np.float64)), torch.from_numpy(directions))


def in_camera(
    rotations: Float[Tensor, "F 24 3 3"], R_camera_world: Float[Tensor, "F 3 3"]
) -> Float[Tensor, "F 24 3 3"]:
    """SMPL's rotations with the root turned into the camera's frame; the others are relative and stay."""
    return torch.cat([(R_camera_world @ rotations[:, 0])[:, None], rotations[:, 1:]], dim=1)


def first_betas(betas: Float[Tensor, "B"]) -> Float[Tensor, "10"]:
    """The shape numbers that records hold; some files have 300 of them."""
    return torch.nn.functional.pad(betas[:BETAS], (0, max(0, BETAS - len(betas))))
