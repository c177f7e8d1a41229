"""`python -m src.compare sweep=A,B`: two sweeps side by side, and what changed beyond noise."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass as schema
from rich.table import Table

from src.cli import command
from src.console.terminal import Terminal
from src.measure.predictions import Predictions
from src.results import recorded
from src.results.across import Change, change, differing
from src.results.report.numbers import interval, percent, points, size, times
from src.results.report.tables import RULE
from src.results.variant import Result
from src.settings.check import STRICT, UserError
from src.settings.plain import plain
from src.settings.sections import Tracking
from src.store.artifacts import Unusable
from src.store.names import predictions_path
from src.store.store import Store

USAGE = """\
Usage: python -m src.compare sweep=A,B [KEY=VALUE …]

Two sweeps side by side: another seed, another model, another commit. Shows in
which settings they differ, and for each variant that both have, the change in
test accuracy from A to B with its interval, the sizes, and the speed-ups over
the dense baseline of each. A change is called real only where its interval,
corrected for the number of variants, excludes 0, and for speed-ups where the
intervals, widened by both noise floors, do not meet.

Where both sweeps saw the same test images, the change is paired; another
data.seed splits the data anew, and then it is not.

Examples
  python -m src.compare sweep=sweep-20260101-120000,latest

Settings
"""

SHOWN = 12  # settings that differ
FACTS = ("commit", "libraries", "fingerprint of the data")


@schema(frozen=True, config=STRICT)
class Settings:
    """Of `src.compare`."""

    tracking: Tracking
    sweep: Annotated[str, Field(min_length=1, description="A,B: each latest, a sweep's name or its run id")]
    partial: Annotated[bool, Field(description="take what there is if a part of a sweep failed")] = False


def compare(wanted: Settings) -> None:
    names = wanted.sweep.split(",")
    if len(names) != 2 or not all(names):
        raise UserError(f"sweep={wanted.sweep}: takes two sweeps, sweep=A,B")
    store = recorded.open_store(wanted.tracking)
    templates = (f"{{}},{names[1]}", f"{names[0]},{{}}")
    first, second = (
        recorded.find_sweep(store, name, wanted.partial, module="src.compare", template=template)
        for name, template in zip(names, templates, strict=True)
    )
    if first.run.run_id == second.run.run_id:
        raise UserError(f"sweep={wanted.sweep}: both are {first.run.name}; takes two different ones")
    console = Terminal(highlight=False)
    console.print(f"A  {first.run.name}  {first.run.tags.get('command', '')}", markup=False)
    console.print(f"B  {second.run.name}  {second.run.tags.get('command', '')}", markup=False)
    for line in _settings(store, first, second):
        console.print(line, markup=False)
    labelled = [_by_label(sweep) for sweep in (first, second)]
    both = [label for label in labelled[0] if label in labelled[1]]
    if not both:
        raise UserError(f"sweep={wanted.sweep}: have no variant in common")
    confidence = first.conditions.compare.confidence
    floors = tuple(_noise_floor(sweep) for sweep in (first, second))
    same_data = len({sweep.conditions.facts["fingerprint of the data"] for sweep in (first, second)}) == 1
    changes = []
    for label in both:
        pair = (labelled[0][label], labelled[1][label])
        correct = tuple(_correct(store, result) for result in pair)
        changes.append(
            change(
                label,
                pair,
                (correct[0], correct[1]),
                same_data and len(correct[0]) == len(correct[1]),
                (floors[0], floors[1]),
                confidence,
                len(both),
            )
        )
    console.print(_table(changes, confidence))
    for letter, own, other in (("A", labelled[0], labelled[1]), ("B", labelled[1], labelled[0])):
        if alone := [label for label in own if label not in other]:
            console.print(f"only in {letter}: {', '.join(alone)}", markup=False)
    for letter, own in zip("AB", labelled, strict=True):
        for label, result in own.items():
            if result.no_number:
                console.print(f"{label} of {letter} {result.no_number}", markup=False)
    for line in _summary(changes):
        console.print(line, markup=False)


def _settings(store: Store, first: recorded.ClosedSweep, second: recorded.ClosedSweep) -> list[str]:
    facts = [{name: sweep.conditions.facts.get(name) for name in FACTS} for sweep in (first, second)]
    configs: list[dict[str, Any]] = []
    for sweep in (first, second):
        try:
            run = recorded.run_of(store, sweep.measured[0])
            config = yaml.safe_load(store.file(run.run_id, "config.yaml").read_text(encoding="utf-8"))
        except (Unusable, IndexError):
            config = {}
        # A variant that was taken over from an earlier sweep has that one's config; timed and judged it was in this.
        timing = next(filter(None, sweep.conditions.latency), None)
        config |= {"benchmark": timing and timing.config, "compare": plain(sweep.conditions.compare)}
        configs.append({key: value for key, value in config.items() if key != "sweep"})
    differences = differing(configs[0], configs[1]) | differing(facts[0], facts[1])
    lines = [f"   {key}: {_shown(a)} → {_shown(b)}" for key, (a, b) in differences.items()]
    more = [f"   … and {len(lines) - SHOWN} more settings"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more] or ["   the settings that they share are the same"]


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 44 else text[:40] + "…"


def _by_label(sweep: recorded.ClosedSweep) -> dict[str, Result]:
    """By variant where there is one training; else with the training's name before it."""
    one = len({result.training for result in sweep.results}) == 1
    return {result.variant if one else result.label: result for result in sweep.measured}


def _noise_floor(sweep: recorded.ClosedSweep) -> float:
    return max((timing.noise_floor for timing in sweep.conditions.latency if timing), default=0.0)


def _correct(store: Store, result: Result) -> np.ndarray:
    record = recorded.run_of(store, result)
    return Predictions.load(recorded.file(store, record, predictions_path("test"))).correct


def _table(changes: Sequence[Change], confidence: float) -> Table:
    table = Table(box=RULE, show_edge=False, padding=0)
    for heading in ("variant", "test % A", "B", f"B − A [{100 * confidence:g} %]", "gzip A", "B", "speed-up A", "B"):
        table.add_column(heading, justify="left" if heading == "variant" else "right", overflow="fold")
    for found in changes:
        speedups = ["", ""] if found.speedup is None else [f"{times(each.estimate)}x" for each in found.speedup]
        changed = f"{points(found.accuracy.estimate)} {interval(found.accuracy)}"
        table.add_row(
            found.variant,
            *(percent(share, 2) for share in found.test_accuracy),
            "same file" if found.same_file else changed,
            *map(size, found.gzip_bytes),
            *speedups,
            style="bold" if found.real or found.faster_or_slower else None,
        )
    return table


def _summary(changes: Sequence[Change]) -> list[str]:
    lines = []
    for found in changes:
        if found.real:
            lines.append(f"{found.variant}: accuracy changed by {points(found.accuracy.estimate)} points")
        if found.faster_or_slower and found.speedup:
            before, after = (times(each.estimate) for each in found.speedup)
            lines.append(f"{found.variant}: the speed-up over the dense baseline changed, {before} to {after}")
    how = "paired on the same test images" if changes[0].paired else "not paired: the test images differ"
    return [*(lines or ["Nothing changed beyond noise in accuracy or speed-up."]), f"Accuracy is {how}."]


if __name__ == "__main__":
    command.main(USAGE, Settings, compare)
