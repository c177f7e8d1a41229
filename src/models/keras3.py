"""Models that Keras 3 has saved, rebuilt in tf_keras from their config and weights: TFMOT knows Keras 2 only.

What could not be rebuilt faithfully is refused by the name of its layer. Keras 3 itself is not needed.
"""

import inspect
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.settings.check import UserError

if TYPE_CHECKING:
    import h5py
    import tf_keras

# Keys that Keras 3 has renamed, by class.
RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
# Of what Keras 2 has no key for, these values are what it does anyway.
WITHOUT_EFFECT = (None, False, "channels_last")
# Keras 3 asks these with `training=None` and stores what their author passed. The others have a default of True or
# False, which it stores as if it had been passed (Keras 3.0 to 3.15).
ASKED_WITHOUT_DEFAULT = ("BatchNormalization", "Bidirectional", "MultiHeadAttention", "TimeDistributed")
# The same name for another function: clip(x / 5 + 1 / 2) in Keras 2, clip(x / 6 + 1 / 2) in Keras 3.
DIFFERENT_ACTIVATIONS = ("hard_sigmoid",)


def from_archive(path: Path, key: str) -> "tf_keras.Model":
    """A model from a `.keras` file of Keras 3. Raises `UserError`, which starts with `key` and names the layer."""
    import h5py

    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        model = _rebuilt(config, key)
        with archive.open("model.weights.h5") as stream, h5py.File(stream, "r") as weights:
            _assign(model, config, weights, key)
    return model


def from_hdf5(path: Path, key: str) -> "tf_keras.Model":
    """A model from an `.h5` file of Keras 3. Raises `UserError`, which starts with `key` and names the layer."""
    import h5py

    with h5py.File(path, "r") as file:
        model = _rebuilt(json.loads(file.attrs["model_config"]), key)
        saved = file["model_weights"]
        for layer in model.layers:
            if layer.weights and not (layer.name in saved and len(saved[layer.name].attrs["weight_names"])):
                raise UserError(f"{key}: has no weights for layer {layer.name}; takes a file of the whole model")
    model.load_weights(path, by_name=True)
    return model


def _rebuilt(node: Mapping[str, Any], key: str) -> Any:
    """The layer or model that one entry of a config describes."""
    match node["class_name"]:
        case "Functional":
            return _functional(node["config"], key)
        case "Sequential":
            return _sequential(node["config"], key)
        case _:
            return _layer(node, key)


def _functional(config: Mapping[str, Any], key: str) -> "tf_keras.Model":
    import tf_keras

    tensors: dict[tuple[str, int, int], Any] = {}
    calls: list[tuple[Any, str, int, Mapping[str, Any]]] = []
    for node in config["layers"]:
        name = node["config"]["name"]
        if node["class_name"] == "InputLayer":
            tensors[name, 0, 0] = _input(node["config"])
            continue
        layer = _rebuilt(node, key)
        calls += [(layer, name, i, call) for i, call in enumerate(node["inbound_nodes"])]
    while calls:
        ready = [c for c in calls if all(history in tensors for history in _histories([c[3]["args"], c[3]["kwargs"]]))]
        if not ready:
            raise UserError(f"{key}: layer {calls[0][1]} takes what no layer gives; takes a whole model")
        for call in ready:
            layer, name, i, node = call
            arguments = _resolved(node["args"], tensors)
            named = {k: _resolved(v, tensors) for k, v in node["kwargs"].items() if v is not None}
            if "training" in named and named["training"] == _default_training(layer):
                # No request: `fit` and `predict` of Keras 3 pass another value, and so do those of Keras 2.
                del named["training"]
            try:
                given = layer(*arguments, **named)
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"{key}: layer {name} can't be called in Keras 2 as Keras 3 does ({' '.join(str(error).split())})"
                ) from None
            for j, tensor in enumerate(given if isinstance(given, list | tuple) else [given]):
                tensors[name, i, j] = tensor
            calls.remove(call)
    ends = [[tensors[end] for end in _ends(config[which])] for which in ("input_layers", "output_layers")]
    return tf_keras.Model(*ends, name=config["name"])


def _sequential(config: Mapping[str, Any], key: str) -> "tf_keras.Model":
    import tf_keras

    model = tf_keras.Sequential(name=config["name"])
    first, *rest = config["layers"]
    if first["class_name"] == "InputLayer":
        model.add(_input(first["config"]))
    elif config.get("build_input_shape"):
        rest = [first, *rest]
        model.add(_input({"batch_shape": config["build_input_shape"], "name": f"{config['name']}_input"}))
    else:
        raise UserError(f"{key}: model {config['name']} was saved before it knew its input; takes a built model")
    for node in rest:
        model.add(_rebuilt(node, key))
    return model


def _input(config: Mapping[str, Any]) -> Any:
    import tf_keras

    return tf_keras.Input(
        batch_shape=tuple(config["batch_shape"]), dtype=config.get("dtype", "float32"), name=config["name"]
    )


