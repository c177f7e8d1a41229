"""Results as tables: for the terminal, for the MLflow UI, for other programs. Pure: rows in, text out."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from src.stats import Interval, PairedDrop, Verdict

HEADINGS = ("variant", "test %", "drop [95 %]", "verdict", "gzip", "smaller", "ms", "faster")


@dataclass(frozen=True)
class Row:
    """One variant as measured, and against the dense baseline of its training where there is one.

    `metrics` has the names that MLflow shows; `drop` is that of the test accuracy, in shares of 1; `speedup` the ratio
    of the baseline's latency to this variant's, and `no_difference` that the noise floor is no smaller.
    """

    variant: str
    training: str = ""
    run_id: str | None = None
    reused_from: str | None = None
    digest: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    paired: PairedDrop | None = None
    verdict: Verdict | None = None
    speedup: Interval | None = None
    no_difference: bool = False
    failed: str | None = None
    is_baseline: bool = False


def ordered(rows: Sequence[Row]) -> list[Row]:
    """By training, the baseline on top, then from the smallest to the largest; what failed comes last."""
    trainings = list(dict.fromkeys(row.training for row in rows))
    return sorted(
        rows,
        key=lambda row: (
            trainings.index(row.training),
            not row.is_baseline,
            row.failed is not None,
            row.metrics.get("gzip_bytes", 0),
        ),
    )


def print_table(rows: Sequence[Row], console: Console, confidence: float) -> None:
    """A table that fits 80 columns."""
    headings = _headings(confidence)
    for training in dict.fromkeys(row.training for row in rows):
        table = Table(
            box=box.SIMPLE_HEAD, title=training or None, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
        )
        for heading in headings:
            left = heading in ("variant", "verdict")
            table.add_column(
                heading, justify="left" if left else "right", no_wrap=heading != "variant", overflow="fold"
            )
        for row in rows:
            if row.training == training:
                style = "bold" if row.is_baseline else "red" if row.failed else None
                table.add_row(*_cells(row), style=style)
        console.print(table)


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


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One flat dict per row, all of the same keys."""
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    flat = []
    for row in rows:
        record: dict[str, Any] = {"variant": row.variant, "training": row.training}
        record |= {name: row.metrics.get(name) for name in names}
        record["verdict"] = row.verdict.call if row.verdict else None
        record["needs_images"] = row.verdict.needs_images if row.verdict else None
        record |= {key: getattr(row, key) for key in ("failed", "run_id", "reused_from", "digest")}
        flat.append(record)
    return flat


def as_csv(rows: Sequence[Row]) -> str:
    flat = records(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def as_json(rows: Sequence[Row], conditions: Mapping[str, Any]) -> str:
    return json.dumps({"conditions": conditions, "variants": records(rows)}, indent=1, ensure_ascii=False) + "\n"


def _headings(confidence: float) -> tuple[str, ...]:
    return tuple(heading.replace("95", f"{confidence * 100:g}") for heading in HEADINGS)


def _cells(row: Row) -> tuple[str, ...]:
    if row.failed:
        return (row.variant, "failed", *("" for _ in HEADINGS[2:]))
    m = row.metrics
    drop = smaller = faster = ""
    verdict = "baseline" if row.is_baseline else ""
    if row.paired and row.verdict:
        d = row.paired.drop
        drop = f"{_points(d.estimate)} [{_points(d.low)}, {_points(d.high)}]"
        verdict = {"equal within the margin": "equal"}.get(row.verdict.call, row.verdict.call)
    if not row.is_baseline and "gzip_ratio" in m:
        smaller = f"{1 / m['gzip_ratio']:.2f}x"
    if row.speedup and not row.is_baseline:
        faster = "same" if row.no_difference else f"{row.speedup.estimate:.2f}x"
    latency = _three(m["latency_ms_median"]) if "latency_ms_median" in m else ""
    return (
        row.variant,
        f"{100 * m['test_accuracy']:.2f}",
        drop,
        verdict,
        _bytes(m["gzip_bytes"]),
        smaller,
        latency,
        faster,
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _three(number: float) -> str:
    """Three significant digits without an exponent."""
    return f"{number:.{max(0, 3 - len(str(int(number))))}f}" if number >= 1 else f"{number:.3f}"


def _bytes(count: float) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
