"""Which store a command reads where it is told of none, and the settings by which a command finds another one."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from src.settings.credentials import apart

TRACKING = Path(__file__).resolve().parents[2] / "conf/tracking/local.yaml"
RETRY_SECONDS = 5  # a person waits for the answer


def tracking_defaults() -> dict[str, Any]:
    """Where results are looked for unless told otherwise: where `src.run` keeps them."""
    defaults: Any = OmegaConf.to_container(OmegaConf.load(TRACKING), resolve=True)
    return {**defaults, "uri": apart(defaults["uri"]), "retry_seconds": RETRY_SECONDS}


def elsewhere(uri: str, experiment: str) -> list[str]:
    """The settings by which a command finds a store that is not the default one."""
    told, defaults = {"uri": uri, "experiment": experiment}, tracking_defaults()
    return [f"tracking.{key}={value}" for key, value in told.items() if value != defaults[key]]
