"""A checkpoint: the Keras model that a training stage leaves, as a file that every process reads back."""

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tf_keras

# How tf_keras 2.21 writes a function of the user's, such as an activation, to HDF5, where it reads a name only.
FUNCTION = r'{"module": "builtins", "class_name": "function", "config": ("\w+"), "registered_name": "function"}'


def save(model: "tf_keras.Model", checkpoint: Path) -> None:
    """Writes the model without its optimizer, as HDF5: Keras 2 reads it back in every process."""
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
    import tf_keras

    with h5py.File(checkpoint, "r") as file:
        config = file.attrs["model_config"]
    named = re.sub(FUNCTION, r"\1", config)
    if named == config:
        return tf_keras.models.load_model(checkpoint, compile=False)
    model = tf_keras.models.model_from_json(named)
    model.load_weights(checkpoint)
    return model
