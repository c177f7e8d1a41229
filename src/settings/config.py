"""One variant's config: its steps and sections, checked.

Nothing here, nor anything that it imports while it checks a config, imports TensorFlow: a wrong value is answered
before the seconds that TensorFlow takes to load.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as schema

from src.settings.check import STRICT, Count, Positive, Seed, Share, UserError, check, knows, names
from src.settings.plain import plain
from src.settings.sections import Audit, Augment, Benchmark, Compare, Sweep, Tracking

# Layers of Keras that have a kernel.
KERNELS = (
    *("Dense", "EinsumDense", "Embedding", "Conv1D", "Conv2D", "Conv3D", "SeparableConv1D", "SeparableConv2D"),
    *("DepthwiseConv1D", "DepthwiseConv2D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    *("LocallyConnected1D", "LocallyConnected2D", "LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
    *("MultiHeadAttention", "Bidirectional", "TimeDistributed", "RNN"),
)


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression ({error})") from None
    return value


@schema(frozen=True, config=STRICT)
class Layers:
    """Which layers a pruning policy takes."""

    types: tuple[str, ...]
    pattern: Annotated[str, AfterValidator(_pattern)] = ".*"
    min_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    spare_first_convolution: bool = True
    spare_classifier: bool = True


@schema(frozen=True, config=STRICT)
class MagnitudePruning:
    """A TFMOT schedule over the steps of a fine-tuning, on the layers that the policy takes."""

    schedule: Literal["polynomial", "constant"]
    initial_sparsity: Share
    final_sparsity: Share
    begin: Annotated[float, Field(ge=0, le=1)]
    end: Annotated[float, Field(ge=0, le=1)]
    frequency: Count
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    layers: Layers
    jit_compile: bool = False

    def __post_init__(self) -> None:
        if self.end < self.begin:
            raise ValueError(f"end={self.end} lies before begin={self.begin}; takes a number from begin to 1")

    def parameters(self) -> dict[str, float]:
        return {"final_sparsity": self.final_sparsity}


@dataclass(frozen=True)
class Step:
    """One option of a group: the function that its `_target_` names and the checked settings for it. An option that
    does nothing, `none` of a group of transforms, has neither; what its file has as `_parameters_` is `recorded`."""

    group: str
    name: str
    target: str
    settings: Any
    recorded: tuple[tuple[str, Any], ...] = ()

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

        Settings that name a file as their `path` have a `digest()` of its content, which stands for it.
        """
        settings = plain(self.settings)
        if not hasattr(self.settings, "digest"):
            return {"target": self.target, "settings": settings}
        del settings["path"]
        return {"target": self.target, "settings": settings, "content": self.settings.digest()}

    def parameters(self) -> dict[str, Any]:
        """What a run of it records of its settings: what their method of this name says, else all that are a number or
        text."""
        if not self.acts:
            return dict(self.recorded)
        if hasattr(self.settings, "parameters"):
            return dict(self.settings.parameters())
        return {key: value for key, value in plain(self.settings).items() if isinstance(value, int | float | str)}

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
    if unread := sorted(raw.keys() - known - set(variables)):
        raise UserError(f"{unread[0]}: no such key; nothing reads it; the top level takes {', '.join(sorted(known))}")
    steps = {group: step(group, raw[group], choices.get(group, "custom")) for group in (*STEPS, *transforms)}
    _check_layer_types(steps)
    checked: dict[str, Any] = {name: check(section, raw[name], name) for name, section in SECTIONS.items()}
    checked |= {group: steps[group] for group in STEPS}
    return Config(transforms=tuple(steps[group] for group in transforms), text=text, **checked)


def _check_layer_types(steps: Mapping[str, Step]) -> None:
    """Raises `UserError` for a policy with a type of layer that neither Keras nor the model's own modules have."""
    own = [path.rpartition(".")[2] for path in getattr(steps["model"].settings, "custom_objects", ())]
    for group, step in steps.items():
        policy = getattr(step.settings, "layers", None)
        for kind in policy.types if isinstance(policy, Layers) else ():
            if kind not in (*KERNELS, *own):
                close = difflib.get_close_matches(kind, (*KERNELS, *own), 1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise UserError(
                    f"{group}.layers.types={kind}: no layer with a kernel; {hint}takes types of Keras such as Conv2D, "
                    "and those in model.custom_objects"
                )


def step(group: str, raw: Any, name: str) -> Step:
    """One option of a group, checked: `raw` is what its file says, `name` what it is called."""
    expected = _settings_type(group, raw)
    if keys := unread(group, raw):
        takes = ", ".join(names(expected)) if expected else ""
        raise UserError(f"{group}.{keys[0]}: no such key; {group} takes {takes or 'none'}")
    if not expected:
        recorded = check(dict[str, float | int | str], raw.get("_parameters_", {}), f"{group}._parameters_")
        return Step(group, name, "", None, tuple(recorded.items()))
    return Step(group, name, raw["_target_"], check(expected, _settings(raw), group))


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
