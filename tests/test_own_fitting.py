"""A loss and an augmentation of a user's own, as the page on methods shows them."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, default_composer
from hydra import initialize_config_dir

from src.cli.compose import CONF
from src.methods import augment, loop, train
from src.methods.task import Task
from src.methods.train import Train
from src.models import Architecture, small_cnn
from src.pipeline import checking, work
from src.pipeline.code import code_version
from src.settings.check import UserError
from src.settings.sections import Augment
from src.store.artifacts import sha256
from src.sweep.variant import expand

PAGE = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
MORE = """
def broken(*arguments):
    raise KeyError("nothing")


def crop(image, rng):
    return image[1:]


def one(labels, scores):
    return tf.reduce_sum(labels)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (text,) = re.findall(r"^```python\n# mine.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.py").write_text(text + MORE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "mine.py"
    sys.modules.pop("mine", None)


def test_both_are_trained_with_and_one_seed_gives_the_same_bytes(module: Path, task: Task, tmp_path: Path) -> None:
    own = replace(task, augment=Augment(own="mine.noise"))
    runs = {"first": (own, "mine.focal"), "second": (own, "mine.focal"), "noise": (own, None), "neither": (task, None)}
    for name, (with_task, loss) in runs.items():
        config = Train(epochs=1, batch_size=20, learning_rate=1e-2, loss=loss)
        train.fit(config, lambda: small_cnn.build(Architecture(), (8, 8, 1), 3), with_task, tmp_path / f"{name}.h5")
    digests = [sha256(tmp_path / f"{name}.h5") for name in runs]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3, "the loss and the noise each make a difference"


def test_an_own_augmentation_draws_for_an_image_whatever_the_batch(module: Path, task: Task) -> None:
    images = task.dataset.train.read(np.arange(40))
    whole = augment.by_own(images, "mine.noise", 0, 1, np.arange(40))
    np.testing.assert_array_equal(whole[7:9], augment.by_own(images[7:9], "mine.noise", 0, 1, np.arange(7, 9)))
    assert not np.array_equal(whole, images)
    assert not np.array_equal(whole, augment.by_own(images, "mine.noise", 0, 2, np.arange(40)))


UNFIT = {
    "train.loss=mine.broken": "train.loss=mine.broken: fails (KeyError: ",
    "prune=p1 prune.loss=mine.one": "prune.loss=mine.one: gives () for two images; takes a function of labels and ",
    "augment.own=mine.broken": "augment.own=mine.broken: fails (KeyError: 'nothing'); takes a function of an image",
    "augment.own=mine.crop": "augment.own=mine.crop: gives uint8 [7, 8, 1]; takes a function of an image, uint8 [8, 8,",
}


def test_what_can_not_be_used_is_told_in_one_line_before_anything_is_trained(module: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        for told, line in UNFIT.items():
            with pytest.raises(UserError) as caught:
                work.try_own(compose(told.split()))
            assert str(caught.value).startswith(line)
            assert "\n" not in str(caught.value)
        with pytest.raises(UserError, match=r"^augment\.own=mine\.crop: gives uint8 \[7, 8, 1\]"):
            checking.check([compose(["augment.own=mine.crop"])])


def test_what_fails_later_is_told_in_one_line_as_well(module: Path, task: Task) -> None:
    model = small_cnn.build(Architecture(), (8, 8, 1), 3)
    with pytest.raises(UserError, match=r"^augment\.own=mine\.broken: fails \(KeyError: 'nothing'\); takes .*$"):
        loop.optimise(model, replace(task, augment=Augment(own="mine.broken")), Train(1, 20, 1e-2))


def test_a_path_is_checked_and_nothing_imported(module: Path) -> None:
    lines = {
        "train.loss=mine.nosuch": "train.loss: mine.nosuch: mine.py has no nosuch; takes the import path",
        "train.loss=nosuch.focal": "train.loss: nosuch.focal: there is no module nosuch; takes the import path",
        "augment.own=noise": "augment.own: got noise; takes the import path of a function, such as mine.focal",
    }
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        for told, line in lines.items():
            with pytest.raises(UserError) as caught:
                compose([told])
            assert str(caught.value).startswith(line)
        assert compose(["train.loss=mine.focal", "augment.own=mine.noise"]).train.settings.loss == "mine.focal"
    assert "mine" not in sys.modules


def test_their_code_is_in_the_keys_of_what_is_trained_with_them(module: Path) -> None:
    def keys() -> list[str]:
        code_version.cache_clear()
        told: list[list[str]] = [[], ["prune.loss=mine.focal"], ["augment.own=mine.noise"]]
        return [expand([["prune=p1", "quant=drq", *each]], compose)[-1].stage.key for each in told]

    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        first = keys()
        text = module.read_text(encoding="utf-8")
        module.write_text(text.replace("** 2", "** 3"), encoding="utf-8")
        second = keys()
    assert len(set(first)) == 3
    assert [one == two for one, two in zip(first, second, strict=True)] == [True, False, False]
