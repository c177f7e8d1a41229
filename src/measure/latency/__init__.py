"""Latency of many artifacts at batch 1, measured together so that the differences between them can be believed.

Two interpreter instances of one file can differ by 10 % in speed for as long as they live, and a machine drifts: so
every artifact gets several fresh instances, all artifacts take turns in random rounds, ratios are taken within a
round, and the baseline runs against itself to show how small a difference can be told. Everything that loads an
artifact is a child process.
"""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src.machine import system as machine
from src.measure import stats
from src.measure.latency.workload import Input, Workload, workload
from src.measure.stats import Interval
from src.measure.targets.litert import CPU
from src.settings.check import UserError
from src.settings.sections import Benchmark

Call = Literal["baseline", "faster", "no difference", "slower"]
Progress = Callable[[float, str], None]

CONTROL = "A/A control"  # a second instance of the baseline, measured like any other artifact
# Of a round, so that a tiny model's is long against the timer and a large one's is not the whole budget.
BLOCK_MS = 1.0
INVOKES = (3, 50)  # least and most timed invokes per artifact and round
LEAST_INSTANCES, LEAST_ROUNDS = 3, 3
# Looks at whether the instances suffice: after 8, 12, 16, … Two in a row must say so, since to stop at the first lucky
# one would make intervals too narrow (simulated: 93 to 95 of 100 cover the truth, instead of 92).
FIRST_LOOK, NEXT_LOOK = 8, 4
CHILD_SECONDS = 0.25  # to start a process with numpy and LiteRT
PROBE_SECONDS = 0.1
# At least so many calls are profiled; more, up to ten times as many, of a model that takes little time.
PROFILED_INVOKES, PROFILED_SECONDS = 20, 0.1
# A child that does not answer within its budget, or within this, is taken to run for ever.
PATIENCE_SECONDS = 10
# Operators that run others, which are listed in their place.
CONTROL_FLOW = {"CALL", "CALL_ONCE", "IF", "STABLEHLO_CASE", "STABLEHLO_COMPOSITE", "STABLEHLO_WHILE", "WHILE"}
REASON_LENGTH = 200  # of what LiteRT says of a model, which can be a page


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


@dataclass(frozen=True)
class Plan:
    """How the budget is spent: `invokes` are timed per artifact and round, after one that is not."""

    instances: int
    rounds: int
    invokes: dict[str, int]
    warmup: int
    seconds_per_instance: float


@dataclass(frozen=True)
class _Job:
    """A file and how it is run."""

    path: str
    workload: Workload

    def request(self) -> dict[str, Any]:
        inputs = [asdict(each) for each in self.workload.inputs]
        return {
            "path": self.path,
            "subgraph": self.workload.subgraph,
            "index": self.workload.index,
            "inputs": inputs,
        }


def measure(
    artifacts: Mapping[str, Path],
    baseline: str,
    config: Benchmark,
    progress: Progress | None = None,
    workloads: Mapping[str, Workload] | None = None,
) -> Report:
    """Measures `artifacts` against the one named `baseline`. `progress` is told the share done and what is being done;
    `workloads` says how those are run that can be in several ways.

    An artifact that can't be loaded or crashes the interpreter is among the failures, with the reason in one line. If
    the baseline is, ratios are to the first artifact that runs; if none does, the report has no variants.
    """
    tell = progress or (lambda share, what: None)
    started, others, load_before = time.monotonic(), machine.seconds_of_others(), machine.load_average()
    jobs, failures = _jobs(artifacts, workloads or {})

    jobs, probes, unfit = _probe(jobs, config, lambda share, what: tell(0.1 * share, what))
    failures += unfit
    probed = time.monotonic()
    profiling = _profile_seconds(probes) if config.operators else 0.0
    left = config.seconds - (probed - started)
    until = started + config.seconds - min(profiling, left / 4)
    instances = _instances(jobs, baseline, probes, config, until, lambda share, what: tell(0.1 + 0.8 * share, what))
    failures += instances.failures
    measured = time.monotonic()
    until = started + config.seconds
    profiles = _profile(jobs, instances.probes, config, until, lambda share, what: tell(0.9 + 0.1 * share, what))
    done = time.monotonic()
    tell(1.0, "done")

    latencies, control, floor = _compare(instances, config, jobs, profiles)
    answers = instances.answers
    return Report(
        baseline=instances.reference,
        variants=latencies,
        failures=tuple(failures),
        control=control,
        noise_floor=floor,
        instances=len(answers),
        rounds=instances.plan.rounds,
        config=config,
        host=Host(
            hostname=platform.node(),
            cpu=machine.cpu_model(),
            cores=os.cpu_count() or 1,
            runtime=CPU.runtime(),
            load_before=load_before,
            load_during=_mean([a["load_average"] for a in answers]) if answers else load_before,
            others_cores=_others_cores(others, done - started),
        ),
        seconds={
            "probes": probed - started,
            "loading": sum(answer["load_s"] for answer in answers),
            "rounds": sum(answer["rounds_s"] for answer in answers),
            "processes": measured - probed - sum(answer["load_s"] + answer["rounds_s"] for answer in answers),
            "operators": done - measured,
            "total": done - started,
        },
    )


