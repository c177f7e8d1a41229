"""`.tflite` files of any origin, and files that are none: what the audit says of them, and in how few words."""

import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
from conftest import ROOT, Place
from foreign import G, Op, T, chain, counting, dense, lookup, tflite
from rich.console import Console

from src.audit import notes, run, show
from src.cli import files as artifact_files
from src.cli.files import names
from src.console.terminal import shown
from src.measure.audit import audit
from src.measure.audit.contents import Audit
from src.measure.audit.weights import layer_of
from src.measure.latency.workload import workload
from src.measure.tflite import is_sparse_encoded, reads
from src.results.report.numbers import digits
from src.settings.check import UserError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: bytes, name: str = "m") -> Path:
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        return path

    return write


# --- What is in them -------------------------------------------------------------------------------------------


def test_tensors_without_names_are_audited_by_the_operators_they_are_for(write: Write) -> None:
    found = audit(write(chain([(None, None), (None, None)])))
    assert [layer.name for layer in found.layers] == ["#0 FULLY_CONNECTED", "#1 FULLY_CONNECTED"]
    assert found.values == 32


def test_a_file_without_inputs_or_weights_has_no_sparsity(write: Write) -> None:
    shape = T("shape", [2], "INT32", values=np.array([1, 4], np.int32))
    found = audit(write(tflite(G([shape, T("out", [2], "INT32")], [Op("ABS", [0], [1])], [], [1]))))
    assert (found.input_dtype, found.output_dtype) == ("nothing", "int32")
    assert found.sparsity is None


def test_a_custom_operator_goes_by_its_name_and_nothing_is_claimed_of_it(write: Write) -> None:
    ports = [T("in", [1, 4], "UINT8", scales=[1]), T("out", [1, 4], "UINT8", scales=[1])]
    found = audit(write(tflite(G(ports, [Op("edgetpu-custom-op", [0], [1], custom=True)], [0], [1]))))
    assert [(op.name, op.computes, op.custom) for op in found.operators] == [("edgetpu-custom-op", "unknown", True)]
    assert found.sparsity is None
    assert "1 edgetpu-custom-op" in "\n".join(screen(found, 80))


def test_a_custom_operator_on_floats_computes_in_float(write: Write) -> None:
    found = audit(write(tflite(G([T("in", [1]), T("out", [1])], [Op("FlexErf", [0], [1], custom=True)], [0], [1]))))
    assert found.operators[0].computes == "float"


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("model/block/conv/Conv2D", "block/conv"),
        ("model/act/Relu;model/conv/BiasAdd;model/conv/Conv2D", "conv"),
        ("dense/MatMul", "dense"),
        # litert-torch: class and attribute of every module, the last of which is the layer
        ("net.Net/torch.nn.modules.conv.Conv2d_stem;", "Net/Conv2d_stem"),
        ("net.Net/torch.nn.modules.conv.Conv2d_head;1", "Net/Conv2d_head"),
        (
            "__main__.Net/torch.nn.modules.container.Sequential_blocks/torch.nn.modules.conv.Conv2d_0;",
            "Net/Sequential_blocks/Conv2d_0",
        ),
        # through ONNX, and by the names of a state dict
        ("/layer1/layer1.0/conv1/Conv_output_0", "layer1/layer1.0/conv1"),
        ("features.0.weight", "features.0.weight"),
        ("", ""),
        (";", ""),
    ],
)
def test_a_layer_is_told_by_a_tensors_name(tensor: str, layer: str) -> None:
    assert layer_of(tensor) == layer


def test_layers_that_a_pytorch_exporter_named_stay_apart(write: Write) -> None:
    modules = [f"net.Net/torch.nn.modules.linear.Linear_{name};" for name in ("first", "second")]
    found = audit(write(chain([(f"arith.constant{i}", module) for i, module in enumerate(modules)])))
    assert [layer.name for layer in found.layers] == ["Net/Linear_first", "Net/Linear_second"]


def test_equal_weights_are_each_layers_own_and_stored_once(write: Write) -> None:
    found = audit(write(chain([("a", "x"), ("b", "y"), ("c", "z")], same_buffer=True)))
    assert [(layer.name, layer.values, layer.zeros, layer.bytes) for layer in found.layers] == [
        (name, 16, 12, 64) for name in "abc"
    ]
    assert [tensor.stored_as for tensor in found.tensors] == [None, "a", "a"]
    assert (found.values, found.weight_bytes) == (48, 64)
    assert found.sparsity == 0.75


