"""Closes a sweep: measures the latency of all its artifacts together, judges them against their dense baselines, and
records the results."""

import datetime
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from src.console.progress import Progress
from src.data import dataset, used
from src.machine import locks
from src.measure import latency as benchmark
from src.measure.latency.report import Latency, Report
from src.measure.predictions import Predictions
from src.pipeline import keys
from src.results import publish
from src.results.comparison import Comparison, Findings, ordered
from src.results.conditions import facts
from src.results.effects import damaged, effects
from src.results.judge import failing_alone, judge
from src.results.lineage import origins
from src.results.logged import logged_model
from src.results.recorded import COMPARISON
from src.results.report import tables
from src.results.report.sentences import description, sentence
from src.results.variant import Result, from_run, said
from src.settings.config import Config
from src.store import registry
from src.store.artifacts import Damaged, Record
from src.store.faults import reason
from src.store.names import (
    AUDIT,
    LATENCY,
    LOGGED_MODEL,
    OF_BASELINE,
    OF_LATENCY,
    PREPROCESSING,
    artifact_path,
    predictions_path,
)
from src.store.store import Store

log = logging.getLogger(__name__)


def close(
    results: Sequence[Result],
    configs: Mapping[str, Config],
    store: Store,
    parent: str,
    left_out: Sequence[tuple[str, str]] = (),
) -> Findings:
    """Measures latency, compares and records. `results` say of each variant the id of its FINISHED run, or why there is
    none; `configs` are by training, the first one's says how all are measured and judged; `left_out` are combinations
    that were not run, each with the reason."""
    runs = store.of_sweep(parent, [result.run_id for result in results if result.run_id])
    config = next(iter(configs.values()))
    alike = {name: replace(its, benchmark=config.benchmark, compare=config.compare) for name, its in configs.items()}
    comparisons = tuple(
        _training([result for result in results if result.training == training], runs, store, alike[training])
        for training in dict.fromkeys(result.training for result in results)
    )
    record = store.get(parent)
    findings = Findings(
        name=record.name,
        date=f"{datetime.datetime.fromtimestamp(record.started):%-d %B %Y, %H:%M}",
        comparisons=comparisons,
        judged=config.compare,
        facts=facts(config, len(results), record, store.uri),
        url=store.url(parent),
        left_out=tuple(left_out),
    )
    answers = [f"**{sentence(comparison, config.compare)}**" for comparison in comparisons]
    table = tables.markdown(findings.results, config.compare.confidence)
    store.log(parent, description="\n\n".join([*answers, table]))
    store.keep_text(parent, tables.as_csv(findings.results), "comparison.csv")
    store.keep_text(parent, tables.as_json(findings), COMPARISON)
    publish.write(findings, store, parent)
    return findings


def _training(results: Sequence[Result], runs: Mapping[str, Record], store: Store, config: Config) -> Comparison:
    """The variants of one training against their dense baseline."""
    records = {result.variant: runs[result.run_id] for result in results if result.run_id}
    of_all = {result.variant: _measured(result, records.get(result.variant), store) for result in results}
    baseline = next((name for name in records if of_all[name].is_baseline), None)
    test, validation, artifacts = dict[str, Predictions](), dict[str, Predictions](), dict[str, Path]()
    for name, record in records.items():
        with failing_alone(of_all, name, Damaged, "can't be read"):
            artifacts[name] = store.needed(record, artifact_path(name))
            validation[name] = Predictions.load(store.needed(record, predictions_path("validation")))
            test[name] = Predictions.load(store.needed(record, predictions_path("test")))
    if baseline is None or of_all[baseline].failed:
        return Comparison(results[0].training, tuple(ordered(list(of_all.values()))), settings=config.text)
    data, judged = dataset(config), config.compare
    of_all = judge(of_all, baseline, test, validation, data.classes, judged)
    test = {name: predictions for name, predictions in test.items() if not of_all[name].failed}
    latency = _latency({name: artifacts[name] for name in test}, baseline, config)
    for failure in latency.failures:
        of_all[failure.name] = replace(of_all[failure.name], failed=f"can't be run: {failure.reason}")
    for variant in latency.variants:
        of_all[variant.name] = timed(of_all[variant.name], variant)
    for name, record in records.items():
        result, tags = of_all[name], {"latency_host": latency.host.hostname, "data_fingerprint": data.fingerprint}
        if "latency_ms_median" in result.metrics:
            reference = records[latency.baseline].tags["digest"]
            tags[OF_LATENCY] = keys.of_latency(record.tags["digest"], reference, config.benchmark, latency.host)
        if name in test:
            tags |= _logged_model(record, artifacts[name], store)
        _log(result, record, store, tags)
        if "reused_from" in record.tags:
            store.uses(record.run_id, used(config, data))
    made_of: dict[tuple[tuple[str, ...], str], str] = {}
    for name in test:
        made_of.setdefault((of_all[name].transforms, of_all[name].scheme), name)
    return Comparison(
        training=results[0].training,
        results=tuple(ordered(list(of_all.values()))),
        images={name: len(split) for name, split in data.splits().items()},
        latency=latency,
        effects=effects({made: test[name].correct for made, name in made_of.items()}, judged.confidence),
        damaged=damaged(baseline, test, data),
        unreadable=data.rejected,
        origins=origins(records, store),
        settings=config.text,
    )


def _logged_model(record: Record, artifact: Path, store: Store) -> dict[str, str]:
    """As a tag. What the store can't do beside all else is a warning."""
    from mlflow.exceptions import MlflowException

    try:
        model = logged_model(store, record, artifact, store.json(record.run_id, PREPROCESSING))
        if model == record.tags.get(LOGGED_MODEL):  # of the run that this one took over
            registry.link(store, record, model)
        return {LOGGED_MODEL: model}
    except MlflowException as error:
        log.warning("%s: is no logged model of MLflow (%s)", record.name, reason(error))
        return {}


def _measured(result: Result, record: Record | None, store: Store) -> Result:
    if record is None:
        return result
    return from_run(result, record, store.json(record.run_id, AUDIT).get("layers", ()), store.url(record.run_id))


def _latency(artifacts: Mapping[str, Path], baseline: str, config: Config) -> Report:
    several = "1 artifact" if len(artifacts) == 1 else f"{len(artifacts)} artifacts in interleaved rounds"
    with locks.in_quiet():
        log.info("latency: %s, at most %.0f s", several, config.benchmark.seconds)
        return benchmark.measure(artifacts, baseline, config.benchmark, Progress(log))


def timed(result: Result, latency: Latency) -> Result:
    """`result` with its latency; the baseline is not compared with itself."""
    metrics = {name: getattr(latency, name) for name in LATENCY}
    metrics |= {"load_ms": latency.load_ms, "first_inference_ms": latency.first_ms}
    if latency.peak_memory_bytes is not None:
        metrics["peak_memory_bytes"] = latency.peak_memory_bytes
    return replace(
        result,
        metrics={**result.metrics, **metrics},
        speedup=None if result.is_baseline else latency.speedup,
        no_difference=latency.call == "no difference",
    )


def _log(result: Result, record: Record, store: Store, tags: Mapping[str, str]) -> None:
    """Adds to the variant's run what the sweep says of it."""
    known = record.measured
    added = {name: value for name, value in result.numbers.items() if name not in known}
    if result.is_baseline and result.measured:  # so that charts show it beside the others
        timed = {} if "latency_ms_median" in result.metrics else {"speedup"}
        added |= {name: value for name, value in OF_BASELINE.items() if name not in timed}
    store.log(record.run_id, metrics=added, tags={**tags, **said(result)}, description=description(result))
