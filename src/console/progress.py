"""Lines in the log that say how far something is that takes longer than a moment."""

import logging
import mmap
import time

SECONDS_BETWEEN_LINES = 5
AT_BYTES = 256

_shown_in: mmap.mmap | None = None


def show_in(memory: mmap.mmap) -> None:
    """What this process is at is written to `memory`, of `AT_BYTES`, where it can be read after a crash."""
    global _shown_in
    _shown_in = memory


def at(what: str) -> None:
    """`what` is being done now."""
    if _shown_in:
        _shown_in[:] = what.encode()[:AT_BYTES].ljust(AT_BYTES, b"\0")


class Progress:
    """Tells how far something is, at most every few seconds, with the time it has taken and the time it has left."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self.started = self.said = time.monotonic()
        self.pace_from = (0.0, self.started)

    def warmed_up(self, share: float) -> None:
        """What took time until now, such as compiling, does not come again: the time left is estimated from now on."""
        self.pace_from = (share, time.monotonic())

    def __call__(self, share: float, what: str, last: bool = False) -> None:
        """`share` of 1 is done, which goes without saying; `what` is being done. The `last` line of a job that was long
        enough is always said."""
        at(what)
        now = time.monotonic()
        spent = now - self.started
        if (now - self.said > SECONDS_BETWEEN_LINES and share < 1) or (last and spent > 2):
            self.said = now
            share_before, then = self.pace_from
            pace = (now - then) / (share - share_before) if share > share_before else 0.0
            left = f", {pace * (1 - share):.0f} s left" if pace and share < 1 else ""
            self.log.info("  %s (%.0f s%s)", what, spent, left)
