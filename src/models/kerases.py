"""The two Kerases: a model is trained, written and converted by the one that made it."""

import sys
from typing import Any


def keras_of(model: Any) -> Any:
    """The module of the Keras that a model or layer is of: `tf_keras`, which is Keras 2, or `keras`, which is 3."""
    import tf_keras

    if isinstance(model, tf_keras.layers.Layer):
        return tf_keras
    import keras

    return keras


def seed_all(seed: int) -> None:
    """Seeds what models draw from: Python, NumPy, TensorFlow, and the generators of each Keras that there is."""
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(seed)


def count_names_anew() -> None:
    """Has layers that are made from here on numbered as in a process of their own: a class of the user's own makes them
    without names, and a promise and an artifact know them by name."""
    import tf_keras

    tf_keras.backend.reset_uids()
    if "keras" in sys.modules:
        from keras.src.utils import naming

        naming.reset_uids()


def tensors(variables: Any) -> list[Any]:
    """TensorFlow's own variables of Keras's: what a gradient is asked for."""
    import tensorflow as tf

    return [variable if isinstance(variable, tf.Variable) else variable.value for variable in variables]
