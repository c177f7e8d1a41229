"""Which axis of which weight of a layer has to do with which channels."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from src.methods.narrow.coupling import DEPTHWISE, Slots

Side = Literal["takes", "makes"]


class Part(NamedTuple):
    """An axis of the weight at place `weight` of a layer's, along which lie the channels that it takes or makes."""

    weight: int
    side: Side
    axis: int


def parts(slots: Slots) -> Iterator[Part]:
    """Of a layer that makes channels or computes each by itself."""
    kind = type(slots.layer).__name__
    for index, weight in enumerate(slots.layer.weights):
        name, rank = name_of(weight), len(weight.shape)
        if not slots.is_maker and kind not in DEPTHWISE:  # batch normalization, PReLU with an own slope per channel
            if weight.shape[-1] == len(slots.takes):
                yield Part(index, "takes", rank - 1)
        elif name == "bias":
            yield Part(index, "makes", 0)
        elif kind in DEPTHWISE or name == "depthwise_kernel":  # [.., in, multiplier]
            yield Part(index, "takes", rank - 2)
        elif kind.endswith("Transpose"):  # [.., out, in]
            yield Part(index, "takes", rank - 1)
            yield Part(index, "makes", rank - 2)
        else:
            yield Part(index, "takes", rank - 2)
            yield Part(index, "makes", rank - 1)


def along(part: Part, slots: Slots, marked: np.ndarray) -> np.ndarray:
    """What is `marked` of atoms, by place along the axis of a part."""
    places = marked[slots.takes if part.side == "takes" else slots.makes]
    if name_of(slots.layer.weights[part.weight]) == "pointwise_kernel" and part.side == "takes":
        return np.repeat(places, slots.layer.depth_multiplier)
    return places


def name_of(weight: Any) -> str:
    return str(weight.name).rpartition("/")[2].partition(":")[0]
