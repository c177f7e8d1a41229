"""The audit's numbers, of files put together value by value. `make mutants` runs these: all quick."""

import gzip
import lzma
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import G, Op, T, options, tflite

from src.measure.audit import audit
from src.measure.audit.asked import differences, left_in_float
from src.measure.audit.compressors import CHUNK, COMPRESSORS, entropy_bits, gzip_bytes
from src.measure.audit.contents import Audit, Operator, Tensor
from src.measure.audit.weights import layer_of
from src.measure.probe import Asked
from src.measure.tflite import is_sparse_encoded, reads
from src.settings.check import UserError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*graphs: G, **more: Any) -> Path:
        path = tmp_path / "m.tflite"
        path.write_bytes(tflite(*graphs, **more))
        return path

    return write


def layer(weights: T, activations: str = "FLOAT32", scales: Sequence[float] = ()) -> G:
    """One fully connected operator with these weights."""
    tensors = [T("in", [1, 4], activations, scales=scales), weights, T("out", [1, 3], activations, scales=scales)]
    return G(tensors, [Op("FULLY_CONNECTED", [0, 1, -1], [2], options("FullyConnectedOptions"))], [0], [2])


# --- Zeros -----------------------------------------------------------------------------------------------------


def two_layers() -> G:
    """3 of 8 values are zero in the first layer, 4 of 4 in the second; a bias without zeros; a shape that is no weight
    and a tensor that is no constant."""
    tensors = [
        T("in", [1, 4]),
        T("a/first/MatMul", [2, 4], values=np.array([0, 1, 0, 2, 0, 3, 4, 5], np.float32)),
        T("a/first/Bias", [2], values=np.array([1, 2], np.float32)),
        T("x/first/out", [1, 2]),
        T("a/second/MatMul", [2, 2], values=np.zeros(4, np.float32)),
        T("x/second/out", [1, 2]),
        T("shape", [2], "INT32", values=np.array([2, 0], np.int32)),
        T("last", [2, 1]),
    ]
    operators = [
        Op("FULLY_CONNECTED", [0, 1, 2], [3], options("FullyConnectedOptions")),
        Op("FULLY_CONNECTED", [3, 4, -1], [5], options("FullyConnectedOptions")),
        Op("RESHAPE", [5, 6], [7], options("ReshapeOptions")),
    ]
    return G(tensors, operators, [0], [7])


def test_zeros_and_values_are_counted_by_tensor_by_layer_and_in_all(write: Write) -> None:
    found = audit(write(two_layers()))
    assert [(t.name, t.values, t.zeros, t.bytes, t.shape) for t in found.tensors] == [
        ("a/first/MatMul", 8, 3, 32, (2, 4)),
        ("a/first/Bias", 2, 0, 8, (2,)),
        ("a/second/MatMul", 4, 4, 16, (2, 2)),
    ]
    assert [(each.name, each.values, each.zeros, each.bytes, each.gzip_bytes) for each in found.layers] == [
        ("first", 10, 3, 40, None),
        ("second", 4, 4, 16, None),
    ]
    assert [t.sparsity for t in found.tensors] == [3 / 8, 0, 1]
    assert [each.sparsity for each in found.layers] == [0.3, 1]
    assert (found.values, found.zeros, found.sparsity) == (14, 7, 0.5)
    assert found.weight_bytes == 56
    assert [(o.name, o.layer, o.computes, o.weights, o.custom) for o in found.operators] == [
        ("FULLY_CONNECTED", "first", "float", "float32", False),
        ("FULLY_CONNECTED", "second", "float", "float32", False),
        ("RESHAPE", "last", "nothing", None, False),
    ]
    assert not found.signatures


def test_what_has_no_values_has_no_zeros() -> None:
    empty = Tensor("x", "x", "float32", (0,), "none", False, values=0, zeros=0, bytes=0)
    nothing = Audit(1, 1, None, "", "", (empty,), ())
    assert (empty.sparsity, nothing.layers[0].sparsity, nothing.values) == (0, 0, 0)


KERNEL = np.array([[-3, 1, 0, -3], [2, 0, -3, 2], [0, 0, 5, 0]], np.int8)


