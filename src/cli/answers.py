"""What is said to a user who got the command line wrong, in one line: the key, what it got, what it takes."""

import difflib
import os
import re
import shlex
import sys
from collections.abc import Collection, Sequence
from typing import Protocol

import yaml
from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from src.settings.check import UserError

LAUNCHERS = ("joblib", "ray", "submitit")  # extras of the environment


class Configs(Protocol):
    """What a command line chooses among, as `cli.arguments.Line` gives it."""

    def groups(self) -> list[str]: ...

    def options_of(self, group: str) -> list[str]: ...

    def option(self, group: str, option: str) -> DictConfig: ...

    def composed(self) -> DictConfig: ...


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


def in_one_line(error: Exception, line: Configs | None) -> str:
    """What Hydra, OmegaConf and YAML say over several lines. `line` is None where there was no reading it."""
    text = " ".join(str(error).split()).partition(" See https://")[0]
    cause = error.__cause__
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: {error.problem or error.context}"
    if isinstance(error, OmegaConfBaseException):
        key = getattr(error, "full_key", None)
        said = str(error).partition("\n")[0]
        return f"{key}: {said}" if key and key not in said else said
    if line is None:
        return text
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return unknown_option(group, option, error.options)
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        return unknown_option(match[1], match[2], line.options_of(match[1]))
    if match := re.search(r"Could not override '([^']+)'|Error merging override ([^=]+)=", text):
        key, inner = match[1] or match[2], getattr(cause, "full_key", None) or ""
        if isinstance(cause, ConfigKeyError | ConfigAttributeError) or match[1]:
            return unknown_key(max(key, inner, key=len), line)
    if match := re.fullmatch(r"Error merging override (.+)", text):
        return f"{match[1]}: {str(cause).partition(chr(10))[0]}"
    if match := re.match(r"Ambiguous value for argument '(.+?)' 1\. To use|Sweep parameters '(.+)' requires", text):
        argument = match[1] or match[2]
        key, _, values = argument.partition("=")
        as_list = "" if line.options_of(key) else f"; as a list it is {key}=[{values}]"
        return f"{argument}: is a sweep, which takes -m{as_list}"
    if match := re.search(r"Multiple values for (\S+?)\. To override", text):
        return f"{match[1]}: has a value already; takes {match[1]}=OPTION without a plus sign"
    if isinstance(cause, OmegaConfBaseException) and not text:
        return in_one_line(cause, line)
    return text


def unreadable(argument: str, swept: bool, following: Sequence[str] = ()) -> str:
    """Of an override that Hydra's grammar doesn't take: with the quotes that make it readable, where quotes do, or
    without the spaces at which a shell took the arguments `following` from it."""
    key, equals, value = argument.partition("=")
    joined = argument
    for i, part in enumerate(following):
        if not joined.endswith(","):
            break
        joined += part
        if _reads(joined):
            typed = " ".join([argument, *following[: i + 1]])
            return f"{typed}: a space after the comma? takes {shlex.quote(joined)}"
    if not equals:
        return f"{argument}: takes KEY=VALUE, such as seed=1, or an option that begins with --"
    if not _reads(f"{key}=0"):
        return f"{argument}: {key!r} is no key; a key is words with dots between, such as train.epochs"
    if pasted := path_in_quotes(argument):
        return f"{argument}: the value takes quotes: {pasted}"
    quoted = _quoted_parts(key, value, swept)
    if quoted is None:
        return (
            f"{argument}: can't be read; quotes, brackets and braces come in pairs, and inside them what is more than "
            "letters, digits and ./-_ takes quotes"
        )
    pasted, one = shlex.quote(f"{key}={quoted}"), f"{key}={_quoted(value)}"
    if swept and "," in value and value[:1] != "[" and _reads(one):
        return f"{argument}: the value takes quotes; as one value: {shlex.quote(one)}; as a sweep: {pasted}"
    return f"{argument}: the value takes quotes: {pasted}"


def path_in_quotes(argument: str) -> str | None:
    """`argument` for a shell, its value in quotes: where that is a path with commas, and there is such a file or
    folder."""
    key, _, value = argument.partition("=")
    if "," not in value or not (os.sep in value or key.endswith(".path")):
        return None
    quoted = f"{key}={_quoted(value)}"
    return shlex.quote(quoted) if os.path.exists(os.path.expanduser(value)) and _reads(quoted) else None


