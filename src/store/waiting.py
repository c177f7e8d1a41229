"""Waiting for a store that does not answer for a while."""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, ClassVar

from src.settings.check import Told
from src.settings.sections import Tracking
from src.store.faults import is_refusal, named, passing, refused, why

log = logging.getLogger(__name__)


class NoAnswer(Told):
    """The store did not answer for as long as it was to be waited for."""


class Patient:
    """A client whose calls are tried again, with growing pauses, while the store has a passing fault. One that has been
    waited for in vain is not waited for again until it answers."""

    _gone: ClassVar[set[str]] = set()

    def __init__(self, client: Any, tracking: Tracking) -> None:
        self._client, self._seconds, self._uri = client, tracking.retry_seconds, tracking.uri

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, getattr(self._client, name))

    def _call(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        started, pause, waited = time.monotonic(), 0.5, False
        while True:
            try:
                answer = method(*arguments, **keywords)
                self._gone.discard(self._uri)
                if waited:
                    log.info("the tracking store answers again")
                return answer
            except Exception as error:
                if is_refusal(error):
                    raise refused(self._uri, error) from error
                if not passing(error):
                    raise
                left = self._seconds - (time.monotonic() - started)
                if left <= 0 or self._uri in self._gone:
                    self._gone.add(self._uri)
                    raise NoAnswer(
                        f"{named(self._uri)} has not answered for tracking.retry_seconds={self._seconds:g} "
                        f"({why(error)}); what is done is kept, and the same command goes on from there"
                    ) from error
                waited = True
                log.warning("the tracking store does not answer (%s), trying again for %.0f s", why(error), left)
                time.sleep(min(pause, left))
                pause = min(2 * pause, 15)
