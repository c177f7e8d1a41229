"""The comparison as tables: for the terminal, for the MLflow UI, for other programs. Pure: rows in, text out."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.box import Box
from rich.console import Console
from rich.table import Table

from src.results.report.numbers import interval, percent, points, size, three, times
from src.results.report.rows import Row, records
from src.settings.plain import plain

HEADINGS = ("variant", "test %", "drop [95 %]", "verdict", "gzip", "smaller", "ms", "faster")
SETTING = re.compile(r" ([\w.+~]+)=")  # in the name of a variant that shares the rest of it with another
# A rule below the headings and nothing else: a column of air between columns is all that 80 columns leave.
RULE = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")


def print_table(rows: Sequence[Row], console: Console, confidence: float) -> None:
    """A table that fits 80 columns. Of settings in the names of variants only the values are shown where there is no
    room for more, and the keys below."""
    for training in dict.fromkeys(row.training for row in rows):
        of_training = [row for row in rows if row.training == training]
        table, keys = _table(of_training, confidence), list[str]()
        if console.measure(table, options=console.options.update(width=1000)).maximum > console.width:
            keys = list(dict.fromkeys(", ".join(SETTING.findall(row.variant)) for row in of_training))
            values = [replace(row, variant=SETTING.sub(" ", row.variant)) for row in of_training]
            table = _table(values, confidence)
        console.print(table)
        if told := "; ".join(filter(None, keys)):
            console.print(f"after the names: {told}", markup=False)


def _table(rows: Sequence[Row], confidence: float) -> Table:
    title = rows[0].training or None
    table = Table(box=RULE, title=title, title_justify="left", show_edge=False, padding=0)
    for heading in _headings(confidence):
        left = heading in ("variant", "verdict")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "variant", overflow="fold")
    for row in rows:
        table.add_row(*_cells(row), style="bold" if row.is_baseline else "red" if row.failed else None)
    return table


def markdown(rows: Sequence[Row], confidence: float) -> str:
    """The same for the description of a run."""
    lines = []
    for training in dict.fromkeys(row.training for row in rows):
        if training:
            lines += [f"**{training}**", ""]
        lines.append("| " + " | ".join(_headings(confidence)) + " |")
        lines.append("|" + "|".join("---" if h in ("variant", "verdict") else "---:" for h in HEADINGS) + "|")
        for row in rows:
            if row.training == training:
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row)) + " |")
        lines.append("")
    return "\n".join(lines)


def as_csv(rows: Sequence[Row]) -> str:
    flat = records(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def as_json(rows: Sequence[Row], conditions: Mapping[str, Any]) -> str:
    found = plain({"conditions": conditions, "variants": records(rows)})
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _headings(confidence: float) -> tuple[str, ...]:
    return tuple(heading.replace("95", f"{confidence * 100:g}") for heading in HEADINGS)


def _cells(row: Row) -> tuple[str, ...]:
    if row.failed:
        return (row.variant, "failed", *("" for _ in HEADINGS[2:]))
    m = row.metrics
    drop = smaller = faster = ""
    verdict = "baseline" if row.is_baseline else ""
    if row.paired and row.verdict:
        drop = f"{points(row.paired.drop.estimate)} {interval(row.paired.drop)}"
        verdict = {"equal within the margin": "equal"}.get(row.verdict.call, row.verdict.call)
    if row.no_number:
        verdict = "no number"
    if not row.is_baseline and "gzip_ratio" in m:
        smaller = f"{times(1 / m['gzip_ratio'])}x"
    if row.speedup and not row.is_baseline:
        faster = f"{times(row.speedup.estimate)}x"
        if row.no_difference:
            faster = "same" if row.as_fast else "unsure"
    latency = three(m["latency_ms_median"]) if "latency_ms_median" in m else ""
    return (
        row.variant,
        percent(m["test_accuracy"], 2),
        drop,
        verdict,
        size(m["gzip_bytes"]),
        smaller,
        latency,
        faster,
    )
