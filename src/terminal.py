"""What is printed, on terminals of every kind: those that lack a character get a plain one, and none ends a command."""

import codecs
import io
import os
import sys

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

    def on_broken_pipe(self) -> None:
        """Who read has gone, as `head` does, and so much for the output; Rich would end the process."""
        self.quiet = True
        # What Python has yet to write there would be an error at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
