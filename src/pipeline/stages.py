"""The stages of one variant, train → transforms → convert, and having one of them done. The artifact of a conversion is
measured as well, as far as the store does not know it yet.

A stage starts from its parent in the store and leaves its own result there; what it does is in `src.pipeline.work`, and
what is measured in `src.pipeline.measuring`. Nothing here knows Hydra or the sweep.
"""

import importlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.data import Dataset, dataset, used
from src.machine import locks
from src.methods.task import Trained
from src.models import checked
from src.models.fitted import OtherImages
from src.pipeline import keys, measuring, work, worker
from src.pipeline.code import code_version
from src.settings.check import Unfit, UserError
from src.settings.config import Config, Step
from src.settings.head import Head
from src.settings.plain import plain
from src.store.artifacts import Record
from src.store.faults import reason
from src.store.names import ASKED, CHECKPOINT, artifact_path
from src.store.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One step of a variant with a result worth keeping. `group` is the config group that configures it; `key` says all
    that its result depends on, `recipe` all but the code and the libraries; `parent` is None for training."""

    group: str
    step: Step
    key: str
    recipe: str
    parent: "Stage | None"

    @property
    def name(self) -> str:
        """Of a transform with those before it, such as `p1-half`."""
        if self.parent is None:
            return "dense" if self.step.name == "none" else "train"
        is_first = self.group == "quant" or self.parent.parent is None
        return self.step.name if is_first else f"{self.parent.name}-{self.step.name}"

    @property
    def epochs(self) -> int | None:
        """None for what does not train."""
        return getattr(self.step.settings, "epochs", None)


def chain(config: Config, data: Dataset) -> tuple[Stage, ...]:
    """Training, each transform, then conversion, each with its key."""
    stages: list[Stage] = []
    for step in (config.train, *(step for step in config.transforms if step.acts), config.quant):
        parent = stages[-1] if stages else None
        before = (parent.key, parent.recipe) if parent else None
        key, recipe = keys.of_stage(config, data, step, before, None if parent else config.model)
        stages.append(Stage(step.group, step, key, recipe, parent))
    return tuple(stages)


@dataclass(frozen=True)
class Request:
    """One stage to do, for whom, and where its log is."""

    stage: Stage
    config: Config
    variant: str
    parent_run: str | None = None
    log_file: Path | None = None


def perform(request: Request, store: Store) -> str:
    """Has one stage done, whose parent is in the store, records it there, and gives the id of its run.

    One process of a machine does a stage at a time. What another sweep has done meanwhile is used.
    """
    stage, sweep, reuse = request.stage, request.parent_run, request.config.reuse
    worker.use(request.config.model.settings.variables())
    kind, name = ("variant", request.variant) if stage.group == "quant" else ("stage", stage.name)
    usable = reuse == "all" or (reuse == "stages" and kind == "stage")
    with _said_where_it_fails(name), store.alone(stage.key, name), locks.working(), ExitStack() as until_recorded:
        within = None if usable else sweep
        found = store.finished(kind, [stage.key], within).get(stage.key)
        whole = found is not None
        if found and kind == "variant":
            found, due = measuring.nearest(found, request.config, store, within)
            whole = not due
        if found and whole:
            if kind == "stage" or found.tags.get("sweep") == sweep:
                return found.run_id
            if sweep:
                return store.adopt(found, request.variant, sweep)
        if not found:
            log.info("%s", _title(request))
        with (
            worker.scratch() as scratch,
            store.run(kind, name, tags=_tags(request, kind, found), params=_params(request), parent=sweep) as run_id,
        ):
            folder = Path(scratch)
            store.uses(run_id, used(request.config, dataset(request.config)))
            if found:
                made = _taken(request, found, store, folder)
            else:
                parent, notes = _parent(stage, store), _notes(stage, store)
                task = work.Work(stage.group, stage.step, request.config, name, parent, notes, folder)
                made = worker.call(work.do, task)
            if kind == "variant":
                digest = made.tags["digest"]
                # Another variant may have the same file, and be measured now.
                until_recorded.enter_context(store.alone(digest, f"{name}: the same file"))
                made = _measured(request, made, found, store, folder, within)
            store.log(run_id, metrics=made.metrics, tags=made.tags, history=made.history)
            (folder / "config.yaml").write_text(request.config.text, encoding="utf-8")
            if request.log_file and request.log_file.is_file():
                shutil.copy(request.log_file, folder)
            store.keep_all(run_id, folder)
        return run_id


def _taken(request: Request, found: Record, store: Store, folder: Path) -> Trained:
    """The artifact of an earlier run, of which something has to be measured."""
    file = folder / artifact_path(request.variant)
    file.parent.mkdir()
    shutil.copy(store.needed(found, artifact_path(found.tags["variant"])), file)
    shutil.copy(store.needed(found, ASKED), folder)
    return Trained({}, tags={"digest": found.tags["digest"]})


def _measured(
    request: Request, made: Trained, found: Record | None, store: Store, folder: Path, sweep: str | None
) -> Trained:
    """What all probes find of the artifact in `folder`: what is in the store is taken from there, of `sweep` only where
    it is given."""
    config, digest = request.config, made.tags["digest"]
    probes = measuring.keyed(config, request.stage.key, digest)
    earlier = [*([found] if found else []), *store.of_digest(digest, sweep)]
    results = measuring.known(probes, earlier, store, folder)
    left = {key: probe for key, probe in probes.items() if probe.name not in results}
    if results or found:
        names = ", ".join(probe.name for probe in left.values()) or "nothing"
        log.info("%s: the file was measured before; to measure: %s", request.variant, names)
    if left:
        results |= worker.call(measuring.measure, config, request.variant, left, folder)
    tags = {**made.tags, **measuring.tags(results), **measuring.conclude(config, request.variant, results, folder)}
    return Trained(
        {name: value for result in results.values() for name, value in result.metrics.items()},
        tags={**tags, **{name: text for result in results.values() for name, text in result.tags.items()}},
    )


def refusal(config: Config) -> str | None:
    """Why a step makes no sense after those before it, as the function `refuses` of its module says, where it has one;
    None where all of them go together."""
    before: list[Step] = []
    for step in config.steps.values():
        if not step.acts:
            continue
        refuses = getattr(importlib.import_module(step.module), "refuses", None)
        if refuses and (why := refuses(step, tuple(before))):
            return str(why)
        before.append(step)
    return None


def check(configs: Sequence[Config]) -> tuple[tuple[str, ...], list[tuple[Step, str]]]:
    """What is worth knowing before variants of one model and data are made, a line each: of the model, and of it under
    each of their transforms; and the transforms and quantizations that don't fit the model, with the reason. Raises
    `UserError` where the model can't take the images or tell their classes apart.

    A model that comes from elsewhere is built for that, or one of which certain layers are asked for, unless one of the
    same content was before; of another that this project builds the settings are enough. No store is looked at.
    """
    config = configs[0]
    model, data = config.model, dataset(config)
    for name in ("mean", "std"):
        values = getattr(model.settings.preprocess, name)
        if len(values) not in (1, data.shape[2]):
            raise UserError(
                f"model.preprocess.{name}={list(values)}: takes one number or {data.shape[2]}, one for each channel"
            )
    Head.asked(model.settings).of(data.classes)
    worker.use(model.settings.variables())
    own = {tuple(p for s in each.steps.values() for p in keys.own_paths(each, s)): each for each in configs}
    for each in (each for paths, each in own.items() if paths):
        worker.call(work.try_own, each)
    transforms: list[Step] = []  # settings of a user's own may have no hash
    for step in (step for each in configs for step in each.transforms):
        if step.acts and step not in transforms:
            transforms.append(step)
    if not getattr(model.settings, "external", False) and not any(_asks_for_layers(step) for step in transforms):
        return (), []
    if look := getattr(importlib.import_module(model.module), "look", None):
        look(model.settings)
    quants: list[Config] = []
    for each in configs if getattr(model.settings, "external", False) else ():
        if each.quant not in [other.quant for other in quants]:
            quants.append(each)
    try:
        said = _checked(config, data, transforms, quants)
    except OtherImages as error:
        raise UserError(f"{error}{remedy(error.takes, data.shape, config.data)}") from None
    refused = [(transforms[place], why) for place, why in said["refused"]]
    return tuple(said["notes"]), [*refused, *((quants[place].quant, why) for place, why in said["unconverted"])]


def _asks_for_layers(step: Step) -> bool:
    """Whether only the model can tell that the step has something to do."""
    policy = getattr(step.settings, "layers", None)
    return bool(getattr(step.settings, "rules", ())) or not getattr(policy, "is_usual", True)


def _checked(config: Config, data: Dataset, transforms: list[Step], quants: list[Config]) -> dict[str, list[Any]]:
    """What `work.check` says of the model of `config` and of `transforms`, and as `unconverted` the places in `quants`
    of those as whose quantization has it the model can't be converted, each with the reason."""
    model, steps = config.model, [*transforms, *(each.quant for each in quants)]
    asked = {
        "model": [model.describe(), model.title, plain(model.settings)],
        "transforms": [[step.name, step.describe()] for step in transforms],
        "quants": [each.quant.describe() for each in quants],
        "images": [data.shape, len(data.classes)],
        "versions": keys.versions(*keys.LIBRARIES),
        "code": code_version("src.pipeline.work", model.module, *(step.module for step in steps)),
    }

    def find() -> dict[str, list[Any]]:
        said: dict[str, Any] = worker.call(work.check, model, tuple(transforms), data.shape, len(data.classes))
        tried = [] if said.pop("converts") else enumerate(quants)
        return said | {"unconverted": [[place, why] for place, each in tried if (why := _unconverted(each, data))]}

    found: dict[str, list[Any]] = checked.remembered(_cache(config.data), keys.digest(asked), find)
    return found


