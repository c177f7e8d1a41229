"""A folder of images: one folder per class, or `train/`, `test/` and optionally `validation/` of such folders, by
whatever usual names."""

import functools
import json
import os
import shlex
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass as schema

from src.data import (
    EXAMPLES,
    SPLITS,
    UNREADABLE,
    Dataset,
    Resized,
    Split,
    fingerprint,
    layout,
    oddities,
    shown,
    stratified,
)
from src.data.cache import read_files
from src.data.decode import IDENTITY, Resize, decode, opens
from src.data.files import Contents, Files, Reader
from src.data.layout import TAKES, some
from src.settings.check import STRICT, ImageSize, Seed, SplitShare, UserError


def _names(value: Any) -> Any:
    """A list of names as Hydra and YAML read it, whole numbers as text. Raises `ValueError` for what else they make of
    a name without quotes: what was typed can't be told from it."""
    if not isinstance(value, list | tuple):
        return value
    for name in value:
        if name is None or isinstance(name, bool | float):
            kind = {type(None): "nothing", bool: "true or false", float: "a number"}[type(name)]
            quoted = json.dumps([n if isinstance(n, str) else json.dumps(n) for n in value], ensure_ascii=False)
            right = shlex.quote(f"data.classes={quoted}".replace(", ", ","))
            raise ValueError(
                f"{json.dumps(name)} is read as {kind} and not as a name; takes names, in quotes and as they are spelt "
                f"where they look like that: {right}"
            )
    return [str(name) if isinstance(name, int) else name for name in value]


@schema(frozen=True, config=STRICT)
class ImageFolder(Resized):
    """A folder per class, or `train/`, `test/` and optionally `validation/` of such folders.

    `classes` gives the folders and their order; null takes all, sorted as text, which is what Keras and torchvision do.
    `image_size` is one number, or a height and a width; null is 32, and a model that takes any size asks for one.
    `crop` cuts the largest central part of that form out before
    resizing. Decoded images are held in memory up to `memory_gib`,
    and kept in the folder `cache` between runs up to `cache_gib`.
    """

    path: Annotated[str, Field(min_length=1, description="a folder with a folder of images for each class")]
    classes: Annotated[tuple[Annotated[str, Field(min_length=1)], ...] | None, BeforeValidator(_names)] = None
    image_size: ImageSize | None = None
    channels: Literal[1, 3] = 3
    resize: Resize = "bilinear"
    crop: bool = False
    seed: Seed = 0
    validation: SplitShare = 0.1
    test: SplitShare = 0.2
    memory_gib: Annotated[float, Field(ge=0)] = 1.0
    cache: Annotated[str, Field(min_length=1)] | None = "mlruns/cache"
    cache_gib: Annotated[float, Field(ge=0)] = 32.0


def load(config: ImageFolder) -> Dataset:
    """Images of any size and format, as `src.data.decode` reads them.

    Within a split images are in the order of the SHA-256 of their files, or shuffled by `seed` where the split is drawn
    from one folder. Neither depends on names, times or the file system; nor does the fingerprint, which covers the
    bytes of the files and their pixels.

    Raises `UserError` if there is nothing to learn from; unreadable files are only noted.
    """
    key = f"data.path={shown(config.path)}"
    classes, sections, files, labels, section_of, notes = _scan(config, key)
    shape = (*config.size, config.channels)
    settings = {
        "image_size": config.size,
        "channels": config.channels,
        "resize": config.resize,
        "crop": config.crop,
    }
    contents, read, cache_notes = _read(config, files, settings)
    readable = np.array([not reason for reason in contents.reasons])
    _check_classes(key, classes, list(sections.values()), files, labels, section_of, contents, readable)
    rows = np.argsort(contents.digests.view("S32").ravel(), kind="stable")
    rows = rows[readable[rows]]
    of, drawn = _split(config, key, classes, {s: rows[section_of[rows] == i] for i, s in enumerate(sections)}, labels)

    def split(rows: np.ndarray) -> Split:
        return Split(labels[rows], [shown(files.paths[row]) for row in rows], lambda indices: read(rows[indices]))

    splits = {name: split(of[name]) for name in SPLITS}
    # The bytes of each file and what they became: another version of a decoder may make other pixels of them.
    digests = {name: np.hstack([contents.digests[of[name]], contents.pixels[of[name]]]) for name in SPLITS}
    class_names = tuple(map(shown, classes))
    return Dataset(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        classes=class_names,
        shape=shape,
        fingerprint=fingerprint(splits, digests, class_names, settings),
        notes=(
            *notes,
            *cache_notes,
            *_file_notes(files, contents),
            *oddities(splits, {name: contents.pixels[of[name]] for name in SPLITS}, class_names),
        ),
        rejected=tuple(
            f"{shown(path)}: {reason}" for path, reason in zip(files.paths, contents.reasons, strict=True) if reason
        ),
        drawn=drawn,
    )


def _read(config: ImageFolder, files: Files, settings: Mapping[str, Any]) -> tuple[Contents, Reader, list[str]]:
    """What `read_files` gives; `settings` are those that pixels depend on."""
    return read_files(
        files,
        functools.partial(decode, size=config.size, channels=config.channels, resize=config.resize, crop=config.crop),
        (*config.size, config.channels),
        f"{IDENTITY} {settings}",
        int(config.memory_gib * 2**30),
        Path(os.path.expanduser(config.cache)) if config.cache else None,
        int(config.cache_gib * 2**30),
    )


