"""Distillation: what is learnt from the dense baseline, by each end that a model may have, and what it leaves alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place, default_composer
from hydra import initialize_config_dir

from src.cli.compose import CONF
from src.data import preprocess
from src.methods import batches, prune
from src.methods.distillation import Distillation, divergence, teacher, with_teacher
from src.methods.layers import Layers
from src.methods.loop import optimise
from src.methods.prune import MagnitudePruning
from src.methods.task import Task
from src.models.checkpoint import restore, save
from src.pipeline.stages import Stage
from src.settings.check import UserError
from src.settings.config import Step
from src.settings.head import Head
from src.settings.sections import Augment, Preprocess
from src.store.artifacts import sha256
from src.sweep import plan
from src.sweep.variant import expand

HALF = Distillation(0.5, 4.0)
PRUNING = MagnitudePruning(
    schedule="constant",
    initial_sparsity=0.0,
    final_sparsity=0.5,
    begin=0.0,
    end=0.5,
    frequency=1,
    epochs=1,
    batch_size=10,
    learning_rate=1e-2,
    layers=Layers(types=("Conv2D",), spare_first_convolution=False),
)
AUGMENTED = (Augment(flip=True), Augment(shift=0.2), Augment(rotation=9), Augment(mixup=0.4))


def dense(keras: Any, folder: Path, outputs: int = 3, activation: str | None = "softmax") -> Path:
    """The checkpoint of a network that knows nothing, and is as sure as others of it."""
    layers = keras.layers
    keras.utils.set_random_seed(5)
    first = layers.Conv2D(4, 3, activation="relu", name="conv")
    parts = [first, layers.Flatten(), layers.Dense(outputs, activation=activation, name="top")]
    save(keras.Sequential([layers.Input((8, 8, 1)), *parts]), folder / f"{keras.__name__}{outputs}{activation}.h5")
    return folder / f"{keras.__name__}{outputs}{activation}.h5"


def keras_2_and_3() -> list[Any]:
    import keras
    import tf_keras

    return [tf_keras, keras]


# --- The loss ---------------------------------------------------------------------------------------------------


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def expected(kind: str, theirs: np.ndarray, own: np.ndarray, temperature: float) -> np.ndarray:
    """T² KL(teacher || student) of logits `[n, outputs]` as it stands in the paper, for sigmoids of each output with
    what it leaves for the other answer."""
    if kind == "softmax":
        p, q = softmax(theirs / temperature), softmax(own / temperature)
        return temperature**2 * (p * np.log(p / q)).sum(-1)
    p, q = sigmoid(theirs / temperature), sigmoid(own / temperature)
    return temperature**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean(-1)


ENDS = {
    "softmax": Head("softmax", True),
    "one sigmoid": Head("sigmoid", True, (-1, 0)),
    "a sigmoid for each class": Head("sigmoid", True),
    "more outputs than classes": Head("softmax", True, (4, 0, 2)),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_the_paper_s_for_every_end_from_logits_and_from_probabilities(end: str, temperature: float) -> None:
    import tensorflow as tf

    head, how = ENDS[end], Distillation(0.5, temperature)
    width = {"one sigmoid": 1, "more outputs than classes": 5}.get(end, 3)
    theirs, own = np.random.default_rng(0).normal(0, 3, (2, 6, width))
    is_softmax = head.kind == "softmax"
    reference = expected(head.kind or "", theirs, own, temperature)
    slope = softmax(own / temperature) - softmax(theirs / temperature) if is_softmax else (
        sigmoid(own / temperature) - sigmoid(theirs / temperature)
    ) / width  # fmt: skip
    for logits in (True, False):
        given = tf.Variable(own, dtype=tf.float32)
        with tf.GradientTape() as tape:
            outputs = given if logits else (tf.nn.softmax(given) if is_softmax else tf.sigmoid(given))
            found = divergence(how, replace(head, logits=logits), np.float32(theirs), outputs)
        np.testing.assert_allclose(found, reference, rtol=2e-4, atol=1e-5)
        # d/dz T² KL = T (q - p): about as large at every temperature, which is what T² is for.
        np.testing.assert_allclose(tape.gradient(found, given), temperature * slope, rtol=1e-3, atol=1e-4)
        assert np.abs(divergence(how, head, np.float32(own), np.float32(own))).max() < 1e-5


def test_answers_that_are_next_to_certain_leave_numbers() -> None:
    import tensorflow as tf

    sure = tf.Variable([[300.0, 0, -300], [-300, 0, 300]])
    for head in (Head("softmax", False), Head("sigmoid", False)):
        with tf.GradientTape() as tape:
            outputs = tf.nn.softmax(sure) if head.kind == "softmax" else tf.sigmoid(sure)
            value = divergence(HALF, head, np.float32([[-200, 0, 200]] * 2), outputs)
        assert np.isfinite(value).all()
        assert np.isfinite(tape.gradient(value, sure)).all()


def test_each_loss_has_its_share_and_without_a_teacher_the_labels_have_all() -> None:
    import tensorflow as tf

    own, theirs = np.float32([[1, 2, 3], [0, 1, 0]]), np.float32([[3, 2, 1], [0, 1, 0]])
    labels = tf.constant([2, 0])
    of_labels = lambda labels, outputs: tf.gather(-tf.nn.log_softmax(outputs), labels, batch_dims=1)  # noqa: E731
    hard, soft = of_labels(labels, own), divergence(HALF, Head("softmax", True), theirs, own)
    for weight in (0.25, 1.0):
        of_each = with_teacher(of_labels, replace(HALF, weight=weight), Head("softmax", True))
        np.testing.assert_allclose(of_each(labels, own, theirs), (1 - weight) * hard + weight * soft, rtol=1e-5)
        np.testing.assert_allclose(of_each(labels, own), hard, rtol=1e-6)


# --- The teacher ------------------------------------------------------------------------------------------------


def test_images_that_stay_as_they_are_are_shown_to_the_teacher_once(task: Task, tmp_path: Path) -> None:
    for keras in keras_2_and_3():
        file = dense(keras, tmp_path)
        task = replace(task, teacher=file)
        teaches = teacher(restore(file), task, HALF)
        assert teaches is not None
        every = preprocess(task.dataset.train.read(np.arange(40)), Preprocess())
        np.testing.assert_allclose(teaches.known, np.log(restore(file)(every).numpy()), rtol=1e-3, atol=1e-4)
        config = replace(PRUNING, epochs=2, distillation=HALF)
        whole = {image.tobytes(): logits for image, logits in zip(every, np.array(teaches.known), strict=True)}
        for images, labels, logits in batches.training_runs(task, config, 10, (), replace(teaches, predict=None)):
            assert logits.shape == (*labels.shape, 3)
            for image, own in zip(images.reshape(-1, 8, 8, 1), logits.reshape(-1, 3), strict=True):
                np.testing.assert_array_equal(whole[image.tobytes()], own)


@pytest.mark.parametrize("how", AUGMENTED, ids=["flip", "shift", "rotation", "mixup"])
def test_of_images_that_change_the_teacher_sees_what_the_model_is_shown(
    how: Augment, task: Task, tmp_path: Path
) -> None:
    import tf_keras

    file = dense(tf_keras, tmp_path)
    changing = replace(task, teacher=file, augment=how)
    teaches = teacher(restore(file), changing, HALF)
    assert teaches is not None
    assert teaches.known is None
    config, model = replace(PRUNING, class_weight="balanced", distillation=HALF), restore(file)
    for images, _, weights, logits in batches.training_runs(changing, config, 10, (), teaches):
        assert weights.shape == logits.shape[:2]
        own = np.log(model(images.reshape(-1, 8, 8, 1)).numpy()).reshape(logits.shape)
        np.testing.assert_allclose(logits, own, rtol=1e-3, atol=1e-4)


def test_a_teacher_that_is_not_there_or_answers_something_else_is_refused_in_one_line(
    task: Task, tmp_path: Path
) -> None:
    import tf_keras

    model, config = restore(dense(tf_keras, tmp_path)), replace(PRUNING, distillation=HALF)
    with pytest.raises(UserError, match=r"^distillation\.weight=0\.5: there is no dense baseline to learn from; "):
        optimise(model, task, config)
    for other, ends in {(5, "softmax"): "5 outputs of a softmax", (3, "sigmoid"): "3 outputs of a sigmoid"}.items():
        with pytest.raises(UserError, match=rf"^distillation\.weight=0\.5: the dense baseline ends in {ends}, and .*$"):
            optimise(model, replace(task, teacher=dense(tf_keras, tmp_path, *other)), config)
    same = replace(task, teacher=dense(tf_keras, tmp_path, 3, None))
    optimise(model, same, config)  # logits of a softmax and its probabilities say the same


# --- Training ---------------------------------------------------------------------------------------------------


def own_loss(labels: Any, scores: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_sum((labels - scores) ** 2, -1)


def test_the_teacher_is_learnt_from_whatever_the_labels_say(task: Task, tmp_path: Path) -> None:
    """The whole loss is the teacher's: a network that starts elsewhere comes to answer as it does."""
    for keras in keras_2_and_3():
        file, model = dense(keras, tmp_path), restore(dense(keras, tmp_path))
        model.set_weights([0.5 * weights for weights in model.get_weights()])
        images = preprocess(task.dataset.train.read(np.arange(40)), Preprocess())
        theirs, before = restore(file)(images).numpy(), model(images).numpy()
        config = replace(PRUNING, epochs=30, distillation=Distillation(1.0, 2.0))
        optimise(model, replace(task, teacher=file), config, keep_best_from=29)
        assert np.abs(model(images).numpy() - theirs).mean() < 0.25 * np.abs(before - theirs).mean()


