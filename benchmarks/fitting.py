"""The loop that trains beside Keras's own `fit`, and masks beside none, on vgg26m: 26 M parameters, images of 32 x 32.

    python -m benchmarks.fitting [ROUNDS]

The sides take turns with new models on the same random images, tracing and validation included; ratios are of each
round. Run on a quiet machine.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from src.data import Dataset, in_memory
from src.machine import backend
from src.methods import loop, prune
from src.methods.layers import Layers
from src.methods.masks import Masks
from src.methods.task import Task
from src.methods.train import Train
from src.models import Architecture, vgg26m
from src.models.checkpoint import leaves
from src.settings.sections import Augment, Preprocess

EPOCHS, STEPS, BATCH, VALIDATION, RATE = 3, 30, 64, 64, 1e-4
IMAGES = STEPS * BATCH


def data() -> Task:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES + VALIDATION, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, len(images))
    names = [str(i) for i in range(len(images))]
    train = in_memory(images[:IMAGES], labels[:IMAGES], names[:IMAGES])
    rest = in_memory(images[IMAGES:], labels[IMAGES:], names[IMAGES:])
    return Task(Dataset(train, rest, rest, tuple("0123456789"), (32, 32, 3), ""), Preprocess(), Augment(), 0)


def fit(task: Task) -> Any:
    import tf_keras

    model = vgg26m.build(Architecture(), (32, 32, 3), 10)
    schedule = tf_keras.optimizers.schedules.CosineDecay(RATE, EPOCHS * STEPS)
    model.compile(tf_keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    splits = [task.dataset.train, task.dataset.validation]
    (x, y), held_out = (((s.read(np.arange(len(s))) / 255).astype(np.float32), s.labels) for s in splits)
    return model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, validation_data=held_out, verbose=0)


def ours(task: Task, masked: bool = False) -> None:
    model = vgg26m.build(Architecture(), (32, 32, 3), 10)
    masks = None
    if masked:
        layers = Layers(types=("Dense", "Conv2D"), min_share=0.033)
        policy = prune.MagnitudePruning(
            epochs=EPOCHS,
            batch_size=BATCH,
            learning_rate=RATE,
            schedule="polynomial",
            initial_sparsity=0.0,
            final_sparsity=0.5,
            begin=0.0,
            end=0.6,
            frequency=10,
            layers=layers,
        )
        _, settings = prune.taken(model, policy)
        schedule = prune._schedule(policy, EPOCHS * STEPS)
        weights = {path: prune._prunable(leaves(model)[path]) for path in settings}
        masks = Masks(weights, dict.fromkeys(settings, schedule), EPOCHS * STEPS)
    loop.optimise(model, task, Train(EPOCHS, BATCH, RATE), masks)
    if masks:
        print(f"updates of masks: {masks.seconds:.2f} s")


def seconds(side: Callable[[], Any]) -> float:
    started = time.perf_counter()
    side()
    return time.perf_counter() - started


def main(rounds: int) -> None:
    backend.prepare()
    task = data()
    found = []
    for number in range(rounds):
        keras, product, pruned = (seconds(s) for s in (lambda: fit(task), lambda: ours(task), lambda: ours(task, True)))
        found.append((product / keras, pruned / product))
        print(f"round {number + 1}: fit {keras:.1f} s  product {product:.1f} s  with masks {pruned:.1f} s", flush=True)
    for name, ratios in zip(("product/fit", "masks/product"), zip(*found, strict=True), strict=True):
        print(f"{name}: median {statistics.median(ratios):.3f} of {', '.join(f'{ratio:.3f}' for ratio in ratios)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
