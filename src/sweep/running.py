"""A sweep opens, does and closes: three calls, of which a search repeats the middle one, with other variants each time.

    with open_sweep(config, look(config), launcher, command=…, params=…) as opened:
        do(opened, plan.make(expand(overrides, compose), opened.store, config.reuse))
        do(opened, plan.make(expand(others, compose, opened.variants), opened.store, config.reuse))
        findings = close(opened)

Nothing here knows Hydra or what a stage does: a launcher has stages done in whichever processes there are, and says
what came of each.
"""

import gc
import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from src.console import interrupt
from src.console.progress import Progress
from src.machine import writable
from src.measure.latency import processes
from src.pipeline import checking, stages, worker
from src.pipeline.stages import Request
from src.results import closing, publish
from src.results.comparison import Findings
from src.results.variant import Result
from src.settings.config import Config
from src.store.artifacts import Away, Damaged, Record
from src.store.faults import reason
from src.store.store import Store, existing
from src.sweep import plan
from src.sweep.plan import Job, Plan
from src.sweep.variant import Variant, check_any_is_left
from src.sweep.watch import Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The id of a job's FINISHED run, or why there is none."""

    run_id: str | None
    error: str | None = None


@dataclass(frozen=True)
class Launcher:
    """`launch` has jobs done for a parent run, whose id it gets, `parallel` of them at a time; `here` says that this
    process does them."""

    launch: Callable[[Sequence[Job], str], Sequence[Outcome]]
    parallel: int = 1
    here: bool = False


@dataclass
class Opened:
    """A sweep under way: where it is recorded, its variants so far, what came of each stage, by its key, and the labels
    of variants that are `left_out`, each with the reason."""

    config: Config
    store: Store
    name: str
    parent: str
    launcher: Launcher
    variants: list[Variant] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    is_closed: bool = False


def look(config: Config) -> Store | None:
    """The store, if there is one. What dead processes of this host have left RUNNING there is closed, unless the sweep
    is only planned. Raises `UserError` where a sweep could not leave its results."""
    for folder in (publish.REPORTS, Path(tempfile.gettempdir())):
        writable.check(folder, str(folder))
    there = existing(config.tracking, looking=config.plan)
    if there and config.reuse != "none":
        there.check_artifacts()
    if there and not config.plan:
        for record in there.kill_abandoned():
            log.info("%s (run %s) was left by a process that is no more; closed as KILLED", record.name, record.run_id)
    return there


def check(planned: Plan, store: Store | None) -> Plan:
    """`planned` without the variants of which a step doesn't fit the model, before any stage is done. Logs what is
    worth knowing of the data and of the model of each training.

    Raises `UserError` where a model does not fit its data, or where no variant is left that was asked for.
    """
    for note in dict.fromkeys(note for variant in planned.variants for note in variant.notes):
        log.info("%s", note)
    configs: dict[str, list[Config]] = {}
    for job in planned.jobs:
        configs.setdefault(job.variant.chain[0].key, []).append(job.variant.config)
    said = {training: checking.check(each) for training, each in configs.items()}
    for note in dict.fromkeys(note for notes, _ in said.values() for note in notes):
        log.warning("%s", note)
    if not any(refused for _, refused in said.values()):
        return planned
    variants = list(planned.left_out)
    for variant in planned.variants:
        _, refused = said.get(variant.chain[0].key, ((), []))
        whys = [why for step, why in refused if step in (*variant.config.transforms, variant.config.quant)]
        variants.append(replace(variant, refused=whys[0]) if whys else variant)
    check_any_is_left(variants)
    return plan.make(variants, store, variants[0].config.reuse)


@contextmanager
def open_sweep(
    config: Config, there: Store | None, launcher: Launcher, *, command: str, params: Mapping[str, Any]
) -> Iterator[Opened]:
    """Opens a sweep, under a parent run with `params`, in the store that is `there`, or in a new one. `command` is what
    goes on with it once it is interrupted.

    The parent run is FINISHED or FAILED once `close` has closed the sweep, FAILED where the block raises. Where it is
    interrupted or ends without `close` the parent run is KILLED, and so is all that the sweep has left RUNNING.
    """
    store = there or Store(config.tracking)
    log.info("store: %s%s", store.place, "" if there else " (new)")
    # Python looks for garbage among modules that stay: in a large sweep that took a tenth of the time.
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    name = new_name()
    opened = Opened(config, store, name, store.start("sweep", name, tags={"command": command}, params=params), launcher)

    def stop() -> None:
        worker.stop()
        if not opened.is_closed:
            store.kill_all_of(opened.parent)
            log.info("interrupted; what is done is kept, and the same command goes on from there:\n  %s", command)

    try:
        with interrupt.closed_by(stop):
            yield opened
            if not opened.is_closed:
                stop()
    except Exception as error:
        if not opened.is_closed:
            store.end(opened.parent, "FAILED", reason(error))
        raise


