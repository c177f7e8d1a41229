"""TensorFlow's converters of a model, in the order in which they are tried: what LiteRT can't run with any number of
images at a time it may run with one, and what it can't run as a loop it may run step by step."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from src.models.checkpoint import BATCH
from src.models.kerases import keras_of
from src.models.served import Served
from src.settings.check import Told, in_short

# Layers that are known to become operators of LiteRT in every scheme, whatever is before and after them.
USUAL = (
    *("Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Cropping2D", "Dense"),
    *("DepthwiseConv2D", "Dropout", "ELU", "Flatten", "Functional", "GaussianDropout", "GaussianNoise"),
    *("GlobalAveragePooling2D", "GlobalMaxPooling2D", "InputLayer", "LeakyReLU", "MaxPooling2D", "Multiply", "Permute"),
    *("ReLU", "Rescaling", "Reshape", "SeparableConv2D", "Sequential", "Softmax", "SpatialDropout2D", "Subtract"),
    *("UpSampling2D", "ZeroPadding2D"),
)
LOOPS = ("GRU", "LSTM", "RNN", "SimpleRNN")
ROLLED = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")  # no Keras unrolls them


class NotConverted(Told):
    """No converter makes a file that LiteRT runs. The text says why."""


def converts(model: Any) -> bool:
    """Whether `model` is known to convert with any number of images at a time: it is made of the usual
    layers."""
    if isinstance(model, Served):
        return False
    layers = model._flatten_layers()
    return not hasattr(model, BATCH) and all(
        type(layer).__module__.partition(".")[0] in ("keras", "tf_keras") and type(layer).__name__ in USUAL
        for layer in (*layers, *getattr(model, "operations", ()))
    )


def first_that_works(model: Any, convert: Callable[[Any], bytes], calibrates: bool) -> bytes:
    """What `convert`, which may be one that `calibrates`, gives for the first converter of `model` for which it does
    not fail. Raises `NotConverted`."""
    whys: list[str] = []
    for converter in _converters(model, calibrates):
        try:
            return convert(converter())
        except Exception as error:  # of TensorFlow, of the converter, of LiteRT
            whys.append(why(error))
    raise NotConverted(whys[-1])


def _converters(model: Any, calibrates: bool) -> Iterator[Callable[[], Any]]:
    if isinstance(model, Served):
        yield from (partial(model.converter, batch) for batch in model.batches)
        return
    # TensorFlow 2.21 dies of SIGSEGV while it calibrates a loop. An LSTM of Keras 2 becomes one operator.
    kinds = {type(layer).__name__ for layer in model._flatten_layers()}
    if calibrates and (rolled := sorted(kinds.intersection(ROLLED))):
        raise NotConverted(f"TensorFlow's converter can't calibrate the loop of {rolled[0]} for full integers")
    if not hasattr(model, BATCH):
        yield lambda: _converter(model)
    looping = kinds & {*LOOPS, "Bidirectional"} - ({"LSTM"} if keras_of(model).__name__ == "tf_keras" else set())
    if calibrates and looping:
        yield lambda: _converter(_of_one(_unrolled(model)))
    else:
        yield lambda: _converter(_of_one(model))


def _converter(model: Any) -> Any:
    """The converter of a model of either Keras, read as a function. TensorFlow's way to take a model as it is would
    save it first, each of its layers with functions of its own: of Keras 2 three times as slow for the same bytes, of
    Keras 3 with layers that only act in training (TensorFlow 2.21)."""
    import tensorflow as tf
    from tensorflow.lite.python.conversion_metadata_schema_py_generated import ModelType

    is_keras2 = keras_of(model).__name__ == "tf_keras"
    if is_keras2:
        _draw_with_operators(model)
    images = tf.TensorSpec(model.inputs[0].shape, tf.float32, model.input_names[0] if is_keras2 else "image")
    name = model.output_names[0] if is_keras2 else "output_0"
    module = tf.Module()
    module.function = tf.function(lambda image: {name: model(image, training=False)}).get_concrete_function(images)
    module.held = module.function.variables  # else they would stay variables in the file
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.function], module)
    if is_keras2:
        converter._metadata.environment.modelType = ModelType.KERAS_MODEL  # what the file says that it was
    return converter


def _of_one(model: Any) -> Any:
    """The same model on one image at a time."""
    keras = keras_of(model)
    image = keras.Input(batch_shape=(1, *model.inputs[0].shape[1:]), name="image")
    return keras.Model(image, model(image))


def _unrolled(model: Any) -> Any:
    """A copy in which recurrent layers are unrolled."""
    keras = keras_of(model)

    def clone(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return _unrolled(layer)
        config = layer.get_config()
        if type(layer).__name__ in LOOPS:
            config["unroll"] = True
        elif type(layer).__name__ in ("Bidirectional", "TimeDistributed"):
            for name in ("layer", "backward_layer"):
                if (inner := config.get(name)) and inner["class_name"] in LOOPS:
                    inner["config"]["unroll"] = True
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def _draw_with_operators(model: Any) -> None:
    """Has the random layers of `model` draw from operators that LiteRT has, where they stay on in inference
    (`Dropout(0.5)(x, training=True)`).

    The generators that they train with (see `backend.prepare`) keep their state in a variable, which TensorFlow 2.21
    can't convert. Each layer has a seed of its own, so that one checkpoint gives one artifact.
    """
    from tf_keras.src.backend import RandomGenerator
    from tf_keras.src.engine.base_layer import BaseRandomLayer

    layers = [layer for layer in model._flatten_layers() if isinstance(layer, BaseRandomLayer)]
    for seed, layer in enumerate(layers, start=1):
        layer._random_generator = RandomGenerator(seed, rng_type=RandomGenerator.RNG_LEGACY_STATEFUL)


def check_runs(artifact: bytes) -> None:
    """Raises what LiteRT raises where it can't run the artifact on one image, a black one."""
    from src.measure.targets.child import opened

    interpreter = opened(model_content=artifact)
    for given in interpreter.get_input_details():
        interpreter.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
    interpreter.invoke()


def without_xnnpack(artifact: bytes) -> tuple[str, ...]:
    """A sentence for one that LiteRT only runs without its delegate."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        Interpreter(model_content=artifact).allocate_tensors()
    except RuntimeError as error:
        at = re.search(r"delegate ([A-Z_0-9]+) node", str(error))
        return (
            f"XNNPACK, LiteRT's delegate for CPUs, refuses this file ({at[1] if at else in_short(error, 120)}): it is "
            "measured and served without it, and an application has to load it without default delegates.",
        )
    return ()


def why(error: Exception) -> str:
    """What TensorFlow's converter or LiteRT says over many lines, in one."""
    text = str(error)
    if found := re.findall(r"'(tf\.\w+)' op is neither a custom op nor a flex op", text):
        return f"LiteRT has no operator for {', '.join(dict.fromkeys(found))}"
    if found := re.findall(r"failed to legalize operation '([\w.]+)'", text):
        return f"the converter can't express {', '.join(dict.fromkeys(found))}"
    text = re.sub(r"(<unknown>:0: )?(error: )?loc\(.*?\)+\): ", "", " ".join(text.split()))
    return text or type(error).__name__
