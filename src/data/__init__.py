"""What every source gives: the same three splits of the same kind of images, whatever they came from.

A split is a description that is read in batches, in a fixed order, as often as needed; it may be larger than memory.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from src.config import Preprocess


@dataclass(frozen=True)
class Split:
    """Labelled images in a fixed order.

    `labels`: int64 `[n]`; `ids`: a name per image; `read(indices)`: uint8 `[len(indices), height, width, channels]`.
    """

    labels: np.ndarray
    ids: Sequence[str]
    read: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, order: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images (uint8 `[b, height, width, channels]`) and labels (int64 `[b]`), all of `order` or of the split.

        The next batch is read in a thread while the caller works on this one.
        """
        order = np.arange(len(self)) if order is None else order
        parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self.read, parts[0]) if parts else None
            for i, indices in enumerate(parts):
                assert ahead is not None
                images = ahead.result()
                ahead = reader.submit(self.read, parts[i + 1]) if i + 1 < len(parts) else None
                yield images, self.labels[indices]


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits. `shape` is (height, width, channels) of every image; `fingerprint` a digest of the content
    and order of all splits; `notes` tell the user what was left out or looked odd, a line each."""

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    fingerprint: str
    notes: tuple[str, ...] = ()

    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


def preprocess(images: np.ndarray, how: Preprocess) -> np.ndarray:
    """uint8 images `[..., channels]` to the float32 that the model takes."""
    mean, std = np.float32(how.mean), np.float32(how.std)
    return (images.astype(np.float32) * np.float32(how.rescale) - mean) / std


def in_memory(images: np.ndarray, labels: np.ndarray, ids: Sequence[str]) -> Split:
    """A split of uint8 images `[n, height, width, channels]` held as an array."""
    return Split(labels.astype(np.int64), ids, lambda indices: images[indices])
