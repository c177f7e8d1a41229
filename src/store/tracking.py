"""The only module that imports MLflow: what every run leaves there, and the store of stage results.

Names that scripts rely on are listed here and held by a test. A stage's result is a FINISHED run that carries its key:
a run that is killed never becomes FINISHED, so half a result is never used.
"""

import atexit
import contextlib
import copy
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import shlex
import shutil
import socket
import sqlite3
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlparse

from src.machine import locks, writable
from src.machine import system as machine
from src.settings import credentials
from src.settings.check import Told, UserError
from src.settings.credentials import TRACKING_URI
from src.settings.sections import Tracking

log = logging.getLogger(__name__)

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# `_Patient` waits for a server that does not answer: it says so, and for no longer than it was told.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

KINDS = ("sweep", "stage", "variant")
TAGS = ("kind", "variant", "stage", "key", "digest")
MEASURED = (
    "train_accuracy",
    "validation_accuracy",
    "test_accuracy",
    "balanced_accuracy",
    "tflite_bytes",
    "gzip_bytes",
    "sparsity",
)
NO_NUMBER = "_no_number"  # after a split's name: for how many of its images; only where there are any
LATENCY = ("latency_ms_mean", "latency_ms_std", "latency_ms_median", "latency_ms_p90")
COMPARED = ("test_accuracy_drop", "gzip_ratio", "speedup")
# What a run says of the sweep that it is in, and a later sweep that takes it over says anew.
OF_A_SWEEP = ("sweep", "host", "process", "verdict", "error", "latency_host")
SPLITS = ("train", "validation", "test")
CHECKPOINT = "checkpoint/model.h5"
AUDIT = "audit.json"
ARTIFACTS = "artifacts"  # the folder of them beside a SQLite store
PREPROCESSING = "preprocessing.json"
DATABASES = ("postgresql", "mysql", "mssql")  # beside SQLite
DEFAULT_EXPERIMENT = "compression"
LOCAL_UI = "http://localhost:5000"
PYFUNC = "pyfunc"
FILES = "files"  # a tag: SHA-256 by path of what a variant leaves beside its artifact


def artifact_path(variant: str) -> str:
    return f"model/{variant}.tflite"


def predictions_path(split: str) -> str:
    return f"predictions/{split}.npz"


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


class Unusable(Told):
    """An artifact in the store can't be used."""


class Damaged(Unusable):
    """It is not what its run recorded."""


class Away(Unusable):
    """It can't be looked at now, and may be whole: nothing is said of its run."""


class NoAnswer(Told):
    """The store did not answer for as long as it was to be waited for."""


class Nothing(UserError):
    """There is no such store, or no such experiment in it, yet."""


def named(uri: str) -> str:
    """The setting or the variable that names a store, for messages."""
    return f"{TRACKING_URI if os.environ.get(TRACKING_URI) == uri else 'tracking.uri'}={uri}"


@functools.cache
def check_writable(tracking: Tracking) -> None:
    """Raises `UserError` where a SQLite store can't be written, before anything that takes time."""
    path = _sqlite_path(tracking.uri)
    if path is None:
        if urlparse(tracking.uri).scheme.partition("+")[0] not in ("http", "https", *DATABASES):
            raise UserError(
                f"{named(tracking.uri)}: takes sqlite:///FILE, a database such as postgresql+psycopg2://…, or a "
                "tracking server's http(s)://…"
            )
        return
    for folder in (path.parent, path.parent / ARTIFACTS):
        writable.check(folder, named(tracking.uri))
    # Not by opening it: to close it would drop the locks that SQLite holds for this process.
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"{named(tracking.uri)}: {path} can't be written (read-only); takes a file that can")


