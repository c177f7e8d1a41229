"""What a classifier ends in: one score per class, as probabilities or as logits."""

from typing import TYPE_CHECKING, Any

from src.models.kerases import keras_of
from src.settings.check import UserError

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
# Layers, and functions of Keras 3.
FUNCTIONS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}


def check_classes(model: "tf_keras.Model", classes: int, key: str = "model") -> None:
    """Raises `UserError`, which starts with `key`, unless `model` gives one score per class: `[n, classes]`."""
    if len(model.outputs) != 1:
        raise UserError(f"{key}: gives {len(model.outputs)} outputs; takes a model with one, a score per class")
    shape = tuple(model.outputs[0].shape)
    if len(shape) != 2:
        dimensions = ", ".join("n" if i == 0 else str(size or "?") for i, size in enumerate(shape))
        raise UserError(f"{key}: gives [{dimensions}]; takes a model that gives one score per class, [n, {classes}]")
    if shape[1] == 1:
        raise UserError(f"{key}: gives one number per image; takes a model with a score for each of {classes} classes")
    if shape[1] != classes:
        raise UserError(f"{key}: gives {shape[1]} classes, the data has {classes}; takes a model of the same classes")


def gives_logits(model: "tf_keras.Model", declared: bool | None = None) -> bool:
    """Whether `model` gives logits and not probabilities: as `declared`, else as its last layer says.

    Raises `UserError` where the last layer is neither a softmax nor linear and nothing is declared, and for sigmoids,
    which are neither: under the loss of a softmax they would be fine-tuned to something else.
    """
    layer = _last(model)
    found = _activation(layer)
    ends = f"layer {layer.name} ({type(layer).__name__}{f', {found}' if found else ''})"
    if found == "sigmoid":
        raise UserError(
            f"model: ends in {ends}, a probability of its own for each class; takes a softmax over the classes, or none"
        )
    if declared is not None:
        return declared
    match found:
        case "softmax":
            return False
        case "linear" | "log_softmax":  # a softmax of log-probabilities gives the probabilities
            return True
        case _:
            raise UserError(
                f"model: ends in {ends}; takes a softmax over the classes, or none (model=saved: model.logits=true or "
                "false says which it is)"
            )


def _last(model: "tf_keras.Model") -> Any:
    """The layer that makes the scores: inside nested models, and before layers that only pass scores on."""
    keras = keras_of(model)
    tensor = model.outputs[0]
    while True:
        layer, node, index = tensor._keras_history
        if isinstance(layer, keras.Model):
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
