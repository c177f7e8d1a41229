"""Filters of narrow 1 x 1 convolutions with strides: their gradients are right, and no process dies of them."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from src.machine import backend
from src.methods import gradients

# What the layer is, and the shape of what it takes.
NARROW = {
    "shortcut": (lambda layers: layers.Conv2D(16, 1, 2), (4, 60, 60, 8)),
    "of colour images": (lambda layers: layers.Conv2D(16, 1, 2, padding="same", activation="relu"), (2, 127, 128, 3)),
    "a channel below the boundary": (lambda layers: layers.Conv2D(24, 1, 2, use_bias=False), (4, 60, 60, 15)),
    "a stride of 7": (lambda layers: layers.Conv2D(16, 1, 7), (1, 224, 224, 8)),
    "one dimension": (lambda layers: layers.Conv1D(16, 1, 2), (4, 3600, 8)),
    "transposed": (lambda layers: layers.Conv2DTranspose(8, 1, 2), (4, 60, 60, 16)),
    "transposed, one dimension": (lambda layers: layers.Conv1DTranspose(8, 1, 2), (4, 3600, 16)),
}
SOUND = {
    "16 channels": (lambda layers: layers.Conv2D(32, 1, 2), (2, 56, 56, 16)),
    "3 x 3": (lambda layers: layers.Conv2D(16, 3, 2), (2, 32, 32, 8)),
    "no strides": (lambda layers: layers.Conv2D(16, 1), (2, 32, 32, 8)),
    "groups": (lambda layers: layers.Conv2D(16, 1, 2, groups=2), (2, 32, 32, 16)),
    "transposed, 16 filters": (lambda layers: layers.Conv2DTranspose(16, 1, 2), (2, 32, 32, 8)),
}


def computed(layer: Any, images: np.ndarray, compiled: bool) -> list[np.ndarray]:
    """Of a sum of squares of what `layer` gives: for the images, then for each of its weights."""
    import tensorflow as tf

    def once(images: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.square(layer(images)))
        return tape.gradient(loss, [images, *layer.trainable_variables])

    function = tf.function(once) if compiled else once
    return [found.numpy() for found in function(tf.constant(images))]


def differences(name: str) -> list[float]:
    """Of each gradient, relative to its largest value, from what dense layers on the same pixels give in float64."""
    backend.prepare()
    gradients.avoid_crash()
    import tensorflow as tf
    import tf_keras

    make, shape = NARROW[name]
    layer = make(tf_keras.layers)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    layer(images[:1])
    kernel = layer.kernel.numpy().astype(np.float64)
    stride, transposed = layer.strides[-1], "Transpose" in type(layer).__name__
    steps = (slice(None), *[slice(None, None, stride)] * (len(shape) - 2))
    with tf.GradientTape() as tape:
        x, weights = tf.constant(images, tf.float64), tf.Variable(kernel.reshape(kernel.shape[-2:]))
        bias = tf.zeros(kernel.shape[-2 if transposed else -1], tf.float64)
        tape.watch([x, bias])
        # Between the pixels that it writes, a transposed convolution leaves the bias alone.
        y = (tf.matmul(x, weights, transpose_b=True) if transposed else tf.matmul(x[steps], weights)) + bias
        y = layer.activation(y)
        gaps = (stride ** (len(shape) - 2) - 1) * x.shape[0] * np.prod(x.shape[1:-1]) if transposed else 0
        loss = tf.reduce_sum(tf.square(y)) + gaps * tf.reduce_sum(tf.square(bias))
    expected = [found.numpy() for found in tape.gradient(loss, [x, weights, bias])]
    found = [each for compiled in (False, True) for each in computed(layer, images, compiled)]
    return [
        float(np.abs(one.reshape(other.shape) - other).max() / max(np.abs(other).max(), 1))
        for one, other in zip(found, [*expected[: len(found) // 2]] * 2, strict=True)
    ]


@pytest.fixture(scope="module")
def in_a_child() -> Any:
    """Calls a function in a process that may die: one for all, and `BrokenProcessPool` if it does."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


@pytest.mark.parametrize("name", NARROW)
def test_gradients_of_narrow_shortcuts_are_those_of_a_product(name: str, in_a_child: Callable[..., Any]) -> None:
    assert max(in_a_child(differences, name)) < 1e-5


@pytest.mark.parametrize("name", SOUND)
def test_gradients_of_other_shapes_are_tensorflows_to_the_bit(name: str) -> None:
    backend.prepare()
    gradients.avoid_crash()
    import tf_keras
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import nn_grad

    make, shape = SOUND[name]
    layer = make(tf_keras.layers)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    layer(images)
    ours = computed(layer, images, compiled=False)
    operator = "Conv2DBackpropInput" if "transposed" in name else "Conv2D"
    entry = ops.gradient_registry._registry[operator]
    replaced, entry["type"] = entry["type"], getattr(nn_grad, f"_{operator}Grad")
    try:
        assert replaced is not entry["type"]
        theirs = computed(layer, images, compiled=False)
    finally:
        entry["type"] = replaced
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
