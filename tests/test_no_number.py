"""What gives NaN or infinity: counted and said, wrong wherever it is judged, never chosen, and never in a JSON file."""

import json
import math
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from artifacts import BRIGHT, PREPROCESS, SHAPE, Tiny
from conftest import Place, environment

from src.data import Dataset, decode, in_memory, preprocess
from src.measure import stats
from src.measure.accuracy import predict
from src.measure.latency.report import Latency
from src.measure.predictions import NO_CLASS, Predictions, without_number
from src.measure.stats import Interval
from src.methods import loop
from src.results import closing, export, serving
from src.results.choose import Candidate, Constraints, candidates
from src.results.comparison import Comparison, Findings
from src.results.effects import damaged
from src.results.judge import judge
from src.results.report import tables
from src.results.report.page import page
from src.results.report.rendering import drawn
from src.results.report.sentences import footnotes, sentence
from src.results.variant import Result, from_entry
from src.settings.check import UserError, check
from src.settings.plain import plain
from src.settings.sections import Compare, Preprocess


def bright(tiny: Tiny) -> np.ndarray:
    return preprocess(tiny.split.read(np.arange(len(tiny.split))), PREPROCESS).mean(axis=(1, 2, 3)) > BRIGHT


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["nan", "inf", "nothing", "nan_softmax"])
def test_an_image_without_a_number_has_no_class_and_no_warning(tiny: Tiny, name: str, threads: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = predict(tiny.files[name], tiny.split, PREPROCESS, threads)
    sound, none = predict(tiny.files["logits"], tiny.split, PREPROCESS, threads=1), bright(tiny)
    assert 50 < none.sum() < 150
    assert np.array_equal(found.predicted, np.where(none, NO_CLASS, sound.predicted))
    assert np.array_equal(found.correct, sound.correct & ~none)
    assert np.isfinite(found.confidence).all()
    assert not found.true_confidence[none].any()
    assert without_number({"train": sound, "test": found}) == f"gives no number for {none.sum()} of 203 test images"
    assert without_number({"test": sound}) == ""


def test_a_class_that_is_ruled_out_by_minus_infinity_is_an_answer(tiny: Tiny) -> None:
    found = predict(tiny.files["ruled_out"], tiny.split, PREPROCESS, threads=1)
    assert found.no_number == 0
    assert set(found.predicted) == {1, 2, 3, 4}
    assert not found.true_confidence[found.labels == 0].any()


def predictions(labels: list[int], predicted: list[int]) -> Predictions:
    sure = np.where(np.array(predicted) == NO_CLASS, 0, 1).astype(np.float32)
    return Predictions(np.array(labels), np.array(predicted, np.int32), sure, sure)


def test_it_is_wrong_in_every_number(tmp_path: Path) -> None:
    found = predictions([0, 0, 1, 1], [0, NO_CLASS, NO_CLASS, NO_CLASS])
    assert (found.accuracy, found.balanced_accuracy) == (0.25, (0.5 + 0) / 2)
    assert found.ece == 0.75  # sure of all four, right of one
    assert stats.agreement(found.answers, found.answers) == 0.25  # two that say nothing do not agree
    found.save(tmp_path / "test.npz")
    assert np.array_equal(Predictions.load(tmp_path / "test.npz").predicted, found.predicted)


def test_predictions_of_before_say_class_0_with_a_confidence_of_nan(tmp_path: Path) -> None:
    nan = np.array([0.5, np.nan], np.float32)
    with (tmp_path / "test.npz").open("wb") as file:
        arrays = {"labels": np.zeros(2, int), "predicted": np.zeros(2, np.int32)}
        np.savez(file, confidence=nan, true_confidence=nan, **arrays)
    found = Predictions.load(tmp_path / "test.npz")
    assert (list(found.predicted), found.accuracy) == ([0, NO_CLASS], 0.5)


# --- Judged, shown, chosen -------------------------------------------------------------------------------------

LABELS = [0, 1] * 100
SOUND, SILENT = predictions(LABELS, LABELS), predictions(LABELS, [NO_CLASS] * 3 + LABELS[3:])


def judged(dense: Predictions, variant: Predictions) -> list[Result]:
    """The results of a dense baseline and of one variant, as a sweep makes them."""
    found = {"none-none": dense, "p1-drq": variant}
    rows = {
        name: Result(
            name,
            metrics={"test_accuracy": its.accuracy, "gzip_bytes": 1e3, "sparsity": 0.0},
            is_baseline=name == "none-none",
            digest=name,
            no_number=without_number({"test": its}),
        )
        for name, its in found.items()
    }
    return list(judge(rows, "none-none", found, found, ["cat", "dog"], Compare()).values())


def chosen(rows: list[Result]) -> Candidate:
    findings = Findings("sweep", "today", (Comparison("", tuple(rows)),), Compare(), {})
    read = [from_entry(entry) for entry in json.loads(tables.as_json(findings))["variants"]]
    return candidates(read, Constraints(max_drop=0.5))[0]


def test_a_variant_that_gives_no_number_is_worse_said_and_never_chosen() -> None:
    rows = judged(SOUND, SILENT)
    assert (rows[1].metrics["right_to_wrong"], rows[1].metrics["agreement"]) == (3, 197 / 200)
    assert rows[1].worst_class == "cat"  # lost two of the three
    told = "gives no number for 3 of 200 test images"
    assert chosen(rows).refused == (told,)
    comparison = Comparison("", tuple(rows), {"test": 200})
    assert next(footnotes(comparison)).startswith(f"p1-drq {told}: such an image counts as wrong")
    assert "| no number |" in tables.markdown(rows, 0.95)
    assert sentence(comparison, Compare(margin=0.5)) == "There is nothing to compare"
    sweep = Findings("sweep", "today", (comparison,), Compare(margin=0.5), {"what": "x"})
    text = page(sweep, drawn(sweep))
    assert f"p1-drq {told}.</strong>" in text
    assert 'class="chosen"' not in text


def test_what_is_compared_with_a_baseline_that_gives_no_number_says_nothing_and_is_not_chosen() -> None:
    rows = judged(SILENT, SOUND)
    told = "gives no number for 3 of 200 test images"
    assert chosen(rows).refused == (f"its dense baseline {told}",)
    comparison = Comparison("", tuple(rows), {"test": 200})
    assert sentence(comparison, Compare()) == f"The dense baseline {told}: what is compared with it says nothing"
    assert chosen(judged(SOUND, SOUND)).refused == ()


def test_a_damaged_image_without_a_class_is_shown_without_one() -> None:
    split = in_memory(np.zeros((200, 8, 8, 1), np.uint8), np.array(LABELS), [str(i) for i in range(200)])
    data = Dataset(split, split, split, ("cat", "dog"), (8, 8, 1), "")
    found = damaged("none-none", {"none-none": SOUND, "p1-drq": SILENT}, data)
    assert [image.wrong for image in found] == [{"p1-drq": "no number"}] * 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64(math.nan)])
