"""The only module that imports MLflow: what every run leaves there, and the store of stage results.

Names that scripts rely on are listed here and held by a test. A stage's result is a FINISHED run that carries its key:
a run that is killed never becomes FINISHED, so half a result is never used.
"""

import atexit
import contextlib
import copy
import errno
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
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
from urllib.parse import unquote, urlparse

from src import locks, machine
from src.config import Told, Tracking, UserError

log = logging.getLogger(__name__)

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# A server that does not answer is `_Patient`'s to wait for, which says so and stops when it was told to.
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
PREPROCESSING = "preprocessing.json"
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


class Damaged(Told):
    """An artifact in the store is not what its run recorded."""


class NoAnswer(Told):
    """The store has been waited for as long as it was to be."""


@functools.cache
def check_writable(tracking: Tracking) -> None:
    """Raises `UserError` where a SQLite store can't be written, before anything that takes time."""
    path = _sqlite_path(tracking.uri)
    if path is None:
        if urlparse(tracking.uri).scheme.partition("+")[0] not in (
            "http",
            "https",
            "postgresql",
            "mysql",
            "mssql",
            "sqlite",
        ):
            raise UserError(
                f"tracking.uri={tracking.uri}: takes sqlite:///FILE, a database such as postgresql://…, or a tracking "
                "server's http(s)://…"
            )
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        # Not by opening it: to close it would drop the locks that SQLite holds for this process.
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except OSError as error:
        there = path if error.filename == str(path) else path.parent
        raise UserError(
            f"tracking.uri={tracking.uri}: {there} can't be written ({error.strerror}); takes a place that can"
        ) from None


class Store:
    """One MLflow experiment in one tracking store."""

    def __init__(self, tracking: Tracking) -> None:
        """Raises `UserError` where the store can't be written or does not answer."""
        check_writable(tracking)
        for name, level in (("alembic", logging.WARNING), ("mlflow", logging.WARNING)):
            logging.getLogger(name).setLevel(level)
        # It logs the traceback of every error that it raises as well.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        self.uri, self.experiment = tracking.uri, tracking.experiment
        path = _sqlite_path(tracking.uri)
        try:
            if path and not _may_be_sqlite(path):
                raise UserError(f"tracking.uri={tracking.uri}: {path} is no SQLite database; takes one, or a new file")
            # Several that create a fresh SQLite store at once fail (MLflow 3).
            with locks.alone(path.with_suffix(".lock")) if path else contextlib.nullcontext():
                fresh = path is not None and not path.exists()
                client = MlflowClient(tracking.uri)
                experiment = client.get_experiment_by_name(tracking.experiment)
                if experiment is None:
                    location = (path.parent / "artifacts").absolute().as_uri() if path else None
                    self.experiment_id = client.create_experiment(tracking.experiment, artifact_location=location)
                else:
                    self.experiment_id = experiment.experiment_id
                if path and fresh and _on_local_disk(path):
                    with contextlib.closing(sqlite3.connect(path)) as database:
                        database.execute("PRAGMA journal_mode=WAL")
                if path:
                    _settle_at_exit(path.absolute())
        except ModuleNotFoundError as error:
            raise UserError(
                f"tracking.uri={tracking.uri}: takes the package {error.name}, which is not installed; "
                "postgresql+psycopg2://… takes make setup EXTRAS=dev,postgres"
            ) from error
        except (MlflowException, SQLAlchemyError) as error:
            raise UserError(
                f"tracking.uri={tracking.uri}: does not answer ({_why(error)}); takes a tracking store that answers"
            ) from error
        self.retry_seconds = tracking.retry_seconds
        self.client: Any = _Patient(client, tracking.retry_seconds, tracking.uri)
        self.hurried: Any = client
        self._uris: dict[str, str] = {}  # of the artifacts of runs that were seen
        self._params: dict[str, Mapping[str, Any]] = {}  # of variants that have logged nothing yet

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
        file = hashlib.sha256(f"{self.uri} {self.experiment} {key}".encode()).hexdigest()[:32]
        return locks.alone(locks.folder("locks") / file, f"{name}: another sweep is at it; waiting until it is done")

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
        self.client.log_text(run_id, text, path)

    def adopt(self, record: Record, variant: str, parent: str) -> str:
        """A run of this sweep with the result of an earlier one; gives its id."""
        inherited = (item for item in record.tags.items() if item[0] not in OF_A_SWEEP)
        tags = {name: value for name, value in inherited if not name.startswith("mlflow.")}
        tags |= {"variant": variant, "reused_from": record.tags.get("reused_from", record.run_id)}
        with (
            tempfile.TemporaryDirectory() as folder,
            self.run("variant", variant, tags=tags, params=record.params, parent=parent) as run_id,
        ):
            whole = Path(self.client.download_artifacts(record.run_id, "", folder))
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

        `data` and `code` are as `src.serving.prepare` makes them; `about` are `example` (an image as base64),
        `description` and `module`.
        """
        from mlflow.exceptions import MlflowException

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
                self.client.log_artifacts(record.run_id, str(folder), PYFUNC)
            source = f"{self.client.get_run(record.run_id).info.artifact_uri}/{PYFUNC}"
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

        try:
            return self.client.get_model_version_by_alias(name, alias).run_id
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None

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
        """Those runs by id, most of which are of the sweep and are read together."""
        together = {record.run_id: record for record in self.search(f"tags.sweep = '{sweep}'", most=1_000_000)}
        return {run_id: together.get(run_id) or self.get(run_id) for run_id in run_ids}

    def file(self, run_id: str, path: str, digest: str | None = None) -> Path:
        """An artifact as a local file. Raises `Damaged` where it is missing or does not have the SHA-256 `digest`."""
        folder = self._local(run_id)
        if folder is not None:
            local = folder / path
        else:
            try:
                local = Path(self.client.download_artifacts(run_id, path))
            except Exception as error:
                raise Damaged(f"run {run_id}: {path} can't be read ({reason(error)})") from error
        _check(run_id, path, local, digest)
        return local

    def json(self, run_id: str, path: str) -> dict[str, Any]:
        """A JSON artifact; empty where the run has none that can be read."""
        try:
            return json.loads(self.file(run_id, path).read_text(encoding="utf-8"))
        except (Damaged, ValueError):
            return {}

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
        if run_id not in self._uris:
            self.get(run_id)
        return self._uris[run_id]

    def _artifacts(self, run_id: str) -> Any:
        """Where the run's artifacts are kept. The client's own calls would read the whole run first to know that."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(self._artifacts_uri(run_id), tracking_uri=self.uri)
        return _Patient(repository, self.retry_seconds, self.uri)

    def _local(self, run_id: str) -> Path | None:
        """The folder of a run's artifacts, where it is one of this machine."""
        uri = urlparse(self._artifacts_uri(run_id))
        return Path(unquote(uri.path)) if uri.scheme in ("", "file") else None


