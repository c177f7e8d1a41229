"""What a finished sweep recorded, as the commands after it read it: sweep, results, predictions, artifacts."""

import datetime
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.results import conditions
from src.results.conditions import Conditions, Timing
from src.results.variant import Result, from_entry
from src.settings.check import UserError
from src.settings.credentials import to_give
from src.settings.sections import Tracking
from src.store.address import elsewhere
from src.store.artifacts import Record, Unusable
from src.store.faults import reason
from src.store.names import PREPROCESSING, artifact_path
from src.store.store import Store

COMPARISON = "comparison.json"


@dataclass(frozen=True)
class ClosedSweep:
    """A sweep's parent run and its `comparison.json`."""

    run: Record
    results: tuple[Result, ...]
    conditions: Conditions

    @property
    def measured(self) -> list[Result]:
        return [result for result in self.results if result.run_id and result.measured]

    @property
    def latency(self) -> dict[str, Timing | None]:
        """How latency was measured, by training."""
        trainings = dict.fromkeys(result.training for result in self.results)
        return dict(zip(trainings, self.conditions.latency, strict=True))


def open_store(tracking: Tracking, looking: bool = True) -> Store:
    """Raises `UserError` where there is none, or its artifacts are away. These commands read, and make no empty one;
    only who will write something says that it is not just `looking`."""
    seen = Store(tracking, looking=True)
    seen.check_artifacts()
    return seen if looking else Store(tracking)


def find_sweep(
    store: Store,
    wanted: str,
    partial: bool = False,
    key: str = "sweep",
    *,
    module: str = "",
    template: str = "{}",
) -> ClosedSweep:
    """`wanted` is `latest`, the name of a sweep, the id of its parent run, or the beginning of one of them.

    Raises `UserError` for a sweep that there is not, for what could be several, for one that still runs, or of which a
    part failed, unless `partial` takes what there is. Where the latest one is such a sweep, the error names the latest
    that is whole, in the command that takes it: `module`, with a setting whose value is the name in `template`.
    """
    sweeps = store.search("tags.kind = 'sweep'", 1 if wanted == "latest" else 1_000_000)
    if not sweeps:
        raise UserError(f"{key}={wanted}: no sweep in {store.uri}; `make sweep` runs one")
    named = [s for s in sweeps if wanted in (s.run_id, s.name, "latest")]
    chosen = named or [s for s in sweeps if s.run_id.startswith(wanted) or s.name.startswith(wanted)]
    if not chosen:
        raise UserError(f"{key}={wanted}: no such sweep; takes latest or one of {_some(s.name for s in sweeps)}")
    if len(chosen) > 1:
        could = (f"{s.run_id} ({s.name}, begun {_date(s)}: {s.tags.get('command', '')})" for s in chosen)
        raise UserError(f"{key}={wanted}: could be {len(chosen)} sweeps; takes the run id of one: {_some(could)}")
    run = chosen[0]

    def whole() -> str:
        return _latest_whole(store, module, key, template) if wanted == "latest" else ""

    if run.status == "RUNNING":
        raise UserError(f"{key}={wanted}: {run.name} is still running; takes one that is over{whole()}")
    comparison = store.json(run.run_id, COMPARISON)
    closed = _read(run, comparison) if comparison else None
    if run.status != "FINISHED" and not (partial and closed):
        failed = [f"{result.variant}: {result.failed}" for result in closed.results if result.failed] if closed else []
        why = failed[0] if failed else run.tags.get("error", "it was interrupted")
        can = "; partial=true takes what there is" if closed else f"; takes one that is whole{whole()}"
        raise UserError(f"{key}={wanted}: {run.name} is {run.status} ({why}){can}")
    if not closed:
        raise UserError(f"{key}={wanted}: {run.name} has no {COMPARISON}; takes one that is whole{whole()}")
    return closed


def _read(run: Record, comparison: Mapping[str, Any]) -> ClosedSweep:
    try:
        results = tuple(from_entry(entry) for entry in comparison["variants"])
        return ClosedSweep(run, results, conditions.from_json(comparison["conditions"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{run.name}: its {COMPARISON} is damaged ({reason(error)}); takes one that a sweep wrote"
        ) from None


def _latest_whole(store: Store, module: str, key: str, template: str) -> str:
    """The end of an error's line: the command that takes the latest sweep that is whole, if there is one."""
    over = store.search("tags.kind = 'sweep' and attributes.status = 'FINISHED'")
    name = next((run.name for run in over if store.json(run.run_id, COMPARISON)), None)
    if name is None:
        return "; no sweep is"
    settings = [f"{key}={template.replace('{}', name)}", *elsewhere(store.uri, store.experiment)]
    return f": {to_give()}python -m {module} {shlex.join(settings)}"


def find_variant(store: Store, run_id: str, key: str = "run") -> Record:
    """Raises `UserError` where there is no such run of a variant that is FINISHED."""
    if not re.fullmatch(r"[0-9a-f]{32}", run_id):
        raise UserError(f"{key}={run_id}: takes the id of a variant's run, 32 hexadecimal digits")
    records = store.search(f"attributes.run_id = '{run_id}'", 1)
    if not records or records[0].tags.get("kind") != "variant":
        what = f"is the run of a {records[0].tags.get('kind')}" if records else "no such run"
        raise UserError(f"{key}={run_id}: {what}; takes the id of a variant's run")
    if records[0].status != "FINISHED":
        raise UserError(f"{key}={run_id}: is {records[0].status}; takes a run that is FINISHED")
    return records[0]


def run_of(store: Store, result: Result) -> Record:
    """The run of a variant that was measured."""
    assert result.run_id
    return store.get(result.run_id)


def file(store: Store, record: Record, path: str) -> Path:
    """A file of a variant. Raises `UserError` where it is not what was recorded, or can't be read."""
    try:
        return store.recorded(record, path)
    except Unusable as error:
        raise UserError(str(error)) from None


def artifact(store: Store, record: Record) -> Path:
    """The variant's `.tflite`. Raises `UserError` where it is not what was recorded."""
    return file(store, record, artifact_path(record.tags["variant"]))


def preprocessing(store: Store, record: Record) -> dict[str, Any]:
    """What turns a user's image into the artifact's input, and its outputs into labels."""
    return json.loads(file(store, record, PREPROCESSING).read_text(encoding="utf-8"))


def _date(run: Record) -> str:
    return f"{datetime.datetime.fromtimestamp(run.started):%Y-%m-%d %H:%M:%S}"


def _some(names: Any, most: int = 4) -> str:
    listed: Sequence[str] = list(names)
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "")
