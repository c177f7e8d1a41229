"""A folder for a device team: the artifact, labels, preprocessing, a model card, checksums and a short example."""

import base64
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from src.measure.stats import Interval
from src.results.report.numbers import interval, percent, points, size, three, times
from src.store.artifacts import Record, sha256

HERE = Path(__file__).parent
CHECKSUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Exported:
    """What the folder is made of. `sweep_facts` are the conditions under which the numbers were measured."""

    variant: Record
    artifact: Path
    preprocessing: Mapping[str, Any]
    conditions: tuple[str, ...]


def write(what: Exported, folder: Path) -> None:
    """Fills `folder`, which is made."""
    from PIL import Image

    how = dict(what.preprocessing)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(what.artifact, folder / "model.tflite")
    shutil.copyfile(HERE / "example.py", folder / "example.py")
    with Image.open(io.BytesIO(base64.b64decode(how.pop("example")))) as image:
        pixels = np.asarray(image)
    np.save(folder / "example.npy", pixels[..., None] if pixels.ndim == 2 else pixels)
    (folder / "example_label.txt").write_text(how.pop("example_predicted") + "\n", encoding="utf-8")
    (folder / "labels.txt").write_text("\n".join(how["classes"]) + "\n", encoding="utf-8")
    (folder / "preprocessing.json").write_text(json.dumps(how, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(card(what), encoding="utf-8")
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != CHECKSUMS)
    (folder / CHECKSUMS).write_text("".join(f"{sha256(file)}  {file.name}\n" for file in files), encoding="utf-8")


def is_ours(folder: Path) -> bool:
    """Whether a folder holds nothing but what `write` has left there, to the byte: then it may be written anew."""
    sums = folder / CHECKSUMS
    left = set(sums.read_text(encoding="utf-8").splitlines()) if sums.is_file() else set()
    return all(file.is_file() and f"{sha256(file)}  {file.name}" in left for file in folder.iterdir() if file != sums)


def card(what: Exported) -> str:
    """The model card, Markdown."""
    run, params = what.variant, what.variant.params
    worst = run.tags.get("worst_class")
    if run.metrics.get("worst_class_drop", 0.0) <= 0:
        worst = None
    if worst:
        worst += f": drop {points(run.metrics['worst_class_drop'])} {interval(_of(run, 'worst_class_drop'))} points"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("model_card.md.jinja").render(
        variant=run.tags["variant"],
        model=params.get("model", "a model"),
        data=params.get("data", "its data"),
        pruning=params.get("prune", "none"),
        quantization=params.get("quant", "none"),
        classes=what.preprocessing["classes"],
        how=what.preprocessing,
        input_dtype=run.tags["input_dtype"],
        output_dtype=run.tags["output_dtype"],
        numbers=list(_numbers(run)),
        conditions=what.conditions,
        worst=worst,
        found=run.tags.get("audit", ""),
        no_number=run.tags.get("no_number", ""),
    )


def _numbers(run: Record) -> Iterator[tuple[str, str]]:
    m = run.metrics
    yield "test accuracy", f"{percent(m['test_accuracy'], 2)} %"
    if "test_accuracy_drop" in m:
        drop = _of(run, "test_accuracy_drop")
        yield "drop from the dense baseline", f"{points(drop.estimate)} points {interval(drop)}: {run.tags['verdict']}"
    yield "size", f"{size(m['tflite_bytes'])}, {size(m['gzip_bytes'])} gzip"
    if "gzip_ratio" in m:
        yield "smaller than the dense baseline", f"{times(1 / m['gzip_ratio'])} × (gzip)"
    if "latency_ms_median" in m:
        yield "latency", f"median {three(m['latency_ms_median'])} ms, p90 {three(m['latency_ms_p90'])} ms"
    if "speedup" in m:
        speedup = _of(run, "speedup")
        yield "as fast as the dense baseline", f"{times(m['speedup'])} × [{times(speedup.low)}, {times(speedup.high)}]"
    yield "sparsity", f"{percent(m['sparsity'])} %"
    if "ece" in m:
        yield "expected calibration error", f"{percent(m['ece'])} points"
    yield "SHA-256", f"`{run.tags['digest']}`"
    yield "MLflow run", f"`{run.run_id}`"


def _of(run: Record, name: str) -> Interval:
    return Interval(run.metrics[name], run.metrics[f"{name}_low"], run.metrics[f"{name}_high"])
