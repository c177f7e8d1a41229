"""What an artifact shows of the promises of the checkpoint that it was made from."""

from collections.abc import Sequence
from pathlib import Path

from src.measure import tflite
from src.measure.audit.contents import Tensor
from src.measure.audit.weights import bits, read
from src.models.promises import Promise, Promises, compare


def confirm(artifact: Path, promises: Promises) -> tuple[str, ...]:
    """Confirms `promises` on the file at `artifact`; gives sentences on those that it can't show.

    A converter names weights after their layer, and mostly so that all of them can be told. Where those under a layer's
    name are not as many as in the checkpoint (a grouped convolution, recurrent layers), nothing is confirmed.

    Raises `Broken` where a layer shows less than was promised, and `UserError` where the file is no TFLite model.
    """
    if not promises:
        return ()
    with tflite.reading(artifact) as model:
        tensors, _ = read(model, attribute=False, distinct=any(promise.distinct for promise in promises.values()))
    kernels = [tensor for tensor in tensors if len(tensor.shape) > 1]
    of_layers = {path: [t for t in kernels if f"{t.layer}/".startswith(f"{path}/")] for path in promises}
    told = {path: its for path, its in of_layers.items() if its and sum(t.values for t in its) == promises[path].values}
    compare(promises, {path: _shown(its) for path, its in told.items()})
    if hidden := [path for path in promises if path not in told]:
        return (f"What was promised of {', '.join(hidden)} can't be confirmed: the file doesn't name their weights.",)
    return ()


def _shown(kernels: Sequence[Tensor]) -> Promise:
    distinct = [tensor.distinct for tensor in kernels if tensor.distinct is not None]
    return Promise(
        zeros=sum(tensor.zeros for tensor in kernels),
        distinct=max(distinct) if len(distinct) == len(kernels) else None,
        bits=max(bits(tensor.dtype) for tensor in kernels),
        channels=kernels[-1].channels,
    )
