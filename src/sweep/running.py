"""A sweep: the waves of its plan, launched, then latency and comparison.

It knows neither Hydra nor what a stage does: `launch` has stages done in whichever processes there are and says what
came of each.
"""

import gc
import logging
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src.console import interrupt
from src.console.progress import Progress
from src.console.terminal import Terminal
from src.machine import writable
from src.pipeline import stages, worker
from src.pipeline.stages import Request
from src.results import compare
from src.settings.config import Config
from src.store.artifacts import Away, Damaged, Record
from src.store.faults import reason
from src.store.store import Store, existing
from src.sweep import plan
from src.sweep.plan import Job, Plan, Variant

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 15


@dataclass(frozen=True)
class Outcome:
    """The id of a job's FINISHED run, or why there is none."""

    run_id: str | None
    error: str | None = None


# The jobs and the id of the parent run; `parallel` of `run` says how many of them are done at a time.
Launch = Callable[[Sequence[Job], str], Sequence[Outcome]]


class Failed(Exception):
    """The sweep is over and some of it has failed: exit code 1."""


def run(
    overrides: Sequence[Sequence[str]],
    compose: plan.Compose,
    launch: Launch,
    *,
    command: str,
    here: bool,
    parallel: int = 1,
) -> str | None:
    """Runs the sweep whose variants `overrides` compose; gives the id of its parent run, or only shows the plan. `here`
    says that `launch` has stages done by this process, one at a time.

    Raises `UserError` before anything is recorded where a model does not fit its data, and `Failed` where a variant or
    the comparison has failed, after all else is done.
    """
    variants = plan.expand(overrides, compose)
    for note in dict.fromkeys(note for variant in variants for note in variant.notes):
        log.info("%s", note)
    config = variants[0].config
    for folder in (compare.REPORTS, Path(tempfile.gettempdir())):
        writable.check(folder, str(folder))
    there = existing(config.tracking, looking=config.plan)
    if there and config.reuse != "none":
        there.check_artifacts()
    if there and not config.plan:
        for record in there.kill_abandoned():
            log.info("%s (run %s) was left by a process that is no more; closed as KILLED", record.name, record.run_id)
    planned = plan.make(variants, there, config.reuse)
    for note in _checked(planned):
        log.warning("%s", note)
    if config.plan:
        plan.show(planned, parallel, Terminal(soft_wrap=True))
        return None
    if here and planned.jobs:
        worker.start()  # it loads TensorFlow meanwhile
    store = there or Store(config.tracking)
    for damaged, why in planned.damaged:
        store.mark_damaged(damaged, why)
    log.info("store: %s%s", store.place, "" if there else " (new)")
    # Python looks for garbage among modules that stay: in a large sweep that took a tenth of the time.
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    name = new_name()
    parent = store.start(
        "sweep", name, tags={"command": command}, params={"data": config.data.name, "variants": len(variants)}
    )

    def close() -> None:
        worker.stop()
        store.kill_all_of(parent)
        log.info("interrupted; what is done is kept, and the same command goes on from there:\n  %s", command)

    try:
        with interrupt.closed_by(close):
            log.info("%s: %s", name, plan.summary(planned, parallel))
            outcomes = _do(planned, store, launch, parent)
            worker.stop()
            entries = [
                compare.Entry(v.name, v.training, v.is_baseline, v.config, outcome.run_id, outcome.error)
                for v in variants
                for outcome in [outcomes[v.stage.key]]
            ]
            closed = compare.close(entries, store, parent, config.benchmark, config.compare)
    except Exception as error:
        store.end(parent, "FAILED", reason(error))
        raise
    store.end(parent, "FAILED" if closed.failed else "FINISHED")
    compare.show(closed, store, parent)
    if closed.failed:
        failed = [f"failed: {label}: {why}" for label, why in closed.failed.items()]
        raise Failed("\n".join([*failed, "what is done is kept, and the same command tries the rest again"]))
    return parent


def _checked(planned: Plan) -> list[str]:
    """Notes on the model of each training, before any stage is done. Raises `UserError` where a model does not fit its
    data."""
    configs: dict[str, list[Config]] = {}
    for job in planned.jobs:
        configs.setdefault(job.variant.chain[0].key, []).append(job.variant.config)
    return list(dict.fromkeys(note for each in configs.values() for note in stages.check(each)))


def new_name() -> str:
    """When it began and a random part: sweeps that begin in the same second, of several machines too, have a name, and
    so a folder of reports, of their own."""
    return f"sweep-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def launch_here(log_file: Path) -> Launch:
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

    return launch


def _do(planned: Plan, store: Store, launch: Launch, parent: str) -> dict[str, Outcome]:
    """Runs the waves; gives the outcome of each stage by its key."""
    outcomes: dict[str, Outcome] = {}
    reused = [v for v in planned.variants if v.stage.key in planned.done]
    progress = Progress(log)
    for i, variant in enumerate(reused, start=1):
        outcomes[variant.stage.key] = _adopted(variant, planned.done[variant.stage.key], store, parent)
        progress(i / len(reused), f"{i} of {len(reused)} variants from earlier runs", last=i == len(reused))
    with _Watch(store, parent, planned.jobs):
        for number, wave in enumerate(planned.waves, start=1):
            ready = []
            for job in wave:
                before = outcomes.get(job.stage.parent.key) if job.stage.parent else None
                if before is not None and before.error:
                    outcomes[job.stage.key] = before
                else:
                    ready.append(job)
            if ready:
                log.info("wave %d of %d: %s", number, len(planned.waves), ", ".join(job.title for job in ready))
            for job, outcome in zip(ready, _launched(ready, store, launch, parent), strict=True):
                outcomes[job.stage.key] = (
                    replace(outcome, error=f"{job.title}: {outcome.error}") if outcome.error else outcome
                )
    return outcomes


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


def _launched(jobs: Sequence[Job], store: Store, launch: Launch, parent: str) -> list[Outcome]:
    """The outcome of each job. Where a worker dies and takes the batch with it, what was not done is launched again,
    one job at a time, so that only the one that kills its worker is lost."""
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


class _Watch:
    """While the waves run, says every now and then what is done, what is running and what is left."""

    def __init__(self, store: Store, parent: str, jobs: Sequence[Job]) -> None:
        self.store, self.parent, self.jobs = store, parent, jobs
        # Until a stage has run here once, an epoch of training counts as much as a variant.
        self.weights = {
            job.variant.name if job.is_variant else job.stage.name: job.seconds or job.stage.epochs or 1 for job in jobs
        }
        self.over = threading.Event()
        self.started = time.monotonic()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        if len(self.jobs) > 1:
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()

    def _look(self) -> None:
        said, took = "", 0.0
        while not self.over.wait(max(SECONDS_BETWEEN_LOOKS, 20 * took)):  # of many runs a look takes a while
            looked = time.monotonic()
            try:
                runs = self.store.progress(self.parent)
            except Exception:
                continue  # the work itself will tell of a store that is gone
            took = time.monotonic() - looked
            done, running = runs.get("FINISHED", []), runs.get("RUNNING", [])
            names = f"{len(done)} of {len(self.jobs)} stages done"
            if running:
                names += f"; running: {', '.join(sorted(running))}"
            if names == said or not done or self.over.is_set():
                continue
            said, elapsed = names, time.monotonic() - self.started
            finished = sum(self.weights.get(name, 1) for name in done)
            left = elapsed / finished * (sum(self.weights.values()) - finished)
            log.info("%s; %s so far, about %s left", names, plan.duration(elapsed), plan.duration(left))
