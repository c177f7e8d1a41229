"""What a classifier ends in, and how its outputs are read as one score per class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from src.settings.check import UserError

REST = -1  # in the place of an output: what the one output leaves for the other class


@dataclass(frozen=True)
class Head:
    """`kind` is softmax or sigmoid, `logits` whether it is still to be applied; None is found out from the last layer
    or operator. `outputs` says of each class which output it is, () in order; of a single output, `REST` is the other
    class. `width` is how many outputs were named, 0 where they were not.

    As it is asked for, `outputs` are what the user gave: numbers, one for each class, or names, one for each output.
    """

    kind: str | None = None
    logits: bool | None = None
    outputs: tuple[Any, ...] = ()
    width: int = 0

    @classmethod
    def asked(cls, settings: Any) -> "Head":
        """What the settings of a model say of it."""
        outputs = tuple(getattr(settings, "outputs", ()))
        width = len(outputs) if all(isinstance(each, str) for each in outputs) else 0
        return cls(getattr(settings, "head", None), getattr(settings, "logits", None), outputs, width)

    def of(self, classes: Sequence[str]) -> "Head":
        """With a number for each of `classes`. Raises `UserError`, which starts with `model.outputs`."""
        given = self.outputs
        if not self.width:
            if given and (len(given) != len(classes) or len(set(given)) < len(given)):
                raise UserError(
                    f"model.outputs={list(given)}: takes {len(classes)} different numbers, the output of each class "
                    f"({', '.join(classes[:4])}{', …' if len(classes) > 4 else ''}), or a name for each output"
                )
            return self
        if len(given) == 1:
            if len(classes) != 2 or given[0] not in classes:
                known = ", ".join(classes)
                raise UserError(f"model.outputs={list(given)}: takes one of the two classes, the data has {known}")
            return replace(self, outputs=tuple(0 if each == given[0] else REST for each in classes))
        for each in classes:
            if (count := given.count(each)) != 1:
                raise UserError(f"model.outputs: names {each} {count} times; takes each class of the data once")
        return replace(self, outputs=tuple(given.index(each) for each in classes))

    def found(self, kind: str | None, width: int) -> "Head":
        """With what the end of a model says: `kind` None of outputs to which nothing is applied."""
        one = width == 1
        said = self.kind or kind or ("sigmoid" if one else "softmax")
        logits = kind is None if self.logits is None else self.logits
        return replace(self, kind=said, logits=logits, outputs=self.outputs or ((REST, 0) if one else ()))

    def targets(self, classes: int, width: int) -> np.ndarray:
        """float32 `[classes, width]`: 1 where an output is that of a class."""
        outputs = self.outputs or range(classes)
        return np.array([[output == each for each in range(width)] for output in outputs], np.float32)

    def said(self, classes: Sequence[str]) -> tuple[str, ...]:
        """A sentence on which class a single output is the score of."""
        if REST not in self.outputs:
            return ()
        one, other = (classes[self.outputs.index(each)] for each in (0, REST))
        return (f"The model's one output is taken for the score of {one}; model.outputs=[{other}] turns that round.",)

    def scores(self, outputs: Any, module: Any) -> Any:
        """`[n, classes]` of `[n, outputs]`, an array of `module`: numpy or tensorflow. They are logits where the
        outputs are, and the highest is that of the class that the model gives."""
        if not self.outputs:
            return outputs
        columns = [outputs[:, each] for each in self.outputs]
        if REST in self.outputs:
            value = outputs[:, 0]
            rest = module.zeros_like(value) if self.logits else 1 - value
            columns = [rest if each == REST else value for each in self.outputs]
        return module.stack(columns, axis=1)


AS_FOUND = Head()  # all of it is found out
