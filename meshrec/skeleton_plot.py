"""Skeletons as pictures: over a photograph, and alone in 3D from the camera and from the side.

The person's left is orange, the right blue, trunk and head grey; what was not seen is dashed and hollow. 3D views are
orthographic and of one scale, from a little above; joints are in the camera's axes (x right, y down, z away).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from meshrec.skeletons import H36M17

Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

Unit = Literal["m", "units"]
"""Metres, or units of one head-pelvis path."""

SIDE_COLORS: dict[str, Color] = {"left": (226, 106, 32), "right": (34, 104, 190), "middle": (66, 72, 84)}
LEGEND = {"left": "person's left", "right": "person's right", "middle": "trunk and head"}

PAPER: Color = (255, 255, 255)
GROUND: Color = (244, 245, 248)
GRID: Color = (212, 216, 224)
SHADOW: Color = (188, 193, 203)
INK: Color = (52, 56, 64)
FAINT: Color = (120, 126, 138)

PANEL_PX = (440, 540)
"""Width and height of one view."""
GAP_PX, HEAD_PX, CAPTION_PX, FOOT_PX = 18, 52, 30, 50
FINE = 2
"""Views are drawn so many times larger and scaled down."""

TILT_RAD = math.radians(12.0)
SIDE_RAD = math.radians(90.0)
"""One who faces the camera then looks to the left."""

GRID_STEP: dict[Unit, float] = {"m": 0.25, "units": 0.5}
GRID_LINES = 4
"""On each side of the middle one."""
MARGIN = 0.1
"""Room around a pose, as a share of a view."""
SHADOW_BLUR_PX = 3.0
LINE_SHARE = 0.011
"""Width of a bone, as a share of the height of what is drawn."""
SUBPIXEL_BITS = 4
DASH = 3.0
"""Length of a dash, in line widths."""
FAINTNESS = 0.3
"""How much of their colour the hypotheses have."""
MOST_SHOWN = (0.02, 0.98)
"""Quantiles of their coordinates that a view has room for."""
MOST_HYPOTHESES = 40
"""More of them are a smear."""

POINTS = tuple(range(len(H36M17)))


@dataclass(frozen=True, eq=False)
class LiftFigure:
    """What the picture of one lifted person shows."""

    title: str
    joints: Float[np.ndarray, "17 3"]
    seen: Bool[np.ndarray, "17"]
    unit: Unit
    xy_px: Float[np.ndarray, "17 2"]
    """The 2D input; joints that are not seen are not drawn."""
    pixels: UInt8[np.ndarray, "H W 3"] | None = None
    around_px: Float[np.ndarray, "K 2"] | None = None
    """Places that the part of the image to show must hold, beside the joints."""
    hypotheses: Float[np.ndarray, "S 17 3"] | None = None


@dataclass(frozen=True)
class View:
    """An orthographic look at a pose: turned about the vertical, then seen from a little above."""

    azimuth_rad: float
    scale: float
    """Pixels for one metre or unit."""
    shift_px: tuple[float, float]

    def __call__(self, places: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Pixels, and in pixels too the depth away from the viewer."""
        return turned(places, self.azimuth_rad) * self.scale + np.array([*self.shift_px, 0.0])


def turned(places: Float[np.ndarray, "*batch 3"], azimuth_rad: float) -> Float[np.ndarray, "*batch 3"]:
    """Places turned about the vertical, then tilted so that what is farther away stands higher."""
    sin, cos, rise, flat = math.sin(azimuth_rad), math.cos(azimuth_rad), math.sin(TILT_RAD), math.cos(TILT_RAD)
    about_vertical = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    from_above = np.array([[1.0, 0.0, 0.0], [0.0, flat, -rise], [0.0, rise, flat]])
    return places @ (from_above @ about_vertical).T


