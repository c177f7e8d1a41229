"""The store: where it and its artifacts are, what may change it, and what is said when it can't be used."""

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT, Place, environment

from src import compare, export, pick, verify
from src.machine import locks, writable
from src.results import recorded
from src.settings.check import UserError
from src.settings.sections import Tracking
from src.store import opening, registry, sqlite
from src.store.artifacts import Away, Damaged, Record, sha256
from src.store.names import CHECKPOINT
from src.store.opening import Nothing
from src.store.store import Store, existing
from src.store.waiting import NoAnswer
from src.sweep import plan


def at(folder: Path, experiment: str = "compression") -> Tracking:
    return Tracking(uri=f"sqlite:///{folder}/mlruns/mlflow.db", experiment=experiment, retry_seconds=0)


@functools.cache
def _database() -> bytes:
    """Of a store in which nothing is recorded yet; MLflow takes a second to make one."""
    with tempfile.TemporaryDirectory() as scratch:
        return made_now(Path(scratch)).read_bytes()


def made_in(folder: Path, experiment: str = "compression") -> Store:
    """A new store in a folder."""
    (folder / "mlruns").mkdir(parents=True)
    (folder / "mlruns/mlflow.db").write_bytes(_database())
    return Store(at(folder, experiment))


def trained(store: Store, key: str = "key", content: str = "weights") -> str:
    """A FINISHED training with a checkpoint; gives its run's id."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / Path(CHECKPOINT).name
        file.write_text(content, encoding="utf-8")
        tags = {"stage": "train", "key": key, "digest": sha256(file)}
        with store.run("stage", "train", tags=tags, params={}) as run_id:
            store.keep(run_id, file, str(Path(CHECKPOINT).parent))
    return run_id


def checkpoint(store: Store, run_id: str) -> Path:
    return store.recorded(store.get(run_id), CHECKPOINT)


def content(folder: Path) -> dict[str, str]:
    """Of every file below a folder, by its path."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def through_mlflow(folder: Path, run_id: str) -> str:
    """What MLflow itself, and so its UI, finds as the checkpoint of a run."""
    import mlflow

    uri = f"sqlite:///{folder}/mlruns/mlflow.db"
    return Path(mlflow.MlflowClient(uri).download_artifacts(run_id, CHECKPOINT)).read_text(encoding="utf-8")


# --- A folder that was moved or copied ---------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, str]:
    """A project with one training in its store, and that training's run."""
    store = made_in(tmp_path / "project")
    run_id = trained(store)
    sqlite.close(store.hurried)  # as when a command ends
    return tmp_path / "project", run_id


def test_a_store_that_was_moved_has_its_artifacts_where_it_is_now(project: tuple[Path, str], tmp_path: Path) -> None:
    before, run_id = project
    moved = tmp_path / "elsewhere" / "new name"
    moved.parent.mkdir()
    before.rename(moved)
    assert checkpoint(Store(at(moved), looking=True), run_id).is_relative_to(moved), "to who looks"
    store = Store(at(moved))
    assert checkpoint(store, trained(store, "another")).is_relative_to(moved)
    assert not before.exists(), "nothing goes to where the store was"
    assert through_mlflow(moved, run_id) == "weights"
    moved.rename(before)
    assert checkpoint(Store(at(before)), run_id).is_relative_to(before), "and back again"


def test_a_copys_runs_go_into_the_copy(project: tuple[Path, str], tmp_path: Path) -> None:
    original, run_id = project
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    untouched = content(original)
    store = Store(at(copy))
    another = trained(store, "another", "others")
    assert checkpoint(store, run_id).is_relative_to(copy)
    assert (through_mlflow(copy, run_id), through_mlflow(copy, another)) == ("weights", "others")
    store.mark_damaged(store.get(run_id), "as an example")
    assert content(original) == untouched


def test_of_a_database_that_was_copied_alone_the_old_runs_are_read_where_they_are(
    project: tuple[Path, str], tmp_path: Path
) -> None:
    original, run_id = project
    (tmp_path / "copy/mlruns").mkdir(parents=True)
    shutil.copy(original / "mlruns/mlflow.db", tmp_path / "copy/mlruns")
    store = Store(at(tmp_path / "copy"))
    assert checkpoint(store, trained(store, "another")).is_relative_to(tmp_path / "copy")
    assert checkpoint(store, run_id).is_relative_to(original)
    assert through_mlflow(tmp_path / "copy", run_id) == "weights"


