"""What a layer does in training and in inference is what it does in the Keras that saved it, and no stored default."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_architectures import SCHEMES
from test_architectures import task as tiny_task

from src.machine import backend
from src.measure.accuracy import predict
from src.measure.audit import audit
from src.measure.audit.asked import differences
from src.measure.probe import Asked
from src.methods import convert, prune, train
from src.methods.convert import Quantization
from src.methods.prune import MagnitudePruning
from src.models import saved
from src.models.checkpoint import restore, save
from src.models.saved import Saved

SCRIPT = Path(__file__).with_name("keras3_calls.py")
(_CALLS,) = (
    node.value
    for node in ast.parse(SCRIPT.read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CALLS"
)
NAMES = [key.value for key in _CALLS.keys]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def keras3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras3")
    variables = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, SCRIPT, folder], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def built(path: Path) -> Any:
    backend.prepare()
    return saved.build(Saved(path=str(path)), (8, 8, 3), 3)


def twice(model: Any, images: np.ndarray, training: bool) -> list[np.ndarray]:
    return [model(images, training=training).numpy() for _ in range(2)]


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("name", NAMES)
def test_inference_and_training_are_those_of_keras_3(name: str, suffix: str, keras3: Path) -> None:
    if not (keras3 / f"{name}.{suffix}").exists():
        pytest.skip("Keras 3 does not read what it has saved")
    of_keras_3, model = np.load(keras3 / f"{name}.npz"), built(keras3 / f"{name}.{suffix}")
    for scores in twice(model, of_keras_3["images"], training=False):
        np.testing.assert_allclose(scores, of_keras_3["predicted"], atol=1e-4)
    first, second = twice(model, of_keras_3["images"], training=True)
    if np.array_equal(*of_keras_3["trained"]):
        np.testing.assert_allclose(first, of_keras_3["trained"][0], atol=1e-4)
    else:
        assert not np.array_equal(first, second), "it is random in training"


def keras2_model() -> Any:
    """Dropout and augmentation called with nothing, and one dropout that stays on."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = x = layers.Input((8, 8, 3))
    for part in (layers.RandomRotation(0.2), layers.Conv2D(8, 3, activation="relu"), layers.Dropout(0.5)):
        x = part(x)
    rest = tf_keras.Sequential([layers.Input((6, 6, 8)), layers.Flatten(), layers.Dropout(0.5), layers.Dense(3)])
    quiet = tf_keras.Model(image, rest(x))
    return quiet, tf_keras.Model(image, layers.Dense(3)(layers.Dropout(0.5)(layers.Flatten()(x), training=True)))


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "model"])
def test_keras_2_stores_what_was_passed_and_nothing_else(name: str, tmp_path: Path) -> None:
    backend.prepare()
    images = np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32)
    for original, random_in_inference in zip(keras2_model(), (False, True), strict=True):
        original.save(tmp_path / name)
        model = built(tmp_path / name)
        save(model, tmp_path / "checkpoint.h5")
        for each in (model, restore(tmp_path / "checkpoint.h5")):
            assert not np.array_equal(*twice(each, images, training=True))
            assert np.array_equal(*twice(each, images, training=False)) != random_in_inference


def test_dropout_that_stays_on_is_trained_pruned_and_converted_in_every_scheme_and_said(
    tmp_path: Path,
) -> None:
    task = tiny_task((8, 8, 3))
    how = MagnitudePruning(
        schedule="constant",
        initial_sparsity=0.0,
        final_sparsity=0.5,
        begin=0.0,
        end=0.5,
        frequency=1,
        epochs=1,
        batch_size=16,
        learning_rate=1e-3,
        layers=prune.Layers(("Dense",), spare_classifier=False),
    )
    keras2_model()[1].save(tmp_path / "model.keras")
    train.as_is(None, lambda: built(tmp_path / "model.keras"), task, tmp_path / "dense.h5")  # type: ignore[arg-type]
    for name in ("p1", "again"):
        prune.magnitude(how, tmp_path / "dense.h5", task, tmp_path / f"{name}.h5")
    assert (tmp_path / "p1.h5").read_bytes() == (tmp_path / "again.h5").read_bytes()
    for checkpoint in ("dense", "p1"):
        for function, settings in SCHEMES.values():
            converted = function(settings, tmp_path / f"{checkpoint}.h5", task)
            assert converted.content == function(settings, tmp_path / f"{checkpoint}.h5", task).content
            (file := tmp_path / "model.tflite").write_bytes(converted.content)
            found = audit(file)
            assert found.random_operators == ["RANDOM_UNIFORM"]
            said = differences(found, Asked(converted.weights, converted.activations))
            assert "Its predictions are random: it draws random numbers in every inference (RANDOM_UNIFORM)." in said
            first, second = (predict(file, task.dataset.test, task.preprocess, threads=1) for _ in range(2))
            np.testing.assert_array_equal(first.confidence, second.confidence, "evaluated again, it says the same")


def test_layers_that_are_off_in_inference_leave_no_random_operator(tmp_path: Path) -> None:
    backend.prepare()
    quiet, _ = keras2_model()
    save(quiet, tmp_path / "model.h5")
    (file := tmp_path / "model.tflite").write_bytes(
        convert.float32(Quantization(), tmp_path / "model.h5", tiny_task((8, 8, 3))).content
    )
    assert audit(file).random_operators == []
