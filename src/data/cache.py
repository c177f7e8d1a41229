"""The pixels of many image files. Each file is examined once; its pixels then come from memory or from a file that is
kept between runs, or are decoded anew. Knows nothing of classes and splits.

In the cache folder, `<key>.npz` is a manifest (for each path its size and times, digests, format, reason if unreadable)
and `<content>.u8` the decoded rows one after another. Every row is compared with its digest when a process first reads
it, so that a damaged or half-written file costs decoding and never a wrong pixel.
"""

import errno
import functools
import hashlib
import logging
import math
import operator
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.data.decode import MAX_BYTES, UnreadableError
from src.machine import locks
from src.settings.check import UserError

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5
# A file that was written so shortly before the scan may be written again without a change of its time stamp.
SETTLED_NS = 2_000_000_000
ABANDONED_SECONDS = 24 * 3600
# Errors that stay. Where a file can't be read for another reason, such as a failing disk, it may still be an image.
LASTING = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)

Reader = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Files:
    """Files below `root`; `stats`: int64 `[n, 3]`, size in bytes, mtime and ctime in ns; `scanned_ns`: when."""

    root: str
    paths: Sequence[str]
    stats: np.ndarray
    scanned_ns: int

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Contents:
    """What each file holds. `digests`: SHA-256 of its bytes, uint8 `[n, 32]`; `pixels`: the first 16 bytes of the
    SHA-256 of its decoded pixels, uint8 `[n, 16]`; `formats`; `reasons`: why it is unreadable, or empty."""

    digests: np.ndarray
    pixels: np.ndarray
    formats: list[str]
    reasons: list[str]


def read_files(
    files: Files,
    decode: Callable[[bytes], tuple[np.ndarray, str]],
    shape: tuple[int, int, int],
    identity: str,
    memory_bytes: int,
    cache: Path | None,
    cache_bytes: int,
) -> tuple[Contents, Reader, list[str]]:
    """What the files hold; a reader of rows (indices of files, `[b]`, to uint8 `[b, *shape]`); and notes.

    `decode` gives an image of `shape` and its format or raises `UnreadableError`; `identity` names all that its result
    depends on besides the bytes.
    """
    size = len(files) * math.prod(shape)
    in_memory = size <= memory_bytes
    if cache is None:
        return *_without_cache(files, decode, shape, in_memory, None), []
    notes = []
    key = hashlib.sha256(f"{os.path.realpath(files.root)}\0{identity}".encode(errors="surrogateescape")).hexdigest()
    manifest = cache / f"{key[:32]}.npz"
    with _locked(cache / f"{key[:32]}.lock"):
        known = _read_manifest(manifest, files)
        try:
            if size > cache_bytes:
                contents, reader = _without_cache(files, decode, shape, in_memory, known)
            else:
                data = _with_rows(files, decode, shape, known, cache, cache_bytes)
                contents, reader = data.contents, _kept(files, decode, shape, data)
                if in_memory:
                    reader = _held(reader(np.arange(len(files))))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            notes.append(f"no room for {size / 2**30:.1f} GiB of decoded images in {cache}: they are decoded anew")
            contents, reader = _without_cache(files, decode, shape, in_memory, known)
        if known is None or contents is not known.contents:
            with suppress(OSError):  # a full disk again: the next run finds all of it out anew
                _write_manifest(manifest, files, contents)
    return contents, reader, notes


