"""Composes the config of a variant as Hydra was told to, and checks it."""

import contextlib
import functools
import os
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from src.cli import answers
from src.cli.options import Options
from src.settings.check import DontGoTogether, UserError
from src.settings.config import Config, load, unread
from src.settings.plain import canonical, plain
from src.store.opening import check_writable
from src.sweep.variant import Compose, group_of

LONGEST_NAME = 255  # bytes of a file's name, on the file systems in use
CONF = Path(__file__).resolve().parent.parent.parent / "conf"

# Of the names of Hydra's folders: two runs that begin in the same second have one each.
OmegaConf.register_new_resolver("random", lambda: secrets.token_hex(3), use_cache=True, replace=True)


class _Dumper(yaml.CSafeDumper):
    """Quotes text that OmegaConf would read as a number where PyYAML would not, such as a class called 1e3: a config
    that was recorded can be composed again."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class Composed(NamedTuple):
    """What Hydra composed: settings resolved, the option of each group, and the names in interpolations, if any."""

    settings: dict[str, Any]
    choices: dict[str, str]
    interpolated: frozenset[str] = frozenset()


def composer(master: DictConfig) -> Compose:
    """Composes as Hydra would with the overrides of a variant: the config that `master` names, from where Hydra looks,
    with Hydra's own overrides of `master`."""
    return _Composer(master)


class _Composer:
    """What is overridden in each section is composed once, however many variants it is part of: Hydra takes some 100 ms
    for a config."""

    def __init__(self, master: DictConfig) -> None:
        self._master, self._options = master, options_of(master)
        self._whole, self._apart = functools.cache(self._load), functools.cache(self._load_apart)
        self._sound: set[tuple[str, str]] = set()  # groups with settings that were checked

    def __call__(self, overrides: Sequence[str]) -> Config:
        composed = self._compose(overrides)
        self._check_transforms(composed)
        for group, keys in _unread(composed).items():
            if (seen := (group, canonical(composed.settings[group]))) not in self._sound:
                self._check_as_others(group, keys, overrides)
                self._sound.add(seen)
        return checked(composed)

    def _load(self, *overrides: str) -> Composed:
        options = self._options
        told = [*as_told(self._master.hydra.overrides.hydra), *map(options.forced, overrides)]
        composed = options.loader.load_configuration(options.config_name, told, run_mode=RunMode.RUN)
        OmegaConf.copy_cache(from_config=self._master, to_config=composed)  # of `now`, as Hydra's sweepers do
        tasks = [key for key in composed if key != "hydra"]
        return read(OmegaConf.masked_copy(composed, tasks), composed.hydra.runtime.choices)  # type: ignore[arg-type]

    def _load_apart(
        self, section: str, own: tuple[str, ...], rest: tuple[str, ...]
    ) -> tuple[Any, dict[str, str]] | None:
        """What the overrides `own` make of their section, and which options they choose; None where they reach beyond
        it, so that the config can't be put together from parts."""
        before, after = self._whole(*rest), self._whole(*rest, *own)
        if after.interpolated or section not in after.settings:
            return None
        if _without(section, before.settings) != _without(section, after.settings):
            return None
        chosen = {group: option for group, option in after.choices.items() if before.choices.get(group) != option}
        return after.settings[section], chosen

    def _in_parts(self, overrides: Sequence[str]) -> Composed | None:
        sections = self._whole().settings.keys()
        of_section: dict[str, tuple[str, ...]] = {}
        for override in overrides:
            section = group_of(override)
            of_section[section] = (*of_section.get(section, ()), override)
        rest = tuple(o for section, own in of_section.items() if section not in sections for o in own)
        base = self._whole(*rest)
        if base.interpolated:
            return None
        settings, choices = dict(base.settings), dict(base.choices)
        for section, own in of_section.items():
            if section in sections:
                part = self._apart(section, own, rest)
                if part is None:
                    return None
                settings[section] = part[0]
                choices |= part[1]
        return Composed(settings, choices)

    def _compose(self, overrides: Sequence[str]) -> Composed:
        parts = None
        with contextlib.suppress(HydraException, OmegaConfBaseException):  # if it is wrong as a whole, that is told
            parts = self._in_parts(overrides)
        return parts or self._whole(*overrides)

    def _check_transforms(self, composed: Composed) -> None:
        groups, named = self._options.groups(), composed.settings.get("transforms")
        for group in named if isinstance(named, list) else ():
            if isinstance(group, str) and group not in {*groups, *composed.settings}:
                raise UserError(answers.unknown_group(group, groups))

    def _check_as_others(self, group: str, keys: tuple[str, ...], overrides: Sequence[str]) -> None:
        """Raises `UserError` unless each of `keys`, which the option chosen doesn't take, is one that another option of
        the group takes, with that value."""
        left, wrong = set(keys), []
        for option in self._options.options_of(group):
            if its := {key for key in left if option in self._options.taking(group, key)}:
                try:
                    checked(self._compose(_choosing(group, option, overrides)))
                    left -= its
                except DontGoTogether:
                    left -= its  # each is one that the option takes, and here nothing reads it
                except UserError as error:
                    wrong.append(error)
        if left:
            raise wrong[0] if wrong else UserError(answers.unknown_key(f"{group}.{min(left)}", self._options))


