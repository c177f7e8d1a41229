"""The schema of every setting: types, ranges and what each means.

Nothing here, nor anything that it imports while it checks a config, imports TensorFlow: a wrong value is
answered before the seconds that TensorFlow takes to load.
"""

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as schema
from pydantic_core import to_jsonable_python

from src.settings import credentials

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class Told(Exception):
    """An error whose text is for the user to read: one line that says all there is to say."""


class UserError(Told):
    """Something the user gave can't be used: one line that names it, what it got and what it takes. Exit code 2."""


# --- Sections --------------------------------------------------------------------------------------------------

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
ImageSize = Annotated[int, Field(ge=4, le=1024)]
SplitShare = Annotated[float, Field(gt=0, lt=0.5)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
FLOAT32_MAX = 3.4e38
Resize = Literal["bilinear", "bicubic", "lanczos", "area", "nearest", "tf_bilinear"]


def _several(value: Any) -> Any:
    """One number as a list of it."""
    return [value] if isinstance(value, int | float) else value


def _names(value: Any) -> Any:
    """A list of names as Hydra and YAML read it, whole numbers as text. Raises `ValueError` for what else they make of
    a name without quotes: what was typed can't be told from it."""
    if not isinstance(value, list | tuple):
        return value
    for name in value:
        if name is None or isinstance(name, bool | float):
            kind = {type(None): "nothing", bool: "true or false", float: "a number"}[type(name)]
            quoted = json.dumps([n if isinstance(n, str) else json.dumps(n) for n in value], ensure_ascii=False)
            right = shlex.quote(f"data.classes={quoted}".replace(", ", ","))
            raise ValueError(
                f"{json.dumps(name)} is read as {kind} and not as a name; takes names, in quotes and as they are spelt "
                f"where they look like that: {right}"
            )
    return [str(name) if isinstance(name, int) else name for name in value]


@schema(frozen=True, config=STRICT)
class Preprocess:
    """From uint8 images to what the model takes: channels in its order, then `(image * rescale - mean) / std`, with a
    mean and std for each of its channels or one for all."""

    channel_order: Literal["rgb", "bgr"] = "rgb"
    rescale: Positive = 1 / 255
    mean: Annotated[tuple[float, ...], BeforeValidator(_several)] = (0.0,)
    std: Annotated[tuple[Positive, ...], BeforeValidator(_several)] = (1.0,)

    def __post_init__(self) -> None:
        most = max((255 * self.rescale + abs(mean)) / std for mean in self.mean for std in self.std)
        if most > FLOAT32_MAX:
            raise ValueError(f"makes up to {most:.0e} of a pixel; takes what float32 can hold")

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:g}" for value in per_channel) for per_channel in (self.mean, self.std))
        return f"(image × {self.rescale:.6g} − {mean}) / {std}, {self.channel_order}"


@schema(frozen=True, config=STRICT)
class Digits:
    """The 1,797 handwritten digits (8 x 8, 10 classes) that scikit-learn ships."""

    image_size: ImageSize = 8
    seed: Seed = 0
    validation: SplitShare = 0.25
    test: SplitShare = 0.25


@schema(frozen=True, config=STRICT)
class ImageFolder:
    """A folder per class, or `train/`, `test/` and optionally `validation/` of such folders.

    `classes` gives the folders and their order; null takes all, sorted as text, which is what Keras and torchvision do.
    `crop` cuts the largest central square out before resizing. Decoded images are held in memory up to `memory_gib`,
    and kept in the folder `cache` between runs up to `cache_gib`.
    """

    path: Annotated[str, Field(min_length=1, description="a folder with a folder of images for each class")]
    classes: Annotated[tuple[Annotated[str, Field(min_length=1)], ...] | None, BeforeValidator(_names)] = None
    image_size: ImageSize = 32
    channels: Literal[1, 3] = 3
    resize: Resize = "bilinear"
    crop: bool = False
    seed: Seed = 0
    validation: SplitShare = 0.1
    test: SplitShare = 0.2
    memory_gib: Annotated[float, Field(ge=0)] = 1.0
    cache: Annotated[str, Field(min_length=1)] | None = "mlruns/cache"
    cache_gib: Annotated[float, Field(ge=0)] = 32.0


@schema(frozen=True, config=STRICT)
class Npz:
    """Arrays in an `.npz` file: `x_train`, `y_train`, `x_test`, `y_test` (and `x_val`, `y_val`), or `x`, `y`.

    `image_size` null leaves the images as they are.
    """

    path: Annotated[str, Field(min_length=1, description="an .npz file")]
    image_size: ImageSize | None = None
    resize: Resize = "bilinear"
    seed: Seed = 0
    validation: SplitShare = 0.1
    test: SplitShare = 0.2


