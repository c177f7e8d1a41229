"""Latency of many artifacts at batch 1, measured together so that the differences between them can be believed.

Two interpreter instances of one file can differ by 10 % in speed for as long as they live, and a machine drifts: so
every artifact gets several fresh instances, all artifacts take turns in random rounds, ratios are taken within a
round, and the baseline runs against itself to show how small a difference can be told. Everything that loads an
artifact is a child process.
"""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.machine import system as machine
from src.measure.latency.budget import profile_seconds
from src.measure.latency.processes import Instances, Job, Progress, instances, jobs_of, probe, profile
from src.measure.latency.ratios import call, ratios_of, times_of
from src.measure.latency.report import CONTROL, Host, Latency, OperatorTime, Report
from src.measure.latency.workload import Workload
from src.measure.stats import Interval
from src.measure.targets.litert import CPU
from src.settings.sections import Benchmark


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
    jobs, failures = jobs_of(artifacts, workloads or {})

    jobs, probes, unfit = probe(jobs, config, lambda share, what: tell(0.1 * share, what))
    failures += unfit
    probed = time.monotonic()
    profiling = profile_seconds(probes) if config.operators else 0.0
    left = config.seconds - (probed - started)
    until = started + config.seconds - min(profiling, left / 4)
    taken = instances(jobs, baseline, probes, config, until, lambda share, what: tell(0.1 + 0.8 * share, what))
    failures += taken.failures
    measured = time.monotonic()
    until = started + config.seconds
    profiles = profile(jobs, taken.probes, config, until, lambda share, what: tell(0.9 + 0.1 * share, what))
    done = time.monotonic()
    tell(1.0, "done")

    latencies, control, floor = _compare(taken, config, jobs, profiles)
    return Report(
        baseline=taken.reference,
        variants=latencies,
        failures=tuple(failures),
        control=control,
        noise_floor=floor,
        instances=len(taken.answers),
        rounds=taken.plan.rounds,
        config=config,
        host=_host(load_before, taken.answers, _others_cores(others, done - started)),
        seconds=_spent(taken.answers, started, probed, measured, done),
    )


def _compare(
    taken: Instances,
    config: Benchmark,
    jobs: Mapping[str, Job],
    profiles: Mapping[str, tuple[OperatorTime, ...] | str],
) -> tuple[tuple[Latency, ...], Interval, float]:
    """Every artifact, the control, and the noise floor: what the control's interval does not exclude."""
    if not taken.answers:
        return (), Interval(1.0, 1.0, 1.0), 0.0
    names = [*taken.probes, CONTROL]
    times_ms = {name: times_of(taken.answers, name) for name in names}
    ratios = ratios_of(times_ms, taken.reference, config)
    control = ratios[CONTROL]
    floor = float(np.exp(np.abs(np.log([control.low, control.high])).max()) - 1)

    def latency(name: str) -> Latency:
        ratio, times, probe = ratios.get(name, Interval(1.0, 1.0, 1.0)), times_ms[name], taken.probes[name]
        profile, how = profiles[name], jobs[name].workload
        return Latency(
            name=name,
            latency_ms_mean=float(times.mean()),
            latency_ms_std=float(times.std(ddof=1)),
            latency_ms_median=float(np.median(times)),
            latency_ms_p90=float(np.quantile(times, 0.9)),
            ratio=ratio,
            call="baseline" if name == taken.reference else call(ratio, floor),
            load_ms=probe["load_ms"],
            first_ms=probe["first_ms"],
            peak_memory_bytes=probe["peak_memory_bytes"],
            delegate=probe["delegate"],
            invokes=taken.plan.invokes[name],
            operators=() if isinstance(profile, str) else profile,
            no_operators=profile if isinstance(profile, str) else "",
            signature=how.signature,
            inputs=how.inputs,
            measured_at=str(how) if how.unusual else "",
        )

    return tuple(map(latency, taken.probes)), control, floor


def _spent(
    answers: Sequence[Mapping[str, Any]], started: float, probed: float, measured: float, done: float
) -> dict[str, float]:
    """Seconds by what they were spent on; the times are those at which a phase was over."""
    loading, rounds = (sum(answer[name] for answer in answers) for name in ("load_s", "rounds_s"))
    return {
        "probes": probed - started,
        "loading": loading,
        "rounds": rounds,
        "processes": measured - probed - loading - rounds,
        "operators": done - measured,
        "total": done - started,
    }


def _host(load_before: float | None, answers: Sequence[Mapping[str, Any]], others_cores: float | None) -> Host:
    loads = [answer["load_average"] for answer in answers]
    return Host(
        hostname=platform.node(),
        cpu=machine.cpu_model(),
        cores=os.cpu_count() or 1,
        runtime=CPU.runtime(),
        load_before=load_before,
        load_during=_mean(loads) if loads else load_before,
        others_cores=others_cores,
    )


def _mean(loads: Sequence[float | None]) -> float | None:
    known = [load for load in loads if load is not None]
    return float(np.mean(known)) if known else None


def _others_cores(before: float | None, seconds: float) -> float | None:
    """Cores that were busy with something else than this process and its children since `before`."""
    after = machine.seconds_of_others()
    if before is None or after is None or not seconds:
        return None
    return max(0.0, (after - before) / seconds)
