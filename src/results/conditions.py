"""How a sweep was measured and judged: what is needed to repeat it, and its form in `comparison.json`."""

import importlib.metadata
import math
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.data import dataset
from src.results.comparison import Findings
from src.settings.check import check
from src.settings.config import Config
from src.settings.plain import plain
from src.settings.sections import Compare
from src.store.artifacts import Record

LIBRARIES = ("tensorflow", "tf-keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy")


@dataclass(frozen=True)
class Timing:
    """How the latency of one training's variants was measured, and where. A difference below `noise_floor` (0.02 is
    2 %) is none; `load` is not known on every system; `config` are the settings of the version that measured."""

    baseline: str
    cpu: str
    cores: int
    load: float | None
    runtime: str
    instances: int
    rounds: int
    noise_floor: float
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Conditions:
    """`facts` are what is needed to repeat the sweep; `latency` is of each training, None where none was measured;
    `left_out` names the combinations that were not run, each with the reason."""

    facts: Mapping[str, str]
    compare: Compare
    latency: tuple[Timing | None, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def to_json(findings: Findings) -> dict[str, Any]:
    """The `conditions` of `comparison.json`, plain data."""
    return plain(
        {
            "facts": findings.facts,
            "compare": findings.judged,
            "latency": [comparison.latency or {} for comparison in findings.comparisons],
            "left_out": [{"variant": name, "reason": why} for name, why in findings.left_out],
        }
    )


def from_json(conditions: Mapping[str, Any]) -> Conditions:
    """What `to_json` wrote. Version 0.1 left nothing out, and its first sweeps have no facts."""
    return Conditions(
        facts=conditions.get("facts", {}),
        compare=check(Compare, conditions["compare"], "compare"),
        latency=tuple(_timing(latency) if latency else None for latency in conditions["latency"]),
        left_out=tuple((each["variant"], each["reason"]) for each in conditions.get("left_out", ())),
    )


def _timing(latency: Mapping[str, Any]) -> Timing:
    host, floor = latency["host"], latency["noise_floor"]
    return Timing(
        baseline=latency["baseline"],
        cpu=host["cpu"],
        cores=host["cores"],
        load=host["load_during"],
        runtime=host["runtime"],
        instances=latency["instances"],
        rounds=latency["rounds"],
        noise_floor=math.inf if floor is None else floor,  # JSON has no infinity, which is what no round gives
        config=latency["config"],
    )


def facts(config: Config, variants: int, sweep: Record, uri: str) -> dict[str, str]:
    """A line each. `what` says what was run on what."""
    data = dataset(config)
    images = ", ".join(f"{len(split):,} {name}" for name, split in data.splits().items())
    height, width, channels = data.shape
    lines = {
        "what": f"{variants} variants of {config.model.title} on {config.data.title}: {images} images of {height} × "
        f"{width} × {channels}, {len(data.classes)} classes",
        "command": sweep.tags.get("command", ""),
        "seed": str(config.seed),
        "commit": commit(),
        "data": ", ".join([config.data.name, *(f"{k}={v}" for k, v in plain(config.data.settings).items())]),
        "preprocessing": str(config.model.settings.preprocess),
        "notes on the data": "; ".join(data.notes),
        "fingerprint of the data": data.fingerprint,
        "libraries": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "tracking": f"{uri}, sweep {sweep.run_id}",
    }
    return {name: value for name, value in lines.items() if value}


def commit() -> str:
    """The commit of this code, and whether there is more than it; empty outside a repository."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, encoding="utf-8"
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    if not head or not (root / ".git").exists():
        return ""
    return head + (" with changes that are not committed" if git("status", "--porcelain", "-uno") else "")
