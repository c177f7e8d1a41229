"""An artifact as a classifier of images: pixels into what its input takes, its output into probabilities."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from src.data import preprocess as to_float
from src.measure.targets import Target
from src.measure.targets.litert import CPU
from src.measure.tflite import reads
from src.settings.check import UserError
from src.settings.head import AS_FOUND, Head
from src.settings.sections import Preprocess

DTYPES = (np.float32, np.int8, np.uint8, np.int16)  # of inputs


class Inference:
    """An interpreter, and what its input and output mean. It is for one thread at a time."""

    def __init__(self, path: Path, threads: int, head: Head = AS_FOUND, target: Target = CPU) -> None:
        """What `head` leaves open is read off the last operator.

        Raises `UserError` if it can't be loaded, or takes or gives something else than images and classes.
        """
        self.path = path
        self.interpreter = target.load(path, threads)
        self.input, self.output = self.interpreter.input, self.interpreter.output
        if self.input.dtype not in DTYPES:
            known = ", ".join(dtype.__name__ for dtype in DTYPES)
            raise UserError(f"{path}: takes {self.input.dtype.__name__}; only {known} are known")
        self.shape = self.input.shape[1:]
        self.width = self.output.shape[1]
        self.head = reads(path, head)
        self.classes = len(self.head.outputs) or self.width

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
        if self.input.dtype == np.float32:
            return _float_encoder(how, self.shape)
        pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], self.shape[2], axis=1)
        values, bounds = to_float(pixels, how), np.iinfo(self.input.dtype)
        if self.input.scale:
            values = np.rint(values / np.float32(self.input.scale)) + self.input.zero_point
        return _table_encoder(np.clip(values, bounds.min, bounds.max).astype(self.input.dtype))

    def batch_size(self) -> int:
        """Between 32 and 256 images, so that the largest activation takes about two megabytes. A larger one does not
        fit into the caches; with a smaller one, Python takes a tenth of the time. Fewer images if activations are huge.
        """
        each = self.interpreter.activation_bytes()
        return min(max(32, min(256, (2 << 20) // each)), max(1, (128 << 20) // each))

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
        outputs: np.ndarray = np.empty((len(images), self.width), self.output.dtype)
        for i in range(0, len(images), batch_size):
            batch = images[i : i + batch_size]
            outputs[i : i + batch_size] = self.run(batch)
            count(len(batch))
        return outputs

    def run(self, images: np.ndarray) -> np.ndarray:
        """`[n, outputs]` in the output's dtype for encoded `images`."""
        return self.interpreter.run(images)

    def scores(self, outputs: np.ndarray) -> np.ndarray:
        """`[n, classes]`, whose highest is the class that the artifact gives. On what the file gives: a softmax in
        float could make a tie of two logits that differ."""
        return self.head.scores(outputs if self.width > 1 else self._values(outputs), np)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """float32 `[n, classes]` of what the artifact gave: NaN in a row of logits that holds NaN or, under a softmax,
        +inf or nothing but -inf. A single -inf is a class that the model rules out."""
        values = self._values(outputs)
        if self.head.logits and self.head.kind == "sigmoid":
            with np.errstate(over="ignore"):
                values = 1 / (1 + np.exp(-values))
        elif self.head.logits:
            with np.errstate(invalid="ignore"):  # inf - inf is NaN, which is counted and said
                values = np.exp(values - values.max(axis=1, keepdims=True))
            values /= values.sum(axis=1, keepdims=True)
        found: np.ndarray = replace(self.head, logits=False).scores(values, np)
        return found

    def _values(self, outputs: np.ndarray) -> np.ndarray:
        """float32 of what the output's integers stand for."""
        values = outputs.astype(np.float32)
        if self.output.scale:
            values = (values - np.float32(self.output.zero_point)) * np.float32(self.output.scale)
        return values


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
