"""What is really inside a `.tflite` file, read from its flatbuffer: bytes, dtypes, scales and zeros of every weight.

Neither TensorFlow nor an interpreter is needed, so a file that crashes the interpreter can be audited as well.
"""

import mmap
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from src.config import UserError

Granularity = Literal["none", "per-tensor", "per-channel", "blockwise"]
Computes = Literal["integer", "hybrid", "float", "nothing"]

GZIP_LEVEL = 6  # the default of gzip, and what the field's tutorials report
CHUNK = 1 << 20

# Operators that only move or convert numbers: in float they are no loss.
MOVES = {
    "CONCATENATION", "DEQUANTIZE", "EXPAND_DIMS", "FAKE_QUANT", "GATHER", "PACK", "PAD", "QUANTIZE", "RESHAPE", "SHAPE",
    "SLICE", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE", "UNPACK", "DENSIFY",
}  # fmt: skip
FLOATS = {"float16", "bfloat16", "float32", "float64"}
# Types that numpy lacks: how many bits a value takes.
PACKED_BITS = {"int2": 2, "int4": 4, "uint4": 4}
MATRIX_OPERATIONS = ("Conv2D", "MatMul", "depthwise", "Conv2DBackpropInput", "Conv3D")


@dataclass(frozen=True)
class Tensor:
    """A weight: a constant that the model computes with.

    `zeros` counts values equal to the zero point, those that a sparse encoding leaves out included; `gzip_bytes` is
    what its buffer takes alone and `entropy_bits` the bound of `entropy_bits()`, both only where asked for.
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
    """`computes`: in integers; in integers on activations that it quantizes as it goes (hybrid); in float; or
    nothing."""

    name: str
    layer: str
    computes: Computes
    weights: str | None  # dtype of its first weight


@dataclass(frozen=True)
class Audit:
    """What was found. `sparsity` is the share of zeros over all weights; `compressors` holds bytes by compressor."""

    tflite_bytes: int
    gzip_bytes: int
    sparsity: float
    input_dtype: str
    output_dtype: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    compressors: Mapping[str, int] = field(default_factory=dict)

    @property
    def values(self) -> int:
        return sum(tensor.values for tensor in self.tensors)

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
                None if any(t.gzip_bytes is None for t in group) else sum(t.gzip_bytes or 0 for t in group),
            )
            for name, group in groups.items()
        )


def audit(path: Path, attribute: bool = False, compressors: Sequence[str] = ()) -> Audit:
    """Reads the artifact at `path`.

    A weight is a constant of floating-point type or with a quantization scale: kernels, biases, what batch
    normalization was folded into; not the shapes, axes and paddings that operators take as well. The same numbers
    count in every scheme.

    `attribute` adds gzip bytes and entropy per tensor (as slow again as the gzip of the whole, in a second thread);
    `compressors` (of `COMPRESSORS`) adds what others make of the whole file.

    Raises `UserError` if the file is no TFLite model or a compressor is unknown or not installed.
    """
    unknown = [name for name in compressors if name not in COMPRESSORS]
    if unknown:
        raise UserError(f"audit.compressors={unknown[0]}: takes of {', '.join(COMPRESSORS)}")
    if "zstd" in compressors and find_spec("zstandard") is None:
        raise UserError("audit.compressors=zstd: takes the package zstandard (the extra `zstd`)")
    data = _mapped(path)
    with ThreadPoolExecutor(2) as threads:
        whole = threads.submit(gzip_bytes, data)
        others = {name: threads.submit(COMPRESSORS[name], data) for name in compressors}
        try:
            model = _model(data, path)
            tensors, operators = _read(model, data, attribute)
            subgraph = model.Subgraphs(0)
            dtypes = [_dtype(subgraph.Tensors(f(0))) for f in (subgraph.Inputs, subgraph.Outputs)]
        except (struct.error, IndexError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a whole TFLite model ({type(error).__name__}: {error})") from error
        values = sum(tensor.values for tensor in tensors)
        return Audit(
            tflite_bytes=len(data),
            gzip_bytes=whole.result(),
            sparsity=sum(tensor.zeros for tensor in tensors) / values if values else 0.0,
            input_dtype=dtypes[0],
            output_dtype=dtypes[1],
            tensors=tuple(tensors),
            operators=tuple(operators),
            compressors={name: future.result() for name, future in others.items()},
        )


def gives_probabilities(path: Path) -> bool:
    """Whether the first output comes from a softmax, seen through operators that only move or convert numbers."""
    model = _model(_mapped(path), path)
    subgraph = model.Subgraphs(0)
    producers = {
        operator.Outputs(j): operator
        for operator in (subgraph.Operators(k) for k in range(subgraph.OperatorsLength()))
        for j in range(operator.OutputsLength())
    }
    operator = producers.get(subgraph.Outputs(0))
    while operator is not None and (name := _operator_name(model, operator)) in MOVES:
        operator = producers.get(operator.Inputs(0))
    return operator is not None and name == "SOFTMAX"


def is_model(data: Any) -> bool:
    """Whether the bytes of a file, or the first eight of them, are those of a TFLite model."""
    return bytes(data[4:8]) == b"TFL3"


def is_sparse_encoded(path: Path) -> bool:
    """Whether any tensor is stored sparsely: some such files crash the interpreter (LiteRT 2.3)."""
    subgraph = _model(_mapped(path), path).Subgraphs(0)
    return any(subgraph.Tensors(i).Sparsity() is not None for i in range(subgraph.TensorsLength()))


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
    counts = counts[counts > 0].astype(float)
    return float(-(counts * np.log2(counts / counts.sum())).sum()) if len(counts) else 0.0


def _histogram(plane: np.ndarray) -> np.ndarray:
    """In chunks: bincount makes eight-byte integers of what it is given."""
    return sum(
        (np.bincount(plane[i : i + CHUNK], minlength=256) for i in range(0, len(plane), CHUNK)),
        start=np.zeros(256, dtype=np.int64),
    )


# --- The flatbuffer --------------------------------------------------------------------------------------------


def _mapped(path: Path) -> mmap.mmap | bytes:
    """The bytes of a file, read where they are looked at. The last view on them that goes unmaps the file."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); takes a .tflite file") from None


