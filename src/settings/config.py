"""One variant's config: its steps and sections, checked.

Nothing here, nor anything that it imports while it checks a config, imports TensorFlow: a wrong value is answered
before the seconds that TensorFlow takes to load.
"""

import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from src.settings.check import Seed, UserError, check, knows, names
from src.settings.plain import plain
from src.settings.sections import Audit, Augment, Benchmark, Compare, Sweep, Tracking


@dataclass(frozen=True)
class Step:
    """One option of a group: the function that its `_target_` names and the checked settings for it. An option that
    does nothing, `none` of a group of transforms, has neither; what its file has as `_parameters_` is `recorded`, since
    others of its group record it of their settings."""

    group: str
    name: str
    target: str
    settings: Any = field(hash=False)  # a user's own need have no hash
    recorded: tuple[tuple[str, Any], ...] = field(default=(), hash=False)

    @property
    def acts(self) -> bool:
        return bool(self.target)

    @property
    def title(self) -> str:
        """For a person: the file or folder that it is about, where there is one; else what it is called."""
        path = getattr(self.settings, "path", None)
        return Path(path).name if path else self.name

    @property
    def module(self) -> str:
        """Where its function is."""
        return self.target.rpartition(".")[0]

    @property
    def function(self) -> Callable[..., Any]:
        return _function(self.target)

    def describe(self) -> dict[str, Any]:
        """All that decides what the step does, as plain data: part of a stage's key.

        Settings that name a file as their `path` have a `digest()` of its content, which stands for it. A setting that
        is several, and says of itself that it does not act, decides nothing and is left out.
        """
        settings = plain(self.settings)
        for each in fields(self.settings):
            if getattr(getattr(self.settings, each.name), "acts", True) is False:
                del settings[each.name]
        if not hasattr(self.settings, "digest"):
            return {"target": self.target, "settings": settings}
        del settings["path"]
        return {"target": self.target, "settings": settings, "content": self.settings.digest()}

    def parameters(self) -> dict[str, Any]:
        """What a run of it records of its settings: what their method of this name says, else all that are a number or
        text; and what is `recorded`."""
        recorded = dict(self.recorded)
        if not self.acts:
            return recorded
        if hasattr(self.settings, "parameters"):
            return recorded | dict(self.settings.parameters())
        settings = plain(self.settings)
        return recorded | {key: value for key, value in settings.items() if isinstance(value, int | float | str)}

    def takes(self, path: Sequence[str]) -> bool:
        """Whether it has a setting of this name, or of these names one inside the other."""
        return self.acts and knows(type(self.settings), path)


@dataclass(frozen=True)
class Config:
    """One variant, checked: what `python -m src.run` without `-m` does."""

    seed: int
    plan: bool
    reuse: Literal["none", "stages", "all"]
    data: Step
    model: Step
    augment: Augment
    train: Step
    transforms: tuple[Step, ...]
    quant: Step
    audit: Audit
    benchmark: Benchmark
    compare: Compare
    tracking: Tracking
    text: str
    sweep: Sweep = field(default_factory=Sweep)

    @property
    def acting(self) -> tuple[str, ...]:
        """The transforms that do something, by name, in order."""
        return tuple(step.name for step in self.transforms if step.acts)

    @property
    def steps(self) -> dict[str, Step]:
        """What makes an artifact of a model, by group and in order: one option of each may fit what others take."""
        return {step.group: step for step in (self.train, *self.transforms, self.quant)}

    @property
    def name(self) -> str:
        """Of the variant, such as `p1-fiq`: a group of transforms that does nothing leaves no trace in it."""
        return "-".join([*(self.acting or ("none",)), self.quant.name])


STEPS = ("data", "model", "train", "quant")
SECTIONS: dict[str, Any] = {
    "seed": Seed,
    "plan": bool,
    "reuse": Literal["none", "stages", "all"],
    "augment": Augment,
    "audit": Audit,
    "benchmark": Benchmark,
    "compare": Compare,
    "tracking": Tracking,
}


