"""A folder of images: one folder per class, or `train/`, `test/` and optionally `validation/` of such folders."""

import functools
import os
import stat
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from src.config import ImageFolder, UserError, as_utf8
from src.data import EXAMPLES, SPLITS, UNREADABLE, Dataset, Split, fingerprint, oddities, stratified
from src.data.cache import Contents, Files, read_files
from src.data.decode import IDENTITY, decode, opens

TAKES = "takes a folder with one folder per class, or with train/ and test/ of such folders"
VALIDATION_NAMES = ("validation", "val", "valid")
CLUTTER = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}


def load(config: ImageFolder, seed: int) -> Dataset:
    """Images of any size and format, as `src.data.decode` reads them.

    Within a split images are in the order of the SHA-256 of their files, or shuffled by `seed` where the split is drawn
    from one folder. Neither depends on names, times or the file system; nor does the fingerprint, which covers the
    bytes of the files and their pixels.

    Raises `UserError` if there is nothing to learn from; unreadable files are only noted.
    """
    key = f"data.path={_shown(config.path)}"
    classes, sections, files, labels, section_of, notes = _scan(config, key)
    shape = (config.image_size, config.image_size, config.channels)
    settings = {
        "image_size": config.image_size,
        "channels": config.channels,
        "resize": config.resize,
        "crop": config.crop,
    }
    contents, read, cache_notes = read_files(
        files,
        functools.partial(
            decode, size=config.image_size, channels=config.channels, resize=config.resize, crop=config.crop
        ),
        shape,
        f"{IDENTITY} {settings}",
        int(config.memory_gib * 2**30),
        Path(config.cache).expanduser() if config.cache else None,
        int(config.cache_gib * 2**30),
    )
    readable = np.array([not reason for reason in contents.reasons])
    _check_classes(key, classes, sections, files, labels, section_of, contents, readable)
    rows = np.argsort(contents.digests.view("S32").ravel(), kind="stable")
    rows = rows[readable[rows]]
    of = {section: rows[section_of[rows] == i] for i, section in enumerate(sections)}
    shares = {"validation": config.validation, "test": config.test}
    drawn = {name: share for name, share in shares.items() if name not in of}
    pool = of.get("train", rows)
    parts = stratified(labels[pool], classes, drawn, seed, key) if drawn else {}
    of |= {name: pool[indices] for name, indices in parts.items()}

    def split(rows: np.ndarray) -> Split:
        return Split(labels[rows], [_shown(files.paths[row]) for row in rows], lambda indices: read(rows[indices]))

    splits = {name: split(of[name]) for name in SPLITS}
    # The bytes of each file and what they became: another version of a decoder may make other pixels of them.
    digests = {name: np.hstack([contents.digests[of[name]], contents.pixels[of[name]]]) for name in SPLITS}
    shown_classes = tuple(map(_shown, classes))
    return Dataset(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        classes=shown_classes,
        shape=shape,
        fingerprint=fingerprint(splits, digests, shown_classes, settings),
        notes=(
            *notes,
            *cache_notes,
            *_file_notes(files, contents),
            *oddities(splits, {name: contents.pixels[of[name]] for name in SPLITS}, shown_classes),
        ),
        rejected=tuple(
            f"{_shown(path)}: {reason}" for path, reason in zip(files.paths, contents.reasons, strict=True) if reason
        ),
        drawn=tuple(drawn),
    )


def _scan(config: ImageFolder, key: str) -> tuple[list[str], list[str], Files, np.ndarray, np.ndarray, list[str]]:
    """Classes, sections (folders of splits, or one without a name), files, and the label and section of each; notes.

    Only lists folders, and opens one image of every class. Raises `UserError` for what that shows to be useless.
    """
    root = os.path.expanduser(config.path)
    scanned_ns = time.time_ns()
    folders = _folders(root, key)
    sections = {"": ""}
    notes = []
    if "train" in folders and _folders(os.path.join(root, "train"), key):
        sections = {"train": "train", "test": "test"}
        if named := [name for name in VALIDATION_NAMES if name in folders]:
            sections["validation"] = named[0]
        if "test" not in folders:
            raise UserError(f"{key}: train/ without test/; {TAKES} (a link named test will do)")
        if ignored := sorted(set(folders) - set(sections.values())):
            notes.append(f"not used, beside train/ and test/: {', '.join(map(_shown, ignored))}")
    classes = _classes(config, key, {name: _folders(os.path.join(root, name), key) for name in sections.values()})
    if config.classes is None and all(name.isdecimal() for name in classes) and classes != sorted(classes, key=int):
        notes.append(
            f"class folders with numbers as names are sorted as text, like Keras does: {', '.join(classes[:4])}, …; "
            "data.classes=[…] gives another order"
        )
    paths: list[str] = []
    stats: list[tuple[int, int, int]] = []
    counts = []
    for folder in sections.values():
        inside = {_normal(as_utf8(name)): name for name in _folders(os.path.join(root, folder), key)}
        for name in classes:
            relative = os.path.join(folder, inside[name])
            before = len(paths)
            for path, times in sorted(_walk(root, relative, key), key=lambda walked: os.fsencode(walked[0])):
                paths.append(path)
                stats.append(times)
            counts.append(len(paths) - before)
            where = f"class folder {_shown(relative)!r}"
            if not counts[-1]:
                raise UserError(f"{key}: {where} is empty; takes at least one image in each")
            if not any(opens(os.path.join(root, path)) for path in paths[before:]):
                raise UserError(
                    f"{key}: {where} has no image among its {counts[-1]:,} files, such as "
                    f"{_shown(os.path.basename(paths[before]))}; takes at least one in each"
                )
    files = Files(root, paths, np.array(stats, np.int64).reshape(-1, 3), scanned_ns)
    labels = np.repeat(np.tile(np.arange(len(classes)), len(sections)), counts)
    section_of = np.repeat(np.repeat(np.arange(len(sections)), len(classes)), counts)
    return classes, list(sections), files, labels, section_of, notes


