"""What the commands share that read the store: `KEY=VALUE` settings checked by a schema, and the help on them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any

from pydantic import TypeAdapter

from src.cli import frame
from src.settings.check import UserError, check
from src.settings.sections import Tracking
from src.store.address import tracking_defaults


def main(usage: str, schema: Any, work: Callable[[Any], None], bare: str | None = None) -> None:
    """Runs `work` with the settings of the command line. `usage` is the help above the list of settings; `bare` the
    setting that an argument without a key is for."""
    frame.main(lambda: usage + "\n".join(described(schema)), lambda arguments: work(parse(arguments, schema, bare)))


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
