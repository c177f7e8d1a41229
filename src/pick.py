"""`python -m src.pick`: chooses a variant on the validation split, reports it on the test split, and registers it."""

import shlex
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass as schema

from src.cli import command, frame
from src.machine import system as machine
from src.results import recorded
from src.results.choose import MINIMIZE, Candidate, Constraints, candidates
from src.results.logged import logged_model
from src.results.report.numbers import count, interval, percent, points, size, three, times
from src.results.variant import Result
from src.settings import credentials
from src.settings.check import STRICT
from src.settings.sections import Tracking
from src.store import registry
from src.store.address import elsewhere
from src.store.names import LOGGED_MODEL

USAGE = """\
Usage: python -m src.pick [KEY=VALUE …]

Chooses the variant to ship: the least of what `minimize` names among those
whose drop in accuracy on the validation split is sure to be within `max_drop`.
The choice looks at the validation split only; what it costs is then reported
on the test split. The chosen one becomes a version of the registered model
`name`, with the alias `champion`: mlflow.pyfunc loads it, `mlflow models
serve` serves it.

Examples
  python -m src.pick
      the smallest variant of the latest sweep that loses at most a point
  python -m src.pick minimize=latency max_drop=0.02 max_gzip=2MB
      the fastest below 2 MB, where two points would be bearable
  python -m src.pick sweep=sweep-20260101-120000 risk=point register=false
      by the point estimate, as if there were no uncertainty; registers nothing

Exit codes: 0 chosen, 1 none qualifies, 2 something in the command can't be used.

Settings
"""


@schema(frozen=True, config=STRICT)
class Settings(Constraints):
    """Of `src.pick`."""

    tracking: Tracking = field(kw_only=True)
    sweep: Annotated[str, Field(min_length=1, description="latest, a sweep's name or its run id")] = "latest"
    partial: Annotated[bool, Field(description="choose among what there is if a part of the sweep failed")] = False
    register: Annotated[bool, Field(description="false only says what would be chosen")] = True
    name: Annotated[str, Field(description="of the registered model; the experiment's if not given")] = ""
    alias: Annotated[str, Field(min_length=1, description="of the version that is registered")] = "champion"


def pick(wanted: Settings) -> None:
    """Raises `Refused` if none qualifies."""
    store = recorded.open_store(wanted.tracking, looking=not wanted.register)
    sweep = recorded.find_sweep(store, wanted.sweep, wanted.partial, module="src.pick")
    every = candidates(sweep.results, wanted)
    if not every:
        raise frame.Refused(f"{sweep.run.name} has nothing but the dense baseline")
    for line in _why_not(every, wanted):
        print(line)
    chosen = every[0]
    if chosen.refused:
        raise frame.Refused(
            f"none of {len(every)} qualifies; nearest is {chosen.result.label}: {'; '.join(chosen.refused)}\n"
            "more validation images would narrow the intervals; a larger max_drop or risk=point asks for less"
        )
    for result in sweep.results:
        if result.digest == chosen.result.digest and result.variant != chosen.result.variant:
            print(f"note: {result.variant} is the same file to the byte")
    print("\n".join(_reported(chosen.result, sweep.run.name, wanted)))
    if not wanted.register:
        return
    record = recorded.run_of(store, chosen.result)
    file = recorded.artifact(store, record)
    name, how = wanted.name or wanted.tracking.experiment, recorded.preprocessing(store, record)
    registry.check(store)
    model = logged_model(store, record, file, how)
    store.log(record.run_id, tags={LOGGED_MODEL: model})
    description = "\n\n".join(_reported(chosen.result, sweep.run.name, wanted))
    version = registry.register(store, record, name, wanted.alias, model, description)
    apart = registry.place(store)
    print(f"registered  {name}, version {version}, alias {wanted.alias}{f' in {apart}' if apart else ''}")
    print(f"serve       {_serve(store.uri, f'models:/{name}@{wanted.alias}')}")
    where = elsewhere(store.uri, store.experiment)
    named = [f"name={name}"] * bool(wanted.name) + [f"alias={wanted.alias}"] * (wanted.alias != Settings.alias)
    print(f"export      {credentials.to_give()}" + shlex.join([machine.python(), "-m", "src.export", *named, *where]))


