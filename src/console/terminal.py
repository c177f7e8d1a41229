"""What is printed, on terminals of every kind: those that lack a character get a plain one, and none ends a command."""

import codecs
import errno
import io
import logging
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

# What this project prints beyond ASCII, and what Rich draws lines of. Names of files and classes may hold anything: of
# these each character is escaped, so that two names stay two.
PLAIN = {
    "−": "-",
    "–": "-",
    "─": "-",
    "━": "-",
    "╸": "-",
    "╺": "-",
    "×": "x",
    "±": "+/-",
    "µ": "u",
    "…": "...",
    "→": "->",
}


class _ToWhoeverReads(io.FileIO):
    """A pipe whose reader may go away, as `head` does, or a terminal that may hang up: what nobody reads is no error. A
    disk may be full: what it does not take ends no work either, and `lost` says why."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.gone = {errno.EPIPE, errno.EIO} if self.isatty() else {errno.EPIPE}
        self.lost: str | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in self.gone:
                self.lost = error.strerror
            return len(memoryview(data))


@contextmanager
def meanwhile(what: str) -> Iterator[None]:
    """On a terminal, and only there, says what is being done until it is done or something else is printed."""
    shows = sys.stderr.isatty()
    if shows:
        print(f"{what} …\r", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shows:
            print("\x1b[2K", end="", file=sys.stderr, flush=True)


def outlive_readers() -> None:
    """From here on this process goes on where the reader of its output has gone, so that a sweep ends as it would
    have."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            outliving = io.TextIOWrapper(
                io.BufferedWriter(_ToWhoeverReads(stream.fileno())),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, outliving)


def lost() -> str | None:
    """Why standard output has not taken all that was printed; None where it has."""
    if sys.stdout is None:  # closed by who began this process
        return None
    sys.stdout.flush()
    to = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return to.lost if isinstance(to, _ToWhoeverReads) else None


def plain_where_needed() -> None:
    """From here on standard output and error print in plain characters what their encoding lacks. Each process says so
    for itself, before it prints."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # neither closed nor a test's
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in lacking), error.end


class Terminal(Console):
    """Rich's console, which measures and draws as for any terminal: `plain_where_needed` does the rest. Rich itself
    would draw other tables, wider ones, where an encoding is not UTF-8."""

    @property
    def encoding(self) -> str:
        return "utf-8"


class LogLines(logging.StreamHandler):
    """The lines of a log, which break between words where a terminal is narrow. What follows the first line of a
    message, such as a command, is left to the terminal: it is to be copied."""

    def format(self, record: logging.LogRecord) -> str:
        first, *others = super().format(record).split("\n")
        if self.stream.isatty() and (columns := os.get_terminal_size(self.stream.fileno()).columns):
            indent = " " * len("00:00:00  ")
            first = textwrap.fill(
                first, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
        return "\n".join([first, *others])


def shown(name: str, most: int | None = None) -> str:
    """A name of a file, or in one, in a line: without characters that a terminal would obey, and cut to `most`."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return line if most is None or len(line) <= most else line[: most - 1] + "…"
