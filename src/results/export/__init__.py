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

from src.data import decode
from src.methods.converters import without_xnnpack
from src.results.report.numbers import count, interval, percent, points, size, three, times
from src.results.variant import Result
from src.store.artifacts import Record, sha256

HERE = Path(__file__).parent
CHECKSUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Exported:
    """What the folder is made of: a variant's run and result; `conditions` say how the numbers were measured."""

    run: Record
    result: Result
    artifact: Path
    preprocessing: Mapping[str, Any]
    conditions: tuple[str, ...]


def write(what: Exported, folder: Path) -> None:
    """Fills `folder`, which is made."""
    from PIL import Image

    how = {**what.preprocessing, "xnnpack": not without_xnnpack(what.artifact.read_bytes())}
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(what.artifact, folder / "model.tflite")
    shutil.copyfile(HERE / "example.py", folder / "example.py")
    shutil.copyfile(decode.__file__, folder / "decode.py")
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
    run, result, params = what.run, what.result, what.run.params
    worst, lost = None, result.worst_class_drop
    if lost and lost.estimate > 0:
        worst = f"{result.worst_class}: drop {points(lost.estimate)} {interval(lost)} points"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("model_card.md.jinja").render(
        variant=result.variant,
        model=params.get("model", "a model"),
        data=params.get("data", "its data"),
        transforms=result.transforms or [name for name in [params.get("prune", "none")] if name != "none"],
        scheme=result.scheme or params.get("quant", "none"),
        classes=what.preprocessing["classes"],
        how=what.preprocessing,
        input_dtype=run.tags["input_dtype"],
        output_dtype=run.tags["output_dtype"],
        numbers=list(_numbers(result)),
        conditions=what.conditions,
        worst=worst,
        found=run.tags.get("audit", ""),
        no_number=result.no_number,
    )


def _numbers(result: Result) -> Iterator[tuple[str, str]]:
    m = result.metrics
    yield "test accuracy", f"{percent(m['test_accuracy'], 2)} %"
    if drop := result.test_accuracy_drop:
        yield "drop from the dense baseline", f"{points(drop.estimate)} points {interval(drop)}: {result.verdict}"
    yield "size", f"{size(m['tflite_bytes'])}, {size(m['gzip_bytes'])} gzip"
    if "gzip_ratio" in m:
        yield "smaller than the dense baseline", f"{times(1 / m['gzip_ratio'])} × (gzip)"
    if "multiply_adds" in m:
        yield "parameters, multiply-adds of an inference", f"{count(m['parameters'])}, {count(m['multiply_adds'])}"
    if "latency_ms_median" in m:
        yield "latency", f"median {three(m['latency_ms_median'])} ms, p90 {three(m['latency_ms_p90'])} ms"
    if speedup := result.speedup:
        ends = f"[{times(speedup.low)}, {times(speedup.high)}]"
        yield "as fast as the dense baseline", f"{times(speedup.estimate)} × {ends}"
    yield "sparsity", f"{percent(m['sparsity'])} %"
    if "ece" in m:
        yield "expected calibration error", f"{percent(m['ece'])} points"
    yield "SHA-256", f"`{result.digest}`"
    yield "MLflow run", f"`{result.run_id}`"
