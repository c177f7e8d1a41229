"""A small convolutional network: seconds to train, small enough to see every effect of compression at once."""

from typing import TYPE_CHECKING

from src.models import Architecture

if TYPE_CHECKING:
    import tf_keras


def build(config: Architecture, shape: tuple[int, int, int], classes: int) -> "tf_keras.Model":
    """Images `[n, *shape]` to class probabilities `[n, classes]`; 57,482 parameters at 8 x 8 x 1 and 10 classes."""
    import tf_keras

    layers = tf_keras.layers
    inputs = x = layers.Input(shape, name="image")
    for i, filters in enumerate((16, 32, 64), start=1):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{i}")(x)
        if i > 1 and min(x.shape[1:3]) > 1:
            x = layers.MaxPooling2D(name=f"pool{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", name="dense1")(x)
    x = layers.Dropout(0.2, name="dropout1")(x)
    return tf_keras.Model(inputs, layers.Dense(classes, activation="softmax", name="classifier")(x), name="small_cnn")
