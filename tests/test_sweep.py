"""What a sweep leaves, what it reuses, and what a failure in it costs: real runs of the whole program."""

import contextlib
import csv
import io
import json
import re
import sqlite3
import subprocess
from pathlib import Path

import pytest
from conftest import Place

from src.store.artifacts import sha256
from src.store.names import CHECKPOINT, OF_BASELINE

VARIANTS = {f"{p}-{q}" for p in ("none", "p1", "p2") for q in ("none", "drq", "fiq", "f16")}


def test_the_default_grid_is_the_twelve(twelve) -> None:
    place, _ = twelve
    sweep = place.first_sweep()
    assert sweep.status == "FINISHED"
    assert {name: record.status for name, record in place.variants(sweep).items()} == dict.fromkeys(
        VARIANTS, "FINISHED"
    )


def test_a_reader_that_goes_away_costs_the_table_and_nothing_else(place: Place) -> None:
    small = ("-m", "experiment=smoke", "quant=none,drq", "prune=none", "train.epochs=1")
    sweep = place.start(*small, "benchmark.seconds=1", "benchmark.operators=false")
    assert sweep.stdout
    assert sweep.stderr
    sweep.stdout.close()
    said = sweep.stderr.read()
    assert sweep.wait(60) == 0, said
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
    assert place.newest_sweep().status == "FINISHED"


