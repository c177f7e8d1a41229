"""Opening a tracking store, in one line for a person where that fails."""

import contextlib
import functools
import logging
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from src.machine import locks, writable
from src.machine import system as machine
from src.settings import credentials
from src.settings.check import UserError
from src.settings.sections import Tracking
from src.store import sqlite
from src.store.faults import is_refusal, missing_driver, named, refused, why
from src.store.sqlite import ARTIFACTS

DATABASES = ("postgresql", "mysql", "mssql")  # beside SQLite
DEFAULT_EXPERIMENT = "compression"


class Nothing(UserError):
    """There is no such store, or no such experiment in it, yet."""


@functools.cache
def check_writable(tracking: Tracking) -> None:
    """Raises `UserError` where a SQLite store can't be written, before anything that takes time."""
    path = sqlite.path_of(tracking.uri)
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


@dataclass(frozen=True)
class Connection:
    """To one experiment; `path` is that of SQLite's file and `address` what MLflow opened."""

    tracking: Tracking
    path: Path | None
    address: str
    client: Any
    experiment: Any


def connect(tracking: Tracking, looking: bool) -> Connection:
    """Opens the store. With `looking` nothing is changed, and a store that can't be written can be read.

    Raises `Nothing` where there is nothing to look at, and `UserError` where the store can't be written, was made by
    another version of MLflow, or does not answer.
    """
    if not looking:
        check_writable(tracking)
    for name, level in (("alembic", logging.WARNING), ("mlflow", logging.WARNING)):
        logging.getLogger(name).setLevel(level)
    # It logs the traceback of every error that it raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = tracking.uri
    try:
        connection = _connected(tracking, looking)
    except ModuleNotFoundError as error:
        raise UserError(f"{named(uri)}: {missing_driver(error.name or '', uri)}") from error
    except (MlflowException, SQLAlchemyError) as error:
        if is_refusal(error):
            raise refused(uri, error) from error
        raise UserError(f"{named(uri)}: does not answer ({why(error)}); takes a tracking store that answers") from error
    kept = sqlite.local_path(connection.experiment.artifact_location)
    if kept and not looking and not connection.path:
        writable.check(kept, f"{named(uri)}: tracking.experiment={tracking.experiment} keeps its artifacts there")
    return connection


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _connected(tracking: Tracking, looking: bool) -> Connection:
    from mlflow import MlflowClient

    uri, path = tracking.uri, sqlite.path_of(tracking.uri)
    if path and not sqlite.may_be_sqlite(path):
        raise UserError(f"{named(uri)}: {path} is no SQLite database; takes one, or a new file")
    if looking and path and not path.exists():
        raise Nothing(f"{named(uri)}: no such store; `make sweep` makes one")
    address = sqlite.to_look(path) if looking and path else credentials.whole(uri)
    if path and not looking:
        path.parent.mkdir(parents=True, exist_ok=True)
    # Several that create a fresh SQLite store at once fail (MLflow 3).
    with locks.alone(path.with_suffix(".lock")) if path and not looking else contextlib.nullcontext():
        if path and not path.exists():
            sqlite.make(path)
        if not is_server(uri):
            check_schema(address, named(uri), uri)
        client = MlflowClient(address)
        experiment = _experiment(client, tracking)
        if experiment is None and looking:
            raise _no_experiment(client, tracking)
        if experiment is None:
            location = (path.parent / ARTIFACTS).absolute().as_uri() if path else None
            experiment = client.get_experiment(
                client.create_experiment(tracking.experiment, artifact_location=location)
            )
        if path and not looking:
            sqlite.settle_in(path, experiment)
    return Connection(tracking, path, address, client, experiment)


def check_schema(address: str, name: str, uri: str) -> None:
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
