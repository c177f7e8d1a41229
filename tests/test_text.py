"""Text is UTF-8 wherever it is read or written, whatever the locale says, and a key is the same in every locale."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = sorted(
    file for folder in ("src", "hydra_plugins", "scripts", "benchmarks") for file in (ROOT / folder).rglob("*.py")
)
PROCESSES = {"run", "Popen", "check_output", "check_call", "call"}


def left_to_the_locale(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that read or write text in an encoding that they do not name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in named:
            continue
        if called in ("read_text", "write_text"):
            yield node
        elif called in ("open", "fdopen"):
            of_a_path = isinstance(node.func, ast.Attribute) and called == "open"
            place = 0 if of_a_path else 1
            mode = named.get("mode", node.args[place] if len(node.args) > place else ast.Constant("r"))
            other = (
                of_a_path
                and len(node.args) > 0
                and not (isinstance(mode, ast.Constant) and re.fullmatch("[rwaxtb+]+", str(mode.value)))
            )  # such as `Image.open(file)`
            if not other and isinstance(mode, ast.Constant) and "b" not in str(mode.value):
                yield node
        elif called in PROCESSES and {"text", "universal_newlines"} & set(named):
            yield node
        elif called == "NamedTemporaryFile":
            mode = named.get("mode")
            if isinstance(mode, ast.Constant) and "b" not in str(mode.value):
                yield node


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_text_is_read_and_written_in_a_named_encoding(file: Path) -> None:
    found = left_to_the_locale(ast.parse(file.read_text(encoding="utf-8")))
    assert not [f"line {call.lineno}: {ast.unparse(call)}" for call in found]


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("p.read_text()", 1),
        ("p.write_text(x)", 1),
        ("p.open()", 1),
        ("p.open('a')", 1),
        ("open(p)", 1),
        ("open(p, 'w')", 1),
        ("os.fdopen(n, 'w')", 1),
        ("subprocess.run(c, text=True)", 1),
        ("NamedTemporaryFile(mode='w')", 1),
        ("p.read_text(encoding='utf-8')", 0),
        ("p.open('rb')", 0),
        ("open(p, 'r+b')", 0),
        ("Image.open(p)", 0),
        ("archive.open('weights.h5')", 0),
        ("os.open(p, flags)", 0),
        ("NamedTemporaryFile(suffix='.json')", 0),
    ],
)
def test_what_is_left_to_the_locale_is_told_from_what_is_not(code: str, count: int) -> None:
    assert len(list(left_to_the_locale(ast.parse(code)))) == count
