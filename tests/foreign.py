"""`.tflite` files as other tools than TensorFlow's converter make them, put together from the schema."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


@dataclass
class T:
    """A tensor. `values` makes it a constant; `buffer` is the number of one that others have as well; `behind` puts
    the values behind the flatbuffer; `axis` is the dimension that has a scale each; `sparse` says that zeros are left
    out of the values, `blockwise` that the scales are in a tensor of their own."""

    name: str | None
    shape: Sequence[int]
    dtype: str = "FLOAT32"
    values: np.ndarray | None = None
    scales: Sequence[float] = ()
    zero_points: Sequence[int] = ()
    open: Sequence[int] = ()
    buffer: int | None = None
    behind: bool = False
    axis: int = 0
    sparse: bool = False
    blockwise: bool = False


@dataclass
class Op:
    name: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: Any = None  # (member of BuiltinOptions, object)
    custom: bool = False


@dataclass
class G:
    """A subgraph."""

    tensors: Sequence[T]
    operators: Sequence[Op]
    inputs: Sequence[int]
    outputs: Sequence[int]


def tflite(*graphs: G, signatures: Sequence[tuple[str, int, dict[str, int], dict[str, int]]] = ()) -> bytes:
    """`signatures`: name, subgraph, and inputs and outputs by name."""
    model = schema.ModelT()
    model.version = 3
    model.buffers, model.operatorCodes, model.subgraphs = [schema.BufferT()], [], []
    shared: dict[int, int] = {}
    behind: list[tuple[Any, bytes]] = []
    for graph in graphs:
        made = schema.SubGraphT()
        made.inputs, made.outputs = list(graph.inputs), list(graph.outputs)
        made.tensors = [_tensor(each, model, shared, behind) for each in graph.tensors]
        made.operators = [_operator(each, model) for each in graph.operators]
        model.subgraphs.append(made)
    model.signatureDefs = [_signature(*each) for each in signatures]
    content = _packed(model)
    if behind:
        # Every offset is a number above 1 of the same width: packed again with the right ones, nothing moves.
        at = len(content)
        for buffer, raw in behind:
            buffer.offset, buffer.size = at, len(raw)
            at += len(raw)
        content = _packed(model) + b"".join(raw for _, raw in behind)
    return content


def _packed(model: Any) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(given: T, model: Any, shared: dict[int, int], behind: list[tuple[Any, bytes]]) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape = given.name, list(given.shape)
    tensor.type = getattr(schema.TensorType, given.dtype)
    tensor.shapeSignature = list(given.open) or None
    if given.scales:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = list(given.scales)
        tensor.quantization.zeroPoint = list(given.zero_points) or [0] * len(given.scales)
        tensor.quantization.quantizedDimension = given.axis
    if given.blockwise:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
        tensor.quantization.details = schema.BlockwiseQuantizationT()
    if given.sparse:
        tensor.sparsity = schema.SparsityParametersT()
    if given.buffer in shared:
        tensor.buffer = shared[given.buffer]
    elif given.values is not None:
        buffer = schema.BufferT()
        raw = given.values.tobytes()
        if given.behind:
            buffer.offset, buffer.size = 2, len(raw)
            behind.append((buffer, raw))
        else:
            buffer.data = np.frombuffer(raw, np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
        if given.buffer is not None:
            shared[given.buffer] = tensor.buffer
    return tensor


def _operator(given: Op, model: Any) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.CUSTOM if given.custom else getattr(schema.BuiltinOperator, given.name)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
    code.customCode = given.name if given.custom else None
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = list(given.inputs), list(given.outputs)
    if given.options:
        operator.builtinOptionsType, operator.builtinOptions = given.options
    return operator


def _signature(name: str, subgraph: int, inputs: dict[str, int], outputs: dict[str, int]) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = name, subgraph
    made.inputs, made.outputs = _map(inputs), _map(outputs)
    return made


def _map(tensors: dict[str, int]) -> list[Any]:
    entries = []
    for name, index in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        entries.append(entry)
    return entries


def options(kind: str, **values: Any) -> tuple[int, Any]:
    made = getattr(schema, kind + "T")()
    for key, value in values.items():
        setattr(made, key, value)
    return getattr(schema.BuiltinOptions, kind), made


# --- Whole files -----------------------------------------------------------------------------------------------


def dense(name: str, weights: str | None, outputs: str | None, **tensor: Any) -> bytes:
    """One fully connected operator, 4 to 3, called `name` by its input."""
    kernel = np.arange(12, dtype=np.float32)
    tensors = [T(name, [1, 4]), T(weights, [3, 4], values=kernel, **tensor), T(outputs, [1, 3])]
    return tflite(G(tensors, [Op("FULLY_CONNECTED", [0, 1, -1], [2], options("FullyConnectedOptions"))], [0], [2]))


def chain(names: Sequence[tuple[str | None, str | None]], same_buffer: bool = False) -> bytes:
    """Fully connected operators, 4 to 4, one after the other: (name of its kernel, name of what it gives) of each."""
    kernel = np.diag([1, 2, 3, 4]).astype(np.float32)
    tensors, operators, last = [T("input", [1, 4])], [], 0
    for weights, outputs in names:
        tensors += [T(weights, [4, 4], values=kernel, buffer=1 if same_buffer else None), T(outputs, [1, 4])]
        at = len(tensors)
        operators.append(Op("FULLY_CONNECTED", [last, at - 2, -1], [at - 1], options("FullyConnectedOptions")))
        last = at - 1
    return tflite(G(tensors, operators, [0], [last]))


def lookup(rows: int, before: str | None = None) -> bytes:
    """Four int32 indices into a table of `rows`, which go through the operator `before` first: ADD adds 50."""
    table = np.arange(2 * rows, dtype=np.float32)
    tensors = [T("ids", [1, 4], "INT32"), T("table", [rows, 2], values=table), T("found", [1, 4, 2])]
    gather = Op("GATHER", [1, 0], [2], options("GatherOptions", axis=0))
    operators = [gather]
    if before == "ADD":
        tensors += [T("fifty", [1], "INT32", values=np.array([50], np.int32)), T("sum", [1, 4], "INT32")]
        operators = [Op("ADD", [0, 3], [4], options("AddOptions")), gather]
        gather.inputs = [1, 4]
    elif before == "RESHAPE":
        tensors += [T("shape", [2], "INT32", values=np.array([1, 4], np.int32)), T("same", [1, 4], "INT32")]
        operators = [Op("RESHAPE", [0, 3], [4], options("ReshapeOptions", newShape=[1, 4])), gather]
        gather.inputs = [1, 4]
    return tflite(G(tensors, operators, [0], [2]))


def counting(limit: float) -> bytes:
    """Counts up by its input until `limit` is reached: for ever where the input is zero, or `limit` infinite."""
    body = G(
        [T("i", [1]), T("step", [1]), T("next", [1])], [Op("ADD", [0, 1], [2], options("AddOptions"))], [0, 1], [2, 1]
    )
    condition = G(
        [T("i", [1]), T("step", [1]), T("limit", [1], values=np.array([limit], np.float32)), T("go", [1], "BOOL")],
        [Op("LESS", [0, 2], [3], options("LessOptions"))],
        [0, 1],
        [3],
    )
    main = G(
        [T("step", [1]), T("zero", [1], values=np.zeros(1, np.float32)), T("i", [1]), T("out", [1])],
        [Op("WHILE", [1, 0], [2, 3], options("WhileOptions", condSubgraphIndex=1, bodySubgraphIndex=2))],
        [0],
        [2],
    )
    return tflite(main, condition, body)
