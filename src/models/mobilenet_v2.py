"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381)."""

from functools import partial
from typing import TYPE_CHECKING

from src.models.applications import with_new_top
from src.settings.config import MobileNetV2

if TYPE_CHECKING:
    import tf_keras


def build(config: MobileNetV2, shape: tuple[int, int, int], classes: int) -> "tf_keras.Model":
    """Images `[n, *shape]` to class probabilities `[n, classes]`; 2,270,794 parameters at `alpha` 1 and 10 classes.

    Raises `UserError` where ImageNet's weights don't fit the images or can't be loaded.
    """
    import tf_keras

    network = partial(tf_keras.applications.MobileNetV2, alpha=config.alpha)
    return with_new_top(network, config, shape, classes, name="mobilenet_v2", dropout=0.2)
