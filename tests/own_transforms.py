"""Transforms of a user's own, as they would lie outside `src`: what each does to its parent's zeros is in its name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.methods.task import Task, Trained
from src.models.checkpoint import restore, save
from src.models.promises import Ended, Promise


@dataclass(frozen=True)
class Own:
    layer: str = "conv2"


def _changed(config: Own, parent: Path, checkpoint: Path, revive: bool) -> None:
    model = restore(parent)
    kernel, *rest = model.get_layer(config.layer).get_weights()
    model.get_layer(config.layer).set_weights([np.where(kernel == 0, 1e-3 * revive, 2 * kernel), *rest])
    save(model, checkpoint)


def keeps(config: Own, parent: Path, task: Task, checkpoint: Path) -> Trained:
    _changed(config, parent, checkpoint, revive=False)
    return Trained({})


def breaks(config: Own, parent: Path, task: Task, checkpoint: Path) -> Trained:
    _changed(config, parent, checkpoint, revive=True)
    return Trained({})


def ends(config: Own, parent: Path, task: Task, checkpoint: Path) -> Trained:
    _changed(config, parent, checkpoint, revive=True)
    return Trained({}, ended=(Ended("zeros", "its weights were shifted", (config.layer,)),))


def adds(config: Own, parent: Path, task: Task, checkpoint: Path) -> Trained:
    """Five values in each output channel, where 0 is one of them."""
    model = restore(parent)
    kernel, *rest = model.get_layer(config.layer).get_weights()
    few = np.round(2 * kernel / np.abs(kernel).max((0, 1, 2))) / 2
    model.get_layer(config.layer).set_weights([few.astype(np.float32), *rest])
    save(model, checkpoint)
    return Trained({}, promises={config.layer: Promise(distinct=5, channels=kernel.shape[-1])})
