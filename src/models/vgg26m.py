"""The study's classifier: a VGG-like network of about 26 M parameters, over 60 % of them in the first dense layer."""

from typing import TYPE_CHECKING

from src.models import Architecture

if TYPE_CHECKING:
    import tf_keras

# (filters, convolutions) of each block: 6.9 M parameters for RGB images.
BLOCKS = ((64, 2), (128, 3), (192, 3), (512, 3))
# The first dense layer holds this many weights (62 % of all) whatever the image size: its width is what gives way.
FIRST_DENSE_WEIGHTS = 4 * 4 * 512 * 1984
DENSE = (1024, 800)


def build(config: Architecture, shape: tuple[int, int, int], classes: int) -> "tf_keras.Model":
    """Images `[n, *shape]` to class probabilities `[n, classes]`; 26.0 M parameters at 32 x 32 x 3 and 10 classes."""
    import numpy as np
    import tf_keras

    layers = tf_keras.layers

    def normal(inputs: int) -> "tf_keras.initializers.Initializer":
        # Keras's he_normal cuts the tails off, and with them a part of what int8 makes of real weights.
        return tf_keras.initializers.RandomNormal(stddev=float(np.sqrt(2 / inputs)))

    inputs = x = layers.Input(shape, name="image")
    for block, (filters, convolutions) in enumerate(BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            name = f"block{block}_conv{i}"
            initial = normal(9 * x.shape[-1])
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer=initial, name=name)(x)
            x = layers.BatchNormalization(name=f"{name}_norm")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
        # Pool down to about 4 x 4; images that start smaller are pooled less.
        if min(x.shape[1:3]) > 4:
            x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for i, width in enumerate((max(1, FIRST_DENSE_WEIGHTS // x.shape[1]), *DENSE), start=1):
        x = layers.Dense(width, activation="relu", kernel_initializer=normal(x.shape[1]), name=f"dense{i}")(x)
        x = layers.Dropout(0.3, name=f"dropout{i}")(x)
    return tf_keras.Model(inputs, layers.Dense(classes, activation="softmax", name="classifier")(x), name="vgg26m")