@pytest.mark.parametrize("augment", [Augment(), Augment(flip=True, mixup=0.4)], ids=["as they are", "augmented"])
def test_one_seed_gives_the_same_bytes_with_all_that_a_fitting_takes(
    augment: Augment, task: Task, tmp_path: Path
) -> None:
    taught: dict[str, dict[str, Any]] = {
        "first": {},
        "second": {},
        "own loss": {"loss": f"{__name__}.own_loss"},
        "smoothed and weighed": {"label_smoothing": 0.1, "class_weight": "balanced"},
        "weight": {"distillation": replace(HALF, weight=1.0)},
        "temperature": {"distillation": replace(HALF, temperature=8.0)},
        "none": {"distillation": Distillation()},
    }
    for keras in keras_2_and_3():
        file = dense(keras, tmp_path)
        digests = {}
        for name, settings in taught.items():
            config = replace(PRUNING, **({"distillation": HALF} | settings))
            of_teacher = replace(task, augment=augment, teacher=file if config.distillation.acts else None)
            prune.magnitude(config, file, of_teacher, tmp_path / "pruned.h5")
            digests[name] = sha256(tmp_path / "pruned.h5")
        assert digests["first"] == digests.pop("second")
        assert len(set(digests.values())) == len(digests)


@pytest.mark.long
def test_a_step_that_is_compiled_by_xla_learns_as_well(task: Task, tmp_path: Path) -> None:
    for keras in keras_2_and_3():
        file = dense(keras, tmp_path)
        config = replace(PRUNING, jit_compile=True, distillation=HALF)
        trained = prune.magnitude(config, file, replace(task, teacher=file), tmp_path / "pruned.h5")
        assert np.isfinite(trained.history[0]["loss"])


