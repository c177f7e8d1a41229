"""The process that stages run in: what comes back from it, and what its death costs."""

import logging
import os
import pty
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Place, environment

from src.console import progress
from src.pipeline import worker
from src.settings.check import UserError

TINY = (
    "experiment=smoke",
    "train.epochs=1",
    "prune.epochs=1",
    "benchmark.seconds=1",
    "benchmark.operators=false",
    "quant=none",
)


LAUNCHERS = [
    pytest.param([], id="here"),
    pytest.param(["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], id="joblib", marks=pytest.mark.long),
]


@pytest.fixture(scope="module", autouse=True)
def stopped() -> Iterator[None]:
    yield
    worker.stop()


def add(first: int, second: int) -> int:
    return first + second


def process_id() -> int:
    return os.getpid()


def die_of(number: signal.Signals) -> None:
    progress.at("epoch 3/8")
    os.kill(os.getpid(), number)


def end(code: int) -> None:
    os.write(2, b"free(): invalid pointer\n")
    os._exit(code)


def refuse() -> None:
    raise UserError("train.epochs=0: takes more")


def fail() -> None:
    raise MemoryError("no room for 3 GB")


def say(lines: int) -> None:
    for i in range(lines):
        logging.getLogger("src.said").info("line %d", i)


def test_a_call_gives_what_the_function_gives_and_the_process_lives_on() -> None:
    first = worker.call(process_id)
    assert first != os.getpid()
    assert worker.call(add, 2, 3) == 5
    assert worker.call(process_id) == first


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGSEGV, "died of SIGSEGV"),
        (signal.SIGABRT, "died of SIGABRT"),
        (signal.SIGKILL, "was killed (SIGKILL), probably for want of memory"),
    ],
)
def test_a_crash_is_a_failure_with_its_signal_and_what_was_done_and_the_next_call_works(
    number: signal.Signals, how: str
) -> None:
    with pytest.raises(worker.Failed) as failed:
        worker.call(die_of, number)
    assert str(failed.value) == f"its process {how} at: epoch 3/8"
    assert worker.call(add, 2, 3) == 5


def test_what_native_code_says_at_its_end_is_in_the_reason() -> None:
    with pytest.raises(worker.Failed, match=r"its process ended with exit code 3 \(free\(\): invalid pointer\)"):
        worker.call(end, 3)


def test_exceptions_come_back_with_their_traceback_and_cost_no_process() -> None:
    first = worker.call(process_id)
    with pytest.raises(UserError, match=r"train\.epochs=0: takes more") as refused:
        worker.call(refuse)
    with pytest.raises(worker.Failed, match="MemoryError: no room for 3 GB") as failed:
        worker.call(fail)
    assert "in refuse" in "".join(refused.value.__notes__)
    assert "in fail" in "".join(failed.value.__notes__)
    assert worker.call(process_id) == first


def test_what_is_logged_there_is_logged_here_before_the_call_returns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    worker.call(say, 50)
    assert [r.getMessage() for r in caplog.records if r.name == "src.said"] == [f"line {i}" for i in range(50)]


def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    code = "import os; from src.pipeline import worker; print(worker.call(os.getpid), flush=True); worker.call(input)"
    command = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert command.stdout
    there = psutil.Process(int(command.stdout.readline()))
    command.kill()
    command.wait()
    there.wait(30)


def leave_files() -> str:
    Path(tempfile.gettempdir(), "__autograph_generated_file.py").touch()
    return tempfile.gettempdir()


def test_what_the_process_left_in_its_temporary_folder_goes_with_it() -> None:
    folder = Path(worker.call(leave_files))
    with worker.scratch() as scratch:
        assert Path(scratch).parent == folder
        with pytest.raises(worker.Failed):
            worker.call(die_of, signal.SIGKILL)
    assert not folder.exists()
    other = Path(worker.call(leave_files))
    worker.stop()
    assert not other.exists()


def test_a_command_that_is_killed_leaves_no_temporary_files(tmp_path: Path) -> None:
    code = """
import os, tempfile, time
from pathlib import Path
from src.pipeline import worker
folder = worker.scratch()
Path(folder.name, "checkpoint").touch()
print(worker.call(os.getpid), worker.call(tempfile.mkdtemp), flush=True)
worker.call(time.sleep, 600)
"""
    command = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**environment(), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout
    pid, made = command.stdout.readline().split()
    assert Path(made).is_relative_to(tmp_path)
    there = psutil.Process(int(pid))
    command.kill()
    command.wait()
    there.wait(30)
    assert list(tmp_path.iterdir()) == []


CRASHES = """
import os, signal
from dataclasses import dataclass

@dataclass
class Nothing:
    pass

def crash(config: Nothing, parent, task, checkpoint):
    os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.mark.parametrize("options", LAUNCHERS)
def test_native_code_that_crashes_costs_one_stage(place: Place, options: list[str]) -> None:
    if options:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="make setup EXTRAS=dev,joblib")
    (place.folder / "mine.py").write_text(CRASHES)
    (place.folder / "more/prune").mkdir(parents=True)
    (place.folder / "more/prune/mine.yaml").write_text("_target_: mine.crash\n")
    settings = [setting for setting in TINY if not setting.startswith("prune.")]
    done = place.run("-m", "--config-dir=more", *settings, "prune=none,mine", "quant=none,drq", *options)
    assert done.returncode == 1
    assert "failed: mine-none: mine: its process died of SIGSEGV at: prune: small_cnn" in done.stderr
    assert "Traceback" not in done.stderr
    sweep = place.newest_sweep()
    assert {name: r.status for name, r in place.variants(sweep).items()} == {
        "none-none": "FINISHED",
        "none-drq": "FINISHED",
    }
    (failed,) = (r for r in place.store().search("tags.kind = 'stage'") if r.name == "mine")
    assert failed.status == "FAILED"
    assert failed.tags["error"] == "its process died of SIGSEGV at: prune: small_cnn"


@pytest.mark.long
def test_the_command_does_not_import_tensorflow(place: Place) -> None:
    code = f"""
import sys
sys.argv = ["run", "-m", *{TINY!r}]
from src.run import main
try:
    main()
except SystemExit as end:
    assert not end.code
assert not {{"tensorflow", "tf_keras"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place.folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", [[], pytest.param(["-m"], marks=pytest.mark.long)], ids=["one", "sweep"])
def test_paths_are_those_of_where_the_command_began(place: Place, mode: list[str]) -> None:
    done = place.run(*mode, *TINY, "hydra.job.chdir=true")
    assert done.returncode == 0, done.stderr
    assert place.newest_sweep().status == "FINISHED"
    assert [p.relative_to(place.folder) for p in place.folder.rglob("mlflow.db")] == [Path("mlruns/mlflow.db")]


@pytest.mark.parametrize("options", LAUNCHERS)
def test_a_terminal_that_hangs_up_leaves_no_process_and_no_running_run(place: Place, options: list[str]) -> None:
    if options:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="make setup EXTRAS=dev,joblib")
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(place.folder)
        command = [sys.executable, "-m", "src.run", "-m", *TINY, "train.epochs=5000", "seed=0,1", *options]
        os.execve(sys.executable, command, environment())
    said = b""
    while b"train: small_cnn" not in said:
        said += os.read(terminal, 4096)
    time.sleep(8)  # the training has begun
    left = psutil.Process(pid).children(recursive=True)
    assert left
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    _, alive = psutil.wait_procs(left, timeout=30)
    assert not alive, [p.cmdline() for p in alive]
    assert {r.status for r in place.store().search("tags.kind != 'x'")} == {"KILLED"}
