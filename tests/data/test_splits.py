"""What holds for every source: disjoint, stratified, seeded splits, a fingerprint of the content, notes on oddities."""

import numpy as np
import pytest

from src.data import SPLITS, Dataset, Split, from_arrays, in_memory, preprocess, stratified
from src.settings.check import UserError
from src.settings.sections import Preprocess

SHARES = {"validation": 0.1, "test": 0.2}
CLASSES = ["cat", "dog"]


def arrays(n: int = 100, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n distinct images of two classes, three quarters of them in the first."""
    images = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)
    return images, (np.arange(n) % 4 == 0).astype(np.int64)


def made(given=None, shares=SHARES, seed=0, classes=CLASSES) -> Dataset:
    return from_arrays(given or {"train": arrays()}, classes, shares, seed, "data=test")


def test_splits_are_disjoint_and_complete():
    splits = made().splits()
    ids = [set(split.ids) for split in splits.values()]
    assert [len(each) for each in ids] == [70, 10, 20]
    assert set.union(*ids) == {f"train[{row}]" for row in range(100)}


def test_every_split_has_the_same_share_of_each_class():
    counts = [np.bincount(split.labels).tolist() for split in made().splits().values()]
    # Of 75 and 25: round(7.5) = 8 and round(2.5) = 2 for validation, 15 and 5 for test.
    assert counts == [[52, 18], [8, 2], [15, 5]]


def test_images_keep_their_labels_and_ids():
    images, labels = arrays()
    for split in made().splits().values():
        rows = [int(name[6:-1]) for name in split.ids]
        np.testing.assert_array_equal(split.read(np.arange(len(split))), images[rows])
        np.testing.assert_array_equal(split.labels, labels[rows])
        assert split.labels.dtype == np.int64


def test_the_first_images_of_a_split_mix_the_classes():
    images, labels = arrays(400)
    sorted_by_class = np.argsort(labels, kind="stable")
    data = made({"train": (images[sorted_by_class], labels[sorted_by_class])})
    for split in data.splits().values():
        assert set(split.labels[:20]) == {0, 1}


def test_a_seed_decides_the_splits():
    assert made().train.ids == made().train.ids
    assert made().fingerprint == made().fingerprint
    assert set(made().train.ids) != set(made(seed=1).train.ids)
    assert made().fingerprint != made(seed=1).fingerprint


def test_given_splits_are_left_as_they_are():
    given = {"train": arrays(50), "validation": arrays(8, 1), "test": arrays(12, 2)}
    data = made(given)
    assert [len(split) for split in data.splits().values()] == [50, 8, 12]
    np.testing.assert_array_equal(
        np.sort(data.test.read(np.arange(12)).reshape(12, -1), axis=0),
        np.sort(given["test"][0].reshape(12, -1), axis=0),
    )
    assert data.fingerprint == made(given, seed=1).fingerprint


@pytest.mark.parametrize("change", ["pixel", "label", "class name", "order of labels"])
def test_the_fingerprint_covers_all_that_counts(change):
    images, labels = arrays()
    images, labels = images.copy(), labels.copy()
    before = made().fingerprint
    classes = CLASSES
    if change == "pixel":
        images[17, 0, 0, 0] ^= 1
    elif change == "label":
        labels[17] ^= 1
    elif change == "class name":
        classes = ["cat", "fox"]
    else:
        labels = 1 - labels
    assert made({"train": (images, labels)}, classes=classes).fingerprint != before


@pytest.mark.parametrize("count", range(3, 12))
def test_every_split_gets_an_image_of_the_smallest_class(count):
    labels = np.array([0] * 50 + [1] * count)
    parts = stratified(labels, CLASSES, {"validation": 0.49, "test": 0.49}, 0, "data=test")
    assert all((labels[rows] == 1).any() for rows in parts.values())
    assert sorted(np.concatenate(list(parts.values()))) == list(range(50 + count))


def test_three_classes_are_split_each_by_itself():
    labels = np.repeat([2, 0, 1], [20, 40, 60])
    parts = stratified(labels, ["a", "b", "c"], {"validation": 0.1, "test": 0.25}, 0, "data=test")
    assert {name: np.bincount(labels[rows]).tolist() for name, rows in parts.items()} == {
        "validation": [4, 6, 2],
        "test": [10, 15, 5],
        "train": [26, 39, 13],
    }


@pytest.mark.parametrize(("count", "shares", "expected"), [(3, (0.5, 0.49), (1, 1, 1)), (40, (0.001, 0.2), (1, 8, 31))])
def test_no_split_is_left_without_an_image_of_a_class(count, shares, expected):
    labels = np.zeros(count, int)
    parts = stratified(labels, ["a"], dict(zip(("validation", "test"), shares, strict=True)), 0, "data=test")
    assert tuple(len(rows) for rows in parts.values()) == expected


def test_shares_that_leave_nothing_to_train_on_are_one_line():
    with pytest.raises(UserError, match=r"^data.validation=0.4 and data.test=0.6: leave nothing to train on; takes "):
        stratified(np.repeat([0, 1, 2], 10), CLASSES, {"validation": 0.4, "test": 0.6}, 0, "data=test")


def test_a_label_that_no_class_has_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        stratified(np.repeat([0, 1, 2], 10), CLASSES, SHARES, 0, "data=test")


def test_a_single_image_is_told_as_one():
    with pytest.raises(UserError, match=r"class 'dog' has 1 usable image; takes at least 2 of each class"):
        stratified(np.array([0] * 50 + [1]), CLASSES, {"test": 0.5}, 0, "data.path=x")
    with pytest.raises(UserError, match=r"class 'dog' has 0 usable images; takes at least 2 of each class"):
        stratified(np.array([0] * 50), CLASSES, {"test": 0.5}, 0, "data.path=x")


def test_a_class_with_fewer_images_than_splits_is_one_line():
    with pytest.raises(UserError) as caught:
        stratified(np.array([0] * 50 + [1] * 2), CLASSES, SHARES, 0, "data.path=x")
    assert str(caught.value) == (
        "data.path=x: class 'dog' has 2 usable images; takes at least 3 of each class, "
        "one for each of train, validation, test"
    )


def test_a_class_that_a_given_split_lacks_is_one_line():
    images, labels = arrays(40)
    with pytest.raises(UserError, match="no image of class 'dog' in test; takes at least one in each split"):
        made({"train": (images, labels), "test": (images[labels == 0], labels[labels == 0])})
    with pytest.raises(UserError, match="no image of class 'dog' in train"):
        made({"train": (images, np.zeros(40, int))}, classes=["cat", "dog", "eel"])


def test_the_shape_is_that_of_an_image():
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 6, 3), dtype=np.uint8)
    assert made({"train": (images, np.arange(40) % 2)}).shape == (4, 6, 3)


def test_the_same_image_in_two_splits_is_noted():
    train, test = arrays(40), arrays(8, 1)
    test[0][3] = train[0][5]
    notes = made({"train": train, "test": test}).notes
    assert len(notes) == 1
    assert notes[0].startswith("1 distinct images are in more than one split: train[5] (")
    assert notes[0].endswith(" = test[3] (test)")


def test_the_same_image_in_two_classes_is_noted():
    images, labels = arrays(40)
    images[1] = images[0]  # classes dog and cat
    assert any(
        note.startswith("1 distinct images are in more than one class: ")
        for note in made({"train": (images, labels)}).notes
    )


def test_many_examples_are_cut_short():
    train, test = arrays(40), arrays(40)
    (note,) = made({"train": train, "test": test}).notes
    assert note.startswith("40 distinct images are in more than one split: ")
    assert note.count(" = ") == 3
    assert note.endswith(", …")


def test_as_many_examples_as_are_shown_are_not_cut_short():
    train, test = arrays(40), arrays(8, 1)
    test[0][:3] = train[0][:3]
    (note,) = made({"train": train, "test": test}).notes
    assert note.startswith("3 distinct images are in more than one split: ")
    assert note.count(" = ") == 3
    assert "…" not in note


@pytest.mark.parametrize(("rare", "cut"), [(3, ""), (4, ", …")])
def test_of_many_rare_classes_three_are_named(rare, cut):
    labels = np.concatenate([np.zeros(100, int), np.repeat(np.arange(rare) + 1, 9)])
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 1), dtype=np.uint8)
    (note,) = made({"train": (images, labels)}, classes=list("abcde")[: rare + 1]).notes
    assert note == (
        f"{rare} of {rare + 1} classes have less than a tenth of the images of the largest (a 100): b 9, c 9, d 9{cut}"
    )


def test_a_tenth_of_the_images_of_the_largest_class_is_not_rare():
    images = np.random.default_rng(0).integers(0, 256, (110, 4, 4, 1), dtype=np.uint8)
    assert made({"train": (images, (np.arange(110) >= 100).astype(int))}).notes == ()


def test_rare_classes_are_noted():
    images, _ = arrays(400)
    notes = made({"train": (images, (np.arange(400) >= 370).astype(int))}).notes
    assert notes == ("1 of 2 classes have less than a tenth of the images of the largest (cat 370): dog 30",)
    assert made({"train": (images, (np.arange(400) >= 350).astype(int))}).notes == ()


@pytest.mark.parametrize("batch_size", [1, 7, 70, 1000])
def test_batches_give_every_image_once_and_in_order(batch_size):
    split = made().train
    batches = list(split.batches(batch_size))
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), split.read(np.arange(70)))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), split.labels)
    assert {len(labels) for _, labels in batches[:-1]} <= {batch_size}


def test_batches_follow_an_order():
    split = made().train
    order = np.array([5, 5, 0, 69])
    batches = list(split.batches(3, order))
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), split.read(order))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), split.labels[order])
    assert list(split.batches(3, order[:0])) == []


def test_batches_can_be_left_early_and_read_again():
    split = made().train
    first = next(split.batches(8))[0]
    np.testing.assert_array_equal(next(iter(split.batches(8)))[0], first)


def test_an_error_while_reading_reaches_the_caller():
    def broken(rows: np.ndarray) -> np.ndarray:
        raise UserError("gone")

    with pytest.raises(UserError, match="gone"):
        list(Split(np.zeros(3, np.int64), ["a", "b", "c"], broken).batches(2))


def test_in_memory_reads_any_rows():
    images, labels = arrays(10)
    split = in_memory(images, labels.astype(np.int8), [str(row) for row in range(10)])
    np.testing.assert_array_equal(split.read(np.array([3, 1])), images[[3, 1]])
    assert split.labels.dtype == np.int64


def test_preprocessing_is_rescale_mean_and_std_per_channel():
    image = np.full((1, 2, 2, 3), 255, np.uint8)
    found = preprocess(image, Preprocess(rescale=1 / 255, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0, 0], [1, 1, 0])


def test_preprocessing_turns_the_channels_round_where_the_model_takes_them_so():
    image = np.array([[[10, 20, 30]]], np.uint8)
    for order, expected in (("rgb", [9, 18, 27]), ("bgr", [29, 18, 7])):
        how = Preprocess(rescale=1.0, channel_order=order, mean=(1.0, 2.0, 3.0))
        np.testing.assert_allclose(preprocess(image, how)[0, 0], expected)


def test_the_names_of_the_splits():
    assert tuple(made().splits()) == SPLITS
