"""What several tests use: the program as a user runs it, in a folder of its own, and one sweep of the twelve."""

import atexit
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import absl.logging
import artifacts
import forked
import numpy as np
import pytest
from hydra import compose

from src.cli.compose import composer
from src.data import Dataset, in_memory
from src.machine import backend
from src.methods.task import Task
from src.settings.sections import Augment, Preprocess, Tracking
from src.store.artifacts import Record
from src.store.store import Store
from src.sweep.variant import Compose

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = "compression"
COMMANDS = forked.Commands()
STORE = ("MLFLOW_TRACKING_", "MLFLOW_EXPERIMENT_", "MLFLOW_REGISTRY_", "COMPRESSION_")
# What a Mac lacks is taken away: see tests/mac/sitecustomize.py.
MAC = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests/mac"), str(ROOT)])}


@dataclass
class Place:
    """A folder in which the program runs as if checked out there, with what it leaves. `variables` are those of the
    environment that differ: with them a command is a fresh process, otherwise a fork of `COMMANDS`."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, module: str = "src.run", timeout: float = 600) -> subprocess.CompletedProcess[str]:
        if self.variables:
            return self.fresh(*arguments, module=module, timeout=timeout)
        command = COMMANDS.start([module, *arguments], self.folder, environment())
        output, errors = command.communicate(timeout)
        return subprocess.CompletedProcess(command.args, command.wait(), output, errors)

    def start(self, *arguments: str, module: str = "src.run") -> "forked.Command | subprocess.Popen[str]":
        """The command while it runs."""
        if not self.variables:
            return COMMANDS.start([module, *arguments], self.folder, environment())
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder,
            env=environment() | self.variables,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A shell that starts the tests in the background has Ctrl-C ignored by all that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def fresh(self, *arguments: str, module: str = "src.run", timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """By a process that imports all that it needs."""
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder,
            env=environment() | self.variables,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def store(self) -> Store:
        return Store(Tracking(uri=f"sqlite:///{self.folder}/mlruns/mlflow.db", experiment=EXPERIMENT))

    def newest_sweep(self) -> Record:
        return self.store().search("tags.kind = 'sweep'", 1)[0]

    def first_sweep(self) -> Record:
        return self.store().search("tags.kind = 'sweep'")[-1]

    def variants(self, sweep: Record) -> dict[str, Record]:
        found = self.store().search(f"tags.kind = 'variant' and tags.`mlflow.parentRunId` = '{sweep.run_id}'")
        return {record.name: record for record in found}

    def stages(self) -> list[str]:
        return sorted(record.name for record in self.store().search("tags.kind = 'stage'"))


def pytest_configure() -> None:
    """Neither the store that this shell uses, nor the locks of sweeps that run on this machine."""
    for name in [name for name in os.environ if name.startswith(STORE)]:
        del os.environ[name]
    locks = tempfile.TemporaryDirectory()
    os.environ["XDG_STATE_HOME"] = locks.name
    atexit.register(locks.cleanup)


def environment() -> dict[str, str]:
    """As in a terminal of 80 columns where the environment is activated."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}


def default_composer() -> Compose:
    """Of conf/config.yaml, where Hydra is initialized."""
    return composer(compose("config", return_hydra_config=True))


# absl 2, which TensorFlow imports, closes the stream that it was imported with once Hydra configures logging anew in
# this process: by then it is pytest's.
absl.logging.PythonHandler.close = logging.Handler.close


# The files whose tests take longest: they begin first, so that at the end no process of pytest has one left alone.
LONGEST = (
    *("test_zoo", "test_faults", "test_damaged_files", "test_architectures", "test_heads", "test_images", "test_sweep"),
    *("test_saved", "test_served", "test_worker", "test_terminal", "test_ship", "test_run"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = len(LONGEST)
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else last)


def wait_for(process: forked.Command | subprocess.Popen[str], text: str) -> str:
    """What the process writes to standard error up to the line with `text`."""
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"ended without {text!r}: {''.join(lines)}")


@pytest.fixture(scope="session")
def task() -> Task:
    """Forty small gray images of three classes that can be told apart, in every split."""
    backend.prepare()
    rng, labels = np.random.default_rng(0), np.arange(40) % 3
    images = (rng.integers(0, 100, (40, 8, 8, 1)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    split = in_memory(images, labels, [str(i) for i in range(40)])
    return Task(Dataset(split, split, split, tuple("abc"), (8, 8, 1), ""), Preprocess(), Augment(), 0)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def own_copy(name: str, build: Callable[[Path], None], factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder that `build` has filled once for all of pytest's processes."""
    several = "PYTEST_XDIST_WORKER" in os.environ
    built = (factory.getbasetemp().parent if several else factory.mktemp("built")) / name
    built.mkdir(exist_ok=True)
    with (built.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (built.parent / f"{name}.built").exists():
            build(built)
            (built.parent / f"{name}.built").touch()
    own = factory.mktemp(name)
    shutil.copytree(built, own, dirs_exist_ok=True)
    return own


@pytest.fixture(scope="session")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, subprocess.CompletedProcess[str]]:
    """The twelve variants of `experiment=smoke`, run once from scratch, and what the command printed. Each of pytest's
    processes has a copy: what a test changes in it, it changes back."""

    def build(folder: Path) -> None:
        done = Place(folder).fresh("-m", "experiment=smoke")
        assert done.returncode == 0, done.stderr
        (folder / "printed").write_text(json.dumps([done.stdout, done.stderr]))

    place = Place(own_copy("twelve", build, tmp_path_factory))
    place.store()  # finds its artifacts in the copy from now on
    stdout, stderr = json.loads((place.folder / "printed").read_text())
    return place, subprocess.CompletedProcess(["-m", "experiment=smoke"], 0, stdout, stderr)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> artifacts.Tiny:
    """Artifacts of one tiny network in every scheme, and broken ones."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported
    return artifacts.load(own_copy("artifacts", artifacts.build, tmp_path_factory))
