"""Human3.6M as mmpose's npz: imgname, center, scale, part (2D joints) and S (3D joints, metres, camera axes).

The box is the one whose crop is the square of `center` and `scale`. Where S is relative to the pelvis it stays so. The
archive has no cameras, but `K` (3, 3), if it is there, is taken for all images.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from convert.source import SCALE_PX, Annotation, Lens, Sheet, image_name, lens_of, numbers, square_box
from meshrec.arrays import read_arrays
from meshrec.data.h36m_files import MMPOSE_NAME
from meshrec.errors import MeshrecError
from meshrec.skeletons import H36M17
from meshrec.types import Keypoints

FIELDS = ("imgname", "center", "scale", "part", "S")

PERSON_M = (0.4, 4.0)
"""How far the joints of a person can be apart; so millimetres are told from metres."""


@dataclass(frozen=True, eq=False)
class Archive:
    """The rows of a file."""

    names: tuple[str, ...]
    center: Float[Tensor, "N 2"]
    scale: Float[Tensor, "N"]
    part: Float[Tensor, "N 17 3"]
    joints: Float[Tensor, "N 17 4"]
    lens: Lens | None

    def frame(self, row: int) -> int:
        """The number in the image's name; of an image that is called otherwise, its row."""
        told = MMPOSE_NAME.search(self.names[row])
        return int(told["number"]) if told else row

    def people(self, row: int) -> list[Annotation]:
        """Who is in an image."""
        told = MMPOSE_NAME.search(self.names[row])
        return [
            Annotation(
                box_xyxy_px=square_box(self.center[row], SCALE_PX * float(self.scale[row])),
                keypoints=Keypoints(self.part[row, :, :2], self.part[row, :, 2].clamp(0, 1), H36M17),
                lens=self.lens,
                joints_m=self.joints[row, :, :3],
                joints_weight=self.joints[row, :, 3].clamp(0, 1),
                subject=told["subject"] if told else "",
                sequence=told["take"] if told else "",
                frame=self.frame(row),
            )
        ]


def read_archive(path: Path, photos: Path, every: int) -> list[Sheet]:
    """Every so manieth frame."""
    archive = _open(path)
    return [
        Sheet(photos / name, name, partial(archive.people, row))
        for row, name in enumerate(archive.names)
        if archive.frame(row) % every == 0
    ]


def _open(path: Path) -> Archive:
    arrays = read_arrays(path, (*FIELDS, "K"))
    if missing := [name for name in FIELDS if name not in arrays]:
        raise MeshrecError(f"{path} has no {', '.join(missing)}: it is not mmpose's archive of Human3.6M.")
    names = tuple(image_name(path, name) for name in arrays["imgname"].tolist())
    joints = numbers(path, arrays["S"], "S", len(names), len(H36M17), 4).float()
    refuse_other_units(path, joints[..., :3])
    K = numbers(path, arrays["K"], "K", 3, 3) if "K" in arrays else None
    return Archive(
        names=names,
        center=numbers(path, arrays["center"], "center", len(names), 2),
        scale=numbers(path, arrays["scale"], "scale", len(names)),
        part=numbers(path, arrays["part"], "part", len(names), len(H36M17), 3).float(),
        joints=joints,
        lens=None if K is None else lens_of(path, K.diagonal()[:2].tolist(), K[:2, 2].tolist(), "K"),
    )


def refuse_other_units(path: Path, joints_m: Float[Tensor, "N 17 3"]) -> None:
    """Joints of a person are not metres if they are that far apart, or that near."""
    extent_m = float((joints_m.amax(1) - joints_m.amin(1)).norm(dim=-1).median())
    if not PERSON_M[0] <= extent_m <= PERSON_M[1]:
        raise MeshrecError(
            f"{path}: the joints of a person span {extent_m:.3g} m, so they are in another unit than they should be."
        )
