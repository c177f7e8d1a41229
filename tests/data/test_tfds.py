"""TensorFlow Datasets, where the extra is installed, from a local copy that the test makes."""

import sys

import numpy as np
import pytest

from src.data import tfds
from src.data.tfds import Tfds
from src.settings.check import UserError


def test_without_the_package_it_is_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"^data=tfds: needs the package tensorflow-datasets; .*EXTRAS=dev,tfds"):
        tfds.load(Tfds(name="beans"))


@pytest.fixture(scope="module")
def local_copy(tmp_path_factory):
    builders = pytest.importorskip("tensorflow_datasets")
    import tensorflow as tf

    def examples(count):
        generator = np.random.default_rng(count)
        for i in range(count):
            yield {"image": generator.integers(0, 256, (20, 30, 3), dtype=np.uint8), "label": i % 2}

    def dataset(count):
        signature = {"image": tf.TensorSpec((None, None, 3), tf.uint8), "label": tf.TensorSpec((), tf.int64)}
        return tf.data.Dataset.from_generator(lambda: examples(count), output_signature=signature)

    folder = tmp_path_factory.mktemp("tfds")
    builders.dataset_builders.store_as_tfds_dataset(
        name="mine",
        version="1.0.0",
        features=builders.features.FeaturesDict(
            {
                "image": builders.features.Image(shape=(None, None, 3)),
                "label": builders.features.ClassLabel(names=["cat", "dog"]),
            }
        ),
        split_datasets={"train": dataset(40), "test": dataset(10)},
        data_dir=folder,
    )
    return str(folder)


@pytest.mark.parametrize("memory_gib", [0, 1])
def test_a_local_copy(local_copy, tmp_path, memory_gib):
    data = tfds.load(Tfds(name="mine", dir=local_copy, memory_gib=memory_gib, cache=str(tmp_path / "cache")))
    assert data.shape == (32, 32, 3)
    assert data.classes == ("cat", "dog")
    assert [len(split) for split in data.splits().values()] == [36, 4, 10]
    assert data.test.read(np.array([0, 1])).mean() == pytest.approx(127.5, abs=10)


def test_splits_can_be_drawn(local_copy):
    data = tfds.load(Tfds(name="mine", dir=local_copy, train_split="train+test", test_split=None))
    assert [len(split) for split in data.splits().values()] == [36, 4, 10]


def test_a_split_that_is_not_used_is_said(local_copy):
    assert tfds.load(Tfds(name="mine", dir=local_copy, test_split=None)).notes == ("splits not used: test",)
    assert tfds.load(Tfds(name="mine", dir=local_copy, train_split="train[10%:]")).notes == ()


def test_an_unknown_split_is_one_line(local_copy):
    with pytest.raises(UserError, match=r"^data\.name=mine: no split 'tset' .*; takes test, train|train, test$"):
        tfds.load(Tfds(name="mine", dir=local_copy, test_split="tset"))


def test_an_unknown_name_is_one_line(local_copy):
    with pytest.raises(UserError, match=r"^data\.name=nothing_like_it: .*; takes a name that TFDS knows"):
        tfds.load(Tfds(name="nothing_like_it", dir=local_copy))