def _quoted_parts(key: str, value: str, swept: bool) -> str | None:
    """`value` with quotes, or, of a list or a sweep, with quotes around what needs them; None where that doesn't do."""
    if value.startswith("[") and value.endswith("]"):
        parts = _each_quoted(key, value[1:-1].split(","))
        return f"[{parts}]" if _reads(f"{key}=[{parts}]") else None
    if value[:1] in ("[", "{", "'", '"'):
        return None
    quoted = _each_quoted(key, value.split(",")) if swept else _quoted(value)
    return quoted if _reads(f"{key}={quoted}") else None


def _each_quoted(key: str, values: Sequence[str]) -> str:
    return ",".join(value if _reads(f"{key}={value}") else _quoted(value) for value in values)


def _quoted(value: str) -> str:
    """In Hydra's quotes, before which backslashes are doubled."""
    quote = "'" if '"' in value and "'" not in value else '"'
    escaped = re.sub(rf"(\\*){quote}", rf"\1\1\\{quote}", value)
    return quote + re.sub(r"(\\+)$", r"\1\1", escaped) + quote


def _reads(argument: str) -> bool:
    try:
        OverridesParser.create().parse_overrides([argument])
    except HydraException:
        return False
    return True


def unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    extra = option.partition("_")[0]
    if group == "hydra/launcher" and extra in LAUNCHERS:
        return f"{group}={option}: is not installed; `make setup EXTRAS=dev,{extra}` installs it"
    close = difflib.get_close_matches(option, options, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    unset = "; without it the default stands" if option == "null" and "none" not in options else ""
    return f"{group}={option}: no such option; {hint}takes one of {', '.join(sorted(options))}{unset}"


def unknown_group(group: str, groups: Sequence[str]) -> str:
    """Of a name in `transforms`; `groups` are all that there are."""
    close = difflib.get_close_matches(group, groups, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    there_are = ", ".join(sorted(groups))
    own = "one in a folder of your own takes --config-dir DIR"
    return f"transforms={group}: no such config group; {hint}there are {there_are}; {own}"


def _nearest(name: str, known: Collection[str]) -> list[str]:
    """The key that is meant, if any: `learning_rate` by its initials too."""
    initials = [key for key in sorted(known) if "".join(word[:1] for word in key.split("_")) == name]
    return initials[:1] or difflib.get_close_matches(name, known, 1)


def unknown_key(key: str, line: Configs) -> str:
    """Names the first part of `key` that there isn't, and what there is in its place."""
    parts = key.split(".")
    group = parts[0]
    if parts[:2] == ["hydra", "launcher"]:
        return f"{key}: the launcher chosen has no such key; hydra/launcher={' or '.join(LAUNCHERS)} has others"
    options: list[str] = []
    if "@" in group:
        return f"{key}: the defaults have no such package; +{key}=OPTION adds one"
    if group == "hydra":
        roots, inside = [OmegaConf.structured(HydraConf)], 1
    elif options := sorted(line.options_of(group)):
        roots, inside = [line.option(group, option) for option in options], 1
    else:
        roots, inside = [line.composed()], 0
    for depth in range(inside, len(parts)):
        parent, name = ".".join(parts[:depth]), parts[depth]
        within = [OmegaConf.select(root, ".".join(parts[inside:depth])) if depth > inside else root for root in roots]
        keys = {str(k) for node in within if isinstance(node, DictConfig) for k in node}
        known = {k for k in keys if not k.startswith("_")} - {"defaults"}
        if depth == 0:
            known = known - {"hydra"} | set(line.groups())
        if name not in known:
            close = _nearest(name, known)
            meant = [*parts[:depth], *close, *parts[depth + 1 :]]
            there = len(parts) == depth + 1 or any(OmegaConf.select(r, ".".join(meant[inside:])) for r in roots)
            hint = f"did you mean {'.'.join(meant)}? " if close and there else ""
            return f"{key}: no such key; {hint}{parent or 'the top level'} takes {', '.join(sorted(known)) or 'none'}"
    if depth := len(parts) - inside:
        parent = ".".join(parts[inside:-1])
        have = [
            option
            for option, root in zip(options, roots, strict=False)
            if parts[-1] in (OmegaConf.select(root, parent) if parent else root)
        ]
        return f"{key}: the option chosen has no such key; {group}={' or '.join(have)} has it"
    return f"{key}: takes one of {', '.join(options)}"
