"""A model of one's own: saved by another process, its numbers here are those that Keras gave there."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import Place
from PIL import Image

from src.data import preprocess
from src.machine import backend
from src.methods.layers import Layers, choose
from src.models import checkpoint, saved
from src.models.head import head_of
from src.models.saved import Saved
from src.settings.check import UserError
from src.settings.config import Step
from src.settings.head import REST, Head
from src.settings.sections import Preprocess, Tracking
from src.store.store import Store

SCRIPT = Path(__file__).with_name("bare_keras.py")
OWN = Preprocess(channel_order="bgr", rescale=1.0, mean=(90, 100, 110), std=(60, 70, 80))
OVERRIDES = [
    "model=saved",
    "train=none",
    "data=image_folder",
    "data.path=images",
    "data.image_size=8",
    "model.preprocess={channel_order:bgr,rescale:1,mean:[90,100,110],std:[60,70,80]}",
]


def write_images(folder: Path) -> None:
    """Scikit-learn's digits as PNG files in faint colours, in `train/` and `test/` by class."""
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(0)
    for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("test" if i % 5 == 0 else "train") / f"digit {label}" / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.normal(0, 40, (8, 8, 3))
        Image.fromarray(np.clip(image[..., None] * [9, 6, 3] + 60 + noise, 0, 255).astype(np.uint8)).save(path)


@dataclass
class Bare:
    """What the bare script left: images, models, and the accuracy that it saw."""

    place: Place
    accuracy: float

    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """The test images, uint8, and Keras's scores of them."""
        files = sorted((self.place.folder / "images/test").glob("*/*.png"))
        return np.stack([np.asarray(Image.open(f)) for f in files]), np.load(self.place.folder / "scores.npy")


