"""What is measured of a file that leaves it open, on what input, and what is said where it can't be known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import Tiny
from conftest import Place
from foreign import G, Op, T, chain, counting, lookup, options, tflite

from src.benchmark import notes, parse
from src.measure.latency import measure, processes
from src.measure.latency.ratios import operator_times
from src.measure.latency.report import Latency, Report
from src.measure.latency.workload import workload
from src.settings.check import UserError
from src.settings.plain import plain
from src.settings.sections import Benchmark

QUICK = Benchmark(instances=3, rounds=3, warmup=1)


def written(folder: Path, **files: bytes) -> dict[str, Path]:
    for name, content in files.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return {name: folder / f"{name}.tflite" for name in files}


def of(report: Report, name: str) -> Latency:
    return next(found for found in report.variants if found.name == name)


def concatenation(first: list[int], second: list[int], open_dimensions: bool = False) -> bytes:
    """Two inputs, of which the signature names the second one first; along their first dimension."""
    shapes = [first, second, [first[0] + second[0], *first[1:]]]
    opened = [[-1, *shape[1:]] if open_dimensions else [] for shape in shapes]
    tensors = [T(name, shape, open=each) for name, shape, each in zip("ABC", shapes, opened, strict=True)]
    graph = G(tensors, [Op("CONCATENATION", [0, 1], [2], options("ConcatenationOptions", axis=0))], [0, 1], [2])
    return tflite(graph, signatures=[("join", 0, {"b": 1, "a": 0}, {"c": 2})])


# --- Shapes and signatures -------------------------------------------------------------------------------------


def test_a_dimension_that_is_open_is_measured_at_what_is_given(tiny: Tiny) -> None:
    path = tiny.files["open"]
    with pytest.raises(UserError, match=r"open\.tflite: input image is 1×\?×\?×3; takes its size, such as shape=1,224"):
        workload(path)
    small, large = ({"": (1, size, size, 3)} for size in (8, 64))
    report = measure(
        {"small": path, "large": path},
        "small",
        QUICK,
        workloads={"small": workload(path, None, small), "large": workload(path, None, large)},
    )
    assert of(report, "large").inputs[0].shape == (1, 64, 64, 3)
    assert of(report, "large").measured_at == "image float32 1×64×64×3"
    # 64 times the pixels
    assert of(report, "large").ratio.estimate > 2
    assert [operator.name.split(" ")[0] for operator in of(report, "large").operators] == ["Convolution"]


def test_without_a_shape_a_sweep_is_told_and_measures_the_others(tiny: Tiny) -> None:
    report = measure({name: tiny.files[name] for name in ("open", "none")}, "open", QUICK)
    assert [failure.reason for failure in report.failures] == [
        "input image is 1×?×?×3; takes its size, such as shape=1,224,224,3"
    ]
    assert report.baseline == "none"


def test_each_of_several_signatures_is_measured_and_one_must_be_named(tiny: Tiny) -> None:
    path = tiny.files["signatures"]
    with pytest.raises(UserError, match=r"has several signatures; takes signature= with one of conv, embed, two"):
        workload(path)
    with pytest.raises(UserError, match=r"has no signature gone; takes signature= with one of conv, embed, two"):
        workload(path, "gone")
    loads = {name: workload(path, name) for name in ("embed", "two")}
    report = measure(dict.fromkeys(loads, path), "embed", QUICK, workloads=loads)
    assert not report.failures
    assert {found.name: found.measured_at for found in report.variants} == {
        "embed": "signature embed, ids int32 1×16 of 0 … 99",
        "two": "signature two, a float32 3×4, b float32 2×4",
    }


def test_a_signature_is_run_whatever_the_order_of_its_inputs(tmp_path: Path) -> None:
    # of different sizes: in the wrong order nothing would run
    files = written(tmp_path, joined=concatenation([1, 6], [3, 6]))
    report = measure(files, "joined", QUICK)
    assert not report.failures
    assert of(report, "joined").measured_at == "b float32 3×6, a float32 1×6"
    # and by the profiler, which refuses an input of another size
    assert "gave status" not in of(report, "joined").no_operators


def test_several_inputs_take_a_shape_each_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, joined=concatenation([1, 6], [1, 6], open_dimensions=True))["joined"]
    with pytest.raises(UserError, match=r"has the inputs b, a, shape= is for a file with one; takes shape\.NAME="):
        parse([str(path), "shape=1,6"])
    with pytest.raises(UserError, match=r"shape\.c: no such input; takes shape\. with one of b, a"):
        parse([str(path), "shape.c=1,6"])
    _, loads, *_ = parse([str(path), "shape.a=5,6"])
    assert str(loads["joined"]) == "b float32 1×6, a float32 5×6"
    report = measure({"joined": path}, "joined", QUICK, workloads=loads)
    assert not report.failures
    assert of(report, "joined").measured_at == "b float32 1×6, a float32 5×6"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("shape=1,a", "shape=1,a: takes whole numbers of at least 1, such as 1,224,224,3"),
        ("shape=1,-1,-1,3", "shape=1,-1,-1,3: takes whole numbers of at least 1"),
        ("shape=1,0,0,3", "shape=1,0,0,3: takes whole numbers of at least 1"),
        ("shape=", "shape=: takes whole numbers of at least 1"),
        ("shape=1,224", "{path}: shape=1,224 has 2 dimensions; input image takes 1×?×?×3"),
        ("signature=gone", "{path}: input image is 1×?×?×3; takes its size, such as shape=1,224,224,3"),
    ],
)
def test_a_shape_that_does_not_fit_is_one_line(tiny: Tiny, given: str, said: str) -> None:
    path = tiny.files["open"]
    with pytest.raises(UserError) as error:
        parse([str(path), given])
    assert str(error.value).startswith(said.format(path=path))


def test_a_signature_that_no_file_has_is_an_error_and_one_that_some_have_is_not(tiny: Tiny) -> None:
    none, several = str(tiny.files["none"]), str(tiny.files["signatures"])
    with pytest.raises(UserError, match=r"^signature=gone: no file has it; takes serving_default"):
        parse([none, "signature=gone"])
    _, loads, *_ = parse([none, several, "signature=embed"])
    assert [loads[name].signature for name in ("none", "signatures")] == ["", "embed"]


def test_a_batch_that_is_not_one_stands_beside_the_number(tmp_path: Path, tiny: Tiny) -> None:
    path = written(tmp_path, eight=tflite(G([T("in", [8, 4]), T("out", [8, 4])], [Op("ABS", [0], [1])], [0], [1])))[
        "eight"
    ]
    assert workload(path).unusual
    assert str(workload(path)) == "in float32 8×4"
    # one image, of which the file leaves only the number open: nothing to say
    assert not workload(tiny.files["none"]).unusual


def test_a_vector_of_open_length_is_no_batch_of_one(tmp_path: Path) -> None:
    graph = G([T("wave", [1], open=[-1]), T("out", [1], open=[-1])], [Op("ABS", [0], [1])], [0], [1])
    path = written(tmp_path, sound=tflite(graph))["sound"]
    with pytest.raises(UserError, match=r"input wave is \?; takes its size, such as shape=128$"):
        workload(path)


def test_what_is_fixed_in_the_file_is_measured_at_another_size_if_told_so(tmp_path: Path) -> None:
    path = written(tmp_path, fixed=tflite(G([T("in", [1, 4]), T("out", [1, 4])], [Op("ABS", [0], [1])], [0], [1])))[
        "fixed"
    ]
    loads = {"fixed": workload(path, None, {"": (7, 5)})}
    report = measure({"fixed": path}, "fixed", QUICK, workloads=loads)
    assert of(report, "fixed").measured_at == "in float32 7×5"


# --- Values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "values"),
    [
        (None, "0 … 99"),  # the graph tells
        ("RESHAPE", "0 … 99"),  # and beyond what only moves them
        ("ADD", "0 … 0"),  # not here: -128 … 255 fails, and so does 50 more than 0 … 99
    ],
)
def test_indices_are_within_their_table(tmp_path: Path, before: str | None, values: str) -> None:
    report = measure(written(tmp_path, found=lookup(100, before)), "found", QUICK)
    assert not report.failures
    assert of(report, "found").measured_at == f"ids int32 1×4 of {values}"
    assert f"found: measured at ids int32 1×4 of {values}." in list(notes(report))


def test_indices_that_no_value_suits_are_a_failure_that_says_what_was_tried(tmp_path: Path) -> None:
    report = measure(written(tmp_path, found=lookup(30, "ADD")), "found", QUICK)  # 50 more than anything
    (failure,) = report.failures
    assert "gather index out of bounds; Node number" in failure.reason
    assert failure.reason.endswith("(on ids int32 1×4 of -128 … 255, and with zeros)")


def test_integers_with_a_scale_are_activations_and_are_not_told_of(tiny: Tiny) -> None:
    assert not workload(tiny.files["fiq"]).unusual
    assert workload(tiny.files["uint8"]).inputs[0].low is None


# --- What never ends, and what is broken -----------------------------------------------------------------------


def test_what_runs_for_ever_is_stopped_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE_SECONDS", 1)
    files = written(tmp_path, forever=counting(np.inf), once=counting(1))
    report = measure(files, "forever", Benchmark(instances=3, rounds=3, seconds=4, operators=False))
    assert [(failure.name, failure.reason) for failure in report.failures] == [
        ("forever", "gave no answer in 4 s; a larger seconds= waits longer")
    ]
    assert report.baseline == "once"


def test_a_loop_that_zeros_would_not_end_is_profiled_on_the_input_that_it_was_measured_on(tmp_path: Path) -> None:
    report = measure(written(tmp_path, loop=counting(20)), "loop", QUICK)
    found = of(report, "loop")
    assert {operator.name.split(" ")[0].upper() for operator in found.operators} == {"LESS", "ADD"}
    assert found.no_operators == ""


def test_a_file_with_altered_bytes_takes_nothing_with_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    files = written(tmp_path, whole=chain([("a", "x"), ("b", "y")]))
    whole = np.frombuffer(files["whole"].read_bytes(), np.uint8)
    for i in range(8):
        altered = whole.copy()
        altered[rng.integers(8, len(altered), 6)] = rng.integers(0, 256, 6)
        files |= written(tmp_path, **{f"altered{i}": altered.tobytes()})
    report = measure(files, "whole", Benchmark(instances=3, rounds=3, warmup=1, operators=False))
    assert of(report, "whole")
    assert len(report.variants) + len(report.failures) == len(files)
    assert report.failures
    assert all("\n" not in failure.reason and len(failure.reason) <= 250 for failure in report.failures)


def test_what_litert_says_at_length_is_cut_to_a_line(tmp_path: Path) -> None:
    ports = [T("in", [1]), T("out", [1])]
    operator = Op("a-custom-operator-" + 400 * "x", [0], [1], custom=True)
    report = measure(written(tmp_path, m=tflite(G(ports, [operator], [0], [1]))), "m", QUICK)
    (failure,) = report.failures
    assert failure.reason.startswith("Encountered unresolved custom op: a-custom-operator-")
    assert len(failure.reason) <= processes.REASON_LENGTH
    json.loads(json.dumps(plain(report), allow_nan=False))  # nothing ran, and JSON has no infinity


# --- Operators -------------------------------------------------------------------------------------------------


def test_an_interruption_makes_no_operator_the_slowest() -> None:
    call = [("CONV", 0, 0, 60), ("POOL", 1, 0, 10)]
    calls = [call] * 19 + [[("CONV", 0, 0, 60), ("POOL", 1, 0, 5_000)]]
    times = times_of(calls)
    assert times == {"CONV": 0.06, "POOL": 0.01}  # by their means, POOL would have 81 %
    # up to a quarter of the calls
    assert times_of([call] * 15 + calls[-1:] * 5) == times


def test_times_are_finer_than_the_microseconds_that_are_counted() -> None:
    # three of four calls are counted as 1, one as 0: the middle half are 1, 1, …, as many zeros as are left in it
    calls: list[Any] = [[("A", 0, 0, int(i % 2 == 0)), ("B", 1, 0, 1)] for i in range(20)]
    assert times_of(calls) == {"A": 0.0005, "B": 0.001}


def test_what_a_loop_repeats_is_added_up_and_the_loop_itself_is_not() -> None:
    call = [("WHILE", 0, 0, 100), ("ADD", 0, 2, 3), ("ADD", 1, 2, 4), ("ADD", 0, 2, 3), ("ADD", 1, 2, 4)]
    found = operator_times([call] * 5)
    assert not isinstance(found, str)
    assert [(each.name, each.ms) for each in found] == [("ADD", 0.006), ("ADD", 0.008)]


def test_partitions_of_a_delegate_that_count_alike_stay_apart() -> None:
    found = operator_times([[("Delegate/Conv", 0, 0, 5), ("SIN", 3, 0, 1), ("Delegate/Conv", 0, 0, 7)]] * 5)
    assert not isinstance(found, str)
    assert [(each.name, each.ms) for each in found] == [("Conv", 0.005), ("SIN", 0.001), ("Conv", 0.007)]


def test_where_there_are_no_times_there_is_a_reason() -> None:
    assert operator_times([[], []]) == "the runtime lists none"
    assert operator_times([[("ADD", 0, 0, 0)]] * 5) == "none takes a microsecond, which is what the profiler counts in"


def times_of(calls: list[Any]) -> dict[str, float]:
    found = operator_times(calls)
    assert not isinstance(found, str)
    return {each.name: each.ms for each in found}


def test_the_command_says_at_what_it_measured_and_why_no_operator_is_listed(place: Place, tiny: Tiny) -> None:
    path = str(tiny.files["open"])
    done = place.run(
        path, "shape=1,32,32,3", "instances=3", "rounds=3", "operators=false", "json=out.json", module="src.benchmark"
    )
    assert done.returncode == 0, done.stderr
    assert "open: measured at image float32 1×32×32×3." in done.stdout
    assert "open: no time per operator (operators=false)." in done.stdout
    (found,) = json.loads((place.folder / "out.json").read_text())["variants"]
    assert found["inputs"][0]["shape"] == [1, 32, 32, 3]
