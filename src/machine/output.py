"""What libraries in C++ print past Python."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def quiet() -> Iterator[None]:
    """Sends what C++ code writes to standard output and error, past Python, to the log at DEBUG level."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as caught:
        try:
            os.dup2(caught.fileno(), 1)
            os.dup2(caught.fileno(), 2)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, original in enumerate(kept, start=1):
                os.dup2(original, fd)
                os.close(original)
            caught.seek(0)
            if text := caught.read().decode(errors="replace").strip():
                log.debug("%s", text)
