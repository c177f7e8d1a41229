"""Closes a sweep: the latency of all its artifacts together, each against its dense baseline, what can be said of the
differences, and the report."""

import datetime
import logging
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from src.console.progress import Progress
from src.console.terminal import Terminal
from src.data import UNREADABLE, dataset
from src.machine import locks
from src.measure import latency as benchmark
from src.measure import stats
from src.measure.audit.contents import Layer
from src.measure.predictions import Predictions
from src.pipeline import keys
from src.results import report
from src.results.compare import conditions
from src.results.compare.effects import damaged, effects
from src.results.recorded import COMPARISON
from src.results.report import figures
from src.results.report.page import page, sentence
from src.settings import credentials
from src.settings.config import Config
from src.settings.plain import plain
from src.settings.sections import Benchmark, Compare
from src.store.address import elsewhere
from src.store.artifacts import Damaged, Record
from src.store.faults import reason
from src.store.names import AUDIT, LATENCY, OF_LATENCY, artifact_path, predictions_path
from src.store.store import Store

log = logging.getLogger(__name__)

REPORTS = Path("mlruns/reports")
REPORT = "report.html"


@dataclass(frozen=True)
class Entry:
    """A variant of the sweep and what came of it: the id of its FINISHED run, or why there is none."""

    name: str
    training: str
    is_baseline: bool
    config: Config
    run_id: str | None
    error: str | None = None

    @property
    def label(self) -> str:
        return f"{self.training} {self.name}".strip()


@dataclass(frozen=True)
class Closed:
    """All that a sweep found, and the folder on this machine that it was written to."""

    sweep: report.Sweep
    folder: Path

    @property
    def failed(self) -> dict[str, str]:
        """What failed, with its reason, by label."""
        return {row.label: row.failed for row in self.sweep.rows if row.failed}


def close(
    entries: Sequence[Entry],
    store: Store,
    parent: str,
    how: Benchmark,
    judged: Compare,
    left_out: Sequence[tuple[str, str]] = (),
) -> Closed:
    """Measures latency, compares and records. `left_out` are combinations that were not run, each with the reason."""
    trainings = dict.fromkeys(entry.training for entry in entries)
    runs = store.of_sweep(parent, [entry.run_id for entry in entries if entry.run_id])
    comparisons = [
        _training([entry for entry in entries if entry.training == training], runs, store, how, judged)
        for training in trainings
    ]
    rows = [row for comparison in comparisons for row in comparison.rows]
    said = [f"**{sentence(comparison, judged)}**" for comparison in comparisons]
    store.log(parent, description="\n\n".join([*said, report.markdown(rows, judged.confidence)]))
    store.keep_text(parent, report.as_csv(rows), "comparison.csv")
    sweep = _sweep(entries, comparisons, store, parent, judged, tuple(left_out))
    measured = {
        "facts": sweep.facts,
        "compare": plain(judged),
        "latency": [plain(c.latency) if c.latency else {} for c in comparisons],
        "left_out": [{"variant": name, "reason": why} for name, why in sweep.left_out],
    }
    store.keep_text(parent, report.as_json(rows, measured), COMPARISON)
    return Closed(sweep, _publish(sweep, store, parent))


def show(closed: Closed, store: Store, parent: str) -> None:
    """Prints what was found, and the commands that go on from there."""
    console, rows, judged = Terminal(soft_wrap=False, highlight=False), closed.sweep.rows, closed.sweep.judged
    report.print_table(rows, console, judged.confidence)
    for comparison in closed.sweep.comparisons:
        for line in (f"{sentence(comparison, judged)}.", *footnotes(comparison)):
            console.print(line, markup=False)
    for why, names in closed.sweep.reasons.items():
        console.print(f"left out: {', '.join(names)}: {why}", markup=False)
    settings = elsewhere(store.uri, store.experiment)
    ui = ["--backend-store-uri", store.uri] if any(part.startswith("tracking.uri=") for part in settings) else []
    steps = {
        "report": str(closed.folder / REPORT),
        "store": store.place,
        "runs": store.url(parent) if store.is_server else credentials.to_give() + _make("ui", ui),
        "choose": credentials.to_give() + _make("pick", settings) if any(row.paired for row in rows) else "",
    }
    for step, how in steps.items():
        if how:
            console.print(f"{step:8}{how}", markup=False, soft_wrap=True)


