"""What a sweep is going to do: which stages of its variants the store has, and the waves of the rest."""

import functools
import logging
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from src.data import shown
from src.pipeline import measuring
from src.pipeline.stages import Stage
from src.store.artifacts import Away, Damaged, Record
from src.store.store import Store
from src.sweep.variant import Variant, group_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One stage, done for one variant on behalf of all that share it. `seconds` is what such a stage took earlier.
    `probes` are the names of those to do on an artifact that is in the store: then nothing is converted."""

    variant: Variant
    stage: Stage
    seconds: float | None = None
    probes: tuple[str, ...] = ()

    @property
    def is_variant(self) -> bool:
        return self.stage is self.variant.stage

    @property
    def title(self) -> str:
        if self.is_variant:
            return self.variant.label
        chain = self.variant.chain
        groups = {stage.group for stage in chain[: chain.index(self.stage) + 1]}
        own = (o for o in self.variant.own if group_of(o) in groups)
        return " ".join([self.variant.training, self.stage.name, *own]).strip()


@dataclass(frozen=True)
class Plan:
    """The variants, what of them is in the store already (by key), what was there but is damaged, and why, and the
    stages to do, a wave after another: all within a wave are independent, and each finds its parent done. `outdated`
    counts variants of the store that are not used because other code or libraries have made them. `left_out` are the
    variants that are refused."""

    variants: tuple[Variant, ...]
    done: Mapping[str, Record]
    damaged: tuple[tuple[Record, str], ...]
    waves: tuple[tuple[Job, ...], ...]
    outdated: int = 0
    left_out: tuple[Variant, ...] = ()

    @property
    def jobs(self) -> list[Job]:
        return [job for wave in self.waves for job in wave]


def make(variants: Sequence[Variant], store: Store | None, reuse: str) -> Plan:
    """What is to be done, given what the store has, if there is one, and what of it may be used: `none`, `stages` or
    `all`. Nothing is written."""
    left_out = tuple(v for v in variants if v.refused)
    variants = [v for v in variants if not v.refused]
    checkpoints = {stage.key for v in variants for stage in v.chain[:-1]}
    done: dict[str, Record] = {}
    damaged: list[tuple[Record, str]] = []
    if store and reuse != "none":
        done |= _intact(store, "stage", checkpoints, damaged)
    if store and reuse == "all":
        done |= _intact(store, "variant", [v.stage.key for v in variants], damaged)
    outdated = _outdated(variants, store) if store and reuse != "none" and not done else 0
    earlier = functools.cache(_earlier_seconds_an_image)  # where nothing is to be done, nothing is estimated

    def job(variant: Variant, stage: Stage) -> Job:
        each = (earlier(store) if store else {}).get(_kind_of_work(variant, stage))
        return Job(variant, stage, each and each * _images(variant, stage))

    waves: list[dict[str, Job]] = [{}]
    for variant in variants:
        key = variant.stage.key
        if key in done and store:
            done[key], due = measuring.nearest(done[key], variant.config, store)
            if due:
                names = tuple(probe.name for probe in due.values())
                waves[0][key] = replace(job(variant, variant.stage), probes=names)
                del done[key]
                continue
        for depth, stage in _missing(variant.chain, done):
            while len(waves) <= depth:
                waves.append({})
            waves[depth].setdefault(stage.key, job(variant, stage))
    in_order = tuple(tuple(wave.values()) for wave in waves if wave)
    return Plan(tuple(variants), done, tuple(damaged), in_order, outdated, left_out)


def _missing(chain: Sequence[Stage], done: Mapping[str, Record]) -> list[tuple[int, Stage]]:
    """The stages of a variant that have to be done, each with its place: those after the last one that is there, and
    the dense baseline if one of them learns from it."""
    first = 1 + max((depth for depth, stage in enumerate(chain) if stage.key in done), default=-1)
    teachers = {stage.teacher.key for stage in chain[first:] if stage.teacher} - done.keys()
    return [(depth, stage) for depth, stage in enumerate(chain) if depth >= first or stage.key in teachers]


def left_out(plan: Plan) -> list[str]:
    """What is not made, a line for each reason."""
    names: dict[str, list[str]] = {}
    for variant in plan.left_out:
        names.setdefault(variant.refused or "", []).append(variant.label)
    return [f"left out: {', '.join(labels)}: {why}" for why, labels in names.items()]


def _outdated(variants: Sequence[Variant], store: Store) -> int:
    """How many variants of the store were asked for like these, and made by other code or libraries. Before there were
    recipes (version 0.1), none of what is there can be used."""
    recipes, keys = ({getattr(variant.stage, name) for variant in variants} for name in ("recipe", "key"))
    finished = store.search("tags.kind = 'variant' and attributes.status = 'FINISHED'")
    others = [record.tags for record in finished if record.tags.get("key") not in keys]
    return sum(tags.get("recipe") in (None, *recipes) for tags in others)


def summary(plan: Plan, parallel: int) -> str:
    """The plan in a line, which begins with the model and the data."""
    checkpoints = [job.title for job in plan.jobs if not job.is_variant]
    again = [job for job in plan.jobs if job.probes]
    artifacts = sum(job.is_variant for job in plan.jobs) - len(again)
    parts = [
        f"{len(plan.variants)} variant{'s' * (len(plan.variants) != 1)}",
        f"to make: {', '.join(checkpoints) or 'nothing'}",
    ]
    parts.append(f"to convert and evaluate: {artifacts}")
    if again:
        names = dict.fromkeys(name for job in again for name in job.probes)
        parts.append(f"to measure again, without converting: {len(again)} ({', '.join(names)})")
    if reused := len(plan.variants) - artifacts - len(again):
        parts.append(f"from earlier runs: {reused}")
    if (seconds := estimate(plan, parallel)) is not None and plan.jobs:
        parts.append(f"about {duration(seconds)}, and latency after that")
    return f"{_subject(plan)}: {'; '.join(parts)}"


def _subject(plan: Plan) -> str:
    """Which models are made smaller, and on which data: `small_cnn on digits`."""
    configs = [variant.config for variant in plan.variants]
    models = dict.fromkeys(shown(config.model.title) for config in configs)
    data = dict.fromkeys(shown(config.data.title) for config in configs)
    return f"{', '.join(models)} on {', '.join(data)}"


def outdated(plan: Plan) -> str:
    """What the first sweep says of a store that other code or libraries have filled; empty for any other."""
    if not plan.outdated:
        return ""
    variants = f"{plan.outdated} variant{'s' * (plan.outdated != 1)}"
    return f"{variants} of this store: made by other code or libraries; kept and not used, so all stages are made anew"


def estimate(plan: Plan, parallel: int) -> float | None:
    """Seconds that the waves will take, from earlier runs of such stages; None where one has none."""
    total = 0.0
    for wave in plan.waves:
        seconds = [job.seconds for job in wave]
        if None in seconds:
            return None
        known = [s for s in seconds if s is not None]
        total += max(sum(known) / parallel, *known)
    return total


def show(plan: Plan, parallel: int, console: Console) -> None:
    """Prints the whole plan; nothing is run."""
    # A terminal breaks the line where it is too narrow; a file has it whole.
    console.print(summary(plan, parallel), style="bold", highlight=False, markup=False, soft_wrap=True)
    if line := outdated(plan):
        console.print(line, highlight=False, markup=False)
    for line in left_out(plan):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    needed = {stage.key: Job(variant, stage) for variant in plan.variants for stage in variant.chain}
    width = max(len(job.title) for job in needed.values())
    for number, wave in enumerate(plan.waves, start=1):
        at_a_time = min(parallel, len(wave))
        console.print(f"\nwave {number}: {at_a_time} at a time", highlight=False)
        for job in wave:
            took = f"about {duration(job.seconds)}" if job.seconds is not None else "no such stage has run here yet"
            what = "convert and evaluate" if job.is_variant else job.stage.group
            what = "take as it is" if job.stage.name == "dense" else what
            if job.probes:
                what, took = "measure again", ", ".join(job.probes)
            console.print(f"  {job.title:<{width}}  {what:<20}  {took}", highlight=False, markup=False)
    reused = [(job, plan.done[key]) for key, job in needed.items() if key in plan.done]
    if reused:
        console.print("\nin the store", highlight=False)
    for job, record in reused:
        age = duration(time.time() - record.started)
        console.print(f"  {job.title:<{width}}  run {record.run_id}, {age} ago", highlight=False, markup=False)
    tracking = plan.variants[0].config.tracking
    console.print(f"\nstore  {tracking.uri}, experiment {tracking.experiment}", highlight=False, markup=False)


def duration(seconds: float) -> str:
    """`8 s`, `2 min 5 s`, `3 h 20 min`, `4 days`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days"