@pytest.mark.parametrize(
    ("scales", "points", "zeros", "granularity"),
    [
        ([0.5], [0], 5, "per-tensor"),
        ([0.5], [-3], 3, "per-tensor"),
        ([0.1, 0.2, 0.3], [0, 0, 0], 5, "per-channel"),  # scales that differ, one zero point
        ([0.1, 0.2, 0.3], [-3, -3, -3], 3, "per-channel"),
        ([0.1, 0.2, 0.3], [-3, 2, 0], 2 + 2 + 3, "per-channel"),
        ([0.1, 0.2, 0.3], [0, 2, 0], 1 + 2 + 3, "per-channel"),
        ([0.1, 0.2, 0.3], [5, 5, 0], 0 + 0 + 3, "per-channel"),
    ],
)
def test_zeros_of_quantized_weights(
    write: Write, scales: list[float], points: list[int], zeros: int, granularity: str
) -> None:
    found = audit(write(layer(T("w", [3, 4], "INT8", KERNEL, scales, points), "INT8", [1.0])))
    assert (found.tensors[0].zeros, found.tensors[0].granularity) == (zeros, granularity)
    assert found.tensors[0].dtype == "int8"
    assert found.sparsity == zeros / 12
    assert found.operators[0].computes == "integer"


@pytest.mark.parametrize(("axis", "zeros"), [(0, 2 + 4), (1, 1 + 3), (2, 4 + 6)])
def test_zero_points_lie_along_the_quantized_dimension(write: Write, axis: int, zeros: int) -> None:
    # The first channel's zero point is 0, the second's 1, that of any further one a value that there is not.
    values = np.array([[[0, 1], [1, 1], [1, 1], [0, 1]], [[1, 1], [0, 1], [0, 0], [1, 0]]], np.int8)
    points = [0, 1, 7, 7][: values.shape[axis]]
    weights = T("w", values.shape, "INT8", values, [0.1] * len(points), points, axis=axis)
    assert audit(write(layer(weights, "INT8", [1.0]))).tensors[0].zeros == zeros


@pytest.mark.parametrize(
    ("dtype", "raw", "values", "zeros"),
    [
        # low bits first: 0, 1 | -1, 0 | 7, and four bits that are no value
        ("INT4", [0x10, 0x0F, 0x07], 5, 2),
        ("UINT4", [0x10, 0x0F, 0x07], 5, 2),
        # 1, -1, 0, -2 | 0, and three that are no values
        ("INT2", [0b10_00_11_01, 0b11_11_11_00], 5, 2),
        # 0, -0, 1, smallest subnormals of both signs: little-endian
        ("BFLOAT16", [0, 0, 0, 0x80, 0x80, 0x3F, 1, 0, 1, 0x80], 5, 2),
        ("FLOAT8_E4M3FN", [0, 0x80, 0x38, 1, 0x81], 5, 2),
        ("FLOAT8_E5M2", [0, 0x80, 0x3C, 1, 0x81], 5, 2),
        ("FLOAT16", [0, 0, 0, 0x80, 0, 0x3C, 1, 0, 1, 0x80], 5, 2),
    ],
)
def test_zeros_of_types_that_numpy_lacks(write: Write, dtype: str, raw: list[int], values: int, zeros: int) -> None:
    packed = np.array(raw, np.uint8)
    scales = [0.5] if "INT" in dtype else []
    found = audit(write(layer(T("w", [5], dtype, packed, scales))))
    assert [(t.values, t.zeros, t.bytes, t.dtype) for t in found.tensors] == [(values, zeros, len(raw), dtype.lower())]


@pytest.mark.parametrize(("point", "zeros"), [(-1, 1), (-8, 1), (7, 1), (1, 1), (0, 0)])
def test_four_bits_have_a_sign(write: Write, point: int, zeros: int) -> None:
    packed = np.array([0x1F, 0x78], np.uint8)  # -1, 1 | -8, 7
    found = audit(write(layer(T("w", [4], "INT4", packed, [0.5], [point]))))
    assert found.tensors[0].zeros == zeros


@pytest.mark.parametrize(("point", "zeros"), [(-2, 1), (-1, 2), (0, 3), (1, 2), (2, 0), (3, 0)])
def test_two_bits_have_a_sign(write: Write, point: int, zeros: int) -> None:
    packed = np.array([0b00_11_01_10, 0b01_11_00_00], np.uint8)  # -2, 1, -1, 0 | 0, 0, -1, 1
    found = audit(write(layer(T("w", [8], "INT2", packed, [0.5], [point]))))
    assert found.tensors[0].zeros == zeros


