"""The whole sweep as one self-contained HTML page: no network, no other file. Pure: what was found in, text out."""

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from src.results.comparison import Comparison, Findings, duplicates, front
from src.results.report import numbers
from src.results.report.figures import AXES, described
from src.results.report.look import MARKERS, kind
from src.results.report.rendering import Drawn, picture
from src.results.report.sentences import answer, sentence
from src.results.variant import Result

LAYERS = 6  # shown apart; the rest is summed


def page(findings: Findings, drawn: Sequence[Drawn]) -> str:
    """HTML of everything that the sweep found; `drawn` are the figures of each of its comparisons."""
    return _template().render(
        sweep=findings,
        judged=findings.judged,
        comparisons=[
            _view(comparison, its.svg, findings, index)
            for index, (comparison, its) in enumerate(zip(findings.comparisons, drawn, strict=True))
        ],
        failed=[result for result in findings.results if result.failed],
        no_number=[result for result in findings.results if result.no_number],
        duplicates=duplicates(findings.results),
        style=_source("page.css"),
        script=_source("page.js"),
    )


# --- What the template shows -----------------------------------------------------------------------------------


def _view(comparison: Comparison, drawn: Mapping[str, Sequence[str]], findings: Findings, index: int) -> dict[str, Any]:
    measured = [result for result in comparison.results if result.measured]
    judged = findings.judged
    answered = answer(comparison, judged.margin)
    return {
        "this": comparison,
        "anchor": f"training-{index}" if len(findings.comparisons) > 1 else "",
        "sentence": sentence(comparison, judged),
        "answer": answered.variant if answered else None,
        "drawn": drawn,
        "measured": measured,
        "accuracies": [
            (name, axis, described(measured, axis), len(front(comparison.results, axis.metric)))
            for name, axis in AXES.items()
            if name in drawn
        ],
        "layers": _layers(measured),
        "effects": _effects(comparison),
        "damaged": [(damaged, _data_uri(damaged.pixels)) for damaged in comparison.damaged],
        "kinds": [each for each in MARKERS if any(kind(result) == each for result in measured)],
        "notes": _notes(measured),
    }


def _layers(results: Sequence[Result]) -> dict[str, Any]:
    """Bars of bytes per layer: the largest layers of the first result apart, in its order, and the rest summed."""
    results = [result for result in results if result.layers]
    if not results:
        return {}

    def weight(layer: Any) -> int:
        return layer.bytes if layer.gzip_bytes is None else layer.gzip_bytes

    largest = sorted(results[0].layers, key=weight, reverse=True)[:LAYERS]
    names = [layer.name for layer in results[0].layers if layer in largest]
    whole = max(sum(map(weight, result.layers)) for result in results)
    bars = []
    for result in results:
        parts: list[tuple[str, int, float | None]] = [
            (layer.name, weight(layer), layer.sparsity) for layer in result.layers if layer.name in names
        ]
        parts.sort(key=lambda part: names.index(part[0]))
        rest = sum(weight(layer) for layer in result.layers if layer.name not in names)
        if rest:
            parts.append(("other layers", rest, None))
        bars.append((result, [(name, count, sparsity, 100 * count / whole) for name, count, sparsity in parts]))
    legend = [*names, *(["other layers"] if any(part[0] == "other layers" for _, p in bars for part in p) else [])]
    return {"bars": bars, "legend": legend, "compressed": results[0].layers[0].gzip_bytes is not None}


def _effects(comparison: Comparison) -> dict[str, Any]:
    names = list(dict.fromkeys(effect.name for effect in comparison.effects))
    schemes = list(dict.fromkeys(effect.scheme for effect in comparison.effects))
    cells = {(effect.name, effect.scheme): effect for effect in comparison.effects}
    return {"names": names, "schemes": schemes, "cells": cells} if cells else {}


def _notes(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """What the audit found, each sentence once, with the variants that it is about."""
    notes: dict[str, list[str]] = {}
    for result in results:
        if result.note and result.note != "as asked for":
            notes.setdefault(result.note, []).append(result.variant)
    return list(notes.items())


def _data_uri(pixels: np.ndarray) -> str:
    encoded = io.BytesIO()
    picture(pixels).save(encoded, "PNG", optimize=True)
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
    environment.filters |= {
        name: getattr(numbers, name) for name in ("points", "interval", "percent", "three", "count")
    }
    environment.filters |= {"plain": "{:g}".format, "cost": lambda drop: numbers.points(drop).removeprefix("+")}
    environment.filters |= {"size": numbers.size, "times": numbers.times, "kind": kind}
    return environment.get_template("page.html.jinja")


def _source(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
