"""What this project does with a model of the zoo: its check before a sweep, then each stage, as `src.run -m` has them
done.

    python -m scripts.zoo.here FD

A process of its own: it stands for the command, which is not to crash.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir

from scripts.zoo import child
from scripts.zoo.outputs import called_in_training, largest_difference, probabilities, run
from src.cli.compose import CONF, composer
from src.data import dataset, preprocess
from src.pipeline import stages, worker
from src.settings.check import Told, UserError
from src.store.names import CHECKPOINT, artifact_path, predictions_path
from src.store.store import Store
from src.sweep import plan, running
from src.sweep.variant import Variant, expand

SHORT = ("prune.epochs=1", "prune.batch_size=8", "prune.layers.min_share=0", "quant.representative_images=8")


class Here:
    """One store, in `folder`, one composer and one worker process for all models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> "Here":
        self.hydra = initialize_config_dir(str(CONF), version_base="1.3")
        self.hydra.__enter__()
        self.compose = composer(compose("config", return_hydra_config=True))
        return self

    def __exit__(self, *_: object) -> None:
        worker.stop()
        self.hydra.__exit__(None, None, None)

    def answers(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """`refused`, or for each variant why it is not there, and of the first one how it differs from the model."""
        folder = Path(request["folder"])
        lists = [
            [*self._overrides(request, folder), f"prune={prune}", f"quant={quant}"]
            for prune, schemes in request["variants"].items()
            for quant in schemes
        ]
        if request["unknown"]:
            worker.stop()  # one that has loaded them for another model knows what is registered
        yield {"at": "check"}
        try:
            planned = running.check(plan.make(expand(lists, self.compose), None, "none"), None)
        except Exception as error:
            yield {"refused": True, **_told(error)}
            return
        for variant in planned.left_out:
            yield {"left_out": variant.name, "why": variant.refused, "expected": True}
        store = Store(planned.variants[0].config.tracking)
        failed: dict[str, dict[str, Any]] = {}
        for variant in planned.variants:
            failure: dict[str, Any] = {}
            for stage in variant.chain:
                if stage.key in failed:
                    failure = failed[stage.key]
                    break
                yield {"at": f"{variant.name}: {stage.name}"}
                try:
                    run_id = stages.perform(stages.Request(stage, variant.config, variant.name), store)
                except Exception as error:
                    failure = failed[stage.key] = _told(error)
                    break
                if stage is variant.chain[0] and variant.is_baseline:
                    yield {"at": "training"}
                    yield {"training": self._training(variant, store.file(run_id, CHECKPOINT), folder)}
            yield {"variant": variant.name, "dense": len(variant.chain) == 2, **failure}
            if variant.is_baseline and not failure:
                yield {"at": "difference"}
                artifact = store.file(run_id, artifact_path(variant.name))
                predictions = store.file(run_id, predictions_path("test"))
                yield {"difference": _difference(variant.config, artifact, predictions, folder)}

    def _overrides(self, request: dict[str, Any], folder: Path) -> list[str]:
        custom = ",".join(request["custom"])
        name = "savedmodel" if request["format"] == "savedmodel" else f"model.{request['format']}"
        return [
            "model=saved",
            f"model.path={folder / name}",
            f"model.custom_objects=[{custom}]",
            "train=none",
            "data=npz",
            f"data.path={folder / 'images.npz'}",
            f"tracking.uri=sqlite:///{self.folder}/mlflow.db",
            *SHORT,
        ]

    def _training(self, variant: Variant, checkpoint: Path, folder: Path) -> str:
        x = preprocess(np.load(folder / "images.npz")["x_test"], variant.config.model.settings.preprocess)
        custom = variant.config.model.settings.custom_objects
        try:
            how, first = worker.call(called_in_training, checkpoint, custom, x)
        except Told as error:
            return f"failed: {error}"
        if how == "fixed" and largest_difference(first, np.load(folder / "training.npy")[: len(first)]) > 1e-3:
            return "another"
        return how


def _difference(config: Any, artifact: Path, predictions: Path, folder: Path) -> float:
    """The larger one of two: between the artifact's outputs and the model's own scores, and between the confidences
    that the project has recorded and what those scores make of them."""
    images, scores = np.load(folder / "images.npz")["x_test"], np.load(folder / "scores.npy")
    x = preprocess(images, config.model.settings.preprocess)
    of_outputs = largest_difference(run(artifact.read_bytes(), x), scores)
    of_image = {image.tobytes(): row for image, row in zip(images, probabilities(scores), strict=True)}
    split = dataset(config).test
    rows = np.stack([of_image[image.tobytes()] for image in split.read(np.arange(len(split)))])
    with np.load(predictions) as recorded:
        confidences = recorded["true_confidence"]
    return max(of_outputs, largest_difference(confidences, rows[np.arange(len(rows)), split.labels]))


def _told(error: Exception) -> dict[str, Any]:
    """What a user reads, and whether it was written for one."""
    return {"why": str(error) or repr(error), "expected": isinstance(error, UserError)}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as scratch, Here(Path(scratch)) as here:
        child.serve(here.answers)
