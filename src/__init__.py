"""Every compression of an image classifier, measured as the file that would ship."""

from __future__ import annotations  # a Python too old for the rest comes as far as `_refuse`

import atexit
import os
import shutil
import sys
import tempfile
from types import TracebackType


def _refuse(why: str) -> None:
    print(
        f"error: {sys.executable} {why}; `make setup` makes .venv, and .venv/bin/python runs this command",
        file=sys.stderr,
    )
    raise SystemExit(2)


def _unusable(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    elif isinstance(error, ModuleNotFoundError) and os.environ.get("HYDRA_FULL_ERROR") != "1":
        _refuse(f"does not have the package {error.name}")
    else:
        sys.__excepthook__(kind, error, trace)


# Imports take a second or more: Ctrl-C meanwhile is no traceback, nor is a Python without the packages. `-m` stands in
# the command's place until Python has found its module.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _unusable
    if sys.version_info < (3, 11):  # noqa: UP036 -- who has not activated .venv may start any Python
        _refuse(f"is Python {sys.version_info[0]}.{sys.version_info[1]} and has to be one from 3.11 to 3.13")

# Read when TensorFlow is first imported, in worker processes as well: TFMOT needs Keras 2, and TensorFlow's C++ logs
# every detected CPU feature on import.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A user of a container or a service may have no home, or none to write to. Without one MLflow 3 fails on import and
# Keras makes a folder called `~`; Matplotlib warns where it can't write. They, and all processes that this one starts,
# get a temporary one.
_home = os.path.expanduser("~")
if not os.path.isabs(_home) or not os.access(_home, os.W_OK):
    _temporary = tempfile.mkdtemp(prefix="hydra-home-")
    atexit.register(shutil.rmtree, _temporary, ignore_errors=True)
    if not os.path.isabs(_home) or not os.path.isdir(_home):
        os.environ["HOME"] = _temporary
    os.environ.setdefault("MPLCONFIGDIR", _temporary)
