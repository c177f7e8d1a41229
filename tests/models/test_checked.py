"""A model of one's own is looked at before anything is done: what it is not is told at once, what it is only once."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, Place

from src.models import checked, formats


def zipped(*names: str) -> bytes:
    with zipfile.ZipFile(written := io.BytesIO(), "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return written.getvalue()


def hdf5(**attributes: str) -> bytes:
    with h5py.File(written := io.BytesIO(), "w") as file:
        file.attrs.update(attributes)
        file["kernel"] = np.zeros(1000)
    return written.getvalue()


OTHERS = {
    "an empty file": b"",
    "a file of zero bytes": bytes(5000),
    "a text file": b"epoch,loss\n1,0.5\n",
    "a text file of any length": "größer ".encode() * 1000,
    "a web page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "a Git LFS pointer; `git lfs pull` fetches the file itself": b"version https://git-lfs.github.com/spec/v1\noid sha",
    "a .tflite file": b"\x1c\0\0\0TFL3" + bytes(100),
    "an ONNX model": b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\xff\x80",
    "a PyTorch file": zipped("model/data.pkl", "model/version"),
    "a pickle": pickle.dumps({"weights": [1.0]}),
    "a safetensors file": (64).to_bytes(8, "little") + b'{"conv":{"dtype":"F32"' + bytes(100),
    "a file compressed by gzip; unpack it first": b"\x1f\x8b\x08" + bytes(20),
    "a zip file around a model; unpack it first": zipped("export/saved_model.pb", "export/variables/x"),
    "a zip file of a.txt, b.txt": zipped("a.txt", "b.txt"),
    "a zip file of nothing": zipped(),
    "a file of another kind": bytes(range(255, 0, -1)) * 9,
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_keras_model_is_told_by_its_first_bytes(what: str, tmp_path: Path) -> None:
    (file := tmp_path / "model.keras").write_bytes(OTHERS[what])
    said = formats.refusal(file)
    assert said
    assert said.startswith(f"is no Keras model but {what.removesuffix(' of any length')}")
    assert "; takes a .keras or .h5 file or a SavedModel folder" in said or ";" in what
    assert "\n" not in said


def test_what_is_cut_off_or_has_no_layers_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(hdf5(model_config="{}")[:3000])
    assert "is an HDF5 file that is cut off or damaged (" in (formats.refusal(file) or "")
    file.write_bytes(zipped(*formats.KERAS_ARCHIVE)[:-10])
    assert "is a zip file that is cut off" in (formats.refusal(file) or "")
    file.write_bytes(hdf5())
    assert "holds weights without the model" in (formats.refusal(file) or "")
    assert "is a folder without saved_model.pb" in (formats.refusal(tmp_path) or "")
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    assert (formats.refusal(tmp_path / "saved_model.pb") or "").endswith(f"takes its folder, {tmp_path}")


def test_nothing_is_said_against_a_keras_model(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "archive").write_bytes(zipped(*formats.KERAS_ARCHIVE))
    (tmp_path / "hdf5").write_bytes(hdf5(model_config="{}"))
    for path in (tmp_path, tmp_path / "archive", tmp_path / "hdf5"):
        assert formats.refusal(path) is None


def test_what_was_found_is_found_once_and_what_is_damaged_again(tmp_path: Path) -> None:
    asked = []

    def find() -> list[str]:
        asked.append(1)
        return ["größer", "second"]

    folder = tmp_path / "cache"
    for _ in range(2):
        assert checked.remembered(folder, "a" * 64, find) == ["größer", "second"]
    assert len(asked) == 1
    checked.remembered(folder, "b" * 64, find)
    assert len(asked) == 2
    for file in folder.iterdir():
        file.write_text("[")
    assert checked.remembered(folder, "a" * 64, find) == ["größer", "second"]
    assert len(asked) == 3
    checked.remembered(None, "a" * 64, find)
    (tmp_path / "file").touch()
    checked.remembered(tmp_path / "file" / "cache", "a" * 64, find)
    assert len(asked) == 5, "no folder, or one that can't be made, keeps nothing and is no failure"


# --- Through the program ---------------------------------------------------------------------------------------

MODEL = """
import src, sys
import tf_keras
layers = tf_keras.layers
base = tf_keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(8, 3, name="conv")], name="base")
base.trainable = False
model = tf_keras.Sequential([layers.Input((8, 8, 1)), base, layers.Flatten(), layers.Dense(16, name="dense"),
                             layers.Dense(int(sys.argv[2]), name="scores")])
