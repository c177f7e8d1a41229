"""The settings of a run that are not those of a step: types, ranges and what each means."""

import importlib.util
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass as schema

from src.settings import credentials
from src.settings.check import STRICT, Count, Positive, Share
from src.settings.own_code import ImportPath

FLOAT32_MAX = 3.4e38


def _several(value: Any) -> Any:
    """One number as a list of it."""
    return [value] if isinstance(value, int | float) else value


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
class Augment:
    """Random changes to each training image, in every stage that trains: mirrored, moved by up to this share, turned by
    up to `rotation` degrees, scaled, lit and with more or less contrast by up to these shares, without a part whose
    height and width are the share `cutout` of the image's, and mixed with another in shares of Beta(mixup, mixup).

    `own` changes each image before it is mixed: `(image, rng) -> image`, uint8 `[height, width, channels]`."""

    flip: bool = False
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    zoom: Share = 0.0
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.0
    cutout: Share = 0.0
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    own: ImportPath | None = None

    @property
    def acts(self) -> bool:
        """Whether an image differs from epoch to epoch."""
        return bool(self.flip or self.shift or self.of_each_image)

    @property
    def of_each_image(self) -> bool:
        """Whether something is drawn for each image on its own."""
        return any((self.rotation, self.zoom, self.brightness, self.contrast, self.cutout, self.mixup, self.own))


@schema(frozen=True, config=STRICT)
class Audit:
    """What is read off an artifact beside its own size and that under gzip 6."""

    compressors: tuple[Literal["gzip9", "xz", "zstd"], ...] = ()

    def __post_init__(self) -> None:
        if "zstd" in self.compressors and importlib.util.find_spec("zstandard") is None:
            raise ValueError("compressors=zstd: takes the package zstandard; `make setup EXTRAS=dev,zstd` installs it")


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
