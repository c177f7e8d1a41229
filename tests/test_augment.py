"""Random changes to training images: what each does to pixels, and that one seed gives the same ones."""

from dataclasses import replace

import numpy as np
import pytest

from src.data import Dataset, in_memory
from src.methods import augment, batches
from src.methods.fitting import Fitting
from src.methods.task import Task
from src.settings.sections import Augment, Preprocess

ALL = Augment(True, 0.2, rotation=30, zoom=0.2, brightness=0.2, contrast=0.3, cutout=0.4)
EACH = ("rotation", "zoom", "brightness", "contrast", "cutout", "mixup")
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 7, 7, 3), np.uint8)
LABELS = np.arange(12) % 3


def task(how: Augment, seed: int = 0) -> Task:
    split = in_memory(IMAGES, LABELS, [str(i) for i in range(12)])
    return Task(Dataset(split, split, split, tuple("abc"), (7, 7, 3), ""), Preprocess(rescale=1), how, seed)


def made(how: Augment, batch_size: int = 4, epochs: int = 2, seed: int = 0, **fitting: object) -> list[np.ndarray]:
    """All images that are trained on, then their labels, then the weights if there are any; rows of both epochs."""
    config = Fitting(epochs, batch_size, 0.1, **fitting)  # type: ignore[arg-type]
    runs = list(batches.training_runs(task(how, seed), config, batch_size))
    return [np.concatenate([batch for run in part for batch in run]) for part in zip(*runs, strict=True)]


def test_a_turn_of_90_degrees_is_that_of_numpy_and_scaling_keeps_the_centre() -> None:
    ones, angles = np.ones(len(IMAGES)), np.full(len(IMAGES), 90.0)
    np.testing.assert_array_equal(augment.turned(IMAGES, angles, ones), np.rot90(IMAGES, 1, (1, 2)))
    np.testing.assert_array_equal(augment.turned(IMAGES, -angles, ones), np.rot90(IMAGES, -1, (1, 2)))
    np.testing.assert_array_equal(augment.turned(IMAGES, 0 * angles, ones), IMAGES)
    # Twice as large: rows 1.5, 2, 2.5 … of the original; the centre, row and column 3, stays.
    doubled = augment.turned(IMAGES, 0 * angles, 2 * ones)
    np.testing.assert_array_equal(doubled[:, 1::2, 1::2], IMAGES[:, 2:5, 2:5])
    between = np.rint((IMAGES[:, 3, 2].astype(float) + IMAGES[:, 3, 3]) / 2)
    np.testing.assert_array_equal(doubled[:, 3, 2], between)
    # Half as large: what lies outside is the edge.
    halved = augment.turned(IMAGES, 0 * angles, ones / 2)
    np.testing.assert_array_equal(halved[:, 3, :], IMAGES[:, 3, [0, 0, 1, 3, 5, 6, 6]])


def test_light_and_contrast_are_around_the_mean_of_each_channel() -> None:
    image = np.uint8([[10, 30], [50, 110]]).reshape(1, 2, 2, 1)  # the mean is 50
    lit = augment.lit(image, np.array([0.2]), np.array([1.0]))
    np.testing.assert_array_equal(lit.ravel(), [61, 81, 101, 161])  # 0.2 * 255 = 51 more
    np.testing.assert_array_equal(augment.lit(image, np.array([0]), np.array([0.5])).ravel(), [30, 40, 50, 80])
    np.testing.assert_array_equal(augment.lit(image, np.array([-0.2]), np.array([2.0])).ravel(), [0, 0, 0, 119])


def test_a_part_is_set_to_the_mean_and_the_rest_stays() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)  # the mean is 7.5, which rounds to 8
    cut = augment.cut_out(image, 0.5, np.array([0.5]), np.array([0.0]))[0, :, :, 0]
    expected = image[0, :, :, 0].copy()
    expected[1:3, 0:1] = 8  # rows 1 and 2; columns -1 and 0, of which the first lies outside
    np.testing.assert_array_equal(cut, expected)


@pytest.mark.parametrize("how", [ALL, replace(ALL, mixup=0.4)], ids=["without mixup", "with mixup"])
def test_one_seed_gives_the_same_images_and_another_others(how: Augment) -> None:
    first, again, other = made(how), made(how), made(how, seed=1)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0][:12], first[0][12:]), "nor do two epochs see the same"


@pytest.mark.parametrize("name", EACH)
def test_what_is_drawn_for_an_image_does_not_depend_on_the_batch(name: str) -> None:
    how = Augment(**{name: 0.5})
    for one, two in zip(made(how, 4), made(how, 6), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(made(how)[0], made(Augment())[0])


def test_to_switch_one_change_on_leaves_the_others_as_they_are() -> None:
    """A part is cut out of the same place, whatever else is done."""
    plain, cut, both = (made(how)[0] for how in (Augment(), Augment(cutout=0.5), Augment(cutout=0.5, mixup=1e-6)))
    hidden = (plain != cut).any((1, 2, 3))
    assert hidden.all()
    # Shares of so small a parameter are 0 or 1: each mixture is one of its two images.
    same = [i for i, image in enumerate(both) if np.array_equal(image, cut[i])]
    assert 4 <= len(same) < 24


def test_mixtures_are_of_two_images_their_labels_and_their_weights() -> None:
    images, labels = made(Augment(mixup=1))
    plain, numbers = made(Augment())
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
    weights = made(Augment(mixup=1), class_weight="balanced")[2]
    np.testing.assert_allclose(weights, 1, rtol=1e-6)  # four images of each class
    for image, label, first, number in zip(images, labels, plain, numbers, strict=True):
        # share * first + (1 - share) * other, of one of the twelve images
        shares = [_share(image, first, other.astype(np.float32)) for other in IMAGES]
        place, share = next((i, share) for i, share in enumerate(shares) if share is not None)
        expected = share * np.eye(3)[number] + (1 - share) * np.eye(3)[LABELS[place]]
        np.testing.assert_allclose(label, expected, atol=1e-3)


def _share(image: np.ndarray, first: np.ndarray, other: np.ndarray) -> float | None:
    """The share of `first` in a mixture with `other` that is `image`; None where there is none."""
    apart = (first - other).ravel()
    share = float((image - other).ravel() @ apart / (apart @ apart)) if apart.any() else 1.0
    return share if np.allclose(share * first + (1 - share) * other, image, atol=1e-2) else None


def test_augmentation_mirrors_and_moves_and_is_seeded() -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 6, 3), np.uint8)

    def changed(how: Augment) -> np.ndarray:
        return augment.moved(images, how, np.random.default_rng(1))

    np.testing.assert_array_equal(changed(Augment()), images)
    mirrored = changed(Augment(flip=True))
    same = (mirrored == images).all((1, 2, 3))
    assert 0 < same.sum() < 64
    np.testing.assert_array_equal(mirrored[~same], images[~same][:, :, ::-1])
    moved = changed(Augment(shift=0.25))
    assert moved.shape == images.shape
    np.testing.assert_array_equal(moved, changed(Augment(shift=0.25)))
    # Two rows and two columns of edge, at most: the middle of each image is somewhere in the moved one.
    assert all(images[i, 4, 3] in moved[i].reshape(-1, 3) for i in range(64))
