"""What can be said of a difference: paired tests and intervals of accuracy, intervals of latency ratios, Pareto fronts.

Pure functions on arrays: nothing here knows of files, models or configs. Differences of accuracy are *drops*, baseline
minus variant, in shares (0.01 is one point): above 0 the variant is worse.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

# Quantiles of the normal and of Student's t, and the binomial: scipy.stats would take almost a second to import.

Call = Literal["better", "equal within the margin", "no worse", "worse", "undecided"]


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval."""

    estimate: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class PairedDrop:
    """Two models on the same images: what changed, and the drop in accuracy with its interval and exact p-value."""

    both_right: int
    right_to_wrong: int
    wrong_to_right: int
    both_wrong: int
    drop: Interval
    p_value: float

    @property
    def images(self) -> int:
        return self.both_right + self.right_to_wrong + self.wrong_to_right + self.both_wrong


@dataclass(frozen=True)
class Verdict:
    """What the numbers allow to be said; `needs_images` is given where the call is "undecided"."""

    call: Call
    needs_images: int | None = None

    @property
    def short(self) -> str:
        """The call as a table has it."""
        return self.call.removesuffix(" within the margin")

    def __str__(self) -> str:
        return self.call if self.needs_images is None else f"{self.call}: needs about {self.needs_images:,} images"


# --- Accuracy --------------------------------------------------------------------------------------------------


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927, JASA 22:209-212). 0 <= low <= estimate <= high <= 1.

    Raises `ValueError` if `successes` is not a count of `n` > 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n}: takes a count of at least 0 and at most n > 0")
    z = normal_quantile(confidence)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and at n one end is the share itself, which rounding would pass.
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def paired_drop(baseline: np.ndarray, variant: np.ndarray, confidence: float = 0.95) -> PairedDrop:
    """Drop from `baseline` to `variant`, both bool `[n]`: was image i classified rightly.

    The interval is Newcombe's for paired data, the p-value McNemar's exact one.
    Raises `ValueError` if the two are not of the same images or there are none.
    """
    if baseline.shape != variant.shape or baseline.ndim != 1 or not len(baseline):
        raise ValueError(f"shapes {baseline.shape} and {variant.shape}: takes two arrays [n] of the same n > 0 images")
    both, second_only = np.count_nonzero(baseline & variant), np.count_nonzero(~baseline & variant)
    first_only, neither = np.count_nonzero(baseline & ~variant), np.count_nonzero(~baseline & ~variant)
    return _paired(confidence, int(both), int(first_only), int(second_only), int(neither))


def _paired(confidence: float, both: int, first_only: int, second_only: int, neither: int) -> PairedDrop:
    drop = newcombe_paired(both, first_only, second_only, neither, confidence)
    return PairedDrop(both, first_only, second_only, neither, drop, mcnemar_exact(first_only, second_only))


def newcombe_paired(both: int, first_only: int, second_only: int, neither: int, confidence: float = 0.95) -> Interval:
    """Difference of two paired proportions, first minus second.

    Method 10 of Newcombe (1998), Statistics in Medicine 17:2635-2650: Wilson intervals of the two proportions, squared
    and added with the correlation between them, which is corrected for continuity. Unlike the textbook (Wald)
    interval it keeps its coverage where hardly an image changed.
    """
    n = both + first_only + second_only + neither
    first, second = wilson(both + first_only, n, confidence), wilson(both + second_only, n, confidence)
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    concordance: float = both * neither - first_only * second_only
    if concordance > 0:
        concordance = max(concordance - n / 2, 0)
    phi = concordance / math.sqrt(margins) if margins else 0.0

    def distance(a: float, b: float) -> float:
        return math.sqrt(a * a - 2 * phi * a * b + b * b)  # phi is below 1: nothing negative

    difference = (first_only - second_only) / n
    return Interval(
        difference,
        difference - distance(first.estimate - first.low, second.high - second.estimate),
        difference + distance(second.estimate - second.low, first.high - first.estimate),
    )


def mcnemar_exact(right_to_wrong: int, wrong_to_right: int) -> float:
    """Two-sided p-value that as many images go one way as the other (McNemar 1947; exact: binomial with p = 1/2)."""
    fewer, more = sorted([right_to_wrong, wrong_to_right])
    from scipy.special import betainc  # here and below: it takes a fifth of a second, and a plan needs none

    # The binomial's distribution function. SciPy 1.17's own, `bdtr`, is off by 0.3 at 10^9 images, NaN above 2^31.
    return min(1.0, 2 * float(betainc(more, fewer + 1, 0.5))) if more else 1.0


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values corrected for having asked several questions (Holm 1979, Scandinavian Journal of Statistics 6:65-70).

    NaN is no question: it stays NaN and does not count.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # NaNs are sorted last
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def verdict(paired: PairedDrop, margin: float, confidence: float = 0.95, adjusted_p: float | None = None) -> Verdict:
    """The call on one variant. `margin` is the drop that its user would not mind; `adjusted_p` the Holm-corrected
    p-value.

    The first rule that holds decides:

    1. the whole interval lies inside (-margin, margin): *equal within the margin*, even where a smaller difference
       than the margin is certain;
    2. the interval lies on one side of 0 and the corrected p-value is at most 1 - confidence: *worse* or *better*;
    3. the interval ends below a margin of more than 0: *no worse* than its user can afford, and perhaps better;
    4. *undecided*. `needs_images` is how many images would decide it by one of these rules, were the shares of images
       that changed, one way and the other, to stay what they are.
    """
    adjusted = paired.p_value if adjusted_p is None else adjusted_p
    decided = _call(paired, margin, confidence, adjusted)
    if decided != "undecided":
        return Verdict(decided)
    # A p-value that is too small for a float is 0, however it is corrected.
    correction = adjusted / paired.p_value if paired.p_value else 1.0
    return Verdict(decided, _images_to_decide(paired, margin, confidence, correction))


