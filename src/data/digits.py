"""The handwritten digits that scikit-learn ships: the embedded default, which needs no network and no disk."""

import numpy as np

from src.config import Digits
from src.data import Dataset, from_arrays, stratified


def load(config: Digits, seed: int) -> Dataset:
    """1,797 grayscale images in ten classes: the test set of Alpaydin and Kaynak (UCI, 1998)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Sixteen is the most ink that a cell can hold.
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    if config.image_size != images.shape[1]:
        from src.data.decode import resize

        images = resize(images, config.image_size, "bilinear")
    classes = [str(name) for name in bunch.target_names]
    labels = bunch.target.astype(np.int64)
    parts = stratified(labels, classes, {"validation": config.validation, "test": config.test}, seed, "data=digits")
    return from_arrays(
        {name: (images[rows], labels[rows], [f"digits/{row}" for row in rows]) for name, rows in parts.items()}, classes
    )
