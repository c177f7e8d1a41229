"""How a model is fitted: optimizers, learning rates, and what is refused before TensorFlow is there."""

import math
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
from src.methods import batches, fitting, prune, train
from src.methods.fitting import Fitting
from src.methods.layers import Layers
from src.methods.prune import MagnitudePruning
from src.methods.task import Task
from src.methods.train import Train
from src.models import Architecture, small_cnn
from src.models.checkpoint import restore
from src.settings.check import UserError
from src.settings.head import Head
from src.settings.sections import Augment, Preprocess
from src.store.artifacts import sha256
from src.sweep.variant import expand

FIT = Train(epochs=4, batch_size=10, learning_rate=0.1)
PRUNING = MagnitudePruning(
    schedule="constant",
    initial_sparsity=0.0,
    final_sparsity=0.5,
    begin=0.0,
    end=0.5,
    frequency=1,
    epochs=2,
    batch_size=10,
    learning_rate=1e-2,
    layers=Layers(types=("Conv2D",)),
)


@pytest.fixture(scope="module")
def task() -> Task:
    backend.prepare()
    rng, labels = np.random.default_rng(0), np.arange(40) % 10 % 3  # 16, 12 and 12 images
    images = (rng.integers(0, 100, (40, 8, 8, 1)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    split = in_memory(images, labels, [str(i) for i in range(40)])
    return Task(Dataset(split, split, split, tuple("abc"), (8, 8, 1), ""), Preprocess(), Augment(), 0)


def keras_2_and_3() -> list[Any]:
    import keras
    import tf_keras

    return [tf_keras, keras]


def rates(config: Fitting, steps: int) -> list[list[float]]:
    """The learning rate at each step of all epochs, by each Keras."""
    found = []
    for keras in keras_2_and_3():
        rate = fitting.learning_rate(config, keras, steps)
        every = range(steps * config.epochs)
        found.append([float(rate(np.int64(step)) if callable(rate) else rate) for step in every])
    return found


def test_a_learning_rate_follows_its_schedule_from_step_to_step() -> None:
    # Eight steps: 4 epochs of 2.
    cosine = [0.1 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    expected = {
        "cosine": cosine,
        "constant": [0.1] * 8,
        "exponential": [0.1 * 0.5 ** (step / 2) for step in range(8)],  # halved every epoch
    }
    for name, each in expected.items():
        for found in rates(replace(FIT, learning_rate_schedule=name, decay_rate=0.5), 2):
            np.testing.assert_allclose(found, each, rtol=1e-5, atol=1e-8)


def test_a_warm_up_rises_to_the_highest_and_the_schedule_follows() -> None:
    # An epoch and a half of 2 steps are 3 steps; 5 are left for the cosine.
    rise = [0.1 / 3, 0.2 / 3, 0.1]
    cosine = [0.1 * (1 + math.cos(math.pi * step / 5)) / 2 for step in range(5)]
    for found in rates(replace(FIT, warmup_epochs=1.5), 2):
        np.testing.assert_allclose(found, [*rise, *cosine], rtol=1e-5, atol=1e-8)
    for found in rates(replace(FIT, warmup_epochs=1.5, learning_rate_schedule="constant"), 2):
        np.testing.assert_allclose(found, [*rise, *[0.1] * 5], rtol=1e-5)


def test_an_optimizer_gets_its_settings() -> None:
    for keras in keras_2_and_3():
        adam = fitting.optimizer(replace(FIT, beta_1=0.8, weight_decay=0.01), keras, 2)
        assert isinstance(adam, keras.optimizers.Adam)
        assert (adam.beta_1, adam.weight_decay) == (0.8, 0.01)
        adamw = fitting.optimizer(replace(FIT, optimizer="adamw"), keras, 2)
        assert isinstance(adamw, keras.optimizers.AdamW)
        assert adamw.weight_decay == 0.004
        sgd = fitting.optimizer(replace(FIT, optimizer="sgd", momentum=0.9, nesterov=True), keras, 2)
        assert isinstance(sgd, keras.optimizers.SGD)
        assert (sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.9, True, None)


def test_adam_in_one_pass_is_keras_s_adam() -> None:
    """Five steps of each on the same gradients, with weight decay and a schedule, an embedding's rows among them."""
    import tensorflow as tf

    rng, config = np.random.default_rng(0), replace(FIT, optimizer="adamw", weight_decay=0.01, beta_1=0.8)
    start, slopes = rng.normal(size=(20, 3)).astype(np.float32), rng.normal(size=(5, 20, 3)).astype(np.float32)
    rows = np.array([3, 3, 7])
    for keras in keras_2_and_3():
        ours = fitting.optimizer(config, keras, 2)
        theirs = keras.optimizers.AdamW(
            fitting.learning_rate(config, keras, 2), weight_decay=0.01, beta_1=0.8, beta_2=0.999, epsilon=1e-7
        )
        found = []
        for optimizer in (ours, theirs):
            variable = tf.Variable if keras.__name__ == "tf_keras" else keras.Variable
            dense, embedding = variable(start), variable(start)
            optimizer.build([dense, embedding])
            for slope in slopes:
                sparse = tf.IndexedSlices(tf.constant(slope[:3]), tf.constant(rows), tf.constant(start.shape))
                optimizer.apply_gradients([(tf.constant(slope), dense), (sparse, embedding)])
            found.append((dense.numpy(), embedding.numpy()))
        np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)
        assert np.abs(found[0][0] - start).max() > 0.1


def fitted(config: Train, task: Task, checkpoint: Path) -> Any:
    return train.fit(config, lambda: small_cnn.build(Architecture(), (8, 8, 1), 3), task, checkpoint)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.long)])
