"""One file per architecture; each builds a float Keras model for images of any shape and any number of classes.

Layer names are given, not numbered: a model is the same to the byte whatever else its process has built.
"""

from pydantic.dataclasses import dataclass as schema

from src.settings.check import STRICT
from src.settings.sections import Preprocess


@schema(frozen=True, config=STRICT)
class Architecture:
    """A model that this project builds: its preprocessing; size and classes come from the data."""

    preprocess: Preprocess = Preprocess()

    def variables(self) -> dict[str, str]:
        """The environment of a process in which TensorFlow's Keras is the one that the model is of."""
        return {"TF_USE_LEGACY_KERAS": "1"}
