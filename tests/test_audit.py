"""What the audit finds is what was put in: counted from the Keras weights, and against gzip itself."""

import gzip
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from artifacts import PRUNED_SHARE, SCHEMES, Tiny

from src.measure.audit import audit
from src.measure.audit.asked import differences, left_in_float
from src.measure.audit.compressors import entropy_bits
from src.measure.probe import Asked
from src.measure.tflite import reads
from src.settings.check import UserError

LAYERS = ("conv2d", "depthwise_conv2d", "conv2d_1", "dense", "dense_1")
# Kernel and bias of each: 3*3*3*16+16, 3*3*16+16, 3*3*16*32+32, 6*6*32*64+64, 64*5+5
VALUES = 448 + 160 + 4640 + 73_792 + 325


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_weight_of_the_network_counts_once_in_every_scheme(tiny: Tiny, scheme: str) -> None:
    found = audit(tiny.files[scheme])
    assert found.values == VALUES
    assert tuple(layer.name.split("/")[-1] for layer in found.layers) == LAYERS
    assert found.tflite_bytes == tiny.files[scheme].stat().st_size
    assert found.gzip_bytes == len(gzip.compress(tiny.files[scheme].read_bytes(), 6, mtime=0))


@pytest.mark.parametrize("name", ["pruned-none", "sparse-none", "sparse-f16"])
def test_zeros_are_those_of_the_pruned_kernel_however_they_are_stored(tiny: Tiny, name: str) -> None:
    found = audit(tiny.files[name])
    kernel = next(t for t in found.tensors if t.values == tiny.kernel.size)
    assert kernel.zeros == np.count_nonzero(tiny.kernel == 0)
    assert kernel.shape == tiny.kernel.T.shape  # TFLite stores dense kernels [out, in]
    assert kernel.sparse_encoded == name.startswith("sparse")
    assert found.sparsity == pytest.approx(PRUNED_SHARE * tiny.kernel.size / VALUES, abs=1e-3)


def test_a_quantized_zero_is_the_zero_point_and_rounding_adds_some(tiny: Tiny) -> None:
    dense, pruned = audit(tiny.files["fiq"]), audit(tiny.files["pruned-fiq"])
    assert 0 < dense.sparsity < 0.05
    assert pruned.sparsity > PRUNED_SHARE * tiny.kernel.size / VALUES
    assert pruned.gzip_bytes < 0.5 * dense.gzip_bytes


def test_types_and_granularity_of_each_scheme(tiny: Tiny) -> None:
    found = {
        scheme: {t.layer.split("/")[-1]: t for t in reversed(audit(tiny.files[scheme]).tensors)} for scheme in SCHEMES
    }
    assert {t.dtype for t in found["none"].values()} == {"float32"}
    assert {t.dtype for t in found["f16"].values()} == {"float16"}
    assert {t.dtype for t in found["fiq"].values()} == {"int8"}
    assert {t.granularity for t in found["fiq"].values()} == {"per-channel"}
    assert {t.granularity for t in found["none"].values()} == {"none"}
    # The converter leaves kernels of fewer than 1,024 values in float under dynamic range quantization.
    assert {name: t.dtype for name, t in found["drq"].items()} == {
        "conv2d": "float32",
        "depthwise_conv2d": "float32",
        "conv2d_1": "int8",
        "dense": "int8",
        "dense_1": "float32",
    }


def test_input_and_output_types(tiny: Tiny) -> None:
    types = {name: (found.input_dtype, found.output_dtype) for name in SCHEMES if (found := audit(tiny.files[name]))}
    assert types == {**dict.fromkeys(("none", "drq", "f16"), ("float32", "float32")), "fiq": ("int8", "int8")}


def test_operators_compute_in_float_in_integers_or_both(tiny: Tiny) -> None:
    def computes(scheme: str) -> dict[str, str]:
        return {f"{op.layer.split('/')[-1]}": op.computes for op in audit(tiny.files[scheme]).operators}

    assert {computes("none")[layer] for layer in LAYERS} == {"float"}
    assert {computes("f16")[layer] for layer in LAYERS} == {"float"}
    assert {computes("fiq")[layer] for layer in LAYERS} == {"integer"}
    assert computes("drq")["dense"] == "hybrid"
    assert computes("drq")["conv2d"] == "float"


