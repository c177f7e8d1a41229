"""How the seconds of a measurement are spent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.settings.sections import Benchmark

# Of a round, so that a tiny model's is long against the timer and a large one's is not the whole budget.
BLOCK_MS = 1.0
INVOKES = (3, 50)  # least and most timed invokes per artifact and round
LEAST_INSTANCES, LEAST_ROUNDS = 3, 3
# Looks at whether the instances suffice: after 8, 12, 16, … Two in a row must say so, since to stop at the first lucky
# one would make intervals too narrow (simulated: 93 to 95 of 100 cover the truth, instead of 92).
FIRST_LOOK, NEXT_LOOK = 8, 4
CHILD_SECONDS = 0.25  # to start a process with numpy and LiteRT
# At least so many calls are profiled; more, up to ten times as many, of a model that takes little time.
PROFILED_INVOKES, PROFILED_SECONDS = 20, 0.1


@dataclass(frozen=True)
class Plan:
    """How the budget is spent: `invokes` are timed per artifact and round, after one that is not."""

    instances: int
    rounds: int
    invokes: dict[str, int]
    warmup: int
    seconds_per_instance: float


def allocate(probes: Mapping[str, Mapping[str, Any]], baseline: str, config: Benchmark, seconds: float) -> Plan:
    """Spends at most `seconds`, if the least that can be compared fits into them.

    What is short is taken from the rounds first, then from the invokes of a round, then from the warm-up, since each
    round has an invoke that is not timed, and last from the instances: it is between instances that one file differs
    most. As many instances as there may be are seldom needed: those beyond the second look cost no rounds.
    """
    latency = {name: probe["latency_ms"] / 1e3 for name, probe in probes.items()}
    low, high = INVOKES
    invokes = {name: int(np.clip(BLOCK_MS / 1e3 / s, low, high)) for name, s in latency.items()}

    def cost(name: str) -> tuple[float, float]:
        """Seconds per instance and per round."""
        probe = probes[name]
        load = (probe["load_ms"] + probe["first_ms"]) / 1e3 + warmup * latency[name]
        return load, latency[name] * (1 + invokes[name])

    def per_instance() -> float:
        with_control = [*probes, baseline]
        return CHILD_SECONDS + sum(load + rounds * block for load, block in map(cost, with_control))

    rounds, warmup = config.rounds, config.warmup
    wanted = min(config.instances, FIRST_LOOK + NEXT_LOOK)
    while rounds > LEAST_ROUNDS and per_instance() * wanted > seconds:
        rounds -= 1
    while max(invokes.values()) > 1 and per_instance() * wanted > seconds:
        invokes = {name: max(1, n - 1) for name, n in invokes.items()}
    while warmup > 0 and per_instance() * wanted > seconds:
        warmup -= 1
    instances = config.instances
    while instances > LEAST_INSTANCES and per_instance() * instances > seconds:
        instances -= 1
    return Plan(instances, rounds, invokes, warmup, per_instance())


def profile_seconds(probes: Mapping[str, Mapping[str, Any]]) -> float:
    """To profile all of them."""
    return sum(
        CHILD_SECONDS
        + PROFILED_SECONDS
        + (p["load_ms"] + p["first_ms"] + 1.25 * PROFILED_INVOKES * p["latency_ms"]) / 1e3
        for p in probes.values()
    )
