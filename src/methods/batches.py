"""The batches that a model is fitted to: images as it takes them, labels as its loss takes them, weights of classes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from src.data import preprocess
from src.methods.fitting import Fitting
from src.methods.task import Task
from src.settings.sections import Augment

if TYPE_CHECKING:
    import tensorflow as tf


def training_images(task: Task, config: Fitting, batch_size: int) -> "tf.data.Dataset":
    """The batches of all epochs, made while the model trains: images, labels and, where classes have weights, those."""
    import tensorflow as tf

    options = tf.data.Options()
    # There is nothing to tune, and the tuning thread may sleep for up to a minute before it lets a finished training
    # end (TensorFlow 2.21).
    options.autotune.enabled = False
    classes = len(task.dataset.classes)
    signature = [
        tf.TensorSpec((batch_size, *task.dataset.shape), tf.float32),
        tf.TensorSpec((batch_size, classes), tf.float32) if config.soft_labels else tf.TensorSpec(batch_size, tf.int64),
        *([tf.TensorSpec(batch_size, tf.float32)] if config.class_weight else []),
    ]
    batches = tf.data.Dataset.from_generator(
        lambda: _training_batches(task, config, batch_size), output_signature=tuple(signature)
    )
    return batches.prefetch(2).with_options(options)


def _training_batches(task: Task, config: Fitting, batch_size: int) -> Iterator[tuple[np.ndarray, ...]]:
    split = task.dataset.train
    weights = balanced(split.labels, len(task.dataset.classes))
    for epoch in range(config.epochs):
        rng = np.random.default_rng([task.seed, epoch])
        order = rng.permutation(len(split))[: len(split) // batch_size * batch_size]
        for images, labels in split.batches(batch_size, order):
            taken = preprocess(augmented(images, task.augment, rng), task.preprocess)
            targets = labels
            if config.soft_labels:
                targets = smoothed(np.eye(len(weights), dtype=np.float32)[labels], config.label_smoothing)
            yield (taken, targets, weights[labels]) if config.class_weight else (taken, targets)


def balanced(labels: np.ndarray, classes: int) -> np.ndarray:
    """A weight per class, float32: each class counts as much as another, and the images on average 1."""
    return (len(labels) / classes / np.maximum(1, np.bincount(labels, minlength=classes))).astype(np.float32)


def smoothed(labels: np.ndarray, share: float) -> np.ndarray:
    """Labels `[n, classes]` of which `share` is spread over all classes (Szegedy et al. 2015, arXiv:1512.00567)."""
    return (labels * np.float32(1 - share) + np.float32(share / labels.shape[1])).astype(np.float32)


def augmented(images: np.ndarray, how: Augment, rng: np.random.Generator) -> np.ndarray:
    """uint8 images `[n, height, width, channels]`, each mirrored and moved at random; edges are repeated."""
    if how.flip:
        images = np.where(rng.random(len(images))[:, None, None, None] < 0.5, images[:, :, ::-1], images)
    if how.shift:
        height, width = images.shape[1:3]
        y, x = round(how.shift * height), round(how.shift * width)
        padded = np.pad(images, ((0, 0), (y, y), (x, x), (0, 0)), mode="edge")
        rows = rng.integers(0, 2 * y + 1, len(images))[:, None] + np.arange(height)
        columns = rng.integers(0, 2 * x + 1, len(images))[:, None] + np.arange(width)
        images = padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return images
