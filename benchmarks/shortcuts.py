"""Narrow shortcuts of residual networks: which of them TensorFlow's own gradient crashes in, and that ours are right.

    python -m benchmarks.shortcuts [model=resnet8,…]

Takes every 1 x 1 convolution with strides in the architectures (all of them, unless named), as wide as it is and with a
half, a quarter and an eighth of the channels, and two shapes that are known to crash. Each is trained for some steps in
a process of its own, as TensorFlow would and as this project does, between two layers that learn with it; then the
gradient of its filters is compared with one in float64.
"""

import importlib
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.jit_compile import CLASSES, MODELS
from src.machine import backend
from src.methods import gradients

BATCH, STEPS = 8, 10
WIDTHS = (1, 2, 4, 8)  # what the channels are divided by
KNOWN = ((60, 8, 16, 2), (128, 3, 16, 2))

Shape = tuple[int, int, int, int]  # height and width, channels, filters, stride


def shortcuts(name: str) -> Iterator[Shape]:
    backend.prepare()
    import tf_keras

    settings, size, _, _ = MODELS[name]
    model = importlib.import_module(f"src.models.{name}").build(settings, (size, size, 3), CLASSES)
    for layer in model._flatten_layers():
        if isinstance(layer, tf_keras.layers.Conv2D) and layer.kernel_size == (1, 1) and max(layer.strides) > 1:
            _, height, _, channels = layer.input.shape
            for width in WIDTHS:
                yield height, max(1, channels // width), max(1, layer.filters // width), max(layer.strides)


def train(shape: Shape, ours: bool, result: Any) -> None:
    """Puts the largest difference of the filters' gradient from that in float64, relative to its largest value."""
    backend.prepare()
    import tensorflow as tf
    import tf_keras

    if ours:
        gradients.avoid_crash()
    size, channels, filters, stride = shape
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    shortcut = layers.Conv2D(filters, 1, stride, name="shortcut")
    parts = [layers.Conv2D(channels, 3, padding="same"), shortcut, layers.GlobalAveragePooling2D(), layers.Dense(2)]
    model = tf_keras.Sequential([layers.Input((size, size, 3)), *parts])
    model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH * STEPS, size, size, 3)).astype(np.float32)
    model.fit(images, rng.integers(0, 2, len(images)), batch_size=BATCH, verbose=0)

    seen = tf.constant(rng.normal(size=(BATCH, size, size, channels)), tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(shortcut(seen)))
    found = tape.gradient(loss, shortcut.kernel).numpy()[0, 0]
    kernel, bias = (weights.numpy().astype(np.float64) for weights in shortcut.weights)
    pixels = seen.numpy().astype(np.float64)[:, ::stride, ::stride].reshape(-1, channels)
    expected = 2 * pixels.T @ (pixels @ kernel[0, 0] + bias)
    result.put(float(np.abs(found - expected).max() / np.abs(expected).max()))


def outcome(shape: Shape, ours: bool) -> str:
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    process = context.Process(target=train, args=(shape, ours, result))
    process.start()
    process.join()
    assert process.exitcode is not None
    if process.exitcode < 0:
        return signal.Signals(-process.exitcode).name
    return "failed" if process.exitcode else f"{result.get():.0e}"


def main(names: list[str]) -> None:
    table = Table(
        "shortcut of", "pixels", "channels", "TensorFlow's", "ours", title="difference from float64, or signal"
    )
    shapes = {shape: name for name in names for shape in shortcuts(name)}
    for shape, name in (shapes | dict.fromkeys(KNOWN, "known to crash")).items():
        size, channels, filters, _ = shape
        table.add_row(name, f"{size} x {size}", f"{channels} → {filters}", outcome(shape, False), outcome(shape, True))
    Console().print(table)


if __name__ == "__main__":
    chosen = [name for argument in sys.argv[1:] for name in argument.removeprefix("model=").split(",")]
    main(chosen or list(MODELS))
