"""What can't be judged, read or run fails alone: the other variants of the table stand as if it were not there."""

import logging
import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from conftest import Place, default_composer
from hydra import initialize_config_dir

from src.cli.compose import CONF
from src.measure.predictions import Predictions
from src.results import closing, publish, recorded
from src.results.comparison import Comparison, Findings, ordered
from src.results.effects import interaction
from src.results.judge import judge
from src.results.report import tables
from src.results.report.page import page
from src.results.report.rendering import Drawn, drawn
from src.results.variant import Result
from src.settings.sections import Compare

LABELS = np.arange(200) % 2


def predictions(wrong: int, images: int = 200) -> Predictions:
    """Of two classes, the first `wrong` images of class 0 and 1 in turn mistaken for the other."""
    labels = LABELS[:images].astype(np.int64)
    predicted = np.where(np.arange(images) < wrong, 1 - labels, labels).astype(np.int32)
    sure = np.ones(images, np.float32)
    return Predictions(labels, predicted, sure, sure)


def judged(**wrong: Predictions) -> dict[str, Result]:
    predicted = {name.replace("_", "-"): its for name, its in wrong.items()}
    results = {
        name: Result(
            name,
            metrics={
                "validation_accuracy": its.accuracy,
                "test_accuracy": its.accuracy,
                "gzip_bytes": 1e3,
                "sparsity": 0.0,
            },
            is_baseline=name == "none-none",
            digest=name,
        )
        for name, its in predicted.items()
    }
    return judge(results, "none-none", predicted, predicted, ["cat", "dog"], Compare())


def test_a_baseline_that_has_every_image_right_is_one_like_any_other() -> None:
    rows = judged(none_none=predictions(0), p1_fiq=predictions(1), p2_fiq=predictions(40))
    assert [row.failed for row in rows.values()] == [None] * 3
    assert rows["p1-fiq"].verdict is not None
    assert rows["p1-fiq"].verdict.call == "undecided"
    assert rows["p2-fiq"].verdict is not None
    assert rows["p2-fiq"].verdict.call == "worse"


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        # of fewer images than the others, as no sweep should make them
        (predictions(1, images=150), "can't be judged: ValueError: shapes (200,) and (150,): takes two arrays"),
        # of as many, sure of nothing that is a number: its own calibration error asks for it, after the pairs
        (replace(predictions(1), confidence=np.full(200, "x")), "can't be judged: "),
    ],
)
def test_a_variant_that_can_not_be_judged_fails_alone_and_says_why(odd: Predictions, why: str) -> None:
    usual = {"none_none": predictions(3), "p1_fiq": predictions(30), "p2_fiq": predictions(4)}
    rows = judged(**usual, p2_drq=odd)
    assert rows["p2-drq"].failed is not None
    assert rows["p2-drq"].failed.startswith(why)
    assert rows["p2-drq"].verdict is None
    without = judged(**usual)
    for name in ("none-none", "p1-fiq", "p2-fiq"):
        assert rows[name].failed is None
        assert rows[name].test_accuracy_drop == without[name].test_accuracy_drop
        assert rows[name].validation_accuracy_drop == without[name].validation_accuracy_drop
    comparison = Comparison("", tuple(ordered(list(rows.values()))), {"validation": 200, "test": 200})
    text = page(*_drawn(comparison))
    assert f"<strong>p2-drq failed.</strong> {why.split(':')[0].replace(chr(39), '&#39;')}" in text
    assert "| p2-drq | failed |" in tables.markdown(comparison.results, 0.95)
    assert tables.as_csv(comparison.results).count("can't be judged") == 1


def _drawn(comparison: Comparison) -> tuple[Findings, list[Drawn]]:
    findings = Findings("sweep", "today", (comparison,), Compare(), {"what": "x"})
    return findings, list(drawn(findings))


@pytest.mark.long
def test_predictions_that_are_damaged_fail_their_own_variant(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ["experiment=smoke", "train.epochs=1", "benchmark.seconds=1", "benchmark.operators=false"]
    done = place.run("-m", *settings, "quant=none,drq,f16")
    assert done.returncode == 0, done.stderr
    store, sweep = place.store(), place.newest_sweep()
    records = place.variants(sweep)
    file = store.file(records["none-drq"].run_id, "predictions/test.npz")
    file.write_bytes(file.read_bytes()[:-1])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        config = compose([*settings, "quant=none"])
    results = [
        Result(name, is_baseline=name == "none-none", scheme=name.split("-")[1], run_id=record.run_id)
        for name, record in records.items()
    ]
    monkeypatch.chdir(place.folder)
    with caplog.at_level(logging.ERROR):
        closed = closing.close(results, {"": config}, store, sweep.run_id, left_out=[("none-w4", "has no integers")])
    assert list(closed.failed) == ["none-drq"]
    told = closed.failed["none-drq"]
    assert "predictions/test.npz is not what was recorded" in told
    assert told.endswith("the same command makes it anew")
    rows = {result.variant: result for result in closed.results}
    assert rows["none-f16"].verdict is not None
    assert rows["none-f16"].speedup is not None
    assert (publish.REPORTS / closed.name / "report.html").exists()
    read = recorded.find_sweep(store, sweep.name, partial=True)
    assert read.conditions.left_out == (("none-w4", "has no integers"),)
    assert [replace(result, layers=(), url="") for result in closed.results] == list(read.results)
    assert store.get(records["none-drq"].run_id).status == "FAILED"  # so that the next sweep makes it anew


def test_an_interaction_has_an_interval_however_near_its_confidence_is_to_1() -> None:
    right, wrong = np.array([True] * 10), np.array([False] * 10)
    # The number next to 1: 0.5 + confidence / 2 would round to 1, whose quantile is infinite.
    found = interaction(right, right, right, wrong, 1 - 2**-53)
    assert found.estimate == 1
    # Ten images of 1, and the two that are added: mean 10/12, variance (12 - 12 (10/12)^2) / 11 = 1/3.
    quantile = -NormalDist().inv_cdf(2**-54)
    assert found.high - found.low == pytest.approx(2 * quantile * math.sqrt(1 / 3 / 12))
