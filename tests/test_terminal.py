"""Terminals that can't show every character: each command prints what it has to say, in plain characters."""

import ast
import codecs
import io
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from conftest import ROOT, Place, environment

from src.console import terminal
from src.measure.stats import Interval, Verdict
from src.results.report import tables
from src.results.variant import Result

ASCII = {"PYTHONIOENCODING": "ascii"}
TERMINALS = {
    "ascii": ASCII,
    "ascii, strict": {"PYTHONIOENCODING": "ascii:strict"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


def ask(folder: Path, settings: dict[str, str], *command: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment() | settings, capture_output=True, timeout=600
    )
    encoding = settings.get("PYTHONIOENCODING", "ascii").split(":")[0]
    return done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)


@pytest.mark.parametrize("settings", TERMINALS.values(), ids=TERMINALS)
def test_a_word_in_every_stream_is_printed_with_what_there_is(tmp_path: Path, settings: dict[str, str]) -> None:
    code = """
import logging, sys
from src.console.terminal import plain_where_needed
plain_where_needed()
logging.basicConfig(stream=sys.stderr, format="%(message)s")
print("−0.3 ± 0.1 – 2 × faster → d… ─ Zoë \\udce9")
logging.warning("28 × 28 × 1")
"""
    (tmp_path / "say.py").write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, "say.py"], cwd=tmp_path, env=environment() | settings, capture_output=True)
    assert done.returncode == 0, done.stderr
    latin = "latin-1" in settings.values()
    plus, times, zoe = ("±", "×", "Zoë") if latin else ("+/-", "x", r"Zo\xeb")
    encoding = "latin-1" if latin else "ascii"
    assert done.stdout.decode(encoding) == f"-0.3 {plus} 0.1 - 2 {times} faster -> d... - {zoe} \\udce9\n"
    assert done.stderr.decode(encoding) == f"28 {times} 28 {times} 1\n"


def test_where_all_can_be_shown_nothing_changes(tmp_path: Path) -> None:
    code = "from src.console.terminal import plain_where_needed as p; p(); print('−0.3 ± 0.1 ─ Zoë')"
    utf_8 = environment() | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=utf_8, capture_output=True)
    assert done.stdout.decode() == "−0.3 ± 0.1 ─ Zoë\n"


def test_a_long_line_of_a_log_breaks_between_words_on_a_terminal_and_only_there(tmp_path: Path) -> None:
    code = """
import logging
from src.console.terminal import LogLines
handler = LogLines()
handler.setFormatter(logging.Formatter("00:00:00  %(message)s"))
logging.getLogger().addHandler(handler)
logging.warning("a-line-that-is-said in-words-of-its-own, and goes on:\\n  python -m a.command.that.is.to.be.copied")
"""
    first, command = (
        "a-line-that-is-said in-words-of-its-own, and goes on:",
        "  python -m a.command.that.is.to.be.copied",
    )
    settings = {"cwd": tmp_path, "env": environment()}
    plain = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, **settings)
    assert plain.stderr.splitlines() == [f"00:00:00  {first}", command]
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 40))
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True, **settings)
    os.close(theirs)
    told = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    broken = ["00:00:00  a-line-that-is-said", "          in-words-of-its-own, and goes", "          on:"]
    assert told == [*broken, command]


