"""`python -m src.run`: one variant beside its dense baseline, or with `-m` a sweep of them.

Validate → plan → stages in waves → latency → comparison. Only this module, `src.cli` and `hydra_plugins` know Hydra.
"""

import datetime
import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src.cli import saved
from src.cli.answers import in_one_line, refuse_what_is_no_text
from src.cli.arguments import Line, grid, in_hydras_order, parsed, without_sweeping
from src.cli.compose import CONF, as_told, check_names_of_folders, checked, composer, read
from src.cli.help import groups
from src.console import interrupt
from src.console.terminal import outlive_readers, plain_where_needed
from src.data import dataset
from src.machine import system as machine
from src.machine import writable
from src.pipeline import stages, worker
from src.settings import credentials
from src.settings.check import UserError
from src.settings.config import Config
from src.settings.sections import Sweep
from src.store.faults import reason
from src.store.store import Store
from src.sweep import running as sweep
from src.sweep.plan import Job

ERRORS = Path("mlruns/hydra/errors.log")
INSTRUCTIONS = "COMPRESSION_JOB"  # the key under which a job finds what it is told
_errors: list[Exception] = []
_is_command = False  # else one of a launcher's processes


saved.without_passwords()
OmegaConf.register_new_resolver("groups", groups, replace=True)  # for the help in conf/config.yaml


class ComposedOtherwise(Exception):
    """A job has come to another stage than the one that was planned for it."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def task(composed: DictConfig) -> Any:
    """What Hydra calls: without `-m` for all there is to do, with `-m` for each job of the sweeper."""
    _prepare_output()
    if HydraConfig.get().job.chdir:
        os.chdir(HydraConfig.get().runtime.cwd)  # paths are what they were where the command began
    if instructions := HydraConfig.get().job.env_set.get(INSTRUCTIONS):
        told, own = json.loads(instructions), read(composed, HydraConfig.get().runtime.choices)
        # What this process's own environment says of the store is not asked.
        config = checked(own._replace(settings=own.settings | {"tracking": told["tracking"]}))
        return _job(replace(config, sweep=Sweep(**told["sweep"])))
    try:
        launch, overrides = sweep.launch_here(_log_file()), as_told(HydraConfig.get().overrides.task)
        return sweep.run([overrides], composer(_master()), launch, command=_command(), here=True)
    except Exception as error:
        # Raised, Hydra would print a line of its own above ours.
        _errors.append(error)
        return error


def multirun(sweeper: Any, arguments: list[str]) -> str | None:
    """What the sweeper does: `arguments` are the overrides of the command line, lists and ranges among them."""
    try:
        return _multirun(sweeper, arguments)
    except Exception as error:
        _errors.append(error)  # as in `task`
        return None


def _multirun(sweeper: Any, arguments: list[str]) -> str | None:
    config, loader = sweeper.config, sweeper.hydra_context.config_loader
    overrides = parsed([*grid(sweeper.params), *arguments], loader, swept=True)
    (lists,) = sweeper.split_arguments(overrides, None)
    folder = Path(config.hydra.sweep.dir)
    writable.check(folder, f"hydra.sweep.dir={folder}")
    check_names_of_folders(config, lists, loader)
    done, parallel = 0, _parallel(config)

    def launch(jobs: Sequence[Job], parent_run: str) -> list[sweep.Outcome]:
        nonlocal done
        if not done:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "multirun.yaml").write_text(credentials.hidden(OmegaConf.to_yaml(config)), encoding="utf-8")
        at_a_time = min(parallel, len(jobs))
        batch = [[*job.variant.overrides, *_instructions(job, parent_run, at_a_time)] for job in jobs]
        returns: list[JobReturn] = []
        # submitit_local starts all that it is given at once.
        size = at_a_time if _is_submitit_local(config) else len(batch)
        for start in range(0, len(batch), size):
            returns += sweeper.launcher.launch(batch[start : start + size], initial_job_idx=done)
            done += len(batch[start : start + size])
        return [_outcome(returned) for returned in returns]

    here = str(OmegaConf.select(config, "hydra.launcher._target_")).endswith(".BasicLauncher")
    return sweep.run(lists, composer(config), launch, command=_command(), here=here, parallel=parallel)


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
    chain = {stage.key: stage for stage in stages.chain(config, dataset(config))}
    if instructions.stage not in chain:
        raise ComposedOtherwise(
            "this job's settings, images, code or libraries are not those that the sweep was planned with"
        )
    stage = chain[instructions.stage]
    request = stages.Request(stage, config, instructions.variant or "", instructions.run_id, _log_file())
    return stages.perform(request, Store(config.tracking))


def _instructions(job: Job, parent_run: str, parallel: int) -> list[str]:
    """What a job is told beside the overrides of its variant: by a setting of Hydra's own, so that it is in neither the
    config nor `hydra.job.override_dirname`."""
    sweep_of_it = Sweep(parent_run, job.variant.name, job.stage.key, parallel)
    told = json.dumps({"sweep": asdict(sweep_of_it), "tracking": asdict(job.variant.config.tracking)})
    # Neither an end of the quotes nor an interpolation.
    told = told.replace("'", "\\u0027").replace("$", "\\u0024")
    return [f"+hydra.job.env_set.{INSTRUCTIONS}='{told}'"]


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


def _master() -> DictConfig:
    """All that Hydra composed for this process, its own section included."""
    master: Any = HydraConfig.instance().cfg
    return master


def _log_file() -> Path:
    return Path(HydraConfig.get().runtime.output_dir) / f"{HydraConfig.get().job.name}.log"


def _command() -> str:
    """What was typed, or would be."""
    return credentials.to_give() + credentials.hidden(shlex.join([machine.python(), "-m", "src.run", *sys.argv[1:]]))


# --- The command line ------------------------------------------------------------------------------------------


def main() -> None:
    """Exit codes: 0 done, 1 something failed, 2 something in the command can't be used, 130 interrupted."""
    global _is_command
    _is_command = True
    interrupt.watch()
    outlive_readers()
    sys.exit(done(sys.argv[1:], full_error=os.environ.get("HYDRA_FULL_ERROR") == "1"))


