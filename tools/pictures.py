"""The pictures of the README: the demonstration's results, the shipped body in shapes and poses, synthetic people."""

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from meshrec.assets import find_prior
from meshrec.body import BodyModel, load_body_model
from meshrec.camera import camera_from_body_axes
from meshrec.cli import main as meshrec
from meshrec.files import write_whole
from meshrec.prior_files import DEFAULT_PRIOR, read_prior
from meshrec.render import Studio, body_sheet
from meshrec.result import RESULT_FILE
from meshrec.types import BodyParams

HEIGHT_PX = 360
STUDIO = Studio(width_px=260, height_px=HEIGHT_PX)
SEED = 7
SAMPLE_TEMPERATURE = 0.8
MADE_UP = 16
PAGE_PX = 1600
"""Width of a picture that fills a page."""


def demo_row(folder: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Photograph, overlay and side view of every recovered picture, side by side."""
    tiles = []
    for result in sorted(folder.glob(f"*/{RESULT_FILE}")):
        record = json.loads(result.read_text(encoding="utf-8"))
        files = record["people"][0]["files"]
        tiles += [Path(record["photo"]), result.parent / files["overlay"], result.parent / files["side"]]
    return np.concatenate([_of_height(np.array(Image.open(tile).convert("RGB"))) for tile in tiles], axis=1)


def _of_height(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    width = round(pixels.shape[1] * HEIGHT_PX / pixels.shape[0])
    return cv2.resize(pixels, (width, HEIGHT_PX), interpolation=cv2.INTER_AREA)


def shapes(model: BodyModel) -> Float[Tensor, "N V 3"]:
    """The mean body, and two standard deviations up and down the first three shape directions."""
    betas = torch.zeros(7, 10)
    for direction in range(3):
        betas[2 * direction + 1, direction], betas[2 * direction + 2, direction] = 2.0, -2.0
    pose = torch.eye(3).expand(len(betas), 23, 3, 3)
    return posed(model, pose, betas)


def samples(model: BodyModel) -> Float[Tensor, "N V 3"]:
    """Poses drawn from the shipped prior, on random shapes."""
    random = torch.Generator().manual_seed(SEED)
    pose = read_prior(find_prior(DEFAULT_PRIOR)).sample(7, SAMPLE_TEMPERATURE, random)
    return posed(model, pose, torch.randn(len(pose), 10, generator=random))


def posed(model: BodyModel, pose: Float[Tensor, "N 23 3 3"], betas: Float[Tensor, "N B"]) -> Float[Tensor, "N V 3"]:
    """Vertices of upright bodies that face the camera."""
    root = camera_from_body_axes().expand(len(pose), 3, 3)
    return model(BodyParams(root, pose, betas, torch.zeros(len(pose), 3))).vertices_m


def row_of(bodies: Float[Tensor, "N V 3"], model: BodyModel, azimuth_rad: float) -> UInt8[np.ndarray, "H W 3"]:
    """The bodies beside each other, from one side, at one scale."""
    column = body_sheet(list(bodies), model.faces, [azimuth_rad], STUDIO)
    return np.concatenate(np.split(column, len(bodies)), axis=1)


def lifted(photo: Path) -> UInt8[np.ndarray, "H W 3"]:
    """What `meshrec lift --plot` draws of the person in a photograph."""
    with TemporaryDirectory() as folder:
        words = ["lift", str(photo), "-o", folder, "--plot", "--height-m", "1.7", "--hypotheses", "10"]
        if code := meshrec(words):
            raise SystemExit(code)
        return np.array(Image.open(Path(folder) / f"{photo.stem}_person0.png").convert("RGB"))


def made_up() -> UInt8[np.ndarray, "H W 3"]:
    """The first people of the benchmark, with their joints and those that a detector is said to have found."""
    with TemporaryDirectory() as folder:
        words = ["synthesize", "--benchmark", "-n", str(MADE_UP), "--sheet", str(MADE_UP), "-o", f"{folder}/made"]
        if code := meshrec(words):
            raise SystemExit(code)
        sheet = np.array(Image.open(Path(folder) / "made" / "sheet.png").convert("RGB"))
    size = (PAGE_PX, round(len(sheet) * PAGE_PX / sheet.shape[1]))
    return cv2.resize(sheet, size, interpolation=cv2.INTER_AREA)


def write_jpeg(path: Path, pixels: UInt8[np.ndarray, "H W 3"]) -> Path:
    """A JPEG for a page."""
    return write_whole(path, lambda neighbour: Image.fromarray(pixels).save(neighbour, format="JPEG", quality=85))


def main(demo: tyro.conf.Positional[Path], /, output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]) -> None:
    """Write demo.jpg and lift.jpg from the folder that `make demo` filled, bodies.jpg and synthetic.jpg."""
    model = load_body_model()
    write_jpeg(output / "demo.jpg", demo_row(demo))
    write_jpeg(output / "lift.jpg", lifted(demo / "photos" / "walker.png"))
    write_jpeg(output / "synthetic.jpg", made_up())
    rows = [row_of(shapes(model), model, 0.0), row_of(shapes(model), model, math.pi / 2)]
    write_jpeg(output / "bodies.jpg", np.concatenate([*rows, row_of(samples(model), model, math.radians(-30))]))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    tyro.cli(main)
