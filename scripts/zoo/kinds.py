"""What is in the zoo beside one layer after another: activations, initializers, operators between tensors, ways to put
a model together, custom objects and applications. `of` lists all kinds of a Keras."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from scripts.zoo import custom, layers, ops
from scripts.zoo.layers import CLASSES, SHAPE, classifier, ended

FORMATS = ("keras", "h5", "savedmodel")


@dataclass(frozen=True)
class Kind:
    """How to build one model. `custom` are the import paths of what it is made of, which `told` says are given. `twin`
    builds the model whose predictions are compared, where that is another one."""

    build: Callable[[], Any]
    custom: tuple[str, ...] = ()
    told: bool = True
    twin: Callable[[], Any] | None = None


@dataclass
class Kinds:
    """By group and name, and what is left out, with the reason."""

    made: dict[str, Kind] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def of(keras: Any) -> Kinds:
    """All kinds that `keras` (Keras 3 or tf_keras) can make."""
    kinds = Kinds()
    for name, why in layers.classes(keras).items():
        _add(kinds, f"layer/{name}", partial(layers.with_layer, keras, name), why)
    for name, why in _activations(keras).items():
        _add(kinds, f"activation/{name}", partial(_with_activation, keras, name), why)
    for name, why in _initializers(keras).items():
        _add(kinds, f"initializer/{name}", partial(_with_initializer, keras, name), why)
    for name, middle in ops.operators(keras).items():
        _add(kinds, f"operator/{name}", partial(classifier, keras, middle))
    for name, why in ops.functions(keras).items():
        _add(kinds, f"ops/{name}", partial(ops.with_function, keras, name), why)
    for name, build in STRUCTURES.items():
        _add(kinds, f"structure/{name}", partial(build, keras))
    mixed, twin = (partial(_of_policy, keras, policy) for policy in ("mixed_float16", "float32"))
    kinds.made["structure/mixed_float16"] = Kind(mixed, twin=twin)  # artifacts are float32
    for name, (middle, objects) in CUSTOM.items():
        _add_custom(kinds, name, partial(classifier, keras, partial(middle, keras)), objects)
    _add_custom(kinds, "subclassed model", custom.subclassed, ("Subclassed",))
    for name in dir(keras.applications):
        if name[0].isupper():
            size, why = _application(name)
            _add(kinds, f"application/{name}", partial(_of_application, keras, name, size), why)
    return kinds


def _add(kinds: Kinds, name: str, build: Callable[[], Any], why: str = "") -> None:
    if why:
        kinds.left_out[name] = why
    else:
        kinds.made[name] = Kind(build)


def _add_custom(kinds: Kinds, name: str, build: Callable[[], Any], objects: tuple[str, ...]) -> None:
    paths = tuple(f"{custom.__name__}.{each}" for each in objects)
    for told in (True, False):
        kinds.made[f"custom/{name}, {'given' if told else 'not given'}"] = Kind(build, paths, told)


# --- Activations and initializers ------------------------------------------------------------------------------------

ARGUMENTS = ("deserialize", "get", "serialize")


def _activations(keras: Any) -> dict[str, str]:
    named: dict[str, str] = {}
    for name in dir(keras.activations):
        function = getattr(keras.activations, name)
        if not inspect.isfunction(function) or name.startswith("_") or name in ARGUMENTS:
            continue
        needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        alias = function.__name__ != name and function.__name__ in named
        named[name] = f"another name of {function.__name__}" if alias else ""
        if len(needed) > 1:
            named[name] = f"takes {needed[1].name}, which no layer passes"
    return named


def _with_activation(keras: Any, name: str) -> Any:
    def middle(x: Any) -> Any:
        x = keras.layers.Conv2D(4, 3, activation="linear" if name == "glu" else name)(x)
        return keras.layers.Activation(name)(x)

    return classifier(keras, middle)


def _initializers(keras: Any) -> dict[str, str]:
    module = keras.initializers
    named: dict[str, str] = {}
    for name in dir(module):
        cls = getattr(module, name)
        if not (inspect.isclass(cls) and issubclass(cls, module.Initializer)):
            continue
        alias = cls.__name__ != name
        named[name] = f"another name of {cls.__name__}" if alias else ""
    named["Initializer"] = "a base class"
    return named | {name: "makes the kernel of STFTSpectrogram only" for name in named if name.startswith("STFT")}


def _with_initializer(keras: Any, name: str) -> Any:
    def middle(x: Any) -> Any:
        x = keras.layers.Flatten()(x) if "Identity" in name else x
        initializer = getattr(keras.initializers, name)()
        if "Identity" in name:
            return keras.layers.Dense(16, kernel_initializer=initializer)(x)
        return keras.layers.Conv2D(4, 3, kernel_initializer=initializer)(x)

    return classifier(keras, middle)


# --- Ways to put a model together ------------------------------------------------------------------------------------


def _sequential(keras: Any, **of_input: Any) -> Any:
    parts = keras.layers
    return keras.Sequential(
        [
            parts.Input(SHAPE, **of_input),
            parts.Rescaling(2.0, offset=-1.0),
            parts.RandomFlip("horizontal"),
            parts.Conv2D(4, 3, activation="relu"),
            parts.BatchNormalization(),
            parts.MaxPooling2D(),
            parts.Dropout(0.3),
            parts.Flatten(),
            parts.Dense(8, activation="relu"),
            parts.Dense(CLASSES, activation="softmax"),
        ]
    )


def _sequential_without_input(keras: Any) -> Any:
    parts = keras.layers
    model = keras.Sequential(
        [parts.Conv2D(4, 3), parts.Flatten(), parts.Dense(8), parts.Dense(CLASSES, activation="softmax")]
    )
    model.build((None, *SHAPE))
    return model


def _part(keras: Any, sequential: bool, name: str) -> Any:
    inside = [
        keras.layers.Conv2D(4, 3, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("relu"),
        keras.layers.Dropout(0.3),
    ]
    if sequential:
        return keras.Sequential([keras.layers.Input((8, 8, 4)), *inside], name=name)
    image = x = keras.Input((8, 8, 4))
    for layer in inside:
        x = layer(x)
    return keras.Model(image, x, name=name)


def _nested(keras: Any, sequential: bool) -> Any:
    return classifier(keras, lambda x: _part(keras, sequential, "part")(x))


def _nested_twice(keras: Any) -> Any:
    def middle(x: Any) -> Any:
        image = keras.Input((8, 8, 4))
        outer = keras.Model(image, _part(keras, False, "inner")(_part(keras, True, "first")(image)), name="outer")
        return outer(x)

    return classifier(keras, middle)


def _shared(keras: Any, part: Callable[[Any], Any]) -> Any:
    def middle(x: Any) -> Any:
        shared = part(keras)
        return keras.layers.Add()([shared(x), shared(keras.layers.ReLU()(x))])

    return classifier(keras, middle)


def _called(keras: Any, layer: Callable[[Any], Any], training: bool) -> Any:
    return classifier(keras, lambda x: layer(keras)(x, training=training))


def _frozen(keras: Any) -> Any:
    model = classifier(keras, lambda x: _part(keras, False, "frozen")(x))
    model.get_layer("frozen").trainable = False
    return model


def _of_policy(keras: Any, policy: str) -> Any:
    keras.mixed_precision.set_global_policy(policy)
    try:
        parts = keras.layers
        image = keras.Input(SHAPE)
        x = ended(parts, parts.Conv2D(4, 3, activation="relu")(image), scores=False)
        return keras.Model(image, parts.Dense(CLASSES, activation="softmax", dtype="float32")(x))
    finally:
        keras.mixed_precision.set_global_policy("float32")


def _headed(keras: Any, head: Callable[[Any, Any], Any]) -> Any:
    image = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    return keras.Model(image, head(keras.layers, ended(keras.layers, x, scores=False)))


def _pooled_scores(parts: Any, x: Any) -> Any:
    x = parts.Conv2D(CLASSES, 1)(parts.Reshape((2, 2, 2))(x))
    return parts.Softmax()(parts.GlobalAveragePooling2D()(x))


def _of_shape(keras: Any, *shape: int | None) -> Any:
    image = keras.Input(shape)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(image))
    return keras.Model(image, ended(keras.layers, x))


def _of_seven_dimensions(keras: Any) -> Any:
    def middle(x: Any) -> Any:
        x = keras.layers.Reshape((2, 2, 2, 2, 2, -1))(x)
        return keras.layers.EinsumDense("abcdefg,gh->abcdefh", output_shape=(2, 2, 2, 2, 2, 4))(x)

    return classifier(keras, middle)


def _regularized(keras: Any) -> Any:
    return classifier(
        keras,
        lambda x: keras.layers.Conv2D(
            4,
            3,
            kernel_regularizer=keras.regularizers.L1L2(0.01, 0.01),
            bias_regularizer="l2",
            activity_regularizer="l1",
            kernel_constraint=keras.constraints.MaxNorm(2),
            bias_constraint="non_neg",
        )(x),
    )


def _with_layer_as_activation(keras: Any, layer: str) -> Any:
    return classifier(keras, lambda x: keras.layers.Conv2D(4, 3, activation=getattr(keras.layers, layer)())(x))


STRUCTURES: dict[str, Callable[[Any], Any]] = {
    "Sequential": _sequential,
    "Sequential, batch of 1": partial(_sequential, batch_size=1),
    "Sequential without Input, built": _sequential_without_input,
    "nested Sequential": partial(_nested, sequential=True),
    "nested Functional": partial(_nested, sequential=False),
    "nested twice": _nested_twice,
    "shared layer": partial(_shared, part=lambda keras: keras.layers.Conv2D(4, 3, padding="same")),
    "shared model": partial(_shared, part=lambda keras: _part(keras, True, "part")),
    "frozen model inside": _frozen,
    "Dropout always on": partial(_called, layer=lambda keras: keras.layers.Dropout(0.3), training=True),
    "Dropout always off": partial(_called, layer=lambda keras: keras.layers.Dropout(0.3), training=False),
    "BatchNormalization off": partial(_called, layer=lambda keras: keras.layers.BatchNormalization(), training=False),
    "regularizers and constraints": _regularized,
    "LeakyReLU() as an activation": partial(_with_layer_as_activation, layer="LeakyReLU"),
    "PReLU() as an activation": partial(_with_layer_as_activation, layer="PReLU"),
    "logits": partial(_headed, head=lambda parts, x: parts.Dense(CLASSES)(x)),
    "Softmax layer": partial(_headed, head=lambda parts, x: parts.Softmax()(parts.Dense(CLASSES)(x))),
    "Activation layer": partial(_headed, head=lambda parts, x: parts.Activation("softmax")(parts.Dense(CLASSES)(x))),
    "log_softmax": partial(_headed, head=lambda parts, x: parts.Dense(CLASSES, activation="log_softmax")(x)),
    "pooled scores": partial(_headed, head=_pooled_scores),
    "any height and width": lambda keras: _of_shape(keras, None, None, 3),
    "one channel": lambda keras: _of_shape(keras, 8, 8, 1),
    "not square": lambda keras: _of_shape(keras, 9, 6, 3),
    "EinsumDense of seven dimensions": _of_seven_dimensions,  # XNNPACK refuses it (LiteRT 2.3)
}

# --- Custom objects and applications ---------------------------------------------------------------------------------

CUSTOM: dict[str, tuple[Callable[[Any, Any], Any], tuple[str, ...]]] = {
    "layer": (lambda keras, x: custom.Scale()(x), ("Scale",)),
    "registered layer": (lambda keras, x: custom.RegisteredScale()(x), ("RegisteredScale",)),
    "layer with layers inside": (lambda keras, x: custom.Mixed()(x), ("Mixed",)),
    "function as an activation": (
        lambda keras, x: keras.layers.Conv2D(4, 3, activation=custom.doubled)(x),
        ("doubled",),
    ),
    "registered function": (
        lambda keras, x: keras.layers.Activation(custom.registered_doubled)(x),
        ("registered_doubled",),
    ),
}

# The smallest of each family, at the smallest images that it takes.
APPLICATIONS = {
    "ConvNeXt": ("Tiny", 32),
    "DenseNet": ("121", 32),
    "EfficientNet": ("B0", 32),
    "EfficientNetV2": ("B0", 32),
    "InceptionResNet": ("V2", 75),
    "Inception": ("V3", 75),
    "MobileNetV2": ("", 32),
    "MobileNetV3": ("Small", 32),
    "MobileNet": ("", 32),
    "NASNet": ("Mobile", 32),
    "RegNetX": ("002", 32),
    "RegNetY": ("002", 32),
    "ResNet": ("50", 32),
    "ResNetRS": ("50", 32),
    "VGG": ("16", 32),
    "Xception": ("", 71),
}


def _application(name: str) -> tuple[int, str]:
    family = max((f for f in APPLICATIONS if name.startswith(f)), key=len, default=None)
    if family is None:
        return 32, ""
    smallest, size = APPLICATIONS[family]
    second = name.removeprefix(family + smallest) == "V2"  # ResNet50V2 is a family of its own
    if name in (family + smallest, "MobileNetV3Large") or second:
        return size, ""
    return size, f"made of the layers of {family}{smallest}"


def _of_application(keras: Any, name: str, size: int) -> Any:
    return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=CLASSES)
