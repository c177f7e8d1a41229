"""The handwritten digits that scikit-learn ships: the embedded default, which needs no network and no disk."""

import numpy as np
from pydantic.dataclasses import dataclass as schema

from src.data import Dataset, from_arrays
from src.data.decode import resize
from src.settings.check import STRICT, ImageSize, Seed, SplitShare


@schema(frozen=True, config=STRICT)
class Digits:
    """The 1,797 handwritten digits (8 x 8, 10 classes) that scikit-learn ships."""

    image_size: ImageSize = 8
    seed: Seed = 0
    validation: SplitShare = 0.25
    test: SplitShare = 0.25


def load(config: Digits) -> Dataset:
    """1,797 grayscale images in ten classes: the test set of Alpaydin and Kaynak (UCI, 1998)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Sixteen is the most ink that a cell can hold.
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return from_arrays(
        {"train": (resize(images, config.image_size, "bilinear"), bunch.target)},
        [str(name) for name in bunch.target_names],
        {"validation": config.validation, "test": config.test},
        config.seed,
        "data=digits",
    )