class Store:
    """One MLflow experiment in one tracking store."""

    def __init__(self, tracking: Tracking, looking: bool = False) -> None:
        """Who is `looking` changes nothing, of a store that can't be written either. Raises `Nothing` where there is
        nothing to look at, and `UserError` where the store can't be written, was made by another version of MLflow, or
        does not answer."""
        if not looking:
            check_writable(tracking)
        for name, level in (("alembic", logging.WARNING), ("mlflow", logging.WARNING)):
            logging.getLogger(name).setLevel(level)
        # It logs the traceback of every error that it raises as well.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        self.uri, self.experiment = tracking.uri, tracking.experiment
        self._path = path = _sqlite_path(tracking.uri)
        try:
            if path and not _may_be_sqlite(path):
                raise UserError(f"{named(self.uri)}: {path} is no SQLite database; takes one, or a new file")
            if looking and path and not path.exists():
                raise Nothing(f"{named(self.uri)}: no such store; `make sweep` makes one")
            self._mlflow_uri = _to_look(path) if looking and path else credentials.whole(tracking.uri)
            if path and not looking:
                path.parent.mkdir(parents=True, exist_ok=True)
            # Several that create a fresh SQLite store at once fail (MLflow 3).
            with locks.alone(path.with_suffix(".lock")) if path and not looking else contextlib.nullcontext():
                if path and not path.exists():
                    _make(path)
                if not self.is_server:
                    _check_schema(self._mlflow_uri, named(self.uri), self.uri)
                client = MlflowClient(self._mlflow_uri)
                experiment = _experiment(client, tracking)
                if experiment is None and looking:
                    raise _no_experiment(client, tracking)
                if experiment is None:
                    location = (path.parent / ARTIFACTS).absolute().as_uri() if path else None
                    experiment = client.get_experiment(
                        client.create_experiment(tracking.experiment, artifact_location=location)
                    )
                if path and not looking:
                    _settle_in(path, experiment)
        except ModuleNotFoundError as error:
            raise UserError(f"{named(self.uri)}: {_missing(error.name or '', self.uri)}") from error
        except (MlflowException, SQLAlchemyError) as error:
            if _is_refusal(error):
                raise _refused(self.uri, error) from error
            raise UserError(
                f"{named(self.uri)}: does not answer ({_why(error)}); takes a tracking store that answers"
            ) from error
        self.experiment_id: str = experiment.experiment_id
        # Of one experiment, however the address of its store is spelled.
        self._identity = f"{experiment.experiment_id} {experiment.creation_time} {tracking.experiment}"
        self._location: str = experiment.artifact_location
        self.retry_seconds = tracking.retry_seconds
        self.client: Any = _Patient(client, tracking.retry_seconds, tracking.uri)
        self.hurried: Any = client
        if path:
            atexit.register(_close, client)
        self._uris: dict[str, str] = {}  # of the artifacts of runs that were seen
        self._params: dict[str, Mapping[str, Any]] = {}  # of variants that have logged nothing yet
        if not looking and (kept := _local_path(self._location)) and not path:
            writable.check(kept, f"{named(self.uri)}: tracking.experiment={self.experiment} keeps its artifacts there")

    # --- Writing ---

    @contextmanager
    def run(
        self, kind: str, name: str, *, tags: Mapping[str, str], params: Mapping[str, Any], parent: str | None = None
    ) -> Iterator[str]:
        """A run that is FINISHED when the block ends, FAILED when it raises, KILLED when it is interrupted."""
        run_id = self.start(kind, name, tags=tags, params=params, parent=parent)
        try:
            yield run_id
        except Exception as error:
            # What failed may be the store: then the run stays RUNNING, and the next sweep on this host closes it.
            with contextlib.suppress(Exception):
                self.end(run_id, "FAILED", error=reason(error))
            raise
        except BaseException:
            self.kill(run_id)
            raise
        self.end(run_id, "FINISHED")

    def start(
        self, kind: str, name: str, *, tags: Mapping[str, str], params: Mapping[str, Any], parent: str | None = None
    ) -> str:
        assert kind in KINDS
        all_tags = {"kind": kind, **tags, "host": socket.gethostname(), "process": machine.process()}
        if parent:
            all_tags["sweep"] = parent
            # Only variants are its children in the UI: a stage belongs to every sweep that uses it.
            all_tags |= {"mlflow.parentRunId": parent} if kind == "variant" else {}
        info = self.client.create_run(self.experiment_id, tags=all_tags, run_name=name).info
        run_id, self._uris[info.run_id] = info.run_id, info.artifact_uri
        if kind == "variant":
            self._params[run_id] = params  # with its first metrics: a transaction less
        else:
            self.log(run_id, params=params)
        return run_id

    def end(self, run_id: str, status: str, error: str | None = None) -> None:
        if error:
            self.log(run_id, tags={"error": error})
        self.client.set_terminated(run_id, status)

    def kill(self, run_id: str) -> None:
        """Closes a run as KILLED, if the store answers at once."""
        with contextlib.suppress(Exception):
            self.hurried.set_terminated(run_id, "KILLED")

    def kill_all_of(self, sweep: str) -> None:
        """Closes as KILLED what a sweep has left RUNNING, and its parent run."""
        with contextlib.suppress(Exception):
            where = f"tags.sweep = '{sweep}' and attributes.status = 'RUNNING'"
            for run in self.hurried.search_runs([self.experiment_id], where):
                self.kill(run.info.run_id)
        self.kill(sweep)

    def kill_abandoned(self) -> list[Record]:
        """Closes as KILLED what dead processes of this host have left RUNNING; gives those runs."""
        running = self.search(f"tags.host = '{socket.gethostname()}' and attributes.status = 'RUNNING'")
        abandoned = [record for record in running if not machine.lives(record.tags.get("process", ""))]
        for record in abandoned:
            self.kill(record.run_id)
        return abandoned

    def mark_damaged(self, record: Record, why: str) -> None:
        """Closes a FINISHED run as FAILED, so that its stage runs again."""
        self.end(record.run_id, "FAILED", error=why)

    def alone(self, key: str, name: str) -> contextlib.AbstractContextManager[None]:
        """Holds the stage `key` of this store for one process of this machine at a time; `name` says in the log what
        another one has."""
        file = hashlib.sha256(f"{self._identity} {key}".encode()).hexdigest()[:32]
        if self._path:
            folder = self._path.resolve().parent / "locks"
            folder.mkdir(exist_ok=True)
        else:
            folder = locks.folder("stages")
        return locks.alone(folder / file, f"{name}: another sweep is at it; waiting until it is done")

    def log(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        history: Sequence[Mapping[str, float]] = (),
        description: str | None = None,
    ) -> None:
        """`history` is one dict of metrics per epoch, logged as steps; `description` is Markdown, which the MLflow UI
        shows on the run's page."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step) for step, epoch in enumerate(history) for name, value in epoch.items()]
        points += [Metric(name, float(value), now, len(history)) for name, value in (metrics or {}).items()]
        all_params = [
            Param(name, str(value)) for name, value in {**self._params.pop(run_id, {}), **(params or {})}.items()
        ]
        all_tags = [RunTag(name, str(value)) for name, value in (tags or {}).items()]
        all_tags += [RunTag("mlflow.note.content", description)] if description else []
        for start in range(0, max(1, len(points)), 1000):
            self.client.log_batch(
                run_id, points[start : start + 1000], *(((), ()) if start else (all_params, all_tags))
            )

    def keep(self, run_id: str, file: Path, folder: str | None = None) -> None:
        self._artifacts(run_id).log_artifact(str(file), folder)

    def keep_all(self, run_id: str, folder: Path) -> None:
        self._artifacts(run_id).log_artifacts(str(folder))

    def keep_text(self, run_id: str, text: str, path: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / Path(path).name
            file.write_text(text, encoding="utf-8")
            self.keep(run_id, file, str(Path(path).parent) if "/" in path else None)

    def adopt(self, record: Record, variant: str, parent: str) -> str:
        """A run of this sweep with the result of an earlier one; gives its id."""
        inherited = (item for item in record.tags.items() if item[0] not in OF_A_SWEEP)
        tags = {name: value for name, value in inherited if not name.startswith("mlflow.")}
        tags |= {"variant": variant, "reused_from": record.tags.get("reused_from", record.run_id)}
        with (
            tempfile.TemporaryDirectory() as folder,
            self.run("variant", variant, tags=tags, params=record.params, parent=parent) as run_id,
        ):
            whole = Path(self._artifacts(record.run_id).download_artifacts("", folder))
            if not any(whole.iterdir()):
                raise Away(f"run {record.run_id}: its artifacts are away")
            for path, digest in record.digests.items():
                _check(record.run_id, path, whole / path, digest)
            (whole / artifact_path(record.tags["variant"])).rename(whole / artifact_path(variant))
            shutil.rmtree(whole / PYFUNC, ignore_errors=True)  # what is registered stays with the run that was chosen
            self.keep_all(run_id, whole)
            measured = {*MEASURED, *(name for name in record.metrics if name.endswith(("_bytes", NO_NUMBER)))}
            self.log(run_id, metrics={name: value for name, value in record.metrics.items() if name in measured})
        return run_id

    # --- The model registry ---

    def register(
        self, record: Record, name: str, alias: str, data: Path, code: Path, requirements: Sequence[str], **about: str
    ) -> str:
        """A version of the registered model `name` that holds the run's artifact as a pyfunc model; `alias` is set on
        it. Gives its number. A run that is a version already is not registered twice.

        `data` and `code` are as `src.results.serving.prepare` makes them; `about` are `example` (an image as base64),
        `description` and `module`.
        """
        from mlflow.exceptions import MlflowException

        self._check_registry()
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = self.client.search_model_versions(f"name = '{name}' and run_id = '{record.run_id}'")
        if known:
            version = known[0].version
        else:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / PYFUNC
                _save_pyfunc(folder, data, code, requirements, about["module"], about["example"])
                self._artifacts(record.run_id).log_artifacts(str(folder), PYFUNC)
            source = f"{self._artifacts_uri(record.run_id)}/{PYFUNC}"
            tags = {"variant": record.tags["variant"], "digest": record.tags["digest"]}
            made = self.client.create_model_version(
                name, source, record.run_id, tags=tags, description=about["description"]
            )
            version = made.version
        self.client.set_registered_model_alias(name, alias, version)
        return str(version)

    def registered(self, name: str, alias: str) -> str | None:
        """The id of the run that the version of `name` with `alias` came from."""
        from mlflow.exceptions import MlflowException

        self._check_registry()
        try:
            return self.client.get_model_version_by_alias(name, alias).run_id
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None

    @property
    def registry(self) -> str:
        """The address of the model registry, where it is another one than the store."""
        uri = os.environ.get("MLFLOW_REGISTRY_URI", "")
        return "" if uri == self.uri else credentials.hidden(uri)

    def _check_registry(self) -> None:
        """Raises `UserError` for a registry that MLflow would migrate, or whose file is not there."""
        uri, name = os.environ.get("MLFLOW_REGISTRY_URI", ""), f"MLFLOW_REGISTRY_URI={self.registry}"
        path = _sqlite_path(uri)
        if path and not path.exists():
            raise UserError(f"{name}: no such file; takes a registry that is there")
        if path or urlparse(uri).scheme.partition("+")[0] in DATABASES:
            _check_schema(_to_look(path) if path else uri, name, self.registry)

    # --- Reading ---

    def finished(
        self, kind: str, keys: Iterable[str], sweep: str | None = None, but: Collection[str] = ()
    ) -> dict[str, Record]:
        """The newest FINISHED run of each of `keys` that has one, runs `but` left out; of `sweep` only, where it is
        given."""
        wanted = list(dict.fromkeys(keys))
        where = f"tags.kind = '{kind}' and attributes.status = 'FINISHED'"
        if sweep:
            where += f" and tags.sweep = '{sweep}'"
        # One by one while that is less than reading all runs of the kind.
        if len(wanted) > 50:
            found: dict[str, Record] = {}
            for record in self.search(where, most=1_000_000):
                if record.run_id not in but:
                    found.setdefault(record.tags.get("key", ""), record)
            return {key: found[key] for key in wanted if key in found}
        newest = {key: self.search(f"{where} and tags.key = '{key}'", 1 + len(but)) for key in wanted}
        sound = {key: [record for record in records if record.run_id not in but] for key, records in newest.items()}
        return {key: records[0] for key, records in sound.items() if records}

    def progress(self, sweep: str) -> dict[str, list[str]]:
        """The names of a sweep's runs by status; those that it took over from earlier sweeps left out."""
        names: dict[str, list[str]] = {}
        hurried = copy.copy(self)
        hurried.client = self.hurried
        for record in hurried.search(f"tags.sweep = '{sweep}'", most=1_000_000):
            if "reused_from" not in record.tags:
                names.setdefault(record.status, []).append(record.name)
        return names

    def check_local(self, record: Record) -> None:
        """Raises `Damaged` where a file on a disk of this machine is not what its run recorded; those that a server
        keeps are checked when they are read."""
        if self._local(record.run_id) is not None:
            for path, digest in record.digests.items():
                self.file(record.run_id, path, digest)

    def recorded(self, record: Record, path: str) -> Path:
        """A file of a run. Raises `Damaged` where it is not what the run recorded."""
        return self.file(record.run_id, path, record.digests.get(path))

    def needed(self, record: Record, path: str) -> Path:
        """A file of a run that a sweep goes on from. Where it is not what the run recorded, closes that run, so that
        the next sweep makes it anew, and raises `Damaged`."""
        try:
            return self.recorded(record, path)
        except Damaged as why:
            self.mark_damaged(record, str(why))
            raise Damaged(f"{why}; the same command makes it anew") from None

    def search(self, where: str, most: int = 1000) -> list[Record]:
        """Runs of the experiment, newest first."""
        records: list[Record] = []
        token = None
        while len(records) < most:
            page = self.client.search_runs(
                [self.experiment_id], where, max_results=min(1000, most - len(records)), page_token=token
            )
            records += map(self._record, page)
            token = page.token
            if not token:
                break
        return records

    def get(self, run_id: str) -> Record:
        return self._record(self.client.get_run(run_id))

    def of_sweep(self, sweep: str, run_ids: Iterable[str]) -> dict[str, Record]:
        """Those runs by id. Most of them are of the sweep and are read together."""
        together = {record.run_id: record for record in self.search(f"tags.sweep = '{sweep}'", most=1_000_000)}
        return {run_id: together.get(run_id) or self.get(run_id) for run_id in run_ids}

    def file(self, run_id: str, path: str, digest: str | None = None) -> Path:
        """An artifact as a local file. Raises `Damaged` where it is missing or does not have the SHA-256 `digest`."""
        folder = self._local(run_id)
        if folder is not None:
            local = folder / path
        else:
            try:
                local = Path(self._artifacts(run_id).download_artifacts(path))
            except (NoAnswer, UserError):
                raise
            except Exception as error:
                if _is_missing(error) and self._has_artifacts(run_id):
                    raise Damaged(f"run {run_id}: {path} is missing ({reason(error)})") from error
                raise Away(f"run {run_id}: {path} can't be read ({reason(error)})") from error
        if folder is not None and not folder.is_dir():
            raise Away(f"run {run_id}: its artifacts are not in {folder.parent.parent}")
        try:
            _check(run_id, path, local, digest)
        except OSError as error:
            raise Away(f"run {run_id}: {path} can't be read ({error.strerror})") from error
        return local

    def _has_artifacts(self, run_id: str) -> bool:
        """Whether there are any artifacts of the run. Where there are none, the place that keeps them may be away."""
        try:
            return bool(self._artifacts(run_id).list_artifacts())
        except (NoAnswer, UserError):
            raise
        except Exception:
            return False

    def check_artifacts(self) -> None:
        """Raises `UserError` where runs are FINISHED and none of their artifacts is where this store has them, which is
        a disk that is not there rather than so many files that are lost."""
        root = self._root()
        if root is None or (root.is_dir() and any(root.iterdir())):
            return
        where = "attributes.status = 'FINISHED' and tags.kind != 'sweep'"
        if self.search(where, 1):
            raise UserError(
                f"{named(self.uri)}: the artifacts of its runs are away: {root} is "
                f"{'empty' if root.is_dir() else 'not there'}; takes them back there, or reuse=none to make all anew"
            )

    def _root(self) -> Path | None:
        """The folder of all artifacts, where it is one of this machine."""
        beside = self._path.absolute().parent / ARTIFACTS if self._path else None
        return beside if beside and beside.is_dir() else _local_path(self._location)

    def json(self, run_id: str, path: str) -> dict[str, Any]:
        """A JSON artifact; empty where the run has none that can be read."""
        try:
            return json.loads(self.file(run_id, path).read_text(encoding="utf-8"))
        except (Unusable, ValueError):
            return {}

    @property
    def place(self) -> str:
        """For a person."""
        return f"{self.uri}, experiment {self.experiment}"

    @property
    def is_server(self) -> bool:
        return self.uri.startswith(("http://", "https://"))

    def url(self, run_id: str) -> str:
        """The run's page in the UI: that of the tracking server, or the one that `make ui` starts."""
        server = self.uri if self.is_server else LOCAL_UI
        return f"{server.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{run_id}"

    def _record(self, run: Any) -> Record:
        info, data = run.info, run.data
        self._uris[info.run_id] = info.artifact_uri
        return Record(
            run_id=info.run_id,
            name=info.run_name,
            status=info.status,
            started=info.start_time / 1000,
            seconds=(info.end_time - info.start_time) / 1000 if info.end_time else None,
            tags=data.tags,
            params=data.params,
            metrics=data.metrics,
        )

    def _artifacts_uri(self, run_id: str) -> str:
        """Beside the store, where they are there: it was moved or copied with them. Else where the run says."""
        if self._path:
            beside = self._path.absolute().parent / ARTIFACTS / run_id / "artifacts"
            if beside.is_dir():
                return beside.as_uri()
        if run_id not in self._uris:
            self.get(run_id)
        return self._uris[run_id]

    def _artifacts(self, run_id: str) -> Any:
        """Where the run's artifacts are kept. The client's own calls would read the whole run first to know that."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(self._artifacts_uri(run_id), tracking_uri=self._mlflow_uri)
        return _Patient(repository, self.retry_seconds, self.uri)

    def _local(self, run_id: str) -> Path | None:
        """The folder of a run's artifacts, where it is one of this machine."""
        return _local_path(self._artifacts_uri(run_id))


