"""Names beside the points of a figure, none on another. It knows Matplotlib's axes, and nothing of variants."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from src.results.report.look import COLOURS, MOST_NAMES, Style, short

_LEFT_OF = {"left": 0.0, "center": 0.5, "right": 1.0}  # how much of a label is left of where it is anchored


def lay_out(figure: Figure) -> None:
    """Gives everything its place, where it stays."""
    engine = figure.get_layout_engine()
    assert engine
    engine.execute(figure)
    figure.set_layout_engine(None)  # Matplotlib's "none" has it drawn once more by whatever saves it


def label(figure: Figure, axes: Any, names: Sequence[str], at: np.ndarray, look: Style) -> None:
    """Writes each name beside its point where there is room, the first ones first: where it covers no line if there is
    such a place, else where it covers no other name or point. A name that finds none is left out: the point still
    tells it when it is pointed at. `at`: `[n, 2]`, the points in the units of the axes, which have their place."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    pixels = figure.dpi / 72
    points = axes.transData.transform(at)
    half = (look.marker_points / 2 + 1) * pixels
    taken = np.concatenate([points - half, points + half], axis=1)
    lines = _lines(axes, pixels)
    for name, point, where in itertools.islice(zip(names, points, at, strict=True), MOST_NAMES):
        text = _written(axes, short(name, 16 if look.narrow else 30), where, look)
        box = text.get_window_extent(renderer)
        # A browser's font may be a little wider than the one that is measured here, and its lines higher.
        width, height = box.width * 1.06, box.height * 1.1
        offsets = list(_places(half, width, height))
        towards = np.array([[dx, dy] for dx, dy, _ in offsets])
        left_of = np.outer([_LEFT_OF[anchor] for *_, anchor in offsets], [width, 0])
        corner = point - [0, height / 2] - left_of + towards
        places = np.hstack([corner, corner + np.array([width, height])])
        possible = np.flatnonzero(_within(places, axes, renderer) & ~_overlap(places, taken).any(axis=1))
        if not len(possible):
            text.remove()
            continue
        crossed = _overlap(places, lines).sum(axis=1)
        far = np.hypot(*towards.T) > 3.2 * half
        # Of those that cross as few lines, the closest: they come in that order.
        best = min(possible, key=lambda place: (crossed[place], far[place]))
        dx, dy, anchor = offsets[best]
        text.set(position=(dx / pixels, dy / pixels), ha=anchor)
        taken = np.concatenate([taken, places[[best]]])
        if far[best]:
            end = (dx / pixels, (dy - math.copysign(height / 2, dy)) / pixels)
            leader = {"arrowstyle": "-", "lw": 0.6, "color": COLOURS["soft"], "shrinkA": 0, "shrinkB": 4}
            axes.annotate("", where, xytext=end, textcoords="offset points", arrowprops=leader, zorder=4)


def _written(axes: Any, name: str, at: np.ndarray, look: Style) -> Any:
    """A name at its point, to be moved from there."""
    size, colour = look.font_points - 0.5, COLOURS["ink"]
    return axes.annotate(
        name, at, xytext=(0, 0), textcoords="offset points", va="center", fontsize=size, color=colour, zorder=6
    )


def _lines(axes: Any, width: float) -> np.ndarray:
    """What is drawn as a line, as boxes `[n, 4]` that are `width` pixels wider to each side."""
    drawn = [_corners(line) for line in axes.lines if len(line.get_xdata()) > 1]
    intervals = [axes.transData.transform(ends) for lines in axes.collections for ends in lines.get_segments()]
    return np.concatenate([np.empty((0, 4)), *(_boxes(path, width) for path in [*drawn, *intervals])])


def _within(places: np.ndarray, axes: Any, renderer: Any) -> np.ndarray:
    """Which of the boxes `[n, 4]` lie inside the axes: bool `[n]`."""
    left, bottom, right, top = axes.get_window_extent(renderer).extents
    inside = (places[:, :2] >= (left, bottom)) & (places[:, 2:] <= (right, top))
    return np.asarray(inside.all(axis=1))


def _corners(line: Any) -> np.ndarray:
    """What a drawn line runs through on the screen, along the axes: `[n, 2]`."""
    path = line.get_transform().transform_path(line.get_path()).vertices
    if line.get_drawstyle() == "steps-post":
        corners = np.repeat(path, 2, axis=0)
        path = np.stack([corners[1:, 0], corners[:-1, 1]], axis=1)
    return path


def _boxes(path: np.ndarray, width: float) -> np.ndarray:
    """The straight pieces of a path `[n, 2]` as boxes that are `width` wider to each side: `[n - 1, 4]`, the lower left
    and the upper right corner."""
    return np.concatenate([np.minimum(path[:-1], path[1:]) - width, np.maximum(path[:-1], path[1:]) + width], axis=1)


def _places(half: float, width: float, height: float) -> Iterator[tuple[float, float, str]]:
    """Offsets from a point to the middle of its label's near edge, the closest first."""
    gap = half + 2
    yield gap, 0, "left"
    yield -gap, 0, "right"
    for distance in np.arange(1, 5):
        dy = gap * 0.6 + distance * height * 0.75
        yield from ((gap * 0.5, dy, "left"), (gap * 0.5, -dy, "left"))
        yield from ((-gap * 0.5, dy, "right"), (-gap * 0.5, -dy, "right"))
        yield from ((0, dy, "center"), (0, -dy, "center"))


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of boxes `[n, 4]` and `[m, 4]`, which overlap: bool `[n, m]`."""
    apart = (boxes[:, None, :2] >= others[:, 2:]) | (others[:, :2] >= boxes[:, None, 2:])
    return ~np.any(apart, axis=2)
