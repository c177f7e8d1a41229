"""The small data sets that Keras loads, through its own loader and its own cache."""

import os
import socket
from typing import Literal

from pydantic.dataclasses import dataclass as schema

from src.data import Dataset, from_arrays
from src.data.decode import Resize, resize
from src.machine import backend, output
from src.settings.check import STRICT, ImageSize, Seed, SplitShare, UserError

# As Keras's documentation has them; the others have digits, or names that the loader does not tell.
CLASSES = {
    "fashion_mnist": "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle_boot",
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
}
CONNECT_SECONDS = 30


@schema(frozen=True, config=STRICT)
class KerasBuiltin:
    """A data set that Keras loads. `image_size` null leaves the images as they are."""

    name: Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]
    image_size: ImageSize | None = None
    resize: Resize = "bilinear"
    seed: Seed = 0
    validation: SplitShare = 0.1


def load(config: KerasBuiltin) -> Dataset:
    """Keras's training and test images; validation is drawn from training.

    The copy in `KERAS_HOME`, or `~/.keras`, is used if there is one. Raises `UserError` if it must be downloaded and
    can't be.
    """
    key = f"data.name={config.name}"
    home = os.path.expanduser(os.environ.get("KERAS_HOME", "~/.keras"))
    backend.prepare()
    with output.quiet():
        import tf_keras

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)  # the loader waits forever where a firewall swallows packets
    try:
        (x_train, y_train), (x_test, y_test) = getattr(tf_keras.datasets, config.name).load_data(cache_dir=home)
    except Exception as error:  # what the loader raises, from URL errors to broken archives, has no type in common
        reason = " ".join(str(error).split())
        raise UserError(f"{key}: {reason}; takes a network, or a copy in {home}/datasets") from None
    finally:
        socket.setdefaulttimeout(timeout)
    given = {"train": (x_train, y_train.reshape(-1)), "test": (x_test, y_test.reshape(-1))}
    images = {name: images if images.ndim == 4 else images[..., None] for name, (images, _) in given.items()}
    if config.image_size is not None:
        images = {name: resize(each, config.image_size, config.resize) for name, each in images.items()}
    count = int(y_train.max()) + 1
    classes = CLASSES[config.name].split() if config.name in CLASSES else [str(label) for label in range(count)]
    return from_arrays(
        {name: (images[name], labels.astype(int)) for name, (_, labels) in given.items()},
        classes,
        {"validation": config.validation},
        config.seed,
        key,
    )
