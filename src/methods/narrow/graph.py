"""The layers of a functional model in the order in which they are called, nested models unfolded, for both Kerases."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.models.fitted import is_functional
from src.models.kerases import keras_of


@dataclass(frozen=True)
class Call:
    """One call of the layer or function at `path`. `inputs` and `outputs` are ids of tensors, `shapes` and `gives`
    their shapes without the batch, None for what is open. `constants` are arrays among its arguments."""

    path: str
    layer: Any
    inputs: Sequence[int]
    outputs: Sequence[int]
    shapes: Sequence[tuple[int | None, ...]]
    gives: Sequence[tuple[int | None, ...]]
    constants: Sequence[np.ndarray]

    @property
    def kind(self) -> str:
        """The name of its type; of a function that Keras 2 holds as a layer, such as `tf.math.add`, that of the
        function."""
        kind = type(self.layer).__name__
        if kind == "TFOpLambda":
            return str(self.layer.symbol.rpartition(".")[2])
        return kind


@dataclass(frozen=True)
class Graph:
    """The calls of a model, the ids of the tensors that it gives, and of those that the inputs of nested models stand
    for, by their paths."""

    calls: tuple[Call, ...]
    outputs: tuple[int, ...]
    nested: dict[str, int]


def graph(model: Any) -> Graph:
    """The calls of a functional model. A nested model is unfolded at each call of it: its layers are then called as
    often."""
    unfolding = _Unfolding()
    outputs = unfolding.unfold(model, "", "")
    return Graph(tuple(unfolding.calls), tuple(outputs), unfolding.nested)


class _Unfolding:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.nested: dict[str, int] = {}
        self.names: dict[tuple[str, int], int] = {}  # of a tensor, by the place and the id of what Keras has for it

    def name(self, place: str, tensor: Any) -> int:
        return self.names.setdefault((place, id(tensor)), len(self.names))

    def unfold(self, model: Any, above: str, place: str) -> list[int]:
        """Adds the calls of `model`, whose layers have paths that begin with `above`; `place` tells one call of it from
        another. Gives the names of its outputs."""
        inner = getattr(model, "_functional", None) or model  # Sequential of Keras 3
        for depth in sorted(inner._nodes_by_depth, reverse=True):
            for node in inner._nodes_by_depth[depth]:
                layer, takes, gives, arguments = _node(node)
                if not takes:  # an input
                    continue
                path = above + layer.name
                if isinstance(layer, keras_of(model).Model) and is_functional(layer):
                    self._unfold_nested(layer, path, place, takes, gives)
                    continue
                inputs, outputs = ([self.name(place, tensor) for tensor in tensors] for tensors in (takes, gives))
                shapes, given = ([tuple(tensor.shape[1:]) for tensor in tensors] for tensors in (takes, gives))
                self.calls.append(Call(path, layer, inputs, outputs, shapes, given, list(_constants(arguments))))
        return [self.name(place, tensor) for tensor in inner.outputs]

    def _unfold_nested(self, layer: Any, path: str, place: str, takes: list[Any], gives: list[Any]) -> None:
        within = f"{place}{path}#{len(self.calls)}/"
        for given, taken in zip((getattr(layer, "_functional", None) or layer).inputs, takes, strict=True):
            self.names[within, id(given)] = self.name(place, taken)
            self.nested.setdefault(f"{path}/{given._keras_history[0].name}", self.name(place, taken))
        for made, found in zip(gives, self.unfold(layer, f"{path}/", within), strict=True):
            self.names[place, id(made)] = found


def _node(node: Any) -> tuple[Any, list[Any], list[Any], Any]:
    """Layer, tensors taken and given, arguments of a node of Keras 2 or 3."""
    import tensorflow as tf

    if hasattr(node, "operation"):
        arguments = (node.arguments.args, node.arguments.kwargs)
        return node.operation, list(node.arguments.keras_tensors), list(node.output_tensors), arguments
    takes = [] if node.is_input else list(node.keras_inputs)
    return node.layer, takes, list(tf.nest.flatten(node.outputs)), (node.call_args, node.call_kwargs)


def _constants(arguments: Any) -> Iterator[np.ndarray]:
    """The arrays among arguments, and the lists of numbers."""
    import tensorflow as tf

    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, list | tuple):
        if len(arguments) > 1 and all(isinstance(value, int | float) for value in arguments):
            yield np.asarray(arguments)
            return
        for value in arguments:
            yield from _constants(value)
    elif not hasattr(arguments, "_keras_history") and (
        isinstance(arguments, np.ndarray) or tf.is_tensor(arguments) or hasattr(arguments, "assign")
    ):
        yield np.asarray(arguments)
