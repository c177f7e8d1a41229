"""The command line as Hydra takes it: what is told is what runs, options stand anywhere, and the advice works."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from conftest import Place, environment
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from src import run
from src.cli import answers, launching
from src.cli.arguments import Line, in_hydras_order
from src.cli.compose import CONF, as_told, checked, composer, read
from src.settings.check import UserError
from src.settings.config import Config, load
from src.settings.sections import Sweep, Tracking
from src.sweep.plan import Job

# --- What Hydra is told to compose is what runs ------------------------------------------------------------------


def write(file: Path, settings: Any, first: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(first + yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's own configs."""
    folder = tmp_path / "mine"
    write(folder / "mine.yaml", {"defaults": ["config", "_self_"], "seed": 42, "train": {"epochs": 2}})
    chosen = {"defaults": ["config", {"override prune": "own"}, "_self_"], "quant": {"representative_images": 7}}
    write(folder / "choosing.yaml", chosen)
    named = {"defaults": ["config", "_self_"], "epochs": 3, "train": {"epochs": "${epochs}"}, "seed": "${oc.env:SEED}"}
    write(folder / "named.yaml", named)
    write(folder / "prune/own.yaml", {"defaults": ["magnitude", "_self_"], "final_sparsity": 0.61})
    write(folder / "prune/as_trained.yaml", {"defaults": ["magnitude", "_self_"], "epochs": "${train.epochs}"})
    write(folder / "experiment/own.yaml", {"seed": 9, "prune": {"epochs": 4}}, "# @package _global_\n")
    write(folder / "study/own.yaml", {"seed": 8, "augment": {"flip": True}}, "# @package _global_\n")
    write(
        folder / "lists/mine.yaml",
        {"defaults": ["/config", "_self_"], "hydra": {"sweeper": {"params": {"seed": "1,2"}}}},
    )
    return folder


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[str]], tuple[Config, Config]]]:
    """Of a command line what is run, and what Hydra composes."""
    monkeypatch.setenv("SEED", "77")

    def both(arguments: list[str]) -> tuple[Config, Config]:
        line = Line(in_hydras_order(arguments))
        line.check()
        GlobalHydra.instance().clear()
        Hydra("run", line.loader)
        GlobalHydra.instance().initialize(Hydra("run", line.loader))
        master = line.loader.load_configuration(line.config_name, line.overrides, run_mode=RunMode.MULTIRUN)
        found = composer(master)(as_told(master.hydra.overrides.task))
        tasks = OmegaConf.masked_copy(master, [key for key in master if key != "hydra"])
        return found, checked(read(tasks, master.hydra.runtime.choices))  # type: ignore[arg-type]

    yield both
    GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config-dir", "MINE", "--config-name", "mine"], {"seed": 42, "train.epochs": 2}),
        (["-cd", "MINE", "-cn", "mine", "seed=3"], {"seed": 3, "train.epochs": 2}),
        (["seed=3", "-cn", "mine", "-m", "-cd", "MINE", "train.epochs=5"], {"seed": 3, "train.epochs": 5}),
        (["-cp", "MINE", "-cn", "mine", "hydra.searchpath=[file://CONF]"], {"seed": 42, "train.epochs": 2}),
        (["hydra.searchpath=[file://MINE]", "prune=own"], {"prune.final_sparsity": 0.61, "prune": "own"}),
        (["-cd", "MINE", "-cn", "choosing", "quant=fiq"], {"prune": "own", "quant.representative_images": 7}),
        (["-cd", "MINE", "-cn", "choosing", "prune=p1"], {"prune": "p1", "prune.final_sparsity": 0.5}),
        (["-cd", "MINE", "prune=own", "prune.epochs=5"], {"prune.epochs": 5, "prune.final_sparsity": 0.61}),
        (["-cd", "MINE", "experiment=own", "prune=p1"], {"seed": 9, "prune.epochs": 4}),
        (["-cd", "MINE", "+study=own", "seed=1"], {"seed": 1, "augment.flip": True}),
        (["-cd", "MINE", "-cn", "named"], {"seed": 77, "train.epochs": 3}),
        (["-cd", "MINE", "-cn", "named", "epochs=6"], {"train.epochs": 6}),
        # Interpolations that reach from one section into another.
        (["seed=4", "train.epochs=${seed}"], {"train.epochs": 4}),
        (["-cd", "MINE", "prune=as_trained", "train.epochs=5"], {"prune.epochs": 5}),
        (["seed=${oc.env:SEED}"], {"seed": 77}),
        (["train={epochs: 3, batch_size: 8}"], {"train.epochs": 3, "train.batch_size": 8}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_told_is_what_runs(
    mine: Path, composed: Callable[..., Any], arguments: list[str], expected: dict[str, Any]
) -> None:
    found, of_hydra = composed([a.replace("MINE", str(mine)).replace("CONF", str(CONF)) for a in arguments])
    steps = {step.group: step for step in (found.data, found.model, found.train, *found.transforms, found.quant)}
    for key, value in expected.items():
        section, _, name = key.partition(".")
        of = steps[section].settings if section in steps else getattr(found, section)
        assert (
            getattr(of, name) if name else getattr(of, "name", of) if section not in steps else steps[section].name
        ) == value
    assert [getattr(found, f) for f in found.__dataclass_fields__ if f != "text"] == [
        getattr(of_hydra, f) for f in of_hydra.__dataclass_fields__ if f != "text"
    ]
    assert load(yaml.safe_load(found.text), {}, variables=("epochs",)).seed == found.seed, "what is recorded is that"


def test_a_config_that_is_no_yaml_is_one_line_that_names_it(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(mine)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # back to what it was afterwards
    (mine / "prune/broken.yaml").write_text("defaults: [magnitude]\nepochs: [1\n", encoding="utf-8")
    assert run.done(["--config-dir", str(mine), "prune=broken"]) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"error: {mine}/prune/broken.yaml, line 3: ")
    assert said.count("\n") == 1


def test_help_shows_ones_own_options_too(mine: Path, place: Place) -> None:
    shown = place.run("--config-dir", str(mine), "--help").stdout
    assert "  prune=none (default), as_trained, magnitude, more, own, p1, p2\n" in shown
    assert "  +study=own\n" in shown


TINY = {"seconds": 1, "rounds": 3, "instances": 3, "operators": False}


@pytest.mark.long
def test_a_config_of_ones_own_is_what_workers_run(place: Place) -> None:
    folder = place.folder / "mine"
    sweeper = {"params": {"prune": ["none"], "quant": "none,f16"}}
    subdir = "${hydra.job.num}_${hydra.job.override_dirname}"
    own = {"seed": 42, "train": {"epochs": 2}, "benchmark": TINY, "hydra": {"sweeper": sweeper}}
    own["hydra"] |= {"sweep": {"dir": "jobs", "subdir": subdir}, "mode": "MULTIRUN"}
    write(folder / "mine.yaml", {"defaults": ["config", {"override hydra/launcher": "joblib"}, "_self_"], **own})
    done = place.run("--config-dir", "mine", "-cn", "mine", "tracking.experiment=compression")
    assert done.returncode == 0, done.stderr
    variants = place.variants(place.newest_sweep())
    assert set(variants) == {"none-none", "none-f16"}
    for record in (*variants.values(), *place.store().search("tags.kind = 'stage'")):
        recorded = yaml.safe_load(place.store().needed(record, "config.yaml").read_text(encoding="utf-8"))
        assert (recorded["seed"], recorded["train"]["epochs"]) == (42, 2)
    folders = {path.name for path in (place.folder / "jobs").iterdir() if path.is_dir()}
    told = "prune=none,quant={},tracking.experiment=compression"
    dense = f"narrow=none,{told.format('none')}"  # a baseline does nothing in every group
    assert folders == {f"0_{dense}", f"1_{dense}", f"2_{told.format('f16')}"}
    same = ["seed=42", "train.epochs=2", "prune=none", "quant=none,f16", "plan=true"]
    assert "to make: nothing; to convert and evaluate: 0" in place.run("-m", *same).stdout


def test_a_job_is_told_apart_from_its_settings(composed: Callable[..., Any]) -> None:
    """Whatever a variant's name holds arrives as it is, and is in neither the config nor the name of a folder."""
    line = Line([])
    told = {"run_id": "abc", "variant": "none-fiq data.path='/d/é$a'\"\\ ${x}", "stage": "key", "parallel": 2}

    class Named:
        name = told["variant"]
        key = told["stage"]
        config = SimpleNamespace(tracking=Tracking("sqlite:///it's $a.db", "é"))

    (override,) = launching.instructions(Job(Named(), Named()), "abc", 2)  # type: ignore[arg-type]
    config = line.loader.load_configuration("config", ["seed=1", override], run_mode=RunMode.RUN)
    arrived = yaml.safe_load(config.hydra.job.env_set[launching.INSTRUCTIONS])
    assert Sweep(**arrived["sweep"]) == Sweep(**told)  # type: ignore[arg-type]
    assert Tracking(**arrived["tracking"]) == Named.config.tracking
    assert config.hydra.job.override_dirname == "seed=1"
    assert "sweep" not in config


@pytest.mark.parametrize(
    ("typed", "for_hydra"),
    [
        # Of a config that is shown, what the option chosen does not take is left out.
        ("prune.epochs=3 quant.representative_images=7 --cfg job", "--cfg job"),
        ("prune=p1 prune.epochs=3 --cfg job", "prune=p1 prune.epochs=3 --cfg job"),
        # Else Hydra, which would refuse it, is made to take it: some variant may have it.
        ("prune=none,p1 prune.epochs=3 -m", "prune=none,p1 ++prune.epochs=3 -m"),
        ("prune={epochs: 3}", "++prune={epochs: 3}"),
        ("prune.layers.pattern=x train=none train.epochs=2", "++prune.layers.pattern=x train=none ++train.epochs=2"),
        # What no option of the group takes is for Hydra to refuse, and so is what only other data or models take.
        ("prune.epoch=3", "prune.epoch=3"),
        ("data.channels=1 model.alpha=0.5", "data.channels=1 model.alpha=0.5"),
    ],
)
def test_hydra_is_told_what_some_option_of_the_group_takes(typed: str, for_hydra: str) -> None:
    words = re.findall(r"\S+?=\{.*?\}|\S+", typed)
    line = Line(words)
    line.check()
    assert " ".join(line.for_hydra(words)) == for_hydra
    typed_again = [line.bare(word) for word in line.for_hydra(words)]
    assert typed_again == [word for word in words if word in typed_again], "names hold what was typed"


# --- Options stand anywhere, and the advice works ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("seed=1 -m prune=p1,p2", "seed=1 prune=p1,p2 -m"),
        ("seed=1 --config-dir conf train.epochs=2 -m", "seed=1 train.epochs=2 --config-dir conf -m"),
        ("-m seed=1 prune=p1", "-m seed=1 prune=p1"),
        ("seed=1 --info train.epochs=2", None),
    ],
)
def test_options_stand_anywhere(arguments: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(UserError, match="invalid choice"):
            in_hydras_order(arguments.split())
    else:
        assert in_hydras_order(arguments.split()) == expected.split()
        assert Line(in_hydras_order(arguments.split())).overrides


@pytest.mark.parametrize(
    "value",
    [
        "/d/été",
        "~/x",
        "a=b",
        "a(b)",
        "a)b",
        "it's",
        'say "x"',
        "a&b",
        "日本",
        "a;b|c",
        "C:\\dir\\",
        "x#y?",
        'naïve\'s "é"',
        "a!b",
    ],
)
@pytest.mark.parametrize("swept", [False, True])
def test_the_quotes_that_are_shown_work_in_a_shell(value: str, swept: bool) -> None:
    said = answers.unreadable(f"data.path={value}", swept)
    name, _, pasted = said.partition(": the value takes quotes: ")
    assert name == f"data.path={value}"
    printed = subprocess.run(["bash", "-c", f"printf %s {pasted}"], capture_output=True, check=True).stdout.decode()
    (override,) = OverridesParser.create().parse_overrides([printed])
    assert override.value() == value


def test_of_a_list_each_value_that_needs_them_gets_quotes() -> None:
    assert shlex.split(answers.unreadable("data.path=/été,/b", True).rpartition(": ")[2]) == ['data.path="/été",/b']
    said = answers.unreadable("data.path=/été,/b", True)
    assert "as one value: 'data.path=\"/été,/b\"'; as a sweep: " in said
    assert shlex.split(answers.unreadable("data.classes=[chat,été]", False).rpartition(": ")[2]) == [
        'data.classes=[chat,"été"]'
    ]


@pytest.mark.parametrize("name", ["é =[1] (x), {y}", "cats,dogs"])
@pytest.mark.parametrize("swept", [[], ["-m"]], ids=["", "-m"])
def test_a_path_with_a_comma_that_there_is_gets_quotes_as_a_whole(tmp_path: Path, name: str, swept: list[str]) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(UserError) as caught:
        Line(["data=image_folder", f"data.path={folder}", *swept]).check()
    (pasted,) = shlex.split(str(caught.value).rpartition("takes quotes: ")[2])
    (override,) = OverridesParser.create().parse_overrides([pasted])
    assert override.value() == str(folder)
    assert not override.is_sweep_override()


# --- A config of one's own ---------------------------------------------------------------------------------------


def test_a_config_without_the_default_settings_is_told_how_to_take_them(tmp_path: Path) -> None:
    write(tmp_path / "bare.yaml", {"train": {"epochs": 2}})
    write(tmp_path / "own/config.yaml", {"train": {"epochs": 2}})
    advice = "takes defaults: [config, _self_] as its first line"
    with pytest.raises(
        UserError, match=re.escape(f"{tmp_path}/bare.yaml: takes none of the default settings; {advice}")
    ):
        Line(["--config-dir", str(tmp_path), "--config-name", "bare", "plan=true"])
    with pytest.raises(
        UserError, match=r"/own/config.yaml: .*, another name, and --config-dir in place of --config-path"
    ):
        Line(["--config-path", str(tmp_path / "own")])
    with pytest.raises(UserError, match="first line, and --config-dir in place of --config-path"):
        Line(["--config-path", str(tmp_path), "--config-name", "bare"])


def test_a_config_that_has_every_setting_itself_needs_no_defaults(mine: Path) -> None:
    composed = Line([]).composed()
    tasks = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
    write(mine / "whole.yaml", OmegaConf.to_container(tasks))
    Line(["--config-dir", str(mine), "--config-name", "whole"]).check()


@pytest.mark.parametrize("ending", ["", ".yaml"])
def test_a_path_to_a_config_is_told_as_a_folder_and_a_name(
    mine: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.chdir(mine.parent)
    for path in (f"{mine}/mine{ending}", f"mine/mine{ending}"):
        with pytest.raises(UserError) as caught:
            Line(["--config-name", path])
        said, _, options = str(caught.value).partition(": is a path; takes a name: ")
        assert said == f"--config-name={path}"
        assert Line(shlex.split(options)).composed().seed == 42


def test_the_config_of_a_sweep_without_lists_is_shown(place: Place) -> None:
    done = place.run("-m", "seed=7", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["seed"] == 7


# --- The ends of a process ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["run", "pick", "verify", "compare", "export", "benchmark"])
def test_a_reader_that_goes_away_is_no_error(place: Place, module: str) -> None:
    process = place.start("--help", module=f"src.{module}")
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_ctrl_c_while_a_command_imports_is_one_line(place: Place) -> None:
    (place.folder / "slow.py").write_text(
        "print('importing', flush=True)\nimport time\ntime.sleep(60)\n", encoding="utf-8"
    )
    # An import of the command's that takes its time, so that the signal meets it.
    (place.folder / "hydra.py").write_text("import slow\n", encoding="utf-8")
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join([str(place.folder), env["PYTHONPATH"]])
    process = subprocess.Popen(
        [sys.executable, "-m", "src.run"], cwd=place.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"importing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert said == b"interrupted\n"
    assert process.returncode == -signal.SIGINT, "a shell shows 130"
