"""From a sweep to what leaves the house: pick, register, serve, export, verify, compare across sweeps."""

import ast
import base64
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place, environment
from PIL import Image

from src import compare, export, pick, verify
from src.cli import command, frame
from src.measure.predictions import Predictions
from src.results import recorded, serving
from src.results.across import difference, differing
from src.settings.check import UserError
from src.store import registry
from src.store.artifacts import Record, sha256
from src.store.names import MEASURED, PREPROCESSING, artifact_path

COUNTED = ("parameters", "multiply_adds")  # that runs of before did not have


def first_sweep(place: Place) -> Record:
    """The sweep of the fixture; other tests add more to the same store."""
    return min(place.store().search("tags.kind = 'sweep'"), key=lambda sweep: sweep.started)


def ask(place: Place, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return place.run(*arguments, module=f"src.{name}")


COMMANDS: dict[str, tuple[Any, Callable[[Any], None]]] = {
    "pick": (pick.Settings, pick.pick),
    "export": (export.Settings, export.export),
    "verify": (verify.Settings, verify.verify),
    "compare": (compare.Settings, compare.compare),
}


def here(place: Place, name: str, *arguments: str) -> None:
    """The same command in this process, which has MLflow imported already; raises what would end it."""
    schema, work = COMMANDS[name]
    uri = f"tracking.uri=sqlite:///{place.folder}/mlruns/mlflow.db"
    work(command.parse([uri, *arguments], schema, "run" if name == "verify" else None))


WRONG = [
    ("pick", ["max_drop=little"], "max_drop=little: takes a number of at least 0 and below 1"),
    ("pick", ["max_gzip=2apples"], "max_gzip: got 2apples, takes bytes, such as 2MB, 500kB or 1.5MiB"),
    ("pick", ["max_latency_ms=0"], "max_latency_ms=0: takes a number above 0"),
    ("pick", ["minimize=accuracy"], "minimize=accuracy: takes one of gzip_bytes, latency, multiply_adds, tflite_bytes"),
    ("pick", ["maxdrop=1"], "maxdrop: no such key; takes max_drop, max_class_drop, minimize"),
    ("pick", ["latest"], "latest: takes settings as KEY=VALUE, and --help"),
    ("pick", ["sweep=latest"], "tracking.uri=sqlite:///mlruns/mlflow.db: no such store"),
    ("pick", ["tracking.uri=http://127.0.0.1:9"], "tracking.uri=http://127.0.0.1:9: "),
    ("export", ["run=1"], "tracking.uri=sqlite:///mlruns/mlflow.db: no such store"),
    ("verify", ["latency=maybe"], "latency=maybe: takes true or false"),
    ("compare", [], "sweep: needs a value"),
    ("compare", ["sweep=latest"], "sweep=latest: takes two sweeps, sweep=A,B"),
]


@pytest.mark.parametrize(("name", "arguments", "line"), WRONG, ids=[f"{c} {' '.join(a)}" for c, a, _ in WRONG])
def test_wrong_input_is_one_line_with_exit_code_2(place: Place, name: str, arguments: list[str], line: str) -> None:
    done = ask(place, name, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {line}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert not (place.folder / "mlruns").exists(), "commands that read make no store"


def test_what_is_not_in_the_store_is_one_line(twelve) -> None:
    place, _ = twelve
    sweep = first_sweep(place)
    running = place.store().start("sweep", "sweep-still-running", tags={"command": "x"}, params={})
    for name, argument, line in (
        ("pick", "sweep=sweep-1", "sweep=sweep-1: no such sweep; takes latest or one of "),
        ("pick", "sweep=sweep-still-running", "sweep=sweep-still-running: sweep-still-running is still running"),
        ("verify", "0123", "run=0123: takes the id of a variant's run, 32 hexadecimal digits"),
        ("verify", sweep.run_id, f"run={sweep.run_id}: is the run of a sweep; takes the id of a variant's run"),
        ("export", "name=nobody", "name=nobody: no version with the alias champion; "),
        ("compare", f"sweep={sweep.name},{sweep.run_id}", f"sweep={sweep.name},{sweep.run_id}: both are {sweep.name}"),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(line)}.*$"):
            here(place, name, argument)
    place.store().end(running, "KILLED")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches(place: Place, name: str) -> None:
    done = ask(place, name, "--help")
    assert done.returncode == 0
    for expected in (f"python -m src.{name}", "Examples", "Settings", "tracking.uri=sqlite:///mlruns/mlflow.db"):
        assert expected in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_none_that_qualifies_is_said_with_what_is_nearest(twelve, capsys: pytest.CaptureFixture[str]) -> None:
    nearest = r"none of 11 qualifies; nearest is p2-\w+: .* kB: .* kB above max_gzip\nmore validation images would"
    with pytest.raises(frame.Refused, match=nearest):
        here(twelve[0], "pick", f"sweep={first_sweep(twelve[0]).name}", "max_gzip=1kB", "max_drop=0.5")
    assert capsys.readouterr().out.count("above max_gzip") == 11


# --- Shipping --------------------------------------------------------------------------------------------------


def not_activated() -> str:
    """PATH without this interpreter's folder."""
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if Path(folder) != Path(sys.executable).parent)


@pytest.fixture(scope="module")
def picked(twelve) -> str:
    """What `pick` says where the environment is not activated."""
    place = replace(twelve[0], variables={"PATH": not_activated()})
    done = ask(place, "pick", f"sweep={first_sweep(place).name}", "max_drop=0.5", "minimize=tflite_bytes")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def champion(twelve, picked: str) -> Record:
    """p2-fiq, the smallest but one or two, chosen and registered."""
    place, _ = twelve
    assert "registered  compression, version" in picked
    assert "not chosen" in picked
    run_id = registry.registered(place.store(), "compression", "champion")
    assert run_id
    return place.store().get(run_id)


def in_a_process(code: str, folder: Path, place: Place) -> Any:
    """What `code` prints as JSON, run where this project is not importable: only what the model carries is."""
    uri = f"sqlite:///{place.folder}/mlruns/mlflow.db"
    variables = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_registered_model_takes_images_as_users_have_them(twelve, champion: Record, tmp_path: Path) -> None:
    place, store = twelve[0], twelve[0].store()
    how = store.json(champion.run_id, "preprocessing.json")
    (tmp_path / "image.png").write_bytes(base64.b64decode(how["example"]))
    code = """
import base64, json, sys
import mlflow, numpy as np, pandas as pd
from PIL import Image
model = mlflow.pyfunc.load_model("models:/compression@champion")
data = open("image.png", "rb").read()
array = np.asarray(Image.open("image.png"))[..., None]
text = base64.b64encode(data).decode()
large = np.asarray(Image.open("image.png").resize((64, 64), Image.Resampling.BOX))
kinds = [array[None], array, [array.tolist()], [data], [text], pd.DataFrame({"image": [data]}), array[..., 0]]
given = [model.predict(kind)[0] for kind in kinds]
assert model.predict([large, data])[1] == given[0]
try:
    model.predict([data, b"no image"])
except ValueError as error:
    given.append(str(error))
print(json.dumps([given, "tensorflow" in sys.modules]))
"""
    (*given, refused), tensorflow = in_a_process(code, tmp_path, place)
    assert not tensorflow
    assert all(each == given[0] for each in given)
    assert given[0]["label"] == how["example_predicted"]
    assert given[0]["score"] == max(given[0]["scores"].values())
    assert refused == "image 1: not an image in a known format"


def test_what_is_served_is_what_was_measured(twelve, champion: Record, tmp_path: Path) -> None:
    """All test images through the registered model: the class that the sweep recorded for each."""
    from src.data import load_data
    from src.settings.config import step

    place, store = twelve[0], twelve[0].store()
    recorded = Predictions.load(store.file(champion.run_id, "predictions/test.npz"))
    import yaml

    settings = yaml.safe_load(store.file(champion.run_id, "config.yaml").read_text())
    data = load_data(step("data", settings["data"], "digits"))
    images = data.test.read(np.arange(len(data.test)))
    np.save(tmp_path / "images.npy", images)
    code = """
import json, mlflow, numpy as np
found = mlflow.pyfunc.load_model("models:/compression@champion").predict(np.load("images.npy"))
print(json.dumps([each["label"] for each in found]))
"""
    labels = in_a_process(code, tmp_path, place)
    assert labels == [data.classes[i] for i in recorded.predicted]


@pytest.fixture
def server(twelve, picked: str, tmp_path: Path) -> Iterator[str]:
    """Started with the command that `pick` printed, where the environment is not activated."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (printed,) = re.findall("^serve +(.*)$", picked, re.MULTILINE)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ["sh", "-c", f"{printed} --port {port} --workers 1"],
            cwd=twelve[0].folder,
            env={**os.environ, "PATH": not_activated()},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                    break
                except OSError:
                    time.sleep(0.2)
            else:
                raise AssertionError((tmp_path / "log").read_text())
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def test_the_server_answers_a_real_image_over_http(twelve, champion: Record, server: str) -> None:
    how = twelve[0].store().json(champion.run_id, "preprocessing.json")
    body = json.dumps({"inputs": [how["example"]]}).encode()
    request = urllib.request.Request(server, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        (prediction,) = json.load(answer)["predictions"]
    assert prediction["label"] == how["example_predicted"]
    assert 0 < prediction["score"] <= 1
    # One image as JSON has an array, without a list around it.
    pixels = np.zeros((8, 8, 1), int).tolist()
    counts = []
    for inputs in (pixels, [pixels]):
        request.data = json.dumps({"inputs": inputs}).encode()
        with urllib.request.urlopen(request, timeout=60) as answer:
            counts.append(len(json.load(answer)["predictions"]))
    assert counts == [1, 1]
    # What is no image is told in words, with neither a traceback nor all that was sent.
    takes = "takes [height, width, 1]"
    for inputs, why in {
        '["abc"]': "image 0: text that is no base64; takes the bytes of an image file as base64",
        f'["{how["example"]}", "bm8gaW1hZ2U="]': "image 1: not an image in a known format",
        "[[1, 2]]": f"image 0: an array of shape (2,); {takes}",
        "[[[1, 2], [3]]]": "image 0: rows of different lengths; takes [height, width, channels]",
        "[[[0.5]]]": "image 0: an array of float64; takes whole numbers from 0 to 255 (uint8)",
        "5": "int; takes a list of images",
    }.items():
        request.data = f'{{"inputs": {inputs}}}'.encode()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=60)
        assert caught.value.code == 400
        said = json.load(caught.value)
        assert "stack_trace" not in said
        assert said["message"] == why


def test_the_exported_folder_runs_with_litert_alone(twelve, champion: Record, tmp_path: Path) -> None:
    place = twelve[0]
    done = ask(place, "export", f"to={tmp_path / 'device'}")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "device"
    card = (folder / "MODEL_CARD.md").read_text()
    for expected in (
        champion.tags["digest"],
        f"{100 * champion.metrics['test_accuracy']:.2f} %",
        "Conditions",
        "Seed 0",
    ):
        assert expected in card
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True).returncode == 0
    assert {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()} == {
        file.name for file in folder.iterdir()
    } - {"SHA256SUMS"}
    code = "import runpy, sys; runpy.run_path('example.py'); print(sorted(sys.modules), file=sys.stderr)"
    run = subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, capture_output=True, text=True)
    assert run.stdout.split() == (folder / "example_label.txt").read_text().split()
    assert not {"tensorflow", "tf_keras", "mlflow", "src"} & set(re.findall(r"'(\w+)'", run.stderr))
    code_lines = [line for line in (folder / "example.py").read_text().splitlines() if line]
    assert len(code_lines) <= 42
    # A picture, twice as large: the pixels of the nearest of each four are those of the example.
    pixels = np.load(folder / "example.npy")[..., 0].repeat(2, 0).repeat(2, 1)
    how = json.loads((folder / "preprocessing.json").read_text())
    assert how["resize"] == "bilinear"
    for name in ("photo.png", "photo.jpg", "photo.npy"):
        if name == "photo.npy":
            np.save(tmp_path / name, pixels[::2, ::2, None])
        else:
            Image.fromarray(pixels).save(tmp_path / name, quality=95)
        run = subprocess.run(
            [sys.executable, "example.py", tmp_path / name], cwd=folder, capture_output=True, text=True
        )
        assert run.stdout.split() == (folder / "example_label.txt").read_text().split(), name
    takes = "takes a picture, or a .npy file of uint8 [8, 8, 1]: height, width, channels"
    (tmp_path / "text.jpg").write_text("no picture")
    for name, why in {"text.jpg": "not an image in a known format", "none.jpg": "No such file or directory"}.items():
        file = tmp_path / name
        run = subprocess.run([sys.executable, "example.py", file], cwd=folder, capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (2, f"error: {file}: {why}; {takes}\n")
    without = f"import runpy, sys; sys.modules['PIL'] = None; sys.argv = ['', {str(tmp_path / 'photo.png')!r}]; "
    code = without + "runpy.run_path('example.py')"
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert "needs Pillow (pip install pillow); without it, takes a .npy file" in run.stderr
    assert "Traceback" not in run.stderr
    here(place, "export", f"to={folder}")  # its own is made anew
    folders = folder.parent / "folders"
    (folders / "one").mkdir(parents=True)
    (folder / "notes.txt").write_text("somebody's")
    for others in (folder, folders):
        with pytest.raises(UserError, match="holds other files; takes a folder that is new, empty, or made by this"):
            here(place, "export", f"to={others}")


def test_every_scheme_is_exported_with_an_example_that_gives_what_was_measured(twelve, tmp_path: Path) -> None:
    place, store = twelve[0], twelve[0].store()
    found = json.loads(store.file(first_sweep(place).run_id, "comparison.json").read_text())["variants"]
    for scheme in ("none", "drq", "f16"):
        run_id = next(row["run_id"] for row in found if row["variant"] == f"none-{scheme}")
        here(place, "export", f"run={run_id}", f"to={tmp_path / scheme}")
        run = subprocess.run(
            [sys.executable, "example.py"], cwd=tmp_path / scheme, capture_output=True, text=True, check=True
        )
        assert run.stdout == (tmp_path / scheme / "example_label.txt").read_text()


def test_the_logged_model_carries_the_modules_that_it_needs_and_no_others() -> None:
    names = {str(file.relative_to(serving.ROOT)) for file in serving.carried("src.results.serving")}
    assert {"results/serving.py", "measure/inference.py", "measure/targets/litert.py", "data/decode.py"} <= names
    assert "__init__.py" in names
    assert not {"store/store.py", "pipeline/stages.py", "methods/train.py", "run.py"} & names


def test_the_logged_model_requires_the_packages_that_its_modules_import() -> None:
    imported = set()
    for file in serving.carried("src.results.serving"):
        for node in ast.parse(file.read_text()).body:  # what a function imports is not needed to serve
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    packages = imported - sys.stdlib_module_names - {"src"}
    provided = metadata.packages_distributions()
    assert {name for package in packages for name in provided[package]} <= {
        *serving.REQUIREMENTS,
        "pydantic_core",
    }  # which pydantic brings


# --- Verifying -------------------------------------------------------------------------------------------------


def artifact_of(place: Place, name: str) -> tuple[Path, str]:
    """The file of a variant of the first sweep, and its run."""
    found = json.loads(place.store().file(first_sweep(place).run_id, "comparison.json").read_text())["variants"]
    run_id = next(row["run_id"] for row in found if row["variant"] == name)
    return place.store().file(run_id, artifact_path(name)), run_id


def test_everything_that_was_recorded_holds(twelve) -> None:
    done = ask(twelve[0], "verify", f"sweep={first_sweep(twelve[0]).name}")
    assert done.returncode == 0, done.stdout + done.stderr
    # The dense baseline: what is measured of every variant, and its ECE. The others: the same, four intervals of a
    # drop (test, validation, worst class on each), two p-values, flips both ways, agreement, ECE, ratio of sizes.
    dense = len({*MEASURED, *COUNTED}) + 1
    assert f"none-none: {dense} numbers hold" in done.stdout
    assert f"p2-fiq: {dense + 4 * 3 + 7} numbers hold" in done.stdout
    assert done.stdout.rstrip().endswith(f"all {12 * dense + 11 * 19} numbers hold")


def test_a_store_of_before_there_were_counts_is_read_as_it_is(twelve, tmp_path: Path, capsys) -> None:
    """Verified are the numbers that it has, and what asks for others says so."""
    shutil.copytree(twelve[0].folder / "mlruns", tmp_path / "mlruns")
    place = Place(tmp_path)
    sweep, store = first_sweep(place), place.store()
    with sqlite3.connect(tmp_path / "mlruns/mlflow.db") as database:
        for table in ("metrics", "latest_metrics"):
            assert database.execute(f"DELETE FROM {table} WHERE key IN ('parameters', 'multiply_adds')").rowcount
    comparison = store.file(sweep.run_id, "comparison.json")
    whole = json.loads(comparison.read_text())
    for row in whole["variants"]:
        assert row.pop("parameters") == 57_482
        assert row.pop("multiply_adds") > 57_482
    comparison.write_text(json.dumps(whole))
    here(place, "verify", f"sweep={sweep.name}")
    assert f"none-none: {len(MEASURED) + 1} numbers hold" in capsys.readouterr().out
    here(place, "pick", f"sweep={sweep.name}", "register=false", "max_drop=0.9", "max_class_drop=1")
    assert "multiply-adds" not in capsys.readouterr().out
    with pytest.raises(frame.Refused, match="has no multiply_adds"):
        here(place, "pick", f"sweep={sweep.name}", "register=false", "minimize=multiply_adds", "max_drop=0.9")


def test_a_flipped_byte_is_found(twelve, capsys: pytest.CaptureFixture[str]) -> None:
    place, _ = twelve
    file, run_id = artifact_of(place, "none-f16")
    whole = file.read_bytes()
    file.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    try:
        with pytest.raises(frame.Refused, match="1 of 12 variants do not hold"):
            here(place, "verify", run_id)
    finally:
        file.write_bytes(whole)
    said = capsys.readouterr().out
    assert "none-f16: does not hold\n  model/none-f16.tflite: SHA-256 is " in said
    assert f"none-none: {len({*MEASURED, *COUNTED}) + 1} numbers hold" in said


def test_a_cut_description_is_found(twelve, capsys: pytest.CaptureFixture[str]) -> None:
    place, _ = twelve
    _, run_id = artifact_of(place, "none-drq")
    file = place.store().file(run_id, PREPROCESSING)
    whole = file.read_bytes()
    file.write_bytes(whole[:30])
    try:
        with pytest.raises(frame.Refused, match="1 of 12 variants do not hold"):
            here(place, "verify", run_id)
        with pytest.raises(UserError, match=f"run {run_id}: preprocessing.json is not what was recorded"):
            recorded.preprocessing(place.store(), place.store().get(run_id))
    finally:
        file.write_bytes(whole)
    assert f"  run {run_id}: preprocessing.json is not what was recorded" in capsys.readouterr().out


def test_an_edited_metric_is_found(twelve, capsys: pytest.CaptureFixture[str]) -> None:
    place, _ = twelve
    store = place.store()
    _, run_id = artifact_of(place, "none-drq")
    before = store.get(run_id).metrics
    for name, edited in (("test_accuracy", 0.999), ("latency_ms_median", 1e-6)):
        store.log(run_id, metrics={name: edited})
        try:
            with pytest.raises(frame.Refused):
                here(place, "verify", run_id)
        finally:
            store.log(run_id, metrics={name: before[name]})
        assert f"  {name}: the run says {edited:,.10g}, the comparison" in capsys.readouterr().out


def test_a_swapped_pair_of_artifacts_is_found(twelve, capsys: pytest.CaptureFixture[str]) -> None:
    place, _ = twelve
    (first, _), (second, _) = artifact_of(place, "p1-f16"), artifact_of(place, "p2-f16")
    kept = first.with_suffix(".kept")
    first.rename(kept)
    shutil.copyfile(second, first)
    shutil.copyfile(kept, second)
    try:
        with pytest.raises(frame.Refused, match="2 of 12 variants do not hold"):
            here(place, "verify", f"sweep={first_sweep(place).name}")
    finally:
        shutil.copyfile(first, second)
        kept.replace(first)
    said = capsys.readouterr().out
    assert re.search(r"model/p1-f16.tflite: .*: it is that of p2-f16", said)
    assert re.search(r"model/p2-f16.tflite: .*: it is that of p1-f16", said)


def test_what_only_looks_changes_nothing_of_a_store(twelve, tmp_path: Path) -> None:
    place, store = twelve[0], twelve[0].folder / "mlruns"
    _, run_id = artifact_of(place, "none-f16")

    def files() -> dict[str, str]:
        kept = [file for file in store.rglob("*") if file.is_file() and "hydra" not in file.relative_to(store).parts]
        # SQLite's index of the write-ahead log says who reads.
        return {str(file): sha256(file) for file in kept if file.suffix != ".db-shm"}

    before = files()
    for name, arguments, codes in (
        ("run", ["-m", "experiment=smoke", "plan=true"], (0,)),
        ("verify", [run_id], (0,)),
        ("compare", [f"sweep={first_sweep(place).name},latest"], (0, 2)),  # 2 where there is one sweep only
        ("pick", [f"sweep={first_sweep(place).name}", "register=false", "max_drop=0.9"], (0,)),
        ("export", [f"run={run_id}", f"to={tmp_path / 'device'}"], (0,)),
    ):
        done = ask(place, name, *arguments)
        assert done.returncode in codes, done.stderr
        assert files() == before, name


# --- Across sweeps ---------------------------------------------------------------------------------------------


def test_two_sweeps_side_by_side(twelve) -> None:
    place, _ = twelve
    done = place.run("-m", "experiment=smoke", "prune=none", "quant=drq", "benchmark.seconds=2", "benchmark.threads=2")
    assert done.returncode == 0, done.stderr
    done = ask(place, "compare", f"sweep={first_sweep(place).name},latest")
    assert done.returncode == 0, done.stderr
    assert "benchmark.threads: 1 → 2" in done.stdout
    assert re.search(r"none-drq .*same file", done.stdout)
    assert "only in A: " in done.stdout
    assert "Accuracy is paired on the same test images." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_unpaired_interval_is_newcombes() -> None:
    """Example (a) of Newcombe (1998), Statistics in Medicine 17:873-890, table II: 56/70 against 48/80, method 10."""
    first, second = np.arange(80) < 48, np.arange(70) < 56
    found = difference(first, second, paired=False, confidence=0.95)
    assert found.estimate == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_settings_that_differ_are_named_by_their_keys() -> None:
    first = {"seed": 0, "model": {"_target_": "a", "preprocess": {"mean": [0]}}, "same": 1}
    second = {"seed": 1, "model": {"_target_": "a", "preprocess": {"mean": [1]}}, "same": 1, "new": True}
    assert differing(first, second) == {"seed": (0, 1), "model.preprocess.mean": ([0], [1]), "new": (None, True)}


def test_no_command_imports_tensorflow(place: Place) -> None:
    modules = "src.pick, src.verify, src.export, src.compare"
    code = f"import sys, {modules}; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place.folder, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
