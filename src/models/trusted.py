"""Whether a file that describes a model holds code: told from the description, before anything of it is made."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from src.models import served
from src.settings.check import UserError

FUNCTIONS = ("function", "output_shape", "mask")


def refuse_code(path: Path, key: str) -> None:
    """Raises `UserError`, which starts with `key` and names the layer, where the `.keras` or `.h5` file or the
    SavedModel folder at `path` holds a function of Python that its Keras would run, or an operator that reaches beyond
    the model."""
    if path.is_dir() and (operator := served.reaching(path)):
        raise UserError(
            f"{key}: its graph has the operator {operator}, which reaches beyond the model; takes a model without it, "
            "or model.trust=true where you know who made the folder"
        )
    for description in descriptions(path):
        for node, layer in nodes(description):
            if node["class_name"] == "__lambda__" or "lambda" in _types(node.get("config")):
                raise UserError(
                    f"{key}: layer {layer} holds code (a Lambda); takes a class in its place (model.custom_objects), "
                    "or model.trust=true where you know who made the file"
                )


def _types(config: Any) -> tuple[Any, ...]:
    """Of what the functions of a Lambda of Keras 2 are made."""
    return tuple(config.get(f"{name}_type") for name in FUNCTIONS) if isinstance(config, dict) else ()


def descriptions(path: Path) -> Iterator[Any]:
    """The JSON in which Keras describes a model and its layers. A SavedModel without layers has none."""
    if path.is_dir():
        if (metadata := path / "keras_metadata.pb").is_file():
            from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

            texts = [node.metadata for node in SavedMetadata.FromString(metadata.read_bytes()).nodes]
        else:
            texts = served.described(path)
        yield from map(json.loads, texts)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield json.loads(archive.read("config.json"))
    else:
        import h5py

        with h5py.File(path, "r") as file:
            yield json.loads(file.attrs["model_config"])


def nodes(value: Any, layer: str = "") -> Iterator[tuple[Mapping[str, Any], str]]:
    """Everything in a description that names a class or a function, with the name of the layer that it is part of."""
    # JSON has no other mapping: TensorFlow adds so many to Python's that asking for any takes half a second.
    if isinstance(value, dict):
        config = value.get("config")
        if isinstance(value.get("class_name"), str):
            layer = config.get("name", layer) if isinstance(config, dict) else layer
            yield value, layer
        for part in value.values():
            yield from nodes(part, layer)
    elif isinstance(value, list):
        for part in value:
            yield from nodes(part, layer)
