"""Sheets: pictures of one size in a grid, with captions."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

PAPER, INK = 255, 70
"""Grey of the ground and of the text."""

FONT_PX = 15

GAP_PX = 20
"""White to the left and to the right of each tile."""

RATIO = 4 / 3
"""Width to height that a sheet comes near to."""

BLANK = 2.0
"""What a sheet of blank places costs, where one e times too wide or too high costs 1."""


def grid(tiles: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "H W 3"]:
    """The tiles row by row, in as many columns as bring the sheet near 4:3 with few blank places, those at its end."""
    wide = [np.pad(tile, ((0, 0), (GAP_PX, GAP_PX), (0, 0)), constant_values=PAPER) for tile in tiles]
    height, width, _ = wide[0].shape
    columns = min(range(1, len(wide) + 1), key=lambda columns: _cost(len(wide), columns, width / height))
    wide += [np.full_like(wide[0], PAPER)] * (-len(wide) % columns)
    rows = (wide[start : start + columns] for start in range(0, len(wide), columns))
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _cost(tiles: int, columns: int, tile_ratio: float) -> float:
    """How far a sheet is from 4:3, and how much of it is blank."""
    rows = math.ceil(tiles / columns)
    return abs(math.log(columns * tile_ratio / rows / RATIO)) + BLANK * (1 - tiles / (rows * columns))


def captioned(tile: UInt8[np.ndarray, "h w 3"], lines: Sequence[str]) -> UInt8[np.ndarray, "H w 3"]:
    """The tile above lines of small text; of what is too long for a line, the beginning is left out."""
    font = ImageFont.load_default(FONT_PX)
    width, step = tile.shape[1], round(1.35 * FONT_PX)
    strip = Image.new("RGB", (width, step * len(lines) + step // 2), (PAPER, PAPER, PAPER))
    pen = ImageDraw.Draw(strip)
    for row, line in enumerate(lines):
        shown = _shortened(line, font, width - FONT_PX)
        pen.text((width / 2, step * row), shown, (INK, INK, INK), font, anchor="ma")
    return np.concatenate([tile, np.array(strip)])


def _shortened(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """The end of the line, as much of it as fits."""
    kept = line
    while kept and font.getlength(kept if kept == line else f"...{kept}") > width_px:
        kept = kept[1:]
    return kept if kept == line else f"...{kept}"
