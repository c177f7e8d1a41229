"""From a `.tflite` file to its prediction for every image of a split, in batches on all cores.

The predictions are those that the shipped file gives image by image on one thread. Batches and threads only make it
faster.
"""

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from src.data import Split
from src.data import preprocess as to_float
from src.machine.backend import quiet
from src.measure import stats
from src.measure.audit import gives_probabilities
from src.settings.check import UserError
from src.settings.sections import Preprocess

# Bytes of pixels that are read ahead at a time. Python's time per chunk is then nothing, and a chunk fits into a cache.
CHUNK_BYTES = 4 << 20
# Several interpreters do not wait for one another after every operator, as the threads of one interpreter do. But each
# has weights and activations of its own. That is worth it while all the weights fit into a cache and the rest is small.
WEIGHTS_BYTES, ACTIVATIONS_BYTES = 8 << 20, 256 << 20
CHUNKS_PER_WORKER = 32  # at least, so that all workers end at about the same time
PROGRESS_SECONDS = 0.1
NO_CLASS = -1  # in `Predictions.predicted`; no label has this value


@dataclass(frozen=True)
class Predictions:
    """One row per image, in the order of the split.

    `labels`: int64 `[n]`; `predicted`: int32 `[n]`, the first of equally probable classes; `confidence` and
    `true_confidence`: float32 `[n]`, the probability given to the predicted and to the true class.

    Where a probability is no number (NaN or infinite), `predicted` is `NO_CLASS` and both confidences are 0: such an
    image counts as wrong.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    true_confidence: np.ndarray

    @cached_property
    def correct(self) -> np.ndarray:
        """bool `[n]`."""
        return self.predicted == self.labels

    @property
    def no_number(self) -> int:
        """For how many images the artifact gave no number."""
        return int(np.count_nonzero(self.predicted == NO_CLASS))

    @property
    def answers(self) -> np.ndarray:
        """float64 `[n]`: `predicted`, and NaN where there is no class. NaN equals no other answer."""
        return np.where(self.predicted == NO_CLASS, np.nan, self.predicted)

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def balanced_accuracy(self) -> float:
        """The share of each class's images that is classified rightly, averaged over the classes that have images."""
        images = np.bincount(self.labels)
        right = np.bincount(self.labels, self.correct)
        return float((right[images > 0] / images[images > 0]).mean())

    @property
    def ece(self) -> float:
        """An image without a number counts as sure and wrong: at a confidence of 0 it would be well calibrated."""
        sure = np.where(self.predicted == NO_CLASS, 1, self.confidence)
        return stats.expected_calibration_error(sure, self.correct)

    def save(self, path: Path) -> None:
        """As `.npz`. The same predictions give the same bytes: numpy stamps every member with 1980-01-01."""
        with path.open("wb") as file:
            np.savez(
                file,
                labels=self.labels,
                predicted=self.predicted,
                confidence=self.confidence,
                true_confidence=self.true_confidence,
            )

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        # Files from before there was `NO_CLASS` say class 0, with a confidence of NaN.
        answered = np.isfinite(found["confidence"])
        found["predicted"] = np.where(answered, found["predicted"], np.int32(NO_CLASS))
        for name in ("confidence", "true_confidence"):
            found[name] = np.where(answered, found[name], np.float32(0))
        return cls(**found)


def class_name(predicted: int, classes: Sequence[str]) -> str:
    """The name of a class for a person, who reads "no number" where there is none."""
    return "no number" if predicted == NO_CLASS else classes[predicted]


def without_number(found: Mapping[str, Predictions]) -> str:
    """Says for how many images of each split an artifact gave no number; empty where it always gave one."""
    counts = [
        f"{predictions.no_number:,} of {len(predictions.labels):,} {split} images"
        for split, predictions in found.items()
        if predictions.no_number
    ]
    return f"gives no number for {', '.join(counts)}" if counts else ""


