"""`python -m src.verify`: whether every number that a sweep recorded holds, by doing it again from the artifacts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from zipfile import BadZipFile

import numpy as np
import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass as schema

from src.cli import command, frame
from src.data import Dataset, load_data
from src.machine import system as machine
from src.measure import audit
from src.measure import latency as benchmark
from src.measure.accuracy import predict
from src.measure.predictions import Predictions
from src.results import recorded
from src.results.across import apart
from src.results.comparison import duplicates
from src.results.conditions import Timing
from src.results.judge import judge
from src.results.report.numbers import times
from src.results.variant import Result
from src.settings.check import STRICT, UserError, check
from src.settings.config import Step, step
from src.settings.head import Head
from src.settings.sections import Benchmark as BenchmarkSettings
from src.settings.sections import Compare, Tracking
from src.store.artifacts import Record, Unusable, sha256
from src.store.names import AUDIT, MEASURED, NO_NUMBER, PREPROCESSING, SPLITS, artifact_path, predictions_path
from src.store.store import Store

USAGE = """\
Usage: python -m src.verify [RUN_ID] [KEY=VALUE …]

Loads what was recorded and does it again: checks the digests of the artifacts,
evaluates them on all three splits, audits them, compares them with the dense
baseline, and says for every number whether it holds. The same file under two
names is reported. Latency is measured again only where it is asked for, and
only on a host of the same kind: then the intervals of each speed-up must meet.

Examples
  python -m src.verify
      all variants of the latest sweep
  python -m src.verify 0123456789abcdef0123456789abcdef
      one variant, beside its dense baseline
  python -m src.verify sweep=sweep-20260101-120000 latency=true

Exit codes: 0 all of it holds, 1 some does not, 2 something in the command can't be used.