def test_what_signatures_have_in_common_counts_once(write: Write) -> None:
    kernel = np.eye(4, dtype=np.float32)

    def graph(name: str) -> G:
        tensors = [T("in", [1, 4]), T(name, [4, 4], values=kernel, buffer=1), T("out", [1, 4])]
        return G(tensors, [Op("FULLY_CONNECTED", [0, 1, -1], [2], foreign.options("FullyConnectedOptions"))], [0], [2])

    signatures = [("encode", 0, {"x": 0}, {"y": 2}), ("decode", 1, {"x": 0}, {"y": 2})]
    found = audit(write(tflite(graph("a"), graph("b"), signatures=signatures)))
    assert (found.values, found.weight_bytes, found.signatures) == (16, 64, ("encode", "decode"))


@pytest.mark.parametrize(
    "name", ["TILE", "GATHER_ND", "MIRROR_PAD", "SELECT_V2", "REVERSE_V2", "RESIZE_NEAREST_NEIGHBOR", "STABLEHLO_PAD"]
)
def test_operators_that_only_move_compute_nothing_in_float(write: Write, name: str) -> None:
    found = audit(write(tflite(G([T("in", [1]), T("out", [1])], [Op(name, [0], [1])], [0], [1]))))
    assert found.operators[0].computes == "nothing"


def test_of_a_loop_what_it_runs_computes_and_not_the_loop(write: Write) -> None:
    computes = {op.name: op.computes for op in audit(write(counting(3))).operators}
    assert computes == {"WHILE": "nothing", "LESS": "float", "ADD": "float"}


def test_weights_behind_the_flatbuffer_are_read_where_they_lie(write: Write) -> None:
    inside, behind = audit(write(dense("x", "w", "y"))), audit(write(dense("x", "w", "y", behind=True)))
    assert (behind.values, behind.zeros, behind.weight_bytes) == (12, 1, 48)
    assert inside.tensors == behind.tensors


def test_a_zero_is_the_zero_point_of_its_channel(write: Write) -> None:
    kernel = np.array([[1, 1, 0, 1], [2, 2, 2, 0], [0, 0, 0, 0]], np.int8)
    tensors = [
        T("in", [1, 4], "INT8", scales=[1]),
        T("w", [3, 4], "INT8", values=kernel, scales=[0.1, 0.2, 0.3], zero_points=[1, 2, 3]),
        T("out", [1, 3], "INT8", scales=[1]),
    ]
    graph = G(tensors, [Op("FULLY_CONNECTED", [0, 1, -1], [2], foreign.options("FullyConnectedOptions"))], [0], [2])
    found = audit(write(tflite(graph)))
    assert (found.tensors[0].zeros, found.tensors[0].granularity) == (6, "per-channel")


