"""What was found out about a model, kept between runs, so that a second look at the same model takes no time. It is a
cache: what is gone from it is found out again."""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def remembered(folder: Path | None, key: str, find: Callable[[], Any]) -> Any:
    """What `find` gave when it was first asked with this key, JSON-able data; None for `folder` keeps nothing.

    What `find` raises is not kept: it may have been for another reason than the model.
    """
    if folder is None:
        return find()
    file = folder / f"{key[:32]}.checked.json"
    with suppress(OSError, ValueError):  # not there, or damaged
        return json.loads(file.read_text(encoding="utf-8"))
    found = find()
    with suppress(OSError):  # a full disk, or a folder that may only be read
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(".tmp", dir=folder)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(found, stream)
        os.replace(temporary, file)
    return found
