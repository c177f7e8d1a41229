"""Architectures through all twelve variants at a tiny size: what trips a converter trips it here."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from src.data import Dataset, in_memory, preprocess
from src.machine import backend
from src.measure.accuracy import predict
from src.measure.audit import audit
from src.measure.audit.asked import left_in_float
from src.measure.audit.promised import confirm
from src.measure.probe import Asked
from src.methods import convert, loop, prune, train
from src.methods.convert import FullInteger, Quantization
from src.methods.layers import Layers
from src.methods.prune import MagnitudePruning
from src.methods.task import Task, Trained
from src.methods.train import Train
from src.models import Architecture, ds_cnn, efficientnet_b0, mobilenet_v2, resnet8, small_cnn, vgg26m
from src.models.applications import Application, with_new_top
from src.models.checkpoint import promise, promised, restore, save
from src.models.mobilenet_v2 import MobileNetV2
from src.settings.check import UserError
from src.settings.sections import Augment, Preprocess

pytestmark = pytest.mark.long

SHAPE, CLASSES = (12, 10, 3), 3
BUILDS: dict[str, Callable] = {
    "small_cnn": lambda shape, classes: small_cnn.build(Architecture(), shape, classes),
    "resnet8": lambda shape, classes: resnet8.build(Architecture(), shape, classes),
    "ds_cnn": lambda shape, classes: ds_cnn.build(Architecture(), shape, classes),
    "mobilenet_v2": lambda shape, classes: mobilenet_v2.build(MobileNetV2(alpha=0.35), shape, classes),
    "efficientnet_b0": lambda shape, classes: narrow_efficientnet(shape, classes),
}
# MobileNetV2 is made of what DS-CNN and EfficientNet are made of, and the twelve of small_cnn are in test_sweep.
OF_EACH_FAMILY = [
    name if name in ("resnet8", "ds_cnn", "efficientnet_b0") else pytest.param(name, marks=pytest.mark.exhaustive)
    for name in BUILDS
]
PRUNING = MagnitudePruning(
    schedule="polynomial",
    initial_sparsity=0.0,
    final_sparsity=0.5,
    begin=0.0,
    end=0.5,
    frequency=1,
    epochs=1,
    batch_size=16,
    learning_rate=1e-3,
    layers=Layers(types=("Dense", "Conv2D", "SeparableConv2D", "DepthwiseConv2D")),
)
SCHEMES = {
    "none": (convert.float32, Quantization()),
    "drq": (convert.dynamic_range, Quantization()),
    "fiq": (convert.full_integer, FullInteger(representative_images=4)),
    "f16": (convert.float16, Quantization()),
}


def narrow_efficientnet(shape: tuple[int, int, int], classes: int):
    """One block of each kind and a quarter of the filters: all layers of B0, which takes half a minute to convert."""
    from tf_keras.src.applications import efficientnet

    network = partial(efficientnet.EfficientNet, 0.25, 0.25, 224)
    return with_new_top(
        network, Application(), shape, classes, name="narrow", dropout=0.2, first=efficientnet_b0.FIRST_LAYER
    )


def task(shape: tuple[int, int, int] = SHAPE) -> Task:
    rng = np.random.default_rng(0)

    def split(n: int) -> tuple:
        labels = np.arange(n) % CLASSES
        images = rng.integers(0, 100, (n, *shape)) + 60 * labels[:, None, None, None]
        return in_memory(images.astype(np.uint8), labels, [str(i) for i in range(n)])

    data = Dataset(split(48), split(12), split(12), tuple("abc"), shape, "")
    return Task(data, Preprocess(mean=(0.5,), std=(0.5,)), Augment(), 0)


@dataclass
class Checkpoints:
    folder: Path
    dense: Trained
    p1: Trained
    p2: Trained


@pytest.fixture(scope="module", params=OF_EACH_FAMILY)
def checkpoints(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    backend.prepare()
    folder, steps = tmp_path_factory.mktemp(request.param), Train(1, 16, 1e-3)
    return Checkpoints(
        folder,
        train.fit(steps, lambda: BUILDS[request.param](SHAPE, CLASSES), task(), folder / "none.h5"),
        prune.magnitude(PRUNING, folder / "none.h5", task(), folder / "p1.h5"),
        prune.magnitude(
            replace(PRUNING, initial_sparsity=0.5, final_sparsity=0.8), folder / "none.h5", task(), folder / "p2.h5"
        ),
    )


def test_all_twelve_variants_are_what_they_are_called_and_run(checkpoints: Checkpoints) -> None:
    digests = set()
    for name, pruned in {"none": checkpoints.dense, "p1": checkpoints.p1, "p2": checkpoints.p2}.items():
        model = restore(checkpoints.folder / f"{name}.h5")
        promise(checkpoints.folder / f"{name}.h5", pruned.promises)
        for scheme, (function, settings) in SCHEMES.items():
            converted = function(settings, checkpoints.folder / f"{name}.h5", task())
            digests.add(hashlib.sha256(converted.content).hexdigest())
            file = checkpoints.folder / f"{name}-{scheme}.tflite"
            file.write_bytes(converted.content)
            found = audit(file)
            asked = Asked(converted.weights, converted.activations, bool(pruned.promises))
            # Dynamic range leaves kernels of less than 1024 weights in float.
            assert scheme == "drq" or not left_in_float(found, asked)
            integer = "int8" if scheme == "fiq" else "float32"
            assert (found.input_dtype, found.output_dtype) == (integer, integer)
            # Every layer is named in the file, and has the zeros that it had.
            assert confirm(file, promised(checkpoints.folder / f"{name}.h5")) == ()
            predictions = predict(file, task().dataset.test, task().preprocess, threads=1)
            if scheme == "none":
                images = preprocess(task().dataset.test.read(np.arange(12)), task().preprocess)
                keras = model(images).numpy()
                np.testing.assert_allclose(predictions.confidence, keras.max(axis=1), atol=1e-4)
    assert len(digests) == 12


def test_what_is_pruned_reaches_its_sparsity_and_the_rest_is_named(checkpoints: Checkpoints) -> None:
    for name, pruned, share in (("p1", checkpoints.p1, 0.5), ("p2", checkpoints.p2, 0.8)):
        model = restore(checkpoints.folder / f"{name}.h5")
        layers = tuple(pruned.tags["pruned"].split(", "))
        # A kernel of n weights can only have a whole number of zeros.
        assert prune.sparsity(model, layers) == {
            layer: pytest.approx(share, abs=1 / np.prod(model.get_layer(layer).kernel.shape) + 1e-3) for layer in layers
        }
        depthwise = [layer.name for layer in model.layers if type(layer).__name__ == "DepthwiseConv2D"]
        assert pruned.tags["not_pruned"] == (", ".join(depthwise) or "none")


def test_batch_norm_statistics_follow_the_fine_tuning(checkpoints: Checkpoints) -> None:
    dense, pruned = (restore(checkpoints.folder / f"{name}.h5") for name in ("none", "p1"))
    for layer in pruned.layers:
        if type(layer).__name__ == "BatchNormalization":
            before = dense.get_layer(layer.name).moving_mean.numpy()
            assert not np.array_equal(layer.moving_mean.numpy(), before)


@pytest.mark.parametrize("name", OF_EACH_FAMILY)
def test_a_model_is_the_same_to_the_byte_whatever_its_process_has_built_before(name: str, tmp_path: Path) -> None:
    import tf_keras

    def artifact(file: Path) -> tuple[bytes, bytes]:
        tf_keras.utils.set_random_seed(0)
        save(BUILDS[name](SHAPE, CLASSES), file)
        return file.read_bytes(), convert.float32(Quantization(), file, task()).content

    backend.prepare()
    first = artifact(tmp_path / "first.h5")
    layers = tf_keras.layers
    for layer in (layers.Rescaling(1.0), layers.Normalization(), layers.Conv2D(1, 1), layers.Input(SHAPE)):
        assert layer.name
    for other in ("small_cnn", "resnet8"):
        BUILDS[other](SHAPE, CLASSES)
    assert artifact(tmp_path / "second.h5") == first


def test_the_loss_is_that_of_what_the_model_ends_in() -> None:
    """A step from the same weights, with and without a softmax at the end, gives the same weights."""
    backend.prepare()
    import tf_keras

    layers, found = tf_keras.layers, []
    for activation in ("softmax", None):
        last = layers.Dense(3, activation, kernel_initializer=tf_keras.initializers.GlorotUniform(seed=1))
        model = tf_keras.Sequential([layers.Input(SHAPE), layers.Flatten(), last])
        loop.optimise(model, task(), Train(1, 48, 1e-3))
        found.append(model.get_weights()[0])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_what_xla_cannot_compile_is_one_line() -> None:
    backend.prepare()
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Input(SHAPE), layers.RandomRotation(0.1), layers.Flatten(), layers.Dense(3)])
    with pytest.raises(UserError, match="XLA can't compile ImageProjectiveTransformV3, which the model is made of"):
        loop.optimise(model, task(), Train(1, 16, 1e-3, jit_compile=True))


@pytest.mark.parametrize("build", [*BUILDS.values(), partial(vgg26m.build, Architecture())])
@pytest.mark.parametrize(("shape", "classes"), [((4, 4, 1), 2), ((33, 20, 3), 7)])
def test_architectures_adapt_to_images_and_classes(build, shape: tuple[int, int, int], classes: int) -> None:
    backend.prepare()
    model = build(shape, classes)
    assert model.input_shape == (None, *shape)
    scores = model(np.zeros((2, *shape), np.float32)).numpy()
    assert scores.shape == (2, classes)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_resnet8_is_as_large_as_mlperf_tiny_says() -> None:
    backend.prepare()
    assert resnet8.build(Architecture(), (32, 32, 3), 10).count_params() == 78_666


def test_efficientnet_b0_starts_after_the_layers_that_normalise() -> None:
    backend.prepare()
    model = efficientnet_b0.build(Application(), (8, 8, 1), 10)
    # 4,049,571 without a top at 3 channels (keras.io/api/applications), 7 of them of the normalisation that is left
    # out; two channels less in the first 3 x 3 convolution to 32 filters; 1,280 features to 10 classes.
    assert model.count_params() == 4_049_571 - 7 - 2 * 9 * 32 + 1281 * 10
    assert [layer.name for layer in model.layers[:2]] == ["image", efficientnet_b0.FIRST_LAYER]


@pytest.mark.parametrize("build", [mobilenet_v2.build, efficientnet_b0.build])
def test_imagenet_weights_that_cannot_be_had_are_one_line(
    build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tf_keras.src.utils import data_utils

    def unreachable(*arguments: object, **named: object) -> None:
        raise OSError("URL fetch failure:\nName or service not known")

    monkeypatch.setattr(data_utils, "get_file", unreachable)
    config = (MobileNetV2 if build is mobilenet_v2.build else Application)(weights="imagenet")
    start = r"^model.weights=imagenet: can't be loaded \(URL fetch failure: Name"
    with pytest.raises(UserError, match=start) as caught:
        build(config, (32, 32, 3), 10)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="takes images of 3 channels, the data has 1"):
        build(config, (32, 32, 1), 10)


def test_imagenet_weights_exist_for_some_widths_only() -> None:
    with pytest.raises(ValueError, match=r"alpha=0\.4 has no weights=imagenet; takes one of 0\.35, 0\.5"):
        MobileNetV2(alpha=0.4, weights="imagenet")
