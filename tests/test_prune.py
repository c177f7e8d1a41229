"""Pruning of layers that are not as fresh as a training leaves them: frozen, sparse already, of few values."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import default_composer
from hydra import initialize_config_dir

from src.cli.compose import CONF
from src.data import Dataset, in_memory
from src.machine import backend
from src.methods import prune
from src.methods.layers import Layers
from src.methods.prune import MagnitudePruning, SparsityRule
from src.methods.task import Task, Trained
from src.models.checkpoint import restore, save
from src.models.promises import Promise
from src.settings.check import UserError
from src.settings.sections import Augment, Preprocess

PRUNING = MagnitudePruning(
    schedule="polynomial",
    initial_sparsity=0.0,
    final_sparsity=0.5,
    begin=0.0,
    end=0.6,
    frequency=2,
    epochs=2,
    batch_size=16,
    learning_rate=1e-2,
    layers=Layers(types=("Conv2D", "Dense"), spare_first_convolution=False, spare_classifier=False),
)
TO_80 = replace(PRUNING, initial_sparsity=0.5, final_sparsity=0.8)
CONSTANT = replace(PRUNING, schedule="constant")


@pytest.fixture(scope="module")
def task() -> Task:
    backend.prepare()
    rng, labels = np.random.default_rng(0), np.arange(48) % 3
    images = rng.integers(0, 100, (48, 8, 8, 1)) + 60 * labels[:, None, None, None]
    split = in_memory(images.astype(np.uint8), labels, [str(i) for i in range(48)])
    return Task(Dataset(split, split, split, tuple("abc"), (8, 8, 1), ""), Preprocess(), Augment(), 0)


def model() -> Any:
    """Three layers of which each test prepares one; `blur` has one channel, and its kernel two different values."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    blur = layers.Conv2D(1, 3, use_bias=False, name="blur")
    parts = [blur, layers.Conv2D(8, 3, activation="relu", name="conv"), layers.Flatten(), layers.Dense(3, name="top")]
    whole = tf_keras.Sequential([layers.Input((8, 8, 1)), *parts])
    blur.set_weights([np.float32([[1, 2, 1], [2, 2, 2], [1, 2, 1]]).reshape(3, 3, 1, 1) / 14])
    return whole


def made_sparse(layer: Any, share: float) -> np.ndarray:
    """Zeroes the first `share` of a layer's kernel, large values among them, and says which those are."""
    kernel, *rest = layer.get_weights()
    zeros = (np.arange(kernel.size) < round(share * kernel.size)).reshape(kernel.shape)
    layer.set_weights([np.where(zeros, 0, kernel), *rest])
    return zeros


def pruned(prepared: Any, how: MagnitudePruning, task: Task, folder: Path) -> tuple[Any, Trained]:
    save(prepared, folder / "parent.h5")
    trained = prune.magnitude(how, folder / "parent.h5", task, folder / "pruned.h5")
    return restore(folder / "pruned.h5"), trained


def zeros_of(layer: Any) -> np.ndarray:
    return layer.get_weights()[0] == 0


@pytest.mark.parametrize("how", [PRUNING, TO_80, CONSTANT], ids=["from none", "from half", "constant"])
def test_what_was_sparser_before_keeps_its_zeros_and_is_named(
    how: MagnitudePruning, task: Task, tmp_path: Path
) -> None:
    before = model()
    earlier = made_sparse(before.get_layer("conv"), 0.9)
    after, trained = pruned(before, how, task, tmp_path)
    np.testing.assert_array_equal(zeros_of(after.get_layer("conv")), earlier, "none is revived, and no other is added")
    assert not np.array_equal(after.get_layer("conv").get_weights()[0], before.get_layer("conv").get_weights()[0])
    assert zeros_of(after.get_layer("top")).mean() == pytest.approx(how.final_sparsity, abs=1e-2)
    # 72 values, of which 65 were zero.
    assert trained.tags["sparser"] == f"conv {65 / 72:.4f}"
    said = f"More zeros than asked for, and none of them was revived: conv 90.3 % for {100 * how.final_sparsity:.1f} %."
    assert trained.notes == (said,)
    kernels = [weights for weights in after.get_weights() if weights.ndim > 1]
    zeros = sum(int((weights == 0).sum()) for weights in kernels)
    assert trained.metrics["sparsity"] == zeros / after.count_params()


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_zeros_of_before_count_among_those_asked_for(share: float, task: Task, tmp_path: Path) -> None:
    before = model()
    earlier = made_sparse(before.get_layer("conv"), share)
    after, trained = pruned(before, PRUNING, task, tmp_path)
    now = zeros_of(after.get_layer("conv"))
    assert now.mean() == 0.5
    assert now[earlier].all()
    assert trained.tags["sparser"] == "none"


