"""The handwritten digits that scikit-learn ships: the embedded default, which needs no network and no disk."""

import importlib.util
from pathlib import Path

import numpy as np
from pydantic.dataclasses import dataclass as schema

from src.data import Dataset, from_arrays
from src.data.decode import resize
from src.settings.check import STRICT, ImageSize, Seed, SplitShare


@schema(frozen=True, config=STRICT)
class Digits:
    """The 1,797 handwritten digits (8 x 8, 10 classes) that scikit-learn ships."""

    image_size: ImageSize = (8, 8)
    seed: Seed = 0
    validation: SplitShare = 0.25
    test: SplitShare = 0.5


def load(config: Digits) -> Dataset:
    """1,797 grayscale images in ten classes: the test set of Alpaydin and Kaynak (UCI, 1998)."""
    # The file and not `load_digits`: the package takes longer to import than all else that a plan needs.
    package = importlib.util.find_spec("sklearn")
    folders = package.submodule_search_locations if package else None
    assert folders  # a dependency
    rows = np.loadtxt(Path(folders[0]) / "datasets/data/digits.csv.gz", np.uint8, delimiter=",")
    # Sixteen is the most ink that a cell can hold.
    images = np.rint(rows[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return from_arrays(
        {"train": (resize(images, config.image_size, "bilinear"), rows[:, -1].astype(np.int64))},
        [str(digit) for digit in range(10)],
        {"validation": config.validation, "test": config.test},
        config.seed,
        "data=digits",
    )
