"""Locks between processes. A process holds one for as long as it lives at most.

What two sweeps must not do at once is locked beside the store that both write to; what this machine has only once, in a
folder of this user. Neither place depends on `TMPDIR`, which two jobs of one user need not share.
"""

import contextlib
import errno
import fcntl
import functools
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


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
    """Takes the lock on an open file, which closing it lets go of. Where the file system has no locks, says so and goes
    on without: that costs work done twice, or a latency that is not kept in quiet, but no result."""
    try:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                log.info("%s", waiting)
            fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        _say_without_locks(str(Path(file.name).parent), error.strerror or "")


@functools.cache
def _say_without_locks(where: str, why: str) -> None:
    log.warning(
        "%s is on a file system without locks (%s): sweeps at once do not wait for each other there", where, why
    )


def folder(name: str) -> Path:
    """Where this user's locks of one kind are on this machine: `$XDG_STATE_HOME`, else ~/.local/state, also of a home
    that machines share; for who has no home that can be written, a folder of /tmp."""
    state = os.environ.get("XDG_STATE_HOME", "")
    own = state if os.path.isabs(state) else os.path.expanduser("~/.local/state")
    if os.path.isabs(own):  # else this user has no home
        path = Path(own) / "compression" / f"{name}-{socket.gethostname()}"
        with contextlib.suppress(OSError):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                return path
    path = Path("/tmp") / f"compression-{name}-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path