# --- Settings, keys and stages ------------------------------------------------------------------------------------

REFUSED = {
    "prune=p1 prune.distillation.weight=1.5": "prune.distillation.weight=1.5: takes a number of at least 0 and at most",
    "prune=none prune.distillation.weight=-1": "prune.distillation.weight=-1: takes a number of at least 0 and at most",
    "prune=p1 prune.distillation.temperature=0.5": "prune.distillation.temperature=0.5: takes a number of at least 1 ",
    "train.distillation.weight=0.5": "train.distillation.weight=0.5: the dense baseline is the teacher, and has none; ",
}


def test_what_no_distillation_takes_is_refused_in_one_line() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        for told, line in REFUSED.items():
            with pytest.raises(UserError) as caught:
                compose(told.split())
            assert str(caught.value).startswith(line), told
            assert "\n" not in str(caught.value)


def test_without_a_weight_no_key_knows_of_it_and_with_one_only_what_learns_does() -> None:
    def keys(*told: str) -> list[str]:
        return [stage.key for stage in expand([["prune=p1", *told]], compose)[-1].chain]

    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        plain, hotter = keys(), keys("prune.distillation.temperature=8", "train.distillation.temperature=8")
        taught = keys("prune.distillation.weight=0.5")
        taught_hotter = keys("prune.distillation.weight=0.5", "prune.distillation.temperature=8")
        other_teacher = keys("prune.distillation.weight=0.5", "train.epochs=7")
        described = compose(["prune=p1"]).steps["prune"].describe()["settings"]
    assert plain == hotter
    assert "distillation" not in described
    assert plain[0] == taught[0]
    assert len({plain[1], taught[1], taught_hotter[1], other_teacher[1]}) == 4


