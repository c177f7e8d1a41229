"""`python -m src.audit MODEL.tflite …`: what is inside any `.tflite` file, per layer and in all."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from src.cli import files as artifact_files
from src.cli import frame
from src.cli.files import add_row, say, table
from src.console.terminal import Terminal, shown
from src.measure.audit import audit
from src.measure.audit.compressors import COMPRESSORS
from src.measure.audit.contents import Audit, Tensor
from src.measure.tflite import Port, times
from src.settings.check import UserError
from src.settings.plain import plain

USAGE = f"""\
Usage: python -m src.audit MODEL.tflite [MODEL.tflite …] [KEY=VALUE …]

What is inside .tflite files of any origin, read from their bytes: the weights
of every layer with their types, scales, zeros and sizes, and how the operators
compute. Nothing is run, so a file that crashes the interpreter can be audited.

Examples
  python -m src.audit model.tflite
      its layers, what they take in the file and once it is compressed
  python -m src.audit dense.tflite pruned.tflite int8.tflite json=audit.json
      several, one after the other; all of it, down to single tensors, as JSON
  python -m src.audit model.tflite compressors=xz
      what another compressor makes of it

What the columns say
  type     of the layer's largest tensor; the JSON has each
  zeros    share of values equal to zero, or to the zero point of integers
  gzip     of a layer's weights alone, and of the whole file in the last row
  scales   one for the tensor, for each channel or for each block of values

Settings
  compressors=NAME,…  the whole file under {", ".join(COMPRESSORS)}
  json=FILE           all that was found, per tensor, layer and operator

Exit codes: 0 done, 2 a file or a setting can't be used.
"""
LONGEST = 200  # of a layer's name; a broken file's may be a page
WORDS = {
    "integer": "in integers",
    "hybrid": "in integers on activations that they quantize as they go",
    "float": "in float",
    "nothing": "nothing, as they only move or convert numbers",
    "unknown": "in a way that only who made them knows",
}


def main() -> None:
    frame.main(USAGE.rstrip, run)


def run(arguments: Sequence[str]) -> int:
    files, values = artifact_files.parse(arguments, ["compressors", "json"])
    compressors = tuple(filter(None, values.get("compressors", "").split(",")))
    if unknown := [name for name in compressors if name not in COMPRESSORS]:
        raise UserError(f"compressors={unknown[0]}: takes of {', '.join(COMPRESSORS)}")
    output = artifact_files.output(values.get("json"), files)
    console = Terminal()
    everything = []
    for name, file in zip(artifact_files.names(files), files, strict=True):
        found = audit(file, attribute=True, compressors=compressors)
        show(name, found, console)
        everything.append({"name": name, "file": str(file), **as_data(found)})
    if output:
        artifact_files.write(output, {"files": everything})
    return 0


def as_data(found: Audit) -> dict[str, Any]:
    sums = {"values": found.values, "zeros": found.zeros, "weight_bytes": found.weight_bytes}
    sums |= {"parameters": found.parameters}
    return plain(found) | {"layers": plain(found.layers)} | sums


def show(name: str, found: Audit, console: Console) -> None:
    """Readable at 80 columns."""
    say(console, name, "bold")
    if found.tensors:
        console.print(layers_table(found))
    for line in notes(found):
        say(console, line)
    console.print()


def layers_table(found: Audit) -> Table:
    made = table({"layer": True, **dict.fromkeys(("type", "scales", "values", "zeros", "bytes", "gzip"), False)})
    largest: dict[str, Tensor] = {}
    for tensor in found.tensors:
        if tensor.values > largest.setdefault(tensor.layer, tensor).values:
            largest[tensor.layer] = tensor
    for layer in found.layers:
        main = largest[layer.name]
        add_row(
            made,
            shown(layer.name, LONGEST),
            main.dtype + " sparse" * main.sparse_encoded,
            "" if main.granularity == "none" else main.granularity.removeprefix("per-"),
            f"{layer.values:,}",
            f"{layer.sparsity:.1%}",
            f"{layer.bytes:,}",
            f"{layer.gzip_bytes or 0:,}",
        )
    sparsity = "" if found.sparsity is None else f"{found.sparsity:.1%}"
    made.add_section()
    add_row(made, "all weights", "", "", f"{found.values:,}", sparsity, f"{found.weight_bytes:,}", "", style="bold")
    add_row(made, "whole file", "", "", "", "", f"{found.tflite_bytes:,}", f"{found.gzip_bytes:,}", style="bold")
    return made


def notes(found: Audit) -> Iterator[str]:
    yield f"Takes {_ports(found.inputs)}; gives {_ports(found.outputs)}."
    if len(found.signatures) > 1:
        yield f"Signatures: {shown(', '.join(found.signatures), LONGEST)}."
    still_open = any(-1 in port.shape[1:] for port in found.inputs)
    counted = f"{found.parameters:,} parameters, {found.multiply_adds:,} multiply-adds an inference"
    yield counted + (", where a size that is open is 1." if still_open else ".")
    if not found.tensors:
        yield f"No weights to be seen; {found.tflite_bytes:,} bytes, {found.gzip_bytes:,} under gzip."
    if custom := [operator.name for operator in found.operators if operator.custom]:
        yield f"Custom operators, whose weights and ways are not to be seen: {_counted(custom)}."
    for kind, words in WORDS.items():
        if names := [operator.name for operator in found.operators if operator.computes == kind]:
            yield f"Compute {words}: {_counted(names)}."
    if shared := [tensor for tensor in found.tensors if tensor.stored_as is not None]:
        total = sum(tensor.bytes for tensor in shared)
        yield f"{total:,} bytes of {len(shared)} tensors are not stored again, since others are equal to them."
    for name, size in found.compressors.items():
        yield f"{name}: {size:,} bytes."


def _ports(ports: Sequence[Port]) -> str:
    return ", ".join(f"{port.dtype} {times(port.shape)}".strip() for port in ports) or "nothing"


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{count} {shown(name, LONGEST)}" for name, count in Counter(names).most_common())


if __name__ == "__main__":
    main()