@pytest.mark.parametrize(("point", "zeros"), [(15, 1), (1, 1), (8, 1), (7, 1), (0, 0)])
def test_four_bits_without_a_sign(write: Write, point: int, zeros: int) -> None:
    found = audit(write(layer(T("w", [4], "UINT4", np.array([0x1F, 0x78], np.uint8), [0.5], [point]))))
    assert found.tensors[0].zeros == zeros


def test_zeros_that_a_sparse_encoding_leaves_out_are_counted(write: Write) -> None:
    path = write(layer(T("w", [3, 4], values=np.array([1, 0, 3], np.float32), sparse=True)))
    (found,) = audit(path).tensors
    assert (found.values, found.zeros, found.bytes, found.sparse_encoded) == (12, 10, 12, True)
    assert is_sparse_encoded(path)
    dense = write(two_layers())
    assert not is_sparse_encoded(dense)
    assert not audit(dense).tensors[0].sparse_encoded


def test_a_sparse_tensor_of_int8_has_one_zero_point_or_is_broken(write: Write) -> None:
    values = np.array([3, 1, 5], np.int8)
    same = T("w", [3, 4], "INT8", values, [0.1] * 3, [3] * 3, sparse=True)
    assert audit(write(layer(same, "INT8", [1.0]))).tensors[0].zeros == 10
    with pytest.raises(UserError, match="not a whole TFLite model"):
        audit(write(layer(replace(same, zero_points=[1, 2, 3]), "INT8", [1.0])))


@pytest.mark.parametrize(
    "weights",
    [
        T("w", [3, 4], values=np.zeros(11, np.float32)),  # too few
        T("w", [3, 4], values=np.zeros(13, np.float32), sparse=True),  # too many
        T("w", [3, 4], values=np.zeros(13, np.float32)),
    ],
)
def test_as_many_values_as_the_shape_says(write: Write, weights: T) -> None:
    if len(weights.values) == 13 and not weights.sparse:  # type: ignore[arg-type]
        assert audit(write(layer(weights))).values == 12  # what lies behind the last one is none
        return
    with pytest.raises(UserError, match="not a whole TFLite model"):
        audit(write(layer(weights)))


def test_as_many_values_as_there_are_in_a_sparse_tensor_that_leaves_none_out(write: Write) -> None:
    assert audit(write(layer(T("w", [3, 4], values=np.ones(12, np.float32), sparse=True)))).zeros == 0


# --- Weights and operators -------------------------------------------------------------------------------------


def test_a_weight_is_of_floats_or_has_a_scale(write: Write) -> None:
    ones = np.ones(3, np.int32)
    tensors = [
        T("in", [1, 4], "INT8", scales=[1.0]),
        T("kernel", [3, 4], "INT8", KERNEL, [0.5]),
        T("bias", [3], "INT32", ones, [0.25]),
        T("index", [3], "INT32", ones),
        T("half", [3], "FLOAT16", np.ones(3, np.float16)),
        T("out", [1, 3], "INT8", scales=[1.0]),
    ]
    found = audit(write(G(tensors, [Op("CONV_2D", [0, 1, 2, 3, 4], [5], options("Conv2DOptions"))], [0], [5])))
    assert [t.name for t in found.tensors] == ["kernel", "bias", "half"]
    assert [t.dtype for t in found.tensors] == ["int8", "int32", "float16"]
    assert found.operators[0].weights == "int8"  # of the first


def test_a_weight_may_have_its_scales_elsewhere(write: Write) -> None:
    (found,) = audit(write(layer(T("w", [4], "INT4", np.array([0x10, 0x0F], np.uint8), blockwise=True)))).tensors
    assert (found.granularity, found.values, found.zeros) == ("blockwise", 4, 2)


@pytest.mark.parametrize("ways", [["DEQUANTIZE"], ["DENSIFY"], ["DENSIFY", "DEQUANTIZE"]])
def test_weights_that_are_unpacked_on_the_way_are_those_of_the_operator(write: Write, ways: list[str]) -> None:
    half = "DEQUANTIZE" in ways
    values = np.array([1, 0], np.float16 if half else np.float32)
    tensors = [
        T("in", [1, 4]),
        T("a/dense/MatMul", [3, 4], "FLOAT16" if half else "FLOAT32", values, sparse="DENSIFY" in ways),
        *(T(f"unpacked{k}", [3, 4]) for k in range(len(ways))),
        T("x/dense/out", [1, 3]),
    ]
    if not tensors[1].sparse:
        tensors[1].values = np.array([1, *[0] * 11], np.float16)
    last = len(tensors) - 1
    operators = [Op(way, [1 + k], [2 + k]) for k, way in enumerate(ways)]
    operators.append(Op("FULLY_CONNECTED", [0, last - 1, -1], [last], options("FullyConnectedOptions")))
    found = audit(write(G(tensors, operators, [0], [last])))
    assert [(o.name, o.layer, o.computes, o.weights) for o in found.operators] == [
        ("FULLY_CONNECTED", "dense", "float", "float16" if half else "float32")
    ]
    assert [(t.layer, t.values, t.zeros) for t in found.tensors] == [("dense", 12, 11)]


