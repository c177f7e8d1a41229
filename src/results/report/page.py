"""The whole sweep as one self-contained HTML page: no network, no other file. Pure: what was found in, text out."""

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from src.measure.stats import newcombe_paired
from src.results.report import figures, numbers
from src.results.report.figures import Drawn
from src.results.report.rows import Comparison, Row, Sweep, duplicates, front
from src.settings.sections import Compare

LAYERS = 6  # shown apart; the rest is summed


def page(sweep: Sweep, drawn: Sequence[Drawn]) -> str:
    """HTML of everything that the sweep found; `drawn` are the figures of each of its comparisons."""
    return _template().render(
        sweep=sweep,
        judged=sweep.judged,
        comparisons=[
            _view(comparison, its.svg, sweep, index)
            for index, (comparison, its) in enumerate(zip(sweep.comparisons, drawn, strict=True))
        ],
        failed=[row for row in sweep.rows if row.failed],
        no_number=[row for row in sweep.rows if row.no_number],
        duplicates=duplicates(sweep.rows),
        style=_source("page.css"),
        script=_source("page.js"),
    )


def sentence(comparison: Comparison, judged: Compare) -> str:
    """The answer in a sentence: what the smallest variant costs among those whose drop is sure to be within the margin.
    The validation split chooses it, the test split says what it costs."""
    margin = judged.margin
    if comparison.baseline and comparison.baseline.no_number:
        return f"The dense baseline {comparison.baseline.no_number}: what is compared with it says nothing"
    row = answer(comparison, margin)
    if row is None:
        nearest = min(
            (row for row in comparison.rows if row.validation and not row.is_baseline and not row.no_number),
            key=lambda row: row.validation.drop.high if row.validation else 1.0,
            default=None,
        )
        if nearest is None or nearest.validation is None:
            return "There is nothing to compare"
        seen = nearest.validation
        said = (
            f"No variant is sure to stay within {100 * margin:g} point{'s' * (margin != 0.01)} of the dense baseline "
            f"on the {numbers.images(seen.images, 'validation')}; nearest is {nearest.label}, which may lose up to "
            f"{100 * seen.drop.high:.{1 if round(seen.drop.high, 3) > margin else 2}f}"
        )
        right = seen.both_right + seen.right_to_wrong
        surest = newcombe_paired(right, 0, 0, seen.images - right, judged.confidence).high
        if surest > margin:
            said += f": equal predictions on so few images leave {100 * surest:.1f} possible"
        return said
    assert row.paired
    assert row.validation
    assert row.verdict
    parts = [f"{numbers.times(1 / row.metrics['gzip_ratio'])} × smaller"]
    if row.speedup:
        faster, slower = numbers.times(row.speedup.estimate), numbers.times(1 / row.speedup.estimate)
        claimed = f"{faster} × faster" if row.speedup.estimate > 1 else f"{slower} × slower"
        if row.no_difference:
            claimed = "as fast" if row.as_fast else "speed unsure"
        parts.append(claimed)
    drop = row.paired.drop
    parts.append(f"drop {numbers.points(drop.estimate)} points {numbers.interval(drop)}")
    tested, chosen = numbers.images(row.paired.images, "test"), numbers.images(row.validation.images, "validation")
    return f"{row.label}: {', '.join(parts)} on {tested}: {row.verdict.call} (chosen on {chosen})"


def answer(comparison: Comparison, margin: float) -> Row | None:
    """The smallest variant whose drop on the validation split is within the margin, interval included; None where it,
    or the baseline, gives what is no number."""
    if comparison.baseline and comparison.baseline.no_number:
        return None
    fit = [
        row
        for row in comparison.rows
        if row.validation and row.paired and not row.is_baseline and not row.failed and not row.no_number
        if row.validation.drop.high <= margin
    ]
    return min(fit, key=lambda row: row.metrics["gzip_bytes"], default=None)


# --- What the template shows -----------------------------------------------------------------------------------


def _view(comparison: Comparison, drawn: Mapping[str, Sequence[str]], sweep: Sweep, index: int) -> dict[str, Any]:
    measured = [row for row in comparison.rows if row.measured]
    judged = sweep.judged
    answered = answer(comparison, judged.margin)
    return {
        "this": comparison,
        "anchor": f"training-{index}" if len(sweep.comparisons) > 1 else "",
        "sentence": sentence(comparison, judged),
        "answer": answered.variant if answered else None,
        "drawn": drawn,
        "measured": measured,
        "described": figures.described(measured),
        "front": front(comparison.rows),
        "layers": _layers(measured),
        "effects": _effects(comparison),
        "damaged": [(damaged, _data_uri(damaged.pixels)) for damaged in comparison.damaged],
        "kinds": [kind for kind in figures.MARKERS if any(figures.kind(row) == kind for row in measured)],
        "notes": _notes(measured),
    }


def _layers(rows: Sequence[Row]) -> dict[str, Any]:
    """Bars of bytes per layer: the largest layers of the first row apart, in its order, and the rest summed."""
    rows = [row for row in rows if row.layers]
    if not rows:
        return {}

    def weight(layer: Any) -> int:
        return layer.bytes if layer.gzip_bytes is None else layer.gzip_bytes

    largest = sorted(rows[0].layers, key=weight, reverse=True)[:LAYERS]
    names = [layer.name for layer in rows[0].layers if layer in largest]
    whole = max(sum(map(weight, row.layers)) for row in rows)
    bars = []
    for row in rows:
        parts: list[tuple[str, int, float | None]] = [
            (layer.name, weight(layer), layer.sparsity) for layer in row.layers if layer.name in names
        ]
        parts.sort(key=lambda part: names.index(part[0]))
        rest = sum(weight(layer) for layer in row.layers if layer.name not in names)
        if rest:
            parts.append(("other layers", rest, None))
        bars.append((row, [(name, count, sparsity, 100 * count / whole) for name, count, sparsity in parts]))
    legend = [*names, *(["other layers"] if any(part[0] == "other layers" for _, p in bars for part in p) else [])]
    return {"bars": bars, "legend": legend, "compressed": rows[0].layers[0].gzip_bytes is not None}


def _effects(comparison: Comparison) -> dict[str, Any]:
    prunings = list(dict.fromkeys(effect.pruning for effect in comparison.effects))
    schemes = list(dict.fromkeys(effect.quantization for effect in comparison.effects))
    cells = {(effect.pruning, effect.quantization): effect for effect in comparison.effects}
    return {"prunings": prunings, "schemes": schemes, "cells": cells} if cells else {}


def _notes(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """What the audit found, each sentence once, with the variants that it is about."""
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.found and row.found != "as asked for":
            notes.setdefault(row.found, []).append(row.variant)
    return list(notes.items())


def _data_uri(pixels: np.ndarray) -> str:
    encoded = io.BytesIO()
    figures.picture(pixels).save(encoded, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {name: getattr(numbers, name) for name in ("points", "interval", "percent", "three")}
    environment.filters |= {"plain": "{:g}".format, "cost": lambda drop: numbers.points(drop).removeprefix("+")}
    environment.filters |= {"size": numbers.size, "times": numbers.times, "kind": figures.kind}
    return environment.get_template("page.html.jinja")


def _source(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
