"""One record of a variant: what a sweep writes of it is what the commands after it read, also of an older sweep."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from src import pick
from src.measure.audit.contents import Layer
from src.measure.latency.report import Host, Report
from src.measure.stats import Interval, Verdict
from src.results import conditions, publish, recorded
from src.results.comparison import Comparison, Findings
from src.results.export import Exported, card
from src.results.report import tables
from src.results.variant import Result, from_entry, to_entries
from src.settings.check import UserError
from src.settings.sections import Benchmark, Compare, Tracking
from src.store.store import Store

DENSE = Result(
    "none-none",
    scheme="none",
    is_baseline=True,
    run_id="0" * 32,
    digest="d" * 64,
    metrics={"test_accuracy": 0.9, "gzip_bytes": 1e6, "tflite_bytes": 2e6, "sparsity": 0.0, "ece": 0.02},
    note="as asked for",
)
PRUNED = Result(
    "p1-fiq",
    training="seed=0",
    transforms=("p1", "c16"),
    scheme="fiq",
    run_id="1" * 32,
    reused_from="2" * 32,
    digest="e" * 64,
    metrics={
        "test_accuracy": 0.89,
        "gzip_bytes": 2e5,
        "gzip_ratio": 0.2,
        "right_to_wrong": 3,
        "latency_ms_median": 1.5,
    },
    test_accuracy_drop=Interval(0.01, -0.002, 0.021),
    validation_accuracy_drop=Interval(0.0, -0.01, 0.01),
    verdict=Verdict("undecided", 4200),
    worst_class="cat [1, 2]",
    worst_class_drop=Interval(0.1, -0.05, 0.2),
    validation_worst_class="dog",
    validation_worst_class_drop=Interval(0.05, 0.01, 0.1),
    speedup=Interval(1.3, 1.1, 1.5),
    note="2 layers are not as sparse as asked for",
)
FAILED = Result("p2-fiq", scheme="fiq", transforms=("p2",), failed="p2: ValueError: no layer")


def findings(*results: Result, **more: Any) -> Findings:
    return Findings("sweep", "today", (Comparison("", results),), Compare(), {"what": "x"}, **more)


@pytest.mark.parametrize("result", [DENSE, PRUNED, FAILED, replace(PRUNED, speedup=None, no_difference=True)])
def test_what_is_written_of_a_variant_is_read_as_it_was(result: Result) -> None:
    (entry,) = json.loads(json.dumps(to_entries([result])))
    assert from_entry(entry) == result
    beside = json.loads(tables.as_json(findings(DENSE, PRUNED, FAILED, result)))["variants"][-1]
    assert from_entry(beside) == result, "what other variants have and it has not is null"


def test_what_is_seen_only_while_a_sweep_is_closed_is_not_in_its_comparison() -> None:
    closing = replace(PRUNED, layers=(Layer("conv1", 100, 50, 100, None),), url="http://host/1")
    endless = replace(closing, speedup=Interval(1.0, 0.0, math.inf))
    assert from_entry(to_entries([endless])[0]) == replace(PRUNED, speedup=None)


def test_a_metric_of_a_probe_that_nothing_here_knows_goes_all_the_way() -> None:
    probed = replace(PRUNED, metrics={**PRUNED.metrics, "arena_bytes": 55984.0, "cycles_low": 7.0})
    text = tables.as_csv([DENSE, probed])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["arena_bytes"] for row in rows] == ["", "55984.0"]
    assert from_entry(json.loads(tables.as_json(findings(DENSE, probed)))["variants"][1]) == probed


def test_the_columns_of_the_table_stand_in_the_order_of_before() -> None:
    header = tables.as_csv([DENSE, PRUNED]).splitlines()[0].split(",")
    assert header[:6] == ["variant", "training", "test_accuracy", "tflite_bytes", "gzip_bytes", "sparsity"]
    assert header[6:11] == ["ece", "latency_ms_median", *(f"test_accuracy_drop{end}" for end in ("", "_low", "_high"))]
    assert header[-11:-6] == ["worst_class", "validation_worst_class", "verdict", "no_number", "needs_images"]
    assert header[-6:] == ["no_difference", "is_baseline", "failed", "run_id", "reused_from", "digest"]


def test_how_a_sweep_was_measured_and_what_it_left_out_is_read_as_it_was() -> None:
    host = Host("host", "a CPU", 2, "LiteRT 2", None, None, None)
    silent = Report("none-none", (), (), Interval(1, 1, 1), math.inf, 3, 5, Benchmark(threads=1), host, {})
    of_two = (Comparison("seed=0", (DENSE,), latency=silent), Comparison("seed=1", (FAILED,)))
    sweep = Findings("sweep", "today", of_two, Compare(margin=0.02), {"what": "x"}, left_out=(("qat-f16", "why"),))
    read = conditions.from_json(json.loads(tables.as_json(sweep))["conditions"])
    assert (read.facts, read.compare, read.left_out) == ({"what": "x"}, Compare(margin=0.02), (("qat-f16", "why"),))
    timing, none = read.latency
    assert timing
    assert none is None
    assert (timing.cpu, timing.load, timing.noise_floor, timing.config["threads"]) == ("a CPU", None, math.inf, 1)


def test_what_was_left_out_is_said_below_the_table_once_for_each_reason(
    old: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    left_out = (("qat-f16", "fits integers"), ("p1-qat-f16", "fits integers"), ("c16-w4", "is clustered"))
    publish.show(findings(DENSE, left_out=left_out), old, "0" * 32)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("left out")] == [
        "left out: qat-f16, p1-qat-f16: fits integers",
        "left out: c16-w4: is clustered",
    ]


# --- A sweep of version 0.1 --------------------------------------------------------------------------------------

OLD: dict[str, Any] = {
    "conditions": {
        "facts": {"fingerprint of the data": "f"},
        "compare": {"margin": 0.01, "confidence": 0.95},
        "latency": [
            {
                "baseline": "none-none",
                "noise_floor": None,
                "instances": 3,
                "rounds": 10,
                "config": {"threads": 1},
                "host": {"hostname": "h", "cpu": "c", "cores": 2, "runtime": "LiteRT 2", "load_during": None},
            }
        ],
    },
    "variants": [
        {
            **{"variant": "none-none", "training": "", "test_accuracy": 0.9, "gzip_bytes": 1000.0, "sparsity": 0.0},
            **{"tflite_bytes": 2000.0, "latency_ms_median": 1.0, "latency_ms_p90": 1.1, "gzip_ratio": None},
            **{"test_accuracy_drop": None, "test_accuracy_drop_low": None, "test_accuracy_drop_high": None},
            **{"worst_class": None, "verdict": None, "no_number": None, "needs_images": None, "no_difference": False},
            **{"is_baseline": True, "failed": None, "run_id": "", "reused_from": None, "digest": "a" * 64},
        },
        {
            **{"variant": "none-drq", "training": "", "test_accuracy": 0.895, "gzip_bytes": 300.0, "sparsity": 0.0},
            **{"tflite_bytes": 600.0, "latency_ms_median": 0.8, "latency_ms_p90": 0.9, "gzip_ratio": 0.3},
            **{"test_accuracy_drop": 0.005, "test_accuracy_drop_low": -0.001, "test_accuracy_drop_high": 0.011},
            **{"validation_accuracy_drop": 0.002, "validation_accuracy_drop_low": -0.004},
            **{"validation_accuracy_drop_high": 0.008, "worst_class_drop": 0.1, "worst_class_drop_low": -0.1},
            **{"worst_class_drop_high": 0.3, "speedup": 1.25, "speedup_low": 1.1, "speedup_high": 1.4},
            **{"worst_class": "7", "verdict": "undecided", "no_number": None, "needs_images": 1300},
            **{"no_difference": False, "is_baseline": False, "failed": None, "run_id": "", "reused_from": None},
            **{"digest": "b" * 64},
        },
    ],
}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a sweep whose comparison is the flat one that version 0.1 wrote."""
    store = Store(Tracking(f"sqlite:///{tmp_path_factory.mktemp('old')}/mlflow.db", "compression"))
    parent = store.start("sweep", "sweep-old", tags={"command": "python -m src.run"}, params={})
    for entry in OLD["variants"]:
        tags = {"variant": entry["variant"], "digest": entry["digest"], "audit": "as asked for"}
        tags |= {"input_dtype": "float32", "output_dtype": "float32"}
        with store.run("variant", entry["variant"], tags=tags, params={}, parent=parent) as run_id:
            entry["run_id"] = run_id
    store.keep_text(parent, json.dumps(OLD), recorded.COMPARISON)
    store.end(parent, "FINISHED")
    return store


