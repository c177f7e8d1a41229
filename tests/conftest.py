"""What several tests use: the program as a user runs it, in a folder of its own, and one sweep of the twelve."""

import atexit
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import absl.logging
import artifacts
import pytest
from hydra import compose

from src.cli.compose import composer
from src.settings.sections import Tracking
from src.store.artifacts import Record
from src.store.store import Store
from src.sweep.plan import Compose

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = "compression"
STORE = ("MLFLOW_TRACKING_", "MLFLOW_EXPERIMENT_", "MLFLOW_REGISTRY_", "COMPRESSION_")
# What a Mac lacks is taken away: see tests/mac/sitecustomize.py.
MAC = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests/mac"), str(ROOT)])}


@dataclass
class Place:
    """A folder in which the program runs as if checked out there, with what it leaves. `variables` are those of the
    environment that differ."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, module: str = "src.run", timeout: float = 600) -> subprocess.CompletedProcess[str]:
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


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, subprocess.CompletedProcess[str]]:
    """The twelve variants of `experiment=smoke`, run once from scratch, and what the command printed."""
    place = Place(tmp_path_factory.mktemp("twelve"))
    done = place.run("-m", "experiment=smoke")
    assert done.returncode == 0, done.stderr
    return place, done


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> artifacts.Tiny:
    """Artifacts of one tiny network in every scheme, and broken ones."""
    return artifacts.build(tmp_path_factory.mktemp("artifacts"))
