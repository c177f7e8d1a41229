"""Latency: what is compared, what is claimed, and that a file which crashes the interpreter takes nothing with it.

Nothing here depends on how fast the machine is.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from artifacts import SCHEMES, Tiny
from conftest import Place
from rich.console import Console

from src.benchmark import notes, parse, progress, show
from src.export import conditions
from src.measure.latency import measure
from src.measure.latency.budget import FIRST_LOOK, NEXT_LOOK, Plan, allocate
from src.measure.latency.ratios import call, precise
from src.measure.latency.report import Report
from src.measure.stats import Interval, bootstrap_ratio
from src.results import recorded
from src.results.comparison import Comparison, Findings
from src.results.conditions import from_json, to_json
from src.results.report.page import page
from src.results.report.rendering import Drawn
from src.results.variant import Result
from src.settings.check import UserError
from src.settings.plain import plain
from src.settings.sections import Benchmark, Compare
from src.store.artifacts import Record

QUICK = Benchmark(instances=3, rounds=3, warmup=1)


@pytest.fixture(scope="module")
def report(tiny: Tiny) -> Report:
    """All schemes, and files that can't be run: with an error, and with the interpreter itself."""
    names = (*SCHEMES, "crash", "truncated")
    return measure({name: tiny.files[name] for name in names}, "none", QUICK)


def test_a_file_that_crashes_the_interpreter_does_not_stop_the_others(report: Report, tiny: Tiny) -> None:
    program = f"import ai_edge_litert.interpreter as i; i.Interpreter({str(tiny.files['crash'])!r}).allocate_tensors()"
    assert subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL).returncode == -signal.SIGSEGV
    assert {v.name for v in report.variants} == set(SCHEMES)
    reasons = {failure.name: failure.reason for failure in report.failures}
    assert reasons == {
        "crash": "crashes the interpreter (SIGSEGV)",
        "truncated": "not a whole TFLite model: it was cut short or altered",
    }


def test_a_file_that_crashes_only_beside_the_others_is_found_and_left_out(tiny: Tiny, tmp_path: Path) -> None:
    fickle = tmp_path / "fickle.tflite"
    fickle.write_bytes(tiny.files["fiq"].read_bytes())

    def break_it(share: float, what: str) -> None:
        if what.startswith("instance 2 "):
            fickle.write_bytes(tiny.files["crash"].read_bytes())

    artifacts = {"none": tiny.files["none"], "fickle": fickle, "drq": tiny.files["drq"]}
    found = measure(artifacts, "none", QUICK, break_it)
    assert [failure.name for failure in found.failures] == ["fickle"]
    assert [v.name for v in found.variants] == ["none", "drq"]
    assert found.instances == QUICK.instances


def test_each_variant_has_its_statistics_and_costs(report: Report) -> None:
    for found in report.variants:
        assert 0 < found.latency_ms_median <= found.latency_ms_p90
        assert found.latency_ms_std >= 0
        assert found.load_ms > 0
        assert found.first_ms > 0
        assert found.delegate == "XNNPACK"
        if sys.platform == "linux":
            assert found.peak_memory_bytes is not None
            assert 0 < found.peak_memory_bytes < 1 << 30
    assert [found.call for found in report.variants if found.name == "none"] == ["baseline"]


def test_operators_are_those_that_the_runtime_executes(report: Report) -> None:
    executed = {found.name: [operator.name for operator in found.operators] for found in report.variants}
    for scheme in SCHEMES:
        assert sum("Convolution" in name for name in executed[scheme]) == 3
        assert sum("Fully Connected" in name for name in executed[scheme]) == 2
    assert any("F32" in name for name in executed["f16"])
    assert not any("F32" in name for name in executed["fiq"])


def test_the_report_is_plain_data_with_all_that_was_asked_for(report: Report) -> None:
    data = json.loads(json.dumps(plain(report)))
    assert data["config"]["threads"] == 1
    assert data["host"]["hostname"]
    assert data["host"]["cores"] == os.cpu_count()
    assert set(data["seconds"]) == {"probes", "loading", "rounds", "processes", "operators", "total"}
    assert data["instances"] == 3
    assert data["control"]["low"] <= data["control"]["estimate"] <= data["control"]["high"]


def test_what_the_system_does_not_tell_is_null_in_json_and_said_wherever_it_is_shown(report: Report) -> None:
    host = replace(report.host, load_before=None, load_during=None, others_cores=None)
    silent = replace(report, host=host, variants=tuple(replace(v, peak_memory_bytes=None) for v in report.variants))
    as_json = json.loads(json.dumps(plain(silent)))
    assert [as_json["host"][name] for name in ("load_before", "load_during", "others_cores")] == [None] * 3
    said = " ".join(notes(silent))
    assert f"{host.cores} cores; load not known." in said
    assert "How busy other processes kept this machine is not known: this system does not tell." in said
    assert "Memory is not measured: this system does not tell how much a process has had." in said
    drawn = Drawn({"latency": ["<svg></svg>"]}, {})
    variant = Result("none-none", run_id="0" * 32)
    sweep = Findings("sweep", "today", (Comparison("", (variant,), latency=silent),), Compare(), {"what": "x"})
    assert f"{host.cores} cores, load not known), {host.runtime}" in page(sweep, [drawn])
    run = Record("0" * 32, "sweep", "FINISHED", 0.0, None, {}, {}, {})
    read = from_json(json.loads(json.dumps(to_json(sweep))))
    card = " ".join(conditions(recorded.ClosedSweep(run, (variant,), read), variant, run))
    assert f"({host.cores} cores, load not known), {host.runtime}" in card


