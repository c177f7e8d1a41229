"""No model file runs code, whatever its format, unless its user says that they trust it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.machine import backend
from src.models import checkpoint, saved
from src.models.saved import Saved
from src.settings.check import UserError

MAKE = """
import sys
import tensorflow as tf
keras = tf.keras
L = keras.layers
touch = lambda x: [x, __import__("pathlib").Path({mark!r}).touch()][0]
def model(part):
    image = keras.Input((8, 8, 3))
    return keras.Model(image, L.Dense(3)(L.Flatten()(part(image))))
kinds = {
    "plain": L.Lambda(touch, name="mine", output_shape=(8, 8, 3)),
    "nested": keras.Sequential([L.Input((8, 8, 3)), L.Lambda(touch, name="mine", output_shape=(8, 8, 3))]),
    "wrapped": L.TimeDistributed(L.Lambda(touch, name="mine", output_shape=(8, 3))),
}
for name, part in kinds.items():
    whole = model(part)
    for suffix in sys.argv[1:]:
        whole.save(f"{name}{suffix}")
"""
FORMATS = {"2": (".h5", ".keras", ""), "3": (".h5", ".keras")}


@pytest.fixture(scope="module", params=["2", "3"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    version = request.param
    folder = tmp_path_factory.mktemp(f"keras{version}")
    script = MAKE.replace("{mark!r}", repr(str(folder / "mark")))
    done = subprocess.run(
        [sys.executable, "-c", script, *FORMATS[version]],
        cwd=folder,
        env={**os.environ, "TF_USE_LEGACY_KERAS": str(int(version == "2"))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return version, folder


@pytest.mark.parametrize("name", ["plain", "nested", "wrapped"])
@pytest.mark.parametrize("suffix", [".h5", ".keras", ""])
def test_code_in_a_file_is_refused_before_it_runs_and_runs_where_it_is_trusted(
    name: str, suffix: str, made: tuple[str, Path], tmp_path: Path
) -> None:
    version, folder = made
    if suffix not in FORMATS[version]:
        pytest.skip("Keras 3 saves no SavedModel of layers")
    backend.prepare()
    file, mark = folder / f"{name}{suffix}", folder / "mark"
    mark.unlink(missing_ok=True)
    with pytest.raises(UserError, match=r": layer mine holds code \(a Lambda\); .*model\.trust=true"):
        saved.build(Saved(path=str(file)), (8, 8, 3), 3)
    assert not mark.exists()
    with backend.custom_objects((), trust=True):
        model = saved.build(Saved(path=str(file), trust=True), (8, 8, 3), 3)
        checkpoint.save(model, tmp_path / "model.h5")
        mark.unlink(missing_ok=True)
        checkpoint.restore(tmp_path / "model.h5")(np.zeros((1, 8, 8, 3), np.float32))
        assert mark.exists()
