"""What is found of an artifact: by probes, in the worker process, and by those of earlier runs, in the store."""

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from src.console.progress import at
from src.data import Dataset, dataset
from src.data.decode import as_png
from src.machine import backend
from src.measure import probes
from src.measure.latency.processes import why_it_cannot_run
from src.measure.predictions import NO_CLASS, Predictions, class_name, without_number
from src.measure.probe import Asked, Probe, Subject
from src.measure.tflite import is_sparse_encoded, reads
from src.pipeline import keys
from src.settings.check import Told
from src.settings.config import Config
from src.settings.head import Head
from src.settings.plain import plain
from src.store.artifacts import Record, Unusable, sha256
from src.store.names import ASKED, FILES, FOUND, PREPROCESSING, PROBE, artifact_path, predictions_path
from src.store.store import Store

log = logging.getLogger(__name__)


class CannotRun(Told):
    """The interpreter can't run an artifact; found out in a process of its own."""


@dataclass(frozen=True)
class Result:
    """What one probe found, under `key`; `files` are paths in the folder of the artifact's run."""

    key: str
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()


def tags(results: Mapping[str, Result]) -> dict[str, str]:
    """How a run tells which probe found what, for later runs."""
    left = {name: [*result.metrics, *result.tags, *result.files] for name, result in results.items()}
    of_keys = {f"{PROBE}{name}": result.key for name, result in results.items()}
    return of_keys | {FOUND: json.dumps(left)}


def keyed(config: Config, conversion: str, digest: str) -> dict[str, Probe]:
    """All probes of an artifact by their keys; `conversion` is the key of what made it, `digest` its SHA-256."""
    data = dataset(config)
    return {keys.of_probe(probe, digest, data): probe for probe in probes.of(config, conversion)}


def of_record(record: Record, config: Config) -> dict[str, Probe]:
    """Of the artifact of a variant's run."""
    return keyed(config, record.tags["key"], record.tags["digest"])


def due(record: Record, probes: Mapping[str, Probe]) -> dict[str, Probe]:
    """Those of which a run does not hold what they would find now."""
    return {key: probe for key, probe in probes.items() if record.tags.get(PROBE + probe.name) != key}


def nearest(record: Record, config: Config, store: Store, sweep: str | None = None) -> tuple[Record, dict[str, Probe]]:
    """Of `record`, a variant's newest run, and its earlier ones the one in which the fewest probes have to be done
    again, and those; of `sweep` only where it is given. A run whose files are not what it recorded is passed over."""
    probes = of_record(record, config)
    best = record, due(record, probes)
    for other in store.of_digest(record.tags["digest"], sweep) if best[1] else ():
        left = due(other, probes)
        if other.tags["key"] == record.tags["key"] and len(left) < len(best[1]):
            try:
                store.check_local(other)
            except Unusable:
                continue
            best = other, left
    return best


def known(probes: Mapping[str, Probe], records: Sequence[Record], store: Store, folder: Path) -> dict[str, Result]:
    """What `records`, FINISHED runs, already hold of an artifact: by probe, the first that has its key. The files are
    put into `folder`; what can't be read is not known."""
    results: dict[str, Result] = {}
    for key, probe in probes.items():
        record = next((record for record in records if record.tags.get(PROBE + probe.name) == key), None)
        if record is None:
            continue
        left = json.loads(record.tags[FOUND])[probe.name]
        files = [name for name in left if name in record.digests]
        try:
            for name in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(store.needed(record, name), folder / name)
        except Unusable as why:
            log.warning("%s: %s; it is measured again", record.name, why)
            continue
        results[probe.name] = Result(
            key,
            {name: record.metrics[name] for name in left if name in record.metrics},
            {name: record.tags[name] for name in left if name in record.tags},
            tuple(files),
        )
    return results


def _asked(folder: Path) -> Asked:
    """What the artifact in `folder` was asked to be, as its conversion left it."""
    return Asked(**json.loads((folder / ASKED).read_text(encoding="utf-8")))


# --- In the worker process ------------------------------------------------------------------------------------


