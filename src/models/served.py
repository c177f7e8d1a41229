"""The serving function of a SavedModel, for models of which no layers can be read: it is measured and converted as it
is, and nothing in it can be trained."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.models.one_image import for_one
from src.settings.check import UserError, in_short

GROUP = "saved_model"  # in a checkpoint: the files of the folder
USUAL = "serving_default"
# Operators of TensorFlow that reach beyond the model: files, and functions of the process.
REACHING = ("EagerPyFunc", "MatchingFiles", "PyFunc", "PyFuncStateless", "ReadFile", "WriteFile")
# Those that layers of augmentation draw with, and LiteRT does not have.
DRAWING = (
    *("StatelessRandomGetKeyCounter", "StatelessRandomNormalV2", "StatelessRandomUniformIntV2"),
    *("StatelessRandomUniformV2", "StatelessRandomUniformFullIntV2", "StatelessTruncatedNormalV2", "StatefulUniform"),
)
PASSES = ("Cast", "EnsureShape", "Identity", "Reshape", "Squeeze", "StopGradient")
LINEAR = ("Add", "AddV2", "BiasAdd", "Conv2D", "FusedBatchNormV3", "MatMul", "Mean")
KINDS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid", **dict.fromkeys(LINEAR, "linear")}


@dataclass(frozen=True)
class Tensor:
    """What is asked of an input or an output of a Keras model."""

    shape: tuple[int | None, ...]
    dtype: str


def channels_first(takes: Sequence[int | None], shape: Sequence[int]) -> bool:
    """Whether what a model `takes` are images of `shape`, height x width x channels, with the channels first only."""
    height, width, channels = shape
    return not fits(takes, shape) and fits(takes, (channels, height, width))


def fits(takes: Sequence[int | None], shape: Sequence[int]) -> bool:
    """Whether a tensor of `shape` is one of those that a model `takes`, where None is any size."""
    return len(takes) == len(shape) and all(own in (None, size) for own, size in zip(takes, shape, strict=True))


class Served:
    """`folder`: the SavedModel; `why` there are no layers, as a phrase; `shape`: of the images that go in, None for
    those that its function takes.

    Raises `UserError`, which starts with `key`, where there is no function from images to scores.
    """

    def __init__(self, folder: Path, key: str, why: str, shape: tuple[int, int, int] | None = None) -> None:
        import tensorflow as tf

        self.folder, self.key, self.why = folder, key, why
        self.kept: Any = None  # what goes with the model: the folder, where it is there for it alone
        self.name = "saved_model"
        try:
            self._loaded = tf.saved_model.load(str(folder), tags=_tags(folder))
        except Exception as error:  # of the files, of TensorFlow
            raise UserError(f"{key}: can't be read ({type(error).__name__}: {in_short(error)})") from None
        self.signature = _signature(self._loaded.signatures, key)
        self._function = self._loaded.signatures[self.signature]
        self._argument, spec = _only("inputs", self._function.structured_input_signature[1], key)
        self._output, scores = _only("outputs", self._function.structured_outputs, key)
        if not (spec.dtype.is_floating or spec.dtype.is_integer) or spec.shape.rank is None:
            raise UserError(
                f"{key}: its function takes {spec.dtype.name} {spec.shape}; takes one of images, as numbers"
            )
        if not spec.shape:
            raise UserError(f"{key}: its function takes a single number; takes one of images")
        if drawing := sorted(set(_operators(self._function)).intersection(DRAWING)):
            raise UserError(
                f"{key}: its function draws random numbers ({drawing[0]}), as where Keras 3 exports augmentation that "
                "stays on, and LiteRT has no operator for that; takes the .keras file, or a model without those layers"
            )
        own = tuple(spec.shape)
        self._of_one = None if own[0] in (None, 1) else for_one(self._function, own[1:] if shape is None else shape)
        if self._of_one:
            own, scores = (1, *own[1:]), self._of_one.outputs[0]
        elif own[0] not in (None, 1):
            raise UserError(f"{key}: its function takes {spec.shape}; takes one of any number of images, or of one")
        self.dtype = spec.dtype
        self.own = Tensor(own, spec.dtype.name)
        self.any_size = False
        self.inputs = [Tensor(own if shape is None else (own[0], *shape), "float32")]
        self.outputs = [Tensor(self._gives(scores), scores.dtype.name)]
        self.weights = [each for each in self._function.variables if each.dtype.is_floating]

    def __call__(self, images: Any, training: bool = False) -> Any:
        """Scores `[n, classes]` of float32 `[n, *shape]`."""
        import tensorflow as tf

        own = self.own.shape
        if own[0] == 1 and images.shape[0] != 1:
            return tf.map_fn(lambda image: self(image[None])[0], images)
        if channels_first(own[1:], images.shape[1:]):
            images = tf.transpose(images, (0, 3, 1, 2))
        elif len(own) < 4:
            images = tf.reshape(images, (-1, *own[1:]))
        images = tf.cast(images, self.dtype)
        scores = self._of_one(images) if self._of_one else self._function(**{self._argument: images})[self._output]
        return tf.cast(scores, tf.float32)

    def _gives(self, scores: Any) -> tuple[int | None, ...]:
        """The shape of the scores, which some graphs don't say before they are run."""
        import tensorflow as tf

        shape = self.inputs[0].shape[1:]
        if (scores.shape.rank is None or None in scores.shape[1:]) and None not in shape:
            return (None, *self(tf.zeros((1, *shape))).shape[1:])
        return tuple(scores.shape) if scores.shape.rank else ()

    @property
    def batches(self) -> tuple[int | None, ...]:
        """How many images at a time it can be converted for, the best first; None is any number."""
        return (None, 1) if self.own.shape[0] is None else (1,)

    def fitted(self, shape: tuple[int, int, int]) -> "Served":
        """The same for images of `shape`."""
        return Served(self.folder, self.key, self.why, shape)

    def last(self) -> tuple[str, str | None]:
        """See `last_operator`."""
        return last_operator(self._function)

    def converter(self, batch: int | None) -> Any:
        """TensorFlow's converter of the function, for any number of images at a time (None) or `batch` of them."""
        import tensorflow as tf

        module = tf.Module()
        images = tf.TensorSpec((batch, *self.inputs[0].shape[1:]), tf.float32, "image")
        module.function = tf.function(lambda image: self(image)).get_concrete_function(images)
        module.held = module.function.variables  # else they would stay variables in the file
        return tf.lite.TFLiteConverter.from_concrete_functions([module.function], module)


