"""Conversion: a checkpoint as the `.tflite` bytes that would ship, one function per quantization scheme."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic.dataclasses import dataclass as schema

from src.data import preprocess
from src.machine.output import quiet
from src.methods.task import Task
from src.models.checkpoint import restore
from src.models.kerases import keras_of
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
    """The bytes of a `.tflite` file, the types that its scheme asked for, and the weights of its parent that hold NaN
    or infinity. Converted to integers such weights become numbers without meaning, so the file doesn't show them."""

    content: bytes
    weights: str
    activations: str
    not_numbers: tuple[str, ...] = ()


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


def _converter(model: Any) -> Any:
    """The converter of a model of either Keras. That of Keras 3 is read as a function: TensorFlow's way to take a model
    as it is exports it first, and so exports layers that only act in training (TensorFlow 2.21)."""
    import tensorflow as tf

    if keras_of(model).__name__ == "tf_keras":
        _draw_with_operators(model)
        return tf.lite.TFLiteConverter.from_keras_model(model)
    images = tf.TensorSpec(model.inputs[0].shape, tf.float32, "image")
    module = tf.Module()  # without one that holds them, variables would stay variables in the file
    module.function = tf.function(lambda image: model(image, training=False)).get_concrete_function(images)
    module.held = module.function.variables
    return tf.lite.TFLiteConverter.from_concrete_functions([module.function], module)


def _draw_with_operators(model: Any) -> None:
    """Has the random layers of `model` draw from operators that LiteRT has, where they stay on in inference
    (`Dropout(0.5)(x, training=True)`).

    The generators that they train with (see `backend.prepare`) keep their state in a variable, which TensorFlow 2.21
    can't convert. Each layer has a seed of its own, so that one checkpoint gives one artifact.
    """
    from tf_keras.src.backend import RandomGenerator
    from tf_keras.src.engine.base_layer import BaseRandomLayer

    layers = [layer for layer in model._flatten_layers() if isinstance(layer, BaseRandomLayer)]
    for seed, layer in enumerate(layers, start=1):
        layer._random_generator = RandomGenerator(seed, rng_type=RandomGenerator.RNG_LEGACY_STATEFUL)


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
    converter = _converter(model)
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
        return Artifact(converter.convert(), weights, activations, not_numbers)
