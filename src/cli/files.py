"""What the commands share that take any `.tflite` files: what they are called, `KEY=VALUE` settings beside them, where
JSON goes, and tables that read well at 80 columns.
"""

import itertools
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from src.console.terminal import shown
from src.settings.check import UserError


def parse(
    arguments: Sequence[str], keys: Collection[str], prefix: str | None = None
) -> tuple[list[Path], dict[str, str]]:
    """The files, and the settings by key. Keys are `keys`, and all that begin with `prefix`.

    Raises `UserError` for a setting or an option that there is not, or one given twice, and where there is no file.
    """
    files: list[Path] = []
    values: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("--") and (option := key.removeprefix("--")) in keys:
            shown_value = value or ("FILE" if option == "json" else "VALUE")
            raise UserError(f"{argument}: no such option; takes {option}={shown_value}")
        if equals and not os.path.lexists(argument):
            if key not in keys and not (prefix and key.startswith(prefix)):
                listed = ", ".join([*keys, *([prefix + "NAME"] if prefix else [])])
                raise UserError(f"{argument}: no such setting; takes {listed}")
            if values.setdefault(key, value) != value:
                raise UserError(f"{argument}: {key}={values[key]} was given before; takes one of them")
        elif argument.startswith("-"):
            raise UserError(f"{argument}: no such option; takes files, KEY=VALUE and --help")
        else:
            files.append(Path(argument))
    if not files:
        raise UserError("takes at least one .tflite file (--help shows how)")
    return files, values


def names(files: Sequence[Path], taken: Collection[str] = ()) -> list[str]:
    """What the files are called: their stems; where two are the same, behind the folders in which their paths differ;
    numbered where that does not tell them apart, or where `taken` has the name."""
    stems = [file.stem for file in files]
    if len(set(stems)) < len(stems):
        folders = [file.absolute().parent.parts for file in files]
        start = _in_common(folders)
        end = _in_common([parts[start:][::-1] for parts in folders])
        stems = [
            "/".join([*parts[start : len(parts) - end], file.stem]) for parts, file in zip(folders, files, strict=True)
        ]
    # A number makes a name that another file may have by itself.
    used = {stem for stem in stems if stems.count(stem) == 1} | set(taken)
    unique: list[str] = []
    for stem in stems:
        name = stem
        if stems.count(stem) > 1 or stem in taken:
            name = next(name for i in itertools.count(1) if (name := f"{stem}#{i}") not in used)
            used.add(name)
        unique.append(name)
    return unique


def _in_common(sequences: Sequence[Sequence[str]]) -> int:
    """How many elements all begin with."""
    return sum(1 for _ in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*sequences, strict=False)))


def output(setting: str | None, files: Sequence[Path]) -> Path | None:
    """The file that `json=` names. Raises `UserError` where nothing can be written, before there is anything to write;
    and for one of `files`."""
    if setting is None:
        return None
    path = Path(setting)
    problem = None
    if not setting:
        problem = "names no file"
    elif os.path.isdir(path):
        problem = "is a folder"
    elif not os.path.isdir(path.absolute().parent):
        raise UserError(f"json={setting}: takes a file in a folder that exists")
    elif os.path.exists(path) and any(os.path.exists(file) and os.path.samefile(path, file) for file in files):
        problem = "is one of the files to be read"
    elif not os.path.exists(path) or os.path.isfile(path):
        new = not os.path.exists(path)
        try:
            with open(path, "a", encoding="utf-8"):
                pass
            if new:
                os.unlink(path)
        except OSError as error:
            problem = f"can't be written ({error.strerror})"
    if problem:
        raise UserError(f"json={setting}: {problem}; takes the name of a file")
    return path


def write(path: Path, data: Any) -> None:
    """JSON. What is no number is a fault of whoever made `data`, since JSON has no word for it."""
    text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"json={path}: can't be written ({error.strerror}); takes the name of a file") from None


def table(headings: Mapping[str, bool]) -> Table:
    """A table of columns; those that are true hold words: they are on the left, and fold where there is no room."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, words in headings.items():
        made.add_column(heading, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return made


def add_row(made: Table, *cells: str, style: str | None = None) -> None:
    """Of text as it is: what is in square brackets is a name's own and no markup."""
    made.add_row(*(Text(shown(cell)) for cell in cells), style=style)


def say(console: Console, line: str, style: str | None = None) -> None:
    console.print(shown(line), style=style, highlight=False, markup=False)
