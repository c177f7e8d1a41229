"""The weights and the operators of a `.tflite` file, read from its flatbuffer."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from src.measure import tflite
from src.measure.audit.compressors import entropy_bits, gzip_bytes
from src.measure.audit.contents import Computes, Operator, Tensor
from src.measure.tflite import Graph, Model, Operation
from src.models.promises import most_distinct

# Operators that only move numbers, convert or make them, or call other operators: in float they are no loss.
MOVES = {
    "ASSIGN_VARIABLE", "BATCH_TO_SPACE_ND", "BITCAST", "BROADCAST_ARGS", "BROADCAST_TO", "CALL", "CALL_ONCE", "CAST",
    "CONCATENATION", "CONCAT_EMBEDDINGS", "DENSIFY", "DEPTH_TO_SPACE", "DEQUANTIZE", "DILATE", "DYNAMIC_UPDATE_SLICE",
    "EMBEDDING_LOOKUP", "EXPAND_DIMS", "FAKE_QUANT", "FILL", "GATHER", "GATHER_ND", "HASHTABLE", "HASHTABLE_FIND",
    "HASHTABLE_IMPORT", "HASHTABLE_LOOKUP", "HASHTABLE_SIZE", "IF", "IMAG", "MATRIX_DIAG", "MATRIX_SET_DIAG",
    "MIRROR_PAD", "ONE_HOT", "PACK", "PAD", "PADV2", "QUANTIZE", "RANK", "READ_VARIABLE", "REAL", "RESHAPE",
    "RESIZE_NEAREST_NEIGHBOR", "REVERSE_SEQUENCE", "REVERSE_V2", "SCATTER_ND", "SELECT", "SELECT_V2", "SHAPE", "SLICE",
    "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPARSE_TO_DENSE", "SPLIT", "SPLIT_V", "SQUEEZE",
    "STABLEHLO_BROADCAST_IN_DIM", "STABLEHLO_CASE", "STABLEHLO_COMPOSITE", "STABLEHLO_CONCATENATE",
    "STABLEHLO_CONVERT", "STABLEHLO_DYNAMIC_SLICE",
    "STABLEHLO_DYNAMIC_UPDATE_SLICE", "STABLEHLO_GATHER", "STABLEHLO_PAD", "STABLEHLO_RESHAPE", "STABLEHLO_SELECT",
    "STABLEHLO_SLICE", "STABLEHLO_TRANSPOSE", "STABLEHLO_WHILE", "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNIQUE",
    "UNPACK", "VAR_HANDLE", "WHERE", "WHILE", "ZEROS_LIKE",
}  # fmt: skip
FLOATS = {"float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"}
# Types that numpy lacks: how many bits a value takes; and, of floats, which bits say that it is not zero.
PACKED_BITS = {"int2": 2, "int4": 4, "uint4": 4}
WITHOUT_SIGN = {"bfloat16": ("uint16", 0x7FFF), "float8_e4m3fn": ("uint8", 0x7F), "float8_e5m2": ("uint8", 0x7F)}
# Where a kernel has its output channels, by operator.
CHANNELS = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0, "DEPTHWISE_CONV_2D": 3}
# The TensorFlow operations that end a Keras layer's name in a file: `model/block/conv/Conv2D`.
MATRIX_OPERATIONS = ("Conv2D", "MatMul", "depthwise", "Conv2DBackpropInput", "Conv3D")
# How litert-torch names a module, by its class and what its parent calls it: `torch.nn.modules.conv.Conv2d_stem`.
TORCH_MODULE = re.compile(r"(?:\w+\.)+([A-Z_]\w*)")


def read(model: Model, attribute: bool, distinct: bool = False) -> tuple[list[Tensor], list[Operator]]:
    """All weights and operators; `attribute` adds gzip bytes and entropy per tensor, `distinct` counts values."""
    tensors: list[Tensor] = []
    operators: list[Operator] = []
    stored: dict[int, tuple[int, str]] = {}  # by buffer: the subgraph and the name of the tensor that was first
    for g, graph in enumerate(model.graphs):
        weights = {i for i, tensor in enumerate(graph.tensors) if _is_weight(model, tensor)}
        unpacked = _unpacked(graph, weights)
        listed: set[int] = set()
        buffers: set[int] = set()
        for k, operation in enumerate(graph.operations):
            if unpacked.keys() & operation.outputs:
                continue
            inputs = [i for i in operation.inputs if i >= 0]
            mine = [unpacked.get(i, i) for i in inputs if unpacked.get(i, i) in weights]
            own = [graph.tensors[i] for i in mine]
            results = [graph.tensor(i) for i in operation.outputs if i >= 0]
            layer = _layer([*own, *results]) or f"#{k} {operation.name}"
            activations = results + [graph.tensor(i) for i in inputs if i not in weights and i not in unpacked]
            in_float = any(tflite.dtype(tensor) in FLOATS for tensor in activations)
            hybrid = any(i in weights and tflite.dtype(graph.tensors[i]) not in FLOATS for i in inputs)
            operators.append(
                Operator(
                    operation.name,
                    layer,
                    _computes(operation, in_float, hybrid),
                    tflite.dtype(own[0]) if own else None,
                    operation.custom,
                )
            )
            for i in mine:
                tensor = graph.tensors[i]
                # What another subgraph holds as well is the same weight in another signature.
                where, first = stored.setdefault(tensor.Buffer(), (g, tflite.tensor_name(tensor)))
                if i not in listed and where == g:
                    shared = first if tensor.Buffer() in buffers else None
                    read_tensor = _tensor(model, tensor, layer, attribute, shared)
                    tensors.append(_by_channel(model, tensor, read_tensor, CHANNELS.get(operation.name), distinct))
                listed.add(i)
                buffers.add(tensor.Buffer())
    return tensors, operators


def _unpacked(graph: Graph, weights: set[int]) -> dict[int, int]:
    """The weight behind each tensor that a DEQUANTIZE, a DENSIFY or both make of one: weights in half precision, or
    sparse, reach their operator through those."""
    unpacked: dict[int, int] = {}
    for operation in graph.operations:  # in the order in which they run: DENSIFY, then DEQUANTIZE
        if operation.name in ("DEQUANTIZE", "DENSIFY"):
            (given,), (result,) = operation.inputs, operation.outputs
            packed = unpacked.get(given, given)
            if packed in weights:
                unpacked[result] = packed
    return unpacked


def _computes(operation: Operation, in_float: bool, hybrid: bool) -> Computes:
    if operation.name in MOVES:
        return "nothing"
    if not in_float:
        known = not operation.custom and not operation.name.startswith("OPERATOR_")
        return "integer" if known else "unknown"
    return "hybrid" if hybrid else "float"


def _tensor(model: Model, tensor: Any, layer: str, attribute: bool, stored_as: str | None) -> Tensor:
    raw = model.constant(tensor)
    dtype, shape = tflite.dtype(tensor), tflite.shape(tensor)
    values = math.prod(shape)
    sparse = tensor.Sparsity() is not None
    stored = _values(raw, dtype)[: None if sparse else values]
    if len(stored) > values or (len(stored) < values and not sparse):
        raise ValueError(f"{values} values are stored as {len(stored)}")
    zero = stored == _zero(tensor, stored, shape, sparse)
    return Tensor(
        name=tflite.tensor_name(tensor),
        layer=layer,
        dtype=dtype,
        shape=shape,
        granularity=tflite.granularity(tensor),
        sparse_encoded=sparse,
        values=values,
        zeros=values - int(np.count_nonzero(~zero)),
        bytes=raw.nbytes,
        gzip_bytes=gzip_bytes(raw) if attribute else None,
        entropy_bits=entropy_bits(stored, zero) if attribute else None,
        stored_as=stored_as,
    )


def _by_channel(model: Model, tensor: Any, described: Tensor, axis: int | None, distinct: bool) -> Tensor:
    """`described` with what can be said of the output channels, which lie along `axis`."""
    shape = described.shape
    if axis is None or len(shape) <= max(axis, 1):  # a bias has one dimension
        return described
    different = None
    if distinct and not described.sparse_encoded:
        values = _values(model.constant(tensor), described.dtype)[: described.values].reshape(shape)
        different = most_distinct(np.moveaxis(values, axis, -1).reshape(-1, shape[axis]))
    return replace(described, channels=shape[axis], distinct=different)


def bits(dtype: str) -> int:
    """Of one value."""
    return PACKED_BITS.get(dtype) or 8 * np.dtype(WITHOUT_SIGN.get(dtype, (dtype,))[0]).itemsize


def _zero(tensor: Any, stored: np.ndarray, shape: tuple[int, ...], sparse: bool) -> Any:
    """What stands for zero, in a shape that compares with the flat `stored` values."""
    quantization = tensor.Quantization()
    if quantization is None or not quantization.ZeroPointLength():
        return 0
    points = quantization.ZeroPointAsNumpy()
    if (points == points[0]).all():
        return points[0]
    if sparse:
        raise ValueError("a sparse tensor with a zero point per channel")
    axis = quantization.QuantizedDimension()
    along = points.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return np.broadcast_to(along, shape).ravel()


def _values(raw: np.ndarray, dtype: str) -> np.ndarray:
    """The stored values, flat; packed ones unpacked to a byte each, low bits first."""
    if bits := PACKED_BITS.get(dtype):
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        unpacked = ((raw[:, None] >> shifts) & ((1 << bits) - 1)).ravel()
        return unpacked if dtype.startswith("u") else (unpacked << (8 - bits)).view(np.int8) >> (8 - bits)
    if dtype in WITHOUT_SIGN:
        kind, mask = WITHOUT_SIGN[dtype]
        return raw.view(kind) & np.array(mask, kind)
    return raw.view(np.dtype(dtype))


def _is_weight(model: Model, tensor: Any) -> bool:
    if not model.is_constant(tensor):
        return False
    return tflite.dtype(tensor) in FLOATS or tflite.granularity(tensor) != "none"


def _layer(tensors: Sequence[Any]) -> str:
    """The layer of an operator whose weights, then outputs are `tensors`: "" where none has a name. A name with a path
    says more than one without, which converters give to weights for want of a better."""
    names = [name for tensor in tensors if (name := tflite.tensor_name(tensor))]
    return layer_of(next((name for name in names if "/" in name), names[0] if names else ""))


def layer_of(name: str) -> str:
    """The layer that a tensor's name tells: of Keras, `model/block/conv/Conv2D;…` is of `block/conv`; of PyTorch, every
    part of the path is a module, and the last one the layer itself."""
    parts = [part for part in name.split(";") if part] or [""]
    best = next((part for part in parts if part.endswith(MATRIX_OPERATIONS)), parts[0])
    path = best.split("/")
    if all(TORCH_MODULE.fullmatch(part) for part in path):
        return "/".join(part.rpartition(".")[2] for part in path)
    return "/".join(path[1:-1]) if len(path) > 2 else path[0]
