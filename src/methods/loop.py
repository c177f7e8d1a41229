"""The loop that every stage that trains goes through: many steps in one call of TensorFlow, none of them in Python."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from src.console.progress import Progress
from src.data import Split, preprocess
from src.methods import gradients
from src.methods.batches import ahead, signature, training_runs
from src.methods.distillation import Teacher, teacher, with_teacher
from src.methods.fitting import Fitting, loss, optimizer
from src.methods.masks import Masks
from src.methods.task import Task
from src.models.head import check_classes, head_of
from src.models.kerases import keras_of, tensors
from src.settings.check import UserError
from src.settings.head import Head
from src.settings.sections import Preprocess

if TYPE_CHECKING:
    import tf_keras

log = logging.getLogger(__name__)

VALIDATION_BYTES = 4 << 20  # of images, float32, in a batch: more need no fewer calls, and memory


def optimise(
    model: "tf_keras.Model", task: Task, config: Fitting, masks: Masks | None = None, keep_best_from: int = 0
) -> tuple[dict[str, float], ...]:
    """Fits `model` to the training images; leaves `model` with the weights of its best epoch by validation accuracy.

    Only epochs from `keep_best_from` (0-based) on count as best: a pruning schedule has to end before, and no training
    stops early before. Returns the metrics of each epoch. All batches have one size, since XLA compiles anew for
    another. The images that are left over in an epoch, fewer than a batch, are drawn at random and left out of that
    epoch.

    With XLA or without, one seed gives the same bytes on one machine. `enable_op_determinism` is neither needed nor
    possible with XLA: TensorFlow 2.21 then refuses the gradient of max pooling.
    """
    gradients.avoid_crash()
    check_classes(model, len(task.dataset.classes), head=task.head)
    batch_size = min(config.batch_size, len(task.dataset.train))
    steps = len(task.dataset.train) // batch_size
    head = head_of(model, task.head)
    teaches = teacher(model, task, config.distillation)
    train = _steps(model, task, config, head, batch_size, steps, masks, teaches)
    watch, step = _Watch(model, task, config, head, steps, keep_best_from), 0
    with _errors_told():
        for run in ahead(training_runs(task, config, batch_size, masks.updates if masks else (), teaches)):
            if masks:
                masks.update(step)
            losses, hits = train(*run)
            step += len(run[0])
            watch.ran(step, float(losses), float(hits) / batch_size)
            if step % steps == 0:
                if masks:
                    masks.apply()  # for what the last step has moved
                if watch.ends_epoch():
                    break
    model.set_weights(watch.best)
    return tuple(watch.history)


def _steps(
    model: Any,
    task: Task,
    config: Fitting,
    head: Head,
    batch_size: int,
    steps: int,
    masks: Masks | None,
    teaches: Teacher | None,
) -> Callable:
    """A function that trains `model` on batches: images `[k, batch_size, height, width, channels]`, labels as the loss
    takes them and, where there are any, weights of classes, `[k, batch_size]`, and a teacher's logits. It gives the
    sums over the batches of the loss, regularization included, and of how many images were classified rightly."""
    import tensorflow as tf

    keras = keras_of(model)
    optimizes = optimizer(config, keras, steps)
    of_labels = loss(config, task.augment, keras, head, len(task.dataset.classes))
    of_each = with_teacher(of_labels, config.distillation, head)
    variables = _trainable(model)
    optimizes.build(model.trainable_variables)  # here: a function in TensorFlow makes its variables once only

    def step(images: Any, labels: Any, weights: Any, *taught: Any) -> tuple[Any, Any]:
        if masks:
            masks.apply()
        with tf.GradientTape() as tape:
            scores = model(images, training=True)
            value = tf.reduce_mean(of_each(labels, scores, *taught) * weights)
            if model.losses:
                value += tf.add_n(model.losses)
        slopes = zip(tape.gradient(value, variables), model.trainable_variables, strict=True)
        optimizes.apply_gradients([(slope, variable) for slope, variable in slopes if slope is not None])
        truth = tf.argmax(labels, -1) if labels.shape.rank == 2 else labels
        return value, tf.reduce_sum(tf.cast(tf.argmax(head.scores(scores, tf), -1) == truth, tf.float32))

    if config.jit_compile:
        step = tf.function(step, jit_compile=True)

    @tf.function(input_signature=signature(task, config, batch_size, teaches))
    def train(images: Any, labels: Any, *others: Any) -> tuple[Any, Any]:
        weights, taught = (others[:1], others[1:]) if config.class_weight else ((), others)
        losses, hits = 0.0, 0.0
        for i in tf.range(tf.shape(images)[0]):
            # One step after another: steps that draw random numbers would draw them in any order.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            value, right = step(images[i], labels[i], weights[0][i] if weights else 1.0, *(each[i] for each in taught))
            losses, hits = losses + value, hits + right
        return losses, hits

    return train


def _trainable(model: Any) -> list[Any]:
    variables = tensors(model.trainable_variables)
    if not variables:
        raise UserError(
            "every layer of the model is frozen: there is nothing to train; takes train=none and prune=none"
        )
    return variables


@contextmanager
def _errors_told() -> Iterator[None]:
    """Turns what TensorFlow says over pages of an operator that XLA can't compile into a `UserError`."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        if match := re.search(r"Detected unsupported operations .* on XLA\w+: (\w+)", str(error)):
            raise UserError(
                f"jit_compile: XLA can't compile {match[1]}, which the model is made of; takes false (train."
                "jit_compile=false prune.jit_compile=false)"
            ) from None
        raise


