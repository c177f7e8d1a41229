"""The stages that a sweep's variants came from, as the store knows them."""

from collections.abc import Mapping

from src.results.comparison import Origin
from src.store.artifacts import Record
from src.store.store import Store


def origins(records: Mapping[str, Record], store: Store) -> tuple[Origin, ...]:
    """The stages before the variants `records`, parents before children."""
    made: dict[str, list[str]] = {}
    for name, record in records.items():
        made.setdefault(record.tags["parent_key"], []).append(name)
    stages: dict[str, Record] = {}
    missing = set(made)
    while missing:
        known = store.finished("stage", missing)
        stages |= known
        missing = {r.tags["parent_key"] for r in known.values() if "parent_key" in r.tags} - set(stages)

    def under(parent: str | None, depth: int) -> list[Origin]:
        below = []
        for key, record in sorted(stages.items(), key=lambda item: item[1].name):
            if record.tags.get("parent_key") == parent:
                variants = tuple(made.get(key, ()))
                below.append(Origin(record.name, variants, _detail(record), depth, store.url(record.run_id)))
                below += under(key, depth + 1)
        return below

    return tuple(under(None, 0))


def _detail(record: Record) -> str:
    parts = []
    if "validation_accuracy" in record.metrics:
        parts.append(f"validation accuracy {100 * record.metrics['validation_accuracy']:.2f} %")
    if record.metrics.get("sparsity"):
        parts.append(f"sparsity {100 * record.metrics['sparsity']:.1f} %")
    if record.seconds is not None:
        parts.append(f"{record.seconds:.0f} s")
    parts.append(f"checkpoint {record.tags['digest'][:12]}")
    return ", ".join(parts)
