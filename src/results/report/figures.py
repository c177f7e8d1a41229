"""The main figures, drawn by Matplotlib, twice for the page: text that is readable at 1280 pixels is not at 400
once it is scaled down. An interactive library would add 4.7 MB to a page for what a few lines of its own script do."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from src.results.comparison import Comparison, front
from src.results.report.labels import label, lay_out
from src.results.report.look import COLOURS, MARKERS, MOST_NAMES, STYLES, Style, kind, short
from src.results.report.numbers import count, size, three, times
from src.results.variant import Result
from src.settings.sections import Compare


@dataclass(frozen=True)
class Axis:
    """A cost, a metric, along which accuracy is drawn: its `heading` and what less of it is on the page, how the axis
    is called and its ticks are written, and how a value is told in words."""

    metric: str
    heading: str
    less: str
    label: str
    tick: Callable[[float], str]
    told: Callable[[float], str]


AXES = {
    "accuracy_over_size": Axis(
        "gzip_bytes",
        "Accuracy over size",
        "is both smaller and more accurate",
        "gzip bytes",
        lambda n: f"{n / 1e6:.3g} MB" if n >= 1e6 else f"{n / 1e3:.3g} kB",
        size,
    ),
    "accuracy_over_multiply_adds": Axis(
        "multiply_adds",
        "Accuracy over multiply-adds",
        "both multiplies less and is more accurate",
        "multiply-adds of an inference",
        lambda n: f"{n / 1e9:.3g} G" if n >= 1e9 else f"{n / 1e6:.3g} M" if n >= 1e6 else f"{n / 1e3:.3g} k",
        lambda n: f"{count(n)} multiply-adds",
    ),
    "accuracy_over_latency": Axis(
        "latency_ms_median",
        "Accuracy over latency",
        "is both faster and more accurate",
        "median latency, ms",
        lambda ms: f"{ms:.3g}",
        lambda ms: f"{three(ms)} ms",
    ),
}


def figures(comparison: Comparison, judged: Compare, style: str = "wide") -> dict[str, Figure]:
    """The main figures by name, as far as there is something to draw: accuracy over what costs all of them the same
    would be a vertical line."""
    drawn = {}
    for name, axis in AXES.items():
        costs = {result.metrics[axis.metric] for result in having(comparison.results, axis)}
        if len(costs) > 1 or (costs and axis.metric == "gzip_bytes"):
            drawn[name] = accuracy_over(axis, comparison, judged.margin, judged.confidence, style)
    if comparison.latency and _timed(comparison):
        drawn["latency"] = speedups(comparison, style)
    return drawn


def having(results: Iterable[Result], axis: Axis) -> list[Result]:
    """Those that have a place along it."""
    return [result for result in results if result.measured and axis.metric in result.metrics]


def accuracy_over(axis: Axis, comparison: Comparison, margin: float, confidence: float, style: str = "wide") -> Figure:
    """Test accuracy over a cost. Each interval is that of the paired difference from the dense baseline, whose accuracy
    is taken as given; the line joins the Pareto front."""
    look = STYLES[style]
    figure, axes = _axes(look, height=3.9 if look.narrow else 4.6)
    results = having(comparison.results, axis)
    baseline = comparison.baseline
    if baseline:
        dense = 100 * baseline.metrics["test_accuracy"]
        axes.axhspan(dense - 100 * margin, dense + 100 * margin, color=COLOURS["band"], lw=0, zorder=0)
        axes.axhline(dense, color=COLOURS["soft"], lw=0.8, ls=(0, (4, 3)), zorder=1)
    unbeaten = front(results, axis.metric)
    best = sorted(
        (result for result in results if result.variant in unbeaten),
        key=lambda result: (result.metrics[axis.metric], result.metrics["test_accuracy"]),
    )
    axes.plot(*_positions(best, axis).T, color=COLOURS["soft"], lw=1.0, zorder=2, drawstyle="steps-post")
    if baseline:
        drops = [(result, result.test_accuracy_drop) for result in results if result.test_accuracy_drop]
        ends = np.array([(drop.high, drop.low) for _, drop in drops]).reshape(-1, 2)
        low, high = np.clip(dense - 100 * ends, 0, 100).T
        compared = [result for result, _ in drops]
        colours = [COLOURS[kind(result)] for result in compared]
        axes.vlines(_positions(compared, axis)[:, 0], low, high, colours, lw=1.1, alpha=0.55, zorder=3)
    for result, (x, y) in zip(results, _positions(results, axis), strict=True):
        _point(axes, x, y, result, MARKERS[kind(result)], COLOURS[kind(result)], look)
    axes.set_xscale("log")
    _cost_ticks(axes, axis, [result.metrics[axis.metric] for result in results], look)
    axes.yaxis.set_major_locator(MaxNLocator(5 if look.narrow else 7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_xlabel(axis.label)
    what = f"test accuracy, {100 * confidence:g} % interval"
    title = what if look.narrow else f"{what} of the difference from the baseline"
    axes.set_title(title, loc="left", fontsize=look.font_points, color=COLOURS["soft"])
    first = [*best, *(result for result in results if result not in best)]
    lay_out(figure)
    label(figure, axes, [result.variant for result in first], _positions(first, axis), look)
    return figure


def speedups(comparison: Comparison, style: str = "wide") -> Figure:
    """How many times faster than the dense baseline, with intervals; nothing within the shaded noise floor is claimed.
    At the right the median latency. Of many variants only the baseline and the fastest."""
    assert comparison.latency
    look = STYLES[style]
    timed = _timed(comparison)
    by_speed = sorted(timed, key=lambda result: (not result.is_baseline, result.metrics["latency_ms_median"]))
    fastest = {result.variant for result in by_speed[:MOST_NAMES]}
    results = [result for result in timed if result.variant in fastest]
    line = 0.23 if look.narrow else 0.25
    figure, axes = _axes(look, height=0.95 + line * len(results))
    floor = comparison.latency.noise_floor
    if math.isfinite(floor):
        axes.axvspan(1 / (1 + floor), 1 + floor, color=COLOURS["line"], lw=0, zorder=0)
    axes.axvline(1, color=COLOURS["soft"], lw=0.8, ls=(0, (4, 3)), zorder=1)
    for position, result in enumerate(results):
        times_as_fast = result.speedup.estimate if result.speedup else 1.0
        _point(axes, times_as_fast, position, result, "D" if result.is_baseline else "o", _claim(result), look)
        axes.text(
            1.02,
            position,
            f"{three(result.metrics['latency_ms_median'])} ms",
            transform=axes.get_yaxis_transform(),
            va="center",
            color=COLOURS["soft"],
            fontsize=look.font_points,
        )
        if result.speedup and math.isfinite(result.speedup.high):
            axes.hlines(position, result.speedup.low, result.speedup.high, _claim(result), lw=2.2, alpha=0.45)
    longest = 14 if look.narrow else 34
    axes.set_yticks(range(len(results)), [short(result.variant, longest) for result in results])
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.yaxis.grid(False)
    axes.xaxis.grid(True, color=COLOURS["line"], lw=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4 if look.narrow else 8, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ×"))
    axes.set_xlabel("times as fast as the dense baseline")
    if len(results) < len(timed):
        title = f"the fastest {len(results)} of {len(timed)}"
        axes.set_title(title, loc="left", fontsize=look.font_points, color=COLOURS["soft"])
    lay_out(figure)
    return figure


def _timed(comparison: Comparison) -> list[Result]:
    """Those that there is a latency of: the baseline, and what is compared with it."""
    timed = (result for result in comparison.results if "latency_ms_median" in result.metrics)
    return [result for result in timed if result.speedup or result.is_baseline]


def described(results: Iterable[Result], axis: Axis) -> str:
    """A figure in words, for those who can't see it."""
    return "; ".join(
        f"{result.variant}: {100 * result.metrics['test_accuracy']:.1f} % at {axis.told(result.metrics[axis.metric])}"
        + (f", {times(result.speedup.estimate)} times as fast" if result.speedup else "")
        for result in having(results, axis)
    )


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


