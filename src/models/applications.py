"""Networks of `tf_keras.applications`, for images of any size and any number of classes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as schema

from src.machine.output import quiet
from src.models import Architecture
from src.settings.check import STRICT, UserError, in_short

if TYPE_CHECKING:
    import tf_keras

MOMENTUM = 0.99  # of the statistics of batches: Keras's default


@schema(frozen=True, config=STRICT)
class Application(Architecture):
    """A model of `tf_keras.applications` with another top. `weights` null starts from random ones."""

    weights: Literal["imagenet"] | None = None

    @property
    def external(self) -> bool:
        return self.weights is not None


def with_new_top(
    network: Callable[..., "tf_keras.Model"],
    config: Application,
    shape: tuple[int, int, int],
    classes: int,
    *,
    name: str,
    dropout: float,
    first: str | None = None,
) -> "tf_keras.Model":
    """The body of `network` from its layer `first` on, its features averaged over the image, dropout, and a softmax
    over `classes`.

    Raises `UserError` where ImageNet's weights don't fit the images or can't be loaded.
    """
    import tf_keras

    layers = tf_keras.layers
    if config.weights and shape[2] != 3:
        raise UserError(f"model.weights={config.weights}: takes images of 3 channels, the data has {shape[2]}")
    inputs = layers.Input(shape, name="image")
    try:
        with quiet():
            # Given as a tensor: of an input_shape the applications refuse fewer than 32 x 32 pixels.
            body = network(include_top=False, weights=config.weights, input_tensor=inputs, pooling=None)
    except Exception as error:  # of the network, of the disk, of a file that is not what its digest says
        if config.weights is None:
            raise
        raise UserError(
            f"model.weights={config.weights}: can't be loaded ({in_short(error)}); takes a "
            "connection, the file in ~/.keras/models, or model.weights=null"
        ) from None
    for layer in body.layers:
        if isinstance(layer, layers.BatchNormalization):
            # MobileNetV2's averages over a thousand batches, which a short training ends before they are true.
            layer.momentum = min(layer.momentum, MOMENTUM)
    if first:
        body = tf_keras.Model(body.get_layer(first).input, body.output)
        body = tf_keras.models.clone_model(body, input_tensors=inputs, clone_function=lambda layer: layer)
    x = layers.GlobalAveragePooling2D(name="pool")(body.output)
    x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(classes, activation="softmax", name="classifier")(x)
    return tf_keras.Model(inputs, x, name=name)
