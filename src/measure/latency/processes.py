"""What is asked of child processes: everything that loads an artifact is one, since any may crash it."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.machine import system as machine
from src.measure.latency.budget import (
    LEAST_INSTANCES,
    PROFILED_INVOKES,
    PROFILED_SECONDS,
    Plan,
    allocate,
    profile_seconds,
)
from src.measure.latency.ratios import operator_times, suffice
from src.measure.latency.report import CONTROL, Failure, OperatorTime
from src.measure.latency.workload import Workload, workload
from src.measure.targets.litert import CPU
from src.settings.check import UserError, in_short
from src.settings.sections import Benchmark

Progress = Callable[[float, str], None]

PROBE_SECONDS = 0.1
# A child that does not answer within its budget, or within this, is taken to run for ever.
PATIENCE_SECONDS = 10
MOST_STARTED = 16  # children ahead of what is asked of them
REASON_LENGTH = 200  # of what LiteRT says of a model, which can be a page

_started: deque["subprocess.Popen[bytes]"] = deque()


@dataclass(frozen=True)
class Job:
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


def why_it_cannot_run(path: Path) -> str | None:
    """Loads and invokes an artifact in a process of its own; gives the reason in one line if that fails."""
    jobs, failures = jobs_of({path.name: path}, {})
    failures += probe(jobs, Benchmark(), lambda share, what: None, seconds=0.0)[2]
    return failures[0].reason if failures else None


@dataclass
class Instances:
    """What came of the rounds: `probes` of the artifacts that survived, `answers` of the children, by instance."""

    reference: str
    probes: dict[str, dict[str, Any]]
    plan: Plan
    answers: list[dict[str, Any]]
    failures: list[Failure]


def jobs_of(artifacts: Mapping[str, Path], workloads: Mapping[str, Workload]) -> tuple[dict[str, Job], list[Failure]]:
    """How each file is run; and the files for which that can't be said."""
    jobs, failures = {}, []
    for name, path in artifacts.items():
        try:
            jobs[name] = Job(os.path.abspath(path), workloads.get(name) or workload(path))
        except UserError as error:
            failures.append(Failure(name, _reason(str(error).removeprefix(f"{path}: "))))
    return jobs, failures


def probe(
    jobs: Mapping[str, Job], config: Benchmark, tell: Progress, seconds: float = PROBE_SECONDS
) -> tuple[dict[str, Job], dict[str, dict[str, Any]], list[Failure]]:
    """Loads each artifact in a process of its own. Both what can be run, with the input on which it can, and what
    can't."""
    fit, probes, failures = {}, {}, []
    patience = max(PATIENCE_SECONDS, config.seconds)
    for i, (name, job) in enumerate(jobs.items()):
        tell(i / len(jobs), f"load {name}")
        reason = ""
        for attempt in job.workload.attempts():
            fit[name] = Job(job.path, attempt)
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


def instances(
    jobs: Mapping[str, Job],
    baseline: str,
    probes: Mapping[str, dict[str, Any]],
    config: Benchmark,
    until: float,
    tell: Progress,
) -> Instances:
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
            if suffice(answers, reference, config):
                break
        if "error" not in answer:
            return Instances(reference, left, plan, answers, failures)
        # It ran in its probe and crashed now. Those measured beside it are measured again without it.
        crashed = reference if answer["name"] == CONTROL else answer["name"]
        failures.append(Failure(crashed, answer["error"]))
        del left[crashed]
    return Instances(baseline, {}, Plan(0, 0, {}, 0, 0.0), [], failures)


def _rounds(jobs: Mapping[str, Job], reference: str, plan: Plan, config: Benchmark, instance: int) -> dict[str, Any]:
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


def profile(
    jobs: Mapping[str, Job], probes: Mapping[str, dict[str, Any]], config: Benchmark, until: float, tell: Progress
) -> dict[str, tuple[OperatorTime, ...] | str]:
    """Time per operator, for as many as there is time, or why there is none: the artifact did run."""
    profiles: dict[str, tuple[OperatorTime, ...] | str] = {}
    for i, (name, probe) in enumerate(probes.items()):
        expected = profile_seconds({name: probe})
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


def start(children: int) -> None:
    """Starts so many of the processes that will be asked: while they import what they need, this one does other
    things."""
    _started.extend(_child() for _ in range(min(children, MOST_STARTED)))


def _child() -> "subprocess.Popen[bytes]":
    # -P: beside the child lie modules that are none of its business.
    command = [sys.executable, "-P", str(CPU.child)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _ask(action: str, patience_seconds: float, **request: Any) -> dict[str, Any]:
    """The answer of a fresh child process; {"error": reason} if it crashed or could not do what it was asked, and
    "hangs" as well if it gave no answer."""
    process = _started.popleft() if _started else _child()
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
    return in_short(re.sub(r"(?<=\S)(?=Node number \d)", "; ", text), REASON_LENGTH)
