"""What a stage does, apart from the store: from a checkpoint to files in a folder, with metrics and tags for their run.

It may crash in native code, and is called in a worker process.
"""

import importlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.console.progress import Progress, at
from src.data import Dataset, dataset
from src.machine import backend
from src.machine import system as machine
from src.measure import latency as benchmark
from src.measure.accuracy import predict
from src.measure.audit import audit
from src.measure.audit.asked import Asked, differences
from src.measure.predictions import NO_CLASS, Predictions, class_name, without_number
from src.measure.tflite import gives_probabilities, is_sparse_encoded
from src.methods.task import Task, Trained
from src.results import serving
from src.settings.check import Told
from src.settings.config import Config, Step
from src.settings.plain import plain
from src.store.artifacts import sha256
from src.store.names import (
    AUDIT,
    CHECKPOINT,
    FILES,
    MEASURED,
    NO_NUMBER,
    PREPROCESSING,
    artifact_path,
    predictions_path,
)

log = logging.getLogger(__name__)

# The tag of a training or pruning with the sentences that everyone should read who sees a variant made of it.
NOTES = "notes"


class CannotRun(Told):
    """The interpreter can't run an artifact; found out in a process of its own."""


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
        return _measured_artifact(work) if work.group == "quant" else _checkpoint(work)


def check(model: Step, transforms: tuple[Step, ...], shape: tuple[int, int, int], classes: int) -> tuple[str, ...]:
    """Builds `model`, which comes from elsewhere, and gives what it and each transform have to say of it, a line each.

    Raises `UserError` where it can't take images of `shape` or tell `classes` apart, or where a transform refuses it.
    """
    with backend.custom_objects(_custom_objects(model)):
        built = model.function(model.settings, shape, classes)
        return tuple(
            f"{step.name}: {note}" if step.group != "model" else note
            for step in (model, *transforms)
            if step.name != "none" and (notes := getattr(importlib.import_module(step.module), "notes", None))
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


def _measured_artifact(work: Work) -> Trained:
    config, data, folder = work.config, dataset(work.config), work.folder
    artifact = folder / artifact_path(work.variant)
    artifact.parent.mkdir()
    (folder / predictions_path("test")).parent.mkdir()
    at(f"{work.variant}: convert")
    converted = work.step.function(work.step.settings, work.parent, _task(config))
    artifact.write_bytes(converted.content)
    at(f"{work.variant}: evaluate")
    if is_sparse_encoded(artifact) and (why := benchmark.why_it_cannot_run(artifact)):
        raise CannotRun(f"the artifact {why}")
    logits = _task(config).logits
    if logits is None:
        logits = not gives_probabilities(artifact)
    with ThreadPoolExecutor(1) as aside:
        # gzip takes seconds on sparse float weights; zlib lets go of the GIL.
        auditing = aside.submit(audit, artifact, True, config.audit.compressors)
        metrics, predicted = {}, {}
        for split_name, split in data.splits().items():
            predictions = predict(
                artifact,
                split,
                config.model.settings.preprocess,
                threads=len(machine.cores()),
                progress=_counting(split_name, len(split)),
                logits=logits,
            )
            predictions.save(folder / predictions_path(split_name))
            predicted[split_name] = predictions
            metrics[f"{split_name}_accuracy"] = predictions.accuracy
            if split_name == "test":
                metrics["balanced_accuracy"] = predictions.balanced_accuracy
                of_images = _preprocessing(config, data, predictions, logits)
        found = auditing.result()
    metrics |= {
        "tflite_bytes": found.tflite_bytes,
        "gzip_bytes": found.gzip_bytes,
        "sparsity": found.sparsity or 0.0,
    }
    assert tuple(metrics) == MEASURED
    metrics |= {f"{name}_bytes": size for name, size in found.compressors.items()}
    metrics |= {f"{split}{NO_NUMBER}": its.no_number for split, its in predicted.items() if its.no_number}
    if no_number := _no_number(predicted, converted.not_numbers):
        log.warning("%s %s", work.variant, no_number)
    if drawing := found.random_operators:
        log.warning("%s: its predictions are random, since it draws with %s", work.variant, ", ".join(drawing))
    asked = Asked(converted.weights, converted.activations, work.sparsity)
    (folder / PREPROCESSING).write_text(json.dumps(of_images, indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / AUDIT).write_text(json.dumps(plain(found) | {"layers": plain(found.layers)}, indent=1), encoding="utf-8")
    beside = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != artifact]
    return Trained(
        metrics,
        tags={
            FILES: json.dumps({str(file.relative_to(folder)): sha256(file) for file in beside}),
            "audit": " ".join([*work.notes, *differences(found, asked)]) or "as asked for",
            "digest": sha256(artifact),
            "input_dtype": found.input_dtype,
            "output_dtype": found.output_dtype,
            "float_operators": _counted(op.name for op in found.operators if op.computes == "float"),
        }
        | ({"no_number": no_number} if no_number else {}),
    )


def _no_number(predicted: Mapping[str, Predictions], weights: Sequence[str]) -> str:
    """Why a variant can't be trusted, as a phrase that follows its name; empty where it can."""
    others = f" and {len(weights) - 1} more" if len(weights) > 1 else ""
    made = f"is made from weights that are no numbers: {weights[0]}{others}" if weights else ""
    return "; it ".join(filter(None, [without_number(predicted), made]))


def _preprocessing(config: Config, data: Dataset, test: Predictions, logits: bool) -> dict[str, Any]:
    """How a user's image becomes the model's input, and its output a label. With one test image, as base64 of a PNG
    file, and the class that this variant gives it."""
    of_data = config.data.settings
    shown = int(np.argmax(test.predicted != NO_CLASS))  # the first image that has a class; the first where none has
    pixels = data.test.read(np.array([shown]))[0]
    return {
        "classes": list(data.classes),
        "image_shape": list(data.shape),
        "resize": getattr(of_data, "resize", "bilinear"),
        "crop": getattr(of_data, "crop", False),
        "preprocess": plain(config.model.settings.preprocess),
        "logits": logits,
        "example": serving.example(pixels),
        "example_predicted": class_name(test.predicted[shown], data.classes),
    }


def _counting(split: str, images: int) -> Callable[[int], None]:
    progress, done = Progress(log), 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        progress(done / images, f"{split}: {done:,} of {images:,} images")

    return more


def _task(config: Config) -> Task:
    logits = getattr(config.model.settings, "logits", None)
    return Task(dataset(config), config.model.settings.preprocess, config.augment, config.seed, logits)


def _counted(names: Iterable[str]) -> str:
    counts = Counter(names)
    return ", ".join(f"{name} x{n}" if n > 1 else name for name, n in sorted(counts.items())) or "none"
