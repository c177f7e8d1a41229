"""Keras's own loader, fed from a cache folder in its own format: nothing is downloaded."""

import gzip
import socket
import struct

import numpy as np
import pytest

from src.data import keras_builtin
from src.data.keras_builtin import KerasBuiltin
from src.settings.check import UserError


def write_idx(path, array):
    """The format of MNIST: magic number, dimensions, bytes."""
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """30 training and 20 test images where Keras looks for Fashion-MNIST, the one set whose hash it does not check."""
    folder = tmp_path / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    images = {}
    for name, count in (("train", 30), ("t10k", 20)):
        images[name] = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images[name])
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return images


def test_a_copy_in_keras_home_is_read_by_keras_itself(fashion):
    data = keras_builtin.load(KerasBuiltin(name="fashion_mnist"))
    assert data.shape == (28, 28, 1)
    assert [len(split) for split in data.splits().values()] == [20, 10, 20]
    assert data.classes[0] == "t-shirt"
    rows = [int(name[5:-1]) for name in data.test.ids]
    np.testing.assert_array_equal(data.test.read(np.arange(20))[..., 0], fashion["t10k"][rows])
    np.testing.assert_array_equal(data.test.labels, np.array(rows) % 10)


def test_images_can_be_resized(fashion):
    assert keras_builtin.load(KerasBuiltin(name="fashion_mnist", image_size=32)).shape == (32, 32, 1)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_without_a_copy_and_a_network_it_is_one_line(name, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(UserError) as caught:
        keras_builtin.load(KerasBuiltin(name=name))
    assert str(caught.value).startswith(f"data.name={name}: URL fetch failure on ")
    assert str(caught.value).endswith(f"; takes a network, or a copy in {tmp_path}/datasets")
    assert "\n" not in str(caught.value)