# --- Finding out what files hold -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """A manifest that was read. `rows`: for each file of this run its row there, or -1 for one that is new or may have
    changed, int64 `[n]`; `all`: whether every file is what it was and none has gone."""

    contents: Contents
    rows: np.ndarray

    @property
    def all(self) -> bool:
        return np.array_equal(self.rows, np.arange(len(self.contents.reasons)))


class _DataFile:
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
            self.checked[row] = count == self.row_bytes and np.array_equal(_digest(image), self.contents.pixels[row])
        return bool(self.checked[row])

    def mend(self, row: int, image: np.ndarray) -> None:
        os.pwrite(self.descriptor, image.data, row * self.row_bytes)


def _without_cache(
    files: Files, decode: Callable, shape: tuple[int, int, int], in_memory: bool, known: _Known | None
) -> tuple[Contents, Reader]:
    if in_memory:
        array = np.zeros((len(files), *shape), np.uint8)
        return _examine(files, decode, shape, None, None, array.__setitem__), _held(array)
    contents = known.contents if known and known.all else _examine(files, decode, shape, known, None, None)
    return contents, _decoding(files, decode, shape, contents)


def _with_rows(
    files: Files, decode: Callable, shape: tuple[int, int, int], known: _Known | None, cache: Path, cache_bytes: int
) -> _DataFile:
    """A file with a row for each of `files`; made of the rows of an earlier one where there is one."""
    earlier = _open_data(cache, shape, known.contents) if known else None
    if earlier and known and known.all:
        os.utime(earlier.path)  # what was used last makes room last
        return earlier
    row_bytes = math.prod(shape)
    _make_room(cache, len(files) * row_bytes, cache_bytes)
    descriptor, temporary = _temporary(cache)
    try:
        os.ftruncate(descriptor, len(files) * row_bytes)

        def write(row: int, image: np.ndarray) -> None:
            os.pwrite(descriptor, np.ascontiguousarray(image).data, row * row_bytes)

        contents = _examine(files, decode, shape, known, earlier, write)
        path = _data_path(cache, shape, contents)
        os.replace(temporary, path)
    except BaseException:
        os.close(descriptor)
        temporary.unlink()
        raise
    return _DataFile(path, descriptor, shape, contents)


def _open_data(cache: Path, shape: tuple[int, int, int], contents: Contents) -> _DataFile | None:
    path = _data_path(cache, shape, contents)
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    data = _DataFile(path, descriptor, shape, contents)
    return data if os.fstat(descriptor).st_size == len(contents.reasons) * data.row_bytes else None


def _examine(
    files: Files,
    decode: Callable,
    shape: tuple[int, int, int],
    known: _Known | None,
    earlier: _DataFile | None,
    write: Callable[[int, np.ndarray], None] | None,
) -> Contents:
    """Reads, digests and decodes every file, and gives its pixels to `write`; spares itself the files that are known
    where nobody wants their pixels or `earlier`, the rows of `known`, has them."""
    found = Contents(
        np.zeros((len(files), 32), np.uint8), np.zeros((len(files), 16), np.uint8), [""] * len(files), [""] * len(files)
    )

    def spared(row: int) -> bool:
        was = int(known.rows[row]) if known else -1
        if was < 0 or known is None:
            return False
        reason = known.contents.reasons[was]
        if write is not None and not reason:
            image = np.empty(shape, np.uint8)
            if earlier is None or not earlier.get(was, image):
                return False
            write(row, image)
        found.digests[row], found.pixels[row] = known.contents.digests[was], known.contents.pixels[was]
        found.formats[row], found.reasons[row] = known.contents.formats[was], reason
        return True

    def examine(row: int) -> None:
        if spared(row):
            return
        try:
            data, _ = _bytes(files, row)
            found.digests[row] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
            image, found.formats[row] = decode(data)
        except UnreadableError as error:
            found.reasons[row] = str(error)
            return
        found.pixels[row] = _digest(image)
        if write is not None:
            write(row, image)

    _each(examine, len(files), "images read")
    return found


def _bytes(files: Files, row: int) -> tuple[bytes, bool]:
    """The content of a file, and whether its size and times are still those of the scan."""
    if files.stats[row, 0] > MAX_BYTES:
        raise UnreadableError(f"a file of {files.stats[row, 0] / 2**30:.1f} GiB, takes at most {MAX_BYTES / 2**30:.0f}")
    try:
        descriptor = os.open(os.path.join(files.root, files.paths[row]), os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            same = [status.st_size, status.st_mtime_ns, status.st_ctime_ns] == files.stats[row].tolist()
            # Fewer system calls than a file object, each of which may wait for the interpreter's lock.
            data = os.read(descriptor, status.st_size)
            while len(data) < status.st_size and (more := os.read(descriptor, status.st_size)):
                data += more
            return data, same
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in LASTING:
            raise UnreadableError(reason) from None
        raise UserError(f"{os.path.join(files.root, files.paths[row])}: can't be read ({reason})") from None


def _digest(image: np.ndarray) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(image)).digest()[:16], np.uint8)


# --- Readers ---------------------------------------------------------------------------------------------------


def _held(array: np.ndarray) -> Reader:
    return lambda rows: array[rows]


def _decoding(files: Files, decode: Callable, shape: tuple[int, int, int], contents: Contents) -> Reader:
    """Decodes files again each time. Raises `UserError` for a file that changed since it was examined."""

    def read(rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *shape), np.uint8)

        def one(i: int) -> None:
            path = os.path.join(files.root, files.paths[rows[i]])
            try:
                data, same = _bytes(files, rows[i])
                if not same and hashlib.sha256(data).digest() != contents.digests[rows[i]].tobytes():
                    raise UnreadableError("its bytes are others")
                images[i] = decode(data)[0]
            except UnreadableError as error:
                raise UserError(f"{path}: changed since this run began to use it ({error})") from None

        _each(one, len(rows))
        return images

    return read


def _kept(files: Files, decode: Callable, shape: tuple[int, int, int], data: _DataFile) -> Reader:
    """Reads rows of a data file; damaged ones are decoded anew and written back."""
    again = _decoding(files, decode, shape, data.contents)

    def read(rows: np.ndarray) -> np.ndarray:
        images = np.zeros((len(rows), *shape), np.uint8)
        damaged: list[int] = []

        def one(i: int) -> None:
            if not data.contents.reasons[rows[i]] and not data.get(int(rows[i]), images[i]):
                damaged.append(i)

        _each(one, len(rows))
        if damaged:
            log.warning("%s: %d damaged rows, decoded anew", data.path, len(damaged))
            images[damaged] = again(rows[damaged])
            for i in damaged:
                data.mend(int(rows[i]), images[i])
        return images

    return read


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_threads(), "images")


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _each(work: Callable[[int], None], count: int, progress: str = "") -> None:
    """`work(i)` for every i below `count`, in as many threads as there are processors. Raises what the first raises."""
    left, stopped = iter(range(count)), False  # `next` on a range is atomic: threads take from it what is next

    def worker() -> None:
        for i in left:
            if stopped:
                return
            work(i)

    began = time.monotonic()
    futures = [_pool().submit(worker) for _ in range(min(_threads(), count))]
    try:
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, PROGRESS_SECONDS if progress else None, FIRST_EXCEPTION)
            for future in done:
                future.result()
            if waiting and progress:
                so_far = count - operator.length_hint(left)
                speed = so_far / (time.monotonic() - began)
                log.info("%s of %s %s, %s a second", f"{so_far:,}", f"{count:,}", progress, f"{speed:,.0f}")
    finally:
        stopped = True
        wait(futures)


# --- The cache folder ------------------------------------------------------------------------------------------


def _data_path(cache: Path, shape: tuple[int, int, int], contents: Contents) -> Path:
    return cache / f"{hashlib.sha256(str(shape).encode() + contents.pixels.tobytes()).hexdigest()[:32]}.u8"


def _make_room(cache: Path, size: int, limit: int) -> None:
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
def _locked(path: Path) -> Iterator[None]:
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


def _temporary(cache: Path) -> tuple[int, Path]:
    """A new file, open, that others may read: a cache can be shared, which `tempfile` does not let it be."""
    path = cache / f"{secrets.token_hex(8)}.tmp"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), path


def _write_manifest(path: Path, files: Files, contents: Contents) -> None:
    def joined(texts: Sequence[str]) -> np.ndarray:
        return np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), np.uint8)

    descriptor, temporary = _temporary(path.parent)
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


def _read_manifest(path: Path, files: Files) -> _Known | None:
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
    return _Known(contents, np.where(same, rows, -1))