def store_exists(tracking: Tracking) -> bool:
    """Whether opening the store would not create it."""
    path = _sqlite_path(tracking.uri)
    return path is None or path.exists()


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
    if not file.is_file():
        raise Damaged(f"run {run_id}: {path} is missing")
    if digest and sha256(file) != digest:
        raise Damaged(f"run {run_id}: {path} is not what was recorded (its SHA-256 differs)")


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def reason(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, Told):
        return text
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


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
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as database:
        try:
            database.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:
            return error.sqlite_errorcode != sqlite3.SQLITE_NOTADB
    return True


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


# SQLite's write-ahead log takes a quarter off what a run costs, and the UI reads while a sweep writes; but it can't be
# on a disk that machines share.
LOCAL_DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay", "apfs", "hfs"}


def _on_local_disk(path: Path) -> bool:
    """False where the system does not say."""
    return machine.file_system(path) in LOCAL_DISKS


@functools.cache
def _settle_at_exit(path: Path) -> None:
    """What is in the write-ahead log then goes into the store's one file, which people copy."""

    def settle() -> None:
        if path.exists():
            with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    atexit.register(settle)


class _Patient:
    """A client whose calls are tried again, with growing pauses, while the store has a passing fault. One that has been
    waited for in vain is not waited for again until it answers."""

    _gone: ClassVar[set[str]] = set()

    def __init__(self, client: Any, seconds: float, uri: str) -> None:
        self._client, self._seconds, self._uri = client, seconds, uri

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, getattr(self._client, name))

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        started, pause, waited = time.monotonic(), 0.5, False
        while True:
            try:
                answer = method(*arguments, **named)
                self._gone.discard(self._uri)
                if waited:
                    log.info("the tracking store answers again")
                return answer
            except Exception as error:
                if not _passing(error):
                    raise
                left = self._seconds - (time.monotonic() - started)
                if left <= 0 or self._uri in self._gone:
                    self._gone.add(self._uri)
                    raise NoAnswer(
                        f"tracking.uri={self._uri} has not answered for tracking.retry_seconds={self._seconds:g} "
                        f"({_why(error)}); what is done is kept, and the same command goes on from there"
                    ) from error
                waited = True
                log.warning("the tracking store does not answer (%s), trying again for %.0f s", _why(error), left)
                time.sleep(min(pause, left))
                pause = min(2 * pause, 15)


def _passing(error: Exception) -> bool:
    """Whether the same call may succeed later: a server that is gone or overloaded, a database that is locked."""
    import requests
    from mlflow.exceptions import MlflowException

    if any(lasting in str(error) for lasting in ("disk is full", "readonly database", "No space left")):
        return False
    if isinstance(error, MlflowException):
        return error.get_http_status_code() >= 500 or error.get_http_status_code() == 429
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code >= 500
    return isinstance(error, requests.RequestException)
