"""Keys: a digest of all that a stage's result, or what a probe finds, depends on. Equal keys have equal results."""

import functools
import hashlib
import importlib.metadata
from typing import Any

from src.data import Dataset
from src.measure.latency.report import Host
from src.measure.probe import Probe
from src.measure.targets import Target
from src.measure.targets.litert import CPU
from src.methods.fitting import Fitting
from src.pipeline.code import code_version
from src.settings.config import Config, Step
from src.settings.plain import canonical, plain
from src.settings.sections import Benchmark

# A new version of one of these may change what a stage leaves.
LIBRARIES = ("tensorflow", "keras", "tf-keras", "tensorflow-model-optimization", "numpy")
# Of what a probe finds; the runtime is the target's.
MEASURING = ("numpy",)


def digest(parts: Any) -> str:
    """SHA-256 of JSON-able data, in hexadecimal digits."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def of_stage(
    config: Config, data: Dataset, step: Step, parent: tuple[str, str] | None, model: Step | None
) -> tuple[str, str]:
    """The key of a stage and its recipe, which is what was asked for without the code and the libraries that do it.
    `parent` is the same two of the stage before; `model` is of a training only."""
    asked = {
        "step": step.describe(),
        "model": model.describe() if model else None,
        "augment": plain(config.augment) if step.group != "quant" else None,
        "data": data.fingerprint,
        "seed": config.seed,
    }
    modules = [step.module, "src.data", *([model.module] if model else []), *_own_modules(config, step)]
    done_by = {"versions": versions(*LIBRARIES), "code": code_version(*modules)}
    before, before_recipe = parent or (None, None)
    return digest({**asked, **done_by, "parent": before}), digest({**asked, "parent": before_recipe})


def is_taught(step: Step) -> bool:
    """Whether a step learns from the dense baseline as well as from labels."""
    return isinstance(step.settings, Fitting) and step.settings.distillation.acts


def own_paths(config: Config, step: Step) -> list[str]:
    """The import paths of the user's own functions that a step which trains is done with."""
    if not isinstance(step.settings, Fitting):
        return []
    return [path for path in (step.settings.loss, config.augment.own) if path]


def _own_modules(config: Config, step: Step) -> list[str]:
    """Those of the user's own functions; the libraries are told by their versions."""
    modules = [path.rpartition(".")[0] for path in own_paths(config, step)]
    return [name for name in modules if name.partition(".")[0].replace("_", "-") not in LIBRARIES]


def of_probe(probe: Probe, artifact: str, data: Dataset) -> str:
    """`artifact` is the SHA-256 of the file."""
    images = [data.fingerprint, probe.split] if probe.split else None
    return of_measurement(probe.name, artifact, images, probe.target, probe.settings, probe.function.__module__)


def of_latency(artifact: str, baseline: str, how: Benchmark, host: Host) -> str:
    """Of the latency of an artifact beside its baseline, both given by their SHA-256."""
    settings = {"benchmark": plain(how), "baseline": baseline, "host": [host.hostname, host.cpu]}
    return of_measurement("latency", artifact, None, CPU, settings, "src.measure.latency", "src.measure.targets.child")


def of_measurement(
    name: str, artifact: str, images: list[str] | None, target: Target | None, settings: Any, *modules: str
) -> str:
    """Of something that was measured of an artifact, by the code of `modules`."""
    return digest(
        {
            "name": name,
            "artifact": artifact,
            "images": images,
            "target": target.describe() if target else None,
            "settings": plain(settings),
            "versions": versions(*MEASURING),
            "code": code_version(*modules),
        }
    )


@functools.cache
def versions(*libraries: str) -> dict[str, str]:
    """The installed version of each."""
    return {name: importlib.metadata.version(name) for name in libraries}
