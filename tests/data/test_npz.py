"""Arrays of every shape and type that people save, and one line for those that are none."""

import numpy as np
import pytest

from src.data import npz
from src.data.npz import Npz
from src.settings.check import UserError

X = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype=np.uint8)
Y = np.arange(40) % 2


def load(tmp_path, arrays, **settings):
    np.savez(tmp_path / "data.npz", **arrays)
    return npz.load(Npz(path=str(tmp_path / "data.npz"), **settings))


def pixels(data):
    """All images by the row that they had."""
    found = {}
    for split in data.splits().values():
        found |= dict(zip(split.ids, split.read(np.arange(len(split))), strict=True))
    return np.stack([found[f"train[{row}]"] for row in range(len(found))])


def test_named_as_keras_names_them(tmp_path):
    data = load(tmp_path, {"x_train": X[:30], "y_train": Y[:30], "x_test": X[30:], "y_test": Y[30:]})
    assert data.shape == (6, 5, 1)
    assert [len(split) for split in data.splits().values()] == [26, 4, 10]  # round(1.5) = 2 of 15 in each class
    assert data.classes == ("0", "1")
    assert sorted(data.test.ids) == sorted(f"test[{row}]" for row in range(10))


def test_with_a_validation_split(tmp_path):
    arrays = {
        "x_train": X[:20],
        "y_train": Y[:20],
        "x_val": X[20:28],
        "y_val": Y[20:28],
        "x_test": X[28:],
        "y_test": Y[28:],
    }
    assert [len(split) for split in load(tmp_path, arrays).splits().values()] == [20, 8, 12]


def split_arrays(*names):
    """Arrays by the names of the images and labels of train, validation and test."""
    rows = (slice(20), slice(20, 28), slice(28, 40))
    return {name: (X, Y)[i % 2][rows[i // 2]] for i, name in enumerate(names)}


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),  # MedMNIST
        ("X_train", "Y_train", "X_valid", "Y_valid", "X_test", "Y_test"),
        ("trainX", "trainY", "validX", "validY", "testX", "testY"),
        ("x_train", "y_train", "x_dev", "y_dev", "x_test", "y_test"),
    ],
    ids=lambda names: names[2],
)
def test_named_as_others_name_them(tmp_path, names):
    keras = load(tmp_path, split_arrays("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"))
    data = load(tmp_path, split_arrays(*names))
    assert data.fingerprint == keras.fingerprint
    x_train, y_train, x_val, y_val, x_test, y_test = names
    assert keras.notes == ()
    assert data.notes == (
        f"taken as x_train: {x_train}, y_train: {y_train}, x_val: {x_val}, y_val: {y_val}, x_test: {x_test}, "
        f"y_test: {y_test}",
    )


def test_what_is_not_used_is_said(tmp_path):
    assert load(tmp_path, {"x": X, "y": Y, "label_names": np.array(["a", "b"]), "xval": X}).notes == (
        "arrays not used: label_names, xval",
    )


def test_one_pair_is_split(tmp_path):
    data = load(tmp_path, {"x": X, "y": Y})
    assert [len(split) for split in data.splits().values()] == [28, 4, 8]
    np.testing.assert_array_equal(pixels(data), X[..., None])
    assert data.notes == ()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_stay(tmp_path, channels):
    data = load(tmp_path, {"x": np.repeat(X[..., None], channels, 3), "y": Y})
    assert data.shape == (6, 5, channels)


def test_images_can_be_resized(tmp_path):
    assert load(tmp_path, {"x": X, "y": Y}, image_size=8).shape == (8, 8, 1)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_other_whole_numbers_are_taken_as_they_are(tmp_path, dtype):
    np.testing.assert_array_equal(pixels(load(tmp_path, {"x": X.astype(dtype), "y": Y}))[..., 0], X)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_0_to_1_come_back_as_the_bytes_they_were(tmp_path, dtype):
    data = load(tmp_path, {"x": (X / 255).astype(dtype), "y": Y})
    np.testing.assert_array_equal(pixels(data)[..., 0], X)
    assert "taken as 0..1" in data.notes[0]


def test_floats_in_0_to_255_are_rounded(tmp_path):
    data = load(tmp_path, {"x": np.clip(X + 0.4, 0, 255), "y": Y})
    np.testing.assert_array_equal(pixels(data)[..., 0], X)
    assert "taken as 0..255" in data.notes[0]


def test_one_rule_for_the_floats_of_all_splits(tmp_path):
    """A dark test split must not be taken as 0..1 where the training split is 0..255."""
    arrays = {"x_train": X[:30] * 1.0, "y_train": Y[:30], "x_test": np.ones((10, 6, 5)), "y_test": Y[30:]}
    data = load(tmp_path, arrays)
    np.testing.assert_array_equal(data.test.read(np.arange(10)), 1)


