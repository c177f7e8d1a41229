"""`python -m src.run`: one variant beside its dense baseline, or with `-m` a sweep of them.

Validate → plan → stages in waves → latency → comparison.
"""

import sys
from collections.abc import Sequence
from typing import Any

import hydra
from omegaconf import DictConfig

from src.cli import application, frame, launching
from src.cli.compose import CONF, composer, told
from src.cli.frame import Refused
from src.console import interrupt
from src.console.terminal import Terminal, meanwhile
from src.pipeline import worker
from src.results import publish
from src.sweep import plan
from src.sweep import running as sweep
from src.sweep.variant import Compose, expand


def run(overrides: Sequence[Sequence[str]], compose: Compose, launcher: sweep.Launcher) -> str | None:
    """Runs the sweep of the variants that `overrides` compose; gives the id of its parent run, or only shows the plan.

    Raises `UserError` before anything is recorded where a variant can't be made, and `Refused` where one or the
    comparison has failed, after all else is done.
    """
    with meanwhile("composes 1 variant" if len(overrides) == 1 else f"composes {len(overrides):,} variants"):
        variants = expand(overrides, compose)
    config = variants[0].config
    with meanwhile("looks at what there is"):
        store = sweep.look(config)
        planned = sweep.check(plan.make(variants, store, config.reuse), store)
    if config.plan:
        plan.show(planned, launcher.parallel, Terminal(soft_wrap=True))
        return None
    if launcher.here and planned.jobs:
        worker.use(config.model.settings.variables())
        worker.start()  # it loads TensorFlow meanwhile
    params = {"data": config.data.name, "variants": len(planned.variants)}
    with sweep.open_sweep(config, store, launcher, command=application.command_line(), params=params) as opened:
        sweep.do(opened, planned)
        findings = sweep.close(opened)
    publish.show(findings, opened.store, opened.parent)
    if findings.failed:
        failed = [f"failed: {label}: {why}" for label, why in findings.failed.items()]
        raise Refused("\n".join([*failed, "what is done is kept, and the same command tries the rest again"]))
    return opened.parent


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def task(composed: DictConfig) -> str | None:
    """What Hydra calls: without `-m` for all there is to do, with `-m` for each job of the sweeper."""
    application.prepare()
    if config := launching.told(composed):
        return launching.perform(config)
    overrides = told(application.master())
    launcher = sweep.launcher_here(application.log_file())
    return application.kept(lambda: run([overrides], composer(application.master()), launcher))


def multirun(sweeper: Any, arguments: Sequence[str]) -> str | None:
    """What the sweeper does: `arguments` are the overrides of the command line, lists and ranges among them."""

    def whole() -> str | None:
        return run(launching.variants(sweeper, arguments), composer(sweeper.config), launching.launcher(sweeper))

    return application.kept(whole)


def done(arguments: Sequence[str], raising: bool = False) -> int:
    """Does what the command line says; gives the exit code. With `raising` errors are raised."""
    return application.done(task, arguments, raising)


def main() -> None:
    """Ends the process with the exit code that `frame.code_of` describes."""
    frame.begin()
    interrupt.watch()
    sys.exit(done(sys.argv[1:], frame.wants_traceback()))


if __name__ == "__main__":
    # From the module by its name, so that worker processes can import what they are sent.
    from src.run import main as run_main

    run_main()