def test_what_is_unpacked_without_being_a_weight_is_an_operator(write: Write) -> None:
    tensors = [T("in", [1, 4], "INT8", scales=[1.0]), T("out", [1, 4])]
    found = audit(write(G(tensors, [Op("DEQUANTIZE", [0], [1])], [0], [1])))
    assert [(o.name, o.computes) for o in found.operators] == [("DEQUANTIZE", "nothing")]


def test_a_tensor_that_two_operators_take_is_one_weight(write: Write) -> None:
    tensors = [T("in", [1, 4]), T("w", [4, 4], values=np.eye(4, dtype=np.float32)), T("a", [1, 4]), T("b", [1, 4])]
    operators = [
        Op("FULLY_CONNECTED", [0, 1, -1], [2], options("FullyConnectedOptions")),
        Op("FULLY_CONNECTED", [2, 1, -1], [3], options("FullyConnectedOptions")),
    ]
    found = audit(write(G(tensors, operators, [0], [3])))
    assert [(t.name, t.zeros, t.stored_as) for t in found.tensors] == [("w", 12, None)]
    assert [o.weights for o in found.operators] == ["float32"] * 2


INT8: dict[str, Any] = {"activations": "INT8", "scales": [1.0]}


@pytest.mark.parametrize(
    ("weights", "activations", "custom", "computes"),
    [
        (T("w", [3, 4], values=np.ones(12, np.float32)), {}, False, "float"),
        (T("w", [3, 4], "INT8", KERNEL, [0.5]), {}, False, "hybrid"),
        (T("w", [3, 4], "INT8", KERNEL, [0.5]), INT8, False, "integer"),
        (T("w", [3, 4], values=np.ones(12, np.float32)), INT8, False, "integer"),
        (T("w", [3, 4], "INT8", KERNEL, [0.5]), INT8, True, "unknown"),
        (T("w", [3, 4], "INT8", KERNEL, [0.5]), {}, True, "hybrid"),
        (T("w", [3, 4], values=np.ones(12, np.float32)), {}, True, "float"),
    ],
)
def test_what_an_operator_computes_in(
    write: Write, weights: T, activations: dict[str, Any], custom: bool, computes: str
) -> None:
    graph = layer(weights, **activations)
    if custom:
        graph.operators = [Op("mine", [0, 1, -1], [2], custom=True)]
    (found,) = audit(write(graph)).operators
    assert (found.computes, found.custom) == (computes, custom)
    assert found.name == ("mine" if custom else "FULLY_CONNECTED")


@pytest.mark.parametrize(("inputs", "outputs"), [("FLOAT32", "INT8"), ("INT8", "FLOAT32")])
def test_one_activation_in_float_is_enough(write: Write, inputs: str, outputs: str) -> None:
    tensors = [T("in", [1, 4], inputs, scales=[1.0]), T("out", [1, 4], outputs, scales=[1.0])]
    found = audit(write(G(tensors, [Op("LOGISTIC", [0], [1])], [0], [1])))
    assert found.operators[0].computes == "float"
    assert (found.input_dtype, found.output_dtype) == (inputs.lower(), outputs.lower())


def test_a_result_that_is_left_out_and_one_that_is_the_first_tensor(write: Write) -> None:
    tensors = [T("x/dense/out", [1, 4]), T("in", [1, 4], "INT8", scales=[1.0])]
    (found,) = audit(write(G(tensors, [Op("LOGISTIC", [1], [0, -1])], [1], [0]))).operators
    assert (found.layer, found.computes) == ("dense", "float")