def done(arguments: Sequence[str], full_error: bool = False) -> int:
    """Does what the command line says; gives the exit code. With `full_error` errors are raised."""
    # Hydra then raises what it would otherwise print over several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _prepare_output()
    line = None
    try:
        _check_output()
        refuse_what_is_no_text(arguments)
        credentials.of_environment()
        ordered = in_hydras_order([credentials.of_argument(argument) for argument in arguments])
        sys.argv[1:] = without_sweeping(ordered)
        line = Line(sys.argv[1:])
        line.check()
        _hydra()
        if _errors:
            raise _errors.pop()
    except KeyboardInterrupt:
        return 130
    except sweep.Failed as error:
        print(error, file=sys.stderr)
        return 1
    except (UserError, HydraException, OmegaConfBaseException, YAMLError) as error:
        _record(error)
        if full_error:
            raise
        said = str(error) if isinstance(error, UserError) else in_one_line(error, line)
        print(f"error: {credentials.hidden(said)}", file=sys.stderr)
        return 2
    except Exception as error:
        _record(error)
        if full_error:
            raise
        print(f"error: {reason(error)} (traceback in {ERRORS})", file=sys.stderr)
        return 1
    return 0


def _hydra() -> None:
    try:
        task()
    except HydraException:  # one of them is an OSError too
        raise
    except OSError as error:  # what a sweep raises is in `_errors`
        raise UserError(
            f"hydra.run.dir={error.filename}: {error.strerror}; takes a folder that can be written"
        ) from None


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
            log.write(credentials.hidden("".join(traceback.format_exception(error))))
    except OSError:
        pass


if __name__ == "__main__":
    # From the module by its name, so that worker processes can import what they are sent.
    from src.run import main as run_main

    run_main()
