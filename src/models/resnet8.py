"""ResNet-8, MLPerf Tiny's network for image classification on CIFAR-10 (Banbury et al. 2021, arXiv:2106.07597)."""

from typing import TYPE_CHECKING, Any

from src.models import Architecture

if TYPE_CHECKING:
    import tf_keras

STACKS = (16, 32, 64)  # filters of each; all but the first halve width and height
L2 = 1e-4  # of every convolution, as in MLPerf Tiny's training script


def build(config: Architecture, shape: tuple[int, int, int], classes: int) -> "tf_keras.Model":
    """Images `[n, *shape]` to class probabilities `[n, classes]`; 78,666 parameters at 32 x 32 x 3 and 10 classes.

    Layer by layer the `resnet_v1_eembc` of github.com/mlcommons/tiny, for images of any size.
    """
    import tf_keras

    layers = tf_keras.layers

    def convolution(x: Any, filters: int, size: int, strides: int, name: str) -> Any:
        return layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            kernel_initializer="he_normal",
            kernel_regularizer=tf_keras.regularizers.l2(L2),
            name=name,
        )(x)

    inputs = x = layers.Input(shape, name="image")
    x = convolution(x, STACKS[0], 3, 1, "conv1")
    x = layers.BatchNormalization(name="conv1_norm")(x)
    x = layers.ReLU(name="conv1_relu")(x)
    for stack, filters in enumerate(STACKS, start=1):
        strides, name = 1 if stack == 1 else 2, f"stack{stack}"
        y = convolution(x, filters, 3, strides, f"{name}_conv1")
        y = layers.BatchNormalization(name=f"{name}_conv1_norm")(y)
        y = layers.ReLU(name=f"{name}_conv1_relu")(y)
        y = convolution(y, filters, 3, 1, f"{name}_conv2")
        y = layers.BatchNormalization(name=f"{name}_conv2_norm")(y)
        if strides > 1:
            x = convolution(x, filters, 1, strides, f"{name}_shortcut")
        x = layers.Add(name=f"{name}_add")([x, y])
        x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.AveragePooling2D(x.shape[1:3], name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(classes, activation="softmax", kernel_initializer="he_normal", name="classifier")(x)
    return tf_keras.Model(inputs, x, name="resnet8")
