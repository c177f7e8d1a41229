"""What of a file is run, and on what input: a signature, a shape for every input, and values that it takes.

Read from the flatbuffer, so that what can't be measured as it stands is said before anything is loaded.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.console.terminal import shown
from src.measure import tflite
from src.measure.tflite import Graph, Operation, Port, Signature, times
from src.settings.check import UserError

INTEGERS = {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"}
ANY = (-128, 255)  # what integers of which nothing is known are drawn from, as far as their type goes
LONGEST = 60  # of a name in a message; a broken file's may be a page
# Through these an index reaches the table that it chooses from as it was given.
PASSES_INDICES = {
    "BROADCAST_TO", "CAST", "CONCATENATION", "EXPAND_DIMS", "GATHER", "PACK", "RESHAPE", "REVERSE_V2", "SLICE", "SPLIT",
    "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK",
}  # fmt: skip


@dataclass(frozen=True)
class Input:
    """What one input is given: random values; of integers that stand for themselves from `low` to `high`, which are
    `guessed` where the graph does not say. `resized`: `shape` is not the one that the runtime takes by itself."""

    name: str
    tensor: int
    dtype: str
    shape: tuple[int, ...]
    resized: bool
    low: int | None = None
    high: int | None = None
    guessed: bool = False


@dataclass(frozen=True)
class Workload:
    """`signature` is "" where the file has no more than one; `index` and `subgraph` are its own, `signatures` are all.
    `rows` is of the smallest table in the file, if there is any; `unusual` says that it has to stand beside the number.
    """

    signature: str
    index: int
    subgraph: int
    inputs: tuple[Input, ...]
    signatures: tuple[str, ...]
    rows: int | None
    unusual: bool

    def __str__(self) -> str:
        parts = [f"signature {shown(self.signature, LONGEST)}"] if self.signature else []
        for each in self.inputs:
            values = "" if each.low is None else f" of {each.low} … {each.high}"
            parts.append(f"{shown(each.name, LONGEST)} {each.dtype} {times(each.shape) or 'scalar'}{values}")
        return ", ".join(parts) or "no input"

    def attempts(self) -> Iterator["Workload"]:
        """This one, and what to try where it fails, since integers that were guessed may be indices or lengths: within
        the file's smallest table, then zeros."""
        yield self
        if any(each.guessed for each in self.inputs):
            for high in dict.fromkeys([*([self.rows - 1] if self.rows else []), 0]):
                inputs = (replace(each, low=0, high=high) if each.guessed else each for each in self.inputs)
                yield replace(self, inputs=tuple(inputs))


