"""Leaves SavedModels of every origin, the digits, and what each model gives: served_models.py FOLDER

With TF_USE_LEGACY_KERAS=1 those of Keras 2, else those of Keras 3 and of TensorFlow alone.
"""

import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

if os.environ.get("TF_USE_LEGACY_KERAS") == "1":
    import tf_keras as keras
else:
    import keras

L = keras.layers
FOLDER = Path(sys.argv[1])
digits = load_digits()
x, y = (digits.images * 15).astype(np.uint8)[..., None], digits.target
np.savez(
    FOLDER / "digits.npz",
    **{f"x_{split}": x[of] for split, of in (("train", slice(0, 1200)), ("val", slice(1200, 1400)))},
    **{f"y_{split}": y[of] for split, of in (("train", slice(0, 1200)), ("val", slice(1200, 1400)))},
    x_test=x[1400:],
    y_test=y[1400:],
)
keras.utils.set_random_seed(0)
image = keras.Input((8, 8, 1))
features = L.MaxPooling2D()(L.BatchNormalization()(L.Conv2D(16, 3, activation="relu", padding="same")(image)))
model = keras.Model(image, L.Dense(10, activation="softmax")(L.Dropout(0.2)(L.Flatten()(features))))
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x[:1200] / 255, y[:1200], epochs=4, verbose=0)
np.save(FOLDER / "scores.npy", model.predict(x[1400:] / 255, verbose=0))


class Doubled(L.Layer):
    def call(self, x):
        return 2 * x


class Around(keras.Model):
    def __init__(self):
        super().__init__()
        self.model = model

    def call(self, x, training=None):
        return self.model(x)


class Functions(tf.Module):
    """Functions of TensorFlow alone, with the model's variables."""

    def __init__(self):
        self.model = model
        four = keras.Input(batch_shape=(4, 8, 8, 1))
        apart = [layer for layer in model.layers[1:] if not isinstance(layer, L.Flatten)]
        x = four
        for layer in apart[:-1]:
            x = layer(x)
        self.of_a_fixed_number = keras.Model(four, apart[-1](L.Flatten()(x)))  # with the number in its graph

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.uint8)])
    def of_bytes(self, pixels):
        return self.model(tf.cast(pixels, tf.float32) / 255)

    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 1))])
    def of_one(self, image):
        return self.model(image)

    @tf.function(input_signature=[tf.TensorSpec((None, 1, 8, 8))])
    def channels_first(self, images):
        return {"logits": tf.math.log(self.model(tf.transpose(images, (0, 2, 3, 1))))}

    @tf.function(input_signature=[tf.TensorSpec((4, 8, 8, 1))])
    def of_four(self, images):
        return self.of_a_fixed_number(images)

    @tf.function(input_signature=[tf.TensorSpec((4, 8, 8, 1))])
    def of_four_that_mix(self, images):
        return self.model(images - tf.reduce_mean(images, 0))

    @tf.function(input_signature=[tf.TensorSpec((4, 8, 8, 1))])
    def of_four_in_reverse(self, images):
        return self.model(images[::-1])

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1))])
    def two(self, images):
        scores = self.model(images)
        return {"scores": scores, "class": tf.argmax(scores, -1)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def of_files(self, files):
        return self.model(tf.zeros((tf.shape(files)[0], 8, 8, 1)))


class Writing(tf.Module):
    """A function that reaches beyond the model."""

    def __init__(self):
        self.model = model

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1))])
    def writes(self, images):
        tf.io.write_file(str(FOLDER / "mark"), "was here")
        return self.model(images)


def save(name, signatures, module=None):
    tf.saved_model.save(module or functions, str(FOLDER / name), signatures)


if os.environ.get("TF_USE_LEGACY_KERAS") == "1":
    own = keras.Model(image, model(Doubled(name="twice")(image) / 2))
    own.save(FOLDER / "own_layer", save_format="tf")
    around = Around()
    around(x[:2] / 255)
    around.save(FOLDER / "subclassed", save_format="tf")
else:
    functions = Functions()
    model.export(FOLDER / "exported", verbose=False)
    turned = L.RandomRotation(0.1)(L.RandomFlip()(image))
    keras.Model(image, model(turned)).export(FOLDER / "augmenting", verbose=False)
    for each in (
        "of_bytes",
        "of_one",
        "channels_first",
        "of_four",
        "of_four_that_mix",
        "of_four_in_reverse",
        "two",
        "of_files",
    ):
        save(each, {"serving_default": getattr(functions, each)})
    save("named", {"classify": functions.of_one})
    save("several", {"one": functions.of_one, "bytes": functions.of_bytes})
    writing = Writing()
    save("writes", {"serving_default": writing.writes}, writing)
    tf.saved_model.save(tf.Module(), str(FOLDER / "none"))
