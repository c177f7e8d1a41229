"""The program's commands as processes that need not import anything: each is forked from one that has imported all.

Only the seconds that Python takes to import MLflow and TensorFlow are saved. A command has a folder, an environment,
output, an exit code and a worker process of its own, as in a shell. Forks leave the same bytes as fresh processes
(`test_from_scratch_with_one_seed_the_artifacts_are_the_same_to_the_byte` in test_sweep.py).
"""

import atexit
import contextlib
import gc
import importlib
import itertools
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

IMPORTED = (
    *(f"src.{name}" for name in ("run", "pick", "export", "verify", "compare", "benchmark", "audit", "pipeline.work")),
    *("mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "jinja2", "scipy.stats"),
    *("tensorflow", "tf_keras", "tensorflow_model_optimization"),
)
REQUEST_BYTES = 1 << 17


class Command:
    """A command that was started, with what is used of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], stdout: int, stderr: int, status: int) -> None:
        self.args, self.returncode = list(arguments), None
        self.stdout, self.stderr, self.status = (os.fdopen(end, encoding="utf-8") for end in (stdout, stderr, status))
        self.pid = int(self.status.readline())

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self.status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self.status.readline())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """The rest of standard output and error; past the time the command is killed."""
        late = threading.Timer(timeout, self.kill) if timeout else None
        if late:
            late.start()
        with ThreadPoolExecutor(2) as readers:
            output, errors = readers.map(lambda stream: stream.read(), (self.stdout, self.stderr))
        self.wait()
        if late and late.finished.is_set():
            raise subprocess.TimeoutExpired(self.args, timeout or 0, output, errors)
        if late:
            late.cancel()
        return output, errors

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Commands:
    """The process that is forked from. It starts with the first command and ends with this one."""

    def __init__(self) -> None:
        self.requests: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Command:
        """`python -m` and the arguments."""
        if self.requests is None:
            self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                served = [sys.executable, __file__, str(theirs.fileno())]
                self.process = subprocess.Popen(served, env=dict(environment), pass_fds=[theirs.fileno()])
        ends = [os.pipe() for _ in range(3)]
        request = {"arguments": list(arguments), "folder": str(folder), "environment": dict(environment)}
        socket.send_fds(self.requests, [json.dumps(request).encode()], [written for _, written in ends])
        for _, written in ends:
            os.close(written)
        return Command(arguments, *(read for read, _ in ends))


# --- In the process that is forked from, and in its forks ---------------------------------------------------------


def serve(requests: socket.socket) -> None:
    """Starts the commands that it is asked for, until nobody asks any more."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, _reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
    while True:
        request, ends, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
        if not request:
            return
        if not os.fork():
            requests.close()
            _wait_for(ends, **json.loads(request))
        for end in ends:
            os.close(end)


def _reap(*_: Any) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _wait_for(ends: Sequence[int], **request: Any) -> None:
    """Starts a command and tells the id of its process, and its exit code once it has ended."""
    output, errors, status = ends
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if not pid:
        os.close(status)
        _be_command(output, errors, **request)
    os.close(output)
    os.close(errors)
    os.write(status, f"{pid}\n".encode())
    _, code = os.waitpid(pid, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
    os._exit(0)


def _be_command(output: int, errors: int, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    code: Any = 1
    try:
        _be_new(environment)
        for descriptor, end in ((1, output), (2, errors)):
            os.dup2(end, descriptor)
            os.close(end)
        os.chdir(folder)
        sys.path[0] = folder
        sys.argv = arguments
        subprocess.Popen = _Popen
        warnings.filterwarnings("ignore", ".* found in sys.modules after import of package", RuntimeWarning)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # as an interpreter does at its end, and in this order
        atexit._run_exitfuncs()
        for stream in {sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__}:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _be_new(environment: Mapping[str, str]) -> None:
    """Has what a new process has: its own environment, nothing to read and default signals."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


class _Popen(subprocess.Popen):
    """Forks the process of `src.pipeline.worker`, and starts any other program."""

    def __init__(self, args: Any, **options: Any) -> None:
        from src.pipeline import worker

        if args[:3] != [sys.executable, "-c", worker.START]:
            super().__init__(args, **options)
            return
        self.args, self.returncode = args, None
        self.stdin = self.stdout = self.stderr = None
        self._waitpid_lock, self._child_created = threading.Lock(), True
        self.pid = os.fork()
        if not self.pid:
            try:
                _be_worker(args[3:], **options)
            finally:
                traceback.print_exc()
                os._exit(1)


def _be_worker(arguments: list[str], env: Mapping[str, str], stdin: int, stderr: Any, pass_fds: Sequence[int]) -> None:
    gc.freeze()  # what the command has open is not closed a second time here
    os.dup2(stderr.fileno(), 2)
    kept = [2, *sorted(pass_fds), os.sysconf("SC_OPEN_MAX")]
    for below, above in itertools.pairwise(kept):
        os.closerange(below + 1, above)
    _be_new(env)
    logging.getLogger().handlers[:] = []
    logging.getLogger().setLevel(logging.WARNING)
    sys.path[:] = json.loads(arguments[0])
    from src.pipeline import worker

    worker.serve(arguments[1], *map(int, arguments[2:]))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