def why_it_cannot_run(path: Path) -> str | None:
    """Loads and invokes an artifact in a process of its own; gives the reason in one line if that fails."""
    jobs, failures = _jobs({path.name: path}, {})
    failures += _probe(jobs, Benchmark(), lambda share, what: None, seconds=0.0)[2]
    return failures[0].reason if failures else None


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


# --- The phases ------------------------------------------------------------------------------------------------


@dataclass
class _Instances:
    """What came of the rounds: `probes` of the artifacts that survived, `answers` of the children, by instance."""

    reference: str
    probes: dict[str, dict[str, Any]]
    plan: Plan
    answers: list[dict[str, Any]]
    failures: list[Failure]


def _jobs(artifacts: Mapping[str, Path], workloads: Mapping[str, Workload]) -> tuple[dict[str, _Job], list[Failure]]:
    """How each file is run; and the files for which that can't be said."""
    jobs, failures = {}, []
    for name, path in artifacts.items():
        try:
            jobs[name] = _Job(os.path.abspath(path), workloads.get(name) or workload(path))
        except UserError as error:
            failures.append(Failure(name, _reason(str(error).removeprefix(f"{path}: "))))
    return jobs, failures


def _probe(
    jobs: Mapping[str, _Job], config: Benchmark, tell: Progress, seconds: float = PROBE_SECONDS
) -> tuple[dict[str, _Job], dict[str, dict[str, Any]], list[Failure]]:
    """Loads each artifact in a process of its own. Both what can be run, with the input on which it can, and what
    can't."""
    fit, probes, failures = {}, {}, []
    patience = max(PATIENCE_SECONDS, config.seconds)
    for i, (name, job) in enumerate(jobs.items()):
        tell(i / len(jobs), f"load {name}")
        reason = ""
        for attempt in job.workload.attempts():
            fit[name] = _Job(job.path, attempt)
            request = fit[name].request()
            answer = _ask("probe", patience, workload=request, threads=config.threads, seconds=seconds)
            reason = reason or answer.get("error", "")
            if "error" not in answer:
                probes[name] = answer
                break
            if answer.get("hangs"):
                break
        else:
            reason += f" (on {job.workload}, and with zeros)" if attempt != job.workload else ""
        if name not in probes:
            failures.append(Failure(name, reason))
    return fit, probes, failures