def predict(
    artifact: Path,
    split: Split,
    preprocess: Preprocess,
    threads: int,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
    logits: bool | None = None,
) -> Predictions:
    """Runs `artifact` on every image of `split`.

    One thread reads images and brings them to the input's dtype while earlier ones are inferred. One interpreter uses
    all `threads`; a small artifact gets one interpreter per thread. Memory holds a few megabytes of images per
    interpreter and the result, whatever the size of the split. `progress` gets the number of images done since its last
    call.

    `logits` says whether the artifact gives logits, to which a softmax is applied, or probabilities. None means that it
    gives probabilities if its last operator is a softmax. A quantized softmax gives steps of 1/256.

    `batch_size` None chooses by the size of the activations. A batch may change the answers: an operator that quantizes
    its input could choose one scale for the whole batch, and a graph may hold a fixed shape. The first images are
    therefore also run one by one. If one bit differs, or if they can't be batched, all images are run one by one.

    Raises `UserError` if the artifact can't be loaded, or takes or gives something else than images and classes.
    """
    n = len(split)
    models = [_Model(artifact, threads, logits)]
    size = min(batch_size or models[0].batch_size(), max(n, 1))
    room = WEIGHTS_BYTES // artifact.stat().st_size, ACTIVATIONS_BYTES // (size * models[0].activation_bytes())
    workers = max(1, min(threads, *room))
    if workers > 1:
        models = [_Model(artifact, threads // workers, logits) for _ in range(workers)]
    predicted = np.empty(n, np.int32)
    confidence, true_confidence = np.empty(n, np.float32), np.empty(n, np.float32)
    count = _Counter(progress)
    chunks = _chunks(split, models[0].encoder(preprocess), size, n // (CHUNKS_PER_WORKER * workers))
    taking = threading.Lock()

    def keep(model: _Model, outputs: np.ndarray, start: int) -> None:
        rows = slice(start, start + len(outputs))
        probabilities = model.probabilities(outputs)
        answered = np.isfinite(probabilities).all(axis=1)
        probabilities[~answered] = 0
        # On what the file gives: a softmax in float could make a tie of two logits that differ.
        predicted[rows] = np.where(answered, outputs.argmax(axis=1), NO_CLASS)
        each = np.arange(len(outputs))
        confidence[rows] = probabilities[each, predicted[rows]]
        true_confidence[rows] = probabilities[each, _checked(split.labels[rows], model)]

    def take() -> tuple[int, np.ndarray] | None:
        with taking:
            return next(chunks, None)

    def stop() -> None:
        with taking:
            chunks.close()

    def work(model: _Model) -> None:
        try:
            while chunk := take():
                start, images = chunk
                keep(model, model.run_all(images, size, count), start)
        finally:
            stop()  # where this one fails, the others take no more

    with ThreadPoolExecutor(workers) as pool:
        try:
            if chunk := take():
                start, images = chunk
                outputs, size = models[0].first(images)
                keep(models[0], outputs, start)
                count(len(images))
            list(pool.map(work, models))
        finally:
            stop()
    count(0, last=True)
    return Predictions(split.labels.astype(np.int64), predicted, confidence, true_confidence)


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


def _chunks(
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


def _checked(labels: np.ndarray, model: "_Model") -> np.ndarray:
    if labels.max() >= model.classes:
        raise UserError(f"{model.path}: gives {model.classes} classes, but an image is of class {labels.max()}")
    return labels


class _Model:
    """An interpreter, and what its input and output mean."""

    def __init__(self, path: Path, threads: int, logits: bool | None = None) -> None:
        self.path = path
        try:
            with quiet():  # LiteRT tells which delegate it made
                self.interpreter = Interpreter(model_path=str(path), num_threads=threads)
                self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{path}: can't be loaded: {' '.join(str(error).split())}") from error
        inputs, outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        if len(inputs) != 1 or len(inputs[0]["shape"]) != 4 or len(outputs) != 1 or len(outputs[0]["shape"]) != 2:
            shapes = [[d["shape"].tolist() for d in details] for details in (inputs, outputs)]
            raise UserError(f"{path}: inputs {shapes[0]}, outputs {shapes[1]}; takes one of images and one of classes")
        self.input, self.output = inputs[0], outputs[0]
        if self.input["dtype"] not in (np.float32, np.int8, np.uint8, np.int16):
            raise UserError(f"{path}: takes {self.input['dtype'].__name__}; only float32, int8, uint8, int16 are known")
        self.shape = tuple(int(n) for n in self.input["shape"][1:])
        self.classes = int(self.output["shape"][1])
        self.output_dtype = self.output["dtype"]
        self.softmax = not gives_probabilities(path) if logits is None else logits

    def encoder(self, how: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
        """From uint8 images to what the input takes. A pixel has 256 values: for integers a table is exact."""
        # Mean and std are those of the model's channels: once the order is the model's, nothing else differs.
        reverse = how.channel_order == "bgr"
        encode = self._in_order(replace(how, channel_order="rgb"))

        def checked(images: np.ndarray) -> np.ndarray:
            if images.shape[1:] != self.shape:
                got, takes = ("x".join(map(str, shape)) for shape in (images.shape[1:], self.shape))
                raise UserError(f"{self.path}: got images of {got}; takes {takes}")
            return encode(np.ascontiguousarray(images[..., ::-1]) if reverse else images)

        return checked

    def _in_order(self, how: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
        dtype = self.input["dtype"]
        if dtype == np.float32:
            return _float_encoder(how, self.shape)
        pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], self.shape[2], axis=1)
        scale, zero_point = self.input["quantization"]
        bounds = np.iinfo(dtype)
        quantized = np.rint(to_float(pixels, how) / np.float32(scale)) + zero_point if scale else to_float(pixels, how)
        table = np.clip(quantized, bounds.min, bounds.max).astype(dtype)
        return _table_encoder(table)

    def batch_size(self) -> int:
        """Between 32 and 256 images, so that the largest activation takes about two megabytes. A larger one does not
        fit into the caches; with a smaller one, Python takes a tenth of the time. Fewer images if activations are huge.
        """
        each = self.activation_bytes()
        return min(max(32, min(256, (2 << 20) // each)), max(1, (128 << 20) // each))

    def activation_bytes(self) -> int:
        """Of the largest one, per image."""
        tensors = self.interpreter.get_tensor_details()
        # A dimension of -1 is the batch, which weights do not have.
        activations = [t for t in tensors if len(t["shape_signature"]) and t["shape_signature"][0] == -1]
        return max((int(np.prod(t["shape"])) * np.dtype(t["dtype"]).itemsize for t in activations), default=1 << 16)

    def first(self, images: np.ndarray) -> tuple[np.ndarray, int]:
        """Outputs of the first batch, and the batch size to go on with: that of `images`, or 1 if a batch gives other
        outputs than its images alone."""
        alone = np.concatenate([self.run(image[None]) for image in images[:2]])
        try:
            together = self.run(images)
            if len(together) == len(images) and np.array_equal(together[:2], alone, equal_nan=True):
                return together, len(images)
        except (ValueError, RuntimeError):
            pass  # a shape that is fixed inside the graph
        return np.concatenate([self.run(image[None]) for image in images]), 1

    def run_all(self, images: np.ndarray, batch_size: int, count: Callable[[int], None]) -> np.ndarray:
        outputs = np.empty((len(images), self.classes), self.output_dtype)
        for i in range(0, len(images), batch_size):
            batch = images[i : i + batch_size]
            outputs[i : i + batch_size] = self.run(batch)
            count(len(batch))
        return outputs

    def run(self, images: np.ndarray) -> np.ndarray:
        if len(images) != self.input["shape"][0]:
            # Before it is tried: where it fails, the next images have to resize again.
            self.input["shape"] = np.array(images.shape)
            self.interpreter.resize_tensor_input(self.input["index"], images.shape)
            self.interpreter.allocate_tensors()
        self.interpreter.set_tensor(self.input["index"], images)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.output["index"])

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """float32 `[n, classes]` of what the artifact gave: NaN in a row of logits that holds NaN or +inf, or nothing
        but -inf. A single -inf is a class that the model rules out."""
        scale, zero_point = self.output["quantization"]
        values = outputs.astype(np.float32)
        if scale:
            values = (values - np.float32(zero_point)) * np.float32(scale)
        if not self.softmax:
            return values
        with np.errstate(invalid="ignore"):  # inf - inf is NaN, which is counted and said
            exponentials = np.exp(values - values.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)


def _float_encoder(how: Preprocess, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """The arithmetic of `src.data.preprocess`, in place. Mean and std are laid out over a whole image: numpy takes that
    four times as fast as three channels at a time."""
    mean, std = (
        np.broadcast_to(np.asarray(per_channel, np.float32), shape).reshape(-1) for per_channel in (how.mean, how.std)
    )

    def encode(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1).astype(np.float32)
        flat *= np.float32(how.rescale)
        if mean.any():
            flat -= mean
        if (std != 1).any():
            flat /= std
        return flat.reshape(images.shape)

    return encode


def _table_encoder(table: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """`table`: `[256, channels]`, one or more bytes a value."""
    first = table[:, 0].copy()
    if (table == first[:, None]).all() and first.itemsize == 1:
        shift = first.view(np.uint8) - np.arange(256, dtype=np.uint8)
        if (shift == shift[0]).all():  # the usual case, 1/255 and zero point -128: an addition
            return lambda images: (images + shift[0]).view(first.dtype)
        as_bytes = first.tobytes()
        return lambda images: np.frombuffer(images.tobytes().translate(as_bytes), first.dtype).reshape(images.shape)

    def encode(images: np.ndarray) -> np.ndarray:
        encoded: Any = np.empty(images.shape, table.dtype)
        for channel in range(table.shape[1]):
            encoded[..., channel] = table[:, channel][images[..., channel]]
        return encoded

    return encode
