"""Composes the config of a variant as Hydra would, and checks it."""

import contextlib
import functools
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config import Config, load
from src.plan import Compose, group_of
from src.tracking import check_writable

CONF = Path(__file__).resolve().parent.parent.parent / "conf"
_INTERPOLATED = "any value is interpolated"

# Of the names of Hydra's folders: two runs that begin in the same second have one each.
OmegaConf.register_new_resolver("random", lambda: secrets.token_hex(3), use_cache=True, replace=True)


class _Dumper(yaml.CSafeDumper):
    """Quotes text that OmegaConf would read as a number where PyYAML would not, such as a class called 1e3: a config
    that was recorded can be composed again."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def composer(hydra_overrides: Sequence[str]) -> Compose:
    """Composes as Hydra would, but what is overridden in each section of the config once, however many variants it is
    part of: Hydra takes some 100 ms for a config."""
    loader = GlobalHydra.instance().config_loader()

    @functools.cache
    def whole(*overrides: str) -> tuple[dict[str, Any], dict[str, str]]:
        composed = loader.load_configuration("config", [*hydra_overrides, *overrides], run_mode=RunMode.RUN)
        tasks = OmegaConf.create({str(key): composed[key] for key in composed if key != "hydra"})
        settings: Any = OmegaConf.to_container(tasks, resolve=True)
        settings[_INTERPOLATED] = "${" in OmegaConf.to_yaml(tasks)
        return settings, OmegaConf.to_container(composed.hydra.runtime.choices)  # type: ignore[return-value]

    @functools.cache
    def apart(section: str, own: tuple[str, ...], rest: tuple[str, ...]) -> tuple[Any, dict[str, str]] | None:
        """What the overrides `own` make of their section, and which options they choose; None where they reach beyond
        it, so that the config can't be put together from parts."""
        (before, chosen_before), (after, chosen) = whole(*rest), whole(*rest, *own)
        beyond = {key for key in before.keys() | after.keys() if key != section and before.get(key) != after.get(key)}
        if beyond or before[_INTERPOLATED]:
            return None
        return after[section], {group: option for group, option in chosen.items() if chosen_before.get(group) != option}

    def in_parts(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]] | None:
        sections = whole()[0].keys()
        of_section: dict[str, tuple[str, ...]] = {}
        for override in overrides:
            section = group_of(override)
            of_section[section] = (*of_section.get(section, ()), override)
        rest = tuple(o for section, own in of_section.items() if section not in sections for o in own)
        settings, choices = (dict(found) for found in whole(*rest))
        for section, own in of_section.items():
            if section in sections:
                found = apart(section, own, rest)
                if found is None:
                    return None
                settings[section] = found[0]
                choices |= found[1]
        return settings, choices

    def compose(overrides: Sequence[str]) -> Config:
        found = None
        with contextlib.suppress(HydraException, OmegaConfBaseException):  # if it is wrong as a whole, that is told
            found = in_parts(overrides)
        settings, choices = found or whole(*overrides)
        return checked({key: value for key, value in settings.items() if key != _INTERPOLATED}, choices)

    return compose


def checked(settings: dict[str, Any], choices: Any) -> Config:
    config = load(settings, choices, yaml.dump(settings, Dumper=_Dumper, sort_keys=False))
    check_writable(config.tracking)
    return config
