"""Whether `src.measure.latency` finds differences that are there and none that are not, and agrees with LiteRT's own
tool.

    python -m benchmarks.latency_aa [comparisons=20] [models=chain20,vgg26m-fiq]

A/A: a file against a copy of itself, at the default settings; an interval that excludes 1 is an error, of which 1 in 20
is to be expected. Planted: a chain of 21 equal convolutions against one of 20, which is 5 % slower by construction.
Agreement: medians beside `litert-benchmark` of the ai-edge-litert wheel, in turns. Run on a quiet machine.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.artifacts import FOLDER, artifacts, convert
from src.measure.latency import measure
from src.settings.sections import Benchmark

SHAPE = (16, 16, 32)
TURNS = 5


def chain(length: int) -> Path:
    """`length` convolutions of 2.4 million multiplications each, one after the other."""
    file = FOLDER / f"chain{length}.tflite"
    if not file.exists():
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        import tf_keras

        layers = [tf_keras.layers.Conv2D(32, 3, padding="same", activation="relu") for _ in range(length)]
        FOLDER.mkdir(parents=True, exist_ok=True)
        file.write_bytes(convert(tf_keras.Sequential([tf_keras.layers.Input(SHAPE), *layers]), "none", SHAPE))
    return file


def path_of(name: str) -> Path:
    model, _, scheme = name.partition("-")
    return artifacts(model)[scheme] if scheme else chain(int(name.removeprefix("chain")))


def compare(baseline: Path, other: Path, comparisons: int) -> dict[str, float]:
    """What came of measuring `other` against `baseline` that many times."""
    ratios, calls, widths, seconds = [], [], [], []
    for seed in range(comparisons):
        start = time.monotonic()
        report = measure({"a": baseline, "b": other}, "a", Benchmark(seed=seed, operators=False))
        found = report.variants[1]
        ratios.append(found.ratio)
        calls.append(found.call)
        widths.append(found.ratio.half_width / found.ratio.estimate)
        seconds.append(time.monotonic() - start)
    return {
        "ratio": float(np.median([ratio.estimate for ratio in ratios])),
        "excludes 1": sum(not ratio.low <= 1 <= ratio.high for ratio in ratios),
        "claimed": sum(call != "no difference" for call in calls),
        "half-width": float(np.median(widths)),
        "widest": max(widths),
        "seconds": float(np.median(seconds)),
    }


def own_tool_ms(file: Path, runs: int) -> float:
    """Median of the wheel's own benchmark, one thread, in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", f"--model={file}"]
        options = [f"--num_runs={runs}", "--warmup_runs=20", "--num_threads=1", f"--result_json={result.name}"]
        subprocess.run([*command, *options], check=True, capture_output=True)
        return float(json.loads(Path(result.name).read_text(encoding="utf-8"))["latency"]["median_ms"])


def agreement(file: Path) -> tuple[float, float]:
    """Median milliseconds: of `measure`, and of the wheel's tool, which rounds to hundredths."""
    pairs = []
    for seed in range(TURNS):
        report = measure({"a": file}, "a", Benchmark(seed=seed, operators=False, instances=12, precision=0.5))
        ours = report.variants[0].latency_ms_median
        pairs.append((ours, own_tool_ms(file, int(np.clip(2000 / ours, 50, 2000)))))
    ours, theirs = np.median(pairs, axis=0)
    return float(ours), float(theirs)


def main(comparisons: int, models: list[str]) -> None:
    table = Table("comparison", "ratio", "excludes 1", "claimed", "half-width", "widest", "seconds each")
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            copy = Path(shutil.copy(path_of(name), folder))
            add(table, f"{name} A/A", compare(path_of(name), copy, comparisons), comparisons)
    add(table, "planted 5 %", compare(chain(20), chain(21), comparisons), comparisons)
    Console().print(table)
    medians = Table("file", "src.measure.latency ms", "litert-benchmark ms", "ratio")
    for name in models:
        ours, theirs = agreement(path_of(name))
        medians.add_row(name, f"{ours:.4g}", f"{theirs:.4g}", f"{ours / theirs:.3f}")
    Console().print(medians)
    print(f"load {os.getloadavg()[0]:.1f}")


def add(table: Table, name: str, found: dict[str, Any], comparisons: int) -> None:
    counts = (f"{found[key]} of {comparisons}" for key in ("excludes 1", "claimed"))
    widths = (f"{found[key]:.1%}" for key in ("half-width", "widest"))
    table.add_row(name, f"{found['ratio']:.3f}", *counts, *widths, f"{found['seconds']:.1f}")


if __name__ == "__main__":
    settings = dict(argument.split("=") for argument in sys.argv[1:])
    main(int(settings.get("comparisons", 20)), settings.get("models", "chain20,vgg26m-fiq").split(","))
