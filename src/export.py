"""`python -m src.export`: a variant as a folder that a device team can use."""

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass as schema

from src.cli import command
from src.machine import writable
from src.results import recorded
from src.results.export import Exported, is_ours, write
from src.results.variant import Result
from src.settings.check import STRICT, UserError
from src.settings.sections import Tracking
from src.store import registry
from src.store.artifacts import Record

USAGE = """\
Usage: python -m src.export [KEY=VALUE …]

Writes a folder for a device team: model.tflite, labels.txt, preprocessing.json,
MODEL_CARD.md with the numbers and their conditions, SHA256SUMS, and example.py,
which runs the file with ai_edge_litert and numpy alone, and with Pillow on a
picture of yours.

Examples
  python -m src.export
      the champion that `python -m src.pick` registered, into mlruns/export/
  python -m src.export run=0123456789abcdef0123456789abcdef to=device
      the variant of that MLflow run

Settings
"""


@schema(frozen=True, config=STRICT)
class Settings:
    """Of `src.export`."""

    tracking: Tracking
    to: Annotated[str, Field(min_length=1, description="folder: new, empty, or one that this has made")] = (
        "mlruns/export"
    )
    run: Annotated[str, Field(description="id of a variant's run; the registered champion's if not given")] = ""
    name: Annotated[str, Field(description="of the registered model; the experiment's if not given")] = ""
    alias: Annotated[str, Field(min_length=1, description="of the registered version")] = "champion"


def export(wanted: Settings) -> None:
    folder = Path(wanted.to)
    if folder.exists() and not (folder.is_dir() and is_ours(folder)):
        raise UserError(
            f"to={wanted.to}: holds other files; takes a folder that is new, empty, or made by this command"
        )
    writable.check(folder, f"to={wanted.to}")
    store = recorded.open_store(wanted.tracking)
    if wanted.run:
        run_id = wanted.run
    else:
        name = wanted.name or wanted.tracking.experiment
        champion = registry.registered(store, name, wanted.alias)
        if champion is None:
            raise UserError(
                f"name={name}: no version with the alias {wanted.alias}; `python -m src.pick` registers one"
            )
        run_id = champion
    record = recorded.find_variant(store, run_id)
    sweep = recorded.find_sweep(store, record.tags["mlflow.parentRunId"], partial=True)
    result = next((result for result in sweep.results if result.run_id == record.run_id), None)
    if result is None:
        raise UserError(f"run={run_id}: {sweep.run.name} has no numbers of it; takes a run that a sweep has compared")
    what = Exported(
        record,
        result,
        recorded.artifact(store, record),
        recorded.preprocessing(store, record),
        conditions(sweep, result, record),
    )
    try:
        write(what, folder)
    except OSError as error:
        raise UserError(f"to={wanted.to}: can't be written ({error.strerror}); takes a folder that can") from None
    print(f"{result.label} of {sweep.run.name}, run {record.run_id}", file=sys.stderr)
    for file in sorted(folder.iterdir()):
        print(f"{folder / file.name}")


def conditions(sweep: recorded.ClosedSweep, result: Result, record: Record) -> tuple[str, ...]:
    """The conditions under which the numbers of the card were measured, a sentence each."""
    params, confidence, commit = (
        record.params,
        sweep.conditions.compare.confidence,
        sweep.conditions.facts.get("commit"),
    )
    sentences = [
        f"Accuracy is of {params.get('test_images', 'the')} test images that chose nothing; {100 * confidence:g} % "
        "intervals are of the difference from the dense baseline on the same images.",
        f"Seed {params.get('seed', '0')}, {params.get('train_images', '?')} training images, sweep {sweep.run.name}"
        + (f", commit {commit}." if commit else "."),
        "gzip is level 6.",
    ]
    if timing := sweep.latency[result.training]:
        load = "not known" if timing.load is None else f"{timing.load:.1f}"
        sentences.append(
            f"Latency: batch 1, {timing.config['threads']} thread(s), {timing.instances} fresh instances of "
            f"{timing.rounds} interleaved rounds on {timing.cpu} ({timing.cores} cores, load {load}), "
            f"{timing.runtime}; differences below {100 * timing.noise_floor:.1f} % can't be told there."
        )
    return tuple(sentences)


if __name__ == "__main__":
    command.main(USAGE, Settings, export)
