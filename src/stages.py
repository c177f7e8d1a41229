"""The stages of one variant, train → transforms → convert and measure: their keys, and doing one of them.

A stage reads its parent from the store and leaves its own result there; it knows neither Hydra nor the sweep.
"""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src import audit, backend, benchmark, locks, machine, serving
from src.config import Config, Step, UserError, canonical, plain
from src.data import Dataset
from src.evaluate import NO_CLASS, Predictions, class_name, predict, without_number
from src.progress import Progress
from src.tracking import (
    AUDIT,
    CHECKPOINT,
    FILES,
    MEASURED,
    NO_NUMBER,
    PREPROCESSING,
    Store,
    artifact_path,
    predictions_path,
    sha256,
)
from src.train import Task

log = logging.getLogger(__name__)

# A new version of one of these may change what a stage leaves.
LIBRARIES = ("tensorflow", "tf-keras", "tensorflow-model-optimization", "numpy")
MEASURING = ("src.audit", "src.evaluate")


class CannotRun(Exception):
    """The interpreter can't run an artifact; found out in a process of its own."""


@dataclass(frozen=True)
class Stage:
    """One step of a variant with a result worth keeping. `group` is the config group that configures it; `key` says all
    that its result depends on; `parent` is None for training."""

    group: str
    step: Step
    key: str
    parent: "Stage | None"

    @property
    def name(self) -> str:
        if self.group != "train":
            return self.step.name
        return "dense" if self.step.name == "none" else "train"

    @property
    def epochs(self) -> int | None:
        """None for what does not train."""
        return getattr(self.step.settings, "epochs", None)


def chain(config: Config, data: Dataset) -> tuple[Stage, ...]:
    """Training, each transform, then conversion, each with its key."""
    stage = Stage("train", config.train, _key(config, data, config.train, None, config.model), None)
    stages = [stage]
    for step in config.transforms:
        if step.name == "none":
            continue
        stages.append(Stage(step.group, step, _key(config, data, step, stage), stage))
        stage = stages[-1]
    stages.append(Stage("quant", config.quant, _key(config, data, config.quant, stage), stage))
    return tuple(stages)


def _key(config: Config, data: Dataset, step: Step, parent: Stage | None, model: Step | None = None) -> str:
    modules = [step.target.rpartition(".")[0], "src.data"]
    if model:
        modules.append(model.target.rpartition(".")[0])
    if step.group == "quant":
        modules += MEASURING
    return hashlib.sha256(
        canonical(
            {
                "step": step.describe(),
                "parent": parent.key if parent else None,
                "model": model.describe() if model else None,
                "augment": plain(config.augment) if step.group != "quant" else None,
                "compressors": sorted(config.audit.compressors) if step.group == "quant" else None,
                "data": data.fingerprint,
                "seed": config.seed,
                "versions": _versions(),
                "code": code_version(*modules),
            }
        ).encode()
    ).hexdigest()


@functools.cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


@functools.cache
def code_version(*modules: str) -> str:
    """A digest of what the modules do: their syntax trees without comments and docstrings, and those of the modules of
    this project that they import. `src.config` is left out: the settings themselves are in every key."""
    seen: dict[str, str] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in seen or name == "src.config":
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            continue
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "src":
                todo.append(node.module)
                todo += [f"{node.module}.{alias.name}" for alias in node.names if node.module == "src"]
            body = getattr(node, "body", None)
            if (
                isinstance(body, list)
                and body
                and isinstance(body[0], ast.Expr)
                and isinstance(body[0].value, ast.Constant)
            ):
                body[0].value.value = ""
        seen[name] = ast.dump(tree)
    return hashlib.sha256(canonical(seen).encode()).hexdigest()


def dataset(config: Config) -> Dataset:
    """The images of a config; loaded once per process however many of its stages ask."""
    return load_data(config.data, config.seed)


@functools.lru_cache(maxsize=2)
def load_data(step: Step, seed: int) -> Dataset:
    data = step.function(step.settings, seed)
    for note in data.notes:
        log.info("%s", note)
    return data


@dataclass(frozen=True)
class Request:
    """One stage to do, for whom, and where its log is."""

    stage: Stage
    config: Config
    variant: str
    parent_run: str | None = None
    log_file: Path | None = None