def run_bare(folder: Path, legacy: bool, *formats: str) -> Bare:
    write_images(folder / "images")
    variables = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder / "images", folder, *formats],
        env=variables | ({"TF_USE_LEGACY_KERAS": "1"} if legacy else {}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Bare(Place(folder), float(done.stdout.split()[-1]))


@pytest.fixture(scope="module")
def keras2(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return run_bare(tmp_path_factory.mktemp("keras2"), True, "model.h5", "model.keras", "saved_model")


@pytest.fixture(scope="module")
def keras3(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return run_bare(tmp_path_factory.mktemp("keras3"), False, "model.h5", "model.keras")


# --- Through the program ---------------------------------------------------------------------------------------


def accuracy_here(bare: Bare, *overrides: str) -> dict[str, float]:
    done = bare.place.run(*overrides, *OVERRIDES, "benchmark.seconds=1")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "the validation images are drawn from the training images" in done.stderr
    sweep = bare.place.newest_sweep()
    return {name: record.metrics["test_accuracy"] for name, record in bare.place.variants(sweep).items()}


@pytest.mark.long
def test_twelve_variants_of_a_saved_model_and_the_float_one_is_as_accurate_as_keras_says(keras2: Bare) -> None:
    broken = [next((keras2.place.folder / "images/train").iterdir()) / f"{number}.jpg" for number in range(4)]
    for file in broken:
        file.touch()
    found = accuracy_here(keras2, "-m", "model.path=model.h5", "prune.epochs=1", "prune.layers.min_share=0")
    assert len(found) == 12
    (named,) = keras2.place.folder.glob("mlruns/reports/*/unreadable.txt")
    assert [line.split(": ")[0].rpartition("/")[2] for line in named.read_text().splitlines()] == [
        file.name for file in broken
    ]
    for file in broken:
        file.unlink()
    assert 0.5 < keras2.accuracy < 1, "all right or all wrong would prove nothing"
    assert found["none-none"] == pytest.approx(keras2.accuracy, abs=1e-3)
    assert abs(found["none-fiq"] - found["none-none"]) < 0.05
    assert keras2.place.stages() == ["dense", "p1", "p2"]


def test_a_model_of_keras_3_is_as_accurate_as_keras_3_says(keras3: Bare) -> None:
    assert accuracy_here(keras3, "model.path=model.keras")["none-none"] == pytest.approx(keras3.accuracy, abs=1e-3)


def test_a_model_that_does_not_fit_is_one_line_before_anything_is_recorded(keras2: Bare) -> None:
    done = keras2.place.run(*OVERRIDES, "model.path=model.keras", "data.image_size=12", "tracking.experiment=unfit")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: model.path=model.keras: takes 8 x 8 x 3 images, the data has 12 x 12 x 3; set data.image_size=8"
    )
    assert "Traceback" not in done.stderr
    assert not Store(Tracking(f"sqlite:///{keras2.place.folder}/mlruns/mlflow.db", "unfit")).search("")


def test_a_path_that_does_not_exist_is_told_by_config_alone(place: Place) -> None:
    done = place.run("model=saved", "model.path=/nowhere/model.h5")
    assert done.returncode == 2
    assert done.stderr.startswith("error: model.path: /nowhere/model.h5 does not exist; takes a Keras model")
    assert done.stderr.count("\n") == 1


# --- Every format ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keras", ["keras2", "keras3"])
@pytest.mark.parametrize("name", ["model.h5", "model.keras", "saved_model"])
def test_every_format_gives_the_scores_that_keras_gave(
    keras: str, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bare: Bare = request.getfixturevalue(keras)
    if not (bare.place.folder / name).exists():
        pytest.skip("Keras 3 saves no SavedModel of layers")
    backend.prepare()
    images, scores = bare.scores()
    model = saved.build(Saved(path=str(bare.place.folder / name), preprocess=OWN), (8, 8, 3), 10)
    checkpoint.save(model, tmp_path / "model.h5")
    model = checkpoint.restore(tmp_path / "model.h5")
    np.testing.assert_allclose(model(preprocess(images, OWN)).numpy(), scores, atol=1e-4)
    assert head_of(model).logits
    policy = Layers(types=("Conv2D", "SeparableConv2D", "Dense"), spare_first_convolution=False)
    chosen = choose(model, policy, checkpoint.kernels, "prune")
    assert [path.count("/") for path in chosen.layers] == [0, 1], "the nested model is reached"


def test_the_key_follows_the_content_and_not_the_path(tmp_path: Path) -> None:
    def described(path: Path) -> dict:
        return Step("model", "saved", "src.models.saved.build", Saved(path=str(path))).describe()

    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    assert described(first) == described(second)
    second.write_bytes(b"other weights")
    assert described(first) != described(second)
    for name in ("a", "b"):
        (tmp_path / name / "variables").mkdir(parents=True)
        (tmp_path / name / "variables/data").write_bytes(b"weights")
    assert described(tmp_path / "a") == described(tmp_path / "b")
    (tmp_path / "b/variables/index").write_bytes(b"")
    assert described(tmp_path / "a") != described(tmp_path / "b")


# --- Any input -------------------------------------------------------------------------------------------------


def save(model, path: Path) -> str:
    model.save(path, include_optimizer=False) if path.suffix == ".h5" else model.save(path)
    return str(path)


def layers():
    backend.prepare()
    import tf_keras

    return tf_keras.layers


def sequential(*parts):
    import tf_keras

    return tf_keras.Sequential(list(parts))


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)


@pytest.mark.parametrize("kind", ["uint8", "any size", "gray", "flat", "channels first", "batch of 5", "batch of 1"])
def test_any_kind_of_input_becomes_float_images_of_the_data(kind: str, tmp_path: Path) -> None:
    L = layers()  # noqa: N806
    convolution = (L.Conv2D(4, 3, activation="relu"), L.GlobalMaxPooling2D(), L.Dense(3))
    model = {
        "uint8": lambda: sequential(L.Input((8, 8, 1), dtype="uint8"), L.Rescaling(1 / 255), *convolution),
        "any size": lambda: sequential(L.Input((None, None, 1)), *convolution),
        "gray": lambda: sequential(L.Input((8, 8)), L.Flatten(), L.Dense(3)),
        "flat": lambda: sequential(L.Input((64,)), L.Dense(3)),
        "channels first": lambda: sequential(L.Input((1, 8, 8)), L.Permute((2, 3, 1)), *convolution),
        "batch of 1": lambda: sequential(L.Input((8, 8, 1), batch_size=1), *convolution),
        "batch of 5": lambda: sequential(L.Input((8, 8, 1), batch_size=5), *convolution),
    }[kind]()
    fitted = saved.build(
        Saved(path=save(model, tmp_path / "own.keras"), preprocess=Preprocess(rescale=1)), (8, 8, 1), 3
    )
    assert fitted.any_size == (kind == "any size")
    checkpoint.save(fitted, tmp_path / "model.h5")
    fitted = checkpoint.restore(tmp_path / "model.h5")
    assert (fitted.input_shape, fitted.input.dtype) == ((None, 8, 8, 1), "float32")
    assert getattr(fitted, "batch", None) == (1 if kind == "batch of 1" else None)
    others = {"gray": IMAGES[..., 0], "flat": IMAGES.reshape(4, 64), "channels first": IMAGES.transpose(0, 3, 1, 2)}
    own = others.get(kind, IMAGES)
    expected = model(own if kind == "uint8" else own.astype(np.float32)).numpy()
    np.testing.assert_allclose(fitted(IMAGES.astype(np.float32)).numpy(), expected, rtol=1e-5)


def test_layers_in_half_precision_become_float32(tmp_path: Path) -> None:
    L = layers()  # noqa: N806
    inner = sequential(L.Input((8, 8, 1)), L.Conv2D(4, 3, dtype="mixed_float16"))
    model = sequential(L.Input((8, 8, 1)), inner, L.Flatten(), L.Dense(3, dtype="float16"))
    fitted = saved.build(Saved(path=save(model, tmp_path / "own.h5")), (8, 8, 1), 3)
    assert {layer.compute_dtype for layer in fitted._flatten_layers()} == {"float32"}
    images = IMAGES.astype(np.float32) / 255
    np.testing.assert_allclose(fitted(images).numpy(), model(images).numpy(), atol=0.01)


def test_a_model_that_rescales_itself_is_pointed_out_and_by_the_check_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The sweep says once what `notes` gives; it builds the model for the check and again for each stage."""
    L = layers()  # noqa: N806
    model = sequential(L.Input((8, 8, 1)), L.Rescaling(1 / 255, name="to_one"), L.Flatten(), L.Dense(3))
    config = Saved(path=save(model, tmp_path / "own.h5"))
    (note,) = saved.notes(config, saved.build(config, (8, 8, 1), 3))
    assert "starts with layer to_one" in note
    assert "starts with" not in caplog.text


# --- What it ends in -------------------------------------------------------------------------------------------


def test_logits_and_probabilities_are_told_apart() -> None:
    L = layers()  # noqa: N806
    body = lambda *last: sequential(L.Input((8, 8, 1)), L.Flatten(), *last)  # noqa: E731
    assert head_of(body(L.Dense(3))).logits
    assert head_of(body(L.Dense(3), L.Activation("log_softmax"))).logits
    assert head_of(body(L.Dense(3), L.BatchNormalization())).logits
    assert not head_of(body(L.Dense(3, activation="softmax"))).logits
    assert not head_of(body(L.Dense(3), L.Softmax())).logits
    assert not head_of(body(L.Dense(3), L.Activation("softmax"), L.Dropout(0.1))).logits
    assert not head_of(sequential(L.Input((8, 8, 1)), body(L.Dense(3, activation="softmax")))).logits
    assert not head_of(body(L.Dense(3, activation="relu")), Head(logits=False)).logits
    assert head_of(body(L.Dense(3, activation="sigmoid"))) == Head("sigmoid", logits=False)
    assert head_of(body(L.Dense(3)), Head("sigmoid")) == Head("sigmoid", logits=True)
    assert head_of(body(L.Dense(1))) == Head("sigmoid", logits=True, outputs=(REST, 0))
    with pytest.raises(UserError, match=r"\(Dense, sigmoid\); model.head=softmax is for models that end in it"):
        head_of(body(L.Dense(3, activation="sigmoid")), Head("softmax"))
    with pytest.raises(UserError, match=r"\(Dense, softmax\), which gives 1 for every image"):
        head_of(body(L.Dense(1, activation="softmax")))


# --- In wrappers of TensorFlow Model Optimization --------------------------------------------------------------


@pytest.mark.parametrize("name", ["own.h5", "own.keras", "own"])
@pytest.mark.parametrize("kind", ["PruneLowMagnitude", "ClusterWeights"])
def test_a_wrapper_is_taken_off_and_said(kind: str, name: str, tmp_path: Path) -> None:
    import tensorflow_model_optimization as tfmot

    L = layers()  # noqa: N806
    plain = sequential(L.Input((8, 8, 1)), L.Flatten(), L.Dense(8, activation="relu"), L.Dense(3, activation="softmax"))
    if kind == "PruneLowMagnitude":
        wrapped = tfmot.sparsity.keras.prune_low_magnitude(plain)
    else:
        first = tfmot.clustering.keras.CentroidInitialization.LINEAR
        wrapped = tfmot.clustering.keras.cluster_weights(plain, number_of_clusters=4, cluster_centroids_init=first)
    images = np.random.default_rng(0).random((5, 8, 8, 1), np.float32)
    before = wrapped(images).numpy()
    config = Saved(path=save(wrapped, tmp_path / name))
    model = saved.build(config, (8, 8, 1), 3)
    assert [type(layer).__name__ for layer in model.layers] == ["Flatten", "Dense", "Dense"]
    np.testing.assert_allclose(model(images).numpy(), before, atol=1e-6)
    (note,) = saved.notes(config, model)
    assert note.endswith(f"{name}: its layers were wrapped in {kind}, which is taken off; their weights stay")


@pytest.mark.parametrize("name", ["own.h5", "own.keras", "own"])
def test_a_model_of_quantization_aware_training_says_what_to_give_instead(name: str, tmp_path: Path) -> None:
    import tensorflow_model_optimization as tfmot

    L = layers()  # noqa: N806
    plain = sequential(L.Input((8, 8, 1)), L.Flatten(), L.Dense(3, activation="softmax"))
    path = save(tfmot.quantization.keras.quantize_model(plain), tmp_path / name)
    said = "is a model of quantization-aware training (QuantizeLayer); takes the model that was given to quantize_model"
    assert said in refused(path)


# --- One line for what can't be used ---------------------------------------------------------------------------


def refused(path: str, shape: tuple[int, int, int] = (8, 8, 1), classes: int = 3, **settings) -> str:
    with pytest.raises(UserError) as caught:
        saved.build(Saved(path=path, **settings), shape, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    L = layers()  # noqa: N806
    import tf_keras

    good = save(sequential(L.Input((8, 8, 1)), L.Flatten(), L.Dense(3)), tmp_path / "good.h5")
    assert refused(good, (6, 6, 3)).endswith("takes 8 x 8 x 1 images, the data has 6 x 6 x 3")
    assert "gives 3 classes, the data has 4" in refused(good, classes=4)

    def ending(*last) -> str:
        return save(sequential(L.Input((8, 8, 1)), *last), tmp_path / "bad.h5")

    one = ending(L.Flatten(), L.Dense(1, activation="sigmoid"))
    assert "gives one number per image, which tells two classes apart; the data has 3" in refused(one)
    for outputs in ((0, 1), (-1, 0), ("ant", "bee")):
        assert "the model has one output; takes the name of the class" in refused(one, classes=2, outputs=outputs)
    assert "ends in layer scores (Dense, relu)" in refused(
        ending(L.Flatten(), L.Dense(3, activation="relu", name="scores"))
    )
    more = ending(L.Flatten(), L.Dense(5))
    assert "gives 5 classes, the data has 3; takes a model of the same classes, or model.outputs" in refused(more)
    assert "model.outputs=[0, 1, 5]: takes outputs of the model, 0 to 4" in refused(more, outputs=(0, 1, 5))
    assert "model.outputs: names 4 outputs, the model has 5" in refused(more, outputs=("a", "b", "c", "d"))
    assert "gives [n, 6, 6, 3]" in refused(ending(L.Conv2D(3, 3)))
    image = L.Input((8, 8, 1))
    two = tf_keras.Model(image, [L.Dense(3)(L.Flatten()(image)), L.Flatten()(image)])
    assert "gives 2 outputs" in refused(save(two, tmp_path / "two.h5"))
    pair = [L.Input((8, 8, 1)), L.Input((8, 8, 1))]
    assert "takes 2 inputs" in refused(
        save(tf_keras.Model(pair, L.Dense(3)(L.Flatten()(L.Add()(pair)))), tmp_path / "pair.h5")
    )


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    L = layers()  # noqa: N806
    import tensorflow as tf

    model = sequential(L.Input((8, 8, 1)), L.Flatten(), L.Dense(3))
    model.save_weights(tmp_path / "weights.h5")
    assert "holds weights without the model" in refused(str(tmp_path / "weights.h5"))
    (tmp_path / "text.keras").write_text("no model")
    assert "is no Keras model" in refused(str(tmp_path / "text.keras"))
    assert "without saved_model.pb" in refused(str(tmp_path))
    whole = (Path(save(model, tmp_path / "whole.h5"))).read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    assert "can't be read" in refused(str(tmp_path / "half.h5"))
    module = tf.Module()
    module.call = tf.function(lambda x: x, input_signature=[tf.TensorSpec((None, 8, 8, 1))])
    tf.saved_model.save(module, str(tmp_path / "functions"))
    assert "gives [n, 8, 8, 1]; takes a model that gives one score per class" in refused(str(tmp_path / "functions"))


OWN_LAYERS = """
import tf_keras

class Doubled(tf_keras.layers.Layer):
    def call(self, x):
        return 2 * x

def steep(x):
    return tf_keras.activations.relu(3 * x)
"""


@pytest.mark.parametrize("name", ["own.h5", "own.keras", "own"])
def test_custom_objects_come_by_their_import_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    L = layers()  # noqa: N806
    module = f"own_layers_{name.replace('.', '_')}"
    (tmp_path / f"{module}.py").write_text(OWN_LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    own = __import__(module)
    model = sequential(
        L.Input((8, 8, 1)), own.Doubled(name="twice"), L.Flatten(), L.Dense(4, activation=own.steep), L.Dense(3)
    )
    path = save(model, tmp_path / name)
    if name == "own":  # its function needs no layers
        assert "model.custom_objects=[package.module." in saved.build(Saved(path=path), (8, 8, 1), 3).why
    else:
        assert "model.custom_objects=[package.module." in refused(path)
    objects = (f"{module}.Doubled", f"{module}.steep")
    with backend.custom_objects(objects):
        fitted = saved.build(Saved(path=path, custom_objects=objects), (8, 8, 1), 3)
        checkpoint.save(fitted, tmp_path / "model.h5")
        fitted = checkpoint.restore(tmp_path / "model.h5")
    images = IMAGES.astype(np.float32)
    np.testing.assert_allclose(fitted(images).numpy(), model(images).numpy(), rtol=1e-5)
    with pytest.raises(UserError, match=r"model\.custom_objects: no\.such\.Layer can't be imported"):
        backend.custom_objects(("no.such.Layer",)).__enter__()


KERAS3 = """
import keras
layers = keras.layers
def model(*parts):
    image = x = keras.Input((8, 8, 1))
    for part in parts:
        x = part(x)
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
class Mine(layers.Layer):
    def call(self, x):
        return x
stem, second = layers.Conv2D(4, 1, name="stem"), layers.Conv2D(4, 1, name="second")
base = keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 1, name="base")])
half = keras.Sequential([layers.Input((8, 8, 4)), stem, second])
whole = model(base, half)
base.trainable = stem.trainable = False
for suffix in ("keras", "h5"):
    whole.save(f"frozen.{suffix}")
    model(layers.Lambda(lambda x: x, name="lambda")).save(f"lambda.{suffix}")
    model(Mine(name="mine")).save(f"mine.{suffix}")