def test_an_older_comparison_is_read_as_typed_values(old: Store) -> None:
    sweep = recorded.find_sweep(old, "sweep-old")
    dense, drq = sweep.measured
    assert dense.is_baseline
    assert (dense.test_accuracy_drop, dense.speedup, dense.verdict) == (None, None, None)
    assert drq.test_accuracy_drop == Interval(0.005, -0.001, 0.011)
    assert drq.validation_accuracy_drop == Interval(0.002, -0.004, 0.008)
    assert (drq.worst_class, drq.worst_class_drop) == ("7", Interval(0.1, -0.1, 0.3))
    assert drq.speedup == Interval(1.25, 1.1, 1.4)
    assert drq.verdict == Verdict("undecided", 1300)
    assert sweep.conditions.left_out == ()
    assert sweep.latency[""] is not None


def test_a_comparison_without_what_every_version_wrote_is_one_line(old: Store) -> None:
    parent = old.start("sweep", "sweep-damaged", tags={"command": "x"}, params={})
    some = [{"variant": "none-none"}]
    old.keep_text(parent, json.dumps({**OLD, "variants": some}), recorded.COMPARISON)
    old.end(parent, "FINISHED")
    with pytest.raises(UserError, match=r"^sweep-damaged: its comparison.json is damaged \(KeyError: .*\); takes one"):
        recorded.find_sweep(old, "sweep-damaged")


def test_an_older_sweep_is_picked_from(old: Store, capsys: pytest.CaptureFixture[str]) -> None:
    pick.pick(pick.Settings(tracking=Tracking(old.uri, old.experiment), sweep="sweep-old", register=False))
    said = capsys.readouterr().out
    assert "chosen      none-drq of sweep-old" in said
    assert "accuracy 89.50 %, drop +0.5 [−0.1, +1.1] points: undecided" in said
    assert "latency     1.25 × as fast [1.10, 1.40], median 0.8 ms" in said


def test_an_older_variant_has_a_model_card(old: Store) -> None:
    sweep = recorded.find_sweep(old, "sweep-old")
    drq = sweep.measured[1]
    how = {"classes": ["0", "7"], "image_shape": [8, 8, 1], "resize": "bilinear", "crop": False, "logits": True}
    text = card(Exported(recorded.run_of(old, drq), drq, Path("none"), how, ()))
    assert "| drop from the dense baseline | +0.5 points [−0.1, +1.1]: undecided: needs about 1,300 images |" in text
    assert "| as fast as the dense baseline | 1.25 × [1.10, 1.40] |" in text
    assert "The class that lost most by the compression is 7: drop +10.0 [−10.0, +30.0] points." in text
