"""The twelve variants as a script has them that knows nothing of this project: Keras, TFMOT, the converter, one
interpreter.

    python benchmarks/bare.py EPOCHS PRUNE_EPOCHS

It checks little and records nothing. Data, network, batches, policies and schemes are those of `python -m src.run -m
train.epochs=EPOCHS prune.epochs=PRUNE_EPOCHS`.
"""

import gzip
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_digits

BATCH, STEPS = 64, 449 // 64
POLICIES = {"p1": (0.0, 0.5), "p2": (0.5, 0.8)}

digits = load_digits()
images, labels = (digits.images / 16).astype(np.float32)[..., None], digits.target
train, validation, test = np.split(np.random.default_rng(0).permutation(len(images)), [449, 899])


def network() -> tf_keras.Model:
    layers = tf_keras.layers
    return tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv3"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu", name="dense1"),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )


def fit(model: tf_keras.Model, epochs: int, rate: float, *callbacks: tf_keras.callbacks.Callback) -> None:
    schedule = tf_keras.optimizers.schedules.CosineDecay(rate, STEPS * epochs)
    model.compile(tf_keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    chosen = train[: STEPS * BATCH]
    held_out = images[validation], labels[validation]
    model.fit(
        images[chosen],
        labels[chosen],
        batch_size=BATCH,
        epochs=epochs,
        validation_data=held_out,
        verbose=0,
        callbacks=list(callbacks),
    )


def pruned(file: Path, policy: str, epochs: int) -> tf_keras.Model:
    begin, end = POLICIES[policy]
    decay = tfmot.sparsity.keras.PolynomialDecay(begin, end, 0, int(0.6 * STEPS * epochs), frequency=4)

    def wrapped(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
        if layer.name in ("conv2", "conv3", "dense1"):
            return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=decay)
        return layer

    model = tf_keras.models.clone_model(tf_keras.models.load_model(file), clone_function=wrapped)
    whole = tf_keras.models.load_model(file)
    for layer, before in zip(model.layers, whole.layers, strict=True):
        if before.get_weights():
            (layer.layer if hasattr(layer, "layer") else layer).set_weights(before.get_weights())
    fit(model, epochs, 1e-3, tfmot.sparsity.keras.UpdatePruningStep())
    return tfmot.sparsity.keras.strip_pruning(model)


def converted(model: tf_keras.Model, scheme: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if scheme != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme == "fiq":
        converter.representative_dataset = lambda: ([images[i : i + 1]] for i in train[:200])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content


def accuracy(content: bytes, split: np.ndarray) -> float:
    interpreter = Interpreter(model_content=content, num_threads=2)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    right = 0
    for i in split:
        image = images[i : i + 1]
        if taken["dtype"] == np.int8:
            scale, zero_point = taken["quantization"]
            image = np.clip(np.rint(image / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(taken["index"], image)
        interpreter.invoke()
        right += int(interpreter.get_tensor(given["index"])[0].argmax() == labels[i])
    return right / len(split)


def main(epochs: int, prune_epochs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        models = {"none": network()}
        fit(models["none"], epochs, 2e-3)
        models["none"].save(Path(folder) / "none.h5")
        for policy in POLICIES:
            models[policy] = pruned(Path(folder) / "none.h5", policy, prune_epochs)
    for name, model in models.items():
        for scheme in ("none", "drq", "fiq", "f16"):
            content = converted(model, scheme)
            shares = [accuracy(content, split) for split in (train, validation, test)]
            print(f"{name}-{scheme}", len(gzip.compress(content, 6)), *(f"{share:.4f}" for share in shares))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
