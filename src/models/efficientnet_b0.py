"""EfficientNet-B0 (Tan & Le 2019, arXiv:1905.11946)."""

from typing import TYPE_CHECKING

from src.models.applications import Application, with_new_top

if TYPE_CHECKING:
    import tf_keras

FIRST_LAYER = "stem_conv_pad"  # after those that bring pixels to ImageNet's mean and deviation


def build(config: Application, shape: tuple[int, int, int], classes: int) -> "tf_keras.Model":
    """Images `[n, *shape]` to class probabilities `[n, classes]`; 4,062,374 parameters at 3 channels and 10 classes.

    Keras's network starts with layers that bring pixels to ImageNet's mean and deviation. Here `model.preprocess` does
    that, as with every other model.

    Raises `UserError` where ImageNet's weights don't fit the images or can't be loaded.
    """
    import tf_keras

    network = tf_keras.applications.EfficientNetB0
    return with_new_top(network, config, shape, classes, name="efficientnet_b0", dropout=0.2, first=FIRST_LAYER)
