"""A checkpoint: the Keras model that a training stage leaves, as a file that every process reads back, with its
promises."""

import json
import re
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.models import keras3, promises, served
from src.models.kerases import count_names_anew, keras_of
from src.models.promises import Promise, Promises, most_distinct

if TYPE_CHECKING:
    import tf_keras

# How tf_keras 2.21 writes a function of the user's, such as an activation, to HDF5, where it reads a name only.
FUNCTION = r'{"module": "builtins", "class_name": "function", "config": ("\w+"), "registered_name": "function"}'

PROMISES = "promises"  # the attribute of the file
BATCH = "batch"  # the attribute of a model and of its file: for how many images at a time it is converted


def save(model: "tf_keras.Model", checkpoint: Path) -> None:
    """Writes the model without its optimizer, as HDF5: its Keras reads it back in every process."""
    if isinstance(model, served.Served):
        served.save(model, checkpoint)
        return
    if keras_of(model).__name__ == "keras":
        _save_keras3(model, checkpoint)
    else:
        _save_keras2(model, checkpoint)
    if batch := getattr(model, BATCH, None):
        import h5py

        with h5py.File(checkpoint, "r+") as file:
            file.attrs[BATCH] = batch


def _save_keras2(model: Any, checkpoint: Path) -> None:
    for layer in model.layers:
        names: set[str] = set()
        for i, weight in enumerate(layer.weights):
            # Layers of one name in models nested in one: tf_keras 2.21 would write both to one place, and fail.
            if weight.name in names:
                weight._handle_name = f"{i}/{weight.name}"
            names.add(weight.name)
    with warnings.catch_warnings():
        # Keras's own format stamps the time of saving into the file; HDF5 is the same to the byte for the same model.
        warnings.filterwarnings("ignore", message="You are saving your model as an HDF5 file")
        model.save(checkpoint, save_format="h5", include_optimizer=False)


def restore(checkpoint: Path) -> "tf_keras.Model":
    """A new, uncompiled model from a checkpoint. Changes to it reach no other model."""
    import h5py

    count_names_anew()

    with h5py.File(checkpoint, "r") as file:
        if served.GROUP in file:
            return served.restore(file[served.GROUP])
        config, batch = file.attrs["model_config"], file.attrs.get(BATCH)
        is_keras3 = str(file.attrs.get("keras_version", "2")).startswith("3")
    model = _restore_keras3(checkpoint, config) if is_keras3 else _restore_keras2(checkpoint, config)
    if batch is not None:
        model.batch = int(batch)
    return model


def _restore_keras2(checkpoint: Path, config: str) -> Any:
    import tf_keras

    named = re.sub(FUNCTION, r"\1", config)
    if named == config:
        return tf_keras.models.load_model(checkpoint, compile=False)
    model = tf_keras.models.model_from_json(named)
    model.load_weights(checkpoint)
    return model


def _save_keras3(model: Any, checkpoint: Path) -> None:
    """Keras 3's own file of weights, with the model's description as an attribute: its archive stamps the time of
    saving, and its HDF5 files of whole models are of Keras 2's kind, which does not hold every layer."""
    import h5py
    import keras

    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.weights.h5"
        model.save_weights(weights)
        with h5py.File(weights, "r") as source, h5py.File(checkpoint, "w") as target:
            for name in sorted(source):
                if name != "optimizer":
                    source.copy(name, target, without_attrs=True)  # names that count the layers of a process
            target.attrs["keras_version"] = keras.__version__
            target.attrs["model_config"] = json.dumps(config, sort_keys=True)


def _restore_keras3(checkpoint: Path, config: str) -> Any:
    import keras

    model = keras.saving.deserialize_keras_object(json.loads(config))
    with keras3.linked(checkpoint, "model.weights.h5") as link:
        model.load_weights(link)
    return model


def promised(checkpoint: Path) -> Promises:
    """The promises that a checkpoint carries: none where it was made before there were any."""
    import h5py

    with h5py.File(checkpoint, "r") as file:
        return promises.from_json(file.attrs.get(PROMISES, "{}"))


def promise(checkpoint: Path, what: Promises) -> None:
    """Confirms promises on a checkpoint, which carries them from then on, and no others.

    Raises `Broken` where it does not show them.
    """
    import h5py

    if what:
        shown = _shown(checkpoint, what)
        promises.compare(what, shown)
        what = {path: replace(promise, values=shown[path].values) for path, promise in what.items()}
    if what or promised(checkpoint):
        with h5py.File(checkpoint, "r+") as file:
            # Text of variable length: what has a length in HDF5 is limited to 64 KiB.
            file.attrs[PROMISES] = promises.as_json(what)


def _shown(checkpoint: Path, what: Promises) -> Promises:
    """What the layers that `what` is about show. Raises `Broken` for one that is not there."""
    layers = leaves(restore(checkpoint))
    if gone := [path for path in what if path not in layers]:
        raise promises.Broken(f"a promise is broken: layer {gone[0]} is not in the model")
    return {path: show(layers[path], one.distinct is not None) for path, one in what.items()}


def leaves(model: "tf_keras.Model", above: str = "") -> dict[str, Any]:
    """The layers that are no models, by path: the names of the models around a layer, then its own."""
    paths: dict[str, Any] = {}
    for layer in model.layers:
        if isinstance(layer, keras_of(model).Model):
            paths |= leaves(layer, f"{above}{layer.name}/")
        else:
            paths[above + layer.name] = layer
    return paths


def kernels(layer: Any) -> list[Any]:
    """The variables of a layer that have at least two dimensions, but for biases."""
    return [weight for weight in layer.weights if len(weight.shape) > 1 and "bias" not in weight.name.split("/")[-1]]


def show(layer: Any, distinct: bool = False) -> Promise:
    """What could be promised of a layer, but for bits. Counting its `distinct` values sorts them."""
    by_channel = [_by_channel(weight.numpy(), f"{type(layer).__name__} {weight.name}") for weight in kernels(layer)]
    return Promise(
        zeros=sum(int((values == 0).sum()) for values in by_channel),
        distinct=max(map(most_distinct, by_channel), default=0) if distinct else None,
        channels=by_channel[-1].shape[1] if by_channel else 0,
        values=sum(values.size for values in by_channel),
    )


def _by_channel(kernel: np.ndarray, kind: str) -> np.ndarray:
    """A kernel as `[values, output channels]`; `kind` has the names of the layer's type and of the variable."""
    if "transpose" in kind.lower():  # [height, width, out, in]
        kernel = np.moveaxis(kernel, -2, -1)
    # A depthwise kernel is [height, width, in, multiplier].
    channels = kernel.shape[-1] * (kernel.shape[-2] if "depthwise" in kind.lower() else 1)
    return kernel.reshape(-1, channels)
