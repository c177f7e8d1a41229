"""Asks the processes that make models, convert them plainly and compress them here, and puts together what they say."""

import hashlib
import random
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.zoo.child import Child, Died
from scripts.zoo.numbers import Model

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("keras", "h5", "savedmodel")
SCHEMES = ("none", "drq", "fiq", "f16")
# The first format gets more than the others: the pruned checkpoint is the same whatever it was read from.
VARIANTS = {"none": SCHEMES, "p1": ("none", "fiq")}
VARIANTS_OF_OTHERS = {"none": SCHEMES, "p1": ("none",)}
SECONDS = 600  # for one step


class Asking:
    """The processes, each started when first asked."""

    def __init__(self) -> None:
        variables = {"TF_USE_LEGACY_KERAS": "0"}, {"TF_USE_LEGACY_KERAS": "1"}
        self.makers = {"3": Child("scripts.zoo.maker", variables[0], SECONDS)}
        self.makers["2"] = Child("scripts.zoo.maker", variables[1], SECONDS)
        self.folder = tempfile.TemporaryDirectory(prefix="zoo-")
        self.here = Child("scripts.zoo.here", {"XDG_STATE_HOME": self.folder.name, "TMPDIR": self.folder.name}, SECONDS)
        self.left_out: dict[str, dict[str, str]] = {}
        self.versions: dict[str, str] = {}
        self.listed: dict[str, list[str]] = {}
        self.zoo = _digest(
            *(Path(__file__).parent / f"{name}.py" for name in ("kinds", "layers", "ops", "custom", "maker"))
        )
        self.code = _digest(*sorted((ROOT / "src").rglob("*.py")))

    def kinds(self, keras: str) -> list[str]:
        if keras not in self.listed:
            (answer,) = self.makers[keras].ask({"do": "list"})
            self.listed[keras] = answer["kinds"]
            self.left_out[keras], self.versions[keras] = answer["left_out"], answer["version"]
        return self.listed[keras]

    def chosen(self, pattern: str = "", keras: str | None = None, sample: int | None = None) -> list[tuple[str, str]]:
        """The Keras and name of each kind in whose name `pattern` is found, or a `sample` of them, the same every
        time."""
        every = [(version, kind) for version in self.makers for kind in self.kinds(version)]
        kinds = [each for each in every if keras in (None, each[0]) and re.search(pattern, each[1])]
        if sample is None:
            return kinds
        drawn = random.Random(0).sample(range(len(kinds)), min(sample, len(kinds)))
        return [kinds[i] for i in sorted(drawn)]

    def examine(
        self, keras: str, kind: str, formats: Sequence[str], known: Mapping[tuple[str, str, str], Model]
    ) -> list[Model]:
        """What is not known yet of one kind, in each of `formats`."""
        earlier = {format: known.get((keras, kind, format)) for format in formats}
        stale = [f for f, m in earlier.items() if not m or (m.zoo, m.code) != (self.zoo, self.code)]
        if not stale:
            return []
        with tempfile.TemporaryDirectory(dir=self.folder.name) as folder:
            made = self._made(keras, kind, folder, stale)
            models: list[Model] = []
            for format in stale:
                model = Model(keras, kind, format, self.zoo, self.code, made)
                before = earlier[format]
                if model.is_there:
                    model.plain = (
                        before.plain if before and before.zoo == self.zoo else self._plain(model, folder, models)
                    )
                    model.here = self._here(model, folder)
                models.append(model)
        return models

    def end(self) -> None:
        for process in (*self.makers.values(), self.here):
            process.end()
        self.folder.cleanup()

    def _made(self, keras: str, kind: str, folder: str, formats: Sequence[str]) -> dict[str, Any]:
        try:
            (answer,) = self.makers[keras].ask({"do": "make", "kind": kind, "folder": folder, "formats": formats})
        except Died as how:
            return {"why": f"its Keras dies: {how}"}
        made: dict[str, Any] = answer
        return made

    def _plain(self, model: Model, folder: str, others: Sequence[Model]) -> list[dict[str, Any]]:
        """What the plain converter does. Keras loads one model from `.keras` and from `.h5`: of the second only the
        float scheme is tried, where the first one of the `others` is there."""
        first = others[0] if others and model.format == "h5" and others[0].plainly else None
        plain = self._converted(model, folder, SCHEMES[:1] if first else SCHEMES)
        return [*plain, *first.plain[1:]] if first and any("takes" in answer for answer in plain) else plain

    def _converted(self, model: Model, folder: str, schemes: Sequence[str]) -> list[dict[str, Any]]:
        """What the process says; where it dies, it is asked again for the rest."""
        request = {"do": "convert", "kind": model.kind, "folder": folder, "format": model.format, "schemes": schemes}
        skip: dict[str, str] = {}
        while True:
            answers, at = [], ""
            try:
                for answer in self.makers[model.keras].ask(request | {"skip": skip}):
                    at = answer.get("at", at)
                    answers.append(answer)
            except Died as how:
                if not at:
                    return [{"unreadable": f"its Keras dies of {how}"}]
                skip[at] = f"dies of {how}"
                continue
            return [answer for answer in answers if "at" not in answer]

    def _here(self, model: Model, folder: str) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        at = ""
        variants = VARIANTS if model.format == FORMATS[0] else VARIANTS_OF_OTHERS
        request = {"format": model.format, "folder": folder, "variants": variants}
        try:
            for answer in self.here.ask(request | {name: model.made[name] for name in ("custom", "unknown")}):
                at = answer.get("at", at)
                if "traceback" in answer:
                    answers.append({"why": answer["traceback"].splitlines()[-1], "expected": False})
                elif "at" not in answer:
                    answers.append(answer)
        except Died as how:
            answers.append({"died": f"{how} at {at}"})
        return answers


def _digest(*files: Path) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.read_bytes())
    return whole.hexdigest()[:12]