COMMANDS = [
    ("src.run", "--help"),
    ("src.pick", "--help"),
    ("src.export", "--help"),
    ("src.verify", "--help"),
    ("src.compare", "--help"),
    ("src.benchmark", "--help"),
    ("src.audit", "--help"),
    ("src.run", "data=image_folder", "data.path='/nowhere/Zoë × 2'"),
    ("src.pick", "tracking.uri=sqlite:///Zoë.db"),
    ("src.benchmark", "Zoë.tflite"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_and_errors_of_every_command_are_plain(tmp_path: Path, command: tuple[str, ...]) -> None:
    code, out, err = ask(tmp_path, ASCII, *command)
    assert code == (0 if "--help" in command else 2)
    assert "?" not in out + err
    assert r"Zo\xeb" in err or "Usage" in out or "Examples" in out
    assert len(err.splitlines()) <= 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk to write to")
@pytest.mark.parametrize("module", [module for module, *arguments in COMMANDS if arguments == ["--help"]])
def test_a_full_output_is_one_line_with_exit_code_1(tmp_path: Path, module: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"],
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output can't be written (No space left on device)\n"


@pytest.mark.long
def test_a_sweep_its_table_its_choice_and_the_benchmark_are_plain(place: Place) -> None:
    code, out, err = ask(
        place.folder, TERMINALS["C"], "src.run", "prune=none", "quant=drq", "experiment=smoke", "benchmark.seconds=2"
    )
    assert code == 0, err
    lines = out.splitlines()
    assert lines[1] == "-" * len(lines[1])
    assert any(line.startswith("none-none") and "baseline" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert "\\u" not in out + err
    code, out, err = ask(place.folder, ASCII, "src.pick", "max_drop=0.9")
    assert code == 0, err
    assert "x smaller" in out
    file = next(place.folder.rglob("none-drq.tflite"))
    code, out, err = ask(place.folder, ASCII, "src.benchmark", str(file), "seconds=2")
    assert code == 0, err
    assert "+/-" in out
    assert not {"|", "?"} & set(out)


def test_a_table_has_the_same_columns_in_plain_characters() -> None:
    row = Result(
        "none-none",
        metrics={"test_accuracy": 0.9311, "gzip_bytes": 97.5e6, "gzip_ratio": 0.098, "latency_ms_median": 123.4},
        test_accuracy_drop=Interval(-0.0204, -0.1012, 0.1042),
        verdict=Verdict("undecided", 3),
        speedup=Interval(12.7, 2.6, 20.8),
    )
    codecs.register_error("plain", terminal._plain)
    printed = []
    for encoding in ("ascii", "utf-8"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="plain")
        tables.print_table([row], terminal.Terminal(file=stream, width=80), 0.95)
        stream.flush()
        printed.append(stream.buffer.getvalue().decode(encoding))  # type: ignore[attr-defined]
    assert printed[0] == printed[1].replace("−", "-").replace("─", "-")
    assert "|" not in printed[1]


def test_every_character_that_this_project_prints_has_a_plain_one() -> None:
    """What stands in a string of the source, docstrings and the page's own texts aside."""
    files = [file for file in (ROOT / "src").rglob("*.py") if file.name not in ("terminal.py", "look.py")]
    found = set()
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                found |= {letter for letter in node.value if letter > "\x7f"}
    assert found <= set(terminal.PLAIN)


def test_an_argument_that_is_no_text_is_one_line(place: Place) -> None:
    """As bytes that are no UTF-8 come from the system: a folder that an older one named."""
    arguments = ["data=image_folder", b"data.path=/d/\xe9t\xe9"]
    command = [sys.executable, "-m", "src.run", *arguments]
    done = subprocess.run(command, cwd=place.folder, env=environment() | {"LC_ALL": "C.UTF-8"}, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "error: data.path=/d/\\udce9t\\udce9: is no text in utf-8, the encoding of file names here; takes a link with "
        "another name\n"
    )
    command[-1] = b"data.path=/d/\xc3\xa9"
    done = subprocess.run(command, cwd=place.folder, env=environment() | TERMINALS["C"], capture_output=True)
    assert done.returncode == 2
    assert done.stderr.endswith(
        b"is no text in ascii, the encoding of file names here; takes a locale such as LC_ALL=C.UTF-8\n"
    )


def test_a_terminal_shows_what_is_done_meanwhile_and_a_file_does_not(tmp_path: Path) -> None:
    """Composing takes a second, opening a store two: what is said of them goes with the next line."""
    command = [sys.executable, "-m", "src.run", "seed=x"]
    line = "error: seed=x: takes a whole number of at least 0 and below 4294967296"
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=theirs, stderr=theirs) as shown:
        os.close(theirs)
        text = b""
        while part := _read(ours):
            text += part
    os.close(ours)
    assert shown.returncode == 2
    assert text.decode() == f"composes 1 variant …\r\x1b[2K{line}\r\n"
    code, printed, errors = ask(tmp_path, {}, "src.run", "seed=x")
    assert (code, printed, errors) == (2, "", f"{line}\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says so where nobody writes any more
        return b""
