"""What an audit finds in an artifact: its weights, its operators, and sums over them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from src.measure.tflite import Granularity, Port

Computes = Literal["integer", "hybrid", "float", "nothing", "unknown"]

# Operators that draw anew in every inference.
DRAWS = ("MULTINOMIAL", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM")


@dataclass(frozen=True)
class Tensor:
    """A weight: a constant that the model computes with.

    `zeros` counts values equal to the zero point, those that a sparse encoding leaves out included; `gzip_bytes` is
    what its buffer takes alone and `entropy_bits` the bound of `entropy_bits()`, both only where asked for. `stored_as`
    names the tensor in whose buffer it lies, where several are equal and the file holds them once. `channels` are those
    of the output of a convolution or a dense layer, and `distinct` the most different values in one of them, where
    asked for.
    """

    name: str
    layer: str
    dtype: str
    shape: tuple[int, ...]
    granularity: Granularity
    sparse_encoded: bool
    values: int
    zeros: int
    bytes: int
    gzip_bytes: int | None = None
    entropy_bits: float | None = None
    stored_as: str | None = None
    channels: int | None = None
    distinct: int | None = None

    @property
    def sparsity(self) -> float:
        return self.zeros / self.values if self.values else 0.0


@dataclass(frozen=True)
class Layer:
    """Sums over the weights of one layer."""

    name: str
    values: int
    zeros: int
    bytes: int
    gzip_bytes: int | None

    @property
    def sparsity(self) -> float:
        return self.zeros / self.values if self.values else 0.0


@dataclass(frozen=True)
class Operator:
    """`computes`: in integers; in integers on activations that it quantizes as it goes (hybrid); in float; nothing,
    as it only moves numbers; or unknown, as only who made a custom operator knows."""

    name: str
    layer: str
    computes: Computes
    weights: str | None  # dtype of its first weight
    custom: bool = False


@dataclass(frozen=True)
class Audit:
    """What was found. `sparsity` is the share of zeros over all weights, None where no weight is to be seen;
    `compressors` holds bytes by compressor. `inputs` and `outputs` are those of the first subgraph, and their dtypes
    "nothing" where there are none. `multiply_adds` are those of one inference, see `multiply_adds()`.
    """

    tflite_bytes: int
    gzip_bytes: int
    sparsity: float | None
    input_dtype: str
    output_dtype: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    multiply_adds: int = 0
    compressors: Mapping[str, int] = field(default_factory=dict)
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    signatures: tuple[str, ...] = ()

    @property
    def values(self) -> int:
        return sum(tensor.values for tensor in self.tensors)

    @property
    def zeros(self) -> int:
        return sum(tensor.zeros for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        """Values of kernels and biases that the file holds, batch normalization folded into them: as many in every
        scheme. What is equal and held once counts once. Left out are single numbers without a dimension, such as the
        factor of a rescaling, and tensors of nothing but zeros, which the converter adds where a layer has no bias and
        where a recurrent one begins: of them the schemes hold more or fewer.

        Only where the converter unrolls a recurrent layer for full integers, each step has biases of its own."""
        own = (tensor for tensor in self.tensors if tensor.shape and tensor.stored_as is None)
        return sum(tensor.values for tensor in own if tensor.zeros < tensor.values)

    @property
    def weight_bytes(self) -> int:
        """What the file holds of them: a buffer that several share lies in it once."""
        return sum(tensor.bytes for tensor in self.tensors if tensor.stored_as is None)

    @property
    def random_operators(self) -> list[str]:
        """Those that draw random numbers: with them, predictions of one image differ."""
        return sorted({operator.name for operator in self.operators} & set(DRAWS))

    @property
    def layers(self) -> tuple[Layer, ...]:
        groups: dict[str, list[Tensor]] = {}
        for tensor in self.tensors:
            groups.setdefault(tensor.layer, []).append(tensor)
        return tuple(
            Layer(
                name,
                sum(t.values for t in group),
                sum(t.zeros for t in group),
                sum(t.bytes for t in group),
                None if None in (sizes := [t.gzip_bytes for t in group]) else sum(filter(None, sizes)),
            )
            for name, group in groups.items()
        )
