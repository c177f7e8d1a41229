"""Which variant is chosen, and what is said of each other one. `make mutants` runs these: all quick."""

import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from src import pick
from src.results.choose import Candidate, Constraints, candidates
from src.results.variant import Result, from_entry
from src.settings.sections import Tracking


def row(name: str, high: float, gzip_bytes: float, latency_ms: float | None = 1.0, **more: Any) -> Result:
    """As a sweep records a variant whose drop on the validation split is estimated at 0 and may be up to `high`."""
    split = {
        "validation_accuracy_drop": 0.0,
        "validation_accuracy_drop_low": -high,
        "validation_accuracy_drop_high": high,
    }
    rest = {"latency_ms_median": latency_ms, "tflite_bytes": 2 * gzip_bytes, "failed": None, "is_baseline": False}
    which = {"variant": name, "training": "", "run_id": None, "digest": None}
    return from_entry({**which, "gzip_bytes": gzip_bytes, **split, **rest, **more})


ROWS = [
    row("none-none", 0.0, 900.0, is_baseline=True),
    row("small", 0.03, 100.0, 0.5),
    row("sure", 0.005, 300.0, 1.0),
    row("fast", 0.008, 400.0, 0.2),
    row("untimed", 0.001, 350.0, None),
    row("narrow", 0.01, 800.0, 3.0, multiply_adds=1e6),
    row("broken", 0.0, 1.0, failed="can't be run: crashes the interpreter (SIGSEGV)"),
]


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({}, "sure"),
        ({"risk": "point"}, "small"),
        ({"max_drop": 0.05}, "small"),
        ({"minimize": "latency"}, "fast"),
        ({"minimize": "tflite_bytes"}, "sure"),
        ({"minimize": "multiply_adds"}, "narrow"),
        ({"max_latency_ms": 0.5}, "fast"),
        ({"max_gzip": "0.3kB"}, "sure"),
    ],
)
def test_the_least_of_those_that_are_sure_to_be_within_the_constraints(settings: dict[str, Any], chosen: str) -> None:
    found = candidates(ROWS, Constraints(**settings))
    assert found[0].result.variant == chosen
    assert not found[0].refused
    assert "none-none" not in {candidate.result.variant for candidate in found}, "the dense baseline is no choice"


def test_each_other_one_is_refused_for_a_reason_that_says_by_how_much() -> None:
    found = candidates(ROWS, Constraints(max_gzip="350B", max_latency_ms=0.8))
    reasons = {candidate.result.variant: "; ".join(candidate.refused) for candidate in found}
    assert reasons["small"] == "may drop up to 3.0 points: 2.0 points above max_drop"
    assert reasons["sure"] == "1.00 ms: 0.2 ms above max_latency_ms"
    assert reasons["fast"] == "400 B: 50 B above max_gzip"
    assert reasons["untimed"] == "has no latency_ms_median"
    assert reasons["broken"].startswith("can't be run")
    # 350 B instead of 400 is nearer than 0.8 ms instead of 1.
    assert found[0].result.variant == "fast"


def test_what_is_nearer_comes_first_and_what_can_not_be_measured_last() -> None:
    found = candidates(ROWS, Constraints(max_gzip="350B", max_latency_ms=0.8))
    # 400 of 350 bytes; 1 ms of 0.8; 3 points of 1; 3 ms of 0.8; then what has no
    # latency or can't be run, the smaller first.
    assert [candidate.result.variant for candidate in found] == ["fast", "sure", "small", "narrow", "broken", "untimed"]
    assert [candidate.excess for candidate in found] == pytest.approx(
        [400 / 350, 1 / 0.8, 3, 3 / 0.8, math.inf, math.inf]
    )


def alone(settings: dict[str, Any], **more: Any) -> Candidate:
    (found,) = candidates([row("x", **{"high": 0.0, "gzip_bytes": 500.0, **more})], Constraints(**settings))
    return found