def test_the_same_file_under_two_names_is_measured_as_two_files(tiny: Tiny) -> None:
    found = measure({"a": tiny.files["drq"], "b": tiny.files["drq"]}, "a", QUICK)
    assert [v.name for v in found.variants] == ["a", "b"]
    assert found.variants[1].ratio.low <= found.variants[1].ratio.estimate <= found.variants[1].ratio.high


def test_without_a_baseline_that_runs_ratios_are_to_the_first_that_does(tiny: Tiny) -> None:
    found = measure({"crash": tiny.files["crash"], "drq": tiny.files["drq"], "f16": tiny.files["f16"]}, "crash", QUICK)
    assert found.baseline == "drq"
    assert found.variants[0].call == "baseline"


def test_where_nothing_runs_there_is_a_report_of_failures(tiny: Tiny) -> None:
    found = measure({"crash": tiny.files["crash"]}, "crash", QUICK)
    assert found.variants == ()
    assert len(found.failures) == 1


def test_threads_reach_the_interpreter(tiny: Tiny) -> None:
    found = measure({"none": tiny.files["none"]}, "none", Benchmark(instances=3, rounds=3, threads=2, operators=False))
    assert found.config.threads == 2
    assert found.variants[0].operators == ()


# --- What may be said ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "estimate", "high", "floor", "expected"),
    [
        (0.90, 0.95, 1.00, 0.01, "no difference"),  # the interval does not exclude 1
        (0.93, 0.95, 0.97, 0.01, "faster"),
        (0.93, 0.95, 0.97, 0.06, "no difference"),  # 1/0.95 is 5.3 %, less than the control shows by itself
        (1.03, 1.05, 1.07, 0.01, "slower"),
        (1.03, 1.05, 1.07, 0.05, "no difference"),
        (3.0, 4.0, 5.0, 0.3, "slower"),
    ],
)
def test_nothing_is_claimed_below_the_noise_floor(
    low: float, estimate: float, high: float, floor: float, expected: str
) -> None:
    assert call(Interval(estimate, low, high), floor) == expected


@pytest.mark.parametrize("sd", [0.03, 0.04])  # where it stops halfway between the first look and the last
def test_stopping_once_precise_enough_keeps_the_interval_honest(sd: float) -> None:
    rng = np.random.default_rng(3)
    config = Benchmark()
    looks = range(FIRST_LOOK, config.instances + 1, NEXT_LOOK)
    covered = []
    for _ in range(1500):
        log_ratios = rng.normal(0, sd, (config.instances, 1)) + rng.normal(0, 0.01, (config.instances, 5))
        found = [bootstrap_ratio(log_ratios[:n], resamples=500) for n in looks]
        enough = (now for before, now in pairwise(found) if precise([before, now], config))
        last = next(enough, found[-1])
        covered.append(last.low <= 1 <= last.high)
    assert 0.93 <= np.mean(covered) <= 0.97


# --- The budget ------------------------------------------------------------------------------------------------


def cost(plan: Plan) -> float:
    return plan.instances * plan.seconds_per_instance


def probes(latency_ms: float, load_ms: float, n: int = 12) -> dict[str, dict[str, float]]:
    return {str(i): {"latency_ms": latency_ms, "load_ms": load_ms, "first_ms": latency_ms} for i in range(n)}


@pytest.mark.parametrize(("latency_ms", "load_ms"), [(0.01, 1.0), (8.0, 100.0), (60.0, 500.0)])
@pytest.mark.parametrize("seconds", [20.0, 60.0, 300.0])
def test_a_plan_fits_its_budget_or_is_the_least_that_can_be_compared(
    latency_ms: float, load_ms: float, seconds: float
) -> None:
    plan = allocate(probes(latency_ms, load_ms), "0", Benchmark(), seconds)
    least = plan.instances == 3 and plan.rounds == 3 and set(plan.invokes.values()) == {1}
    assert cost(plan) <= seconds or least
    assert 3 <= plan.instances <= Benchmark().instances
    assert 3 <= plan.rounds <= Benchmark().rounds


def test_instances_are_the_last_thing_to_be_saved() -> None:
    plan = allocate(probes(8.0, 100.0), "0", Benchmark(), 25.0)
    assert plan.rounds == 3
    assert set(plan.invokes.values()) == {1}
    assert plan.instances > 3


