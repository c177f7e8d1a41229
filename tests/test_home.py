"""Users without a home folder: of containers, of services, of ids that no list of users has."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from src.data import image_folder
from src.data.image_folder import ImageFolder
from src.models.saved import Saved
from src.settings.check import UserError, check


# Python takes the first for a user of whom no home is known; the second can't be made.
@pytest.mark.parametrize("home", ["~", "/dev/null/none"])
def test_libraries_get_a_temporary_home_that_goes_with_the_process(tmp_path, home):
    code = (
        "import src, os, mlflow, matplotlib.pyplot; print(os.path.expanduser('~'), os.path.isdir(os.environ['HOME']))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**environment, "HOME": home, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    temporary, there = done.stdout.split()
    assert (done.returncode, done.stderr, there) == (0, "", "True")
    assert temporary.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_there_stays(tmp_path):
    code = "import src, os; print(os.environ['HOME'], os.environ.get('MPLCONFIGDIR'))"
    environment = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(tmp_path), "None"]


def test_the_home_of_a_user_that_is_not_known_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"^model\.path.*~no_such_user/x\.h5 does not exist; takes a Keras model"):
        check(Saved, {"path": "~no_such_user/x.h5"}, "model")
    with pytest.raises(UserError, match=r"^data\.path=~no_such_user/x: no such folder"):
        image_folder.load(ImageFolder(path="~no_such_user/x"))
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    image_folder.load(ImageFolder(path="images", cache="~no_such_user/cache"))  # as a shell takes it
    assert (tmp_path / "~no_such_user" / "cache").is_dir()