@schema(frozen=True, config=STRICT)
class KerasBuiltin:
    """A data set that Keras loads. `image_size` null leaves the images as they are."""

    name: Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]
    image_size: ImageSize | None = None
    resize: Resize = "bilinear"
    seed: Seed = 0
    validation: SplitShare = 0.1


@schema(frozen=True, config=STRICT)
class Tfds:
    """A data set of TensorFlow Datasets, from the folder `dir` or TFDS's own.

    `train_split` and others are TFDS's split expressions; where one is null the split is drawn from training. Decoded
    images of more than `memory_gib` are held in a temporary file in the folder `cache`.
    """

    name: Annotated[str, Field(min_length=1)]
    dir: Annotated[str, Field(min_length=1)] | None = None
    download: bool = False
    train_split: Annotated[str, Field(min_length=1)] = "train"
    validation_split: Annotated[str, Field(min_length=1)] | None = None
    test_split: Annotated[str, Field(min_length=1)] | None = "test"
    image_size: ImageSize = 32
    resize: Resize = "bilinear"
    seed: Seed = 0
    validation: SplitShare = 0.1
    test: SplitShare = 0.2
    memory_gib: Annotated[float, Field(ge=0)] = 1.0
    cache: Annotated[str, Field(min_length=1)] = "mlruns/cache"


@schema(frozen=True, config=STRICT)
class Architecture:
    """A model that this project builds: its preprocessing; size and classes come from the data."""

    preprocess: Preprocess = Preprocess()


@schema(frozen=True, config=STRICT)
class Application(Architecture):
    """A model of `tf_keras.applications` with another top. `weights` null starts from random ones."""

    weights: Literal["imagenet"] | None = None

    @property
    def external(self) -> bool:
        return self.weights is not None


@schema(frozen=True, config=STRICT)
class MobileNetV2(Application):
    """`alpha` scales the width of every layer. There are ImageNet weights for six of its values."""

    alpha: Positive = 1.0

    def __post_init__(self) -> None:
        published = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
        if self.weights and self.alpha not in published:
            raise ValueError(
                f"alpha={self.alpha} has no weights={self.weights}; takes one of {', '.join(map(str, published))}"
            )


KERAS_MODEL = "a Keras model: .keras, .h5 or a SavedModel folder"


def _exists(path: str) -> str:
    if not Path(os.path.expanduser(path)).exists():
        raise ValueError(f"{path} does not exist; takes {KERAS_MODEL}")
    return path


@schema(frozen=True, config=STRICT, kw_only=True)
class Saved(Architecture):
    """A Keras model in a file or folder. What is in it decides, not where it lies.

    `logits` says whether it gives logits or probabilities; null finds out from its last layer. `custom_objects` are
    import paths of the layers and functions of its own that it is made of.
    """

    UNUSED: ClassVar[tuple[str, ...]] = ("path",)
    external: ClassVar[bool] = True

    path: Annotated[str, Field(min_length=1, description=KERAS_MODEL), AfterValidator(_exists)]
    logits: bool | None = None
    custom_objects: tuple[Annotated[str, Field(pattern=r"^\w+(\.\w+)+$")], ...] = ()

    def digest(self) -> str:
        """Of the file or of every file in the folder, and of the modules that the custom objects come from."""
        path = Path(os.path.expanduser(self.path))
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        parts = {as_utf8(str(file.relative_to(path))): _file_digest(file, file.stat().st_mtime_ns) for file in files}
        for name in self.custom_objects:
            with suppress(ImportError, ValueError):
                spec = importlib.util.find_spec(name.rpartition(".")[0])
                if spec and spec.origin and (source := Path(spec.origin)).is_file():
                    parts[name] = _file_digest(source, source.stat().st_mtime_ns)
        return hashlib.sha256(canonical(parts).encode(errors="surrogateescape")).hexdigest()


