"""Arrays in a NumPy `.npz` file, named as Keras names them: `x_train`, `y_train`, `x_test`, `y_test`."""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as schema

from src.data import SPLITS, Dataset, from_arrays, shown
from src.data.decode import Resize, resize
from src.data.split_names import split_of
from src.settings.check import STRICT, ImageSize, Seed, SplitShare, UserError, in_short

TAKES = "takes an .npz file with x_train, y_train, x_test, y_test (and x_val, y_val), or with x, y"
SHORT = {"train": "train", "validation": "val", "test": "test"}
# What people call the images and the labels, in lower case.
PARTS = {"x": ("x", "image", "images", "img", "imgs"), "y": ("y", "label", "labels", "target", "targets")}


@schema(frozen=True, config=STRICT)
class Npz:
    """Arrays in an `.npz` file: `x_train`, `y_train`, `x_test`, `y_test` (and `x_val`, `y_val`), or `x`, `y`.

    `image_size` null leaves the images as they are.
    """

    path: Annotated[str, Field(min_length=1, description="an .npz file")]
    image_size: ImageSize | None = None
    resize: Resize = "bilinear"
    seed: Seed = 0
    validation: SplitShare = 0.1
    test: SplitShare = 0.2


def load(config: Npz) -> Dataset:
    """Images `[n, height, width]` or `[n, height, width, channels]`, whole numbers in 0..255 or floats; labels as
    numbers or text, `[n]` or `[n, 1]`, or one-hot `[n, classes]`.

    Floats are taken as 0..1 if none is above 1, else as 0..255, and rounded to uint8. Raises `UserError` for anything
    else, and never unpickles.
    """
    key = f"data.path={shown(config.path)}"
    arrays, notes = _arrays(os.path.expanduser(config.path), key)
    given, more_notes = _images(arrays["x"], key)
    labels, classes = _labels(arrays["y"], key)
    for name, images in given.items():
        if len(images) != len(labels[name]):
            raise UserError(
                f"{key}: {len(images):,} images and {len(labels[name]):,} labels in {name}; takes as many of each"
            )
    if config.image_size is not None:
        given = {name: resize(images, config.image_size, config.resize) for name, images in given.items()}
    return from_arrays(
        {name: (images, labels[name]) for name, images in given.items()},
        classes,
        {"validation": config.validation, "test": config.test},
        config.seed,
        key,
        [*notes, *more_notes],
    )


def _arrays(path: str, key: str) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """The images, under `x`, and labels, under `y`, of each split; and notes. Arrays without splits are `train`."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise UserError(f"{key}: a single array; {TAKES}")
            names, notes = _names(stored.files, key)
            return {part: {split: stored[name] for split, name in of.items()} for part, of in names.items()}, notes
    except FileNotFoundError:
        raise UserError(f"{key}: no such file; {TAKES}") from None
    except IsADirectoryError:
        raise UserError(f"{key}: is a folder; {TAKES}") from None
    except MemoryError:
        raise UserError(f"{key}: does not fit in memory; data=image_folder reads any number of images") from None
    except UserError:
        raise
    except Exception as error:  # zip, zlib, NumPy and the system each have errors of their own for a broken file
        raise UserError(f"{key}: {in_short(error)}; {TAKES}") from None


def _names(stored: Sequence[str], key: str) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Which arrays hold the images, under `x`, and the labels, under `y`, of each split that there is; notes."""
    alike: dict[str, list[str]] = {}  # by the names that Keras gives
    for name in stored:
        split, others = split_of(name)
        for part, words in PARTS.items():
            if len(others) == 1 and others[0] in words:
                alike.setdefault(f"{part}_{SHORT[split]}" if split else part, []).append(name)
    splits = {split: f"_{short}" for split, short in SHORT.items() if {f"x_{short}", f"y_{short}"} & alike.keys()}
    if {"x", "y"} <= alike.keys():
        if {"x_train", "y_train"} <= alike.keys():
            raise UserError(f"{key}: x, y and x_train, y_train are all in it; takes either")
        splits = {"train": ""}
    else:
        splits |= {"train": "_train", "test": "_test"}
    wanted = [f"{part}{splits[split]}" for split in SPLITS if split in splits for part in "xy"]
    for name in wanted:
        if name not in alike:
            raise UserError(f"{key}: no array {name} among {', '.join(map(shown, stored)) or 'none'}; {TAKES}")
        if len(alike[name]) > 1:
            raise UserError(f"{key}: {' and '.join(map(shown, alike[name]))} could each be {name}; takes one of them")
    used = [alike[name][0] for name in wanted]
    notes = []
    if used != wanted:
        pairs = zip(wanted, used, strict=True)
        notes.append("taken as " + ", ".join(f"{name}: {shown(array)}" for name, array in pairs))
    if unused := [shown(name) for name in stored if name not in used]:
        notes.append(f"arrays not used: {', '.join(unused)}")
    return {part: {split: alike[f"{part}{end}"][0] for split, end in splits.items()} for part in "xy"}, notes