def footnotes(comparison: report.Comparison) -> Iterator[str]:
    """Explains the words of the table that need it, a line each."""
    for row in comparison.rows:
        if row.no_number and not row.is_baseline:
            yield f"{row.label} {row.no_number}: such an image counts as wrong, and the variant is never chosen."
    drops = [(row.verdict.call, row.paired.drop) for row in comparison.rows if row.verdict and row.paired]
    if any(call == "undecided" and (drop.low > 0 or drop.high < 0) for call, drop in drops):
        yield f"undecided though 0 is outside: not sure among {len(drops)} comparisons (McNemar's test, Holm)."
    if comparison.latency and any(row.no_difference and row.as_fast for row in comparison.rows):
        floor = f"{100 * comparison.latency.noise_floor:.1f} %"
        yield f"same: no difference in latency sure to exceed the noise floor, {floor}."
    if comparison.latency and any(row.no_difference and not row.as_fast for row in comparison.rows):
        longer = f"benchmark.seconds={5 * comparison.latency.config.seconds:g}"
        yield f"unsure: the interval of the speed-up is too wide to say; {longer} or a quieter machine narrows it."


def _make(target: str, arguments: Sequence[str]) -> str:
    return f"make {target}" + (f' ARGS="{shlex.join(arguments)}"' if arguments else "")


# --- One training ----------------------------------------------------------------------------------------------


def _training(
    entries: Sequence[Entry], runs: Mapping[str, Record], store: Store, how: Benchmark, judged: Compare
) -> report.Comparison:
    """The variants of one training against their dense baseline."""
    records = {entry.name: runs[entry.run_id] for entry in entries if entry.run_id}
    baseline = next((entry.name for entry in entries if entry.is_baseline and entry.run_id), None)
    rows = {entry.name: _row(entry, records.get(entry.name), store) for entry in entries}
    training, config = entries[0].training, entries[0].config
    test, validation, artifacts = dict[str, Predictions](), dict[str, Predictions](), dict[str, Path]()
    for name, record in records.items():
        with _failing_alone(rows, name, Damaged, "can't be read"):
            artifacts[name] = store.needed(record, artifact_path(name))
            validation[name] = _predictions(record, "validation", store)
            test[name] = _predictions(record, "test", store)
    if baseline is None or rows[baseline].failed:
        return report.Comparison(training, tuple(report.ordered(list(rows.values()))), settings=config.text)
    data = dataset(config)
    rows = judge(rows, baseline, test, validation, data.classes, judged)
    test = {name: found for name, found in test.items() if not rows[name].failed}
    artifacts = {name: artifacts[name] for name in test}
    several = "1 artifact" if len(artifacts) == 1 else f"{len(artifacts)} artifacts in interleaved rounds"
    with locks.in_quiet():
        log.info("latency: %s, at most %.0f s", several, how.seconds)
        measured = benchmark.measure(artifacts, baseline, how, Progress(log))
    for failure in measured.failures:
        rows[failure.name] = replace(rows[failure.name], failed=f"can't be run: {failure.reason}")
    for found in measured.variants:
        rows[found.name] = _timed(rows[found.name], found)
    for name, record in records.items():
        row = rows[name]
        new = {key: value for key, value in row.metrics.items() if key not in record.measured}
        tags = {"latency_host": measured.host.hostname, "data_fingerprint": data.fingerprint}
        if row.speedup:
            reference = records[measured.baseline].tags["digest"]
            tags[OF_LATENCY] = keys.of_latency(record.tags["digest"], reference, how, measured.host)
        tags |= {"verdict": str(row.verdict)} if row.verdict else {}
        tags |= {"worst_class": row.worst_class[0]} if row.worst_class else {}
        tags |= {"error": row.failed} if row.failed else {}
        store.log(record.run_id, metrics=new, tags=tags, description=_description(row))
    made_of: dict[tuple[str, str], str] = {}
    for entry in entries:
        if entry.name in test:
            made_of.setdefault((entry.config.policy, entry.config.quant.name), entry.name)
    return report.Comparison(
        training=training,
        rows=tuple(report.ordered(list(rows.values()))),
        images={name: len(split) for name, split in data.splits().items()},
        latency=measured,
        effects=effects({made: test[name].correct for made, name in made_of.items()}, judged.confidence),
        damaged=damaged(baseline, test, data),
        unreadable=data.rejected,
        origins=_origins(records, store),
        settings=config.text,
    )


