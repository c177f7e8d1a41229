"""What this machine is, what it is busy with, and which of its processes live, on every system that is supported.

What a system does not tell is None here; who measures says so.
"""

import functools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

# --- This Python ----------------------------------------------------------------------------------------------------


def python() -> str:
    """This interpreter as a user types it: `python` where its environment is activated, as `make` does not need it."""
    path, found = Path(sys.executable), shutil.which("python")
    if found and Path(found).parent == path.parent:
        return "python"
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


# --- Cores -----------------------------------------------------------------------------------------------------


def cores() -> list[int]:
    """The cores that this process may use, by their numbers."""
    return sorted(os.sched_getaffinity(0)) if can_pin() else list(range(os.cpu_count() or 1))


def can_pin() -> bool:
    """Whether a process can be kept to some of the cores; macOS has no call for it."""
    return hasattr(os, "sched_setaffinity")


def pin(cores: Iterable[int]) -> None:
    """Every thread of this process to `cores`: TensorFlow's are there already when a worker does its second job."""
    for thread in psutil.Process().threads():
        try:
            os.sched_setaffinity(thread.id, cores)
        except ProcessLookupError:  # it has just ended
            continue


@functools.cache
def cpu_model() -> str:
    """The processor's name; where the system tells none, its architecture."""
    mac = platform.system() == "Darwin"
    # /proc/cpuinfo has no names on Arm; lscpu knows them, and each of them where there are two kinds of cores.
    command = ["/usr/sbin/sysctl", "machdep.cpu.brand_string"] if mac else ["lscpu"]
    try:
        told = subprocess.run(command, env={**os.environ, "LC_ALL": "C"}, capture_output=True, encoding="utf-8").stdout
    except OSError:
        told = ""
    fields = [line.partition(":") for line in told.splitlines()]
    names = [name.strip() for key, _, name in fields if key.strip() in ("machdep.cpu.brand_string", "Model name")]
    return ", ".join(dict.fromkeys(name for name in names if name.strip("-"))) or platform.machine()


# --- What it is busy with --------------------------------------------------------------------------------------


def load_average() -> float | None:
    """Processes that ran or waited to run, in the last minute on average."""
    try:
        return psutil.getloadavg()[0]
    except OSError:
        return None


def seconds_of_others() -> float | None:
    """Seconds on a core, since the machine started, of all but this process and its children that have ended."""
    try:
        times = psutil.cpu_times()._asdict()
    except OSError:
        return None
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests' seconds are among the user's
    return sum(seconds for kind, seconds in times.items() if kind not in idle) - sum(os.times()[:4])


# --- Processes and disks ---------------------------------------------------------------------------------------


def process(pid: int | None = None) -> str:
    """What tells a process, this one by default, from any other of this machine: its id, and when it started in
    hundredths of a second. Raises `psutil.NoSuchProcess`.
    """
    return _identity(psutil.Process(pid))


def lives(identity: str) -> bool:
    """Whether the process of this machine that `process` gave `identity` to is still there. One that was killed and
    that its parent never asked after is not.
    """
    try:
        found = psutil.Process(int(identity.partition("-")[0]))
        # Version 0.1 put the id of the boot behind.
        return identity.split("-")[:2] == _identity(found).split("-") and found.status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.Error):
        return False


def _identity(found: psutil.Process) -> str:
    # What psutil 7.2 itself tells processes apart by. The public `create_time` moves on Linux when the clock is set,
    # as does the time of the boot: an hour later a process would not be the one that it was.
    pid, started = found._ident
    return f"{pid}-{100 * started:.0f}"


def file_system(path: Path) -> str | None:
    """The type of the file system that `path` is on, as the system's list of mounts calls it: ext4, nfs4, apfs."""
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        return None
    holding = [mount for mount in mounts if path.resolve().is_relative_to(mount.mountpoint)]
    # Of two on one folder the later one hides the earlier.
    mount = max(reversed(holding), key=lambda mount: len(mount.mountpoint), default=None)
    return mount.fstype if mount else None