def told(master: DictConfig) -> list[str]:
    """The overrides of the command line that `master` was composed with, as they were typed."""
    return list(map(options_of(master).bare, as_told(master.hydra.overrides.task)))


def options_of(master: DictConfig) -> Options:
    """Those where Hydra looks for what it composed `master` from."""
    loader: Any = GlobalHydra.instance().config_loader()
    return _options(loader, master.hydra.job.config_name, tuple(as_told(master.hydra.overrides.hydra)))


@functools.lru_cache(maxsize=1)
def _options(loader: Any, config_name: str, places: tuple[str, ...]) -> Options:
    return Options(loader, config_name, places)


def _choosing(group: str, option: str, overrides: Sequence[str]) -> list[str]:
    """`overrides` with another option of `group`."""
    choices = [o for o in overrides if re.match(rf"\+?{group}=[^{{]", o)]
    plus = "+" if any(choice.startswith("+") for choice in choices) else ""
    return [*(o for o in overrides if o not in choices), f"{plus}{group}={option}"]


def as_told(overrides: Any) -> list[str]:
    """The overrides that Hydra keeps in its own section. Iterated, their interpolations would be resolved there."""
    told: Any = OmegaConf.to_container(overrides, resolve=False)
    return told


def read(tasks: DictConfig, choices: Any) -> Composed:
    """`tasks` is the config without Hydra's own section; `choices` are of `hydra.runtime`."""
    settings: Any = OmegaConf.to_container(tasks, resolve=True)
    # What is of the environment alone, no other key can change.
    names = re.findall(r"\w+", " ".join(re.findall(r"\$\{(?!oc\.env:)([^}]*)", OmegaConf.to_yaml(tasks))))
    return Composed(settings, dict(choices), frozenset(names))


def checked(composed: Composed) -> Config:
    """Without what the options chosen don't take."""
    settings = dict(composed.settings)
    for group, keys in _unread(composed).items():
        settings[group] = _without_keys(settings[group], keys)
    config = load(settings, composed.choices, variables=composed.interpolated)
    check_writable(config.tracking)
    settings |= {"tracking": plain(config.tracking)}  # without a password
    return replace(config, text=yaml.dump(settings, Dumper=_Dumper, sort_keys=False))


def _unread(composed: Composed) -> dict[str, tuple[str, ...]]:
    """Of each step from a model to an artifact the keys that the option chosen does not take, where there are any."""
    transforms = composed.settings.get("transforms")
    groups = ["train", *(transforms if isinstance(transforms, list) else ()), "quant"]
    steps = {group: composed.settings.get(group) for group in groups if isinstance(group, str)}
    found = {g: unread(g, raw) for g, raw in steps.items() if isinstance(raw, Mapping) and "_target_" in raw}
    return {group: keys for group, keys in found.items() if keys}


def _without_keys(settings: Mapping[str, Any], keys: Collection[str], above: str = "") -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in settings.items():
        if f"{above}{key}" in keys:
            continue
        kept[key] = _without_keys(value, keys, f"{above}{key}.") if isinstance(value, Mapping) and value else value
        if value and kept[key] == {}:
            del kept[key]
    return kept


def _without(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != section}


def check_names_of_folders(config: DictConfig, lists: Sequence[Sequence[str]], loader: Any) -> None:
    """Raises `UserError` where `hydra.sweep.subdir`, which may hold all that is overridden, can't name a folder."""
    told: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if told["subdir"] == "${hydra.job.num}":
        return
    job = loader.load_sweep_config(config, list(max(lists, key=lambda overrides: len(" ".join(overrides)))))
    with open_dict(job):
        job.hydra.job.id = job.hydra.job.num = 0
    HydraConfig.instance().set_config(job)  # read by `${hydra:…}`
    longest = max(str(job.hydra.sweep.subdir).split("/"), key=lambda name: len(os.fsencode(name)))
    if (size := len(os.fsencode(longest))) > LONGEST_NAME:
        raise UserError(
            f"hydra.sweep.subdir: {longest[:40]}… has {size} bytes, a folder's name at most {LONGEST_NAME}; "
            "hydra.job.config.override_dirname.exclude_keys=[KEY,…] leaves some out"
        )