def test_json_has_null_for_what_is_no_number(value: float) -> None:
    rows = (Result("none-none", metrics={"test_accuracy": 0.5, "ece": value}, is_baseline=True),)
    text = tables.as_json(Findings("sweep", "today", (Comparison("", rows),), Compare(), {}))
    assert from_entry(json.loads(text)["variants"][0]) == replace(rows[0], metrics={"test_accuracy": 0.5})
    text += json.dumps(plain({"noise_floor": value, "speedup": stats.Interval(1.0, 0.0, value)}))
    assert not {"NaN", "Infinity"} & set(text.replace("-", " ").replace(",", " ").split())
    assert plain({"value": (value, 1.5)}) == {"value": [None, 1.5]}


def test_a_speed_up_of_too_few_rounds_is_not_recorded_as_infinite() -> None:
    found = Latency(
        "p1-drq", 1.0, 0.0, 1.0, 1.0, Interval(1.0, 0.0, math.inf), "no difference", 1.0, 1.0, None, None, 1
    )
    row = closing.timed(Result("p1-drq"), found)
    assert row.metrics["latency_ms_median"] == 1.0
    assert all(map(math.isfinite, row.metrics.values()))


# --- Made and shipped ------------------------------------------------------------------------------------------


def test_scores_that_are_no_numbers_are_wrong_while_it_is_trained() -> None:
    import tensorflow as tf

    split = in_memory(np.zeros((5, 8, 8, 1), np.uint8), np.zeros(5, int), [""] * 5)
    rows = [[1.0, 0.0], [math.nan, 0.0], [0.0, math.nan], [math.inf, 0.0], [1.0, -math.inf]]
    assert loop.accuracy(lambda _: tf.constant(rows), split, Preprocess()) == 2 / 5