def test_an_empty_store_that_was_copied_keeps_to_itself(tmp_path: Path) -> None:
    made_in(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    store = Store(at(tmp_path / "two"))
    assert checkpoint(store, trained(store)).is_relative_to(tmp_path / "two")


def test_artifacts_that_are_kept_elsewhere_on_purpose_stay_there(project: tuple[Path, str], tmp_path: Path) -> None:
    here, _ = project
    place = tmp_path / "large disk" / "artifacts"
    Store(at(here)).client.create_experiment("large", artifact_location=place.as_uri())
    place.mkdir(parents=True)
    moved = tmp_path / "moved"
    here.rename(moved)
    store = Store(at(moved, "large"))
    assert checkpoint(store, trained(store)).is_relative_to(place)


def test_a_registered_model_moves_with_its_store(project: tuple[Path, str], tmp_path: Path) -> None:
    here, run_id = project
    client = Store(at(here)).client
    client.create_registered_model("model")
    client.create_model_version("model", f"{client.get_run(run_id).info.artifact_uri}/checkpoint", run_id)
    here.rename(tmp_path / "moved")
    version = Store(at(tmp_path / "moved")).client.get_model_version("model", "1")
    assert version.source == f"{(tmp_path / 'moved').as_uri()}/mlruns/artifacts/{run_id}/artifacts/checkpoint"


# --- Artifacts that are away, or damaged -------------------------------------------------------------------------


def statuses(store: Store) -> set[str]:
    return {record.status for record in store.search("tags.kind != 'x'")}


@pytest.mark.parametrize("emptied", [False, True])
def test_artifacts_that_are_all_away_stop_every_command_in_one_line(
    place: Place, capsys: pytest.CaptureFixture[str], emptied: bool
) -> None:
    artifacts = place.folder / "mlruns/artifacts"
    trained(made_in(place.folder))
    artifacts.rename(place.folder / "unplugged")
    if emptied:
        artifacts.mkdir()
    done = place.run("-m", "plan=true")
    assert (done.returncode, done.stdout) == (2, "")
    line = r"error: tracking.uri=.*: the artifacts of its runs are away: .*/mlruns/artifacts is .*\n"
    assert re.fullmatch(line, done.stderr)
    with pytest.raises(UserError, match="the artifacts of its runs are away"):
        recorded.open_store(at(place.folder))
    assert statuses(Store(at(place.folder))) == {"FINISHED"}


def test_a_run_whose_artifacts_are_away_is_passed_over_and_not_closed(
    project: tuple[Path, str], caplog: pytest.LogCaptureFixture
) -> None:
    folder, away = project
    store = Store(at(folder))
    there = trained(store, "another")
    shutil.rmtree(folder / "mlruns/artifacts" / away)
    damaged: list[tuple[Record, str]] = []
    found = plan._intact(store, "stage", ["key", "another"], damaged)
    assert {key: record.run_id for key, record in found.items()} == {"another": there}
    assert not damaged
    assert f"run {away}: its artifacts are not in {folder}/mlruns/artifacts" in caplog.text
    with pytest.raises(Away):
        store.needed(store.get(away), CHECKPOINT)
    assert statuses(store) == {"FINISHED"}


def test_a_file_that_is_missing_or_altered_in_a_folder_that_is_there_is_damaged(project: tuple[Path, str]) -> None:
    folder, run_id = project
    store = Store(at(folder))
    file = checkpoint(store, run_id)
    file.write_text("altered", encoding="utf-8")
    with pytest.raises(Damaged, match="is not what was recorded"):
        checkpoint(store, run_id)
    file.unlink()
    with pytest.raises(Damaged, match="is missing"):
        store.needed(store.get(run_id), CHECKPOINT)
    assert statuses(store) == {"FAILED"}


class Answers(BaseHTTPRequestHandler):
    """Lists one file in every folder of artifacts, unless `lists` is false, and answers all else with one code."""

    code, lists = 200, True

    def do_GET(self) -> None:
        listing = self.lists and "artifacts?path=" in self.path
        body = b'{"files": [{"path": "config.yaml", "is_dir": false, "file_size": 1}]}' if listing else b"no"
        self.send_response(200 if listing else self.code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Callable[..., str]]:
    """Starts a server that answers with a code; gives its address."""
    with contextlib.ExitStack() as running:

        def start(code: int, lists: bool = True) -> str:
            handler = type("Handler", (Answers,), {"code": code, "lists": lists})
            served = running.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=served.serve_forever, daemon=True).start()
            running.callback(served.shutdown)
            return f"http://127.0.0.1:{served.server_port}"

        yield start


