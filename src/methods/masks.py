"""The masks of pruning: our own, kept up to date outside TensorFlow's graph and applied inside it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from src.machine.system import cores
from src.models.checkpoint import kernels, leaves
from src.models.kerases import tensors
from src.models.promises import Promises
from src.settings.check import UserError

PART = 1 << 15  # values: 128 kB
SAMPLE = 1 << 16  # values of a kernel


class Masks:
    """Keeps weights at zero while a model is trained. Those of `weights` (variables, by the path of their layer) get
    their masks before the steps, of `steps`, at which the schedules of those paths say so, and once at their end or
    before the last of all steps. What is zero when training begins is masked throughout: it counts among the zeros,
    and no step revives it. Of `held` only that is masked. `updates` are the steps; `seconds` is what they took.

    TFMOT 0.8 would wrap each layer, which Keras 3 does not take, and sort its weights with `top_k` at each update: 4 s
    for 26 M of them, against 0.2 s for `mask`.
    """

    def __init__(
        self,
        weights: Mapping[str, Sequence[Any]],
        schedules: Mapping[str, Any],
        steps: int,
        held: Sequence[Any] = (),
    ) -> None:
        import tensorflow as tf

        self.kernels = [
            (weight, tf.Variable(tf.ones(weight.shape, tf.bool), trainable=False), _zeros(weight), schedules[path])
            for path, of_layer in weights.items()
            for weight in of_layer
        ]
        pruned = {id(weight) for weight, *_ in self.kernels}
        self.held = [
            (weight, tf.Variable(weight.numpy() != 0, trainable=False)) for weight in held if id(weight) not in pruned
        ]
        # TFMOT updates at multiples of the frequency. Where the schedule ends between two of them it would never reach
        # its final sparsity.
        self.last_update = min([steps - 1, *(schedule.end_step for schedule in schedules.values())])
        self.sparsity = {id(schedule): self._of_steps(schedule, steps) for schedule in schedules.values()}
        self.updates = frozenset().union(*self.sparsity.values())
        self.seconds = 0.0

    def _of_steps(self, schedule: Any, steps: int) -> dict[int, float]:
        """The sparsity that is asked for at each step with an update."""
        due, sparsity = (part.numpy() for part in schedule(np.arange(steps)))
        at_end = float(np.max(schedule(schedule.end_step)[1]))
        sparsity = np.broadcast_to(sparsity, steps)
        asked = {int(step): float(sparsity[step]) for step in np.flatnonzero(due) if step < self.last_update}
        return asked | {self.last_update: at_end}

    def apply(self) -> None:
        """Sets to zero what is masked: before each step, as TFMOT's wrapper has it, and after the last of an epoch."""
        import tensorflow as tf

        for weight, kept, *_ in (*self.kernels, *self.held):
            weight.assign(tf.where(kept, weight, 0.0))

    def update(self, step: int) -> None:
        """Before `step`, makes the masks that are due, from weights as the last step has left them."""
        if step not in self.updates:
            return
        started = time.perf_counter()
        for weight, kept, zeros, schedule in self.kernels:
            values = np.asarray(tensors([weight])[0].read_value())  # shared, not copied
            if zeros is not None:
                values = np.where(zeros, 0, values)
            found = mask(values, self.sparsity[id(schedule)][step], exactly=step == self.last_update)
            kept.assign(found if zeros is None else found & ~zeros)
        self.seconds += time.perf_counter() - started


def held(model: Any, promises: Promises, method: str) -> list[Any]:
    """The kernels of `model` of which zeros are promised. Raises `UserError`, which starts with the name of the method,
    for a promise that fine-tuning breaks."""
    for path, promise in promises.items():
        if promise.distinct is not None:
            raise UserError(
                f"{method}: layer {path} promises at most {promise.distinct} distinct values in an output channel, and "
                "fine-tuning moves them apart; takes a place in transforms before what promises that"
            )
    layers = leaves(model)
    return [weight for path, promise in promises.items() if promise.zeros for weight in kernels(layers[path])]


def _zeros(weight: Any) -> np.ndarray | None:
    zeros = weight.numpy() == 0
    return zeros if zeros.any() else None


def mask(weights: np.ndarray, sparsity: float, exactly: bool = False) -> np.ndarray:
    """True for the weights of largest magnitude, False for the share `sparsity` of smallest: TFMOT's mask without its
    sort.

    Where several weights are as large as the threshold, all of them stay, as in TFMOT; `exactly` takes the first of
    them, so that a kernel of few values, such as one that blurs, reaches the share as well.
    """
    keep = max(1, round(weights.size * (1 - sparsity)))
    flat = np.ascontiguousarray(weights, np.float32).reshape(-1)
    threshold = _nth_smallest(flat, weights.size - keep)
    stays = np.empty(flat.size, bool)

    def compare(part: slice) -> None:
        np.greater_equal(np.abs(flat[part]), threshold, out=stays[part])

    _in_parts(compare, flat.size)
    if exactly and (excess := int(np.count_nonzero(stays)) - keep) > 0:
        stays[np.flatnonzero(np.abs(flat) == threshold)[:excess]] = False
    return stays.reshape(weights.shape)


def _nth_smallest(weights: np.ndarray, n: int) -> np.float32:
    """The magnitude at place `n` of `weights`, float32 `[count]`, were their magnitudes sorted.

    It lies between two magnitudes of a sample, near its place there, but where that is bad luck. Then only what is
    between those two has to be sorted.
    """
    sample = np.sort(np.abs(weights[:: max(1, weights.size // SAMPLE)]))
    place, around = n * sample.size // weights.size, int(3 * math.sqrt(sample.size))
    low, high = sample[max(0, place - around)], sample[min(sample.size - 1, place + around)]

    def look(part: slice) -> tuple[list[int], np.ndarray]:
        sizes = np.abs(weights[part])
        above, under = sizes > low, sizes < high
        counts = [int(np.count_nonzero(those)) for those in (sizes < low, ~above, under, sizes > high)]
        return counts, sizes[above & under]

    found = _in_parts(look, weights.size)
    smaller, to_low, under_high, larger = (sum(each) for each in zip(*[counts for counts, _ in found], strict=True))
    if not smaller <= n < weights.size - larger:
        return np.partition(np.abs(weights), n)[n]
    if n < to_low:
        return low
    if n >= under_high:
        return high
    between = np.concatenate([part for _, part in found])
    return np.partition(between, n - to_low)[n - to_low]


def _in_parts(function: Callable[[slice], Any], size: int) -> list[Any]:
    """What `function` gives for each part of so many values, small enough for a processor's cache, on all cores."""
    parts = [slice(start, start + PART) for start in range(0, size, PART)]
    threads = min(len(cores()), len(parts))
    with ThreadPoolExecutor(threads) as pool:
        shares = pool.map(lambda first: [function(part) for part in parts[first::threads]], range(threads))
        return [found for share in shares for found in share]
