"""Operators between tensors, and the functions of `keras.ops` that make features of features."""

import inspect
from collections.abc import Callable
from typing import Any

from scripts.zoo.layers import classifier

Middle = Callable[[Any], Any]


def operators(keras: Any) -> dict[str, Middle]:
    """What Python's own operators make of tensors, and TensorFlow's functions in Keras 2, which takes them."""
    pool = keras.layers.AveragePooling2D
    made: dict[str, Middle] = {
        "x / 255": lambda x: x / 255,
        "2 * x - 1": lambda x: 2 * x - 1,
        "1 - x": lambda x: 1 - x,
        "a + b": lambda x: x + pool(3, 1, "same")(x),
        "a - b": lambda x: x - pool(3, 1, "same")(x),
        "a * b": lambda x: x * pool(3, 1, "same")(x),
        "a / b": lambda x: x / (1 + pool(3, 1, "same")(x)),
        "x ** 2": lambda x: x**2,
        "-x": lambda x: -x,
        "abs(x)": lambda x: abs(x),
        "a @ b": lambda x: x @ x[:, :, :4],
        "x // 1": lambda x: 4 * x // 1,
        "x % 1": lambda x: 4 * x % 1,
        "x[:, ::2]": lambda x: x[:, ::2, 1:-1],
        "x[..., 0]": lambda x: x[..., 0],
    }
    if hasattr(keras, "ops"):
        return made
    import tensorflow as tf

    return made | {
        "tf.nn.relu6(x)": tf.nn.relu6,
        "tf.nn.swish(x)": tf.nn.swish,
        "tf.sqrt(x)": lambda x: tf.sqrt(tf.abs(x) + 1),
        "tf.reduce_mean(x)": lambda x: tf.reduce_mean(x, axis=[1, 2]),
        "tf.concat([a, b])": lambda x: tf.concat([x, 2 * x], axis=-1),
        "tf.reshape(x)": lambda x: tf.reshape(x, [-1, 16, 16]),
        "tf.transpose(x)": lambda x: tf.transpose(x, [0, 3, 1, 2]),
        "tf.image.resize(x)": lambda x: tf.image.resize(x, [4, 4]),
        "tf.pad(x)": lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]),
        "tf.clip_by_value(x)": lambda x: tf.clip_by_value(x, 0.0, 1.0),
        "tf.matmul(a, b)": lambda x: tf.matmul(x, x[:, :, :4]),
        "tf.stack([a, b])": lambda x: tf.stack([x, x], axis=1),
        "tf.nn.softmax(x)": lambda x: tf.nn.softmax(x),
        "tf.cast(x)": lambda x: tf.cast(tf.cast(x * 4, "int32"), "float32"),
        "tf.where(a, b)": lambda x: tf.where(x > 0.5, x, 2 * x),
    }


