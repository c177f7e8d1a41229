"""The command line as it was typed, checked before Hydra composes anything: what Hydra 1.3 answers with a usage text, a
traceback or an internal error is one line that says what to type instead."""

import argparse
import itertools
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_automatic_config_search_path, get_args_parser
from hydra.conf import HydraConf
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, RangeSweep
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf

from src.cli import answers
from src.cli.compose import CONF
from src.cli.options import Options
from src.settings.check import UserError
from src.settings.config import SECTIONS, STEPS

MOST_VARIANTS = 100_000  # of one sweep, which holds each in memory


class _Parser(argparse.ArgumentParser):
    """Hydra's options, and one line in place of argparse's usage text."""

    def __init__(self) -> None:
        super().__init__(prog="python -m src.run", add_help=False, parents=[get_args_parser()])

    def error(self, message: str) -> Any:
        raise UserError(f"{message}; --help lists settings, --hydra-help options")


def in_hydras_order(arguments: Sequence[str]) -> list[str]:
    """`arguments`, in which options may stand anywhere, with all overrides in one piece, as Hydra 1.3 takes them."""
    with suppress(UserError):
        _Parser().parse_args(arguments)
        return list(arguments)
    overrides = _Parser().parse_intermixed_args(arguments).overrides
    options = list(arguments)
    for override in overrides:
        options.remove(override)
    return [*overrides, *options]


def without_sweeping(arguments: Sequence[str]) -> list[str]:
    """`arguments` without `-m` where they ask for a config to be shown: that of a sweep without lists is the same."""
    if _Parser().parse_args(arguments).cfg:
        return [argument for argument in arguments if argument not in ("-m", "--multirun")]
    return list(arguments)


