"""A function for one image at a time, of one that was traced for a fixed number of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# Operators that take the shape of what they make, and which of their inputs it is.
SHAPED = {"BroadcastTo": 1, "Conv2DBackpropInput": 0, "DepthwiseConv2dNativeBackpropInput": 0, "Fill": 0, "Reshape": 1}
LARGEST_DIFFERENCE = 1e-4  # as a share of the largest score


def for_one(function: Any, shape: Sequence[int | None]) -> Any:
    """A concrete function from one image to its scores, of the concrete `function` of `n` images: its graph, with the
    number taken out of the shapes that are written in it. None where that can't be, or where it gives other scores for
    some images of `shape`; where that has a None, no image is tried.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    try:
        # With the functions that it calls put in their places.
        frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
        (takes,), (gives,) = frozen.inputs, frozen.outputs
        graph = _reshaped(frozen.graph.as_graph_def(), takes.shape[0])

        def imported(image: Any) -> Any:
            return tf.graph_util.import_graph_def(graph, {takes.name: image}, [gives.name], name="")[0]

        one = tf.TensorSpec((1, *takes.shape[1:]), takes.dtype, "image")
        made = tf.compat.v1.wrap_function(imported, [one])
        sizes = takes.shape[1:] if takes.shape.is_fully_defined() else shape
        return made if None in sizes or _same(function, made, takes, (takes.shape[0], *sizes)) else None
    except (ValueError, tf.errors.OpError):
        return None


def _reshaped(graph: Any, number: int) -> Any:
    """The graph with 1 for `number` where that is the first size in the shape of what an operator makes."""
    from tensorflow.python.framework.tensor_util import MakeNdarray, make_tensor_proto

    nodes = {node.name: node for node in graph.node}
    for node in list(graph.node):
        if node.op not in SHAPED:
            continue
        constant = nodes[node.input[SHAPED[node.op]].partition(":")[0]]
        if constant.op != "Const":
            continue
        sizes = MakeNdarray(constant.attr["value"].tensor)
        if sizes.size and sizes[0] == number:
            ours = graph.node.add()
            ours.CopyFrom(constant)
            ours.name = f"{node.name}/of_one"
            values = np.concatenate([[1], sizes[1:]]).astype(sizes.dtype)
            ours.attr["value"].tensor.CopyFrom(make_tensor_proto(values))
            node.input[SHAPED[node.op]] = ours.name
    return graph


def _same(function: Any, made: Any, takes: Any, shape: tuple[int, ...]) -> bool:
    """Whether both give the same scores for images drawn at random."""
    import tensorflow as tf

    highest = 1 if takes.dtype.is_floating else 255
    images = tf.cast(np.random.default_rng(0).random(shape) * highest, takes.dtype)
    (scores,) = tf.nest.flatten(function(images))
    ours = [made(images[i : i + 1]) for i in range(shape[0])]
    if any(each.shape != (1, *scores.shape[1:]) for each in ours):
        return False
    largest = np.abs(scores).max()
    return bool(np.abs(scores - np.concatenate(ours)).max() <= LARGEST_DIFFERENCE * largest)