def _model(data: Any, path: Path) -> Any:
    if not is_model(data):
        raise UserError(f"{path}: not a TFLite model (no TFL3 at byte 4)")
    return schema.Model.GetRootAs(data)


def _read(model: Any, data: Any, attribute: bool) -> tuple[list[Tensor], list[Operator]]:
    tensors: list[Tensor] = []
    operators: list[Operator] = []
    seen: set[int] = set()
    for g in range(model.SubgraphsLength()):
        subgraph = model.Subgraphs(g)
        ops = [subgraph.Operators(k) for k in range(subgraph.OperatorsLength())]
        names = [_operator_name(model, op) for op in ops]
        weights = {i for i in range(subgraph.TensorsLength()) if _is_weight(model, subgraph.Tensors(i))}
        # Weights in half precision, or sparse, reach their operator through a DEQUANTIZE or DENSIFY.
        unpacked = {
            op.Outputs(0): op.Inputs(0)
            for op, name in zip(ops, names, strict=True)
            if name in ("DEQUANTIZE", "DENSIFY") and op.Inputs(0) in weights
        }
        for i in sorted(unpacked, reverse=True):  # DENSIFY, then DEQUANTIZE
            unpacked[i] = unpacked.get(unpacked[i], unpacked[i])
        for op, name in zip(ops, names, strict=True):
            if op.OutputsLength() and op.Outputs(0) in unpacked:
                continue
            inputs = [i for i in (op.Inputs(j) for j in range(op.InputsLength())) if i >= 0]
            mine = [unpacked.get(i, i) for i in inputs if unpacked.get(i, i) in weights]
            own = [subgraph.Tensors(i) for i in mine]
            layer = _layer(own[0] if own else subgraph.Tensors(op.Outputs(0)))
            activations = [subgraph.Tensors(i) for i in inputs if i not in weights and i not in unpacked]
            activations += [subgraph.Tensors(op.Outputs(j)) for j in range(op.OutputsLength())]
            in_float = any(_dtype(t) in FLOATS for t in activations)
            hybrid = any(i in weights and _dtype(subgraph.Tensors(i)) not in FLOATS for i in inputs)
            computes: Computes = (
                "nothing" if name in MOVES else "integer" if not in_float else "hybrid" if hybrid else "float"
            )
            operators.append(Operator(name, layer, computes, _dtype(own[0]) if own else None))
            for tensor in own:
                if tensor.Buffer() not in seen:
                    seen.add(tensor.Buffer())
                    tensors.append(_tensor(model, data, tensor, layer, attribute))
    return tensors, operators


