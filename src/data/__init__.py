"""What every source gives: the same three splits of the same kind of images, whatever they came from.

A split is a description that is read in batches, in a fixed order, as often as needed; it may be larger than memory.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from src.settings.check import UserError
from src.settings.config import Config, Step
from src.settings.plain import canonical
from src.settings.sections import Preprocess

USUAL_SIZE = (32, 32)  # of images in files, where neither the user nor the model says which
SPLITS = ("train", "validation", "test")
AHEAD = 2  # batches
DIGEST_LENGTH = 16  # of those that MLflow shows, and keeps up to 36
EXAMPLES = 3  # names shown in a note
UNREADABLE = "unreadable.txt"  # all of those that could not be read


class Resized:
    """Settings of data whose images are brought to one size, `image_size`, which may be left open."""

    image_size: tuple[int, int] | None

    @property
    def asks_for_size(self) -> bool:
        """Whether nobody has said how large the images are to be."""
        return self.image_size is None

    @property
    def size(self) -> tuple[int, int]:
        return self.image_size or USUAL_SIZE


@dataclass(frozen=True)
class Split:
    """Labelled images in a fixed order that mixes the classes, so that the first n are a sample of all.

    `labels`: int64 `[n]`; `ids`: a name per image; `read(indices)`: uint8 `[len(indices), height, width, channels]`.
    """

    labels: np.ndarray
    ids: Sequence[str]
    read: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, order: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images (uint8 `[b, height, width, channels]`) and labels (int64 `[b]`), all of `order` or of the split.

        The next two batches are read in threads while the caller works on this one: where images are decoded, one
        is always being read while the last images of the other keep a few threads waiting.
        """
        order = np.arange(len(self)) if order is None else order
        parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        with ThreadPoolExecutor(AHEAD) as reader:
            ahead = deque(reader.submit(self.read, indices) for indices in parts[:AHEAD])
            for i, indices in enumerate(parts):
                images = ahead.popleft().result()
                if i + AHEAD < len(parts):
                    ahead.append(reader.submit(self.read, parts[i + AHEAD]))
                yield images, self.labels[indices]


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits. `shape` is (height, width, channels) of every image; `fingerprint` a digest of the content
    and order of all splits; `notes` tell the user what was left out or looked odd, a line each; `rejected` names every
    file that could not be read, with the reason; `drawn` are the splits that were taken from the training images."""

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    fingerprint: str
    notes: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()

    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


def shown(name: str) -> str:
    """A name or path on one line, in characters that any file can take."""
    if name.isprintable():
        return name
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)


def dataset(config: Config) -> Dataset:
    """The images of a config. A process loads them once."""
    return load_data(config.data)


@lru_cache(maxsize=2)
def load_data(step: Step) -> Dataset:
    return step.function(step.settings)


def used(config: Config, data: Dataset) -> dict[str, Any]:
    """What a run says of its images, in MLflow's terms."""
    where = getattr(config.data.settings, "path", None)
    return {
        "name": config.data.name,
        "digest": data.fingerprint[:DIGEST_LENGTH],
        "source_type": "local" if where else "code",
        "source": json.dumps({"uri": str(where)} if where else {"tags": {"data": config.data.name}}),
        "profile": json.dumps({**{name: len(split) for name, split in data.splits().items()}, "shape": data.shape}),
    }


def preprocess(images: np.ndarray, how: Preprocess) -> np.ndarray:
    """uint8 images `[..., channels]` to the float32 that the model takes."""
    if how.channel_order == "bgr":
        images = images[..., ::-1]
    mean, std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
    return (images.astype(np.float32) * np.float32(how.rescale) - mean) / std


def in_memory(images: np.ndarray, labels: np.ndarray, ids: Sequence[str]) -> Split:
    """A split of uint8 images `[n, height, width, channels]` held as an array."""
    return Split(labels.astype(np.int64), ids, lambda indices: images[indices])


def from_arrays(
    given: Mapping[str, tuple[np.ndarray, np.ndarray]],
    classes: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
    key: str,
    notes: Sequence[str] = (),
) -> Dataset:
    """A dataset of uint8 images `[n, height, width, channels]` and labels `[n]`, held as they are: `train` and the
    splits that there are; the others are drawn from `train` by `shares`.

    A split that is given is put in the order of its images' SHA-256. Raises `UserError`, which starts with `key`, for
    a class that a split lacks.
    """
    classes = tuple(map(shown, classes))  # a name is a line in `labels.txt`
    for name in given:
        missing = np.flatnonzero(np.bincount(given[name][1], minlength=len(classes)) == 0)
        if len(missing):
            raise UserError(
                f"{key}: no image of class {classes[missing[0]]!r} in {name}; takes at least one in each split"
            )
    digests = {name: pixel_digests(images) for name, (images, _) in given.items()}
    source = dict.fromkeys(SPLITS, "train") | {name: name for name in given}
    rows = {name: np.argsort(digests[name].view("S16").ravel(), kind="stable") for name in given}
    labels = given["train"][1]
    if drawn := {name: share for name, share in shares.items() if name not in given}:
        parts = stratified(labels[rows["train"]], classes, drawn, seed, key)
        rows |= {name: rows["train"][indices] for name, indices in parts.items()}

    def split(name: str) -> Split:
        (images, labels), chosen = given[source[name]], rows[name]
        ids = [f"{source[name]}[{row}]" for row in chosen]
        return Split(labels[chosen].astype(np.int64), ids, lambda indices: images[chosen[indices]])

    splits = {name: split(name) for name in SPLITS}
    found = {name: digests[source[name]][rows[name]] for name in SPLITS}
    shape = given["train"][0].shape[1:]
    return Dataset(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        classes=classes,
        shape=shape,
        fingerprint=fingerprint(splits, found, classes, {"shape": shape}),
        notes=(*notes, *oddities(splits, found, classes)),
        drawn=tuple(drawn),
    )


