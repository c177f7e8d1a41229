"""Bytes under several compressors, and the bound below which no code without memory gets."""

import zlib
from typing import Any

import numpy as np

GZIP_LEVEL = 6  # the default of gzip, and what the field's tutorials report
CHUNK = 1_048_576  # bytes


def gzip_bytes(data: Any, level: int = GZIP_LEVEL) -> int:
    """Bytes of `data` as one gzip member without name and time stamp: the same for the same bytes. Releases the GIL."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, 31)
    view = memoryview(data)
    return sum(len(compressor.compress(view[i : i + CHUNK])) for i in range(0, len(view), CHUNK)) + len(
        compressor.flush()
    )


def _xz_bytes(data: Any) -> int:
    import lzma

    compressor = lzma.LZMACompressor(preset=6)
    view = memoryview(data)
    return sum(len(compressor.compress(view[i : i + CHUNK])) for i in range(0, len(view), CHUNK)) + len(
        compressor.flush()
    )


def _zstd_bytes(data: Any) -> int:
    import zstandard  # type: ignore[import-not-found,unused-ignore]

    return len(zstandard.ZstdCompressor(level=19).compress(data))


COMPRESSORS = {
    "gzip6": gzip_bytes,
    "gzip9": lambda data: gzip_bytes(data, 9),
    "xz": _xz_bytes,
    "zstd": _zstd_bytes,
}


def entropy_bits(values: np.ndarray, zero: np.ndarray) -> float:
    """Bits below which no memoryless code gets: a flag per value (is it zero), then the bytes of those that are not,
    each byte position with statistics of its own. For one-byte values this is their Shannon entropy.

    `values`: `[n]`; `zero`: bool `[n]`.
    """
    flags = _entropy(np.array([np.count_nonzero(zero), len(zero) - np.count_nonzero(zero)]))
    planes = values[~zero].view(np.uint8).reshape(-1, values.dtype.itemsize)
    return flags + sum(_entropy(_histogram(planes[:, k])) for k in range(planes.shape[1]))


def _entropy(counts: np.ndarray) -> float:
    counts = counts[counts.nonzero()].astype(float)
    return float(-(counts * np.log2(counts / counts.sum())).sum()) if len(counts) else 0.0


def _histogram(plane: np.ndarray) -> np.ndarray:
    """In chunks: bincount makes eight-byte integers of what it is given."""
    return sum(
        (np.bincount(plane[i : i + CHUNK], minlength=256) for i in range(0, len(plane), CHUNK)),
        start=np.zeros(256, dtype=np.int64),
    )
