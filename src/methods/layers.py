"""Which layers of a model a method takes, what rules say of single ones, and how zeros in the others are held."""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as schema

from src.models.checkpoint import kernels, leaves
from src.settings.check import STRICT, Unfit, UserError

if TYPE_CHECKING:
    import tf_keras

# Layers of Keras that have a kernel.
KERNELS = (
    *("Dense", "EinsumDense", "Embedding", "Conv1D", "Conv2D", "Conv3D", "SeparableConv1D", "SeparableConv2D"),
    *("DepthwiseConv1D", "DepthwiseConv2D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    *("LocallyConnected1D", "LocallyConnected2D", "LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
    *("MultiHeadAttention", "Bidirectional", "TimeDistributed", "RNN"),
)


def _is_regular(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression ({error})") from None
    return value


# Of whole paths of layers, such as `conv2` or, in a nested model, `outer/conv2`.
Pattern = Annotated[str, AfterValidator(_is_regular)]


@schema(frozen=True, config=STRICT)
class Layers:
    """A policy: which layers a method takes."""

    types: tuple[str, ...]
    pattern: Pattern = ".*"
    min_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    spare_first_convolution: bool = True
    spare_classifier: bool = True

    @property
    def is_usual(self) -> bool:
        """Whether it surely takes some layer of each architecture of this project."""
        return {"Dense", "Conv2D"} <= set(self.types) and self.pattern == ".*" and self.min_share <= 0.05

    def check_model(self, model: Any, key: str) -> None:
        """Raises `UserError` for a type of layer that neither Keras nor the modules that the settings of `model` name
        have; `key` is that of this policy."""
        own = [path.rpartition(".")[2] for path in getattr(model, "custom_objects", ())]
        for kind in self.types:
            if kind not in (*KERNELS, *own):
                close = difflib.get_close_matches(kind, (*KERNELS, *own), 1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise UserError(
                    f"{key}.types={kind}: no layer with a kernel; {hint}takes types of Keras such as Conv2D, and those "
                    "in model.custom_objects"
                )


@schema(frozen=True, config=STRICT)
class Rule:
    """For layers whose path the pattern `layers` matches. What else a rule of a method has are settings of that method,
    by the same names; None leaves a setting as it is."""

    layers: Pattern

    def settings(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "layers"}
        return {name: value for name, value in values.items() if value is not None}


AnyRule = TypeVar("AnyRule", bound=Rule)
Settings = TypeVar("Settings", bound=Any)


def first_matches(rules: Sequence[AnyRule], paths: Iterable[str], key: str) -> dict[str, AnyRule]:
    """The first of `rules` that matches each of `paths`, where one does. Raises `UserError` for a rule that is the
    first for no path; `key` is that of the rules, such as `prune.rules`."""
    matching = {path: [rule for rule in rules if re.fullmatch(rule.layers, path)] for path in paths}
    for rule in rules:
        if any(found and found[0] is rule for found in matching.values()):
            continue
        if hidden := [path for path, found in matching.items() if any(each is rule for each in found)]:
            raise UserError(
                f"{key}.layers={rule.layers}: earlier rules match all that it matches ({some(hidden)}), and the first "
                "match wins; takes rules for single layers before those for many"
            )
        raise UserError(f"{key}.layers={rule.layers}: matches none of the layers {', '.join(matching)}")
    return {path: found[0] for path, found in matching.items() if found}


def ruled(settings: Settings, rule: Rule | None) -> Settings:
    """The settings of a layer: those of its method, and what its rule says of them."""
    return replace(settings, **rule.settings()) if rule else settings


@dataclass(frozen=True)
class Chosen:
    """The paths of the layers that a policy takes, and the share of the model's parameters that the method can change
    in them. `frozen` are those of them whose weights don't train. `unable` are layers that the policy names and in
    which the method can change no weight."""

    layers: tuple[str, ...]
    share: float
    frozen: tuple[str, ...] = ()
    unable: tuple[str, ...] = ()


def with_kernels(model: "tf_keras.Model") -> dict[str, Any]:
    """The layers of `model` that have a kernel, by path."""
    return {path: layer for path, layer in leaves(model).items() if kernels(layer)}


def choose(
    model: "tf_keras.Model",
    policy: Layers,
    weights: Callable[[Any], Sequence[Any]],
    key: str,
    spared: Collection[str] = (),
) -> Chosen:
    """The layers of `model` that `policy` takes, but for those that are `spared`. `weights` gives the variables of a
    layer that the method can change. Raises `UserError`, which names the method by its `key`, where none is left."""
    layers = with_kernels(model)
    passed_over = set(spared)
    convolutions = [path for path, layer in layers.items() if "Conv" in type(layer).__name__]
    if policy.spare_first_convolution and convolutions:
        passed_over.add(convolutions[0])
    if policy.spare_classifier and layers:
        passed_over.add(list(layers)[-1])
    total = model.count_params()
    sizes, unable = {}, []
    for path, layer in layers.items():
        if type(layer).__name__ in policy.types and re.fullmatch(policy.pattern, path) and path not in passed_over:
            size = sum(int(np.prod(w.shape)) for w in weights(layer))
            if not size:
                unable.append(path)
            elif size / total >= policy.min_share:
                sizes[path] = size
    if not sizes:
        rules = " that no rule spares" if spared else ""
        spares = {"the first convolution": policy.spare_first_convolution, "the classifier": policy.spare_classifier}
        named = " and ".join(name for name, is_spared in spares.items() if is_spared)
        raise Unfit(
            f"{key}.layers: takes none of the layers {', '.join(layers)}{rules}: types {', '.join(policy.types)}, "
            f"pattern {policy.pattern!r}, at least {policy.min_share:.1%} of all parameters"
            f"{', without ' * bool(named)}{named}"
        )
    training = {id(weight) for weight in model.trainable_weights}
    frozen = [path for path in sizes if not training & {id(weight) for weight in weights(layers[path])}]
    return Chosen(tuple(sizes), sum(sizes.values()) / total, tuple(frozen), tuple(unable))


def some(names: Sequence[str], most: int = 6) -> str:
    """The names, but for those beyond the first few, which are counted."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
