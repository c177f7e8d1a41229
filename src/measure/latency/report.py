"""What is found when latency is measured: of one artifact, and of all that were measured together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from src.measure.latency.workload import Input
from src.measure.stats import Interval
from src.settings.sections import Benchmark

Call = Literal["baseline", "faster", "no difference", "slower"]

CONTROL = "A/A control"  # a second instance of the baseline, measured like any other artifact


@dataclass(frozen=True)
class OperatorTime:
    """An operator as the runtime executes it, in one call of the model."""

    name: str
    ms: float


@dataclass(frozen=True)
class Latency:
    """One artifact. The four statistics are over every timed invoke; `ratio` is its latency over the baseline's, by
    paired rounds; `first_ms` the first invoke of a process, after `load_ms`; memory is what loading and the first
    invoke added. `operators` are in the order of execution; `no_operators` says why there are none. `measured_at` is
    the signature and the input, and empty where there is but one way to run it: on one image, or whatever it takes.
    """

    name: str
    latency_ms_mean: float
    latency_ms_std: float
    latency_ms_median: float
    latency_ms_p90: float
    ratio: Interval
    call: Call
    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None
    delegate: str | None
    invokes: int  # per round
    operators: tuple[OperatorTime, ...] = ()
    no_operators: str = ""
    signature: str = ""
    inputs: tuple[Input, ...] = ()
    measured_at: str = ""

    @property
    def speedup(self) -> Interval:
        return Interval(1 / self.ratio.estimate, 1 / self.ratio.high, 1 / self.ratio.low if self.ratio.low else np.inf)


@dataclass(frozen=True)
class Failure:
    name: str
    reason: str


@dataclass(frozen=True)
class Host:
    """Where and beside what it was measured. `others_cores` is how many cores other processes kept busy meanwhile.
    What the system does not tell is None.
    """

    hostname: str
    cpu: str
    cores: int
    runtime: str
    load_before: float | None
    load_during: float | None
    others_cores: float | None


@dataclass(frozen=True)
class Report:
    """`baseline` is what ratios are to. `control` is the baseline against itself; a difference smaller than
    `noise_floor` (0.02 is 2 %) is none; 1 and 0 where there was nothing to run. `seconds` is how the budget was spent.
    """

    baseline: str
    variants: tuple[Latency, ...]
    failures: tuple[Failure, ...]
    control: Interval
    noise_floor: float
    instances: int
    rounds: int
    config: Benchmark
    host: Host
    seconds: Mapping[str, float]
