"""The stages of one variant, train → transforms → convert, and having one of them done. The artifact of a conversion is
measured as well, as far as the store does not know it yet.

A stage starts from its parent in the store and leaves its own result there; what it does is in `src.pipeline.work`, and
what is measured in `src.pipeline.measuring`. Nothing here knows Hydra or the sweep.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.data import Dataset, dataset, used
from src.machine import locks
from src.methods.task import Trained
from src.pipeline import keys, measuring, work, worker
from src.settings.config import Config, Step
from src.store.artifacts import Record
from src.store.faults import reason
from src.store.names import ASKED, CHECKPOINT, artifact_path
from src.store.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One step of a variant with a result worth keeping. `group` is the config group that configures it; `key` says all
    that its result depends on, `recipe` all but the code and the libraries; `parent` is None for training."""

    group: str
    step: Step
    key: str
    recipe: str
    parent: "Stage | None"

    @property
    def name(self) -> str:
        """Of a transform with those before it, such as `p1-half`."""
        if self.parent is None:
            return "dense" if self.step.name == "none" else "train"
        is_first = self.group == "quant" or self.parent.parent is None
        return self.step.name if is_first else f"{self.parent.name}-{self.step.name}"

    @property
    def teacher(self) -> "Stage | None":
        """The training of its chain, where this stage learns from the dense baseline as well as from labels."""
        if self.parent is None or not keys.is_taught(self.step):
            return None
        first = self.parent
        while first.parent:
            first = first.parent
        return first

    @property
    def epochs(self) -> int | None:
        """None for what does not train."""
        return getattr(self.step.settings, "epochs", None)


def chain(config: Config, data: Dataset) -> tuple[Stage, ...]:
    """Training, each transform, then conversion, each with its key."""
    stages: list[Stage] = []
    for step in (config.train, *(step for step in config.transforms if step.acts), config.quant):
        parent = stages[-1] if stages else None
        before = (parent.key, parent.recipe) if parent else None
        key, recipe = keys.of_stage(config, data, step, before, None if parent else config.model)
        stages.append(Stage(step.group, step, key, recipe, parent))
    return tuple(stages)


@dataclass(frozen=True)
class Request:
    """One stage to do, for whom, and where its log is."""

    stage: Stage
    config: Config
    variant: str
    parent_run: str | None = None
    log_file: Path | None = None


def perform(request: Request, store: Store) -> str:
    """Has one stage done, whose parent is in the store, records it there, and gives the id of its run.

    One process of a machine does a stage at a time. What another sweep has done meanwhile is used.
    """
    stage, sweep, reuse = request.stage, request.parent_run, request.config.reuse
    worker.use(request.config.model.settings.variables())
    kind, name = ("variant", request.variant) if stage.group == "quant" else ("stage", stage.name)
    usable = reuse == "all" or (reuse == "stages" and kind == "stage")
    with _said_where_it_fails(name), store.alone(stage.key, name), locks.working(), ExitStack() as until_recorded:
        within = None if usable else sweep
        found = store.finished(kind, [stage.key], within).get(stage.key)
        whole = found is not None
        if found and kind == "variant":
            found, due = measuring.nearest(found, request.config, store, within)
            whole = not due
        if found and whole:
            if kind == "stage" or found.tags.get("sweep") == sweep:
                return found.run_id
            if sweep:
                return store.adopt(found, request.variant, sweep)
        if not found:
            log.info("%s", _title(request))
        with (
            worker.scratch() as scratch,
            store.run(kind, name, tags=_tags(request, kind, found), params=_params(request), parent=sweep) as run_id,
        ):
            folder = Path(scratch)
            store.uses(run_id, used(request.config, dataset(request.config)))
            if found:
                made = _taken(request, found, store, folder)
            else:
                parent, teacher = (_checkpoint(each, store) for each in (stage.parent, stage.teacher))
                notes = _notes(stage, store)
                task = work.Work(stage.group, stage.step, request.config, name, parent, teacher, notes, folder)
                made = worker.call(work.do, task)
            if kind == "variant":
                digest = made.tags["digest"]
                # Another variant may have the same file, and be measured now.
                until_recorded.enter_context(store.alone(digest, f"{name}: the same file"))
                made = _measured(request, made, found, store, folder, within)
            store.log(run_id, metrics=made.metrics, tags=made.tags, history=made.history)
            (folder / "config.yaml").write_text(request.config.text, encoding="utf-8")
            if request.log_file and request.log_file.is_file():
                shutil.copy(request.log_file, folder)
            store.keep_all(run_id, folder)
        return run_id


