"""`python -m src.run`: one variant beside its dense baseline, or with `-m` a sweep of them.

Validate → plan → stages in waves → latency → comparison. Only this module and `hydra_plugins` know Hydra.
"""

import contextlib
import datetime
import difflib
import functools
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src import interrupt, stages, sweep
from src.config import Config, UserError, load
from src.plan import Compose, Job, group_of
from src.tracking import Store, check_writable, reason

CONF = Path(__file__).resolve().parent.parent / "conf"
LAUNCHERS = ("joblib", "ray", "submitit")  # extras of the environment
ERRORS = Path("mlruns/hydra/errors.log")
_errors: list[Exception] = []
_INTERPOLATED = "any value is interpolated"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def task(composed: DictConfig) -> Any:
    """What Hydra calls: without `-m` for all there is to do, with `-m` for each job of the sweeper."""
    _quiet_logging()
    if composed.sweep.stage:
        settings: Any = OmegaConf.to_container(composed, resolve=True)
        return _job(_checked(settings, HydraConfig.get().runtime.choices))
    overrides = HydraConfig.get().overrides
    try:
        launch = sweep.launch_here(_log_file())
        return sweep.run([list(overrides.task)], _composer(overrides.hydra), launch, command=_command())
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

    compose = _composer(config.hydra.overrides.hydra)
    return sweep.run(lists, compose, launch, command=_command(), parallel=parallel)


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


def _quiet_logging() -> None:
    """A full disk costs the log its lines, and not a traceback on screen for each of them."""
    logging.raiseExceptions = False


def _job(config: Config) -> str:
    """One stage, in whichever process the launcher put it."""
    instructions = config.sweep
    stage = next(s for s in stages.chain(config, stages.dataset(config)) if s.group == instructions.stage)
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


def _composer(hydra_overrides: Sequence[str]) -> Compose:
    """Composes as Hydra would, but what is overridden in each section of the config once, however many variants it is
    part of: Hydra takes some 100 ms for a config."""
    loader = GlobalHydra.instance().config_loader()

    @functools.cache
    def whole(*overrides: str) -> tuple[dict[str, Any], dict[str, str]]:
        composed = loader.load_configuration("config", [*hydra_overrides, *overrides], run_mode=RunMode.RUN)
        tasks = OmegaConf.create({str(key): composed[key] for key in composed if key != "hydra"})
        settings: Any = OmegaConf.to_container(tasks, resolve=True)
        settings[_INTERPOLATED] = "${" in OmegaConf.to_yaml(tasks)
        return settings, OmegaConf.to_container(composed.hydra.runtime.choices)  # type: ignore[return-value]

    @functools.cache
    def apart(section: str, own: tuple[str, ...], rest: tuple[str, ...]) -> tuple[Any, dict[str, str]] | None:
        """What the overrides `own` make of their section, and which options they choose; None where they reach beyond
        it, so that the config can't be put together from parts."""
        (before, chosen_before), (after, chosen) = whole(*rest), whole(*rest, *own)
        beyond = {key for key in before.keys() | after.keys() if key != section and before.get(key) != after.get(key)}
        if beyond or before[_INTERPOLATED]:
            return None
        return after[section], {group: option for group, option in chosen.items() if chosen_before.get(group) != option}

    def in_parts(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]] | None:
        sections = whole()[0].keys()
        of_section: dict[str, tuple[str, ...]] = {}
        for override in overrides:
            section = group_of(override)
            of_section[section] = (*of_section.get(section, ()), override)
        rest = tuple(o for section, own in of_section.items() if section not in sections for o in own)
        settings, choices = (dict(found) for found in whole(*rest))
        for section, own in of_section.items():
            if section in sections:
                found = apart(section, own, rest)
                if found is None:
                    return None
                settings[section] = found[0]
                choices |= found[1]
        return settings, choices

    def compose(overrides: Sequence[str]) -> Config:
        found = None
        with contextlib.suppress(HydraException, OmegaConfBaseException):  # if it is wrong as a whole, that is told
            found = in_parts(overrides)
        settings, choices = found or whole(*overrides)
        return _checked({key: value for key, value in settings.items() if key != _INTERPOLATED}, choices)

    return compose


