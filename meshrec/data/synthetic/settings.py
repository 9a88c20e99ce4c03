"""What synthetic photographs are like, in numbers."""

import math
from dataclasses import dataclass
from pathlib import Path

from meshrec.config import require_positive, require_range

RANGES = {
    "fov_rad": (0.02, 2.4),
    "size": (0.05, 4.0),
    "close_size": (0.05, 10.0),
    "occluder_size": (0.01, 2.0),
    "softness_px": (0.0, 5.0),
    "grain": (0.0, 0.5),
    "contrast": (0.1, 1.0),
}
"""The lowest and the highest value of every range."""


@dataclass(frozen=True)
class SyntheticConfig:
    """Who stands in synthetic photographs, and how they are taken."""

    # ---- who
    prior: str = "flow"
    """A pose prior by name or path."""
    temperature: float = 1.0
    """What its standard deviations are multiplied by."""
    mocap: tuple[Path, ...] = ()
    """Collections of poses and files of motion."""
    without: tuple[str, ...] = ()
    """Whose motion is left out: people that something is measured on."""
    mocap_share: float = 0.5
    """How often one of the other poses is of `mocap`, where it is given; else it is one of the prior."""
    key_share: float = 0.15
    """How often a pose is a blend of the key poses that nothing is measured with."""
    mirror: float = 0.5
    """Probability of a pose's mirror image."""
    jitter_rad: float = 0.05
    """Standard deviation of what is added to every joint."""
    lean_rad: float = 0.15
    """Standard deviation of a lean of the whole body, forward and sideways."""
    tumble: float = 0.08
    """Probability of a body turned anyhow: lying, falling, upside down."""
    shape_spread: float = 1.25
    """Standard deviation of `betas`."""
    shape_most: float = 3.0
    """Larger ones are clipped to this."""
    cloth_m: float = 0.02
    """Clothes and hair stand off the body by up to this; the truth is the body's."""

    # ---- how they are taken
    photo_px: tuple[int, int] = (640, 480)
    """Width and height."""
    portrait: float = 0.5
    """Probability that the camera is held upright, and width and height change places."""
    fov_rad: tuple[float, float] = (math.radians(25), math.radians(75))
    """Field of view along the longer side."""
    size: tuple[float, float] = (0.3, 1.1)
    """The body's size over the photograph's shorter side; the distance follows."""
    close: float = 0.25
    """Probability of a photograph of a part of the body, the rest of it beyond the border."""
    close_size: tuple[float, float] = (1.0, 2.4)
    """`size` of these."""
    height_rad: float = 0.25
    """Standard deviation of how far the camera looks down or up."""
    anyhow: float = 0.1
    """Probability of a camera that looks down or up by any angle."""
    roll_rad: float = 0.08
    """Standard deviation of the camera's roll."""
    nearest_m: float = 0.35
    """No part of the body comes nearer."""

    # ---- what else is there
    others: float = 0.35
    """Probability of other people."""
    others_most: int = 2
    """At most so many of them."""
    occlude: float = 0.4
    """Probability of things in the way."""
    occluders_most: int = 3
    """At most so many of them."""
    occluder_size: tuple[float, float] = (0.08, 0.45)
    """Their width and height over the body's size in the photograph."""
    backgrounds: Path | None = None
    """A folder of pictures, its folders too; where there is none, and sometimes where there is, grounds are made up."""
    made_up: float = 0.3
    """Probability of a made-up ground where there is a folder."""

    # ---- sensors
    softness_px: tuple[float, float] = (0.3, 1.1)
    """Standard deviation of a lens' blur, in pixels of the photograph."""
    grain: tuple[float, float] = (0.0, 0.02)
    """Standard deviation of a sensor's noise, 1 being white."""
    contrast: tuple[float, float] = (0.6, 1.0)
    """Share of black to white that a photograph fills."""

    def __post_init__(self) -> None:
        shares = (
            "mocap_share",
            "key_share",
            "mirror",
            "tumble",
            "portrait",
            "close",
            "anyhow",
            "others",
            "occlude",
            "made_up",
        )
        require_range(self, **dict.fromkeys(shares, (0, 1)))
        require_range(self, temperature=(0, 10), jitter_rad=(0, 1), lean_rad=(0, math.pi), cloth_m=(0, 0.1))
        require_range(self, shape_spread=(0, 10), shape_most=(0, 10), height_rad=(0, math.pi), roll_rad=(0, math.pi))
        require_range(self, nearest_m=(0.1, 100), others_most=(1, 10), occluders_most=(1, 4))
        require_positive(self, "photo_width_px", "photo_height_px")
        for name, (lowest, highest) in RANGES.items():
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise ValueError(f"{name} is {low} to {high}; it must rise, from {lowest:g} up to {highest:g}")

    @property
    def photo_width_px(self) -> int:
        """Of a photograph taken with the camera held level."""
        return self.photo_px[0]

    @property
    def photo_height_px(self) -> int:
        """Of a photograph taken with the camera held level."""
        return self.photo_px[1]
