"""What a sweep found, as plain data: every table, figure and page is made of these. Knows no store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from src.measure import stats
from src.measure.latency.report import Report as LatencyReport
from src.measure.stats import Interval
from src.results.variant import Result
from src.settings.config import Compare


@dataclass(frozen=True)
class Effect:
    """What transforms cost under one quantization scheme, drops in shares of 1.

    `drop` is against the same scheme without them; `extra` how much more that is than they cost alone, which is the
    interaction of the two (None where the scheme is none).
    """

    transforms: tuple[str, ...]
    scheme: str
    drop: Interval
    extra: Interval | None

    @property
    def name(self) -> str:
        return "-".join(self.transforms)


@dataclass(frozen=True)
class DamagedImage:
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
    """A stage that variants were made from, such as a training."""

    name: str
    variants: tuple[str, ...]
    detail: str
    depth: int
    url: str = ""


@dataclass(frozen=True)
class Comparison:
    """All variants of one training, and what only holds for all of them together. `images` counts those of each split;
    `unreadable` names files with the reason, a line each."""

    training: str
    results: tuple[Result, ...]
    images: Mapping[str, int] = field(default_factory=dict)
    latency: LatencyReport | None = None
    effects: tuple[Effect, ...] = ()
    damaged: tuple[DamagedImage, ...] = ()
    origins: tuple[Origin, ...] = ()
    unreadable: tuple[str, ...] = ()
    settings: str = ""

    @property
    def baseline(self) -> Result | None:
        return next((result for result in self.results if result.is_baseline and result.measured), None)


@dataclass(frozen=True)
class Findings:
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
    def results(self) -> list[Result]:
        return [result for comparison in self.comparisons for result in comparison.results]

    @property
    def failed(self) -> dict[str, str]:
        """What failed, with its reason, by label."""
        return {result.label: result.failed for result in self.results if result.failed}

    @property
    def reasons(self) -> dict[str, list[str]]:
        """What was left out, by reason."""
        grouped: dict[str, list[str]] = {}
        for name, why in self.left_out:
            grouped.setdefault(why, []).append(name)
        return grouped


def ordered(results: Sequence[Result]) -> list[Result]:
    """By training, the baseline on top, then from the smallest to the largest; what failed comes last."""
    trainings = list(dict.fromkeys(result.training for result in results))
    return sorted(
        results,
        key=lambda result: (
            trainings.index(result.training),
            not result.is_baseline,
            result.failed is not None,
            result.metrics.get("gzip_bytes", 0),
        ),
    )


def front(results: Sequence[Result], cost: str = "gzip_bytes") -> set[str]:
    """Variants of one training that no other beats in both test accuracy and `cost`, a metric (Pareto)."""
    there = [result for result in results if result.measured and cost in result.metrics]
    if not there:
        return set()
    costs = np.array([[result.metrics[cost], -result.metrics["test_accuracy"]] for result in there])
    return {result.variant for result, on in zip(there, stats.pareto_front(costs), strict=True) if on}


def duplicates(results: Sequence[Result]) -> list[list[Result]]:
    """Groups of variants whose artifacts are the same to the byte though their names differ."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result.digest:
            groups.setdefault(result.digest, []).append(result)
    return [group for group in groups.values() if len({result.label for result in group}) > 1]
