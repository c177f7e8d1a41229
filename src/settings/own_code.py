"""Functions of a user's own, named by their import path. Nothing is imported to check one."""

import ast
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from src.settings.check import UserError

TAKES = "takes the import path of a function, such as mine.focal, of a module that Python finds"


def _there(path: str) -> str:
    package, *inside = path.split(".")
    if not inside or not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(f"got {path}; {TAKES}")
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ValueError(f"{path}: there is no module {package}; {TAKES}")
    if source := _source(Path(spec.origin or ""), inside[:-1]):
        try:
            names = set(_names(ast.parse(source.read_bytes())))
        except SyntaxError as error:
            raise ValueError(f"{path}: {source.name} is no Python, line {error.lineno}; {TAKES}") from None
        if not {inside[-1], "*"} & names:
            raise ValueError(f"{path}: {source.name} has no {inside[-1]}; {TAKES}")
    return path


ImportPath = Annotated[str, AfterValidator(_there)]


def _source(file: Path, inside: list[str]) -> Path | None:
    """The file of a module `inside` the package that begins in `file`; None where it is no plain file of Python."""
    if inside:
        module = file.parent.joinpath(*inside)
        file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    return file if file.suffix == ".py" and file.is_file() else None


def _names(tree: ast.Module) -> list[str]:
    """What a module may define: functions, what it imports and what it assigns to, wherever they stand."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
    return names


def load(path: str, key: str) -> Callable[..., Any]:
    """The function. Raises `UserError`, which starts with `key`, where it can't be imported."""
    module, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise UserError(f"{key}={path}: can't be imported ({in_short(error)}); {TAKES}") from None
    if not callable(function):
        raise UserError(f"{key}={path}: is no function; {TAKES}")
    return function


def in_short(error: Exception) -> str:
    """The first line of what went wrong in a user's code, and its kind."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason'])[0]}"
