"""Skeletons as one web page: turn them with the mouse, choose the person from a list. Plotly draws them."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from meshrec.errors import MeshrecError
from meshrec.skeleton_plot import (
    GRID_LINES,
    GRID_STEP,
    LEGEND,
    MOST_HYPOTHESES,
    SIDE_COLORS,
    LiftFigure,
    Unit,
    frame_of,
    side_of,
)
from meshrec.skeletons import H36M17

MOST_PEOPLE = 60
"""A page with more is too heavy for a browser."""
THUMBNAIL_PX = 480
"""Longest side of the part of a photograph that is shown."""

_BONE_WIDTH, _THIN_WIDTH, _INPUT_WIDTH, _MARKER = 9.0, 2.0, 4.0, 5


def lift_page(figures: Sequence[LiftFigure], title: str) -> str:
    """The 2D input and the 3D pose of each person, who is chosen from a list; the page needs no network."""
    return _page([_person_traces(figure) for figure in figures], figures, title, with_input=True)


def way_page(poses: Sequence[LiftFigure], title: str) -> str:
    """Poses one after the other, moved through by a slider."""
    return _page([_pose_traces(pose) for pose in poses], poses, title, with_input=False)


def _page(groups: list[list[Any]], figures: Sequence[LiftFigure], title: str, with_input: bool) -> str:
    graph = _plotly()
    figure = graph.Figure([trace for group in groups for trace in group])
    for index, group in enumerate(groups):
        for trace in figure.data[sum(map(len, groups[:index])) :][: len(group)]:
            trace.visible = index == 0
    steps = [_step(figures[chosen], groups, chosen, with_input) for chosen in range(len(groups))]
    figure.update_layout(_layout(title, steps, figures, with_input))
    return figure.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False, "responsive": True})


def _plotly() -> Any:
    try:
        from plotly import graph_objects
    except ImportError as error:
        raise MeshrecError(
            'The web page needs plotly, which is not installed: pip install "meshrec[plot]". The PNG pictures need '
            "nothing more."
        ) from error
    return graph_objects


def _step(figure: LiftFigure, groups: list[list[Any]], chosen: int, with_input: bool) -> dict[str, Any]:
    """One entry of the list, or one stop of the slider: which traces are visible then, and what part of the image."""
    visible = [index == chosen for index, group in enumerate(groups) for _ in group]
    layout = _input_ranges(figure) if with_input else {}
    return {"label": html.escape(figure.title), "method": "update", "args": [{"visible": visible}, layout]}


def _input_ranges(figure: LiftFigure) -> dict[str, Any]:
    low, high = frame_of(figure)
    return {"xaxis.range": [low[0], high[0]], "yaxis.range": [high[1], low[1]]}


def _layout(title: str, steps: list[dict], figures: Sequence[LiftFigure], with_input: bool) -> dict[str, Any]:
    """Image to the left, pose to the right; list or slider where there is a choice."""
    still: dict[str, Any] = {"showgrid": False, "zeroline": False, "showticklabels": False, "ticks": ""}
    hidden = {"visible": False, "showbackground": False}
    layout: dict[str, Any] = {
        "title": {"text": html.escape(title), "x": 0.02},
        "paper_bgcolor": "white",
        "plot_bgcolor": "#f4f5f8",
        "font": {"family": "system-ui, sans-serif", "color": "#343840", "size": 14},
        "legend": {"orientation": "h", "y": -0.02},
        "margin": {"l": 20, "r": 20, "t": 100, "b": 40},
        "scene": {
            "domain": {"x": [0.38, 1.0] if with_input else [0.0, 1.0], "y": [0.0, 1.0]},
            "aspectmode": "data",
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "camera": {"eye": {"x": 0.0, "y": -1.7, "z": 0.35}, "projection": {"type": "orthographic"}},
            "dragmode": "turntable",
        },
    }
    if with_input:
        ranges = _input_ranges(figures[0])
        layout["xaxis"] = still | {"domain": [0.0, 0.36], "range": ranges["xaxis.range"]}
        layout["yaxis"] = still | {"scaleanchor": "x", "range": ranges["yaxis.range"]}
        layout["updatemenus"] = [{"buttons": steps, "x": 0.02, "xanchor": "left", "y": 1.1}] if len(steps) > 1 else []
    elif len(steps) > 1:
        layout["sliders"] = [{"steps": steps, "currentvalue": {"prefix": ""}, "pad": {"t": 30}}]
    return layout


def _person_traces(figure: LiftFigure) -> list[Any]:
    return _input_traces(figure) + _pose_traces(figure)


def _input_traces(figure: LiftFigure) -> list[Any]:
    """The photograph's part, and the seen bones over it."""
    graph, traces = _plotly(), []
    if figure.pixels is not None and (picture := _picture_trace(figure)) is not None:
        traces.append(picture)
    for side, color in SIDE_COLORS.items():
        bones = [bone for bone in H36M17.bones if side_of(bone) == side and figure.seen[list(bone)].all()]
        xy = _joined(figure.xy_px, bones)
        traces.append(
            graph.Scatter(
                x=xy[:, 0],
                y=xy[:, 1],
                mode="lines+markers",
                line=_line(color, _INPUT_WIDTH),
                showlegend=False,
                hoverinfo="skip",
            )
        )
    return traces


