"""Stages done through whichever launcher Hydra has: what a job is told, how many are done at a time, what came of each.

The sweeper's side is `variants` and `launcher`, a job's side `told` and `perform`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from src.cli import application
from src.cli.arguments import grid, parsed
from src.cli.compose import check_names_of_folders, checked, options_of, read
from src.cli.options import Options
from src.data import dataset
from src.machine import writable
from src.pipeline import stages, worker
from src.settings import credentials
from src.settings.check import UserError
from src.settings.config import Config
from src.settings.sections import Sweep
from src.store.faults import reason
from src.store.store import Store
from src.sweep.plan import Job
from src.sweep.running import Launcher, Outcome

INSTRUCTIONS = "COMPRESSION_JOB"  # the key under which a job finds what it is told


class ComposedOtherwise(Exception):
    """A job has come to another stage than the one that was planned for it."""


def variants(sweeper: Any, arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of each variant that `arguments`, with lists and ranges among them, and the sweeper's own `params`
    ask for. Raises `UserError` for what can't be read, and for folders of Hydra's that can't be made."""
    config, loader = sweeper.config, sweeper.hydra_context.config_loader
    overrides = parsed([*grid(sweeper.params), *map(options_of(config).bare, arguments)], loader, swept=True)
    (lists,) = sweeper.split_arguments(overrides, None)
    writable.check(Path(config.hydra.sweep.dir), f"hydra.sweep.dir={config.hydra.sweep.dir}")
    check_names_of_folders(config, lists, loader)
    return lists


def launcher(sweeper: Any) -> Launcher:
    """That of Hydra. The folder of the multirun is made once there is something to launch."""
    config, folder = sweeper.config, Path(sweeper.config.hydra.sweep.dir)
    options = options_of(config)
    done, parallel = 0, _parallel(config)

    def launch(jobs: Sequence[Job], parent_run: str) -> list[Outcome]:
        nonlocal done
        if not done:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "multirun.yaml").write_text(credentials.hidden(OmegaConf.to_yaml(config)), encoding="utf-8")
        at_a_time = min(parallel, len(jobs))
        batch = [[*_overrides(job, options), *instructions(job, parent_run, at_a_time)] for job in jobs]
        returns: list[JobReturn] = []
        # submitit_local starts all that it is given at once.
        size = at_a_time if _is_submitit_local(config) else len(batch)
        for start in range(0, len(batch), size):
            returns += sweeper.launcher.launch(batch[start : start + size], initial_job_idx=done)
            done += len(batch[start : start + size])
        return [_outcome(returned) for returned in returns]

    here = str(OmegaConf.select(config, "hydra.launcher._target_")).endswith(".BasicLauncher")
    return Launcher(launch, parallel, here)


def _overrides(job: Job, options: Options) -> list[str]:
    steps = job.variant.config.steps.items()
    return options.for_job(job.variant.overrides, {group: step.name for group, step in steps})


def instructions(job: Job, parent_run: str, parallel: int) -> list[str]:
    """What a job is told beside the overrides of its variant: by a setting of Hydra's own, so that it is in neither the
    config nor `hydra.job.override_dirname`."""
    sweep_of_it = Sweep(parent_run, job.variant.name, job.stage.key, parallel)
    text = json.dumps({"sweep": asdict(sweep_of_it), "tracking": asdict(job.variant.config.tracking)})
    # Neither an end of the quotes nor an interpolation.
    text = text.replace("'", "\\u0027").replace("$", "\\u0024")
    return [f"+hydra.job.env_set.{INSTRUCTIONS}='{text}'"]


def told(composed: DictConfig) -> Config | None:
    """The config of the one stage that this process is told to do; None where it is told of none."""
    text = HydraConfig.get().job.env_set.get(INSTRUCTIONS)
    if not text:
        return None
    told, own = json.loads(text), read(composed, HydraConfig.get().runtime.choices)
    # What this process's own environment says of the store is not asked.
    config = checked(own._replace(settings=own.settings | {"tracking": told["tracking"]}))
    return replace(config, sweep=Sweep(**told["sweep"]))


def perform(config: Config) -> str:
    """One stage, in whichever process the launcher put it; gives the id of its run."""
    sweep = config.sweep
    if not application.is_command:
        worker.end_with_launcher()
    chain = {stage.key: stage for stage in stages.chain(config, dataset(config))}
    if sweep.stage not in chain:
        raise ComposedOtherwise(
            "this job's settings, images, code or libraries are not those that the sweep was planned with"
        )
    stage = chain[sweep.stage]
    request = stages.Request(stage, config, sweep.variant or "", sweep.run_id, application.log_file())
    return stages.perform(request, Store(config.tracking))


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


def _outcome(returned: JobReturn) -> Outcome:
    if returned.status == JobStatus.COMPLETED:
        return Outcome(returned.return_value)
    error = returned._return_value
    application.record(error)
    return Outcome(None, reason(error))