@contextmanager
def _failing_alone(rows: dict[str, report.Row], name: str, error: type[Exception], what: str) -> Iterator[None]:
    """Where one variant fails, its row says so, and the others go on."""
    try:
        yield
    except error as why:
        rows[name] = replace(rows[name], failed=f"{what}: {reason(why)}")


def _predictions(record: Record, split: str, store: Store) -> Predictions:
    return Predictions.load(store.needed(record, predictions_path(split)))


def _row(entry: Entry, record: Record | None, store: Store) -> report.Row:
    if record is None:
        return report.Row(entry.name, entry.training, failed=entry.error, is_baseline=entry.is_baseline)
    return report.Row(
        entry.name,
        entry.training,
        run_id=record.run_id,
        reused_from=record.tags.get("reused_from"),
        digest=record.tags["digest"],
        metrics=record.measured,
        layers=tuple(Layer(**layer) for layer in store.json(record.run_id, AUDIT).get("layers", ())),
        found=record.tags.get("audit", ""),
        no_number=record.tags.get("no_number", ""),
        is_baseline=entry.is_baseline,
        url=store.url(record.run_id),
    )


def judge(
    rows: Mapping[str, report.Row],
    baseline: str,
    test: Mapping[str, Predictions],
    validation: Mapping[str, Predictions],
    classes: Sequence[str],
    judged: Compare,
) -> dict[str, report.Row]:
    """The rows of one training with all that predictions say of each against the baseline, paired on the same images
    and corrected over the variants that could be paired. One that can't be judged fails, with the reason, alone."""
    dense, dense_row = test[baseline], rows[baseline]
    judged_rows = dict(rows)
    judged_rows[baseline] = replace(dense_row, metrics={**dense_row.metrics, "ece": dense.ece})
    paired: dict[str, tuple[stats.PairedDrop, stats.PairedDrop]] = {}
    for name in test:
        if name != baseline:
            with _failing_alone(judged_rows, name, Exception, "can't be judged"):
                paired[name] = (
                    stats.paired_drop(dense.correct, test[name].correct, judged.confidence),
                    stats.paired_drop(validation[baseline].correct, validation[name].correct, judged.confidence),
                )
    adjusted = stats.holm([found.p_value for found, _ in paired.values()])
    for (name, (found, selecting)), adjusted_p in zip(paired.items(), adjusted.tolist(), strict=True):
        row = rows[name]
        with _failing_alone(judged_rows, name, Exception, "can't be judged"):
            by_class = stats.class_drops(dense.labels, dense.correct, test[name].correct, judged.confidence)
            worst, worst_drop = next(iter(by_class.items()))
            against = {
                **_interval("test_accuracy_drop", found.drop),
                **_interval("validation_accuracy_drop", selecting.drop),
                "mcnemar_p": found.p_value,
                "mcnemar_p_holm": adjusted_p,
                "right_to_wrong": found.right_to_wrong,
                "wrong_to_right": found.wrong_to_right,
                "agreement": stats.agreement(dense.answers, test[name].answers),
                "ece": test[name].ece,
                "ece_change": test[name].ece - dense.ece,
                **_interval("worst_class_drop", worst_drop.drop),
                "gzip_ratio": row.metrics["gzip_bytes"] / dense_row.metrics["gzip_bytes"],
            }
            judged_rows[name] = replace(
                row,
                metrics={**row.metrics, **against},
                paired=found,
                validation=selecting,
                verdict=stats.verdict(found, judged.margin, judged.confidence, adjusted_p),
                worst_class=(classes[worst], worst_drop),
            )
    return judged_rows


def _interval(name: str, found: stats.Interval) -> dict[str, float]:
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _timed(row: report.Row, found: benchmark.Latency) -> report.Row:
    latency = {name: getattr(found, name) for name in LATENCY}
    latency |= {"load_ms": found.load_ms, "first_inference_ms": found.first_ms}
    if found.peak_memory_bytes is not None:
        latency["peak_memory_bytes"] = found.peak_memory_bytes
    if not row.is_baseline and math.isfinite(found.speedup.high):  # of too few rounds nothing is known
        latency |= _interval("speedup", found.speedup)
    return replace(
        row,
        metrics={**row.metrics, **latency},
        speedup=found.speedup,
        no_difference=found.call == "no difference",
    )


