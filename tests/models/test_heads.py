"""Models that end in something else than one score for each class: what they give is read as they mean it."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import Place

from src.results.serving import Classifier
from src.settings.check import UserError
from src.settings.head import AS_FOUND, REST, Head

CLASSES = ("ant", "bee", "cow")
FITS = ("train=none", "prune.epochs=2", "prune.batch_size=16", "benchmark.seconds=0.1", "benchmark.operators=false")
LEAST = ("benchmark.instances=3", "benchmark.rounds=3", "prune.layers.min_share=0")


def images(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each class a brightness of its own; the second has the most images."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), [40, 80, 40][:classes])
    levels = np.array([60, 200, 130])[labels]
    return (rng.normal(levels[:, None, None, None], 25, (len(labels), 8, 8, 1)).clip(0, 255).astype(np.uint8)), labels


def fitted(keras, width: int, activation: str | None, targets: np.ndarray, pixels: np.ndarray):
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(width, activation=activation),
        ]
    )
    losses = keras.losses
    loss = losses.CategoricalCrossentropy() if activation == "softmax" else losses.BinaryCrossentropy(not activation)
    model.compile(keras.optimizers.Adam(0.005), loss)
    model.fit(pixels / np.float32(255), targets, epochs=12, batch_size=16, verbose=0)
    return model


# Of each: how many classes there are, how many outputs and what is applied to them, the outputs of the classes, the
# settings, and what the outputs say of the classes.
HEADS = {
    "one sigmoid": (2, 1, "sigmoid", None, (), lambda y: np.hstack([1 - y, y])),
    "one sigmoid, turned round": (2, 1, "sigmoid", "ant", ("model.outputs=[ant]",), lambda y: np.hstack([y, 1 - y])),
    "one logit": (2, 1, None, None, (), lambda y: np.hstack([0 * y, y])),
    "sigmoids": (3, 3, "sigmoid", (0, 1, 2), (), lambda y: y),
    "logits of sigmoids": (3, 3, None, (0, 1, 2), ("model.head=sigmoid",), lambda y: y),
    "outputs by number": (3, 5, "softmax", (4, 0, 2), ("model.outputs=[4,0,2]",), lambda y: y[:, [4, 0, 2]]),
    "outputs by name": (3, 4, "softmax", (3, 0, 1), ("model.outputs=[bee,cow,dog,ant]",), lambda y: y[:, [3, 0, 1]]),
}


MARKS = {"one sigmoid": [], **dict.fromkeys(("one logit", "logits of sigmoids", "outputs by number"), pytest.mark.long)}


@pytest.mark.parametrize("head", [pytest.param(name, marks=MARKS.get(name, pytest.mark.exhaustive)) for name in HEADS])
def test_a_head_is_read_pruned_served_and_exported_as_it_is_meant(head: str, place: Place) -> None:
    import keras as keras_3
    import tf_keras

    classes, width, activation, columns, settings, read = HEADS[head]
    pixels, labels = images(classes)
    np.savez(place.folder / "data.npz", x=pixels, y=np.array(CLASSES)[labels])
    if columns in (None, "ant"):
        targets = np.float32(labels == (0 if columns else 1))[:, None]
    else:
        targets = np.eye(width, dtype=np.float32)[np.array(columns)[labels]]
    keras, name = (keras_3, "own.keras") if "logit" in head else (tf_keras, "own.h5")
    model = fitted(keras, width, activation, targets, pixels)
    model.save(place.folder / name)
    given = (f"model.path={name}", "data=npz", "data.path=data.npz", "data.test=0.4", *settings)
    done = place.run("-m", "model=saved", *given, *FITS, *LEAST, "prune=none,p1", "quant=none,fiq")
    assert done.returncode == 0, done.stderr
    runs = place.variants(place.newest_sweep())
    assert len(runs) == 4
    for variant, run in runs.items():
        assert run.metrics["test_accuracy"] > 0.8, variant
    # What Keras itself says of each test image, against what is served and what the exported folder says.
    folder = place.folder / "exported"
    exported = place.run(f"run={runs['none-none'].run_id}", f"to={folder}", module="src.export")
    assert exported.returncode == 0, exported.stderr
    inference = Classifier(folder).model
    own = model.predict(pixels / np.float32(255), verbose=0)
    outputs = np.concatenate([inference.run(image[None] / np.float32(255)) for image in pixels])
    np.testing.assert_allclose(outputs, own, atol=1e-4)
    expected = read(own).argmax(axis=1)
    np.testing.assert_array_equal(inference.scores(outputs).argmax(axis=1), expected)
    served = Classifier(folder).predict(pixels[::20])
    assert [CLASSES.index(each["label"]) for each in served] == expected[::20].tolist()
    for index in (0, 60):
        np.save(folder / "image.npy", pixels[index])
        said = subprocess.run([sys.executable, "example.py", "image.npy"], cwd=folder, capture_output=True, text=True)
        assert said.stdout == CLASSES[expected[index]] + "\n", said.stderr


def test_a_head_that_does_not_fit_the_classes_is_one_line() -> None:
    for outputs, said in {
        (0, 1): r"^model.outputs=\[0, 1\]: takes 3 different numbers, the output of each class \(ant, bee, cow\)",
        (0, 1, 1): "takes 3 different numbers",
        ("ant",): r"^model.outputs=\['ant'\]: takes one of the two classes, the data has ant, bee, cow$",
        ("ant", "bee", "dog", "ant"): "^model.outputs: names ant 2 times; takes each class of the data once$",
        ("ant", "bee", "dog"): "^model.outputs: names cow 0 times",
    }.items():
        with pytest.raises(UserError, match=said):
            Head.asked(type("Settings", (), {"outputs": outputs})).of(CLASSES)


def test_probabilities_of_one_output_are_of_both_classes() -> None:
    found = AS_FOUND.found("sigmoid", 1)
    assert found == Head("sigmoid", logits=False, outputs=(REST, 0))
    np.testing.assert_allclose(found.scores(np.array([[0.25]]), np), [[0.75, 0.25]])
    assert found.said(("ant", "bee")) == (
        "The model's one output is taken for the score of bee; model.outputs=[ant] turns that round.",
    )
