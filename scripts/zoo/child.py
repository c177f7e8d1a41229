"""A process that answers many requests. It may crash or hang: whoever asks learns that, and the next request starts
another one."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

Answers = Callable[[dict[str, Any]], Iterator[dict[str, Any]]]


class Died(Exception):
    """The process ended before it had answered. The text says how, such as `SIGSEGV` or `timeout`."""


class Child:
    """The asking side. `module` calls `serve`; `seconds` is the longest time between two answers."""

    def __init__(self, module: str, variables: dict[str, str], seconds: float) -> None:
        self.module, self.variables, self.seconds = module, variables, seconds
        self.process: subprocess.Popen[str] | None = None
        self.buffer = b""

    def ask(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The answers to `request`, as they come. Raises `Died`."""
        if self.process is None or self.process.poll() is not None:
            self._start()
        assert self.process
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        while (answer := self._next()) != {"done": True}:
            yield answer

    def end(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.answers)
        self.process = None

    def _start(self) -> None:
        self.end()
        self.answers, theirs = os.pipe()
        self.buffer = b""
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module, str(theirs)],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **self.variables},
            stdin=subprocess.PIPE,
            stdout=self.errors,
            stderr=self.errors,
            pass_fds=(theirs,),
            start_new_session=True,  # what it starts itself ends with it
            encoding="utf-8",
        )
        os.close(theirs)

    def _next(self) -> dict[str, Any]:
        assert self.process
        until = time.monotonic() + self.seconds
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.answers], [], [], max(0, until - time.monotonic()))
            part = os.read(self.answers, 1 << 16) if ready else b""
            if not part:
                raise Died(self._how(hung=not ready))
            self.buffer += part
        line, _, self.buffer = self.buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _how(self, hung: bool) -> str:
        assert self.process
        if hung:
            self.end()
            return f"no answer within {self.seconds:g} s"
        code = self.process.wait()
        if code < 0:
            return signal.Signals(-code).name
        self.errors.seek(0)
        written = self.errors.read().strip().splitlines()
        return f"exit code {code}" + (f": {written[-1]}" if written else "")


def serve(answers: Answers) -> None:
    """The answering side, until nobody asks any more."""
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as out:
        for line in sys.stdin:
            try:
                for answer in answers(json.loads(line)):
                    out.write(json.dumps(answer) + "\n")
                    out.flush()
            except Exception:
                out.write(json.dumps({"traceback": traceback.format_exc()}) + "\n")
            out.write(json.dumps({"done": True}) + "\n")
            out.flush()
