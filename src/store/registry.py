"""The model registry: a version of a registered model is a variant's artifact in MLflow's format."""

import importlib.metadata
import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

from src.settings import credentials
from src.settings.check import UserError
from src.store import sqlite
from src.store.artifacts import Record
from src.store.names import PYFUNC
from src.store.opening import DATABASES, check_schema
from src.store.store import Store


def register(
    store: Store,
    record: Record,
    name: str,
    alias: str,
    data: Path,
    code: Path,
    requirements: Sequence[str],
    **about: str,
) -> str:
    """A version of the registered model `name` that holds the run's artifact as a pyfunc model; `alias` is set on
    it. Gives its number. A run that is a version already is not registered twice.

    `data` and `code` are as `src.results.serving.prepare` makes them; `about` are `example` (an image as base64),
    `description` and `module`.
    """
    from mlflow.exceptions import MlflowException

    _check(store)
    try:
        store.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = store.client.search_model_versions(f"name = '{name}' and run_id = '{record.run_id}'")
    if known:
        version = known[0].version
    else:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / PYFUNC
            _save_pyfunc(folder, data, code, requirements, about["module"], about["example"])
            store.artifacts.repository(record.run_id).log_artifacts(str(folder), PYFUNC)
        source = f"{store.artifacts.uri(record.run_id)}/{PYFUNC}"
        tags = {"variant": record.tags["variant"], "digest": record.tags["digest"]}
        made = store.client.create_model_version(
            name, source, record.run_id, tags=tags, description=about["description"]
        )
        version = made.version
    store.client.set_registered_model_alias(name, alias, version)
    return str(version)


def registered(store: Store, name: str, alias: str) -> str | None:
    """The id of the run that the version of `name` with `alias` came from."""
    from mlflow.exceptions import MlflowException

    _check(store)
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


def _check(store: Store) -> None:
    """Raises `UserError` for a registry that MLflow would migrate, or whose file is not there."""
    uri, name = os.environ.get("MLFLOW_REGISTRY_URI", ""), f"MLFLOW_REGISTRY_URI={place(store)}"
    path = sqlite.path_of(uri)
    if path and not path.exists():
        raise UserError(f"{name}: no such file; takes a registry that is there")
    if path or urlparse(uri).scheme.partition("+")[0] in DATABASES:
        check_schema(sqlite.to_look(path) if path else uri, name, place(store))


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
