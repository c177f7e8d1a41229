"""Registers the sweeper: Hydra instantiates only plugins whose class lives in `hydra_plugins`."""

from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore


class WaveSweeper(BasicSweeper):
    """Hydra's basic sweeper, but for launching: each distinct stage once, in waves, and a closing comparison."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> str | None:
        from src.run import multirun

        return multirun(self, arguments)


@dataclass
class WavesConf:
    _target_: str = "hydra_plugins.waves.WaveSweeper"
    # What a bare `-m` runs: the twelve variants.
    params: dict[str, Any] | None = field(default_factory=lambda: {"prune": "none,p1,p2", "quant": "none,drq,fiq,f16"})


ConfigStore.instance().store(group="hydra/sweeper", name="waves", node=WavesConf, provider="hydra-compression")
