"""Which channels of a model go together: those that are added, multiplied or normalized with one another, or that one
layer makes in several calls. After the dependency graph of Torch-Pruning (Fang et al. 2023, arXiv:2301.12900).

Each channel that a layer makes is an atom, a number. A tensor has its channels on one axis, and of each place on it the
atom is known. Layers that compute each channel by itself hand atoms on; layers that bring channels together tie their
atoms; what a layer does that is not known here holds them: atoms that are held stay.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from src.methods.narrow.graph import Call, Graph

OUTPUTS = "the outputs of the model"  # a reason to stay that needs no word
HELD = 0  # the atom to which what has to stay is tied

MAKERS = (
    *("Dense", "Conv1D", "Conv2D", "Conv3D", "SeparableConv1D", "SeparableConv2D"),
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
)
DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
# Of each value by itself. Those of one letter case more than Keras's are functions, of TensorFlow or keras.ops.
ELEMENTWISE = {
    *("activation", "relu", "relu6", "leakyrelu", "leaky_relu", "elu", "thresholdedrelu", "selu", "gelu", "celu"),
    *("silu", "swish", "mish", "sigmoid", "hardsigmoid", "hard_sigmoid", "hardsilu", "hardswish", "hard_silu"),
    *("tanh", "hardtanh", "softplus", "softsign", "logsigmoid", "log_sigmoid", "exp", "exponential", "linear"),
    *("abs", "absolute", "square", "sqrt", "rsqrt", "negative", "neg", "identity", "clip", "clip_by_value", "cast"),
    *("dropout", "spatialdropout1d", "spatialdropout2d", "spatialdropout3d", "gaussiannoise", "gaussiandropout"),
    *("activityregularization", "stop_gradient", "stopgradient", "squareplus", "tanhshrink", "softshrink"),
    *("hardshrink", "threshold"),
}
MERGES = {
    *("add", "subtract", "sub", "multiply", "mul", "divide", "truediv", "truedivide", "average", "maximum", "minimum"),
    *("rescaling", "add_v2", "addv2", "realdiv", "customscalelayer"),  # the last one of InceptionResNetV2: x + y * s
}
SPATIAL = {
    f"{name}{n}d"
    for n in (1, 2, 3)
    for name in ("maxpooling", "averagepooling", "zeropadding", "cropping", "upsampling", "globalaveragepooling")
} | {"globalmaxpooling1d", "globalmaxpooling2d", "globalmaxpooling3d", "resizing"}
ACTIVATIONS = ELEMENTWISE | {"hard_swish", "relu_6"}


class Channels(NamedTuple):
    """Of a tensor: the axis of its channels, without the batch, and the atom at each place on it."""

    axis: int
    atoms: np.ndarray


@dataclass
class Slots:
    """Of a layer whose weights have to do with channels: the atoms that it takes and makes, by place. Of one that
    computes each channel by itself both are the same, or `makes` repeats `takes`. `positions` are the places, over all
    of its calls, at which it applies its kernel, and `calls` how often it is called."""

    layer: Any
    takes: np.ndarray
    makes: np.ndarray
    is_maker: bool
    positions: int = 0


@dataclass
class Coupling:
    """What ties the atoms of a model: `ties` are pairs of arrays of atoms, `held` arrays of atoms with the reason why
    they stay, and `shapes` the places of channels in shapes that layers have been given, by path: the targets of
    Reshape, and the inputs of nested models. `other` are layers with weights that are left whole, each with the places
    at which it is applied."""

    slots: dict[str, Slots] = field(default_factory=dict)
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    held: list[tuple[np.ndarray, str]] = field(default_factory=list)
    shapes: dict[str, Channels] = field(default_factory=dict)
    other: dict[str, tuple[Any, int]] = field(default_factory=dict)
    atoms: int = 1  # there are so many

    def fresh(self, count: int) -> np.ndarray:
        self.atoms += count
        return np.arange(self.atoms - count, self.atoms)

    def tie(self, one: np.ndarray, other: np.ndarray) -> None:
        self.ties.append((one, other))

    def hold(self, atoms: np.ndarray, why: str) -> None:
        self.held.append((atoms, why))


def coupling(model: Graph) -> Coupling:
    """Follows the channels through the calls of a model."""
    found = Coupling()
    tensors: dict[int, Channels] = {}
    for call in model.calls:
        # What no call gives is the input of the model.
        takes = [tensors.setdefault(name, _still(shape)) for name, shape in zip(call.inputs, call.shapes, strict=True)]
        made = _follow(call, takes, found)
        if made is None:
            for each in takes:
                found.hold(each.atoms, f"tied to {_named(call)}")
            _count_other(call, found)
        for name, shape in zip(call.outputs, call.gives, strict=True):
            tensors[name] = made if made is not None else _still(shape)
    found.shapes |= {path: tensors[name] for path, name in model.nested.items()}
    for name in model.outputs:
        found.hold(tensors[name].atoms, OUTPUTS)
    return found


def _named(call: Call) -> str:
    return f"{call.path} ({type(call.layer).__name__})" if type(call.layer).__name__ != call.path else call.path


def _still(shape: tuple[int | None, ...]) -> Channels:
    """Of a tensor whose channels stay."""
    return Channels(len(shape) - 1, np.full((shape[-1] or 1) if shape else 1, HELD))


def _count_other(call: Call, found: Coupling) -> None:
    """Layers with kernels that are left whole do multiply-adds as well."""
    if getattr(call.layer, "weights", None):
        positions = _product(call.gives[0][:-1])
        before = found.other.get(call.path, (call.layer, 0))[1]
        found.other[call.path] = (call.layer, before + positions)


def _product(sizes: Any) -> int:
    return math.prod(size or 1 for size in sizes)


def _follow(call: Call, takes: list[Channels], found: Coupling) -> Channels | None:
    """The channels that a call gives; None where it is not known what it does to them."""
    kind, plain = call.kind, call.kind.lower()
    if type(call.layer).__module__.partition(".")[0] not in ("keras", "tf_keras"):
        return None
    if len(takes) == 1 and kind in (*MAKERS, *DEPTHWISE):
        return _kernel(call, takes[0], found)
    if len(takes) == 1 and kind in ("BatchNormalization", "PReLU"):
        return _per_channel(call, takes[0], found)
    if any(constant.size > 1 for constant in call.constants) or len(call.outputs) != 1:
        return None
    if plain in MERGES and not _of_many_values(call.layer):
        return _merged(call, takes, found)
    if plain in ("concatenate", "concat"):
        return _concatenated(call, takes, found)
    if len(takes) != 1:
        return None
    if plain in ELEMENTWISE:
        return takes[0] if plain != "activation" or _is_elementwise(call.layer) else None
    if plain in SPATIAL:
        return _pooled(call, takes[0])
    if kind in ("Flatten", "Reshape", "Permute") and hasattr(call.layer, "weights"):
        return _moved(call, takes[0], found)
    return None


def _of_many_values(layer: Any) -> bool:
    """A Rescaling with numbers for each channel."""
    return any(np.size(getattr(layer, name, 0)) > 1 for name in ("scale", "offset"))


def _is_elementwise(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__).lower()
    return activation is None or name in ACTIVATIONS


def _axis(layer: Any, rank: int) -> int:
    """That of the channels, for a layer with `data_format`, in a tensor of `rank` without the batch."""
    return 0 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def _kernel(call: Call, takes: Channels, found: Coupling) -> Channels | None:
    layer, rank = call.layer, len(call.shapes[0])
    axis = rank - 1 if call.kind == "Dense" else _axis(layer, rank)
    if takes.axis != axis or getattr(layer, "groups", 1) > 1:
        return None
    gives = call.gives[0]
    slots = found.slots.get(call.path)
    if slots is None:
        if call.kind in DEPTHWISE:
            makes = np.repeat(takes.atoms, layer.depth_multiplier)
        else:
            makes = found.fresh(gives[axis] or 1)
        slots = found.slots[call.path] = Slots(layer, takes.atoms, makes, call.kind not in DEPTHWISE)
        if not _is_elementwise(layer):
            found.hold(makes, f"tied to one another by the activation of {call.path}")
    else:
        found.tie(slots.takes, takes.atoms)
    places = call.shapes[0] if call.kind.endswith("Transpose") else gives
    slots.positions += _product(size for i, size in enumerate(places) if i != axis)
    return Channels(axis, slots.makes)


def _per_channel(call: Call, takes: Channels, found: Coupling) -> Channels | None:
    layer, rank = call.layer, len(call.shapes[0])
    if call.kind == "PReLU":
        if takes.axis != rank - 1:
            return None
    else:
        axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
        if [axis - 1 if axis > 0 else rank + axis for axis in axes] != [takes.axis]:
            return None
    slots = found.slots.setdefault(call.path, Slots(layer, takes.atoms, takes.atoms, False))
    if slots.takes is not takes.atoms:
        found.tie(slots.takes, takes.atoms)
    return takes


def _pooled(call: Call, takes: Channels) -> Channels | None:
    if takes.axis != _axis(call.layer, len(call.shapes[0])):
        return None
    rank = len(call.gives[0])
    return Channels(_axis(call.layer, rank) if rank > 1 else 0, takes.atoms)


def _merged(call: Call, takes: list[Channels], found: Coupling) -> Channels | None:
    """Tensors that are computed with value by value, smaller ones for all places of larger ones."""
    rank = len(call.gives[0])
    axes = {each.axis - len(shape) for each, shape in zip(takes, call.shapes, strict=True) if shape}
    if len(axes) != 1:
        return None
    (axis,) = axes
    wide = [each for each in takes if len(each.atoms) == call.gives[0][axis]]
    if not wide:
        return None
    for each in takes:
        if len(each.atoms) == len(wide[0].atoms):
            found.tie(wide[0].atoms, each.atoms)
        else:  # one channel for all
            found.hold(each.atoms, f"taken for all channels by {call.path}")
    return Channels(rank + axis, wide[0].atoms)


def _concatenated(call: Call, takes: list[Channels], found: Coupling) -> Channels | None:
    axis = getattr(call.layer, "axis", None)
    rank = len(call.gives[0])
    if not isinstance(axis, int) or len({each.axis for each in takes}) != 1:
        return None
    if (axis - 1 if axis > 0 else rank + axis) == takes[0].axis:
        return Channels(takes[0].axis, np.concatenate([each.atoms for each in takes]))
    for each in takes[1:]:
        found.tie(takes[0].atoms, each.atoms)
    return takes[0]


def _moved(call: Call, takes: Channels, found: Coupling) -> Channels | None:
    """Where the channels are once places have moved: on one axis, at all places of the others, or nowhere."""
    before = [size for size in call.shapes[0] if size]
    after = [size for size in call.gives[0] if size]
    if (len(before), len(after)) != (len(call.shapes[0]), len(call.gives[0])):  # some are open
        return None
    along = [1] * len(before)
    along[takes.axis] = len(takes.atoms)
    whole = np.broadcast_to(takes.atoms.reshape(along), before)
    if call.kind == "Permute":
        moved = whole.transpose([axis - 1 for axis in call.layer.dims])
    elif getattr(call.layer, "data_format", None) == "channels_first" and len(before) > 1:  # Flatten moves them back
        moved = np.moveaxis(whole, 0, -1).reshape(after)
    else:
        moved = whole.reshape(after)
    for axis in sorted(range(len(after)), key=lambda axis: (after[axis] == 1, -axis)):
        line = np.moveaxis(moved, axis, 0).reshape(after[axis], -1)
        if (line == line[:, :1]).all():
            channels = Channels(axis, line[:, 0].copy())
            if call.kind == "Reshape":
                found.shapes[call.path] = channels
            return channels
    return None
