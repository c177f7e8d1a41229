"""Preprocessing is declared once: training, calibration and evaluation bring a pixel to the same number."""

from pathlib import Path

import numpy as np
import pytest

from src.data import Dataset, in_memory, preprocess
from src.machine import backend
from src.measure.accuracy import predict
from src.measure.inference import Inference
from src.methods import convert
from src.methods.convert import FullInteger, Quantization
from src.methods.task import Task
from src.models.checkpoint import restore, save
from src.settings.sections import Augment, Preprocess

CAFFE = Preprocess(channel_order="bgr", rescale=1.0, mean=(103.939, 116.779, 123.68), std=(1.0, 2.0, 3.0))


def pixels(n: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 6, 5, 3), np.uint8)


def test_channel_order_comes_first_and_mean_and_std_are_in_it() -> None:
    blue, green, red = (pixels()[..., i].astype(np.float32) for i in (2, 1, 0))
    expected = np.stack([blue - 103.939, (green - 116.779) / 2, (red - 123.68) / 3], axis=-1)
    np.testing.assert_allclose(preprocess(pixels(), CAFFE), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    backend.prepare()
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [
            layers.Input((6, 5, 3), name="image"),
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, name="classifier"),
        ]
    )
    save(model, file := tmp_path_factory.mktemp("model") / "model.h5")
    return file


@pytest.mark.parametrize("scheme", [convert.float32, convert.full_integer])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_evaluation_encodes_as_training_does(scheme, order: str, checkpoint: Path, tmp_path: Path) -> None:
    how = Preprocess(channel_order=order, rescale=1 / 255, mean=(0.1, 0.4, 0.5), std=(0.2, 0.3, 0.5))
    split = in_memory(pixels(), np.arange(8) % 3, [str(i) for i in range(8)])
    task = Task(Dataset(split, split, split, tuple("abc"), (6, 5, 3), ""), how, Augment(), 0)
    settings = FullInteger() if scheme is convert.full_integer else Quantization()
    (file := tmp_path / "model.tflite").write_bytes(scheme(settings, checkpoint, task).content)
    model = Inference(file, 1)
    expected = preprocess(pixels(), how)
    if scheme is convert.full_integer:
        scale, zero = model.input.scale, model.input.zero_point
        expected = np.clip(np.rint(expected / np.float32(scale)) + zero, -128, 127).astype(np.int8)
    np.testing.assert_array_equal(model.encoder(how)(pixels()), expected)
    if scheme is convert.float32:
        scores = restore(checkpoint)(preprocess(pixels(), how)).numpy()
        np.testing.assert_array_equal(predict(file, split, how, 1).predicted, scores.argmax(axis=1))
