"""Images as the model wants them: another width than height, channels first, one at a time, of any size."""

import io
from pathlib import Path

import numpy as np
import pytest
from conftest import Place
from PIL import Image

from src.machine import backend
from src.results.serving import Classifier
from src.store.names import artifact_path

FITS = ["model=saved", "train=none", "data=image_folder", "data.path=images", "benchmark.seconds=1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Pictures of 16 x 12 pixels whose left or right half is bright, and models of 8 x 6 that know them."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 90, (240, 16, 12, 3), np.uint8), np.arange(240) % 2
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        image[:, 6 * label : 6 * label + 6] += 120
        path = folder / "images" / ("train" if i < 160 else "test") / ("left", "right")[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    backend.prepare()
    import keras

    layers = keras.layers
    small = pixels.reshape(240, 8, 2, 6, 2, 3).mean((2, 4)).astype(np.float32) / 255

    def save(name: str, image: keras.KerasTensor, x: keras.KerasTensor, images: np.ndarray) -> None:
        keras.utils.set_random_seed(0)
        x = layers.GlobalMaxPooling2D()(layers.Conv2D(8, (3, 6), activation="relu")(x))
        model = keras.Model(image, layers.Dense(2, activation="softmax")(x))
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
        model.fit(images, labels, epochs=6, batch_size=1 if image.shape[0] else 32, verbose=0)
        model.save(folder / name)

    image = keras.Input((8, 6, 3))
    save("tall.keras", image, image, small)
    image = keras.Input((3, 8, 6))
    save("first.keras", image, layers.Permute((2, 3, 1))(image), small.transpose(0, 3, 1, 2))
    image = keras.Input((8, 6, 3), batch_size=1)
    save("one.keras", image, image, small)
    image = keras.Input((None, None, 3))
    save("any.keras", image, image, small)
    return Place(folder)


@pytest.mark.parametrize(
    "name", ["tall", "one", *(pytest.param(each, marks=pytest.mark.long) for each in ("first", "any"))]
)
def test_a_model_is_trained_and_shipped_for_the_images_that_it_takes(name: str, place: Place) -> None:
    settings = [
        *FITS,
        f"model.path={name}.keras",
        "data.image_size=[8,6]",
        "prune.epochs=1",
        "prune.layers.min_share=0",
    ]
    settings += ["prune.layers.spare_first_convolution=false"]
    done = place.run("-m", *settings, "prune=none,p1", "quant=none,fiq")
    assert done.returncode == 0, done.stderr
    runs = place.variants(place.newest_sweep())
    assert len(runs) == 4
    for variant, run in runs.items():
        assert run.metrics["test_accuracy"] > 0.9, variant
        assert run.params["image_shape"] == "8x6x3"
        signature = [1 if name == "one" else -1, 8, 6, 3]
        artifact = place.store().file(run.run_id, artifact_path(variant))
        assert shape_signature(artifact) == signature, variant
    folder = place.folder / f"device-{name}"
    exported = place.run(f"run={runs['p1-fiq'].run_id}", f"to={folder}", module="src.export")
    assert exported.returncode == 0, exported.stderr
    picture = place.folder / "images/test/right/161.png"
    (file := io.BytesIO()).write(picture.read_bytes())
    assert Classifier(folder).predict([file.getvalue()])[0]["label"] == "right"


def shape_signature(artifact: Path) -> list[int]:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(artifact)).get_input_details()[0]["shape_signature"].tolist()


def test_the_size_is_asked_for_and_a_wrong_one_is_answered_with_the_right_one(place: Place) -> None:
    for name, said in {
        "any": "data.image_size: the model takes images of any size; takes the one that it is meant for, such as "
        "data.image_size=224",
        "tall": "model.path=tall.keras: takes 8 x 6 x 3 images, the data has 32 x 32 x 3; set data.image_size=[8,6]",
        "first": "model.path=first.keras: takes 3 x 8 x 6 images, the data has 32 x 32 x 3; set data.image_size=[8,6]",
    }.items():
        done = place.run(*FITS, f"model.path={name}.keras")
        assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"error: {said}")
