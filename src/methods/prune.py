"""Pruning: a checkpoint, fine-tuned while a TFMOT schedule zeroes the smallest weights of the layers a policy takes."""

import logging
import operator
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as schema

from src.methods.fitting import Fitting
from src.methods.layers import Chosen, Layers, Rule, choose, first_matches, ruled, some, with_kernels
from src.methods.loop import optimise
from src.methods.masks import Masks, held
from src.methods.task import Task, Trained
from src.models.checkpoint import leaves, restore, save, show
from src.models.kerases import seed_all
from src.models.promises import Promise
from src.settings.check import STRICT, Count, Share

if TYPE_CHECKING:
    import tf_keras

log = logging.getLogger(__name__)

# What TFMOT 0.8 prunes in the layers of Keras 2, and here in those of both.
PRUNABLE = {
    **dict.fromkeys(("Dense", "Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose"), ("kernel",)),
    **dict.fromkeys(("LocallyConnected1D", "LocallyConnected2D"), ("kernel",)),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), ("pointwise_kernel",)),
    "Embedding": ("embeddings",),
    "MultiHeadAttention": tuple(f"_{part}_dense.kernel" for part in ("query", "key", "value", "output")),
}
RECURRENT = ("GRU", "LSTM", "RNN", "SimpleRNN")
CELLS = ("GRUCell", "LSTMCell", "SimpleRNNCell")


@schema(frozen=True, config=STRICT)
class SparsityRule(Rule):
    """Shares of zeros for some of the layers that the policy takes; `final_sparsity=0` spares them."""

    initial_sparsity: Share | None = None
    final_sparsity: Share | None = None


