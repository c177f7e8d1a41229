"""As much training for all: a dense baseline that is only trained on, a model of one's own fine-tuned first."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place, default_composer
from hydra import initialize_config_dir

from src.cli.compose import CONF
from src.machine import backend
from src.methods import more, train
from src.methods.fitting import Fitting
from src.methods.more import More
from src.methods.task import Task
from src.methods.train import FineTune
from src.models import Architecture, small_cnn
from src.models.checkpoint import restore, save
from src.models.promises import Promise
from src.settings.check import UserError
from src.settings.config import Config
from src.store.artifacts import sha256

MORE = More(epochs=2, batch_size=10, learning_rate=1e-3)
GENTLE = FineTune(epochs=2, batch_size=10, learning_rate=1e-4)


@pytest.fixture(scope="module")
def parent(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("train") / "dense.h5"
    settings = train.Train(epochs=6, batch_size=10, learning_rate=1e-2)
    train.fit(settings, lambda: small_cnn.build(Architecture(), (8, 8, 1), 3), task, file)
    return file


def fitting(config: Config) -> dict[str, Any]:
    settings = config.steps["prune"].settings
    return {field.name: getattr(settings, field.name) for field in fields(Fitting)}


@pytest.mark.parametrize(
    "told",
    [[], ["experiment=report", "data=digits"], ["experiment=smoke"], ["prune.epochs=7", "prune.optimizer=adamw"]],
    ids=" ".join,
)
def test_the_baseline_is_trained_on_as_the_policies_fine_tune_whatever_they_are_told(told: list[str]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        alone, p1 = (compose([f"prune={option}", *told]) for option in ("more", "p1"))
    assert fitting(alone) == fitting(p1)
    assert alone.name == "more-none"
    assert alone.steps["prune"].parameters() == {"final_sparsity": 0.0}


def test_more_training_changes_weights_and_says_that_it_does_nothing_else(
    task: Task, parent: Path, tmp_path: Path
) -> None:
    told = [more.train_on(MORE, parent, task, tmp_path / f"{i}.h5") for i in range(2)]
    digests = [sha256(tmp_path / f"{i}.h5") for i in range(2)]
    assert digests[0] == digests[1] != sha256(parent)
    assert told[0].notes == (
        "Trained on for 2 epochs, and no more: a control, which tells what compression does from what more training "
        "does.",
    )
    assert len(told[0].history) == 2
    assert told[0].promises == {}


def test_more_training_holds_promised_zeros_and_refuses_what_it_would_break(
    task: Task, parent: Path, tmp_path: Path
) -> None:
    sparse = restore(parent)
    kernel, *rest = sparse.get_layer("conv2").get_weights()
    zeros = np.arange(kernel.size).reshape(kernel.shape) % 2 == 0
    sparse.get_layer("conv2").set_weights([np.where(zeros, 0, kernel), *rest])
    save(sparse, tmp_path / "sparse.h5")
    for promised, held in ({"conv2": Promise(zeros=int(zeros.sum()))}, True), ({}, False):
        more.train_on(MORE, tmp_path / "sparse.h5", replace(task, promises=promised), tmp_path / "more.h5")
        after = restore(tmp_path / "more.h5").get_layer("conv2").get_weights()[0]
        assert bool((after[zeros] == 0).all()) == held
        assert not np.array_equal(after[~zeros], kernel[~zeros])
    few = replace(task, promises={"conv2": Promise(distinct=4)})
    with pytest.raises(UserError, match=r"^more: layer conv2 promises at most 4 distinct values in an output channel"):
        more.train_on(MORE, parent, few, tmp_path / "more.h5")


def test_fine_tuning_goes_on_from_the_weights_that_a_model_comes_with(task: Task, parent: Path, tmp_path: Path) -> None:
    as_it_is = train.as_is(train.Untrained(), lambda: restore(parent), task, tmp_path / "as_is.h5")
    still = replace(GENTLE, learning_rate=1e-12)
    told = train.fine_tune(still, lambda: restore(parent), task, tmp_path / "tuned.h5")
    assert told.metrics["validation_accuracy_before"] == as_it_is.metrics["validation_accuracy"] > 0.9
    assert told.notes == ()
    for before, after in zip(restore(parent).get_weights(), restore(tmp_path / "tuned.h5").get_weights(), strict=True):
        np.testing.assert_allclose(before, after, atol=1e-6)
    wild = train.fine_tune(replace(GENTLE, learning_rate=3.0), lambda: restore(parent), task, tmp_path / "wild.h5")
    lost = wild.metrics["validation_accuracy"]
    assert lost < wild.metrics["validation_accuracy_before"]
    assert wild.notes[-1].startswith("Fine-tuning cost validation accuracy: ")
    assert f"as the model came, {100 * lost:.1f} % at its best epoch" in wild.notes[-1]


def test_what_can_not_be_fine_tuned_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "own.h5").touch()
    own = ["model=saved", f"model.path={tmp_path}/own.h5", "train=fine_tune"]
    lines = {
        ("train=fine_tune",): "train=fine_tune: is for a trained model of your own; takes model=saved, or train=short",
        ("train=none", "train.epochs=0"): "train.epochs=0: takes a whole number of at least 1",
        (*own, "train.distillation.weight=0.1"): "train.distillation.weight=0.1: the dense baseline is the teacher, ",
    }
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        for told, line in lines.items():
            with pytest.raises(UserError) as caught:
                compose(told)
            assert str(caught.value).startswith(line)
            assert "\n" not in str(caught.value)
        gentle, plain = compose(own).train.settings, compose(["train=short"]).train.settings
    assert gentle.learning_rate < plain.learning_rate


TINY = ("train.epochs=1", "prune.epochs=1", "benchmark.seconds=0.1", "benchmark.instances=3", "benchmark.rounds=3")


def test_a_sweep_of_a_model_of_ones_own_has_a_row_for_more_training(place: Place) -> None:
    import tf_keras

    backend.prepare()
    tf_keras.utils.set_random_seed(0)
    small_cnn.build(Architecture(), (8, 8, 1), 10).save(place.folder / "own.h5")
    own = ("model=saved", "model.path=own.h5", "train=fine_tune")
    done = place.run("-m", *own, "prune=none,more,p1", "quant=none", "prune.distillation.weight=0.5", *TINY)
    assert done.returncode == 0, done.stderr
    variants = place.variants(place.newest_sweep())
    assert set(variants) == {"none-none", "more-none", "p1-none"}
    assert place.stages() == ["more", "p1", "train"]
    assert len({run.tags["digest"] for run in variants.values()}) == 3
    params = variants["more-none"].params
    assert (params["prune"], params["prune_final_sparsity"]) == ("more", "0.0")
    stages = {run.name: run for run in place.store().search("tags.kind = 'stage'")}
    assert (stages["more"].params["epochs"], stages["train"].params["train"]) == ("1", "fine_tune")
    assert stages["more"].tags["teacher"] == stages["train"].tags["digest"]
    assert "validation_accuracy_before" in stages["train"].metrics
    rows = place.store().json(place.newest_sweep().run_id, "comparison.json")
    assert "Trained on for 1 epoch, and no more: a control" in str(rows)
