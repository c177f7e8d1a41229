"""A method of a user's own: a module outside `src` and config files in a folder of theirs, beside this project's."""

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Place, default_composer
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from rich.console import Console

from src.cli.answers import in_one_line
from src.cli.compose import CONF, options_of
from src.pipeline.code import code_version
from src.settings.check import UserError
from src.sweep import plan
from src.sweep.variant import Compose, Variant, expand

PAGE = (ROOT / "docs/own_method.md").read_text(encoding="utf-8")


def write_method(folder: Path) -> None:
    """The files that the page shows, and a module that theirs imports."""
    for name, text in re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    module, numbers = folder / "soften.py", "weight * (1 - config.strength / 10)"
    text = module.read_text(encoding="utf-8")
    assert numbers in text
    text = text.replace(numbers, "softer(weight, config.strength)")
    text = text.replace("\n\nfrom src", "\nfrom numbers_of_mine import softer\n\nfrom src", 1)
    module.write_text(f'"""As the page has it."""\n\nfrom __future__ import annotations\n\n{text}', encoding="utf-8")
    (folder / "numbers_of_mine.py").write_text(NUMBERS, encoding="utf-8")


REFUSES = re.search(r"^```python\n(def refuses.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]  # type: ignore[index]
WHY = "what is soft is not softened again"
NUMBERS = """
def softer(weight, strength):
    return weight * (1 - strength / 10)
"""


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compose]:
    write_method(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (CONF / "config.yaml").read_text(encoding="utf-8")
    text = text.replace("\nhydra:\n", f"\nhydra:\n  searchpath: ['file://{CONF}']\n")
    (tmp_path / "mine/config.yaml").write_text(text, encoding="utf-8")
    with initialize_config_dir(str(tmp_path / "mine"), version_base="1.3"):
        yield default_composer()
    GlobalHydra.instance().clear()
    for module in ("soften", "numbers_of_mine"):
        sys.modules.pop(module, None)


def names_and_keys(variants: tuple[Variant, ...]) -> dict[str, str]:
    return {variant.label: variant.stage.key for variant in variants}


def test_two_methods_of_a_group_stand_side_by_side_with_overrides_of_either(compose: Compose) -> None:
    """An override is for the options that have the key, and in no name and no key of the others."""
    overrides = [[f"prune={prune}", f"quant={quant}"] for prune in ("none", "p1", "softer") for quant in ("drq", "fiq")]
    plain = names_and_keys(expand(overrides, compose))
    shared = ["prune.strength=0.4", "prune.layers.min_share=0.01", "quant.representative_images=10"]
    told = names_and_keys(expand([[*each, *shared] for each in overrides], compose))
    assert list(told) == ["none-none", "none-drq", "none-fiq", "p1-drq", "p1-fiq", "softer-drq", "softer-fiq"]
    assert {name for name, key in plain.items() if told[name] == key} == {"none-none", "none-drq"}
    several = [[*each, f"prune.strength={s}"] for each in overrides for s in (0.1, 0.2)]
    own = [f"softer-{quant} prune.strength={s}" for quant in ("drq", "fiq") for s in (0.1, 0.2)]
    assert list(names_and_keys(expand(several, compose))) == [*list(told)[:5], *own]


WRONG = {
    "prune.strength=2": "prune.strength=2: takes a number above 0 and at most 1",
    "prune.strenth=1": "prune.strenth: no such key; did you mean prune.strength? prune takes ",
    "prune=softer prune.strength=no": "prune.strength=no: takes a number above 0 and at most 1",
    "prune=p1 prune.strength=2": "prune.strength=2: takes a number above 0 and at most 1",
    "prune=softer +prune.more=1": "prune.more: no such key; prune takes ",
    "experiment=both soft.strength=2": "soft.strength=2: takes a number above 0 and at most 1",
    "transforms=[prune,soft]": "soft: is left out, and transforms names it; takes an option, such as soft=none",
}


def test_ones_own_settings_are_checked_whatever_option_is_chosen(compose: Compose) -> None:
    options = options_of(hydra_compose("config", return_hydra_config=True))
    for overrides, expected in WRONG.items():
        with pytest.raises((UserError, HydraException)) as caught:
            compose(overrides.split())
        error = caught.value
        said = str(error) if isinstance(error, UserError) else in_one_line(error, options)
        assert said.startswith(expected), overrides


def test_a_group_of_ones_own_is_in_names_and_parameters_where_it_acts(compose: Compose) -> None:
    for how in (["experiment=both", "soft=half"], ["transforms=[prune,soft]", "+soft=half"]):
        baseline, soft = expand([[*how, "prune=none", "quant=none", "soft.strength=0.3"]], compose)
        assert (baseline.name, soft.name) == ("none-none", "half-none")
        assert soft.config.steps["soft"].parameters() == {"strength": 0.3, "epochs": 1}
        assert baseline.config.steps["soft"].parameters() == {}
        alone = expand([["prune=none", "quant=none"]], compose)
        assert baseline.stage.key == alone[0].stage.key


@pytest.mark.parametrize(
    ("file", "before", "after", "anew"),
    [
        ("numbers_of_mine.py", "strength / 10", "strength / 20", True),
        ("soften.py", "save(model", "model.get_weights(); save(model", True),
        ("soften.py", "As the page has it.", "Other words.", False),
    ],
)
def test_code_of_ones_own_changes_the_keys_of_what_it_makes(
    compose: Compose, tmp_path: Path, file: str, before: str, after: str, anew: bool
) -> None:
    overrides = [["prune=none", "quant=none"], ["prune=softer", "quant=none"]]
    code_version.cache_clear()
    first = names_and_keys(expand(overrides, compose))
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert before in text
    (tmp_path / file).write_text(text.replace(before, after), encoding="utf-8")
    code_version.cache_clear()
    second = names_and_keys(expand(overrides, compose))
    code_version.cache_clear()
    assert {name for name in first if first[name] != second[name]} == ({"softer-none"} if anew else set())


COMMANDS = re.findall(r"^    python -m src.run (.*)$", PAGE, re.MULTILINE)
TINY = ["train.epochs=1", "benchmark.seconds=1", "benchmark.rounds=3", "benchmark.instances=3"]


def test_a_sweep_of_ones_own_methods(place: Place) -> None:
    """In joblib's processes and their workers, as an option of `prune` and as a group of its own."""
    write_method(place.folder)
    with (place.folder / "soften.py").open("a", encoding="utf-8") as module:
        module.write(f"\n\n{REFUSES}")
    mine = ["--config-dir", "mine"]
    shown = place.run(*mine, "--help").stdout
    assert "  prune=none (default), magnitude, more, p1, p2, softer\n" in shown
    assert "  +soft=half, none\n" in shown
    assert "  soft=half:\n    strength: 0.5\n" in shown
    told = [*mine, "experiment=both", "prune=none,softer", "soft=none,half", "quant=none", "soft.strength=0.3"]
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]
    done = place.run("-m", *told, *joblib, *TINY, "benchmark.operators=false")
    assert done.returncode == 0, done.stderr
    variants = place.variants(place.newest_sweep())
    assert set(variants) == {"none-none", "softer-none", "half-none"}
    assert place.stages() == ["half", "softer", "train"]
    softer, half = variants["softer-none"].params, variants["half-none"].params
    assert (softer["prune"], softer["prune_strength"], softer["soft"]) == ("softer", "0.5", "none")
    assert (half["prune"], half["soft"], half["soft_strength"]) == ("none", "half", "0.3")
    whole = place.store().json(place.newest_sweep().run_id, "comparison.json")
    assert whole["conditions"]["left_out"] == [{"variant": "softer-half-none", "reason": WHY}]
    assert f"left out: softer-half-none: {WHY}" in done.stderr


