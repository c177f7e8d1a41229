"""Changes the code that every number rests on, one place at a time, and asks its fast tests whether they notice.

    make setup EXTRAS=dev,mutants
    make mutants                           all of `TARGETS`, ten minutes on two cores
    make mutants ARGS="src/measure/stats.py"       one of them

The changes are cosmic-ray's: an operator for its neighbour, a number by one, a condition turned round, a loop without
its body. Nothing is written: each change runs in a forked process that has the changed module in place of the real one.
`mutants.toml` lists the changes that change nothing, each with the reason. Exit code 1: another change was not noticed,
or one of the list was.
"""

import ast
import difflib
import importlib
import importlib.util
import os
import re
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LISTED = Path(__file__).with_suffix(".toml")
JOBS = 2
QUICKLY = ("--noconftest", "-p", "no:cacheprovider", "-p", "no:faulthandler")
# Those of cosmic-ray's operators that stand for a slip: of the eleven others for `+`, only its neighbours do.
SLIPS = re.compile(
    r"core/(ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|Mul_Add|FloorDiv_Mul|Mod_FloorDiv|Pow_Mul"
    r"|BitAnd_BitOr|BitOr_BitAnd|LShift_RShift|RShift_LShift)"
    r"|ReplaceComparisonOperator_((Eq|NotEq|Lt|LtE|Gt|GtE)_(Eq|NotEq|Lt|LtE|Gt|GtE)|Is_IsNot|IsNot_Is)"
    r"|ReplaceUnaryOperator_Delete_\w+|ReplaceAndWithOr|ReplaceOrWithAnd|AddNot|ReplaceTrueWithFalse|ReplaceFalseWithTrue"
    r"|NumberReplacer|ReplaceBreakWithContinue|ReplaceContinueWithBreak|ZeroIterationForLoop)"
)


@dataclass(frozen=True)
class Target:
    """`functions` and classes of a module, all of it if none are named, and the `tests` that should notice changes."""

    file: str
    tests: tuple[str, ...]
    functions: tuple[str, ...] = ()


TARGETS = (
    Target("src/measure/stats.py", ("tests/test_stats.py",)),
    Target(
        "src/results/choose.py", ("tests/test_pick.py",), ("_to_bytes", "MINIMIZE", "UNITS", "candidates", "_refused")
    ),
    Target("src/methods/masks.py", ("tests/test_masks.py",), ("mask", "_nth_smallest")),
    Target("src/measure/audit/__init__.py", ("tests/test_audit_numbers.py",)),
    Target(
        "src/data/__init__.py",
        ("tests/data/test_splits.py",),
        ("from_arrays", "stratified", "pixel_digests", "fingerprint", "oddities", "_name", "preprocess"),
    ),
)


@dataclass(frozen=True)
class Mutant:
    """A changed module: its `source`, and the lines that differ before and after."""

    source: str
    before: str
    after: str


def mutants(target: Target) -> Iterator[Mutant]:
    """Each change that changes what is executed, once."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    original = (ROOT / target.file).read_text(encoding="utf-8")
    lines = _lines(original, target.functions)
    seen = {_executed(original)}
    for name in filter(SLIPS.fullmatch, operator_names()):
        occurrence = 0
        while source := mutate_code(original, get_operator(name)(), occurrence):
            occurrence += 1
            changed, before, after = _difference(original, source)
            if not changed & lines:
                continue
            try:
                executed = _executed(source)
            except SyntaxError:  # cosmic-ray 8.7 takes the stars of a call or a dict for operators
                continue
            if executed not in seen:
                seen.add(executed)
                yield Mutant(source, before, after)


def _lines(source: str, functions: Sequence[str]) -> set[int]:
    nodes = [node for node in ast.parse(source).body if not functions or _name(node) in functions]
    return {line for node in nodes for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def _name(node: ast.stmt) -> str | None:
    """Of what a statement defines, or of the constant that it sets."""
    return getattr(node.targets[0], "id", None) if isinstance(node, ast.Assign) else getattr(node, "name", None)


def _executed(source: str) -> str:
    """The code without annotations: those are for readers and the type checker."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                setattr(node, name, ast.Constant(None))
    return ast.dump(tree)


