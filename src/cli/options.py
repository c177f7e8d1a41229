"""What the options of each config group take, so that one override fits a whole sweep: `prune.epochs=3` is for every
option of `prune` that has epochs, and makes no difference to the others."""

import copy
import functools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ConfigDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from src.settings.check import UserError
from src.settings.config import SECTIONS, unread

# An override in one of these is for the option chosen alone.
OTHERS = ("data", "model", "hydra", *SECTIONS)


class _Kept(ConfigRepository):
    """The files of a search path, each read once: Hydra reads them all for every config that it composes."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self.files: dict[str, ConfigResult | None] = {}

    def __deepcopy__(self, memo: Any) -> "_Kept":
        """Hydra's, for the config that it composes: it may get another search path, and then looks anew."""
        return copy.copy(self)

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self.files:
            self.files[config_path] = super().load_config(config_path)
        return copy.deepcopy(self.files[config_path])  # Hydra makes its nodes part of what it composes


class Options:
    """The options of all groups where Hydra looks for them. `places` are the overrides that say where."""

    def __init__(self, loader: ConfigLoaderImpl, config_name: str, places: Sequence[str]) -> None:
        if not isinstance(loader.repository, _Kept):
            loader.repository = _Kept(loader.config_search_path)
        self.loader, self.config_name = loader, config_name
        self.places = [place for place in places if place.startswith("hydra.searchpath=")]
        self._whole, self._options = functools.cache(self._compose), functools.cache(self._list)

    def groups(self) -> list[str]:
        return [group for group in self.loader.list_groups("") if group != "hydra"]

    def options_of(self, group: str) -> list[str]:
        """Empty where `group` is none."""
        return self._options(group)

    def option(self, group: str, option: str) -> DictConfig:
        """What the file of an option says itself, on top of the files that its defaults place in it with `@_here_`."""
        return self._file(f"{group}/{option}")

    def composed(self, overrides: Sequence[str] = ()) -> DictConfig:
        return self.loader.load_configuration(self.config_name, list(overrides), run_mode=RunMode.RUN)

    def taking(self, group: str, path: str) -> Iterator[str]:
        """The options of a group that take a key such as `layers.types`: it is in their files or their settings."""
        return (option for option in self.options_of(group) if self._takes(group, option, path))

    def forced(self, argument: str) -> str:
        """`argument` as Hydra accepts it whatever option is chosen, if it is an override of what some option of its
        group takes; else as it is."""
        group, paths = keys(argument)
        if argument[:1] in "+~" or not paths or group in OTHERS:
            return argument
        return f"++{argument}" if all(any(self.taking(group, path)) for path in paths) else argument

    def bare(self, argument: str) -> str:
        """`argument` as it was before `forced`."""
        told = argument.removeprefix("++")
        return told if self.forced(told) == argument else argument

    def for_job(self, overrides: Sequence[str], choices: Mapping[str, str]) -> list[str]:
        """The overrides of a variant as Hydra accepts them, where `choices` are the options of its groups."""
        return [o if self._in_files(o, choices) else self.forced(o) for o in overrides]

    def for_master(self, overrides: Sequence[str]) -> dict[str, str | None]:
        """Each override of a command line as Hydra accepts it where it composes one config of all of them; None for
        those of what the options chosen don't take."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        swept = [text for text, override in zip(overrides, parsed, strict=True) if override.is_sweep_override()]
        rest = [text for text in overrides if text in swept or self.forced(text) == text]
        told: dict[str, str | None] = dict(zip(overrides, overrides, strict=True))
        if len(rest) < len(overrides):
            choices = self.loader.load_configuration(self.config_name, rest, RunMode.MULTIRUN).hydra.runtime.choices
            told |= {text: None for text in overrides if text not in rest and not self._in_files(text, choices)}
        return told

    def _in_files(self, argument: str, choices: Mapping[str, str]) -> bool:
        group, paths = keys(argument)
        option = choices.get(group, "")
        return (
            not paths
            or option not in self.options_of(group)
            or all(_has(self._whole(group, option), path) for path in paths)
        )

    def _takes(self, group: str, option: str, path: str) -> bool:
        raw = self._whole(group, option)
        nested: Any = True
        for part in reversed(path.split(".")):
            nested = {part: nested}
        if _has(raw, path):
            return True
        with suppress(UserError):  # a module of the user's that is not there
            return bool(raw.get("_target_")) and not unread(group, {"_target_": raw["_target_"], **nested})
        return False

    def _compose(self, group: str, option: str) -> Mapping[str, Any]:
        """What the file of an option says and those that it is made of. Interpolations stay."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files without `_self_`
            places = self.places or self._places_in_the_config()
            config = self.loader.load_configuration(None, [*places, f"+{group}={option}"], run_mode=RunMode.RUN)
        raw: Any = OmegaConf.to_container(config, resolve=False)
        for part in group.split("/"):
            raw = raw.get(part) if isinstance(raw, Mapping) else None
        return raw if isinstance(raw, Mapping) else {}

    def _file(self, path: str) -> DictConfig:
        loaded = self.loader.repository.load_config(path)
        if not loaded or not isinstance(loaded.config, DictConfig):
            return OmegaConf.create()
        # Hydra 1.3 keeps `_here_` as an empty package.
        shared = [d for d in loaded.defaults_list or () if isinstance(d, ConfigDefault) and d.package == ""]
        files = [self._file((default.path or "").removeprefix("/")) for default in shared]
        merged = OmegaConf.unsafe_merge(OmegaConf.create(), *files, loaded.config)
        assert isinstance(merged, DictConfig)
        return merged

    def _list(self, group: str) -> list[str]:
        return self.loader.get_group_options(group, config_name=self.config_name, overrides=self.places)

    def _places_in_the_config(self) -> list[str]:
        loaded = self.loader.repository.load_config(self.config_name)
        places: Any = OmegaConf.select(loaded.config, "hydra.searchpath") if loaded else None
        return [f"hydra.searchpath={json.dumps(list(places))}"] if places else []


@functools.cache
def keys(argument: str) -> tuple[str, list[str]]:
    """The group that an override is of, and which of its keys it sets: `prune` and `layers.types` of
    `prune.layers.types=[Dense]` as of `prune={layers: {types: [Dense]}}`. No keys where it chooses an option."""
    key, _, text = argument.partition("=")
    group, _, path = key.lstrip("+~").partition(".")
    if not text.startswith("{"):
        return group, [path] if path else []
    (override,) = OverridesParser.create().parse_overrides([argument])
    value = None if override.is_sweep_override() else override.value()
    if isinstance(value, dict) and value:
        return group, [".".join(filter(None, [path, inside])) for inside in _paths(value)]
    return group, [path] if path else []


def _paths(value: Mapping[Any, Any]) -> list[str]:
    found = []
    for key, inside in value.items():
        if isinstance(inside, dict) and inside:
            found += [f"{key}.{path}" for path in _paths(inside)]
        else:
            found.append(str(key))
    return found


def _has(raw: Mapping[str, Any], path: str) -> bool:
    node: Any = raw
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True