def _point(axes: Any, x: float, y: float, result: Result, marker: str, colour: str, look: Style) -> None:
    """One that the page can point at."""
    point = Line2D([x], [y], marker=marker, ls="", color=colour, ms=look.marker_points, zorder=5)
    point.set(mec=COLOURS["paper"], mew=0.8, gid=f"variant:{result.variant}")
    axes.add_line(point)


def _positions(results: Sequence[Result], axis: Axis) -> np.ndarray:
    """`[n, 2]`: the cost, test accuracy in percent."""
    at = [(result.metrics[axis.metric], 100 * result.metrics["test_accuracy"]) for result in results]
    return np.array(at).reshape(-1, 2)


def _cost_ticks(axes: Any, axis: Axis, costs: Sequence[float], look: Style) -> None:
    """1, 2 and 5 of every power of ten within the data, with a margin on both sides; where that leaves fewer than two,
    as of latencies that hardly differ, round numbers as close as there has to be."""
    low, high = min(costs) / 1.18, max(costs) * 1.18
    axes.set_xlim(low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]
    if len(ticks) < 2:
        even = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        ticks = [tick for tick in even if low <= tick <= high]
    if look.narrow and len(ticks) > 5:
        ticks = ticks[::2]
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [axis.tick(tick) for tick in ticks])


def _claim(result: Result) -> str:
    """The colour of what is said of its latency."""
    if result.is_baseline:
        return COLOURS["baseline"]
    if result.no_difference or not result.speedup:
        return COLOURS["soft"]
    return COLOURS["better" if result.speedup.estimate > 1 else "worse"]