"""


@pytest.fixture(scope="module")
def of_keras_3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("of_keras_3")
    variables = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", KERAS3], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def training(path: Path, file: Path) -> list[str]:
    """The layers with weights that train, in the model of a file and in the checkpoint that it becomes."""
    model = saved.build(Saved(path=str(path)), (8, 8, 1), 3)
    checkpoint.save(model, file)

    def names(model) -> list[str]:
        return sorted({getattr(weight, "path", weight.name).split("/")[-2] for weight in model.trainable_weights})

    found = [names(model), names(checkpoint.restore(file))]
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_frozen_layers_of_keras_3_stay_frozen(suffix: str, of_keras_3: Path, tmp_path: Path) -> None:
    backend.prepare()
    trains = training(of_keras_3 / f"frozen.{suffix}", tmp_path / "checkpoint.h5")
    assert "second" in trains
    assert not {"stem", "base"} & set(trains)


@pytest.mark.parametrize("name", ["frozen.keras", "frozen.h5", "frozen"])
def test_frozen_layers_of_keras_2_stay_frozen(name: str, tmp_path: Path) -> None:
    L = layers()  # noqa: N806
    base = sequential(L.Input((8, 8, 1)), L.Conv2D(4, 1, name="base"))
    half = sequential(L.Input((8, 8, 4)), L.Conv2D(4, 1, name="stem"), L.Conv2D(4, 1, name="second"))
    whole = sequential(L.Input((8, 8, 1)), base, half, L.Flatten(), L.Dense(3, name="top"))
    base.trainable = half.layers[0].trainable = False
    path = Path(save(whole, tmp_path / name))
    assert training(path, tmp_path / "checkpoint.h5") == ["second", "top"]


def test_a_layer_of_a_frozen_model_is_frozen_in_its_checkpoint(tmp_path: Path) -> None:
    L = layers()  # noqa: N806
    inner = sequential(L.Input((8, 8, 1)), L.Conv2D(4, 1, name="inner"))
    whole = sequential(L.Input((8, 8, 1)), inner, L.Flatten(), L.Dense(3, name="top"))
    inner.trainable = False
    inner.layers[0].trainable = True  # of no effect in Keras 2, and only a SavedModel keeps the model's own flag
    assert training(Path(save(whole, tmp_path / "frozen")), tmp_path / "checkpoint.h5") == ["top"]


def test_what_keras_3_would_run_or_import_is_named_by_its_layer(of_keras_3: Path) -> None:
    backend.prepare()
    for suffix in ("keras", "h5"):
        assert "layer lambda holds code (a Lambda)" in refused(str(of_keras_3 / f"lambda.{suffix}"))
        assert "layer mine (Mine) is not Keras's; takes its import path" in refused(str(of_keras_3 / f"mine.{suffix}"))


SUBCLASSED = """
import keras