def test_every_stage_that_trains_takes_them_and_one_seed_gives_the_same_bytes(
    task: Task, tmp_path: Path, jit_compile: bool
) -> None:
    own: dict[str, Any] = {
        "optimizer": "sgd",
        "momentum": 0.9,
        "weight_decay": 1e-3,
        "warmup_epochs": 0.5,
        "jit_compile": jit_compile,
    }
    own |= {"label_smoothing": 0.1, "class_weight": "balanced"}
    digests = {}
    for name in ("first", "second", "default"):
        settings = {"jit_compile": jit_compile} if name == "default" else own
        fitted(replace(FIT, epochs=1, learning_rate=0.01, **settings), task, tmp_path / f"{name}.h5")
        prune.magnitude(replace(PRUNING, **settings), tmp_path / "first.h5", task, tmp_path / "pruned.h5")
        digests[name] = sha256(tmp_path / f"{name}.h5"), sha256(tmp_path / "pruned.h5")
    assert digests["first"] == digests["second"]
    assert not set(digests["first"]) & set(digests["default"])


def test_labels_are_smoothed_and_rare_classes_weigh_more(task: Task) -> None:
    # 16, 12 and 12 of 40 images are of the three classes: 40 / 3 images would be of each.
    weights = np.float32([40 / 3 / 16, 40 / 3 / 12, 40 / 3 / 12])
    np.testing.assert_allclose(batches.balanced(task.dataset.train.labels, 3), weights, rtol=1e-6)
    np.testing.assert_allclose(batches.smoothed(np.eye(3, dtype=np.float32), 0.3)[0], [0.8, 0.1, 0.1], rtol=1e-6)
    plain, told = (
        list(batches.training_runs(task, config, 10))
        for config in (FIT, replace(FIT, label_smoothing=0.3, class_weight="balanced"))
    )
    assert [len(run[0]) for run in (*plain, *told)] == [4] * 8  # epochs of 4 batches
    for (images, labels), (same, soft, weighed) in zip(plain, told, strict=True):
        np.testing.assert_array_equal(images, same)
        expected = batches.smoothed(np.eye(3, dtype=np.float32)[labels.ravel()], 0.3)
        np.testing.assert_array_equal(soft.reshape(-1, 3), expected)
        np.testing.assert_allclose(weighed, weights[labels], rtol=1e-6)