def _serve(uri: str, model: str) -> str:
    """The command that serves `model`, also where no environment is activated."""
    python = machine.python()
    # MLflow 3 starts the `uvicorn` that PATH has.
    path = "" if python == "python" else f"PATH={shlex.quote(str(Path(python).parent))}:$PATH "
    serve = ["-m", "mlflow", "models", "serve", "--env-manager", "local", "-m", model]
    return credentials.to_give(uri) + path + shlex.join([python, *serve])


def _why_not(every: Sequence[Candidate], wanted: Settings) -> list[str]:
    minimized = MINIMIZE[wanted.minimize]
    best = every[0].result.metrics.get(minimized, 0.0)
    shown = {"latency": lambda value: f"{three(value)} ms", "multiply_adds": lambda n: f"{count(n)} multiply-adds"}
    show = shown.get(wanted.minimize, size)
    width = max(len(candidate.result.label) for candidate in every)
    others = every if every[0].refused else every[1:]
    lines = ["not chosen"] if others else []
    for candidate in others:
        why = "; ".join(candidate.refused)
        if not why:
            value = candidate.result.metrics[minimized]
            why = f"{show(value)}, not {show(best)}"
            if value == best:
                why = "as good; the other comes first by gzip bytes"
            elif show(value) == show(best):
                why = f"{show(value)} as well, and a little more"
        lines.append(f"  {candidate.result.label:<{width}}  {why}")
    return lines


def _reported(chosen: Result, sweep: str, wanted: Settings) -> list[str]:
    validation, test, m = chosen.validation_accuracy_drop, chosen.test_accuracy_drop, chosen.metrics
    assert validation
    assert test
    return [
        f"chosen      {chosen.label} of {sweep}",
        f"validation  drop {points(validation.estimate)} {interval(validation)} points; allowed "
        f"{points(wanted.max_drop)} ({'upper end' if wanted.risk == 'interval' else 'estimate'})",
        f"test        accuracy {percent(m['test_accuracy'], 2)} %, drop {points(test.estimate)} {interval(test)} "
        f"points: {chosen.verdict.call if chosen.verdict else 'not judged'}",
        f"class       {_worst_class(chosen, wanted)}",
        f"size        {size(m['gzip_bytes'])} gzip, {times(1 / m['gzip_ratio'])} × smaller; "
        f"{size(m['tflite_bytes'])} as it is",
        *([f"computes    {count(m['multiply_adds'])} multiply-adds an inference"] if "multiply_adds" in m else []),
        f"latency     {_speed(chosen)}",
    ]


def _worst_class(chosen: Result, wanted: Settings) -> str:
    lost = chosen.worst_class_drop
    if lost is None or lost.estimate <= 0:
        return "none drops on the test split"
    told = f"{chosen.worst_class} drops most on the test split, {points(lost.estimate)} {interval(lost)} points"
    above = ": sure to be above max_class_drop, which the validation split decides"
    return told + above * (lost.low > wanted.max_class_drop)


def _speed(chosen: Result) -> str:
    median, speedup = chosen.metrics.get("latency_ms_median"), chosen.speedup
    if median is None:
        return "no latency was measured"
    ends = f" [{times(speedup.low)}, {times(speedup.high)}]" if speedup else ""
    claimed = (
        f"{times(speedup.estimate)} × as fast"
        if speedup and not chosen.no_difference
        else "no sure difference in latency"
    )
    return f"{claimed}{ends}, median {three(median)} ms"


if __name__ == "__main__":
    command.main(USAGE, Settings, pick)