@pytest.mark.parametrize(
    "labels",
    [Y, Y[:, None], np.eye(2)[Y], np.eye(2, dtype=int)[Y], Y.astype(np.float32), Y.astype(bool), Y.astype(np.uint8)],
    ids=["int", "column", "one-hot", "one-hot int", "float", "bool", "uint8"],
)
def test_labels_in_every_form(tmp_path, labels):
    data = load(tmp_path, {"x": X, "y": labels})
    assert len(data.classes) == 2
    for split in data.splits().values():
        np.testing.assert_array_equal(split.labels, [int(name[6:-1]) % 2 for name in split.ids])


def test_classes_are_sorted_as_numbers_or_as_text(tmp_path):
    assert load(tmp_path, {"x": X, "y": np.array([10, 9])[Y]}).classes == ("9", "10")
    assert load(tmp_path, {"x": X, "y": np.array(["dog", "cat"])[Y]}).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({}, "no array x_train among none"),
        ({"a": X}, "no array x_train among a; takes"),
        ({"x": X}, "no array x_train among x"),
        ({"x_train": X, "y_train": Y}, "no array x_test among x_train, y_train"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y, "x_val": X}, "no array y_val among"),
        ({"x_train": X, "y_train": Y, "x_test": X, "testX": X, "y_test": Y}, "x_test and testX could each be x_test"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y, "x_valid": X}, "no array y_val among"),
        ({"x": X, "y": Y, "x_train": X, "y_train": Y}, "x, y and x_train, y_train are all in it; takes either"),
        ({"x": X[0], "y": Y}, "have shape [6, 5]; takes [n, height, width] or [n, height, width, channels]"),
        ({"x": X[:0], "y": Y[:0]}, "have shape [0, 6, 5]; takes"),
        ({"x": np.zeros((40, 3, 32, 32), np.uint8), "y": Y}, "channels first; takes channels last"),
        ({"x": X * 2.0, "y": Y}, "values of images lie in 0..510; takes uint8, or floats in 0..1 or 0..255"),
        ({"x": X - 1.0, "y": Y}, "values of images lie in -1..254; takes"),
        ({"x": np.full((40, 6, 5), np.nan), "y": Y}, "values of images lie in nan..nan; takes"),
        ({"x": X.astype(np.uint16) * 256, "y": Y}, "takes uint8, or floats in 0..1 or 0..255"),
        ({"x": X.astype(complex), "y": Y}, "images are complex128; takes uint8"),
        ({"x": X.astype(str), "y": Y}, "takes uint8, or floats"),
        ({"x": X, "y": Y[:39]}, "40 images and 39 labels in train; takes as many of each"),
        ({"x": X, "y": np.ones((40, 3))}, "labels of train have shape [40, 3] and are not one-hot; takes"),
        ({"x": X, "y": Y + 0.5}, "labels of train are not whole numbers; takes"),
        ({"x": X, "y": np.zeros((40, 2, 2))}, "labels of train are float64 [40, 2, 2]; takes"),
        ({"x": X, "y": np.zeros(40, int)}, "one class only (0); takes at least two"),
        ({"x": X, "y": np.array([0] * 38 + [1] * 2)}, "class '1' has 2 usable images; takes at least 3"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :4], "y_test": Y}, "of test are [4, 5, 1], of train [6, 5, 1]"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, "no image of class '2' in train; takes"),
        ({"x": np.array([X[0], None], object), "y": Y[:2]}, "Object arrays cannot be loaded"),
    ],
)  # fmt: skip
def test_everything_else_is_one_line(tmp_path, arrays, line):
    with pytest.raises(UserError) as caught:
        load(tmp_path, arrays)
    assert str(caught.value).startswith(f"data.path={tmp_path}/data.npz: ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_odd_paths(tmp_path):
    path = tmp_path / "d'été ~(1)=\n.npz"
    with pytest.raises(UserError) as caught:
        npz.load(Npz(path=str(path)))
    assert str(caught.value).startswith(f"data.path={tmp_path}/d'été ~(1)=\\n.npz: no such file; takes ")
    np.savez(path, x=X, y=Y)
    assert len(npz.load(Npz(path=str(path))).test) == 8


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "text", "npy", "truncated", "flipped"])
def test_a_broken_file_is_one_line(tmp_path, damage):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=X, y=Y)
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, X)
    else:
        path.write_bytes(
            {"empty": b"", "text": b"words", "truncated": whole[:-50], "flipped": whole[:300] + b"????" + whole[304:]}[
                damage
            ]
        )
    with pytest.raises(UserError, match=r"^data\.path=.*data\.npz: .*; takes an \.npz file with x_train") as caught:
        npz.load(Npz(path=str(path)))
    assert "\n" not in str(caught.value)