model.save(sys.argv[1])
"""


@pytest.fixture(scope="module")
def of_ten(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Path]:
    folder = tmp_path_factory.mktemp("checked")
    for name, classes in (("ten.h5", 10), ("nine.h5", 9)):
        command = [sys.executable, "-c", MODEL, folder / name, str(classes)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return Place(folder), folder


PLAN = ("-m", "model=saved", "train=none", "prune=none,p1", "prune.layers.min_share=0", "quant=none", "plan=true")
PRUNES_FIRST = "prune.layers.spare_first_convolution=false"


def test_a_plan_names_frozen_layers_that_are_pruned_and_the_second_is_told_from_the_first(
    of_ten: tuple[Place, Path],
) -> None:
    place, folder = of_ten
    first = place.run(*PLAN, "model.path=ten.h5", PRUNES_FIRST)
    assert first.returncode == 0, first.stderr
    said = "p1: Pruned though frozen, so that no fine-tuning can make up for it: base/conv."
    assert said in " ".join(first.stderr.split())
    (file,) = (folder / "mlruns/cache").glob("*.checked.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found == {"notes": [said], "refused": [], "unconverted": [], "any_size": False, "fixed": None}
    file.write_text(json.dumps(found | {"notes": ["from the cache"]}), encoding="utf-8")
    second = place.run(*PLAN, "model.path=ten.h5", PRUNES_FIRST)
    assert "from the cache" in second.stderr
    assert "loading TensorFlow" not in second.stderr
    assert not (folder / "mlruns/mlflow.db").exists(), "a plan looks, and makes no store"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("text.keras", "error: model.path=text.keras: is no Keras model but a text file; takes a .keras"),
        ("nine.h5", "error: model.path=nine.h5: gives 9 classes, the data has 10; takes a model of the same classes"),
    ],
)
def test_a_plan_refuses_what_the_run_would(path: str, said: str, of_ten: tuple[Place, Path]) -> None:
    place, folder = of_ten
    (folder / "text.keras").write_text("no model", encoding="utf-8")
    done = place.run(*PLAN, f"model.path={path}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(said)
    assert ("loading TensorFlow" in done.stderr) == (path != "text.keras")
    assert "Traceback" not in done.stderr


def test_a_policy_that_takes_no_layer_of_the_model_is_left_out_of_a_grid_and_refused_alone(
    of_ten: tuple[Place, Path],
) -> None:
    place, _ = of_ten
    nothing = ("model.path=ten.h5", "prune.layers.pattern=nothing")
    grid = place.run(*PLAN, *nothing)
    assert grid.returncode == 0, grid.stderr
    left_out = "left out: p1-none: prune.layers: takes none of the layers base/conv, dense, scores: "
    assert left_out in " ".join(grid.stdout.split())
    assert "1 variant; to make: dense; to convert and evaluate: 1" in " ".join(grid.stdout.split())
    alone = place.run(*PLAN, *nothing, "prune=p1")
    assert alone.returncode == 2
    said = "error: p1-none: prune.layers: takes none of the layers "
    assert alone.stderr.splitlines()[-1].startswith(said)


@pytest.mark.parametrize(
    "asked", ["prune.layers.pattern=nothing", "prune.layers.types=[LSTM]", "prune.layers.min_share=1"]
)
def test_a_policy_that_takes_no_layer_of_an_own_architecture_is_told_before_its_training(
    of_ten: tuple[Place, Path], asked: str
) -> None:
    place, folder = of_ten
    done = place.run("prune=p2", asked)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: p2-none: prune.layers: takes none of the layers conv1, ")
    assert not (folder / "mlruns/mlflow.db").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("narrow.keep=1e-6", "half-none: narrow.keep=1e-06: takes at least 0.0"),
        ("narrow.layers.pattern=nothing", "half-none: narrow.layers: takes none of the layers conv1, conv2, "),
        ("narrow.rules=[{layers:x,keep:0.5}]", "narrow.rules.layers=x: matches none of the layers conv1, conv2, "),
    ],
)
def test_channels_of_an_own_architecture_that_can_not_go_are_told_before_its_training(
    of_ten: tuple[Place, Path], asked: str, said: str
) -> None:
    place, folder = of_ten
    done = place.run("narrow=half", asked)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {said}")
    assert not (folder / "mlruns/mlflow.db").exists()
