"""What a fault costs: the stage that it hit, and nothing else. Real processes, killed for real."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MAC, Place, environment, wait_for

from src.machine import locks
from src.settings.sections import Tracking
from src.store.names import CHECKPOINT
from src.store.store import Store

SMALL = (
    "-m",
    "experiment=smoke",
    "train.epochs=1",
    "prune.epochs=1",
    "benchmark.seconds=1",
    "benchmark.operators=false",
    "prune=p1",
    "quant=none,fiq",
)


def digests(place: Place) -> dict[str, str]:
    return {name: record.tags["digest"] for name, record in place.variants(place.newest_sweep()).items()}


def by_status(place: Place) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in place.store().search("tags.kind != 'x'"):
        found.setdefault(record.status, []).append(record.name)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, str]]:
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    done = place.run(*SMALL)
    assert done.returncode == 0, done.stderr
    return place, digests(place)


def test_a_sweep_that_is_killed_goes_on_to_the_artifacts_of_an_undisturbed_one(
    place: Place, undisturbed: tuple[Place, dict[str, str]]
) -> None:
    process = place.start(*SMALL)
    wait_for(process, "p1: small_cnn")
    process.kill()
    process.communicate()
    done = place.run(*SMALL)
    assert done.returncode == 0, done.stderr
    assert re.search(r"sweep-\S+ \(run \w+\) was left by a process that is no more; closed as KILLED", done.stderr)
    assert digests(place) == undisturbed[1]
    assert place.stages().count("train") == 1, "the training is there, and the pruning begins again"
    assert "RUNNING" not in by_status(place), "what dead processes had left is closed"


@pytest.mark.parametrize(
    "kills", [pytest.param(6, marks=pytest.mark.long), pytest.param(20, marks=pytest.mark.exhaustive)]
)
def test_kills_at_random_moments(place: Place, undisturbed: tuple[Place, dict[str, str]], kills: int) -> None:
    moments = random.Random(0)
    for _ in range(kills):
        process = place.start(*SMALL)
        try:
            process.wait(moments.uniform(0.2, 15))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    done = place.run(*SMALL)
    assert done.returncode == 0, done.stderr
    assert digests(place) == undisturbed[1]
    assert place.stages().count("train") - len(place.store().search("tags.stage = 'train' and status = 'KILLED'")) == 1
    assert "RUNNING" not in by_status(place)


@pytest.mark.long
def test_a_sweep_is_killed_and_goes_on_to_the_same_bytes_without_what_a_mac_lacks(
    tmp_path: Path, undisturbed: tuple[Place, dict[str, str]]
) -> None:
    place = Place(tmp_path, MAC)
    process = place.start(*SMALL)
    wait_for(process, "train: small_cnn")
    process.kill()
    process.communicate()
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="make setup EXTRAS=dev,joblib")
    done = place.run(*SMALL, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    assert "closed as KILLED" in done.stderr
    assert "not pinned: this system can't; 2 processes take turns on all cores" in done.stderr
    assert digests(place) == undisturbed[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_closes_its_runs_and_prints_how_to_go_on(place: Place, number: signal.Signals) -> None:
    process = place.start(*SMALL, "train.epochs=500")
    wait_for(process, "train: small_cnn")
    time.sleep(1)
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there:\n  python -m src.run -m experiment=smoke" in rest
    assert "Traceback" not in rest
    assert set(by_status(place)) == {"KILLED"}


@pytest.mark.long
def test_damaged_artifacts_are_found_and_made_again_or_taken_from_an_earlier_run(
    undisturbed: tuple[Place, dict[str, str]],
) -> None:
    place, expected = undisturbed
    assert place.run(*SMALL).returncode == 0
    store = place.store()
    p1 = next(record for record in store.search("tags.kind = 'stage'") if record.name == "p1")
    with store.file(p1.run_id, CHECKPOINT).open("r+b") as checkpoint:
        checkpoint.truncate(1000)
    copies = store.search("tags.variant = 'p1-fiq'")
    assert len(copies) > 1
    for record in copies:
        with store.file(record.run_id, "model/p1-fiq.tflite").open("r+b") as artifact:
            artifact.seek(2000)
            artifact.write(b"\xff\x00\xff")
    dense, earlier, *_ = store.search("tags.variant = 'none-none'")
    with store.file(dense.run_id, "predictions/test.npz").open("r+b") as predictions:
        predictions.truncate(500)
    planned = place.run(*SMALL, "plan=true")
    assert "to make: p1; to convert and evaluate: 1; from earlier runs: 2" in planned.stdout
    assert f"none-none  run {earlier.run_id}" in planned.stdout
    assert set(by_status(place)) == {"FINISHED"}, "a plan writes nothing"
    done = place.run(*SMALL)
    assert done.returncode == 0, done.stderr
    assert "to make: p1; to convert and evaluate: 1; from earlier runs: 2" in done.stderr
    told = f"none-none: run {dense.run_id}: predictions/test.npz is not what was recorded (its SHA-256 differs); it is"
    assert told in done.stderr
    assert digests(place) == expected


@pytest.mark.long
def test_two_sweeps_at_once_do_each_stage_once(place: Place, undisturbed: tuple[Place, dict[str, str]]) -> None:
    both = [place.start(*SMALL) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    assert place.stages() == ["p1", "train"]
    sweeps = place.store().search("tags.kind = 'sweep'")
    assert len(sweeps) == 2
    for sweep in sweeps:
        found = {name: record.tags["digest"] for name, record in place.variants(sweep).items()}
        assert found == undisturbed[1]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("stage", "stage", "p1: another sweep is at it; waiting until it is done"),
        ("working", "in_quiet", "latency is measured in quiet; waiting for the stage that another sweep is at"),
        ("in_quiet", "working", "another sweep measures latency; waiting until it is done"),
        ("in_quiet", "in_quiet", "latency is measured in quiet; waiting"),
        ("working", "working", None),
    ],
)
def test_who_waits_for_another_sweep_says_for_what(
    place: Place,
    caplog: pytest.LogCaptureFixture,
    first: str,
    second: str,
    said: str | None,
) -> None:
    caplog.set_level("INFO", "src.machine.locks")
    store, got_it = place.store(), threading.Event()
    held = {"stage": lambda: store.alone("key", "p1"), "working": locks.working, "in_quiet": locks.in_quiet}

    def wait() -> None:
        with held[second]():
            got_it.set()

    waiting = threading.Thread(target=wait)
    with held[first]():
        waiting.start()
        if said is None:
            assert got_it.wait(60)
        while said and said not in caplog.text:
            assert waiting.is_alive()
        assert got_it.is_set() == (said is None)
    waiting.join()
    assert got_it.is_set()


def test_the_plan_is_shown_and_nothing_is_run(place: Place, undisturbed: tuple[Place, dict[str, str]]) -> None:
    done = place.run(*SMALL, "plan=true")
    assert done.returncode == 0, done.stderr
    assert "3 variants; to make: train, p1; to convert and evaluate: 3" in done.stdout
    assert not (place.folder / "mlruns/mlflow.db").exists()
    known = undisturbed[0]
    before = len(known.store().search("tags.kind != 'x'"))
    done = known.run(*SMALL, "quant=none,drq", "plan=true")
    assert "to convert and evaluate: 1; from earlier runs: 2" in done.stdout
    assert "in the store" in done.stdout
    assert "train" in done.stdout.partition("in the store")[2]
    took = re.search(r"  train +train +about (.+)", known.run(*SMALL, "reuse=none", "plan=true").stdout)
    longer = known.run(*SMALL, "train.epochs=100000", "plan=true").stdout
    assert took
    assert took[1].endswith(" s")
    assert re.search(r"  train +train +about .+(h|days)", longer), "as many epochs, as much longer"
    assert len(known.store().search("tags.kind != 'x'")) == before


@pytest.mark.parametrize(
    ("reuse", "line"),
    [
        ("stages", "to make: nothing; to convert and evaluate: 3"),
        pytest.param("none", "to make: train, p1; to convert and evaluate: 3", marks=pytest.mark.long),
    ],
)
def test_reuse_can_be_refused(undisturbed: tuple[Place, dict[str, str]], reuse: str, line: str) -> None:
    place, expected = undisturbed
    done = place.run(*SMALL, f"reuse={reuse}")
    assert done.returncode == 0, done.stderr
    assert line in done.stderr
    assert digests(place) == expected


def test_what_is_said_and_where_it_goes_does_not_change_a_key(undisturbed: tuple[Place, dict[str, str]]) -> None:
    same = ("benchmark.threads=2", "compare.margin=0.02", "hydra.verbose=true", "hydra.sweep.dir=mlruns/elsewhere")
    assert "from earlier runs: 3" in undisturbed[0].run(*SMALL, "plan=true", *same).stdout


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "others").open("wb", buffering=0) as others:
        while True:
            others.write(bytes(1 << 16))


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_fails_with_one_line_and_the_sweep_goes_on_when_there_is_room(
    place: Place, undisturbed: tuple[Place, dict[str, str]]
) -> None:
    disk = place.folder / "mlruns"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False).returncode:
        pytest.skip("can't mount")
    try:
        done = place.run(*SMALL)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), "what has no room for a store is told at once"
        assert "can't be written (No space left on device); takes a place that can" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        process = place.start(*SMALL)
        wait_for(process, "train: small_cnn")
        fill(disk)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 1
        assert "Traceback" not in errors
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        done = place.run(*SMALL)
        assert done.returncode == 0, done.stderr
        assert digests(place) == undisturbed[1]
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize(
    ("extra", "options"),
    [
        ("joblib", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        ("submitit", ["hydra/launcher=submitit_local"]),
    ],
)
@pytest.mark.long
def test_two_workers_leave_the_same_bytes_as_one(
    place: Place, undisturbed: tuple[Place, dict[str, str]], extra: str, options: list[str]
) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{extra}_launcher", reason=f"make setup EXTRAS=dev,{extra}")
    done = place.run(*SMALL, *options)
    assert done.returncode == 0, done.stderr
    assert place.stages() == ["p1", "train"]
    assert digests(place) == undisturbed[1]


LOCK = """
import sqlite3
database = sqlite3.connect("mlruns/mlflow.db", timeout=60, isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
input()
"""


@pytest.mark.long
def test_a_locked_database_costs_nothing(place: Place, undisturbed: tuple[Place, dict[str, str]]) -> None:
    process = place.start(*SMALL)
    wait_for(process, "train: small_cnn")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", LOCK], cwd=place.folder, stdin=pipe, stdout=pipe, text=True) as locker:
        assert locker.stdout
        assert locker.stdout.readline() == "locked\n"
        wait_for(process, "the tracking store does not answer (database is locked), trying again")
        locker.communicate("\n")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert digests(place) == undisturbed[1]


# --- A tracking server -----------------------------------------------------------------------------------------


class Server:
    """A real `mlflow server` that can be stopped and started again where it was."""

    def __init__(self, folder: Path, port: int, backend: str) -> None:
        self.folder, self.port, self.backend = folder, port, backend
        self.uri = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("mlflow")), "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self.backend, "--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        import requests

        for _ in range(240):
            try:
                if requests.get(f"{self.uri}/health", timeout=2).ok:
                    return
            except requests.RequestException:
                time.sleep(0.5)
        raise AssertionError((self.folder / "server.log").read_text())

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_server(server: Server) -> dict[str, str]:
    store = Store(Tracking(uri=server.uri, experiment="compression"))
    sweep = store.search("tags.kind = 'sweep'", 1)[0]
    found = store.search(f"tags.kind = 'variant' and tags.`mlflow.parentRunId` = '{sweep.run_id}'")
    for record in found:
        store.file(record.run_id, f"model/{record.name}.tflite", record.tags["digest"])
    return {record.name: record.tags["digest"] for record in found}


@pytest.mark.long
def test_a_server_that_goes_and_comes_back_mid_sweep_costs_nothing(
    place: Place, undisturbed: tuple[Place, dict[str, str]]
) -> None:
    (place.folder / "server").mkdir()
    server = Server(place.folder / "server", free_port(), f"sqlite:///{place.folder}/server/mlflow.db")
    try:
        secret = server.uri.replace("http://", "http://me:s3cr3t@")
        process = place.start(*SMALL, "tracking=server", f"tracking.uri={secret}")
        wait_for(process, "train: small_cnn")
        server.stop()
        wait_for(process, "the tracking store does not answer")
        server.start()
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        credentials = "MLFLOW_TRACKING_USERNAME=me MLFLOW_TRACKING_PASSWORD=***"
        assert f'choose  {credentials} make pick ARGS="tracking.uri={server.uri}"' in output
        assert on_server(server) == undisturbed[1]
        assert "s3cr3t" not in output + errors
        told = [file for file in place.folder.rglob("*") if file.is_file() and b"s3cr3t" in file.read_bytes()]
        assert not told, "neither a file of this folder, nor the server's database and artifacts"
    finally:
        server.stop()
    assert not (place.folder / "mlruns/mlflow.db").exists(), "all of it went through the server"


@pytest.mark.long
def test_a_server_that_stays_away_is_waited_for_once_and_the_sweep_goes_on_later(
    place: Place, undisturbed: tuple[Place, dict[str, str]]
) -> None:
    (place.folder / "server").mkdir()
    server = Server(place.folder / "server", free_port(), f"sqlite:///{place.folder}/server/mlflow.db")
    command = (*SMALL, "tracking=server", f"tracking.uri={server.uri}", "tracking.retry_seconds=2")
    try:
        process = place.start(*command)
        wait_for(process, "train: small_cnn")
        server.stop()
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 1
        assert f"tracking.uri={server.uri} has not answered for tracking.retry_seconds=2 (Connection refused)" in errors
        assert "the same command goes on from there" in errors
        assert "API request" not in output + errors
        server.start()
        assert place.run(*command).returncode == 0
        assert on_server(server) == undisturbed[1]
    finally:
        server.stop()


def test_a_server_that_does_not_answer_at_all_is_one_line(place: Place) -> None:
    done = place.run(*SMALL, "tracking=server", f"tracking.uri=http://127.0.0.1:{free_port()}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: tracking.uri=http://127.0.0.1:")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def cluster(place: Place) -> Iterator[str]:
    """Address of a Ray cluster of two nodes with a core each, on this machine."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="make setup EXTRAS=dev,ray")
    ray, port = str(Path(sys.executable).with_name("ray")), free_port()
    head = ["--head", f"--port={port}", "--include-dashboard=false"]
    try:
        for which in (head, [f"--address=127.0.0.1:{port}"]):
            subprocess.run(
                [ray, "start", *which, "--num-cpus=1", "--disable-usage-stats"],
                cwd=place.folder,
                env=environment(),
                check=True,
                capture_output=True,
            )
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run([ray, "stop", "--force"], check=False, capture_output=True)


@pytest.mark.long
def test_a_ray_cluster_of_two_nodes_does_each_stage_once(place: Place, cluster: str) -> None:
    (place.folder / "server").mkdir()
    server = Server(place.folder / "server", free_port(), f"sqlite:///{place.folder}/server/mlflow.db")
    try:
        done = place.run(
            *("-m", "experiment=smoke", "tracking=server", f"tracking.uri={server.uri}", "hydra/launcher=ray"),
            f"+hydra.launcher.ray.init.address='{cluster}'",
            "+hydra.launcher.ray.init.object_store_memory=null",
        )
        assert done.returncode == 0, done.stderr
        assert len(on_server(server)) == 12
        store = Store(Tracking(uri=server.uri, experiment="compression"))
        assert sorted(record.name for record in store.search("tags.kind = 'stage'")) == ["p1", "p2", "train"]
    finally:
        server.stop()


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("pg_ctlcluster"), reason="Debian's postgresql is not installed")
def test_a_server_on_postgresql(place: Place, undisturbed: tuple[Place, dict[str, str]]) -> None:
    pytest.importorskip("psycopg2", reason="make setup EXTRAS=dev,postgres")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    data, port = place.folder / "pg", free_port()
    data.mkdir()
    place.folder.chmod(0o755)
    for parent in place.folder.parents:
        if parent != Path("/tmp") and os.access(parent, os.W_OK) and parent.owner() != "nobody":
            parent.chmod(parent.stat().st_mode | 0o011)
    shutil.chown(data, "postgres")

    def as_postgres(*command: str) -> None:
        prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run([*prefix, *command], check=True, capture_output=True, cwd="/")

    as_postgres(str(binaries / "initdb"), "-D", str(data), "-A", "trust")
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1"
    as_postgres(str(binaries / "pg_ctl"), "-D", str(data), "-o", options, "-l", str(data / "log"), "-w", "start")
    try:
        as_postgres(str(binaries / "createdb"), "-h", "127.0.0.1", "-p", str(port), "mlflow")
        (place.folder / "server").mkdir()
        uri = f"postgresql+psycopg2://postgres@127.0.0.1:{port}/mlflow"
        server = Server(place.folder / "server", free_port(), uri)
        try:
            done = place.run(*SMALL, "tracking=server", f"tracking.uri={server.uri}")
            assert done.returncode == 0, done.stderr
            assert on_server(server) == undisturbed[1]
        finally:
            server.stop()
    finally:
        as_postgres(str(binaries / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