def do(opened: Opened, planned: Plan) -> dict[str, Outcome]:
    """Runs the waves of `planned`; gives what came of each of its variants, by the key of its stage. What the sweep has
    done before is not done again, whether it succeeded or failed."""
    log.info("%s: %s", opened.name, plan.summary(planned, opened.launcher.parallel))
    for line in plan.left_out(planned):
        log.info("%s", line)
    opened.left_out |= {variant.label: variant.refused or "" for variant in planned.left_out}
    if line := plan.outdated(planned):
        log.info("%s", line)
    for damaged, why in planned.damaged:
        opened.store.mark_damaged(damaged, why)
    new = [variant for variant in planned.variants if variant.stage.key not in opened.outcomes]
    opened.variants += new
    if not planned.jobs:
        processes.start(len(planned.variants))  # of which the close needs one each
    _adopt(opened, [(v, planned.done[v.stage.key]) for v in new if v.stage.key in planned.done])
    waves = [[job for job in wave if job.stage.key not in opened.outcomes] for wave in planned.waves]
    with Watch(opened.store, opened.parent, [job for wave in waves for job in wave]):
        for number, wave in enumerate(waves, start=1):
            ready = []
            for job in wave:
                before = opened.outcomes.get(job.stage.parent.key) if job.stage.parent else None
                if before is not None and before.error:
                    opened.outcomes[job.stage.key] = before
                else:
                    ready.append(job)
            if ready:
                log.info("wave %d of %d: %s", number, len(waves), ", ".join(job.title for job in ready))
            for job, outcome in zip(ready, _launched(opened, ready), strict=True):
                opened.outcomes[job.stage.key] = (
                    replace(outcome, error=f"{job.title}: {outcome.error}") if outcome.error else outcome
                )
    return {variant.stage.key: opened.outcomes[variant.stage.key] for variant in planned.variants}


def close(opened: Opened) -> Findings:
    """Measures latency, compares all variants and ends the parent run: FAILED where one of them has failed."""
    worker.stop()
    results = [_result(variant, opened.outcomes[variant.stage.key]) for variant in opened.variants]
    configs: dict[str, Config] = {}
    for variant in opened.variants:
        configs.setdefault(variant.training, variant.config)
    findings = closing.close(results, configs, opened.store, opened.parent, list(opened.left_out.items()))
    opened.store.end(opened.parent, "FAILED" if findings.failed else "FINISHED")
    opened.is_closed = True
    return findings


def _result(variant: Variant, outcome: Outcome) -> Result:
    """What is known of a variant before the sweep is closed."""
    return Result(
        variant=variant.name,
        training=variant.training,
        transforms=variant.config.acting,
        scheme=variant.config.quant.name,
        is_baseline=variant.is_baseline,
        run_id=outcome.run_id,
        failed=outcome.error,
    )


def new_name() -> str:
    """When it began and a random part: sweeps that begin in the same second, of several machines too, have a name, and
    so a folder of reports, of their own."""
    return f"sweep-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def launcher_here(log_file: Path) -> Launcher:
    """Does every job in this process, one after another."""

    def launch(jobs: Sequence[Job], parent_run: str) -> list[Outcome]:
        outcomes = []
        for job in jobs:
            store = Store(job.variant.config.tracking)
            request = Request(job.stage, job.variant.config, job.variant.name, parent_run, log_file)
            try:
                outcomes.append(Outcome(stages.perform(request, store)))
            except Exception as error:
                log.debug("%s", job.title, exc_info=error)
                outcomes.append(Outcome(None, reason(error)))
        return outcomes

    return Launcher(launch, here=True)


def _adopt(opened: Opened, records: Sequence[tuple[Variant, Record]]) -> None:
    """Takes over variants of earlier runs."""
    progress = Progress(log)
    for i, (variant, record) in enumerate(records, start=1):
        opened.outcomes[variant.stage.key] = _adopted(variant, record, opened.store, opened.parent)
        progress(i / len(records), f"{i} of {len(records)} variants from earlier runs", last=i == len(records))


def _adopted(variant: Variant, record: Record, store: Store, parent: str) -> Outcome:
    """The variant from an earlier run. What a server keeps is checked only here: `record` may turn out damaged, and so
    may the runs before it."""
    try:
        return Outcome(store.adopt(record, variant.name, parent))
    except Damaged as why:
        store.mark_damaged(record, str(why))
        if earlier := store.finished("variant", [variant.stage.key]).get(variant.stage.key):
            log.warning("%s: %s; it is not used", variant.label, why)
            return _adopted(variant, earlier, store, parent)
        return Outcome(None, f"{why}; the same command makes it anew")
    except Away as why:
        return Outcome(None, str(why))


def _launched(opened: Opened, jobs: Sequence[Job]) -> list[Outcome]:
    """The outcome of each job. Where a worker dies and takes the batch with it, what was not done is launched again,
    one job at a time, so that only the one that kills its worker is lost."""
    store, launch, parent = opened.store, opened.launcher.launch, opened.parent
    if not jobs:
        return []
    try:
        return list(launch(jobs, parent))
    except Exception as error:
        log.warning("the launcher gave up; what is not done is launched again, one at a time (%s)", reason(error))
        store.kill_abandoned()
    outcomes = []
    for job in jobs:
        kind = "variant" if job.is_variant else "stage"
        if record := store.finished(kind, [job.stage.key], sweep=parent).get(job.stage.key):
            outcomes.append(Outcome(record.run_id))
            continue
        try:
            outcomes += launch([job], parent)
        except Exception as error:
            outcomes.append(Outcome(None, reason(error)))
    return outcomes
