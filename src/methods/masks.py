"""The masks of pruning, kept up to date outside TensorFlow's graph."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from src.models.checkpoint import leaves

if TYPE_CHECKING:
    import tf_keras


class Masks:
    """Updates the masks of wrapped layers before the steps at which their schedules say so, and once at their end or
    before the last of all steps. What is zero when training begins is masked throughout: it counts among the zeros, and
    no step revives it. `seconds` is what that took."""

    def __init__(self, model: "tf_keras.Model", schedules: Mapping[str, Any], steps: int) -> None:
        import tf_keras

        # The wrapper has the layer's path but for a prefix of its name.
        wrapped = {
            path[: path.rindex(layer.name)] + layer.layer.name: layer
            for path, layer in leaves(model).items()
            if hasattr(layer, "pruning_vars")
        }
        self.layers = [(layer, schedules[path]) for path, layer in wrapped.items()]
        self.schedules = list({id(schedule): schedule for schedule in schedules.values()}.values())
        self.step = 0
        self.seconds = 0.0
        self.last_update = min(self.schedules[0].end_step, steps - 1)  # the same for all
        self.hook = tf_keras.callbacks.LambdaCallback(
            on_train_begin=self._begin, on_train_batch_begin=self._update, on_epoch_end=self._apply
        )

    def _begin(self, logs: Any) -> None:
        for layer, _ in self.layers:
            layer.pruning_step.assign(0)
        self.zeros = [[weights.numpy() == 0 for weights, _, _ in layer.pruning_vars] for layer, _ in self.layers]

    def _update(self, batch: int, logs: Any) -> None:
        started = time.perf_counter()
        # TFMOT updates at multiples of the frequency. Where the schedule ends between two of them it would never reach
        # its final sparsity.
        last = self.step == self.last_update
        asked = {id(schedule): schedule(schedule.end_step if last else self.step) for schedule in self.schedules}
        for (layer, schedule), zeros in zip(self.layers, self.zeros, strict=True):
            due, sparsity = asked[id(schedule)]
            if bool(due) or last:
                for (weights, masks, _), zero in zip(layer.pruning_vars, zeros, strict=True):
                    values = np.where(zero, 0, weights.numpy())
                    masks.assign(mask(values, float(sparsity), exactly=last) * ~zero)
        self.step += 1
        self.seconds += time.perf_counter() - started

    def _apply(self, epoch: int, logs: Any) -> None:
        """Zeroes what the optimizer's last step has moved: stripping applies no mask."""
        for layer, _ in self.layers:
            layer.pruning_obj.weight_mask_op()


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
