"""What a stage does, apart from the store: from a checkpoint to files in a folder, with metrics and tags for their run.

It may crash in native code, and is called in a worker process.
"""

import importlib
import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from src.console.progress import at
from src.data import dataset
from src.machine import backend
from src.measure.probe import Asked
from src.methods.task import Task, Trained
from src.settings.config import Config, Step
from src.settings.plain import plain
from src.store.artifacts import sha256
from src.store.names import ASKED, CHECKPOINT, artifact_path

log = logging.getLogger(__name__)

# The tag of a training or pruning with the sentences that everyone should read who sees a variant made of it.
NOTES = "notes"


@dataclass(frozen=True)
class Work:
    """One stage to do. `parent` is the checkpoint that it starts from, whose share of zeros is `sparsity`; `notes` are
    those of the stages before it; `folder` is where its files go."""

    group: str
    step: Step
    config: Config
    variant: str
    parent: Path | None
    sparsity: float
    notes: tuple[str, ...]
    folder: Path


def do(work: Work) -> Trained:
    """Does the stage."""
    with (
        backend.share_of_cores(work.config.sweep.parallel),
        backend.custom_objects(_custom_objects(work.config.model)),
    ):
        return _artifact(work) if work.group == "quant" else _checkpoint(work)


def check(model: Step, transforms: tuple[Step, ...], shape: tuple[int, int, int], classes: int) -> tuple[str, ...]:
    """Builds `model`, which comes from elsewhere, and gives what it and each transform have to say of it, a line each.

    Raises `UserError` where it can't take images of `shape` or tell `classes` apart, or where a transform refuses it.
    """
    with backend.custom_objects(_custom_objects(model)):
        built = model.function(model.settings, shape, classes)
        return tuple(
            f"{step.name}: {note}" if step.group != "model" else note
            for step in (model, *transforms)
            if (notes := getattr(importlib.import_module(step.module), "notes", None))
            for note in notes(step.settings, built)
        )


def _custom_objects(model: Step) -> tuple[str, ...]:
    return getattr(model.settings, "custom_objects", ())


def _checkpoint(work: Work) -> Trained:
    config, data, step = work.config, dataset(work.config), work.step
    at(f"{work.group}: {config.model.title}")
    file = work.folder / CHECKPOINT
    file.parent.mkdir()
    if work.parent is None:
        model = config.model
        build = partial(model.function, model.settings, data.shape, len(data.classes))
        trained = step.function(step.settings, build, _task(config), file)
    else:
        trained = step.function(step.settings, work.parent, _task(config), file)
    for note in trained.notes:
        log.warning("  %s", note)
    tags = {**trained.tags, NOTES: " ".join(trained.notes), "digest": sha256(file)}
    return Trained(trained.metrics, trained.history, tags)


def _artifact(work: Work) -> Trained:
    at(f"{work.variant}: convert")
    file = work.folder / artifact_path(work.variant)
    file.parent.mkdir()
    converted = work.step.function(work.step.settings, work.parent, _task(work.config))
    file.write_bytes(converted.content)
    asked = Asked(converted.weights, converted.activations, work.sparsity, converted.not_numbers, work.notes)
    (work.folder / ASKED).write_text(json.dumps(plain(asked)), encoding="utf-8")
    return Trained({}, tags={"digest": sha256(file)})


def _task(config: Config) -> Task:
    logits = getattr(config.model.settings, "logits", None)
    return Task(dataset(config), config.model.settings.preprocess, config.augment, config.seed, logits)
