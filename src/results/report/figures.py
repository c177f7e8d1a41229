"""The two main figures, as SVG that takes its colours and font from the page, and as PNG. Pure: rows in, pictures out.

Matplotlib draws them, twice for the page: text that is readable at 1280 pixels is not at 400 once it is scaled down.
An inlined interactive library would add 4.7 MB to every sweep for what a few lines of the page's own script do.
"""

import functools
import io
import itertools
import math
import multiprocessing
import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from PIL import Image, ImageDraw, ImageFont

from src.results.report.numbers import size, three, times
from src.results.report.rows import Comparison, Damaged, Row, Sweep, front
from src.settings.sections import Compare

# Colours in a PNG; on the page each is a variable, which has another value in the dark.
COLOURS = {
    "ink": "#1c1d20",
    "soft": "#6b6e76",
    "line": "#d9dadf",
    "band": "#eef0f4",
    "paper": "#ffffff",
    "baseline": "#1c1d21",
    "better": "#12805f",
    "equal": "#2f62c4",
    "worse": "#b93a2b",
    "undecided": "#8a7320",
}
# Not by colour alone.
MARKERS = {"baseline": "D", "better": "^", "equal": "o", "worse": "v", "undecided": "s"}
MOST_NAMES = 25  # in a figure: more find no room, and the table has them all
SMALLEST_PICTURE = 96  # pixels
MANY_COMPARISONS = 8  # take longer to draw than more processes to start
WIDE, NARROW = 9.3, 3.75  # inches of 96 CSS pixels: the room on a page of 1280 and of 400 pixels


@dataclass(frozen=True)
class Style:
    inches: float
    font_points: float
    marker_points: float

    @property
    def narrow(self) -> bool:
        return self.inches < 5


STYLES = {"wide": Style(WIDE, 9.5, 6.5), "narrow": Style(NARROW, 8.5, 5.5)}


def kind(row: Row) -> str:
    """The one word by which a row is coloured."""
    if row.is_baseline:
        return "baseline"
    if row.no_number:
        return "worse"
    return row.verdict.call.split()[0] if row.verdict else "undecided"


def _claim(row: Row) -> str:
    """The colour of what is said of its latency."""
    if row.is_baseline or row.no_difference or not row.speedup:
        return COLOURS["baseline" if row.is_baseline else "soft"]
    return COLOURS["better" if row.speedup.estimate > 1 else "worse"]


@dataclass(frozen=True)
class Drawn:
    """The figures of a comparison by name: for the page, wide and narrow, and as PNG files."""

    svg: Mapping[str, Sequence[str]]
    png: Mapping[str, bytes]


def drawn(sweep: Sweep) -> list[Drawn]:
    """The figures of every comparison; of many, on all cores."""
    every = list(enumerate(sweep.comparisons))
    draw = functools.partial(_drawn, judged=sweep.judged)
    if len(every) < MANY_COMPARISONS:
        return list(map(draw, every))
    # Ctrl-C is the parent's to answer.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn, initializer=signal.signal, initargs=ignore) as processes:
        return list(processes.map(draw, every))


def _drawn(numbered: tuple[int, Comparison], judged: Compare) -> Drawn:
    index, comparison = numbered
    wide = main(comparison, judged)
    narrow = main(comparison, judged, "narrow")
    files = {name: png(figure) for name, figure in wide.items()}
    if comparison.damaged:
        files["damaged_images"] = pictures(comparison.damaged)
    on_page = {
        name: [svg(wide[name], f"{name}-wide-{index}"), svg(narrow[name], f"{name}-narrow-{index}")] for name in wide
    }
    return Drawn(on_page, files)


def main(comparison: Comparison, judged: Compare, style: str = "wide") -> dict[str, Figure]:
    """The two main figures by name, as far as there is something to draw."""
    drawn = {}
    if any(row.measured for row in comparison.rows):
        drawn["accuracy_over_size"] = accuracy_over_size(comparison, judged.margin, judged.confidence, style)
    if comparison.latency and any(row.speedup for row in comparison.rows):
        drawn["latency"] = speedups(comparison, style)
    return drawn


