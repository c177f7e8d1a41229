"""Intervals, tests and verdicts against worked examples, published or by hand. `make mutants` runs these: all quick."""

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest

from src.measure import stats
from src.measure.stats import Interval, PairedDrop, Verdict


def paired(both: int, right_to_wrong: int, wrong_to_right: int, neither: int) -> PairedDrop:
    counts = [both, right_to_wrong, wrong_to_right, neither]
    return stats.paired_drop(
        np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)
    )


# (both, first only, second only, neither) → difference, low, high
PUBLISHED = {
    # Fagerland, Lydersen and Laake (2017), Statistical Analysis of Contingency Tables, chapter 8: airway
    # hyper-responsiveness (Bentur et al. 2009), Newcombe square-and-add -0.507 to -0.026
    "bentur": ((1, 1, 7, 12), (-0.2857, -0.5069, -0.0256)),
    # The same chapter, complete response (Cavo et al. 2012); R package contingencytables prints -0.1186 to -0.0046
    "cavo": ((59, 6, 16, 80), (-0.0621, -0.1186, -0.0046)),
    # Altman, Machin, Bryant and Gardner (2000), Statistics with Confidence, table 6.2: 0.011 to 0.226
    "altman": ((14, 5, 0, 22), (0.122, 0.0115, 0.2265)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_paired_interval_is_newcombes_method_10(name: str) -> None:
    table, (difference, low, high) = PUBLISHED[name]
    found = stats.newcombe_paired(*table)
    assert (found.estimate, found.low, found.high) == pytest.approx((difference, low, high), abs=6e-5)


def test_two_models_that_tend_to_disagree_have_a_wider_interval() -> None:
    # 6 and 5 of 12, of which one in common: phi = (1 * 2 - 5 * 4) / sqrt(6 * 6 * 5 * 7), not corrected below 0
    first, second, phi = stats.wilson(6, 12), stats.wilson(5, 12), -18 / math.sqrt(1260)
    a, b = 0.5 - first.low, second.high - 5 / 12
    c, d = 5 / 12 - second.low, first.high - 0.5
    found = stats.newcombe_paired(1, 5, 4, 2)
    assert found.low == pytest.approx(1 / 12 - math.sqrt(a * a + b * b - 2 * phi * a * b))
    assert found.high == pytest.approx(1 / 12 + math.sqrt(c * c + d * d - 2 * phi * c * d))


def test_a_correlation_is_corrected_for_continuity_down_to_none() -> None:
    first = stats.wilson(1, 2)
    found = stats.newcombe_paired(1, 0, 0, 1)  # 1 * 1 - 0 * 0, less half of the two images
    assert (found.low, found.high) == pytest.approx(
        (-math.sqrt(2) * (0.5 - first.low), math.sqrt(2) * (first.high - 0.5))
    )


def test_two_models_that_are_always_right_and_always_wrong_have_no_correlation() -> None:
    found = stats.newcombe_paired(0, 9, 0, 0)  # one of the margins is 0
    end = stats.wilson(9, 9).low  # and that of the other one is its mirror image
    assert (found.estimate, found.low, found.high) == pytest.approx((1.0, 1 - math.sqrt(2) * (1 - end), 1.0))


def test_wilson_interval_of_a_published_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I: 81 of 263, score method without correction
    found = stats.wilson(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (3, 7), (0, 40), (40, 40), (149, 150)])
def test_wilson_ends_where_the_share_found_is_just_not_refuted(successes: int, n: int, confidence: float) -> None:
    z, found = NormalDist().inv_cdf(0.5 + confidence / 2), stats.wilson(successes, n, confidence)
    assert found.low <= found.estimate == successes / n <= found.high
    for end in (found.low, found.high):
        if 0 < end < 1:  # where none or all are, one end is that
            assert abs(successes / n - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n))
    assert (found.low == 0, found.high == 1) == (successes == 0, successes == n)


def test_a_confidence_next_to_one_has_an_interval() -> None:
    found = stats.wilson(3, 7, np.nextafter(1, 0))
    assert 0 < found.low < 3 / 7 < found.high < 1


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_what_is_no_count(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} of {n}: takes a count"):
        stats.wilson(successes, n)


