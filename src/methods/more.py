"""More training and nothing else: the control for methods that fine-tune, of which some of the gain is that of more
epochs."""

from pathlib import Path

from pydantic.dataclasses import dataclass as schema

from src.methods.fitting import Fitting
from src.methods.loop import optimise
from src.methods.masks import Masks, held
from src.methods.task import Task, Trained
from src.models.checkpoint import restore, save
from src.models.kerases import seed_all
from src.settings.check import STRICT


@schema(frozen=True, config=STRICT)
class More(Fitting):
    """A fine-tuning, as the methods of the same group have it."""

    def parameters(self) -> dict[str, float]:
        return self.distillation.parameters()


def train_on(config: More, parent: Path, task: Task, checkpoint: Path) -> Trained:
    """Trains the parent on, on the same batches as a method that fine-tunes with these settings, and does no more.

    Zeros that the parent promises stay. Raises `UserError` where fine-tuning would break another of its promises.
    """
    seed_all(task.seed)
    model = restore(parent)
    zeros = held(model, task.promises, "more")
    history = optimise(model, task, config, Masks({}, {}, 0, zeros) if zeros else None)
    save(model, checkpoint)
    best = max(history, key=lambda epoch: epoch["validation_accuracy"])
    note = (
        f"Trained on for {len(history)} epoch{'s' * (len(history) != 1)}, and no more: a control, which tells what "
        "compression does from what more training does."
    )
    return Trained({"validation_accuracy": best["validation_accuracy"], "epoch": best["epoch"]}, history, notes=(note,))