def _call(paired: PairedDrop, margin: float, confidence: float, adjusted_p: float) -> Call:
    low, high = paired.drop.low, paired.drop.high
    if -margin < low and high < margin:
        return "equal within the margin"
    if adjusted_p <= 1 - confidence and low > 0:
        return "worse"
    if adjusted_p <= 1 - confidence and high < 0:
        return "better"
    if margin > 0 and high < margin:
        return "no worse"
    return "undecided"


def _images_to_decide(paired: PairedDrop, margin: float, confidence: float, correction: float) -> int | None:
    """The fewest images, of the same shares as now, for which the rule decides; None where a billion would not do.

    `correction` is what Holm multiplied the p-value by; it stays what it is.
    """
    counts = (paired.both_right, paired.right_to_wrong, paired.wrong_to_right, paired.both_wrong)

    def decides(images: int) -> bool:
        more = _paired(confidence, *(round(count * images / paired.images) for count in counts))
        return _call(more, margin, confidence, more.p_value * correction) != "undecided"

    low = high = paired.images
    while not decides(high):
        low, high = high, 2 * high
        if high > 1_000_000_000:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return _round_up(high)


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Share of images that two models put in the same class, right or wrong."""
    return float(np.mean(first == second))


def class_drops(
    labels: np.ndarray, baseline: np.ndarray, variant: np.ndarray, confidence: float = 0.95
) -> dict[int, PairedDrop]:
    """Drop of every class that has images, the largest first. `labels`: int `[n]`; the others: bool `[n]`, rightly
    classified.

    The intervals hold for all classes at once (Bonferroni): the first entry was picked because it is the largest.
    """
    classes = np.unique(labels)
    each = 1 - (1 - confidence) / max(1, len(classes))
    drops = {int(c): paired_drop(baseline[labels == c], variant[labels == c], each) for c in classes}
    return dict(sorted(drops.items(), key=lambda item: -item[1].drop.estimate))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Mean gap between how sure a model is and how often it is right (ECE).

    `confidence`: `[n]`, the probability of the predicted class; `correct`: bool `[n]`. Equal-width bins, weighted by
    the images in them (Naeini et al. 2015, AAAI; 15 bins as in Guo et al. 2017, ICML). NaN of no images.
    """
    if not len(confidence):
        return math.nan
    # Bins are (low, high]: a confidence of exactly 1 belongs to the last one.
    index = np.clip(np.ceil(confidence.astype(float) * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(index, confidence, bins) - np.bincount(index, correct, bins)
    return float(np.abs(gap).sum() / len(confidence))


# --- Latency ---------------------------------------------------------------------------------------------------


def bootstrap_ratio(log_ratios: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Ratio of two latencies from paired rounds. `log_ratios`: `[instances, rounds]`, log(variant) - log(baseline).

    The estimate is the mean over instances of the median over rounds. Two instances of one file differ for as long as
    they live, so the interval comes from a hierarchical bootstrap (Kalibera and Jones 2013, ISMM) that draws instances
    anew, each with all of its rounds: to draw those anew as well would count their noise twice (Davison and Hinkley
    1997, Bootstrap Methods and their Application, section 3.8). A bootstrap of few instances is too narrow, so its
    quantiles are stretched to what Student's t asks for (Hesterberg 2015, The American Statistician 69:371-386). One
    instance says nothing about another: the interval is then 0 to infinity.

    Raises `ValueError` if there is no instance or no round.
    """
    if not log_ratios.size:
        raise ValueError(f"shape {log_ratios.shape}: takes [instances, rounds], at least one of each")
    medians = np.median(log_ratios, axis=1)
    n, estimate = len(medians), medians.mean()
    low, high = -math.inf, math.inf
    if n > 1:
        rng = np.random.default_rng(seed)
        means = medians[rng.integers(n, size=(resamples, n))].mean(axis=1)
        from scipy.special import stdtrit

        stretch = math.sqrt(n / (n - 1)) * -float(stdtrit(n - 1, _tail(confidence))) / normal_quantile(confidence)
        ends = np.quantile(means, [_tail(confidence), 1 - _tail(confidence)])
        low, high = estimate + stretch * (ends - estimate)
    with np.errstate(over="ignore"):  # e^710 is infinite
        return Interval(*np.exp([estimate, low, high]).tolist())


# --- Choice ----------------------------------------------------------------------------------------------------


def pareto_front(costs: np.ndarray) -> np.ndarray:
    """Which rows of `costs` `[n, k]` (less is better in every column) no other row beats: bool `[n]`.

    A row is beaten by one that is nowhere worse and somewhere better; equal rows stay together. A row with a NaN is on
    no front.
    """
    no_worse = (costs[:, None] <= costs[None]).all(axis=2)
    better = (costs[:, None] < costs[None]).any(axis=2)
    return ~((no_worse & better).any(axis=0) | np.isnan(costs).any(axis=1))


def normal_quantile(confidence: float) -> float:
    """How many standard errors an interval of the normal reaches to either side: 1.96 for a confidence of 0.95."""
    from scipy.special import ndtri

    return -float(ndtri(_tail(confidence)))


def _tail(confidence: float) -> float:
    """What lies beyond either end of an interval. From the other side, 0.5 + confidence / 2, it would round to 1 for a
    confidence near 1, such as that of each of a million classes."""
    return (1 - confidence) / 2


def _round_up(number: float) -> int:
    """To two significant digits: more would promise what an extrapolation can't keep."""
    step = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / step) * step
