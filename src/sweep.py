"""A sweep: the distinct stages of its variants, launched in waves, then latency and comparison.

It knows neither Hydra nor what a stage does: `compose` makes a config of overrides, `launch` has stages done in
whichever processes there are and says what came of each.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src import compare, stages
from src.config import Config
from src.stages import Request, Stage
from src.tracking import Record, Store, reason

log = logging.getLogger(__name__)

Compose = Callable[[Sequence[str]], Config]


@dataclass(frozen=True)
class Variant:
    """One variant of a sweep. `overrides` is what composes its config; `training` says which of the sweep's trainings
    it is made from, and is empty where there is one only."""

    name: str
    training: str
    overrides: tuple[str, ...]
    config: Config
    chain: tuple[Stage, ...]

    @property
    def stage(self) -> Stage:
        return self.chain[-1]

    @property
    def is_baseline(self) -> bool:
        return len(self.chain) == 2 and self.config.quant.name == "none"

    @property
    def label(self) -> str:
        return f"{self.training} {self.name}".strip()


@dataclass(frozen=True)
class Job:
    """One stage, done for one variant on behalf of all that share it."""

    variant: Variant
    stage: Stage


@dataclass(frozen=True)
class Outcome:
    """The id of a job's FINISHED run, or why there is none."""

    run_id: str | None
    error: str | None = None


Launch = Callable[[Sequence[Job], str], Sequence[Outcome]]


class Failed(Exception):
    """The sweep is over and some of it has failed: exit code 1."""


@dataclass(frozen=True)
class Plan:
    """The variants, what of them is in the store already (by key), and the stages to do, a wave after another: all
    within a wave are independent, and each finds its parent done."""

    variants: tuple[Variant, ...]
    done: Mapping[str, Record]
    waves: tuple[tuple[Job, ...], ...]


def run(overrides: Sequence[Sequence[str]], compose: Compose, launch: Launch, *, command: str) -> str:
    """Runs the sweep whose variants `overrides` compose; gives the id of its parent run.

    Raises `UserError` before anything is recorded where a model does not fit its data, and `Failed` where a variant or
    the comparison has failed, after all else is done.
    """
    variants = expand(overrides, compose)
    store = Store(variants[0].config.tracking)
    plan = make_plan(variants, store)
    for wave in plan.waves:
        for job in wave:
            if job.stage.parent is None:
                stages.check(job.variant.config)
    name = f"sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    parent = store.start("sweep", name, tags={"command": command}, params=_common(plan))
    try:
        log.info("%s: %s", name, summary(plan))
        outcomes = _do(plan, store, launch, parent)
        entries = [
            compare.Entry(v.name, v.training, v.is_baseline, v.config, outcome.run_id, outcome.error)
            for v in plan.variants
            for outcome in [outcomes[v.stage.key]]
        ]
        config = plan.variants[0].config
        failed = compare.close(entries, store, parent, config.benchmark, config.compare)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        store.end(parent, "KILLED" if interrupted else "FAILED", None if interrupted else reason(error))
        if interrupted:
            log.info("interrupted; what is done is kept, and the same command goes on from there:\n  %s", command)
        raise
    store.end(parent, "FAILED" if failed else "FINISHED")
    if failed:
        raise Failed("\n".join(f"failed: {label}: {why}" for label, why in failed.items()))
    return parent


def expand(overrides: Sequence[Sequence[str]], compose: Compose) -> tuple[Variant, ...]:
    """The distinct variants, all checked, each with its dense baseline among them; baselines lead their trainings."""
    composed = [(tuple(o), compose(o)) for o in overrides]
    groups = {step.group for _, config in composed for step in (*config.transforms, config.quant)}
    found: dict[str, tuple[tuple[str, ...], Config, tuple[Stage, ...]]] = {}
    baselines: dict[str, str] = {}
    for own, config in composed:
        chain = stages.chain(config, stages.dataset(config))
        if chain[0].key not in baselines:
            dense = (*(o for o in own if _group(o) not in groups), *(f"{group}=none" for group in sorted(groups)))
            dense_config = compose(dense)
            dense_chain = stages.chain(dense_config, stages.dataset(dense_config))
            baselines[chain[0].key] = dense_chain[-1].key
            found[dense_chain[-1].key] = (dense, dense_config, dense_chain)
        found.setdefault(chain[-1].key, (own, config, chain))
    common = set.intersection(*(set(own) for own, _, _ in found.values()))
    several = len(baselines) > 1
    variants = []
    for own, config, chain in found.values():
        varying = [o for o in own if o not in common]
        training = " ".join(o for o in varying if _group(o) not in groups) if several else ""
        variants.append(Variant(_name(config), training, own, config, chain))
    order = {key: i for i, key in enumerate(baselines)}
    variants.sort(key=lambda v: order[v.chain[0].key])
    return tuple(_distinctly_named(variants, groups, common))