def _intact(store: Store, kind: str, keys: Iterable[str], damaged: list[tuple[Record, str]]) -> dict[str, Record]:
    """The newest run of each of `keys` whose files are what was recorded; those whose files are not are added to
    `damaged`, those whose files can't be looked at are passed over."""
    intact: dict[str, Record] = {}
    away: list[str] = []
    left, passed_over = list(keys), set[str]()
    while left:
        found = store.finished(kind, left, but=passed_over)
        left = []
        for key, record in found.items():
            try:
                store.check_local(record)
                intact[key] = record
            except Damaged as why:
                log.warning("%s: %s; it is not used", record.name, why)
                damaged.append((record, str(why)))
                passed_over.add(record.run_id)
                left.append(key)
            except Away as why:
                away.append(f"{record.name} ({why})")
                passed_over.add(record.run_id)
                left.append(key)
    if away:
        more = f" and {len(away) - 1} more" if len(away) > 1 else ""
        log.warning("%s%s: left as they are, and not used", away[0], more)
    return intact


def _earlier_seconds_an_image(store: Store) -> dict[tuple[str, ...], float]:
    """Median of the newest runs of each kind of work; for a training per image and epoch."""
    records = store.search("attributes.status = 'FINISHED' and tags.kind != 'sweep'", 500)
    seconds: dict[tuple[str, ...], list[float]] = {}
    for record in records:
        images = int(record.params.get("train_images", 0)) * int(record.params.get("epochs", 1))
        whole = not record.tags.keys() & {"reused_from", "artifact_from"}
        if images and record.seconds is not None and whole:
            stage = record.tags.get("stage", "")
            work = (stage, *(record.params.get(name, "") for name in ("image_shape", "data", "model", stage)))
            seconds.setdefault(work, []).append(record.seconds / images)
    return {work: statistics.median(taken[:5]) for work, taken in seconds.items()}


def _kind_of_work(variant: Variant, stage: Stage) -> tuple[str, ...]:
    config, shape = variant.config, "x".join(map(str, variant.image_shape))
    return (stage.group, shape, config.data.name, config.model.name, stage.step.name)


def _images(variant: Variant, stage: Stage) -> int:
    """How many training images a stage goes over, in all its epochs."""
    return variant.train_images * (stage.epochs or 1)
