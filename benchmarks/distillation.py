"""A fitting that learns from the dense baseline beside one that learns from labels alone, with images as they are, of
which the teacher's logits are computed once, and with augmented ones.

    python -m benchmarks.distillation [MODEL[,MODEL]] [ROUNDS] [IMAGES]

The two take turns, from the same weights, on the same random images; tracing, the teacher's look at all images and
validation are included. `cpu` is the ratio of the processor's seconds, which other work on the machine changes less.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from src.data import Dataset, in_memory
from src.machine import backend
from src.methods.distillation import Distillation
from src.methods.fitting import Fitting
from src.methods.loop import optimise
from src.methods.task import Task
from src.models import Architecture, ds_cnn, resnet8, small_cnn, vgg26m
from src.models.checkpoint import restore, save
from src.settings.sections import Augment, Preprocess

MODELS = {"ds_cnn": ds_cnn, "resnet8": resnet8, "small_cnn": small_cnn, "vgg26m": vgg26m}
EPOCHS, BATCH, RATE, VALIDATION, SHAPE = 4, 32, 1e-4, 64, (32, 32, 3)
AUGMENT = {"as they are": Augment(), "augmented": Augment(flip=True, shift=0.125)}


def data(images: int) -> Dataset:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (images, *SHAPE), dtype=np.uint8), np.arange(images) % 10
    train, few = (in_memory(pixels[:n], labels[:n], [str(i) for i in range(n)]) for n in (images, VALIDATION))
    return Dataset(train, few, few, tuple("0123456789"), SHAPE, "")


def seconds(task: Task, weight: float) -> np.ndarray:
    """Of a fitting: of the clock and of the processor, `[2]`."""
    assert task.teacher
    model = restore(task.teacher)
    config = Fitting(EPOCHS, BATCH, RATE, distillation=Distillation(weight))
    before = np.array([time.perf_counter(), time.process_time()])
    optimise(model, task, config)
    return np.array([time.perf_counter(), time.process_time()]) - before


def main(models: str = "small_cnn,resnet8", rounds: str = "3", images: str = "640") -> None:
    backend.prepare()
    dataset = data(int(images))
    with tempfile.TemporaryDirectory() as folder:
        for name in models.split(","):
            save(MODELS[name].build(Architecture(), SHAPE, 10), file := Path(folder) / f"{name}.h5")
            for how, augment in AUGMENT.items():
                task = Task(dataset, Preprocess(), augment, 0, teacher=file)
                each = [seconds(task, 0.5) / seconds(task, 0.0) for _ in range(int(rounds))]
                clock, cpu = (statistics.median(ratios) for ratios in zip(*each, strict=True))
                print(f"{name:10} {how:12} distilled / plain {clock:.2f}  cpu {cpu:.2f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
