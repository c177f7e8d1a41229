"""Every layer class that a Keras exports, in a small classifier: built from its parameters' names, and from the tables
here where those don't say enough."""

import inspect
from collections.abc import Callable
from typing import Any

CLASSES = 3
SHAPE = (8, 8, 3)  # of the images
UNITS = 4

# What a layer takes, as the shape that the features before it are given; `image` stands before all others.
SHAPES = {
    "map": (8, 8, 4),
    "sequence": (16, 16),
    "vector": (256,),
    "wave": (256, 1),
    "volume": (4, 4, 4, 4),
    "frames": (2, 4, 4, 4, 2),
    "pair": (8, 8, 4),
    "pair of vectors": (256,),
    "pair of sequences": (16, 16),
    "integers": (256,),
}

# Why a class stands in no classifier of images here.
LEFT_OUT = {
    "AbstractRNNCell": "a base class",
    "DenseFeatures": "takes feature columns of tables",
    "FlaxLayer": "holds a model of Flax, which is not installed",
    "HashedCrossing": "takes two categories, as strings or integers",
    "Hashing": "takes categories, as strings or integers",
    "InputLayer": "is in every model",
    "IntegerLookup": "takes categories, as integers",
    "JaxLayer": "holds a function of JAX, which is not installed",
    "Layer": "a base class",
    "MaxNumBoundingBoxes": "takes boxes of objects",
    "StringLookup": "takes strings",
    "TFSMLayer": "holds a SavedModel in a folder of its own, which a file can't hold",
    "TextVectorization": "takes text",
    "TorchModuleWrapper": "holds a module of PyTorch, which is not installed",
    "Wrapper": "a base class",
}

# Values of parameters that have no default, by name.
PARAMETERS: dict[str, Any] = {
    "activation": "relu",
    "factor": 0.2,
    "filters": UNITS,
    "height": 6,
    "height_factor": 0.2,
    "input_dim": 8,
    "kernel_size": 2,
    "key_dim": 2,
    "n": 2,
    "num_heads": 2,
    "output_dim": UNITS,
    "output_size": 2,
    "pool_size": 2,
    "rate": 0.3,
    "scale": 2.0,
    "stddev": 0.1,
    "units": UNITS,
    "width": 6,
    "width_factor": 0.2,
}

# Parameters that a layer gets beside these, or whose value depends on the layer.
SPECIAL: dict[str, Callable[[Any], dict[str, Any]]] = {
    "ActivityRegularization": lambda layers: {"l2": 0.01},
    "AugMix": lambda layers: {"value_range": (0, 1)},
    "Bidirectional": lambda layers: {"layer": layers.LSTM(UNITS)},
    "CategoryEncoding": lambda layers: {"num_tokens": 8, "output_mode": "multi_hot"},
    "Cropping3D": lambda layers: {"cropping": 1},
    "Discretization": lambda layers: {"bin_boundaries": [0.1, 0.2, 0.5]},
    "Dot": lambda layers: {"axes": -1, "normalize": True},
    "EinsumDense": lambda layers: {"equation": "abcd,de->abce", "output_shape": (8, 8, 4), "bias_axes": "e"},
    "GroupNormalization": lambda layers: {"groups": 2},
    "GroupQueryAttention": lambda layers: {"head_dim": 2, "num_query_heads": 4, "num_key_value_heads": 2},
    "Lambda": lambda layers: {"function": lambda x: x * 2},
    "MelSpectrogram": lambda layers: {"fft_length": 64, "sequence_stride": 32, "num_mel_bins": 8},
    "Normalization": lambda layers: {"mean": [0.4, 0.5, 0.6], "variance": [0.1, 0.2, 0.3]},
    "Permute": lambda layers: {"dims": (2, 1, 3)},
    "Pipeline": lambda layers: {"layers": [layers.RandomFlip(), layers.RandomContrast(0.2, value_range=(0, 1))]},
    "RNN": lambda layers: {"cell": [layers.LSTMCell(UNITS), layers.SimpleRNNCell(UNITS)]},
    "RandomPosterization": lambda layers: {"factor": 4},
    "Reshape": lambda layers: {"target_shape": (4, 16, 4)},
    "STFTSpectrogram": lambda layers: {"frame_length": 32, "frame_step": 16, "fft_length": 32},
    "SpectralNormalization": lambda layers: {"layer": layers.Conv2D(UNITS, 3)},
    "StackedRNNCells": lambda layers: {"cells": [layers.GRUCell(UNITS), layers.LSTMCell(UNITS)]},
    "TimeDistributed": lambda layers: {"layer": layers.Conv2D(UNITS, 2)},
}

