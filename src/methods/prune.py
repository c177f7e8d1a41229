"""Pruning: a checkpoint, fine-tuned while a TFMOT schedule zeroes the smallest weights of the layers a policy takes."""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.methods.task import Task, Trained
from src.methods.train import optimise
from src.models.checkpoint import restore, save
from src.settings.check import UserError
from src.settings.config import Layers, MagnitudePruning

if TYPE_CHECKING:
    import tf_keras

log = logging.getLogger(__name__)


def magnitude(config: MagnitudePruning, parent: Path, task: Task, checkpoint: Path) -> Trained:
    """Magnitude pruning (Zhu & Gupta 2017, arXiv:1710.01878) with TFMOT's wrappers and schedules.

    Layers inside nested models are reached; those of which TFMOT prunes no weight stay as they are and are named in the
    tag `not_pruned`. What is zero in the parent stays zero and counts among the zeros that the schedule asks for.

    Raises `UserError` where the policy takes no layer, and `ValueError` where a layer that it takes came out with fewer
    zeros than its schedule ends with.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    tf_keras.utils.set_random_seed(task.seed)
    model = restore(parent)
    chosen = choose(model, config.layers)
    log.info("  prunes %s: %.1f %% of all parameters", ", ".join(chosen.layers), 100 * chosen.share)
    if chosen.unable:
        log.info("  leaves %s: TFMOT prunes no weight of such layers", ", ".join(chosen.unable))
    steps = config.epochs * (len(task.dataset.train) // min(config.batch_size, len(task.dataset.train)))
    schedule = _schedule(config, steps)
    pruned = _wrapped(model, chosen.layers, _never(schedule))
    masks = _Masks(pruned, schedule, steps)
    keep_from = min(config.epochs - 1, int(np.ceil(masks.last_update / steps * config.epochs)))
    started = time.perf_counter()
    history = optimise(
        pruned,
        task,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        jit_compile=config.jit_compile,
        callbacks=[masks.hook],
        keep_best_from=keep_from,
    )
    fine_tuning = time.perf_counter() - started
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    sparser = _confirm(stripped, chosen.layers, masks.final_sparsity)
    save(stripped, checkpoint)
    # Kernels only: a bias of 0 is folded away or into others on the way to the artifact.
    zeros = sum(int((w == 0).sum()) for w in stripped.get_weights() if w.ndim > 1)
    best = max(history[keep_from:], key=lambda epoch: epoch["validation_accuracy"])
    return Trained(
        {
            "validation_accuracy": best["validation_accuracy"],
            "mask_update_share": masks.seconds / fine_tuning,
            "sparsity": zeros / stripped.count_params(),
            "pruned_share": chosen.share,
        },
        history,
        {
            "pruned": ", ".join(chosen.layers),
            "not_pruned": ", ".join(chosen.unable) or "none",
            "frozen": ", ".join(chosen.frozen) or "none",
            "sparser": ", ".join(f"{path} {share:.4f}" for path, share in sparser.items()) or "none",
        },
        (*_frozen(chosen), *_sparser(sparser, masks.final_sparsity)),
    )


def notes(config: MagnitudePruning, model: "tf_keras.Model") -> tuple[str, ...]:
    """What is worth knowing before `model` is pruned, a sentence each. Raises `UserError` where the policy takes none
    of its layers."""
    return _frozen(choose(model, config.layers))


def _frozen(chosen: "Chosen") -> tuple[str, ...]:
    if not chosen.frozen:
        return ()
    return (f"Pruned though frozen, so that no fine-tuning can make up for it: {_some(chosen.frozen)}.",)


def _sparser(layers: Mapping[str, float], asked: float) -> tuple[str, ...]:
    if not layers:
        return ()
    listed = _some([f"{path} {100 * share:.1f} %" for path, share in layers.items()])
    return (f"More zeros than the {100 * asked:.1f} % asked for, and none of them was revived: {listed}.",)


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True)
class Chosen:
    """The paths of the layers that a policy takes, and the share of the model's parameters that it can zero. `frozen`
    are those of them whose weights don't train. `unable` are layers that the policy names and in which TFMOT prunes no
    weight."""

    layers: tuple[str, ...]
    share: float
    frozen: tuple[str, ...] = ()
    unable: tuple[str, ...] = ()


def choose(model: "tf_keras.Model", policy: Layers) -> Chosen:
    """The layers of `model` that `policy` takes. Raises `UserError` where it takes none."""
    leaves = _leaves(model)
    weighted = {path: layer for path, layer in leaves.items() if any(w.shape.rank > 1 for w in layer.weights)}
    convolutions = [path for path, layer in weighted.items() if "Conv" in type(layer).__name__]
    spared = set()
    if policy.spare_first_convolution and convolutions:
        spared.add(convolutions[0])
    if policy.spare_classifier and weighted:
        spared.add(list(weighted)[-1])
    total = model.count_params()
    sizes, unable = {}, []
    for path, layer in weighted.items():
        if type(layer).__name__ in policy.types and re.fullmatch(policy.pattern, path) and path not in spared:
            size = sum(int(np.prod(w.shape)) for w in _prunable(layer))
            if not size:
                unable.append(path)
            elif size / total >= policy.min_share:
                sizes[path] = size
    if not sizes:
        raise UserError(
            f"prune.layers: takes none of the layers {', '.join(weighted)}: types {', '.join(policy.types)}, pattern "
            f"{policy.pattern!r}, at least {policy.min_share:.1%} of all parameters"
        )
    share = sum(sizes.values()) / total
    training = {id(weight) for weight in model.trainable_weights}
    frozen = [path for path in sizes if not training & {id(weight) for weight in _prunable(leaves[path])}]
    return Chosen(tuple(sizes), share, tuple(frozen), tuple(unable))


def _leaves(model: "tf_keras.Model", above: str = "") -> dict[str, Any]:
    """The layers that are no models, by path: the names of the models around a layer, then its own."""
    import tf_keras

    found: dict[str, Any] = {}
    for layer in model.layers:
        if isinstance(layer, tf_keras.Model):
            found |= _leaves(layer, f"{above}{layer.name}/")
        else:
            found[above + layer.name] = layer
    return found


def _prunable(layer: Any) -> list[Any]:
    """The weights that TFMOT prunes in `layer`, if any: kernels, and of a separable convolution the pointwise one."""
    from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

    # What TFMOT asks for first: a layer of one's own names its weights with this method.
    if not hasattr(layer, "get_prunable_weights"):
        if not PruneRegistry.supports(layer):
            return []
        layer = PruneRegistry.make_prunable(layer)
    return layer.get_prunable_weights()


def _wrapped(model: "tf_keras.Model", layers: tuple[str, ...], schedule: Any, above: str = "") -> "tf_keras.Model":
    """`model` with TFMOT's wrapper around `layers`, nested models included; it shares all other layers."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    def clone(layer: Any) -> Any:
        if isinstance(layer, tf_keras.Model):
            return _wrapped(layer, layers, schedule, f"{above}{layer.name}/")
        if above + layer.name in layers:
            return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)
        return layer

    return tf_keras.models.clone_model(model, clone_function=clone)


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


