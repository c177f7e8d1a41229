"""Models of both Kerases become files that LiteRT runs: with any number of images at a time, else with one, and what
none takes is told before anything is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_architectures import SCHEMES
from test_architectures import task as tiny_task

from src.machine import backend
from src.measure.targets.litert import Interpreter
from src.methods import prune, train
from src.methods.converters import USUAL, NotConverted, converts
from src.methods.prune import MagnitudePruning, sparsity
from src.models.checkpoint import restore, save

IMAGES = np.random.default_rng(0).random((6, 8, 8, 3)).astype(np.float32)


def keras_of_version(version: str) -> Any:
    backend.prepare()
    import keras
    import tf_keras

    return {"2": tf_keras, "3": keras}[version]


def classifier(keras: Any, *parts: Any) -> Any:
    keras.utils.set_random_seed(0)
    image = x = keras.Input((8, 8, 3))
    for part in parts:
        x = part(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))


def usual(keras: Any) -> Any:
    L = keras.layers  # noqa: N806
    inner = keras.Sequential([L.Input((10, 10, 8)), L.DepthwiseConv2D(3), L.ReLU(), L.SpatialDropout2D(0.1)])
    image = keras.Input((8, 8, 3))
    x = L.GaussianNoise(0.1)(L.Rescaling(1 / 2)(image))
    x = L.Conv2D(8, 3, padding="same", activation="relu6")(L.ZeroPadding2D(1)(x))
    x = L.LeakyReLU()(L.BatchNormalization()(inner(x)))
    x = L.Add()([x, L.Activation("tanh")(L.SeparableConv2D(8, 3, padding="same")(x))])
    x = L.Subtract()([x, L.Multiply()([x, L.ELU()(x)])])
    x = L.Cropping2D(1)(L.UpSampling2D(2)(L.Permute((2, 1, 3))(x)))
    x = L.Concatenate()([L.MaxPooling2D(2)(x), L.AveragePooling2D(2)(x)])
    x = L.Concatenate()([L.GlobalMaxPooling2D()(x), L.GlobalAveragePooling2D()(x), L.Flatten()(x)])
    x = L.Dense(3)(L.GaussianDropout(0.1)(L.Dropout(0.1)(L.Reshape((-1,))(x))))
    return keras.Model(image, L.Softmax()(x))


def artifact(scheme: str, checkpoint: Path, file: Path) -> Interpreter:
    function, settings = SCHEMES[scheme]
    file.write_bytes(function(settings, checkpoint, tiny_task((8, 8, 3))).content)
    return Interpreter(file, 1)


@pytest.mark.parametrize("version", ["2", "3"])
def test_the_usual_layers_convert_with_any_number_of_images(version: str, tmp_path: Path) -> None:
    model = usual(keras_of_version(version))
    assert {type(layer).__name__ for layer in model._flatten_layers()} == set(USUAL) - (
        {"Functional"} if version == "2" and type(model).__name__ != "Functional" else set()
    )
    assert converts(model)
    save(model, checkpoint := tmp_path / "model.h5")
    for scheme in SCHEMES:
        interpreter = artifact(scheme, checkpoint, tmp_path / "model.tflite")
        images = IMAGES.astype(interpreter.input.dtype)
        assert interpreter.run(images).shape == (6, 3)
        if scheme == "none":
            np.testing.assert_allclose(interpreter.run(images), model(IMAGES).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        *(("GroupNormalization", "2"), ("GRU", "3")),
        *(pytest.param(*each, marks=pytest.mark.long) for each in (("LSTM", "2"), ("GRU", "2"), ("LSTM", "3"))),
    ],
)
def test_what_takes_one_image_at_a_time_forgets_the_one_before(kind: str, version: str, tmp_path: Path) -> None:
    keras = keras_of_version(version)
    layers = keras.layers
    parts = [layers.GroupNormalization(3)] if kind == "GroupNormalization" else []
    parts = parts or [layers.Reshape((8, 24)), getattr(layers, kind)(4)]
    model = classifier(keras, *parts)
    assert not converts(model)
    save(model, checkpoint := tmp_path / "model.h5")
    interpreter = artifact("none", checkpoint, tmp_path / "model.tflite")
    for order in (range(6), reversed(range(6))):
        for i in order:
            scores = interpreter.run(IMAGES[i : i + 1])
            np.testing.assert_allclose(scores, model(IMAGES[i : i + 1]).numpy(), rtol=1e-4, atol=1e-6)
    assert artifact("fiq", checkpoint, tmp_path / "model.tflite").input.dtype == np.int8


@pytest.mark.parametrize("version", ["2", "3"])
def test_what_litert_has_no_operator_for_is_told_in_a_line(version: str, tmp_path: Path) -> None:
    keras = keras_of_version(version)
    model = classifier(keras, keras.layers.Reshape((8, 8, 3, 1)), keras.layers.AveragePooling3D(2))
    save(model, checkpoint := tmp_path / "model.h5")
    with pytest.raises(NotConverted, match=r"^LiteRT has no operator for tf\.AvgPool3D$"):
        artifact("none", checkpoint, tmp_path / "model.tflite")


def of_keras_3() -> Any:
    """Operators between tensors, attention, random layers: none of them is in TFMOT's list."""
    keras = keras_of_version("3")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = layers.RandomContrast(0.1, value_range=(0, 1))(image / 2 + 1)
    x = layers.SpectralNormalization(layers.Conv2D(8, 3, activation="hard_swish", padding="same"))(x)
    x = layers.Conv2D(8, 3, activation=layers.LeakyReLU(), name="second")(layers.BatchNormalization()(x))
    x = layers.Reshape((36, 8))(x)
    x = layers.MultiHeadAttention(2, 4)(x, x) + keras.ops.relu(x)
    x = layers.Dropout(0.2)(keras.ops.mean(x, axis=1))
    return keras.Model(image, layers.Dense(3, activation="softmax")(x))


