"""Training: of the dense baseline, and the loop that every other stage that trains goes through as well."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic.dataclasses import dataclass as schema

from src.console.progress import Progress
from src.data import Split, preprocess
from src.methods import gradients
from src.methods.batches import training_images
from src.methods.fitting import Fitting, loss, optimizer
from src.methods.task import Task, Trained
from src.models.checkpoint import save
from src.models.head import check_classes, gives_logits
from src.models.kerases import keras_of, seed_all
from src.settings.check import STRICT, UserError
from src.settings.sections import Preprocess

if TYPE_CHECKING:
    import tf_keras

log = logging.getLogger(__name__)


@schema(frozen=True, config=STRICT)
class Untrained:
    """The model as it is."""


@schema(frozen=True, config=STRICT)
class Train(Fitting):
    """Training of the dense baseline; the weights of the best validation accuracy are kept."""


def fit(config: Train, build: Callable[[], "tf_keras.Model"], task: Task, checkpoint: Path) -> Trained:
    """Trains the dense baseline from scratch and writes the weights of the best validation accuracy."""
    seed_all(task.seed)
    model = build()
    history = optimise(model, task, config)
    save(model, checkpoint)
    best = max(history, key=lambda epoch: epoch["validation_accuracy"])
    return Trained({"validation_accuracy": best["validation_accuracy"], "epoch": best["epoch"]}, history)


def as_is(config: Untrained, build: Callable[[], "tf_keras.Model"], task: Task, checkpoint: Path) -> Trained:
    """Takes the model as it is, with its own weights, for the dense baseline."""
    import tensorflow as tf

    log.info("  taken as it is; model.preprocess turns pixels of 0 to 255 into its input: %s", task.preprocess)
    seed_all(task.seed)
    model = build()
    check_classes(model, len(task.dataset.classes))
    gives_logits(model, task.logits)
    save(model, checkpoint)
    predict = tf.function(lambda images: model(images, training=False))
    found = accuracy(predict, task.dataset.validation, task.preprocess, batch_size=64)
    if "validation" in task.dataset.drawn:
        log.warning(
            "the validation images are drawn from the training images: if the model was trained on those, variants are "
            "chosen on images that it knows; takes a validation split that it has not seen"
        )
    if found < 1.2 / len(task.dataset.classes):
        log.warning(
            "%.1f %% of the validation images are classified rightly, which is little more than guessing: do "
            "model.preprocess and the order of the classes fit the model, and has it been trained?",
            100 * found,
        )
    return Trained({"validation_accuracy": found})


def optimise(
    model: "tf_keras.Model",
    task: Task,
    config: Fitting,
    callbacks: Sequence["tf_keras.callbacks.Callback"] = (),
    keep_best_from: int = 0,
) -> tuple[dict[str, float], ...]:
    """Fits `model` to the training images; leaves `model` with the weights of its best epoch by validation accuracy.

    Only epochs from `keep_best_from` (0-based) on count as best: a pruning schedule has to end before, and no training
    stops early before. Returns the
    metrics of each epoch. All batches have one size, since XLA compiles anew for another. The images that are left over
    in an epoch, fewer than a batch, are drawn at random and left out of that epoch.

    With XLA or without, one seed gives the same bytes on one machine. `enable_op_determinism` is neither needed nor
    possible with XLA: TensorFlow 2.21 then refuses the gradient of max pooling.
    """
    keras = keras_of(model)
    gradients.avoid_crash()
    check_classes(model, len(task.dataset.classes))
    logits = gives_logits(model, task.logits)
    batch_size = min(config.batch_size, len(task.dataset.train))
    steps = len(task.dataset.train) // batch_size
    model.compile(
        optimizer(config, keras, steps),
        loss(config, task.augment, keras, logits, len(task.dataset.classes)),
        metrics=["accuracy"],
        jit_compile=config.jit_compile,
    )
    validation = _Validation(model, task, config, batch_size, steps, keep_best_from)
    with _errors_told():
        model.fit(
            training_images(task, config, batch_size),
            epochs=config.epochs,
            steps_per_epoch=steps,
            verbose=0,
            shuffle=False,
            # Validation comes last: before the other callbacks it would measure weights that a mask has yet to zero.
            callbacks=[*callbacks, validation.hook],
        )
    model.set_weights(validation.best)
    return tuple(validation.history)


@contextmanager
def _errors_told() -> Iterator[None]:
    """Turns what TensorFlow says over pages of an operator that XLA can't compile, or of a `UserError` while images are
    read, into a `UserError`."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        if match := re.search(r"Detected unsupported operations .* on XLA\w+: (\w+)", str(error)):
            raise UserError(
                f"jit_compile: XLA can't compile {match[1]}, which the model is made of; takes false (train."
                "jit_compile=false prune.jit_compile=false)"
            ) from None
        if match := re.search(r"UserError: (.+)", str(error)):
            raise UserError(match[1]) from None
        raise