def _difference(original: str, source: str) -> tuple[set[int], str, str]:
    """The lines of `original` that changed, by number and as text, and what they became."""
    first, second = original.splitlines(), source.splitlines()
    blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes()
    _, i, j, k, m = next(block for block in blocks if block[0] != "equal")
    return set(range(i + 1, j + 1)), " ".join(" ".join(first[i:j]).split()), " ".join(" ".join(second[k:m]).split())


def start(target: Target, source: str, seconds: float) -> int:
    """Forks a process in which `source` stands for the target; it ends with 0 if the tests pass. Its id."""
    if child := os.fork():
        return child
    signal.alarm(int(seconds) + 1)  # a loop that no longer ends is noticed as well
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    code = 1
    try:
        name = target.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        spec = importlib.util.find_spec(name)
        assert spec
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        room, _, own_name = name.rpartition(".")
        setattr(importlib.import_module(room), own_name, module)
        exec(compile(source, spec.origin or name, "exec"), module.__dict__)
        code = pytest.main([*QUICKLY, "-x", "-q", *target.tests])
    finally:
        os._exit(code)


def survivors(target: Target, found: Sequence[Mutant]) -> Iterator[Mutant]:
    """Those of `found` that no test notices."""
    _warm_up(target)
    began = time.monotonic()
    if os.waitpid(start(target, (ROOT / target.file).read_text(encoding="utf-8"), 600), 0)[1]:
        raise SystemExit(f"{target.file}: {' '.join(target.tests)} fails as it is")
    if not os.waitpid(start(target, "", 600), 0)[1]:
        raise SystemExit(f"{target.file}: {' '.join(target.tests)} passes without it")
    seconds = 10 + 5 * (time.monotonic() - began)
    running: dict[int, Mutant] = {}
    for mutant in [*found, None]:
        while running and (mutant is None or len(running) == JOBS):
            child, status = os.wait()
            done = running.pop(child)
            if status == 0:
                yield done
        if mutant:
            running[start(target, mutant.source, seconds)] = mutant


def _warm_up(target: Target) -> None:
    """Imports what the tests import, once for all processes, except for the project's own modules."""
    pytest.main([*QUICKLY, "--collect-only", "-qq", "--no-summary", *target.tests])
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] == "src" or ROOT / "tests" in Path(file).parents:
            del sys.modules[name]


def main() -> None:
    asked = sys.argv[1:] or [target.file for target in TARGETS]
    if unknown := [file for file in asked if file not in [target.file for target in TARGETS]]:
        raise SystemExit(f"{unknown[0]}: takes of {', '.join(target.file for target in TARGETS)}")
    if importlib.util.find_spec("cosmic_ray") is None:
        raise SystemExit("takes the package cosmic-ray: make setup EXTRAS=dev,mutants")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT)]
    listed = Counter(
        (e["file"], e["before"], e["after"]) for e in tomllib.loads(LISTED.read_text(encoding="utf-8"))["unchanged"]
    )
    bad = False
    for target in (target for target in TARGETS if target.file in asked):
        found = list(mutants(target))
        unnoticed = Counter((target.file, mutant.before, mutant.after) for mutant in survivors(target, found))
        expected = Counter({key: count for key, count in listed.items() if key[0] == target.file})
        noticed = len(found) - unnoticed.total()
        print(
            f"{target.file}: {noticed} of {len(found)} changes noticed ({noticed / len(found):.1%}), "
            f"{(unnoticed & expected).total()} listed as no change",
            flush=True,
        )
        for heading, keys in (("not noticed", unnoticed - expected), ("listed, but noticed", expected - unnoticed)):
            for (_, before, after), count in keys.items():
                bad = True
                print(f"  {heading}{f' {count} times' * (count > 1)}\n    - {before}\n    + {after}", flush=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