def accuracy(predict: Callable[[np.ndarray], Any], split: Split, how: Preprocess, least: int = 64) -> float:
    """Share of the images of `split` that are classified rightly; `predict` gives scores `[n, classes]`. It is called
    with batches of one size, `least` or as many as do not take much memory.

    An image whose scores hold NaN counts as wrong: `argmax` takes the first NaN for the highest.
    """
    correct = 0
    first = split.read(np.arange(1))
    batch_size = min(max(least, VALIDATION_BYTES // (4 * first.size)), len(split))
    for images, labels in split.batches(batch_size):
        # Padded to a full batch: one shape, one compilation.
        padded = np.zeros((batch_size, *images.shape[1:]), images.dtype)
        padded[: len(images)] = images
        scores = predict(preprocess(padded, how)).numpy()[: len(images)]
        correct += int(((scores.argmax(-1) == labels) & np.isfinite(scores.max(-1))).sum())
    return correct / len(split)


class _Watch:
    """Watches a fit: validation accuracy and a line after each epoch, the best weights kept, progress between."""

    def __init__(self, model: Any, task: Task, config: Fitting, head: Head, steps: int, keep_best_from: int) -> None:
        import tensorflow as tf

        self.model, self.task, self.least = model, task, config.batch_size
        self.steps, self.epochs, self.keep_best_from = steps, config.epochs, keep_best_from
        self.predict = tf.function(
            lambda images: head.scores(model(images, training=False), tf), jit_compile=config.jit_compile
        )
        self.history: list[dict[str, float]] = []
        self.best: list[np.ndarray] = []
        self.best_epoch, self.patience = 0, config.patience or config.epochs
        self.progress = Progress(log)
        self.step, self.loss, self.accuracy = 0, 0.0, 0.0

    def ran(self, step: int, losses: float, accuracies: float) -> None:
        """Training has come to `step`; `losses` and `accuracies` are sums over the batches since the last call."""
        if not self.step:  # the first steps compile
            self.progress.warmed_up(step / self.steps / self.epochs)
        self.step, self.loss, self.accuracy = step, self.loss + losses, self.accuracy + accuracies
        done = (step - 1) % self.steps + 1
        self._say(f"step {done}/{self.steps}  loss {self.loss / done:.3f}")

    def ends_epoch(self) -> bool:
        """Looks at the epoch that has just ended. Whether it is the last one."""
        epoch, loss = len(self.history), self.loss / self.steps
        if not np.isfinite(loss):
            raise UserError(f"diverged: the loss of epoch {epoch + 1} is not finite; takes a smaller learning_rate")
        share = accuracy(self.predict, self.task.dataset.validation, self.task.preprocess, self.least)
        earlier = [e["validation_accuracy"] for e in self.history[self.keep_best_from :]]
        if epoch <= self.keep_best_from or share > max(earlier):
            self.best, self.best_epoch = self.model.get_weights(), epoch
        self.history.append(
            {"epoch": epoch, "loss": loss, "accuracy": self.accuracy / self.steps, "validation_accuracy": share}
        )
        ends = epoch + 1 == self.epochs
        stops = not ends and epoch - self.best_epoch >= self.patience
        self._say(f"loss {loss:.3f}  validation accuracy {share:.1%}", last=ends or stops)
        if stops:
            log.info("  stops early: epoch %d stays the best by validation accuracy", self.best_epoch + 1)
        self.loss = self.accuracy = 0.0
        return ends or stops

    def _say(self, what: str, last: bool = False) -> None:
        epoch = (self.step - 1) // self.steps + 1
        self.progress(self.step / self.steps / self.epochs, f"epoch {epoch}/{self.epochs}  {what}", last)
