"""Latency of many artifacts at batch 1, measured together so that the differences between them can be believed.

Two interpreter instances of one file can differ by 10 % in speed for as long as they live, and a machine drifts: so
every artifact gets several fresh instances, all artifacts take turns in random rounds, ratios are taken within a
round, and the baseline runs against itself to show how small a difference can be told. Everything that loads an
artifact is a child process.
"""

import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src import stats
from src.config import Benchmark
from src.stats import Interval

Call = Literal["baseline", "faster", "no difference", "slower"]
Progress = Callable[[float, str], None]

CONTROL = "A/A control"  # a second instance of the baseline, measured like any other artifact
# Of a round, so that a tiny model's is long against the timer and a large one's is not the whole budget.
BLOCK_MS = 1.0
INVOKES = (3, 50)  # least and most timed invokes per artifact and round
LEAST_INSTANCES, LEAST_ROUNDS = 3, 3
CHILD_SECONDS = 0.25  # to start a process with numpy and LiteRT
PROBE_SECONDS = 0.1
ANSWER_SECONDS = 600  # for a child that hangs


@dataclass(frozen=True)
class Latency:
    """One artifact. The four statistics are over every timed invoke; `ratio` is its latency over the baseline's, by
    paired rounds; `first_ms` the first invoke of a process, after `load_ms`; memory is what loading and the first
    invoke added.
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

    @property
    def speedup(self) -> Interval:
        return Interval(1 / self.ratio.estimate, 1 / self.ratio.high, 1 / self.ratio.low if self.ratio.low else np.inf)


@dataclass(frozen=True)
class Failure:
    name: str
    reason: str


@dataclass(frozen=True)
class Host:
    """Where and beside what it was measured. `others_cores` is how many cores other processes kept busy meanwhile."""

    hostname: str
    cpu: str
    cores: int
    runtime: str
    load_before: float
    load_during: float
    others_cores: float | None


@dataclass(frozen=True)
class Report:
    """`control` is the baseline against itself; a difference smaller than `noise_floor` (0.02 is 2 %) is none."""

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


@dataclass(frozen=True)
class Plan:
    """How the budget is spent: `invokes` are timed per artifact and round, after one that is not."""

    instances: int
    rounds: int
    invokes: dict[str, int]


def measure(
    artifacts: Mapping[str, Path], baseline: str, config: Benchmark, progress: Progress | None = None
) -> Report:
    """Measures `artifacts` against the one named `baseline`. `progress` is told the share done and what is being done.

    An artifact that can't be loaded or crashes the interpreter is among the failures, with the reason in one line. If
    the baseline is, ratios are to the first artifact that runs; if none does, the report has no variants.
    """
    started = time.monotonic()
    load_before, cpu_before = os.getloadavg()[0], _cpu_seconds()
    tell = progress or (lambda share, what: None)
    probes: dict[str, dict[str, Any]] = {}
    failures: list[Failure] = []
    for i, (name, path) in enumerate(artifacts.items()):
        tell(0.2 * i / len(artifacts), f"loading {name}")
        answer = _ask(action="probe", path=os.path.abspath(path), threads=config.threads, seconds=PROBE_SECONDS)
        if "error" in answer:
            failures.append(Failure(name, answer["error"]))
        else:
            probes[name] = answer
    probed = time.monotonic()

    runs: list[dict[str, Any]] = []
    plan = Plan(0, 0, {})
    while probes and len(runs) < max(plan.instances, 1):
        reference = baseline if baseline in probes else next(iter(probes))
        if not runs:
            plan = allocate(probes, reference, config, config.seconds - (time.monotonic() - started))
        tell(0.2 + 0.8 * len(runs) / plan.instances, f"instance {len(runs) + 1} of {plan.instances}")
        answer = _rounds(artifacts, reference, probes, plan, config, len(runs))
        if "error" not in answer:
            runs.append(answer)
            spent = time.monotonic() - probed
            if len(runs) >= LEAST_INSTANCES and time.monotonic() - started + spent / len(runs) > config.seconds:
                break  # slower than the probes promised: the budget holds
        else:
            # It ran in its probe and crashed now. Those measured with it are measured again without it.
            failures.append(Failure(answer["name"], answer["error"]))
            del probes[answer["name"]]
            runs.clear()
    done = time.monotonic()
    tell(1.0, "done")

    times = {name: [run["times_ns"][name] for run in runs] for name in (*probes, CONTROL) if runs}
    medians = {name: np.log(np.median(np.array(t, float), axis=2)) for name, t in times.items()}
    control = Interval(1.0, 0.0, np.inf)
    if runs:
        control = stats.bootstrap_ratio(medians[CONTROL] - medians[reference], seed=config.seed)
    floor = max(abs(np.log([max(control.low, 1e-9), min(control.high, 1e9)])))
    load_during = float(np.mean([run["load_average"] for run in runs])) if runs else load_before
    cores = os.cpu_count() or 1
    return Report(
        baseline=baseline,
        variants=tuple(
            _latency(
                name, np.array(times[name], float) / 1e6, medians[name] - medians[reference], floor, plan, p, config
            )
            if name != reference
            else _latency(name, np.array(times[name], float) / 1e6, None, floor, plan, p, config)
            for name, p in probes.items()
            if runs
        ),
        failures=tuple(failures),
        control=control,
        noise_floor=float(np.expm1(floor)),
        instances=len(runs),
        rounds=plan.rounds,
        config=config,
        host=Host(
            hostname=platform.node(),
            cpu=_cpu_model(),
            cores=cores,
            runtime=f"LiteRT {version('ai-edge-litert')}",
            load_before=load_before,
            load_during=load_during,
            others_cores=_others_cores(cpu_before, done - started),
        ),
        seconds={
            "probes": probed - started,
            "loading": sum(run["load_s"] for run in runs),
            "rounds": sum(run["rounds_s"] for run in runs),
            "total": done - started,
        },
    )


def allocate(probes: Mapping[str, Mapping[str, Any]], baseline: str, config: Benchmark, seconds: float) -> Plan:
    """Spends at most `seconds`, if the least that can be compared fits into them.

    What is short is taken from the rounds first, then from the invokes of a round and last from the instances: it is
    between instances that one file differs most.
    """
    latency = {name: probe["latency_ms"] / 1e3 for name, probe in probes.items()}
    low, high = INVOKES
    invokes = {name: int(np.clip(BLOCK_MS / 1e3 / s, low, high)) for name, s in latency.items()}

    def cost(name: str) -> tuple[float, float]:
        """Seconds per instance and per round."""
        probe = probes[name]
        load = (probe["load_ms"] + probe["first_ms"]) / 1e3 + config.warmup * latency[name]
        return load, latency[name] * (1 + invokes[name])

    def per_instance(rounds: int) -> float:
        all_names = [*probes, baseline]  # the control is another instance of the baseline
        return CHILD_SECONDS + sum(load + rounds * block for load, block in map(cost, all_names))

    rounds = config.rounds
    while rounds > LEAST_ROUNDS and per_instance(rounds) * config.instances > seconds:
        rounds -= 1
    while max(invokes.values()) > 1 and per_instance(rounds) * config.instances > seconds:
        invokes = {name: max(1, n - 1) for name, n in invokes.items()}
    instances = config.instances
    while instances > LEAST_INSTANCES and per_instance(rounds) * instances > seconds:
        instances -= 1
    return Plan(instances, rounds, invokes)


def _latency(
    name: str,
    times_ms: np.ndarray,
    log_ratios: np.ndarray | None,
    floor: float,
    plan: Plan,
    probe: Mapping[str, Any],
    config: Benchmark,
) -> Latency:
    """`times_ms`: `[instances, rounds, invokes]`; `log_ratios`: `[instances, rounds]`, None for the baseline."""
    ratio, call = Interval(1.0, 1.0, 1.0), "baseline"
    if log_ratios is not None:
        ratio = stats.bootstrap_ratio(log_ratios, seed=config.seed)
        certain = (ratio.low > 1 or ratio.high < 1) and abs(np.log(ratio.estimate)) > floor
        call = "no difference" if not certain else "faster" if ratio.estimate < 1 else "slower"
    return Latency(
        name=name,
        latency_ms_mean=float(times_ms.mean()),
        latency_ms_std=float(times_ms.std(ddof=1)),
        latency_ms_median=float(np.median(times_ms)),
        latency_ms_p90=float(np.quantile(times_ms, 0.9)),
        ratio=ratio,
        call=call,  # type: ignore[arg-type]
        load_ms=probe["load_ms"],
        first_ms=probe["first_ms"],
        peak_memory_bytes=probe["peak_memory_bytes"],
        delegate=probe["delegate"],
        invokes=plan.invokes[name],
    )


# --- Children --------------------------------------------------------------------------------------------------


def _rounds(
    artifacts: Mapping[str, Path],
    baseline: str,
    probes: Mapping[str, Any],
    plan: Plan,
    config: Benchmark,
    instance: int,
) -> dict[str, Any]:
    """The answer of one instance of each artifact and of the control; of a crash, the name of what was running."""
    models = {name: os.path.abspath(artifacts[name]) for name in probes} | {
        CONTROL: os.path.abspath(artifacts[baseline])
    }
    with tempfile.NamedTemporaryFile() as at:
        at.write(b"\0")
        at.flush()
        answer = _ask(
            action="rounds",
            models=models,
            threads=config.threads,
            warmup=config.warmup,
            rounds=plan.rounds,
            invokes=plan.invokes | {CONTROL: plan.invokes[baseline]},
            seed=config.seed + instance,
            at=at.name,
        )
        if "error" in answer:
            at.seek(0)
            name = list(models)[at.read(1)[0]]
            answer["name"] = baseline if name == CONTROL else name
        return answer


def _ask(**request: Any) -> dict[str, Any]:
    """The answer of a fresh child process; {"error": reason} if it crashed, hung or could not do what it was asked."""
    # -P: beside the child lie modules that are none of its business.
    command = [sys.executable, "-P", str(Path(__file__).with_name("child.py"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        answer, errors = process.communicate(json.dumps(request).encode(), timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        return {"error": f"gave no answer in {ANSWER_SECONDS} seconds"}
    finally:
        process.kill()
        process.wait()
    if process.returncode < 0:
        return {"error": f"crashed the interpreter ({signal.Signals(-process.returncode).name})"}
    if process.returncode:
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        return {"error": f"ended the interpreter with exit code {process.returncode}: {' '.join(last)}"}
    return json.loads(answer)


# --- The host --------------------------------------------------------------------------------------------------


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _cpu_seconds() -> tuple[float, float] | None:
    """Seconds on a core: of all processes since the machine started, and of this one and its children that ended."""
    try:
        fields = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields)
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    everything = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return everything, sum(usage.ru_utime + usage.ru_stime for usage in own)


def _others_cores(before: tuple[float, float] | None, seconds: float) -> float | None:
    """Cores that were busy with something else than this process and its children since `before`."""
    after = _cpu_seconds()
    if before is None or after is None or not seconds:
        return None
    return max(0.0, (after[0] - before[0] - (after[1] - before[1])) / seconds)