def side_of(bone: tuple[int, int]) -> str:
    """`left`, `right` or `middle`: the side of the joint at the bone's end."""
    side = H36M17.joints[bone[1]].partition("_")[0]
    return side if side in SIDE_COLORS else "middle"


def lift_picture(figure: LiftFigure) -> UInt8[np.ndarray, "H W 3"]:
    """The 2D input, and the pose in 3D as the camera sees it and from the side, with a legend."""
    front, side = pose_views(figure)
    panels = {
        "2D input": _input_view(figure),
        "3D, from the camera": front,
        "3D, from the side (turned by 90°)": side,
    }
    return _page(panels, figure)


def pose_views(figure: LiftFigure) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The pose from the camera and from the side, at one scale."""
    return [_pose_view(figure, view) for view in _views([figure], (0.0, SIDE_RAD))]


def pose_strip(poses: Sequence[LiftFigure], azimuth_rad: float = 0.0) -> UInt8[np.ndarray, "h W 3"]:
    """Poses side by side from one direction, at one scale, their titles below them."""
    view = _views(poses, (azimuth_rad,))[0]
    columns = [_captioned(_pose_view(pose, view), pose.title) for pose in poses]
    return np.concatenate(columns, axis=1)


def draw_skeleton(
    pixels: UInt8[np.ndarray, "H W 3"],
    xy_px: Float[np.ndarray, "17 2"],
    seen: Bool[np.ndarray, "17"],
    depth: Float[np.ndarray, "17"] | None = None,
    width_px: float | None = None,
    only_seen: bool = False,
) -> None:
    """Draw bones and joints into a picture, the farthest first, each with a light rim.

    Bones with an end that was not seen are dashed and such joints hollow, or left out with `only_seen`.
    """
    width = width_px or line_width(xy_px[seen] if seen.any() else xy_px)
    order = np.zeros(len(H36M17)) if depth is None else depth
    for bone in sorted(H36M17.bones, key=lambda bone: -order[list(bone)].mean()):
        ends, sure = xy_px[list(bone)], bool(seen[list(bone)].all())
        if sure:
            _line(pixels, ends, PAPER, 1.7 * width)
        if sure or not only_seen:
            _line(pixels, ends, SIDE_COLORS[side_of(bone)], width, dashed=not sure)
    for joint in sorted(POINTS, key=lambda joint: -order[joint]):
        if seen[joint] or not only_seen:
            color = SIDE_COLORS[side_of((joint, joint))]
            _dot(pixels, xy_px[joint], 1.15 * width, color)
            _dot(pixels, xy_px[joint], 0.65 * width, color if seen[joint] else PAPER)


def line_width(xy_px: Float[np.ndarray, "*batch 2"]) -> float:
    """The width of bones in pixels that fits a person of this size."""
    flat = xy_px.reshape(-1, 2)
    return max(1.0, 1.3 * LINE_SHARE * float((flat.max(axis=0) - flat.min(axis=0)).max()))


def skeletons_over(
    pixels: UInt8[np.ndarray, "H W 3"], people: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> UInt8[np.ndarray, "H W 3"]:
    """A photograph with skeletons over it: of each person the pixels, which joints are seen, and their depths."""
    picture = pixels.copy()
    for xy_px, seen, depth in sorted(people, key=lambda person: -float(person[2].mean())):
        draw_skeleton(picture, xy_px, seen, depth)
    return picture


def _views(figures: Sequence[LiftFigure], azimuths_rad: tuple[float, ...]) -> list[View]:
    """Looks from several directions at one scale, the largest at which every pose fits into every view."""
    room = FINE * np.array(PANEL_PX) * (1 - 2 * MARGIN)
    boxes = []
    for azimuth in azimuths_rad:
        places = np.concatenate([turned(_drawn(figure), azimuth) for figure in figures])[:, :2]
        boxes.append((places.min(axis=0), places.max(axis=0)))
    scale = min(float((room / np.maximum(high - low, 1e-6)).min()) for low, high in boxes)
    middle = FINE * np.array(PANEL_PX) / 2
    shifts = [middle - scale * (low + high) / 2 for low, high in boxes]
    return [View(a, scale, (float(x), float(y))) for a, (x, y) in zip(azimuths_rad, shifts, strict=True)]


def _drawn(figure: LiftFigure) -> Float[np.ndarray, "P 3"]:
    """What a 3D view must have room for: the pose, the ground under its pelvis, and most of the hypotheses' joints."""
    places = [figure.joints, _foot(figure)[None]]
    if figure.hypotheses is not None and len(figure.hypotheses):
        places.append(np.quantile(figure.hypotheses, MOST_SHOWN, axis=(0, 1)))
    return np.concatenate(places)


