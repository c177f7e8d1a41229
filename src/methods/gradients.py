"""How a convolution's filters are trained without a kernel that crashes. Knows no layer and no model.

oneDNN's kernel for the filters of a 1 x 1 convolution with strides writes past its workspace where the images have
fewer channels than it takes at a time, 16 on AVX-512 and 8 on AVX2 (TensorFlow 2.21; the cause is described at
github.com/uxlfoundation/oneDNN/issues/6035). How far depends on the size of the images, the caches and the threads:
mostly the process dies of SIGSEGV, `munmap_chunk` or `double free`, but one thread may as well overwrite what another
has to sum.
"""

import functools
from typing import Any

# With as many the kernel is sound on both.
CHANNELS_AT_A_TIME = 16


@functools.cache
def avoid_crash() -> None:
    """Has the gradients in which the kernel would crash computed as products of matrices, in all of this process.

    They are those of two operators, whichever layers use them: convolutions in one and two dimensions, and transposed
    ones. Other shapes keep TensorFlow's gradients, to the bit; inference and conversion have none. Does nothing the
    second time.
    """
    from tensorflow.python.framework import ops

    for name, ours in (("Conv2D", _of_convolution), ("Conv2DBackpropInput", _of_transposed)):
        # `RegisterGradient` takes no second gradient for an operator.
        entry = ops.gradient_registry._registry[name]
        entry["type"] = ours(entry["type"])


def _of_convolution(tensorflows: Any) -> Any:
    import tensorflow as tf

    def gradient(op: Any, outputs: Any) -> Any:
        images, filters = op.inputs
        if not _crashes(op, images, filters):
            return tensorflows(op, outputs)
        of_images = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images), filter=filters, out_backprop=outputs, **_attributes(op)
        )
        return [of_images, _of_filters(op, images, outputs)]

    return gradient


def _of_transposed(tensorflows: Any) -> Any:
    """A transposed convolution goes the other way: what it gives are the images."""
    import tensorflow as tf

    def gradient(op: Any, images: Any) -> Any:
        _, filters, outputs = op.inputs
        if not _crashes(op, images, filters):
            return tensorflows(op, images)
        of_outputs = tf.raw_ops.Conv2D(input=images, filter=filters, **_attributes(op))
        return [None, _of_filters(op, images, outputs), of_outputs]

    return gradient


def _crashes(op: Any, images: Any, filters: Any) -> bool:
    height, width, channels, _ = filters.shape
    return (
        (height, width) == (1, 1)
        and max(op.get_attr("strides")) > 1
        and channels < CHANNELS_AT_A_TIME
        and images.shape[-1] == channels  # otherwise it has groups, which take another kernel
        and op.get_attr("data_format") in ("NHWC", b"NHWC")
    )


def _of_filters(op: Any, images: Any, outputs: Any) -> Any:
    """The gradient of filters `[1, 1, channels, filters]` from images `[n, height, width, channels]` and the gradient
    of the outputs: the convolution sees one pixel of each stride, and multiplies.

    A mean over one pixel takes those out, in less than a tenth of the time of a strided slice. With the product it is
    as fast as the kernel, where that is sound.
    """
    import tensorflow as tf

    _, down, right, _ = op.get_attr("strides")
    if paddings := op.get_attr("explicit_paddings"):
        images = tf.pad(images, tf.reshape(paddings, (4, 2)))
    seen = tf.nn.avg_pool2d(images, 1, (down, right), "VALID")
    rows = [tf.reshape(pixels, (-1, pixels.shape[-1])) for pixels in (seen, outputs)]
    return tf.matmul(*rows, transpose_a=True)[None, None]


def _attributes(op: Any) -> dict[str, Any]:
    names = ("strides", "padding", "explicit_paddings", "data_format", "dilations", "use_cudnn_on_gpu")
    values = {name: op.get_attr(name) for name in names}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
