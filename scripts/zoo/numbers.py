"""What was found of each model, and the numbers that decide whether this project takes the models that people have."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LARGEST_DIFFERENCE = 1e-4
LEAST_DENSE, LEAST_PRUNED = 0.98, 0.95
DENSE = 4  # variants
LONGEST = 300  # characters of one right line
OF_A_PROGRAM = ("can't be read (", "loc(", "error:", "Error:")  # what tells nobody what to do


@dataclass
class Model:
    """One kind in one format of one Keras. `plain` and `here` hold what `maker` and `here` answer; an answer
    with `why` is of something that was not done."""

    keras: str
    kind: str
    format: str
    zoo: str  # digests of the code that made it, and of the project's
    code: str
    made: dict[str, Any] = field(default_factory=dict)
    plain: list[dict[str, Any]] = field(default_factory=list)
    here: list[dict[str, Any]] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.keras, self.kind, self.format

    @property
    def is_there(self) -> bool:
        """Whether its Keras makes and saves it."""
        return self.made.get("saved", {}).get(self.format, "not made") == ""

    @property
    def plainly(self) -> list[dict[str, Any]]:
        return [answer for answer in self.plain if "takes" in answer]

    @property
    def plainly_taken(self) -> bool:
        return len(self.plainly) == DENSE

    @property
    def trains(self) -> bool:
        """Whether the Keras that made it trains it; no Keras trains a SavedModel that Keras 3 exported."""
        return self.made["trains"] == "" and not (self.format == "savedmodel" and self.keras.startswith("3"))

    def here_of(self, name: str) -> Any:
        return next((answer[name] for answer in self.here if name in answer), None)

    @property
    def variants(self) -> list[dict[str, Any]]:
        return [answer for answer in self.here if "variant" in answer]

    @property
    def dense(self) -> int:
        return sum(answer["dense"] and "why" not in answer for answer in self.variants)

    @property
    def pruned(self) -> bool:
        pruned = [answer for answer in self.variants if not answer["dense"]]
        return bool(pruned) and all("why" not in answer for answer in pruned)

    @property
    def refused_rightly(self) -> bool:
        """In one line that was written for it, before anything was trained: the model, or single variants."""
        whys = [answer for answer in self.here if "why" in answer]
        return bool(whys) and not self.crash and all(_is_right(answer) for answer in whys)

    @property
    def difference(self) -> float | None:
        """Of the float artifact from the model's own predictions; None where there is no artifact, or where the model
        draws its predictions."""
        found: float | None = None if self.made["random"] else self.here_of("difference")
        return found

    @property
    def trained_as_in_the_original(self) -> bool:
        return not self.trains or self.here_of("training") in (None, self.made["training"])

    @property
    def unexpected(self) -> list[str]:
        """What went wrong without a line that was written for it."""
        return [answer["why"] for answer in self.here if "why" in answer and not answer.get("expected")]

    @property
    def crash(self) -> str | None:
        found: str | None = self.here_of("died")
        return found


def _is_right(answer: dict[str, Any]) -> bool:
    before = answer.get("refused") or answer.get("left_out")
    line = answer["why"]
    one = "\n" not in line and len(line) < LONGEST
    return bool(before and answer.get("expected")) and one and not any(sign in line for sign in OF_A_PROGRAM)


@dataclass(frozen=True)
class Number:
    """One number to reach: `reached` of `all`, at least the share `least`."""

    text: str
    reached: int
    all: int
    least: float
    missing: tuple[Model, ...] = ()

    @property
    def is_enough(self) -> bool:
        return self.reached >= self.least * self.all

    def __str__(self) -> str:
        share = f" ({self.reached / self.all:.1%})" if self.all else ""
        wanted = "all" if self.least == 1 else f"{self.least:.0%}"
        return f"{self.text}: {self.reached:,} of {self.all:,}{share}; to reach: {wanted}"


def numbers(models: Sequence[Model]) -> list[Number]:
    there = [model for model in models if model.is_there]
    taken = [model for model in there if model.plainly_taken]
    trained = [model for model in taken if model.trains]
    artifacts = [model for model in there if model.difference is not None]
    kept = [model for model in there if model.trains and model.here_of("training")]
    lacking = [model for model in there if model.dense < DENSE]
    return [
        _number(
            "of what the plain converter takes, four dense variants", taken, lambda m: m.dense == DENSE, LEAST_DENSE
        ),
        _number(
            "of what has fewer, refused in one right line before any training", lacking, lambda m: m.refused_rightly, 1
        ),
        _number(
            "of what it takes and Keras trains, all twelve variants",
            trained,
            lambda m: m.dense == DENSE and m.pruned,
            LEAST_PRUNED,
        ),
        _number(
            f"float artifacts within {LARGEST_DIFFERENCE:g} of the model's own predictions",
            artifacts,
            lambda m: m.difference <= LARGEST_DIFFERENCE,  # NaN is no number below
            1,
        ),
        _number("training mode as in the original", kept, lambda m: m.trained_as_in_the_original, 1),
        _number("models without an unexpected error", there, lambda m: not m.unexpected, 1),
        _number("models without a crash of the command", there, lambda m: not m.crash, 1),
    ]


def _number(text: str, models: Sequence[Model], reaches: Any, least: float) -> Number:
    missing = tuple(model for model in models if not reaches(model))
    return Number(text, len(models) - len(missing), len(models), least, missing)


def reasons(models: Iterable[Model]) -> list[tuple[str, list[Model]]]:
    """Why models have not all their variants, the most frequent reason first."""
    found: dict[str, list[Model]] = {}
    for model in models:
        lines = [answer["why"] for answer in model.here if "why" in answer] or [model.crash or "the difference"]
        found.setdefault(_general(lines[0]), []).append(model)
    return sorted(found.items(), key=lambda reason: -len(reason[1]))


def _general(line: str) -> str:
    """A reason without the names of the file and of layers, which are of one model."""
    line = re.sub(r"^model\.path=\S*: ", "", " ".join(line.split()))
    return re.sub(r"layer \w+ \((\w+)[^)]*\)", "layer", line)


def read(file: Path) -> dict[tuple[str, str, str], Model]:
    """The newest record of each model."""
    if not file.is_file():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    models = [Model(**json.loads(line)) for line in lines if line.endswith("}")]  # the last may be cut off
    return {model.key: model for model in models}


def append(file: Path, model: Model) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(model)) + "\n")
