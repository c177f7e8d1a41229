"""What is said of the machine, and that all runs where a system says less than Linux does."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from artifacts import Tiny
from conftest import MAC, ROOT, Place, environment

from src.machine import system as machine


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_process_lives_until_it_ends(sleeper: subprocess.Popen[bytes]) -> None:
    identity = machine.process(sleeper.pid)
    assert machine.lives(identity)
    assert machine.lives(machine.process())
    sleeper.kill()
    while psutil.Process(sleeper.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not machine.lives(identity), "killed, and its parent has not asked after it"
    sleeper.wait()
    assert not machine.lives(identity)


def test_a_process_is_not_another_one_that_has_its_number_now(sleeper: subprocess.Popen[bytes]) -> None:
    pid, started = machine.process(sleeper.pid).split("-")
    assert not machine.lives(f"{pid}-{int(started) - 1}")
    assert machine.process(sleeper.pid) != machine.process()


def test_what_version_0_1_wrote_of_a_process_is_understood() -> None:
    boot = "6b1b2f8c-5d7a-4a41-9d50-0a4a9f8f2c11"
    assert machine.lives(f"{machine.process()}-{boot}")
    assert not machine.lives(f"{os.getpid()}-1-{boot}")
    if sys.platform == "linux":
        ticks = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        assert machine.process() == f"{os.getpid()}-{ticks}", "which counted in ticks, a hundred a second"


@pytest.mark.parametrize("identity", ["", "1", "x-1", "-1-5", "99999999999999999999-5", "0-0"])
def test_what_is_no_process_does_not_live(identity: str) -> None:
    assert not machine.lives(identity)


def test_the_processor_has_a_name_here_and_its_architecture_where_no_program_tells_it() -> None:
    assert machine.cpu_model() not in ("", "-")
    program = "from src.machine import system as machine; print(machine.cpu_model())"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**environment(), "PATH": "/nowhere"}, capture_output=True, text=True
    )
    assert done.stdout.strip() == os.uname().machine


LSCPU = """#!/bin/sh
echo "Architecture:            aarch64"
echo "BIOS Model name:         none"
printf '%s'
"""


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("Model name: Neoverse-N1\\n", "Neoverse-N1"),
        ("Model name: Cortex-A55\\nModel name: Cortex-A76\\n", "Cortex-A55, Cortex-A76"),
        ("  Model name:     -\\n", os.uname().machine),  # in a virtual machine on Apple silicon
        ("", os.uname().machine),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="lscpu is Linux's")
def test_arm_processors_are_named_by_lscpu(tmp_path: Path, lines: str, name: str) -> None:
    (tmp_path / "lscpu").write_text(LSCPU % lines, encoding="utf-8")
    (tmp_path / "lscpu").chmod(0o755)
    program = "from src.machine import system as machine; print(machine.cpu_model())"
    path = os.pathsep.join([str(tmp_path), environment()["PATH"]])
    done = subprocess.run(
        [sys.executable, "-c", program], env={**environment(), "PATH": path}, capture_output=True, text=True
    )
    assert done.stdout.strip() == name


def test_the_benchmark_runs_without_what_a_mac_lacks_and_says_what_it_could_not_measure(
    tmp_path: Path, tiny: Tiny
) -> None:
    place = Place(tmp_path, MAC)
    files = [str(tiny.files[scheme]) for scheme in ("none", "drq")]
    done = place.run(*files, "instances=3", "rounds=3", "json=out.json", module="src.benchmark")
    assert done.returncode == 0, done.stderr
    assert "Memory is not measured: this system does not tell how much a process has had." in done.stdout
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [variant["peak_memory_bytes"] for variant in found["variants"]] == [None, None]
    assert all(variant["operators"] for variant in found["variants"])
    assert found["host"]["load_before"] >= 0
    assert found["host"]["others_cores"] >= 0


def test_only_one_module_asks_the_system_and_the_others_ask_that() -> None:
    """A call that a Mac lacks is found here, in whichever command it is; in two places it is looked for first."""
    guarded = {"src/machine/system.py", "src/measure/targets/child.py", "src/data/files.py"}
    linux_only = re.compile(r"/proc\b|/sys/|\bsched_|getloadavg|\bprctl\b|\bpidfd_|\bmemfd_|\bos\.fork\b|ru_maxrss")
    found = {
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "src").rglob("*.py"))
        if linux_only.search(file.read_text(encoding="utf-8"))
    }
    assert found <= guarded


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
def test_a_folder_is_on_the_disk_that_is_mounted_there_whatever_it_is_called(tmp_path: Path) -> None:
    disk = tmp_path / "a disk"
    disk.mkdir()
    before = machine.file_system(disk)
    assert before == machine.file_system(tmp_path)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode:
        pytest.skip("can't mount")
    try:
        assert machine.file_system(disk / "not yet" / "there") == "tmpfs"
    finally:
        subprocess.run(["umount", disk], check=True)
    assert machine.file_system(disk) == before
