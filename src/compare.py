"""Closes a sweep: the latency of all its artifacts together, each against its dense baseline, and what can be said."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console

from src import benchmark, report, stats
from src.config import Benchmark, Compare, plain
from src.evaluate import Predictions
from src.progress import Progress
from src.tracking import LATENCY, MEASURED, Record, Store, artifact_path, predictions_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A variant of the sweep and what came of it: the id of its FINISHED run, or why there is none."""

    name: str
    training: str
    is_baseline: bool
    run_id: str | None
    error: str | None = None

    @property
    def label(self) -> str:
        return f"{self.training} {self.name}".strip()


def close(entries: Sequence[Entry], store: Store, parent: str, how: Benchmark, judged: Compare) -> dict[str, str]:
    """Measures latency, compares, records and prints. Gives what failed, with its reason, by label."""
    rows: list[report.Row] = []
    conditions: dict[str, Any] = {"compare": plain(judged), "latency": []}
    for training in dict.fromkeys(entry.training for entry in entries):
        members = [entry for entry in entries if entry.training == training]
        compared, latency = _training(members, store, how, judged)
        rows += compared
        conditions["latency"].append(latency)
    rows = report.ordered(rows)
    table = report.markdown(rows, judged.confidence)
    store.describe(parent, table)
    store.keep_text(parent, report.as_csv(rows), "comparison.csv")
    store.keep_text(parent, report.as_json(rows, conditions), "comparison.json")
    report.print_table(rows, Console(soft_wrap=False), judged.confidence)
    return {f"{row.training} {row.variant}".strip(): row.failed for row in rows if row.failed}


def _training(
    entries: Sequence[Entry], store: Store, how: Benchmark, judged: Compare
) -> tuple[list[report.Row], dict[str, Any]]:
    """The variants of one training against their dense baseline."""
    records = {entry.name: store.get(entry.run_id) for entry in entries if entry.run_id}
    baseline = next((entry.name for entry in entries if entry.is_baseline and entry.run_id), None)
    rows = {entry.name: _row(entry, records.get(entry.name)) for entry in entries}
    if baseline is None:
        return list(rows.values()), {}
    rows = _judge(rows, records, baseline, store, judged)
    artifacts = {
        name: store.file(record.run_id, artifact_path(name), record.tags["digest"]) for name, record in records.items()
    }
    log.info("latency: %d artifacts in interleaved rounds, at most %.0f s", len(artifacts), how.seconds)
    measured = benchmark.measure(artifacts, baseline, how, Progress(log))
    for failure in measured.failures:
        rows[failure.name] = replace(rows[failure.name], failed=f"can't be run: {failure.reason}")
    for found in measured.variants:
        row = rows[found.name]
        latency = {name: getattr(found, name) for name in LATENCY}
        if not row.is_baseline:
            speedup = {"speedup": found.speedup.estimate}
            latency |= speedup | {"speedup_low": found.speedup.low, "speedup_high": found.speedup.high}
        rows[found.name] = replace(
            row, metrics={**row.metrics, **latency}, speedup=found.speedup, no_difference=found.call == "no difference"
        )
    conditions = plain(measured)
    for name, record in records.items():
        row = rows[name]
        new = {key: value for key, value in row.metrics.items() if key not in MEASURED}
        tags = {"latency_host": measured.host.hostname}
        tags |= {"verdict": str(row.verdict)} if row.verdict else {}
        tags |= {"error": row.failed} if row.failed else {}
        store.log(record.run_id, metrics=new, tags=tags)
    return list(rows.values()), conditions


def _row(entry: Entry, record: Record | None) -> report.Row:
    if record is None:
        return report.Row(entry.name, entry.training, failed=entry.error, is_baseline=entry.is_baseline)
    return report.Row(
        entry.name,
        entry.training,
        run_id=record.run_id,
        reused_from=record.tags.get("reused_from"),
        digest=record.tags["digest"],
        metrics={name: record.metrics[name] for name in MEASURED},
        is_baseline=entry.is_baseline,
    )


def _judge(
    rows: Mapping[str, report.Row], records: Mapping[str, Record], baseline: str, store: Store, judged: Compare
) -> dict[str, report.Row]:
    """Paired on the same test images, corrected over the variants of the training."""

    def right(record: Record) -> np.ndarray:
        predictions = Predictions.load(store.file(record.run_id, predictions_path("test")))
        return predictions.labels == predictions.predicted

    dense = right(records[baseline])
    dense_metrics = rows[baseline].metrics
    paired = {
        name: stats.paired_drop(dense, right(record), judged.confidence)
        for name, record in records.items()
        if name != baseline
    }
    adjusted = dict(zip(paired, stats.holm([p.p_value for p in paired.values()]), strict=True))
    judged_rows = dict(rows)
    for name, found in paired.items():
        row = rows[name]
        against = {
            "test_accuracy_drop": found.drop.estimate,
            "test_accuracy_drop_low": found.drop.low,
            "test_accuracy_drop_high": found.drop.high,
            "mcnemar_p": found.p_value,
            "mcnemar_p_holm": float(adjusted[name]),
            "right_to_wrong": found.right_to_wrong,
            "wrong_to_right": found.wrong_to_right,
            "gzip_ratio": row.metrics["gzip_bytes"] / dense_metrics["gzip_bytes"],
        }
        judged_rows[name] = replace(
            row,
            metrics={**row.metrics, **against},
            paired=found,
            verdict=stats.verdict(found, judged.margin, judged.confidence, float(adjusted[name])),
        )
    return judged_rows