@pytest.mark.parametrize(
    ("settings", "variant", "reasons", "excess"),
    [
        # What a constraint names is allowed.
        ({"max_drop": 0.01}, {"high": 0.01}, (), 0),
        ({"max_drop": 0}, {"high": 0.0}, (), 0),
        ({"max_gzip": 500}, {}, (), 0),
        ({"max_latency_ms": 1}, {}, (), 0),
        ({"max_drop": 0.01}, {"high": 0.0105}, ("may drop up to 1.1 points: 0.1 points above max_drop",), 1.05),
        # Below half a tenth of a point, 0.0 above would say nothing.
        ({"max_drop": 0.01}, {"high": 0.0104}, ("may drop up to 1.040 points: 0.040 points above max_drop",), 1.04),
        ({"max_drop": 0}, {"high": 0.0005}, ("may drop up to 0.1 points: 0.1 points above max_drop",), math.inf),
        ({"max_drop": 0.01}, {"high": 0.51}, ("may drop up to 51.0 points: 50.0 points above max_drop",), 51),
        (
            {"max_drop": 0.01},
            {"high": 0.02, "gzip_bytes": 1e6},
            ("may drop up to 2.0 points: 1.0 points above max_drop",),
            2,
        ),
        ({"max_drop": 0}, {"high": 0.02}, ("may drop up to 2.0 points: 2.0 points above max_drop",), math.inf),
        ({"max_drop": 0.01, "risk": "point"}, {"high": 0.5}, (), 0),
        (
            {"max_drop": 0.01, "risk": "point"},
            {"validation_accuracy_drop": 0.04},
            ("drops 4.0 points: 3.0 points above max_drop",),
            4,
        ),
        ({"max_gzip": 499}, {}, ("500 B: 1 B above max_gzip",), 500 / 499),
        ({"max_gzip": 200, "max_drop": 0.01}, {"high": 0.011}, None, 2.5),  # the larger of two counts
        ({"max_gzip": 400, "max_drop": 0.01}, {"high": 0.02}, None, 2),
        ({"max_latency_ms": 0.4}, {}, ("1.00 ms: 0.6 ms above max_latency_ms",), 2.5),
        ({"max_latency_ms": 0.4}, {"latency_ms": None}, ("has no latency_ms_median",), math.inf),
        ({"minimize": "latency"}, {"latency_ms": None}, ("has no latency_ms_median",), math.inf),
        ({"minimize": "latency"}, {"latency_ms": 0.0}, (), 0),
        ({"minimize": "latency"}, {"latency_ms": None, "high": 0.02}, None, 2),
        ({"minimize": "multiply_adds"}, {}, ("has no multiply_adds",), math.inf),
        ({"minimize": "multiply_adds"}, {"multiply_adds": 1e6}, (), 0),
        ({}, {"failed": "can't be run", "high": 0.5}, ("can't be run",), math.inf),
        ({}, {"no_number": "gives no number"}, ("gives no number",), math.inf),
        ({}, {"validation_accuracy_drop": None}, ("was not compared on the validation split",), math.inf),
        ({"max_gzip": 400, "max_latency_ms": 0.5}, {}, None, 2),
    ],
)
def test_why_one_is_refused_and_by_what_factor(
    settings: dict[str, Any], variant: dict[str, Any], reasons: tuple[str, ...] | None, excess: float
) -> None:
    found = alone(settings, **variant)
    assert found.excess == pytest.approx(excess)
    assert bool(found.refused) == (excess > 0)
    if reasons is not None:
        assert found.refused == reasons


def of_class(low: float, high: float = 0.4) -> dict[str, Any]:
    name = "validation_worst_class"
    ends = {f"{name}_drop": (low + high) / 2, f"{name}_drop_low": low, f"{name}_drop_high": high}
    return {name: "cat", **ends}


@pytest.mark.parametrize(
    ("settings", "low", "excess"),
    [
        ({}, 0.13, 2.6),
        ({}, 0.05, 0),
        ({}, -0.1, 0),
        ({"max_class_drop": 0.2}, 0.13, 0),
        ({"max_class_drop": 1}, 0.9, 0),
    ],
)
def test_a_class_that_is_sure_to_lose_more_than_one_can_afford_refuses_a_variant(
    settings: dict[str, Any], low: float, excess: float
) -> None:
    found = alone(settings, **of_class(low))
    assert found.excess == pytest.approx(excess)
    if excess:
        assert found.refused == ("class cat drops +26.5 [+13.0, +40.0] points: sure to be above max_class_drop",)
    else:
        assert found.refused == ()


