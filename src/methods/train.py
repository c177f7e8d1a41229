"""The dense baseline: trained, fine-tuned from the weights that a model comes with, or the model as it is."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass as schema

from src.methods.fitting import Fitting
from src.methods.loop import accuracy, optimise
from src.methods.task import Task, Trained
from src.models.checkpoint import save
from src.models.head import check_classes, head_of
from src.models.kerases import seed_all
from src.settings.check import STRICT, DontGoTogether

if TYPE_CHECKING:
    import tf_keras

log = logging.getLogger(__name__)


@schema(frozen=True, config=STRICT)
class Untrained:
    """The model as it is."""


@schema(frozen=True, config=STRICT)
class Train(Fitting):
    """Training of the dense baseline; the weights of the best validation accuracy are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distillation.acts:
            raise ValueError(
                f"distillation.weight={self.distillation.weight:g}: the dense baseline is the teacher, and has none; "
                "takes 0 here, and more in a transform that fine-tunes, such as prune.distillation.weight=0.5"
            )


@schema(frozen=True, config=STRICT)
class FineTune(Train):
    """Training of a model that comes with weights, on from those."""

    def check_model(self, model: Any, key: str) -> None:
        """Raises `UserError` for a model that this project builds; `key` is that of the option."""
        if not getattr(model, "external", False):
            raise DontGoTogether(f"{key}: is for a trained model of your own; takes model=saved, or train=short")


def fit(config: Train, build: Callable[[], "tf_keras.Model"], task: Task, checkpoint: Path) -> Trained:
    """Trains the dense baseline from scratch and writes the weights of the best validation accuracy."""
    seed_all(task.seed)
    model = build()
    history = optimise(model, task, config)
    save(model, checkpoint)
    best = max(history, key=lambda epoch: epoch["validation_accuracy"])
    metrics = {"validation_accuracy": best["validation_accuracy"], "epoch": best["epoch"]}
    return Trained(metrics, history, notes=head_of(model, task.head).said(task.dataset.classes))


def fine_tune(config: FineTune, build: Callable[[], "tf_keras.Model"], task: Task, checkpoint: Path) -> Trained:
    """Trains the model on from the weights that it comes with, so that the dense baseline has been fitted to these
    images as its variants are. The weights of the best epoch are kept; where the model was better as it came, a note
    says so."""
    seed_all(task.seed)
    model = build()
    before = _as_it_comes(model, task)
    log.info("  as it comes: validation accuracy %.1f %%", 100 * before)
    history = optimise(model, task, config)
    save(model, checkpoint)
    best = max(history, key=lambda epoch: epoch["validation_accuracy"])
    after = best["validation_accuracy"]
    lost = (
        f"Fine-tuning cost validation accuracy: {100 * before:.1f} % as the model came, {100 * after:.1f} % at its "
        "best epoch; a smaller train.learning_rate may keep it."
    )
    return Trained(
        {"validation_accuracy": after, "validation_accuracy_before": before, "epoch": best["epoch"]},
        history,
        notes=(*head_of(model, task.head).said(task.dataset.classes), *([lost] if after < before else [])),
    )


def as_is(config: Untrained, build: Callable[[], "tf_keras.Model"], task: Task, checkpoint: Path) -> Trained:
    """Takes the model as it is, with its own weights, for the dense baseline."""
    log.info("  taken as it is")
    seed_all(task.seed)
    model = build()
    found = _as_it_comes(model, task)
    save(model, checkpoint)
    return Trained({"validation_accuracy": found}, notes=head_of(model, task.head).said(task.dataset.classes))


def _as_it_comes(model: "tf_keras.Model", task: Task) -> float:
    """The accuracy on the validation images before any training here. Warns where it can't be trusted."""
    import tensorflow as tf

    log.info("  model.preprocess turns pixels of 0 to 255 into the model's input: %s", task.preprocess)
    check_classes(model, len(task.dataset.classes), head=task.head)
    head = head_of(model, task.head)
    predict = tf.function(lambda images: head.scores(model(images, training=False), tf))
    found = accuracy(predict, task.dataset.validation, task.preprocess)
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
    return found