def _checked(settings: dict[str, Any], choices: Any) -> Config:
    config = load(settings, choices, yaml.dump(settings, Dumper=yaml.CSafeDumper, sort_keys=False))
    check_writable(config.tracking)
    return config


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
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then raises what it would otherwise print over several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    interrupt.watch()
    _quiet_logging()
    try:
        _check_output()
        _refuse_null_options(sys.argv[1:])
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
        print(f"error: {error if isinstance(error, UserError) else _in_one_line(error)}", file=sys.stderr)
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
        ERRORS.open("a").close()
    except OSError as error:
        raise UserError(f"{ERRORS.parent}: can't be written ({error.strerror}); takes a folder that can") from None


def _record(error: BaseException) -> None:
    """Appends the traceback to the log of errors, where there is a place for it."""
    try:
        ERRORS.parent.mkdir(parents=True, exist_ok=True)
        with ERRORS.open("a") as log:
            log.write(f"--- {datetime.datetime.now():%Y-%m-%d %H:%M:%S}  {_command()}\n")
            traceback.print_exception(error, file=log)
    except OSError:
        pass


def _options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def _groups() -> str:
    """For `--help`: a line per group, its default first."""
    defaults: dict[str, Any] = {}
    for default in OmegaConf.load(CONF / "config.yaml").defaults:
        defaults |= default if isinstance(default, DictConfig) else {}
    lines = []
    for group in sorted(directory.name for directory in CONF.iterdir() if directory.is_dir()):
        if group in defaults:
            others = [option for option in _options(group) if option != defaults[group]]
            default = f"{defaults[group]} (default)" if defaults[group] else ""
            lines.append(f"  {group}={', '.join(filter(None, [default, *others]))}")
    return "\n".join(lines)


OmegaConf.register_new_resolver("groups", _groups, replace=True)


def _refuse_null_options(arguments: Sequence[str]) -> None:
    """`prune=null` ends in an AttributeError inside Hydra 1.3."""
    for argument in arguments:
        group, equals, values = argument.partition("=")
        if equals and group != "experiment" and (CONF / group).is_dir() and {"null", ""} & set(values.split(",")):
            raise UserError(f"{argument}: takes one of {', '.join(_options(group))}")


def _in_one_line(error: Exception) -> str:
    """What Hydra and OmegaConf say over several lines, with the key, what it got and what it takes."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return _unknown_option(group, option, error.options)
    if match := re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text):
        return _unknown_key(match[1] or match[2])
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        return _unknown_option(match[1], match[2], _options(match[1]))
    if match := re.fullmatch(r"Error merging override (.+)", text):
        return f"{match[1]}: {str(error.__cause__).partition(chr(10))[0]}"
    return text


def _unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    extra = option.partition("_")[0]
    if group == "hydra/launcher" and extra in LAUNCHERS:
        return f"{group}={option}: is not installed; `make setup EXTRAS=dev,{extra}` installs it"
    close = difflib.get_close_matches(option, options, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{group}={option}: no such option; {hint}takes one of {', '.join(options)}"


def _unknown_key(key: str) -> str:
    """Names the first part of `key` that there isn't, and what there is in its place."""
    parts = key.split(".")
    if parts[:2] == ["hydra", "launcher"]:
        return f"{key}: the launcher chosen has no such key; hydra/launcher={' or '.join(LAUNCHERS)} has others"
    if parts[0] == "hydra":
        files, roots, inside = [], [OmegaConf.structured(HydraConf)], 1
    elif (CONF / parts[0]).is_dir():
        files = sorted((CONF / parts[0]).glob("*.yaml"))
        roots, inside = [OmegaConf.load(file) for file in files], 1
    else:
        files, roots, inside = [], [OmegaConf.load(CONF / "config.yaml")], 0
    for depth in range(inside, len(parts)):
        parent, name = ".".join(parts[:depth]), parts[depth]
        within = [OmegaConf.select(root, ".".join(parts[inside:depth])) if depth > inside else root for root in roots]
        known = {str(k) for node in within if isinstance(node, DictConfig) for k in node} - {"_target_", "defaults"}
        if depth == 0:
            known = known - {"hydra", "sweep"} | {folder.name for folder in CONF.iterdir() if folder.is_dir()} - {
                "hydra"
            }
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {'.'.join([*parts[:depth], close[0], *parts[depth + 1 :]])}? " if close else ""
            return f"{key}: no such key; {hint}{parent or 'the top level'} takes {', '.join(sorted(known)) or 'none'}"
    have = [
        file.stem for file, node in zip(files, within, strict=True) if isinstance(node, DictConfig) and name in node
    ]
    return f"{key}: the option chosen has no such key; {parts[0]}={' or '.join(have)} has it"


if __name__ == "__main__":
    # From the module by its name, so that worker processes can import what they are sent.
    from src.run import main as run_main

    run_main()
