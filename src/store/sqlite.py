"""A store in a file of SQLite: making it, looking at it without changing it, moving it, closing it."""

import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlparse

from src.machine import system as machine

log = logging.getLogger(__name__)

ARTIFACTS = "artifacts"  # the folder of them beside the file
# SQLite's write-ahead log takes a quarter off what a run costs, and the UI reads while a sweep writes; but it can't be
# on a disk that machines share.
LOCAL_DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay", "apfs", "hfs"}


def path_of(uri: str) -> Path | None:
    """The file of `sqlite:///FILE`; SQLAlchemy takes that with a driver and with settings as well. None for others."""
    scheme, separator, rest = uri.partition(":///")
    return Path(rest.partition("?")[0]) if separator and scheme.partition("+")[0] == "sqlite" else None


def may_be_sqlite(path: Path) -> bool:
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


def make(path: Path) -> None:
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


def _on_local_disk(path: Path) -> bool:
    """False where the system does not say."""
    return machine.file_system(path) in LOCAL_DISKS


def close(client: Any) -> None:
    """Closes the files of a SQLite store: what is in its write-ahead log then goes into the one file that people copy.
    MLflow 3 has no way for that."""
    for part in (client._tracking_client, getattr(client, "_registry_client_lazy", None)):
        engine = getattr(part and part.store, "engine", None)
        if engine is not None:
            engine.dispose()


def _unchanged(path: Path) -> str:
    """An address under which SQLite changes nothing of a database, nor of its folder. What was closed in order is one
    file, and its companions go when it is closed again; a write-ahead log that lies beside it is neither written back
    nor removed; and where the folder can't be written there can be no companions."""
    file = f"file:{quote(str(path.absolute()))}"
    if path.with_name(f"{path.name}-wal").exists():
        return f"{file}?mode=ro"
    return f"{file}?mode=rw" if os.access(path.parent, os.W_OK) else f"{file}?immutable=1"


def to_look(path: Path) -> str:
    return f"sqlite+pysqlite:///{_unchanged(path)}&uri=true"


def settle_in(path: Path, experiment: Any) -> None:
    """Tells a store that was moved or copied where its artifacts are now, beside it: MLflow records whole paths. What
    was kept elsewhere on purpose stays there."""
    here, was = path.absolute().parent / ARTIFACTS, local_path(experiment.artifact_location)
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


def local_path(uri: str) -> Path | None:
    """The path of an artifact location that is one of this machine."""
    parsed = urlparse(uri)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None
