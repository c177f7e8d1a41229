"""A model that was read from a file, as the stages need it: float32 images of the data's shape go in, and every layer
computes in float32."""

import math
from typing import Any

from src.models.formats import FORMATS
from src.models.kerases import keras_of
from src.models.served import Served, channels_first, fits
from src.settings.check import UserError, in_short

OTHER_DTYPES = {"float16", "bfloat16", "float64"}


class OtherImages(UserError):
    """The model takes images of another shape, `takes`: (height, width, channels), None for any."""

    def __init__(self, text: str, takes: tuple[int | None, ...] = ()) -> None:
        super().__init__(text)
        self.takes = takes


def check_whole(model: Any, key: str) -> None:
    """Raises `UserError` unless it is a model whose layers are known: what can be cloned, pruned and written again."""
    keras = keras_of(model)
    if not isinstance(model, keras.Model):
        raise UserError(f"{key}: holds functions for inference and no layers; takes {FORMATS}")
    # Keras 2 revives what it has no class for from its traced functions: such layers can't be written again.
    layers = [model, *model._flatten_layers(include_self=False)]
    revived = [layer for layer in layers if type(layer).__module__.endswith("saved_model.load")]
    if revived and not isinstance(revived[-1], keras.Model):
        kind = type(revived[-1]).__name__
        raise UserError(
            f"{key}: is made of {kind} (layer {revived[-1].name}), which Keras 2 doesn't have; takes its import path "
            f"in model.custom_objects=[package.module.{kind}]"
        )
    for part in layers:
        if not isinstance(part, keras.Model):
            continue
        if part in revived or not part.built or not (is_functional(part) or part.weights):
            raise UserError(
                f"{key}: {type(part).__name__} {part.name} is a model of a class that is not known, or has no input "
                "yet; takes a model that has been called, and its class in model.custom_objects"
            )
    if is_functional(model) and len(model.inputs) != 1:
        raise UserError(f"{key}: takes {len(model.inputs)} inputs; takes a model with one, the images")


def is_functional(model: Any) -> bool:
    """Whether `model` is Functional or Sequential, and not one whose layers only code connects."""
    from tf_keras.src.engine.functional import Functional

    if keras_of(model).__name__ == "tf_keras":
        return isinstance(model, Functional)
    return bool(getattr(model, "inputs", None) and getattr(model, "outputs", None))


def functional(model: Any, shape: tuple[int, int, int], key: str) -> Any:
    """A model around one that only code connects, on images of `shape`. Raises `UserError` where it can't be called."""
    keras = keras_of(model)
    image = keras.Input(shape, name="image")
    try:
        return keras.Model(image, model(image), name=f"{model.name}_of_images")
    except Exception as error:  # of the user's own code
        raise UserError(f"{key}: can't be called on {sizes(shape)} images ({in_short(error, 120)})") from None


def freeze_layers(model: Any) -> None:
    """Freezes the layers of a frozen model: a checkpoint keeps the flags of layers, and not that of a model (tf_keras
    2.21)."""
    keras = keras_of(model)
    for part in model._flatten_layers():
        if isinstance(part, keras.Model) and not part.trainable:
            part.trainable = False


def fitted(model: Any, shape: tuple[int, int, int], key: str) -> Any:
    """`model` with an input of exactly float32 `[n, *shape]`, and float32 inside. Its attribute `any_size` says whether
    it was saved for images of any. One that was made for one image at a time trains on more, and is converted for one:
    its attribute `batch` is 1.

    Raises `OtherImages`, and `UserError` where it can't take another number of images than it was made for.
    """
    given = model.inputs[0]
    _check_images(tuple(given.shape[1:]), shape, key)
    if isinstance(model, Served):
        made: Any = model.fitted(shape)
    else:
        made = _of_any_number(model, shape, key)
        if given.shape[0] == 1:
            made.batch = 1
    made.any_size = None in given.shape[1:]
    return made


def _of_any_number(model: Any, shape: tuple[int, int, int], key: str) -> Any:
    batch = model.inputs[0].shape[0]
    try:
        return _on_images(model, shape)
    except Exception as error:  # of Keras, of the user's own layers
        if batch is None:
            raise
        raise UserError(
            f"{key}: was made for batches of {batch} and can't take others ({in_short(error, 120)}); takes a model "
            "without batch_size"
        ) from None


def _on_images(model: Any, shape: tuple[int, int, int]) -> Any:
    keras = keras_of(model)
    given = model.inputs[0]
    takes = tuple(given.shape[1:])
    images = keras.Input(shape, name="image")
    if len(takes) < 3:
        pixels = keras.layers.Reshape(takes, name="as_saved")(images)
    elif channels_first(takes, shape):
        pixels = keras.layers.Permute((3, 1, 2), name="as_saved")(images)
    elif tuple(given.shape) != (None, *shape) or given.dtype != "float32" or _other_dtypes(model):
        return _float32(model, images)
    else:
        return model
    return keras.Model(images, _float32(model)(pixels), name=f"{model.name}_of_images")


def _check_images(takes: tuple[Any, ...], shape: tuple[int, int, int], key: str) -> None:
    """Raises `OtherImages` unless what a model `takes` can be images of `shape`, channels last or first, or their
    pixels in a row."""
    if len(takes) < 3 and None not in takes and math.prod(takes) == math.prod(shape):
        return
    if len(takes) != 3 or not (fits(takes, shape) or channels_first(takes, shape)):
        as_data = (*takes[1:], takes[0]) if len(takes) == 3 and takes[0] in (1, 3) and takes[2] not in (1, 3) else takes
        raise OtherImages(f"{key}: takes {sizes(takes)} images, the data has {sizes(shape)}", as_data)


def _float32(model: Any, inputs: Any = None) -> Any:
    """The same model on float32 `inputs` (None: of the shape of its own), and with float32 layers."""
    keras = keras_of(model)
    own = model.inputs[0]
    if inputs is None and own.dtype == "float32" and not _other_dtypes(model):
        return model
    if inputs is None and len(model.inputs) == 1:
        inputs = keras.Input(batch_shape=own.shape, name=own._keras_history[0].name)

    def clone(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return _float32(layer)
        if not _is_other(layer):
            return layer
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    weights = model.get_weights()
    cloned = keras.models.clone_model(model, input_tensors=inputs, clone_function=clone)
    cloned.set_weights(weights)
    for layer in cloned._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return cloned


def _other_dtypes(model: Any) -> bool:
    return any(_is_other(layer) for layer in model._flatten_layers())


def _is_other(layer: Any) -> bool:
    """Of Keras 3 also a function among the layers, which computes in the type that it is given."""
    return bool({getattr(layer, "compute_dtype", None), getattr(layer, "variable_dtype", None)} & OTHER_DTYPES)


def sizes(shape: tuple[int | None, ...]) -> str:
    """Such as `32 x any x 3`."""
    if len(shape) == 3 and shape[0] is shape[1] is None:
        return f"any size x {shape[2] or 'any'}"
    return " x ".join(str(size or "any") for size in shape)
