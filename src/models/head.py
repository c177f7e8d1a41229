"""What a Keras model ends in: scores of classes, as probabilities or as logits."""

from typing import TYPE_CHECKING, Any

from src.models.kerases import keras_of
from src.models.served import Served, last_operator
from src.settings.check import UserError
from src.settings.head import AS_FOUND, Head

if TYPE_CHECKING:
    import tf_keras

# Their output is of the same kind as their input: a mean of probabilities is a probability, a mean of logits a logit.
PASSES = (
    "Average",
    "AveragePooling2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "Identity",
    "Reshape",
)
LINEAR = ("BatchNormalization", "Rescaling")
KINDS = ("softmax", "sigmoid")
# Layers, and functions of Keras 3.
FUNCTIONS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}


def check_classes(model: "tf_keras.Model", classes: int, key: str = "model", head: Head = AS_FOUND) -> None:
    """Raises `UserError`, which starts with `key`, unless `model` gives `[n, outputs]`: one for each class, in order or
    as `head` says, or a single one for two classes."""
    if len(model.outputs) != 1:
        raise UserError(f"{key}: gives {len(model.outputs)} outputs; takes a model with one, a score per class")
    shape = tuple(model.outputs[0].shape)
    if len(shape) != 2:
        dimensions = ", ".join("n" if i == 0 else str(size or "?") for i, size in enumerate(shape))
        raise UserError(f"{key}: gives [{dimensions}]; takes a model that gives one score per class, [n, {classes}]")
    width = shape[1]
    if width == 1:
        if classes != 2:
            raise UserError(f"{key}: gives one number per image, which tells two classes apart; the data has {classes}")
        if head.outputs and head.width != 1:
            raise UserError(
                f"model.outputs={list(head.outputs)}: the model has one output; takes the name of the class "
                "whose score it is"
            )
    elif head.width and head.width != width:
        raise UserError(f"model.outputs: names {head.width} outputs, the model has {width}")
    elif head.outputs and not head.width and not all(0 <= each < width for each in head.outputs):
        raise UserError(f"model.outputs={list(head.outputs)}: takes outputs of the model, 0 to {width - 1}")
    elif width != classes and not head.outputs:
        takes = "takes a model of the same classes" + (", or model.outputs" if width > classes else "")
        raise UserError(f"{key}: gives {width} classes, the data has {classes}; {takes}")


def head_of(model: "tf_keras.Model", asked: Head = AS_FOUND) -> Head:
    """What `model` ends in: as `asked`, else as its last layer says.

    Raises `UserError` where the last layer is neither a softmax nor a sigmoid nor linear and nothing is asked, and
    where it is another one than asked.
    """
    end, found = _end(model)
    width, ends = model.outputs[0].shape[-1], f"model: ends in {end}"
    if found == "softmax" and width == 1:
        raise UserError(f"{ends}, which gives 1 for every image; takes a sigmoid where there is one output")
    if found in KINDS:
        if asked.kind not in (None, found):
            raise UserError(f"{ends}; model.head={asked.kind} is for models that end in it; takes {found}")
        return asked.found(found, width)
    if found in ("linear", "log_softmax") or asked.logits is not None:
        return asked.found(None, width)  # a softmax of log-probabilities gives the probabilities
    raise UserError(
        f"{ends}; takes a softmax over the classes, a sigmoid, or none (model=saved: model.logits=true or false says "
        "which it is)"
    )


def _end(model: Any) -> tuple[str, str | None]:
    """What `model` ends in, in words, and what of that decides how its outputs are read."""
    if isinstance(model, Served):
        return model.last()
    layer = _last(model)
    if isinstance(layer, keras_of(model).Model):  # one that only code connects
        return _end_of_code(model)
    found = _activation(layer)
    return f"layer {layer.name} ({type(layer).__name__}{f', {found}' if found else ''})", found


def _end_of_code(model: Any) -> tuple[str, str | None]:
    import tensorflow as tf

    images = tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32)
    return last_operator(tf.function(lambda image: model(image, training=False)).get_concrete_function(images))


def _last(model: "tf_keras.Model") -> Any:
    """The layer that makes the scores: inside nested models, and before layers that only pass scores on."""
    keras = keras_of(model)
    tensor = model.outputs[0]
    while True:
        layer, node, index = tensor._keras_history
        if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):
            tensor = layer.outputs[index]
        elif type(layer).__name__ in PASSES or _passes(layer):
            inbound = layer._inbound_nodes[node]
            tensor = (inbound.keras_inputs if keras.__name__ == "tf_keras" else inbound.input_tensors)[0]
        else:
            return layer


def _passes(layer: Any) -> bool:
    return type(layer).__name__ == "Activation" and _activation(layer) == "linear"


def _activation(layer: Any) -> str | None:
    name = type(layer).__name__
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name == "TFOpLambda":
        return layer.get_config()["function"].rpartition(".")[2]
    if name in LINEAR:
        return "linear"
    activation = getattr(layer, "activation", None)
    if activation is not None and not hasattr(activation, "__name__"):  # a layer in the place of a function
        return _activation(activation)
    return getattr(activation, "__name__", None)
