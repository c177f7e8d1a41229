"""The rooms of `src/`: who may import whom, and how long a module and a function may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

# From the bottom to the top: a room imports from those before it and from itself. What lies in `src/` itself is a
# command, the last of them.
ROOMS = (
    "settings",
    "machine",
    "console",
    "data",
    "models",
    "measure",
    "methods",
    "store",
    "pipeline",
    "results",
    "sweep",
    "cli",
    "commands",
)
MOST_LINES_OF_A_MODULE = 350
MOST_LINES_OF_A_FUNCTION = 50
# Whoever is longer says so with these words and the reason, in a docstring: it would read worse in pieces.
REASON = "in one piece"


def modules() -> dict[str, Path]:
    """The files of `src/` by the names under which they are imported."""
    files = sorted((ROOT / "src").rglob("*.py"))
    names = (".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    found = {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}
    del found["src"]
    return found


MODULES = modules()


def imported(name: str) -> set[str]:
    """The modules of `src/` that a module imports, in functions too; itself left out, as `-m` has it import itself."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                within = f"{node.module}.{alias.name}"
                found.add(within if within in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & MODULES.keys() - {name}


IMPORTED = {name: imported(name) for name in MODULES}


def height(name: str) -> int:
    _, room, *inside = name.split(".")
    is_command = not inside and MODULES[name].name != "__init__.py"
    return ROOMS.index("commands" if is_command else room)


def circle(start: str) -> list[str] | None:
    """The shortest way from a module over its imports back to it."""
    ways, seen = [[start]], {start}
    for way in ways:
        for name in sorted(IMPORTED[way[-1]]):
            if name == start:
                return [*way, name]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return None


def test_every_folder_is_a_room() -> None:
    assert {name.split(".")[1] for name in MODULES if height(name) < ROOMS.index("commands")} == {*ROOMS[:-1]}


def test_no_import_goes_up_and_no_command_imports_another() -> None:
    up = [f"{name} imports {other}" for name in MODULES for other in IMPORTED[name] if height(other) > height(name)]
    assert not up
    commands = [name for name in MODULES if height(name) == ROOMS.index("commands")]
    assert not [f"{name} imports {other}" for name in commands for other in IMPORTED[name] & {*commands}]


def test_no_imports_go_round_in_a_circle() -> None:
    circles = {frozenset(way): " -> ".join(way) for way in map(circle, MODULES) if way}
    assert not circles.values()


def long_ones(name: str) -> Iterator[str]:
    text = MODULES[name].read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = len(text.splitlines())
    if lines > MOST_LINES_OF_A_MODULE and REASON not in (ast.get_docstring(tree) or ""):
        yield f"{name}: {lines} lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            lines = node.end_lineno - node.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION and REASON not in (ast.get_docstring(node) or ""):
                yield f"{name}.{node.name}: {lines} lines"


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_functions_are_short_or_say_why_not(name: str) -> None:
    assert not list(long_ones(name))


def test_run_fits_on_one_screen() -> None:
    assert len(MODULES["src.run"].read_text(encoding="utf-8").splitlines()) < 120