@pytest.mark.parametrize(
    ("code", "lists", "error", "status"),
    [
        (404, True, Damaged, "FAILED"),
        (404, False, Away, "FINISHED"),
        (500, True, NoAnswer, "FINISHED"),
        (403, True, UserError, "FINISHED"),
    ],
)
def test_only_what_is_surely_missing_from_a_server_closes_its_run(
    server: Callable[..., str], tmp_path: Path, code: int, lists: bool, error: type[Exception], status: str
) -> None:
    place = f"{server(code, lists)}/api/2.0/mlflow-artifacts/artifacts/1"
    made_in(tmp_path).client.create_experiment("far", artifact_location=place)
    store = Store(at(tmp_path, "far"))
    with store.run("stage", "train", tags={"stage": "train", "key": "key", "digest": "0" * 64}, params={}) as run_id:
        pass
    with pytest.raises(error):
        store.needed(store.get(run_id), CHECKPOINT)
    assert store.get(run_id).status == status


# --- Stores that another MLflow made, and looking ----------------------------------------------------------------


def older(path: Path) -> None:
    """A store as MLflow made it ten migrations ago, with its own migrations."""
    import mlflow.store.db.utils as mlflow_db
    import sqlalchemy
    from alembic import command as alembic
    from alembic.script import ScriptDirectory
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    settings = mlflow_db._get_alembic_config(str(engine.url))
    revisions = [script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()]
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        alembic.upgrade(settings, revisions[10])
    engine.dispose()


def newer(path: Path) -> None:
    path.write_bytes(_database())
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'fedcba987654'")


