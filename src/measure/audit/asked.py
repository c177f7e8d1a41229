"""Where an artifact is not what was asked for, in sentences for a person."""

from collections.abc import Iterator

from src.measure.audit.contents import Audit, Operator
from src.measure.audit.weights import FLOATS
from src.measure.probe import Asked


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


def differences(found: Audit, asked: Asked) -> tuple[str, ...]:
    """Where the artifact is not what was asked for, and what can't be had of it: sentences for a person."""
    return tuple(_differences(found, asked))


def _differences(found: Audit, asked: Asked) -> Iterator[str]:
    if drawing := found.random_operators:
        yield f"Its predictions are random: it draws random numbers in every inference ({', '.join(drawing)})."
    if floats := left_in_float(found, asked):
        listed = ", ".join(f"{op.name} ({op.layer})" for op in floats[:4]) + (", …" if len(floats) > 4 else "")
        yield f"{len(floats)} of {len(found.operators)} operators stayed in float: {listed}."
    if asked.activations not in FLOATS and (found.input_dtype, found.output_dtype) != (asked.activations,) * 2:
        yield f"It takes {found.input_dtype} and gives {found.output_dtype}, where {asked.activations} was asked for."
    if asked.pruned and not any(tensor.sparse_encoded for tensor in found.tensors):
        yield (
            "Pruning can't make it faster on this runtime: its weights are stored densely, and dense kernels multiply "
            "zeros like any other number. The zeros only make the file smaller once it is compressed."
        )