def measure(config: Config, variant: str, probes: Mapping[str, Probe], folder: Path) -> dict[str, Result]:
    """Does `probes`, by their keys, on the artifact of `variant` in `folder`, where their files go as well."""
    data, artifact, asked = dataset(config), folder / artifact_path(variant), _asked(folder)
    at(f"{variant}: evaluate")
    running = {key: probe for key, probe in probes.items() if probe.target}
    if running and is_sparse_encoded(artifact) and (why := why_it_cannot_run(artifact)):
        raise CannotRun(f"the artifact {why}")

    def result(key: str, probe: Probe) -> Result:
        metrics: dict[str, float] = {}
        texts: dict[str, str] = {}
        with tempfile.TemporaryDirectory(dir=folder.parent) as own:
            for name, value in probe.function(Subject(artifact, asked, data, Path(own)), probe.settings):
                if isinstance(value, str):
                    texts[name] = value
                else:
                    metrics[name] = value
            files = tuple(str(file.relative_to(own)) for file in sorted(Path(own).rglob("*")) if file.is_file())
            shutil.copytree(own, folder, dirs_exist_ok=True)
        return Result(key, metrics, texts, files)

    with backend.share_of_cores(config.sweep.parallel), ThreadPoolExecutor(1) as aside:
        # What runs nothing reads and compresses: gzip takes seconds on sparse float weights, and lets go of the GIL.
        reading = {p.name: aside.submit(result, key, p) for key, p in probes.items() if key not in running}
        found = {probe.name: result(key, probe) for key, probe in running.items()}
        return found | {name: future.result() for name, future in reading.items()}


# --- What follows from all of them ----------------------------------------------------------------------------


def conclude(config: Config, variant: str, results: Mapping[str, Result], folder: Path) -> dict[str, str]:
    """Writes into `folder` what goes with the artifact, and gives the tags of its run that no single probe gives."""
    data, asked = dataset(config), _asked(folder)
    files = {split: folder / predictions_path(split) for split in data.splits()}
    predicted = {split: Predictions.load(file) for split, file in files.items() if file.is_file()}
    no_number = _no_number(predicted, asked.not_numbers)
    if no_number:
        log.warning("%s %s", variant, no_number)
    for result in results.values():
        if drawing := result.tags.get("random_operators"):
            log.warning("%s: its predictions are random, since it draws with %s", variant, drawing)
    artifact = folder / artifact_path(variant)
    how = _preprocessing(config, data, predicted["test"], artifact)
    (folder / PREPROCESSING).write_text(json.dumps(how, indent=1, ensure_ascii=False), encoding="utf-8")
    beside = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != artifact]
    return {FILES: json.dumps({str(file.relative_to(folder)): sha256(file) for file in beside})} | (
        {"no_number": no_number} if no_number else {}
    )


def _no_number(predicted: Mapping[str, Predictions], weights: Sequence[str]) -> str:
    """Why a variant can't be trusted, as a phrase that follows its name; empty where it can."""
    others = f" and {len(weights) - 1} more" if len(weights) > 1 else ""
    made = f"is made from weights that are no numbers: {weights[0]}{others}" if weights else ""
    return "; it ".join(filter(None, [without_number(predicted), made]))


def _preprocessing(config: Config, data: Dataset, test: Predictions, artifact: Path) -> dict[str, Any]:
    """How a user's image becomes the model's input, and its output a label. With one test image, as base64 of a PNG
    file, and the class that this variant gives it."""
    of_data, of_model = config.data.settings, config.model.settings
    shown = int(np.argmax(test.predicted != NO_CLASS))  # the first image that has a class; the first where none has
    pixels = data.test.read(np.array([shown]))[0]
    head = reads(artifact, Head.asked(of_model).of(data.classes))
    return {
        "classes": list(data.classes),
        "image_shape": list(data.shape),
        "resize": getattr(of_data, "resize", "bilinear"),
        "crop": getattr(of_data, "crop", False),
        "preprocess": plain(of_model.preprocess),
        "logits": head.logits,
        **({"head": head.kind, "outputs": list(head.outputs)} if head.outputs or head.kind != "softmax" else {}),
        "example": as_png(pixels),
        "example_predicted": class_name(test.predicted[shown], data.classes),
    }
