"""Conversion: a checkpoint as the `.tflite` bytes that would ship, one function per quantization scheme."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.backend import quiet
from src.config import FullInteger, Quantization
from src.data import preprocess
from src.train import Task, restore


@dataclass(frozen=True)
class Artifact:
    """The bytes of a `.tflite` file, and the types that its scheme asked for."""

    content: bytes
    weights: str
    activations: str


def float32(config: Quantization, parent: Path, task: Task) -> Artifact:
    """No quantization: weights and activations stay float32."""
    return Artifact(_convert(parent), "float32", "float32")


def dynamic_range(config: Quantization, parent: Path, task: Task) -> Artifact:
    """int8 weights; activations are quantized as they come, from the range of each inference."""
    return Artifact(_convert(parent, optimizations=["DEFAULT"]), "int8", "float32")


def float16(config: Quantization, parent: Path, task: Task) -> Artifact:
    """float16 weights, widened to float32 when the interpreter loads them."""
    return Artifact(_convert(parent, optimizations=["DEFAULT"], supported_types=["float16"]), "float16", "float32")


def full_integer(config: FullInteger, parent: Path, task: Task) -> Artifact:
    """int8 weights, activations, input and output; ranges come from representative training images."""
    content = _convert(
        parent,
        optimizations=["DEFAULT"],
        representative_dataset=lambda: _representative(config, task),
        supported_ops=["TFLITE_BUILTINS_INT8"],
        inference_type="int8",
    )
    return Artifact(content, "int8", "int8")


def _representative(config: FullInteger, task: Task) -> Iterator[list[np.ndarray]]:
    split = task.dataset.train
    count = min(config.representative_images, len(split))
    order = np.random.default_rng(task.seed).choice(len(split), count, replace=False)
    for images, _ in split.batches(32, np.sort(order)):
        for image in preprocess(images, task.preprocess):
            yield [image[None]]


def _convert(
    parent: Path,
    *,
    optimizations: list[str] | None = None,
    supported_types: list[str] | None = None,
    supported_ops: list[str] | None = None,
    representative_dataset: Any = None,
    inference_type: str | None = None,
) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(restore(parent))
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
    with quiet():
        return converter.convert()