def test_a_teacher_that_the_store_lacks_is_made_again_for_a_later_transform_alone() -> None:
    taught = replace(PRUNING, distillation=HALF)
    train = Stage("train", Step("train", "short", "x.y", None), "train", "", None)

    def chain(settings: MagnitudePruning) -> tuple[Stage, ...]:
        first = Stage("narrow", Step("narrow", "half", "x.y", PRUNING), "first", "", train)
        second = Stage("prune", Step("prune", "p1", "x.y", settings), "second", "", first)
        return train, first, second, Stage("quant", Step("quant", "drq", "x.y", None), "last", "", second)

    def missing(settings: MagnitudePruning, *done: str) -> list[str]:
        found = plan._missing(chain(settings), dict.fromkeys(done))  # type: ignore[arg-type]
        return [stage.key for _, stage in found]

    assert missing(taught, "first") == ["train", "second", "last"]
    assert missing(PRUNING, "first") == ["second", "last"]
    assert missing(taught, "train", "first") == ["second", "last"]
    assert missing(taught, "first", "second") == ["last"], "what learns is done already"
    assert missing(taught) == ["train", "first", "second", "last"]


TINY = ("train.epochs=2", "prune.epochs=1", "benchmark.seconds=0.1", "benchmark.instances=3", "benchmark.rounds=3")
AGAIN = "defaults: [/prune/magnitude@_here_]\nepochs: 1\ndistillation: {weight: 0.5}\n"


def test_in_a_sweep_the_teacher_is_the_dense_baseline_whatever_the_parent_is(place: Place) -> None:
    """Two runs leave the same bytes, of the second transform too, which learns from another than it starts from."""
    (place.folder / "mine/again").mkdir(parents=True)
    (place.folder / "mine/again/none.yaml").write_text("_target_: null\n")
    (place.folder / "mine/again/taught.yaml").write_text(AGAIN)
    told = ["--config-dir", "mine", "transforms=[prune,again]", "+again=none,taught", "prune=p1", "quant=none"]
    digests = []
    for reuse in ("all", "none"):
        done = place.run("-m", *told, "prune.distillation.weight=0.5", f"reuse={reuse}", *TINY)
        assert done.returncode == 0, done.stderr
        sweep = place.newest_sweep().run_id
        stages = place.store().search(f"tags.kind = 'stage' and tags.sweep = '{sweep}'")
        assert {stage.name for stage in stages} == {"train", "p1", "p1-taught"}
        digests.append({stage.name: stage.tags["digest"] for stage in stages})
        teachers = {stage.name: stage.tags.get("teacher") for stage in stages}
        trained = digests[-1]["train"]
        assert teachers == {"train": None, "p1": trained, "p1-taught": trained}
    assert digests[0] == digests[1]
    params = place.variants(place.newest_sweep())["p1-none"].params
    assert (params["prune_distillation_weight"], params["prune_distillation_temperature"]) == ("0.5", "4.0")