def _instances(
    jobs: Mapping[str, _Job],
    baseline: str,
    probes: Mapping[str, dict[str, Any]],
    config: Benchmark,
    until: float,
    tell: Progress,
) -> _Instances:
    """A process per instance, with one interpreter of each artifact and two of the baseline, by the time `until`."""
    left = dict(probes)
    failures: list[Failure] = []
    while left:
        reference = baseline if baseline in left else next(iter(left))
        started = time.monotonic()
        plan = allocate(left, reference, config, until - started)
        models = {name: jobs[name] for name in left}
        answers: list[dict[str, Any]] = []
        while len(answers) < plan.instances:
            tell(len(answers) / plan.instances, f"instance {len(answers) + 1} of {plan.instances}")
            answer = _rounds(models, reference, plan, config, len(answers))
            if "error" in answer:
                break
            answers.append(answer | {"load_average": machine.load_average()})
            spent = time.monotonic() - started
            if len(answers) >= LEAST_INSTANCES and time.monotonic() + spent / len(answers) > until:
                break  # slower than the probes promised: the budget holds
            if _suffice(answers, reference, config):
                break
        if "error" not in answer:
            return _Instances(reference, left, plan, answers, failures)
        # It ran in its probe and crashed now. Those measured beside it are measured again without it.
        crashed = reference if answer["name"] == CONTROL else answer["name"]
        failures.append(Failure(crashed, answer["error"]))
        del left[crashed]
    return _Instances(baseline, {}, Plan(0, 0, {}, 0, 0.0), [], failures)


def _rounds(jobs: Mapping[str, _Job], reference: str, plan: Plan, config: Benchmark, instance: int) -> dict[str, Any]:
    """The answer of one instance of each of `jobs` and a second one of `reference`; of a crash also `name`, what was
    being run."""
    models = {name: job.request() for name, job in jobs.items()} | {CONTROL: jobs[reference].request()}
    with tempfile.NamedTemporaryFile() as at:
        at.write(b"\0\0")
        at.flush()
        answer = _ask(
            "rounds",
            PATIENCE_SECONDS + 10 * plan.seconds_per_instance,
            models=models,
            threads=config.threads,
            warmup=plan.warmup,
            rounds=plan.rounds,
            invokes=plan.invokes | {CONTROL: plan.invokes[reference]},
            seed=config.seed + instance,
            at=at.name,
        )
        if "error" in answer:
            at.seek(0)
            answer["name"] = list(models)[int.from_bytes(at.read(2), "little")]
        return answer


def _profile_seconds(probes: Mapping[str, Mapping[str, Any]]) -> float:
    return sum(
        CHILD_SECONDS
        + PROFILED_SECONDS
        + (p["load_ms"] + p["first_ms"] + 1.25 * PROFILED_INVOKES * p["latency_ms"]) / 1e3
        for p in probes.values()
    )


def _profile(
    jobs: Mapping[str, _Job], probes: Mapping[str, dict[str, Any]], config: Benchmark, until: float, tell: Progress
) -> dict[str, tuple[OperatorTime, ...] | str]:
    """Time per operator, for as many as there is time, or why there is none: the artifact did run."""
    profiles: dict[str, tuple[OperatorTime, ...] | str] = {}
    for i, (name, probe) in enumerate(probes.items()):
        expected = _profile_seconds({name: probe})
        if not config.operators:
            profiles[name] = "operators=false"
        elif time.monotonic() + expected > until:
            profiles[name] = f"seconds={config.seconds:g} left no time for it"
        else:
            tell(i / len(probes), f"operators of {name}")
            share = max(0.0, until - time.monotonic()) / (len(probes) - i)
            answer = _ask(
                "profile",
                PATIENCE_SECONDS + 10 * expected + share,
                workload=jobs[name].request(),
                threads=config.threads,
                invokes=PROFILED_INVOKES,
                seconds=PROFILED_SECONDS,
                at_most_seconds=share,
            )
            profiles[name] = answer["error"] if "error" in answer else operator_times(answer["calls"])
    return profiles


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