@schema(frozen=True, config=STRICT, kw_only=True)
class MagnitudePruning(Fitting):
    """A TFMOT schedule over the steps of a fine-tuning, on the layers that the policy takes."""

    schedule: Literal["polynomial", "constant"]
    initial_sparsity: Share
    final_sparsity: Share
    begin: Annotated[float, Field(ge=0, le=1)]
    end: Annotated[float, Field(ge=0, le=1)]
    frequency: Count
    layers: Layers
    rules: tuple[SparsityRule, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end < self.begin:
            raise ValueError(f"end={self.end} lies before begin={self.begin}; takes a number from begin to 1")

    def parameters(self) -> dict[str, float]:
        return {"final_sparsity": self.final_sparsity, **self.distillation.parameters()}


def magnitude(config: MagnitudePruning, parent: Path, task: Task, checkpoint: Path) -> Trained:
    """Magnitude pruning (Zhu & Gupta 2017, arXiv:1710.01878) by TFMOT's schedules.

    Layers inside nested models are reached; those of which TFMOT prunes no weight stay as they are and are named in the
    tag `not_pruned`. What is zero in the parent stays zero and counts among the zeros that the schedule asks for; in
    other layers zeros stay where the parent promises them.

    Raises `UserError` where the policy takes no layer, a rule matches none, or fine-tuning would break a promise of the
    parent, and `ValueError` where a layer that it takes came out with fewer zeros than its schedule ends with.
    """
    seed_all(task.seed)
    model = restore(parent)
    chosen, settings = taken(model, config)
    log.info("  prunes %s: %.1f %% of all parameters", _shares(settings), 100 * chosen.share)
    if chosen.unable:
        log.info("  leaves %s: TFMOT prunes no weight of such layers", ", ".join(chosen.unable))
    steps = config.epochs * (len(task.dataset.train) // min(config.batch_size, len(task.dataset.train)))
    distinct = {of_layer: _schedule(of_layer, steps) for of_layer in settings.values()}
    schedules = {path: distinct[of_layer] for path, of_layer in settings.items()}
    layers = leaves(model)
    pruned = {path: _prunable(layers[path]) for path in settings}
    masks = Masks(pruned, schedules, steps, held(model, task.promises, "prune"))
    keep_from = min(config.epochs - 1, int(np.ceil(masks.last_update / steps * config.epochs)))
    started = time.perf_counter()
    history = optimise(model, task, config, masks, keep_from)
    fine_tuning = time.perf_counter() - started
    sparser = _confirm(model, {path: of_layer.final_sparsity for path, of_layer in settings.items()})
    save(model, checkpoint)
    best = max(history[keep_from:], key=lambda epoch: epoch["validation_accuracy"])
    metrics = {
        "validation_accuracy": best["validation_accuracy"],
        "mask_update_share": masks.seconds / fine_tuning,
        "pruned_share": chosen.share,
    }
    return _told(model, chosen, sparser, metrics, history)


def _told(
    model: "tf_keras.Model",
    chosen: Chosen,
    sparser: Mapping[str, tuple[float, float]],
    metrics: dict[str, float],
    history: tuple[dict[str, float], ...],
) -> Trained:
    """What is told of a pruned model: of the layers `chosen`, and of those that are `sparser` than asked for."""
    layers = leaves(model)
    # Kernels only: a bias of 0 is folded away or into others on the way to the artifact.
    zeros = {path: show(layers[path]).zeros or 0 for path in with_kernels(model)}
    return Trained(
        metrics | {"sparsity": sum(zeros.values()) / model.count_params()},
        history,
        {
            "pruned": ", ".join(chosen.layers),
            "not_pruned": ", ".join(chosen.unable) or "none",
            "frozen": ", ".join(chosen.frozen) or "none",
            "sparser": ", ".join(f"{path} {there:.4f}" for path, (there, _) in sparser.items()) or "none",
        },
        (*_frozen(chosen), *_sparser(sparser)),
        {path: Promise(zeros=zeros[path]) for path in chosen.layers},
    )


def notes(config: MagnitudePruning, model: "tf_keras.Model") -> tuple[str, ...]:
    """What is worth knowing before `model` is pruned, a sentence each. Raises `UserError` where the policy takes none
    of its layers, or a rule matches none."""
    chosen, settings = taken(model, config)
    return (*_ruled(chosen, settings, config, list(with_kernels(model))), *_frozen(chosen))


def taken(model: "tf_keras.Model", config: MagnitudePruning) -> tuple[Chosen, dict[str, MagnitudePruning]]:
    """The layers that the policy takes and no rule spares, and the settings of each."""
    rules = first_matches(config.rules, with_kernels(model), "prune.rules") if config.rules else {}
    spared = {path for path, rule in rules.items() if rule.final_sparsity == 0}
    chosen = choose(model, config.layers, _prunable, "prune", spared)
    return chosen, {path: _of_layer(config, rules.get(path)) for path in chosen.layers}


def _of_layer(config: MagnitudePruning, rule: SparsityRule | None) -> MagnitudePruning:
    settings = ruled(config, rule)
    if rule is None or rule.initial_sparsity is not None:
        return settings
    # A schedule that goes down would set weights to zero and let them grow again.
    return replace(settings, initial_sparsity=min(settings.initial_sparsity, settings.final_sparsity))


def _ruled(
    chosen: Chosen, settings: Mapping[str, MagnitudePruning], config: MagnitudePruning, paths: Sequence[str]
) -> tuple[str, ...]:
    """Which layer gets what, where rules say so."""
    if not config.rules:
        return ()
    rules = first_matches(config.rules, paths, "prune.rules")
    left = [path for path in rules if path not in chosen.layers and rules[path].final_sparsity != 0]
    spared = [path for path in rules if rules[path].final_sparsity == 0]
    return (
        f"Prunes {_shares(settings)}" + (f"; spares {some(spared)}." if spared else "."),
        *(
            [f"The policy does not take {some(left)}, so that no rule prunes {'it' if len(left) == 1 else 'them'}."]
            if left
            else []
        ),
    )


def _shares(settings: Mapping[str, MagnitudePruning]) -> str:
    """Such as `conv2, conv3 from 0 % to 50 %; dense1 from 0 % to 90 %`."""
    layers: dict[str, list[str]] = {}
    for path, of_layer in settings.items():
        start = "" if of_layer.schedule == "constant" else f"from {100 * of_layer.initial_sparsity:g} % "
        layers.setdefault(f"{start}to {100 * of_layer.final_sparsity:g} %", []).append(path)
    return "; ".join(f"{', '.join(paths)} {share}" for share, paths in layers.items())


def _frozen(chosen: Chosen) -> tuple[str, ...]:
    if not chosen.frozen:
        return ()
    return (f"Pruned though frozen, so that no fine-tuning can make up for it: {some(chosen.frozen)}.",)


def _sparser(layers: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """`layers`: by path, the share of zeros that is there, and the one that was asked for."""
    if not layers:
        return ()
    listed = some([f"{path} {100 * there:.1f} % for {100 * asked:.1f} %" for path, (there, asked) in layers.items()])
    return (f"More zeros than asked for, and none of them was revived: {listed}.",)


def _prunable(layer: Any) -> list[Any]:
    """The weights that TFMOT prunes in `layer`, if any: kernels, and of a separable convolution the pointwise one. A
    layer of one's own names them with the method that TFMOT asks for."""
    if hasattr(layer, "get_prunable_weights"):
        weights: list[Any] = layer.get_prunable_weights()
        return weights
    if type(layer).__module__.partition(".")[0] not in ("keras", "tf_keras"):
        return []
    kind = type(layer).__name__
    if kind in RECURRENT:
        cells = getattr(layer.cell, "cells", [layer.cell])
        return [w for cell in cells if type(cell).__name__ in CELLS for w in (cell.kernel, cell.recurrent_kernel)]
    return [operator.attrgetter(name)(layer) for name in PRUNABLE.get(kind, ())]


def sparsity(model: "tf_keras.Model", paths: Iterable[str]) -> dict[str, float]:
    """Share of zeros in the weights that TFMOT prunes, by path of each layer at `paths`."""
    layers = leaves(model)
    weights = {path: [w.numpy() for w in _prunable(layers[path])] for path in paths}
    return {path: sum(int((w == 0).sum()) for w in ws) / sum(w.size for w in ws) for path, ws in weights.items()}


def _schedule(config: MagnitudePruning, steps: int) -> Any:
    import tensorflow_model_optimization as tfmot

    begin, end = int(config.begin * steps), max(int(config.begin * steps) + 1, int(config.end * steps))
    if config.schedule == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(config.final_sparsity, begin, end, config.frequency)
    return tfmot.sparsity.keras.PolynomialDecay(
        config.initial_sparsity, config.final_sparsity, begin, end, frequency=config.frequency
    )


def _confirm(model: "tf_keras.Model", asked: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """The layers with more zeros than `asked` for, each with its share of zeros and that which was asked for. Raises
    `ValueError` for one with fewer."""
    layers, sparser = leaves(model), {}
    for path, share in sparsity(model, asked).items():
        # Each weight has a mask of its own. Its share of zeros is rounded to a whole number of values.
        smallest = min(int(np.prod(w.shape)) for w in _prunable(layers[path]))
        tolerance = 1 / smallest + 1e-3
        if share < asked[path] - tolerance:
            raise ValueError(
                f"layer {path} came out with a sparsity of {share:.4f}; its schedule ends with {asked[path]}"
            )
        if share > asked[path] + tolerance:
            sparser[path] = (share, asked[path])
    return sparser