Settings
"""

# Sums over many images may be added in another order by another version of numpy.
TOLERANCE = 1e-9


@schema(frozen=True, config=STRICT)
class Settings:
    """Of `src.verify`."""

    tracking: Tracking
    run: Annotated[str, Field(description="id of one variant's run; all of the sweep if not given")] = ""
    sweep: Annotated[str, Field(min_length=1, description="latest, a sweep's name or its run id")] = "latest"
    latency: Annotated[bool, Field(description="measure latency again, as it was measured")] = False
    partial: Annotated[bool, Field(description="verify what there is if a part of the sweep failed")] = False


@dataclass(frozen=True)
class Again:
    """A variant done again: the artifact, its predictions by split, and what the audit and the evaluation give."""

    artifact: Path
    predictions: Mapping[str, Predictions]
    metrics: Mapping[str, float]


def verify(wanted: Settings) -> None:
    """Raises `Refused` if something does not hold."""
    store = recorded.open_store(wanted.tracking)
    only = ""
    if wanted.run:
        record = recorded.find_variant(store, wanted.run)
        only, sweep_id = record.run_id, record.tags["mlflow.parentRunId"]
        sweep = recorded.find_sweep(store, sweep_id, partial=True, key="run")
    else:
        sweep = recorded.find_sweep(store, wanted.sweep, wanted.partial, module="src.verify")
    wrong: dict[str, list[str]] = {}
    held = 0
    for training, timing in sweep.latency.items():
        results = [result for result in sweep.measured if result.training == training]
        if only and only not in {result.run_id for result in results}:
            continue
        results = [result for result in results if not only or result.run_id == only or result.is_baseline]
        records = {result.variant: recorded.run_of(store, result) for result in results}
        for name, count, problems in _training(results, records, store, sweep, timing if wanted.latency else None):
            label = f"{training} {name}".strip()
            held += count
            print(f"{label}: {f'{count} numbers hold' if not problems else 'does not hold'}")
            for problem in problems:
                print(f"  {problem}")
            if problems:
                wrong[label] = problems
    for same in duplicates(sweep.measured):
        names = [result.label for result in same]
        print(f"the same file to the byte under {len(names)} names: {', '.join(names)}")
        wrong.setdefault(names[0], []).append("duplicate")
    if wrong:
        raise frame.Refused(f"{sweep.run.name}: {len(wrong)} of {len(sweep.measured)} variants do not hold")
    print(f"{sweep.run.name}: all {held} numbers hold")


def _training(
    results: Sequence[Result],
    records: Mapping[str, Record],
    store: Store,
    sweep: recorded.ClosedSweep,
    timing: Timing | None,
) -> Iterator[tuple[str, int, list[str]]]:
    """Each variant's name, how many numbers of it hold, and what does not, a line each. Latency is measured again where
    `timing` says how it was."""
    digests = {result.digest: result.variant for result in results}
    problems: dict[str, list[str]] = {result.variant: [] for result in results}
    again: dict[str, Again] = {}
    for result in results:
        name, record = result.variant, records[result.variant]
        problems[name] += _edited(result, record)
        damaged = _damaged(result, record, store, digests)
        problems[name] += damaged
        if not damaged:
            done, differing = _again(record, store)
            again[name] = done
            problems[name] += differing
    whole = sum(result.training == results[0].training for result in sweep.measured)
    expected = _expected(results, again, whole, sweep.conditions.compare)
    if timing:
        for name, slower_or_faster in _timed(results, again, timing).items():
            problems[name].append(slower_or_faster)
    for result in results:
        name, count = result.variant, 0
        for metric, value in expected.get(name, {}).items():
            stored = records[name].metrics.get(metric)
            if stored is None or not math.isclose(stored, value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                problems[name].append(f"{metric}: recorded {_number(stored)}, found {_number(value)}")
            else:
                count += 1
        yield name, count, list(dict.fromkeys(problems[name]))


def _edited(result: Result, record: Record) -> Iterator[str]:
    """Where the run differs from what `comparison.json` said of it when the sweep was closed."""
    for name, value in result.numbers.items():
        now = record.metrics.get(name)
        if now is None or not math.isclose(now, value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"{name}: the run says {_number(now)}, the comparison {_number(value)}"
    if result.verdict and record.tags.get("verdict") != str(result.verdict):
        yield f"verdict: the run says {record.tags.get('verdict')}, the comparison {result.verdict}"
    if record.tags.get("digest") != result.digest:
        yield f"digest: the run says {record.tags.get('digest')}, the comparison {result.digest}"


def _damaged(result: Result, record: Record, store: Store, digests: Mapping[str | None, str]) -> list[str]:
    """Whether the file is another one than was recorded; then nothing more is done with it."""
    path = artifact_path(result.variant)
    try:
        digest = sha256(store.file(record.run_id, path))
    except Unusable as error:
        return [str(error)]
    if digest == result.digest:
        return []
    whose = f": it is that of {digests[digest]}" if digest in digests else ""
    return [f"{path}: SHA-256 is {digest[:16]}…, recorded was {str(result.digest)[:16]}…{whose}"]


def _again(record: Record, store: Store) -> tuple[Again, list[str]]:
    """Evaluates and audits a variant's artifact; where its predictions are not those that were recorded."""
    data, model = _data_and_model(record, store)
    problems = []
    if (known := record.tags.get("data_fingerprint")) and known != data.fingerprint:
        problems.append(f"data: fingerprint is {data.fingerprint[:16]}…, recorded was {known[:16]}…")
    artifact = store.file(record.run_id, artifact_path(record.tags["variant"]))
    head = Head.asked(model.settings).of(data.classes)
    predictions = {
        name: predict(artifact, split, model.settings.preprocess, threads=len(machine.cores()), head=head)
        for name, split in data.splits().items()
    }
    for split in SPLITS:
        try:
            before = Predictions.load(store.file(record.run_id, predictions_path(split)))
        except (Unusable, ValueError, OSError, BadZipFile, KeyError) as error:
            problems.append(f"{predictions_path(split)}: {error}")
            continue
        now = predictions[split]
        if before.predicted.shape != now.predicted.shape or (before.labels != now.labels).any():
            problems.append(f"{predictions_path(split)}: is of other images")
        elif differing := int(np.count_nonzero(before.predicted != now.predicted)):
            problems.append(f"{predictions_path(split)}: {differing} of {len(now.predicted)} images get another class")
    for path in (AUDIT, PREPROCESSING):
        try:
            store.recorded(record, path)
        except Unusable as error:
            problems.append(str(error))
    found = audit.audit(artifact)
    metrics = {f"{name}_accuracy": each.accuracy for name, each in predictions.items()}
    metrics |= {"balanced_accuracy": predictions["test"].balanced_accuracy}
    counted = {f"{name}{NO_NUMBER}": each.no_number for name, each in predictions.items()}
    metrics |= {name: count for name, count in counted.items() if count or name in record.metrics}
    for name, value in audit.numbers(found).items():
        if name in MEASURED or name in record.metrics:  # a run may be of before some of these were counted
            metrics[name] = value
    return Again(artifact, predictions, metrics), problems


