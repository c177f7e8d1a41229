"""A run as it stands in the store, and its files: where they are, and whether they are what the run recorded."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.settings.check import Told, UserError
from src.store.faults import is_missing, reason
from src.store.names import CHECKPOINT, FILES, FOUND, MEASURED, NO_NUMBER, artifact_path
from src.store.opening import Connection
from src.store.sqlite import ARTIFACTS, local_path
from src.store.waiting import NoAnswer, Patient


@dataclass(frozen=True)
class Record:
    """A run as it stands in the store."""

    run_id: str
    name: str
    status: str
    started: float
    seconds: float | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file that later work depends on, as it was recorded."""
        made = artifact_path(self.tags["variant"]) if self.tags["kind"] == "variant" else CHECKPOINT
        return {made: self.tags["digest"], **json.loads(self.tags.get(FILES, "{}"))}

    @property
    def measured(self) -> dict[str, float]:
        """The metrics that probes of its artifact left, without those of its comparison with others."""
        if FOUND in self.tags:
            names = {name for left in json.loads(self.tags[FOUND]).values() for name in left}
        else:  # version 0.1 had no probes
            names = {*MEASURED, *(name for name in self.metrics if name.endswith(NO_NUMBER))}
        return {name: value for name, value in self.metrics.items() if name in names}


class Unusable(Told):
    """An artifact in the store can't be used."""


class Damaged(Unusable):
    """It is not what its run recorded."""


class Away(Unusable):
    """It can't be looked at now, and may be whole: nothing is said of its run."""


class Artifacts:
    """The files of an experiment's runs."""

    def __init__(self, connection: Connection, recorded_uri: Callable[[str], str]) -> None:
        """`recorded_uri` says where a run's files were kept when it began."""
        self._connection, self._recorded_uri = connection, recorded_uri

    def file(self, run_id: str, path: str, digest: str | None = None) -> Path:
        """An artifact as a local file. Raises `Damaged` where it is missing or does not have the SHA-256 `digest`."""
        folder = self.local(run_id)
        if folder is not None:
            local = folder / path
        else:
            try:
                local = Path(self.repository(run_id).download_artifacts(path))
            except (NoAnswer, UserError):
                raise
            except Exception as error:
                if is_missing(error) and self._has_artifacts(run_id):
                    raise Damaged(f"run {run_id}: {path} is missing ({reason(error)})") from error
                raise Away(f"run {run_id}: {path} can't be read ({reason(error)})") from error
        if folder is not None and not folder.is_dir():
            raise Away(f"run {run_id}: its artifacts are not in {folder.parent.parent}")
        try:
            check(run_id, path, local, digest)
        except OSError as error:
            raise Away(f"run {run_id}: {path} can't be read ({error.strerror})") from error
        return local

    def _has_artifacts(self, run_id: str) -> bool:
        """Whether there are any artifacts of the run. Where there are none, the place that keeps them may be away."""
        try:
            return bool(self.repository(run_id).list_artifacts())
        except (NoAnswer, UserError):
            raise
        except Exception:
            return False

    def root(self) -> Path | None:
        """The folder of all artifacts, where it is one of this machine."""
        beside = self._beside
        return beside if beside and beside.is_dir() else local_path(self._connection.experiment.artifact_location)

    @property
    def _beside(self) -> Path | None:
        path = self._connection.path
        return path.absolute().parent / ARTIFACTS if path else None

    def uri(self, run_id: str) -> str:
        """Beside the store, where they are there: it was moved or copied with them. Else where the run says."""
        if self._beside:
            folder = self._beside / run_id / "artifacts"
            if folder.is_dir():
                return folder.as_uri()
        return self._recorded_uri(run_id)

    def repository(self, run_id: str) -> Any:
        """Where the run's artifacts are kept. The client's own calls would read the whole run first to know that."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(self.uri(run_id), tracking_uri=self._connection.address)
        return Patient(repository, self._connection.tracking)

    def local(self, run_id: str) -> Path | None:
        """The folder of a run's artifacts, where it is one of this machine."""
        return local_path(self.uri(run_id))


def check(run_id: str, path: str, file: Path, digest: str | None) -> None:
    """Raises `Damaged`, and `OSError` where the file can't be looked at."""
    if not file.is_file():
        raise Damaged(f"run {run_id}: {path} is missing")
    if digest and sha256(file) != digest:
        raise Damaged(f"run {run_id}: {path} is not what was recorded (its SHA-256 differs)")


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