def _unconverted(config: Config, data: Dataset) -> str | None:
    """Why the model can't be converted as `config` has it; None where it can. The converter may crash at it."""
    try:
        worker.call(work.try_conversion, config, data.shape, len(data.classes))
    except Unfit as error:
        return str(error)
    except worker.Failed as error:
        return f"can't be converted: {error}"
    return None


def remedy(takes: tuple[int | None, ...], shape: tuple[int, int, int], data: Step) -> str:
    """Which settings make images of `shape` those that a model `takes` (height, width, channels; None for any): those
    of the data's option where it has them, else of a folder of images, which has all."""
    if len(takes) != 3:
        return "; takes a model of images: height x width x channels"
    height, width, channels = takes
    can_set: dict[str, int] = {}
    if height == width and height is not None:
        can_set["image_size"] = height
    if channels in (1, 3):
        can_set["channels"] = channels
    differing = {"image_size": takes[:2] != shape[:2], "channels": channels != shape[2]}
    names = [name for name in can_set if differing[name]]
    if lacking := [name for name in names if not hasattr(data.settings, name)]:
        all_of_them = " ".join(f"data.{name}={value}" for name, value in can_set.items())
        return (
            f"; data={data.name} has no setting data.{lacking[0]}, so it takes other images: data=image_folder "
            f"data.path=DIR {all_of_them}"
        )
    sets = [f"data.{name}={can_set[name]}" for name in names]
    return f"; set {' and '.join(sets)}" if sets else ""


