"""All probes of an artifact. A new one is one more function in `PROBES`, and fills in artifacts that were made before.

Latency is no probe of this kind: it is measured over all artifacts of a sweep together.
"""

from collections.abc import Iterable

from src.data import SPLITS
from src.measure import accuracy, audit
from src.measure.probe import Probe
from src.measure.targets.litert import CPU
from src.settings.config import Config
from src.settings.head import Head


def accuracies(config: Config, key: str) -> Iterable[Probe]:
    """One for each split."""
    settings = config.model.settings
    for split in SPLITS:
        how = accuracy.Settings(split, settings.preprocess, Head.asked(settings))
        yield Probe(f"accuracy.{split}", accuracy.probe, how, split, CPU)


def audits(config: Config, key: str) -> Iterable[Probe]:
    """What the file holds, beside what was asked for: that follows from how it was made, so `key` stands for it."""
    yield Probe("audit", audit.probe, audit.Settings(tuple(sorted(config.audit.compressors)), key))


PROBES = (accuracies, audits)


def of(config: Config, key: str) -> tuple[Probe, ...]:
    """All probes of a variant whose conversion has `key`."""
    return tuple(probe for probes in PROBES for probe in probes(config, key))
