"""The masks of pruning: our own, kept up to date outside TensorFlow's graph and applied inside it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from src.models.kerases import keras_of


class Masks:
    """Updates the masks of `weights` (variables, by the path of their layer) before the steps at which the schedules
    of those paths say so, and once at their end or before the last of all steps. What is zero when training begins is
    masked throughout: it counts among the zeros, and no step revives it. `seconds` is what that took.

    TFMOT 0.8 would wrap each layer, which Keras 3 does not take, and sort its weights with `top_k` at each update: 4 s
    for 26 M of them, against 0.2 s for `mask`.
    """

    def __init__(
        self, model: Any, weights: Mapping[str, Sequence[Any]], schedules: Mapping[str, Any], steps: int
    ) -> None:
        import tensorflow as tf

        self.model = model
        self.kernels = [
            (weight, tf.Variable(tf.ones(weight.shape), trainable=False), weight.numpy() == 0, schedules[path])
            for path, of_layer in weights.items()
            for weight in of_layer
        ]
        self.schedules = list({id(schedule): schedule for schedule in schedules.values()}.values())
        self.step = 0
        self.seconds = 0.0
        self.last_update = min(self.schedules[0].end_step, steps - 1)  # the same for all
        self.hook = keras_of(model).callbacks.LambdaCallback(
            on_train_batch_begin=self._update, on_epoch_end=lambda epoch, logs: self._apply()
        )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Meanwhile each training step of the model begins with weights that are masked, as TFMOT's wrapper has it."""
        step = self.model.train_step

        def masked(*data: Any) -> Any:
            self._apply()
            return step(*data)

        self.model.train_step = masked
        try:
            yield
        finally:
            del self.model.train_step

    def _apply(self) -> None:
        """Also at the end of an epoch, for what the optimizer's last step has moved."""
        for weight, mask, _, _ in self.kernels:
            weight.assign(weight * mask)

    def _update(self, batch: int, logs: Any) -> None:
        started = time.perf_counter()
        # TFMOT updates at multiples of the frequency. Where the schedule ends between two of them it would never reach
        # its final sparsity.
        last = self.step == self.last_update
        asked = {id(schedule): schedule(schedule.end_step if last else self.step) for schedule in self.schedules}
        for weight, kept, zero, schedule in self.kernels:
            due, sparsity = asked[id(schedule)]
            if bool(due) or last:
                values = np.where(zero, 0, weight.numpy())
                kept.assign(mask(values, float(sparsity), exactly=last) * ~zero)
        self.step += 1
        self.seconds += time.perf_counter() - started


def mask(weights: np.ndarray, sparsity: float, exactly: bool = False) -> np.ndarray:
    """1 for the weights of largest magnitude, 0 for the share `sparsity` of smallest: TFMOT's mask without its sort.

    Where several weights are as large as the threshold, all of them stay, as in TFMOT; `exactly` takes the first of
    them, so that a kernel of few values, such as one that blurs, reaches the share as well.
    """
    keep = max(1, round(weights.size * (1 - sparsity)))
    size = np.abs(weights)
    threshold = _nth_smallest(size, weights.size - keep)
    stays = size >= threshold
    if exactly:
        excess = max(0, int(stays.sum()) - keep)
        stays.flat[np.flatnonzero(size == threshold)[:excess]] = False
    return stays.astype(weights.dtype)


def _nth_smallest(sizes: np.ndarray, n: int) -> np.float32:
    """The value at place `n` of `sizes`, float32 of at least 0, were they sorted.

    By counting upper, then lower halves of their bits, which are ordered as the numbers are. Twice as fast as
    `np.partition`, and 20 times on half-pruned weights, where many are equal or nearly so.
    """
    bits = np.ascontiguousarray(sizes, np.float32).reshape(-1).view(np.uint32)
    upper = bits >> 16
    below = np.cumsum(np.bincount(upper))
    top = int(np.searchsorted(below, n, "right"))
    lower = bits[upper == top] & 0xFFFF
    among = n - int(below[top - 1]) if top else n
    bottom = int(np.searchsorted(np.cumsum(np.bincount(lower)), among, "right"))
    return np.uint32(top << 16 | bottom).view(np.float32)