@pytest.mark.parametrize(
    ("right_to_wrong", "wrong_to_right", "p_value"),
    [
        (6, 16, 0.052479),  # contingencytables, McNemar_exact_cond_test_paired_2x2(cavo_2012)
        (1, 7, 0.0703125),  # by hand: 2 * (1 + 8) / 2**8
        (0, 5, 0.0625),  # by hand: 2 / 2**5
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_is_the_exact_binomial_test(right_to_wrong: int, wrong_to_right: int, p_value: float) -> None:
    assert stats.mcnemar_exact(right_to_wrong, wrong_to_right) == pytest.approx(p_value, abs=5e-7)
    assert stats.mcnemar_exact(wrong_to_right, right_to_wrong) == pytest.approx(p_value, abs=5e-7)


def test_mcnemar_is_exact_for_every_small_count() -> None:
    for changed in range(41):
        for fewer in range(changed // 2 + 1):
            tail = Fraction(sum(math.comb(changed, k) for k in range(fewer + 1)), 2**changed)
            assert stats.mcnemar_exact(fewer, changed - fewer) == pytest.approx(float(min(1, 2 * tail)), rel=1e-11)


@pytest.mark.parametrize("changed", [10**6, 10**9, 10**10])
@pytest.mark.parametrize("z", [0.5, 2.0, 5.0])
def test_mcnemar_of_counts_beyond_an_int32_is_that_of_the_normal_distribution(changed: int, z: float) -> None:
    apart = round(z * math.sqrt(changed))
    fewer = (changed - apart) // 2
    corrected = (changed - 2 * fewer - 1) / math.sqrt(changed)  # for continuity
    assert stats.mcnemar_exact(fewer, changed - fewer) == pytest.approx(2 * NormalDist().cdf(-corrected), rel=1e-3)


def test_a_p_value_below_the_smallest_float_is_0_and_a_verdict_all_the_same() -> None:
    found = paired(5000, 1100, 0, 0)
    assert found.p_value == 0.0
    assert stats.verdict(found, 0.01) == Verdict("worse")
    assert stats.verdict(found, 0.01, adjusted_p=0.5).call == "undecided"


def test_holm_corrects_as_in_published_examples() -> None:
    # en.wikipedia.org/wiki/Holm-Bonferroni_method, four hypotheses
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Wright (1992), Biometrics 48:1005-1013, and R's p.adjust: steps never decrease and end at 1
    assert stats.holm([0.9, 0.001, 0.6]) == pytest.approx([1.0, 0.003, 1.0])
    assert len(stats.holm([])) == 0


def test_a_p_value_that_is_no_number_is_no_question() -> None:
    assert stats.holm([0.04, math.nan, 0.01]) == pytest.approx([0.04, math.nan, 0.02], nan_ok=True)
    assert stats.holm([math.nan]) == pytest.approx([math.nan], nan_ok=True)


def test_latency_of_one_instance_says_nothing_about_another() -> None:
    found = stats.bootstrap_ratio(np.full((1, 50), np.log(2)))
    assert (found.estimate, found.low, found.high) == (pytest.approx(2), 0.0, np.inf)


def test_latency_of_two_instances_by_hand() -> None:
    # Medians over rounds of 0 and 1. A mean of two drawn is 0, 1/2 or 1, a quarter of the time 0 and a quarter 1, so
    # both quantiles are at the ends, half a step from 1/2; that is stretched by sqrt(2) times Student's t with one
    # degree of freedom, the tangent, over the normal quantile.
    log_ratios = np.array([[0, 0, 9], [-9, 1, 1]])
    for confidence in (0.9, 0.95):
        t, z = math.tan(math.pi * confidence / 2), NormalDist().inv_cdf(0.5 + confidence / 2)
        half = math.sqrt(2) * t / z / 2
        found = stats.bootstrap_ratio(log_ratios, confidence)
        assert np.log([found.estimate, found.low, found.high]) == pytest.approx([0.5, 0.5 - half, 0.5 + half])


def test_latency_interval_of_many_instances_is_that_of_students_t() -> None:
    medians = np.random.default_rng(5).normal(size=30)
    found = stats.bootstrap_ratio(medians[:, None], resamples=100_000)
    half = 2.04523 * medians.std(ddof=1) / math.sqrt(30)  # t with 29 degrees of freedom, from a table
    ends = np.log([found.low, found.high])
    assert ends == pytest.approx([medians.mean() - half, medians.mean() + half], abs=0.02)


def test_rounds_that_are_all_alike_have_an_interval_of_no_width() -> None:
    for instances in (2, 3, 7, 10):
        found = stats.bootstrap_ratio(np.full((instances, 5), 0.1))
        assert found.low <= found.estimate <= found.high
        assert found.half_width == pytest.approx(0, abs=1e-12)


def test_a_ratio_too_large_for_a_float_is_infinite() -> None:
    found = stats.bootstrap_ratio(np.array([[0.0], [300.0]]))
    assert (found.estimate, found.low, found.high) == (pytest.approx(math.exp(150)), 0.0, math.inf)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_latency_of_no_rounds_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one of each"):
        stats.bootstrap_ratio(np.empty(shape))


def test_the_same_rounds_give_the_same_interval_by_default_2000_times_from_seed_0() -> None:
    log_ratios = np.random.default_rng(0).normal(size=(8, 6))
    assert stats.bootstrap_ratio(log_ratios) == stats.bootstrap_ratio(log_ratios, 0.95, 2000, 0)
    assert stats.bootstrap_ratio(log_ratios) != stats.bootstrap_ratio(log_ratios, seed=1)


def test_a_pair_is_counted_image_by_image() -> None:
    baseline = np.array([1, 1, 1, 1, 0, 0, 0, 1, 1, 0], bool)
    variant = np.array([1, 1, 0, 1, 1, 0, 0, 0, 0, 0], bool)
    found = stats.paired_drop(baseline, variant, 0.9)
    counts = (found.both_right, found.right_to_wrong, found.wrong_to_right, found.both_wrong)
    assert counts == (3, 3, 1, 3)
    assert found.images == 10
    assert found.drop == stats.newcombe_paired(3, 3, 1, 3, 0.9)
    assert found.drop.estimate == pytest.approx(0.2)
    assert found.p_value == stats.mcnemar_exact(3, 1)


def test_verdicts_against_a_margin_of_one_point() -> None:
    # 10 of 10,000 images lost: certainly worse than nothing, certainly within a point
    assert stats.verdict(paired(9500, 10, 0, 490), 0.01) == Verdict("equal within the margin")
    # 300 lost, 100 won: two points, 95 % interval about ± 0.4
    assert stats.verdict(paired(9000, 300, 100, 600), 0.01) == Verdict("worse")
    assert stats.verdict(paired(9000, 100, 300, 600), 0.01) == Verdict("better")
    # the published study: "+1.5 points" of 900 images, 14 of them, were 30 changes of mind
    assert stats.verdict(paired(700, 8, 22, 170), 0.01).call in ("better", "no worse")
    assert stats.verdict(paired(700, 18, 27, 155), 0.01) == Verdict("no worse")
    undecided = stats.verdict(paired(700, 27, 18, 155), 0.01)
    assert undecided.call == "undecided"
    assert str(undecided).startswith("undecided: needs about ")


def with_interval(low: float, high: float, p_value: float) -> PairedDrop:
    return PairedDrop(80, 5, 5, 10, Interval((low + high) / 2, low, high), p_value)


@pytest.mark.parametrize(
    ("low", "high", "p_value", "call"),
    [
        (-0.009, 0.009, 1.0, "equal within the margin"),
        (0.001, 0.009, 0.001, "equal within the margin"),  # though it is sure to be worse
        (-0.009, -0.001, 0.001, "equal within the margin"),  # though it is sure to be better
        (-0.009, 0.01, 1.0, "undecided"),  # the margin itself is outside
        (-0.01, 0.009, 1.0, "no worse"),
        (-0.02, 0.009, 0.5, "no worse"),
        (0.001, 0.02, 0.001, "worse"),
        (-0.02, -0.001, 0.001, "better"),
        (0.0, 0.02, 0.001, "undecided"),  # an interval that touches 0 is on no side of it
        (-0.02, 0.0, 0.001, "no worse"),  # not sure to be better
        (-0.02, 0.02, 0.001, "undecided"),
        (0.001, 0.02, 1 - 0.95, "worse"),
        (-0.02, -0.001, 1 - 0.95, "better"),
        (0.001, 0.02, 0.0501, "undecided"),
        (-0.02, -0.001, 0.0501, "no worse"),
    ],
)
def test_a_verdict_by_where_the_interval_lies(low: float, high: float, p_value: float, call: str) -> None:
    assert stats.verdict(with_interval(low, high, p_value), 0.01).call == call
    assert stats.verdict(with_interval(low, high, 1.0), 0.01, adjusted_p=p_value).call == call


def test_a_corrected_p_value_can_take_a_verdict_back() -> None:
    found = paired(9000, 290, 235, 475)  # p = 0.018
    assert found.p_value < 0.05
    assert stats.verdict(found, 0.001).call == "worse"
    assert stats.verdict(found, 0.001, adjusted_p=min(1, 11 * found.p_value)).call == "undecided"


def fewest(table: tuple[int, int, int, int], margin: float) -> int:
    """How many images of the same shares decide, by trying one number after the other."""
    images = sum(table)
    for n in range(images, 100_000):
        if stats.verdict(paired(*(round(count * n / images) for count in table)), margin).call != "undecided":
            return n
    raise AssertionError


@pytest.mark.parametrize(
    ("table", "margin"),
    [
        ((180, 0, 0, 20), 0.01),  # equal, as nothing changed
        ((149, 1, 0, 0), 0.02),  # the baseline has every image right
        ((7, 2, 0, 3), 0.01),  # worse
        ((7, 0, 2, 3), 0.01),  # better
        ((0, 1, 0, 0), 0.01),  # 6: of as many that all changed one way, p is 2 / 2^6
        ((3, 1, 0, 1), 0.01),
        ((3, 1, 0, 0), 0.01),
        ((2, 1, 0, 2), 0.01),
        ((5, 1, 0, 1), 0.01),
    ],
)
def test_needed_images_are_the_fewest_that_decide_to_two_digits(table: tuple[int, ...], margin: float) -> None:
    least = fewest(table, margin)
    digit = 10 ** max(0, len(str(least)) - 2)
    needed = stats.verdict(paired(*table), margin).needs_images
    assert isinstance(needed, int)
    assert needed == -(-least // digit) * digit


@pytest.mark.parametrize(("right_to_wrong", "wrong_to_right"), [(1, 0), (0, 1), (3, 0), (2, 1)])
def test_a_baseline_or_a_variant_that_has_every_image_right_is_judged(right_to_wrong: int, wrong_to_right: int) -> None:
    # Rounded each alone, the counts of more images once added up to more than the images.
    rest = 150 - right_to_wrong - wrong_to_right
    assert stats.verdict(paired(rest, right_to_wrong, wrong_to_right, 0), 0.01).call == "undecided"


def test_a_correction_asks_for_more_images() -> None:
    found = paired(130, 5, 0, 15)
    alone, one_of_eleven = stats.verdict(found, 0.0), stats.verdict(found, 0.0, adjusted_p=11 * found.p_value)
    assert alone.needs_images is not None
    assert one_of_eleven.needs_images is not None
    assert alone.needs_images < one_of_eleven.needs_images
    # 11 * 2 / 2^9 is below 0.05, 11 * 2 / 2^8 above: nine images that changed, where there were 5 of 150
    assert one_of_eleven.needs_images == pytest.approx(150 * 8.5 / 5, abs=5)


def test_a_correction_never_makes_a_p_value_of_more_than_1() -> None:
    assert stats.verdict(paired(40, 3, 3, 4), 0.01, adjusted_p=1.0).needs_images is not None


def test_no_number_of_images_shows_that_nothing_is_less_than_nothing() -> None:
    assert stats.verdict(paired(80, 0, 0, 20), 0.0) == Verdict("undecided")
    assert str(Verdict("undecided")) == "undecided"
    assert str(Verdict("undecided", 12_000)) == "undecided: needs about 12,000 images"


def test_paired_drop_refuses_different_images() -> None:
    for first, second in ((3, 4), (4, 3), (0, 0), ((2, 2), (2, 2)), ((), ())):
        with pytest.raises(ValueError, match="same n > 0 images"):
            stats.paired_drop(np.ones(first, bool), np.ones(second, bool))


def test_the_class_that_lost_most_comes_first_with_an_interval_for_all_classes_at_once() -> None:
    labels = np.repeat([0, 1, 2], 100)
    baseline = np.ones(300, bool)
    variant = baseline.copy()
    variant[100:130] = False  # class 1 loses 30 of 100
    variant[200:205] = False  # class 2 loses 5
    drops = stats.class_drops(labels, baseline, variant)
    assert list(drops) == [1, 2, 0]
    assert drops[1].drop.estimate == pytest.approx(0.30)
    assert drops[1] == stats.paired_drop(baseline[100:200], variant[100:200], 1 - 0.05 / 3)
    assert stats.class_drops(labels, baseline, variant, 0.9)[2].drop == stats.newcombe_paired(95, 5, 0, 0, 1 - 0.1 / 3)


def test_classes_of_one_image_and_no_classes_at_all() -> None:
    labels, right, wrong = np.array([7]), np.array([True]), np.array([False])
    assert stats.class_drops(labels, right, wrong) == {7: stats.paired_drop(right, wrong)}
    none = np.empty(0, bool)
    assert stats.class_drops(np.empty(0, int), none, none) == {}


def test_calibration_error_of_a_worked_example() -> None:
    # Two bins of 15: ten images at 0.95 of which 8 are right, ten at 0.55 of which 6 are: (|9.5-8| + |5.5-6|) / 20
    confidence = np.repeat([0.95, 0.55], 10).astype(np.float32)
    correct = np.array([True] * 8 + [False] * 2 + [True] * 6 + [False] * 4)
    assert stats.expected_calibration_error(confidence, correct) == pytest.approx(0.1, abs=1e-6)
    assert stats.expected_calibration_error(np.ones(4), np.ones(4, bool)) == 0.0


def test_bins_of_the_calibration_error_take_their_upper_end() -> None:
    # Of 4 bins: (0, 1/4], where 1/4 is right and 0 wrong, and (1/2, 3/4], where 3/4 is wrong and 0.6 right.
    confidence, correct = np.array([0.25, 0.0, 0.75, 0.6]), np.array([True, False, False, True])
    found = stats.expected_calibration_error(confidence, correct, bins=4)
    assert found == pytest.approx((abs(0.25 - 1) + abs(1.35 - 1)) / 4)
    # Of 2 bins all four lie in another company: (0, 1/2] holds the first two, (1/2, 1] the others.
    assert stats.expected_calibration_error(confidence, correct, bins=2) == pytest.approx((0.75 + 0.35) / 4)
    # Of 15, the default, each end is in a bin of its own, which holds nothing else.
    ends = np.arange(1, 16) / 15
    assert stats.expected_calibration_error(ends, np.zeros(15, bool)) == pytest.approx(ends.mean())
    inside = np.array([0.5 / 15, 14.5 / 15])  # one bin apart from the nearest each: the first and the last
    both = stats.expected_calibration_error(np.array([*inside, 1 / 15, 1.0]), np.array([True, False, False, True]))
    assert both == pytest.approx((abs(1.5 / 15 - 1) + abs(29.5 / 15 - 1)) / 4)


def test_calibration_error_of_one_bin_more_than_there_are_and_of_nothing() -> None:
    # Probabilities that add up to 1 may be rounded to more: still the last bin, with 0.99.
    found = stats.expected_calibration_error(np.array([1.02, 0.99]), np.array([False, True]))
    assert found == pytest.approx((1.02 + 0.99 - 1) / 2)
    assert math.isnan(stats.expected_calibration_error(np.empty(0), np.empty(0, bool)))
    confidence, correct = np.arange(1, 85) / 84, np.arange(84) % 3 == 0
    assert stats.expected_calibration_error(confidence, correct) == stats.expected_calibration_error(
        confidence, correct, bins=15
    )
    assert stats.expected_calibration_error(confidence, correct) != stats.expected_calibration_error(
        confidence, correct, bins=14
    )


def test_pareto_front_keeps_what_nothing_beats() -> None:
    costs = np.array([[1, 9], [2, 5], [3, 5], [9, 1], [9, 1], [9, 2]])
    assert stats.pareto_front(costs).tolist() == [True, True, False, True, True, False]


def test_pareto_front_of_nothing_and_of_what_is_no_number() -> None:
    assert stats.pareto_front(np.empty((0, 2))).tolist() == []
    assert stats.pareto_front(np.array([[1, math.nan], [2, 5], [math.nan, 1]])).tolist() == [False, True, False]
    assert stats.pareto_front(np.array([[1, np.inf], [2, np.inf]])).tolist() == [True, False]


def test_agreement_counts_classes_not_rightness() -> None:
    assert stats.agreement(np.array([0, 1, 2, 2, 0]), np.array([0, 1, 2, 0, 2])) == 0.6


def test_half_width_is_half_of_the_interval() -> None:
    assert Interval(1.0, 0.9, 1.2).half_width == pytest.approx(0.15)
