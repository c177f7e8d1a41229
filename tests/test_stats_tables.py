"""Intervals, tests and verdicts of all small tables, of a grid of large ones, and against simulated truth."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from src.measure import stats
from src.measure.stats import PairedDrop, Verdict
from src.results import across

Table = tuple[int, int, int, int]


def splits(n: int) -> Iterator[Table]:
    """Every way in which `n` images can be both right, right to wrong, wrong to right and both wrong."""
    for both, first, second in itertools.product(range(n + 1), repeat=3):
        if both + first + second <= n:
            yield both, first, second, n - both - first - second


def paired(table: Table, confidence: float = 0.95) -> PairedDrop:
    counts = list(table)
    baseline, variant = np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)
    return stats.paired_drop(baseline, variant, confidence)


def holds(table: Table, confidence: float) -> None:
    """What is true of the interval of every table, and of the p-value."""
    both, first_only, second_only, neither = table
    drop = stats.newcombe_paired(*table, confidence)
    assert -1 <= drop.low <= drop.estimate <= drop.high <= 1, table
    assert drop.estimate == (first_only - second_only) / sum(table), table
    assert drop.low < drop.high, table  # no number of images leaves no doubt
    other = stats.newcombe_paired(both, second_only, first_only, neither, confidence)
    assert max(abs(other.low + drop.high), abs(other.high + drop.low)) < 1e-12, table
    assert 0 <= stats.mcnemar_exact(first_only, second_only) <= 1, table


def is_judged(table: Table, margin: float, confidence: float, correction: float) -> None:
    """A verdict is reached, and it is the one that interval and p-value allow."""
    found = paired(table, confidence)
    adjusted = min(1.0, correction * found.p_value)
    judged = stats.verdict(found, margin, confidence, adjusted)
    low, high = found.drop.low, found.drop.high
    within, apart = -margin < low and high < margin, low > 0 or high < 0
    if within:
        assert judged == Verdict("equal within the margin"), table
    elif apart and adjusted <= 1 - confidence:
        assert judged == Verdict("worse" if low > 0 else "better"), table
    elif margin > 0 and high < margin:
        assert judged == Verdict("no worse"), table
    else:
        assert judged.call == "undecided", table
        # Only that nothing is less than nothing is never decided.
        never = margin == 0 and found.drop.estimate == 0
        assert never if judged.needs_images is None else judged.needs_images > found.images, table


@pytest.mark.parametrize("n", range(1, 61))
def test_every_split_of_up_to_60_images_has_an_interval(n: int) -> None:
    # The two models in the other order are the mirror image, which `holds` confirms.
    for table in splits(n):
        if table[1] >= table[2]:
            holds(table, 0.95)


@pytest.mark.parametrize("confidence", [0.51, 0.8, 0.99, 1 - 1e-9, np.nextafter(1, 0)])
def test_every_split_of_up_to_12_images_has_an_interval_at_every_confidence(confidence: float) -> None:
    for table in itertools.chain.from_iterable(map(splits, range(1, 13))):
        holds(table, confidence)


SETTINGS = list(itertools.product((0.0, 0.01, 0.3), (0.95, 0.8, 0.999), (1.0, 11.0)))  # margin, confidence, correction


@pytest.mark.parametrize(
    "sizes", [range(1, 10), pytest.param(range(10, 61), marks=pytest.mark.long)], ids=["up to 9", "10 to 60"]
)
def test_every_split_of_few_images_is_judged(sizes: range) -> None:
    """One setting each, in turn."""
    tables = itertools.chain.from_iterable(map(splits, sizes))
    for table, settings in zip(tables, itertools.cycle(SETTINGS)):
        is_judged(table, *settings)


@pytest.mark.parametrize("settings", SETTINGS[:4])
def test_few_images_that_changed_of_up_to_60_are_judged(settings: tuple[float, float, float]) -> None:
    # Where counts were once rounded to more than the images: hardly any that both have wrong, or both have right.
    changes = [(1, 0), (0, 1), (2, 1), (0, 3)]
    for n, (first, second), rest in itertools.product(range(3, 61, 3), changes, (0, 1)):
        other = n - first - second - rest
        if other >= 0:
            is_judged((other, first, second, rest), *settings)
            is_judged((rest, first, second, other), *settings)


@pytest.mark.parametrize("n", [61, 150, 450, 899, 1000, 2048, 5000])
def test_a_grid_up_to_5000_images_has_intervals_and_verdicts(n: int) -> None:
    few = sorted({0, 1, 2, 7, n // 100, n // 10, n // 2, n - 1, n})
    tables = [(n - f - s - b, f, s, b) for f, s, b in itertools.product(few, repeat=3) if f + s + b <= n]
    for table, settings in zip(tables, itertools.cycle(SETTINGS)):
        holds(table, settings[1])
        is_judged(table, *settings)


def test_two_sweeps_of_different_images_differ_by_at_most_everything() -> None:
    for n, m in itertools.product((1, 2, 9), repeat=2):
        for right, other in itertools.product(range(n + 1), range(m + 1)):
            found = across.difference(np.arange(n) < right, np.arange(m) < other, False, 0.95)
            assert -1 <= found.low <= found.estimate <= found.high <= 1


def test_an_interval_of_latency_holds_its_estimate_whatever_the_rounds() -> None:
    rng = np.random.default_rng(4)
    for instances, rounds in itertools.product((1, 2, 3, 8), (1, 2, 5)):
        for log_ratios in (
            rng.normal(size=(instances, rounds)),
            np.full((instances, rounds), 0.1),
            rng.standard_cauchy((instances, rounds)),
            np.log(1000) * (np.arange(instances) % 2)[:, None] + np.zeros((1, rounds)),
        ):
            found = stats.bootstrap_ratio(log_ratios)
            assert 0 <= found.low <= found.estimate <= found.high


@pytest.mark.parametrize(
    ("images", "right_to_wrong", "wrong_to_right"),
    [(900, 27, 18), (900, 20, 20), (300, 12, 5), (200, 1, 0), (200, 0, 0)],
)
def test_as_many_images_as_asked_for_decide_if_nothing_else_changes(
    images: int, right_to_wrong: int, wrong_to_right: int
) -> None:
    table = np.array([0.9 * images - right_to_wrong, right_to_wrong, wrong_to_right, 0.1 * images - wrong_to_right])

    def at(n: float) -> Verdict:
        return stats.verdict(paired(tuple(np.rint(table * n / images).astype(int))), 0.01)

    assert at(images).needs_images is not None
    needed = at(images).needs_images or 0
    assert needed > images
    assert at(1.2 * needed).call != "undecided"  # "about"
    assert at((images + needed) / 2).call == "undecided"


def simulated(rng: np.random.Generator, n: int, right_to_wrong: float, wrong_to_right: float) -> PairedDrop:
    """`n` images of a baseline that is right on 90 %, of which those shares change sides."""
    rest = [0.9 - right_to_wrong, right_to_wrong, wrong_to_right, 0.1 - wrong_to_right]
    return paired(tuple(rng.multinomial(n, rest)))


@pytest.mark.parametrize(
    ("n", "right_to_wrong", "wrong_to_right"), [(450, 0.03, 0.03), (900, 0.03, 0.01), (5000, 0.004, 0.006)]
)
def test_paired_interval_covers_the_true_drop_95_times_in_100(
    n: int, right_to_wrong: float, wrong_to_right: float
) -> None:
    rng = np.random.default_rng(1)
    drops = [simulated(rng, n, right_to_wrong, wrong_to_right).drop for _ in range(4000)]
    truth = right_to_wrong - wrong_to_right
    # 4000 runs: a standard error of 0.35 points
    assert 0.93 <= np.mean([drop.low <= truth <= drop.high for drop in drops]) <= 0.97


@pytest.mark.parametrize("instances", [3, 10, 40])
def test_latency_interval_covers_the_true_ratio_95_times_in_100(instances: int) -> None:
    # As measured on a shared machine: instances of one file differ by 3 %, rounds by 5 % with now and then an outlier.
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(1000):
        log_ratios = np.log(1.05) + rng.normal(0, 0.03, (instances, 1)) + 0.05 * rng.standard_t(2, (instances, 10))
        found = stats.bootstrap_ratio(log_ratios, resamples=500)
        covered.append(found.low <= 1.05 <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.97
