"""One record of a variant: all that is known of it, and its two directions, to the store and from it.

A sweep's `comparison.json` has one flat object per variant, the run in MLflow one flat list of metrics: an interval is
three numbers there, `NAME`, `NAME_low` and `NAME_high`. Nothing else in this project reads or writes that form.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from src.measure.audit.contents import Layer
from src.measure.stats import Interval, Verdict
from src.store.artifacts import Record

INTERVALS = (
    *("test_accuracy_drop", "validation_accuracy_drop", "worst_class_drop", "validation_worst_class_drop", "speedup"),
)
ENDS = ("", "_low", "_high")
# The order of columns in comparison.csv; other metrics follow by name.
COLUMNS = (
    *("train_accuracy", "validation_accuracy", "test_accuracy", "balanced_accuracy"),
    *("tflite_bytes", "gzip_bytes", "sparsity", "parameters", "multiply_adds", "ece"),
    *("latency_ms_mean", "latency_ms_std", "latency_ms_median", "latency_ms_p90"),
    *("load_ms", "first_inference_ms", "peak_memory_bytes"),
    *("test_accuracy_drop", "validation_accuracy_drop", "mcnemar_p", "mcnemar_p_holm"),
    *("right_to_wrong", "wrong_to_right", "agreement", "ece_change", "worst_class_drop"),
    *("validation_worst_class_drop", "gzip_ratio", "speedup"),
)


@dataclass(frozen=True)
class Result:
    """One variant as measured, and against the dense baseline of its training where there is one.

    `transforms` are the acting ones by name, in order, and `scheme` what the converter did. `metrics` are open: all
    that probes have yielded and that follows from it, by the names that MLflow shows. Drops are in shares of 1:
    `test_accuracy_drop` is of the split that only reports, `validation_accuracy_drop` of the one that selects,
    `worst_class_drop` of `worst_class`, which lost most on the former; `validation_worst_class` is the one that is
    sure to have lost most on the latter. `speedup` is the ratio of the baseline's latency to this
    variant's, and `no_difference` says that none is sure to exceed the noise floor. `note` is what the audit has to
    say; `no_number` goes on from the name where the variant gave NaN or infinity, or is made of it: then it is never
    chosen. `layers` and `url` are known while a sweep is closed only.
    """

    variant: str
    training: str = ""
    transforms: tuple[str, ...] = ()
    scheme: str = ""
    is_baseline: bool = False
    run_id: str | None = None
    reused_from: str | None = None
    digest: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    test_accuracy_drop: Interval | None = None
    validation_accuracy_drop: Interval | None = None
    verdict: Verdict | None = None
    worst_class: str | None = None
    worst_class_drop: Interval | None = None
    validation_worst_class: str | None = None
    validation_worst_class_drop: Interval | None = None
    speedup: Interval | None = None
    no_difference: bool = False
    layers: tuple[Layer, ...] = ()
    note: str = ""
    no_number: str = ""
    failed: str | None = None
    url: str = ""

    @property
    def label(self) -> str:
        return f"{self.training} {self.variant}".strip()

    @property
    def as_fast(self) -> bool:
        """Whether its latency is sure to be within 5 % of the baseline's."""
        return self.speedup is not None and self.speedup.low >= 0.95 and self.speedup.high <= 1.05

    @property
    def measured(self) -> bool:
        """Whether there is an artifact that was evaluated, even if it could not be timed."""
        return "test_accuracy" in self.metrics

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics, and each interval as three numbers: not one with an infinite end, as too few rounds leave of a
        speed-up."""
        numbers = dict(self.metrics)
        for name in INTERVALS:
            interval: Interval | None = getattr(self, name)
            if interval and all(map(math.isfinite, (interval.low, interval.high))):
                ends = (interval.estimate, interval.low, interval.high)
                numbers |= {f"{name}{end}": value for end, value in zip(ENDS, ends, strict=True)}
        return numbers


# --- To and from the variant's run -----------------------------------------------------------------------------


def from_run(result: Result, record: Record, layers: Sequence[Mapping[str, Any]], url: str) -> Result:
    """`result` with what its run says of the artifact alone. `layers` are those of its audit."""
    return replace(
        result,
        run_id=record.run_id,
        reused_from=record.tags.get("reused_from"),
        digest=record.tags["digest"],
        metrics=record.measured,
        layers=tuple(Layer(**layer) for layer in layers),
        note=record.tags.get("audit", ""),
        no_number=record.tags.get("no_number", ""),
        url=url,
    )


def said(result: Result) -> dict[str, str]:
    """What its run says in words, as tags, once it is judged."""
    return {
        **({"verdict": str(result.verdict)} if result.verdict else {}),
        **({"worst_class": result.worst_class} if result.worst_class else {}),
        **({"error": result.failed} if result.failed else {}),
    }


# --- To and from the sweep's comparison ------------------------------------------------------------------------


def to_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One flat dict per variant, all of the same keys."""
    numbers = [result.numbers for result in results]
    names = sorted({name for each in numbers for name in each}, key=_column)
    return [
        {
            "variant": result.variant,
            "training": result.training,
            **{name: own.get(name) for name in names},
            "worst_class": result.worst_class,
            "validation_worst_class": result.validation_worst_class,
            "verdict": result.verdict.call if result.verdict else None,
            "no_number": result.no_number or None,
            "needs_images": result.verdict.needs_images if result.verdict else None,
            "no_difference": result.no_difference,
            "is_baseline": result.is_baseline,
            "failed": result.failed,
            "run_id": result.run_id,
            "reused_from": result.reused_from,
            "digest": result.digest,
        }
        for result, own in zip(results, numbers, strict=True)
    ]


