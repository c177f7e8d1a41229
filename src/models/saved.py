"""A Keras model of the user's own, from a file or folder, as the stages need it: one float32 input of the data's shape
and one score per class."""

import functools
import hashlib
import importlib.util
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as schema

from src.machine.output import quiet
from src.models import Architecture, formats, keras3, wrapped
from src.models.checkpoint import restore
from src.models.fitted import check_whole, fitted, freeze_layers, functional, is_functional
from src.models.formats import FORMATS
from src.models.head import check_classes, head_of
from src.models.kerases import count_names_anew
from src.models.served import Served
from src.models.trusted import descriptions, refuse_code
from src.settings.check import STRICT, UserError, in_short
from src.settings.head import Head
from src.settings.plain import as_utf8, canonical
from src.settings.sections import Preprocess

if TYPE_CHECKING:
    import tf_keras

# What Keras 2 says of a class or function that it doesn't know, in each of its formats.
UNKNOWN = re.compile(r"(?:Unknown [\w ]+:|Could not locate (?:class|function)|added layer .* layer=) ?'?(\w+)'?")


AS_PIXELS = Preprocess(rescale=1)

KERAS_MODEL = "a Keras model: .keras, .h5 or a SavedModel folder"


def _exists(path: str) -> str:
    if not Path(os.path.expanduser(path)).exists():
        raise ValueError(f"{path} does not exist; takes {KERAS_MODEL}")
    return path


@schema(frozen=True, config=STRICT, kw_only=True)
class Saved(Architecture):
    """A Keras model in a file or folder. What is in it decides, not where it lies.

    `head` says whether it ends in a softmax or in sigmoids, `logits` whether those are still to be applied; null finds
    out from its last layer. `outputs` says which output is which class: a number for each class, or a name for each
    output; of a single output, the class whose score it is. `custom_objects` are import paths of the layers and
    functions of its own that it is made of; `trust` lets code in the file run.
    """

    external: ClassVar[bool] = True

    path: Annotated[str, Field(min_length=1, description=KERAS_MODEL), AfterValidator(_exists)]
    head: Literal["softmax", "sigmoid"] | None = None
    logits: bool | None = None
    outputs: tuple[int, ...] | tuple[str, ...] = ()
    custom_objects: tuple[Annotated[str, Field(pattern=r"^\w+(\.\w+)+$")], ...] = ()
    trust: bool = False

    def variables(self) -> dict[str, str]:
        """Layers of the user's own take `tf.keras` for the Keras of their model."""
        with suppress(OSError):
            path = _path(self)
            if not formats.refusal(path) and formats.keras_version(path).startswith("3"):
                return {"TF_USE_LEGACY_KERAS": "0"}
        return super().variables()

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


def look(config: Saved) -> None:
    """Raises `UserError` where a file's first bytes and its table of contents say that it is no Keras model. TensorFlow
    is not needed."""
    try:
        why = formats.refusal(_path(config))
    except OSError as error:
        why = f"can't be read ({error.strerror or error}); takes {FORMATS}"
    if why:
        raise UserError(f"{_key(config)}: {why}")


def build(config: Saved, shape: tuple[int, int, int], classes: int) -> "tf_keras.Model":
    """The model with the weights that it was saved with; it takes float32 images `[n, *shape]`, whatever the dtype of
    its own input and layers.

    Raises `UserError` in one line where it can't be read, or does not fit the images and classes.
    """
    look(config)
    key = _key(config)
    model = _load(_path(config), key, config.trust)
    if not isinstance(model, Served):
        check_whole(model, key)
        freeze_layers(model)
        model = model if is_functional(model) else functional(model, shape, key)
    model = fitted(model, shape, key)
    if isinstance(model, Served) and model.own.dtype.startswith(("int", "uint")) and config.preprocess != AS_PIXELS:
        raise UserError(
            f"{key}: its function takes pixels as {model.own.dtype}; takes model.preprocess.rescale=1 with mean 0 and "
            "std 1, which leaves them as they are"
        )
    head = Head.asked(config)
    check_classes(model, classes, key, head)
    head_of(model, head)
    return model


def notes(config: Saved, model: "tf_keras.Model") -> tuple[str, ...]:
    """What is worth knowing of `model`, which was built of `config`, or may be wrong with its use: a line each."""
    said = []
    if isinstance(model, Served):
        return (f"{_key(config)}: {model.why}: it is converted as its function {model.signature} gives it",)
    if kind := wrapped.wrapper(_path(config), _key(config)):
        said.append(f"{_key(config)}: its layers were wrapped in {kind}, which is taken off; their weights stay")
    if config.preprocess.rescale != 1 and (first := _rescales(model)):
        said.append(
            f"{_key(config)}: starts with layer {first}, and model.preprocess.rescale={config.preprocess.rescale:.4g} "
            "comes before it; model.preprocess.rescale=1 gives it pixels of 0 to 255"
        )
    return tuple(said)


def _path(config: Saved) -> Path:
    return Path(os.path.expanduser(config.path))


def _key(config: Saved) -> str:
    return f"model.path={config.path}"


def _load(path: Path, key: str, trust: bool) -> Any:
    import tf_keras

    try:
        if not trust:
            refuse_code(path, key)
        kind = wrapped.wrapper(path, key)
        count_names_anew()
        with quiet(), wrapped.scope(kind):
            if path.is_dir():
                return _of_folder(path, key, kind)
            if formats.keras_version(path).startswith("3"):
                return keras3.load(path, key, trust)
            if zipfile.is_zipfile(path):
                with keras3.linked(path, "model.keras") as link:
                    return wrapped.stripped(tf_keras.models.load_model(link, compile=False), kind)
            return wrapped.stripped(restore(path), kind)
    except UserError:
        raise
    except Exception as error:  # of the file, of Keras, of the user's own layers
        raise UserError(f"{key}: {_why(error)}") from None


def _of_folder(path: Path, key: str, kind: str | None) -> Any:
    """The Keras model in a SavedModel; else the function that serves, which needs no layers."""
    import tf_keras

    why = "holds a function for inference and no layers"
    if any(descriptions(path)):
        try:
            model = wrapped.stripped(tf_keras.models.load_model(path, compile=False), kind)
            check_whole(model, key)
            return model
        except Exception as error:  # as in `_load`
            why = str(error).removeprefix(f"{key}: ") if isinstance(error, UserError) else _why(error)
    try:
        return Served(path, key, why)
    except UserError as error:
        # Such as Teachable Machine's keras_model.h5, beside its model.savedmodel.
        beside = sorted(each.name for each in path.resolve().parent.iterdir() if each.suffix in (".h5", ".keras"))
        raise UserError(f"{error}{f'; {beside[0]} lies beside it' if beside else ''}") from None


def _why(error: Exception) -> str:
    """What is wrong with a model that Keras can't read, as a phrase that goes on from its name."""
    text = " ".join(str(error).split())
    if match := UNKNOWN.search(text):
        return (
            f"is made of {match[1]}, which Keras doesn't have; takes its import path in "
            f"model.custom_objects=[package.module.{match[1]}]"
        )
    return f"can't be read ({type(error).__name__}: {in_short(text)}); takes {FORMATS}"


def _rescales(model: "tf_keras.Model") -> str | None:
    """The name of a Rescaling layer that the images enter first, if there is one."""
    for layer in model._flatten_layers(include_self=False):
        kind = type(layer).__name__
        if kind == "Rescaling":
            return layer.name
        if "Conv" in kind or kind in ("Dense", "BatchNormalization"):
            return None
    return None
