"""The flatbuffer of a `.tflite` file, read without TensorFlow and without an interpreter.

A file may come from anywhere: one that can't be read, is something else, was cut short or altered is a `UserError` in
one line, whatever its bytes are.
"""

import mmap
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from src.settings.check import UserError
from src.settings.head import AS_FOUND, Head

Granularity = Literal["none", "per-tensor", "per-channel", "blockwise"]

TIMES = "\N{MULTIPLICATION SIGN}"
IDENTIFIER = b"TFL3"  # at byte 4
# Operators behind which the probabilities of a softmax are still each class's.
SEEN_THROUGH = {"CAST", "DEQUANTIZE", "EXPAND_DIMS", "FAKE_QUANT", "QUANTIZE", "RESHAPE", "SQUEEZE"}
# What bytes that mean something else raise in the generated readers, which check nothing themselves.
BROKEN = (struct.error, IndexError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)
NO_FILES = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a pipe, which can be read only once"),
    (stat.S_ISSOCK, "is a socket"),
    (lambda mode: not stat.S_ISREG(mode), "is a device"),
)
CONTROL = set(range(32)) - set(b"\t\n\f\r")  # what no text has
BEGINNINGS = (
    (b"version https://git-lfs", "is a Git LFS pointer; `git lfs pull` fetches the file that it stands for"),
    (b"PK\x03\x04", "is a zip archive (.keras, .task and .pt files are)"),
    (b"\x89HDF", "is an HDF5 file (.h5)"),
    (b"\x1f\x8b", "is compressed with gzip"),
    (b"<", "is a web page or XML"),
)


@dataclass(frozen=True)
class Port:
    """An input or an output. A dimension of -1 is open; `tensor` is the index in its subgraph."""

    name: str
    tensor: int
    dtype: str
    shape: tuple[int, ...]
    quantized: bool


@dataclass(frozen=True)
class Signature:
    """A way to call the model. Files of before 2020 have none; they are called by their first subgraph, under ""."""

    name: str
    subgraph: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Operation:
    """A node of a subgraph. `inputs` and `outputs` are indices of tensors; an input that is left out is -1."""

    name: str
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    table: Any


@dataclass(frozen=True)
class Graph:
    """A subgraph. `tensors` are those of the schema."""

    tensors: tuple[Any, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def tensor(self, index: int) -> Any:
        if index < 0:  # Python would take one from the end
            raise IndexError(f"there is no tensor {index}")
        return self.tensors[index]

    def port(self, index: int, name: str = "") -> Port:
        tensor = self.tensor(index)
        return Port(
            name=name or tensor_name(tensor),
            tensor=index,
            dtype=dtype(tensor),
            shape=_ints(tensor.ShapeSignatureAsNumpy()) or shape(tensor),
            quantized=granularity(tensor) != "none",
        )


@dataclass(frozen=True)
class Model:
    """`data`: all bytes of the file; `buffers` are the schema's."""

    data: Any
    buffers: tuple[Any, ...]
    graphs: tuple[Graph, ...]
    signatures: tuple[Signature, ...]

    def constant(self, tensor: Any) -> np.ndarray:
        """uint8 `[bytes]` of a tensor that the file holds, empty for any other. Buffers may lie behind the flatbuffer,
        as those of models above 2 GB do."""
        buffer = self._buffer(tensor)
        if buffer.Offset() > 1:
            return np.frombuffer(self.data, np.uint8, buffer.Size(), buffer.Offset())
        return buffer.DataAsNumpy() if buffer.DataLength() else np.empty(0, np.uint8)

    def is_constant(self, tensor: Any) -> bool:
        buffer = self._buffer(tensor)
        return bool(buffer.DataLength() or buffer.Offset() > 1)

    def _buffer(self, tensor: Any) -> Any:
        return self.buffers[tensor.Buffer()]


def is_model(data: Any) -> bool:
    """Whether the bytes of a file, or the first eight of them, are those of a TFLite model."""
    return bytes(data[4:8]) == IDENTIFIER


@contextmanager
def reading(path: Path) -> Iterator[Model]:
    """The model in the file at `path`. Raises `UserError` if there is none; also for what turns out while it is used
    that only a broken file can cause."""
    data = _mapped(path)
    if not is_model(data):
        raise UserError(f"{path}: {_what_else(bytes(data[:512]))}; takes .tflite files")
    try:
        yield _parsed(data)
    except BROKEN as error:
        raise UserError(f"{path}: not a whole TFLite model: it was cut short or altered") from error


def reads(path: Path, head: Head = AS_FOUND) -> Head:
    """How the first output is read: as `head` says, else by the softmax or sigmoid that it comes from, seen through
    operators that only convert numbers."""
    with reading(path) as model:
        graph = model.graphs[0]
        producers = {index: operation for operation in graph.operations for index in operation.outputs}
        # Popped: in a broken file they may go round in circles.
        operation = producers.pop(graph.outputs[0], None)
        while operation is not None and operation.name in SEEN_THROUGH:
            operation = producers.pop(operation.inputs[0], None)
        kind = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}.get(operation.name) if operation else None
        return head.found(kind, (shape(graph.tensor(graph.outputs[0])) or (0,))[-1])


