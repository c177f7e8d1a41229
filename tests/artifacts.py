"""Real `.tflite` files for the tests of what measures them: a tiny network in every scheme, and broken files."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from src.data import Split, in_memory, preprocess
from src.settings.sections import Preprocess

SCHEMES = ("none", "drq", "fiq", "f16")
SHAPE, CLASSES = (12, 12, 3), 5
PREPROCESS = Preprocess(rescale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
PRUNED_SHARE = 0.8  # of the first dense kernel of the pruned files


@dataclass(frozen=True)
class Tiny:
    """`files` by name; the test split; `kernel`: `[in, out]`, the first dense kernel of the pruned files."""

    files: dict[str, Path]
    split: Split
    kernel: np.ndarray


def images(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 `[n, 12, 12, 3]` of noise with a brighter stripe whose place is the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    pixels = rng.integers(0, 160, (n, *SHAPE))
    for i, label in enumerate(labels):
        pixels[i, :, 2 * label + 1 : 2 * label + 3] += 15
    return pixels.astype(np.uint8), labels


def load(folder: Path) -> Tiny:
    """What `build` has left in a folder."""
    test_images, test_labels = images(203, seed=1)  # not a multiple of any batch size
    split = in_memory(test_images, test_labels, [str(i) for i in range(203)])
    return Tiny({file.stem: file for file in folder.glob("*.tflite")}, split, np.load(folder / "kernel.npy"))


def build(folder: Path) -> None:
    """Trains for seconds and converts. The network has each kind of layer that the schemes treat in its own way."""
    import tensorflow as tf
    import tf_keras as keras

    layers = keras.layers
    keras.backend.clear_session()  # layers are numbered from the start, whatever other tests have built
    keras.utils.set_random_seed(0)
    trunk = [
        layers.Input(SHAPE),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.DepthwiseConv2D(3, padding="same", activation="relu"),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(CLASSES),
    ]
    logits = keras.Sequential(trunk)
    model = keras.Sequential([logits, layers.Softmax()])
    pixels, labels = images(800)
    inputs = preprocess(pixels, PREPROCESS)
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    model.fit(inputs, labels, epochs=3, verbose=0)

    def converter(keras_model: Any, scheme: str) -> Any:
        made = tf.lite.TFLiteConverter.from_keras_model(keras_model)
        made.optimizations = [] if scheme == "none" else [tf.lite.Optimize.DEFAULT]
        if scheme == "f16":
            made.target_spec.supported_types = [tf.float16]
        if scheme in ("fiq", "uint8"):
            made.representative_dataset = lambda: representative(inputs)
            made.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            made.inference_input_type = made.inference_output_type = tf.int8 if scheme == "fiq" else tf.uint8
        return made

    contents = {scheme: converter(model, scheme).convert() for scheme in (*SCHEMES, "uint8")}
    contents |= {"logits": converter(logits, "none").convert(), "logits-fiq": converter(logits, "fiq").convert()}
    for name, function in {**fixed_to_one_image(tf, keras, logits), **without_numbers(tf, logits)}.items():
        contents[name] = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    contents |= to_be_told_how(tf)

    dense = logits.layers[-2]
    kernel, bias = dense.get_weights()
    kernel = pruned(kernel)
    dense.set_weights([kernel, bias])
    for scheme in ("none", "fiq"):
        contents[f"pruned-{scheme}"] = converter(model, scheme).convert()
    for scheme in ("none", "f16"):
        sparse = converter(model, scheme)
        sparse.optimizations = [*sparse.optimizations, tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
        contents[f"sparse-{scheme}"] = sparse.convert()
    contents["crash"] = out_of_bounds(contents["sparse-none"])
    contents["truncated"] = contents["none"][: len(contents["none"]) // 2]
    contents["empty"] = b""
    contents["text"] = b"This is not a model.\n"

    for name, content in contents.items():
        (folder / f"{name}.tflite").write_bytes(content)
    np.save(folder / "kernel.npy", kernel)


def representative(inputs: np.ndarray) -> Iterator[list[np.ndarray]]:
    for image in inputs[:100]:
        yield [image[None]]


def pruned(kernel: np.ndarray) -> np.ndarray:
    """Without the smallest `PRUNED_SHARE` of its values."""
    return np.where(np.abs(kernel) > np.quantile(np.abs(kernel), PRUNED_SHARE), kernel, 0).astype(np.float32)


def fixed_to_one_image(tf: Any, keras: Any, logits: Any) -> dict[str, Callable[..., Any]]:
    """Graphs that a batch breaks: `fixed` reshapes to one row, `mixing` subtracts the mean over the batch."""
    signature = tf.TensorSpec([1, *SHAPE], tf.float32)

    def fixed(x: Any) -> Any:
        return tf.reshape(logits(x), [1, CLASSES])

    def mixing(x: Any) -> Any:
        return logits(x - tf.reduce_mean(x, axis=0, keepdims=True) / 2)

    return {f.__name__: tf.function(f).get_concrete_function(signature) for f in (fixed, mixing)}


BRIGHT = -0.686  # mean of a preprocessed image, above which `without_numbers` gives none: about half of them


def without_numbers(tf: Any, logits: Any) -> dict[str, Callable[..., Any]]:
    """Graphs whose answer to a bright image is none: logits that are NaN, infinite or all -inf, probabilities that are
    NaN; and, which is an answer, one class ruled out by -inf. The converter writes an infinite constant as the largest
    float32 (TensorFlow 2.21), so infinities are computed."""
    signature = tf.TensorSpec([1, *SHAPE], tf.float32)

    def mean(x: Any) -> Any:
        return tf.reduce_mean(x, axis=(1, 2, 3))[:, None]

    def minus_infinity(x: Any) -> Any:
        return tf.math.log(tf.nn.relu(-10 - mean(x)))

    def nan(x: Any) -> Any:
        return tf.where(mean(x) > BRIGHT, tf.constant([[float("nan")] * CLASSES]), logits(x))

    def inf(x: Any) -> Any:
        beyond = tf.concat([tf.exp(1000 * (mean(x) + 10)), logits(x)[:, 1:]], axis=1)
        return tf.where(mean(x) > BRIGHT, beyond, logits(x))

    def nothing(x: Any) -> Any:
        return tf.where(mean(x) > BRIGHT, tf.concat([minus_infinity(x)] * CLASSES, axis=1), logits(x))

    def nan_softmax(x: Any) -> Any:
        return tf.nn.softmax(nan(x))

    def ruled_out(x: Any) -> Any:
        return tf.concat([minus_infinity(x), logits(x)[:, 1:]], axis=1)

    graphs = (nan, inf, nothing, nan_softmax, ruled_out)
    return {graph.__name__: tf.function(graph).get_concrete_function(signature) for graph in graphs}


def to_be_told_how(tf: Any) -> dict[str, bytes]:
    """Files that can be run in more than one way: `open` at any size of its image, `signatures` by three of them."""

    class Module(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.kernel = tf.Variable(tf.random.stateless_normal([3, 3, 3, 8], [0, 0]))
            self.table = tf.Variable(tf.random.stateless_normal([100, 4], [0, 0]))

        @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], tf.float32, name="image")])  # type: ignore[untyped-decorator]
        def conv(self, image: Any) -> Any:
            return {"y": tf.nn.conv2d(image, self.kernel, 1, "SAME")}

        @tf.function(input_signature=[tf.TensorSpec([1, 16], tf.int32, name="ids")])  # type: ignore[untyped-decorator]
        def embed(self, ids: Any) -> Any:
            return {"y": tf.gather(self.table, ids)}

        @tf.function(input_signature=[tf.TensorSpec([n, 4], tf.float32, name=name) for name, n in (("b", 2), ("a", 3))])  # type: ignore[untyped-decorator]
        def two(self, b: Any, a: Any) -> Any:
            return {"y": tf.matmul(a, b, transpose_b=True)}

    module = Module()
    functions = {name: getattr(module, name) for name in ("conv", "embed", "two")}
    one = tf.lite.TFLiteConverter.from_concrete_functions([module.conv.get_concrete_function()], module)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=functions)
        several = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions)).convert()
    return {"open": one.convert(), "signatures": several}


def out_of_bounds(content: bytes) -> bytes:
    """A sparse file whose column indices point a gigabyte away: LiteRT 2.3 follows them."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(content)))
    for tensor in model.subgraphs[0].tensors:
        for dimension in tensor.sparsity.dimMetadata if tensor.sparsity else ():
            if dimension.arrayIndices is not None:
                count = len(dimension.arrayIndices.values)
                dimension.arrayIndicesType = schema.SparseIndexVector.Int32Vector
                dimension.arrayIndices = schema.Int32VectorT(values=[1 << 28] * count)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
