"""`python -m src.benchmark MODEL.tflite …`: the latency of any artifacts, measured together, without a sweep."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from src.cli import files as artifact_files
from src.cli import frame
from src.cli.files import add_row, say, table
from src.console.terminal import Terminal, shown
from src.measure.latency import measure
from src.measure.latency.budget import LEAST_INSTANCES, LEAST_ROUNDS
from src.measure.latency.processes import Progress as Tell
from src.measure.latency.report import CONTROL, Latency, Report
from src.measure.latency.workload import Workload, workload
from src.measure.stats import Interval
from src.results.report.numbers import digits
from src.settings.check import UserError, check
from src.settings.plain import plain
from src.settings.sections import Benchmark

USAGE = """\
Usage: python -m src.benchmark MODEL.tflite [MODEL.tflite …] [KEY=VALUE …]

Latency of .tflite files at batch 1, measured together: several fresh instances
of each, in random interleaved rounds. The first file is the baseline; the
others are compared with it, round by round. The baseline also runs against
itself (A/A control): a difference smaller than that shows is reported as none.
A file that leaves open what to run is refused with what to say.

Examples
  python -m src.benchmark model.tflite
      how fast it is, and how small a difference this machine can tell
  python -m src.benchmark dense.tflite pruned.tflite int8.tflite
      which is faster than the first, and is it real
  python -m src.benchmark *.tflite baseline=dense threads=2 json=latency.json
  python -m src.benchmark detector.tflite shape=1,320,320,3
      at the size that the file leaves open; of several inputs, by name:
      shape.image=1,320,320,3 shape.mask=1,320,320,1
  python -m src.benchmark text.tflite signature=encode
      one of the several ways to call it