def test_a_model_of_keras_3_is_pruned_by_its_own_keras_and_repeats_to_the_byte(tmp_path: Path) -> None:
    task = tiny_task((8, 8, 3))
    dense = tmp_path / "dense.h5"
    train.as_is(None, of_keras_3, task, dense)  # type: ignore[arg-type]
    assert type(restore(dense)).__module__.startswith("keras.")
    how = MagnitudePruning(
        **{"schedule": "polynomial", "initial_sparsity": 0.2, "final_sparsity": 0.5, "begin": 0.0, "end": 0.5},
        **{"frequency": 1, "epochs": 2, "batch_size": 16, "learning_rate": 1e-3},
        layers=prune.Layers(("Conv2D", "MultiHeadAttention"), spare_first_convolution=False),
    )
    for name in ("p1", "again"):
        trained = prune.magnitude(how, dense, task, tmp_path / f"{name}.h5")
    assert trained.tags["pruned"] == "second, multi_head_attention"
    assert (tmp_path / "p1.h5").read_bytes() == (tmp_path / "again.h5").read_bytes()
    pruned = restore(tmp_path / "p1.h5")
    assert sparsity(pruned, ["second", "multi_head_attention"]) == pytest.approx(
        {"second": 0.5, "multi_head_attention": 0.5}, abs=0.01
    )
    for scheme in SCHEMES:
        interpreter = artifact(scheme, tmp_path / "p1.h5", tmp_path / "model.tflite")
        if scheme == "none":
            scores = np.concatenate([interpreter.run(image[None]) for image in IMAGES])
            np.testing.assert_allclose(scores, pruned(IMAGES, training=False).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("version", ["2", "3"])
def test_a_loop_that_would_crash_the_converter_is_told_in_a_line(version: str, tmp_path: Path) -> None:
    keras = keras_of_version(version)
    model = classifier(keras, keras.layers.Reshape((2, 4, 8, 3)), keras.layers.ConvLSTM2D(2, 3))
    save(model, checkpoint := tmp_path / "model.h5")
    with pytest.raises(NotConverted, match=r"^TensorFlow's converter can't calibrate the loop of ConvLSTM2D"):
        artifact("fiq", checkpoint, tmp_path / "model.tflite")


def test_a_model_of_keras_2_becomes_the_bytes_that_tensorflow_alone_makes_of_it(tmp_path: Path) -> None:
    import tensorflow as tf

    model = usual(keras_of_version("2"))
    save(model, checkpoint := tmp_path / "model.h5")
    expected = tf.lite.TFLiteConverter.from_keras_model(restore(checkpoint)).convert()
    artifact("none", checkpoint, file := tmp_path / "model.tflite")
    assert file.read_bytes() == expected
