"""DS-CNN, a small network of depthwise separable convolutions (Zhang et al. 2017, arXiv:1711.07128), for images."""

from typing import TYPE_CHECKING

from src.models import Architecture

if TYPE_CHECKING:
    import tf_keras

FILTERS = 64
BLOCKS = 4
L2 = 1e-4  # of every convolution, as in MLPerf Tiny's training script


def build(config: Architecture, shape: tuple[int, int, int], classes: int) -> "tf_keras.Model":
    """Images `[n, *shape]` to class probabilities `[n, classes]`; 23,946 parameters at 32 x 32 x 3 and 10 classes.

    MLPerf Tiny's network for keyword spotting (github.com/mlcommons/tiny) with a 3 x 3 first convolution in place of
    one of 10 x 4, which is shaped for spectrograms.
    """
    import tf_keras

    layers = tf_keras.layers
    penalty = tf_keras.regularizers.l2(L2)
    inputs = x = layers.Input(shape, name="image")
    x = layers.Conv2D(FILTERS, 3, 2, padding="same", kernel_regularizer=penalty, name="conv1")(x)
    x = layers.BatchNormalization(name="conv1_norm")(x)
    x = layers.ReLU(name="conv1_relu")(x)
    x = layers.Dropout(0.2, name="conv1_dropout")(x)
    for block in range(1, BLOCKS + 1):
        name = f"block{block}"
        x = layers.DepthwiseConv2D(3, padding="same", depthwise_regularizer=penalty, name=f"{name}_depthwise")(x)
        x = layers.BatchNormalization(name=f"{name}_depthwise_norm")(x)
        x = layers.ReLU(name=f"{name}_depthwise_relu")(x)
        x = layers.Conv2D(FILTERS, 1, padding="same", kernel_regularizer=penalty, name=f"{name}_pointwise")(x)
        x = layers.BatchNormalization(name=f"{name}_pointwise_norm")(x)
        x = layers.ReLU(name=f"{name}_pointwise_relu")(x)
    x = layers.Dropout(0.4, name="dropout")(x)
    x = layers.AveragePooling2D(x.shape[1:3], name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    return tf_keras.Model(inputs, layers.Dense(classes, activation="softmax", name="classifier")(x), name="ds_cnn")
