"""The comparison as tables: for the terminal, for the MLflow UI, for other programs. Pure: results in, text out."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace

from rich.box import Box
from rich.console import Console
from rich.table import Table

from src.results import conditions
from src.results.comparison import Findings
from src.results.report.numbers import count, interval, percent, points, size, three, times
from src.results.variant import Result, to_entries, to_rows
from src.settings.plain import plain

HEADINGS = (
    "variant",
    "test %",
    "drop [95 %]",
    "verdict",
    "gzip",
    "smaller",
    "ms",
    "faster",
    "parameters",
    "multiply-adds",
)
AT_80_COLUMNS = 8  # of these, the first
SETTING = re.compile(r" ([\w.+~]+)=")  # in the name of a variant that shares the rest of it with another
# A rule below the headings and nothing else: a column of air between columns is all that 80 columns leave.
RULE = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")


def print_table(results: Sequence[Result], console: Console, confidence: float) -> None:
    """A table that fits 80 columns: where there is no room for more, without the last columns; then with the values
    only of settings in the names of variants, and the keys below."""

    def fits(table: Table) -> bool:
        return console.measure(table, options=console.options.update(width=1000)).maximum <= console.width

    for training in dict.fromkeys(result.training for result in results):
        of_training = [result for result in results if result.training == training]
        table, keys = _table(of_training, confidence, len(HEADINGS)), list[str]()
        if not fits(table):
            table = _table(of_training, confidence, AT_80_COLUMNS)
        if not fits(table):
            keys = list(dict.fromkeys(", ".join(SETTING.findall(result.variant)) for result in of_training))
            values = [replace(result, variant=SETTING.sub(" ", result.variant)) for result in of_training]
            table = _table(values, confidence, AT_80_COLUMNS)
        console.print(table)
        if told := "; ".join(filter(None, keys)):
            console.print(f"after the names: {told}", markup=False)


def _table(results: Sequence[Result], confidence: float, columns: int) -> Table:
    title = results[0].training or None
    table = Table(box=RULE, title=title, title_justify="left", show_edge=False, padding=0)
    for heading in _headings(confidence)[:columns]:
        left = heading in ("variant", "verdict")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "variant", overflow="fold")
    for result in results:
        table.add_row(
            *_cells(result)[:columns], style="bold" if result.is_baseline else "red" if result.failed else None
        )
    return table


def markdown(results: Sequence[Result], confidence: float) -> str:
    """The same for the description of a run."""
    lines = []
    for training in dict.fromkeys(result.training for result in results):
        if training:
            lines += [f"**{training}**", ""]
        lines.append("| " + " | ".join(_headings(confidence)) + " |")
        lines.append("|" + "|".join("---" if h in ("variant", "verdict") else "---:" for h in HEADINGS) + "|")
        for result in results:
            if result.training == training:
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(result)) + " |")
        lines.append("")
    return "\n".join(lines)


def as_csv(results: Sequence[Result]) -> str:
    flat = to_rows(results)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def as_json(findings: Findings) -> str:
    """The variants, and under `conditions` how they were measured and judged."""
    whole = {"conditions": conditions.to_json(findings), "variants": plain(to_entries(findings.results))}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _headings(confidence: float) -> tuple[str, ...]:
    return tuple(heading.replace("95", f"{confidence * 100:g}") for heading in HEADINGS)


def _cells(result: Result) -> tuple[str, ...]:
    if result.failed:
        return (result.variant, "failed", *("" for _ in HEADINGS[2:]))
    m = result.metrics
    drop = smaller = faster = ""
    verdict = "baseline" if result.is_baseline else ""
    if result.test_accuracy_drop and result.verdict:
        drop = f"{points(result.test_accuracy_drop.estimate)} {interval(result.test_accuracy_drop)}"
        verdict = result.verdict.short
    if result.no_number:
        verdict = "no number"
    if "gzip_ratio" in m:
        smaller = f"{times(1 / m['gzip_ratio'])}x"
    if result.speedup:
        faster = f"{times(result.speedup.estimate)}x"
        if result.no_difference:
            faster = "same" if result.as_fast else "unsure"
    latency = three(m["latency_ms_median"]) if "latency_ms_median" in m else ""
    return (
        result.variant,
        percent(m["test_accuracy"], 2),
        drop,
        verdict,
        size(m["gzip_bytes"]),
        smaller,
        latency,
        faster,
        *(count(m[name]) if name in m else "" for name in ("parameters", "multiply_adds")),
    )