def _foot(figure: LiftFigure) -> Float[np.ndarray, "3"]:
    """The ground under the pelvis, as high as the lowest joint."""
    return np.array([0.0, figure.joints[:, 1].max(), 0.0])


def _pose_view(figure: LiftFigure, view: View) -> UInt8[np.ndarray, "h w 3"]:
    """A pose on its ground, hypotheses thin behind it."""
    pixels = np.full((FINE * PANEL_PX[1], FINE * PANEL_PX[0], 3), GROUND, np.uint8)
    _draw_ground(pixels, figure, view)
    width = line_width(view(figure.joints)[:, :2])
    if figure.hypotheses is not None:
        _draw_hypotheses(pixels, view(figure.hypotheses), width / 3)
    xyz = view(figure.joints)
    draw_skeleton(pixels, xyz[:, :2], figure.seen, xyz[:, 2], width)
    _draw_scale(pixels, view.scale, figure.unit)
    if view.azimuth_rad == SIDE_RAD:
        _draw_way_to_camera(pixels)
    return _coarse(pixels)


def _draw_ground(pixels: UInt8[np.ndarray, "h w 3"], figure: LiftFigure, view: View) -> None:
    """A grid under the pose and the shadow that it casts from straight above."""
    step, foot = GRID_STEP[figure.unit], _foot(figure)
    reach = GRID_LINES * step
    for place in np.linspace(-reach, reach, 2 * GRID_LINES + 1):
        for ends in ([(place, -reach), (place, reach)], [(-reach, place), (reach, place)]):
            line = foot + np.array([[x, 0.0, z] for x, z in ends])
            _line(pixels, view(line)[:, :2], GRID, float(FINE))
    flat = figure.joints.copy()
    flat[:, 1] = foot[1]
    shadow, xy, width = pixels.copy(), view(flat)[:, :2], line_width(view(figure.joints)[:, :2])
    for bone in H36M17.bones:
        _line(shadow, xy[list(bone)], SHADOW, 2.2 * width)
    pixels[:] = np.minimum(pixels, cv2.GaussianBlur(shadow, (0, 0), SHADOW_BLUR_PX * FINE))


def _draw_hypotheses(pixels: UInt8[np.ndarray, "h w 3"], poses: Float[np.ndarray, "S 17 3"], width: float) -> None:
    """Thin and pale, so that where many agree the colour is strong."""
    for pose in poses[:MOST_HYPOTHESES]:
        layer = pixels.copy()
        for bone in H36M17.bones:
            _line(layer, pose[list(bone), :2], SIDE_COLORS[side_of(bone)], width)
        cv2.addWeighted(layer, FAINTNESS, pixels, 1 - FAINTNESS, 0.0, dst=pixels)


def _draw_scale(pixels: UInt8[np.ndarray, "h w 3"], scale: float, unit: Unit) -> None:
    """A bar of one grid step in the lower left corner, with its length."""
    step = GRID_STEP[unit]
    x, y = FINE * 18.0, FINE * (PANEL_PX[1] - 18.0)
    _line(pixels, np.array([[x, y], [x + step * scale, y]]), FAINT, 1.5 * FINE)
    label = f"{step:g} m" if unit == "m" else f"{step:g} unit"
    _text(pixels, (x + step * scale / 2, y - 6.0 * FINE), label, 12 * FINE, FAINT, "mb")


