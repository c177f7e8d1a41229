"""What the command line promises before any work: one line for what it can't use, and help that teaches."""

import importlib.util
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Place, environment

from src import run
from src.cli import application


def no_images(folder: Path) -> None:
    for name in ("cat", "dog"):
        (folder / "pictures" / name).mkdir(parents=True)
        (folder / "pictures" / name / "notes.txt").write_text("no image")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own for a command that is answered in this process, which is as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # back to what it was afterwards
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield tmp_path
    root.handlers[:] = before
    root.setLevel(level)


WRONG = [
    (["prune=p9"], "prune=p9: no such option; takes one of magnitude, more, none, p1, p2"),
    (["-m", "prune=p9,p1"], "prune=p9: no such option; takes one of magnitude, more, none, p1, p2"),
    (["prune.final_sparsity=1.5"], "prune.final_sparsity=1.5: takes a number of at least 0 and below 1"),
    (["-m", "prune.final_sparsity=0.5,1.5"], "prune.final_sparsity=1.5: takes a number of at least 0 and below 1"),
    (["quant.representative_images=0"], "quant.representative_images=0: takes a whole number of at least 1"),
    (["train.epochs=abc"], "train.epochs=abc: takes a whole number of at least 1"),
    (["prunee=p1"], "prunee: no such key; did you mean prune?"),
    (["prune.final_sparsty=0.3"], "prune.final_sparsty: no such key; did you mean prune.final_sparsity?"),
    (["prune=null"], "prune=null: no such option; takes one of magnitude, more, none, p1, p2"),
    (["-m", "quant=drq,null"], "quant=null: no such option; takes one of drq, f16, fiq, none"),
    (["data.path=/nowhere"], "data.path: the option chosen has no such key; data=image_folder or npz has it"),
    (["quant=drg"], "quant=drg: no such option; did you mean drq? takes one of drq, f16, fiq, none"),
    (["train.lr=0.1"], "train.lr: no such key; did you mean train.learning_rate? train takes "),
    (["prune.optimiser=sgd"], "prune.optimiser: no such key; did you mean prune.optimizer? prune takes "),
    (["model.preproces.mean=1"], "model.preproces.mean: no such key; did you mean model.preprocess.mean?"),
    (
        ["hydra.launcher.n_jobs=2"],
        "hydra.launcher.n_jobs: the launcher chosen has no such key; hydra/launcher=joblib or",
    ),
    (["hydra.sweep.dir=null"], "hydra.sweep.dir=null: field 'hydra.sweep.dir' is not Optional"),
    (
        ["hydra.sweep.dirr=x"],
        "hydra.sweep.dirr: no such key; did you mean hydra.sweep.dir? hydra.sweep takes dir, subdir",
    ),
    (["-m", "hydra.sweep.dir=pictures/cat/notes.txt/x"], "hydra.sweep.dir=pictures/cat/notes.txt/x: "),
    (
        ["-m", "hydra.sweep.dir=/dev/null/x"],
        "hydra.sweep.dir=/dev/null/x: /dev/null can't be written (Not a directory)",
    ),
    (["hydra/launcher=nothing"], "hydra/launcher=nothing: no such option; takes one of basic"),
    (["model.preprocess.std=[1,0,1]"], "model.preprocess.std=0: takes a number above 0"),
    (["tracking=server"], "tracking.uri=null: takes sqlite:///FILE, or a server's http://HOST:PORT"),
    (["tracking=server", "tracking.uri=http://127.0.0.1:9"], "tracking.uri=http://127.0.0.1:9: does not answer (Conn"),
    (["data=image_folder"], "data.path=null: takes a folder with a folder of images for each class"),
    (["data=image_folder", "data.path=/nowhere"], "data.path=/nowhere: "),
    (["data=image_folder", "data.path=pictures"], "data.path=pictures"),
    (["seed=-1"], "seed=-1: takes a whole number of at least 0 and below 4294967296"),
    (["tracking.uri=nonsense"], "tracking.uri=nonsense: takes sqlite:///FILE"),
    (["tracking.uri=mysql://localhost/x"], "tracking.uri=mysql://localhost/x: takes the package MySQLdb, which is not"),
    (["tracking.uri=sqlite:////dev/null/mlflow.db"], "tracking.uri=sqlite:////dev/null/mlflow.db: "),
    (["prune=p1", "prune.begin=0.9", "prune.end=0.1"], "prune: end=0.1 lies before begin=0.9"),
    (["model._target_=src.models.none.build"], "model._target_=src.models.none.build: takes the dotted path"),
    (["prune==p1"], "prune==p1: the value takes quotes: 'prune=\"=p1\"'"),
    # What Hydra 1.3 ends in a traceback or an internal error for.
    (["experiment=null"], "experiment=null: no such option; takes one of cifar10_resnet8"),
    (["prune=true"], "prune=true: no such option; takes one of"),
    (["hydra/launcher={a:1}"], "hydra/launcher={a:1}: takes one of basic"),
    (["prune={a:1}"], "prune.a: no such key; prune takes batch_size"),
    (["prune=[p1,p2]"], "prune=[p1,p2]: takes one option; -m prune=p1,p2 sweeps"),
    (["-m", "prune=range(3)"], "prune=0: no such option; takes one of"),
    (["-m", "prune=glob(x*)"], "prune=glob(x*): is a sweep over nothing"),
    (["-m", "seed=range(0,-5)"], "seed=range(0,-5): is a sweep over nothing"),
    (["-m", "seed=range(0,9,0)"], "seed=range(0,9,0): range() arg 3 must not be zero"),
    (["-m", "seed=interval(0,1)"], "seed=interval(0,1): takes values that can be counted"),
    (["-m", "seed=range(0,1000000000)"], "seed=range(0,1000000000): makes more than 100,000 variants"),
    (["prune=p1,p2"], "prune=p1,p2: is a sweep, which takes -m\n"),
    (["data.seed=1,2"], "data.seed=1,2: is a sweep, which takes -m; as a list it is data.seed=[1,2]\n"),
    (["-m", "prune=p1,", "p2"], "prune=p1, p2: a space after the comma? takes prune=p1,p2\n"),
    (["-m", "seed=0,", "1,", "2", "prune=p1"], "seed=0, 1, 2: a space after the comma? takes seed=0,1,2\n"),
    (["augment=[1,", "2]"], "augment=[1, 2]: a space after the comma? takes 'augment=[1,2]'\n"),
    (["~prune"], "prune: is left out, and transforms names it; takes an option, such as prune=none"),
    (["~quant"], "quant: is left out; every run takes it"),
    (["~seed"], "seed: is left out; every run takes it"),
    (["~augment"], "augment: is left out; every run takes it"),
    (["=3"], "=3: takes KEY=VALUE, such as seed=1"),
    (["seed"], "seed: takes KEY=VALUE, such as seed=1"),
    (["seed=[1"], "seed=[1: can't be read; quotes, brackets and braces come in pairs"),
    # What nothing reads, and what only a job is told.
    (["+foo=1"], "foo: no such key; nothing reads it"),
    (["++foo={a:1}"], "foo: no such key; nothing reads it"),
    (["+prune.foo=1"], "prune.foo: no such key; prune takes "),
    (["+prune@other=p1"], "other: no such key; nothing reads it"),
    (["sweep.stage=quant"], "sweep.stage: no such key"),
    (["hydra.sweeper.max_batch_size=3"], "hydra.sweeper.max_batch_size: no such key"),
    (
        ["transforms=[prune]", "narrow=half"],
        "narrow=half: transforms does not name it; takes it there, such as 'transforms=[narrow,prune]'",
    ),
    (["transforms=[clip]"], "transforms=clip: no such config group; there are benchmark, data, "),
    (["transforms=[train]"], "transforms=train: takes config groups of steps between train and quant, each once"),
    (["transforms=[prune,prune]"], "transforms=prune: takes config groups of steps between train and quant, each once"),
    # Types that Python takes for others.
    (["seed=true"], "seed=true: takes a whole number of at least 0 and below 4294967296"),
    (["model.preprocess.std=[1,true,1]"], "model.preprocess.std=true: takes a number above 0"),
    (["data=image_folder", "data.path=x", "data.channels=true"], "data.channels=true: takes one of 1, 3"),
    (
        ["data=image_folder", "data.path=2024"],
        "data.path=2024: takes a folder with a folder of images for each class; as",
    ),
    # A policy that can't work.
    (["prune.layers.pattern='('"], "prune.layers.pattern: '(' is no regular expression"),
    (["prune.rules=[{layers: '(', final_sparsity: 0.9}]"], "prune.rules.layers: '(' is no regular expression"),
    (["prune.rules=[{layers:x,final:0.9}]"], "prune.rules.final: no such key; prune.rules takes layers, "),
    (["prune.rules=[{layer:x}]"], "prune.rules.layer: no such key; prune.rules takes layers, initial_sparsity, "),
    (
        ["-m", "prune=none,p1", "prune.rules={layers:c,final_sparsity:0.5}"],
        "prune.rules={layers:c,final_sparsity:0.5}: takes a list: prune.rules=[{layers:c,final_sparsity:0.5}]\n",
    ),
    # Channels that can't go.
    (["narrow=half", "narrow.keep=0"], "narrow.keep=0: takes a number above 0 and below 1\n"),
    (["narrow=half", "narrow.keep=1.2"], "narrow.keep=1.2: takes a number above 0 and below 1\n"),
    (["narrow=half", "narrow.score=luck"], "narrow.score=luck: takes one of magnitude, taylor, batch_norm, random"),
    (["narrow=half", "narrow.steps=9", "narrow.epochs=3"], "narrow.steps=9: takes at most epochs=3, which the steps"),
    (["audit.compressors={a:1}"], "audit.compressors={a:1}: takes a list: audit.compressors=[{a:1}]\n"),
    (
        ["-m", "prune=p1", "prune.optimizer=adam,sgd", "prune.momentum=0.9"],
        "prune.momentum=0.9: optimizer=adam has none; takes optimizer=sgd\n",
    ),
    (["prune.layers.types=[Conv2d]"], "prune.layers.types=Conv2d: no layer with a kernel; did you mean Conv2D?"),
    # Interpolations.
    (["train.epochs=${nosuch}"], "train.epochs: Interpolation key 'nosuch' not found"),
    (["-m", "hydra.sweep.subdir=${nosuch}"], "hydra.sweep.subdir: Interpolation key 'nosuch' not found"),
    (
        ["-m", "hydra.sweep.subdir=${hydra.job.override_dirname}", f"tracking.experiment={'x' * 250}"],
        "hydra.sweep.subdir: ",
    ),
    (["hydra.run.dir=/proc/x"], "hydra.run.dir=/proc/x: No such file or directory; takes a folder that can be written"),
    # Options.
    (["--nosuch"], "unrecognized arguments: --nosuch"),
    (["--cfg", "job", "--run"], "--run and --cfg: takes one of them"),
    (
        ["-m", "prune=p1,p2", "--cfg", "job"],
        "prune=p1,p2: --cfg shows the config of one variant; takes one value, such as",
    ),
    (
        ["--config-name", "/x/mine.yaml"],
        "--config-name=/x/mine.yaml: is a path; takes a name: --config-dir /x --config-name mine\n",
    ),
    (["--resolve"], "--resolve: goes with --cfg job"),
    (["--cfg", "job", "--package", "nosuch"], "--package nosuch: no such key in the config"),
    (["--info", "foo"], "argument --info/-i: invalid choice: 'foo'"),
    (["--config-name", "nosuch"], "--config-name=nosuch: no such config; there is config"),
    (["--config-dir", "nowhere"], "--config-dir=nowhere: no such folder"),
    (["--config-path", "nowhere"], "--config-path=nowhere: no such folder; takes a whole path, such as /"),
    (["--experimental-rerun", "x.pkl"], "--experimental-rerun x.pkl: a pickled config can run code and is not taken"),
]


