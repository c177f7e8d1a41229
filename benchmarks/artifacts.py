"""The two architectures of the study with random weights, in each scheme: speed does not depend on them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from src.models import Architecture

SCHEMES = ("none", "drq", "fiq", "f16")
SHAPES = {"small_cnn": (8, 8, 1), "vgg26m": (32, 32, 3)}
CLASSES = 10
FOLDER = Path("mlruns/benchmarks")


def artifacts(model: str) -> dict[str, Path]:
    """By scheme. Made where they are not there yet: a minute for vgg26m."""
    files = {scheme: FOLDER / f"{model}-{scheme}.tflite" for scheme in SCHEMES}
    if not all(file.exists() for file in files.values()):
        FOLDER.mkdir(parents=True, exist_ok=True)
        network = build(model)
        for scheme, file in files.items():
            file.write_bytes(convert(network, scheme, SHAPES[model]))
    return files


def build(model: str) -> Any:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tf_keras

    from src.models import small_cnn, vgg26m

    tf_keras.utils.set_random_seed(0)
    make = {"small_cnn": small_cnn.build, "vgg26m": vgg26m.build}[model]
    return make(Architecture(), SHAPES[model], CLASSES)


def convert(network: Any, scheme: str, shape: tuple[int, ...]) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if scheme != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme == "fiq":
        converter.representative_dataset = lambda: noise(shape)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def noise(shape: tuple[int, ...]) -> Iterator[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    for _ in range(8):
        yield [rng.random((1, *shape), dtype=np.float32)]
