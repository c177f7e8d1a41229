"""Peak memory of reading a large image folder, and the speed of decoding beside bare TensorFlow on the same files.

    python -m benchmarks.memory                       100,000 JPEGs of 224 x 224, made once: about 3 GB in --folder
    python -m benchmarks.memory --images 3000         a quick look

Each memory figure comes from a process of its own. The speeds alternate between the two in one process, in as many
threads each; every image is read from its file and decoded, in batches, in the order of the training split.
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.machine import system as machine

SIDE = 224
CLASSES = 10
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "hydra-memory-benchmark")
    parser.add_argument("--decoded", type=int, default=3000, help="images per round when decoding is timed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trained", type=int, default=2000, help="steps are alike: images of the one epoch trained")
    parser.add_argument("--evaluated", type=int, help="images evaluated; all of the training split if not given")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[224, 96], help="data.image_size; 224 needs no resizing"
    )
    arguments = parser.parse_args()
    images = generate(arguments.folder / f"{arguments.images}", arguments.images)
    found = {
        "images": arguments.images,
        "threads": threads(),
        "memory": [
            in_a_process(peak_memory, images, cache)
            for cache in (None, str(arguments.folder / "cache"), str(arguments.folder / "cache"))
        ]
        + [
            in_a_process(
                stages_peak_memory, images, str(arguments.folder / "cache"), arguments.trained, arguments.evaluated
            )
        ],
        "decoding": [
            in_a_process(decoding_speed, images, size, resize, arguments.decoded, arguments.rounds)
            for size, resize in ((SIDE, "bilinear"), (96, "bilinear"), (96, "tf_bilinear"))
        ],
    }
    print(json.dumps(found, indent=2))


def threads() -> int:
    return len(machine.cores())


# --- The images ------------------------------------------------------------------------------------------------


def generate(folder: Path, count: int) -> Path:
    """`count` distinct JPEGs that compress like photographs (about 25 kB each), a folder per class."""
    done = folder / ".done"
    if done.exists():
        return folder
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(threads()) as pool:
        step = 500
        parts = [(str(folder), start, min(start + step, count)) for start in range(0, count, step)]
        for i, _ in enumerate(pool.imap_unordered(_write, parts)):
            if i % 20 == 19:
                print(f"{(i + 1) * step:,} images made, {time.monotonic() - began:.0f} s", file=sys.stderr)
    done.touch()
    return folder


def _write(part: tuple[str, int, int]) -> None:
    folder, start, stop = part
    generator = np.random.default_rng(start)
    for i in range(start, stop):
        if (i - start) % 50 == 0:  # a new picture now and then, moved in between: encoding is what takes the time
            coarse = Image.fromarray(generator.integers(0, 256, (20, 20, 3), dtype=np.uint8))
            picture = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.int16)
            picture = np.clip(picture + generator.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)
        moved = np.roll(picture, generator.integers(0, SIDE, 2), axis=(0, 1))
        moved[:8, :8] = np.frombuffer(i.to_bytes(3, "big"), np.uint8)
        file = io.BytesIO()
        Image.fromarray(moved).save(file, "JPEG", quality=90)
        Path(folder, f"class{i % CLASSES}", f"{i:07}.jpg").write_bytes(file.getvalue())


# --- What is measured, each in a process of its own -------------------------------------------------------------


def peak_memory(images: Path, cache: str | None) -> dict[str, Any]:
    """Peak RSS of one process that finds out what the folder holds and then reads all of it through batches."""
    from src.data.image_folder import ImageFolder, load

    before = peak_mib()
    began = time.monotonic()
    data = load(ImageFolder(path=str(images), image_size=(SIDE, SIDE), cache=cache))
    loaded = time.monotonic()
    count = sum(len(labels) for split in data.splits().values() for _, labels in split.batches(BATCH))
    return {
        "what": "all splits read" + (" through the cache" if cache else ", decoded twice, no cache"),
        "images": count,
        "decoded_gib": round(count * SIDE * SIDE * 3 / 2**30, 2),
        "peak_rss_mib": peak_mib(),
        "peak_rss_before_mib": before,
        "load_seconds": round(loaded - began, 1),
        "read_seconds": round(time.monotonic() - loaded, 1),
    }


def stages_peak_memory(images: Path, cache: str, trained: int, evaluated: int | None) -> dict[str, Any]:
    """Peak RSS of one process that trains a MobileNetV2 of a third of the width on the first images of the training
    split, converts it, and evaluates it. All the images are in the data set."""
    from src.data.image_folder import ImageFolder, load
    from src.machine import backend
    from src.measure.accuracy import predict
    from src.methods import convert, train
    from src.methods.convert import Quantization
    from src.methods.task import Task
    from src.methods.train import Train
    from src.models.mobilenet_v2 import MobileNetV2, build
    from src.settings.sections import Augment

    data = load(ImageFolder(path=str(images), image_size=(SIDE, SIDE), cache=cache))
    loaded = peak_mib()
    backend.prepare()
    model = MobileNetV2(alpha=0.35)
    some = replace(data, train=_first(data.train, trained), validation=_first(data.validation, trained // 10))
    task = Task(some, model.preprocess, Augment(), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, artifact = Path(folder, "model.h5"), Path(folder, "model.tflite")
        config = Train(epochs=1, batch_size=BATCH, learning_rate=0.001)
        train.fit(config, partial(build, model, data.shape, len(data.classes)), task, checkpoint)
        after_training = peak_mib()
        artifact.write_bytes(convert.float32(Quantization(), checkpoint, task).content)
        after_conversion = peak_mib()
        began = time.monotonic()
        split = _first(data.train, evaluated or len(data.train))
        predict(artifact, split, model.preprocess, threads())
    return {
        "what": "training, conversion and evaluation of mobilenet_v2 alpha=0.35",
        "images_trained": trained,
        "images_evaluated": len(split),
        "peak_rss_loaded_mib": loaded,
        "peak_rss_trained_mib": after_training,
        "peak_rss_converted_mib": after_conversion,
        "peak_rss_mib": peak_mib(),
        "evaluation_seconds": round(time.monotonic() - began, 1),
    }


def _first(split: Any, count: int) -> Any:
    return replace(split, labels=split.labels[:count], ids=split.ids[:count])


def decoding_speed(images: Path, size: int, resize: str, count: int, rounds: int) -> dict[str, Any]:
    """Images a second from file to uint8 `[size, size, 3]`, CPU time per image, and the ratios to TensorFlow."""
    from src.data.image_folder import ImageFolder, load

    settings: dict[str, Any] = {"path": str(images), "image_size": size, "resize": resize}
    train = load(ImageFolder(**settings, cache=None, memory_gib=0)).train
    order = np.arange(min(count, len(train)))
    paths = [str(images / train.ids[int(i)]) for i in order]
    ours, bare = [], []
    for _ in range(rounds + 1):
        ours.append(_timed(lambda: train.batches(BATCH, order), len(order)))
        bare.append(_timed(lambda: tensorflow_batches(paths, size, resize == "bilinear"), len(order)))
    speed, cpu = np.median(ours[1:], axis=0)  # the first round warms up
    bare_speed, bare_cpu = np.median(bare[1:], axis=0)
    return {
        "image_size": size,
        "resize": resize if size != SIDE else "none",
        "images_per_second": round(speed),
        "tensorflow_images_per_second": round(bare_speed),
        "throughput_ratio": round(speed / bare_speed, 3),
        "throughput_ratio_per_round": [round(a[0] / b[0], 2) for a, b in zip(ours[1:], bare[1:], strict=True)],
        "cpu_us_per_image": round(cpu),
        "tensorflow_cpu_us_per_image": round(bare_cpu),
        "cpu_ratio": round(bare_cpu / cpu, 3),
    }


def tensorflow_batches(paths: list[str], size: int, antialias: bool) -> Iterator[Any]:
    """Bare TensorFlow: read, decode, bilinear resize where the size differs, batch, one batch ahead."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    def image(path: Any) -> Any:
        decoded = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        if size == SIDE:
            return tf.ensure_shape(decoded, (SIDE, SIDE, 3))
        resized = tf.image.resize(decoded, (size, size), antialias=antialias)
        return tf.cast(tf.round(resized), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads()
    dataset = tf.data.Dataset.from_tensor_slices(paths).map(image, num_parallel_calls=threads())
    return dataset.batch(BATCH).prefetch(1).with_options(options).as_numpy_iterator()


def _timed(batches: Callable[[], Iterator[Any]], count: int) -> tuple[float, float]:
    """Images a second, and CPU time per image in microseconds: the latter says more on a machine that others use."""
    began, cpu = time.perf_counter(), time.process_time()
    for _ in batches():
        pass
    return count / (time.perf_counter() - began), (time.process_time() - cpu) / count * 1e6


def peak_mib() -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20


def in_a_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


if __name__ == "__main__":
    main()
