"""What is said while the waves of a sweep run."""

import logging
import threading
import time
from collections.abc import Sequence

from src.store.store import Store
from src.sweep.plan import Job, duration

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 15


class Watch:
    """While the waves run, says every now and then what is done, what is running and what is left."""

    def __init__(self, store: Store, parent: str, jobs: Sequence[Job]) -> None:
        self.store, self.parent, self.jobs = store, parent, jobs
        named = {job.variant.name if job.is_variant else job.stage.name: job for job in jobs}
        # Until a stage has run here once, an epoch of training counts as much as a variant.
        self.weights = {name: job.seconds or job.stage.epochs or 1 for name, job in named.items()}
        # Of which kind those are whose seconds nobody knows.
        self.unknown = {name: job.is_variant for name, job in named.items() if not job.seconds}
        self.over = threading.Event()
        self.started = time.monotonic()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        if len(self.jobs) > 1:
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()

    def _look(self) -> None:
        said, took = "", 0.0
        while not self.over.wait(max(SECONDS_BETWEEN_LOOKS, 20 * took)):  # of many runs a look takes a while
            looked = time.monotonic()
            try:
                runs = self.store.progress(self.parent)
            except Exception:
                continue  # the work itself will tell of a store that is gone
            took = time.monotonic() - looked
            done, running = runs.get("FINISHED", []), runs.get("RUNNING", [])
            names = f"{len(done)} of {len(self.jobs)} stages done"
            if running:
                names += f"; running: {', '.join(sorted(running))}"
            if names == said or not done or self.over.is_set():
                continue
            said, elapsed = names, time.monotonic() - self.started
            names += f"; {duration(elapsed)} so far"
            seen = {self.unknown[name] for name in done if name in self.unknown}
            if seen.issuperset(kind for name, kind in self.unknown.items() if name not in done):
                finished = sum(self.weights.get(name, 1) for name in done)
                names += f", about {duration(elapsed / finished * (sum(self.weights.values()) - finished))} left"
            log.info("%s", names)
