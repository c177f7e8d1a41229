"""Wrong command lines drawn at random from a grammar of the config: each is one line, or a few, and exit code 2."""

import logging
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from src import run
from src.cli.arguments import Line

SEED, CASES, QUICK = 27, 200, 20


OPTIONS = """
--nosuch; --cfg nosuch; --cfg; --resolve; --info nosuch; --run --cfg job; -cn nosuch; --config-dir nosuch; -cn
--config-path nosuch; -cp x.yaml; --cfg job --package nosuch; --experimental-rerun x.pkl
hydra/launcher=nosuch; hydra.job.nosuch=1; hydra.run.dir=null; hydra.mode=nosuch; hydra/sweeper={a:1}
hydra.searchpath=1; -m hydra.sweep.subdir=${nosuch}; -m hydra.job.name=a,b
hydra.verbose={a:1}; hydra.sweeper.params=3 -m
"""


class Grammar:
    """Draws command lines that are wrong in one place."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        line = Line([])
        composed = line.composed()
        tasks = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
        leaves = dict(_leaves(OmegaConf.to_container(tasks)))
        of = {kind: [key for key, value in leaves.items() if type(value) is kind] for kind in (int, float, bool)}
        of[int] = [key for key in of[int] if "seconds" not in key]  # whole by default only
        numbers, groups = [*of[int], *of[float]], line.groups()
        misspelt = [key[:at] + "x" + key[at:] for key in leaves for at in (1, len(key) - 1, len(key))]
        # What stands before, then a key, then what is wrong with it.
        self.kinds: list[tuple[str, list[str], list[str]]] = [
            ("", numbers, ["=abc", "=[1,2]", "={a: 1}", "=true", "=null", "=inf", "=nan"]),
            ("", of[bool], ["=7", "=abc", "=[true]", "={a: true}", "=null", "=0.5"]),
            ("", of[int], ["=-1", "=-1e9", "=0.5", "=1e30"]),
            ("", misspelt, ["=1", "=abc", "=null"]),
            ("", groups, ["=nosuch", "=null", "=1", "=true", "=1.5", "=[nosuch]"]),
            ("-m", groups, ["=nosuch,null", "=range(3)", "=glob(x*)", "=choice(1,2)"]),
            ("", ["prune", "train", "quant", "data", "model"], ["={nosuch: 1}", "=[none,none]"]),
            ("", ["~seed", "~plan", "~prune", "~quant", "~data", "~augment", "~tracking", "~nosuch", "~x.y"], [""]),
            (
                "",
                ["+nosuch", "++nosuch", "+prune.nosuch", "+nosuch.a.b", "+hydra.nosuch", "++hydra.job.x"],
                ["=1", "="],
            ),
            ("", numbers, ["=${nosuch}", "=${oc.env:NO_SUCH}", "=${", "=${nosuch:1}", "=${.}"]),
            ("", numbers, ["=(1", "=[1", "={a", "='a", '="a', "=]", "=a b)c", "==", "=é", "=~"]),
            ("", numbers, ["=1,2", "=choice(1,2)", "=range(1,3)"]),
            ("-m", numbers, ["=range(0,-3)", "=interval(0,1)", "=range(0,9,0)", "=choice()", "=range(a)", "=sort()"]),
            ("", [*leaves, "=3", "é=1", "a b=1", ".=1", "seed.=1", "seed..x=1", "@=1", "/=1", "seed/x=1"], [""]),
            ("", [option.strip() for option in OPTIONS.replace("\n", ";").split(";") if option.strip()], [""]),
        ]

    def draw(self, number: int) -> list[str]:
        before, keys, wrong = self.kinds[number % len(self.kinds)]
        key, value = self.random.choice(keys), self.random.choice(wrong)
        right = self.random.choice(["", "prune=p1", "quant=drq seed=3", "experiment=smoke"]).split()
        told = f"{before} {key}".split() if key[0] == "-" or before else [key]
        told[-1] += value
        return [*(a for a in right if a.split("=")[0] != key), *told]


def _leaves(settings: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if key in ("_target_", "_parameters_"):  # no settings: what an option does, and what its runs record
            continue
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield above + key, value


def answer(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with the answer to a command line, if anything."""
    code = run.done(["plan=true", *arguments])
    printed = capfd.readouterr()
    lines = printed.err.splitlines()
    if code != 2:
        return f"exit code {code}: {printed.err[:300]}"
    if not lines or not lines[-1].startswith("error: ") or len(lines) > 3 or "Traceback" in printed.err:
        return f"{len(lines)} lines: {printed.err[:300]}"
    return None


@pytest.mark.parametrize(
    "cases", [range(QUICK), pytest.param(range(QUICK, CASES), marks=pytest.mark.long)], ids=["quick", "all"]
)
def test_wrong_command_lines_are_answered_in_few_lines_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], cases: range
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # back to what it was afterwards
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    grammar = Grammar(SEED)
    drawn = [grammar.draw(number) for number in range(CASES)]
    badly = {}
    for number in cases:
        if wrong := answer(drawn[number], capfd):
            badly[" ".join(drawn[number])] = wrong
    root.handlers[:] = handlers
    root.setLevel(level)
    assert not badly, "\n".join(f"{case}\n    {wrong}" for case, wrong in badly.items())
