"""A sweep of the twelve variants beside a script that makes them without this project, `benchmarks/bare.py`.

They alternate every second, one stopped while the other runs, so that a machine whose speed drifts is as fast for both.
The least latency that there is, which the script has none of, counts for the sweep. Then the sweep runs again on a
store that has it all, and (--joblib) on two workers in another store.

    python -m benchmarks.sweep_overhead [--rounds 3] [--joblib] [EPOCHS [PRUNE_EPOCHS]]
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
    parser.add_argument("--joblib", action="store_true", help="two workers as well")
    parser.add_argument("epochs", nargs="?", default="300")
    parser.add_argument("prune_epochs", nargs="?", default="60")
    arguments = parser.parse_args()
    overrides = [f"train.epochs={arguments.epochs}", f"prune.epochs={arguments.prune_epochs}"]
    product, bare, again, joblib = [], [], [], []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            script = [str(ROOT / "benchmarks/bare.py"), arguments.epochs, arguments.prune_epochs]
            sweep = ["-m", "src.run", "-m", *overrides, *QUICK]
            one_side, other_side = alternating(start(Path(one), *sweep), start(Path(other), *script))
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
    ratios = [p / b for p, b in zip(product, bare, strict=True)]
    repeats = [a / p for a, p in zip(again, product, strict=True)]
    print(f"median: {statistics.median(ratios):.3f} of the bare script; again {statistics.median(repeats):.3f}")


if __name__ == "__main__":
    main()