def existing(tracking: Tracking, looking: bool) -> Store | None:
    """The store, if there are such a store and experiment: nothing is made."""
    try:
        seen = Store(tracking, looking=True)
    except Nothing:
        return None
    return seen if looking else Store(tracking)


def _make(path: Path) -> None:
    """A fresh SQLite store, which is there once it is whole: MLflow 3 makes its tables in some 50 steps, and would be
    asked to migrate what was left of an interrupted one."""
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    engine = create_sqlalchemy_engine(f"sqlite:///{fresh}")
    _initialize_tables(engine)
    engine.dispose()
    if _on_local_disk(path):
        with contextlib.closing(sqlite3.connect(fresh)) as database:
            database.execute("PRAGMA journal_mode=WAL")
    fresh.replace(path)


def _unchanged(path: Path) -> str:
    """An address under which SQLite changes nothing of a database, nor of its folder. What was closed in order is one
    file, and its companions go when it is closed again; a write-ahead log that lies beside it is neither written back
    nor removed; and where the folder can't be written there can be no companions."""
    file = f"file:{quote(str(path.absolute()))}"
    if path.with_name(f"{path.name}-wal").exists():
        return f"{file}?mode=ro"
    return f"{file}?mode=rw" if os.access(path.parent, os.W_OK) else f"{file}?immutable=1"