def several() -> list[G]:
    """Two subgraphs. They share a kernel; the second has another one, sparse, and of its own types, and a softmax."""
    kernel = {"values": np.array([1, *[0] * 11], np.float32), "buffer": 1}
    first, second = layer(T("a", [3, 4], **kernel), "INT8", [1.0]), layer(T("a", [3, 4], **kernel))
    second.tensors = [*second.tensors, T("b", [4, 3], values=np.ones(2, np.float32), sparse=True), T("end", [1, 4])]
    second.tensors = [*second.tensors, T("sure", [1, 4])]
    more = Op("FULLY_CONNECTED", [2, 3, -1], [4], options("FullyConnectedOptions"))
    second.operators, second.outputs = [*second.operators, more, Op("SOFTMAX", [4], [5])], [5]
    return [first, second]


def test_of_several_subgraphs_the_first_is_the_model_and_what_they_share_counts_once(write: Write) -> None:
    path = write(*several())
    found = audit(path)
    assert [(t.name, t.values, t.zeros, t.stored_as) for t in found.tensors] == [
        ("a", 12, 11, None),
        ("b", 12, 10, None),
    ]
    assert (found.input_dtype, found.output_dtype) == ("int8", "int8")
    assert len(found.operators) == 4
    assert reads(path).logits
    assert not is_sparse_encoded(path)


def test_operators_without_names_are_numbered(write: Write) -> None:
    tensors = [T(None, [1]), T(None, [1]), T(None, [1])]
    found = audit(write(G(tensors, [Op("LOGISTIC", [0], [1]), Op("TANH", [1], [2])], [0], [2])))
    assert [o.layer for o in found.operators] == ["#0 LOGISTIC", "#1 TANH"]


def test_signatures_inputs_and_outputs_are_listed(write: Write) -> None:
    graph = layer(T("w", [3, 4], values=np.ones(12, np.float32)))
    found = audit(write(graph, signatures=[("serve", 0, {"x": 0}, {"y": 2})]))
    assert found.signatures == ("serve",)
    assert [(p.name, p.tensor, p.shape) for p in (*found.inputs, *found.outputs)] == [
        ("in", 0, (1, 4)),
        ("out", 2, (1, 3)),
    ]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model/block/conv/Conv2D", "block/conv"),
        ("model/conv/BiasAdd;model/other/Conv2D;model/conv/x", "other"),
        ("model/a/Relu;model/b/BiasAdd", "a"),
        ("conv/Conv2D", "conv"),
        ("only", "only"),
        ("", ""),
        (";;model/a/x", "a"),
        ("torch.nn.Net_net/torch.nn.conv.Conv2d_stem", "Net_net/Conv2d_stem"),
    ],
)
def test_the_layer_that_a_name_tells(name: str, layer: str) -> None:
    assert layer_of(name) == layer


def test_a_name_with_a_path_tells_more_than_one_without(write: Write) -> None:
    graph = layer(T("arith.constant", [3, 4], values=np.ones(12, np.float32)))
    graph.tensors[2].name = "model/dense/MatMul"
    assert audit(write(graph)).operators[0].layer == "dense"
    graph.tensors[2].name = "other"
    assert audit(write(graph)).operators[0].layer == "arith.constant"


@pytest.mark.parametrize(
    ("operators", "probabilities"),
    [
        (["SOFTMAX"], True),
        (["SOFTMAX", "RESHAPE", "DEQUANTIZE"], True),
        (["SOFTMAX", "TANH"], False),
        (["SOFTMAX", "SLICE"], False),  # of some classes only
        (["RESHAPE"], False),
        (["TANH", "RESHAPE"], False),
        ([], False),
    ],
)
def test_probabilities_come_from_a_softmax(write: Write, operators: list[str], probabilities: bool) -> None:
    tensors = [T(f"t{k}", [1, 4]) for k in range(len(operators) + 1)]
    chain = [Op(name, [k], [k + 1]) for k, name in enumerate(operators)]
    assert reads(write(G(tensors, chain, [0], [len(operators)]))).logits is not probabilities


@pytest.mark.parametrize(("outputs", "probabilities"), [([3, 0], True), ([0, 3], False)])
def test_probabilities_are_the_first_output_whatever_a_reshape_takes_beside_them(
    write: Write, outputs: list[int], probabilities: bool
) -> None:
    shape = T("shape", [2], "INT32", values=np.array([4, 1], np.int32))
    tensors = [T("in", [1, 4]), T("sure", [1, 4]), shape, T("out", [4, 1])]
    graph = G(tensors, [Op("SOFTMAX", [0], [1]), Op("RESHAPE", [1, 2], [3])], [0], outputs)
    assert reads(write(graph)).logits is not probabilities


