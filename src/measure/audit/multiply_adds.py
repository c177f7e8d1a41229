"""How often an inference multiplies and adds, read off the shapes in a `.tflite` file. Knows no value of a weight."""

import math
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from src.measure import tflite
from src.measure.tflite import Graph, Model, Operation

# Where recurrent operators have their matrices, each of which is used once for every step of every sequence.
_LSTM = (*range(1, 9), 16)
MATRICES = {
    "BIDIRECTIONAL_SEQUENCE_LSTM": (*_LSTM, *range(18, 26), 33, *range(40, 48)),
    "BIDIRECTIONAL_SEQUENCE_RNN": (1, 2, 5, 6, 10, 11),
    "LSTM": _LSTM,
    "RNN": (1, 2),
    "SVDF": (1, 2),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM,
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2),
}
BASIC_LSTM = 5  # inputs of the kernel that has all its matrices in one, the third
DEEPEST = 50  # subgraphs that call one another


def multiply_adds(model: Model) -> int:
    """Of one inference by the first subgraph and by those that it calls: an open dimension, as that of the batch mostly
    is, counts as 1.

    Counted are the products of matrices: convolutions of every kind, dense and recurrent layers, BATCH_MATMUL; as dense
    kernels execute them, which multiply zeros and what pads an image like any other number. Additions of biases,
    normalization that was not folded, poolings and activations count nothing, nor does what a custom operator does.

    The body of a loop counts as often as it runs where its counters go by constants, as those of recurrent layers do;
    once where the file does not say how often. Of two branches the larger one counts.

    Raises one of `tflite.BROKEN` where the file contradicts itself.
    """
    total = _of_graph(model, 0, (), {})
    if not 0 <= total < 2**63:
        raise ValueError(f"{total:e} multiply-adds")
    return total


def _of_graph(model: Model, index: int, callers: tuple[int, ...], known: dict[int, int]) -> int:
    if index in callers or len(callers) > DEEPEST or not 0 <= index < len(model.graphs):
        raise ValueError(f"subgraph {index}, called by {callers}")
    if index not in known:
        graph, callers = model.graphs[index], (*callers, index)

        def called(subgraph: int) -> int:
            return _of_graph(model, subgraph, callers, known)

        known[index] = 0
        for operation in graph.operations:
            if operation.name == "WHILE":
                how = _options(operation, schema.WhileOptions)
                condition, body = how.CondSubgraphIndex(), how.BodySubgraphIndex()
                known[index] += (called(condition) + called(body)) * _runs(model, graph, operation, condition, body)
            elif operation.name == "IF":
                how = _options(operation, schema.IfOptions)
                known[index] += max(called(how.ThenSubgraphIndex()), called(how.ElseSubgraphIndex()))
            elif operation.name == "CALL":
                known[index] += called(_options(operation, schema.CallOptions).Subgraph())
            elif operation.name == "STABLEHLO_COMPOSITE":
                known[index] += called(
                    _options(operation, schema.StableHLOCompositeOptions).DecompositionSubgraphIndex()
                )
            else:
                known[index] += _of_operation(graph, operation)
    return known[index]


def _of_operation(graph: Graph, operation: Operation) -> int:
    def shape(position: int) -> tuple[int, ...]:
        return tflite.shape(graph.tensor(operation.inputs[position]))

    def results() -> int:
        return math.prod(tflite.shape(graph.tensor(operation.outputs[0])))

    match operation.name:
        case "CONV_2D":  # a kernel is [out, height, width, in / groups]
            return results() * math.prod(shape(1)[1:])
        case "DEPTHWISE_CONV_2D":  # [1, height, width, out]
            return results() * math.prod(shape(1)[1:3])
        case "CONV_3D":  # [depth, height, width, in / groups, out]
            return results() * math.prod(shape(1)[:4])
        case "TRANSPOSE_CONV":  # [out, height, width, in]: each value that comes in goes into a window of every channel
            return math.prod(shape(2)) * math.prod(shape(1)[:3])
        case "CONV_3D_TRANSPOSE":  # [depth, height, width, out, in]
            return math.prod(shape(2)) * math.prod(shape(1)[:4])
        case "FULLY_CONNECTED":  # [out, in]
            return results() * shape(1)[-1]
        case "BATCH_MATMUL":
            return results() * shape(0)[-2 if _options(operation, schema.BatchMatMulOptions).AdjX() else -1]
    if operation.name not in MATRICES:
        return 0
    basic = operation.name == "LSTM" and len(operation.inputs) == BASIC_LSTM
    positions = (2,) if basic else MATRICES[operation.name]
    there = [position for position in positions if position < len(operation.inputs) and operation.inputs[position] >= 0]
    *steps, _ = shape(0)  # and of how many sequences
    return math.prod(steps) * sum(math.prod(shape(position)) for position in there)


def _runs(model: Model, graph: Graph, loop: Operation, condition: int, body: int) -> int:
    """How often `loop`, in `graph`, runs its body: while each of its counters, which begin at a constant and go up by
    one that is constant too, is less than a third one; 1 where it is another kind of loop."""
    test, step = model.graphs[condition], model.graphs[body]
    if {operation.name for operation in test.operations} - {"LESS", "LOGICAL_AND"}:
        return 1
    made_by = {index: operation for operation in step.operations for index in operation.outputs}
    runs = []
    for less in (operation for operation in test.operations if operation.name == "LESS"):
        counter, limit = less.inputs
        if counter not in test.inputs:
            continue
        at = test.inputs.index(counter)
        add = made_by.get(step.outputs[at])
        if add is None or add.name != "ADD" or step.inputs[at] not in add.inputs:
            continue
        by = add.inputs[1 - add.inputs.index(step.inputs[at])]
        first, end, up = _whole(model, graph, loop.inputs[at]), _whole(model, test, limit), _whole(model, step, by)
        if first is not None and end is not None and up is not None and up > 0:
            runs.append(max(0, math.ceil((end - first) / up)))
    return min(runs, default=1)


def _whole(model: Model, graph: Graph, index: int) -> int | None:
    """The one whole number that a tensor holds as a constant."""
    tensor = graph.tensor(index)
    raw, kind = model.constant(tensor), tflite.dtype(tensor)
    return int(raw.view(kind)[0]) if kind in ("int32", "int64") and 8 * raw.size == int(kind[3:]) else None


def _options(operation: Operation, kind: Any) -> Any:
    """Those of an operator. Raises `ValueError` where the file has none."""
    second = kind is schema.StableHLOCompositeOptions
    table = operation.table.BuiltinOptions2() if second else operation.table.BuiltinOptions()
    if table is None:
        raise ValueError(f"{operation.name} has no options")
    options = kind()
    options.Init(table.Bytes, table.Pos)
    return options