def load(
    composed: Mapping[str, Any], choices: Mapping[str, str], text: str = "", variables: Collection[str] = ()
) -> Config:
    """Checks what Hydra composed.

    `choices` names the option of each group, as in `hydra.runtime.choices`; `text` is the whole as YAML; `variables`
    are names in interpolations, which may stand for themselves. Every group in `transforms` is a step from checkpoint
    to checkpoint, done in that order between training and conversion; the option `none` does nothing.

    Raises `UserError` for the first value that is not of the type or in the range that its key takes, that is left out,
    or that nothing reads.
    """
    raw = dict(composed)
    if missing := [name for name in ("transforms", *STEPS, *SECTIONS) if name not in raw]:
        raise UserError(f"{missing[0]}: is left out; every run takes it")
    transforms = check(tuple[str, ...], raw["transforms"], "transforms")
    for i, group in enumerate(transforms):
        if group not in raw:
            raise UserError(f"{group}: is left out, and transforms names it; takes an option, such as {group}=none")
        if group in (*STEPS, *SECTIONS, *transforms[:i]):
            raise UserError(f"transforms={group}: takes config groups of steps between train and quant, each once")
    known = {"transforms", *STEPS, *transforms, *SECTIONS}
    idle = {key for key in choices if _does_nothing(raw.get(key))}
    unread = sorted(raw.keys() - known - set(variables) - idle)
    if unread and unread[0] in choices and "_target_" in raw[unread[0]]:
        raise UserError(
            f"{unread[0]}={choices[unread[0]]}: transforms does not name it; takes it there, such as "
            f"'transforms=[{','.join((unread[0], *transforms))}]'"
        )
    if unread:
        raise UserError(f"{unread[0]}: no such key; nothing reads it; the top level takes {', '.join(sorted(known))}")
    steps = {group: step(group, raw[group], choices.get(group, "custom")) for group in (*STEPS, *transforms)}
    _check_model(steps)
    checked: dict[str, Any] = {name: check(section, raw[name], name) for name, section in SECTIONS.items()}
    checked |= {group: steps[group] for group in STEPS}
    return Config(transforms=tuple(steps[group] for group in transforms), text=text, **checked)


def _does_nothing(raw: Any) -> bool:
    """Whether it is the option `none` of a group of steps."""
    return isinstance(raw, Mapping) and raw.get("_target_", 0) is None


def _check_model(steps: Mapping[str, Step]) -> None:
    """Has settings look at those of the model: what has a method `check_model`, which raises `UserError`."""
    for group, step in steps.items():
        inside = {f"{group}.{name}": value for name, value in vars(step.settings).items()} if step.acts else {}
        for key, value in {f"{group}={step.name}": step.settings, **inside}.items():
            if hasattr(value, "check_model"):
                value.check_model(steps["model"].settings, key)


def step(group: str, raw: Any, name: str) -> Step:
    """One option of a group, checked: `raw` is what its file says, `name` what it is called."""
    expected = _settings_type(group, raw)
    if keys := unread(group, raw):
        takes = ", ".join(names(expected)) if expected else ""
        raise UserError(f"{group}.{keys[0]}: no such key; {group} takes {takes or 'none'}")
    recorded = tuple(check(dict[str, float | int | str], raw.get("_parameters_", {}), f"{group}._parameters_").items())
    if not expected:
        return Step(group, name, "", None, recorded)
    return Step(group, name, raw["_target_"], check(expected, _settings(raw), group), recorded)


def unread(group: str, raw: Any) -> tuple[str, ...]:
    """The keys in what the file of an option says, such as `layers.types`, for which its step has no setting."""
    expected = _settings_type(group, raw)
    paths = _paths(_settings(raw))
    return tuple(".".join(path) for path in paths if not (expected and knows(expected, path)))


def _settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key not in ("_target_", "_parameters_")}


def _paths(raw: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in raw.items():
        path = (*above, str(key))
        if isinstance(value, Mapping) and value:
            yield from _paths(value, path)
        else:
            yield path


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _settings_type(group: str, raw: Any) -> Any:
    """The dataclass of an option's settings, None where the option does nothing."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("_target_", 0), str | None):
        raise UserError(f"{group}: got {raw!r}, takes an option with a _target_ that names a function")
    target = raw["_target_"]
    if target is None:
        return None
    try:
        function = _function(target)
        expected = inspect.signature(function).parameters["config"].annotation
        if isinstance(expected, str):  # of a module that begins with `from __future__ import annotations`
            expected = eval(expected, inspect.unwrap(function).__globals__)
    except (ImportError, AttributeError, NameError, ValueError, KeyError) as error:
        raise UserError(
            f"{group}._target_={target}: takes the dotted path of a function with a `config` parameter ({error})"
        ) from None
    if not is_dataclass(expected):
        raise UserError(f"{group}._target_={target}: the function's `config` parameter takes a dataclass as annotation")
    return expected