def _layer(node: Mapping[str, Any], key: str) -> Any:
    import tf_keras

    kind, module, saved = node["class_name"], node.get("module") or "", node["config"]
    title = f"layer {saved.get('name', kind)} ({kind})"
    own = tf_keras.saving.get_registered_object(kind)
    # HDF5 files say no module.
    cls: Any = own or (getattr(tf_keras.layers, kind, None) if module in ("keras.layers", "") else None)
    if cls is None:
        if module.startswith("keras."):
            raise UserError(f"{key}: {title} is Keras 3's, and Keras 2 has none like it; takes layers that both have")
        raise UserError(
            f"{key}: {title} is not Keras's; takes its import path in model.custom_objects=[{module or '…'}.{kind}]"
        )
    if tf_keras.layers.Layer not in inspect.getmro(cls):
        raise UserError(f"{key}: {title} derives from Keras 3's Layer; takes one that derives from tf_keras's")
    if kind == "Lambda":
        raise UserError(
            f"{key}: {title} holds code of another Keras; takes a class in its place (model.custom_objects)"
        )
    config: dict[str, Any] = {}
    takes = _parameters(cls)
    for name, value in saved.items():
        name = RENAMED.get(kind, {}).get(name, name)
        if name == "dtype":
            config[name] = _dtype(value, title, key)
        elif name.endswith("_initializer"):
            continue  # the weights are in the file
        elif own or name in takes:
            config[name] = value
        elif value not in WITHOUT_EFFECT:
            raise UserError(f"{key}: {title} has {name}={value!r}, which Keras 2 has no key for; takes {title} without")
    if config.get("activation") in DIFFERENT_ACTIVATIONS:
        raise UserError(f"{key}: {title} has activation {config['activation']}, which is another one in Keras 2")
    try:
        return cls.from_config(config)
    except Exception as error:  # each class checks its settings in its own way
        raise UserError(f"{key}: {title} can't be made in Keras 2 ({' '.join(str(error).split())[:160]})") from None


def _default_training(layer: Any) -> bool | None:
    """What Keras 3 calls `layer` with, and stores, where nobody passed `training`: of a class of one's own as its
    signature says, of Keras's that both have as in Keras 3.

    What was passed on purpose can't be told from the default if it is equal to it; it is then what Keras 3 does in
    `fit` and `predict`.
    """
    import tf_keras

    asked = inspect.signature(type(layer).call).parameters.get("training")
    default = asked.default if asked else True  # Keras 3 asks Resizing and CenterCrop as well, and they don't mind
    of_keras_2 = type(layer).__module__.startswith("tf_keras.")
    if not of_keras_2 or isinstance(layer, tf_keras.Model) or type(layer).__name__ in ASKED_WITHOUT_DEFAULT:
        return default
    return bool(default)


def _parameters(cls: type) -> set[str]:
    """What the constructor takes, through the base classes that it hands the rest to."""
    names = {"name", "trainable", "dtype", "activity_regularizer"}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters
        names |= set(parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names


def _dtype(value: Any, title: str, key: str) -> str:
    name = value["config"]["name"] if isinstance(value, Mapping) else value
    if isinstance(value, Mapping) and value["class_name"] not in ("DTypePolicy", "FloatDTypePolicy"):
        raise UserError(f"{key}: {title} is quantized already ({value['class_name']}); takes a float model")
    return name


def _histories(value: Any) -> Iterator[tuple[str, int, int]]:
    """Which outputs of which layers stand in the arguments of a call."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            name, node, index = value["config"]["keras_history"]
            yield name, node, index
        else:
            for part in value.values():
                yield from _histories(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _histories(part)


def _resolved(value: Any, tensors: Mapping[tuple[str, int, int], Any]) -> Any:
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            return tensors[next(_histories(value))]
        return {k: _resolved(v, tensors) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(v, tensors) for v in value]
    return value


def _ends(value: Any) -> list[tuple[str, int, int]]:
    """Inputs or outputs of a model: one `[name, node, tensor]`, or a list or dict of such."""
    if isinstance(value, Mapping):
        return [end for part in value.values() for end in _ends(part)]
    if isinstance(value[0], str):
        return [tuple(value)]
    return [end for part in value for end in _ends(part)]


def _assign(model: Any, node: Mapping[str, Any], group: "h5py.Group", key: str) -> None:
    """Sets the weights of `model`, and of models in it, from `model.weights.h5`: layers lie under the names of their
    classes in snake case, counted in the order of the config."""
    counts: dict[str, int] = {}
    for child in node["config"]["layers"]:
        kind = _snake_case(child["class_name"])
        n = counts[kind] = counts.get(kind, -1) + 1
        if child["class_name"] == "InputLayer":
            continue
        name = child["config"]["name"]
        layer, place = model.get_layer(name), group.get(f"layers/{kind}{f'_{n}' if n else ''}")
        if child["class_name"] in ("Functional", "Sequential"):
            _assign(layer, child, place, key)
            continue
        found = (
            [] if place is None or "vars" not in place else [place["vars"][str(i)] for i in range(len(place["vars"]))]
        )
        if [tuple(w.shape) for w in layer.weights] != [tuple(v.shape) for v in found]:
            raise UserError(
                f"{key}: layer {name} ({child['class_name']}) keeps its weights in another way in Keras 2; takes "
                "layers that both have"
            )
        layer.set_weights([np.array(value) for value in found])
        layer.finalize_state()


def _snake_case(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