def _to_look(path: Path) -> str:
    return f"sqlite+pysqlite:///{_unchanged(path)}&uri=true"


def _check_schema(address: str, name: str, uri: str) -> None:
    """Raises `UserError` where a database is not of this version of MLflow, which would migrate it without asking, or
    is no store at all. `address` is what is opened; `name` and `uri` are how messages name it."""
    import mlflow
    import sqlalchemy
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    engine = sqlalchemy.create_engine(address)
    try:
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            revision = MigrationContext.configure(connection).get_current_revision() if tables else None
    finally:
        engine.dispose()
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store/db_migrations"))
    if not tables or revision == scripts.get_current_head():
        return
    if revision is None:
        raise UserError(f"{name}: holds tables that MLflow has not made; takes a store, or a new database")
    try:
        scripts.get_revision(revision)
    except CommandError:
        raise UserError(
            f"{name}: was made by another version of MLflow than {mlflow.__version__} can read (schema "
            f"{revision}); takes a newer MLflow, or another store"
        ) from None
    raise UserError(
        f"{name}: was made by an older MLflow than {mlflow.__version__}, which can't open it after a migration; "
        f"after a backup, `{shlex.quote(machine.python())} -m mlflow db upgrade {shlex.quote(uri)}` migrates it"
        + (" (with its password)" if credentials.whole(uri) != uri else "")
    )


