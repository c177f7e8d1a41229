"""What the sweep itself costs: 20 models x 10 policies x 8 schemes whose stages do nothing, through the real sweeper
and a real store. Prints milliseconds per variant of planning, of tracking and of closing, for growing sweeps.

    python -m scripts.sweep_scale [--sizes 100,400,1600]
"""

import argparse
import itertools
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import numpy as np
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from src import run
from src.cli.compose import CONF, composer
from src.data import dataset
from src.measure.predictions import Predictions
from src.results import closing
from src.store.artifacts import sha256
from src.store.names import AUDIT, CHECKPOINT, MEASURED, artifact_path, predictions_path
from src.store.store import Store
from src.sweep import plan
from src.sweep import running as sweep

POLICIES, SCHEMES = 10, 8
# A real file that a real interpreter runs: closing loads and times what the sweep recorded.
TINY = """
import sys, tensorflow as tf
image = tf.TensorSpec([1, 8, 8, 1])
model = tf.function(lambda x: tf.nn.softmax(tf.reshape(x, [-1, 64])[:, :10]), input_signature=[image])
converter = tf.lite.TFLiteConverter.from_concrete_functions([model.get_concrete_function()])
open(sys.argv[1], "wb").write(converter.convert())
"""


def recorded(tiny: Path, spent: dict[str, float]) -> sweep.Launcher:
    """Records each job as a real one would, without doing it."""
    rng = np.random.default_rng(0)

    def launch(jobs: Sequence[plan.Job], parent: str) -> list[sweep.Outcome]:
        started = time.perf_counter()
        store = Store(jobs[0].variant.config.tracking)
        outcomes = []
        for job in jobs:
            kind = "variant" if job.is_variant else "stage"
            tags = {"stage": job.stage.group, "key": job.stage.key}
            tags |= {"variant": job.variant.name} if job.is_variant else {}
            tags |= {"parent_key": job.stage.parent.key} if job.stage.parent else {}
            params = {"model": job.variant.config.model.name, "seed": job.variant.config.seed}
            with (
                store.alone(job.stage.key, job.title),
                tempfile.TemporaryDirectory() as scratch,
                store.run(kind, job.title, tags=tags, params=params, parent=parent) as run_id,
            ):
                made = Path(scratch)
                file = made / (artifact_path(job.variant.name) if job.is_variant else CHECKPOINT)
                file.parent.mkdir()
                file.write_bytes(tiny.read_bytes())
                store.log(run_id, metrics=dict.fromkeys(MEASURED, 0.5), tags={"digest": sha256(file)})
                if job.is_variant:
                    (made / predictions_path("test")).parent.mkdir()
                    for name, split in dataset(job.variant.config).splits().items():
                        predicted = np.where(rng.random(len(split)) < 0.9, split.labels, 0).astype(np.int32)
                        scores = np.full(len(split), 0.9, np.float32)
                        Predictions(split.labels, predicted, scores, scores).save(made / predictions_path(name))
                    (made / AUDIT).write_text('{"layers": []}', encoding="utf-8")
                (made / "config.yaml").write_text(job.variant.config.text, encoding="utf-8")
                store.keep_all(run_id, made)
                outcomes.append(sweep.Outcome(run_id))
        spent["tracking"] += time.perf_counter() - started
        return outcomes

    return sweep.Launcher(launch)


def measure(models: int, tiny: Path) -> dict[str, float]:
    """Seconds of planning, tracking and closing of a sweep of `models` x 10 x 8 variants."""
    policies = ["prune=none"] + [f"prune=magnitude prune.final_sparsity={0.05 * i:.2f}" for i in range(1, POLICIES)]
    schemes = ["quant=none", "quant=drq", "quant=f16"]
    schemes += [f"quant=fiq quant.representative_images={10 * i}" for i in range(1, SCHEMES - 2)]
    seeds = [f"seed={i}" for i in range(models)]
    overrides = [" ".join(parts).split() for parts in itertools.product(seeds, policies, schemes)]
    spent = {"planning": 0.0, "tracking": 0.0, "closing": 0.0, "latency (its own budget)": 0.0}

    def timed(module: object, name: str, row: str) -> None:
        real = getattr(module, name)

        def call(*arguments: object, **named: object) -> object:
            started = time.perf_counter()
            try:
                return real(*arguments, **named)
            finally:
                spent[row] += time.perf_counter() - started

        setattr(module, name, call)

    for module, name, row in (
        (run, "expand", "planning"),
        (plan, "make", "planning"),
        (closing, "close", "closing"),
        (closing.benchmark, "measure", "latency (its own budget)"),
    ):
        timed(module, name, row)
    settings = ["benchmark.seconds=1", "benchmark.operators=false", "benchmark.rounds=3", "benchmark.instances=3"]
    with (
        tempfile.TemporaryDirectory() as folder,
        chdir(folder),
        initialize_config_dir(str(CONF), version_base="1.3"),
    ):
        run.run(
            [[*o, *settings] for o in overrides],
            composer(hydra_compose("config", return_hydra_config=True)),
            recorded(tiny, spent),
        )
    spent["closing"] -= spent["latency (its own budget)"]
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="160,800,1600", help="numbers of variants, multiples of 80")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tiny", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        logging.disable(logging.WARNING)
        spent = measure(arguments.one // (POLICIES * SCHEMES), arguments.tiny)
        per_variant = {name: 1000 * seconds / arguments.one for name, seconds in spent.items()}
        own = sum(ms for name, ms in per_variant.items() if "budget" not in name)
        columns = "  ".join(f"{name} {ms:6.1f}" for name, ms in per_variant.items() if "budget" not in name)
        print(f"{arguments.one:5d} variants: {columns}  together {own:6.1f} ms per variant", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny.tflite"
        subprocess.run([sys.executable, "-c", TINY, str(tiny)], check=True, capture_output=True)
        for size in arguments.sizes.split(","):
            command = [sys.executable, "-m", "scripts.sweep_scale", "--one", size, "--tiny", str(tiny)]
            output = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
            print(next(line for line in output.splitlines() if "together" in line), flush=True)


if __name__ == "__main__":
    main()