def _column(name: str) -> tuple[int, str, int]:
    """Where a number stands among the columns."""
    end = next((end for end in ENDS[1:] if name.endswith(end)), "")
    of = name.removesuffix(end)
    return (COLUMNS.index(of) if of in COLUMNS else len(COLUMNS), of, ENDS.index(end))


def to_entries(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The same as objects of `comparison.json`, with what is no column of a table."""
    return [
        {**row, "transforms": list(result.transforms), "scheme": result.scheme, "note": result.note}
        for row, result in zip(to_rows(results), results, strict=True)
    ]


def from_entry(entry: Mapping[str, Any]) -> Result:
    """What `to_entries` wrote. Version 0.1 wrote neither transforms, nor scheme, nor note."""
    numbers = {
        name: value
        for name, value in entry.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "needs_images"
    }

    def interval(name: str) -> Interval | None:
        ends = [f"{name}{end}" for end in ENDS]
        return Interval(*(numbers.pop(end) for end in ends)) if all(end in numbers for end in ends) else None

    result = Result(
        variant=entry["variant"],
        training=entry["training"],
        transforms=tuple(entry.get("transforms") or ()),
        scheme=entry.get("scheme") or "",
        is_baseline=entry["is_baseline"],
        run_id=entry["run_id"],
        reused_from=entry.get("reused_from"),
        digest=entry["digest"],
        test_accuracy_drop=interval("test_accuracy_drop"),
        validation_accuracy_drop=interval("validation_accuracy_drop"),
        verdict=Verdict(entry["verdict"], entry.get("needs_images")) if entry.get("verdict") else None,
        worst_class=entry.get("worst_class"),
        worst_class_drop=interval("worst_class_drop"),
        validation_worst_class=entry.get("validation_worst_class"),
        validation_worst_class_drop=interval("validation_worst_class_drop"),
        speedup=interval("speedup"),
        no_difference=bool(entry.get("no_difference")),
        note=entry.get("note") or "",
        no_number=entry.get("no_number") or "",
        failed=entry["failed"],
    )
    return replace(result, metrics=numbers)  # those that are no part of an interval