def test_a_layer_of_zeros_stays_one(task: Task, tmp_path: Path) -> None:
    before = model()
    made_sparse(before.get_layer("conv"), 1)
    after, trained = pruned(before, PRUNING, task, tmp_path)
    assert zeros_of(after.get_layer("conv")).all()
    assert trained.tags["sparser"] == "conv 1.0000"


def test_a_frozen_layer_is_pruned_and_named_and_its_equal_values_are_no_hindrance(task: Task, tmp_path: Path) -> None:
    before = model()
    before.get_layer("blur").trainable = False
    after, trained = pruned(before, PRUNING, task, tmp_path)
    kernel = after.get_layer("blur").get_weights()[0].ravel()
    # Of 1 2 1 / 2 2 2 / 1 2 1 four stay: the corners go, and the first of the five that are equal.
    np.testing.assert_allclose(kernel * 14, [0, 0, 0, 2, 2, 2, 0, 2, 0], rtol=1e-6)
    deeper, _ = pruned(before, replace(PRUNING, final_sparsity=0.75), task, tmp_path)
    assert zeros_of(deeper.get_layer("blur")).sum() == 7
    assert trained.tags["frozen"] == "blur"
    assert trained.notes == ("Pruned though frozen, so that no fine-tuning can make up for it: blur.",)
    assert prune.notes(PRUNING, before) == trained.notes
    before.get_layer("blur").trainable = True
    assert prune.notes(PRUNING, before) == ()


def test_fewer_zeros_than_asked_for_are_no_result() -> None:
    before = model()
    made_sparse(before.get_layer("conv"), 0.4)
    with pytest.raises(
        ValueError, match=r"layer conv came out with a sparsity of 0\.4028; its schedule ends with 0\.5"
    ):
        prune._confirm(before, {"conv": 0.5})


def test_layers_of_a_frozen_model_are_frozen() -> None:
    import tf_keras

    layers = tf_keras.layers
    inner = tf_keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3, name="conv")], name="inner")
    inner.trainable = False
    whole = tf_keras.Sequential([layers.Input((8, 8, 1)), inner, layers.Flatten(), layers.Dense(3, name="top")])
    assert prune.taken(whole, PRUNING)[0].frozen == ("inner/conv",)


def test_a_policy_that_takes_no_layer_is_told_before_training() -> None:
    with pytest.raises(UserError, match=r"^prune\.layers: takes none of the layers blur, conv, top"):
        prune.notes(replace(PRUNING, layers=Layers(types=("LSTM",))), model())


def test_a_rule_decides_for_the_layers_that_it_matches_and_the_first_that_matches_wins(
    task: Task, tmp_path: Path
) -> None:
    rules = (SparsityRule("top", final_sparsity=0.8), SparsityRule("bl.*", final_sparsity=0), SparsityRule("t.*|conv"))
    after, trained = pruned(model(), replace(PRUNING, rules=rules), task, tmp_path)
    shares = {name: zeros_of(after.get_layer(name)).mean() for name in ("blur", "conv", "top")}
    # 384 values in `top`, 72 in `conv`; what a rule does not set stays as the policy says.
    assert shares == {"blur": 0, "conv": 0.5, "top": 307 / 384}
    assert trained.tags["pruned"] == "conv, top"
    assert {path: promise.zeros for path, promise in trained.promises.items()} == {"conv": 36, "top": 307}