def workload(path: Path, signature: str | None = None, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Workload:
    """How the file at `path` is measured: `signature`, where it has several; `shapes` by name of the input, or by ""
    for the only one.

    A first dimension that is open is the batch, of one; any other has to be given. Raises `UserError` where something
    is not given, or doesn't fit, with what would; and for a file that is no TFLite model.
    """
    shapes = shapes or {}
    with tflite.reading(path) as model:
        chosen = _signature(path, model.signatures, signature)
        graph = model.graphs[chosen.subgraph]
        if "" in shapes and len(chosen.inputs) != 1:
            names = f"the inputs {_listed(port.name for port in chosen.inputs)}" if chosen.inputs else "no input"
            raise UserError(f"{path}: has {names}, shape= is for a file with one; takes shape.NAME=…")
        ports = [replace(port, name=port.name or f"#{k}") for k, port in enumerate(chosen.inputs)]
        inputs = tuple(
            _input(path, port, graph, shapes.get(port.name, shapes.get("")), only=len(ports) == 1) for port in ports
        )
        named = len(model.signatures) > 1
        return Workload(
            signature=chosen.name if named else "",
            index=model.signatures.index(chosen),
            subgraph=chosen.subgraph,
            inputs=inputs,
            signatures=tuple(each.name for each in model.signatures if each.name),
            rows=min((rows for each in model.graphs for rows in _tables(each)), default=None),
            unusual=named or any(map(_unusual, inputs)),
        )


def _signature(path: Path, signatures: tuple[Signature, ...], name: str | None) -> Signature:
    by_name = {each.name: each for each in signatures}
    if name in by_name:
        return by_name[name]
    if len(signatures) > 1:
        given = f"no signature {name}" if name else "several signatures"
        raise UserError(f"{path}: has {given}; takes signature= with one of {_listed(by_name)}")
    return signatures[0]


def _input(path: Path, port: Port, graph: Graph, shape: tuple[int, ...] | None, only: bool) -> Input:
    name = shown(port.name, LONGEST)
    key = "shape" if only else f"shape.{name}"
    by_itself = tflite.shape(graph.tensor(port.tensor))
    if shape is None:
        # Of a vector, one dimension may as well be what it is a batch of.
        batch = len(port.shape) > 1 and port.shape[0] < 0
        shape = (1, *port.shape[1:]) if batch else port.shape
        if any(n <= 0 for n in shape):
            example = ",".join(str(n) if n > 0 else "224" if len(shape) == 4 else "128" for n in shape)
            raise UserError(f"{path}: input {name} is {times(port.shape)}; takes its size, such as {key}={example}")
    elif len(shape) != len(port.shape):
        raise UserError(
            f"{path}: {key}={','.join(map(str, shape))} has {len(shape)} dimensions; input "
            f"{name} takes {times(port.shape)}"
        )
    low = high = None
    guessed = False
    if port.dtype in INTEGERS and not port.quantized:
        rows = min(_rows(graph, port.tensor), default=None)
        low, high = (0, rows - 1) if rows else _any(port.dtype)
        guessed = rows is None
    return Input(port.name, port.tensor, port.dtype, shape, shape != by_itself, low, high, guessed)


def _any(dtype: str) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return max(limits.min, ANY[0]), min(limits.max, ANY[1])


def _unusual(given: Input) -> bool:
    """Whether it is something else than one image, or whatever the model is for, at the only size that it takes."""
    return given.resized or given.low is not None or (len(given.shape) > 1 and given.shape[0] != 1)


def _rows(graph: Graph, tensor: int) -> Iterator[int]:
    """Of each table that `tensor` holds indices into, by way of operators that leave them as they are."""
    todo, seen = [tensor], {tensor}
    while todo:
        index = todo.pop()
        for operation in graph.operations:
            for position, given in enumerate(operation.inputs):
                if given != index:
                    continue
                rows = _chosen_from(graph, operation, position)
                if rows:
                    yield rows
                elif operation.name in PASSES_INDICES:
                    todo += [i for i in operation.outputs if i not in seen]
                    seen.update(operation.outputs)


def _tables(graph: Graph) -> Iterator[int]:
    for operation in graph.operations:
        for position in range(len(operation.inputs)):
            if rows := _chosen_from(graph, operation, position):
                yield rows


def _chosen_from(graph: Graph, operation: Operation, position: int) -> int | None:
    """How many there are to choose from, if that input of the operator is an index."""
    match operation.name, position:
        case ("EMBEDDING_LOOKUP" | "EMBEDDING_LOOKUP_SPARSE", 0):
            table, axes = operation.inputs[-1], slice(0, 1)
        case "GATHER", 1:
            table, axis = operation.inputs[0], tflite.gather_axis(operation)
            axes = slice(axis, axis + 1 or None)
        case "GATHER_ND", 1:
            along = tflite.shape(graph.tensor(operation.inputs[1]))
            table, axes = operation.inputs[0], slice(0, along[-1] if along else None)
        case _:
            return None
    return min((n for n in tflite.shape(graph.tensor(table))[axes] if n > 0), default=None)


def _listed(names: Iterable[str]) -> str:
    return shown(", ".join(names), 2 * LONGEST)
