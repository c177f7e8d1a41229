"""What the commands beside `src.run` share: `key=value` settings checked by a schema, help, one-line errors."""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any

from pydantic import TypeAdapter

from src.console.terminal import outlive_readers, plain_where_needed
from src.settings.check import UserError, check
from src.settings.credentials import hidden
from src.settings.sections import Tracking
from src.store.address import tracking_defaults
from src.store.faults import reason


class Refused(Exception):
    """The command did its work and the answer is no: exit code 1."""


def main(usage: str, schema: Any, work: Callable[[Any], None], bare: str | None = None) -> None:
    """Runs `work` with the settings of the command line. `usage` is the help above the list of settings; `bare` the
    setting that an argument without a key is for.

    Exit codes: 0 done, 1 the answer is no, 2 something in the command can't be used, 130 interrupted.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outlive_readers()
    plain_where_needed()
    arguments = sys.argv[1:]
    try:
        if {"-h", "--help"} & set(arguments):
            print(usage + "\n".join(described(schema)))
            return
        work(parse(arguments, schema, bare))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        print(f"error: {hidden(str(error))}", file=sys.stderr)
        sys.exit(2)
    except Refused as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {reason(error)} (HYDRA_FULL_ERROR=1 shows the traceback)", file=sys.stderr)
        sys.exit(1)


def parse(arguments: Sequence[str], schema: Any, bare: str | None = None) -> Any:
    """Raises `UserError` in one line for what `schema` does not take."""
    values: dict[str, Any] = {}
    nested: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            if bare is None or argument.startswith("-") or bare in values:
                raise UserError(f"{argument}: takes settings as KEY=VALUE, and --help")
            key, value = bare, argument
        if key.startswith("tracking."):
            nested[key.removeprefix("tracking.")] = value
        else:
            values[key] = value
    known = {field.name for field in fields(schema)}
    if unknown := [key for key in values if key not in known or key == "tracking"]:
        raise UserError(f"{unknown[0]}: no such key; takes {', '.join(names(schema))}")
    values["tracking"] = check(Tracking, {**tracking_defaults(), **nested}, "tracking")
    try:
        return check(schema, values, "")
    except UserError as error:
        # The settings of a command have no section that could name them.
        raise UserError(str(error).removeprefix(".").removeprefix(": ")) from None


def names(schema: Any) -> list[str]:
    own = [field.name for field in fields(schema) if field.name != "tracking"]
    return [*own, "tracking.uri", "tracking.experiment"]


def described(schema: Any) -> list[str]:
    """A line for each setting: its default and what it means."""
    properties = TypeAdapter(schema).json_schema()["properties"]
    lines = []
    for field in fields(schema):
        if field.name == "tracking":
            continue
        default: Any = field.default
        shown = "" if default is None or default is MISSING else _shown(default)
        lines += _line(f"{field.name}={shown}", properties[field.name].get("description", ""))
    defaults = tracking_defaults()
    lines += _line(f"tracking.uri={defaults['uri']}", "the store that the sweep was recorded in")
    return lines + _line(f"tracking.experiment={defaults['experiment']}", "the MLflow experiment")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _line(setting: str, meaning: str) -> list[str]:
    setting = f"  {setting}"
    return [f"{setting:<26}{meaning}"] if len(setting) < 25 else [setting, f"{'':<26}{meaning}"]