def perform(request: Request, store: Store) -> str:
    """Does one stage whose parent is in the store, records it there, and gives the id of its run.

    One process of a machine does a stage at a time: what another sweep has done meanwhile is used.
    """
    stage, sweep, reuse = request.stage, request.parent_run, request.config.reuse
    kind, work = ("variant", _measured_artifact) if stage.group == "quant" else ("stage", _checkpoint)
    with (
        store.alone(stage.key, request.variant if kind == "variant" else stage.name),
        locks.working(),
        backend.share_of_cores(request.config.sweep.parallel),
    ):
        usable = reuse == "all" or (reuse == "stages" and kind == "stage")
        if found := store.finished(kind, [stage.key], None if usable else sweep).get(stage.key):
            if kind == "stage" or found.tags.get("sweep") == sweep:
                return found.run_id
            if sweep:
                return store.adopt(found, request.variant, sweep)
        backend.prepare()
        with tempfile.TemporaryDirectory() as scratch, backend.custom_objects(_custom_objects(request.config.model)):
            return work(request, store, Path(scratch))


def check(config: Config) -> None:
    """Raises `UserError` where the model can't take the images or tell their classes apart.

    A model that comes from elsewhere is built for that; of one that this project builds the settings are enough.
    """
    step, shape, classes = config.model, dataset(config).shape, len(dataset(config).classes)
    for name in ("mean", "std"):
        values = getattr(step.settings.preprocess, name)
        if len(values) not in (1, shape[2]):
            raise UserError(
                f"model.preprocess.{name}={list(values)}: takes one number or {shape[2]}, one for each channel"
            )
    if getattr(step.settings, "external", False):
        backend.prepare()
        with backend.custom_objects(_custom_objects(step)):
            step.function(step.settings, shape, classes)


def _custom_objects(model: Step) -> tuple[str, ...]:
    return getattr(model.settings, "custom_objects", ())


def _checkpoint(request: Request, store: Store, scratch: Path) -> str:
    stage, config, data = request.stage, request.config, dataset(request.config)
    log.info("%s: %s", stage.name, config.model.title)
    with store.run(
        "stage", stage.name, tags=_tags(stage), params=_params(request), parent=request.parent_run
    ) as run_id:
        file = scratch / CHECKPOINT
        file.parent.mkdir()
        if stage.parent is None:
            model = config.model
            build = functools.partial(model.function, model.settings, data.shape, len(data.classes))
            trained = stage.step.function(stage.step.settings, build, _task(config), file)
        else:
            trained = stage.step.function(stage.step.settings, _parent(stage, store), _task(config), file)
        store.log(
            run_id, metrics=trained.metrics, tags={**trained.tags, "digest": sha256(file)}, history=trained.history
        )
        _keep(scratch, request, store, run_id)
    return run_id


