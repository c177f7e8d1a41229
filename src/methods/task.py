"""What every method is given beside its settings and its parent, and what it leaves beside its checkpoint."""

from dataclasses import dataclass, field
from pathlib import Path

from src.data import Dataset
from src.models.promises import Ended, Promises
from src.settings.head import AS_FOUND, Head
from src.settings.sections import Augment, Preprocess


@dataclass(frozen=True)
class Task:
    """What every stage of one variant is given: the images, how they enter a model, and what its parent promises.

    `teacher` is the checkpoint of the dense baseline, where the stage's settings ask for one to learn from."""

    dataset: Dataset
    preprocess: Preprocess
    augment: Augment
    seed: int
    head: Head = AS_FOUND  # what the model ends in, as far as that is not found out from its last layer
    promises: Promises = field(default_factory=dict)
    teacher: Path | None = None


@dataclass(frozen=True)
class Trained:
    """What a stage leaves beside its checkpoint: final metrics, one dict of metrics per epoch, tags, and notes. Notes
    are sentences for everyone who sees a variant that is made from this checkpoint.

    `promises` are those that it adds to its parent's, all of which it is held to but for those that it has `ended`.
    """

    metrics: dict[str, float]
    history: tuple[dict[str, float], ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    promises: Promises = field(default_factory=dict)
    ended: tuple[Ended, ...] = ()
