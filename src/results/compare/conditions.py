"""What is needed to repeat a sweep: the command, the code, the data and the machine."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from src.data import dataset
from src.settings.config import Config
from src.settings.plain import plain
from src.store.artifacts import Record

LIBRARIES = ("tensorflow", "tf-keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy")


def facts(config: Config, variants: int, sweep: Record, uri: str) -> dict[str, str]:
    """A line each. `what` says what was run on what."""
    data = dataset(config)
    images = ", ".join(f"{len(split):,} {name}" for name, split in data.splits().items())
    height, width, channels = data.shape
    found = {
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
    return {name: value for name, value in found.items() if value}


def commit() -> str:
    """The commit of this code, and whether there is more than it; empty outside a repository."""
    root = Path(__file__).resolve().parents[3]

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
