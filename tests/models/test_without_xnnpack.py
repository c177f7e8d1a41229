"""A file that XNNPACK refuses and LiteRT runs without it is measured, exported and served without it, and that is
said."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from conftest import Place, environment

from src.results.serving import Classifier
from src.store.names import artifact_path

# A dense layer of seven dimensions: XNNPACK takes it and then fails (LiteRT 2.3; google/XNNPACK issue 11036).
MAKE = """
import sys
import keras
import numpy as np
from sklearn.datasets import load_digits
digits = load_digits()
x, y = (digits.images * 15).astype("uint8")[..., None], digits.target
np.savez("digits.npz", x=x, y=y)
keras.utils.set_random_seed(0)
image = keras.Input((8, 8, 1))
many = keras.layers.Reshape((2, 2, 2, 2, 2, 2))(image)
many = keras.layers.EinsumDense("abcdefg,gh->abcdefh", output_shape=(2, 2, 2, 2, 2, 8), activation="relu")(many)
scores = keras.layers.Dense(10, activation="softmax", name="scores")(keras.layers.Flatten()(many))
model = keras.Model(image, scores)
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x[:900] / 255, y[:900], epochs=2, verbose=0)
model.save("many.keras")
"""


def test_it_is_measured_exported_and_served_without(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    made = subprocess.run([sys.executable, "-c", MAKE], env=environment() | {"TF_USE_LEGACY_KERAS": "0"})
    assert made.returncode == 0
    settings = ["model=saved", "model.path=many.keras", "train=none", "data=npz", "data.path=digits.npz"]
    done = place.run("-m", *settings, "quant=none,fiq", "prune=none", "benchmark.seconds=1")
    assert done.returncode == 0, done.stderr
    assert "XNNPACK, LiteRT's delegate for CPUs, refuses this file (FULLY_CONNECTED)" in done.stderr
    variants = place.variants(place.newest_sweep())
    assert set(variants) == {"none-none", "none-fiq"}
    for name, run in variants.items():
        assert run.metrics["latency_ms_median"] > 0
        assert "refuses this file (FULLY_CONNECTED): it is measured and served without it" in run.tags["audit"]
        file = place.store().file(run.run_id, artifact_path(name))
        with pytest.raises(RuntimeError, match="XNNPack"):
            Interpreter(model_path=str(file)).allocate_tensors()
    exported = place.run(f"run={run.run_id}", "to=device", module="src.export")
    assert exported.returncode == 0, exported.stderr
    folder = Path("device")
    assert json.loads((folder / "preprocessing.json").read_text())["xnnpack"] is False
    assert "refuses this file" in (folder / "MODEL_CARD.md").read_text()
    said = subprocess.run([sys.executable, "example.py"], cwd=folder, capture_output=True, text=True)
    assert said.stdout.split() == (folder / "example_label.txt").read_text().split(), said.stderr
    served = Classifier(folder).predict(np.load(folder / "example.npy")[None])
    assert [each["label"] for each in served] == said.stdout.split()
