"""Intervals, tests and verdicts: against worked examples that others published, and against simulated truth."""

import numpy as np
import pytest

from src import stats
from src.stats import Interval, PairedDrop, Verdict

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


def test_wilson_interval_of_a_published_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I: 81 of 263, score method without correction
    found = stats.wilson(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


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


def test_holm_corrects_as_in_published_examples() -> None:
    # en.wikipedia.org/wiki/Holm-Bonferroni_method, four hypotheses
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Wright (1992), Biometrics 48:1005-1013, and R's p.adjust: steps never decrease and end at 1
    assert stats.holm([0.9, 0.001, 0.6]) == pytest.approx([1.0, 0.003, 1.0])
    assert len(stats.holm([])) == 0


def simulated(rng: np.random.Generator, n: int, right_to_wrong: float, wrong_to_right: float) -> PairedDrop:
    """`n` images of a baseline that is right on 90 %, of which those shares change sides."""
    rest = [0.9 - right_to_wrong, right_to_wrong, wrong_to_right, 0.1 - wrong_to_right]
    both, first, second, _ = counts = rng.multinomial(n, rest)
    baseline = np.repeat([True, True, False, False], counts)
    variant = np.repeat([True, False, True, False], counts)
    assert (both, first, second) == (
        np.count_nonzero(baseline & variant),
        np.count_nonzero(baseline & ~variant),
        np.count_nonzero(variant & ~baseline),
    )
    return stats.paired_drop(baseline, variant)


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


def test_latency_of_one_instance_says_nothing_about_another() -> None:
    found = stats.bootstrap_ratio(np.zeros((1, 50)))
    assert (found.low, found.high) == (0.0, np.inf)


def test_the_same_rounds_give_the_same_interval() -> None:
    log_ratios = np.random.default_rng(0).normal(size=(8, 6))
    assert stats.bootstrap_ratio(log_ratios, seed=3) == stats.bootstrap_ratio(log_ratios, seed=3)


def paired(both: int, right_to_wrong: int, wrong_to_right: int, neither: int) -> PairedDrop:
    counts = [both, right_to_wrong, wrong_to_right, neither]
    return stats.paired_drop(
        np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)
    )


def test_verdicts_against_a_margin_of_one_point() -> None:
    # 10 of 10,000 images lost: certainly worse than nothing, certainly within a point
    assert stats.verdict(paired(9500, 10, 0, 490), 0.01) == Verdict("equal within the margin")
    # 300 lost, 100 won: two points, 95 % interval about ± 0.4
    assert stats.verdict(paired(9000, 300, 100, 600), 0.01) == Verdict("worse")
    assert stats.verdict(paired(9000, 100, 300, 600), 0.01) == Verdict("better")
    # the published study: "+1.5 points" of 900 images, 14 of them, were 30 changes of mind
    assert stats.verdict(paired(700, 8, 22, 170), 0.01).call in ("better", "undecided")
    undecided = stats.verdict(paired(700, 18, 27, 155), 0.01)
    assert undecided.call == "undecided"
    assert str(undecided).startswith("undecided: needs about ")


def test_a_corrected_p_value_can_take_a_verdict_back() -> None:
    found = paired(9000, 290, 235, 475)  # p = 0.018
    assert found.p_value < 0.05
    assert stats.verdict(found, 0.001).call == "worse"
    assert stats.verdict(found, 0.001, adjusted_p=min(1, 11 * found.p_value)).call == "undecided"


@pytest.mark.parametrize(
    ("images", "right_to_wrong", "wrong_to_right"),
    [(900, 18, 27), (900, 20, 20), (300, 12, 5), (200, 1, 0), (200, 0, 0)],
)
def test_as_many_images_as_asked_for_decide_if_nothing_else_changes(
    images: int, right_to_wrong: int, wrong_to_right: int
) -> None:
    table = np.array([0.9 * images - right_to_wrong, right_to_wrong, wrong_to_right, 0.1 * images - wrong_to_right])

    def at(n: float) -> Verdict:
        return stats.verdict(paired(*np.rint(table * n / images).astype(int)), 0.01)

    assert at(images).needs_images is not None
    needed = at(images).needs_images or 0
    assert needed > images
    assert at(1.2 * needed).call != "undecided"  # "about"
    assert at((images + needed) / 2).call == "undecided"


def test_no_number_of_images_shows_that_nothing_is_less_than_nothing() -> None:
    assert stats.verdict(paired(80, 0, 0, 20), 0.0) == Verdict("undecided")


def test_paired_drop_refuses_different_images() -> None:
    with pytest.raises(ValueError, match="same n > 0 images"):
        stats.paired_drop(np.ones(3, bool), np.ones(4, bool))


def test_the_class_that_lost_most_comes_first_with_an_interval_for_all_classes_at_once() -> None:
    labels = np.repeat([0, 1, 2], 100)
    baseline = np.ones(300, bool)
    variant = baseline.copy()
    variant[100:130] = False  # class 1 loses 30 of 100
    variant[200:205] = False  # class 2 loses 5
    drops = stats.class_drops(labels, baseline, variant)
    assert list(drops) == [1, 2, 0]
    assert drops[1].drop.estimate == pytest.approx(0.30)
    alone = stats.paired_drop(baseline[100:200], variant[100:200])
    assert drops[1].drop.half_width > alone.drop.half_width


def test_calibration_error_of_a_worked_example() -> None:
    # Two bins of 15: ten images at 0.95 of which 8 are right, ten at 0.55 of which 6 are: (|9.5-8| + |5.5-6|) / 20
    confidence = np.repeat([0.95, 0.55], 10).astype(np.float32)
    correct = np.array([True] * 8 + [False] * 2 + [True] * 6 + [False] * 4)
    assert stats.expected_calibration_error(confidence, correct) == pytest.approx(0.1, abs=1e-6)
    assert stats.expected_calibration_error(np.ones(4), np.ones(4, bool)) == 0.0


def test_pareto_front_keeps_what_nothing_beats() -> None:
    costs = np.array([[1, 9], [2, 5], [3, 5], [9, 1], [9, 1], [9, 2]])
    assert stats.pareto_front(costs).tolist() == [True, True, False, True, True, False]


def test_agreement_counts_classes_not_rightness() -> None:
    assert stats.agreement(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0])) == 0.5


def test_half_width_is_half_of_the_interval() -> None:
    assert Interval(1.0, 0.9, 1.2).half_width == pytest.approx(0.15)
