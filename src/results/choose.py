"""Which variant to ship: the least of what is minimized among those whose cost is sure to be borne.

The choice looks at the validation split only. Nothing here knows where results come from: a search chooses as well.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass as schema

from src.results.report.numbers import interval, points, size, three
from src.results.variant import Result
from src.settings.check import STRICT

MINIMIZE = {
    "gzip_bytes": "gzip_bytes",
    "latency": "latency_ms_median",
    "multiply_adds": "multiply_adds",
    "tflite_bytes": "tflite_bytes",
}
UNITS = {"": 1, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _to_bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", value)
    units = {unit.lower(): factor for unit, factor in UNITS.items()}
    if not match or match[2].lower() not in units:
        raise ValueError(f"got {value}, takes bytes, such as 2MB, 500kB or 1.5MiB")
    return float(match[1]) * units[match[2].lower()]


@schema(frozen=True, config=STRICT)
class Constraints:
    """What a variant may cost, and what there should be least of."""

    max_drop: Annotated[float, Field(ge=0, lt=1, description="of accuracy; 0.01 is a point")] = 0.01
    max_class_drop: Annotated[
        float, Field(ge=0, le=1, description="a class that is sure to lose more refuses a variant; 1 refuses none")
    ] = 0.05
    minimize: Annotated[
        Literal["gzip_bytes", "latency", "multiply_adds", "tflite_bytes"],
        Field(description="or latency, multiply_adds, tflite_bytes"),
    ] = "gzip_bytes"
    risk: Annotated[
        Literal["interval", "point"], Field(description="max_drop bounds the interval's upper end, or the estimate")
    ] = "interval"
    max_gzip: Annotated[
        Annotated[float, Field(gt=0)] | None, BeforeValidator(_to_bytes), Field(description="gzip bytes, such as 2MB")
    ] = None
    max_latency_ms: Annotated[
        Annotated[float, Field(gt=0)] | None, Field(description="of the median latency at batch 1")
    ] = None


@dataclass(frozen=True)
class Candidate:
    """A variant and why it can't be chosen: for each constraint that fails, what and by how much."""

    result: Result
    refused: tuple[str, ...]
    excess: float


def candidates(results: Sequence[Result], constraints: Constraints) -> list[Candidate]:
    """Every variant but the dense baselines, those that qualify first, by what is minimized; then by how little they
    fail."""
    baselines = {result.training: result for result in results if result.is_baseline}
    every = [
        Candidate(result, *_refused(result, baselines.get(result.training), constraints))
        for result in results
        if not result.is_baseline
    ]

    def order(candidate: Candidate) -> tuple[bool, float, float, float]:
        metrics = candidate.result.metrics
        minimized = metrics.get(MINIMIZE[constraints.minimize], 0)
        return (bool(candidate.refused), candidate.excess, minimized, metrics.get("gzip_bytes", 0))

    return sorted(every, key=order)


def _refused(result: Result, baseline: Result | None, constraints: Constraints) -> tuple[tuple[str, ...], float]:
    """Why not, and the largest factor by which a constraint is exceeded."""
    if result.failed:
        return (result.failed,), math.inf
    if result.no_number:
        return (result.no_number,), math.inf
    if baseline and baseline.no_number:
        return (f"its dense baseline {baseline.no_number}",), math.inf
    drop = result.validation_accuracy_drop
    if drop is None:
        return ("was not compared on the validation split",), math.inf
    reasons, excess = [], 0.0
    worst = drop.high if constraints.risk == "interval" else drop.estimate
    if worst > constraints.max_drop:
        over = 100 * (worst - constraints.max_drop)
        what = "may drop up to" if constraints.risk == "interval" else "drops"
        digits = 1 if over >= 0.05 else 3  # else it would be 0.0 above
        reasons.append(f"{what} {100 * worst:.{digits}f} points: {over:.{digits}f} points above max_drop")
        excess = max(excess, worst / constraints.max_drop if constraints.max_drop else math.inf)
    of_class = result.validation_worst_class_drop
    if of_class and of_class.low > constraints.max_class_drop:
        told = f"class {result.validation_worst_class} drops {points(of_class.estimate)} {interval(of_class)} points"
        reasons.append(f"{told}: sure to be above max_class_drop")
        excess = max(excess, of_class.low / constraints.max_class_drop if constraints.max_class_drop else math.inf)
    limits = (
        ("gzip_bytes", constraints.max_gzip, "max_gzip", size),
        ("latency_ms_median", constraints.max_latency_ms, "max_latency_ms", lambda ms: f"{three(ms)} ms"),
    )
    for name, most, setting, show in limits:
        value = result.metrics.get(name)
        if most is not None and value is None:
            reasons.append(f"has no {name}")
            excess = math.inf
        elif most is not None and value is not None and value > most:
            reasons.append(f"{show(value)}: {show(value - most)} above {setting}")
            excess = max(excess, value / most)
    if MINIMIZE[constraints.minimize] not in result.metrics and not reasons:
        return (f"has no {MINIMIZE[constraints.minimize]}",), math.inf
    return tuple(reasons), excess
