"""Training, pruning and conversion on their own: what a stage may and may not do to its parent."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from src.cli.compose import CONF
from src.data import digits
from src.data.digits import Digits
from src.machine import backend
from src.methods import convert, masks, prune, train
from src.methods.convert import FullInteger, Quantization
from src.methods.layers import Layers
from src.methods.prune import MagnitudePruning
from src.methods.task import Task
from src.methods.train import Train
from src.models import Architecture, small_cnn, vgg26m
from src.models.checkpoint import restore
from src.settings.check import UserError, check
from src.settings.sections import Augment, Preprocess
from src.store.artifacts import sha256

PRUNING = MagnitudePruning(
    schedule="polynomial",
    initial_sparsity=0.0,
    final_sparsity=0.5,
    begin=0.0,
    end=0.6,
    frequency=7,
    epochs=2,
    batch_size=64,
    learning_rate=1e-3,
    layers=Layers(types=("Dense", "Conv2D"), min_share=0.05),
)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task(digits.load(Digits()), Preprocess(), Augment(), 0)


@pytest.fixture(scope="module")
def trained(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    backend.prepare()
    checkpoint = tmp_path_factory.mktemp("train") / "model.h5"
    shape, classes = task.dataset.shape, len(task.dataset.classes)
    train.fit(
        Train(epochs=2, batch_size=64, learning_rate=2e-3),
        lambda: small_cnn.build(Architecture(), shape, classes),
        task,
        checkpoint,
    )
    return checkpoint


def test_pruning_twice_changes_neither_the_parent_nor_the_first(task: Task, trained: Path, tmp_path: Path) -> None:
    p1, p2 = tmp_path / "p1.h5", tmp_path / "p2.h5"
    dense = sha256(trained), convert.float32(Quantization(), trained, task)
    prune.magnitude(PRUNING, trained, task, p1)
    first = sha256(p1), convert.dynamic_range(Quantization(), p1, task)
    prune.magnitude(replace(PRUNING, initial_sparsity=0.5, final_sparsity=0.8), trained, task, p2)
    assert (sha256(trained), convert.float32(Quantization(), trained, task)) == dense
    assert (sha256(p1), convert.dynamic_range(Quantization(), p1, task)) == first
    assert convert.dynamic_range(Quantization(), p2, task) != first[1]


def test_a_stage_leaves_the_same_bytes_whatever_its_process_has_done_before(
    task: Task, trained: Path, tmp_path: Path
) -> None:
    again = [tmp_path / f"{i}.h5" for i in range(2)]
    for checkpoint in again:
        prune.magnitude(PRUNING, trained, task, checkpoint)
    assert sha256(again[0]) == sha256(again[1])


@pytest.mark.parametrize(("schedule", "end"), [("polynomial", 0.6), ("polynomial", 1.0), ("constant", 0.6)])
def test_every_pruned_layer_has_the_final_sparsity_and_no_other_has_zeros(
    schedule: str, end: float, task: Task, trained: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "pruned.h5"
    prune.magnitude(replace(PRUNING, schedule=schedule, end=end, final_sparsity=0.7), trained, task, checkpoint)
    model = restore(checkpoint)
    zeros = {layer.name: float((layer.kernel.numpy() == 0).mean()) for layer in model.layers if layer.weights}
    pruned = {name: share for name, share in zeros.items() if name in ("conv2", "conv3", "dense1")}
    assert pruned == {name: pytest.approx(0.7, abs=1e-3) for name in pruned}
    assert zeros["conv1"] == 0
    assert zeros["classifier"] == 0


def test_the_mask_is_the_one_of_tfmot() -> None:
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_schedule

    normal = np.random.default_rng(0).normal(size=(3, 3, 17, 29)).astype(np.float32)
    # As they are between two updates: some never moved from zero, many moved by the same step.
    normal[..., :5], normal[..., 5:9] = 0, 1e-4
    weights = tf.Variable(normal)
    for sparsity in (0.0, 0.37, 0.5, 0.99):
        schedule = pruning_schedule.ConstantSparsity(sparsity, 0)
        theirs = pruning_impl.Pruning(lambda: 0, [], schedule, (1, 1), "AVG")._update_mask(weights)[1]
        np.testing.assert_array_equal(masks.mask(weights.numpy(), sparsity), theirs)


def test_a_training_that_diverges_is_no_result(task: Task, tmp_path: Path) -> None:
    shape, classes = task.dataset.shape, len(task.dataset.classes)
    wild = Train(epochs=2, batch_size=64, learning_rate=1e30)
    with pytest.raises(UserError, match="diverged: the loss of epoch 1 is not finite"):
        train.fit(wild, lambda: small_cnn.build(Architecture(), shape, classes), task, tmp_path / "model.h5")
    assert not (tmp_path / "model.h5").exists()


def test_a_policy_that_takes_no_layer_is_refused(task: Task, trained: Path, tmp_path: Path) -> None:
    nothing = replace(PRUNING, layers=Layers(types=("Dense",), pattern="x"))
    with pytest.raises(UserError, match="takes none of the layers conv1, conv2"):
        prune.magnitude(nothing, trained, task, tmp_path / "none.h5")


def test_the_policies_reach_the_sparsity_of_the_study_on_its_classifier() -> None:
    model = vgg26m.build(Architecture(), (32, 32, 3), 10)
    assert model.count_params() == pytest.approx(26.3e6, rel=0.03)
    assert model.get_layer("dense1").count_params() > 0.6 * model.count_params()
    for policy, overall in (("p1", 0.45), ("p2", 0.70)):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            settings = OmegaConf.to_container(compose("config", [f"prune={policy}"]).prune)
        settings.pop("_target_")
        pruning = check(MagnitudePruning, settings, "prune")
        share = prune.taken(model, pruning)[0].share
        assert pruning.final_sparsity * share == pytest.approx(overall, abs=0.01)


@pytest.mark.parametrize("build", [small_cnn.build, vgg26m.build])
@pytest.mark.parametrize(("shape", "classes"), [((8, 8, 1), 2), ((33, 20, 3), 7)])
def test_architectures_adapt_to_images_and_classes(build, shape: tuple[int, int, int], classes: int) -> None:
    model = build(Architecture(), shape, classes)
    assert model.output_shape == (None, classes)
    scores = model(np.zeros((2, *shape), np.float32)).numpy()
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_full_integer_takes_and_gives_int8(task: Task, trained: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    few = convert.full_integer(FullInteger(representative_images=5), trained, task)
    many = convert.full_integer(FullInteger(representative_images=500), trained, task)
    assert few.content != many.content, "the ranges come from the images"
    interpreter = Interpreter(model_content=many.content)
    assert [d["dtype"] for d in interpreter.get_input_details() + interpreter.get_output_details()] == [
        np.int8,
        np.int8,
    ]