def _data_and_model(record: Record, store: Store) -> tuple[Dataset, Step]:
    """The data and the model, from the recorded settings. Others are not read: a version may have its own."""
    try:
        settings = yaml.safe_load(store.file(record.run_id, "config.yaml").read_text(encoding="utf-8"))
        settings["data"].setdefault("seed", settings["seed"])  # version 0.1 drew the splits by the training's
        data, model = (step(group, settings[group], record.params[group]) for group in ("data", "model"))
    except (Unusable, UserError, KeyError, yaml.YAMLError) as error:
        raise UserError(f"run {record.run_id}: its config.yaml can't be used here ({error})") from None
    return load_data(data), model


def _expected(
    results: Sequence[Result], again: Mapping[str, Again], whole: int, judged: Compare
) -> dict[str, dict[str, float]]:
    """All numbers that follow from doing it again, by variant. What is corrected over all variants (Holm) is only
    known where all of them, `whole` in number, were done again."""
    baseline = next((result.variant for result in results if result.is_baseline), "")
    if baseline not in again:
        return {name: dict(done.metrics) for name, done in again.items()}
    fresh = {name: Result(name, metrics=done.metrics, is_baseline=name == baseline) for name, done in again.items()}
    splits = [{name: done.predictions[split] for name, done in again.items()} for split in ("test", "validation")]
    classes = [str(i) for i in range(int(splits[0][baseline].labels.max()) + 1)]
    against = judge(fresh, baseline, splits[0], splits[1], classes, judged)
    expected = {name: result.numbers for name, result in against.items()}
    if len(again) < whole:
        for metrics in expected.values():
            metrics.pop("mcnemar_p_holm", None)
    return expected


def _timed(results: Sequence[Result], again: Mapping[str, Again], timing: Timing) -> dict[str, str]:
    """Speed-ups measured again whose interval, widened by both noise floors, does not meet the recorded one."""
    here = machine.cpu_model()
    if timing.cpu != here:
        print(f"latency: recorded on {timing.cpu}, this is {here}: not comparable, not measured")
        return {}
    if timing.baseline not in again:
        return {}
    settings = check(BenchmarkSettings, timing.config, "benchmark")
    latency = benchmark.measure({name: done.artifact for name, done in again.items()}, timing.baseline, settings)
    now = {variant.name: variant.speedup for variant in latency.variants}
    slack = (1 + latency.noise_floor) * (1 + timing.noise_floor)
    problems: dict[str, str] = {}
    for result in results:
        before, after = result.speedup, now.get(result.variant)
        if before is None or after is None:
            continue
        if apart(before, after, slack):
            problems[result.variant] = (
                f"speedup: recorded {times(before.estimate)} [{times(before.low)}, {times(before.high)}], found "
                f"{times(after.estimate)} [{times(after.low)}, {times(after.high)}]"
            )
        else:
            print(f"{result.variant}: speedup holds, {times(before.estimate)} then, {times(after.estimate)} now")
    return problems


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:,.10g}"


if __name__ == "__main__":
    command.main(USAGE, Settings, verify, bare="run")
