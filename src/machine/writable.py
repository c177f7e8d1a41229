"""Whether something can be written, found out before the work whose result goes there."""

import os
import tempfile
from pathlib import Path

from src.settings.check import UserError

ROOM_BYTES = 8 << 20  # what a store, a page with its figures or a log takes at the least


def check(folder: Path, key: str) -> None:
    """Raises `UserError`, which starts with `key`, where `folder`, which need not be there yet, can't be written or has
    no room. Leaves nothing behind."""
    there = folder
    try:
        while not os.path.lexists(there):
            there = there.absolute().parent
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(ROOM_BYTES))
    except OSError as error:
        raise UserError(f"{key}: {there} can't be written ({error.strerror}); takes a place that can") from None