def sparsity(model: "tf_keras.Model", layers: tuple[str, ...]) -> dict[str, float]:
    """Share of zeros in the weights that TFMOT prunes, by path of each of `layers`."""
    leaves = _leaves(model)
    weights = {path: [w.numpy() for w in _prunable(leaves[path])] for path in layers}
    return {path: sum(int((w == 0).sum()) for w in ws) / sum(w.size for w in ws) for path, ws in weights.items()}


def _schedule(config: MagnitudePruning, steps: int) -> Any:
    import tensorflow_model_optimization as tfmot

    begin, end = int(config.begin * steps), max(int(config.begin * steps) + 1, int(config.end * steps))
    if config.schedule == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(config.final_sparsity, begin, end, config.frequency)
    return tfmot.sparsity.keras.PolynomialDecay(
        config.initial_sparsity, config.final_sparsity, begin, end, frequency=config.frequency
    )


def _never(schedule: Any) -> Any:
    """The schedule that TFMOT's wrapper gets: it updates no mask inside the graph.

    There TFMOT 0.8 sorts every weight with `top_k`: 4 s an update at 26 M weights, against 0.2 s for `mask`.
    """
    import tensorflow as tf

    class Never(type(schedule)):  # type: ignore[misc]
        def __call__(self, step: Any) -> tuple[Any, Any]:
            return tf.constant(False), tf.constant(0.0)

    return Never.from_config(schedule.get_config()["config"])


class _Masks:
    """Updates the masks of wrapped layers before the steps at which the schedule says so, and once at its end or before
    the last of all steps. What is zero when training begins is masked throughout: it counts among the zeros, and no
    step revives it. `seconds` is what that took."""

    def __init__(self, model: "tf_keras.Model", schedule: Any, steps: int) -> None:
        import tf_keras

        self.layers = [layer for layer in _leaves(model).values() if hasattr(layer, "pruning_vars")]
        self.schedule = schedule
        self.step = 0
        self.seconds = 0.0
        self.last_update = min(schedule.end_step, steps - 1)
        self.final_sparsity = float(schedule(schedule.end_step)[1])
        self.hook = tf_keras.callbacks.LambdaCallback(
            on_train_begin=self._begin, on_train_batch_begin=self._update, on_epoch_end=self._apply
        )

    def _begin(self, logs: Any) -> None:
        for layer in self.layers:
            layer.pruning_step.assign(0)
        self.zeros = [[weights.numpy() == 0 for weights, _, _ in layer.pruning_vars] for layer in self.layers]

    def _update(self, batch: int, logs: Any) -> None:
        started = time.perf_counter()
        due, sparsity = self.schedule(self.step)
        # TFMOT updates at multiples of the frequency. Where the schedule ends between two of them it would never reach
        # its final sparsity.
        last = self.step == self.last_update
        if bool(due) or last:
            for layer, zeros in zip(self.layers, self.zeros, strict=True):
                for (weights, masks, _), zero in zip(layer.pruning_vars, zeros, strict=True):
                    values = np.where(zero, 0, weights.numpy())
                    masks.assign(mask(values, self.final_sparsity if last else float(sparsity), exactly=last) * ~zero)
        self.step += 1
        self.seconds += time.perf_counter() - started

    def _apply(self, epoch: int, logs: Any) -> None:
        """Zeroes what the optimizer's last step has moved: stripping applies no mask."""
        for layer in self.layers:
            layer.pruning_obj.weight_mask_op()


def _confirm(model: "tf_keras.Model", layers: tuple[str, ...], asked: float) -> dict[str, float]:
    """The layers with more zeros than asked for, with their share of zeros. Raises `ValueError` for one with fewer."""
    leaves, sparser = _leaves(model), {}
    for path, share in sparsity(model, layers).items():
        # Each weight has a mask of its own. Its share of zeros is rounded to a whole number of values.
        smallest = min(int(np.prod(w.shape)) for w in _prunable(leaves[path]))
        tolerance = 1 / smallest + 1e-3
        if share < asked - tolerance:
            raise ValueError(f"layer {path} came out with a sparsity of {share:.4f}; its schedule ends with {asked}")
        if share > asked + tolerance:
            sparser[path] = share
    return sparser
