"""Ctrl-C, SIGTERM and a terminal that hangs up end a sweep in order and within seconds, also while C++ code keeps
Python from seeing them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A conversion or a compilation can keep the main thread in C++ for longer than a user waits.
GRACE_SECONDS = 3
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_closing: Callable[[], None] | None = None


def watch() -> None:
    """Makes SIGTERM and SIGHUP the same as Ctrl-C, and ends the process with exit code 130 if the main thread has not
    done so itself `GRACE_SECONDS` after one of them."""
    arrived, arrives = os.pipe()
    os.set_blocking(arrives, False)
    signal.set_wakeup_fd(arrives, warn_on_full_buffer=False)
    for number in STOPPING[1:]:
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` asks for
            signal.signal(number, signal.default_int_handler)
    threading.Thread(target=_wait, args=(arrived,), daemon=True).start()


@contextmanager
def closed_by(close: Callable[[], None]) -> Iterator[None]:
    """`close` is called once if the block is interrupted, by whichever thread gets to it."""
    global _closing
    closing = threading.Lock()
    closed = False

    def once() -> None:
        nonlocal closed
        with closing:  # who comes second waits until the first is through
            if not closed:
                closed = True
                close()

    _closing = once
    try:
        yield
    except KeyboardInterrupt:
        once()
        raise
    finally:
        _closing = None


def _wait(arrived: int) -> None:
    while os.read(arrived, 1)[0] not in STOPPING:
        pass
    threading.Event().wait(GRACE_SECONDS)
    if _closing:
        _closing()
    os._exit(130)