# --- Bytes -----------------------------------------------------------------------------------------------------


def test_gzip_is_gzips_own_and_that_of_the_parts_is_attributed(write: Write) -> None:
    path = write(two_layers())
    content = path.read_bytes()
    found = audit(path, attribute=True, compressors=("gzip6", "gzip9", "xz"))
    assert found.tflite_bytes == len(content)
    assert found.gzip_bytes == len(gzip.compress(content, 6, mtime=0))
    assert found.compressors == {
        "gzip6": found.gzip_bytes,
        "gzip9": len(gzip.compress(content, 9, mtime=0)),
        "xz": len(lzma.compress(content, preset=6)),
    }
    values = np.array([0, 1, 0, 2, 0, 3, 4, 5], np.float32)
    first = found.tensors[0]
    assert first.gzip_bytes == len(gzip.compress(values.tobytes(), 6, mtime=0))
    assert first.entropy_bits == pytest.approx(entropy_bits(values, values == 0))
    assert found.layers[0].gzip_bytes == sum(t.gzip_bytes or 0 for t in found.tensors[:2])
    plain = audit(path)
    assert [t.gzip_bytes for t in plain.tensors] == [t.entropy_bits for t in plain.tensors] == [None] * 3
    assert plain.compressors == {}


def test_a_layer_of_which_one_part_is_not_compressed_has_no_bytes() -> None:
    known = Tensor("a", "x", "float32", (1,), "none", False, 1, 0, 4, gzip_bytes=20)
    unknown = replace(known, name="b", gzip_bytes=None)
    assert Audit(1, 1, 0.0, "", "", (known, known), ()).layers[0].gzip_bytes == 40
    assert Audit(1, 1, 0.0, "", "", (known, unknown), ()).layers[0].gzip_bytes is None


def test_bytes_that_several_chunks_hold() -> None:
    rng = np.random.default_rng(0)
    values = rng.choice(np.array([0, 1, 2, 255], np.uint8), 2 * CHUNK + 17, p=[0.5, 0.25, 0.125, 0.125])
    assert gzip_bytes(values) == len(gzip.compress(values.tobytes(), 6, mtime=0))
    assert gzip_bytes(values[:CHUNK], 1) == len(gzip.compress(values[:CHUNK].tobytes(), 1, mtime=0))
    # a bit for whether it is 0, and 1.5 for which of the others it is
    assert entropy_bits(values, values == 0) / len(values) == pytest.approx(1 + 0.5 * 1.5, rel=1e-3)


def test_each_compressor_is_as_thorough_as_its_name_says() -> None:
    letters = np.random.default_rng(0).integers(0, 3, 100_000).astype(np.uint8).tobytes()
    by_level = [len(gzip.compress(letters, level, mtime=0)) for level in (8, 9)]
    assert COMPRESSORS["gzip9"](letters) == by_level[1] != by_level[0]
    by_preset = [len(lzma.compress(letters, preset=preset)) for preset in (5, 6)]
    assert COMPRESSORS["xz"](letters) == by_preset[1] != by_preset[0]


def test_zstd_is_that_of_its_command_at_19() -> None:
    zstandard = pytest.importorskip("zstandard")
    pattern = np.random.default_rng(0).integers(0, 3, 300_000).astype(np.uint8).tobytes()
    sizes = [len(zstandard.ZstdCompressor(level=level).compress(pattern)) for level in (18, 19, 20)]
    assert COMPRESSORS["zstd"](pattern) == sizes[1]


def test_entropy_of_worked_examples() -> None:
    assert entropy_bits(np.array([1, 2, 3, 4], np.int8), np.zeros(4, bool)) == pytest.approx(4 * 2)
    assert entropy_bits(np.zeros(8, np.int8), np.ones(8, bool)) == 0
    quarter = np.array([0, 1, 1, 1] * 10, np.int8)  # one in four is zero, the rest is always 1
    assert entropy_bits(quarter, quarter == 0) == pytest.approx(-40 * (0.25 * math.log2(0.25) + 0.75 * math.log2(0.75)))
    # of 50 that are not zero, the two upper bytes of 1 (3f80) and 2 (4000) tell each a bit
    floats = np.array([0, 0, 1, 2] * 25, np.float32)
    assert entropy_bits(floats, floats == 0) == pytest.approx(100 + 2 * 50)


