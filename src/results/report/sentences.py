"""What is said of a comparison in words: the answer, the table's footnotes, a variant in a few lines."""

from collections.abc import Iterator

from src.measure.stats import newcombe_paired
from src.results.comparison import Comparison
from src.results.report import numbers
from src.results.variant import Result
from src.settings.sections import Compare


def sentence(comparison: Comparison, judged: Compare) -> str:
    """The answer in a sentence: what the smallest variant costs among those whose drop is sure to be within the margin.
    The validation split chooses it, the test split says what it costs."""
    if comparison.baseline and comparison.baseline.no_number:
        return f"The dense baseline {comparison.baseline.no_number}: what is compared with it says nothing"
    chosen = answer(comparison, judged.margin)
    if chosen is None:
        return _none(comparison, judged)
    assert chosen.test_accuracy_drop
    assert chosen.verdict
    parts = [f"{numbers.times(1 / chosen.metrics['gzip_ratio'])} × smaller"]
    if chosen.speedup:
        faster, slower = numbers.times(chosen.speedup.estimate), numbers.times(1 / chosen.speedup.estimate)
        claimed = f"{faster} × faster" if chosen.speedup.estimate > 1 else f"{slower} × slower"
        if chosen.no_difference:
            claimed = "as fast" if chosen.as_fast else "speed unsure"
        parts.append(claimed)
    drop = chosen.test_accuracy_drop
    parts.append(f"drop {numbers.points(drop.estimate)} points {numbers.interval(drop)}")
    tested, chosen_on = (numbers.images(comparison.images.get(split, 0), split) for split in ("test", "validation"))
    return f"{chosen.label}: {', '.join(parts)} on {tested}: {chosen.verdict.call} (chosen on {chosen_on})"


def _none(comparison: Comparison, judged: Compare) -> str:
    """That no smaller variant is sure to be within the margin, and how far the nearest is."""
    margin, images = judged.margin, comparison.images.get("validation", 0)
    others = [result for result in comparison.results if not result.is_baseline and not result.no_number]
    compared = [(r, r.validation_accuracy_drop) for r in others if r.validation_accuracy_drop]
    if not compared or comparison.baseline is None:
        return "There is nothing to compare"
    upper = {result.label: drop.high for result, drop in compared if _is_smaller(result)}
    if not upper:
        return "No variant is smaller than the dense baseline"
    nearest = min(upper, key=lambda label: upper[label])
    said = (
        f"No variant is sure to stay within {100 * margin:g} point{'s' * (margin != 0.01)} of the dense baseline "
        f"on the {numbers.images(images, 'validation')}; nearest is {nearest}, which may lose up to "
        f"{100 * upper[nearest]:.{1 if round(upper[nearest], 3) > margin else 2}f}"
    )
    right = round(images * comparison.baseline.metrics["validation_accuracy"])
    surest = newcombe_paired(right, 0, 0, images - right, judged.confidence).high
    if margin < surest <= upper[nearest]:
        said += f": equal predictions on so few images leave {100 * surest:.1f} possible"
    return said


def answer(comparison: Comparison, margin: float) -> Result | None:
    """The smallest variant that is smaller than the baseline and whose drop on the validation split is within the
    margin, interval included; None where there is none, or the baseline gives what is no number."""
    if comparison.baseline and comparison.baseline.no_number:
        return None
    fit = [
        result
        for result in comparison.results
        if result.validation_accuracy_drop and not result.is_baseline and not result.failed and not result.no_number
        if result.validation_accuracy_drop.high <= margin and _is_smaller(result)
    ]
    return min(fit, key=lambda result: result.metrics["gzip_bytes"], default=None)


def _is_smaller(result: Result) -> bool:
    return result.metrics["gzip_ratio"] < 1


def footnotes(comparison: Comparison) -> Iterator[str]:
    """Explains the words of the table that need it, a line each."""
    for result in comparison.results:
        if result.no_number and not result.is_baseline:
            yield f"{result.label} {result.no_number}: such an image counts as wrong, and the variant is never chosen."
    compared = [
        (r.verdict.call, r.test_accuracy_drop) for r in comparison.results if r.verdict and r.test_accuracy_drop
    ]
    if any(call == "no worse" for call, _ in compared):
        yield "no worse: sure to lose less than compare.margin, and perhaps better."
    for unsure in ("undecided", "no worse"):
        if any(call == unsure and (drop.low > 0 or drop.high < 0) for call, drop in compared):
            yield f"{unsure} though 0 is outside: not sure among {len(compared)} comparisons (McNemar's test, Holm)."
    if comparison.latency and any(result.no_difference and result.as_fast for result in comparison.results):
        floor = f"{100 * comparison.latency.noise_floor:.1f} %"
        yield f"same: no difference in latency sure to exceed the noise floor, {floor}."
    if comparison.latency and any(result.no_difference and not result.as_fast for result in comparison.results):
        longer = f"benchmark.seconds={5 * comparison.latency.config.seconds:g}"
        yield f"unsure: the interval of the speed-up is too wide to say; {longer} or a quieter machine narrows it."


def description(result: Result) -> str:
    """A few lines for the run's page in the MLflow UI."""
    if result.failed:
        return result.failed
    if result.no_number:
        consequence = "no number to trust" if result.is_baseline else "never chosen"
        return f"It {result.no_number}: {consequence}."
    note = result.note if result.note != "as asked for" else ""
    if result.is_baseline:
        return f"The dense baseline: what every other variant of this training is compared with. {note}".strip()
    lines = [f"Test accuracy {100 * result.metrics['test_accuracy']:.2f} %."]
    if drop := result.test_accuracy_drop:
        lines.append(f"Drop of {numbers.points(drop.estimate)} points {numbers.interval(drop)}: {result.verdict}.")
    lines.append(f"{numbers.times(1 / result.metrics['gzip_ratio'])} × smaller than the dense baseline.")
    if result.speedup:
        claimed = f"{numbers.times(result.speedup.estimate)} × as fast as it."
        if result.no_difference:
            claimed = "No difference in latency." if result.as_fast else "Unsure whether it is as fast."
        lines.append(claimed)
    return " ".join([*lines, note]).strip()
