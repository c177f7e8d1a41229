"""Text is UTF-8 wherever it is read or written, whatever the locale says, and a key is the same in every locale."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, environment
from PIL import Image

from src.settings.check import in_short

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


# --- A key depends on content alone ------------------------------------------------------------------------------

KEYS = """
import json, os, sys
os.umask(int(sys.argv[1], 8))
from hydra import compose, initialize_config_dir
from src.sweep.variant import expand
from src.cli.compose import CONF, composer
from src.models.saved import Saved
overrides = ["data=image_folder", "data.path=pictures", "data.cache=null", "prune=p1", "quant=fiq"]
with initialize_config_dir(str(CONF), version_base="1.3"):
    told = composer(compose("config", return_hydra_config=True))
    variants = expand([overrides, [*overrides, "prune.final_sparsity=0.7000000000000001"]], told)
keys = {f"{variant.name} {stage.name}": stage.key for variant in variants for stage in variant.chain}
print(json.dumps([keys, Saved(path="saved").digest()]))
"""
PLAIN = {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "TZ": "UTC"}
OTHERS = {
    "no encoding but ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ISO-8859-1": {"LC_ALL": "de_DE.ISO-8859-1", "PYTHONUTF8": "0"},
    "another seed of hashes, time zone and umask": {"PYTHONHASHSEED": "7", "TZ": "Asia/Kolkata", "umask": "077"},
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Callable[[dict[str, str]], str]]:
    """What `KEYS` prints of folders with names that are not ASCII, in a plain environment and in any other."""
    folder = tmp_path_factory.mktemp("keys")
    # The last two are no UTF-8: a file name is bytes.
    for number, name in enumerate((b"caf\xc3\xa9", b"\xe5\xb1\xb1", b"sk\xf8g", b"z\xff")):
        at = os.path.join(os.fsencode(folder), b"pictures", name)
        os.makedirs(at)
        for image in range(5):
            pixels = np.random.default_rng(10 * number + image).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(os.path.join(at, b"%d \xc3\xbc.png" % image))
    (folder / "saved").mkdir()
    for name in (b"\xc3\xa4", b"\xe4", b"\xef\xbd\x81"):
        with open(os.path.join(os.fsencode(folder), b"saved", name), "wb") as file:
            file.write(name)

    def asked(settings: dict[str, str]) -> str:
        variables = environment() | PLAIN | settings
        command = [sys.executable, "-c", KEYS, variables.pop("umask", "022")]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        return done.stdout

    return asked({}), asked


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A folder with a locale whose encoding is ISO-8859-1, where this system can make one."""
    folder = tmp_path_factory.mktemp("locales")
    if not shutil.which("localedef"):
        return None
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder / "de_DE.ISO-8859-1"], capture_output=True
    )
    return folder if made.returncode == 0 else None


@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_keys_depend_on_content_alone(
    keys: tuple[str, Callable[[dict[str, str]], str]], locales: Path | None, settings: dict[str, str]
) -> None:
    if "ISO" in settings.get("LC_ALL", ""):
        if locales is None:
            pytest.skip("no localedef, or not the sources of the locale")
        settings = settings | {"LOCPATH": str(locales)}
    plain, asked = keys
    assert asked(settings) == plain


def test_a_long_reason_is_cut_between_words() -> None:
    assert in_short("as it\n is") == "as it is"
    assert in_short("no more than a word", 19) == "no more than a word"
    assert in_short("one two three four", 12) == "one two …"
    assert in_short("x" * 30, 12) == "x" * 10 + " …"
    assert max(len(in_short("word " * many, 50)) for many in range(9, 15)) <= 50