def _experiment(client: Any, tracking: Tracking) -> Any:
    """The experiment, if there is one. Raises `UserError` for one that was deleted, or that goes by its number."""
    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if number and tracking.experiment == DEFAULT_EXPERIMENT and "MLFLOW_EXPERIMENT_NAME" not in os.environ:
        raise UserError(
            f"MLFLOW_EXPERIMENT_ID={number}: experiments go by name here; takes MLFLOW_EXPERIMENT_NAME, or "
            "tracking.experiment=NAME"
        )
    experiment = client.get_experiment_by_name(tracking.experiment)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        environment = credentials.to_give(tracking.uri)
        raise UserError(
            f"tracking.experiment={tracking.experiment}: was deleted; `{environment}mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}` brings it back; takes that, or another name"
        )
    return experiment


def _no_experiment(client: Any, tracking: Tracking) -> Nothing:
    names = [experiment.name for experiment in client.search_experiments(max_results=5)]
    return Nothing(
        f"tracking.experiment={tracking.experiment}: no such experiment in {tracking.uri}; takes one of "
        f"{', '.join(names) or 'none'}"
    )


def _settle_in(path: Path, experiment: Any) -> None:
    """Tells a store that was moved or copied where its artifacts are now, beside it: MLflow records whole paths. What
    was kept elsewhere on purpose stays there."""
    here, was = path.absolute().parent / ARTIFACTS, _local_path(experiment.artifact_location)
    if was is None or was.name != ARTIFACTS or was.resolve() == here.resolve():
        return
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as database, database:
        runs = database.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (experiment.experiment_id,))
        ids = [run for (run,) in runs]
        brought = any((here / run).is_dir() for run in ids)
        copied = (was.parent / path.name).exists()
        if not (brought or copied or (not ids and not was.exists())):
            return
        before, after = experiment.artifact_location, here.as_uri()
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (after, experiment.experiment_id)
        )
        for table, column in (
            ("runs", "artifact_uri"),
            ("model_versions", "source"),
            ("model_versions", "storage_location"),
        ):
            if brought:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (after, len(before) + 1, len(before) + 1, f"{before}/"),
                )
    experiment._artifact_location = after
    log.info("the store was moved or copied from %s; its artifacts are beside it", was.parent)


