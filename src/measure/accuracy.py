"""From a `.tflite` file to its prediction for every image of a split, in batches on all cores.

The predictions are those that the shipped file gives image by image on one thread. Batches and threads only make it
faster.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.console.progress import Progress
from src.data import Split
from src.machine import system as machine
from src.measure.inference import Inference
from src.measure.names import NO_NUMBER, predictions_path
from src.measure.predictions import NO_CLASS, Predictions
from src.measure.probe import Found, Subject
from src.measure.targets import Target
from src.measure.targets.litert import CPU
from src.settings.check import UserError
from src.settings.head import AS_FOUND, Head
from src.settings.sections import Preprocess

log = logging.getLogger(__name__)

# Bytes of pixels that are read ahead at a time. Python's time per chunk is then nothing, and a chunk fits into a cache.
CHUNK_BYTES = 4 << 20
# Several interpreters do not wait for one another after every operator, as the threads of one interpreter do. But each
# has weights and activations of its own. That is worth it while all the weights fit into a cache and the rest is small.
WEIGHTS_BYTES, ACTIVATIONS_BYTES = 8 << 20, 256 << 20
CHUNKS_PER_WORKER = 32  # at least, so that all workers end at about the same time
PROGRESS_SECONDS = 0.1


@dataclass(frozen=True)
class Settings:
    """Of `probe`: the split, and how its images enter the artifact and what it gives; see `predict`."""

    split: str
    preprocess: Preprocess
    head: Head


def probe(subject: Subject, settings: Settings) -> Found:
    """The accuracy on one split, on the test split also averaged over the classes; leaves the predictions."""
    name, split = settings.split, subject.dataset.splits()[settings.split]
    progress, done = Progress(log), 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        progress(done / len(split), f"{name}: {done:,} of {len(split):,} images")

    predictions = predict(
        subject.artifact,
        split,
        settings.preprocess,
        threads=len(machine.cores()),
        progress=count,
        head=settings.head.of(subject.dataset.classes),
    )
    predictions.save(subject.folder / predictions_path(name))
    yield f"{name}_accuracy", predictions.accuracy
    if name == "test":
        yield "balanced_accuracy", predictions.balanced_accuracy
    if predictions.no_number:
        yield f"{name}{NO_NUMBER}", predictions.no_number


def predict(
    artifact: Path,
    split: Split,
    preprocess: Preprocess,
    threads: int,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
    head: Head = AS_FOUND,
    target: Target = CPU,
) -> Predictions:
    """Runs `artifact` on every image of `split`.

    One thread reads images and brings them to the input's dtype while earlier ones are inferred. One interpreter uses
    all `threads`; a small artifact gets one interpreter per thread. Memory holds a few megabytes of images per
    interpreter and the result, whatever the size of the split. `progress` gets the number of images done since its last
    call.

    `head` says whether the artifact gives logits, to which a softmax or sigmoid is applied, or probabilities, and which
    output is which class; what it leaves open is read off the last operator. A quantized softmax gives steps of 1/256.

    `batch_size` None chooses by the size of the activations. A batch may change the answers: an operator that quantizes
    its input could choose one scale for the whole batch, and a graph may hold a fixed shape. The first images are
    therefore also run one by one. If one bit differs, or if they can't be batched, all images are run one by one.

    Raises `UserError` if the artifact can't be loaded, or takes or gives something else than images and classes.
    """
    n = len(split)
    models = [Inference(artifact, threads, head, target)]
    size = min(batch_size or models[0].batch_size(), max(n, 1))
    activations = size * models[0].interpreter.activation_bytes()
    workers = max(1, min(threads, WEIGHTS_BYTES // artifact.stat().st_size, ACTIVATIONS_BYTES // activations))
    if workers > 1:
        models = [Inference(artifact, threads // workers, head, target) for _ in range(workers)]
    chunks = _Chunks(_read(split, models[0].encoder(preprocess), size, n // (CHUNKS_PER_WORKER * workers)))
    count = _Counter(progress)
    answers = _answers(split, models, chunks, count)
    count(0, last=True)
    return answers


def _answers(split: Split, models: Sequence[Inference], chunks: "_Chunks", count: "_Counter") -> Predictions:
    """Each model takes chunks in a thread of its own; the first chunk says whether batches give the same answers."""
    answers = _Answers(split)

    def work(model: Inference, batch: int) -> None:
        try:
            while chunk := chunks.take():
                start, images = chunk
                answers.keep(model, model.run_all(images, batch, count), start)
        finally:
            chunks.stop()  # where this one fails, the others take no more

    with ThreadPoolExecutor(len(models)) as pool:
        try:
            if chunk := chunks.take():
                start, images = chunk
                outputs, size = models[0].first(images)
                answers.keep(models[0], outputs, start)
                count(len(images))
                list(pool.map(work, models, [size] * len(models)))
        finally:
            chunks.stop()
    return answers.predictions


class _Answers:
    """What the artifact answered so far; rows may come in any order."""

    def __init__(self, split: Split) -> None:
        n = len(split)
        self.predictions = Predictions(
            split.labels.astype(np.int64), np.empty(n, np.int32), np.empty(n, np.float32), np.empty(n, np.float32)
        )

    def keep(self, model: Inference, outputs: np.ndarray, start: int) -> None:
        found, rows = self.predictions, slice(start, start + len(outputs))
        labels = found.labels[rows]
        if labels.max() >= model.classes:
            raise UserError(f"{model.path}: gives {model.classes} classes, but an image is of class {labels.max()}")
        probabilities = model.probabilities(outputs)
        answered = np.isfinite(probabilities).all(axis=1)
        probabilities[~answered] = 0
        found.predicted[rows] = np.where(answered, model.scores(outputs).argmax(axis=1), NO_CLASS)
        each = np.arange(len(outputs))
        found.confidence[rows] = probabilities[each, found.predicted[rows]]
        found.true_confidence[rows] = probabilities[each, labels]


class _Counter:
    """Passes the number of images done on to `progress`, not more often than a person can see."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self.progress, self.waiting, self.told = progress, 0, time.monotonic()
        self.counting = threading.Lock()

    def __call__(self, images: int, last: bool = False) -> None:
        with self.counting:
            self.waiting += images
            if self.progress and self.waiting and (last or time.monotonic() - self.told > PROGRESS_SECONDS):
                self.progress(self.waiting)
                self.waiting, self.told = 0, time.monotonic()