def test_left_in_float_is_measured_against_what_was_asked_for(tiny: Tiny) -> None:
    drq = audit(tiny.files["drq"])
    layers = {op.layer.split("/")[-1] for op in left_in_float(drq, Asked("int8", "float32"))}
    assert layers == {"conv2d", "depthwise_conv2d", "dense_1"}  # not the softmax: it has no weights
    assert len(left_in_float(drq, Asked("int8", "int8"))) > len(layers)  # hybrid operators take and give float
    assert left_in_float(audit(tiny.files["fiq"]), Asked("int8", "int8")) == ()
    assert left_in_float(audit(tiny.files["f16"]), Asked("float16")) == ()


def test_differences_are_sentences_and_none_where_all_is_as_asked(tiny: Tiny) -> None:
    assert differences(audit(tiny.files["none"]), Asked()) == ()
    assert differences(audit(tiny.files["fiq"]), Asked("int8", "int8")) == ()
    asked = Asked("int8", "int8", pruned=True)
    told = differences(audit(tiny.files["drq"]), asked)
    assert [sentence.split()[0] for sentence in told] == ["7", "It", "Pruning"]
    assert all(sentence.endswith(".") for sentence in told)
    assert "dense kernels multiply zeros" in told[-1]
    # Stored sparsely, the sentence about dense kernels would be wrong.
    assert not differences(audit(tiny.files["sparse-none"]), Asked(pruned=True))


def test_gzip_and_entropy_are_attributed_to_tensors_where_asked_for(tiny: Tiny) -> None:
    without, found = audit(tiny.files["pruned-fiq"]), audit(tiny.files["pruned-fiq"], attribute=True)
    assert all(t.gzip_bytes is None and t.entropy_bits is None for t in without.tensors)
    assert found.gzip_bytes == without.gzip_bytes
    attributed = sum(t.gzip_bytes or 0 for t in found.tensors)
    assert 0.8 * found.gzip_bytes < attributed < found.gzip_bytes
    for tensor in found.tensors:
        if tensor.bytes > 1000:  # below, the 20 bytes around a gzip stream are a large share
            assert (tensor.entropy_bits or 0) / 8 < 1.02 * (tensor.gzip_bytes or 0)
    assert sum(layer.gzip_bytes or 0 for layer in found.layers) == attributed


def test_entropy_of_worked_examples() -> None:
    fair = np.array([0, 1] * 50, np.int8)
    assert entropy_bits(fair, fair == 0) == pytest.approx(100)
    uniform = np.arange(256, dtype=np.uint8).repeat(4)  # 8 bits each
    assert entropy_bits(uniform, uniform == 0) == pytest.approx(8 * 1024)
    constant = np.full(64, 1.5, np.float32)
    assert entropy_bits(constant, constant == 0) == 0
    # half zeros, the rest 1.0 or 2.0: a bit for the flag; of 50 nonzero values, the two upper bytes (3f80, 4000) differ
    # in step with each other, which a code without memory can't know: 2 bits
    floats = np.array([0, 0, 1, 2] * 25, np.float32)
    assert entropy_bits(floats, floats == 0) == pytest.approx(100 + 2 * 50)


def test_other_compressors_on_request(tiny: Tiny) -> None:
    found = audit(tiny.files["drq"], compressors=("gzip6", "gzip9", "xz")).compressors
    assert found["gzip6"] == audit(tiny.files["drq"]).gzip_bytes
    assert 0.9 < found["gzip9"] / found["gzip6"] <= 1
    assert 0.5 < found["xz"] / found["gzip6"] < 1.1
    with pytest.raises(UserError, match=r"audit\.compressors=rar: takes of gzip6, gzip9, xz, zstd"):
        audit(tiny.files["drq"], compressors=("rar",))


def test_the_audit_is_plain_data(tiny: Tiny) -> None:
    assert json.loads(json.dumps(asdict(audit(tiny.files["sparse-f16"], attribute=True))))["tensors"]


def test_probabilities_are_told_from_logits_by_the_graph(tiny: Tiny) -> None:
    assert all(not reads(tiny.files[scheme]).logits for scheme in (*SCHEMES, "uint8"))
    assert all(reads(tiny.files[name]).logits for name in ("logits", "logits-fiq", "fixed"))


def test_a_file_that_crashes_the_interpreter_can_be_audited(tiny: Tiny) -> None:
    assert audit(tiny.files["crash"]).values == VALUES


def test_neither_audit_nor_benchmark_imports_tensorflow() -> None:
    program = (
        "import sys, src.measure.audit, src.measure.latency, src.measure.accuracy; "
        "print([m for m in sys.modules if 'tensorflow' in m])"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
