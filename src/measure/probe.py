"""A probe: a measurement of an artifact, which yields pairs of a name and a value."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.data import Dataset
from src.measure.targets import Target

Found = Iterable[tuple[str, float | str]]


@dataclass(frozen=True)
class Asked:
    """What was asked for when an artifact was made: the dtype of its weights and of its activations, and whether it was
    pruned. `not_numbers` are the weights of its checkpoint that hold NaN or infinity; `notes` are sentences for
    everyone who sees it."""

    weights: str = "float32"
    activations: str = "float32"
    pruned: bool = False
    not_numbers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """What a probe is given: the artifact, what was asked for, the images, and a folder. The files that a probe leaves
    in `folder` are kept under the same paths in the artifact's run."""

    artifact: Path
    asked: Asked
    dataset: Dataset
    folder: Path


@dataclass(frozen=True)
class Probe:
    """`function(subject, settings)` yields (name, value): a number is a metric, text is a tag of the artifact's run.

    It is done again only where something is another that its answer depends on: the artifact, the images of `split`,
    the `target`, `settings` (plain data, or a dataclass of it) or the code of the function's module. `split` and
    `target` are None where it needs no images and where it runs nothing.
    """

    name: str
    function: Callable[[Subject, Any], Found]
    settings: Any
    split: str | None = None
    target: Target | None = None
