"""A variant's artifact as a logged model of its run: the MLflow UI leads from one to the other, and `pick` registers
it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.results import serving
from src.store import registry
from src.store.artifacts import Record
from src.store.registry import Packed
from src.store.store import Store


def logged_model(store: Store, record: Record, artifact: Path, how: Mapping[str, Any]) -> str:
    """The id of the logged model; `how` is the run's `preprocessing.json`."""

    def pack(folder: Path) -> Packed:
        data, code = serving.prepare(artifact, how, folder)
        return Packed(data, code, serving.__name__, serving.REQUIREMENTS, how["example"])

    return registry.logged(store, record, pack)
