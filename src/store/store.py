"""One experiment in one tracking store: what a run leaves there, and what earlier ones have left.

A stage's result is a FINISHED run that carries its key. A run that is killed never becomes FINISHED, so half a result
is never used.
"""

import atexit
import contextlib
import copy
import hashlib
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.machine import locks
from src.machine import system as machine
from src.settings.check import UserError
from src.settings.sections import Tracking
from src.store import opening, sqlite
from src.store.artifacts import Artifacts, Away, Damaged, Record, Unusable, check
from src.store.faults import named, reason
from src.store.names import KINDS, OF_A_SWEEP, PYFUNC, artifact_path
from src.store.opening import Nothing
from src.store.waiting import Patient

LOCAL_UI = "http://localhost:5000"


class Store:
    """One MLflow experiment in one tracking store."""

    def __init__(self, tracking: Tracking, looking: bool = False) -> None:
        """Raises what `opening.connect` does."""
        connection = opening.connect(tracking, looking)
        self.uri, self.experiment = tracking.uri, tracking.experiment
        self._path, experiment = connection.path, connection.experiment
        self.experiment_id: str = experiment.experiment_id
        # Of one experiment, however the address of its store is spelled.
        self._identity = f"{experiment.experiment_id} {experiment.creation_time} {tracking.experiment}"
        self.hurried: Any = connection.client
        self.client: Any = Patient(connection.client, tracking)
        self.artifacts = Artifacts(connection, self._recorded_uri)
        if connection.path:
            atexit.register(sqlite.close, connection.client)
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

    def uses(self, run_id: str, dataset: Mapping[str, Any]) -> None:
        """What a run is made of, for MLflow's column of datasets."""
        from mlflow.entities import Dataset, DatasetInput

        self.client.log_inputs(run_id, [DatasetInput(Dataset(**dataset), tags=[])])

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
        self.artifacts.repository(run_id).log_artifact(str(file), folder)

    def keep_all(self, run_id: str, folder: Path) -> None:
        self.artifacts.repository(run_id).log_artifacts(str(folder))

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
            whole = Path(self.artifacts.repository(record.run_id).download_artifacts("", folder))
            if not any(whole.iterdir()):
                raise Away(f"run {record.run_id}: its artifacts are away")
            for path, digest in record.digests.items():
                check(record.run_id, path, whole / path, digest)
            (whole / artifact_path(record.tags["variant"])).rename(whole / artifact_path(variant))
            shutil.rmtree(whole / PYFUNC, ignore_errors=True)  # what is registered stays with the run that was chosen
            self.keep_all(run_id, whole)
            self.log(run_id, metrics=record.measured)
        return run_id

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

    def of_digest(self, digest: str, sweep: str | None = None) -> list[Record]:
        """The newest FINISHED variants whose artifact has the SHA-256 `digest`; of `sweep` only, where it is given."""
        where = f"tags.kind = 'variant' and attributes.status = 'FINISHED' and tags.digest = '{digest}'"
        return self.search(where + (f" and tags.sweep = '{sweep}'" if sweep else ""), most=20)

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
        if self.artifacts.local(record.run_id) is not None:
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
        """An artifact as a local file. Raises `Damaged` where it is missing or does not have the SHA-256 `digest`, and
        `Away` where it can't be looked at."""
        return self.artifacts.file(run_id, path, digest)

    def check_artifacts(self) -> None:
        """Raises `UserError` where runs are FINISHED and none of their artifacts is where this store has them, which is
        a disk that is not there rather than so many files that are lost."""
        root = self.artifacts.root()
        if root is None or (root.is_dir() and any(root.iterdir())):
            return
        where = "attributes.status = 'FINISHED' and tags.kind != 'sweep'"
        if self.search(where, 1):
            raise UserError(
                f"{named(self.uri)}: the artifacts of its runs are away: {root} is "
                f"{'empty' if root.is_dir() else 'not there'}; takes them back there, or reuse=none to make all anew"
            )

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
        return opening.is_server(self.uri)

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

    def _recorded_uri(self, run_id: str) -> str:
        if run_id not in self._uris:
            self.get(run_id)
        return self._uris[run_id]


def existing(tracking: Tracking, looking: bool) -> Store | None:
    """The store, if there are such a store and experiment: nothing is made."""
    try:
        seen = Store(tracking, looking=True)
    except Nothing:
        return None
    return seen if looking else Store(tracking)