def _compare(
    instances: _Instances,
    config: Benchmark,
    jobs: Mapping[str, _Job],
    profiles: Mapping[str, tuple[OperatorTime, ...] | str],
) -> tuple[tuple[Latency, ...], Interval, float]:
    """Every artifact, the control, and the noise floor: what the control's interval does not exclude."""
    if not instances.answers:
        return (), Interval(1.0, 1.0, 1.0), 0.0
    names = [*instances.probes, CONTROL]
    times_ms = {name: _times_ms(instances.answers, name) for name in names}
    ratios = _ratios(times_ms, instances.reference, config)
    control = ratios[CONTROL]
    floor = float(np.exp(np.abs(np.log([control.low, control.high])).max()) - 1)

    def latency(name: str) -> Latency:
        ratio, times, probe = ratios.get(name, Interval(1.0, 1.0, 1.0)), times_ms[name], instances.probes[name]
        profile, how = profiles[name], jobs[name].workload
        return Latency(
            name=name,
            latency_ms_mean=float(times.mean()),
            latency_ms_std=float(times.std(ddof=1)),
            latency_ms_median=float(np.median(times)),
            latency_ms_p90=float(np.quantile(times, 0.9)),
            ratio=ratio,
            call="baseline" if name == instances.reference else call(ratio, floor),
            load_ms=probe["load_ms"],
            first_ms=probe["first_ms"],
            peak_memory_bytes=probe["peak_memory_bytes"],
            delegate=probe["delegate"],
            invokes=instances.plan.invokes[name],
            operators=() if isinstance(profile, str) else profile,
            no_operators=profile if isinstance(profile, str) else "",
            signature=how.signature,
            inputs=how.inputs,
            measured_at=str(how) if how.unusual else "",
        )

    return tuple(map(latency, instances.probes)), control, floor


def _suffice(answers: Sequence[Mapping[str, Any]], reference: str, config: Benchmark) -> bool:
    n = len(answers)
    if n < FIRST_LOOK + NEXT_LOOK or (n - FIRST_LOOK) % NEXT_LOOK:
        return False
    times_ms = {name: _times_ms(answers, name) for name in answers[0]["times_ns"]}
    return all(
        precise(_ratios({name: times[:k] for name, times in times_ms.items()}, reference, config).values(), config)
        for k in (n - NEXT_LOOK, n)
    )


def precise(ratios: Iterable[Interval], config: Benchmark) -> bool:
    """A large difference need not be known as closely as a small one: to a twentieth of its logarithm."""
    return all(
        np.log(ratio.high / ratio.low) / 2 <= max(config.precision, abs(np.log(ratio.estimate)) / 20)
        for ratio in ratios
    )


def _times_ms(answers: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """`[instances, rounds, invokes]`; the number of invokes differs from artifact to artifact."""
    return np.array([answer["times_ns"][name] for answer in answers], float) / 1e6


def _ratios(times_ms: Mapping[str, np.ndarray], reference: str, config: Benchmark) -> dict[str, Interval]:
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


def _ask(action: str, patience_seconds: float, **request: Any) -> dict[str, Any]:
    """The answer of a fresh child process; {"error": reason} if it crashed or could not do what it was asked, and
    "hangs" as well if it gave no answer."""
    # -P: beside the child lie modules that are none of its business.
    command = [sys.executable, "-P", str(CPU.child)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        answer, errors = process.communicate(json.dumps(request | {"action": action}).encode(), patience_seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"gave no answer in {patience_seconds:.0f} s; a larger seconds= waits longer", "hangs": True}
    finally:
        process.kill()
        process.wait()
    if process.returncode == -signal.SIGKILL:
        return {"error": "was killed (SIGKILL), probably for want of memory"}
    if process.returncode < 0:
        return {"error": f"crashes the interpreter ({signal.Signals(-process.returncode).name})"}
    if process.returncode:
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        return {"error": _reason(f"ends the interpreter with exit code {process.returncode}: {' '.join(last)}")}
    found: dict[str, Any] = json.loads(answer)
    return found | {"error": _reason(found["error"])} if "error" in found else found


def _reason(text: str) -> str:
    """What LiteRT says of a model, in one line and cut to a length that a person reads."""
    line = " ".join(re.sub(r"(?<=\S)(?=Node number \d)", "; ", text).split())
    return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 2].rstrip() + " …"


# --- The host --------------------------------------------------------------------------------------------------


def _mean(loads: Sequence[float | None]) -> float | None:
    known = [load for load in loads if load is not None]
    return float(np.mean(known)) if known else None


def _others_cores(before: float | None, seconds: float) -> float | None:
    """Cores that were busy with something else than this process and its children since `before`."""
    after = machine.seconds_of_others()
    if before is None or after is None or not seconds:
        return None
    return max(0.0, (after - before) / seconds)
