"""What a stage does, apart from the store: from a checkpoint to files in a folder, with metrics and tags for their run.

It may crash in native code, and is called in a worker process.
"""

import importlib
import json
import logging
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.console.progress import at
from src.data import SPLITS, dataset, from_arrays
from src.machine import backend
from src.measure.audit.promised import confirm
from src.measure.probe import Asked
from src.methods import augment, converters, fitting
from src.methods.task import Task, Trained
from src.models import checkpoint, promises
from src.models.promises import Promises
from src.models.served import Served
from src.settings.check import Told, Unfit
from src.settings.config import Config, Step
from src.settings.head import Head
from src.settings.plain import plain
from src.store.artifacts import sha256
from src.store.names import ASKED, CHECKPOINT, PROMISES, artifact_path

log = logging.getLogger(__name__)

# The tag of a training or pruning with the sentences that everyone should read who sees a variant made of it.
NOTES = "notes"


@dataclass(frozen=True)
class Work:
    """One stage to do. `parent` is the checkpoint that it starts from, `teacher` that of the dense baseline, if it
    learns from it; `notes` are those of the stages before it; `folder` is where its files go."""

    group: str
    step: Step
    config: Config
    variant: str
    parent: Path | None
    teacher: Path | None
    notes: tuple[str, ...]
    folder: Path


def do(work: Work) -> Trained:
    """Does the stage."""
    with (
        backend.share_of_cores(work.config.sweep.parallel),
        _reading(work.config.model),
    ):
        return _artifact(work) if work.group == "quant" else _checkpoint(work)


def check(model: Step, transforms: tuple[Step, ...], shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
    """Builds `model`; gives as `notes` what it and each transform have to say of it, a line each, as `refused` the
    places of the transforms that don't fit it, each with the reason, why it is `fixed` where nothing in it can be
    trained, whether it was saved for images of `any_size`, and whether it is known that it `converts`.

    Raises `UserError` where it can't take images of `shape` or tell `classes` apart.
    """
    said: dict[str, Any] = {"notes": [], "refused": []}
    with _reading(model):
        built = model.function(model.settings, shape, classes)
        said["converts"] = converters.converts(built)
        said["notes"] += _notes(model, built)
        said["any_size"] = getattr(built, "any_size", False)
        said["fixed"] = built.why if isinstance(built, Served) else None
        for place, step in enumerate(transforms):
            try:
                if said["fixed"]:
                    raise Unfit(f"the model {said['fixed']}")
                said["notes"] += [f"{step.name}: {note}" for note in _notes(step, built)]
            except Unfit as error:
                said["refused"].append([place, str(error)])
    return said


def try_conversion(config: Config, shape: tuple[int, int, int], classes: int) -> None:
    """Converts the model of `config` as it is, and runs the file on one image. Raises `Unfit` where that fails."""
    model = config.model
    with _reading(model), tempfile.TemporaryDirectory() as folder:
        built = model.function(model.settings, shape, classes)
        some = (
            np.random.default_rng(0).integers(0, 256, (4 * classes, *shape), np.uint8),
            np.arange(4 * classes) % classes,
        )
        data = from_arrays(dict.fromkeys(SPLITS, some), list(map(str, range(classes))), {}, 0, "")
        checkpoint.save(built, file := Path(folder) / "model.h5")
        try:
            config.quant.function(config.quant.settings, file, replace(_task(config), dataset=data))
        except Told as error:
            raise Unfit(f"can't be converted: {error}") from None


def try_own(config: Config) -> None:
    """Raises `UserError` where a loss or an augmentation of the user's own can't be used."""
    data = dataset(config)
    for group, step in config.steps.items():
        if isinstance(step.settings, fitting.Fitting) and step.settings.loss:
            fitting.own_loss(step.settings.loss, len(data.classes), f"{group}.loss")
    if config.augment.own:
        first = np.arange(1)
        augment.by_own(data.train.read(first), config.augment.own, config.seed, 0, first)


def _notes(step: Step, built: Any) -> tuple[str, ...]:
    notes = getattr(importlib.import_module(step.module), "notes", None)
    return tuple(notes(step.settings, built)) if notes else ()


def _reading(model: Step) -> AbstractContextManager[None]:
    """Meanwhile files that hold `model` can be read."""
    return backend.custom_objects(
        getattr(model.settings, "custom_objects", ()), getattr(model.settings, "trust", False)
    )


def _checkpoint(work: Work) -> Trained:
    config, data, step = work.config, dataset(work.config), work.step
    at(f"{work.group}: {config.model.title}")
    file = work.folder / CHECKPOINT
    file.parent.mkdir()
    before: Promises = {}
    if work.parent is None:
        model = config.model
        build = partial(model.function, model.settings, data.shape, len(data.classes))
        trained: Trained = step.function(step.settings, build, _task(config), file)
    else:
        before = checkpoint.promised(work.parent)
        trained = step.function(
            step.settings, work.parent, replace(_task(config), promises=before, teacher=work.teacher), file
        )
    checkpoint.promise(file, promises.carried(before, trained.ended, trained.promises))
    (work.folder / PROMISES).write_text(promises.as_json(checkpoint.promised(file)), encoding="utf-8")
    notes = (*trained.notes, *promises.notes(before, trained.ended))
    for note in notes:
        log.warning("  %s", note)
    tags = {**trained.tags, NOTES: " ".join(notes), "digest": sha256(file)}
    tags |= {"teacher": sha256(work.teacher)} if work.teacher else {}
    return Trained(trained.metrics, trained.history, tags)


def _artifact(work: Work) -> Trained:
    at(f"{work.variant}: convert")
    file = work.folder / artifact_path(work.variant)
    file.parent.mkdir()
    converted = work.step.function(work.step.settings, work.parent, _task(work.config))
    file.write_bytes(converted.content)
    for note in converted.notes:
        log.warning("  %s", note)
    assert work.parent
    promised = checkpoint.promised(work.parent)
    notes = (*work.notes, *converted.notes, *confirm(file, promised))
    pruned = any(promise.zeros for promise in promised.values())
    asked = Asked(converted.weights, converted.activations, pruned, converted.not_numbers, notes)
    (work.folder / ASKED).write_text(json.dumps(plain(asked)), encoding="utf-8")
    return Trained({}, tags={"digest": sha256(file)})


def _task(config: Config) -> Task:
    data, model = dataset(config), config.model.settings
    return Task(data, model.preprocess, config.augment, config.seed, Head.asked(model).of(data.classes))
