"""Promises: what a checkpoint guarantees of its weights, and the artifact that is made from it has to show.

Plain data. What a checkpoint shows is measured in `src.models.checkpoint`, and an artifact in `src.measure.audit`.
"""

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from src.settings.check import Told
from src.settings.plain import canonical, plain

Name = Literal["zeros", "distinct", "bits", "channels"]
NAMES: tuple[Name, ...] = get_args(Name)
# When what is there keeps a promise, and the promise in words.
KEPT: Mapping[Name, tuple[Callable[[Any, Any], bool], str]] = {
    "zeros": (operator.ge, "at least {:,} zeros"),
    "distinct": (operator.le, "at most {:,} distinct values in an output channel"),
    "bits": (operator.le, "at most {:,} bits a value"),
    "channels": (operator.eq, "{:,} output channels"),
}
WORDS: Mapping[Name, str] = {
    "zeros": "the zeros",
    "distinct": "the number of distinct values",
    "bits": "the number of bits",
    "channels": "the number of channels",
}


@dataclass(frozen=True)
class Promise:
    """Of one layer; None promises nothing. Its kernels are its weights of at least two dimensions, but for biases.

    `zeros`: at least so many values of its kernels are 0. `distinct`: each output channel of its kernels has at most
    so many different values. `bits`: the artifact stores each value of its kernels in at most so many bits; a
    checkpoint, which holds float32, can't show it. `channels`: it has exactly so many output channels.

    `values` is no promise: how many values its kernels hold, which is written down when a checkpoint is confirmed, and
    tells which of an artifact's weights are the layer's.
    """

    zeros: int | None = None
    distinct: int | None = None
    bits: int | None = None
    channels: int | None = None
    values: int | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, name) is not None for name in NAMES)


# By path of the layer: the names of the models around it, then its own.
Promises = Mapping[str, Promise]


@dataclass(frozen=True)
class Ended:
    """A promise of the parent that a transform does not keep, and why: a phrase that follows a colon. `layers` are the
    paths of those for which it ends; None ends it for all."""

    name: Name
    reason: str
    layers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"there is no promise {self.name!r}; takes one of {', '.join(NAMES)}")

    def concerns(self, path: str, promise: Promise) -> bool:
        return getattr(promise, self.name) is not None and (self.layers is None or path in self.layers)


class Broken(Told):
    """A checkpoint or an artifact does not show what was promised of it."""


def carried(parent: Promises, ended: Sequence[Ended], own: Promises) -> Promises:
    """The promises of a checkpoint: those of its parent that its transform has not ended, and its own.

    Where both promise something of a layer, the stricter holds; of channels, that of the parent.
    """
    kept = dict(parent)
    for end in ended:
        for path, promise in kept.items():
            if end.concerns(path, promise):
                kept[path] = replace(promise, **{end.name: None})
    paths = dict.fromkeys([*kept, *own])
    merged = {path: _both(kept.get(path, Promise()), own.get(path, Promise())) for path in paths}
    return {path: promise for path, promise in merged.items() if promise}


def _both(kept: Promise, own: Promise) -> Promise:
    """The parent's, but for what the transform promises more strictly."""
    stricter = {
        name: value
        for name in NAMES
        if (value := getattr(own, name)) is not None
        and ((before := getattr(kept, name)) is None or (name != "channels" and KEPT[name][0](value, before)))
    }
    return replace(kept, **stricter)


def notes(parent: Promises, ended: Sequence[Ended]) -> tuple[str, ...]:
    """A sentence for each promise of `parent` that was ended."""
    return tuple(
        f"Promises no more {WORDS[end.name]} of {', '.join(layers)}: {end.reason.rstrip('.')}."
        for end in ended
        if (layers := [path for path, promise in parent.items() if end.concerns(path, promise)])
    )


def difference(promised: Promise, shown: Promise) -> str:
    """How what a layer shows breaks what was promised of it, as a phrase; empty where it does not. What `shown` has
    None for can't be told, and breaks nothing."""
    phrases = []
    for name, (keeps, words) in KEPT.items():
        value, there = getattr(promised, name), getattr(shown, name)
        if value is not None and there is not None and not keeps(there, value):
            phrases.append(f"{words.format(value)} promised, {there:,} there")
    return "; ".join(phrases)


def compare(promises: Promises, shown: Promises) -> None:
    """Raises `Broken` where a layer shows less than was promised; layers that `shown` lacks are passed over."""
    differences = {
        path: words
        for path, promise in promises.items()
        if path in shown and (words := difference(promise, shown[path]))
    }
    if differences:
        path, words = next(iter(differences.items()))
        more = f"; and so in {len(differences) - 1} more" if len(differences) > 1 else ""
        raise Broken(f"a promise is broken: layer {path}: {words}{more}")


def as_json(promises: Promises) -> str:
    return canonical(
        {
            path: {name: value for name, value in plain(promise).items() if value is not None}
            for path, promise in promises.items()
        }
    )


def from_json(text: str) -> Promises:
    return {path: Promise(**values) for path, values in json.loads(text).items()}


def most_distinct(by_channel: np.ndarray) -> int:
    """The most different values in a column of `[values, channels]`."""
    ordered = np.sort(by_channel, axis=0)
    return int((np.diff(ordered, axis=0) != 0).sum(axis=0).max(initial=0)) + 1