def make_plan(variants: Sequence[Variant], store: Store) -> Plan:
    """What is to be done, given what the store has."""
    transforms = {stage.key: stage for v in variants for stage in v.chain[:-1]}
    done = store.finished("stage", transforms) | store.finished("variant", [v.stage.key for v in variants])
    waves: list[dict[str, Job]] = []
    for variant in variants:
        for depth in range(len(variant.chain) - 1, -1, -1):
            stage = variant.chain[depth]
            if stage.key in done:
                break
            while len(waves) <= depth:
                waves.append({})
            waves[depth].setdefault(stage.key, Job(variant, stage))
    return Plan(tuple(variants), done, tuple(tuple(wave.values()) for wave in waves if wave))


def summary(plan: Plan) -> str:
    """The plan in a line."""
    jobs = [job for wave in plan.waves for job in wave]
    trainings = [job.stage.name for job in jobs if job.stage.group != "quant"]
    artifacts = sum(job.stage.group == "quant" for job in jobs)
    reused = len(plan.variants) - artifacts
    parts = [f"{len(plan.variants)} variants", f"to train: {', '.join(trainings) or 'nothing'}"]
    parts.append(f"to convert and evaluate: {artifacts}")
    if reused:
        parts.append(f"from earlier runs: {reused}")
    return "; ".join(parts)


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
                outcomes.append(Outcome(None, reason(error)))
        return outcomes

    return launch


def _do(plan: Plan, store: Store, launch: Launch, parent: str) -> dict[str, Outcome]:
    """Runs the waves; gives the outcome of each variant by its key."""
    outcomes: dict[str, Outcome] = {}
    for variant in plan.variants:
        if (record := plan.done.get(variant.stage.key)) is not None:
            outcomes[variant.stage.key] = Outcome(store.adopt(record, variant.name, parent))
    for number, wave in enumerate(plan.waves, start=1):
        ready = []
        for job in wave:
            why = (
                outcomes[job.stage.parent.key].error if job.stage.parent and job.stage.parent.key in outcomes else None
            )
            if why is None:
                ready.append(job)
            else:
                outcomes[job.stage.key] = Outcome(None, why)
        log.info("wave %d of %d: %s", number, len(plan.waves), ", ".join(_title(job) for job in ready) or "nothing")
        for job, outcome in zip(ready, launch(ready, parent) if ready else (), strict=True):
            outcomes[job.stage.key] = outcome
            if outcome.error:
                outcomes[job.stage.key] = replace(outcome, error=f"{_title(job)}: {outcome.error}")
    return outcomes


def _title(job: Job) -> str:
    return job.variant.label if job.stage.group == "quant" else f"{job.variant.training} {job.stage.name}".strip()


def _name(config: Config) -> str:
    return "-".join(step.name for step in (*config.transforms, config.quant))


def _group(override: str) -> str:
    """`prune` of `prune=p1`, `+prune.epochs=3` and `prune.layers.pattern=x`."""
    return override.split("=")[0].lstrip("+~").split(".")[0]


def _distinctly_named(variants: list[Variant], groups: set[str], common: set[str]) -> list[Variant]:
    """Where one name would stand for several variants of a training, the overrides in which they differ join it."""
    count: dict[tuple[str, str], int] = {}
    for v in variants:
        count[v.training, v.name] = count.get((v.training, v.name), 0) + 1
    named = []
    for v in variants:
        if count[v.training, v.name] > 1:
            own = [o for o in v.overrides if o not in common and _group(o) in groups and "." in o.split("=")[0]]
            v = replace(v, name=f"{v.name} {' '.join(own)}".strip())
        named.append(v)
    return named


def _common(plan: Plan) -> dict[str, str | int]:
    config = plan.variants[0].config
    return {"data": config.data.name, "variants": len(plan.variants)}
