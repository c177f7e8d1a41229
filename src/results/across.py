"""Two sweeps side by side: what differs, and what changed beyond noise. Pure functions on what they left."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.measure import stats
from src.measure.stats import Interval
from src.results.variant import Result


@dataclass(frozen=True)
class Change:
    """One variant in both sweeps. `accuracy` is that of the second minus that of the first, in shares; `paired` says
    that both saw the same images; `real` that its interval, corrected for the number of variants, excludes 0.

    `speedup` holds what each sweep measured against its own dense baseline; None where one did not.
    """

    variant: str
    test_accuracy: tuple[float, float]
    accuracy: Interval
    paired: bool
    real: bool
    gzip_bytes: tuple[int, int]
    speedup: tuple[Interval, Interval] | None
    faster_or_slower: bool
    same_file: bool


def change(
    variant: str,
    results: tuple[Result, Result],
    correct: tuple[np.ndarray, np.ndarray],
    paired: bool,
    noise_floors: tuple[float, float],
    confidence: float,
    variants: int,
) -> Change:
    """`correct`: per sweep, bool `[n]`, was test image i classified rightly. `variants` are compared in all: whether a
    change is real is asked of intervals that hold for all of them at once (Bonferroni)."""
    first, second = correct
    strict = difference(first, second, paired, 1 - (1 - confidence) / variants)
    before, after = results
    speedup = (before.speedup, after.speedup) if before.speedup and after.speedup else None
    slack = (1 + noise_floors[0]) * (1 + noise_floors[1])
    return Change(
        variant=variant,
        test_accuracy=(float(first.mean()), float(second.mean())),
        accuracy=difference(first, second, paired, confidence),
        paired=paired,
        real=not strict.low <= 0 <= strict.high,
        gzip_bytes=(int(before.metrics["gzip_bytes"]), int(after.metrics["gzip_bytes"])),
        speedup=speedup,
        faster_or_slower=speedup is not None and apart(*speedup, slack),
        same_file=before.digest == after.digest,
    )


def apart(before: Interval, after: Interval, slack: float) -> bool:
    """Whether two intervals of speed-ups don't meet, even if one of them is off by a factor of `slack`."""
    return before.low / slack > after.high or after.low > before.high * slack


def difference(first: np.ndarray, second: np.ndarray, paired: bool, confidence: float) -> Interval:
    """Accuracy of `second` minus that of `first`, bool `[n]` and `[m]`.

    On different images the interval is method 10 of Newcombe (1998), Statistics in Medicine 17:873-890, for independent
    proportions: the distances to the ends of the two Wilson intervals, squared and added.
    """
    if paired:
        drop = stats.paired_drop(first, second, confidence).drop
        return Interval(-drop.estimate, -drop.high, -drop.low)
    a, b = (stats.wilson(int(each.sum()), len(each), confidence) for each in (first, second))
    estimate = b.estimate - a.estimate
    return Interval(
        estimate,
        estimate - math.hypot(b.estimate - b.low, a.high - a.estimate),
        estimate + math.hypot(b.high - b.estimate, a.estimate - a.low),
    )


def differing(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """The settings in which two nested configs differ, by dotted key."""
    differences: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*first, *second]):
        a, b, name = first.get(key), second.get(key), f"{prefix}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            differences |= differing(a, b, f"{name}.")
        elif a != b:
            differences[name] = (a, b)
    return differences
