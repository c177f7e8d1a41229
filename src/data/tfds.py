"""Data sets of TensorFlow Datasets: the optional extra `tfds`."""

import importlib.util
import math
import os
import re
import tempfile
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as schema

from src.data import Dataset, Resized, from_arrays, shown
from src.data.decode import Resize, resize
from src.machine import backend, output
from src.settings.check import STRICT, ImageSize, Seed, SplitShare, UserError, in_short


@schema(frozen=True, config=STRICT)
class Tfds(Resized):
    """A data set of TensorFlow Datasets, from the folder `dir` or TFDS's own.

    `train_split` and others are TFDS's split expressions; where one is null the split is drawn from training. Decoded
    images of more than `memory_gib` are held in a temporary file in the folder `cache`.
    """

    name: Annotated[str, Field(min_length=1)]
    dir: Annotated[str, Field(min_length=1)] | None = None
    download: bool = False
    train_split: Annotated[str, Field(min_length=1)] = "train"
    validation_split: Annotated[str, Field(min_length=1)] | None = None
    test_split: Annotated[str, Field(min_length=1)] | None = "test"
    image_size: ImageSize | None = None
    resize: Resize = "bilinear"
    seed: Seed = 0
    validation: SplitShare = 0.1
    test: SplitShare = 0.2
    memory_gib: Annotated[float, Field(ge=0)] = 1.0
    cache: Annotated[str, Field(min_length=1)] = "mlruns/cache"


def load(config: Tfds) -> Dataset:
    """Images and class labels of a data set that TFDS describes as supervised.

    Raises `UserError` if the package or the data set is not there, or if it is not one of images with one class each.
    """
    key = f"data.name={shown(config.name)}"
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise UserError("data=tfds: needs the package tensorflow-datasets; make setup EXTRAS=dev,tfds installs it")
    backend.prepare()
    with output.quiet():
        import tensorflow_datasets
    directory = os.path.expanduser(config.dir) if config.dir else None
    try:
        builder = tensorflow_datasets.builder(config.name, data_dir=directory)
        if config.download:
            builder.download_and_prepare()
    except Exception as error:  # unknown names, folders and networks each raise errors of their own
        raise UserError(f"{key}: {_first_line(error)}; takes a name that TFDS knows or data.dir=… has") from None
    features = dict(builder.info.features)
    names = builder.info.supervised_keys or ("image", "label")
    image, label = (features.get(name) for name in names)
    if not isinstance(image, tensorflow_datasets.features.Image) or image.np_dtype != np.uint8:
        raise UserError(f"{key}: does not give uint8 images; takes a data set for image classification")
    if not isinstance(label, tensorflow_datasets.features.ClassLabel):
        raise UserError(f"{key}: does not give one class per image; takes a data set for image classification")
    wanted = {"train": config.train_split, "validation": config.validation_split, "test": config.test_split}
    used = set(re.findall(r"\w+", " ".join(filter(None, wanted.values()))))
    unused = [name for name in builder.info.splits if name not in used]
    return from_arrays(
        {name: _read(config, builder, names, split, key) for name, split in wanted.items() if split},
        label.names,
        {"validation": config.validation, "test": config.test},
        config.seed,
        key,
        [f"splits not used: {', '.join(unused)}"] if unused else [],
    )


def _read(config: Tfds, builder: Any, names: tuple[str, str], split: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 `[n, height, width, channels]`, and labels, int64 `[n]`, of one of TFDS's splits."""
    try:
        count = builder.info.splits[split].num_examples
        examples = builder.as_dataset(split=split).as_numpy_iterator()
    except Exception as error:  # as above
        if not builder.info.splits:
            raise UserError(f"{key}: nothing in {builder.data_dir}; data.download=true prepares it there") from None
        raise UserError(
            f"{key}: no split {split!r} ({_first_line(error)}); takes {', '.join(builder.info.splits)}"
        ) from None
    channels = builder.info.features[names[0]].shape[-1] or 3
    images = _allocate(config, (count, *config.size, channels))
    labels = np.empty(count, np.int64)
    for i, example in enumerate(examples):
        image, labels[i] = (example[name] for name in names)
        images[i] = resize(image[None], config.size, config.resize)[0]
    if labels.min() < 0:
        raise UserError(f"{key}: split {split!r} has no labels; takes splits with labels")
    return images, labels


def _allocate(config: Tfds, shape: tuple[int, int, int, int]) -> np.ndarray:
    if math.prod(shape) <= config.memory_gib * 2**30:
        return np.empty(shape, np.uint8)
    os.makedirs(config.cache, exist_ok=True)
    # The file has no name and is gone with the process.
    return np.memmap(tempfile.TemporaryFile(dir=config.cache), np.uint8, shape=shape)


def _first_line(error: Exception) -> str:
    return in_short(next(iter(str(error).strip().splitlines()), type(error).__name__))
