"""From times to ratios of latencies, what can be claimed of them, and whether they are known well enough."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from src.measure import stats
from src.measure.latency.budget import FIRST_LOOK, NEXT_LOOK
from src.measure.latency.report import Call, OperatorTime
from src.measure.stats import Interval
from src.settings.sections import Benchmark

# Operators that run others, which are listed in their place.
CONTROL_FLOW = {"CALL", "CALL_ONCE", "IF", "STABLEHLO_CASE", "STABLEHLO_COMPOSITE", "STABLEHLO_WHILE", "WHILE"}


def suffice(answers: Sequence[Mapping[str, Any]], reference: str, config: Benchmark) -> bool:
    n = len(answers)
    if n < FIRST_LOOK + NEXT_LOOK or (n - FIRST_LOOK) % NEXT_LOOK:
        return False
    times_ms = {name: times_of(answers, name) for name in answers[0]["times_ns"]}
    return all(
        precise(ratios_of({name: times[:k] for name, times in times_ms.items()}, reference, config).values(), config)
        for k in (n - NEXT_LOOK, n)
    )


def precise(ratios: Iterable[Interval], config: Benchmark) -> bool:
    """A large difference need not be known as closely as a small one: to a twentieth of its logarithm."""
    return all(
        np.log(ratio.high / ratio.low) / 2 <= max(config.precision, abs(np.log(ratio.estimate)) / 20)
        for ratio in ratios
    )


def times_of(answers: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """`[instances, rounds, invokes]`; the number of invokes differs from artifact to artifact."""
    return np.array([answer["times_ns"][name] for answer in answers], float) / 1e6


def ratios_of(times_ms: Mapping[str, np.ndarray], reference: str, config: Benchmark) -> dict[str, Interval]:
    """Of all but the reference to the reference, from the medians of the rounds that they shared."""
    rounds = {name: np.log(np.median(times, axis=2)) for name, times in times_ms.items()}
    return {
        name: stats.bootstrap_ratio(medians - rounds[reference], seed=config.seed)
        for name, medians in rounds.items()
        if name != reference
    }


def call(ratio: Interval, noise_floor: float) -> Call:
    """What can be claimed of a ratio of latencies: nothing unless its interval excludes 1 and it exceeds the noise
    floor."""
    if ratio.low <= 1 <= ratio.high or max(ratio.estimate, 1 / ratio.estimate) <= 1 + noise_floor:
        return "no difference"
    return "faster" if ratio.estimate < 1 else "slower"


def operator_times(calls: Sequence[Sequence[Sequence[Any]]]) -> tuple[OperatorTime, ...] | str:
    """What each operator takes in a call, from calls of (name, node, subgraph, microseconds); or why none can be said.

    The mean of the middle half of the calls: a few that were interrupted change it as little as they do the median, and
    it is finer than the whole microseconds in which the profiler counts. What a loop runs several times in a call is
    added up.
    """
    names = [{name for name, *_ in events} for events in calls]
    loops = any(CONTROL_FLOW & each for each in names)
    spent: dict[tuple[Any, ...], list[float]] = {}
    for i, events in enumerate(calls):
        seen: dict[tuple[Any, ...], int] = {}
        for name, node, subgraph, microseconds in events:
            if name in CONTROL_FLOW:
                continue
            # Partitions of a delegate number their nodes anew; only in a loop does the same one come again.
            nth = seen[name, node, subgraph] = seen.get((name, node, subgraph), -1) + 1
            key = (name, node, subgraph, 0 if loops else nth)
            spent.setdefault(key, [0.0] * len(calls))[i] += microseconds
    times = tuple(OperatorTime(key[0].removeprefix("Delegate/"), _middle(each) / 1e3) for key, each in spent.items())
    if not times:
        return "the runtime lists none"
    if not any(each.ms for each in times):
        return "none takes a microsecond, which is what the profiler counts in"
    return times


def _middle(values: Sequence[float]) -> float:
    """The mean without the lowest and the highest quarter."""
    aside = len(values) // 4
    return float(np.mean(sorted(values)[aside : len(values) - aside]))