class Line(Options):
    """What the command line tells Hydra, and where Hydra will look for configs."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """`arguments` are in Hydra's order. Raises `UserError` for options that don't go together or that name what
        there isn't."""
        self.options = _Parser().parse_args(arguments)
        self.overrides: list[str] = self.options.overrides
        config_name = self.options.config_name or "config"
        _check_together(self.options)
        _check_is_a_name(config_name)
        super().__init__(_loader(self.options), config_name, self.overrides)
        if not self.loader.repository.config_exists(self.config_name):
            known = [name for name in self.loader.get_group_options("") if not name.startswith("_")]
            raise UserError(f"--config-name={self.config_name}: no such config; there is {', '.join(sorted(known))}")
        self._check_defaults()

    def for_hydra(self, arguments: Sequence[str]) -> list[str]:
        """`arguments`, of which this line was made, as Hydra accepts them. Of a config that is only shown, what the
        options chosen don't take is left out."""
        told: Mapping[str, str | None] = self.for_master(self.overrides)
        if self.options.cfg:
            return [argument for argument in arguments if told.get(argument, argument)]
        return [argument if told.get(argument, argument) else self.forced(argument) for argument in arguments]

    def check(self) -> None:
        """Raises `UserError` for the first override that can't be read, that sweeps over nothing, or that chooses what
        can't be an option of its group."""
        for override in parsed(self.overrides, self.loader, swept=self.options.multirun):
            if override.is_sweep_override():
                self._check_sweep(override)
            elif isinstance(override.value(), dict):
                self._check_is_no_list(override)
            if options := self.options_of(override.key_or_group):
                _check_options(override, options)
                self._check_list(override)
            elif override.is_add() or override.is_force_add():
                self._check_hydras(override.key_or_group)
        package = self.options.package if self.options.cfg else None
        if package not in (None, "_global_"):
            shown = self.composed(self.for_hydra(self.overrides))
            if OmegaConf.select(shown, package) is None:
                raise UserError(f"--package {package}: no such key in the config")

    def _check_defaults(self) -> None:
        """A config of a user's own that neither takes this project's settings nor has all of them itself."""
        loaded = self.loader.repository.load_config(self.config_name)
        if not loaded or not isinstance(loaded.config, DictConfig):
            return
        takes_others = any(not default.is_self() for default in loaded.defaults_list or ())
        if takes_others or {"transforms", *STEPS, *SECTIONS} <= {str(key) for key in loaded.config}:
            return
        name = self.config_name if self.config_name.endswith((".yaml", ".yml")) else f"{self.config_name}.yaml"
        advice = "takes defaults: [config, _self_] as its first line"
        if self.options.config_path:  # where this project's `config` is not found, or is this very file
            other_name = ", another name" if self.config_name == "config" else ""
            advice += f"{other_name}, and --config-dir in place of --config-path"
        raise UserError(f"{loaded.path.removeprefix('file://')}/{name}: takes none of the default settings; {advice}")

    def _check_sweep(self, override: Override) -> None:
        argument = str(override.input_line)
        if quoted := answers.path_in_quotes(argument):
            raise UserError(
                f"{argument}: is a list of values; as the one path that there is, it takes quotes: {quoted}"
            )
        if self.options.cfg:
            key, first = argument.partition("=")[0], next(override.sweep_string_iterator())
            raise UserError(
                f"{argument}: --cfg shows the config of one variant; takes one value, such as {key}={first}; "
                "-m … plan=true shows all variants"
            )

    def _check_is_no_list(self, override: Override) -> None:
        """OmegaConf 2.3 can't merge settings in braces into a list, and says so in its own terms."""
        key = override.key_or_group
        group, _, path = key.partition(".")
        roots = [self.option(group, option) for option in self.options_of(group)] if path else []
        told = (OmegaConf.select(root, path) for root in roots) if roots else [OmegaConf.select(self.composed(), key)]
        if any(isinstance(value, ListConfig) for value in told):
            value = str(override.input_line).partition("=")[2]
            raise UserError(f"{override.input_line}: takes a list: {key}=[{value}]")

    def _check_hydras(self, key: str) -> None:
        """Hydra takes any key that is added to its own section, and reads what it knows."""
        node: Any = OmegaConf.structured(HydraConf)
        for part in key.split(".")[1:] if key.startswith("hydra.") else ():
            if not is_dataclass(OmegaConf.get_type(node)):
                return
            if part not in node:
                raise UserError(answers.unknown_key(key, self))
            node = None if OmegaConf.is_missing(node, part) else node[part]

    def _check_list(self, override: Override) -> None:
        """Hydra merges several options of a group, which makes sense of whole studies, and of nothing else here."""
        value, group = override.value(), override.key_or_group
        if isinstance(value, list):
            loaded = [self.loader.repository.load_config(f"{group}/{option}") for option in value]
            if not all(config and config.header["package"] == "_global_" for config in loaded):
                raise UserError(
                    f"{override.input_line}: takes one option; -m {group}={','.join(map(str, value))} sweeps"
                )


def grid(params: Mapping[str, Any] | None) -> list[str]:
    """The overrides that `hydra.sweeper.params` are; null leaves one out, a list is one of values to sweep over."""
    told = {key: value for key, value in (params or {}).items() if value is not None}
    return [f"{key}={','.join(map(str, v)) if isinstance(v, list | ListConfig) else v}" for key, v in told.items()]


def parsed(arguments: Iterable[str], loader: ConfigLoaderImpl, swept: bool) -> list[Override]:
    """The overrides that `arguments` are; `swept` says whether a list of values is a sweep.

    Raises `UserError` for one that can't be read or that sweeps over nothing.
    """
    parser = OverridesParser.create(config_loader=loader)
    overrides = []
    variants = 1
    arguments = list(arguments)
    for i, argument in enumerate(arguments):
        try:
            (override,) = parser.parse_overrides([argument])
        except HydraException:
            raise UserError(answers.unreadable(argument, swept, arguments[i + 1 :])) from None
        if not override.key_or_group:
            raise UserError(f"{argument}: takes KEY=VALUE, such as seed=1")
        variants *= _count(override)
        if variants > MOST_VARIANTS:
            raise UserError(f"{argument}: makes more than {MOST_VARIANTS:,} variants, the most that a sweep takes")
        overrides.append(override)
    return overrides