def _taken(request: Request, found: Record, store: Store, folder: Path) -> Trained:
    """The artifact of an earlier run, of which something has to be measured."""
    file = folder / artifact_path(request.variant)
    file.parent.mkdir()
    shutil.copy(store.needed(found, artifact_path(found.tags["variant"])), file)
    shutil.copy(store.needed(found, ASKED), folder)
    return Trained({}, tags={"digest": found.tags["digest"]})


def _measured(
    request: Request, made: Trained, found: Record | None, store: Store, folder: Path, sweep: str | None
) -> Trained:
    """What all probes find of the artifact in `folder`: what is in the store is taken from there, of `sweep` only where
    it is given."""
    config, digest = request.config, made.tags["digest"]
    probes = measuring.keyed(config, request.stage.key, digest)
    earlier = [*([found] if found else []), *store.of_digest(digest, sweep)]
    results = measuring.known(probes, earlier, store, folder)
    left = {key: probe for key, probe in probes.items() if probe.name not in results}
    if results or found:
        names = ", ".join(probe.name for probe in left.values()) or "nothing"
        log.info("%s: the file was measured before; to measure: %s", request.variant, names)
    if left:
        results |= worker.call(measuring.measure, config, request.variant, left, folder)
    tags = {**made.tags, **measuring.tags(results), **measuring.conclude(config, request.variant, results, folder)}
    return Trained(
        {name: value for result in results.values() for name, value in result.metrics.items()},
        tags={**tags, **{name: text for result in results.values() for name, text in result.tags.items()}},
    )


@contextmanager
def _said_where_it_fails(name: str) -> Iterator[None]:
    """Logs the failure when it happens: the sweep goes on, and sums up at its end."""
    try:
        yield
    except Exception as error:
        log.warning("%s failed: %s", name, reason(error))
        raise


def _title(request: Request) -> str:
    """What the log says of the stage that begins."""
    if request.stage.group != "quant":
        return f"{request.stage.name}: {request.config.model.title}"
    images = sum(map(len, dataset(request.config).splits().values()))
    return f"{request.variant}: convert, evaluate {images:,} images"


def _checkpoint(stage: Stage | None, store: Store) -> Path | None:
    """What an earlier stage has left. Raises `Damaged` where it is not what was recorded."""
    if stage is None:
        return None
    return store.needed(store.finished("stage", [stage.key])[stage.key], CHECKPOINT)


def _notes(stage: Stage, store: Store) -> tuple[str, ...]:
    """The notes of the stages before this one, the first stage first."""
    if stage.parent is None:
        return ()
    record = store.finished("stage", [stage.parent.key])[stage.parent.key]
    return (*_notes(stage.parent, store), *filter(None, [record.tags.get(work.NOTES)]))


def _tags(request: Request, kind: str, found: Record | None) -> dict[str, str]:
    stage = request.stage
    tags = {"stage": stage.group, "key": stage.key, "recipe": stage.recipe}
    tags |= {"parent_key": stage.parent.key} if stage.parent else {}
    tags |= {"artifact_from": found.tags.get("artifact_from", found.run_id)} if found else {}
    return tags | {"variant": request.variant} if kind == "variant" else tags


def _params(request: Request) -> dict[str, Any]:
    """About ten flat parameters, for the columns of the MLflow UI."""
    config, data = request.config, dataset(request.config)
    params: dict[str, Any] = {"data": config.data.name, "model": config.model.name, "train": config.train.name}
    for step in (*config.transforms, config.quant):
        params[step.group] = step.name
        params |= {f"{step.group}_{name}": value for name, value in step.parameters().items()}
        if step.group == request.stage.group:
            break
    if request.stage.epochs:
        params["epochs"] = request.stage.epochs
    params |= {
        "seed": config.seed,
        "image_shape": "x".join(map(str, data.shape)),
        "classes": len(data.classes),
        "train_images": len(data.train),
        "test_images": len(data.test),
    }
    return params
