"""Images per second through `src.measure.accuracy.predict`, beside what it replaces and what it can't exceed.

    python -m benchmarks.evaluation [small_cnn] [vgg26m] [seconds=20]

naive: image by image, one thread, preprocessing in between, as tutorials do it. product: `predict`, all cores, loading
and the softmax included. ceiling: `invoke` alone on a filled batch of the same size with the same threads. The three
take turns, several times; the numbers are medians. Run on a quiet machine.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from rich.console import Console
from rich.table import Table

from benchmarks.artifacts import CLASSES, SHAPES, artifacts
from src.data import Split, in_memory, preprocess
from src.measure.accuracy import predict
from src.measure.inference import Inference
from src.settings.sections import Preprocess

HOW = Preprocess()
TURNS = 5


def split_of(shape: tuple[int, ...], n: int) -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    return in_memory(images, rng.integers(0, CLASSES, n), [""] * n)


def naive(artifact: Path, split: Split) -> float:
    """Images per second."""
    interpreter = Interpreter(model_path=str(artifact))
    interpreter.allocate_tensors()
    input_, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = input_["quantization"]
    images = split.read(np.arange(len(split)))
    start = time.perf_counter()
    for image in images:
        values = preprocess(image[None], HOW)
        if scale:
            values = np.clip(np.rint(values / scale) + zero_point, -128, 127)
        interpreter.set_tensor(input_["index"], values.astype(input_["dtype"]))
        interpreter.invoke()
        interpreter.get_tensor(output["index"]).argmax()
    return len(split) / (time.perf_counter() - start)


def product(artifact: Path, split: Split, threads: int) -> float:
    start = time.perf_counter()
    predict(artifact, split, HOW, threads)
    return len(split) / (time.perf_counter() - start)


def ceiling(artifact: Path, n: int, threads: int, batch_size: int) -> float:
    interpreter = Interpreter(model_path=str(artifact), num_threads=threads)
    input_ = interpreter.get_input_details()[0]
    shape = [batch_size, *input_["shape"][1:]]
    interpreter.resize_tensor_input(input_["index"], shape)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    values = rng.random(shape) if input_["dtype"] == np.float32 else rng.integers(-128, 128, shape)
    interpreter.set_tensor(input_["index"], values.astype(input_["dtype"]))
    interpreter.invoke()
    start = time.perf_counter()
    for _ in range(n // batch_size):
        interpreter.invoke()
    return n // batch_size * batch_size / (time.perf_counter() - start)


def main(models: list[str], seconds: float) -> None:
    threads = os.cpu_count() or 1
    table = Table(
        "artifact", "naive", "product", "ceiling", "product/ceiling", "product/naive", title="images per second"
    )
    for model in models:
        for scheme, artifact in artifacts(model).items():
            # As many images as the ceiling would take a turn's share of the seconds for.
            size = Inference(artifact, threads).batch_size()  # what `predict` chooses
            rate = ceiling(artifact, 2 * size, threads, size)
            split = split_of(SHAPES[model], max(2, round(rate * seconds / TURNS / size)) * size)
            some = split_of(SHAPES[model], max(32, len(split) // 8))
            turns = np.array(
                [
                    (
                        naive(artifact, some),
                        product(artifact, split, threads),
                        ceiling(artifact, len(split), threads, size),
                    )
                    for _ in range(TURNS)
                ]
            )
            one, two, three = np.median(turns, axis=0)
            ratios = np.median(turns[:, 1] / turns[:, 2]), np.median(turns[:, 1] / turns[:, 0])
            row = [f"{one:,.0f}", f"{two:,.0f}", f"{three:,.0f}", f"{ratios[0]:.2f}", f"{ratios[1]:.1f}"]
            table.add_row(f"{model}-{scheme}", *row)
    Console().print(table)
    print(f"{threads} threads, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    settings = dict(argument.split("=") for argument in sys.argv[1:] if "=" in argument)
    main([a for a in sys.argv[1:] if "=" not in a] or list(SHAPES), float(settings.get("seconds", 20)))
