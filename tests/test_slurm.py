"""A sweep through a Slurm queue: a controller and a node on this machine, of Debian's slurm-wlm and munge."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Place, environment

PROGRAMS = ("munged", "slurmctld", "slurmd", "squeue", "scancel")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, PROGRAMS)), reason="takes root, slurm-wlm and munge of Debian"
    ),
]
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
SMALL = ("-m", "experiment=smoke", "benchmark.seconds=1", "benchmark.operators=false", "prune=none", "quant=none,drq")
QUEUE = ("hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def queue(place: Place, tmp_path: Path) -> Iterator[Place]:
    """A place whose commands find the queue."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="make setup EXTRAS=dev,submitit")
    for name in ("state", "spool"):
        (tmp_path / name).mkdir()
    config, host = tmp_path / "slurm.conf", socket.gethostname().partition(".")[0]
    ports = {"controller": free_port(), "node": free_port()}
    config.write_text(CONFIG.format(folder=tmp_path, host=host, cores=os.cpu_count(), **ports))
    key = tmp_path / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = {"socket": "munge.sock", "key-file": key.name, "pid-file": "munge.pid", "log-file": "munge.log"}
    options = [f"--{name}={tmp_path / file}" for name, file in {**files, "seed-file": "munge.seed"}.items()]
    variables = {"SLURM_CONF": str(config)}
    try:
        for command in (["munged", "--force", *options], ["slurmctld"], ["slurmd"]):
            subprocess.run(command, env=environment() | variables, check=True, capture_output=True)
        yield Place(place.folder, variables)
    finally:
        for name in ("slurmd", "slurmctld", "munge"):
            if (file := tmp_path / f"{name}.pid").is_file():
                os.kill(int(file.read_text()), 15)


def test_a_queue_does_each_stage_once_and_a_job_that_is_cancelled_costs_its_own_stage(queue: Place) -> None:
    done = queue.run(*SMALL, *QUEUE)
    assert done.returncode == 0, done.stderr
    sweep = queue.newest_sweep()
    assert sweep.status == "FINISHED"
    assert set(queue.variants(sweep)) == {"none-none", "none-drq"}
    assert queue.stages() == ["train"]

    long = (*SMALL, "seed=5", "train.epochs=5000", *QUEUE)
    running = queue.start(*long)
    job = ""
    for _ in range(600):
        listed = subprocess.run(
            ["squeue", "--noheader", "--states=R", "--format=%i %M"],
            env=environment() | queue.variables,
            capture_output=True,
            text=True,
        ).stdout.split()
        if listed and any((queue.folder / "mlruns").rglob("*_log.out")) and "train: small_cnn" in _told(queue.folder):
            job = listed[0]
            break
        time.sleep(0.5)
    assert job, "no job was ever running"
    subprocess.run(["scancel", job], env=environment() | queue.variables, check=True)
    _, errors = running.communicate(timeout=300)
    assert running.returncode == 1, errors
    assert "failed: none-none: train: its process died of SIGTERM" in errors
    assert "what is done is kept, and the same command tries the rest again" in errors
    assert "Traceback" not in errors
    again = queue.run(*SMALL, "seed=5", *QUEUE)
    assert again.returncode == 0, again.stderr


def _told(folder: Path) -> str:
    """What the newest job has said."""
    logs = sorted((folder / "mlruns").rglob("*_log.*"), key=lambda file: file.stat().st_mtime)
    return "".join(file.read_text(errors="replace") for file in logs[-2:])
