"""Random changes to training images. numpy does them: what Keras's layers draw depends on the batch.

Images are uint8 `[n, height, width, channels]`. What is drawn for an image depends on seed, epoch and the image alone,
but for mirroring and moving, which are drawn in the order of the images of an epoch.
"""

import math
from dataclasses import dataclass

import numpy as np

from src.settings import own_code
from src.settings.check import UserError
from src.settings.sections import Augment

# What the random numbers of an epoch are for; none but the seed and the epoch: the order, mirroring and moving.
CHANGES, PARTNERS, OWN = 1, 2, 3


@dataclass(frozen=True)
class Draws:
    """Of each image: numbers from 0 to 1 `[n, 6]`, and its share of a mixture `[n]`, which is 1 without `mixup`."""

    uniform: np.ndarray
    share: np.ndarray


def draws(how: Augment, seed: int, epoch: int, indices: np.ndarray) -> Draws:
    """`indices` say which images of the split they are. Each change has numbers of its own, so that to switch one on
    or off leaves the others as they are."""
    uniform, share = np.zeros((len(indices), 6)), np.ones(len(indices), np.float32)
    for i, index in enumerate(indices):
        rng = np.random.default_rng([seed, epoch, CHANGES, index])
        uniform[i] = rng.random(6)
        if how.mixup:
            share[i] = rng.beta(how.mixup, how.mixup)
    return Draws(uniform, share)


def moved(images: np.ndarray, how: Augment, rng: np.random.Generator) -> np.ndarray:
    """Mirrored and moved; edges are repeated."""
    if how.flip:
        images = np.where(rng.random(len(images))[:, None, None, None] < 0.5, images[:, :, ::-1], images)
    if how.shift:
        height, width = images.shape[1:3]
        y, x = round(how.shift * height), round(how.shift * width)
        padded = np.pad(images, ((0, 0), (y, y), (x, x), (0, 0)), mode="edge")
        rows = rng.integers(0, 2 * y + 1, len(images))[:, None] + np.arange(height)
        columns = rng.integers(0, 2 * x + 1, len(images))[:, None] + np.arange(width)
        images = padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return images


def changed(images: np.ndarray, how: Augment, drawn: Draws) -> np.ndarray:
    """Turned and scaled, brighter or darker, with more or less contrast, and with a part cut out."""
    around_0 = 2 * drawn.uniform - 1
    if how.rotation or how.zoom:
        images = turned(images, how.rotation * around_0[:, 0], 1 + how.zoom * around_0[:, 1])
    if how.brightness or how.contrast:
        images = lit(images, how.brightness * around_0[:, 2], 1 + how.contrast * around_0[:, 3])
    if how.cutout:
        images = cut_out(images, how.cutout, drawn.uniform[:, 4], drawn.uniform[:, 5])
    return images


def turned(images: np.ndarray, degrees: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Each turned around its centre, to the left, and enlarged; bilinear, edges are repeated."""
    height, width = images.shape[1:3]
    y, x = (np.arange(height) - (height - 1) / 2)[:, None], np.arange(width) - (width - 1) / 2
    # One by one: numpy's own cosine may differ in the last bit with the length of the array.
    cosine, sine = (
        np.array([function(math.radians(angle)) for angle in degrees])[:, None, None] / scale[:, None, None]
        for function in (math.cos, math.sin)
    )
    rows = np.clip(cosine * y + sine * x + (height - 1) / 2, 0, height - 1)
    columns = np.clip(cosine * x - sine * y + (width - 1) / 2, 0, width - 1)
    top, left = rows.astype(int), columns.astype(int)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    each = np.arange(len(images))[:, None, None]
    upper = images[each, top, left] * (1 - across) + images[each, top, right] * across
    lower = images[each, bottom, left] * (1 - across) + images[each, bottom, right] * across
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


def lit(images: np.ndarray, brightness: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Each `brightness`, a share of 255, brighter, and `contrast` times as far from the mean of each channel."""
    mean = _mean(images)
    factor, more = contrast[:, None, None, None], 255 * brightness[:, None, None, None]
    return np.rint(np.clip((images - mean) * factor + mean + more, 0, 255)).astype(np.uint8)


def cut_out(images: np.ndarray, side: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A part of each set to the mean of the image (DeVries & Taylor 2017, arXiv:1708.04552): `side` is the share of
    height and width that it has; `y` and `x`, from 0 to 1, say where its centre is. What lies outside is left out."""

    def inside(size: int, place: np.ndarray) -> np.ndarray:
        long = max(1, round(side * size))
        first = (place * size).astype(int)[:, None] - long // 2
        at = np.arange(size)
        return (at >= first) & (at < first + long)

    rows, columns = inside(images.shape[1], y), inside(images.shape[2], x)
    hidden = rows[:, :, None, None] & columns[:, None, :, None]
    return np.where(hidden, np.rint(_mean(images)), images).astype(np.uint8)


def by_own(images: np.ndarray, path: str, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Each as the user's function at the import path `path` changes it, with random numbers of its own. Raises
    `UserError` where that fails, or gives something else than an image of the same kind."""
    function, changed = own_code.load(path, "augment.own"), np.empty_like(images)
    takes = (
        f"takes a function of an image, uint8 {list(images.shape[1:])}, and a numpy.random.Generator, to such an image"
    )
    for i, index in enumerate(indices):
        try:
            image = function(images[i].copy(), np.random.default_rng([seed, epoch, OWN, index]))
        except Exception as error:
            raise UserError(f"augment.own={path}: fails ({own_code.in_short(error)}); {takes}") from None
        if getattr(image, "dtype", None) != np.uint8 or image.shape != images.shape[1:]:
            gave = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(f"augment.own={path}: gives {gave}; {takes}")
        changed[i] = image
    return changed


def _mean(images: np.ndarray) -> np.ndarray:
    """Of each channel of each image `[n, 1, 1, channels]`, from a sum that is exact."""
    return images.sum((1, 2), dtype=np.int64, keepdims=True) / (images.shape[1] * images.shape[2])