# How a function of `keras.ops` is called that takes more than one tensor of features; `k` is `keras`.
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "adaptive_average_pool": lambda k, x: k.ops.adaptive_average_pool(x, (2, 2)),
    "adaptive_max_pool": lambda k, x: k.ops.adaptive_max_pool(x, (2, 2)),
    "append": lambda k, x: k.ops.append(x, x, axis=-1),
    "arctan2": lambda k, x: k.ops.arctan2(x, x + 1),
    "argmax": lambda k, x: k.ops.cast(k.ops.argmax(x, axis=-1), "float32"),
    "argmin": lambda k, x: k.ops.cast(k.ops.argmin(x, axis=-1), "float32"),
    "argsort": lambda k, x: k.ops.cast(k.ops.argsort(x, axis=-1), "float32"),
    "array_split": lambda k, x: k.ops.array_split(x, 2, axis=-1)[0],
    "average": lambda k, x: k.ops.average(x, axis=-1),
    "average_pool": lambda k, x: k.ops.average_pool(x, 2),
    "batch_normalization": lambda k, x: k.ops.batch_normalization(x, k.ops.zeros(4), k.ops.ones(4), axis=-1),
    "broadcast_to": lambda k, x: x + k.ops.broadcast_to(x[:, :1, :1], k.ops.shape(x)),
    "cast": lambda k, x: k.ops.cast(k.ops.cast(4 * x, "int32"), "float32"),
    "clip": lambda k, x: k.ops.clip(x, 0.1, 0.8),
    "concatenate": lambda k, x: k.ops.concatenate([x, 2 * x], axis=-1),
    "conv": lambda k, x: k.ops.conv(x, k.ops.ones((2, 2, 4, 4))),
    "conv_transpose": lambda k, x: k.ops.conv_transpose(x, k.ops.ones((2, 2, 4, 4)), 2),
    "count_nonzero": lambda k, x: k.ops.cast(k.ops.count_nonzero(x, axis=(1, 2)), "float32"),
    "cumprod": lambda k, x: k.ops.cumprod(x, axis=1),
    "cumsum": lambda k, x: k.ops.cumsum(x, axis=1),
    "depth_to_space": lambda k, x: k.ops.depth_to_space(x, 2),
    "depthwise_conv": lambda k, x: k.ops.depthwise_conv(x, k.ops.ones((2, 2, 4, 1))),
    "divide": lambda k, x: k.ops.divide(x, x + 1),
    "divide_no_nan": lambda k, x: k.ops.divide_no_nan(x, x),
    "dot_product_attention": lambda k, x: k.ops.dot_product_attention(x, x, x),
    "einsum": lambda k, x: k.ops.einsum("abcd,abed->abce", x, x),
    "equal": lambda k, x: k.ops.cast(k.ops.equal(x, 0), "float32"),
    "expand_dims": lambda k, x: k.ops.expand_dims(x, -1),
    "flip": lambda k, x: k.ops.flip(x, axis=1),
    "floor_divide": lambda k, x: k.ops.floor_divide(4 * x, 2),
    "full_like": lambda k, x: x + k.ops.full_like(x, 2.0),
    "get_item": lambda k, x: k.ops.get_item(x, (slice(None), 0)),
    "greater": lambda k, x: k.ops.cast(k.ops.greater(x, 0.5), "float32"),
    "greater_equal": lambda k, x: k.ops.cast(k.ops.greater_equal(x, 0.5), "float32"),
    "hypot": lambda k, x: k.ops.hypot(x, x + 1),
    "image.crop_images": lambda k, x: k.ops.image.crop_images(x, 1, 1, target_height=4, target_width=4),
    "image.pad_images": lambda k, x: k.ops.image.pad_images(x, 1, 1, target_height=12, target_width=12),
    "image.resize": lambda k, x: k.ops.image.resize(x, (4, 4)),
    "image.rgb_to_grayscale": lambda k, x: k.ops.image.rgb_to_grayscale(x[..., :3]),
    "image.rgb_to_hsv": lambda k, x: k.ops.image.rgb_to_hsv(x[..., :3]),
    "image.hsv_to_rgb": lambda k, x: k.ops.image.hsv_to_rgb(x[..., :3]),
    "image.extract_patches": lambda k, x: k.ops.image.extract_patches(x, 2),
    "layer_normalization": lambda k, x: k.ops.layer_normalization(x, axis=-1),
    "less": lambda k, x: k.ops.cast(k.ops.less(x, 0.5), "float32"),
    "less_equal": lambda k, x: k.ops.cast(k.ops.less_equal(x, 0.5), "float32"),
    "log": lambda k, x: k.ops.log(x + 1),
    "log10": lambda k, x: k.ops.log10(x + 1),
    "log2": lambda k, x: k.ops.log2(x + 1),
    "logical_and": lambda k, x: k.ops.cast(k.ops.logical_and(x > 0.2, x < 0.7), "float32"),
    "logical_not": lambda k, x: k.ops.cast(k.ops.logical_not(x > 0.2), "float32"),
    "logical_or": lambda k, x: k.ops.cast(k.ops.logical_or(x < 0.2, x > 0.7), "float32"),
    "logsumexp": lambda k, x: k.ops.logsumexp(x, axis=-1),
    "matmul": lambda k, x: k.ops.matmul(x, x[:, :, :4]),
    "max": lambda k, x: k.ops.max(x, axis=-1),
    "max_pool": lambda k, x: k.ops.max_pool(x, 2),
    "mean": lambda k, x: k.ops.mean(x, axis=(1, 2)),
    "median": lambda k, x: k.ops.median(x, axis=-1),
    "min": lambda k, x: k.ops.min(x, axis=-1),
    "mod": lambda k, x: k.ops.mod(4 * x, 1),
    "moments": lambda k, x: k.ops.moments(x, axes=[1, 2])[1],
    "moveaxis": lambda k, x: k.ops.moveaxis(x, -1, 1),
    "not_equal": lambda k, x: k.ops.cast(k.ops.not_equal(x, 0), "float32"),
    "one_hot": lambda k, x: k.ops.one_hot(k.ops.argmax(x, axis=-1), 4),
    "ones_like": lambda k, x: x + k.ops.ones_like(x),
    "pad": lambda k, x: k.ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]),
    "power": lambda k, x: k.ops.power(x + 1, 1.5),
    "prod": lambda k, x: k.ops.prod(x, axis=-1),
    "reciprocal": lambda k, x: k.ops.reciprocal(x + 1),
    "repeat": lambda k, x: k.ops.repeat(x, 2, axis=1),
    "reshape": lambda k, x: k.ops.reshape(x, (-1, 16, 16)),
    "rearrange": lambda k, x: k.ops.rearrange(x, "b h w c -> b (h w) c"),
    "rms_normalization": lambda k, x: k.ops.rms_normalization(x),
    "roll": lambda k, x: k.ops.roll(x, 1, axis=1),
    "rot90": lambda k, x: k.ops.rot90(x, axes=(1, 2)),
    "rsqrt": lambda k, x: k.ops.rsqrt(x + 1),
    "separable_conv": lambda k, x: k.ops.separable_conv(x, k.ops.ones((2, 2, 4, 1)), k.ops.ones((1, 1, 4, 4))),
    "sort": lambda k, x: k.ops.sort(x, axis=-1),
    "space_to_depth": lambda k, x: k.ops.space_to_depth(x, 2),
    "split": lambda k, x: k.ops.split(x, 2, axis=-1)[1],
    "sqrt": lambda k, x: k.ops.sqrt(x + 1),
    "squeeze": lambda k, x: k.ops.squeeze(x[:, :1], axis=1),
    "stack": lambda k, x: k.ops.stack([x, 2 * x], axis=1),
    "std": lambda k, x: k.ops.std(x, axis=-1),
    "sum": lambda k, x: k.ops.sum(x, axis=(1, 2)),
    "swapaxes": lambda k, x: k.ops.swapaxes(x, 1, 3),
    "take": lambda k, x: k.ops.take(x, [0, 2], axis=-1),
    "tensordot": lambda k, x: k.ops.tensordot(x, k.ops.ones((4, 4)), axes=1),
    "threshold": lambda k, x: k.ops.threshold(x, 0.5, 0.0),
    "tile": lambda k, x: k.ops.tile(x, (1, 1, 1, 2)),
    "top_k": lambda k, x: k.ops.top_k(x, 2)[0],
    "transpose": lambda k, x: k.ops.transpose(x, (0, 3, 1, 2)),
    "unstack": lambda k, x: k.ops.unstack(x, axis=-1)[0],
    "var": lambda k, x: k.ops.var(x, axis=-1),
    "where": lambda k, x: k.ops.where(x > 0.5, x, 2 * x),
    "zeros_like": lambda k, x: x + k.ops.zeros_like(x),
}