def accuracy(predict: Callable[[np.ndarray], Any], split: Split, how: Preprocess, batch_size: int) -> float:
    """Share of the images of `split` that are classified rightly; `predict` gives scores `[batch_size, classes]`.

    An image whose scores hold NaN counts as wrong: `argmax` takes the first NaN for the highest.
    """
    correct = 0
    for images, labels in split.batches(batch_size):
        # Padded to a full batch: one shape, one compilation.
        padded = np.zeros((batch_size, *images.shape[1:]), images.dtype)
        padded[: len(images)] = images
        scores = predict(preprocess(padded, how)).numpy()[: len(images)]
        correct += int(((scores.argmax(-1) == labels) & np.isfinite(scores.max(-1))).sum())
    return correct / len(split)


class _Validation:
    """Watches a fit: validation accuracy and a line after each epoch, the best weights kept, progress between."""

    def __init__(
        self,
        model: "tf_keras.Model",
        task: Task,
        config: Fitting,
        batch_size: int,
        steps: int,
        keep_best_from: int,
    ) -> None:
        import tensorflow as tf

        self.model, self.task, self.batch_size = model, task, batch_size
        self.steps, self.epochs, self.keep_best_from = steps, config.epochs, keep_best_from
        self.predict = tf.function(lambda images: model(images, training=False), jit_compile=config.jit_compile)
        self.history: list[dict[str, float]] = []
        self.best: list[np.ndarray] = []
        self.best_epoch, self.patience = 0, config.patience or config.epochs
        self.progress = Progress(log)
        self.epoch = 0
        self.hook = keras_of(model).callbacks.LambdaCallback(
            on_epoch_begin=self._begin, on_train_batch_end=self._step, on_epoch_end=self._end
        )

    def _begin(self, epoch: int, logs: dict[str, float]) -> None:
        self.epoch = epoch

    def _step(self, step: int, logs: dict[str, float]) -> None:
        if not self.epoch and not step:  # the first step compiles
            self.progress.warmed_up(1 / self.steps / self.epochs)
        else:
            self._say(f"step {step + 1}/{self.steps}  loss {logs['loss']:.3f}", (step + 1) / self.steps)

    def _end(self, epoch: int, logs: dict[str, float]) -> None:
        if not np.isfinite(logs["loss"]):
            raise UserError(f"diverged: the loss of epoch {epoch + 1} is not finite; takes a smaller learning_rate")
        share = accuracy(self.predict, self.task.dataset.validation, self.task.preprocess, self.batch_size)
        earlier = [e["validation_accuracy"] for e in self.history[self.keep_best_from :]]
        if epoch <= self.keep_best_from or share > max(earlier):
            self.best, self.best_epoch = self.model.get_weights(), epoch
        self.history.append(
            {"epoch": epoch, "loss": logs["loss"], "accuracy": logs["accuracy"], "validation_accuracy": share}
        )
        ends = epoch + 1 == self.epochs
        stops = not ends and epoch - self.best_epoch >= self.patience
        self._say(f"loss {logs['loss']:.3f}  validation accuracy {share:.1%}", 1, last=ends or stops)
        if stops:
            log.info("  stops early: epoch %d stays the best by validation accuracy", self.best_epoch + 1)
            self.model.stop_training = True

    def _say(self, what: str, share_of_epoch: float, last: bool = False) -> None:
        done = (self.epoch + share_of_epoch) / self.epochs
        self.progress(done, f"epoch {self.epoch + 1}/{self.epochs}  {what}", last)
