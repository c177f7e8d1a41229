"""Settings and results as plain data, and plain data as text that is equal for equal data."""

import json
import os
from typing import Any

from pydantic_core import to_jsonable_python


def plain(value: Any) -> Any:
    """Settings or results as JSON-able data: dataclasses as dicts, tuples as lists, and None for NaN and infinity,
    which JSON does not have."""
    return to_jsonable_python(value, inf_nan_mode="null")


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal for equal data, whatever order it was written in."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def as_utf8(name: str) -> str:
    """A file's name, which Python has read in the encoding of the locale, as what its bytes are in UTF-8. Bytes that
    are none stay, as surrogates."""
    return os.fsencode(name).decode(errors="surrogateescape")