def last_operator(function: Any) -> tuple[str, str | None]:
    """The name of the operator that makes the scores which a concrete function gives, and which function of
    `src.models.head` it is."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    try:
        # With the functions that it calls put in their places.
        operation = convert_variables_to_constants_v2(function, lower_control_flow=False).outputs[0].op
    except ValueError:  # of variables that change
        return "an operator that can't be told", None
    while operation.type in PASSES and operation.inputs:
        operation = operation.inputs[0].op
    return f"{operation.name} ({operation.type})", KINDS.get(operation.type)


def save(model: Served, checkpoint: Path) -> None:
    """Writes the files of the folder, which `restore` reads back."""
    import h5py

    with h5py.File(checkpoint, "w") as file:
        group = file.create_group(GROUP)
        for each in sorted(each for each in model.folder.rglob("*") if each.is_file()):
            group.create_dataset(str(each.relative_to(model.folder)), data=np.fromfile(each, np.uint8))
        group.attrs["why"], group.attrs["shape"] = model.why, model.inputs[0].shape[1:]


def restore(group: Any) -> Served:
    """The model in the group `GROUP` of a checkpoint."""
    folder = tempfile.TemporaryDirectory(prefix="saved-model-")

    def write(name: str, data: Any) -> None:
        if hasattr(data, "dtype"):
            path = Path(folder.name) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data[()].tobytes())

    group.visititems(write)
    height, width, channels = map(int, group.attrs["shape"])
    model = Served(Path(folder.name), "model", group.attrs["why"], (height, width, channels))
    model.kept = folder
    return model


def reaching(folder: Path) -> str | None:
    """The first operator in the graphs of a SavedModel that reaches beyond the model, if there is one."""
    for meta in _meta_graphs(folder):
        functions = (node for each in meta.graph_def.library.function for node in each.node_def)
        for node in (*meta.graph_def.node, *functions):
            if node.op in REACHING:
                return str(node.op)
    return None


def described(folder: Path) -> list[str]:
    """The JSON in which Keras describes layers, where it is in the graph itself: as TensorFlow left it before 2.5."""
    objects = (node.user_object for meta in _meta_graphs(folder) for node in meta.object_graph_def.nodes)
    return [each.metadata for each in objects if each.identifier.startswith("_tf_keras") and each.metadata]


def _operators(function: Any) -> Iterator[str]:
    """Of a concrete function and of those that it calls."""
    graph = function.graph.as_graph_def()
    bodies = {each.signature.name: each.node_def for each in graph.library.function}
    left, seen = [graph.node], set()
    while left:
        for node in left.pop():
            yield node.op
            called = [value.func.name for value in node.attr.values() if value.HasField("func")]
            called += [each.name for value in node.attr.values() for each in value.list.func]
            left += [bodies[name] for name in called if name in bodies and name not in seen]
            seen.update(called)


def _meta_graphs(folder: Path) -> Any:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    return SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs


def _tags(folder: Path) -> list[str] | None:
    """Those of the graph for serving, where there are several."""
    tags = [list(meta.meta_info_def.tags) for meta in _meta_graphs(folder)]
    return next((each for each in tags if "serve" in each), tags[0] if tags else None)


def _signature(names: Iterable[str], key: str) -> str:
    """Which of the functions is taken."""
    names = sorted(names)
    if not names:
        raise UserError(f"{key}: has no signature; takes a SavedModel with one that serves, as model.export leaves it")
    if USUAL not in names and len(names) > 1:
        raise UserError(f"{key}: has the signatures {', '.join(names)}; takes one, or one that is called {USUAL}")
    return USUAL if USUAL in names else names[0]


def _only(what: str, tensors: Any, key: str) -> tuple[str, Any]:
    if len(tensors) != 1:
        names = ", ".join(sorted(tensors)) or "none"
        takes = "the images" if what == "inputs" else "a score per class"
        raise UserError(f"{key}: its function has {len(tensors)} {what} ({names}); takes one with one, {takes}")
    ((name, tensor),) = tensors.items()
    return name, tensor