def _local_path(uri: str) -> Path | None:
    """The path of an artifact location that is one of this machine."""
    parsed = urlparse(uri)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None


def _save_pyfunc(folder: Path, data: Path, code: Path, requirements: Sequence[str], module: str, example: str) -> None:
    """A model in MLflow's format whose code is `code` and which `module` loads from `data`."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Map, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec(AnyType())]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "score"),
                ColSpec(Map(DataType.double), "scores"),
            ]
        ),
    )
    # An image may be an array, a file's bytes or their base64: MLflow 3 has no type for that, and would make tables of
    # arrays. This hands over what it is given; the model checks it.
    signature._is_signature_from_type_hint = True
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            folder,
            loader_module=module,
            data_path=str(data),
            code_paths=[str(code)],
            signature=signature,
            input_example=[example],
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", *requirements)],
        )


def _check(run_id: str, path: str, file: Path, digest: str | None) -> None:
    """Raises `Damaged`, and `OSError` where the file can't be looked at."""
    if not file.is_file():
        raise Damaged(f"run {run_id}: {path} is missing")
    if digest and sha256(file) != digest:
        raise Damaged(f"run {run_id}: {path} is not what was recorded (its SHA-256 differs)")


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def reason(error: BaseException) -> str:
    """An exception in one line."""
    text = credentials.hidden(" ".join(str(error).split()))
    if isinstance(error, Told):
        return text
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def _missing(package: str, uri: str) -> str:
    """What to do about a database's driver that is not installed."""
    said = f"takes the package {package}, which is not installed"
    if not uri.startswith("postgresql"):
        return said
    # Which driver `postgresql://` means differs between versions of SQLAlchemy.
    said = said if package == "psycopg2" else f"{said}; write postgresql+psycopg2://…"
    installed = importlib.util.find_spec("psycopg2")
    return said if installed else f"{said}; `make setup EXTRAS=dev,postgres` installs psycopg2"


