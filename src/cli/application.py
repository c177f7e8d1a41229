"""`src.run` as Hydra's application: what its own process and those of a launcher prepare, what was typed, and what
becomes of an error, which Hydra 1.3 would print over several lines or pass over."""

import datetime
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src.cli import frame, saved
from src.cli.answers import in_one_line, refuse_what_is_no_text
from src.cli.arguments import Line, in_hydras_order, without_sweeping
from src.cli.help import groups, others, settings
from src.console.terminal import plain_where_needed
from src.machine import system as machine
from src.settings import credentials
from src.settings.check import UserError

ERRORS = Path("mlruns/hydra/errors.log")
_errors: list[Exception] = []
_typed: list[str] = []
is_command = False  # else one of a launcher's processes

saved.without_passwords()
for resolver in (groups, others, settings):  # for the help in conf/config.yaml
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def done(task: Callable[[], Any], arguments: Sequence[str], raising: bool) -> int:
    """Has Hydra call `task` as the command line says; gives the exit code. With `raising` errors are raised."""
    global is_command
    is_command = True
    # Hydra then raises what it would otherwise print over several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _prepare_output()
    return frame.code_of(lambda: _call(task, arguments), raising, record)


def prepare() -> None:
    """What a process does before it does what Hydra calls it for."""
    _prepare_output()
    if HydraConfig.get().job.chdir:
        os.chdir(HydraConfig.get().runtime.cwd)  # paths are what they were where the command began


def kept(work: Callable[[], str | None]) -> str | None:
    """What `work` gives. An error waits for `done`: raised, Hydra would print a line of its own above ours."""
    try:
        return work()
    except Exception as error:
        _errors.append(error)
        return None


def record(error: BaseException) -> str:
    """Appends the traceback to the log of errors, where there is a place for it; says where that is."""
    try:
        ERRORS.parent.mkdir(parents=True, exist_ok=True)
        with ERRORS.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"--- {datetime.datetime.now():%Y-%m-%d %H:%M:%S}  {command_line()}\n")
            log.write(credentials.hidden("".join(traceback.format_exception(error))))
    except OSError:
        pass
    return f"traceback in {ERRORS}"


def master() -> DictConfig:
    """All that Hydra composed for this process, its own section included."""
    whole: Any = HydraConfig.instance().cfg
    return whole


def log_file() -> Path:
    return Path(HydraConfig.get().runtime.output_dir) / f"{HydraConfig.get().job.name}.log"


def command_line() -> str:
    """What was typed, or would be."""
    return credentials.to_give() + credentials.hidden(shlex.join([machine.python(), "-m", "src.run", *_typed]))


def _prepare_output() -> None:
    """A terminal that lacks a character gets a plain one; a full disk costs the log its lines, and not a traceback on
    screen for each of them."""
    plain_where_needed()
    logging.raiseExceptions = False


def _call(task: Callable[[], Any], arguments: Sequence[str]) -> None:
    line = None
    try:
        _check_log_of_errors()
        refuse_what_is_no_text(arguments)
        credentials.of_environment()
        ordered = in_hydras_order([credentials.of_argument(argument) for argument in arguments])
        _typed[:] = without_sweeping(ordered)
        line = Line(_typed)
        line.check()
        sys.argv[1:] = line.for_hydra(_typed)
        _hydra(task)
        if _errors:
            raise _errors.pop()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(in_one_line(error, line)) from error


def _hydra(task: Callable[[], Any]) -> None:
    try:
        task()
    except SystemExit as end:  # so it ends after its help
        if end.code:
            raise
    except HydraException:  # one of them is an OSError too
        raise
    except OSError as error:  # what a sweep raises is in `_errors`
        raise UserError(
            f"hydra.run.dir={error.filename}: {error.strerror}; takes a folder that can be written"
        ) from None


def _check_log_of_errors() -> None:
    try:
        ERRORS.parent.mkdir(parents=True, exist_ok=True)
        ERRORS.open("a", encoding="utf-8").close()
    except OSError as error:
        raise UserError(f"{ERRORS.parent}: can't be written ({error.strerror}); takes a folder that can") from None
