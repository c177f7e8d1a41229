"""Conversion: a checkpoint as the `.tflite` bytes that would ship, one function per quantization scheme."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic.dataclasses import dataclass as schema

from src.data import preprocess
from src.machine.output import quiet
from src.methods.converters import check_runs, first_that_works, without_xnnpack
from src.methods.task import Task
from src.models.checkpoint import restore
from src.settings.check import STRICT, Count


@schema(frozen=True, config=STRICT)
class Quantization:
    """Post-training quantization by the TFLite converter."""


@schema(frozen=True, config=STRICT)
class FullInteger(Quantization):
    """Quantization that calibrates activations on images from the training split."""

    representative_images: Count = 200


@dataclass(frozen=True)
class Artifact:
    """The bytes of a `.tflite` file, the types that its scheme asked for, the weights of its parent that hold NaN or
    infinity, and sentences for everyone who uses it. Converted to integers such weights become numbers without meaning,
    so the file doesn't show them."""

    content: bytes
    weights: str
    activations: str
    not_numbers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def float32(config: Quantization, parent: Path, task: Task) -> Artifact:
    """No quantization: weights and activations stay float32."""
    return _convert(parent, "float32", "float32")


def dynamic_range(config: Quantization, parent: Path, task: Task) -> Artifact:
    """int8 weights; each inference quantizes its activations by their own range."""
    return _convert(parent, "int8", "float32", optimizations=["DEFAULT"])


def float16(config: Quantization, parent: Path, task: Task) -> Artifact:
    """float16 weights, widened to float32 when the interpreter loads them."""
    return _convert(parent, "float16", "float32", optimizations=["DEFAULT"], supported_types=["float16"])


def full_integer(config: FullInteger, parent: Path, task: Task) -> Artifact:
    """int8 weights, activations, input and output; ranges come from representative training images."""
    return _convert(
        parent,
        "int8",
        "int8",
        optimizations=["DEFAULT"],
        representative_dataset=lambda: _representative(config, task),
        supported_ops=["TFLITE_BUILTINS_INT8"],
        inference_type="int8",
    )


def _representative(config: FullInteger, task: Task) -> Iterator[list[np.ndarray]]:
    split = task.dataset.train
    count = min(config.representative_images, len(split))
    order = np.random.default_rng(task.seed).choice(len(split), count, replace=False)
    for images, _ in split.batches(32, np.sort(order)):
        for image in preprocess(images, task.preprocess):
            yield [image[None]]


def _convert(
    parent: Path,
    weights: str,
    activations: str,
    *,
    optimizations: list[str] | None = None,
    supported_types: list[str] | None = None,
    supported_ops: list[str] | None = None,
    representative_dataset: Any = None,
    inference_type: str | None = None,
) -> Artifact:
    import tensorflow as tf

    model = restore(parent)
    not_numbers = tuple(weight.name for weight in model.weights if not np.isfinite(weight.numpy()).all())

    def converted(converter: Any) -> bytes:
        if optimizations:
            converter.optimizations = [getattr(tf.lite.Optimize, name) for name in optimizations]
        if supported_types:
            converter.target_spec.supported_types = [getattr(tf, name) for name in supported_types]
        if supported_ops:
            converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, name) for name in supported_ops]
        if representative_dataset:
            converter.representative_dataset = representative_dataset
        if inference_type:
            converter.inference_input_type = converter.inference_output_type = getattr(tf, inference_type)
        content: bytes = converter.convert()
        check_runs(content)
        return content

    with quiet():
        content = first_that_works(model, converted, representative_dataset is not None)
        return Artifact(content, weights, activations, not_numbers, without_xnnpack(content))
