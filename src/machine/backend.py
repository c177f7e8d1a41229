"""TensorFlow as the stages need it: imported when first needed, quietly, with a thread per core of the machine."""

import contextlib
import fcntl
import functools
import gc
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from src.machine import locks
from src.machine import system as machine
from src.machine.output import quiet
from src.settings.check import UserError

log = logging.getLogger(__name__)


@functools.cache
def prepare() -> None:
    """Imports TensorFlow. To be called before the first stage of a process; does nothing the second time."""
    if "tensorflow" not in sys.modules:
        log.info("loading TensorFlow")
    with quiet():
        import tensorflow as tf

        # As many as the machine has, not as this process may use: how many threads share a sum decides its last bits,
        # and a worker that is given half of the cores is to leave the same bytes as one that is given all.
        with contextlib.suppress(RuntimeError):  # a process that has computed with TensorFlow before has its threads
            tf.config.threading.set_intra_op_parallelism_threads(os.cpu_count() or 1)
            tf.config.threading.set_inter_op_parallelism_threads(os.cpu_count() or 1)
        tf.config.list_logical_devices()
        import tf_keras

        # Otherwise dropout under XLA draws from a counter that every execution in the process moves on, and a stage
        # would leave other bytes after another one than alone (TensorFlow 2.21).
        tf_keras.backend.experimental.enable_tf_random_generator()
        if os.environ.get("TF_USE_LEGACY_KERAS") == "0":
            import keras  # noqa: F401 -- before anything is drawn: it has a generator of its own
        gc.freeze()  # a look at all that TensorFlow is made of takes half a second
    # What keeps it from going on is raised; errors that it logs, with a traceback, are those that it goes on after.
    tf.get_logger().setLevel(logging.CRITICAL)
    logging.getLogger("absl").setLevel(logging.CRITICAL)


@contextmanager
def custom_objects(paths: Sequence[str], trust: bool = False) -> Iterator[None]:
    """Lets Keras find the layers and functions with these import paths while it reads a model that is made of them, and
    with `trust` run the code that is in it.

    Raises `UserError` for one that can't be imported.
    """
    if not paths and not trust:
        yield
        return
    import keras
    import tf_keras

    found = {}
    for path in paths:
        module, _, name = path.rpartition(".")
        try:
            found[name] = getattr(importlib.import_module(module), name)
        except Exception as error:  # whatever the module raises
            raise UserError(
                f"model.custom_objects: {path} can't be imported ({type(error).__name__}: {error}); takes the import "
                "path of a layer or function, from this folder or PYTHONPATH"
            ) from None
    scopes = [library.saving.custom_object_scope(found) for library in (tf_keras, keras)]
    with contextlib.ExitStack() as entered:
        if trust:
            for library in ("tf_keras", "keras"):
                serialization = importlib.import_module(f"{library}.src.saving.serialization_lib")
                scopes.append(serialization.SafeModeScope(False))
        for scope in scopes:
            entered.enter_context(scope)
        yield


@contextmanager
def share_of_cores(parallel: int) -> Iterator[None]:
    """Keeps this process to its share of the cores while up to `parallel` processes of this machine do likewise.

    Threads are not fewer for that (see `prepare`): they take turns on the cores that are theirs. Where a system can't
    keep a process to some of its cores, they take turns on all of them.
    """
    if parallel > 1 and not machine.can_pin():
        log.info("not pinned: this system can't; %d processes take turns on all cores", parallel)
    if parallel <= 1 or not machine.can_pin():
        yield
        return
    whole = machine.cores()
    with contextlib.ExitStack() as held:
        slot = _free_slot(parallel, held)
        share = whole[slot * len(whole) // parallel : (slot + 1) * len(whole) // parallel]
        machine.pin(share or [whole[slot % len(whole)]])
        try:
            yield
        finally:
            machine.pin(whole)


def _free_slot(slots: int, held: contextlib.ExitStack) -> int:
    """A slot that no other process holds; the last one if all are held. It is let go of when `held` closes."""
    folder = locks.folder("cores")
    for slot in range(slots):
        file = held.enter_context((folder / str(slot)).open("w", encoding="utf-8"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return slot
        except OSError:  # held, or on a file system without locks
            continue
    return slots - 1
