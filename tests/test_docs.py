"""What the pages say is so: their links, commands, settings, methods and metrics."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Place, default_composer
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from pydantic import TypeAdapter

from src.cli.compose import CONF
from src.sweep.variant import Compose

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md"]
SECTIONS = ("augment", "audit", "benchmark", "compare", "data", "model", "prune", "quant", "tracking", "train")
SETTING = re.compile(rf"(?<![\w./@-])((?:{'|'.join(SECTIONS)})(?:\.[a-z_]+)+)(?![\w/]|\.\w)")
FILES = (".md", ".tflite", ".json", ".py")


def by_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_to_files_and_headings_that_there_are(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_readme_is_short() -> None:
    assert len(text(ROOT / "README.md").splitlines()) <= 150


def commands() -> Iterator[str]:
    """What `python -m src.run` is given on the pages, without Hydra's options and comments."""
    for page in PAGES:
        for line in re.findall(r"^python -m src\.run (.*)$", text(page).replace("\\\n", ""), re.MULTILINE):
            yield re.sub(r"  +#.*|-m |--\S+", "", line).strip()


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield default_composer()


@pytest.mark.parametrize("command", sorted({command for command in commands() if command}))
def test_commands_compose(command: str, compose: Compose, tmp_path: Path) -> None:
    (tmp_path / "FILE").touch()
    places = {"DIR": str(tmp_path), "FILE": str(tmp_path / "FILE"), "PORT": "5000", "NAME": "name"}
    given = re.sub("|".join(places), lambda place: places[place[0]], command).replace("… ", "").split()
    # Launchers are extras.
    own = [override for override in given if not override.lstrip("+").startswith("hydra")]
    (lists,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(own), None)
    for overrides in lists:
        compose(overrides)


def keys(settings: object, above: str) -> Iterator[str]:
    yield above
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from keys(value, f"{above}.{key}")


def known_settings() -> set[str]:
    of_all = yaml.safe_load(text(CONF / "config.yaml"))
    known = {key for section in SECTIONS for key in keys(of_all.get(section), section)}
    for section in SECTIONS:
        for option in (CONF / section).glob("*.yaml"):
            known |= set(keys(yaml.safe_load(text(option)), section))
            for shared in re.findall(r"^  - /(\w+)@_here_$", text(option), re.MULTILINE):
                known |= set(keys(yaml.safe_load(text(CONF / f"{shared}.yaml")), section))
    return known


# A method that is not in conf/ has a test of its own.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "own_method.md"], ids=by_name)
def test_settings_on_a_page_are_in_conf(page: Path) -> None:
    named = {name for name in SETTING.findall(text(page)) if not name.endswith(FILES)}
    assert named <= known_settings()


@pytest.mark.parametrize("module", ["src.pick", "src.verify", "src.export", "src.compare"])
def test_help_says_what_every_setting_means(module: str) -> None:
    settings = TypeAdapter(importlib.import_module(module).Settings).json_schema()["properties"]
    assert not [name for name, said in settings.items() if name != "tracking" and not said.get("description")]


def test_every_method_is_described() -> None:
    described = text(ROOT / "docs/methods.md")
    for group in ("train", "prune", "quant"):
        for option in (CONF / group).glob("*.yaml"):
            assert f"`{group}={option.stem}`" in described or option.stem == "none"


def test_every_metric_is_described(twelve: tuple[Place, object]) -> None:
    place, _ = twelve
    described = set(re.findall(r"`(\w+)`", text(ROOT / "docs/metrics.md")))
    records = place.store().search("tags.kind != 'sweep'")
    recorded = {re.sub(r"_(low|high)$", "", name) for record in records for name in record.metrics}
    assert recorded - described == set()
