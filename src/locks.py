"""Locks between the processes of one machine. A process holds one for as long as it lives at most."""

import contextlib
import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)


def working() -> contextlib.AbstractContextManager[None]:
    """Held by every process that does a stage; waits while latency is measured."""
    return alone(folder("locks") / "quiet", "another sweep measures latency; waiting until it is done", fcntl.LOCK_SH)


def in_quiet() -> contextlib.AbstractContextManager[None]:
    """Held by the one process that measures latency; waits until no process does a stage."""
    return alone(
        folder("locks") / "quiet", "latency is measured in quiet; waiting for the stage that another sweep is at"
    )


@contextmanager
def alone(path: Path, waiting: str = "", how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """One process at a time; one that has to wait says `waiting`. With `how` LOCK_SH together with others that ask
    likewise."""
    with path.open("w", encoding="utf-8") as file:
        wait_for(file, waiting, how)
        yield


def wait_for(file: IO[str], waiting: str = "", how: int = fcntl.LOCK_EX) -> None:
    """Takes the lock on an open file, which closing it lets go of. Raises `OSError` on a file system without locks."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting:
            log.info("%s", waiting)
        fcntl.flock(file, how)


def folder(name: str) -> Path:
    """Where this user's locks of one kind are."""
    path = Path(tempfile.gettempdir()) / f"compression-{name}-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path