# --- Files that are none, or broken ----------------------------------------------------------------------------

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (POINTER, "is a Git LFS pointer; `git lfs pull` fetches the file that it stands for"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page or XML"),
        (b"PK\x03\x04\x14\0\0\0", "is a zip archive"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"\x1f\x8b\x08\0", "is compressed with gzip"),
        ("Größe: 3\n".encode(), "is text"),
        (bytes(range(64)), "is not a TFLite model (no TFL3 at byte 4)"),
    ],
)
def test_a_file_that_is_something_else_is_told_as_what_it_is(write: Write, content: bytes, said: str) -> None:
    path = write(content)
    for read in (audit, reads, is_sparse_encoded, workload):
        with pytest.raises(UserError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: {said}")
        assert str(error.value).endswith("; takes .tflite files")


def test_what_is_no_file_is_told_as_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opened, it would wait for a writer
    (tmp_path / "away").symlink_to(tmp_path / "gone")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    said = {
        "": "is a folder",
        "none.tflite": "no such file",
        "pipe": "is a pipe, which can be read only once",
        "away": "no such file",
        "round": "can't be read (Too many levels of symbolic links)",
        "x" * 300: "can't be read (File name too long)",
        "nul\0": "can't be read (embedded null byte)",
    }
    for name, words in said.items():
        with pytest.raises(UserError) as error:
            audit(tmp_path / name)
        assert str(error.value) == f"{tmp_path / name}: {words}; takes .tflite files"
    with pytest.raises(UserError, match="/dev/null: is a device; takes"):
        audit(Path("/dev/null"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to become")
@pytest.mark.parametrize("module", ["src.audit", "src.benchmark"])
def test_a_file_that_may_not_be_read_is_one_line(write: Write, module: str) -> None:
    path = write(dense("x", "w", "y"))
    path.chmod(0)
    # The interpreter's own files need not be readable for others: the process becomes another user once it has them.
    program = (
        f"import os, sys; import {module} as command; import numpy\n"
        f"os.setuid(65534); sys.argv = ['', '{path}']; command.main()"
    )
    for folder in path.parents:
        if folder.stat().st_uid == 0 and folder != Path("/") and "pytest" in str(folder):
            folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {path}: can't be read (Permission denied); takes .tflite files\n"


FILES = [dense("x", "w", "y", behind=True), lookup(20, "RESHAPE"), counting(3), chain([("a/b/Conv2D", "c")] * 3, True)]


@pytest.mark.parametrize("content", FILES)
def test_a_file_that_was_cut_short_is_one_line_wherever_it_was_cut(write: Write, content: bytes) -> None:
    whole = audit(write(content))
    for length in range(8, len(content), 7):
        found = outcome(write(content[:length]))
        assert isinstance(found, str) or (found.values, found.sparsity) == (whole.values, whole.sparsity)


def test_a_file_with_altered_bytes_ends_in_an_audit_or_in_one_line(write: Write) -> None:
    rng = np.random.default_rng(0)
    said = []
    for content, _ in itertools.product(FILES, range(100)):
        altered = np.frombuffer(content, np.uint8).copy()
        at = rng.integers(8, len(altered), rng.integers(1, 9))
        altered[at] = rng.integers(0, 256, len(at))
        said.append(outcome(write(altered.tobytes())))
    assert not any("\n" in each for each in said if isinstance(each, str))
    assert 20 < sum(isinstance(each, str) for each in said) < 380


def outcome(path: Path) -> Audit | str:
    """What comes of reading a file: its audit, or the one line that it can't be had for."""
    try:
        reads(path)
        is_sparse_encoded(path)
        list(workload(path, None, {}).attempts())
        found = audit(path, attribute=True)
        list(notes(found))
        return found
    except UserError as error:
        return str(error)


def test_a_graph_that_goes_round_in_circles_ends(write: Write) -> None:
    tensors = [T("in", [1]), T("a", [1]), T("b", [1])]
    path = write(tflite(G(tensors, [Op("RESHAPE", [2], [1]), Op("RESHAPE", [1], [2])], [0], [1])))
    assert reads(path).logits


# --- The command -----------------------------------------------------------------------------------------------


def screen(found: Audit, width: int, name: str = "m") -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    show(name, found, console)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 200])
def test_every_layer_has_a_row_that_fits(write: Write, width: int) -> None:
    layers = [f"net/stage{i}/a_layer_with_a_long_name[{i}]" for i in range(3)]
    lines = screen(audit(write(chain([(f"{layer}/MatMul", "y") for layer in layers])), attribute=True), width)
    assert max(map(len, lines)) <= width
    for i in range(3):
        assert f"stage{i}/" in "\n".join(lines)
        assert any("75.0%" in line and "float32" in line for line in lines)
    if width == 200:
        assert all(any(layer.removeprefix("net/") in line for line in lines) for layer in layers)


def test_names_are_shown_as_they_are(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write(dense("x", "w", "y"), name) for name in ("model[int8]", "model[red]", "b\x1b[1m\udcff")]
    assert run([str(path) for path in paths]) == 0
    printed = capsys.readouterr().out
    assert "\nmodel[red]\n" in printed
    assert printed.startswith("model[int8]\n")
    assert "b\\x1b[1m\\udcff" in printed


def test_json_has_every_file_and_no_constant_that_json_lacks(write: Write, tmp_path: Path) -> None:
    paths = [write(dense("x", "w", "y")), write(lookup(9), "n")]
    out = tmp_path / "out.json"
    assert run([*map(str, paths), f"json={out}", "compressors=xz"]) == 0
    files = strict(out.read_text())["files"]
    assert [(each["name"], each["values"], len(each["layers"])) for each in files] == [("m", 12, 1), ("n", 18, 1)]
    assert files[0]["compressors"]["xz"] > 0
    assert files[0]["layers"][0] | {"gzip_bytes": 0} == {
        "name": "w", "values": 12, "zeros": 1, "bytes": 48, "gzip_bytes": 0
    }  # fmt: skip


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "takes at least one .tflite file (--help shows how)"),
        (["{m}", "compressors=rar"], "compressors=rar: takes of gzip6, gzip9, xz, zstd"),
        (["{m}", "depth=3"], "depth=3: no such setting; takes compressors, json"),
        (["{m}", "--json", "a.json"], "--json: no such option; takes json=FILE"),
        (["{m}", "--json=a.json"], "--json=a.json: no such option; takes json=a.json"),
        (["{m}", "-v"], "-v: no such option; takes files, KEY=VALUE and --help"),
        (["{m}", "json=a.json", "json=b.json"], "json=b.json: json=a.json was given before; takes one of them"),
        (["{m}", "json={folder}"], "json={folder}: is a folder; takes the name of a file"),
        (["{m}", "json="], "json=: names no file; takes the name of a file"),
        (["{m}", "json={m}"], "json={m}: is one of the files to be read; takes the name of a file"),
        (["{m}", "json={folder}/no/such.json"], "json={folder}/no/such.json: takes a file in a folder that exists"),
        (["{m}", "json=/proc/version"], "json=/proc/version: can't be written ("),
        (["{folder}"], "{folder}: is a folder; takes .tflite files"),
    ],
)
def test_wrong_input_is_told_before_anything_is_read(write: Write, arguments: list[str], said: str) -> None:
    path = write(dense("x", "w", "y"))
    content = path.read_bytes()
    values = {"m": path, "folder": path.parent}
    with pytest.raises(UserError) as error:
        run([argument.format(**values) for argument in arguments])
    assert str(error.value).startswith(said.format(**values))
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_help_teaches_and_fits(place: Place) -> None:
    done = place.run("--help", module="src.audit")
    assert done.returncode == 0
    assert "Examples" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_command_runs_and_ends_quietly_where_nobody_reads_on(write: Write) -> None:
    path = write(dense("x", "w", "y"))
    for arguments in (["--help"], [str(path)] * 300):
        command = [sys.executable, "-m", "src.audit", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        process.wait()


def test_a_full_name_for_every_file_and_no_name_twice() -> None:
    files = [Path(f"runs/{run}/artifacts/model/p1-drq.tflite") for run in ("a1", "b2")]
    assert names(files) == ["a1/p1-drq", "b2/p1-drq"]
    assert names([Path("x/p1.tflite"), Path("x/p2.tflite")]) == ["p1", "p2"]
    assert names([Path("p1.tflite"), Path("p1.tflite"), Path("old/p1.tflite")]) == ["p1#1", "p1#2", "old/p1"]
    assert names([Path("m.tflite"), Path("m.tflite"), Path("m#2.tflite")]) == ["m#1", "m#3", "m#2"]
    assert names([Path("m#1.tflite"), Path("m.tflite"), Path("m.tflite")]) == ["m#1", "m#2", "m#3"]
    assert names([Path("A A.tflite")], ["A A"]) == ["A A#1"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (0.00083, "0.000830"), (1e-7, "0.000000100"), (0.9996, "1.00"), (9.999, "10.0"), (12.34, "12.3"),
        (999.7, "1000"), (1234.5, "1,234"), (0.0999, "0.0999"), (1 / 1000, "0.00100"),
    ],
)  # fmt: skip
def test_three_digits_are_shown_of_any_size(number: float, text: str) -> None:
    assert digits(number) == text


def test_a_name_is_shown_without_what_a_terminal_would_obey() -> None:
    assert shown("é×[b]") == "é×[b]"
    assert shown("a\nb\x07") == "a\\nb\\x07"
    assert shown("abcdef", most=4) == "abc…"


def test_a_name_in_a_file_is_never_a_page(write: Write) -> None:
    page = "two\nlines " + 5_000 * "x"
    signatures = [(name, 0, {"x": 0}, {"y": 1}) for name in (page, "other")]
    graph = G([T(page, [1], open=[-1]), T("out", [1])], [Op("ABS", [0], [1])], [0], [1])
    for path in (write(tflite(graph, signatures=signatures)), write(tflite(graph), "n")):
        with pytest.raises(UserError) as error:
            workload(path)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < len(str(path)) + 250


def test_json_can_be_written_to_a_device_and_an_old_file_is_kept_until_then(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text("{}")
    assert artifact_files.output(str(old), []) == old
    assert old.read_text() == "{}"
    assert artifact_files.output("/dev/null", []) == Path("/dev/null")
    artifact_files.write(old, {"a": 1})
    assert json.loads(old.read_text()) == {"a": 1}
    with pytest.raises(ValueError, match="JSON"):
        artifact_files.write(old, {"a": float("inf")})