def another_programs(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE songs (name TEXT)")


def made_now(folder: Path) -> Path:
    sqlite.make(folder / "now.db")
    return folder / "now.db"


OTHERS = [
    (
        older,
        "was made by an older MLflow than .*; after a backup, `.*python -m mlflow db upgrade .*/mlflow.db` migrates it",
    ),
    (newer, "was made by another version of MLflow than .* can read .*; takes a newer MLflow, or another store"),
    (another_programs, "holds tables that MLflow has not made; takes a store, or a new database"),
]
LOOKS: dict[str, Callable[[Tracking], object]] = {
    "run": Store,
    "plan": lambda there: existing(there, looking=True),
    "pick": lambda there: pick.pick(pick.Settings(tracking=there)),
    "pick register=false": lambda there: pick.pick(pick.Settings(tracking=there, register=False)),
    "verify": lambda there: verify.verify(verify.Settings(tracking=there)),
    "compare": lambda there: compare.compare(compare.Settings(tracking=there, sweep="a,b")),
    "export": lambda there: export.export(export.Settings(tracking=there, to="device")),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize(("make", "line"), OTHERS, ids=lambda value: getattr(value, "__name__", ""))
def test_no_command_changes_a_store_that_another_program_or_version_made(
    tmp_path: Path, make: Callable[[Path], None], line: str, look: Callable[[Tracking], object]
) -> None:
    (tmp_path / "mlruns").mkdir()
    make(tmp_path / "mlruns/mlflow.db")
    before = content(tmp_path)
    with pytest.raises(UserError, match=line) as error:
        look(at(tmp_path))
    assert "\n" not in str(error.value)
    after = content(tmp_path)
    after.pop("mlruns/mlflow.lock", None)  # who would write waits there for others that do
    assert after == before


def test_the_command_that_migrates_an_older_store_makes_it_one_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "mlruns").mkdir()
    older(tmp_path / "mlruns/mlflow.db")
    with pytest.raises(UserError) as error:
        Store(at(tmp_path))
    told = re.search("`(.*)`", str(error.value))
    assert told
    subprocess.run(told[1], shell=True, check=True, env=environment(), capture_output=True)
    trained(Store(at(tmp_path)))


def test_an_interrupted_first_start_leaves_no_half_of_a_store(tmp_path: Path) -> None:
    """MLflow's tables are made beside, and are there at once."""
    (tmp_path / "mlruns").mkdir()
    older(tmp_path / "mlruns/mlflow.db.new")
    trained(Store(at(tmp_path)))
    assert not (tmp_path / "mlruns/mlflow.db.new").exists()


def test_who_looks_makes_no_store_and_no_experiment(project: tuple[Path, str], tmp_path: Path) -> None:
    with pytest.raises(Nothing, match="no such store"):
        Store(at(tmp_path / "nowhere"), looking=True)
    assert not (tmp_path / "nowhere").exists()
    before = content(project[0])
    with pytest.raises(Nothing, match=r"tracking.experiment=other: no such experiment in .*; takes one of compression"):
        Store(at(project[0], "other"), looking=True)
    assert existing(at(project[0], "other"), looking=False) is None
    assert content(project[0]).keys() >= before.keys()
    assert sorted(e.name for e in Store(at(project[0])).client.search_experiments()) == ["Default", "compression"]


READS = """
import sys
from src.settings.sections import Tracking
from src.store.names import CHECKPOINT
from src.store.store import Store
store = Store(Tracking(uri=sys.argv[1], experiment="compression", retry_seconds=0), looking=True)
print(store.recorded(store.get(sys.argv[2]), CHECKPOINT).read_text(encoding="utf-8"))
"""


def looked_at(uri: str, run_id: str, *before: str) -> str:
    command = [*before, sys.executable, "-c", READS, uri, run_id]
    done = subprocess.run(command, env=environment(), capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


LEFT_BY_A_KILL = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("UPDATE runs SET name = 'written ahead'")
database.commit()
os._exit(1)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_who_looks_leaves_every_file_of_a_store_as_it_was(project: tuple[Path, str], killed: bool) -> None:
    """A write-ahead log that a killed sweep has left is read, and not written back."""
    folder, run_id = project
    database = folder / "mlruns/mlflow.db"
    if killed:
        subprocess.run([sys.executable, "-c", LEFT_BY_A_KILL, database], check=False)
    before = content(folder)
    assert ("mlruns/mlflow.db-wal" in before) == killed
    assert looked_at(f"sqlite:///{database}", run_id) == "weights\n"
    after = content(folder)
    for files in (before, after):
        files.pop("mlruns/mlflow.db-shm", None)  # SQLite's index of the log
    assert after == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a folder that can't be written")
def test_a_store_that_cannot_be_written_can_be_looked_at(project: tuple[Path, str]) -> None:
    folder, run_id = project
    mount = ["mount", "--bind", "-o", "ro", str(folder), str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("can't mount")
    try:
        assert looked_at(f"sqlite:///{folder}/mlruns/mlflow.db", run_id) == "weights\n"
        opening.check_writable.cache_clear()
        with pytest.raises(UserError, match="can't be written"):
            Store(at(folder))
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


# --- A database's driver -----------------------------------------------------------------------------------------

SETUP = "`make setup EXTRAS=dev,postgres` installs psycopg2"
DRIVERS = [
    ("postgresql", True, "psycopg, which is not installed; write postgresql+psycopg2://…"),
    ("postgresql", False, f"psycopg, which is not installed; write postgresql+psycopg2://…; {SETUP}"),
    ("postgresql+psycopg2", False, f"psycopg2, which is not installed; {SETUP}"),
    ("mysql", True, "MySQLdb, which is not installed"),
]


@pytest.mark.parametrize(("scheme", "has_psycopg2", "line"), DRIVERS)
def test_a_driver_that_is_not_installed_is_one_line_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, scheme: str, has_psycopg2: bool, line: str
) -> None:
    # What Python takes for a module that is not there.
    monkeypatch.setitem(sys.modules, "psycopg", None)
    if has_psycopg2:
        pytest.importorskip("psycopg2", reason="make setup EXTRAS=dev,postgres")
    else:
        monkeypatch.setitem(sys.modules, "psycopg2", None)
    uri = f"{scheme}://me@127.0.0.1:9/x"
    with pytest.raises(UserError) as caught:
        Store(Tracking(uri, "x"))
    assert str(caught.value) == f"tracking.uri={uri}: takes the package {line}"


def test_the_address_in_the_docs_is_for_the_driver_of_the_extra() -> None:
    addresses = re.findall(r"postgresql[^ :]*://", (ROOT / "docs" / "store.md").read_text(encoding="utf-8"))
    assert set(addresses) == {"postgresql+psycopg2://"}


# --- What a server or an experiment refuses ----------------------------------------------------------------------


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("looking", [False, True])
def test_a_server_that_refuses_access_names_the_credentials(
    server: Callable[..., str], monkeypatch: pytest.MonkeyPatch, code: int, looking: bool
) -> None:
    uri = server(code)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    with pytest.raises(UserError) as error:
        Store(Tracking(uri=uri, experiment="x", retry_seconds=0), looking)
    assert str(error.value) == (
        f"tracking.uri={uri}: refuses access to me ({code}); takes MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, of someone who may use it"
    )


def test_a_deleted_experiment_is_one_line_for_all_and_can_be_brought_back(project: tuple[Path, str]) -> None:
    folder, run_id = project
    store = Store(at(folder))
    store.client.delete_experiment(store.experiment_id)
    lines = []
    for looking in (False, True):
        with pytest.raises(UserError) as error:
            Store(at(folder), looking)
        lines.append(str(error.value))
    assert lines[0] == lines[1]
    told = re.fullmatch(
        r"tracking.experiment=compression: was deleted; `(.*)` brings it back; takes that, or another name", lines[0]
    )
    assert told
    subprocess.run(told[1], shell=True, check=True, env=environment(), capture_output=True)
    assert checkpoint(Store(at(folder)), run_id)


def test_an_experiment_by_its_number_is_said_to_be_passed_over(
    project: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "1")
    with pytest.raises(UserError, match="MLFLOW_EXPERIMENT_ID=1: experiments go by name here; takes MLFLOW_"):
        Store(at(project[0]))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "compression")
    Store(at(project[0]))


def test_a_registry_is_not_migrated_either(project: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    older(project[0] / "registry.db")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{project[0]}/registry.db")
    before = content(project[0])["registry.db"]
    with pytest.raises(UserError, match=r"MLFLOW_REGISTRY_URI=.*: was made by an older MLflow"):
        registry.registered(Store(at(project[0]), looking=True), "model", "champion")
    assert content(project[0])["registry.db"] == before


# --- What can't be written ---------------------------------------------------------------------------------------


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    before = content(tmp_path)
    writable.check(tmp_path / "a/b/c", "key")
    for place in (tmp_path / "file", tmp_path / "file/x", Path("/proc/x")):
        with pytest.raises(UserError, match=r"^key=x: .* can't be written \(.*\); takes a place that can$"):
            writable.check(place, "key=x")
    assert content(tmp_path) == before
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("place_of", ["reports", "artifacts", "hydra"])
def test_a_place_for_results_that_cannot_be_written_is_told_before_work(place: Place, place_of: str) -> None:
    (place.folder / "mlruns").mkdir()
    (place.folder / "mlruns" / place_of).write_text("a file where the folder should be", encoding="utf-8")
    done = place.run("-m", "experiment=smoke", "plan=true")
    assert done.returncode == 2
    assert re.fullmatch(rf"error: .*mlruns/{place_of}.*can't be written \(.*\n", done.stderr), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_is_told_before_work(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("can't mount")
    try:
        with pytest.raises(UserError, match="No space left on device"):
            writable.check(tmp_path / "reports", "reports")
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


# --- Locks -------------------------------------------------------------------------------------------------------


def meets(first: contextlib.AbstractContextManager[None], second: contextlib.AbstractContextManager[None]) -> bool:
    """Whether who holds the first makes who wants the second wait."""
    got_it = threading.Event()

    def wait() -> None:
        with second:
            got_it.set()

    waiting = threading.Thread(target=wait)
    with first:
        waiting.start()
        met = not got_it.wait(0.5)
    waiting.join()
    return met


def test_two_spellings_of_one_store_are_one_whatever_tmpdir_is(
    project: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = project
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    first = Store(at(folder))
    for uri in ("sqlite:///mlruns/mlflow.db", f"sqlite:///{folder.parent}/link/mlruns/mlflow.db"):
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        second = Store(Tracking(uri=uri, experiment="compression"))
        assert meets(first.alone("key", "p1"), second.alone("key", "p1"))
        assert not meets(first.alone("key", "p1"), second.alone("another", "p1"))
        monkeypatch.undo()
        monkeypatch.chdir(folder)


def test_quiet_is_one_for_a_machine_whatever_tmpdir_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = locks.folder("locks")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert locks.folder("locks") == here
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    assert locks.folder("locks") == Path(f"/tmp/compression-locks-{os.getuid()}"), "who has no home that can be written"


def test_a_file_system_without_locks_is_said_and_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:  # as of NFS without its lock daemon, which takes a server to have
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):
        with locks.alone(tmp_path / "lock"):
            pass
    assert caplog.text.count(f"{tmp_path} is on a file system without locks (No locks available)") == 1
