"""Models in the wrappers that TensorFlow Model Optimization puts around layers while it trains them: the wrappers go,
and what was done to the weights stays."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from src.models.trusted import descriptions, nodes
from src.settings.check import UserError

PRUNED, CLUSTERED = "PruneLowMagnitude", "ClusterWeights"
QUANTIZED = ("QuantizeLayer", "QuantizeWrapper", "QuantizeWrapperV2", "QuantizeAnnotate")


def wrapper(path: Path, key: str) -> str | None:
    """Which wrapper the layers of the model at `path` have, if one. Raises `UserError`, which starts with `key`, for
    those of quantization-aware training, without which its weights mean something else."""
    kinds = {node["class_name"].rpartition(">")[2] for each in descriptions(path) for node, _ in nodes(each)}
    if quantized := sorted(kinds.intersection(QUANTIZED)):
        raise UserError(
            f"{key}: is a model of quantization-aware training ({quantized[0]}); takes the model that was given to "
            "quantize_model, which quant=fiq makes one of full integers"
        )
    return next((kind for kind in (PRUNED, CLUSTERED) if kind in kinds), None)


def scope(kind: str | None) -> AbstractContextManager[Any]:
    """In which a model with this wrapper is read."""
    if kind is None:
        return nullcontext()
    import tensorflow_model_optimization as tfmot

    found = tfmot.sparsity.keras.prune_scope() if kind == PRUNED else tfmot.clustering.keras.cluster_scope()
    return found


def stripped(model: Any, kind: str | None) -> Any:
    """The model without it."""
    if kind is None:
        return model
    import tensorflow_model_optimization as tfmot

    if kind == PRUNED:
        return tfmot.sparsity.keras.strip_pruning(model)
    return tfmot.clustering.keras.strip_clustering(model)