def test_compressors_that_there_are_not(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(two_layers())
    with pytest.raises(UserError, match=r"^audit\.compressors=rar: takes of gzip6, gzip9, xz, zstd$"):
        audit(path, compressors=("gzip6", "rar", "zip"))
    monkeypatch.setattr("src.measure.audit.find_spec", lambda name: None)
    assert audit(path, compressors=("xz",)).compressors
    with pytest.raises(UserError, match="zstd: takes the package zstandard"):
        audit(path, compressors=("zstd",))


# --- Asked for and found ---------------------------------------------------------------------------------------

FLOAT = Operator("CONV_2D", "a", "float", "float32")
WEIGHTLESS = Operator("SOFTMAX", "b", "float", None)
HYBRID = Operator("CONV_2D", "c", "hybrid", "int8")
INTEGER = Operator("CONV_2D", "d", "integer", "int8")
NOTHING = Operator("PAD", "e", "nothing", None)
OPERATORS = (FLOAT, WEIGHTLESS, HYBRID, INTEGER, NOTHING)


def artifact(
    sparsity: float | None = 0.0, operators: Sequence[Operator] = (), sparse: bool = False, **more: Any
) -> Audit:
    tensor = Tensor("w", "a", "float32", (4,), "none", sparse, 4, 0, 16)
    types = {"input_dtype": "float32", "output_dtype": "float32"} | more
    return Audit(100, 50, sparsity, tensors=(tensor,), operators=tuple(operators), **types)


@pytest.mark.parametrize(
    ("asked", "floats"),
    [
        (Asked(), ()),
        (Asked("float16"), ()),
        (Asked("float16", "int8"), ()),
        (Asked("int8", "float32"), (FLOAT,)),
        (Asked("int8", "int8"), (FLOAT, WEIGHTLESS, HYBRID)),
    ],
)
def test_operators_left_in_float(asked: Asked, floats: tuple[Operator, ...]) -> None:
    assert left_in_float(artifact(operators=OPERATORS), asked) == floats


def test_nothing_asked_for_is_float_without_zeros_and_no_operator_is_custom() -> None:
    assert Asked() == Asked("float32", "float32", pruned=False)
    assert not FLOAT.custom


def test_differences_are_told_where_there_are_any() -> None:
    dense = "Pruning can't make it faster on this runtime: "
    assert differences(artifact(), Asked()) == ()
    assert differences(artifact(0.5, sparse=True), Asked(pruned=True)) == ()
    (only,) = differences(artifact(0.6), Asked(pruned=True))
    assert only.startswith(dense)
    assert differences(artifact(operators=OPERATORS), Asked("int8")) == (
        "1 of 5 operators stayed in float: CONV_2D (a).",
    )
    four, five = (differences(artifact(operators=[FLOAT] * n), Asked("int8"))[0] for n in (4, 5))
    assert four == "4 of 4 operators stayed in float: " + ", ".join(["CONV_2D (a)"] * 4) + "."
    assert five == "5 of 5 operators stayed in float: " + ", ".join(["CONV_2D (a)"] * 4) + ", …."
    drawing = replace(NOTHING, name="RANDOM_UNIFORM")
    assert differences(artifact(operators=[drawing, drawing, NOTHING]), Asked()) == (
        "Its predictions are random: it draws random numbers in every inference (RANDOM_UNIFORM).",
    )


@pytest.mark.parametrize(
    ("found", "asked", "said"),
    [
        (("int8", "int8"), Asked("int8", "int8"), ()),
        (("float32", "int8"), Asked("int8", "int8"), ("It takes float32 and gives int8, where int8 was asked for.",)),
        (("int8", "float32"), Asked("int8", "int8"), ("It takes int8 and gives float32, where int8 was asked for.",)),
        (("int8", "int8"), Asked("int8", "float32"), ()),
        (("uint8", "int8"), Asked("int8", "int8"), ("It takes uint8 and gives int8, where int8 was asked for.",)),
        (("int8", "uint8"), Asked("int8", "int8"), ("It takes int8 and gives uint8, where int8 was asked for.",)),
    ],
)
def test_inputs_and_outputs_are_of_the_type_asked_for(
    found: tuple[str, str], asked: Asked, said: tuple[str, ...]
) -> None:
    assert differences(artifact(input_dtype=found[0], output_dtype=found[1]), asked) == said
