"""Pruning: a checkpoint, fine-tuned while a TFMOT schedule zeroes the smallest weights of the layers a policy takes."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.config import Layers, MagnitudePruning
from src.train import Task, Trained, optimise, restore, save

if TYPE_CHECKING:
    import tf_keras

log = logging.getLogger(__name__)


def magnitude(config: MagnitudePruning, parent: Path, task: Task, checkpoint: Path) -> Trained:
    """Magnitude pruning (Zhu & Gupta 2017, arXiv:1710.01878) with TFMOT's wrappers and schedules.

    Raises `ValueError` where the policy takes no layer, or where a layer that it takes came out with another share of
    zeros than its schedule ends with.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    tf_keras.utils.set_random_seed(task.seed)
    model = restore(parent)
    chosen = choose(model, config.layers)
    steps = config.epochs * (len(task.dataset.train) // min(config.batch_size, len(task.dataset.train)))
    schedule = _schedule(config, steps)
    wrap = tfmot.sparsity.keras.prune_low_magnitude
    pruned = tf_keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            wrap(layer, pruning_schedule=_never(schedule)) if layer.name in chosen.layers else layer
        ),
    )
    masks = _Masks(pruned, schedule)
    history = optimise(
        pruned,
        task,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        jit_compile=config.jit_compile,
        callbacks=[masks.hook],
        keep_best_from=min(config.epochs - 1, int(np.ceil(masks.last_update / steps * config.epochs))),
    )
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    found = sparsity(stripped, chosen.layers)
    _confirm(found, masks.final_sparsity, stripped)
    save(stripped, checkpoint)
    zeros = sum(int((w == 0).sum()) for w in stripped.get_weights())
    best = max(history, key=lambda epoch: epoch["validation_accuracy"])
    return Trained(
        {
            "validation_accuracy": best["validation_accuracy"],
            "sparsity": zeros / stripped.count_params(),
            "pruned_share": chosen.share,
        },
        history,
    )


@dataclass(frozen=True)
class Chosen:
    """The names of the layers that a policy takes, and their kernels' share of the model's parameters."""

    layers: tuple[str, ...]
    share: float


def choose(model: "tf_keras.Model", policy: Layers) -> Chosen:
    """The layers of `model` that `policy` takes. Raises `ValueError` where it takes none."""
    weighted = [layer for layer in model.layers if layer.weights]
    convolutions = [layer for layer in weighted if "Conv" in type(layer).__name__]
    spared = set()
    if policy.spare_first_convolution and convolutions:
        spared.add(convolutions[0].name)
    if policy.spare_classifier and weighted:
        spared.add(weighted[-1].name)
    total = model.count_params()
    sizes = {
        layer.name: int(np.prod(layer.kernel.shape))
        for layer in weighted
        if type(layer).__name__ in policy.types
        and re.fullmatch(policy.pattern, layer.name)
        and layer.name not in spared
        and np.prod(layer.kernel.shape) / total >= policy.min_share
    }
    if not sizes:
        raise ValueError(
            f"prune.layers takes none of the layers {', '.join(layer.name for layer in weighted)}: types "
            f"{', '.join(policy.types)}, pattern {policy.pattern!r}, at least {policy.min_share:.1%} of all parameters"
        )
    share = sum(sizes.values()) / total
    log.info("  prunes %s: %.1f %% of all parameters", ", ".join(sizes), 100 * share)
    return Chosen(tuple(sizes), share)


def mask(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """1 for the weights of largest magnitude, 0 for the share `sparsity` of smallest: TFMOT's mask without its sort.

    Where several weights are as large as the threshold, all of them stay, as in TFMOT.
    """
    keep = max(1, round(weights.size * (1 - sparsity)))
    size = np.abs(weights)
    threshold = np.partition(size, weights.size - keep, axis=None)[weights.size - keep]
    return (size >= threshold).astype(weights.dtype)


def sparsity(model: "tf_keras.Model", layers: tuple[str, ...]) -> dict[str, float]:
    """Share of zeros in the kernel of each of `layers`."""
    kernels = {name: model.get_layer(name).kernel.numpy() for name in layers}
    return {name: float((kernel == 0).mean()) for name, kernel in kernels.items()}


def _schedule(config: MagnitudePruning, steps: int) -> Any:
    import tensorflow_model_optimization as tfmot

    begin, end = int(config.begin * steps), max(int(config.begin * steps) + 1, int(config.end * steps))
    if config.schedule == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(config.final_sparsity, begin, end, config.frequency)
    return tfmot.sparsity.keras.PolynomialDecay(
        config.initial_sparsity, config.final_sparsity, begin, end, frequency=config.frequency
    )


def _never(schedule: Any) -> Any:
    """The schedule as TFMOT's wrapper is to see it: it updates no mask inside the graph.

    There TFMOT 0.8 sorts every weight with `top_k`: 4 s an update at 26 M weights, against 0.3 s for `mask`.
    """
    import tensorflow as tf

    class Never(type(schedule)):  # type: ignore[misc]
        def __call__(self, step: Any) -> tuple[Any, Any]:
            return tf.constant(False), tf.constant(0.0)

    return Never.from_config(schedule.get_config()["config"])


class _Masks:
    """Updates the masks of wrapped layers before the steps at which the schedule says so, and once at its end."""

    def __init__(self, model: "tf_keras.Model", schedule: Any) -> None:
        import tf_keras

        self.layers = [layer for layer in model.layers if hasattr(layer, "pruning_vars")]
        self.schedule = schedule
        self.step = 0
        self.last_update = schedule.end_step
        self.final_sparsity = float(schedule(schedule.end_step)[1])
        self.hook = tf_keras.callbacks.LambdaCallback(
            on_train_begin=self._begin, on_train_batch_begin=self._update, on_epoch_end=self._apply
        )

    def _begin(self, logs: Any) -> None:
        for layer in self.layers:
            layer.pruning_step.assign(0)

    def _update(self, batch: int, logs: Any) -> None:
        due, sparsity = self.schedule(self.step)
        # TFMOT skips the end of a schedule that is no whole number of frequencies long, and with it its final sparsity.
        if bool(due) or self.step == self.last_update:
            for layer in self.layers:
                for weights, masks, _ in layer.pruning_vars:
                    masks.assign(mask(weights.numpy(), float(sparsity)))
        self.step += 1

    def _apply(self, epoch: int, logs: Any) -> None:
        """Zeroes what the optimizer's last step has moved: stripping applies no mask."""
        for layer in self.layers:
            layer.pruning_obj.weight_mask_op()


def _confirm(found: dict[str, float], asked: float, model: "tf_keras.Model") -> None:
    for name, share in found.items():
        size = int(np.prod(model.get_layer(name).kernel.shape))
        if abs(share - asked) > 1 / size + 1e-3:
            raise ValueError(f"layer {name} came out with a sparsity of {share:.4f}; its schedule ends with {asked}")