def _description(row: report.Row) -> str:
    """A few lines for the run's page in the MLflow UI."""
    if row.failed:
        return row.failed
    if row.no_number:
        return f"It {row.no_number}: no number to trust." if row.is_baseline else f"It {row.no_number}: never chosen."
    found = row.found if row.found != "as asked for" else ""
    if row.is_baseline:
        return f"The dense baseline: what every other variant of this training is compared with. {found}".strip()
    lines = [f"Test accuracy {100 * row.metrics['test_accuracy']:.2f} %."]
    if row.paired and row.verdict:
        drop = row.paired.drop
        lines.append(
            f"Drop of {report.numbers.points(drop.estimate)} points {report.numbers.interval(drop)}: {row.verdict}."
        )
    lines.append(f"{report.numbers.times(1 / row.metrics['gzip_ratio'])} × smaller than the dense baseline.")
    if row.speedup:
        claimed = f"{report.numbers.times(row.speedup.estimate)} × as fast as it."
        if row.no_difference:
            claimed = "No difference in latency." if row.as_fast else "Unsure whether it is as fast."
        lines.append(claimed)
    return " ".join([*lines, found]).strip()


def _origins(records: Mapping[str, Record], store: Store) -> tuple[report.Origin, ...]:
    """The trainings and prunings that the variants came from, parents before children."""
    made: dict[str, list[str]] = {}
    for name, record in records.items():
        made.setdefault(record.tags["parent_key"], []).append(name)
    found: dict[str, Record] = {}
    missing = set(made)
    while missing:
        known = store.finished("stage", missing)
        found |= known
        missing = {r.tags["parent_key"] for r in known.values() if "parent_key" in r.tags} - set(found)

    def under(parent: str | None, depth: int) -> list[report.Origin]:
        origins = []
        for key, record in sorted(found.items(), key=lambda item: item[1].name):
            if record.tags.get("parent_key") == parent:
                origins.append(
                    report.Origin(record.name, tuple(made.get(key, ())), _made(record), depth, store.url(record.run_id))
                )
                origins += under(key, depth + 1)
        return origins

    return tuple(under(None, 0))


def _made(record: Record) -> str:
    parts = []
    if "validation_accuracy" in record.metrics:
        parts.append(f"validation accuracy {100 * record.metrics['validation_accuracy']:.2f} %")
    if record.metrics.get("sparsity"):
        parts.append(f"sparsity {100 * record.metrics['sparsity']:.1f} %")
    if record.seconds is not None:
        parts.append(f"{record.seconds:.0f} s")
    parts.append(f"checkpoint {record.tags['digest'][:12]}")
    return ", ".join(parts)


# --- The whole sweep -------------------------------------------------------------------------------------------


def _sweep(
    entries: Sequence[Entry],
    comparisons: Sequence[report.Comparison],
    store: Store,
    parent: str,
    judged: Compare,
    left_out: tuple[tuple[str, str], ...],
) -> report.Sweep:
    record = store.get(parent)
    config = entries[0].config
    started = datetime.datetime.fromtimestamp(record.started)
    return report.Sweep(
        name=record.name,
        date=f"{started:%-d %B %Y, %H:%M}",
        comparisons=tuple(comparisons),
        judged=judged,
        facts=conditions.facts(config, len(entries), record, store.uri),
        url=store.url(parent),
        left_out=left_out,
    )


def _publish(sweep: report.Sweep, store: Store, parent: str) -> Path:
    """Writes the page and the figures into the parent run and into a folder of this machine; gives the folder."""
    folder = REPORTS / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    if unreadable := dict.fromkeys(line for comparison in sweep.comparisons for line in comparison.unreadable):
        (folder / UNREADABLE).write_text("\n".join(unreadable) + "\n", encoding="utf-8")
        store.keep(parent, folder / UNREADABLE)
    drawn = figures.drawn(sweep)
    for number, its in enumerate(drawn, start=1):
        for name, content in its.png.items():
            file = folder / (f"{name}.png" if len(drawn) == 1 else f"{name}_{number}.png")
            file.write_bytes(content)
            store.keep(parent, file, "figures")
    (folder / REPORT).write_text(page(sweep, drawn), encoding="utf-8")
    store.keep(parent, folder / REPORT)
    return folder