def stratified(
    labels: np.ndarray, classes: Sequence[str], shares: Mapping[str, float], seed: int, key: str
) -> dict[str, np.ndarray]:
    """Indices of disjoint splits with the same share of every class: those of `shares`, and `train`, the rest.

    Each has at least one image of every class, and its images are shuffled. `labels`: `[n]`, indices of `classes`.
    Raises `UserError` for shares that leave nothing to train on, and one that starts with `key` for a class with fewer
    images than there are splits.
    """
    if sum(shares.values()) >= 1:
        told = " and ".join(f"data.{name}={share:g}" for name, share in shares.items())
        raise UserError(f"{told}: leave nothing to train on; takes shares that are below 1 together")
    generator = np.random.default_rng(seed)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=len(classes)))[:-1])
    names = [*shares, "train"]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for name, of_class in zip(classes, members, strict=True):
        if len(of_class) < len(names):
            raise UserError(
                f"{key}: class {name!r} has {len(of_class)} usable image{'s' * (len(of_class) != 1)}; takes at least "
                f"{len(names)} of each class, one for each of {', '.join(n for n in SPLITS if n in names)}"
            )
        counts = [max(1, round(share * len(of_class))) for share in shares.values()]
        while sum(counts) >= len(of_class):  # counts are rounded up in a tiny class; train needs an image too
            counts[counts.index(max(counts))] -= 1
        for part, indices in zip(
            parts.values(), np.split(generator.permutation(of_class), np.cumsum(counts)), strict=True
        ):
            part.append(indices)
    return {name: generator.permutation(np.concatenate(part)) for name, part in parts.items()}


def pixel_digests(images: np.ndarray) -> np.ndarray:
    """The first 16 bytes of each image's SHA-256: uint8 `[n, 16]`."""
    found = b"".join(hashlib.sha256(np.ascontiguousarray(image)).digest()[:16] for image in images)
    return np.frombuffer(found, np.uint8).reshape(-1, 16)


def fingerprint(
    splits: Mapping[str, Split],
    digests: Mapping[str, np.ndarray],
    classes: Sequence[str],
    settings: Mapping[str, object],
) -> str:
    """A hex digest of each image's digest (uint8 `[n, width]`) and label in order, the class names and `settings`."""
    whole = hashlib.sha256(canonical({"classes": list(classes), **settings}).encode())
    for name in SPLITS:
        whole.update(f"\n{name} {len(splits[name])}\n".encode())
        whole.update(np.ascontiguousarray(digests[name]))
        whole.update(splits[name].labels.astype("<i8"))
    return whole.hexdigest()


def oddities(splits: Mapping[str, Split], digests: Mapping[str, np.ndarray], classes: Sequence[str]) -> list[str]:
    """Notes on what makes accuracies less reliable: the same image (by `digests`, uint8 `[n, width]`) in several splits
    or classes, and classes with few images."""
    notes = []
    labels = np.concatenate([splits[name].labels for name in SPLITS])
    origin = np.repeat(np.arange(len(SPLITS)), [len(splits[name]) for name in SPLITS])
    every = np.ascontiguousarray(np.concatenate([digests[name] for name in SPLITS]))
    values, group = np.unique(every.view(f"S{every.shape[1]}").ravel(), return_inverse=True)

    def shown(kinds: np.ndarray) -> tuple[int, str]:
        """How many distinct images have more than one of `kinds`, and the names of a few."""
        pairs = np.unique(group * (kinds.max() + 1) + kinds) // (kinds.max() + 1)
        several = np.flatnonzero(np.bincount(pairs, minlength=len(values)) > 1)
        examples = []
        for value in several[:EXAMPLES]:
            rows = np.flatnonzero(group == value)
            _, first = np.unique(kinds[rows], return_index=True)
            examples.append(" = ".join(_name(splits, row) for row in rows[first]))
        return len(several), ", ".join(examples) + ", …" * (len(several) > EXAMPLES)

    count, examples = shown(origin)
    if count:
        notes.append(f"{count:,} distinct images are in more than one split: {examples}")
    count, examples = shown(labels)
    if count:
        notes.append(f"{count:,} distinct images are in more than one class: {examples}")
    counts = np.bincount(labels, minlength=len(classes))
    few = np.flatnonzero(counts < 0.1 * counts.max())
    if len(few):
        largest = int(counts.argmax())
        rare = ", ".join(f"{classes[i]} {counts[i]:,}" for i in few[:EXAMPLES]) + ", …" * (len(few) > EXAMPLES)
        notes.append(
            f"{len(few):,} of {len(classes):,} classes have less than a tenth of the images of the largest "
            f"({classes[largest]} {counts[largest]:,}): {rare}"
        )
    return notes


def _name(splits: Mapping[str, Split], row: int) -> str:
    for name in SPLITS:
        if row < len(splits[name]):
            return f"{splits[name].ids[row]} ({name})"
        row -= len(splits[name])
    raise IndexError(row)
