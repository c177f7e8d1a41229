"""What loads and runs an artifact: the place that it will ship to. One module per target; nothing else here imports an
interpreter."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Port:
    """The input or the output of an artifact. `shape` holds the batch first; a `scale` of 0 says that its numbers stand
    for themselves."""

    shape: tuple[int, ...]
    dtype: type
    scale: float
    zero_point: int


class Interpreter(Protocol):
    """An artifact that was loaded, with one input of images and one output of classes."""

    input: Port
    output: Port

    def run(self, images: np.ndarray) -> np.ndarray:
        """`[n, classes]` for `[n, height, width, channels]`, each in the dtype of its port. Raises `ValueError` or
        `RuntimeError` where the graph does not take so many images at once."""

    def activation_bytes(self) -> int:
        """Of the largest activation, per image."""


@dataclass(frozen=True)
class Target:
    """`load(path, threads)` gives an interpreter, and raises `UserError` where the file can't be loaded or takes or
    gives something else than images and classes. `child` is a program that times artifacts in a process of its own:
    see `src.measure.targets.child`."""

    name: str
    runtime: Callable[[], str]
    load: Callable[[Path, int], Interpreter]
    child: Path

    def describe(self) -> dict[str, str]:
        """All of it that may change an answer: part of a probe's key. The number of threads changes none."""
        return {"name": self.name, "runtime": self.runtime()}