def _tensor(model: Any, data: Any, tensor: Any, layer: str, attribute: bool) -> Tensor:
    raw = _buffer(model, data, tensor)
    dtype = _dtype(tensor)
    shape = tuple(int(n) for n in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
    values = int(np.prod(shape, dtype=np.int64))
    sparse = tensor.Sparsity() is not None
    stored = _values(raw, dtype)[: None if sparse else values]
    zero = stored == _zero(tensor, stored, shape, sparse)
    return Tensor(
        name=tensor.Name().decode(),
        layer=layer,
        dtype=dtype,
        shape=shape,
        granularity=_granularity(tensor),
        sparse_encoded=sparse,
        values=values,
        zeros=values - int(np.count_nonzero(~zero)),
        bytes=raw.nbytes,
        gzip_bytes=gzip_bytes(raw) if attribute else None,
        entropy_bits=entropy_bits(stored, zero) if attribute else None,
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
    return np.broadcast_to(along, shape).reshape(-1)


def _values(raw: np.ndarray, dtype: str) -> np.ndarray:
    """The stored values, flat; packed ones unpacked to a byte each, low bits first."""
    if bits := PACKED_BITS.get(dtype):
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        unpacked = ((raw[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)
        return unpacked if dtype.startswith("u") else (unpacked << (8 - bits)).view(np.int8) >> (8 - bits)
    # numpy has no bfloat16: its zeros are those of an integer without the sign bit.
    return raw.view(np.uint16) & 0x7FFF if dtype == "bfloat16" else raw.view(np.dtype(dtype))


def _buffer(model: Any, data: Any, tensor: Any) -> np.ndarray:
    """uint8 bytes of a constant; those of models above 2 GB lie behind the flatbuffer."""
    buffer = model.Buffers(tensor.Buffer())
    if buffer.Offset() > 1:
        return np.frombuffer(data, np.uint8, buffer.Size(), buffer.Offset())
    return buffer.DataAsNumpy() if buffer.DataLength() else np.empty(0, np.uint8)


def _is_weight(model: Any, tensor: Any) -> bool:
    buffer = model.Buffers(tensor.Buffer())
    if not (buffer.DataLength() or buffer.Offset() > 1):
        return False
    quantization = tensor.Quantization()
    return _dtype(tensor) in FLOATS or (quantization is not None and _granularity(tensor) != "none")


def _granularity(tensor: Any) -> Granularity:
    quantization = tensor.Quantization()
    if quantization is None:
        return "none"
    if quantization.DetailsType() == schema.QuantizationDetails.BlockwiseQuantization:
        return "blockwise"
    scales = quantization.ScaleLength()
    return "none" if not scales else "per-tensor" if scales == 1 else "per-channel"


def _layer(tensor: Any) -> str:
    """The layer's name in Keras where the converter kept it: `model/block/conv/Conv2D;…` is of `block/conv`."""
    parts = tensor.Name().decode().split(";")
    best = next((part for part in parts if part.endswith(MATRIX_OPERATIONS)), parts[0])
    path = best.split("/")
    return "/".join(path[1:-1]) if len(path) > 2 else path[0]


@cache
def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


def _dtype(tensor: Any) -> str:
    return _names(schema.TensorType)[tensor.Type()].lower()


def _operator_name(model: Any, operator: Any) -> str:
    code = model.OperatorCodes(operator.OpcodeIndex())
    # Old files hold the code in a field of one byte.
    return _names(schema.BuiltinOperator)[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]


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
    if floats := left_in_float(found, asked):
        listed = ", ".join(f"{op.name} ({op.layer})" for op in floats[:4]) + (", …" if len(floats) > 4 else "")
        yield f"{len(floats)} of {len(found.operators)} operators stayed in float: {listed}."
    if asked.activations not in FLOATS and (found.input_dtype, found.output_dtype) != (asked.activations,) * 2:
        yield f"It takes {found.input_dtype} and gives {found.output_dtype}, where {asked.activations} was asked for."
    if found.sparsity < asked.sparsity - tolerance:
        yield (
            f"Sparsity was lost on the way: {asked.sparsity:.1%} of the weights were pruned, "
            f"{found.sparsity:.1%} are zero in the file."
        )
    if asked.sparsity > 0 and not any(tensor.sparse_encoded for tensor in found.tensors):
        yield (
            "Pruning can't make it faster on this runtime: its weights are stored densely, and dense kernels multiply "
            "zeros like any other number. The zeros only make the file smaller once it is compressed."
        )
