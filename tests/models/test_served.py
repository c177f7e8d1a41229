"""SavedModels without layers that can be read are taken as the function that they serve: all dense variants, and for
the others the reason."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Place

from src.data import preprocess
from src.machine import backend
from src.measure.inference import Inference
from src.methods.convert import Quantization, float32
from src.methods.task import Task
from src.models import checkpoint, saved
from src.models.head import head_of
from src.models.saved import Saved
from src.models.served import Served
from src.settings.check import UserError
from src.settings.head import Head
from src.settings.sections import Preprocess

SCRIPT = Path(__file__).with_name("served_models.py")
PIXELS = Preprocess(rescale=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the models of each Keras are."""
    folders = {version: tmp_path_factory.mktemp(f"keras{version}") for version in ("2", "3")}
    for version, folder in folders.items():
        done = subprocess.run(
            [sys.executable, SCRIPT, folder],
            env={**os.environ, "TF_USE_LEGACY_KERAS": str(int(version == "2"))},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return folders


@pytest.mark.parametrize(
    ("name", "version", "how", "batch"),
    [
        ("exported", "3", Preprocess(), -1),
        ("of_bytes", "3", PIXELS, -1),
        ("of_one", "3", Preprocess(), 1),
        ("of_four", "3", Preprocess(), 1),
        ("named", "3", Preprocess(), 1),
        ("channels_first", "3", Preprocess(), -1),
        ("own_layer", "2", Preprocess(), -1),
        ("subclassed", "2", Preprocess(), -1),
    ],
)
def test_the_artifact_gives_the_scores_of_the_model(
    name: str, version: str, how: Preprocess, batch: int, made: dict[str, Path], tmp_path: Path
) -> None:
    backend.prepare()
    folder = made[version]
    with np.load(folder / "digits.npz") as arrays:
        images = arrays["x_test"]
    scores = np.load(folder / "scores.npy")
    if name == "channels_first":
        scores = np.log(scores)
    logits = True if name == "channels_first" else None
    model = saved.build(Saved(path=str(folder / name), preprocess=how, logits=logits), (8, 8, 1), 10)
    assert isinstance(model, Served)
    checkpoint.save(model, file := tmp_path / "model.h5")
    again = tmp_path / "again.h5"
    model = checkpoint.restore(file)
    checkpoint.save(model, again)
    assert file.read_bytes() == again.read_bytes()
    np.testing.assert_allclose(model(preprocess(images, how)).numpy(), scores, rtol=1e-4, atol=1e-6)
    if name == "channels_first":  # a logarithm: whether it is of probabilities nobody can tell
        with pytest.raises(UserError, match=r"ends in .*Log.*model\.logits=true or false"):
            head_of(model)
    else:
        assert head_of(model) == Head("softmax", logits=False)
    task = Task.__new__(Task)  # a float artifact asks nothing of it
    (artifact := tmp_path / "model.tflite").write_bytes(float32(Quantization(), file, task).content)
    inference = Inference(artifact, 1)
    shape = inference.interpreter._interpreter.get_input_details()[0]["shape_signature"]  # type: ignore[attr-defined]
    assert list(shape) == [batch, 8, 8, 1]
    encoded = inference.encoder(how)(images[:9])
    got = np.concatenate([inference.run(image[None]) for image in encoded])
    np.testing.assert_allclose(got, scores[:9], rtol=1e-4, atol=1e-5)


def test_the_dense_variants_are_made_and_the_others_left_out_with_the_reason(
    made: dict[str, Path], place: Place
) -> None:
    settings = ["model=saved", "train=none", "data=npz", "benchmark.seconds=1"]
    for name, version, why in (
        ("exported", "3", "the model holds a function for inference and no layers"),
        ("own_layer", "2", "the model is made of Doubled (layer twice), which Keras 2 doesn't have"),
    ):
        model, data = f"model.path={made[version] / name}", f"data.path={made[version] / 'digits.npz'}"
        done = place.run("-m", model, data, *settings, "prune=none,p1", "quant=none,fiq")
        assert done.returncode == 0, done.stderr
        assert f"left out: p1-none, p1-fiq: {why}" in " ".join(done.stdout.split())
        variants = place.variants(place.newest_sweep())
        assert set(variants) == {"none-none", "none-fiq"}
        with np.load(made[version] / "digits.npz") as arrays:
            hits = np.load(made[version] / "scores.npy").argmax(-1) == arrays["y_test"]
        assert variants["none-none"].metrics["test_accuracy"] == pytest.approx(hits.mean(), abs=1e-9)
    alone = place.run(model, data, *settings, "prune=p1")
    assert (alone.returncode, why in alone.stderr.splitlines()[-1]) == (2, True)
    for option in ("short", "fine_tune"):
        trained = place.run(model, data, *settings, f"train={option}")
        assert trained.returncode == 2
        last = trained.stderr.splitlines()[-1]
        assert last.startswith(f"error: train={option}: the model is made of Doubled")
        assert last.endswith("takes train=none")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("of_bytes", "takes pixels as uint8; takes model.preprocess.rescale=1"),
        ("of_four_that_mix", "takes (4, 8, 8, 1); takes one of any number of images, or of one"),
        ("of_four_in_reverse", "takes (4, 8, 8, 1); takes one of any number of images, or of one"),
        ("of_files", "takes string (None,); takes one of images"),
        ("two", "has 2 outputs (class, scores); takes one with one, a score per class"),
        ("several", "has the signatures bytes, one; takes one, or one that is called serving_default"),
        ("none", "has no signature; takes a SavedModel with one that serves"),
        ("augmenting", "draws random numbers (StatelessRandomGetKeyCounter), as where Keras 3 exports augmentation"),
        ("writes", "has the operator WriteFile, which reaches beyond the model"),
    ],
)
def test_what_can_not_be_used_is_one_line_and_nothing_of_it_has_run(name: str, why: str, made: dict[str, Path]) -> None:
    backend.prepare()
    with pytest.raises(UserError) as caught:
        saved.build(Saved(path=str(made["3"] / name)), (8, 8, 1), 10)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (made["3"] / "mark").exists()
