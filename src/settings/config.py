"""One variant's config: its steps and sections, checked.

Nothing here, nor anything that it imports while it checks a config, imports TensorFlow: a wrong value is answered
before the seconds that TensorFlow takes to load.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as schema

from src.settings.check import STRICT, Count, Positive, Seed, Share, UserError, check
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


@dataclass(frozen=True)
class Step:
    """One option of a group: the function that its `_target_` names and the checked settings for it."""

    group: str
    name: str
    target: str
    settings: Any

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

        Settings that name a file have a `digest()` of its content, which stands for it.
        """
        unused = getattr(self.settings, "UNUSED", ())
        settings = {key: value for key, value in plain(self.settings).items() if key not in unused}
        content = {"content": self.settings.digest()} if hasattr(self.settings, "digest") else {}
        return {"target": self.target, "settings": settings, **content}


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
        return tuple(step.name for step in self.transforms if step.name != "none")

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
    if not isinstance(raw, Mapping) or not isinstance(raw.get("_target_"), str):
        raise UserError(f"{group}: got {raw!r}, takes an option with a _target_ that names a function")
    settings = {key: value for key, value in raw.items() if key != "_target_"}
    target = raw["_target_"]
    expected = _settings_type(target, group)
    return Step(group, name, target, check(expected, settings, group))


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _settings_type(target: str, group: str) -> Any:
    try:
        expected = inspect.signature(_function(target)).parameters["config"].annotation
    except (ImportError, AttributeError, ValueError, KeyError) as error:
        raise UserError(
            f"{group}._target_={target}: takes the dotted path of a function with a `config` parameter ({error})"
        ) from None
    if not is_dataclass(expected):
        raise UserError(f"{group}._target_={target}: the function's `config` parameter takes a dataclass as annotation")
    return expected