Settings
"""


SETTINGS = {
    "baseline": ("NAME", "compared with the others, without .tflite; first by default"),
    "signature": ("NAME", "what to run of a file that can be called in several ways"),
    "shape": ("N,N,…", "of the input, where it is open; shape.INPUT= by name"),
    "json": ("FILE", "all that was measured, time per operator included"),
}


def main() -> None:
    frame.main(lambda: USAGE + "\n".join(settings()), run)


def run(arguments: Sequence[str]) -> int:
    artifacts, workloads, baseline, config, output = parse(arguments)
    with progress() as tell:
        report = measure(artifacts, baseline, config, tell, workloads)
    show(report, Terminal())
    if output:
        artifact_files.write(output, plain(report))
    return 1 if report.failures else 0


def settings() -> Iterator[str]:
    properties = TypeAdapter(Benchmark).json_schema()["properties"]
    for field in fields(Benchmark):
        value = json.dumps(field.default)
        yield f"  {field.name + '=' + value:<18}{properties[field.name]['description']}"
    for key, (value, meaning) in SETTINGS.items():
        yield f"  {key + '=' + value:<18}{meaning}"


def parse(arguments: Sequence[str]) -> tuple[dict[str, Path], dict[str, Workload], str, Benchmark, Path | None]:
    """Artifacts by name and what of them is run, the baseline's name, the settings, and where to write JSON.

    Raises `UserError` for a file that can't be measured, and for a setting that there is not or that fits none.
    """
    keys = [*(field.name for field in fields(Benchmark)), *SETTINGS]
    files, values = artifact_files.parse(arguments, keys, "shape.")
    artifacts = dict(zip(artifact_files.names(files, [CONTROL]), files, strict=True))
    output, baseline = values.pop("json", None), values.pop("baseline", next(iter(artifacts)))
    signature = values.pop("signature", None)
    shapes = {key.partition(".")[2]: _shape(key, values.pop(key)) for key in list(values) if key.startswith("shape")}
    config = check(Benchmark, values, "")
    if baseline not in artifacts:
        raise UserError(f"baseline={baseline}: takes one of {', '.join(artifacts)}")
    workloads = {name: workload(path, signature, shapes) for name, path in artifacts.items()}
    _all_used(workloads, signature, shapes)
    return artifacts, workloads, baseline, config, artifact_files.output(output, files)


def _shape(key: str, value: str) -> tuple[int, ...]:
    sizes = value.split(",")
    if not all(size.isdecimal() and 0 < int(size) < 1 << 31 for size in sizes):
        raise UserError(f"{key}={value}: takes whole numbers of at least 1, such as 1,224,224,3")
    return tuple(map(int, sizes))


def _all_used(workloads: dict[str, Workload], signature: str | None, shapes: dict[str, tuple[int, ...]]) -> None:
    """A file that has but one signature, or no such input, is measured as it is; but one of them must be meant."""
    if signature is not None and all(signature not in each.signatures for each in workloads.values()):
        known = ", ".join(dict.fromkeys(name for each in workloads.values() for name in each.signatures))
        raise UserError(f"signature={signature}: no file has it; takes {known or 'none, since no file has any'}")
    inputs = list(dict.fromkeys(given.name for each in workloads.values() for given in each.inputs))
    for name in shapes:
        if name and name not in inputs:
            raise UserError(f"shape.{name}: no such input; takes shape. with one of {', '.join(inputs)}")


@contextmanager
def progress() -> Iterator[Tell]:
    """A bar on a terminal, on stderr, so that the tables can go into a file; nothing elsewhere."""
    console = Terminal(stderr=True)
    if not console.is_terminal:
        yield lambda share, what: None
        return
    columns = (
        BarColumn(24),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    # A redraw takes half a millisecond of a core: seldom enough that it is no part of what is measured.
    with Progress(*columns, console=console, transient=True, refresh_per_second=1) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, what: bar.update(task, completed=share, description=shown(what))


# --- The tables ------------------------------------------------------------------------------------------------


def show(report: Report, console: Console) -> None:
    """Readable at 80 columns."""
    if report.variants:
        console.print(latency_table(report))
        console.print(costs_table(report))
    for failure in report.failures:
        say(console, f"{failure.name}: {failure.reason}", "red")
    for line in notes(report):
        say(console, line, "dim")


def latency_table(report: Report) -> Table:
    # Where all are short, in microseconds: zeros behind the point would leave no room for the names.
    unit, factor = ("µs", 1e3) if max(found.latency_ms_median for found in report.variants) < 0.1 else ("ms", 1.0)
    headings = (f"median {unit}", "mean ± std", "p90", "speed-up", "95 % interval")
    made = table({"artifact": True, **dict.fromkeys(headings, False)})
    for found in report.variants:
        add_row(
            made,
            found.name,
            digits(found.latency_ms_median * factor),
            f"{digits(found.latency_ms_mean * factor)} ± {digits(found.latency_ms_std * factor, 2)}",
            digits(found.latency_ms_p90 * factor),
            *speedup(found),
            style="bold" if found.call == "baseline" else None,
        )
    return made


def speedup(found: Latency) -> tuple[str, str]:
    match found.call:
        case "baseline":
            return "baseline", ""
        case "no difference":
            return "no difference", between(found.speedup)
        case _:
            return f"{digits(found.speedup.estimate)}×", between(found.speedup)


def between(interval: Interval) -> str:
    return f"{digits(interval.low)} – {digits(interval.high)}"


def costs_table(report: Report) -> Table:
    headings = ("load ms", "first ms", "memory MB")
    made = table({"artifact": True, **dict.fromkeys(headings, False), "most of the time goes to": True})
    for found in report.variants:
        memory = "–" if found.peak_memory_bytes is None else digits(found.peak_memory_bytes / 1e6)
        add_row(made, found.name, digits(found.load_ms), digits(found.first_ms), memory, slowest(found))
    return made


def slowest(found: Latency) -> str:
    if not found.operators:
        return "–"
    top = max(found.operators, key=lambda operator: operator.ms)
    # "Fully Connected (NC, QS8, QC8W) GEMM": what it does and on which types; which kernel is for the JSON.
    name = re.sub(r"[)] [A-Z]+$", ")", top.name).replace(", ", ",")
    return f"{top.ms / sum(operator.ms for operator in found.operators):.0%} {name}"


def notes(report: Report) -> Iterator[str]:
    host, seconds, control = report.host, report.seconds, report.control
    for found in report.variants:
        if found.measured_at:
            yield f"{found.name}: measured at {found.measured_at}."
    for reason in dict.fromkeys(found.no_operators for found in report.variants if found.no_operators):
        names = ", ".join(found.name for found in report.variants if found.no_operators == reason)
        yield f"{names}: no time per operator ({reason})."
    if report.variants:
        yield (
            f"A/A control {between(Interval(1, 1 / control.high, 1 / control.low))}: "
            f"differences below {report.noise_floor:.1%} can't be told here."
        )
        yield (
            f"{report.instances} instances × {report.rounds} rounds, {report.config.threads} thread(s); "
            f"{', '.join(sorted({found.delegate or 'no delegate' for found in report.variants}))}; {host.runtime}."
        )
    before, during = ("not known" if load is None else f"{load:.1f}" for load in (host.load_before, host.load_during))
    load = before if before == during else f"{before}, then {during}"
    yield f"{host.hostname}: {host.cpu}, {host.cores} cores; load {load}."
    if host.others_cores is None:
        yield "How busy other processes kept this machine is not known: this system does not tell."
    if any(found.peak_memory_bytes is None for found in report.variants):
        yield "Memory is not measured: this system does not tell how much a process has had."
    if host.others_cores is not None and host.others_cores > 0.1 * host.cores:
        yield f"Other processes kept {host.others_cores:.1f} cores busy: on a quiet machine intervals are narrower."
    parts = ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items() if name != "total")
    yield f"{seconds['total']:.1f} s of {report.config.seconds:g}: {parts}."
    least = (report.instances, report.rounds) == (LEAST_INSTANCES, LEAST_ROUNDS)
    if least and seconds["total"] - seconds["operators"] > 1.1 * report.config.seconds:
        yield f"It took longer since {LEAST_INSTANCES} instances × {LEAST_ROUNDS} rounds are the least to compare."


if __name__ == "__main__":
    main()