def test_what_is_served_has_no_label_and_is_json(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copy(tiny.files["nan"], tmp_path / serving.MODEL)
    how = {"classes": list("abcde"), "image_shape": list(SHAPE), "logits": True, "resize": "bilinear", "crop": False}
    (tmp_path / serving.PREPROCESSING).write_text(json.dumps({**how, "preprocess": plain(PREPROCESS)}))
    images, none = tiny.split.read(np.arange(20)), bright(tiny)[:20]
    answers = serving.Classifier(tmp_path).predict(images)
    assert [answer["label"] is None for answer in answers] == none.tolist()
    assert answers[int(none.argmax())] == {"label": None, "score": None, "scores": {}}
    json.dumps(answers, allow_nan=False)


def recipe(tiny: Tiny) -> dict:
    shape = list(tiny.split.read(np.arange(1)).shape[1:])
    return {"preprocess": plain(PREPROCESS), "image_shape": shape, "resize": "bilinear", "crop": False}


@pytest.mark.parametrize(("name", "said"), [("nan", "no number"), ("inf", "no number"), ("ruled_out", "1")])
def test_the_exported_example_says_so(tiny: Tiny, tmp_path: Path, name: str, said: str) -> None:
    shutil.copy(Path(export.__file__).parent / "example.py", tmp_path)
    shutil.copy(tiny.files[name], tmp_path / "model.tflite")
    (tmp_path / "preprocessing.json").write_text(json.dumps(recipe(tiny)))
    (tmp_path / "labels.txt").write_text("0\n1\n1\n1\n1\n")
    pixels = tiny.split.read(np.arange(len(tiny.split)))
    np.save(tmp_path / "example.npy", pixels[int(bright(tiny).argmax())])
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{said}\n"


def test_the_exported_example_works_from_any_folder_and_refuses_a_wrong_image_in_one_line(
    tiny: Tiny, tmp_path: Path
) -> None:
    folder, elsewhere = tmp_path / "device", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    shutil.copy(Path(export.__file__).parent / "example.py", folder)
    shutil.copy(decode.__file__, folder)
    shutil.copy(tiny.files["none"], folder / "model.tflite")
    (folder / "preprocessing.json").write_text(json.dumps(recipe(tiny)))
    (folder / "labels.txt").write_text("same\n" * 5)
    image = tiny.split.read(np.arange(1))[0]
    np.save(folder / "example.npy", image)
    np.save(elsewhere / "wide.npy", np.concatenate([image, image], axis=1))
    np.save(elsewhere / "float.npy", image.astype(np.float32))
    np.savez(elsewhere / "several.npz", image)
    (elsewhere / "text.npy").write_text("no array")

    def run(*image: str) -> tuple[int, str, str]:
        command = [sys.executable, "../device/example.py", *image]
        done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
        errors = [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]  # of the interpreter
        return done.returncode, done.stdout, "\n".join(errors)

    assert run()[:2] == (0, "same\n")
    takes = f"takes a picture, or a .npy file of uint8 {list(image.shape)}: height, width, channels"
    assert run("none.npy") == (2, "", f"error: none.npy: No such file or directory; {takes}")
    assert run("several.npz") == (2, "", f"error: several.npz: not an image in a known format; {takes}")
    for wrong in ("wide.npy", "float.npy", "text.npy"):
        assert run(wrong) == (2, "", f"error: {wrong}: is something else; {takes}")


def test_pixels_that_float32_can_not_hold_are_refused() -> None:
    for wrong in ({"rescale": 1e37}, {"std": [1e-39]}, {"mean": [1e39]}):
        with pytest.raises(UserError, match=r"^preprocess: makes up to .* of a pixel; takes what float32 can hold$"):
            check(Preprocess, wrong, "preprocess")


def test_a_model_with_weights_that_are_nan_runs_through_and_is_never_picked(place: Place) -> None:
    """Of integers NaN makes numbers: the full-integer file answers class 0 for every image and is very sure."""
    code = """
import src, numpy as np, tf_keras as keras
model = keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
model.set_weights([np.full((64, 10), np.nan), np.zeros(10)])
model.save("model.h5")
"""
    subprocess.run([sys.executable, "-c", code], cwd=place.folder, env=environment(), check=True, capture_output=True)
    done = place.run("model=saved", "model.path=model.h5", "train=none", "quant=fiq", "benchmark.seconds=2")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    sweep = place.newest_sweep()
    dense, integer = (place.variants(sweep)[name] for name in ("none-none", "none-fiq"))
    images = {"train": 449, "validation": 450, "test": 898}
    for split, count in images.items():
        assert dense.metrics[f"{split}_no_number"] == count
        assert dense.metrics[f"{split}_accuracy"] == 0
        assert f"{split}_no_number" not in integer.metrics
    made = "is made from weights that are no numbers: dense/kernel:0"
    every = ", ".join(f"{count} of {count} {split} images" for split, count in images.items())
    assert dense.tags["no_number"] == f"gives no number for {every}; it {made}"
    assert integer.tags["no_number"] == made
    assert f"none-none gives no number for {every}" in done.stderr
    assert f"The dense baseline gives no number for {every}" in " ".join(done.stdout.split())
    comparison = place.store().file(sweep.run_id, "comparison.json").read_text()
    json.loads(comparison, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    refused = place.run(module="src.pick")
    assert refused.returncode == 1
    assert f"nearest is none-fiq: {made}" in refused.stderr
    held = place.run(module="src.verify")
    assert held.returncode == 0, held.stdout + held.stderr
