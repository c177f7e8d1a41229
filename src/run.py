"""`python -m src.run`: one variant beside its dense baseline, or with `-m` a sweep of them.

Validate → plan → stages in waves → latency → comparison. Only this module, `src.cli` and `hydra_plugins` know Hydra.
"""

import datetime
import logging
import os
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src import interrupt, stages, sweep, worker
from src.cli.answers import in_one_line, refuse_null_options, refuse_what_is_no_text
from src.cli.compose import CONF, checked, composer
from src.config import Config, UserError
from src.data import dataset
from src.plan import Job
from src.terminal import plain_where_needed
from src.tracking import Store, reason

ERRORS = Path("mlruns/hydra/errors.log")
_errors: list[Exception] = []
_is_command = False  # else one of a launcher's processes


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def task(composed: DictConfig) -> Any:
    """What Hydra calls: without `-m` for all there is to do, with `-m` for each job of the sweeper."""
    _prepare_output()
    if HydraConfig.get().job.chdir:
        os.chdir(HydraConfig.get().runtime.cwd)  # paths are what they were where the command began
    if composed.sweep.stage:
        settings: Any = OmegaConf.to_container(composed, resolve=True)
        return _job(checked(settings, HydraConfig.get().runtime.choices))
    overrides = HydraConfig.get().overrides
    try:
        launch = sweep.launch_here(_log_file())
        return sweep.run([list(overrides.task)], composer(overrides.hydra), launch, command=_command(), here=True)
    except Exception as error:
        # Raised, Hydra would print a line of its own above ours.
        _errors.append(error)
        return error


def multirun(sweeper: Any, arguments: list[str]) -> str | None:
    """What the sweeper does: `arguments` are the overrides of the command line, lists and ranges among them."""
    loader, config = sweeper.hydra_context.config_loader, sweeper.config
    grid = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    overrides = OverridesParser.create(config_loader=loader).parse_overrides([*grid, *arguments])
    (lists,) = sweeper.split_arguments(overrides, None)
    folder = _writable(Path(config.hydra.sweep.dir))
    done, parallel = 0, _parallel(config)

    def launch(jobs: Sequence[Job], parent_run: str) -> list[sweep.Outcome]:
        nonlocal done
        if not done:
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, folder / "multirun.yaml")
        at_a_time = min(parallel, len(jobs))
        batch = [[*job.variant.overrides, *_instructions(job, parent_run, at_a_time)] for job in jobs]
        returns: list[JobReturn] = []
        # submitit_local starts all that it is given at once.
        size = at_a_time if _is_submitit_local(config) else len(batch)
        for start in range(0, len(batch), size):
            returns += sweeper.launcher.launch(batch[start : start + size], initial_job_idx=done)
            done += len(batch[start : start + size])
        return [_outcome(returned) for returned in returns]

    compose = composer(config.hydra.overrides.hydra)
    here = str(OmegaConf.select(config, "hydra.launcher._target_")).endswith(".BasicLauncher")
    return sweep.run(lists, compose, launch, command=_command(), here=here, parallel=parallel)


def _writable(folder: Path) -> Path:
    """`folder`, which is made when there is something to put there."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(
            f"hydra.sweep.dir={folder}: {there} can't be written ({error.strerror}); takes a folder that can"
        ) from None
    return folder


def _prepare_output() -> None:
    """A terminal that lacks a character gets a plain one; a full disk costs the log its lines, and not a traceback on
    screen for each of them."""
    plain_where_needed()
    logging.raiseExceptions = False


def _job(config: Config) -> str:
    """One stage, in whichever process the launcher put it."""
    instructions = config.sweep
    if not _is_command:
        worker.end_with_launcher()
    stage = next(s for s in stages.chain(config, dataset(config)) if s.group == instructions.stage)
    request = stages.Request(stage, config, instructions.variant or "", instructions.run_id, _log_file())
    return stages.perform(request, Store(config.tracking))


def _instructions(job: Job, parent_run: str, parallel: int) -> list[str]:
    return [
        "plan=false",
        f"sweep.run_id={parent_run}",
        f"sweep.variant='{job.variant.name}'",
        f"sweep.stage={job.stage.group}",
        f"sweep.parallel={parallel}",
    ]


def _parallel(config: DictConfig) -> int:
    """How many jobs the launcher does at a time on a machine: joblib by its `n_jobs`, Ray and submitit_local by the
    CPUs of a task."""
    cores = os.cpu_count() or 1
    if _is_submitit_local(config):
        return max(1, cores // (OmegaConf.select(config, "hydra.launcher.cpus_per_task") or 1))
    if OmegaConf.select(config, "hydra.launcher.ray") is not None:
        return max(1, int(cores // (OmegaConf.select(config, "hydra.launcher.ray.remote.num_cpus") or 1)))
    jobs = OmegaConf.select(config, "hydra.launcher.n_jobs", default=1)
    if not isinstance(jobs, int) or not jobs:
        raise UserError(f"hydra.launcher.n_jobs={jobs}: takes a number of workers; -1 is one for each core")
    return jobs if jobs > 0 else max(1, cores + 1 + jobs)


def _is_submitit_local(config: DictConfig) -> bool:
    return str(OmegaConf.select(config, "hydra.launcher._target_")).endswith("submitit_launcher.LocalLauncher")


def _outcome(returned: JobReturn) -> sweep.Outcome:
    if returned.status == JobStatus.COMPLETED:
        return sweep.Outcome(returned.return_value)
    error = returned._return_value
    _record(error)
    return sweep.Outcome(None, reason(error))


def _log_file() -> Path:
    return Path(HydraConfig.get().runtime.output_dir) / f"{HydraConfig.get().job.name}.log"


def _command() -> str:
    """What was typed, or would be: `make` takes the interpreter of an environment that need not be activated."""
    python, found = Path(sys.executable), shutil.which("python")
    if found and Path(found).parent == python.parent:
        name = "python"
    else:
        name = str(python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python)
    return shlex.join([name, "-m", "src.run", *sys.argv[1:]])


# --- The command line ------------------------------------------------------------------------------------------


def main() -> None:
    """Exit codes: 0 done, 1 something failed, 2 something in the command can't be used, 130 interrupted."""
    global _is_command
    _is_command = True
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then raises what it would otherwise print over several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    interrupt.watch()
    _prepare_output()
    try:
        _check_output()
        refuse_what_is_no_text(sys.argv[1:])
        refuse_null_options(sys.argv[1:])
        task()
        if _errors:
            raise _errors[0]
    except KeyboardInterrupt:
        sys.exit(130)
    except sweep.Failed as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _record(error)
        if full_error:
            raise
        print(f"error: {error if isinstance(error, UserError) else in_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        _record(error)
        if full_error:
            raise
        print(f"error: {reason(error)} (traceback in {ERRORS})", file=sys.stderr)
        sys.exit(1)


def _check_output() -> None:
    try:
        ERRORS.parent.mkdir(parents=True, exist_ok=True)
        ERRORS.open("a", encoding="utf-8").close()
    except OSError as error:
        raise UserError(f"{ERRORS.parent}: can't be written ({error.strerror}); takes a folder that can") from None


def _record(error: BaseException) -> None:
    """Appends the traceback to the log of errors, where there is a place for it."""
    try:
        ERRORS.parent.mkdir(parents=True, exist_ok=True)
        with ERRORS.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"--- {datetime.datetime.now():%Y-%m-%d %H:%M:%S}  {_command()}\n")
            traceback.print_exception(error, file=log)
    except OSError:
        pass


if __name__ == "__main__":
    # From the module by its name, so that worker processes can import what they are sent.
    from src.run import main as run_main

    run_main()