def is_sparse_encoded(path: Path) -> bool:
    """Whether any tensor is stored sparsely: some such files crash the interpreter (LiteRT 2.3)."""
    with reading(path) as model:
        return any(tensor.Sparsity() is not None for tensor in model.graphs[0].tensors)


def _mapped(path: Path) -> mmap.mmap | bytes:
    """The bytes of a file, read where they are looked at. The last view on them that goes unmaps the file."""
    try:
        status = os.stat(path)
        for is_one, words in NO_FILES:
            if is_one(status.st_mode):
                raise UserError(f"{path}: {words}; takes .tflite files")
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if status.st_size else b""
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; takes .tflite files") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: can't be read ({reason}); takes .tflite files") from None


def _what_else(beginning: bytes) -> str:
    if not beginning:
        return "is empty"
    for start, words in BEGINNINGS:
        if beginning.lstrip().startswith(start):
            return words
    if not CONTROL & set(beginning):
        return "is text, not a TFLite model"
    return "is not a TFLite model (no TFL3 at byte 4)"


def _parsed(data: Any) -> Model:
    model = schema.Model.GetRootAs(data)
    codes = _vector(model, "OperatorCodes", data)
    graphs = tuple(_graph(table, codes, data) for table in _vector(model, "Subgraphs", data))
    signatures = tuple(_signature(table, graphs, data) for table in _vector(model, "SignatureDefs", data))
    main = graphs[0]
    unsigned = Signature("", 0, tuple(main.port(i) for i in main.inputs), tuple(main.port(i) for i in main.outputs))
    return Model(data, tuple(_vector(model, "Buffers", data)), graphs, signatures or (unsigned,))


def _graph(table: Any, codes: list[Any], data: Any) -> Graph:
    return Graph(
        tensors=tuple(_vector(table, "Tensors", data)),
        operations=tuple(_operation(each, codes) for each in _vector(table, "Operators", data)),
        inputs=_ints(table.InputsAsNumpy()),
        outputs=_ints(table.OutputsAsNumpy()),
    )


def _operation(table: Any, codes: list[Any]) -> Operation:
    code = codes[table.OpcodeIndex()]
    # Old files hold the code in a field of one byte.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _names(schema.BuiltinOperator).get(number, f"OPERATOR_{number}")  # of a later version of the schema
    custom = name == "CUSTOM"
    if custom:
        name = text(code.CustomCode()) or name
    return Operation(name, custom, _ints(table.InputsAsNumpy()), _ints(table.OutputsAsNumpy()), table)


def _signature(table: Any, graphs: tuple[Graph, ...], data: Any) -> Signature:
    graph = graphs[table.SubgraphIndex()]
    inputs, outputs = (
        tuple(graph.port(each.TensorIndex(), text(each.Name())) for each in _vector(table, kind, data))
        for kind in ("Inputs", "Outputs")
    )
    return Signature(text(table.SignatureKey()), table.SubgraphIndex(), inputs, outputs)


def _vector(table: Any, field: str, data: Any) -> list[Any]:
    """The tables of a field that holds several. Each takes four bytes at least: a longer vector is none."""
    length = getattr(table, field + "Length")()
    if 4 * length > len(data):
        raise ValueError(f"{field}: {length} of them")
    return [getattr(table, field)(i) for i in range(length)]


def _ints(vector: Any) -> tuple[int, ...]:
    """Of what the schema's `AsNumpy` gives, which is 0 where the field is not there."""
    return () if isinstance(vector, int) else tuple(vector.tolist())


def gather_axis(operation: Operation) -> int:
    """Along which axis of its table a GATHER chooses. Raises `ValueError` where the file doesn't say."""
    options, table = schema.GatherOptions(), operation.table.BuiltinOptions()
    if table is None:
        raise ValueError(f"{operation.name} has no options")
    options.Init(table.Bytes, table.Pos)
    return int(options.Axis())


def text(name: bytes | None) -> str:
    return (name or b"").decode(errors="replace")


def tensor_name(tensor: Any) -> str:
    return text(tensor.Name())


def shape(tensor: Any) -> tuple[int, ...]:
    return _ints(tensor.ShapeAsNumpy())


def times(shape: tuple[int, ...]) -> str:
    """Such as 1 x 224 x 224 x 3, with the sign that stands for it; what is open is a question mark."""
    return TIMES.join("?" if n < 0 else str(n) for n in shape)


def dtype(tensor: Any) -> str:
    """Such as `float32`; of a type that only a later version of the schema knows, its number."""
    return _names(schema.TensorType).get(tensor.Type(), f"type_{tensor.Type()}").lower()


def granularity(tensor: Any) -> Granularity:
    """Of its quantization."""
    quantization = tensor.Quantization()
    if quantization is None:
        return "none"
    if quantization.DetailsType() == schema.QuantizationDetails.BlockwiseQuantization:
        return "blockwise"
    scales = quantization.ScaleLength()
    return "none" if not scales else "per-tensor" if scales == 1 else "per-channel"


@cache
def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}
