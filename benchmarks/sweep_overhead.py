"""What Hydra, MLflow, the store and the plan add to the TensorFlow calls of twelve variants.

One side runs the sweep; the other a bare script that trains, prunes, converts, evaluates and audits the same with the
same stage functions in one process, and nothing else. They alternate every second, one stopped while the other runs,
so that a machine whose speed drifts is as fast for both. Latency is left out of both. Then the sweep runs again on a
store that has it all, (--joblib) on two workers in another store, and (--naive) the bare script as twelve independent
jobs that each train and prune for themselves. With --same both sides are the bare script.

    python -m benchmarks.sweep_overhead [--rounds 3] [--same] [--joblib] [--naive] [OVERRIDE …]
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# As little latency as there is: it is measured for as long as one says, on both sides of no comparison.
QUICK = ["benchmark.seconds=0.1", "benchmark.operators=false", "benchmark.instances=3", "benchmark.rounds=3"]
GRID = [f"{prune}-{quant}" for prune in ("none", "p1", "p2") for quant in ("none", "drq", "fiq", "f16")]

BARE = """
import logging, sys, tempfile
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from src import run
from src.machine import system as machine, tensorflow as backend
from src.measure import audit
from src.pipeline import work
from src.settings.config import load
from src.measure.accuracy import predict

logging.basicConfig(level=logging.INFO)
folder = Path(tempfile.mkdtemp())
configs = {}
with initialize_config_dir(str(run.CONF), version_base="1.3"):
    for variant in sys.argv[1].split(","):
        prune, quant = variant.split("-")
        composed = compose("config", [*sys.argv[2:], f"prune={prune}", f"quant={quant}"], return_hydra_config=True)
        choices = OmegaConf.to_container(composed.hydra.runtime.choices)
        task_only = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
        plain = OmegaConf.to_container(task_only, resolve=True)
        configs[prune, quant] = load(plain, choices)
backend.prepare()
made = {}
for (prune, quant), config in configs.items():
    task = work._task(config)
    if "none" not in made:
        made["none"] = folder / "none.h5"
        data, model = task.dataset, config.model
        build = lambda: model.function(model.settings, data.shape, len(data.classes))
        config.train.function(config.train.settings, build, task, made["none"])
    if prune not in made:
        made[prune] = folder / f"{prune}.h5"
        (step,) = config.transforms
        step.function(step.settings, made["none"], task, made[prune])
    artifact = folder / f"{prune}-{quant}.tflite"
    artifact.write_bytes(config.quant.function(config.quant.settings, made[prune], task).content)
    with ThreadPoolExecutor(1) as aside:
        auditing = aside.submit(audit.audit, artifact, attribute=True)
        for split in data.splits().values():
            predict(artifact, split, task.preprocess, threads=len(machine.cores()), logits=task.logits)
        auditing.result()
"""


def start(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def alternating(*sides: subprocess.Popen[bytes], turn: float = 1.0) -> list[float]:
    """The seconds that each of the processes, with its children, ran: all are stopped but one, in turns of `turn` s."""
    spent = [0.0] * len(sides)
    for side in sides:
        os.killpg(side.pid, signal.SIGSTOP)
    left = list(range(len(sides)))
    try:
        while left:
            for number in tuple(left):
                side = sides[number]
                started = time.perf_counter()
                os.killpg(side.pid, signal.SIGCONT)
                try:
                    side.wait(turn if len(left) > 1 else None)
                    left.remove(number)
                except subprocess.TimeoutExpired:
                    os.killpg(side.pid, signal.SIGSTOP)
                spent[number] += time.perf_counter() - started
                if side.returncode:
                    raise SystemExit(f"exit code {side.returncode}: {side.args!r}")
    finally:
        for number in left:
            os.killpg(sides[number].pid, signal.SIGKILL)
    return spent


def seconds(folder: Path, *command: str) -> float:
    return alternating(start(folder, *command))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--same", action="store_true", help="the bare script on both sides, and nothing else")
    parser.add_argument("--joblib", action="store_true", help="two workers as well")
    parser.add_argument("--naive", action="store_true", help="twelve independent jobs as well")
    parser.add_argument("overrides", nargs="*", default=["experiment=smoke"])
    arguments = parser.parse_args()
    overrides = arguments.overrides or ["experiment=smoke"]
    product, bare, again, joblib = [], [], [], []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            script = ["-c", BARE, ",".join(GRID), *overrides]
            sweep = ["-m", "src.run", "-m", *overrides, *QUICK]
            one_side, other_side = alternating(
                start(Path(one), *(script if arguments.same else sweep)), start(Path(other), *script)
            )
            if arguments.same:
                print(f"round {number + 1}: {one_side:.1f} s, {other_side:.1f} s, ratio {one_side / other_side:.3f}")
                continue
            product.append(one_side)
            bare.append(other_side)
            again.append(seconds(Path(one), *sweep))
        if arguments.joblib:
            two = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
            with tempfile.TemporaryDirectory() as folder:
                joblib.append(seconds(Path(folder), "-m", "src.run", "-m", *overrides, *QUICK, *two))
            ratio = joblib[-1] / product[-1]
            print(f"round {number + 1}: two workers {joblib[-1]:6.1f} s  ratio {ratio:.3f}", flush=True)
        print(
            f"round {number + 1}: sweep {product[-1]:6.1f} s  bare script {bare[-1]:6.1f} s  "
            f"ratio {product[-1] / bare[-1]:.3f}  again {again[-1]:5.1f} s: {again[-1] / product[-1]:.3f} of it",
            flush=True,
        )
    if arguments.same:
        return
    ratios = [p / b for p, b in zip(product, bare, strict=True)]
    repeats = [a / p for a, p in zip(again, product, strict=True)]
    print(f"median: {statistics.median(ratios):.3f} of the bare script; again {statistics.median(repeats):.3f}")
    if arguments.naive:
        total = 0.0
        for variant in GRID:
            with tempfile.TemporaryDirectory() as alone:
                total += seconds(Path(alone), "-c", BARE, variant, *overrides)
        median = statistics.median(product)
        print(f"twelve independent jobs: {total:.1f} s, {total / median:.2f} times the sweep's {median:.1f} s")


if __name__ == "__main__":
    main()
