"""What an artifact answered for every image of a split, and what follows from that: one `.npz` file per split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from src.measure import stats

NO_CLASS = -1  # in `Predictions.predicted`; no label has this value


@dataclass(frozen=True)
class Predictions:
    """One row per image, in the order of the split.

    `labels`: int64 `[n]`; `predicted`: int32 `[n]`, the first of equally probable classes; `confidence` and
    `true_confidence`: float32 `[n]`, the probability given to the predicted and to the true class.

    Where a probability is no number (NaN or infinite), `predicted` is `NO_CLASS` and both confidences are 0: such an
    image counts as wrong.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    true_confidence: np.ndarray

    @cached_property
    def correct(self) -> np.ndarray:
        """bool `[n]`."""
        return self.predicted == self.labels

    @property
    def no_number(self) -> int:
        """For how many images the artifact gave no number."""
        return int(np.count_nonzero(self.predicted == NO_CLASS))

    @property
    def answers(self) -> np.ndarray:
        """float64 `[n]`: `predicted`, and NaN where there is no class. NaN equals no other answer."""
        return np.where(self.predicted == NO_CLASS, np.nan, self.predicted)

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def balanced_accuracy(self) -> float:
        """The share of each class's images that is classified rightly, averaged over the classes that have images."""
        images = np.bincount(self.labels)
        right = np.bincount(self.labels, self.correct)
        return float((right[images > 0] / images[images > 0]).mean())

    @property
    def ece(self) -> float:
        """An image without a number counts as sure and wrong: at a confidence of 0 it would be well calibrated."""
        sure = np.where(self.predicted == NO_CLASS, 1, self.confidence)
        return stats.expected_calibration_error(sure, self.correct)

    def save(self, path: Path) -> None:
        """As `.npz`, in a folder that is made for it. The same predictions give the same bytes: numpy stamps every
        member with 1980-01-01."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez(
                file,
                labels=self.labels,
                predicted=self.predicted,
                confidence=self.confidence,
                true_confidence=self.true_confidence,
            )

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        # Files from before there was `NO_CLASS` say class 0, with a confidence of NaN.
        answered = np.isfinite(found["confidence"])
        found["predicted"] = np.where(answered, found["predicted"], np.int32(NO_CLASS))
        for name in ("confidence", "true_confidence"):
            found[name] = np.where(answered, found[name], np.float32(0))
        return cls(**found)


def class_name(predicted: int, classes: Sequence[str]) -> str:
    """The name of a class for a person, who reads "no number" where there is none."""
    return "no number" if predicted == NO_CLASS else classes[predicted]


def without_number(found: Mapping[str, Predictions]) -> str:
    """Says for how many images of each split an artifact gave no number; empty where it always gave one."""
    counts = [
        f"{predictions.no_number:,} of {len(predictions.labels):,} {split} images"
        for split, predictions in found.items()
        if predictions.no_number
    ]
    return f"gives no number for {', '.join(counts)}" if counts else ""
