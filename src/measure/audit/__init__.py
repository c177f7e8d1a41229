"""What is really inside a `.tflite` file, read from its flatbuffer: bytes, dtypes, scales and zeros of every weight.

Neither TensorFlow nor an interpreter is needed, so a file that crashes the interpreter can be audited as well.
"""

import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src.measure import tflite
from src.measure.tflite import Granularity, Model, Operation, Port
from src.settings.check import UserError

Computes = Literal["integer", "hybrid", "float", "nothing", "unknown"]

GZIP_LEVEL = 6  # the default of gzip, and what the field's tutorials report
CHUNK = 1_048_576  # bytes

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
# Operators that draw anew in every inference.
DRAWS = ("MULTINOMIAL", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM")
# Of those, the ones behind which the probabilities of a softmax are still each class's.
SEEN_THROUGH = {"CAST", "DEQUANTIZE", "EXPAND_DIMS", "FAKE_QUANT", "QUANTIZE", "RESHAPE", "SQUEEZE"}
FLOATS = {"float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"}
# Types that numpy lacks: how many bits a value takes; and, of floats, which bits say that it is not zero.
PACKED_BITS = {"int2": 2, "int4": 4, "uint4": 4}
WITHOUT_SIGN = {"bfloat16": ("uint16", 0x7FFF), "float8_e4m3fn": ("uint8", 0x7F), "float8_e5m2": ("uint8", 0x7F)}
# The TensorFlow operations that end a Keras layer's name in a file: `model/block/conv/Conv2D`.
MATRIX_OPERATIONS = ("Conv2D", "MatMul", "depthwise", "Conv2DBackpropInput", "Conv3D")
# How litert-torch names a module, by its class and what its parent calls it: `torch.nn.modules.conv.Conv2d_stem`.
TORCH_MODULE = re.compile(r"(?:\w+\.)+([A-Z_]\w*)")


@dataclass(frozen=True)
class Tensor:
    """A weight: a constant that the model computes with.

    `zeros` counts values equal to the zero point, those that a sparse encoding leaves out included; `gzip_bytes` is
    what its buffer takes alone and `entropy_bits` the bound of `entropy_bits()`, both only where asked for. `stored_as`
    names the tensor in whose buffer it lies, where several are equal and the file holds them once.
    """

    name: str
    layer: str
    dtype: str
    shape: tuple[int, ...]
    granularity: Granularity
    sparse_encoded: bool
    values: int
    zeros: int
    bytes: int
    gzip_bytes: int | None = None
    entropy_bits: float | None = None
    stored_as: str | None = None

    @property
    def sparsity(self) -> float:
        return self.zeros / self.values if self.values else 0.0


@dataclass(frozen=True)
class Layer:
    """Sums over the weights of one layer."""

    name: str
    values: int
    zeros: int
    bytes: int
    gzip_bytes: int | None

    @property
    def sparsity(self) -> float:
        return self.zeros / self.values if self.values else 0.0


@dataclass(frozen=True)
class Operator:
    """`computes`: in integers; in integers on activations that it quantizes as it goes (hybrid); in float; nothing,
    as it only moves numbers; or unknown, as only who made a custom operator knows."""

    name: str
    layer: str
    computes: Computes
    weights: str | None  # dtype of its first weight
    custom: bool = False


@dataclass(frozen=True)
class Audit:
    """What was found. `sparsity` is the share of zeros over all weights, None where no weight is to be seen;
    `compressors` holds bytes by compressor. `inputs` and `outputs` are those of the first subgraph, and their dtypes
    "nothing" where there are none.
    """

    tflite_bytes: int
    gzip_bytes: int
    sparsity: float | None
    input_dtype: str
    output_dtype: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    compressors: Mapping[str, int] = field(default_factory=dict)
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    signatures: tuple[str, ...] = ()

    @property
    def values(self) -> int:
        return sum(tensor.values for tensor in self.tensors)

    @property
    def zeros(self) -> int:
        return sum(tensor.zeros for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """What the file holds of them: a buffer that several share lies in it once."""
        return sum(tensor.bytes for tensor in self.tensors if tensor.stored_as is None)

    @property
    def random_operators(self) -> list[str]:
        """Those that draw random numbers: with them, predictions of one image differ."""
        return sorted({operator.name for operator in self.operators} & set(DRAWS))

    @property
    def layers(self) -> tuple[Layer, ...]:
        groups: dict[str, list[Tensor]] = {}
        for tensor in self.tensors:
            groups.setdefault(tensor.layer, []).append(tensor)
        return tuple(
            Layer(
                name,
                sum(t.values for t in group),
                sum(t.zeros for t in group),
                sum(t.bytes for t in group),
                None if None in (sizes := [t.gzip_bytes for t in group]) else sum(filter(None, sizes)),
            )
            for name, group in groups.items()
        )


def audit(path: Path, attribute: bool = False, compressors: Sequence[str] = ()) -> Audit:
    """Reads the artifact at `path`.

    A weight is a constant of floating-point type or with a quantization scale: kernels, biases, what batch
    normalization was folded into; not the shapes, axes and paddings that operators take as well. The same numbers
    count in every scheme. Equal weights that the file holds once are each layer's own; what several signatures have in
    common counts once.

    `attribute` adds gzip bytes and entropy per tensor (as slow again as the gzip of the whole, in a second thread);
    `compressors` (of `COMPRESSORS`) adds what others make of the whole file.

    Raises `UserError` if the file is no TFLite model or a compressor is unknown or not installed.
    """
    unknown = [name for name in compressors if name not in COMPRESSORS]
    if unknown:
        raise UserError(f"audit.compressors={unknown[0]}: takes of {', '.join(COMPRESSORS)}")
    if "zstd" in compressors and find_spec("zstandard") is None:
        raise UserError("audit.compressors=zstd: takes the package zstandard (the extra `zstd`)")
    with tflite.reading(path) as model, ThreadPoolExecutor(2) as threads:
        whole = threads.submit(gzip_bytes, model.data)
        others = {name: threads.submit(COMPRESSORS[name], model.data) for name in compressors}
        tensors, operators = _read(model, attribute)
        main = model.graphs[0]
        inputs, outputs = (tuple(map(main.port, ports)) for ports in (main.inputs, main.outputs))
        values = sum(tensor.values for tensor in tensors)
        return Audit(
            tflite_bytes=len(model.data),
            gzip_bytes=whole.result(),
            sparsity=sum(tensor.zeros for tensor in tensors) / values if values else None,
            input_dtype=_dtypes(inputs),
            output_dtype=_dtypes(outputs),
            tensors=tuple(tensors),
            operators=tuple(operators),
            compressors={name: future.result() for name, future in others.items()},
            inputs=inputs,
            outputs=outputs,
            signatures=tuple(signature.name for signature in model.signatures if signature.name),
        )


def gives_probabilities(path: Path) -> bool:
    """Whether the first output comes from a softmax, seen through operators that only convert numbers."""
    with tflite.reading(path) as model:
        graph = model.graphs[0]
        producers = {index: operation for operation in graph.operations for index in operation.outputs}
        # Popped: in a broken file they may go round in circles.
        operation = producers.pop(graph.outputs[0], None)
        while operation is not None and operation.name in SEEN_THROUGH:
            operation = producers.pop(operation.inputs[0], None)
        return operation is not None and operation.name == "SOFTMAX"


def is_sparse_encoded(path: Path) -> bool:
    """Whether any tensor is stored sparsely: some such files crash the interpreter (LiteRT 2.3)."""
    with tflite.reading(path) as model:
        return any(tensor.Sparsity() is not None for tensor in model.graphs[0].tensors)


# --- Compressors -----------------------------------------------------------------------------------------------


def gzip_bytes(data: Any, level: int = GZIP_LEVEL) -> int:
    """Bytes of `data` as one gzip member without name and time stamp: the same for the same bytes. Releases the GIL."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, 31)
    view = memoryview(data)
    return sum(len(compressor.compress(view[i : i + CHUNK])) for i in range(0, len(view), CHUNK)) + len(
        compressor.flush()
    )


def _xz_bytes(data: Any) -> int:
    import lzma

    compressor = lzma.LZMACompressor(preset=6)
    view = memoryview(data)
    return sum(len(compressor.compress(view[i : i + CHUNK])) for i in range(0, len(view), CHUNK)) + len(
        compressor.flush()
    )


def _zstd_bytes(data: Any) -> int:
    import zstandard  # type: ignore[import-not-found,unused-ignore]

    return len(zstandard.ZstdCompressor(level=19).compress(data))


COMPRESSORS = {
    "gzip6": gzip_bytes,
    "gzip9": lambda data: gzip_bytes(data, 9),
    "xz": _xz_bytes,
    "zstd": _zstd_bytes,
}


def entropy_bits(values: np.ndarray, zero: np.ndarray) -> float:
    """Bits below which no memoryless code gets: a flag per value (is it zero), then the bytes of those that are not,
    each byte position with statistics of its own. For one-byte values this is their Shannon entropy.

    `values`: `[n]`; `zero`: bool `[n]`.
    """
    flags = _entropy(np.array([np.count_nonzero(zero), len(zero) - np.count_nonzero(zero)]))
    planes = values[~zero].view(np.uint8).reshape(-1, values.dtype.itemsize)
    return flags + sum(_entropy(_histogram(planes[:, k])) for k in range(planes.shape[1]))


def _entropy(counts: np.ndarray) -> float:
    counts = counts[counts.nonzero()].astype(float)
    return float(-(counts * np.log2(counts / counts.sum())).sum()) if len(counts) else 0.0


def _histogram(plane: np.ndarray) -> np.ndarray:
    """In chunks: bincount makes eight-byte integers of what it is given."""
    return sum(
        (np.bincount(plane[i : i + CHUNK], minlength=256) for i in range(0, len(plane), CHUNK)),
        start=np.zeros(256, dtype=np.int64),
    )


# --- Weights and operators -------------------------------------------------------------------------------------


def _read(model: Model, attribute: bool) -> tuple[list[Tensor], list[Operator]]:
    tensors: list[Tensor] = []
    operators: list[Operator] = []
    stored: dict[int, tuple[int, str]] = {}  # by buffer: the subgraph and the name of the tensor that was first
    for g, graph in enumerate(model.graphs):
        weights = {i for i, tensor in enumerate(graph.tensors) if _is_weight(model, tensor)}
        # Weights in half precision, or sparse, reach their operator through a DEQUANTIZE, a DENSIFY or both.
        unpacked: dict[int, int] = {}
        for operation in graph.operations:  # in the order in which they run: DENSIFY, then DEQUANTIZE
            if operation.name in ("DEQUANTIZE", "DENSIFY"):
                (given,), (result,) = operation.inputs, operation.outputs
                packed = unpacked.get(given, given)
                if packed in weights:
                    unpacked[result] = packed
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
                    tensors.append(_tensor(model, tensor, layer, attribute, shared))
                listed.add(i)
                buffers.add(tensor.Buffer())
    return tensors, operators


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


def _dtypes(ports: Sequence[Port]) -> str:
    return ", ".join(dict.fromkeys(port.dtype for port in ports)) or "nothing"


# --- Asked for and found ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What a variant should be: the dtype of its weights and of its activations, and the share of zeros."""

    weights: str = "float32"
    activations: str = "float32"
    sparsity: float = 0.0


def left_in_float(found: Audit, asked: Asked) -> tuple[Operator, ...]:
    """The operators that compute in float although integers were asked for.

    Where only the weights should be integers (dynamic range), an operator without weights computes in float rightly.
    """
    if asked.weights in FLOATS:
        return ()
    integers = asked.activations not in FLOATS
    return tuple(
        operator
        for operator in found.operators
        if (operator.computes == "float" and (integers or operator.weights is not None))
        or (operator.computes == "hybrid" and integers)
    )


def differences(found: Audit, asked: Asked, tolerance: float = 0.005) -> tuple[str, ...]:
    """Where the artifact is not what was asked for, and what can't be had of it: sentences for a person."""
    return tuple(_differences(found, asked, tolerance))


def _differences(found: Audit, asked: Asked, tolerance: float) -> Iterator[str]:
    if drawing := found.random_operators:
        yield f"Its predictions are random: it draws random numbers in every inference ({', '.join(drawing)})."
    if floats := left_in_float(found, asked):
        listed = ", ".join(f"{op.name} ({op.layer})" for op in floats[:4]) + (", …" if len(floats) > 4 else "")
        yield f"{len(floats)} of {len(found.operators)} operators stayed in float: {listed}."
    if asked.activations not in FLOATS and (found.input_dtype, found.output_dtype) != (asked.activations,) * 2:
        yield f"It takes {found.input_dtype} and gives {found.output_dtype}, where {asked.activations} was asked for."
    sparsity = found.sparsity or 0.0
    if sparsity < asked.sparsity - tolerance:
        yield (
            f"Sparsity was lost on the way: {asked.sparsity:.1%} of the weights were pruned, "
            f"{sparsity:.1%} are zero in the file."
        )
    if asked.sparsity and not any(tensor.sparse_encoded for tensor in found.tensors):
        yield (
            "Pruning can't make it faster on this runtime: its weights are stored densely, and dense kernels multiply "
            "zeros like any other number. The zeros only make the file smaller once it is compressed."
        )