def _measured_artifact(request: Request, store: Store, scratch: Path) -> str:
    stage, config, data, name = request.stage, request.config, dataset(request.config), request.variant
    tags = _tags(stage) | {"variant": name}
    with store.run("variant", name, tags=tags, params=_params(request), parent=request.parent_run) as run_id:
        log.info("%s: convert, evaluate %s images", name, f"{sum(map(len, data.splits().values())):,}")
        artifact = scratch / artifact_path(name)
        artifact.parent.mkdir()
        (scratch / predictions_path("test")).parent.mkdir()
        converted = stage.step.function(stage.step.settings, _parent(stage, store), _task(config))
        artifact.write_bytes(converted.content)
        if audit.is_sparse_encoded(artifact) and (why := benchmark.why_it_cannot_run(artifact)):
            raise CannotRun(f"the artifact {why}")
        logits = _task(config).logits
        if logits is None:
            logits = not audit.gives_probabilities(artifact)
        with ThreadPoolExecutor(1) as aside:
            # gzip takes seconds on sparse float weights; zlib lets go of the GIL.
            auditing = aside.submit(audit.audit, artifact, True, config.audit.compressors)
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
                predictions.save(scratch / predictions_path(split_name))
                predicted[split_name] = predictions
                metrics[f"{split_name}_accuracy"] = predictions.accuracy
                if split_name == "test":
                    metrics["balanced_accuracy"] = predictions.balanced_accuracy
                    of_images = _preprocessing(config, data, predictions, logits)
            found = auditing.result()
        metrics |= {
            "tflite_bytes": found.tflite_bytes,
            "gzip_bytes": found.gzip_bytes,
            "sparsity": found.sparsity,
        }
        assert tuple(metrics) == MEASURED
        metrics |= {f"{name}_bytes": size for name, size in found.compressors.items()}
        metrics |= {f"{split}{NO_NUMBER}": its.no_number for split, its in predicted.items() if its.no_number}
        if no_number := _no_number(predicted, converted.not_numbers):
            log.warning("%s %s", name, no_number)
        asked = audit.Asked(converted.weights, converted.activations, _pruned(stage, store))
        (scratch / PREPROCESSING).write_text(json.dumps(of_images, indent=1, ensure_ascii=False), encoding="utf-8")
        (scratch / AUDIT).write_text(
            json.dumps(plain(found) | {"layers": plain(found.layers)}, indent=1), encoding="utf-8"
        )
        beside = [file for file in sorted(scratch.rglob("*")) if file.is_file() and file != artifact]
        store.log(
            run_id,
            metrics=metrics,
            tags={
                FILES: json.dumps({str(file.relative_to(scratch)): sha256(file) for file in beside}),
                "audit": " ".join(audit.differences(found, asked)) or "as asked for",
                "digest": sha256(artifact),
                "input_dtype": found.input_dtype,
                "output_dtype": found.output_dtype,
                "float_operators": _counted(op.name for op in found.operators if op.computes == "float"),
            }
            | ({"no_number": no_number} if no_number else {}),
        )
        _keep(scratch, request, store, run_id)
    return run_id


def _no_number(predicted: Mapping[str, Predictions], weights: Sequence[str]) -> str:
    """Why a variant can't be trusted, as a phrase that goes on from its name; empty where it can."""
    others = f" and {len(weights) - 1} more" if len(weights) > 1 else ""
    made = f"is made from weights that are no numbers: {weights[0]}{others}" if weights else ""
    return "; it ".join(filter(None, [without_number(predicted), made]))


def _preprocessing(config: Config, data: Dataset, test: Predictions, logits: bool) -> dict[str, Any]:
    """What turns a user's image into what the model takes, and what it gives into labels; with one test image as
    base64 of a PNG file and what this variant says of it."""
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


def _parent(stage: Stage, store: Store) -> Path:
    """The parent's checkpoint. Raises `Damaged` where it is not what its run recorded."""
    assert stage.parent
    record = store.finished("stage", [stage.parent.key])[stage.parent.key]
    return store.needed(record, CHECKPOINT)


def _pruned(stage: Stage, store: Store) -> float:
    """Share of zeros in the parent's checkpoint, as its run recorded it."""
    assert stage.parent
    return store.finished("stage", [stage.parent.key])[stage.parent.key].metrics.get("sparsity", 0.0)


def _counted(names: Iterable[str]) -> str:
    counts = Counter(names)
    return ", ".join(f"{name} x{n}" if n > 1 else name for name, n in sorted(counts.items())) or "none"


def _tags(stage: Stage) -> dict[str, str]:
    tags = {"stage": stage.group, "key": stage.key}
    return tags | {"parent_key": stage.parent.key} if stage.parent else tags


def _params(request: Request) -> dict[str, Any]:
    """About ten flat parameters, for the columns of the MLflow UI."""
    config, data = request.config, dataset(request.config)
    params: dict[str, Any] = {"data": config.data.name, "model": config.model.name, "train": config.train.name}
    for step in (*config.transforms, config.quant):
        params[step.group] = step.name
        if hasattr(step.settings, "final_sparsity"):
            # A number for every variant: the UI's plots draw a missing one at the end of the axis.
            params[f"{step.group}_final_sparsity"] = 0.0 if step.name == "none" else step.settings.final_sparsity
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


def _keep(made: Path, request: Request, store: Store, run_id: str) -> None:
    """The folder of what a stage has made into its run, with the config and the log."""
    (made / "config.yaml").write_text(request.config.text, encoding="utf-8")
    if request.log_file and request.log_file.is_file():
        shutil.copy(request.log_file, made)
    store.keep_all(run_id, made)