# What the layers take whose names say nothing of it.
TAKES = {
    **dict.fromkeys(("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"), "pair"),
    **dict.fromkeys(("AdditiveAttention", "Attention"), "pair of sequences"),
    **dict.fromkeys(("GroupQueryAttention", "MultiHeadAttention"), "sequence"),
    **dict.fromkeys(("Bidirectional", "GRU", "GRUCell", "LSTM", "LSTMCell", "Masking", "RNN"), "sequence"),
    **dict.fromkeys(("SimpleRNN", "SimpleRNNCell", "StackedRNNCells"), "sequence"),
    **dict.fromkeys(("CategoryEncoding", "Embedding", "ReversibleEmbedding"), "integers"),
    **dict.fromkeys(("Dense", "MelSpectrogram", "RepeatVector"), "vector"),
    "ConvLSTM1D": "map",
    "ConvLSTM2D": "volume",
    "ConvLSTM3D": "frames",
    "Discretization": "vector",
    "Dot": "pair of vectors",
    "STFTSpectrogram": "wave",
    "TimeDistributed": "volume",
}
IMAGE = ("AugMix", "AutoContrast", "CenterCrop", "CutMix", "Equalization", "MixUp", "Normalization", "Pipeline")
ALSO_IMAGE = ("ContrastLimitedAdaptiveHistogramEqualization", "RandAugment", "Rescaling", "Resizing", "Solarization")
CELLS = ("GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells")
SELF_ATTENTION = ("GroupQueryAttention", "MultiHeadAttention")


def classes(keras: Any) -> dict[str, str]:
    """The layer classes that `keras` exports, with the reason for which one is left out; empty where it is not."""
    layers, named = keras.layers, {}
    for name in dir(layers):
        cls = getattr(layers, name)
        if not (inspect.isclass(cls) and issubclass(cls, layers.Layer)):
            continue
        own = cls.__name__
        alias = own != name and getattr(layers, own, None) is cls
        named[name] = f"another name of {own}" if alias else LEFT_OUT.get(name, "")
    return named


def takes(name: str) -> str:
    if name in TAKES:
        return TAKES[name]
    if name in IMAGE or name in ALSO_IMAGE or name.startswith("Random"):
        return "image"
    return {"1D": "sequence", "3D": "volume"}.get(name.removesuffix("Transpose")[-2:], "map")


def made(layers: Any, name: str) -> Any:
    """The layer of this class, and a recurrent one of a cell."""
    cls = getattr(layers, name)
    arguments = SPECIAL[name](layers) if name in SPECIAL else {}
    for parameter in inspect.signature(cls.__init__).parameters.values():
        known, needed = parameter.name in PARAMETERS, parameter.default is parameter.empty
        if needed and known and parameter.name not in arguments:
            arguments[parameter.name] = PARAMETERS[parameter.name]
        if parameter.name == "value_range":
            arguments.setdefault("value_range", (0, 1))
    layer = cls(**arguments)
    return layers.RNN(layer) if name in CELLS else layer


def with_layer(keras: Any, name: str) -> Any:
    """The classifier with one layer of this class in it."""

    def called(x: Any) -> Any:
        layer = made(keras.layers, name)
        if name in SELF_ATTENTION:
            return layer(x, x)
        return layer(x)

    return classifier(keras, called, takes(name))


def classifier(keras: Any, middle: Callable[[Any], Any], form: str = "map") -> Any:
    """A model of images in [0, 1] with `middle` in it, which is given features of `form`."""
    layers = keras.layers
    image = x = keras.Input(SHAPE, name="image")
    if form == "image":
        x = middle(x)
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    else:
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
        x = middle(_given(layers, x, form))
    return keras.Model(image, ended(layers, x))


def _given(layers: Any, x: Any, form: str) -> Any:
    """The features `[n, 8, 8, 4]` in another form."""
    other = layers.Conv2D(4, 1, name="other")(x) if form.startswith("pair") else None
    if SHAPES[form] != SHAPES["map"]:
        x = layers.Reshape(SHAPES[form], name="given")(x)
        other = layers.Reshape(SHAPES[form], name="other_given")(other) if other is not None else None
    if form == "integers":
        return layers.Discretization([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], name="integers")(x)
    return x if other is None else [x, other]


def ended(layers: Any, x: Any, scores: bool = True) -> Any:
    """Features of any shape to a hidden layer, which is pruned, and to scores."""
    if isinstance(x, list | tuple):
        x = x[0]
    if len(x.shape) == 4 and None in x.shape[1:]:
        x = layers.GlobalAveragePooling2D(name="pooled")(x)
    if len(x.shape) > 2:
        x = layers.Flatten(name="flat")(x)
    if "int" in str(getattr(x.dtype, "name", x.dtype)):
        x = layers.Rescaling(1.0, name="real")(x)
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    return layers.Dense(CLASSES, activation="softmax", name="scores")(x) if scores else x