@pytest.mark.parametrize(("arguments", "line"), WRONG, ids=[" ".join(arguments)[:70] for arguments, _ in WRONG])
def test_wrong_input_is_one_line_with_exit_code_2(
    here: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    no_images(here)
    assert run.done(arguments) == 2
    printed = capfd.readouterr()
    assert printed.err.startswith(f"error: {line}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert "Traceback" in (here / "mlruns/hydra/errors.log").read_text(encoding="utf-8")
    assert not (here / "mlruns/mlflow.db").exists(), "nothing was recorded"
    if "-m" in arguments:
        assert [file.name for file in (here / "mlruns/hydra").iterdir()] == ["errors.log"]


def test_a_store_that_cannot_be_written_is_one_line(place: Place) -> None:
    (place.folder / "mlruns").write_text("a file where the folder should be")
    done = place.run("prune=p1")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*mlruns.*\n", done.stderr), done.stderr


def test_a_file_that_is_no_store_is_one_line_and_gets_no_company(place: Place) -> None:
    (place.folder / "notes.md").write_text("what the store should not be")
    done = place.run("-m", "tracking.uri=sqlite:///notes.md", "plan=true")
    assert done.returncode == 2
    told = "tracking.uri=sqlite:///notes.md: notes.md is no SQLite database; takes one, or a new file"
    assert done.stderr == f"error: {told}\n"
    assert {file.name for file in place.folder.iterdir()} == {"notes.md", "mlruns"}


@pytest.mark.skipif(importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None, reason="needs joblib")
def test_no_workers_are_no_number_of_workers(place: Place) -> None:
    done = place.run("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0", "plan=true")
    assert done.returncode == 2
    assert done.stderr == "error: hydra.launcher.n_jobs=0: takes a number of workers; -1 is one for each core\n"


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_a_launcher_that_is_not_installed_says_how_it_would_be(place: Place) -> None:
    done = place.run("-m", "hydra/launcher=ray")
    assert done.returncode == 2
    assert done.stderr == "error: hydra/launcher=ray: is not installed; `make setup EXTRAS=dev,ray` installs it\n"


def test_wrong_input_is_told_before_tensorflow_and_mlflow_are_imported(place: Place) -> None:
    code = """
import sys
sys.argv = ["run", "train.epochs=abc"]
from src.run import main
try:
    main()
except SystemExit as end:
    assert end.code == 2
slow = {"tensorflow", "tf_keras", "mlflow"} & set(sys.modules)
assert not slow, slow
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place.folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_command_that_goes_on_needs_no_activated_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    python = Path(sys.executable).parent.resolve() / Path(sys.executable).name  # .venv may be a link
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(application, "_typed", ["-m", "experiment=smoke"])
    monkeypatch.setenv("PATH", str(python.parent))
    assert application.command_line() == "python -m src.run -m experiment=smoke"
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(python.parent.parent)
    assert application.command_line() == f"bin/{python.name} -m src.run -m experiment=smoke"


def test_help_shows_groups_options_and_examples(place: Place) -> None:
    done = place.run("--help")
    assert done.returncode == 0
    for expected in (
        "python -m src.run -m prune=p1,p2 quant=drq,fiq,f16",
        "quant=none (default), drq, f16, fiq",
        "epochs: 100",
    ):
        assert expected in done.stdout
    others = done.stdout.partition("Settings of other options")[2]
    assert "optimizer: adam" in others, "from the file that magnitude.yaml places in itself"
    assert not re.search(r"^ *_", done.stdout, re.MULTILINE), "what begins with _ is no setting"


@pytest.mark.parametrize("mode", [[], ["plan=true"]], ids=["run", "plan"])
def test_a_plan_refuses_what_the_run_would(place: Place, mode: list[str]) -> None:
    no_images(place.folder)
    (place.folder / "model.h5").write_text("no model")
    done = place.run("model=saved", "model.path=model.h5", "train=none", *mode)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: model.path=model.h5: ")
    assert not (place.folder / "mlruns/mlflow.db").exists()