def _count(override: Override) -> int:
    """How many values an override has, at most one more than the most variants."""
    if not override.is_sweep_override():
        return 1
    if not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: takes values that can be counted: a list, choice(), range() or glob()")
    value = override._value
    try:
        values: Any = value.range() if isinstance(value, RangeSweep) else override.sweep_iterator()
        count = sum(1 for _ in itertools.islice(values, MOST_VARIANTS + 1))
    except ValueError as error:  # a step of 0
        raise UserError(f"{override.input_line}: {error}") from None
    if not count:
        raise UserError(f"{override.input_line}: is a sweep over nothing")
    return count


def _check_options(override: Override, options: Sequence[str]) -> None:
    """Hydra 1.3 raises an internal error for an option that is null, a number or a truth value."""
    if override.is_delete():
        return
    for value in override.sweep_iterator() if override.is_sweep_override() else [override.value()]:
        text = value.text if isinstance(value, QuotedString) else value
        if not isinstance(text, str | list | dict) or not text:
            shown = "null" if text is None else str(text).lower() if isinstance(text, bool) else text
            raise UserError(answers.unknown_option(override.key_or_group, str(shown), options))
        if isinstance(text, dict) and "/" in override.key_or_group:
            raise UserError(f"{override.input_line}: takes one of {', '.join(options)}")


def _check_is_a_name(config_name: str) -> None:
    """Of a path Hydra 1.3 says that it is not there, and shows it without its leading slash."""
    path = Path(os.path.expanduser(config_name))
    if path.is_absolute() or (len(path.parts) > 1 and (path.is_file() or Path(f"{path}.yaml").is_file())):
        name = path.stem if path.suffix == ".yaml" else path.name
        options = shlex.join(["--config-dir", str(path.parent), "--config-name", name])
        raise UserError(f"--config-name={config_name}: is a path; takes a name: {options}")


def _check_together(options: argparse.Namespace) -> None:
    modes = {
        "--run": options.run,
        "--multirun": options.multirun,
        "--cfg": options.cfg,
        "--info": options.info,
        "--shell-completion": options.shell_completion,
    }
    told = [mode for mode, is_told in modes.items() if is_told]
    if len(told) > 1:
        raise UserError(f"{' and '.join(told)}: takes one of them")
    if options.resolve and not options.cfg:
        raise UserError("--resolve: goes with --cfg job")
    if options.experimental_rerun:
        raise UserError(
            f"--experimental-rerun {options.experimental_rerun}: a pickled config can run code and is not taken; the "
            "command that made it runs it again"
        )


def _loader(options: argparse.Namespace) -> ConfigLoaderImpl:
    """Looks for configs where `hydra.main` of Hydra 1.3 does."""
    main = options.config_path or str(CONF)
    if main.endswith((".yaml", ".yml")):
        raise UserError(f"--config-path={main}: takes a folder; --config-dir DIR --config-name NAME take a file in one")
    search_path = create_automatic_config_search_path(None, "src.run", main)
    if options.config_dir:
        if not Path(options.config_dir).is_dir():
            raise UserError(f"--config-dir={options.config_dir}: no such folder")
        folder = f"file://{os.path.abspath(options.config_dir)}"
        search_path.prepend("command-line", folder, SearchPathQuery(provider="schema"))
    loader = ConfigLoaderImpl(search_path)
    try:
        loader.ensure_main_config_source_available()
    except MissingConfigException:
        raise UserError(
            f"--config-path={main}: no such folder; takes a whole path, such as {os.path.abspath(main)}"
        ) from None
    return loader
