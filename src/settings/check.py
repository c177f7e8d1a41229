"""Checks a value against a type or a dataclass, and says in English what a key takes.

Nothing here imports TensorFlow: a wrong value is answered before the seconds that TensorFlow takes to load.
"""

import functools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _height_and_width(value: Any) -> Any:
    sides = (value, value) if isinstance(value, int) else value
    if (
        not isinstance(sides, list | tuple)
        or len(sides) != 2
        or not all(type(n) is int and 4 <= n <= 1024 for n in sides)
    ):
        raise PydanticCustomError("takes", "takes a whole number from 4 to 1024, or two, [height,width]")
    return sides


ImageSize = Annotated[tuple[int, int], BeforeValidator(_height_and_width)]  # one number is both
SplitShare = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def in_short(text: object, most: int = 300) -> str:
    """One line of at most `most` characters, cut between words unless one of them is most of it."""
    line = " ".join(str(text).split())
    if len(line) <= most:
        return line
    cut = line.rfind(" ", most // 2, most - 1)
    return f"{line[: cut if cut > 0 else most - 2]} …"


class Told(Exception):
    """An error whose text is for the user to read: one line that says all there is to say."""


class UserError(Told):
    """Something the user gave can't be used: one line that names it, what it got and what it takes. Exit code 2."""


class DontGoTogether(UserError):
    """Settings of one step each of which can be used, but not with the others."""


class Unfit(UserError):
    """A step that makes no sense after the steps before it, or for the model. A grid leaves the variant out; asked for
    alone it can't be made."""


_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


@functools.cache
def _schema(expected: Any) -> Mapping[str, Any]:
    return _adapter(expected).json_schema()


def check(expected: Any, value: Any, key: str) -> Any:
    """`value` as `expected` (a type or a schema of this module); `key`, which may be empty, names it in the error.

    Raises `UserError` in one line: the key, what it got, what it takes.
    """
    adapter = _adapter(expected)
    try:
        checked = adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        kind = DontGoTogether if first["type"] == "value_error" and not first["loc"] else UserError
        raise kind(_one_line(error, _schema(expected), key)) from None
    for location, truth in _taken_for_numbers(value, checked):
        raise UserError(_takes_other(truth, _schema(expected), key, location))
    return checked


def names(expected: Any) -> list[str]:
    """What the settings of a schema are called."""
    return _fields(_schema(expected), ())


def knows(expected: Any, path: Sequence[str]) -> bool:
    """Whether a schema has a setting of this name, or of these names one inside the other."""
    schema = _schema(expected)
    nodes = [_node(schema, ())]
    for part in path:
        inside = [n.get("properties", {}).get(part) or n.get("additionalProperties") for n in nodes]
        nodes = []
        for node in filter(None, inside):
            either = node.get("anyOf", [node]) if isinstance(node, Mapping) else [{}]
            nodes += [_node({**option, "$defs": schema.get("$defs", {})}, ()) for option in either]
    return bool(nodes)


def _taken_for_numbers(value: Any, checked: Any, location: tuple[str, ...] = ()) -> Iterator[tuple[list[str], bool]]:
    """Where `value` has true or false and `checked` a number: Python takes the one for the other."""
    if isinstance(value, bool):
        if isinstance(checked, int | float | tuple) and not isinstance(checked, bool):
            yield list(location), value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _taken_for_numbers(one, getattr(checked, str(key), None), (*location, str(key)))
    elif isinstance(value, list) and isinstance(checked, tuple):
        for i, (one, other) in enumerate(zip(value, checked, strict=False)):
            yield from _taken_for_numbers(one, other, (*location, str(i)))


def _one_line(error: ValidationError, schema: Mapping[str, Any], key: str) -> str:
    # A key that is missing and one that is unknown are one key, misspelt.
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda each: each["type"] in ("missing", "missing_argument"))
    location = [str(part) for part in first["loc"]]
    name = _name(key, location)
    match first["type"]:
        case "unexpected_keyword_argument":
            takes = ", ".join(_fields(schema, location[:-1]))
            return f"{name}: no such key; {_name(key, location[:-1])} takes {takes}"
        case "missing" | "missing_argument":
            return f"{name}: needs a value; takes {_takes(schema, location)}"
        case "takes":
            return f"{name}={_shown(first['input'])}: {first['msg']}"
        case "value_error":
            said = str(first["ctx"]["error"])
            return f"{name}.{said}" if re.match(r"[\w.]+=[^ ]*: ", said) else f"{name}: {said}"
        case "string_type" if isinstance(first["input"], int | float):
            quoted = shlex.quote(f'{name}="{json.dumps(first["input"])}"')
            return f"{_takes_other(first['input'], schema, key, location)}; as text it takes quotes: {quoted}"
        case _:
            return _takes_other(first["input"], schema, key, location)


def _takes_other(got: Any, schema: Mapping[str, Any], key: str, location: Sequence[str]) -> str:
    return f"{_name(key, location)}={_shown(got)}: takes {_takes(schema, location)}"


def _shown(got: Any) -> str:
    return got if isinstance(got, str) else json.dumps(got, default=str)


def _name(key: str, location: Sequence[str]) -> str:
    """One of a list goes by the name of the list."""
    return ".".join(filter(None, [key, *(part for part in location if not part.isdigit())]))


def _node(schema: Mapping[str, Any], location: Sequence[str]) -> Mapping[str, Any]:
    """The part of a JSON schema that describes one key, references followed."""
    node, definitions = schema, schema.get("$defs", {})
    for part in (None, *location):
        if part is not None:
            node = node["items"] if part.isdigit() and "items" in node else node.get("properties", {}).get(part, {})
        if "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[1]]
    return node


def _fields(schema: Mapping[str, Any], location: Sequence[str]) -> list[str]:
    return list(_node(schema, location).get("properties", {}))


def _takes(schema: Mapping[str, Any], location: Sequence[str]) -> str:
    node = _node(schema, location)
    if choices := node.get("enum") or ([node["const"]] if "const" in node else None):
        return "one of " + ", ".join(map(str, choices))
    if options := node.get("anyOf"):
        return " or ".join("nothing (null)" if o.get("type") == "null" else _takes(o, ()) for o in options)
    kinds = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "array": "a list",
        "object": "settings: " + ", ".join(node.get("properties", {})),
    }
    words = kinds.get(node.get("type", ""), "another value")
    if node.get("minLength"):
        words = node.get("description", "text that is not empty")
    if "minimum" in node:
        words += f" of at least {node['minimum']}"
    if "exclusiveMinimum" in node:
        words += f" above {node['exclusiveMinimum']}"
    low = "minimum" in node or "exclusiveMinimum" in node
    if "maximum" in node:
        words += f"{' and' if low else ' of'} at most {node['maximum']}"
    if "exclusiveMaximum" in node:
        words += f"{' and' if low else ''} below {node['exclusiveMaximum']}"
    return words
