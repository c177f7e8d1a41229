"""Distillation: a model learns from what the dense baseline answers, as well as from labels (Hinton, Vinyals and Dean
2015, arXiv:1503.02531). Knows no stage: whoever trains is given the teacher's checkpoint with its task."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as schema

from src.data import Split, preprocess
from src.methods.task import Task
from src.models.checkpoint import restore
from src.models.head import head_of
from src.settings.check import STRICT, UserError
from src.settings.head import Head
from src.settings.sections import Preprocess

if TYPE_CHECKING:
    import tf_keras

SMALLEST = 1e-30  # of a probability whose logarithm is taken: its inverse, in the gradient, is still a float32
NEXT_TO_1 = 1e-7  # of a sigmoid's: as float32, 1 minus it has no more digits
BATCH_BYTES = 4 << 20  # of images, float32, whose logits are computed at a time


@schema(frozen=True, config=STRICT)
class Distillation:
    """`weight` is the teacher's share of the loss, and 0 trains without one. `temperature` divides the logits of both,
    so that it also counts which of the wrong classes the teacher finds likely."""

    weight: Annotated[float, Field(ge=0, le=1)] = 0.0
    temperature: Annotated[float, Field(ge=1, le=100)] = 4.0

    @property
    def acts(self) -> bool:
        return self.weight > 0

    def parameters(self) -> dict[str, float]:
        """What a run of a method records of it."""
        if not self.acts:
            return {}
        return {"distillation_weight": self.weight, "distillation_temperature": self.temperature}


@dataclass(frozen=True)
class Teacher:
    """`predict` gives the logits `[n, outputs]` of images as the model takes them; `known` are those of every training
    image, where each epoch shows them as they are."""

    outputs: int
    predict: Callable[[np.ndarray], np.ndarray]
    known: np.ndarray | None

    def logits(self, indices: np.ndarray, images: np.ndarray) -> np.ndarray:
        """float32 `[k, n, outputs]` of the training images `indices`, `[k, n]`, which are `images`, `[k, n, height,
        width, channels]`, as the model is shown them."""
        if self.known is not None:
            return self.known[indices]
        return self.predict(images.reshape(-1, *images.shape[2:])).reshape(*indices.shape, self.outputs)


def teacher(model: "tf_keras.Model", task: Task, how: Distillation) -> Teacher | None:
    """The dense baseline for `model`, which learns from it; None where it learns from labels alone.

    Raises `UserError` where there is none, or where it does not answer what `model` is asked.
    """
    import tensorflow as tf

    if not how.acts:
        return None
    if task.teacher is None:
        raise UserError(f"distillation.weight={how.weight:g}: there is no dense baseline to learn from; takes 0")
    dense = restore(task.teacher)
    ends, learns = (_ends(each, task.head) for each in (dense, model))
    if ends != learns:
        raise UserError(
            f"distillation.weight={how.weight:g}: the dense baseline ends in {ends}, and what is to learn from it in "
            f"{learns}; takes 0 after a step that changes what a model ends in"
        )
    head = head_of(dense, task.head)

    @tf.function(input_signature=[tf.TensorSpec((None, *task.dataset.shape), tf.float32)])
    def predict(images: Any) -> Any:
        return logits(dense(images, training=False), head)

    def of_images(images: np.ndarray) -> np.ndarray:
        return predict(images).numpy()

    outputs = dense.outputs[0].shape[-1]
    known = None if task.augment.acts else _of_all(of_images, task.dataset.train, task.preprocess, outputs)
    return Teacher(outputs, of_images, known)


def _ends(model: "tf_keras.Model", asked: Head) -> str:
    return f"{model.outputs[0].shape[-1]} outputs of a {head_of(model, asked).kind}"


def _of_all(predict: Callable[[np.ndarray], np.ndarray], split: Split, how: Preprocess, outputs: int) -> np.ndarray:
    """The logits of every image of `split`, `[n, outputs]`, in a file without a name: there may be many classes."""
    with tempfile.TemporaryFile() as file:
        known = np.memmap(file, np.float32, "w+", shape=(len(split), outputs))
    batch_size, done = max(1, BATCH_BYTES // (4 * split.read(np.arange(1)).size)), 0
    for images, labels in split.batches(batch_size):
        known[done : done + len(labels)] = predict(preprocess(images, how))
        done += len(labels)
    return known


def logits(outputs: Any, head: Head) -> Any:
    """float32 `[n, outputs]` of what a model that ends in `head` gives. Those of a softmax's probabilities are their
    logarithms, which lack a constant per image that no softmax sees."""
    import tensorflow as tf

    outputs = tf.cast(outputs, tf.float32)
    if head.logits:
        return outputs
    if head.kind == "softmax":
        return tf.math.log(tf.maximum(outputs, SMALLEST))
    outputs = tf.clip_by_value(outputs, NEXT_TO_1, 1 - NEXT_TO_1)
    return tf.math.log(outputs) - tf.math.log1p(-outputs)


def divergence(how: Distillation, head: Head, taught: Any, outputs: Any) -> Any:
    """How far what a model gives, `outputs`, is from the teacher's logits, `taught`, both `[n, outputs]`: T² times the
    Kullback-Leibler divergence of the softened distributions, `[n]`. T² keeps the gradient's size whatever T is.

    A softmax is one distribution over all outputs, those that are no class of the data among them. Sigmoids are one of
    two values each, and the mean over them is taken, as the cross-entropy of labels takes it.
    """
    import tensorflow as tf

    theirs, own = taught / how.temperature, logits(outputs, head) / how.temperature
    if head.kind == "softmax":
        log_ratio = tf.nn.log_softmax(theirs) - tf.nn.log_softmax(own)
        of_each = tf.reduce_sum(tf.nn.softmax(theirs) * log_ratio, -1)
    else:
        yes = tf.sigmoid(theirs) * (tf.math.log_sigmoid(theirs) - tf.math.log_sigmoid(own))
        no = tf.sigmoid(-theirs) * (tf.math.log_sigmoid(-theirs) - tf.math.log_sigmoid(-own))
        of_each = tf.reduce_mean(yes + no, -1)
    return how.temperature**2 * of_each


def with_teacher(of_labels: Callable[[Any, Any], Any], how: Distillation, head: Head) -> Callable[..., Any]:
    """The loss of labels, outputs and, where there is a teacher, its logits, a number per image: `of_labels`, and how
    far the outputs are from the teacher's, each for its share."""

    def of_each(labels: Any, outputs: Any, taught: Any = None) -> Any:
        if taught is None:
            return of_labels(labels, outputs)
        hard = (1 - how.weight) * of_labels(labels, outputs) if how.weight < 1 else 0.0
        return hard + how.weight * divergence(how, head, taught, outputs)

    return of_each
