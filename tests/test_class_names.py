"""Classes that YAML would read as numbers, nulls or booleans stay what their folders are called, in and out."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Place, default_composer
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from src.cli.compose import CONF, Composed, checked
from src.data import image_folder, npz
from src.data.image_folder import ImageFolder
from src.data.npz import Npz
from src.settings.check import UserError, check
from src.store.store import Store

NAMES = ("01", "1e3", "no", "null", "true", "~", "1_000", "2020-01-01", "5.", "0x10", "-1E-2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        (root / name).mkdir()
        for k in range(10):
            pixels = rng.integers(0, 60, (8, 12, 3)).astype(np.uint8)
            pixels[:, i] = 250
            Image.fromarray(pixels).save(root / name / f"{k}.png")
    return root


def test_folders_are_classes_by_their_names(folder: Path) -> None:
    assert set(image_folder.load(ImageFolder(str(folder), cache=None)).classes) == set(NAMES)
    some = check(ImageFolder, {"path": str(folder), "classes": ["null", "1e3", "01"], "cache": None}, "data")
    assert image_folder.load(some).classes == ("null", "1e3", "01")


WRONG = [
    ("[no,01,null]", 'null is read as nothing and not as a name; {} \'data.classes=["no","01","null"]\''),
    ("[no,true]", 'true is read as true or false and not as a name; {} \'data.classes=["no","true"]\''),
    ("[no,1e3]", '1000.0 is read as a number and not as a name; {} \'data.classes=["no","1000.0"]\''),
]


@pytest.mark.parametrize(("given", "line"), WRONG, ids=[given for given, _ in WRONG])
def test_what_is_read_as_something_else_is_one_line_whose_advice_works(folder: Path, given: str, line: str) -> None:
    own = ["prune=none", "quant=none", "data=image_folder", f"data.path='{folder}'"]
    takes = "takes names, in quotes and as they are spelt where they look like that:"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose = default_composer()
        with pytest.raises(UserError) as error:
            compose([*own, f"data.classes={given}"])
        assert str(error.value) == f"data.classes: {line.format(takes)}"
        (advice,) = shlex.split(str(error.value).rpartition(": ")[2])
        assert all(isinstance(name, str) for name in compose([*own, advice]).data.settings.classes)


def test_a_recorded_config_says_the_same_names_to_whoever_reads_it(folder: Path) -> None:
    own = ["data=image_folder", f"data.path='{folder}'", f"data.classes={json.dumps(NAMES)}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = default_composer()(own)
    for read in (yaml.safe_load(config.text), OmegaConf.to_container(OmegaConf.create(config.text))):
        assert read["data"]["classes"] == list(NAMES)
    assert checked(Composed(yaml.safe_load(config.text), {})).data.settings.classes == NAMES


def test_labels_of_an_array_are_a_line_each(tmp_path: Path) -> None:
    labels = np.array(["null", "a\nb", "1e3"] * 10)
    np.savez(tmp_path / "x.npz", x=np.arange(30 * 64).reshape(30, 8, 8).astype(np.uint8), y=labels)
    assert npz.load(Npz(str(tmp_path / "x.npz"))).classes == ("1e3", r"a\nb", "null")


def test_from_folders_to_what_is_shipped_and_verified(folder: Path, place: Place) -> None:
    classes = ["null", "1e3", "01", "no"]
    data = ["data=image_folder", f"data.path='{folder}'", "data.image_size=8", f"data.classes={json.dumps(classes)}"]
    rest = ["experiment=smoke", "quant=drq", "train.epochs=2", "benchmark.seconds=1"]
    done = place.run(*data, *rest)
    assert done.returncode == 0, done.stderr
    store: Store = place.store()
    variant = place.variants(place.newest_sweep())["none-drq"]
    assert store.json(variant.run_id, "preprocessing.json")["classes"] == classes
    assert variant.tags["worst_class"] in classes
    exported = place.run(f"run={variant.run_id}", module="src.export")
    assert exported.returncode == 0, exported.stderr
    assert (place.folder / "mlruns/export/labels.txt").read_text(encoding="utf-8").split() == classes
    held = place.run(module="src.verify")
    assert held.returncode == 0, held.stdout + held.stderr
