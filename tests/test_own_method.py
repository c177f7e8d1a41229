"""A method of a user's own: a module outside `src` and config files in a folder of theirs, beside this project's."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import default_composer
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from src.cli.answers import in_one_line
from src.cli.compose import CONF, options_of
from src.settings.check import UserError
from src.sweep.variant import Compose, Variant, expand

SOFTEN = '''
"""Kernels made smaller, without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from soft_numbers import softer

from src.methods.task import Task, Trained
from src.models.checkpoint import restore, save


@dataclass(frozen=True)
class Soften:
    strength: Annotated[float, Field(gt=0, le=1)]
    epochs: int = 1


def soften(config: Soften, parent: Path, task: Task, checkpoint: Path) -> Trained:
    model = restore(parent)
    for layer in model.layers:
        layer.set_weights([softer(weight, config.strength) for weight in layer.get_weights()])
    save(model, checkpoint)
    return Trained({"softened_layers": len(model.layers)})
'''
NUMBERS = """
def softer(weight, strength):
    return weight * (1 - strength / 10)
"""
OPTION = {"_target_": "soften.soften", "strength": 0.5}


def write(file: Path, settings: Any, first: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(first + yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def write_method(folder: Path) -> None:
    """The module, and it as an option of `prune` and as a group of its own, `soft`, that an experiment adds."""
    (folder / "soften.py").write_text(SOFTEN, encoding="utf-8")
    (folder / "soft_numbers.py").write_text(NUMBERS, encoding="utf-8")
    write(folder / "mine/prune/softer.yaml", OPTION)
    write(folder / "mine/soft/half.yaml", OPTION)
    write(folder / "mine/soft/none.yaml", {"_target_": None})
    both = {"defaults": [{"/soft": "none"}], "transforms": ["prune", "soft"]}
    write(folder / "mine/experiment/both.yaml", both, "# @package _global_\n")


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compose]:
    write_method(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path / "mine/config.yaml", yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8")))
    config = tmp_path / "mine/config.yaml"
    config.write_text(config.read_text(encoding="utf-8") + f"\n  searchpath: ['file://{CONF}']\n", encoding="utf-8")
    with initialize_config_dir(str(tmp_path / "mine"), version_base="1.3"):
        yield default_composer()
    GlobalHydra.instance().clear()
    for module in ("soften", "soft_numbers"):
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