def _cache(data: Step) -> Path | None:
    """The folder in which the data keeps decoded images between runs, or would."""
    folder = getattr(data.settings, "cache", "mlruns/cache")
    return Path(os.path.expanduser(folder)) if folder else None


@contextmanager
def _said_where_it_fails(name: str) -> Iterator[None]:
    """Logs the failure when it happens: the sweep goes on, and sums up at its end."""
    try:
        yield
    except Exception as error:
        log.warning("%s failed: %s", name, reason(error))
        raise


def _title(request: Request) -> str:
    """What the log says of the stage that begins."""
    if request.stage.group != "quant":
        return f"{request.stage.name}: {request.config.model.title}"
    images = sum(map(len, dataset(request.config).splits().values()))
    return f"{request.variant}: convert, evaluate {images:,} images"


def _parent(stage: Stage, store: Store) -> Path | None:
    """The parent's checkpoint. Raises `Damaged` where it is not what was recorded."""
    if stage.parent is None:
        return None
    return store.needed(store.finished("stage", [stage.parent.key])[stage.parent.key], CHECKPOINT)


def _notes(stage: Stage, store: Store) -> tuple[str, ...]:
    """The notes of the stages before this one, the first stage first."""
    if stage.parent is None:
        return ()
    record = store.finished("stage", [stage.parent.key])[stage.parent.key]
    return (*_notes(stage.parent, store), *filter(None, [record.tags.get(work.NOTES)]))


def _tags(request: Request, kind: str, found: Record | None) -> dict[str, str]:
    stage = request.stage
    tags = {"stage": stage.group, "key": stage.key, "recipe": stage.recipe}
    tags |= {"parent_key": stage.parent.key} if stage.parent else {}
    tags |= {"artifact_from": found.tags.get("artifact_from", found.run_id)} if found else {}
    return tags | {"variant": request.variant} if kind == "variant" else tags


def _params(request: Request) -> dict[str, Any]:
    """About ten flat parameters, for the columns of the MLflow UI."""
    config, data = request.config, dataset(request.config)
    params: dict[str, Any] = {"data": config.data.name, "model": config.model.name, "train": config.train.name}
    for step in (*config.transforms, config.quant):
        params[step.group] = step.name
        params |= {f"{step.group}_{name}": value for name, value in step.parameters().items()}
        if step.group == request.stage.group:
            break
    if request.stage.epochs:
        params["epochs"] = request.stage.epochs
    params |= {
        "seed": config.seed,
        "image_shape": "x".join(map(str, data.shape)),
        "classes": len(data.classes),
        "train_images": len(data.train),
        "test_images": len(data.test),
    }
    return params