def _split(
    config: ImageFolder, key: str, classes: Sequence[str], there: Mapping[str, np.ndarray], labels: np.ndarray
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The rows of each split, of which those that are not `there` are drawn from the training images, or from all; and
    which were drawn."""
    shares = {"validation": config.validation, "test": config.test}
    drawn = {name: share for name, share in shares.items() if name not in there}
    pool = there["train"] if "train" in there else there[""]
    parts = stratified(labels[pool], classes, drawn, config.seed, key) if drawn else {}
    return {**there, **{name: pool[indices] for name, indices in parts.items()}}, tuple(drawn)


def _scan(config: ImageFolder, key: str) -> tuple[list[str], dict[str, str], Files, np.ndarray, np.ndarray, list[str]]:
    """Classes, sections (the folder of each split, or the one of all under the name ""), files, and the label and
    section of each; notes.

    Only lists folders, and opens one image of every class. Raises `UserError` where that shows that nothing can be
    learnt from them.
    """
    root = os.path.expanduser(config.path)
    scanned_ns = time.time_ns()
    sections, notes = layout.find_sections(root, config.classes, key)
    inside = {folder: layout.folders(os.path.join(root, folder), key) for folder in sections.values()}
    classes = layout.find_classes(root, config.classes, inside, key)
    if config.classes is None and all(name.isdecimal() for name in classes) and classes != sorted(classes, key=int):
        notes.append(
            f"class folders with numbers as names are sorted as text, like Keras does: {', '.join(classes[:4])}, …; "
            "data.classes=[…] gives another order"
        )
    paths: list[str] = []
    stats: list[tuple[int, int, int]] = []
    counts = []
    for folder in sections.values():
        spelling = {layout.class_name(name): name for name in inside[folder]}
        below: dict[str, set[str]] = {}
        for name in classes:
            relative = os.path.join(folder, spelling[name])
            before = len(paths)
            for path, times in sorted(_walk(root, relative, key), key=lambda walked: os.fsencode(walked[0])):
                paths.append(path)
                stats.append(times)
            counts.append(len(paths) - before)
            below[relative] = {path[len(relative) + 1 :].rpartition("/")[0] for path in paths[before:]} - {""}
            where = f"class folder {shown(relative)!r}"
            if not counts[-1]:
                raise UserError(f"{key}: {where} is empty; takes at least one image in each")
            if not any(opens(os.path.join(root, path)) for path in paths[before:]):
                raise UserError(
                    f"{key}: {where} has no image among its {counts[-1]:,} files, such as "
                    f"{shown(os.path.basename(paths[before]))}; takes at least one in each"
                )
        if config.classes is None:
            layout.refuse_shared(below, key)
    files = Files(root, paths, np.array(stats, np.int64).reshape(-1, 3), scanned_ns)
    labels = np.repeat(np.tile(np.arange(len(classes)), len(sections)), counts)
    section_of = np.repeat(np.repeat(np.arange(len(sections)), len(classes)), counts)
    return classes, sections, files, labels, section_of, notes


def _walk(root: str, relative: str, key: str) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Every file below a class folder, with its size, mtime and ctime in ns. Links are followed, each folder once."""
    waiting, seen = [relative], set()
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(os.path.join(root, folder))
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    if layout.is_clutter(entry.name):
                        continue
                    path = f"{folder}/{entry.name}"
                    try:
                        status = entry.stat()
                    except OSError:  # a link to nowhere, to itself, to where one may not look: `read_files` says so
                        yield path, (0, 0, 0)
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(path)
                    elif stat.S_ISREG(status.st_mode):
                        yield path, (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError as error:
            raise UserError(f"{key}: {shown(folder)} can't be listed ({error.strerror}); {TAKES}") from None


def _check_classes(
    key: str,
    classes: list[str],
    sections: list[str],
    files: Files,
    labels: np.ndarray,
    section_of: np.ndarray,
    contents: Contents,
    readable: np.ndarray,
) -> None:
    """Raises `UserError` for a class folder of which every file is unreadable."""
    counts = np.zeros((len(sections), len(classes)), np.int64)
    np.add.at(counts, (section_of[readable], labels[readable]), 1)
    for section, label in np.argwhere(counts == 0)[:1]:
        row = np.flatnonzero((section_of == section) & (labels == label))[0]
        raise UserError(
            f"{key}: class folder {shown(os.path.join(sections[section], classes[label]))!r} has no readable image, "
            f"such as {shown(os.path.basename(files.paths[row]))}: {contents.reasons[row]}; takes at least one in each"
        )


def _file_notes(files: Files, contents: Contents) -> list[str]:
    notes = []
    rejected = [f"{shown(path)} ({why})" for path, why in zip(files.paths, contents.reasons, strict=True) if why]
    if rejected:
        notes.append(f"{len(rejected):,} of {len(files):,} files are unreadable and left out: {some(rejected)}")
        if len(rejected) > EXAMPLES:
            notes[-1] += f" (all in {UNREADABLE} beside the report)"
    formats = Image.registered_extensions()
    misnamed = [
        f"{shown(path)} ({format_})"
        for path, format_ in zip(files.paths, contents.formats, strict=True)
        if format_
        and formats.get(os.path.splitext(path)[1].lower(), format_) not in (format_, {"MPO": "JPEG"}.get(format_))
    ]
    if misnamed:
        notes.append(f"{len(misnamed):,} files hold another format than their names say: {some(misnamed)}")
    return notes
