"""Many files of images: what each holds, read and decoded in as many threads as there are processors."""

import errno
import functools
import hashlib
import logging
import operator
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from src.data.decode import MAX_BYTES, UnreadableError
from src.settings.check import UserError

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5
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


def content(files: Files, row: int) -> tuple[bytes, bool]:
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


def digest(image: np.ndarray) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(image)).digest()[:16], np.uint8)


def held(array: np.ndarray) -> Reader:
    return lambda rows: array[rows]


def decoding(files: Files, decode: Callable, shape: tuple[int, int, int], contents: Contents) -> Reader:
    """Decodes files again each time. Raises `UserError` for a file that changed since it was examined."""

    def read(rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *shape), np.uint8)

        def one(i: int) -> None:
            path = os.path.join(files.root, files.paths[rows[i]])
            try:
                data, same = content(files, rows[i])
                if not same and hashlib.sha256(data).digest() != contents.digests[rows[i]].tobytes():
                    raise UnreadableError("its bytes are others")
                images[i] = decode(data)[0]
            except UnreadableError as error:
                raise UserError(f"{path}: changed since this run began to use it ({error})") from None

        each(one, len(rows))
        return images

    return read


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_threads(), "images")


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(work: Callable[[int], None], count: int, progress: str = "") -> None:
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