def accuracy_over_size(comparison: Comparison, margin: float, confidence: float, style: str = "wide") -> Figure:
    """Test accuracy over gzip bytes. Each interval is that of the paired difference from the dense baseline, whose
    accuracy is taken as given; the line joins the Pareto front."""
    look = STYLES[style]
    figure, axes = _axes(look, height=3.9 if look.narrow else 4.6)
    rows = [row for row in comparison.rows if row.measured]
    baseline = comparison.baseline
    if baseline:
        dense = 100 * baseline.metrics["test_accuracy"]
        axes.axhspan(dense - 100 * margin, dense + 100 * margin, color=COLOURS["band"], lw=0, zorder=0)
        axes.axhline(dense, color=COLOURS["soft"], lw=0.8, ls=(0, (4, 3)), zorder=1)
    unbeaten = front(rows)
    best = sorted(
        (row for row in rows if row.variant in unbeaten),
        key=lambda row: (row.metrics["gzip_bytes"], row.metrics["test_accuracy"]),
    )
    axes.plot(*_positions(best).T, color=COLOURS["soft"], lw=1.0, zorder=2, drawstyle="steps-post")
    if baseline:
        paired = [row for row in rows if row.paired]
        drops = np.array([(row.paired.drop.high, row.paired.drop.low) for row in paired if row.paired]).reshape(-1, 2)
        low, high = np.clip(dense - 100 * drops, 0, 100).T
        colours = [COLOURS[kind(row)] for row in paired]
        axes.vlines(_positions(paired)[:, 0], low, high, colours, lw=1.1, alpha=0.55, zorder=3)
    for row, (x, y) in zip(rows, _positions(rows), strict=True):
        _point(axes, x, y, row, MARKERS[kind(row)], COLOURS[kind(row)], look)
    axes.set_xscale("log")
    _size_ticks(axes, [row.metrics["gzip_bytes"] for row in rows], look)
    axes.yaxis.set_major_locator(MaxNLocator(5 if look.narrow else 7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_xlabel("gzip bytes")
    what = f"test accuracy, {100 * confidence:g} % interval"
    title = what if look.narrow else f"{what} of the difference from the baseline"
    axes.set_title(title, loc="left", fontsize=look.font_points, color=COLOURS["soft"])
    _label(figure, axes, [*best, *(row for row in rows if row not in best)], look)
    return figure


def speedups(comparison: Comparison, style: str = "wide") -> Figure:
    """How many times faster than the dense baseline, with intervals; nothing within the shaded noise floor is claimed.
    At the right the median latency. Of many variants only the baseline and the fastest."""
    assert comparison.latency
    look = STYLES[style]
    timed = [row for row in comparison.rows if row.speedup and "latency_ms_median" in row.metrics]
    by_speed = sorted(timed, key=lambda row: (not row.is_baseline, row.metrics["latency_ms_median"]))
    fastest = {row.variant for row in by_speed[:MOST_NAMES]}
    rows = [row for row in timed if row.variant in fastest]
    line = 0.23 if look.narrow else 0.25
    figure, axes = _axes(look, height=0.95 + line * len(rows))
    floor = comparison.latency.noise_floor
    if math.isfinite(floor):
        axes.axvspan(1 / (1 + floor), 1 + floor, color=COLOURS["line"], lw=0, zorder=0)
    axes.axvline(1, color=COLOURS["soft"], lw=0.8, ls=(0, (4, 3)), zorder=1)
    for position, row in enumerate(rows):
        assert row.speedup
        colour = _claim(row)
        _point(axes, row.speedup.estimate, position, row, "D" if row.is_baseline else "o", colour, look)
        axes.text(
            1.02,
            position,
            f"{three(row.metrics['latency_ms_median'])} ms",
            transform=axes.get_yaxis_transform(),
            va="center",
            color=COLOURS["soft"],
            fontsize=look.font_points,
        )
    known = [(i, row) for i, row in enumerate(rows) if row.speedup and math.isfinite(row.speedup.high)]
    ends = np.array([(row.speedup.low, row.speedup.high) for _, row in known if row.speedup]).reshape(-1, 2)
    axes.hlines([i for i, _ in known], *ends.T, [_claim(row) for _, row in known], lw=2.2, alpha=0.45)
    longest = 14 if look.narrow else 34
    axes.set_yticks(range(len(rows)), [_short(row.variant, longest) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.yaxis.grid(False)
    axes.xaxis.grid(True, color=COLOURS["line"], lw=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4 if look.narrow else 8, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ×"))
    axes.set_xlabel("times as fast as the dense baseline")
    if len(rows) < len(timed):
        title = f"the fastest {len(rows)} of {len(timed)}"
        axes.set_title(title, loc="left", fontsize=look.font_points, color=COLOURS["soft"])
    _lay_out(figure)
    return figure


def picture(pixels: np.ndarray) -> Image.Image:
    """uint8 `[height, width, channels]` as large as it is to be looked at: small ones enlarged without smoothing."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if image.width < SMALLEST_PICTURE:
        factor = -(-SMALLEST_PICTURE // image.width)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((2 * SMALLEST_PICTURE, 2 * SMALLEST_PICTURE))
    return image


def pictures(damaged: Sequence[Damaged]) -> bytes:
    """The damaged images side by side, each under its true class, as PNG."""
    drawn = [picture(image.pixels) for image in damaged]
    side, columns = 2 * SMALLEST_PICTURE, min(6, len(damaged))
    height = max(one.height for one in drawn) + 56
    sheet = Image.new("RGB", ((side + 16) * columns, height * -(-len(damaged) // columns)), COLOURS["paper"])
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for position, (image, one) in enumerate(zip(damaged, drawn, strict=True)):
        line, column = divmod(position, columns)
        middle, top = (side + 16) * column + (side + 16) // 2, height * line
        wrong = max(image.wrong.values(), key=list(image.wrong.values()).count)
        said = f"{_short(image.label, 22)}\n{len(image.wrong)} wrong, most {_short(wrong, 10)}"
        draw.multiline_text((middle, top + 6), said, COLOURS["ink"], font, anchor="ma", align="center")
        sheet.paste(one, (middle - one.width // 2, top + 50))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def svg(figure: Figure, name: str) -> str:
    """As an `<svg>` element for the page: text stays text, colours are variables, and what has a gid has
    `data-variant`. `name` keeps the ids of several figures apart."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.S)
    drawn = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" class="{name}" role="img">', drawn)
    drawn = re.sub(r'id="variant:([^"]*)"', r'data-variant="\1"', drawn)
    drawn = re.sub(r' id="(?!p|m|C)[^"]*"', "", drawn)
    drawn = re.sub(r"(font: [\d.]+px )[^;\"]*", r"\1var(--font)", drawn)
    drawn = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{name}-", drawn)
    for variable, colour in COLOURS.items():
        drawn = drawn.replace(colour, f"var(--{variable})")
    return drawn


def png(figure: Figure) -> bytes:
    """At 160 dots per inch, on white."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=160, facecolor=COLOURS["paper"], metadata={"Software": None})
    return picture.getvalue()


# --- Axes ------------------------------------------------------------------------------------------------------


def _axes(look: Style, height: float) -> tuple[Figure, Any]:
    parameters: Any = {
        "font.size": look.font_points,
        "axes.titlesize": look.font_points,
        "axes.labelsize": look.font_points,
        "text.color": COLOURS["ink"],
        "axes.labelcolor": COLOURS["soft"],
        "axes.titlecolor": COLOURS["soft"],
        "xtick.color": COLOURS["soft"],
        "ytick.color": COLOURS["soft"],
        "ytick.labelcolor": COLOURS["ink"],
        "axes.edgecolor": COLOURS["line"],
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": COLOURS["line"],
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
    }
    with matplotlib.rc_context(parameters):
        figure = Figure(figsize=(look.inches, height), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.04))
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
    return figure, axes


def _point(axes: Any, x: float, y: float, row: Row, marker: str, colour: str, look: Style) -> None:
    """One that the page can point at."""
    point = Line2D([x], [y], marker=marker, ls="", color=colour, ms=look.marker_points, zorder=5)
    point.set(mec=COLOURS["paper"], mew=0.8, gid=f"variant:{row.variant}")
    axes.add_line(point)


def _lay_out(figure: Figure) -> None:
    """Gives everything its place, where it stays."""
    engine = figure.get_layout_engine()
    assert engine
    engine.execute(figure)
    figure.set_layout_engine(None)  # Matplotlib's "none" has it drawn once more by whatever saves it


def _positions(rows: Sequence[Row]) -> np.ndarray:
    """`[n, 2]`: gzip bytes, test accuracy in percent."""
    return np.array([[row.metrics["gzip_bytes"], 100 * row.metrics["test_accuracy"]] for row in rows]).reshape(-1, 2)


def _size_ticks(axes: Any, sizes: Sequence[float], look: Style) -> None:
    """1, 2 and 5 of every power of ten within the data, with a margin on both sides."""
    low, high = min(sizes) / 1.18, max(sizes) * 1.18
    axes.set_xlim(low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]
    if look.narrow and len(ticks) > 5:
        ticks = ticks[::2]
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks or [low, high], [_round_size(tick) for tick in ticks or [low, high]])


def _round_size(count: float) -> str:
    return f"{count / 1e6:.3g} MB" if count >= 1e6 else f"{count / 1e3:.3g} kB"


def _short(name: str, most: int) -> str:
    """A name without its middle, since variants differ at the ends: `magnitude-fiq …sparsity=0.45`."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[most // 2 - most + 1 :]}"


# --- Labels that do not overlap --------------------------------------------------------------------------------


_LEFT_OF = {"left": 0.0, "center": 0.5, "right": 1.0}  # how much of a label is left of where it is anchored


def _label(figure: Figure, axes: Any, rows: Sequence[Row], look: Style) -> None:
    """Writes each name beside its point where there is room, the first rows first: where it covers no line if there is
    such a place, else where it covers no other name or point. A name that finds none is left out: the point still
    tells it when it is pointed at."""
    _lay_out(figure)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    pixels = figure.dpi / 72
    points = axes.transData.transform(_positions(rows))
    half = (look.marker_points / 2 + 1) * pixels
    taken = np.concatenate([points - half, points + half], axis=1)
    drawn = [_corners(line) for line in axes.lines if len(line.get_xdata()) > 1]
    intervals = [axes.transData.transform(ends) for lines in axes.collections for ends in lines.get_segments()]
    lines = np.concatenate([np.empty((0, 4)), *(_boxes(path, pixels) for path in [*drawn, *intervals])])
    left, bottom, right, top = axes.get_window_extent(renderer).extents
    for row, (x, y) in itertools.islice(zip(rows, points, strict=True), MOST_NAMES):
        at = (row.metrics["gzip_bytes"], 100 * row.metrics["test_accuracy"])
        text = axes.annotate(
            _short(row.variant, 16 if look.narrow else 30),
            at,
            xytext=(0, 0),
            textcoords="offset points",
            va="center",
            fontsize=look.font_points - 0.5,
            color=COLOURS["ink"],
            zorder=6,
        )
        box = text.get_window_extent(renderer)
        # A browser's font may be a little wider than the one that is measured here.
        width, height = box.width * 1.06, box.height
        offsets = list(_places(half, width, height))
        towards = np.array([[dx, dy] for dx, dy, _ in offsets])
        corner = [x, y - height / 2] - np.outer([_LEFT_OF[anchor] for *_, anchor in offsets], [width, 0]) + towards
        places = np.hstack([corner, corner + np.array([width, height])])
        fits = (places[:, :2] >= (left, bottom)).all(axis=1) & (places[:, 2:] <= (right, top)).all(axis=1)
        possible = np.flatnonzero(fits & ~_overlap(places, taken).any(axis=1))
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
            axes.annotate("", at, xytext=end, textcoords="offset points", arrowprops=leader, zorder=4)


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


def described(rows: Iterable[Row]) -> str:
    """A figure in words, for those who can't see it."""
    return "; ".join(
        f"{row.variant}: {100 * row.metrics['test_accuracy']:.1f} % at {size(row.metrics['gzip_bytes'])}"
        + (f", {times(row.speedup.estimate)} times as fast" if row.speedup and not row.is_baseline else "")
        for row in rows
        if row.measured
    )
