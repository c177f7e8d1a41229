"""The process that stages run in, for as long as it lives: native code that crashes there costs one stage, and the
command that asks needs no TensorFlow.

`call` is the command's side. The other side is told which function to call; what it logs is logged by the command.
"""

import atexit
import contextlib
import json
import logging
import logging.handlers
import mmap
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from src.console import progress
from src.settings.check import Told, in_short
from src.store.faults import reason

log = logging.getLogger(__name__)

# The process has the modules of this one at hand, wherever they come from.
START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from src.pipeline.worker import serve
serve(sys.argv[2], *map(int, sys.argv[3:]))
"""
SECONDS_TO_END = 5  # native code may keep the process from hearing that it should end
LOOK_SECONDS = 1  # between looks whether whoever waits for this process is still there

_worker: "_Worker | None" = None
_variables: dict[str, str] = {}


class Failed(Told):
    """What was called has failed, or its process has died of it."""


def start() -> None:
    """Starts the process, unless it lives already; it loads TensorFlow while the command goes on."""
    global _worker
    if _worker is None or not _worker.lives:
        stop()
        log.info("loading TensorFlow")
        _worker = _Worker()


def use(variables: dict[str, str]) -> None:
    """The environment that the process needs beside this one's. One that was started with another ends."""
    global _variables
    if variables != _variables:
        stop()
    _variables = variables


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function`, one of a module, gives in the worker process.

    Raises what it raised where that is for the user to read, and `Failed` for the rest: another exception, or a signal
    that the process died of. The traceback of that process is a note of the exception.
    """
    start()
    assert _worker
    try:
        return _worker.call(function, arguments)
    except BaseException:
        if not _worker.idle:
            stop()
        raise


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for what one call leaves, in that of the process: where this command is killed, it goes with it."""
    start()
    assert _worker
    return tempfile.TemporaryDirectory(dir=_worker.folder)


def stop() -> None:
    """Ends the process, whatever it is at."""
    global _worker
    if _worker:
        _worker.end()
    _worker = None


atexit.register(stop)


def _orphaned() -> bool:
    return _launched_by is not None and os.getppid() != _launched_by


def end_with_launcher() -> None:
    """This process does the jobs of a launcher: once that is gone, nobody waits for them."""
    global _launched_by
    _launched_by = _launched_by or os.getppid()


_launched_by: int | None = None


class _Worker:
    """The command's side of one process."""

    def __init__(self) -> None:
        self.idle = True
        self.connection, theirs = multiprocessing.Pipe()
        alive, self.life = os.pipe()  # closed with this process, however it ends
        self.open = contextlib.ExitStack()
        self.errors = self.open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        # TensorFlow 2.21 leaves its `__autograph_generated_file*.py` where a process does not end of itself.
        self.folder = self.open.enter_context(
            tempfile.TemporaryDirectory(prefix="compression-worker-", ignore_cleanup_errors=True)
        )
        self.at = self.open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self.at.truncate(progress.AT_BYTES)
        passed = (theirs.fileno(), alive, self.at.fileno())
        path = json.dumps([os.path.abspath(part) for part in sys.path])
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, path, self.folder, *map(str, passed)],
            env={**os.environ, **_variables, "TMPDIR": self.folder},
            stdin=subprocess.DEVNULL,
            stderr=self.errors,
            pass_fds=passed,
        )
        theirs.close()
        os.close(alive)

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self.idle = False
        try:
            self.connection.send((function, arguments, logging.getLogger().getEffectiveLevel()))
            while True:
                kind, *content = self._next()
                if kind == "log":
                    (record,) = content
                    logger = logging.getLogger(record.name)
                    if logger.isEnabledFor(record.levelno):
                        logger.handle(record)
                    self.connection.send("logged")
                    continue
                self.idle = True
                if kind == "done":
                    return content[0]
                raise content[0]
        except (EOFError, ConnectionError):
            raise Failed(self._died()) from None

    def _next(self) -> Any:
        while not self.connection.poll(LOOK_SECONDS):
            if _orphaned():
                raise KeyboardInterrupt("the launcher is gone")
        return self.connection.recv()

    def _died(self) -> str:
        code = self.process.wait()
        self.at.seek(0)
        at = self.at.read().rstrip(b"\0").decode(errors="replace")
        self.errors.seek(0)
        written = self.errors.read().decode(errors="replace").strip()
        if written:
            log.debug("the process that died had written:\n%s", written)
        if code == -signal.SIGKILL:
            how = "was killed (SIGKILL), probably for want of memory"
        elif code < 0:
            how = f"died of {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        last = written.splitlines()[-1].strip() if written else ""
        return f"its process {how}" + (f" at: {at}" if at else "") + (f" ({in_short(last)})" if last else "")

    def end(self) -> None:
        # Told to end, the process removes its folder, also where this one is killed meanwhile.
        os.close(self.life)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(SECONDS_TO_END)
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.open.close()


# --- In the worker process ------------------------------------------------------------------------------------


def serve(folder: str, connection: int, life: int, at: int) -> None:
    """Calls what it is told to until the command is gone; `folder` is then removed."""
    # Ctrl-C reaches every process of a terminal: the command decides what comes of it.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(life, folder), daemon=True).start()
    progress.show_in(mmap.mmap(at, progress.AT_BYTES))
    from src.machine import backend

    backend.prepare()
    command = Connection(connection)
    handler = _ToCommand(command)
    while True:
        try:
            function, arguments, level = command.recv()
        except EOFError:
            threading.Event().wait()  # until `_end_with` has removed the folder
        progress.at("")
        root = logging.getLogger()
        root.setLevel(level)
        root.handlers[:] = [handler]
        try:
            answer = ("done", function(*arguments))
        except Exception as error:
            told = error if isinstance(error, Told) else Failed(reason(error))
            told.add_note(traceback.format_exc())
            answer = ("failed", told)
        command.send(answer)


def _end_with(life: int, folder: str) -> None:
    os.read(life, 1)  # nothing is ever written: it returns when the command's end is closed
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


class _ToCommand(logging.handlers.QueueHandler):
    """Hands records to the command and waits until they are logged, so that the stage's log is whole when it ends."""

    def __init__(self, command: Connection) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.command = command

    def enqueue(self, record: logging.LogRecord) -> None:
        self.command.send(("log", record))
        self.command.recv()
