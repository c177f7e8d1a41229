"""A layer and functions of a user's own, of whichever Keras the process has: what `model.custom_objects` loads."""

from typing import Any

import tensorflow as tf

keras = tf.keras
register = keras.utils.register_keras_serializable


class Scale(keras.layers.Layer):
    """Multiplies each channel by a weight."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")
        super().build(shape)

    def call(self, x: Any) -> Any:
        return x * self.scale


@register("zoo")
class RegisteredScale(Scale):
    """The same, registered."""


class Mixed(keras.layers.Layer):
    """Has a layer inside, a setting, and another way in training."""

    def __init__(self, units: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units)
        self.dropout = keras.layers.Dropout(0.5)

    def build(self, shape: Any) -> None:
        self.dense.build(shape)
        super().build(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.dropout(self.dense(x), training=training)

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def doubled(x: Any) -> Any:
    """An activation."""
    return tf.nn.relu(x) * 2.0


@register("zoo")
def registered_doubled(x: Any) -> Any:
    """The same, registered."""
    return tf.nn.relu(x) * 2.0


class Subclassed(keras.Model):
    """A model whose layers only its code connects."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stem = keras.layers.Conv2D(4, 3, activation="relu")
        self.flat = keras.layers.Flatten()
        self.scores = keras.layers.Dense(3, activation="softmax")

    def call(self, x: Any) -> Any:
        return self.scores(self.flat(self.stem(x)))


def subclassed() -> Any:
    """Such a model, called once."""
    model = Subclassed()
    model(tf.zeros((1, 8, 8, 3)))
    return model