def _images(stored: Mapping[str, np.ndarray], key: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """uint8 images `[n, height, width, channels]` of each split, and notes. One rule for the values of all splits."""
    found = dict(stored)
    for name, images in found.items():
        where = f"{key}: images of {name} have shape {list(images.shape)}"
        if images.ndim not in (3, 4) or 0 in images.shape:
            raise UserError(f"{where}; takes [n, height, width] or [n, height, width, channels]")
        if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
            raise UserError(f"{where}, channels first; takes channels last, [n, height, width, channels]")
        if images.ndim == 3:
            found[name] = images[..., None]
    for name, images in found.items():
        if (shape := images.shape[1:]) != (wanted := found["train"].shape[1:]):
            raise UserError(f"{key}: images of {name} are {list(shape)}, of train {list(wanted)}; takes one shape")
    kinds = {images.dtype.kind for images in found.values()}
    if not kinds <= set("uif"):
        odd = next(str(images.dtype) for images in found.values() if images.dtype.kind not in "uif")
        raise UserError(f"{key}: images are {odd}; takes uint8, or floats in 0..1 or 0..255")
    low = min(float(images.min()) for images in found.values())
    high = max(float(images.max()) for images in found.values())
    if not (low >= 0 and high <= 255):  # NaN compares as neither
        raise UserError(f"{key}: values of images lie in {low:g}..{high:g}; takes uint8, or floats in 0..1 or 0..255")
    if kinds <= set("ui"):
        return {name: images.astype(np.uint8, copy=False) for name, images in found.items()}, []
    scale = 255 if high <= 1 else 1
    notes = [f"floats in {low:g}..{high:g} were taken as 0..{255 // scale} and rounded to uint8"]
    return {name: np.rint(images * scale).astype(np.uint8) for name, images in found.items()}, notes


def _labels(found: Mapping[str, np.ndarray], key: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Labels as indices of the class names, int64 `[n]` for each split; the names are the values, sorted."""
    flat = {}
    for name, labels in found.items():
        takes = "takes whole numbers or text [n], [n, 1], or one-hot [n, classes]"
        if labels.ndim == 2 and labels.shape[1] > 1:
            if (
                labels.dtype.kind not in "buif"
                or not ((labels == 0) | (labels == 1)).all()
                or (labels.sum(1) != 1).any()
            ):
                raise UserError(f"{key}: labels of {name} have shape {list(labels.shape)} and are not one-hot; {takes}")
            labels = labels.argmax(1)
        labels = labels.reshape(-1) if labels.ndim == 2 else labels
        if labels.ndim != 1 or labels.dtype.kind not in "buifU":
            raise UserError(f"{key}: labels of {name} are {labels.dtype} {list(labels.shape)}; {takes}")
        if labels.dtype.kind == "f":
            if not (labels == np.rint(labels)).all():
                raise UserError(f"{key}: labels of {name} are not whole numbers; {takes}")
            labels = labels.astype(np.int64)
        flat[name] = labels
    values, indices = np.unique(np.concatenate(list(flat.values())), return_inverse=True)
    if len(values) < 2:
        raise UserError(f"{key}: one class only ({', '.join(map(str, values))}); takes at least two")
    parts = np.split(indices.astype(np.int64), np.cumsum([len(labels) for labels in flat.values()])[:-1])
    return dict(zip(flat, parts, strict=True)), [str(value) for value in values]