def _draw_way_to_camera(pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    """An arrow to where the camera stands in the view from the side."""
    y, tip = FINE * 24.0, FINE * 18.0
    first, last = _fixed(np.array([tip + FINE * 34.0, y])), _fixed(np.array([tip, y]))
    cv2.arrowedLine(pixels, first, last, FAINT, FINE, cv2.LINE_AA, SUBPIXEL_BITS, 0.3)
    _text(pixels, (tip + FINE * 42.0, y), "camera", 12 * FINE, FAINT, "lm")


def _input_view(figure: LiftFigure) -> UInt8[np.ndarray, "h w 3"]:
    """The seen 2D joints over their part of the photograph, or on plain ground."""
    corner, end = frame_of(figure)
    scale = FINE * PANEL_PX[0] / float(end[0] - corner[0])
    panel = np.full((FINE * PANEL_PX[1], FINE * PANEL_PX[0], 3), GROUND, np.uint8)
    if figure.pixels is not None:
        _paste(panel, figure.pixels, corner, scale)
    xy = (figure.xy_px - corner) * scale
    draw_skeleton(panel, xy, figure.seen, only_seen=True)
    return _coarse(panel)


def frame_of(figure: LiftFigure) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Two corners of the part of an image that shows a person in a view of the form of `PANEL_PX`."""
    xy_px = figure.xy_px[figure.seen]
    xy_px = xy_px if figure.around_px is None else np.concatenate([xy_px, figure.around_px])
    low, high = xy_px.min(axis=0), xy_px.max(axis=0)
    form = np.array(PANEL_PX, np.float64)
    half = form / 2 * float((np.maximum(high - low, 1e-6) / form).max()) / (1 - 2.5 * MARGIN)
    return (low + high) / 2 - half, (low + high) / 2 + half


def _paste(
    panel: UInt8[np.ndarray, "h w 3"],
    pixels: UInt8[np.ndarray, "H W 3"],
    corner: Float[np.ndarray, "2"],
    scale: float,
) -> None:
    """The part of a photograph that begins at `corner`, scaled; what lies outside the photograph stays as it is."""
    low = np.floor(np.maximum(corner, 0)).astype(int)
    high = np.minimum(np.ceil(corner + np.array(panel.shape[1::-1]) / scale), pixels.shape[1::-1]).astype(int)
    if (high <= low).any():
        return
    part = Image.fromarray(pixels[low[1] : high[1], low[0] : high[0]])
    size = np.maximum(np.rint((high - low) * scale), 1).astype(int)
    canvas = Image.fromarray(panel)
    canvas.paste(part.resize((int(size[0]), int(size[1])), Image.Resampling.LANCZOS), _corner((low - corner) * scale))
    panel[:] = np.asarray(canvas)


def _corner(xy: Float[np.ndarray, "2"]) -> tuple[int, int]:
    return round(float(xy[0])), round(float(xy[1]))


def _page(panels: dict[str, UInt8[np.ndarray, "h w 3"]], figure: LiftFigure) -> UInt8[np.ndarray, "H W 3"]:
    """Views in a row under their captions, a title above and the legend below."""
    width = len(panels) * (PANEL_PX[0] + GAP_PX) + GAP_PX
    height = HEAD_PX + CAPTION_PX + PANEL_PX[1] + FOOT_PX
    page = np.full((height, width, 3), PAPER, np.uint8)
    _text(page, (float(GAP_PX), HEAD_PX / 2 + 4), figure.title, 19, INK, "lm")
    for column, (caption, panel) in enumerate(panels.items()):
        left, top = GAP_PX + column * (PANEL_PX[0] + GAP_PX), HEAD_PX + CAPTION_PX
        _text(page, (float(left), HEAD_PX + CAPTION_PX / 2 - 2), caption, 15, FAINT, "lm")
        page[top : top + PANEL_PX[1], left : left + PANEL_PX[0]] = panel
    _draw_legend(page, figure)
    return page


def _draw_legend(page: UInt8[np.ndarray, "H W 3"], figure: LiftFigure) -> None:
    """What colours, dashes and thin lines mean."""
    y, x = page.shape[0] - FOOT_PX / 2, float(GAP_PX)
    for side, name in LEGEND.items():
        x = _legend_entry(page, x, y, name, SIDE_COLORS[side], 5.0)
    if not figure.seen.all():
        x = _legend_entry(page, x, y, "not seen: estimated", FAINT, 3.0, dashed=True)
    if figure.hypotheses is not None and len(figure.hypotheses):
        _legend_entry(page, x, y, f"{len(figure.hypotheses)} hypotheses", FAINT, 1.0)


def _legend_entry(
    page: UInt8[np.ndarray, "H W 3"], x: float, y: float, name: str, color: Color, width: float, dashed: bool = False
) -> float:
    """A line and its name; returns where the next one begins."""
    _line(page, np.array([[x + width / 2, y], [x + 32 - width / 2, y]]), color, width, dashed)
    return _text(page, (x + 42, y), name, 15, INK, "lm") + 30


def _captioned(panel: UInt8[np.ndarray, "h w 3"], caption: str) -> UInt8[np.ndarray, "H W 3"]:
    """A view above a line of text."""
    strip = np.full((CAPTION_PX, panel.shape[1], 3), PAPER, np.uint8)
    _text(strip, (panel.shape[1] / 2, CAPTION_PX / 2), caption, 15, INK, "mm")
    return np.concatenate([panel, strip])


def _coarse(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.asarray(cv2.resize(pixels, PANEL_PX, interpolation=cv2.INTER_AREA))


def _line(
    pixels: UInt8[np.ndarray, "h w 3"], ends: Float[np.ndarray, "2 2"], color: Color, width: float, dashed: bool = False
) -> None:
    """A smooth line, whole or in dashes; nothing where an end is no place."""
    if not np.isfinite(ends).all():
        return
    pieces = ends[None]
    if dashed:
        count = max(2, int(np.linalg.norm(ends[1] - ends[0]) / (2 * DASH * width)))
        along = (np.arange(count)[:, None] + np.array([0.25, 0.75])) / count
        pieces = ends[0] + along[..., None] * (ends[1] - ends[0])
    for piece in pieces:
        first, last = (_fixed(point) for point in piece)
        cv2.line(pixels, first, last, color, max(1, round(width)), cv2.LINE_AA, SUBPIXEL_BITS)


def _dot(pixels: UInt8[np.ndarray, "h w 3"], xy: Float[np.ndarray, "2"], radius: float, color: Color) -> None:
    if np.isfinite(xy).all():
        cv2.circle(
            pixels, _fixed(xy), round(radius * (1 << SUBPIXEL_BITS)), color, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS
        )


def _fixed(xy: Float[np.ndarray, "2"]) -> tuple[int, int]:
    """A continuous place in OpenCV's fixed-point pixels, whose whole numbers are pixel centres; far ones are cut."""
    x, y = np.clip(np.rint((xy - 0.5) * (1 << SUBPIXEL_BITS)), -(2**26), 2**26).astype(int)
    return int(x), int(y)


def _text(
    pixels: UInt8[np.ndarray, "h w 3"],
    xy: tuple[float, float],
    text: str,
    size_px: int,
    color: Color,
    anchor: str,
) -> float:
    """Write into a picture; returns where the text ends."""
    canvas = Image.fromarray(pixels)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size_px)
    pen.text(xy, text, color, font, anchor=anchor)
    pixels[:] = np.asarray(canvas)
    return xy[0] + pen.textlength(text, font)
