"""What Hydra keeps of a config in the folder of a run, `.hydra/*.yaml`: without the passwords that are in it."""

from pathlib import Path
from typing import Any

import hydra.core.utils
from omegaconf import OmegaConf

from src.settings.credentials import hidden


def without_passwords() -> None:
    """For this process, before Hydra runs a job. Hydra 1.3 writes before it calls anything that could change what."""
    hydra.core.utils._save_config = _save


def _save(cfg: Any, filename: str, output_dir: Path) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / filename).write_text(hidden(OmegaConf.to_yaml(cfg)), encoding="utf-8")
