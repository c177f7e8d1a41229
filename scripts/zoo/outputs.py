"""Outputs of models and artifacts, and how two of them differ."""

from pathlib import Path

import numpy as np


def run(artifact: bytes, x: np.ndarray) -> np.ndarray:
    """The outputs of an artifact for float images `[n, ...]`, one by one; without a delegate, since XNNPACK refuses
    some files that LiteRT runs."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    without = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=artifact, experimental_op_resolver_type=without)
    interpreter.allocate_tensors()
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for image in x:
        interpreter.reset_all_variables()
        if list(takes["shape"]) != [1, *image.shape]:  # any height and width
            interpreter.resize_tensor_input(takes["index"], [1, *image.shape])
            interpreter.allocate_tensors()
        interpreter.set_tensor(takes["index"], image[None].astype(takes["dtype"]))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(gives["index"])[0])
    return np.stack(outputs)


def largest_difference(values: np.ndarray, own: np.ndarray) -> float:
    """As a share of the largest value of `own`; NaN differs from NaN."""
    return float(np.abs(values - own).max() / np.abs(own).max())


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Of scores `[n, classes]`, which are probabilities already or logits."""
    if scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def trained_as(inference: np.ndarray, first: np.ndarray, second: np.ndarray) -> str:
    """How two calls in training differ from one in inference: `same`, `fixed` (another one, always the same) or
    `random`."""
    if not np.allclose(first, second, atol=1e-5):
        return "random"
    return "same" if np.allclose(first, inference, atol=1e-5) else "fixed"


def called_in_training(checkpoint: Path, custom: tuple[str, ...], x: np.ndarray) -> tuple[str, np.ndarray]:
    """In the worker: how a checkpoint's calls in training differ from those in inference."""
    from src.machine import backend
    from src.models.checkpoint import restore

    with backend.custom_objects(custom):
        model = restore(checkpoint)
    x = x[: model.inputs[0].shape[0] or len(x)]
    inference = np.asarray(model(x, training=False))
    first = np.asarray(model(x, training=True))
    return trained_as(inference, first, np.asarray(model(x, training=True))), first