def test_short_invokes_are_timed_more_often_than_long_ones() -> None:
    mixed = probes(8.0, 100.0, 1) | {"tiny": {"latency_ms": 0.01, "load_ms": 1.0, "first_ms": 0.02}}
    plan = allocate(mixed, "0", Benchmark(), 60.0)
    assert plan.invokes == {"0": 3, "tiny": 50}


def test_a_short_budget_costs_the_warm_up_before_an_instance() -> None:
    plan = allocate(probes(500.0, 100.0, 1), "0", Benchmark(), 20.0)
    # An instance: its start, and, for the file and its control, 0.6 s to load and invoke, and 3 rounds of 2 invokes.
    assert plan.warmup == 0
    assert (plan.instances, plan.rounds) == (3, 3)
    assert plan.seconds_per_instance == pytest.approx(0.25 + 2 * (0.6 + 3))
    assert allocate(probes(0.01, 1.0, 1), "0", Benchmark(), 60.0).warmup == Benchmark().warmup


# --- The command -----------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_for_80_columns_and_writes_json(place: Place, tiny: Tiny) -> None:
    files = [str(tiny.files[scheme]) for scheme in SCHEMES]
    done = place.run(*files, "instances=3", "rounds=3", "json=out.json", module="src.benchmark")
    assert done.returncode == 0, done.stderr
    assert all(scheme in done.stdout for scheme in SCHEMES)
    assert "A/A control" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert len(json.loads((place.folder / "out.json").read_text())["variants"]) == 4


def test_a_file_that_fails_is_named_and_the_exit_code_is_1(place: Place, tiny: Tiny) -> None:
    done = place.run(
        str(tiny.files["drq"]), str(tiny.files["crash"]), "instances=3", "rounds=3", module="src.benchmark"
    )
    assert done.returncode == 1
    assert "crash: crashes the interpreter (SIGSEGV)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.tflite"], "nothing.tflite: no such file; takes .tflite files"),
        ([__file__], f"{__file__}: is text, not a TFLite model; takes .tflite files"),
        (["{drq}", "threads=0"], "threads=0: takes a whole number of at least 1 and at most 256"),
        (["{drq}", "seconds=soon"], "seconds=soon: takes a number above 0"),
        (["{drq}", "thread=2"], "thread=2: no such setting; takes threads, instances, rounds,"),
        (["{drq}", "baseline=f16"], "baseline=f16: takes one of drq"),
        (
            ["{drq}", "json=no/such/folder.json"],
            "json=no/such/folder.json: takes a file in a folder that exists",
        ),
        ([], "takes at least one .tflite file (--help shows how)"),
        (["threads=2"], "takes at least one .tflite file (--help shows how)"),
        (["{drq}", "--threads"], "--threads: no such option; takes threads=VALUE"),
    ],
)
def test_wrong_input_is_told_before_anything_is_run(tiny: Tiny, arguments: list[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        parse([argument.format(drq=tiny.files["drq"]) for argument in arguments])
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("module", ["src.benchmark", "src.audit"])
def test_wrong_input_is_one_line_and_exit_code_2(place: Place, module: str) -> None:
    done = place.run("nothing.tflite", module=module)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: nothing.tflite: no such file; takes .tflite files\n"


def test_a_slow_down_by_a_thousand_and_names_in_brackets_are_shown(report: Report) -> None:
    thousand = replace(
        report.variants[0], name="slow[red]", call="slower", ratio=Interval(1000.0, 950.0, 1050.0), latency_ms_std=1e-7
    )
    for width in (80, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        show(replace(report, variants=(*report.variants[:1], thousand)), console)
        text = console.export_text()
        assert "slow[red]" in text
        assert "0.00100×" in text
        assert "0.000952 – 0.00105" in text
        assert "± 0 " not in text
        assert max(map(len, text.splitlines())) <= width


def test_help_teaches_and_names_every_setting(place: Place) -> None:
    done = place.run("--help", module="src.benchmark")
    assert done.returncode == 0
    assert "Examples" in done.stdout
    assert all(f"  {name}=" in done.stdout for name in (*vars(Benchmark()), "baseline", "json", "signature", "shape"))
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_progress_is_for_a_terminal_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for forced, told in ((False, False), (True, True)):
        monkeypatch.setenv("TTY_COMPATIBLE", str(int(forced)))
        with progress() as tell:
            if not forced:
                time.sleep(2.1)  # what takes less would be said nowhere
            tell(0.17, "instance 8 of 80")
        out, errors = capsys.readouterr()
        assert (out, "instance 8 of 80" in errors) == ("", told)


def test_an_interrupt_ends_the_command_and_its_child_without_a_traceback(place: Place, tiny: Tiny) -> None:
    command = [sys.executable, "-m", "src.benchmark", str(tiny.files["none"]), "instances=1000", "precision=1e-9"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    process = subprocess.Popen(
        command, cwd=place.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not psutil.Process(process.pid).children():  # then it is at work
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: to all of the group
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    deadline = time.monotonic() + 30
    while group_lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not group_lives(process.pid)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
