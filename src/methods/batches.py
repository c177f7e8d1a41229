"""The batches that a model is fitted to: images as it takes them, labels as its loss takes them, weights of classes."""

import math
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from src.data import preprocess
from src.methods import augment
from src.methods.distillation import Teacher
from src.methods.fitting import Fitting, soft_labels
from src.methods.task import Task

Item = TypeVar("Item")

RUN_BYTES = 2 << 20  # of images: where more fit, a step takes so long that its call is nothing beside it


def training_runs(
    task: Task, config: Fitting, batch_size: int, before: Collection[int] = (), teacher: Teacher | None = None
) -> Iterator[tuple[np.ndarray, ...]]:
    """The batches of all epochs, in runs of one epoch each and no more than a few megabytes: images `[k, batch_size,
    height, width, channels]`, labels and, where there are any, the weights of classes and the logits of a teacher. A
    run ends `before` such a step."""
    steps = len(task.dataset.train) // batch_size
    most = max(1, RUN_BYTES // (4 * batch_size * math.prod(task.dataset.shape)))
    run: list[tuple[np.ndarray, ...]] = []
    for step, batch in enumerate(_training_batches(task, config, batch_size), 1):
        run.append(batch)
        if len(run) == most or step % steps == 0 or step in before:
            indices, *parts = (np.stack(part) for part in zip(*run, strict=True))
            yield (*parts, teacher.logits(indices, parts[0])) if teacher else tuple(parts)
            run = []


def signature(task: Task, config: Fitting, batch_size: int, teacher: Teacher | None = None) -> list[Any]:
    """Shapes and types of a run."""
    import tensorflow as tf

    soft = soft_labels(config, task.augment)
    labels = tf.TensorSpec(
        (None, batch_size, *([len(task.dataset.classes)] if soft else [])), tf.float32 if soft else tf.int64
    )
    return [
        tf.TensorSpec((None, batch_size, *task.dataset.shape), tf.float32),
        labels,
        *([tf.TensorSpec((None, batch_size), tf.float32)] if config.class_weight else []),
        *([tf.TensorSpec((None, batch_size, teacher.outputs), tf.float32)] if teacher else []),
    ]


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same, each made in a thread while the caller works on the one before."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = maker.submit(next, items, None)
            yield item


def _training_batches(task: Task, config: Fitting, batch_size: int) -> Iterator[tuple[np.ndarray, ...]]:
    classes, soft = len(task.dataset.classes), soft_labels(config, task.augment)
    weights, one_hot = balanced(task.dataset.train.labels, classes), np.eye(classes, dtype=np.float32)
    for epoch in range(config.epochs):
        rng = np.random.default_rng([task.seed, epoch])
        firsts = _read(task, epoch, batch_size, rng)
        others = _read(task, epoch, batch_size, np.random.default_rng([task.seed, epoch, augment.PARTNERS]))
        for indices, images, labels, share in firsts:
            targets, weighed = one_hot[labels] if soft else labels, weights[labels]
            if task.augment.mixup:
                _, other_images, other_labels, _ = next(others)
                images = _mixture(images, other_images, share)
                targets = _mixture(targets, one_hot[other_labels], share)
                weighed = _mixture(weighed, weights[other_labels], share)
            if config.label_smoothing:
                targets = smoothed(targets, config.label_smoothing)
            yield indices, images, targets, *([weighed] if config.class_weight else [])


def _read(task: Task, epoch: int, batch_size: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
    """The images of an epoch in random order: which they are, how they look, changed at random and as the model takes
    them, their labels, and the share that each has in a mixture."""
    split, how = task.dataset.train, task.augment
    order = rng.permutation(len(split))[: len(split) // batch_size * batch_size]
    parts = order.reshape(-1, batch_size)
    for indices, (images, labels) in zip(parts, split.batches(batch_size, order), strict=True):
        images, share = augment.moved(images, how, rng), np.ones(batch_size, np.float32)
        if how.of_each_image:
            drawn = augment.draws(how, task.seed, epoch, indices)
            images, share = augment.changed(images, how, drawn), drawn.share
        if how.own:
            images = augment.by_own(images, how.own, task.seed, epoch, indices)
        yield indices, preprocess(images, task.preprocess), labels, share


def _mixture(first: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`share` of the first and the rest of the other, row by row (Zhang et al. 2017, arXiv:1710.09412)."""
    share = share.reshape(-1, *[1] * (first.ndim - 1))
    return share * first + (1 - share) * other


def balanced(labels: np.ndarray, classes: int) -> np.ndarray:
    """A weight per class, float32: each class counts as much as another, and the images on average 1."""
    return (len(labels) / classes / np.maximum(1, np.bincount(labels, minlength=classes))).astype(np.float32)


def smoothed(labels: np.ndarray, share: float) -> np.ndarray:
    """Labels `[n, classes]` of which `share` is spread over all classes (Szegedy et al. 2015, arXiv:1512.00567)."""
    return (labels * np.float32(1 - share) + np.float32(share / labels.shape[1])).astype(np.float32)
