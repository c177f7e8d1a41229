"""Every layer that asks for `training`, called and saved by Keras 3 in a process of its own.

    python keras3_calls.py FOLDER

Leaves a model in both formats per layer, and what Keras 3 itself makes of it: `predict` and one call in training.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers

IMAGES = np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32)


def norm() -> layers.Layer:
    away = keras.initializers.RandomNormal(seed=1)
    return layers.BatchNormalization(beta_initializer=away, moving_mean_initializer=away)


def inner(*parts: layers.Layer) -> keras.Model:
    return keras.Sequential([layers.Input((8, 8, 3)), *parts])


def functional(*parts: layers.Layer) -> keras.Model:
    image = x = keras.Input((8, 8, 3))
    for part in parts:
        x = part(x)
    return keras.Model(image, x)


CALLS = {
    "Dropout": lambda x: layers.Dropout(0.5)(x),
    "SpatialDropout2D": lambda x: layers.SpatialDropout2D(0.5)(x),
    "GaussianNoise": lambda x: layers.GaussianNoise(0.5)(x),
    "GaussianDropout": lambda x: layers.GaussianDropout(0.5)(x),
    "AlphaDropout": lambda x: layers.AlphaDropout(0.5)(x),
    "BatchNormalization": lambda x: norm()(x),
    "RandomRotation": lambda x: layers.RandomRotation(0.2)(x),
    "RandomZoom": lambda x: layers.RandomZoom(0.4)(x),
    "RandomFlip": lambda x: layers.RandomFlip()(x),
    "RandomTranslation": lambda x: layers.RandomTranslation(0.4, 0.4)(x),
    "CenterCrop": lambda x: layers.CenterCrop(6, 6)(x),
    "Attention": lambda x: layers.Attention(dropout=0.5)([layers.Reshape((64, 3))(x)] * 2),
    "nested Sequential": lambda x: inner(layers.RandomRotation(0.2), layers.Dropout(0.5))(x),
    "nested Functional": lambda x: functional(norm(), layers.Dropout(0.5))(x),
    "on purpose: Dropout on": lambda x: layers.Dropout(0.5)(x, training=True),
    "on purpose: nested on": lambda x: inner(layers.Dropout(0.5))(x, training=True),
    "on purpose: BatchNormalization off": lambda x: norm()(x, training=False),
    "on purpose: nested off": lambda x: inner(layers.Dropout(0.5), norm())(x, training=False),
    "on purpose: RandomRotation off": lambda x: layers.RandomRotation(0.2)(x, training=False),
}


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    for name, call in CALLS.items():
        image = keras.Input((8, 8, 3))
        model = keras.Model(image, layers.Dense(3)(layers.Flatten()(call(image))))
        for suffix in ("keras", "h5"):
            file = folder / f"{name}.{suffix}"
            model.save(file)
            try:
                keras.saving.load_model(file, compile=False)
            except TypeError:  # Keras 3.15 mistakes the text 'dot' in an HDF5 file for its function
                file.unlink()
        predicted = model.predict(IMAGES, verbose=0)  # before training moves the statistics of batches
        trained = [np.asarray(model(IMAGES, training=True)) for _ in range(2)]
        np.savez(folder / f"{name}.npz", images=IMAGES, predicted=predicted, trained=trained)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
