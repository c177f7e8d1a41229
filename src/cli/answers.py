"""What is said to a user who got the command line wrong, in one line; and the groups and options of the help."""

import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any

from hydra.conf import HydraConf
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from src.cli.compose import CONF
from src.config import UserError

LAUNCHERS = ("joblib", "ray", "submitit")  # extras of the environment


def _options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def _groups() -> str:
    """For `--help`: a line per group, its default first."""
    defaults: dict[str, Any] = {}
    for default in OmegaConf.load(CONF / "config.yaml").defaults:
        defaults |= default if isinstance(default, DictConfig) else {}
    lines = []
    for group in sorted(directory.name for directory in CONF.iterdir() if directory.is_dir()):
        if group in defaults:
            others = [option for option in _options(group) if option != defaults[group]]
            default = f"{defaults[group]} (default)" if defaults[group] else ""
            lines.append(f"  {group}={', '.join(filter(None, [default, *others]))}")
    return "\n".join(lines)


OmegaConf.register_new_resolver("groups", _groups, replace=True)


def refuse_null_options(arguments: Sequence[str]) -> None:
    """`prune=null` ends in an AttributeError inside Hydra 1.3."""
    for argument in arguments:
        group, equals, values = argument.partition("=")
        if equals and group != "experiment" and (CONF / group).is_dir() and {"null", ""} & set(values.split(",")):
            raise UserError(f"{argument}: takes one of {', '.join(_options(group))}")


def refuse_what_is_no_text(arguments: Sequence[str]) -> None:
    """Bytes that the locale can't read come from Python as halves of characters, which no file and no store takes."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding()
            takes = "a link with another name" if encoding == "utf-8" else "a locale such as LC_ALL=C.UTF-8"
            raise UserError(
                f"{argument}: is no text in {encoding}, the encoding of file names here; takes {takes}"
            ) from None


def in_one_line(error: Exception) -> str:
    """What Hydra and OmegaConf say over several lines, with the key, what it got and what it takes."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return _unknown_option(group, option, error.options)
    if match := re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text):
        return _unknown_key(match[1] or match[2])
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        return _unknown_option(match[1], match[2], _options(match[1]))
    if match := re.fullmatch(r"Error merging override (.+)", text):
        return f"{match[1]}: {str(error.__cause__).partition(chr(10))[0]}"
    return text


def _unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    extra = option.partition("_")[0]
    if group == "hydra/launcher" and extra in LAUNCHERS:
        return f"{group}={option}: is not installed; `make setup EXTRAS=dev,{extra}` installs it"
    close = difflib.get_close_matches(option, options, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{group}={option}: no such option; {hint}takes one of {', '.join(options)}"


def _unknown_key(key: str) -> str:
    """Names the first part of `key` that there isn't, and what there is in its place."""
    parts = key.split(".")
    if parts[:2] == ["hydra", "launcher"]:
        return f"{key}: the launcher chosen has no such key; hydra/launcher={' or '.join(LAUNCHERS)} has others"
    if parts[0] == "hydra":
        files, roots, inside = [], [OmegaConf.structured(HydraConf)], 1
    elif (CONF / parts[0]).is_dir():
        files = sorted((CONF / parts[0]).glob("*.yaml"))
        roots, inside = [OmegaConf.load(file) for file in files], 1
    else:
        files, roots, inside = [], [OmegaConf.load(CONF / "config.yaml")], 0
    for depth in range(inside, len(parts)):
        parent, name = ".".join(parts[:depth]), parts[depth]
        within = [OmegaConf.select(root, ".".join(parts[inside:depth])) if depth > inside else root for root in roots]
        known = {str(k) for node in within if isinstance(node, DictConfig) for k in node} - {"_target_", "defaults"}
        if depth == 0:
            known = known - {"hydra", "sweep"} | {folder.name for folder in CONF.iterdir() if folder.is_dir()} - {
                "hydra"
            }
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {'.'.join([*parts[:depth], close[0], *parts[depth + 1 :]])}? " if close else ""
            return f"{key}: no such key; {hint}{parent or 'the top level'} takes {', '.join(sorted(known)) or 'none'}"
    have = [
        file.stem for file, node in zip(files, within, strict=True) if isinstance(node, DictConfig) and name in node
    ]
    return f"{key}: the option chosen has no such key; {parts[0]}={' or '.join(have)} has it"
