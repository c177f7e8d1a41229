"""The folder in which decoded images are kept between runs.

`<key>.npz` is a manifest (for each path its size and times, digests, format, reason if unreadable) and `<content>.u8`
the decoded rows one after another. Every row is compared with its digest when a process first reads it, so that a
damaged or half-written file costs decoding and never a wrong pixel.
"""

import errno
import hashlib
import logging
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.data.files import Contents, Files, digest
from src.machine import locks
from src.settings.check import UserError

log = logging.getLogger(__name__)

# A file that was written so shortly before the scan may be written again without a change of its time stamp.
SETTLED_NS = 2_000_000_000
ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Known:
    """A manifest that was read. `rows`: for each file of this run its row there, or -1 for one that is new or may have
    changed, int64 `[n]`; `all`: whether every file is what it was and none has gone."""

    contents: Contents
    rows: np.ndarray

    @property
    def all(self) -> bool:
        return np.array_equal(self.rows, np.arange(len(self.contents.reasons)))


class DataFile:
    """Rows of decoded images in a file, each compared with its digest the first time that it is read."""

    def __init__(self, path: Path, descriptor: int, shape: tuple[int, int, int], contents: Contents) -> None:
        # Read rather than mapped: mapped pages count as this process's memory until the kernel wants them back.
        self.path, self.descriptor, self.contents, self.row_bytes = path, descriptor, contents, math.prod(shape)
        self.checked = np.zeros(len(contents.reasons), bool)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self.descriptor)

    def get(self, row: int, image: np.ndarray) -> bool:
        """Reads a row into `image` (uint8 `[height, width, channels]`) and says whether it is sound."""
        count = os.preadv(self.descriptor, [image.data], row * self.row_bytes)
        if not self.checked[row]:
            self.checked[row] = count == self.row_bytes and np.array_equal(digest(image), self.contents.pixels[row])
        return bool(self.checked[row])

    def mend(self, row: int, image: np.ndarray) -> None:
        os.pwrite(self.descriptor, image.data, row * self.row_bytes)


def open_data(cache: Path, shape: tuple[int, int, int], contents: Contents) -> DataFile | None:
    path = data_path(cache, shape, contents)
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    data = DataFile(path, descriptor, shape, contents)
    return data if os.fstat(descriptor).st_size == len(contents.reasons) * data.row_bytes else None


def data_path(cache: Path, shape: tuple[int, int, int], contents: Contents) -> Path:
    return cache / f"{hashlib.sha256(str(shape).encode() + contents.pixels.tobytes()).hexdigest()[:32]}.u8"


def make_room(cache: Path, size: int, limit: int) -> None:
    """Deletes what builds that were killed left behind, and the data files used longest ago until `size` bytes more
    stay within `limit`. A process that still reads one keeps it until it ends. Raises `OSError` for a full disk."""
    for path in cache.glob("*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()
    kept = []
    for path in cache.glob("*.u8"):
        with suppress(FileNotFoundError):
            kept.append((path.stat().st_mtime, path.stat().st_size, path))
    total = size + sum(bytes_ for _, bytes_, _ in kept)
    for _, bytes_, path in sorted(kept):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= bytes_
    if shutil.disk_usage(cache).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(cache))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time: a second one that wants the same images waits, and finds them."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"data.cache={path.parent}: {error.strerror}; takes a folder that can be written, or null"
        ) from None
    with file:
        with suppress(OSError):  # on a network file system without locks two builds at once cost time only
            locks.wait_for(file, "another process is reading the same images; waiting for it")
        yield


def new_file(cache: Path) -> tuple[int, Path]:
    """A new file, open, that others may read: a cache can be shared, which `tempfile` does not let it be."""
    path = cache / f"{secrets.token_hex(8)}.tmp"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), path


def write_manifest(path: Path, files: Files, contents: Contents) -> None:
    def joined(texts: Sequence[str]) -> np.ndarray:
        return np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), np.uint8)

    descriptor, temporary = new_file(path.parent)
    with os.fdopen(descriptor, "wb") as file:
        np.savez(
            file,
            paths=joined(files.paths),
            stats=files.stats,
            scanned_ns=np.int64(files.scanned_ns),
            digests=contents.digests,
            pixels=contents.pixels,
            formats=joined(contents.formats),
            reasons=joined(contents.reasons),
        )
    os.replace(temporary, path)


def read_manifest(path: Path, files: Files) -> Known | None:
    def split(joined: np.ndarray) -> list[str]:
        return joined.tobytes().decode(errors="surrogateescape").split("\0")

    try:
        with np.load(path, allow_pickle=False) as stored:
            paths, stats, scanned_ns = split(stored["paths"]), stored["stats"], int(stored["scanned_ns"])
            contents = Contents(stored["digests"], stored["pixels"], split(stored["formats"]), split(stored["reasons"]))
    except FileNotFoundError:
        return None
    except Exception as error:  # damaged: zip, zlib and NumPy each have errors of their own
        log.warning("%s: not readable (%s), made anew", path, error)
        return None
    columns = (paths, stats, contents.digests, contents.pixels, contents.formats, contents.reasons)
    if len({len(column) for column in columns}) > 1:
        return None
    where = {known: row for row, known in enumerate(paths)}
    rows = np.array([where.get(file, -1) for file in files.paths], np.int64)
    # The time of the last change of any kind can't be set by hand, unlike that of the last write.
    same = (stats[rows] == files.stats).all(axis=1) & (files.stats[:, 2] < scanned_ns - SETTLED_NS)
    # Whoever looked last may have had other rights.
    denied = [row for row, reason in enumerate(contents.reasons) if reason == os.strerror(errno.EACCES)]
    for i in np.flatnonzero(np.isin(rows, denied)).tolist():
        same[i] &= not os.access(os.path.join(files.root, files.paths[i]), os.R_OK)
    return Known(contents, np.where(same, rows, -1))