def test_the_database_is_whole_as_one_file(twelve, tmp_path: Path) -> None:
    # By another process: one that closes a database drops all its own locks on it, those of its connections too.
    subprocess.run(["cp", twelve[0].folder / "mlruns/mlflow.db", tmp_path / "mlflow.db"], check=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        finished = database.execute("SELECT name FROM runs WHERE status = 'FINISHED'").fetchall()
    assert {name for (name,) in finished} > VARIANTS


def test_twelve_variants_cost_one_training_and_two_prunings(twelve) -> None:
    assert twelve[0].stages() == ["p1", "p2", "train"]


def test_the_names_that_scripts_rely_on(twelve) -> None:
    place, _ = twelve
    store = place.store()
    for name, record in place.variants(place.first_sweep()).items():
        assert {"kind", "variant", "stage", "key", "digest"} <= set(record.tags)
        assert (record.tags["kind"], record.tags["variant"], record.tags["stage"]) == ("variant", name, "quant")
        expected = {
            "train_accuracy",
            "validation_accuracy",
            "test_accuracy",
            "tflite_bytes",
            "gzip_bytes",
            "sparsity",
            "latency_ms_mean",
            "latency_ms_std",
            "latency_ms_median",
            "latency_ms_p90",
        }
        assert {*expected, *OF_BASELINE} <= set(record.metrics)
        if name == "none-none":  # a chart of any of these has twelve lines
            assert {metric: record.metrics[metric] for metric in OF_BASELINE} == OF_BASELINE
        assert sha256(store.file(record.run_id, f"model/{name}.tflite")) == record.tags["digest"]
        for split in ("train", "validation", "test"):
            assert store.file(record.run_id, f"predictions/{split}.npz").is_file()
        assert store.file(record.run_id, "config.yaml").is_file()
        assert store.file(record.run_id, "run.log").is_file()
        assert 8 <= len(record.params) <= 14
    for record in store.search("tags.kind = 'stage'"):
        assert record.tags["stage"] in ("train", "prune")
        assert store.file(record.run_id, CHECKPOINT, record.tags["digest"]).is_file()


def test_what_it_learned_and_what_it_cost(twelve) -> None:
    place, _ = twelve
    found = {name: record.metrics for name, record in place.variants(place.first_sweep()).items()}
    assert found["none-none"]["test_accuracy"] > 0.9
    # Of 57,482 parameters p1 and p2 prune 55,808 (conv2, conv3, dense1), half of them and four fifths.
    assert found["p1-none"]["sparsity"] == pytest.approx(0.5 * 55808 / 57482, abs=0.005)
    assert found["p2-none"]["sparsity"] == pytest.approx(0.8 * 55808 / 57482, abs=0.005)
    for prune in ("none", "p1", "p2"):
        sizes = [found[f"{prune}-{quant}"]["gzip_bytes"] for quant in ("none", "f16", "drq")]
        assert sizes == sorted(sizes, reverse=True)


def test_cascades_of_p1_are_not_those_of_p2(twelve) -> None:
    place, _ = twelve
    digests = [record.tags["digest"] for record in place.variants(place.first_sweep()).values()]
    assert len(set(digests)) == 12


def test_each_scheme_says_what_it_produced(twelve) -> None:
    place, _ = twelve
    found = place.variants(place.first_sweep())
    types = {name: (found[name].tags["input_dtype"], found[name].tags["output_dtype"]) for name in VARIANTS}
    assert {name for name, pair in types.items() if pair == ("int8", "int8")} == {"none-fiq", "p1-fiq", "p2-fiq"}
    assert {pair for name, pair in types.items() if "fiq" not in name} == {("float32", "float32")}
    assert found["none-fiq"].tags["float_operators"] == "none"
    assert "CONV_2D" in found["none-none"].tags["float_operators"]


def test_the_comparison_is_on_screen_in_the_parent_and_in_files(twelve) -> None:
    place, done = twelve
    sweep, store = place.first_sweep(), place.store()
    table = [line for line in done.stdout.splitlines() if re.match(r"(none|p1|p2)-\w+ ", line)]
    assert len(table) == 12
    assert table[0].split()[0] == "none-none"
    assert max(map(len, done.stdout.splitlines())) <= 80
    description = sweep.tags["mlflow.note.content"]
    rows = list(csv.DictReader(io.StringIO(store.file(sweep.run_id, "comparison.csv").read_text())))
    whole = json.loads(store.file(sweep.run_id, "comparison.json").read_text())
    assert [row["variant"] for row in rows] == [row["variant"] for row in whole["variants"]]
    assert [row["variant"] for row in rows] == [line.split()[0] for line in table]
    assert all(f"| {name} |" in description for name in VARIANTS)


def test_the_same_sweep_again_trains_and_prunes_nothing_and_a_deleted_stage_runs_again(twelve) -> None:
    place, _ = twelve
    before = place.variants(place.first_sweep())
    done = place.run("-m", "experiment=smoke", "prune=p1,p2", "quant=drq")
    assert done.returncode == 0, done.stderr
    assert place.stages() == ["p1", "p2", "train"]
    again = place.variants(place.newest_sweep())
    assert set(again) == {"none-none", "p1-drq", "p2-drq"}, "the baseline joins a sweep that did not ask for it"
    for name, record in again.items():
        assert record.tags["reused_from"] == before[name].run_id
        assert record.tags["digest"] == before[name].tags["digest"]
        assert record.metrics["latency_ms_median"] > 0

    store = place.store()
    p1 = next(record for record in store.search("tags.kind = 'stage'") if record.name == "p1")
    store.client.delete_run(p1.run_id)
    for record in store.search("tags.kind = 'variant' and tags.variant = 'p1-drq'"):
        store.client.delete_run(record.run_id)
    done = place.run("-m", "experiment=smoke", "prune=p1,p2", "quant=drq")
    assert done.returncode == 0, done.stderr
    assert "to make: p1;" in done.stderr
    assert place.stages() == ["p1", "p2", "train"]
    assert place.variants(place.newest_sweep())["p1-drq"].tags["digest"] == before["p1-drq"].tags["digest"]


def test_from_scratch_with_one_seed_the_artifacts_are_the_same_to_the_byte(twelve, place: Place) -> None:
    done = place.run("-m", "experiment=smoke", "prune=p2", "quant=fiq,f16")
    assert done.returncode == 0, done.stderr
    first = twelve[0].variants(twelve[0].first_sweep())
    for name, record in place.variants(place.newest_sweep()).items():
        assert record.tags["digest"] == first[name].tags["digest"], name


def test_a_failed_variant_leaves_the_others_and_is_named_with_its_reason(twelve) -> None:
    place, _ = twelve
    done = place.run("-m", "experiment=smoke", "prune=none,p1", "quant=none", "prune.learning_rate=1e30")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "  p1 failed: diverged: the loss of epoch" in done.stderr, "when it happens"
    assert "failed: p1-none: p1: diverged: the loss of epoch" in done.stderr
    sweep = place.newest_sweep()
    assert "the same command tries the rest again" in done.stderr
    assert sweep.status == "FAILED"
    assert {name: r.status for name, r in place.variants(sweep).items()} == {"none-none": "FINISHED"}
    assert "| p1-none | failed |" in sweep.tags["mlflow.note.content"]


def test_a_single_run_is_compared_with_its_baseline(twelve) -> None:
    place, _ = twelve
    done = place.run("experiment=smoke", "prune=p2", "quant=fiq")
    assert done.returncode == 0, done.stderr
    assert set(place.variants(place.newest_sweep())) == {"none-none", "p2-fiq"}


def test_variants_that_differ_only_in_a_setting_have_names_of_their_own(twelve) -> None:
    place, _ = twelve
    done = place.run("-m", "experiment=smoke", "prune=none", "quant=fiq", "quant.representative_images=10,300")
    assert done.returncode == 0, done.stderr
    found = place.variants(place.newest_sweep())
    assert set(found) == {
        "none-none",
        "none-fiq quant.representative_images=10",
        "none-fiq quant.representative_images=300",
    }
    assert all(f"\nnone-fiq {images} " in done.stdout for images in (10, 300)), "in 80 columns"
    assert "\nafter the names: quant.representative_images\n" in done.stdout


def test_mlflows_own_columns_are_filled(twelve) -> None:
    """Each run's data, and each variant's artifact as a logged model, also where a later sweep took it over."""
    place, store = twelve[0], twelve[0].store()
    sweeps = store.search("tags.kind = 'sweep' and attributes.status = 'FINISHED'")
    assert len(sweeps) > 1
    for sweep in sweeps:
        for name, record in place.variants(sweep).items():
            run = store.client.get_run(record.run_id)
            (used,) = run.inputs.dataset_inputs
            assert used.dataset.name == "digits"
            assert used.dataset.digest == record.tags["data_fingerprint"][:16]
            assert json.loads(used.dataset.profile)["test"] == 898
            (output,) = run.outputs.model_outputs
            model = store.client.get_logged_model(output.model_id)
            assert model.model_id == record.tags["logged_model"]
            assert (model.name, model.status) == (name.replace(".", "_"), "READY")
            assert model.source_run_id == record.tags.get("reused_from", record.run_id)
            assert model.tags["digest"] == record.tags["digest"]
            files = Path(model.artifact_location.removeprefix("file://"))
            assert sha256(files / "data/data/model.tflite") == record.tags["digest"]
            assert not list(files.rglob("*.pkl"))
    for record in store.search("tags.kind = 'stage'"):
        assert store.client.get_run(record.run_id).inputs.dataset_inputs
