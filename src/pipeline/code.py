"""What code a stage or a probe is done by: its module and those that it imports, of this project or of the user's own.
Installed libraries are told by their versions instead."""

import ast
import functools
import hashlib
import importlib.util
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

from src.settings.plain import canonical

INSTALLED = tuple({Path(path).resolve() for name, path in sysconfig.get_paths().items() if name.endswith("lib")})


@functools.cache
def code_version(*modules: str) -> str:
    """A digest of what the modules do and of what they import: syntax trees without comments and docstrings.

    Of packages that are installed, only those that `modules` are in are followed. `src.settings` is left out, since the
    settings themselves are in every key, and `src.console`, which only shows what is done.
    """
    named = {module.partition(".")[0] for module in modules}
    seen: dict[str, str] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in seen or name.startswith(("src.settings", "src.console")):
            continue
        package = name.partition(".")[0]
        file = _file(name) if package in named or _is_own(package) else None
        if file is None:
            continue
        if file.suffix != ".py":
            seen[name] = hashlib.sha256(file.read_bytes()).hexdigest()
            continue
        with tokenize.open(file) as text:
            tree = ast.parse(text.read())
        todo += _imported(tree, name if file.name == "__init__.py" else name.rpartition(".")[0])
        seen[name] = _without_docstrings(tree)
    return hashlib.sha256(canonical(seen).encode(errors="surrogatepass")).hexdigest()


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The modules that a module of `package` imports, and what may be modules among the names that it takes of them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _without_docstrings(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            first.value.value = ""
    return ast.dump(tree)


@functools.cache
def _is_own(package: str) -> bool:
    """False of the standard library and of what is installed beside it. Imports nothing."""
    if package in sys.stdlib_module_names or not package:
        return False
    spec = _spec(package)
    places = [spec.origin] if spec and spec.has_location else list((spec and spec.submodule_search_locations) or ())
    return any(not any(Path(place).resolve().is_relative_to(p) for p in INSTALLED) for place in places if place)


def _file(name: str) -> Path | None:
    spec = _spec(name)
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a name inside a module
        return None
