"""What is found out before variants are made: what a model takes, which steps fit it, and what a user should know of
it. No store is looked at."""

import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.data import Dataset, dataset
from src.methods.fitting import Fitting
from src.models import checked
from src.models.fitted import OtherImages
from src.pipeline import keys, work, worker
from src.pipeline.code import code_version
from src.settings.check import Unfit, UserError
from src.settings.config import Config, Step
from src.settings.head import Head
from src.settings.plain import plain

log = logging.getLogger(__name__)


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
    if not getattr(model.settings, "external", False) and not any(_asks_for_model(step) for step in transforms):
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
    if said["any_size"] and getattr(config.data.settings, "asks_for_size", False):
        raise UserError(
            "data.image_size: the model takes images of any size; takes the one that it is meant for, such as "
            "data.image_size=224"
        )
    if said["fixed"] and isinstance(config.train.settings, Fitting):
        raise UserError(f"train={config.train.name}: the model {said['fixed']}; takes train=none")
    refused = [(transforms[place], why) for place, why in said["refused"]]
    return tuple(said["notes"]), [*refused, *((quants[place].quant, why) for place, why in said["unconverted"])]


def _asks_for_model(step: Step) -> bool:
    """Whether only the model can tell that the step has something to do."""
    policy = getattr(step.settings, "layers", None)
    unusual = bool(getattr(step.settings, "rules", ())) or not getattr(policy, "is_usual", True)
    return unusual or getattr(step.settings, "asks_for_model", False)


def _checked(config: Config, data: Dataset, transforms: list[Step], quants: list[Config]) -> dict[str, Any]:
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

    def find() -> dict[str, Any]:
        said: dict[str, Any] = worker.call(work.check, model, tuple(transforms), data.shape, len(data.classes))
        tried = [] if said.pop("converts") else enumerate(quants)
        return said | {"unconverted": [[place, why] for place, each in tried if (why := _unconverted(each, data))]}

    found: dict[str, Any] = checked.remembered(_cache(config.data), keys.digest(asked), find)
    return found


def _unconverted(config: Config, data: Dataset) -> str | None:
    """Why the model can't be converted as `config` has it; None where it can. The converter may crash at it."""
    log.info("tries what the converter takes of %s: %s", config.model.title, config.quant.name)
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
    can_set: dict[str, Any] = {}
    if height and width:
        can_set["image_size"] = height if height == width else f"[{height},{width}]"
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
    if None in takes[:2] and getattr(data.settings, "asks_for_size", False):
        sets.append("data.image_size, the size that it is meant for")
    return f"; set {' and '.join(sets)}" if sets else ""


def _cache(data: Step) -> Path | None:
    """The folder in which the data keeps decoded images between runs, or would."""
    folder = getattr(data.settings, "cache", "mlruns/cache")
    return Path(os.path.expanduser(folder)) if folder else None
