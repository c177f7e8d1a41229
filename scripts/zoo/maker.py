"""Makes the models of the zoo with one Keras, and converts them as TensorFlow's plain converter does.

    TF_USE_LEGACY_KERAS=0|1 python -m scripts.zoo.maker FD

A process of its own: the converter can crash.
"""

import contextlib
import importlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from scripts.zoo import child, kinds
from scripts.zoo.outputs import largest_difference, run, trained_as

LEARNING_RATE = 0.01
LONGEST = 300  # characters of a reason
IMAGES = {"train": 24, "val": 9, "test": 9}

if os.environ.get("TF_USE_LEGACY_KERAS") == "1":
    import tf_keras as keras
else:
    import keras

ZOO = kinds.of(keras)


def answers(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`list`: every kind and what is left out. `make`: the files of one kind, its predictions, and how it trains.
    `convert`: what the plain converter does with one file."""
    match request["do"]:
        case "list":
            yield {"kinds": list(ZOO.made), "left_out": ZOO.left_out, "version": keras.__version__}
        case "make":
            try:
                yield _make(request["kind"], Path(request["folder"]), request["formats"])
            except Exception as error:
                yield {"why": in_short(error)}
        case "convert":
            yield from _convert(request, Path(request["folder"]))


# --- Making --------------------------------------------------------------------------------------------------------


def _make(name: str, folder: Path, formats: list[str]) -> dict[str, Any]:
    """Leaves `model.keras`, `model.h5`, a SavedModel, `images.npz` as the project reads it, and `scores.npy`."""
    kind = ZOO.made[name]
    keras.backend.clear_session()  # layers are named as in a process of their own
    keras.utils.set_random_seed(1)
    model = predicting = kind.build()
    _move_weights(model, zlib.crc32(name.encode()))
    if kind.twin:
        predicting = kind.twin()
        predicting.set_weights(model.get_weights())
    images = _images(folder, model)
    x = _preprocessed(images)
    scores, again = (predicting.predict(x, batch_size=1, verbose=0) for _ in range(2))
    np.save(folder / "scores.npy", scores)
    return {
        "random": not np.array_equal(scores, again, equal_nan=True),
        "saved": {format: _why(partial(_save, model, folder, format)) for format in formats},
        "custom": list(kind.custom) if kind.told else [],
        "unknown": [] if kind.told else list(kind.custom),
        "training": _training(model, x, folder),
        "trains": _why(partial(_train, model, x)),
    }


def _move_weights(model: Any, seed: int) -> None:
    """Away from what they start with, so that one that is lost or swapped is noticed."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        value = np.asarray(weight)
        if value.dtype.kind != "f" or (not weight.trainable and "seed" in weight.name):
            continue
        noise = random.standard_normal(value.shape)
        if "variance" in weight.name:
            weight.assign(value * (1 + 0.5 * np.abs(noise)))
        else:
            weight.assign(value * (1 + 0.1 * noise) + 0.02 * noise)


def _images(folder: Path, model: Any) -> np.ndarray:
    """uint8 test images `[n, ...]` that fit the model's input, from a file of three splits that is written here."""
    takes = model.inputs[0].shape if getattr(model, "inputs", None) else (None, 8, 8, 3)
    shape = [size or 8 for size in takes[1:]]
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in IMAGES.items():
        arrays[f"x_{split}"] = random.integers(0, 256, (count, *shape), np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 3
    np.savez(folder / "images.npz", **arrays)
    return arrays["x_test"]


def _preprocessed(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) * np.float32(1 / 255)


def _save(model: Any, folder: Path, format: str) -> None:
    if format != "savedmodel":
        model.save(folder / f"model.{format}")
    elif keras.__version__.startswith("2"):
        model.save(folder / "savedmodel", save_format="tf")
    else:
        model.export(folder / "savedmodel", verbose=False)


def _training(model: Any, x: np.ndarray, folder: Path) -> str:
    """How a call in training differs from one in inference: `same`, `fixed` (another, always the same; left in
    `training.npy`) or `random`."""
    x = x[: model.inputs[0].shape[0] or len(x)] if getattr(model, "inputs", None) else x
    weights = [np.array(weight) for weight in model.weights]
    inference = np.asarray(model(x, training=False))
    first = np.asarray(model(x, training=True))
    second = np.asarray(model(x, training=True))
    for weight, value in zip(model.weights, weights, strict=True):  # such as the statistics of batches
        weight.assign(value)
    np.save(folder / "training.npy", first)
    return trained_as(inference, first, second)


def _train(model: Any, x: np.ndarray) -> None:
    model.compile(keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy")
    fixed = getattr(model, "inputs", None) and model.inputs[0].shape[0]
    x = x[: fixed or len(x)]
    loss = model.train_on_batch(x, np.arange(len(x)) % 3)
    if not np.isfinite(loss):
        raise ValueError(f"the loss is {loss}")


# --- The plain converter -------------------------------------------------------------------------------------------


def _convert(request: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """For each of the `schemes` what it takes, an open batch or a batch of 1, else why not. `skip` says of a scheme and
    batch what came of them before."""
    x, scores = _preprocessed(np.load(folder / "images.npz")["x_test"]), np.load(folder / "scores.npy")
    try:
        converters = _loaded(ZOO.made[request["kind"]], folder, request["format"], (1, *x.shape[1:]))
    except Exception as error:
        yield {"unreadable": in_short(error)}
        return
    for scheme in request["schemes"]:
        tried = []
        for batch, converter in list(converters.items()):
            step = f"{scheme}, {batch}"
            if step in request["skip"]:
                tried.append(request["skip"][step])
                continue
            yield {"at": step}
            try:
                difference = largest_difference(run(_converted(converter(), scheme, x), x), scores)
            except Exception as error:
                tried.append(f"{batch}: {in_short(error)}")
                continue
            converters = {batch: converter}  # what works for one scheme is tried for the others
            yield {"scheme": scheme, "takes": batch, "difference": difference if scheme == "none" else None}
            break
        else:
            why = "; ".join(tried)
            if scheme == "none":  # the other schemes begin with the same graph
                yield from ({"scheme": scheme, "why": why} for scheme in request["schemes"])
                return
            yield {"scheme": scheme, "why": why}


def _loaded(
    kind: kinds.Kind, folder: Path, format: str, one: tuple[int, ...]
) -> dict[str, Callable[[], tf.lite.TFLiteConverter]]:
    """The converters that a user would try, of the file as Keras or TensorFlow loads it."""
    from_functions = tf.lite.TFLiteConverter.from_concrete_functions
    if format == "savedmodel":
        path = str(folder / "savedmodel")

        def of_one() -> tf.lite.TFLiteConverter:
            loaded = tf.saved_model.load(path)
            function = loaded.signatures["serving_default"]
            function.inputs[0].set_shape(one)
            return from_functions([function], loaded)

        return {"open": lambda: tf.lite.TFLiteConverter.from_saved_model(path), "batch of 1": of_one}
    objects = {}
    if kind.told:
        for path in kind.custom:
            module, _, name = path.rpartition(".")
            objects[name] = getattr(importlib.import_module(module), name)
    else:
        _forget(kind.custom)
    model = keras.models.load_model(folder / f"model.{format}", custom_objects=objects, compile=False)

    def of_one_image() -> tf.lite.TFLiteConverter:
        # A concrete function of a Keras 3 model converts with its variables left out (TensorFlow 2.21).
        image = keras.Input(batch_shape=one)
        return tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, model(image)))

    return {"open": lambda: tf.lite.TFLiteConverter.from_keras_model(model), "batch of 1": of_one_image}


def _forget(objects: tuple[str, ...]) -> None:
    """What registered itself here is unknown to a process that has not imported it."""
    registered = keras.utils.get_custom_objects()
    for name in [name for name in registered if name.rpartition(">")[2] in {o.rpartition(".")[2] for o in objects}]:
        del registered[name]


def _converted(converter: tf.lite.TFLiteConverter, scheme: str, x: np.ndarray) -> bytes:
    if scheme != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme == "fiq":
        converter.representative_dataset = lambda: ([image[None]] for image in x)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content


def in_short(error: BaseException) -> str:
    """The line of an exception that says most; of the converter's pages, which operator it can't convert."""
    text = str(error)
    if operator := re.search(r"'(tf\.\w+)' op ([^\n]+)", text):
        return f"{operator[1]} {operator[2]}"[:LONGEST]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line or "Error" in line] or lines or [""]
    return f"{type(error).__name__}: {told[0]}"[:LONGEST]


def _why(do: Callable[[], None]) -> str:
    """Why it can't be done; empty where it was."""
    try:
        with contextlib.redirect_stdout(None):
            do()
    except Exception as error:
        return in_short(error)
    return ""


if __name__ == "__main__":
    child.serve(answers)