def _why(error: BaseException) -> str:
    """Of a store that can't be used: what the operating system or SQLite said, where they were asked; else all that is
    known."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if isinstance(cause, sqlite3.Error):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if "API request to" in str(error) and "failed with exception" in str(error):
        return "no connection"
    return textwrap.shorten(reason(error).split(" Response body")[0], 200)


def _may_be_sqlite(path: Path) -> bool:
    """Whether SQLite would take the file; an empty one, and none, become a database. SQLite is asked, because to open
    and close the file would drop the locks that it holds for this process."""
    if not path.exists():
        return True
    if path.is_dir():
        return False
    with contextlib.closing(sqlite3.connect(_unchanged(path), uri=True, timeout=0)) as database:
        try:
            database.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:
            return error.sqlite_errorcode != sqlite3.SQLITE_NOTADB
    return True


def _sqlite_path(uri: str) -> Path | None:
    """The file of `sqlite:///FILE`; SQLAlchemy takes that with a driver and with settings as well. None for others."""
    scheme, separator, rest = uri.partition(":///")
    return Path(rest.partition("?")[0]) if separator and scheme.partition("+")[0] == "sqlite" else None


# SQLite's write-ahead log takes a quarter off what a run costs, and the UI reads while a sweep writes; but it can't be
# on a disk that machines share.
LOCAL_DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay", "apfs", "hfs"}


def _on_local_disk(path: Path) -> bool:
    """False where the system does not say."""
    return machine.file_system(path) in LOCAL_DISKS


def _close(client: Any) -> None:
    """Closes the files of a SQLite store: what is in its write-ahead log then goes into the one file that people copy.
    MLflow 3 has no way for that."""
    for part in (client._tracking_client, getattr(client, "_registry_client_lazy", None)):
        engine = getattr(part and part.store, "engine", None)
        if engine is not None:
            engine.dispose()


class _Patient:
    """A client whose calls are tried again, with growing pauses, while the store has a passing fault. One that has been
    waited for in vain is not waited for again until it answers."""

    _gone: ClassVar[set[str]] = set()

    def __init__(self, client: Any, seconds: float, uri: str) -> None:
        self._client, self._seconds, self._uri = client, seconds, uri

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, getattr(self._client, name))

    def _call(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        started, pause, waited = time.monotonic(), 0.5, False
        while True:
            try:
                answer = method(*arguments, **keywords)
                self._gone.discard(self._uri)
                if waited:
                    log.info("the tracking store answers again")
                return answer
            except Exception as error:
                if _is_refusal(error):
                    raise _refused(self._uri, error) from error
                if not _passing(error):
                    raise
                left = self._seconds - (time.monotonic() - started)
                if left <= 0 or self._uri in self._gone:
                    self._gone.add(self._uri)
                    raise NoAnswer(
                        f"{named(self._uri)} has not answered for tracking.retry_seconds={self._seconds:g} "
                        f"({_why(error)}); what is done is kept, and the same command goes on from there"
                    ) from error
                waited = True
                log.warning("the tracking store does not answer (%s), trying again for %.0f s", _why(error), left)
                time.sleep(min(pause, left))
                pause = min(2 * pause, 15)


def _status(error: BaseException) -> int | None:
    """Of HTTP, where a server has answered with an error."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code
    if isinstance(error, MlflowException):
        # MLflow 3.17 keeps the code of an answer that is not its own, and of a download, in its words only.
        told = re.search(r"(?:failed with error code (\d{3})|\b(4\d\d) Client Error)", str(error))
        return int(told[1] or told[2]) if told else error.get_http_status_code()
    return None


def _is_refusal(error: BaseException) -> bool:
    return _status(error) in (401, 403)


def _refused(uri: str, error: BaseException) -> UserError:
    user = os.environ.get(credentials.USERNAME)
    who = f" to {user}" if user else " to the token" if os.environ.get("MLFLOW_TRACKING_TOKEN") else ""
    return UserError(
        f"{named(uri)}: refuses access{who} ({_status(error)}); takes {credentials.USERNAME} and "
        f"{credentials.PASSWORD}, or MLFLOW_TRACKING_TOKEN, of someone who may use it"
    )


def _is_missing(error: Exception) -> bool:
    """Whether the place where artifacts are kept has answered that there is no such one."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, FileNotFoundError) or _status(error) == 404:
        return True
    return isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"


def _passing(error: Exception) -> bool:
    """Whether the same call may succeed later: a server that is gone or overloaded, a database that is locked."""
    import requests

    if any(lasting in str(error) for lasting in ("disk is full", "readonly database", "No space left")):
        return False
    if (status := _status(error)) is not None:
        return status >= 500 or status == 429
    return isinstance(error, requests.RequestException)
