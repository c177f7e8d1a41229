"""Every compression of an image classifier, measured as the file that would ship."""

import atexit
import os
import shutil
import sys
import tempfile
from types import TracebackType


def _interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


# Imports take a second or more: Ctrl-C meanwhile is no traceback. `-m` stands in the command's place until Python has
# found its module.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _interrupted

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