def test_what_is_chosen_says_its_worst_class() -> None:
    ends = {"worst_class_drop": 0.28, "worst_class_drop_low": 0.13, "worst_class_drop_high": 0.41}
    wanted = pick.Settings(tracking=Tracking("sqlite:///x.db", "x"))
    lost = row("x", 0.0, 500.0, worst_class="cat", **ends)
    told = "cat drops most on the test split, +28.0 [+13.0, +41.0] points"
    assert (
        pick._worst_class(lost, wanted)
        == f"{told}: sure to be above max_class_drop, which the validation split decides"
    )
    wanted = pick.Settings(tracking=Tracking("sqlite:///x.db", "x"), max_class_drop=0.2)
    assert pick._worst_class(lost, wanted) == told
    assert pick._worst_class(row("x", 0.0, 500.0), wanted) == "none drops on the test split"


def test_one_that_exceeds_two_constraints_is_told_both() -> None:
    found = alone({"max_gzip": 400, "max_latency_ms": 0.5})
    assert found.refused == ("500 B: 100 B above max_gzip", "1.00 ms: 0.5 ms above max_latency_ms")


def test_the_baseline_of_its_own_training_has_to_give_numbers() -> None:
    rows = [
        row("none-none", 0.0, 900.0, training="seed=0", is_baseline=True, no_number="gives no number"),
        row("none-none", 0.0, 900.0, training="seed=1", is_baseline=True),
        row("p1-drq", 0.0, 100.0, training="seed=0"),
        row("p1-drq", 0.0, 200.0, training="seed=1"),
    ]
    found = candidates(rows, Constraints())
    assert [candidate.result.label for candidate in found] == ["seed=1 p1-drq", "seed=0 p1-drq"]
    assert found[0].refused == ()
    assert found[1].refused == ("its dense baseline gives no number",)


def test_of_those_that_can_not_be_chosen_what_was_not_measured_comes_first() -> None:
    rows = [row("slow", 0.0, 100.0, 0.5, failed="can't be run"), row("untimed", 0.0, 200.0, None)]
    assert [c.result.variant for c in candidates(rows, Constraints(minimize="latency"))] == ["untimed", "slow"]


def test_of_equally_good_ones_the_smaller_comes_first() -> None:
    rows = [row("larger", 0.0, 400.0), row("smaller", 0.0, 300.0)]
    assert [c.result.variant for c in candidates(rows, Constraints(minimize="latency"))] == ["smaller", "larger"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("250", 250),
        ("250B", 250),
        ("500kB", 500_000),
        ("2MB", 2_000_000),
        (" 2 mb ", 2_000_000),
        (".5GB", 500_000_000),
        ("2KiB", 2048),
        ("1.5MiB", 1_572_864),
        ("1GiB", 1_073_741_824),
        (77, 77),
    ],
)
def test_bytes_in_the_units_that_people_write(text: str | int, count: float) -> None:
    assert Constraints(max_gzip=text).max_gzip == count


@pytest.mark.parametrize("text", ["2apples", "MB", "-2MB", "2.MB", "1e6", ""])
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="takes bytes, such as 2MB, 500kB or"):
        Constraints(max_gzip=text)


def test_the_serve_command_finds_uvicorn_where_the_environment_is_not_activated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """tests/test_ship.py serves with it."""
    python = tmp_path / "a folder" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(python))
    store, serve = "MLFLOW_TRACKING_URI=sqlite:///x.db", "mlflow models serve --env-manager local -m models:/x@champion"
    assert (
        pick._serve("sqlite:///x.db", "models:/x@champion")
        == f"{store} PATH='a folder/bin':$PATH 'a folder/bin/python' -m {serve}"
    )
    monkeypatch.setenv("PATH", str(python.parent), prepend=os.pathsep)
    assert pick._serve("sqlite:///x.db", "models:/x@champion") == f"{store} python -m {serve}"
