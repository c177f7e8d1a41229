"""Narrowing: which channels go together, what is left of a model, and a sweep over it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from conftest import Place, wait_for

from src.methods.layers import Layers
from src.methods.narrow import ChannelPruning, ChannelRule, Plan, channels, notes, scores
from src.methods.narrow.coupling import MAKERS
from src.methods.narrow.rebuild import narrowed, silence
from src.methods.task import Task
from src.models import Architecture, ds_cnn, mobilenet_v2, resnet8, small_cnn
from src.models.checkpoint import leaves, promise, restore, save
from src.models.kerases import keras_of
from src.models.mobilenet_v2 import MobileNetV2
from src.models.promises import Promise, carried
from src.settings.check import Unfit, UserError
from src.store.names import PROMISES

# The size of images that each takes at least, one of each kind of block and then their deeper kin.
APPLICATIONS = {
    **dict.fromkeys(("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "VGG16", "VGG19"), 32),
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2"), 32),
    **dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201", "NASNetMobile", "NASNetLarge"), 32),
    **dict.fromkeys([f"EfficientNetB{i}" for i in range(8)], 32),
    **dict.fromkeys([f"EfficientNetV2{of}" for of in ("B0", "B1", "B2", "B3", "S", "M", "L")], 32),
    **dict.fromkeys([f"ConvNeXt{of}" for of in ("Tiny", "Small", "Base", "Large", "XLarge")], 32),
    **{"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75},
}
KERASES = {"Keras 2": tf_keras, "Keras 3": keras}
SWEEP = (
    "-m",
    "experiment=smoke",
    *("train.epochs=1", "narrow.epochs=2", "narrow.steps=2", "prune.epochs=1"),
    *("benchmark.seconds=1", "benchmark.operators=false"),
    *("narrow=none,half", "prune=none,p1", "quant=none,fiq"),
)
HALF = ChannelPruning(
    epochs=1,
    batch_size=16,
    learning_rate=1e-3,
    keep=0.5,
    of="multiply_adds",
    score="random",
    scope="layer",
    multiple=1,
    steps=1,
    layers=Layers(types=MAKERS, spare_first_convolution=False),
)


def on_images(keras_: Any, block: Callable[[Any, Any], Any], shape: tuple[int, ...] = (12, 12, 3)) -> Any:
    image = keras_.Input(shape)
    out = keras_.layers.GlobalAveragePooling2D()(block(keras_.layers, image))
    return keras_.Model(image, keras_.layers.Dense(4)(out))


def residual(layers: Any, x: Any) -> Any:
    x = layers.Conv2D(12, 3, padding="same")(x)
    y = layers.BatchNormalization()(layers.Conv2D(12, 3, padding="same", use_bias=False)(x))
    return layers.ReLU()(layers.Add()([x, y]))


def squeeze_and_excitation(layers: Any, x: Any) -> Any:
    x = layers.Conv2D(12, 3, activation="relu")(x)
    gate = layers.Reshape((1, 1, 12))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(12, 1, activation="sigmoid")(layers.Conv2D(6, 1, activation="relu")(gate))
    return layers.Multiply()([x, gate])


def concatenation(layers: Any, x: Any) -> Any:
    one, other = layers.Conv2D(8, 3, activation="relu")(x), layers.Conv2D(6, 3)(x)
    joined = layers.BatchNormalization()(layers.Concatenate()([one, other, one]))
    return layers.Conv2D(8, 1)(joined)


def separable(layers: Any, x: Any) -> Any:
    x = layers.Conv2D(8, 3, padding="same")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    x = layers.BatchNormalization()(layers.SeparableConv2D(10, 3, depth_multiplier=2)(x))
    return layers.Conv2DTranspose(9, 3, strides=2)(x)


def with_slopes(layers: Any, x: Any) -> Any:
    x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(8, 3)(x))
    return layers.PReLU()(layers.Conv2D(8, 3)(layers.ZeroPadding2D()(layers.LeakyReLU()(x))))


def shared(layers: Any, x: Any) -> Any:
    x = layers.Conv2D(8, 3, padding="same")(x)
    twice = layers.Conv2D(8, 3, padding="same", activation="tanh")
    return layers.Subtract()([twice(twice(x)), x])


def with_operators(layers: Any, x: Any) -> Any:
    x = layers.Conv2D(8, 3, padding="same")(x / 2.0)
    return x * 0.5 + layers.Conv2D(8, 3, padding="same")(x)


def attention_of_places(layers: Any, x: Any) -> Any:
    x = layers.Conv2D(8, 3)(x)
    return layers.Multiply()([x, layers.Conv2D(1, 1, activation="sigmoid")(layers.Conv2D(6, 1)(x))])


def normalized_layer(layers: Any, x: Any) -> Any:
    x = layers.LayerNormalization()(layers.Conv2D(8, 3)(x))
    return layers.Dense(8)(layers.Dense(16, activation="gelu")(x))


def channels_first(layers: Any, x: Any) -> Any:
    x = layers.Permute((3, 1, 2))(layers.Conv2D(8, 3)(x))
    x = layers.BatchNormalization(axis=1)(x)
    return layers.Conv2D(6, 1)(layers.Permute((2, 3, 1))(x))


def normalized_images(layers: Any, x: Any) -> Any:
    averages = layers.Normalization(mean=[0.1, -0.2, 0.3], variance=[0.5, 2.0, 1.5])
    adapted = layers.Normalization()
    adapted.adapt(np.random.default_rng(0).normal(0.5, 2, (50, 12, 12, 3)).astype(np.float32))
    return layers.Conv2D(8, 3)(layers.Conv2D(8, 3)(adapted(averages(x))))


def softmax_between(layers: Any, x: Any) -> Any:
    return layers.Conv2D(8, 1)(layers.Conv2D(6, 1, activation="softmax")(layers.Conv2D(7, 3)(x)))


BLOCKS = (residual, squeeze_and_excitation, concatenation, separable, with_slopes, shared, with_operators)
BLOCKS = (*BLOCKS, attention_of_places, normalized_layer, channels_first, softmax_between, normalized_images)


def nested_twice(keras_: Any) -> Any:
    inner = keras_.Sequential(
        [keras_.layers.Conv2D(8, 3, padding="same"), keras_.layers.BatchNormalization()], name="inner"
    )
    image = keras_.Input((12, 12, 3))
    x = inner(inner(keras_.layers.Conv2D(8, 3, padding="same")(image)))
    outer = keras_.Model(image, x, name="outer")
    again = keras_.Input((12, 12, 3))
    return keras_.Model(again, keras_.layers.Dense(4)(keras_.layers.Flatten()(outer(again))))


def flattened(keras_: Any) -> Any:
    layers = [
        keras_.layers.Conv2D(6, 3),
        keras_.layers.MaxPooling2D(),
        keras_.layers.Flatten(),
        keras_.layers.Dense(10),
    ]
    return keras_.Sequential([keras_.Input((12, 12, 3)), *layers, keras_.layers.ReLU(), keras_.layers.Dense(4)])


MODELS = {block.__name__: partial(lambda block, keras_: on_images(keras_, block), block) for block in BLOCKS}
MODELS |= {made.__name__: made for made in (nested_twice, flattened)}
OWN = {
    "small_cnn": lambda: small_cnn.build(Architecture(), (32, 32, 3), 4),
    "resnet8": lambda: resnet8.build(Architecture(), (32, 32, 3), 4),
    "ds_cnn": lambda: ds_cnn.build(Architecture(), (49, 10, 1), 4),
    "mobilenet_v2": lambda: mobilenet_v2.build(MobileNetV2(alpha=0.35), (32, 32, 3), 4),
}


def awake(model: Any) -> np.ndarray:
    """Gives a model weights that differ in all channels and outputs that differ between images; gives some images."""
    rng = np.random.default_rng(0)
    model.layers[-1].activation = keras_of(model).activations.linear  # a softmax would hide most of what it is given
    for layer in leaves(model).values():
        if type(layer).__name__ == "Normalization":  # its averages
            continue
        fans = [float(np.prod(w.shape[:-1])) for w in layer.get_weights()]
        drawn = [
            rng.normal(0, np.sqrt(2 / n), w.shape) if w.ndim > 1 else rng.uniform(0.5, 1.5, w.shape)
            for n, w in zip(fans, layer.get_weights(), strict=True)
        ]
        layer.set_weights([d.astype(w.dtype) for d, w in zip(drawn, layer.get_weights(), strict=True)])
        layer.momentum = 0.0  # of batch normalization: the averages are those of the next batch
    images = rng.uniform(-1, 1, (8, *model.inputs[0].shape[1:])).astype(np.float32)
    for _ in range(2):
        model(images, training=True)
    return images


def narrow(model: Any, config: ChannelPruning = HALF) -> tuple[Any, Plan, np.ndarray]:
    plan = Plan(model, config)
    stays = plan.stays(scores.random(plan.groups, 0), config.keep, plan.cost)
    return narrowed(model, plan.groups, stays), plan, stays


def check_exact(model: Any, config: ChannelPruning = HALF) -> Plan:
    images = awake(model)
    before = np.asarray(model(images, training=False))
    new, plan, stays = narrow(model, config)
    silence(plan.groups, stays)
    expected, found = (np.asarray(m(images, training=False)) for m in (model, new))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(before - expected).max() > 1e-2 * np.abs(expected).max(), "the channels that went did nothing"
    assert np.abs(expected - expected.mean(0)).max() > 1e-4 * np.abs(expected).max(), "one output for all images"
    for of in ("parameters", "multiply_adds"):
        assert plan.groups.cost(of, stays) < plan.groups.cost(of, np.ones_like(stays))
    assert plan.groups.cost("parameters", stays) == new.count_params()
    return plan


@pytest.mark.parametrize("keras_", KERASES.values(), ids=KERASES)
@pytest.mark.parametrize("name", MODELS)
def test_a_narrowed_model_gives_what_the_whole_one_does_without_the_channels(name: str, keras_: Any) -> None:
    plan = check_exact(MODELS[name](keras_))
    assert {path.rstrip("_0123456789") for path in plan.groups.whole} == {
        "attention_of_places": {"conv2d"},  # its one channel
        "normalized_layer": {"conv2d"},  # the normalization counts all of them
        "softmax_between": {"conv2d"},
    }.get(name, set())


@pytest.mark.parametrize(
    "name", [name if name != "mobilenet_v2" else pytest.param(name, marks=pytest.mark.exhaustive) for name in OWN]
)
def test_own_architectures(name: str) -> None:
    plan = check_exact(OWN[name](), replace(HALF, multiple=8, scope="global"))
    assert not plan.groups.whole


@pytest.mark.exhaustive
@pytest.mark.parametrize("keras_", KERASES.values(), ids=KERASES)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications(name: str, keras_: Any) -> None:
    keras_.backend.clear_session()
    size = APPLICATIONS[name]
    model = getattr(keras_.applications, name)(weights=None, classes=4, input_shape=(size, size, 3))
    # Classes of their own, which model.custom_objects would name.
    own = {
        type(layer).__name__: type(layer)
        for layer in leaves(model).values()
        if "applications" in type(layer).__module__
    }
    with keras_.utils.custom_object_scope(own):
        plan = check_exact(model, replace(HALF, multiple=8))
    stays = plan.stays(scores.random(plan.groups, 0), 0.5, plan.cost)
    assert plan.groups.cost("multiply_adds", stays) / plan.cost == pytest.approx(0.5, rel=0.03)


@pytest.fixture(scope="module")
def mobilenet() -> Any:
    return OWN["mobilenet_v2"]()


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("of", ["multiply_adds", "parameters"])
@pytest.mark.parametrize("keep", [0.5, 0.25, 0.125])
def test_costs_what_was_asked_for(keep: float, of: Any, scope: Any, mobilenet: Any) -> None:
    plan = Plan(mobilenet, replace(HALF, keep=keep, of=of, scope=scope, multiple=4))
    stays = plan.stays(scores.random(plan.groups, 0), keep, plan.cost)
    assert plan.groups.cost(of, stays) / plan.cost == pytest.approx(keep, rel=0.03)
    for group in plan.groups.groups:
        left = int(np.isin(group.units, plan.groups.unit[stays]).sum())
        assert left % 4 == 0 or left < 4 or left == len(group.units)


def test_multiply_adds_are_those_of_the_kernels() -> None:
    layers = tf_keras.layers
    image = tf_keras.Input((10, 8, 3))
    x = layers.Conv2D(6, 3, strides=2, padding="same")(image)  # 5 x 4 places
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.SeparableConv2D(4, 3, padding="same", depth_multiplier=2)(x)
    x = layers.Conv2DTranspose(5, 2, strides=2)(x)  # 10 x 8, from 5 x 4
    x = layers.MultiHeadAttention(1, 2)(x, x)  # is left whole
    model = tf_keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))
    groups = Plan(model, HALF).groups
    attention = 80 * sum(int(np.prod(w.shape)) for w in model.layers[-3].weights if len(w.shape) > 2)
    expected = 20 * 27 * 6 + 20 * 9 * 6 + 20 * 12 * (9 + 4) + 20 * 4 * 4 * 5 + attention + 400 * 4
    assert groups.cost("multiply_adds", np.ones(groups.found.atoms, bool)) == expected


def test_layers_of_the_users_own_are_left_whole_with_all_that_is_tied_to_them() -> None:
    class Twice(tf_keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x + x

    layers = tf_keras.layers
    image = tf_keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", name="first")(image)
    y = layers.Add()([x, layers.Conv2D(8, 3, padding="same", name="second")(x)])
    y = layers.Conv2D(8, 3, name="third")(Twice(name="mine")(y))
    model = tf_keras.Model(image, layers.Dense(4, name="last")(layers.GlobalAveragePooling2D()(y)))
    assert Plan(model, HALF).groups.whole == dict.fromkeys(("first", "second"), "tied to mine (Twice)")
    assert notes(replace(HALF, keep=0.8), model) == ("Leaves whole first, second (tied to mine (Twice)).",)
    with pytest.raises(Unfit, match=r"no channel of the model can go: first, second \(tied to mine"):
        Plan(model, replace(HALF, rules=(ChannelRule("third", keep=1.0),)))


def test_rules_say_how_many_channels_layers_keep() -> None:
    model = OWN["small_cnn"]()
    first = next(path for path, layer in leaves(model).items() if type(layer).__name__ == "Conv2D")
    new, _, _ = narrow(model, replace(HALF, rules=(ChannelRule(first, keep=0.25),)))
    assert leaves(new)[first].filters == leaves(model)[first].filters // 4
    with pytest.raises(UserError, match=r"narrow.rules.layers=xyz: matches none of the layers"):
        Plan(model, replace(HALF, rules=(ChannelRule("xyz", keep=0.5),)))


def test_a_model_that_would_have_no_channel_left_says_how_much_it_takes() -> None:
    model = OWN["small_cnn"]()
    with pytest.raises(Unfit, match=r"narrow.keep=1e-07: takes at least 0\.\d+ for this model") as error:
        notes(replace(HALF, keep=1e-7), model)
    least = float(str(error.value).split("at least ")[1].split()[0])
    notes(replace(HALF, keep=least), model)


def test_the_least_of_a_score_goes() -> None:
    """A channel whose weights are zero goes first, by each score that looks at the model."""
    layers = tf_keras.layers
    for score in ("magnitude", "batch_norm"):
        image = tf_keras.Input((8, 8, 3))
        x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(image))
        model = tf_keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))
        awake(model)
        kernel, bias = model.get_layer("conv").get_weights()
        kernel[..., 2] = 0
        model.get_layer("conv").set_weights([kernel, bias])
        gamma, *others = model.get_layer("norm").get_weights()
        gamma[2] = 0.0
        model.get_layer("norm").set_weights([gamma, *others])
        dense = model.layers[-1]
        weights = dense.get_weights()[0].reshape(36, 4, 2)
        weights[:, 2] = 0
        dense.set_weights([weights.reshape(144, 2), dense.get_weights()[1]])
        plan = Plan(model, replace(HALF, score=score, keep=0.75))
        found = getattr(scores, score)(plan.groups)
        units = plan.groups.unit[plan.groups.found.slots["conv"].makes]
        assert found[units].argmin() == 2, score


def test_only_what_batch_normalization_scales_goes_by_its_scales() -> None:
    model = on_images(
        tf_keras,
        lambda layers, x: layers.Conv2D(8, 3, name="b")(layers.BatchNormalization()(layers.Conv2D(8, 3, name="a")(x))),
    )
    plan = Plan(model, replace(HALF, score="batch_norm"))
    assert [group.layers for group in plan.groups.groups] == [("a",)]
    assert plan.groups.whole["b"] == "scaled by no batch normalization"


def test_zeros_that_were_promised_stay_and_are_promised_of_what_is_left(task: Task, tmp_path: Path) -> None:
    layers = [tf_keras.Input((8, 8, 1)), tf_keras.layers.Conv2D(8, 3, name="conv"), tf_keras.layers.Flatten()]
    model = tf_keras.Sequential([*layers, tf_keras.layers.Dense(3, activation="softmax")])
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[0] = 0
    model.get_layer("conv").set_weights([kernel, bias])
    save(model, tmp_path / "dense.h5")
    promises = {"conv": Promise(zeros=24)}
    done = channels(HALF, tmp_path / "dense.h5", replace(task, promises=promises), tmp_path / "half.h5")
    assert done.promises == {"conv": Promise(zeros=12, channels=4)}
    assert not restore(tmp_path / "half.h5").get_layer("conv").get_weights()[0][0].any()
    promise(tmp_path / "half.h5", carried(promises, done.ended, done.promises))


def test_a_sweep_that_is_killed_while_it_narrows_goes_on_to_the_same_bytes(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    process = place.start(*SWEEP)
    wait_for(process, "half: small_cnn")
    wait_for(process, "keeps")
    process.kill()
    process.communicate()
    done = place.run(*SWEEP)
    assert done.returncode == 0, done.stderr
    found = place.variants(place.newest_sweep())
    assert set(found) == {f"{of}-{scheme}" for of in ("none", "half", "p1", "half-p1") for scheme in ("none", "fiq")}
    narrowed = place.store().search("tags.stage = 'narrow' and status = 'FINISHED'")
    assert [record.name for record in narrowed] == ["half"]
    assert narrowed[0].metrics["kept_multiply_adds"] == pytest.approx(0.5, abs=0.05)
    share = found["half-none"].metrics["multiply_adds"] / found["none-none"].metrics["multiply_adds"]
    assert share == pytest.approx(narrowed[0].metrics["kept_multiply_adds"], abs=1e-6)
    assert re.search(r"conv\d \d+ → \d+", narrowed[0].tags["narrowed"])
    pruned = place.store().search("tags.stage = 'prune' and status = 'FINISHED'")
    for record in (*narrowed, *(record for record in pruned if record.name == "half-p1")):
        promises = json.loads(place.store().file(record.run_id, PROMISES).read_text())
        assert any("channels" in promise for promise in promises.values())
    other = Place(tmp_path_factory.mktemp("undisturbed"))
    assert other.run(*SWEEP).returncode == 0
    again = other.variants(other.newest_sweep())
    assert {n: r.tags["digest"] for n, r in found.items()} == {n: r.tags["digest"] for n, r in again.items()}
