"""What is really inside a `.tflite` file, read from its flatbuffer: bytes, dtypes, scales and zeros of every weight.

Neither TensorFlow nor an interpreter is needed, so a file that crashes the interpreter can be audited as well.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from src.measure import tflite
from src.measure.audit.asked import differences
from src.measure.audit.compressors import COMPRESSORS, gzip_bytes
from src.measure.audit.contents import Audit
from src.measure.audit.multiply_adds import multiply_adds
from src.measure.audit.weights import read
from src.measure.names import AUDIT
from src.measure.probe import Found, Subject
from src.measure.tflite import Port
from src.settings.check import UserError
from src.settings.plain import plain


@dataclass(frozen=True)
class Settings:
    """Of `probe`: `compressors` beside gzip, and the key of the conversion, which says what was asked for."""

    compressors: tuple[str, ...]
    conversion: str


def probe(subject: Subject, settings: Settings) -> Found:
    """Numbers of the file, and where it is not what was asked for; leaves all that was found."""
    found = audit(subject.artifact, attribute=True, compressors=settings.compressors)
    content = plain(found) | {"layers": plain(found.layers)}
    (subject.folder / AUDIT).write_text(json.dumps(content, indent=1), encoding="utf-8")
    yield from numbers(found).items()
    for name, size in found.compressors.items():
        yield f"{name}_bytes", size
    yield "audit", " ".join([*subject.asked.notes, *differences(found, subject.asked)]) or "as asked for"
    yield "input_dtype", found.input_dtype
    yield "output_dtype", found.output_dtype
    yield "float_operators", _counted(operator.name for operator in found.operators if operator.computes == "float")
    if found.random_operators:
        yield "random_operators", ", ".join(found.random_operators)


def numbers(found: Audit) -> dict[str, float]:
    """Of every artifact, by the names of their metrics."""
    return {
        "tflite_bytes": found.tflite_bytes,
        "gzip_bytes": found.gzip_bytes,
        "sparsity": found.sparsity or 0.0,
        "parameters": found.parameters,
        "multiply_adds": found.multiply_adds,
    }


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
        raise UserError("audit.compressors=zstd: takes the package zstandard; `make setup EXTRAS=dev,zstd` installs it")
    with tflite.reading(path) as model, ThreadPoolExecutor(2) as threads:
        whole = threads.submit(gzip_bytes, model.data)
        others = {name: threads.submit(COMPRESSORS[name], model.data) for name in compressors}
        tensors, operators = read(model, attribute)
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
            multiply_adds=multiply_adds(model),
            compressors={name: future.result() for name, future in others.items()},
            inputs=inputs,
            outputs=outputs,
            signatures=tuple(signature.name for signature in model.signatures if signature.name),
        )


def _counted(names: Iterable[str]) -> str:
    counts = Counter(names)
    return ", ".join(f"{name} x{n}" if n > 1 else name for name, n in sorted(counts.items())) or "none"


def _dtypes(ports: Sequence[Port]) -> str:
    return ", ".join(dict.fromkeys(port.dtype for port in ports)) or "nothing"