def _folders(path: str, key: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            # `DirEntry.is_dir` raises for a link to itself.
            return [entry.name for entry in entries if not _clutter(entry.name) and os.path.isdir(entry.path)]
    except FileNotFoundError:
        raise UserError(f"{key}: no such folder; {TAKES}") from None
    except NotADirectoryError:
        raise UserError(f"{key}: is a file; {TAKES}") from None
    except OSError as error:
        raise UserError(f"{key}: {_shown(path)} can't be listed ({error.strerror}); {TAKES}") from None


def _classes(config: ImageFolder, key: str, folders: dict[str, list[str]]) -> list[str]:
    """Class names, the same in every section."""
    found = {section: {_normal(as_utf8(name)) for name in names} for section, names in folders.items()}
    every = set.union(*found.values())
    if config.classes is not None:
        classes = [_normal(name) for name in config.classes]
        for section, names in found.items():
            if missing := [name for name in classes if name not in names]:
                raise UserError(
                    f"data.classes: no class folder {_shown(os.path.join(section, missing[0]))!r} in "
                    f"{_shown(config.path)}; takes names from {_some(sorted(names))}"
                )
        if len(set(classes)) < len(classes):
            raise UserError(f"data.classes={','.join(classes)}: names a folder twice; takes each once")
    else:
        classes = sorted(every)
        for section, names in found.items():
            if names != every:
                lacks = _some([repr(name) for name in sorted(every - names)])
                raise UserError(f"{key}: {section}/ has no class folder {lacks}; takes the same in each")
    if not classes:
        raise UserError(f"{key}: no folder in it; {TAKES}")
    if len(classes) == 1:
        raise UserError(f"{key}: one class only ({_shown(classes[0])}); takes at least two class folders")
    return classes


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
                    if _clutter(entry.name):
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
            raise UserError(f"{key}: {_shown(folder)} can't be listed ({error.strerror}); {TAKES}") from None


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
            f"{key}: class folder {_shown(os.path.join(sections[section], classes[label]))!r} has no readable image, "
            f"such as {_shown(os.path.basename(files.paths[row]))}: {contents.reasons[row]}; takes at least one in each"
        )


def _file_notes(files: Files, contents: Contents) -> list[str]:
    notes = []
    rejected = [f"{_shown(path)} ({why})" for path, why in zip(files.paths, contents.reasons, strict=True) if why]
    if rejected:
        notes.append(f"{len(rejected):,} of {len(files):,} files are unreadable and left out: {_some(rejected)}")
        if len(rejected) > EXAMPLES:
            notes[-1] += f" (all in {UNREADABLE} beside the report)"
    formats = Image.registered_extensions()
    misnamed = [
        f"{_shown(path)} ({format_})"
        for path, format_ in zip(files.paths, contents.formats, strict=True)
        if format_
        and formats.get(os.path.splitext(path)[1].lower(), format_) not in (format_, {"MPO": "JPEG"}.get(format_))
    ]
    if misnamed:
        notes.append(f"{len(misnamed):,} files hold another format than their names say: {_some(misnamed)}")
    return notes


def _clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in CLUTTER


def _normal(name: str) -> str:
    """The same name whether a file system keeps accents composed (Linux) or apart (macOS)."""
    return unicodedata.normalize("NFC", name)


def _shown(name: str) -> str:
    """A path on one line, in characters that any terminal and file can take."""
    if name.isprintable():
        return name
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)


def _some(names: list[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + ", …" * (len(names) > EXAMPLES)