def test_a_combination_that_makes_no_sense_is_left_out_of_a_grid_and_refused_alone(
    compose: Compose, tmp_path: Path
) -> None:
    with (tmp_path / "soften.py").open("a", encoding="utf-8") as module:
        module.write(f"\n\n{REFUSES}")
    both = [
        ["experiment=both", f"prune={p}", f"soft={s}", "quant=f16"] for p in ("p1", "softer") for s in ("none", "half")
    ]
    planned = plan.make(expand(both, compose), None, "all")
    assert [v.label for v in planned.variants] == ["none-none", "p1-f16", "p1-half-f16", "softer-f16"]
    assert plan.left_out(planned) == [f"left out: softer-half-f16: {WHY}"]
    assert {job.variant.label for job in planned.jobs} == {v.label for v in planned.variants}
    shown = io.StringIO()
    plan.show(planned, 1, Console(file=shown, width=200))
    assert f"left out: softer-half-f16: {WHY}\n" in shown.getvalue()
    with pytest.raises(UserError, match=f"^softer-half-f16: {WHY}$"):
        expand(both[-1:], compose)


def test_the_commands_of_the_page_make_the_variants_that_it_names(compose: Compose) -> None:
    labels = []
    for command in COMMANDS:
        own = [word for word in command.split() if "=" in word]
        (lists,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(own), None)
        labels.append([variant.label for variant in expand(lists, compose)])
    assert [len(each) for each in labels] == [6, 8]
    assert {"softer-none", "softer-fiq"} < set(labels[0])
    assert "p1-half-fiq" in labels[1]