class Called(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flat, self.scores = keras.layers.Flatten(), keras.layers.Dense(3)
    def call(self, x):
        return self.scores(self.flat(x))

class Connected(keras.Model):
    def __init__(self, **kwargs):
        image = keras.Input((8, 8, 1))
        super().__init__(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)), **kwargs)
"""


def test_an_h5_file_of_a_model_of_code_says_how_to_save_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend.prepare()
    (tmp_path / "subclassed_models.py").write_text(SUBCLASSED)
    monkeypatch.syspath_prepend(tmp_path)
    own = __import__("subclassed_models")
    images, file, path = IMAGES.astype(np.float32), str(tmp_path / "model.h5"), str(tmp_path / "model.keras")
    model = own.Called()
    scores = np.asarray(model(images))
    model.save(file)
    objects = ("subclassed_models.Called",)
    said = refused(file)
    assert "holds the weights of a model of the class Called, and not its layers; takes the model saved as .k" in said
    with backend.custom_objects(objects):
        assert refused(file, custom_objects=objects) == said
    # What it says to do.
    again = own.Called()
    again(images)
    again.load_weights(file)
    again.save(path)
    with backend.custom_objects(objects):
        fitted = saved.build(Saved(path=path, custom_objects=objects), (8, 8, 1), 3)
    np.testing.assert_allclose(np.asarray(fitted(images)), scores, rtol=1e-5)
    # A class that connects its layers when it is made is loaded.
    model = own.Connected()
    scores = np.asarray(model(images))
    model.save(file)
    objects = ("subclassed_models.Connected",)
    with backend.custom_objects(objects):
        fitted = saved.build(Saved(path=file, custom_objects=objects), (8, 8, 1), 3)
    np.testing.assert_allclose(np.asarray(fitted(images)), scores, rtol=1e-5)