def test_the_plan_says_which_layer_gets_what() -> None:
    rules = (SparsityRule("conv", final_sparsity=0.3), SparsityRule("blur", final_sparsity=0))
    assert prune.notes(replace(TO_80, rules=rules), model()) == (
        "Prunes conv from 30 % to 30 %; top from 50 % to 80 %; spares blur.",
    )
    policy = Layers(
        types=("Dense", "Conv2D"), pattern="conv|top", spare_classifier=False, spare_first_convolution=False
    )
    rules = (SparsityRule("conv", initial_sparsity=0.1), SparsityRule("b.*", final_sparsity=0.9))
    assert prune.notes(replace(TO_80, rules=rules, layers=policy), model()) == (
        "Prunes conv from 10 % to 80 %; top from 50 % to 80 %.",
        "The policy does not take blur, so that no rule prunes it.",
    )


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["conv9"], r"^prune\.rules\.layers=conv9: matches none of the layers blur, conv, top$"),
        (
            ["c.*", "conv"],
            r"^prune\.rules\.layers=conv: earlier rules match all that it matches \(conv\), and the first",
        ),
    ],
)
def test_a_rule_that_decides_nothing_is_told_before_training(patterns: list[str], said: str) -> None:
    rules = tuple(SparsityRule(pattern, final_sparsity=0.9) for pattern in patterns)
    with pytest.raises(UserError, match=said):
        prune.notes(replace(PRUNING, rules=rules), model())


def test_rules_that_spare_every_layer_are_told_before_training() -> None:
    with pytest.raises(UserError, match=r"^prune\.layers: takes none .* conv, top that no rule spares"):
        prune.notes(replace(PRUNING, rules=(SparsityRule(".*", final_sparsity=0),)), model())


def test_what_the_parent_promises_of_other_layers_is_held(task: Task, tmp_path: Path) -> None:
    before = model()
    earlier = made_sparse(before.get_layer("top"), 0.5)
    only_conv = replace(PRUNING, layers=replace(PRUNING.layers, pattern="conv"))
    free, _ = pruned(before, only_conv, task, tmp_path)
    assert not zeros_of(free.get_layer("top"))[earlier].all(), "the fine-tuning revives what nobody holds"
    promises = {"top": Promise(zeros=192), "conv": Promise(zeros=0)}
    held, _ = pruned(before, only_conv, replace(task, promises=promises), tmp_path)
    assert zeros_of(held.get_layer("top"))[earlier].all()
    assert not np.array_equal(held.get_layer("top").get_weights()[0], before.get_layer("top").get_weights()[0])


def test_promised_zeros_are_held_in_kernels_that_pruning_leaves_alone(task: Task, tmp_path: Path) -> None:
    """TFMOT prunes the pointwise kernel of a separable convolution, and not the depthwise one."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    parts = [layers.SeparableConv2D(8, 3, name="separable"), layers.Flatten(), layers.Dense(3, name="top")]
    before = tf_keras.Sequential([layers.Input((8, 8, 1)), *parts])
    zeros = made_sparse(before.get_layer("separable"), 0.5)
    how = replace(PRUNING, layers=replace(PRUNING.layers, types=("SeparableConv2D",)))
    free, _ = pruned(before, how, task, tmp_path)
    assert not zeros_of(free.get_layer("separable"))[zeros].all()
    held, trained = pruned(before, how, replace(task, promises={"separable": Promise(zeros=4)}), tmp_path)
    assert zeros_of(held.get_layer("separable"))[zeros].all()
    # 4 of 9 values of the depthwise kernel, and half of the 8 of the pointwise one.
    assert trained.promises == {"separable": Promise(zeros=8)}


def test_a_promise_that_fine_tuning_would_break_is_refused_before_training(task: Task, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^prune: layer top promises at most 4 distinct values in an output channel"):
        pruned(model(), PRUNING, replace(task, promises={"top": Promise(zeros=1, distinct=4)}), tmp_path)


@pytest.mark.parametrize("name", ["small_cnn", "resnet8", "ds_cnn", "vgg26m", "mobilenet_v2", "efficientnet_b0"])
def test_the_usual_policy_takes_some_layer_of_each_own_architecture(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = default_composer()([f"model={name}", "prune=p2"])
    built = config.model.function(config.model.settings, (32, 32, 3), 10)
    assert prune.taken(built, config.steps["prune"].settings)[0].layers
