"""A model without some of its channels: the same layers, with fewer units."""

import json
from typing import Any

import numpy as np

from src.methods.narrow.groups import Groups
from src.methods.narrow.parts import along, parts
from src.models.checkpoint import BATCH, leaves
from src.models.kerases import keras_of


def narrowed(model: Any, groups: Groups, stays: np.ndarray) -> Any:
    """A new model in which only those atoms are left that stay, with the weights of `model`."""
    sizes = {
        path: {_size_of(slots.layer): int(stays[slots.makes].sum())}
        for path, slots in groups.found.slots.items()
        if slots.is_maker
    }
    shapes = {path: (axis, int(stays[atoms].sum())) for path, (axis, atoms) in groups.found.shapes.items()}
    made = _described_anew(model, sizes, shapes)
    new = leaves(made)
    for path, layer in leaves(model).items():
        if slots := groups.found.slots.get(path):
            new[path].set_weights(_weights(slots, stays))
        else:
            new[path].set_weights(layer.get_weights())
        if hasattr(new[path], "finalize_state"):  # of Normalization, for its averages
            new[path].finalize_state()
    if batch := getattr(model, BATCH, None):
        made.batch = batch
    return made


def silence(groups: Groups, stays: np.ndarray) -> None:
    """Has the channels that go count for nothing in whatever layer of the whole model they enter."""
    for slots in groups.found.slots.values():
        values = slots.layer.get_weights()
        for part in parts(slots) if slots.is_maker else ():
            if part.side == "takes":
                np.moveaxis(values[part.weight], part.axis, 0)[~along(part, slots, stays)] = 0
        slots.layer.set_weights(values)


def _size_of(layer: Any) -> str:
    """The setting of the number of channels."""
    return "units" if type(layer).__name__ == "Dense" else "filters"


def _weights(slots: Any, stays: np.ndarray) -> list[np.ndarray]:
    values = slots.layer.get_weights()
    for part in parts(slots):
        values[part.weight] = np.compress(along(part, slots, stays), values[part.weight], part.axis)
    return values


def _described_anew(model: Any, sizes: dict[str, Any], shapes: dict[str, tuple[int, int]]) -> Any:
    keras = keras_of(model)
    if keras.__name__ == "tf_keras":
        config = model.get_config()
        _change(config, sizes, shapes, "")
        return type(model).from_config(config)
    description = keras.saving.serialize_keras_object(model)
    description.pop("compile_config", None)
    description = json.loads(json.dumps(description))  # not shared with the layers
    _change(description["config"], sizes, shapes, "")
    return keras.saving.deserialize_keras_object(description)


def _change(config: dict[str, Any], sizes: dict[str, Any], shapes: dict[str, tuple[int, int]], above: str) -> None:
    for layer in config["layers"]:
        own = layer["config"]
        path = above + own.get("name", layer.get("name", ""))
        layer.pop("build_config", None)  # shapes that Keras 3 has found; it finds them again
        own.pop("build_input_shape", None)
        own |= sizes.get(path, {})
        for name in ("target_shape", "batch_shape", "batch_input_shape"):
            if path in shapes and name in own:
                axis, size = shapes[path]
                shape = list(own[name])
                place = axis if name == "target_shape" else axis + 1
                shape[place] = shape[place] if shape[place] in (-1, None) else size
                own[name] = tuple(shape)
        if "layers" in own:
            _change(own, sizes, shapes, f"{path}/")