@pytest.mark.parametrize("logits", [False, True])
def test_the_loss_of_smoothed_labels_is_their_cross_entropy(logits: bool) -> None:
    scores = np.float32([[1, 2, 3], [0, 0, 1]])
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    soft = np.float32([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    expected = -(soft * np.log(shares)).sum(1).mean()
    for keras in keras_2_and_3():
        of = fitting.loss(replace(FIT, label_smoothing=0.3), Augment(), keras, Head("softmax", logits), 3)
        assert of(soft, scores if logits else shares).numpy().mean() == pytest.approx(expected, rel=1e-5)


def test_training_stops_early_and_pruning_not_before_its_zeros_are_there(task: Task, tmp_path: Path) -> None:
    """A learning rate of next to nothing: the first epoch that counts stays the best."""
    still = {"learning_rate": 1e-12, "label_smoothing": 0.1, "class_weight": "balanced"}
    trained = fitted(replace(FIT, epochs=6, patience=2, **still), task, tmp_path / "dense.h5")
    assert [epoch["epoch"] for epoch in trained.history] == [0, 1, 2]
    assert trained.metrics["epoch"] == 0
    # 8 epochs of 4 steps. The schedule ends at step 16, the first of epoch 4: that one is the first that counts.
    config = replace(PRUNING, epochs=8, patience=1, schedule="polynomial", **still)
    pruned = prune.magnitude(config, tmp_path / "dense.h5", task, tmp_path / "pruned.h5")
    assert [epoch["epoch"] for epoch in pruned.history] == [0, 1, 2, 3, 4, 5]
    found = prune.sparsity(restore(tmp_path / "pruned.h5"), ["conv2", "conv3"])
    assert found == {"conv2": 0.5, "conv3": 0.5}


REFUSED = {
    "train.momentum=0.9": "train.momentum=0.9: optimizer=adam has none; takes optimizer=sgd",
    "train.optimizer=sgd train.beta_1=0.5": "train.beta_1=0.5: optimizer=sgd has none; takes optimizer=adam or adamw",
    "train.optimizer=sgd train.nesterov=true": "train.nesterov=true: needs a momentum",
    "train.optimizer=rmsprop": "train.optimizer=rmsprop: takes one of adam, adamw, sgd",
    "train.label_smoothing=1": "train.label_smoothing=1: takes a number of at least 0 and below 1",
    "train.class_weight=true": "train.class_weight=true: takes ",
    "train.patience=0": "train.patience=0: takes ",
    "train.weight_decay=-1": "train.weight_decay=-1: takes ",
    "train.epochs=2 train.warmup_epochs=2": "train.warmup_epochs=2: takes a number below epochs=2",
    "prune=p1 prune.learning_rate_schedule=step": "prune.learning_rate_schedule=step: takes one of cosine, constant,",
}


def test_settings_that_do_not_go_together_are_refused_in_one_line() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        for told, line in REFUSED.items():
            with pytest.raises(UserError) as caught:
                compose(told.split())
            assert str(caught.value).startswith(line), told
            assert "\n" not in str(caught.value)


def test_a_setting_that_needs_another_makes_no_difference_where_nothing_reads_it() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        idle = expand([["prune=none", "prune.momentum=0.9"]], compose)
        with pytest.raises(UserError, match=r"^prune\.momentum=2: takes a number"):
            compose(["prune=none", "prune.momentum=2"])
        plain = expand([["prune=none"]], compose)
    assert idle[0].notes == ("prune.momentum=0.9: makes no difference, since no option chosen here takes it",)
    assert idle[0].stage.key == plain[0].stage.key


def test_an_override_of_pruning_shares_the_training() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        plain, own = compose(["prune=p1"]), compose(["prune=p1", "prune.optimizer=sgd", "prune.momentum=0.9"])
    assert plain.train.settings == own.train.settings
    assert (own.steps["prune"].settings.optimizer, own.steps["prune"].settings.momentum) == ("sgd", 0.9)
