"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381)."""

from functools import partial
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as schema

from src.models.applications import Application, with_new_top
from src.settings.check import STRICT, Positive

if TYPE_CHECKING:
    import tf_keras


@schema(frozen=True, config=STRICT)
class MobileNetV2(Application):
    """`alpha` scales the width of every layer. There are ImageNet weights for six of its values."""

    alpha: Positive = 1.0

    def __post_init__(self) -> None:
        published = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
        if self.weights and self.alpha not in published:
            raise ValueError(
                f"alpha={self.alpha} has no weights={self.weights}; takes one of {', '.join(map(str, published))}"
            )


def build(config: MobileNetV2, shape: tuple[int, int, int], classes: int) -> "tf_keras.Model":
    """Images `[n, *shape]` to class probabilities `[n, classes]`; 2,270,794 parameters at `alpha` 1 and 10 classes.

    Raises `UserError` where ImageNet's weights don't fit the images or can't be loaded.
    """
    import tf_keras

    network = partial(tf_keras.applications.MobileNetV2, alpha=config.alpha)
    return with_new_top(network, config, shape, classes, name="mobilenet_v2", dropout=0.2)
