"""Takes from this Linux what a Mac lacks, in every process that finds this on its path: affinity, and /proc for the
code of this project. Processes are spawned, and few files may be open, as there."""

import multiprocessing
import os
import resource
import sys
from pathlib import Path
from typing import Any

LIBRARY = os.path.dirname(os.__file__)
SOURCE = str(Path(__file__).resolve().parent.parent.parent / "src") + os.sep


def refuse_proc(event: str, arguments: tuple[Any, ...]) -> None:
    """What psutil reads there it takes from the kernel on a Mac: only what is asked from `src` is refused."""
    if event not in ("open", "os.listdir", "os.scandir") or not str(arguments[0]).startswith(("/proc", "/sys")):
        return
    frame = sys._getframe(1)
    while frame.f_back and (not os.path.isabs(file := frame.f_code.co_filename) or os.path.dirname(file) == LIBRARY):
        frame = frame.f_back
    if frame.f_code.co_filename.startswith(SOURCE):
        raise FileNotFoundError(2, "No such file or directory", str(arguments[0]))


for name in [name for name in dir(os) if name.startswith("sched_")]:
    delattr(os, name)
sys.addaudithook(refuse_proc)
multiprocessing.set_start_method("spawn")
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
