"""Milliseconds that a training step takes, with XLA (`jit_compile=true`) and without.

    python -m benchmarks.jit_compile [MODEL …]

Both copies of a model take turns with `fit` on the same random images; the first turn, which traces and compiles, is
told apart; the others' medians are compared. Run on a quiet machine.
"""

import importlib
import statistics
import sys
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from src.machine import backend
from src.models import Architecture
from src.models.applications import Application
from src.models.mobilenet_v2 import MobileNetV2

# Of each model: its settings, the size of its images, the images of a batch, the steps of a turn.
MODELS: dict[str, tuple[Architecture, int, int, int]] = {
    "small_cnn": (Architecture(), 32, 64, 50),
    "resnet8": (Architecture(), 32, 64, 40),
    "ds_cnn": (Architecture(), 32, 64, 10),
    "vgg26m": (Architecture(), 32, 64, 8),
    "mobilenet_v2": (MobileNetV2(), 96, 32, 3),
    "efficientnet_b0": (Application(), 96, 32, 3),
}
CLASSES, TURNS = 10, 5


def compiled(name: str, jit_compile: bool) -> Any:
    settings, size, _, _ = MODELS[name]
    model = importlib.import_module(f"src.models.{name}").build(settings, (size, size, 3), CLASSES)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit_compile)
    return model


def measure(name: str) -> list[str]:
    import tensorflow as tf

    _, size, batch, steps = MODELS[name]
    rng = np.random.default_rng(0)
    images = rng.random((4 * batch, size, size, 3), dtype=np.float32)
    batches = tf.data.Dataset.from_tensor_slices((images, rng.integers(0, CLASSES, len(images)))).repeat().batch(batch)
    models = {jit_compile: compiled(name, jit_compile) for jit_compile in (False, True)}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(TURNS + 1):
        for jit_compile, model in models.items():
            start = time.perf_counter()
            model.fit(batches, steps_per_epoch=steps, verbose=0)
            seconds[jit_compile].append(time.perf_counter() - start)
    first = {jit_compile: each.pop(0) for jit_compile, each in seconds.items()}
    without, with_xla = (statistics.median(seconds[jit_compile]) / steps for jit_compile in (False, True))
    ratio = statistics.median(b / a for a, b in zip(seconds[False], seconds[True], strict=True))
    return [
        f"{1000 * without:.1f}",
        f"{1000 * with_xla:.1f}",
        f"{ratio:.2f}",
        f"{first[False]:.0f}",
        f"{first[True]:.0f}",
    ]


def main(names: list[str]) -> None:
    backend.prepare()
    table = Table("model", "ms", "ms with XLA", "ratio", "first s", "first s with XLA", title="a step of training")
    for name in names:
        table.add_row(name, *measure(name))
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
