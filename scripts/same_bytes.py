"""Whether two commits leave the same bytes: both run the same two sweeps, of `experiment=smoke` and of a folder of
images, and each variant's artifact, accuracies, sizes and verdict are compared. Exit code 1: something differs.

    python -m scripts.same_bytes 0ffce6f HEAD
"""

import argparse
import contextlib
import csv
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("benchmark.seconds=1", "benchmark.operators=false")
SWEEPS = {
    "smoke": ("experiment=smoke", *QUICK),
    "folder": (
        *("data=image_folder", "data.path=../../images", "data.image_size=16", "data.channels=1", "data.cache=null"),
        *("experiment=smoke", "train.epochs=2", "prune.epochs=2", *QUICK),
    ),
}
COMPARED = (
    "train_accuracy",
    "validation_accuracy",
    "test_accuracy",
    "tflite_bytes",
    "gzip_bytes",
    "sparsity",
    "verdict",
)


def images(folder: Path, each: int = 40) -> None:
    """A folder per digit, with some of the digits that scikit-learn ships, as PNG files."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for i, pixels in enumerate(digits.images[digits.target == digit][:each]):
            Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(folder / str(digit) / f"{i}.png")


def variants(code: Path, folder: Path, overrides: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """What the code in `code` leaves of each variant of a sweep that it runs in `folder`."""
    folder.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "src.run", "-m", *overrides],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(code)},
        stdout=subprocess.DEVNULL,
    )
    if done.returncode:
        raise SystemExit(f"{code.name}: the sweep ended with exit code {done.returncode}")
    with contextlib.closing(sqlite3.connect(folder / "mlruns/mlflow.db")) as database:
        digests = dict(database.execute("SELECT run_uuid, value FROM tags WHERE key = 'digest'"))
    (table,) = (folder / "mlruns/artifacts").rglob("comparison.csv")
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["variant"]: {"digest": digests[row["run_id"]], **{name: row[name] for name in COMPARED}} for row in rows
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs=2)
    commits = parser.parse_args().commits
    different = 0
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as worktrees:
        left = {}
        for side, commit in zip("AB", commits, strict=True):
            code = Path(scratch) / side / "code"
            git = ["git", "-C", str(ROOT), "worktree"]
            subprocess.run([*git, "add", "--quiet", "--detach", str(code), commit], check=True)
            worktrees.callback(subprocess.run, [*git, "remove", "--force", str(code)], check=True)
            images(Path(scratch) / side / "images")
            for sweep, overrides in SWEEPS.items():
                left[side, sweep] = variants(code, Path(scratch) / side / "runs" / sweep, overrides)
        for sweep in SWEEPS:
            before, after = left["A", sweep], left["B", sweep]
            for name in sorted(before.keys() | after.keys()):
                first, second = before.get(name, {}), after.get(name, {})
                differing = [key for key in first.keys() | second.keys() if first.get(key) != second.get(key)]
                different += bool(differing)
                shown = ", ".join(f"{key} {first.get(key)} -> {second.get(key)}" for key in sorted(differing))
                print(f"{sweep:8}{name:12}{shown or 'the same'}")
    print(f"{commits[0]} and {commits[1]}: {different or 'no'} variants differ")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
