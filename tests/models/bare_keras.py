"""What someone has before they come here: a classifier trained, evaluated and saved by a script of their own.

    python bare_keras.py IMAGES FOLDER FORMAT...

TF_USE_LEGACY_KERAS says whether `tf.keras` is Keras 2 or 3. Prints the accuracy on the test images that Keras's own
`evaluate` gives, and leaves `scores.npy` and one model per format.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

keras = tf.keras
layers = keras.layers


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels as OpenCV gives them, blue first, about zero."""
    files = sorted(folder.glob("*/*.png"))
    classes = sorted({file.parent.name for file in files})
    images = np.stack([np.asarray(Image.open(file))[..., ::-1] for file in files]).astype("float32")
    return (images - np.float32([90, 100, 110])) / np.float32([60, 70, 80]), np.array(
        [classes.index(file.parent.name) for file in files]
    )


def main(images: Path, folder: Path, formats: list[str]) -> None:
    keras.utils.set_random_seed(0)
    x, y = read(images / "train")
    features = keras.Sequential(
        [
            layers.Input((8, 8, 8)),
            layers.SeparableConv2D(16, 3, padding="same"),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
        ]
    )
    inputs = layers.Input((8, 8, 3))
    outputs = features(layers.Conv2D(8, 3, padding="same", activation="relu")(inputs))
    outputs = layers.Dropout(0.1)(layers.Flatten()(outputs))
    model = keras.Model(inputs, layers.Dense(10)(outputs))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=2, batch_size=32, verbose=0)
    x, y = read(images / "test")
    np.save(folder / "scores.npy", model.predict(x, verbose=0))
    for name in formats:
        model.save(folder / name)
    print(model.evaluate(x, y, verbose=0)[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
