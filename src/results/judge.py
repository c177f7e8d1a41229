"""What predictions say of each variant of one training against its dense baseline. Pure functions on predictions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from src.measure import stats
from src.measure.predictions import Predictions
from src.results.variant import Result
from src.settings.sections import Compare
from src.store.faults import reason


def judge(
    results: Mapping[str, Result],
    baseline: str,
    test: Mapping[str, Predictions],
    validation: Mapping[str, Predictions],
    classes: Sequence[str],
    judged: Compare,
) -> dict[str, Result]:
    """The results of one training with all that predictions say of each against the baseline, paired on the same images
    and corrected over the variants that could be paired. One that can't be judged fails, with the reason, alone."""
    against = dict(results)
    dense, dense_ece = results[baseline], test[baseline].ece
    against[baseline] = replace(dense, metrics={**dense.metrics, "ece": dense_ece})
    paired: dict[str, tuple[stats.PairedDrop, stats.PairedDrop]] = {}
    for name in test:
        if name != baseline:
            with failing_alone(against, name, Exception, "can't be judged"):
                paired[name] = (
                    stats.paired_drop(test[baseline].correct, test[name].correct, judged.confidence),
                    stats.paired_drop(validation[baseline].correct, validation[name].correct, judged.confidence),
                )
    adjusted = stats.holm([on_test.p_value for on_test, _ in paired.values()])
    for (name, (on_test, on_validation)), adjusted_p in zip(paired.items(), adjusted.tolist(), strict=True):
        with failing_alone(against, name, Exception, "can't be judged"):
            compared = _compared(results[name], dense, test[name], test[baseline], classes, judged)
            surest, lost = _surest(validation[baseline], validation[name], judged)
            against[name] = replace(
                compared,
                metrics={
                    **compared.metrics,
                    "mcnemar_p": on_test.p_value,
                    "mcnemar_p_holm": adjusted_p,
                    "right_to_wrong": on_test.right_to_wrong,
                    "wrong_to_right": on_test.wrong_to_right,
                },
                test_accuracy_drop=on_test.drop,
                validation_accuracy_drop=on_validation.drop,
                validation_worst_class=classes[surest],
                validation_worst_class_drop=lost,
                verdict=stats.verdict(on_test, judged.margin, judged.confidence, adjusted_p),
            )
    return against


@contextmanager
def failing_alone(results: dict[str, Result], name: str, error: type[Exception], what: str) -> Iterator[None]:
    """Where one variant fails, its result says so, and the others go on."""
    try:
        yield
    except error as why:
        results[name] = replace(results[name], failed=f"{what}: {reason(why)}")


def _surest(dense: Predictions, variant: Predictions, judged: Compare) -> tuple[int, stats.Interval]:
    """The class that is sure to have lost most, and its drop."""
    by_class = stats.class_drops(dense.labels, dense.correct, variant.correct, judged.confidence)
    surest = max(by_class, key=lambda number: by_class[number].drop.low)
    return surest, by_class[surest].drop


def _compared(
    result: Result, dense: Result, test: Predictions, dense_test: Predictions, classes: Sequence[str], judged: Compare
) -> Result:
    """What is said beside the drop: agreement, calibration, size and the class that lost most."""
    by_class = stats.class_drops(dense_test.labels, dense_test.correct, test.correct, judged.confidence)
    worst, worst_drop = next(iter(by_class.items()))
    return replace(
        result,
        metrics={
            **result.metrics,
            "agreement": stats.agreement(dense_test.answers, test.answers),
            "ece": test.ece,
            "ece_change": test.ece - dense_test.ece,
            "gzip_ratio": result.metrics["gzip_bytes"] / dense.metrics["gzip_bytes"],
        },
        worst_class=classes[worst],
        worst_class_drop=worst_drop.drop,
    )
