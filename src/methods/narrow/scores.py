"""What a channel is worth to its model: the scores by which channels are ranked."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from src.data import preprocess
from src.methods.fitting import Fitting, loss
from src.methods.narrow.coupling import Coupling
from src.methods.narrow.groups import Groups
from src.methods.narrow.parts import along, parts
from src.methods.task import Task
from src.models.head import head_of
from src.models.kerases import keras_of, tensors
from src.settings.sections import Augment

IMAGES, BATCH = 256, 16  # of the training images, for `taylor`


class _Kernel(NamedTuple):
    """A kernel, and the unit of each place along that axis of it."""

    weight: Any
    axis: int
    units: np.ndarray
    takes: bool


def magnitude(groups: Groups) -> np.ndarray:
    """The L2 norms of what makes a channel and of what takes it in all kernels, each relative to the mean of its kernel
    (Li et al. 2017, arXiv:1608.08710; over a group as in Fang et al. 2023, arXiv:2301.12900), by unit."""
    scores = np.zeros(_units(groups))
    for weight, axis, units, _ in _kernels(groups):
        values = np.moveaxis(weight.numpy(), axis, 0)
        norms = np.sqrt(np.square(values).sum(tuple(range(1, values.ndim))))
        np.add.at(scores, units, norms / (norms.mean() or 1))
    return scores


def batch_norm(groups: Groups) -> np.ndarray:
    """The magnitudes of the scales of batch normalization (Liu et al. 2017, arXiv:1708.06519), by unit."""
    scores = np.zeros(_units(groups))
    for slots in groups.found.slots.values():
        if _has_scale(slots.layer):
            np.add.at(scores, groups.unit[slots.takes], np.abs(slots.layer.gamma.numpy()))
    return scores


def scaled(found: Coupling) -> np.ndarray:
    """The atoms that a batch normalization scales."""
    atoms = [slots.takes for slots in found.slots.values() if _has_scale(slots.layer)]
    return np.concatenate([np.zeros(0, int), *atoms])


def _has_scale(layer: Any) -> bool:
    return type(layer).__name__ == "BatchNormalization" and bool(layer.scale)


def random(groups: Groups, seed: int) -> np.ndarray:
    """To compare the others with."""
    return np.random.default_rng(seed).random(_units(groups))


def taylor(groups: Groups, model: Any, config: Fitting, task: Task) -> np.ndarray:
    """How the loss would change without a channel, to the first order: the square of its gradient with respect to a
    factor of the channel wherever it enters a layer, over training images (Molchanov et al. 2019, arXiv:1906.10771), by
    unit."""
    import tensorflow as tf

    kernels = [kernel for kernel in _kernels(groups) if kernel.takes]
    weights = tensors([kernel.weight for kernel in kernels])
    plain = replace(config, loss=None, label_smoothing=0.0)
    of_each = loss(plain, Augment(), keras_of(model), head_of(model, task.head), len(task.dataset.classes))

    @tf.function
    def changes(images: Any, labels: Any) -> list[Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            value = tf.reduce_sum(of_each(labels, model(images, training=False)))
        products = [w * s for w, s in zip(weights, tape.gradient(value, weights), strict=True)]
        return [
            tf.reduce_sum(product, [i for i in range(len(product.shape)) if i != kernel.axis])
            for product, kernel in zip(products, kernels, strict=True)
        ]

    scores = np.zeros(_units(groups))
    for images, labels in _some(task):
        of_batch = np.zeros_like(scores)
        for kernel, change in zip(kernels, changes(images, labels), strict=True):
            np.add.at(of_batch, kernel.units, change.numpy())
        scores += np.square(of_batch)
    return np.sqrt(scores)


def _units(groups: Groups) -> int:
    return int(groups.unit.max()) + 1


def _kernels(groups: Groups) -> Iterator[_Kernel]:
    """Those of layers that make channels, once for each axis of channels."""
    for slots in groups.found.slots.values():
        for part in parts(slots) if slots.is_maker else ():
            weight = slots.layer.weights[part.weight]
            if len(weight.shape) > 1:
                yield _Kernel(weight, part.axis, along(part, slots, groups.unit), part.side == "takes")


def _some(task: Task) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    train = task.dataset.train
    drawn = np.random.default_rng(task.seed).permutation(len(train))[:IMAGES]
    for start in range(0, max(1, len(drawn) - BATCH + 1), BATCH):
        places = np.sort(drawn[start : start + BATCH])
        yield preprocess(train.read(places), task.preprocess), train.labels[places]