@functools.lru_cache(maxsize=1024)
def _file_digest(file: Path, modified: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@schema(frozen=True, config=STRICT)
class Untrained:
    """The model as it is. It takes the keys of a training, so that an experiment's fit; none makes a difference."""

    UNUSED: ClassVar[tuple[str, ...]] = ("epochs", "batch_size", "learning_rate", "jit_compile")

    epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: Positive | None = None
    jit_compile: bool | None = None


@schema(frozen=True, config=STRICT)
class Train:
    """Training of the dense baseline with Adam; the weights of the best validation accuracy are kept."""

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    jit_compile: bool = False


@schema(frozen=True, config=STRICT)
class Augment:
    """Random changes to each training image, in every stage that trains: mirrored, moved by up to this share."""

    flip: bool = False
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0


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


@schema(frozen=True, config=STRICT)
class Quantization:
    """Post-training quantization by the TFLite converter. Every scheme takes the same keys, so that one override fits
    a whole sweep; `UNUSED` are those that make no difference to this one."""

    UNUSED: ClassVar[tuple[str, ...]] = ("representative_images",)

    representative_images: Count = 200


@schema(frozen=True, config=STRICT)
class FullInteger(Quantization):
    """Quantization that calibrates activations on images from the training split."""

    UNUSED: ClassVar[tuple[str, ...]] = ()


@schema(frozen=True, config=STRICT)
class Benchmark:
    """How latency is measured: batch 1, all artifacts in random interleaved rounds, several fresh instances of each."""

    threads: Annotated[int, Field(ge=1, le=256, description="of the interpreter")] = 1
    instances: Annotated[int, Field(ge=3, le=1000, description="fresh interpreters per artifact, at most")] = 80
    rounds: Annotated[int, Field(ge=3, le=1000, description="per instance; each takes every artifact, shuffled")] = 5
    warmup: Annotated[int, Field(ge=0, le=1000, description="invokes of an instance before its first round")] = 3
    precision: Annotated[float, Field(gt=0, lt=1, description="stop once all ratios are known to ± this share")] = 0.02
    seconds: Annotated[float, Field(gt=0, description="in all, unless the least to compare takes longer")] = 120.0
    operators: Annotated[bool, Field(description="time per operator, in one more process per artifact")] = True
    seed: Annotated[int, Field(ge=0, description="of the random order and of the bootstrap")] = 0


@schema(frozen=True, config=STRICT)
class Audit:
    """What is read off an artifact beside its own size and that under gzip 6."""

    compressors: tuple[Literal["gzip9", "xz", "zstd"], ...] = ()

    def __post_init__(self) -> None:
        if "zstd" in self.compressors and importlib.util.find_spec("zstandard") is None:
            raise ValueError("compressors=zstd takes the package zstandard (make setup EXTRAS=dev,zstd)")


@schema(frozen=True, config=STRICT)
class Compare:
    """What the comparison calls equal."""

    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01  # drop in accuracy that one would not mind: 0.01 is a point
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95  # of every interval; 1 - confidence bounds the p-value


def _whole_number_as_text(value: Any) -> Any:
    """Hydra reads `2024` as a number; of `2024.10` it leaves 2024.1, which is another name."""
    return str(value) if type(value) is int else value


@schema(frozen=True, config=STRICT)
class Tracking:
    """Where results are kept. `uri` never holds a password: `src.settings.credentials` has put it aside."""

    uri: Annotated[
        str,
        Field(min_length=1, description="sqlite:///FILE, or a server's http://HOST:PORT"),
        AfterValidator(credentials.apart),
    ]
    experiment: Annotated[
        str,
        Field(min_length=1, description="text; what looks like a number with a point in quotes, \"'2024.10'\""),
        BeforeValidator(_whole_number_as_text),
    ]
    retry_seconds: Annotated[float, Field(ge=0)] = 300


@schema(frozen=True, config=STRICT)
class Sweep:
    """What the sweeper tells each of its jobs: the parent run, the variant's name, the key of the stage to do, and
    among how many jobs at a time this machine's cores are divided. No setting of a user's."""

    run_id: str | None = None
    variant: str | None = None
    stage: str | None = None
    parallel: Count = 1


# --- Steps: a function and its settings, chosen by one config file ---------------------------------------------


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
    def policy(self) -> str:
        """The transforms that act, by name; none where none does."""
        return "-".join(step.name for step in self.transforms if step.name != "none") or "none"

    @property
    def name(self) -> str:
        """Of the variant, such as `p1-fiq`: a group of transforms that does nothing leaves no trace in it."""
        return f"{self.policy}-{self.quant.name}"


# --- From a composed config to a checked one -------------------------------------------------------------------

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


_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


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


def check(expected: Any, value: Any, key: str) -> Any:
    """`value` as `expected` (a type or a schema of this module); `key`, which may be empty, names it in the error.

    Raises `UserError` in one line: the key, what it got, what it takes.
    """
    adapter = _adapter(expected)
    try:
        checked = adapter.validate_python(value)
    except ValidationError as error:
        raise UserError(_one_line(error, adapter.json_schema(), key)) from None
    for location, truth in _taken_for_numbers(value, checked):
        raise UserError(_takes_other(truth, adapter.json_schema(), key, location))
    return checked


def _taken_for_numbers(value: Any, checked: Any, location: tuple[str, ...] = ()) -> Iterator[tuple[list[str], bool]]:
    """Where `value` has true or false and `checked` a number: Python takes the one for the other."""
    if isinstance(value, bool):
        if isinstance(checked, int | float | tuple) and not isinstance(checked, bool):
            yield list(location), value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _taken_for_numbers(one, getattr(checked, str(key), None), (*location, str(key)))
    elif isinstance(value, list) and isinstance(checked, tuple):
        for i, (one, other) in enumerate(zip(value, checked, strict=False)):
            yield from _taken_for_numbers(one, other, (*location, str(i)))


def plain(value: Any) -> Any:
    """Settings or results as JSON-able data: dataclasses as dicts, tuples as lists, and None for NaN and infinity,
    which JSON does not have."""
    return to_jsonable_python(value, inf_nan_mode="null")


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal for equal data, whatever order it was written in."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def as_utf8(name: str) -> str:
    """A file's name, which Python has read in the encoding of the locale, as what its bytes are in UTF-8. Bytes that
    are none stay, as surrogates."""
    return os.fsencode(name).decode(errors="surrogateescape")


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


def _one_line(error: ValidationError, schema: Mapping[str, Any], key: str) -> str:
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    name = _name(key, location)
    match first["type"]:
        case "unexpected_keyword_argument":
            takes = ", ".join(_fields(schema, location[:-1]))
            return f"{name}: no such key; {'.'.join([key, *location[:-1]])} takes {takes}"
        case "missing" | "missing_argument":
            return f"{name}: needs a value; takes {_takes(schema, location)}"
        case "value_error":
            return f"{name}: {first['ctx']['error']}"
        case "string_type" if isinstance(first["input"], int | float):
            quoted = shlex.quote(f'{name}="{json.dumps(first["input"])}"')
            return f"{_takes_other(first['input'], schema, key, location)}; as text it takes quotes: {quoted}"
        case _:
            return _takes_other(first["input"], schema, key, location)


def _takes_other(got: Any, schema: Mapping[str, Any], key: str, location: Sequence[str]) -> str:
    shown = got if isinstance(got, str) else json.dumps(got, default=str)
    return f"{_name(key, location)}={shown}: takes {_takes(schema, location)}"


def _name(key: str, location: Sequence[str]) -> str:
    """One of a list goes by the name of the list."""
    return ".".join(filter(None, [key, *(part for part in location if not part.isdigit())]))


def _node(schema: Mapping[str, Any], location: Sequence[str]) -> Mapping[str, Any]:
    """The part of a JSON schema that describes one key, references followed."""
    node, definitions = schema, schema.get("$defs", {})
    for part in (None, *location):
        if part is not None:
            node = node["items"] if part.isdigit() and "items" in node else node.get("properties", {}).get(part, {})
        if "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[1]]
    return node


def _fields(schema: Mapping[str, Any], location: Sequence[str]) -> list[str]:
    return list(_node(schema, location).get("properties", {}))


def _takes(schema: Mapping[str, Any], location: Sequence[str]) -> str:
    node = _node(schema, location)
    if choices := node.get("enum") or ([node["const"]] if "const" in node else None):
        return "one of " + ", ".join(map(str, choices))
    if options := node.get("anyOf"):
        return " or ".join("nothing (null)" if o.get("type") == "null" else _takes(o, ()) for o in options)
    kinds = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "array": "a list",
        "object": "settings: " + ", ".join(node.get("properties", {})),
    }
    words = kinds.get(node.get("type", ""), "another value")
    if node.get("minLength"):
        words = node.get("description", "text that is not empty")
    if "minimum" in node:
        words += f" of at least {node['minimum']}"
    if "exclusiveMinimum" in node:
        words += f" above {node['exclusiveMinimum']}"
    low = "minimum" in node or "exclusiveMinimum" in node
    if "maximum" in node:
        words += f"{' and' if low else ' of'} at most {node['maximum']}"
    if "exclusiveMaximum" in node:
        words += f"{' and' if low else ''} below {node['exclusiveMaximum']}"
    return words
