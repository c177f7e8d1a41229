"""Narrowing: a checkpoint without some of its channels and the multiply-adds of those, fine-tuned."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as schema

from src.data import preprocess
from src.methods.fitting import Fitting
from src.methods.layers import Layers, Rule, choose, first_matches, some, with_kernels
from src.methods.loop import optimise
from src.methods.masks import Masks, held
from src.methods.narrow import scores
from src.methods.narrow.choice import Choice, Scope
from src.methods.narrow.coupling import MAKERS, OUTPUTS, coupling
from src.methods.narrow.graph import graph
from src.methods.narrow.groups import Groups, Of
from src.methods.narrow.rebuild import narrowed, silence
from src.methods.task import Task, Trained
from src.models.checkpoint import kernels, leaves, restore, save, show
from src.models.fitted import is_functional
from src.models.kerases import seed_all
from src.models.promises import Ended, Promise
from src.settings.check import STRICT, Count, Unfit

if TYPE_CHECKING:
    import tf_keras

log = logging.getLogger(__name__)

EXACTLY = 1e-4  # of the largest output: what float32 may leave of two ways to compute one thing


@schema(frozen=True, config=STRICT)
class ChannelRule(Rule):
    """The share of their channels that some layers keep, whatever the others give for it; `keep=1` spares them."""

    keep: Annotated[float, Field(gt=0, le=1)]


@schema(frozen=True, config=STRICT, kw_only=True)
class ChannelPruning(Fitting):
    """Which channels go, and the fine-tuning after that."""

    keep: Annotated[float, Field(gt=0, lt=1)]
    of: Of
    score: Literal["magnitude", "taylor", "batch_norm", "random"]
    scope: Scope
    multiple: Count
    steps: Count
    layers: Layers
    rules: tuple[ChannelRule, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps > self.epochs:
            raise ValueError(f"steps={self.steps}: takes at most epochs={self.epochs}, which the steps share")

    @property
    def asks_for_model(self) -> bool:
        """Whether only the model can tell that so many channels can go, whatever its layers."""
        return self.keep < 0.1 or self.score == "batch_norm"

    def parameters(self) -> dict[str, float]:
        return {"keep": self.keep, **self.distillation.parameters()}


class Plan:
    """Which channels of `model` can go, and what it costs with those that stay."""

    def __init__(self, model: "tf_keras.Model", config: ChannelPruning) -> None:
        if not is_functional(model):
            raise Unfit("only code connects the layers of the model, so that no channel can be followed through them")
        self.config = config
        makers = [path for path, layer in with_kernels(model).items() if type(layer).__name__ in MAKERS]
        rules = first_matches(config.rules, makers, "narrow.rules") if config.rules else {}
        spared = {path for path, rule in rules.items() if rule.keep == 1}
        takes = choose(model, config.layers, kernels, "narrow", spared).layers
        found = coupling(graph(model))
        self.groups = Groups(found, takes, scores.scaled(found) if config.score == "batch_norm" else None)
        if not self.groups.groups:
            raise Unfit(f"no channel of the model can go: {_reasons(self.groups.whole)}")
        self.cost = self.groups.cost(config.of, np.ones(found.atoms, bool))
        shares = {
            place: rules[path].keep
            for place, group in enumerate(self.groups.groups)
            for path in reversed(group.layers)
            if path in rules
        }
        self.choice = Choice(self.groups, config.keep, config.of, config.scope, config.multiple, shares)

    def stays(self, of_units: np.ndarray, keep: float, whole: int) -> np.ndarray:
        """Of each atom whether it stays, so that the model costs the share `keep` of what the `whole` did."""
        return self.groups.stays(replace(self.choice, keep=keep).units(of_units, whole))


def channels(config: ChannelPruning, parent: Path, task: Task, checkpoint: Path) -> Trained:
    """Removes the channels of the lowest scores and fine-tunes what is left.

    Channels that are added, multiplied or normalized together, or that one layer makes in several calls, go together.
    Before fine-tuning the model gives the outputs of its parent in which the channels that went are zero wherever they
    enter a layer, which is tried. Zeros that the parent promises stay zeros, where their channels stay.

    Raises `Unfit` where no channel can go, or not as many as `keep` takes.
    """
    seed_all(task.seed)
    model = restore(parent)
    sizes = _channels(model)
    whole = Plan(model, config).cost
    zeros = {path: Promise(zeros=promise.zeros) for path, promise in task.promises.items() if promise.zeros}
    history: list[dict[str, float]] = []
    kept = 1.0
    for step in range(config.steps):
        log.info("  ranks channels: %s", config.score)
        plan = Plan(model, config)
        stays = plan.stays(_scores(plan, model, task), config.keep ** ((step + 1) / config.steps), whole)
        kept = plan.groups.cost(config.of, stays) / whole
        model = _narrowed(model, plan, stays, task)
        log.info("  keeps %.1f %% of the %s", 100 * kept, config.of.replace("_", "-"))
        epochs = config.epochs * (step + 1) // config.steps - config.epochs * step // config.steps
        of_step = replace(config, steps=1, epochs=epochs, warmup_epochs=config.warmup_epochs * epochs / config.epochs)
        masked = held(model, zeros, "narrow")
        for epoch in optimise(model, task, of_step, Masks({}, {}, 0, masked) if masked else None):
            history.append({**epoch, "epoch": len(history)})
    save(model, checkpoint)
    changed = {path: count for path, count in _channels(model).items() if count != sizes[path]}
    best = max(history[-epochs:], key=lambda epoch: epoch["validation_accuracy"])
    return Trained(
        {"validation_accuracy": best["validation_accuracy"], f"kept_{config.of}": kept},
        tuple(history),
        {
            "narrowed": ", ".join(f"{path} {sizes[path]} → {count}" for path, count in changed.items()) or "none",
            "not_narrowed": _reasons(plan.groups.whole) or "none",
        },
        promises=_promises(model, changed, zeros),
        ended=(
            Ended("zeros", "some went with their channels, and those that are left are promised anew", tuple(zeros)),
            Ended("distinct", "fine-tuning moves values apart"),
        ),
    )


def _narrowed(model: "tf_keras.Model", plan: Plan, stays: np.ndarray, task: Task) -> "tf_keras.Model":
    """The narrowed model, once it has given what `model` does without the channels that go; `model` is changed. Raises
    `ValueError` where it does not."""
    new = narrowed(model, plan.groups, stays)
    silence(plan.groups, stays)
    images = preprocess(task.dataset.validation.read(np.arange(min(4, len(task.dataset.validation)))), task.preprocess)
    expected, found = (np.asarray(each(images, training=False)) for each in (model, new))
    if not (difference := np.abs(found - expected).max()) <= EXACTLY * np.abs(expected).max():
        raise ValueError(
            f"the narrowed model is not what was left of the whole one: outputs differ by {difference:.2g}"
        )
    return new


def notes(config: ChannelPruning, model: "tf_keras.Model") -> tuple[str, ...]:
    """What is worth knowing before channels go, a sentence each. Raises `Unfit` where none can, or not as many as
    `keep` takes."""
    plan = Plan(model, config)
    plan.stays(scores.random(plan.groups, 0), config.keep, plan.cost)
    whole = {path: why for path, why in plan.groups.whole.items() if why != OUTPUTS}
    return (f"Leaves whole {_reasons(whole)}.",) if whole else ()


def _scores(plan: Plan, model: "tf_keras.Model", task: Task) -> np.ndarray:
    match plan.config.score:
        case "taylor":
            return scores.taylor(plan.groups, model, plan.config, task)
        case "batch_norm":
            return scores.batch_norm(plan.groups)
        case "random":
            return scores.random(plan.groups, task.seed)
    return scores.magnitude(plan.groups)


def _channels(model: "tf_keras.Model") -> dict[str, int]:
    return {path: show(layer).channels or 0 for path, layer in with_kernels(model).items()}


def _promises(model: "tf_keras.Model", changed: Mapping[str, int], before: Collection[str]) -> dict[str, Promise]:
    """The channels of what has `changed`, and the zeros of layers of which some were promised `before`."""
    layers = leaves(model)
    zeros = {path: show(layers[path]).zeros for path in before}
    return {path: Promise(zeros=zeros.get(path), channels=changed.get(path)) for path in {**changed, **zeros}}


def _reasons(whole: Mapping[str, str]) -> str:
    """Such as `conv1, conv2 (tied to scale, a Lambda)`."""
    layers: dict[str, list[str]] = {}
    for path, why in whole.items():
        layers.setdefault(why, []).append(path)
    return "; ".join(f"{some(paths)} ({why})" for why, paths in layers.items())
