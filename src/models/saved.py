"""A Keras model of the user's own, from a file or folder, as the stages need it: one float32 input of the data's shape
and one score per class."""

import functools
import hashlib
import importlib.util
import math
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as schema

from src.machine.output import quiet
from src.models import Architecture, formats, keras3
from src.models.checkpoint import restore
from src.models.formats import FORMATS
from src.models.head import check_classes, gives_logits
from src.settings.check import STRICT, UserError
from src.settings.plain import as_utf8, canonical

if TYPE_CHECKING:
    import tf_keras

# What Keras 2 says of a class or function that it doesn't know, in each of its formats.
UNKNOWN = re.compile(r"(?:Unknown [\w ]+:|Could not locate (?:class|function)|added layer .* layer=) ?'?(\w+)'?")


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


class OtherImages(UserError):
    """The model takes images of another shape, `takes`: (height, width, channels), None for any."""

    def __init__(self, text: str, takes: tuple[int | None, ...] = ()) -> None:
        super().__init__(text)
        self.takes = takes


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
    model = _load(_path(config), key)
    _check_whole(model, key)
    _freeze_layers(model)
    model = _fitted(model, shape, key)
    check_classes(model, classes, key)
    gives_logits(model, config.logits)
    return model


def notes(config: Saved, model: "tf_keras.Model") -> tuple[str, ...]:
    """What may be wrong with how `model`, which was built of `config`, is used: a line each."""
    if config.preprocess.rescale == 1 or not (first := _rescales(model)):
        return ()
    return (
        f"{_key(config)}: starts with layer {first}, and model.preprocess.rescale={config.preprocess.rescale:.4g} "
        "comes before it; model.preprocess.rescale=1 gives it pixels of 0 to 255",
    )


def _path(config: Saved) -> Path:
    return Path(os.path.expanduser(config.path))


def _key(config: Saved) -> str:
    return f"model.path={config.path}"


def _load(path: Path, key: str) -> Any:
    import tf_keras

    try:
        with quiet():
            if path.is_dir():
                return tf_keras.models.load_model(path, compile=False)
            archive = zipfile.is_zipfile(path)
            if formats.keras_version(path).startswith("3"):
                return keras3.from_archive(path, key) if archive else keras3.from_hdf5(path, key)
            return tf_keras.models.load_model(path, compile=False) if archive else restore(path)
    except UserError:
        raise
    except Exception as error:  # of the file, of Keras, of the user's own layers
        text = " ".join(str(error).split())
        if match := UNKNOWN.search(text):
            raise UserError(
                f"{key}: is made of {match[1]}, which Keras 2 doesn't have; takes its import path in "
                f"model.custom_objects=[package.module.{match[1]}]"
            ) from None
        raise UserError(f"{key}: can't be read ({type(error).__name__}: {text[:200]}); takes {FORMATS}") from None


def _check_whole(model: Any, key: str) -> None:
    """A model whose layers are known: what can be cloned, pruned and written again."""
    import tf_keras
    from tf_keras.src.engine.functional import Functional

    if not isinstance(model, tf_keras.Model):
        raise UserError(f"{key}: holds functions for inference and no layers; takes {FORMATS}")
    # Keras revives what it has no class for from its traced functions: such layers can't be written again.
    layers = [model, *model._flatten_layers(include_self=False)]
    if revived := [layer for layer in layers if type(layer).__module__.endswith("saved_model.load")]:
        kind = type(revived[-1]).__name__
        raise UserError(
            f"{key}: is made of {kind} (layer {revived[-1].name}), which Keras 2 doesn't have; takes its import path "
            f"in model.custom_objects=[package.module.{kind}]"
        )
    for part in layers:
        if isinstance(part, tf_keras.Model) and not (isinstance(part, Functional) and part.built):
            raise UserError(
                f"{key}: {type(part).__name__} {part.name} is a subclassed model or has no input yet; takes Functional "
                "and Sequential models"
            )
    if len(model.inputs) != 1:
        raise UserError(f"{key}: takes {len(model.inputs)} inputs; takes a model with one, the images")


def _freeze_layers(model: "tf_keras.Model") -> None:
    """Freezes the layers of a frozen model: a checkpoint keeps the flags of layers, and not that of a model (tf_keras
    2.21)."""
    import tf_keras

    for part in model._flatten_layers():
        if isinstance(part, tf_keras.Model) and not part.trainable:
            part.trainable = False


def _fitted(model: "tf_keras.Model", shape: tuple[int, int, int], key: str) -> "tf_keras.Model":
    """`model` with an input of exactly float32 `[n, *shape]`, and float32 inside."""
    import tf_keras

    given = model.inputs[0]
    takes = tuple(given.shape[1:])
    images = tf_keras.Input(shape, name="image")
    if len(takes) < 3 and None not in takes and math.prod(takes) == math.prod(shape):
        flat = tf_keras.layers.Reshape(takes, name="as_saved")(images)
        return tf_keras.Model(images, _float32(model)(flat), name=f"{model.name}_of_images")
    if len(takes) != 3 or any(own not in (None, size) for own, size in zip(takes, shape, strict=True)):
        raise OtherImages(f"{key}: takes {_sizes(takes)} images, the data has {_sizes(shape)}", takes)
    if tuple(given.shape) != (None, *shape) or given.dtype != "float32" or _other_dtypes(model):
        return _float32(model, images)
    return model


def _float32(model: "tf_keras.Model", inputs: Any = None) -> "tf_keras.Model":
    """The same model on float32 `inputs` (None: of the shape of its own), and with float32 layers."""
    import tf_keras

    own = model.inputs[0]
    if inputs is None and own.dtype == "float32" and not _other_dtypes(model):
        return model
    if inputs is None and len(model.inputs) == 1:
        inputs = tf_keras.Input(batch_shape=own.shape, name=own._keras_history.layer.name)

    def clone(layer: Any) -> Any:
        if isinstance(layer, tf_keras.Model):
            return _float32(layer)
        if not _is_other(layer):
            return layer
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    weights = model.get_weights()
    cloned = tf_keras.models.clone_model(model, input_tensors=inputs, clone_function=clone)
    cloned.set_weights(weights)
    for layer in cloned._flatten_layers():
        layer.finalize_state()
    return cloned


def _other_dtypes(model: "tf_keras.Model") -> bool:
    return any(_is_other(layer) for layer in model._flatten_layers())


def _is_other(layer: Any) -> bool:
    return {layer.compute_dtype, layer.variable_dtype} & {"float16", "bfloat16", "float64"} != set()


def _rescales(model: "tf_keras.Model") -> str | None:
    """The name of a Rescaling layer that the images enter first, if there is one."""
    for layer in model._flatten_layers(include_self=False):
        kind = type(layer).__name__
        if kind == "Rescaling":
            return layer.name
        if "Conv" in kind or kind in ("Dense", "BatchNormalization"):
            return None
    return None


def _sizes(shape: tuple[int | None, ...]) -> str:
    return " x ".join(str(size or "any") for size in shape)
