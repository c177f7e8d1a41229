"""What a sweep found, as plain data: rows in, and every table, figure and page is made of these. Knows no store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from src.measure import stats
from src.measure.audit.contents import Layer
from src.measure.latency import Report as LatencyReport
from src.measure.stats import Interval, PairedDrop, Verdict
from src.settings.sections import Compare


@dataclass(frozen=True)
class Row:
    """One variant as measured, and against the dense baseline of its training where there is one.

    `metrics` has the names that MLflow shows; `paired` compares on the test split, which only reports, `validation` on
    the one that selects; `speedup` is the ratio of the baseline's latency to this variant's, and `no_difference` says
    that none is sure to exceed the noise floor; `worst_class` is the class that lost most; `found` what the audit has
    to say; `no_number` goes on from the name where the variant gave NaN or infinity, or is made of it: then it is never
    chosen.
    """

    variant: str
    training: str = ""
    run_id: str | None = None
    reused_from: str | None = None
    digest: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    paired: PairedDrop | None = None
    validation: PairedDrop | None = None
    verdict: Verdict | None = None
    speedup: Interval | None = None
    no_difference: bool = False
    worst_class: tuple[str, PairedDrop] | None = None
    layers: tuple[Layer, ...] = ()
    found: str = ""
    no_number: str = ""
    failed: str | None = None
    is_baseline: bool = False
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


@dataclass(frozen=True)
class Effect:
    """What one pruning policy costs under one quantization scheme, drops in shares of 1.

    `drop` is against the same scheme unpruned; `extra` how much more that is than the policy costs alone, which is the
    interaction of the two (None where the scheme is none).
    """

    pruning: str
    quantization: str
    drop: Interval
    extra: Interval | None


@dataclass(frozen=True)
class Damaged:
    """A test image that the dense baseline classified rightly and some variants did not. `pixels`: uint8 `[height,
    width, channels]`; `wrong`: the class that each of those variants gave; `lost`: the probability of the true class
    that they lost, summed."""

    pixels: np.ndarray
    name: str
    label: str
    wrong: Mapping[str, str]
    lost: float


@dataclass(frozen=True)
class Origin:
    """A training or pruning that variants were made from."""

    name: str
    variants: tuple[str, ...]
    detail: str
    depth: int
    url: str = ""


@dataclass(frozen=True)
class Comparison:
    """All variants of one training, and what only holds for all of them together. `test_images` and others count;
    `unreadable` names files with the reason, a line each."""

    training: str
    rows: tuple[Row, ...]
    images: Mapping[str, int] = field(default_factory=dict)
    latency: LatencyReport | None = None
    effects: tuple[Effect, ...] = ()
    damaged: tuple[Damaged, ...] = ()
    origins: tuple[Origin, ...] = ()
    unreadable: tuple[str, ...] = ()
    settings: str = ""

    @property
    def baseline(self) -> Row | None:
        return next((row for row in self.rows if row.is_baseline and row.measured), None)


@dataclass(frozen=True)
class Sweep:
    """Everything that the page shows. `facts` is what is needed to repeat the sweep, a line each; `left_out` names the
    combinations that were not run, each with the reason."""

    name: str
    date: str
    comparisons: tuple[Comparison, ...]
    judged: Compare
    facts: Mapping[str, str]
    url: str = ""
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def rows(self) -> list[Row]:
        return [row for comparison in self.comparisons for row in comparison.rows]

    @property
    def reasons(self) -> dict[str, list[str]]:
        """What was left out, by reason."""
        grouped: dict[str, list[str]] = {}
        for name, why in self.left_out:
            grouped.setdefault(why, []).append(name)
        return grouped


def ordered(rows: Sequence[Row]) -> list[Row]:
    """By training, the baseline on top, then from the smallest to the largest; what failed comes last."""
    trainings = list(dict.fromkeys(row.training for row in rows))
    return sorted(
        rows,
        key=lambda row: (
            trainings.index(row.training),
            not row.is_baseline,
            row.failed is not None,
            row.metrics.get("gzip_bytes", 0),
        ),
    )


def front(rows: Sequence[Row]) -> set[str]:
    """Variants of one training that no other beats in both test accuracy and gzip bytes (Pareto)."""
    there = [row for row in rows if row.measured]
    if not there:
        return set()
    costs = np.array([[row.metrics["gzip_bytes"], -row.metrics["test_accuracy"]] for row in there])
    return {row.variant for row, on in zip(there, stats.pareto_front(costs), strict=True) if on}


def duplicates(rows: Sequence[Row]) -> list[list[Row]]:
    """Groups of variants whose artifacts are the same to the byte though their names differ."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.digest:
            groups.setdefault(row.digest, []).append(row)
    return [group for group in groups.values() if len({row.label for row in group}) > 1]


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One flat dict per row, all of the same keys."""
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    flat = []
    for row in rows:
        record: dict[str, Any] = {"variant": row.variant, "training": row.training}
        record |= {name: row.metrics.get(name) for name in names}
        record["worst_class"] = row.worst_class[0] if row.worst_class else None
        record["verdict"] = row.verdict.call if row.verdict else None
        record["no_number"] = row.no_number or None
        record["needs_images"] = row.verdict.needs_images if row.verdict else None
        record |= {key: getattr(row, key) for key in ("no_difference", "is_baseline")}
        record |= {key: getattr(row, key) for key in ("failed", "run_id", "reused_from", "digest")}
        flat.append(record)
    return flat