class _Chunks:
    """Chunks of `source` for several threads, until one of them says stop."""

    def __init__(self, source: Generator[tuple[int, np.ndarray]]) -> None:
        self.source, self.taking = source, threading.Lock()

    def take(self) -> tuple[int, np.ndarray] | None:
        with self.taking:
            return next(self.source, None)

    def stop(self) -> None:
        with self.taking:
            self.source.close()


def _read(
    split: Split, encode: Callable[[np.ndarray], np.ndarray], batch_size: int, most: int
) -> Generator[tuple[int, np.ndarray]]:
    """Encoded images and the row of the first of them, read one chunk ahead. Chunks are whole batches, except for the
    last. They grow from one batch to `CHUNK_BYTES` or `most` images, so that no core waits for a slow first read or for
    many small ones.
    """
    with ThreadPoolExecutor(1) as reader:

        def read(start: int, length: int) -> tuple[np.ndarray, int]:
            images = split.read(np.arange(start, min(start + length, len(split))))
            return encode(images), images.nbytes // len(images)

        length, start = batch_size, 0
        ahead = reader.submit(read, start, length) if len(split) else None
        while ahead is not None:
            images, bytes_per_image = ahead.result()
            following = start + len(images)
            if 2 * length <= min(most, CHUNK_BYTES // bytes_per_image):
                length *= 2
            ahead = reader.submit(read, following, length) if following < len(split) else None
            yield start, images
            start = following
