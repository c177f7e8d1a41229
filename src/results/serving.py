"""A variant as a classifier of a user's images: what `mlflow.pyfunc` loads and serves. It knows LiteRT, not TensorFlow.

It is carried into the logged model together with the modules that it imports, so what is served is what was measured.
"""

import ast
import base64
import binascii
import functools
import json
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from src.data.decode import UnreadableError, decode, resize
from src.measure.inference import Inference
from src.settings.check import UserError, check
from src.settings.head import Head
from src.settings.sections import Preprocess

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ("ai-edge-litert", "numpy", "pillow", "pydantic", "simplejpeg")
MODEL, PREPROCESSING = "model.tflite", "preprocessing.json"
SCORES = 5  # classes per image, the most probable first


class Classifier:
    """From images to labels with scores.

    An image is a uint8 array `[height, width, channels]` (or `[height, width]` of gray values) of any size, the bytes
    of an image file, or those as base64 text. Each is resized to the size that the model takes, as in the sweep.

    Example:
        classifier = mlflow.pyfunc.load_model("models:/compression@champion")
        classifier.predict([Path("cat.jpg").read_bytes()])
        [{"label": "cat", "score": 0.97, "scores": {"cat": 0.97, "dog": 0.02, …}}]
    """

    def __init__(self, folder: Path) -> None:
        """`folder` holds `model.tflite` and `preprocessing.json`."""
        self.how = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
        self.classes: list[str] = self.how["classes"]
        self.shape = tuple(self.how["image_shape"])
        head = Head(self.how.get("head"), self.how["logits"], tuple(self.how.get("outputs", ())))
        self.model = Inference(folder / MODEL, threads=1, head=head)
        self.encode = self.model.encoder(check(Preprocess, self.how["preprocess"], "preprocess"))
        self.one_at_a_time = threading.Lock()  # an interpreter is not for several threads

    def predict(self, images: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """One dict per image: its `label`, the `score` of that in [0, 1], and `scores` of the most probable classes.
        Where the model gives no number (NaN), `label` and `score` are None and `scores` is empty.

        `images` is an array `[n, height, width, channels]`, a list of images of any kind, a table with one column of
        them, or one image; three dimensions are one image where the last is the channels that the model takes. Raises
        `ValueError` for what is no image: a server's status 400, with its text.
        """
        try:
            pixels = [self.pixels(image, index) for index, image in enumerate(_each(images, self.shape[2]))]
        except ValueError as error:
            raise _refusal(str(error)) from None
        with self.one_at_a_time:
            # One by one, since an operator that quantizes its input could choose one scale for a whole batch.
            scores = [self.model.probabilities(self.model.run(self.encode(image[None])))[0] for image in pixels]
        return [self._named(each) for each in scores]

    def pixels(self, image: Any, index: int = 0) -> np.ndarray:
        """uint8 of the shape that the model takes. Raises `ValueError`, which names the image by its index."""
        *size, channels = self.shape
        try:
            if isinstance(image, str):
                image = _decoded(image)
            if isinstance(image, bytes | bytearray | memoryview):
                found = decode(bytes(image), tuple(size), channels, self.how["resize"], self.how["crop"])[0]
                return found
            array = _array(image)
            if array.dtype != np.uint8:
                if not np.issubdtype(array.dtype, np.integer) or (
                    array.size and (array.min() < 0 or array.max() > 255)
                ):
                    raise ValueError(f"an array of {array.dtype}; takes whole numbers from 0 to 255 (uint8)")
                array = array.astype(np.uint8)
            if array.ndim == 2:
                array = array[..., None]
            if array.ndim != 3 or array.shape[2] not in (1, channels) or 0 in array.shape:
                raise ValueError(f"an array of shape {array.shape}; takes [height, width, {channels}]")
            if array.shape[2] != channels:
                array = np.repeat(array, channels, axis=2)
            return resize(array[None], tuple(size), self.how["resize"])[0]
        except (UnreadableError, UserError, ValueError) as error:
            raise ValueError(f"image {index}: {error}") from None

    def _named(self, scores: np.ndarray) -> dict[str, Any]:
        if not np.isfinite(scores).all():
            return {"label": None, "score": None, "scores": {}}
        best = np.argsort(-scores, kind="stable")[:SCORES]
        named = {self.classes[i]: float(scores[i]) for i in best}
        return {"label": self.classes[best[0]], "score": float(scores[best[0]]), "scores": named}


def _each(images: Any, channels: int) -> Iterable[Any]:
    if hasattr(images, "iloc"):  # a table
        if images.shape[1] != 1:
            raise ValueError(f"a table of {images.shape[1]} columns; takes one, of images")
        return list(images.iloc[:, 0])
    if isinstance(images, str | bytes | bytearray | memoryview):
        return [images]
    if not isinstance(images, list | tuple | np.ndarray):
        raise ValueError(f"{type(images).__name__}; takes a list of images")
    if isinstance(images, list | tuple) and len(images) and isinstance(images[0], list):  # as JSON has an array
        with suppress(ValueError):  # images of different sizes
            if np.shape(images)[2:] == (channels,):
                return [np.asarray(images)]
    if isinstance(images, np.ndarray) and images.dtype != object:
        is_one = images.ndim == 2 or (images.ndim == 3 and images.shape[2] == channels)
        return [images] if is_one else images
    return images


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.rpartition("base64,")[2], validate=True)
    except binascii.Error:
        raise ValueError("text that is no base64; takes the bytes of an image file as base64") from None


def _array(image: Any) -> np.ndarray:
    try:
        return np.asarray(image)
    except ValueError:
        raise ValueError("rows of different lengths; takes [height, width, channels]") from None


def _refusal(why: str) -> ValueError:
    """What MLflow's server answers as it is: of another error it gives a traceback, and of its own all that it got."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST

    class Refusal(MlflowException, ValueError):
        def __setattr__(self, name: str, value: Any) -> None:
            if name != "message" or not hasattr(self, "message"):
                super().__setattr__(name, value)

    return Refusal(why, error_code=BAD_REQUEST)


def _load_pyfunc(path: str) -> Classifier:
    """What `mlflow.pyfunc` calls with the folder that `prepare` has filled."""
    return Classifier(Path(path))


# --- What is carried into the logged model ---------------------------------------------------------------------


def prepare(artifact: Path, preprocessing: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Fills `folder`; gives the folder of data, for `_load_pyfunc`, and that of code."""
    data, code = folder / "data", folder / "code" / ROOT.name
    data.mkdir()
    (data / MODEL).write_bytes(artifact.read_bytes())
    (data / PREPROCESSING).write_text(json.dumps(preprocessing, indent=1) + "\n", encoding="utf-8")
    for module in carried("src.results.serving"):
        copy = code / module.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(module.read_text(encoding="utf-8"), encoding="utf-8")
    return data, code


@functools.cache
def carried(module: str) -> list[Path]:
    """The files of this project that a module needs: its own, those that it imports, and their packages."""
    todo, found = [module], set()
    while todo:
        name = todo.pop()
        path = ROOT.joinpath(*name.split(".")[1:])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file in found or not file.is_file():
            continue
        found.add(file)
        todo.append(name.rpartition(".")[0])
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "src":
                todo += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return sorted(found)