def _picture_trace(figure: LiftFigure) -> Any | None:
    """The part of the photograph around the person, scaled down, as an image of its own place and size."""
    assert figure.pixels is not None
    low, high = frame_of(figure)
    x0, y0 = np.floor(np.maximum(low, 0)).astype(int)
    x1, y1 = np.minimum(np.ceil(high), figure.pixels.shape[1::-1]).astype(int)
    if x1 <= x0 or y1 <= y0:
        return None
    part = Image.fromarray(figure.pixels[y0:y1, x0:x1])
    part.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    store = io.BytesIO()
    part.save(store, "JPEG", quality=85)
    source = "data:image/jpeg;base64," + base64.b64encode(store.getvalue()).decode()
    dx, dy = (x1 - x0) / part.width, (y1 - y0) / part.height
    return _plotly().Image(source=source, x0=x0 + dx / 2, y0=y0 + dy / 2, dx=dx, dy=dy, hoverinfo="skip")


def _pose_traces(figure: LiftFigure) -> list[Any]:
    """Ground, hypotheses, bones and joints in 3D."""
    traces = [_ground_trace(figure)]
    for side, color in SIDE_COLORS.items():
        bones = [bone for bone in H36M17.bones if side_of(bone) == side]
        sure = [bone for bone in bones if figure.seen[list(bone)].all()]
        guessed = [bone for bone in bones if bone not in sure]
        traces.append(_lines(figure.joints, sure, _line(color, _BONE_WIDTH), LEGEND[side], shown=True))
        if guessed:
            traces.append(_lines(figure.joints, guessed, _line(color, _BONE_WIDTH / 2, "dash"), LEGEND[side]))
        if figure.hypotheses is not None and len(figure.hypotheses):
            traces.append(_hypotheses_trace(figure.hypotheses[:MOST_HYPOTHESES], bones, color, side))
    return [*traces, _joints_trace(figure.joints, figure.seen, figure.unit)]


def _hypotheses_trace(
    poses: Float[np.ndarray, "S 17 3"], bones: Sequence[tuple[int, int]], color: Any, side: str
) -> Any:
    xyz = np.concatenate([_joined(_upright(pose), bones) for pose in poses])
    return _lines_at(xyz, _line(color, _THIN_WIDTH), "hypotheses", shown=side == "middle", opacity=0.35)


def _ground_trace(figure: LiftFigure) -> Any:
    """A grid at the height of the lowest joint."""
    step, low = GRID_STEP[figure.unit], -float(figure.joints[:, 1].max())
    reach = GRID_LINES * step
    gap, rows = [np.nan] * 3, []
    for place in np.linspace(-reach, reach, 2 * GRID_LINES + 1):
        rows += [[place, -reach, low], [place, reach, low], gap, [-reach, place, low], [reach, place, low], gap]
    name = f"ground, {step:g} {'m' if figure.unit == 'm' else 'unit'} a square"
    return _lines_at(np.array(rows), {"color": "rgb(205,209,218)", "width": 1.5}, name, shown=True)


def _joints_trace(joints: Float[np.ndarray, "17 3"], seen: Bool[np.ndarray, "17"], unit: Unit) -> Any:
    """Joints that tell their name and place; those not seen are hollow."""
    names = [f"{name}{'' if sure else ' (not seen)'}" for name, sure in zip(H36M17.joints, seen, strict=True)]
    colors = [f"rgb{SIDE_COLORS[side_of((joint, joint))]}" for joint in range(len(H36M17))]
    xyz = _upright(joints)
    return _plotly().Scatter3d(
        x=xyz[:, 0],
        y=xyz[:, 1],
        z=xyz[:, 2],
        mode="markers",
        marker={"size": _MARKER, "color": colors, "symbol": ["circle" if sure else "circle-open" for sure in seen]},
        text=names,
        customdata=joints,
        hovertemplate="%{text}<br>x %{customdata[0]:.3f}, y %{customdata[1]:.3f}, z %{customdata[2]:.3f} "
        + f"{unit}<extra></extra>",
        showlegend=False,
    )


def _lines(joints: Any, bones: Sequence[tuple[int, int]], line: dict, name: str, shown: bool = False) -> Any:
    return _lines_at(_joined(_upright(joints), bones), line, name, shown)


def _lines_at(xyz: Float[np.ndarray, "P 3"], line: dict, name: str, shown: bool, opacity: float = 1.0) -> Any:
    return _plotly().Scatter3d(
        x=xyz[:, 0],
        y=xyz[:, 1],
        z=xyz[:, 2],
        mode="lines",
        line=line,
        name=name,
        legendgroup=name,
        showlegend=shown,
        opacity=opacity,
        hoverinfo="skip",
    )


def _line(color: tuple[int, int, int], width: float, dash: str = "solid") -> dict[str, Any]:
    return {"color": f"rgb{color}", "width": width, "dash": dash}


def _upright(joints: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Plotly's axes: x right, y away, z up."""
    return joints[..., [0, 2, 1]] * np.array([1.0, 1.0, -1.0])


def _joined(places: Float[np.ndarray, "17 D"], bones: Sequence[tuple[int, int]]) -> Float[np.ndarray, "P D"]:
    """The ends of each bone, with a gap behind it."""
    gap = np.full((1, places.shape[1]), np.nan)
    return np.concatenate([np.concatenate([places[list(bone)], gap]) for bone in bones] or [gap])