def functions(keras: Any) -> dict[str, str]:
    """The functions that `keras.ops` exports, with the reason for which one is left out; empty where it is not."""
    if not hasattr(keras, "ops"):
        return {}
    features = keras.Input((8, 8, 4))
    names = [*dir(keras.ops), *(f"image.{name}" for name in dir(keras.ops.image))]
    return {name: _why_not(keras, name, features) for name in names if inspect.isfunction(_function(keras, name))}


def _function(keras: Any, name: str) -> Any:
    module = keras.ops.image if name.startswith("image.") else keras.ops
    return getattr(module, name.removeprefix("image."))


def _why_not(keras: Any, name: str, x: Any) -> str:
    """Whether the function makes float features of float features, which is tried."""
    function = _function(keras, name)
    if function.__name__ != name and "." not in name and hasattr(keras.ops, function.__name__):
        return f"another name of {function.__name__}"
    try:
        y = call(keras, name, x)
    except Exception as error:
        return f"does not take features alone ({type(error).__name__})"
    if not isinstance(y, keras.KerasTensor):
        return "gives no tensor of features"
    if "float" not in str(y.dtype) or len(y.shape) < 2 or y.shape[0] is not None or None in y.shape[1:]:
        return f"gives {y.dtype} of shape {list(y.shape)}, which is no feature of an image"
    return ""


def call(keras: Any, name: str, x: Any) -> Any:
    """The function as CALLS says, else of one tensor, else of two; along the channels where it takes an axis."""
    if name in CALLS:
        return CALLS[name](keras, x)
    function = _function(keras, name)
    parameters = inspect.signature(function).parameters
    axis = {"axis": -1} if "axis" in parameters and parameters["axis"].default is None else {}
    needed = [p for p in parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    y = function(x, **axis) if len(needed) == 1 else function(x, x + 1, **axis)
    return keras.ops.cast(y, "float32") if str(getattr(y, "dtype", "")) == "bool" else y


def with_function(keras: Any, name: str) -> Any:
    """The classifier with one function of `keras.ops` in it."""
    return classifier(keras, lambda x: call(keras, name, x))
