"""How every command begins and ends: its output, its help, one line for an error, and the exit code."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from src.console.terminal import lost, outlive_readers, plain_where_needed, shown
from src.settings.check import UserError
from src.settings.credentials import hidden
from src.store.faults import reason


class Refused(Exception):
    """The command did its work and the answer is no: exit code 1."""


def main(usage: Callable[[], str], work: Callable[[list[str]], int | None]) -> NoReturn:
    """Ends the process with the exit code of `work`, which gets the arguments of the command line. `usage` gives the
    help."""
    begin()
    arguments = sys.argv[1:]

    def answer() -> int | None:
        if {"-h", "--help"} & set(arguments):
            print(usage())
            return 0
        return work(arguments)

    sys.exit(code_of(answer, wants_traceback(), lambda _: "HYDRA_FULL_ERROR=1 shows the traceback"))


def begin() -> None:
    """SIGTERM is the same as Ctrl-C, output goes to terminals of every kind, and modules are imported without being
    searched for garbage, an eighth of a short command's time."""
    gc.set_threshold(100_000, 50, 50)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outlive_readers()
    plain_where_needed()


def wants_traceback() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def code_of(work: Callable[[], int | None], raising: bool, keep: Callable[[Exception], str]) -> int:
    """The exit code: that of `work`, else 0 done, 1 failed or the answer is no, 2 something in the command can't be
    used, 130 interrupted. 1 as well where not all that it printed could be written.

    With `raising` errors are raised; `keep` takes each and says where its traceback is.
    """
    code = _code_of(work, raising, keep)
    if why := lost():
        _tell(f"error: standard output can't be written ({why})")
        return code or 1
    return code


def _code_of(work: Callable[[], int | None], raising: bool, keep: Callable[[Exception], str]) -> int:
    try:
        return work() or 0
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    except Refused as error:
        _tell(str(error))
        return 1
    except Exception as error:
        traceback = keep(error)
        if raising:
            raise
        if isinstance(error, UserError):
            _tell(f"error: {shown(hidden(str(error)))}")
            return 2
        _tell(f"error: {reason(error)} ({traceback})")
        return 1


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
