"""Files that Keras 3 has saved, read by Keras 3 itself."""

import inspect
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.models.trusted import descriptions, nodes
from src.settings.check import UserError

if TYPE_CHECKING:
    import keras

MODELS = ("Functional", "Model", "Sequential")


def load(path: Path, key: str, trust: bool = False) -> "keras.Model":
    """The model in a `.keras` or `.h5` file of Keras 3, whatever the file is called.

    Raises `UserError`, which starts with `key` and names the layer, for what is quantized already, and for classes that
    neither Keras nor the settings name.
    """
    import keras

    archive = zipfile.is_zipfile(path)
    (description,) = descriptions(path)
    of_code = not archive and "layers" not in description["config"]
    if of_code and not keras.saving.get_registered_object(description["class_name"]):
        raise _only_weights(description, key)
    for node, layer in nodes(description):
        _check(node, layer, key)
    with linked(path, "model.keras" if archive else "model.h5") as link:
        try:
            model = keras.saving.load_model(link, compile=False, safe_mode=not trust)
        except ValueError:
            if of_code:  # more weights or fewer than the class has made so far
                raise _only_weights(description, key) from None
            raise
    if of_code and not model.built:
        raise _only_weights(description, key)
    return model


def _only_weights(description: Mapping[str, Any], key: str) -> UserError:
    """Of an HDF5 file of a model whose layers only code connects: most such classes make weights when they are called,
    and the file does not say on what (Keras 3.15)."""
    kind = description["class_name"]
    return UserError(
        f"{key}: holds the weights of a model of the class {kind}, and not its layers; takes the model saved as .keras "
        f"(call {kind} on images, load_weights of this file, save), with model.custom_objects=[package.module.{kind}]"
    )


@contextmanager
def linked(path: Path, name: str) -> Iterator[Path]:
    """The file at `path` under another name: Keras tells formats by their suffix."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / name
        os.symlink(path.resolve(), link)
        yield link


def _check(node: Mapping[str, Any], layer: str, key: str) -> None:
    import keras
    import tf_keras

    kind, module = node["class_name"], node.get("module") or ""
    title = f"layer {layer} ({kind})"
    if kind.endswith("DTypePolicy") and kind not in ("DTypePolicy", "FloatDTypePolicy"):
        raise UserError(f"{key}: layer {layer} is quantized already ({kind}); takes a float model")
    if kind == "__lambda__":
        return  # it was trusted
    # HDF5 files and classes of scripts have no module.
    is_layer = not module and "name" in (node["config"] if isinstance(node["config"], dict) else ())
    known = is_layer and (kind in _layers() or kind in MODELS)
    if known or module.partition(".")[0] == "keras" or (not module and not is_layer and kind != "function"):
        return  # looking a name up among those that are registered takes half a millisecond
    name = node["config"] if kind == "function" else kind
    found = keras.saving.get_registered_object(node.get("registered_name") or name) or (
        keras.saving.get_registered_object(name)
    )
    if isinstance(found, type) and issubclass(found, tf_keras.layers.Layer):
        raise UserError(f"{key}: {title} derives from tf_keras's Layer; takes one that derives from keras's")
    if found or module == "builtins" or not (module or is_layer):
        return
    if not module and name in _functions():
        raise UserError(
            f"{key}: {title} is a function of keras.ops, which .h5 files don't hold; takes the model saved as .keras"
        )
    # Another module Keras would import by itself.
    path = f"{module or '…'}.{name}"
    raise UserError(f"{key}: {title} is not Keras's; takes its import path in model.custom_objects=[{path}]")


@cache
def _layers() -> frozenset[str]:
    """The names of Keras's layers: of some the class has another than `keras.layers` (GroupQueryAttention)."""
    import keras

    classes = {name: each for name, each in vars(keras.layers).items() if inspect.isclass(each)}
    return frozenset(classes) | {each.__name__ for each in classes.values()}


@cache
def _functions() -> frozenset[str]:
    """The names of the classes that functions of `keras.ops` become in a model."""
    from keras.src import ops

    modules = [each for each in vars(ops).values() if inspect.ismodule(each)]
    found = {each.__name__ for module in modules for each in vars(module).values() if inspect.isclass(each)}
    return frozenset(found)
