"""The pixels of many image files. Each file is examined once; its pixels then come from memory or from a file that is
kept between runs, or are decoded anew. Knows nothing of classes and splits."""

import errno
import hashlib
import logging
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from src.data.cache_folder import (
    DataFile,
    Known,
    data_path,
    locked,
    make_room,
    new_file,
    open_data,
    read_manifest,
    write_manifest,
)
from src.data.decode import UnreadableError
from src.data.files import Contents, Files, Reader, content, decoding, digest, each, held

log = logging.getLogger(__name__)


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
    with locked(cache / f"{key[:32]}.lock"):
        known = read_manifest(manifest, files)
        try:
            if size > cache_bytes:
                contents, reader = _without_cache(files, decode, shape, in_memory, known)
            else:
                data = _with_rows(files, decode, shape, known, cache, cache_bytes)
                contents, reader = data.contents, _kept(files, decode, shape, data)
                if in_memory:
                    reader = held(reader(np.arange(len(files))))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            notes.append(f"no room for {size / 2**30:.1f} GiB of decoded images in {cache}: they are decoded anew")
            contents, reader = _without_cache(files, decode, shape, in_memory, known)
        if known is None or contents is not known.contents:
            with suppress(OSError):  # a full disk again: the next run finds all of it out anew
                write_manifest(manifest, files, contents)
    return contents, reader, notes


def _without_cache(
    files: Files, decode: Callable, shape: tuple[int, int, int], in_memory: bool, known: Known | None
) -> tuple[Contents, Reader]:
    if in_memory:
        array = np.zeros((len(files), *shape), np.uint8)
        return _examine(files, decode, shape, None, None, array.__setitem__), held(array)
    contents = known.contents if known and known.all else _examine(files, decode, shape, known, None, None)
    return contents, decoding(files, decode, shape, contents)


def _with_rows(
    files: Files, decode: Callable, shape: tuple[int, int, int], known: Known | None, cache: Path, cache_bytes: int
) -> DataFile:
    """A file with a row for each of `files`; made of the rows of an earlier one where there is one."""
    earlier = open_data(cache, shape, known.contents) if known else None
    if earlier and known and known.all:
        os.utime(earlier.path)  # what was used last makes room last
        return earlier
    row_bytes = math.prod(shape)
    make_room(cache, len(files) * row_bytes, cache_bytes)
    descriptor, temporary = new_file(cache)
    try:
        os.ftruncate(descriptor, len(files) * row_bytes)

        def write(row: int, image: np.ndarray) -> None:
            os.pwrite(descriptor, np.ascontiguousarray(image).data, row * row_bytes)

        contents = _examine(files, decode, shape, known, earlier, write)
        path = data_path(cache, shape, contents)
        os.replace(temporary, path)
    except BaseException:
        os.close(descriptor)
        temporary.unlink()
        raise
    return DataFile(path, descriptor, shape, contents)


def _examine(
    files: Files,
    decode: Callable,
    shape: tuple[int, int, int],
    known: Known | None,
    earlier: DataFile | None,
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
            data, _ = content(files, row)
            found.digests[row] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
            image, found.formats[row] = decode(data)
        except UnreadableError as error:
            found.reasons[row] = str(error)
            return
        found.pixels[row] = digest(image)
        if write is not None:
            write(row, image)

    each(examine, len(files), "images read")
    return found


def _kept(files: Files, decode: Callable, shape: tuple[int, int, int], data: DataFile) -> Reader:
    """Reads rows of a data file; damaged ones are decoded anew and written back."""
    again = decoding(files, decode, shape, data.contents)

    def read(rows: np.ndarray) -> np.ndarray:
        images = np.zeros((len(rows), *shape), np.uint8)
        damaged: list[int] = []

        def one(i: int) -> None:
            if not data.contents.reasons[rows[i]] and not data.get(int(rows[i]), images[i]):
                damaged.append(i)

        each(one, len(rows))
        if damaged:
            log.warning("%s: %d damaged rows, decoded anew", data.path, len(damaged))
            images[damaged] = again(rows[damaged])
            for i in damaged:
                data.mend(int(rows[i]), images[i])
        return images

    return read
