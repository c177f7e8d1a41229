"""A model of the user's own, loaded and checked before a sweep, beside Keras's own `load_model`: 25 MB of weights, in
each format of each Keras.

    python -m benchmarks.loading [ROUNDS]

Each side is timed in a new process once TensorFlow and its Keras are imported; the sides take turns. The file is in the
page cache of the system for both.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

FORMATS = {"2": (".keras", ".h5", ""), "3": (".keras", ".h5")}
MAKE = """
import sys, tensorflow as tf
keras, layers = tf.keras, tf.keras.layers
x = image = keras.Input((64, 64, 3))
for width in (32, 64, 128, 256, 512, 512, 512):
    for _ in range(2):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(width, 3 if width < 512 else 1, padding="same")(x)))
    x = layers.MaxPooling2D()(x) if width <= 256 else x
x = layers.Dense(520, activation="relu")(layers.Dropout(0.2)(layers.Flatten()(x)))
model = keras.Model(image, layers.Dense(10, activation="softmax")(x))
print(model.count_params() * 4 / 1e6)
for path in sys.argv[1:]:
    model.save(path)
"""
BY_KERAS = """
import sys, time, tensorflow as tf
tf.keras.layers.Dense(1).build((1, 1))
start = time.perf_counter()
tf.keras.models.load_model(sys.argv[1], compile=False)
print(time.perf_counter() - start)
"""
HERE = """
import sys, time
from src.machine import backend
backend.prepare()
import tensorflow as tf
tf.keras.layers.Dense(1).build((1, 1))
from src.models import saved
from src.pipeline import work
from src.settings.config import Step
step = Step("model", "saved", "src.models.saved.build", saved.Saved(path=sys.argv[1]))
start = time.perf_counter()
work.check(step, (), (64, 64, 3), 10)
print(time.perf_counter() - start)
"""


def run(script: str, version: str, *arguments: str) -> float:
    variables = {"TF_USE_LEGACY_KERAS": str(int(version == "2")), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | variables,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else 5
    with tempfile.TemporaryDirectory() as folder:
        for version, suffixes in FORMATS.items():
            paths = [str(Path(folder) / f"keras{version}{suffix}") for suffix in suffixes]
            size = run(MAKE, version, *paths)
            for path, suffix in zip(paths, suffixes, strict=True):
                times = [(run(BY_KERAS, version, path), run(HERE, version, path)) for _ in range(rounds)]
                ratios = sorted(here / keras for keras, here in times)
                keras, here = (statistics.median(side) for side in zip(*times, strict=True))
                print(
                    f"Keras {version} {suffix or 'SavedModel':<10} {size:.0f} MB: {keras:.2f} s, here {here:.2f} s; "
                    f"ratio {statistics.median(ratios):.2f} (of single rounds {ratios[0]:.2f} to {ratios[-1]:.2f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
