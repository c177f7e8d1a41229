"""Every scheme has as many parameters as Keras, and as many multiply-adds as one works out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_architectures import SCHEMES
from test_architectures import task as tiny_task
from test_converters import keras_of_version

from src.measure.audit import audit
from src.models import Architecture, resnet8
from src.models.checkpoint import save

LONG, EXHAUSTIVE = pytest.mark.long, pytest.mark.exhaustive


def mixed(keras: Any) -> Any:
    """Each kind of convolution, and a dense layer."""
    L = keras.layers  # noqa: N806
    parts = (
        L.Conv2D(16, 3, padding="same"),
        L.DepthwiseConv2D(3, depth_multiplier=2),
        L.SeparableConv2D(24, 3, padding="same"),
        L.Conv2D(24, 3, strides=2, padding="same", groups=4),
        L.Conv2DTranspose(8, 3, strides=2, padding="same"),
        L.BatchNormalization(),
        L.Conv2D(8, 1, use_bias=False),
        L.ReLU(),
        L.Flatten(),
        L.Dense(3),
    )
    image = x = keras.Input((8, 8, 3))
    for part in parts:
        x = part(x)
    return keras.Model(image, L.Softmax()(x))


# Of `mixed`. The batch normalization is folded into the convolution before it; its mean, variance, scale and offset are
# of 8 channels each. Without a bias of its own the depthwise part of the separable convolution has none.
FOLDED = 4 * 8
MULTIPLY_ADDS = (
    8 * 8 * 16 * 9 * 3
    + 6 * 6 * 32 * 9
    + (6 * 6 * 32 * 9 + 6 * 6 * 24 * 32)
    + 3 * 3 * 24 * 9 * 6
    + 3 * 3 * 24 * 8 * 9
    + 6 * 6 * 8 * 8
    + 288 * 3
)


def trained(model: Any) -> Any:
    """With other weights than zero everywhere, as training leaves them."""
    rng = np.random.default_rng(0)
    kernels = (rng.normal(0, np.prod(w.shape[:-1]) ** -0.5, w.shape) for w in model.get_weights() if w.ndim > 1)
    model.set_weights([next(kernels) if w.ndim > 1 else rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


def counts(model: Any, shape: tuple[int, int, int], folder: Path) -> dict[str, tuple[int, int]]:
    """Parameters and multiply-adds of a model by scheme."""
    save(model, checkpoint := folder / "model.h5")
    found = {}
    for scheme, (function, settings) in SCHEMES.items():
        (file := folder / "model.tflite").write_bytes(function(settings, checkpoint, tiny_task(shape)).content)
        read = audit(file)
        found[scheme] = read.parameters, read.multiply_adds
    return found


@pytest.mark.parametrize("version", ["3", pytest.param("2", marks=pytest.mark.long)])
def test_every_scheme_has_as_many_as_keras_and_as_one_works_out(version: str, tmp_path: Path) -> None:
    model = trained(mixed(keras_of_version(version)))
    expected = model.count_params() - FOLDED, MULTIPLY_ADDS
    assert counts(model, (8, 8, 3), tmp_path) == dict.fromkeys(SCHEMES, expected)


RECURRENT = {  # of 32 units on 8 steps of 24 values, before a dense layer: matrices used in a step
    "SimpleRNN": 32 * (24 + 32),
    "GRU": 3 * 32 * (24 + 32),
    "LSTM": 4 * 32 * (24 + 32),
}


@LONG
@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("LSTM", "3"),
        *(
            pytest.param(*each, marks=EXHAUSTIVE)
            for each in (("SimpleRNN", "3"), ("GRU", "3"), ("LSTM", "2"), ("GRU", "2"))
        ),
    ],
)
def test_a_recurrent_layer_counts_every_step_in_a_loop_in_one_operator_and_unrolled(
    kind: str, version: str, tmp_path: Path
) -> None:
    keras = keras_of_version(version)
    image = keras.Input((8, 8, 3))
    x = getattr(keras.layers, kind)(32)(keras.layers.Reshape((8, 24))(image))
    model = trained(keras.Model(image, keras.layers.Dense(3, activation="softmax")(x)))
    found = counts(model, (8, 8, 3), tmp_path)
    parameters, multiply_adds = model.count_params(), 8 * RECURRENT[kind] + 96
    if (kind, version) != ("LSTM", "2"):
        # Unrolled, the first step multiplies no state, as there is none yet; each step may have biases of its own.
        unrolled = found.pop("fiq")
        assert unrolled[1] == multiply_adds - RECURRENT[kind] * 32 // (24 + 32)
        biases = sum(weight.shape.num_elements() for weight in model.weights if "bias" in weight.name) - 3
        assert parameters <= unrolled[0] <= parameters + 8 * biases
    assert found == dict.fromkeys(found, (parameters, multiply_adds))


def of_layers(model: Any) -> int:
    """The multiply-adds of convolutions and dense layers, by Keras's own shapes."""
    total = 0
    for layer in model._flatten_layers():
        kind = type(layer).__name__
        if kind in ("Conv2D", "DepthwiseConv2D", "Dense"):
            # The kernel of a depthwise one is [height, width, in, multiplier], so this holds for both.
            total += np.prod(layer.output.shape[1:-1], dtype=int) * np.prod(layer.weights[0].shape, dtype=int)
    return int(total)


def known(name: str) -> tuple[Any, tuple[int, int, int]]:
    keras = keras_of_version("2")
    if name == "resnet8":
        return resnet8.build(Architecture(), (32, 32, 3), 10), (32, 32, 3)
    return keras.applications.MobileNetV2((96, 96, 3), weights=None), (96, 96, 3)


@LONG
@pytest.mark.parametrize(
    ("name", "thousands", "millions"),
    [
        ("resnet8", 78, 12.5),  # MLPerf Tiny's: Banbury et al. 2021, arXiv:2106.07597
        # mobilenet_v2_1.0_96 of https://github.com/tensorflow/models: 56 M, and 3.47 M without batch normalization,
        # which leaves a bias for each of the 17,056 channels of convolutions that have none.
        pytest.param("mobilenet_v2", 3471 + 17, 56.0, marks=EXHAUSTIVE),
    ],
)
def test_models_have_what_is_published_of_them(name: str, thousands: int, millions: float, tmp_path: Path) -> None:
    model, shape = known(name)
    folded = sum(layer.count_params() for layer in model.layers if type(layer).__name__ == "BatchNormalization")
    biases = folded // 4 if name == "mobilenet_v2" else 0
    expected = trained(model).count_params() - folded + biases, of_layers(model)
    assert counts(model, shape, tmp_path) == dict.fromkeys(SCHEMES, expected)
    assert round(expected[0] / 1e3) == thousands
    assert round(expected[1] / 1e6, 1) == pytest.approx(millions, abs=0.5)
