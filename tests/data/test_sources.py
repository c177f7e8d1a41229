"""The embedded default and the config file of every source."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from src.data import digits
from src.data.digits import Digits
from src.data.image_folder import ImageFolder
from src.data.keras_builtin import KerasBuiltin
from src.data.npz import Npz
from src.data.tfds import Tfds
from src.settings.check import UserError, check
from src.settings.plain import plain

CONF = Path(__file__).parents[2] / "conf" / "data"
SETTINGS = {
    "digits": Digits,
    "image_folder": ImageFolder,
    "keras_builtin": KerasBuiltin,
    "npz": Npz,
    "tfds": Tfds,
}


def test_digits_are_the_ones_of_scikit_learn():
    data = digits.load(Digits())
    assert data.shape == (8, 8, 1)
    assert data.classes == tuple("0123456789")
    assert sum(map(len, data.splits().values())) == 1797
    images = data.train.read(np.arange(len(data.train)))
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert data.notes == ()


def test_digits_come_in_other_sizes():
    data = digits.load(Digits(image_size=16))
    assert data.shape == (16, 16, 1)
    assert data.train.read(np.array([0])).shape == (1, 16, 16, 1)


def test_a_seed_decides_the_splits_of_the_digits():
    assert digits.load(Digits()).fingerprint == digits.load(Digits()).fingerprint
    assert digits.load(Digits()).fingerprint != digits.load(Digits(seed=1)).fingerprint


def test_every_source_has_a_config_file():
    assert {path.stem for path in CONF.glob("*.yaml")} == SETTINGS.keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_config_files_hold_every_setting_at_its_default(name):
    values = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert values.pop("_target_") == f"src.data.{name}.load"
    needed = {key for key in ("path", "name") if key in values}
    given = {key: values[key] or "mnist" for key in needed}
    assert check(SETTINGS[name], values | given, "data") == SETTINGS[name](**given)
    assert values.keys() == plain(SETTINGS[name](**given)).keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_config_files_open_with_the_command_that_uses_them_and_explain_every_key(name):
    first, _, *rest = (CONF / f"{name}.yaml").read_text().splitlines()
    assert first.startswith(f"# python -m src.run data={name}")
    assert all("  # " in line or " # " in line for line in rest)


@pytest.mark.parametrize(
    ("source", "settings", "line"),
    [
        ("image_folder", {"path": None}, "data.path=null: takes a folder with a folder of images for each class"),
        ("image_folder", {"path": "x", "channels": 2}, "data.channels=2: takes one of 1, 3"),
        ("image_folder", {"path": "x", "test": 1.0}, "data.test=1.0: takes a number above 0 and below 1"),
        ("npz", {"path": ""}, "data.path=: takes an .npz file"),
        ("keras_builtin", {"name": "mnst"}, "data.name=mnst: takes one of mnist, fashion_mnist, cifar10, cifar100"),
        ("tfds", {"name": None}, "data.name=null: takes text that is not empty"),
        ("digits", {"image_size": 2}, "data.image_size=2: takes a whole number from 4 to 1024, or two, [height,width]"),
    ],
)
def test_wrong_settings_are_one_line(source, settings, line):
    with pytest.raises(UserError) as caught:
        check(SETTINGS[source], settings, "data")
    assert str(caught.value) == line


def test_class_names_may_look_like_numbers():
    assert check(ImageFolder, {"path": "x", "classes": [2, 10]}, "data").classes == ("2", "10")
