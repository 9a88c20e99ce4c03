"""What every branch that finds a body says of it."""

from jaxtyping import Float
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.skeletons import H36M17
from meshrec.types import BodyParams, Camera, Estimate, FitReport


def estimate_of(
    branch: str,
    model: BodyModel,
    params: BodyParams,
    joints17_m: Float[Tensor, "N 17 3"],
    camera: Camera,
    confidence: Float[Tensor, "N 17"],
    min_confidence: float,
    report: FitReport | None = None,
) -> Estimate:
    """The bodies with these parameters and joints, in the camera frame; below `min_confidence` a joint is not seen."""
    pelvis = joints17_m[:, H36M17.index("pelvis")]
    return Estimate(
        branch=branch,
        joints17_m=joints17_m - pelvis[:, None],
        confidence=confidence,
        seen=confidence >= min_confidence,
        root_m=pelvis,
        params=params,
        body=model(params),
        camera=camera,
        report=report,
    )
