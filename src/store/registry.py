"""Logged models, each a variant's artifact in MLflow's format, and the registry, whose versions are of them."""

import importlib.metadata
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from src.settings import credentials
from src.settings.check import UserError
from src.store import sqlite
from src.store.artifacts import Record
from src.store.names import LOGGED_MODEL
from src.store.opening import DATABASES, check_schema
from src.store.store import Store

NOT_IN_NAMES = r"""[/:.%"']"""  # of logged models, for MLflow 3


@dataclass(frozen=True)
class Packed:
    """An artifact as a pyfunc model: folders of `data` and `code`, the `module` that loads it, the packages that this
    needs, and an image as base64 for an `example`."""

    data: Path
    code: Path
    module: str
    requirements: Sequence[str]
    example: str


def logged(store: Store, record: Record, pack: Callable[[Path], Packed]) -> str:
    """The id of the logged model that holds the artifact of a variant's run. It is made where there is none, of what
    `pack` puts into a folder."""
    from mlflow.exceptions import MlflowException

    if known := record.tags.get(LOGGED_MODEL):
        with suppress(MlflowException):  # deleted
            store.client.get_logged_model(known)
            return known
    tags = {name: record.tags[name] for name in ("variant", "digest")}
    params = {name: str(value) for name, value in record.params.items()}
    name = re.sub(NOT_IN_NAMES, "_", record.tags["variant"])
    model = store.client.create_logged_model(store.experiment_id, name, record.run_id, tags, params, "classifier")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _save_pyfunc(folder, pack(Path(scratch)), model.model_id, record.run_id)
        store.client.log_model_artifacts(model.model_id, str(folder))
    store.client.finalize_logged_model(model.model_id, "READY")
    link(store, record, model.model_id)
    return str(model.model_id)


def link(store: Store, record: Record, model: str) -> None:
    """Makes a logged model an output of a run, such as one that took over the artifact of an earlier one."""
    from mlflow.entities import LoggedModelOutput

    store.client.log_outputs(record.run_id, [LoggedModelOutput(model, 0)])


def register(store: Store, record: Record, name: str, alias: str, model: str, description: str) -> str:
    """A version of the registered model `name` that is the logged `model` of the run; `alias` is set on it. Gives its
    number. A run that is a version already is not registered twice."""
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = store.client.search_model_versions(f"name = '{name}' and run_id = '{record.run_id}'")
    if known:
        version = known[0].version
    else:
        tags = {"variant": record.tags["variant"], "digest": record.tags["digest"]}
        # The place and not `models:/…`, which a registry in a database looks up in MLflow's default store.
        place = store.client.get_logged_model(model).artifact_location
        made = store.client.create_model_version(
            name, place, record.run_id, tags=tags, description=description, model_id=model
        )
        version = made.version
    store.client.set_registered_model_alias(name, alias, version)
    return str(version)


def registered(store: Store, name: str, alias: str) -> str | None:
    """The id of the run that the version of `name` with `alias` came from."""
    from mlflow.exceptions import MlflowException

    check(store)
    try:
        return store.client.get_model_version_by_alias(name, alias).run_id
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def place(store: Store) -> str:
    """The address of the model registry, where it is another one than the store."""
    uri = os.environ.get("MLFLOW_REGISTRY_URI", "")
    return "" if uri == store.uri else credentials.hidden(uri)


def check(store: Store) -> None:
    """Raises `UserError` for a registry that MLflow would migrate, or whose file is not there."""
    uri, name = os.environ.get("MLFLOW_REGISTRY_URI", ""), f"MLFLOW_REGISTRY_URI={place(store)}"
    path = sqlite.path_of(uri)
    if path and not path.exists():
        raise UserError(f"{name}: no such file; takes a registry that is there")
    if path or urlparse(uri).scheme.partition("+")[0] in DATABASES:
        check_schema(sqlite.to_look(path) if path else uri, name, place(store))


def _save_pyfunc(folder: Path, what: Packed, model: str, run_id: str) -> None:
    """A model in MLflow's format."""
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
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
            loader_module=what.module,
            data_path=str(what.data),
            code_paths=[str(what.code)],
            mlflow_model=Model(model_id=model, run_id=run_id),
            signature=signature,
            input_example=[what.example],
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", *what.requirements)],
        )
