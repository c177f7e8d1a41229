"""`python -m src.benchmark MODEL.tflite …`: the latency of any artifacts, measured together, without a sweep."""

import itertools
import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from pydantic import TypeAdapter
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from src.audit import is_model
from src.benchmark import Latency, Report, measure
from src.benchmark import Progress as Tell
from src.config import Benchmark, UserError, check, plain
from src.stats import Interval
from src.terminal import Terminal, plain_where_needed

USAGE = """\
Usage: python -m src.benchmark MODEL.tflite [MODEL.tflite …] [KEY=VALUE …]

Latency of .tflite files at batch 1, measured together: several fresh instances
of each, in random interleaved rounds. The first file is the baseline; the
others are compared with it, round by round. The baseline also runs against
itself (A/A control): a difference smaller than that shows is reported as none.

Examples
  python -m src.benchmark model.tflite
      how fast it is, and how small a difference this machine can tell
  python -m src.benchmark dense.tflite pruned.tflite int8.tflite
      which is faster than the first, and is it real
  python -m src.benchmark *.tflite baseline=dense threads=2 json=latency.json

Settings
"""


def main() -> None:
    """Exit codes: 0 done, 1 a file could not be run, 2 something in the command can't be used, 130 interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plain_where_needed()
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(arguments: Sequence[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(USAGE + "\n".join(settings()))
        return 0
    artifacts, baseline, config, output = parse(arguments)
    with progress() as tell:
        report = measure(artifacts, baseline, config, tell)
    show(report, Terminal())
    if output:
        try:
            output.write_text(json.dumps(plain(report), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"json={output}: can't be written ({error.strerror}); takes a file name") from None
    return 1 if report.failures else 0


def settings() -> Iterator[str]:
    properties = TypeAdapter(Benchmark).json_schema()["properties"]
    for field in fields(Benchmark):
        value = json.dumps(field.default)
        yield f"  {field.name + '=' + value:<18}{properties[field.name]['description']}"
    yield f"  {'baseline=NAME':<18}compared with the others, without .tflite; first by default"
    yield f"  {'json=FILE':<18}all that was measured, time per operator included"


def parse(arguments: Sequence[str]) -> tuple[dict[str, Path], str, Benchmark, Path | None]:
    """Artifacts by name, the baseline's name, the settings, and where to write JSON.

    Raises `UserError` for a file that is not there and for a setting that there is not.
    """
    values: dict[str, str] = {}
    files: list[Path] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and not Path(argument).exists():
            if key not in (known := [*(field.name for field in fields(Benchmark)), "baseline", "json"]):
                raise UserError(f"{argument}: no such setting; takes {', '.join(known)}")
            values[key] = value
        elif argument.startswith("-"):
            raise UserError(f"{argument}: no such option; takes files, KEY=VALUE and --help")
        elif not Path(argument).is_file():
            raise UserError(f"{argument}: no such file; takes .tflite files")
        elif not is_model(_start(Path(argument))):
            raise UserError(f"{argument}: is no TFLite model; takes .tflite files")
        else:
            files.append(Path(argument))
    if not files:
        raise UserError("takes at least one .tflite file (--help shows how)")
    artifacts = dict(zip(names(files), files, strict=True))
    output, baseline = values.pop("json", None), values.pop("baseline", next(iter(artifacts)))
    if baseline not in artifacts:
        raise UserError(f"baseline={baseline}: takes one of {', '.join(artifacts)}")
    config = check(Benchmark, values, "")
    if output is not None and not Path(output).absolute().parent.is_dir():
        raise UserError(f"json={output}: takes a file in a folder that exists")
    return artifacts, baseline, config, Path(output) if output else None


def _start(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(8)


def names(files: Sequence[Path]) -> list[str]:
    """What the files are called: their stems; where two are the same, behind the folders in which their paths differ;
    numbered if need be."""
    stems = [file.stem for file in files]
    if len(set(stems)) < len(stems):
        folders = [file.absolute().parent.parts for file in files]
        start = _in_common(folders)
        end = _in_common([parts[start:][::-1] for parts in folders])
        stems = [
            "/".join([*parts[start : len(parts) - end], file.stem]) for parts, file in zip(folders, files, strict=True)
        ]
    return [f"{stem}#{stems[:i].count(stem) + 1}" if stems.count(stem) > 1 else stem for i, stem in enumerate(stems)]


def _in_common(sequences: Sequence[Sequence[str]]) -> int:
    """How many elements all begin with."""
    return sum(1 for _ in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*sequences, strict=False)))


@contextmanager
def progress() -> Iterator[Tell]:
    """A bar on a terminal, a line now and then elsewhere; on stderr, so that the table can go into a file."""
    console = Terminal(stderr=True)
    if not console.is_terminal:
        due = time.monotonic() + 2

        def line(share: float, what: str) -> None:
            nonlocal due
            if share < 1 and time.monotonic() > due:
                due = time.monotonic() + 5
                print(f"{share:4.0%} {what}", file=sys.stderr, flush=True)

        yield line
        return
    columns = (
        BarColumn(24),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    # A redraw takes half a millisecond of a core: seldom enough that it is no part of what is measured.
    with Progress(*columns, console=console, transient=True, refresh_per_second=1) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, what: bar.update(task, completed=share, description=what)


# --- The tables ------------------------------------------------------------------------------------------------


def show(report: Report, console: Console) -> None:
    """Readable at 80 columns."""
    if report.variants:
        console.print(latency_table(report))
        console.print(costs_table(report))
    for failure in report.failures:
        console.print(f"{failure.name}: {failure.reason}", style="red", highlight=False, markup=False)
    for line in notes(report):
        console.print(line, style="dim", highlight=False, markup=False)


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        left = heading in ("artifact", "most of the time goes to")
        table.add_column(heading, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    return table


def latency_table(report: Report) -> Table:
    table = _table("artifact", "median ms", "mean ± std", "p90", "speed-up", "95 % interval")
    for found in report.variants:
        table.add_row(
            found.name,
            digits(found.latency_ms_median),
            f"{digits(found.latency_ms_mean)} ± {digits(found.latency_ms_std)}",
            digits(found.latency_ms_p90),
            *speedup(found),
            style="bold" if found.call == "baseline" else None,
        )
    return table


def speedup(found: Latency) -> tuple[str, str]:
    match found.call:
        case "baseline":
            return "baseline", ""
        case "no difference":
            return "no difference", between(found.speedup)
        case _:
            return f"{found.speedup.estimate:.2f}×", between(found.speedup)


def between(interval: Interval) -> str:
    return f"{interval.low:.2f} – {interval.high:.2f}"


def costs_table(report: Report) -> Table:
    table = _table("artifact", "load ms", "first ms", "memory MB", "most of the time goes to")
    for found in report.variants:
        memory = "–" if found.peak_memory_bytes is None else digits(found.peak_memory_bytes / 1e6)
        table.add_row(found.name, digits(found.load_ms), digits(found.first_ms), memory, slowest(found))
    return table


def slowest(found: Latency) -> str:
    total = sum(operator.ms for operator in found.operators)
    if not total:
        return "–"
    top = max(found.operators, key=lambda operator: operator.ms)
    # "Fully Connected (NC, QS8, QC8W) GEMM": what it does and on which types; which kernel is for the JSON.
    return f"{top.ms / total:.0%} {re.sub(r'[)] [A-Z]+$', ')', top.name).replace(', ', ',')}"


def notes(report: Report) -> Iterator[str]:
    host, seconds, control = report.host, report.seconds, report.control
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


def digits(number: float) -> str:
    """Three significant digits, no exponent."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:#.3g}".rstrip(".") if number >= 1e-4 else "0"


if __name__ == "__main__":
    main()
