"""Predictions are those of the shipped file, image by image with one thread, however they were come by."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from artifacts import CLASSES, PREPROCESS, SCHEMES, SHAPE, Tiny

from src.data import Split, in_memory, preprocess
from src.measure.accuracy import predict
from src.measure.predictions import Predictions
from src.settings.check import UserError
from src.settings.sections import Preprocess


def one_by_one(artifact: Path, images: np.ndarray, how: Preprocess) -> np.ndarray:
    """What the file gives, in its own dtype: one image at a time, one thread, arithmetic as in the documentation."""
    interpreter = Interpreter(model_path=str(artifact), num_threads=1)
    interpreter.allocate_tensors()
    input_, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = input_["quantization"]
    rows = []
    for image in images:
        values = preprocess(image, how)
        if scale:
            limits = np.iinfo(input_["dtype"])
            values = np.clip(np.rint(values / np.float32(scale)) + zero_point, limits.min, limits.max)
        interpreter.set_tensor(input_["index"], values[None].astype(input_["dtype"]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(output["index"])[0])
    return np.array(rows)


def pixels(split: Split) -> np.ndarray:
    return split.read(np.arange(len(split)))


@pytest.mark.parametrize("scheme", [*SCHEMES, "uint8", "logits", "logits-fiq", "sparse-none", "sparse-f16"])
def test_batches_on_two_threads_predict_what_single_images_on_one_do(tiny: Tiny, scheme: str) -> None:
    found = predict(tiny.files[scheme], tiny.split, PREPROCESS, threads=2)
    expected = one_by_one(tiny.files[scheme], pixels(tiny.split), PREPROCESS)
    assert np.array_equal(found.predicted, expected.argmax(axis=1))
    assert 0.3 < found.accuracy < 1  # neither chance nor so easy that a wrong input would not show
    assert found.predicted.dtype == np.int32
    assert found.labels.dtype == np.int64
    if expected.dtype == np.float32 and scheme != "logits":
        assert np.array_equal(found.confidence, expected.max(axis=1))
        assert np.array_equal(found.true_confidence, expected[np.arange(len(expected)), found.labels])


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_the_batch_size_changes_nothing(tiny: Tiny, batch_size: int) -> None:
    once = predict(tiny.files["drq"], tiny.split, PREPROCESS, threads=1)
    again = predict(tiny.files["drq"], tiny.split, PREPROCESS, threads=2, batch_size=batch_size)
    assert all(np.array_equal(getattr(once, name), getattr(again, name)) for name in vars(once) if name != "correct")


@pytest.mark.parametrize("name", ["fixed", "mixing"])
def test_a_graph_that_a_batch_would_break_is_run_image_by_image(tiny: Tiny, name: str) -> None:
    found = predict(tiny.files[name], tiny.split, PREPROCESS, threads=2)
    assert np.array_equal(found.predicted, one_by_one(tiny.files[name], pixels(tiny.split), PREPROCESS).argmax(axis=1))


def test_logits_become_probabilities_and_a_softmax_is_left_alone(tiny: Tiny) -> None:
    raw = predict(tiny.files["logits"], tiny.split, PREPROCESS, threads=1)
    softmax = predict(tiny.files["none"], tiny.split, PREPROCESS, threads=1)
    assert raw.confidence == pytest.approx(softmax.confidence, abs=1e-5)
    assert raw.true_confidence == pytest.approx(softmax.true_confidence, abs=1e-5)
    # int8: steps of 1/256 from 0 to 255/256
    quantized = predict(tiny.files["fiq"], tiny.split, PREPROCESS, threads=1).confidence * 256
    assert np.array_equal(quantized, np.rint(quantized))


@pytest.mark.parametrize(
    "how",
    [Preprocess(), Preprocess(rescale=1 / 127.5, mean=(1.0,)), PREPROCESS, replace(PREPROCESS, channel_order="bgr")],
)
@pytest.mark.parametrize("scheme", ["none", "fiq", "uint8"])
def test_every_pixel_value_reaches_the_input_exactly(tiny: Tiny, scheme: str, how: Preprocess) -> None:
    images = np.arange(256 * 3, dtype=np.int64).reshape(-1, 1, 1, 1) % 256
    images = np.broadcast_to(images, (768, *SHAPE)).astype(np.uint8)[:512]
    images[..., 1] = 255 - images[..., 1]
    split = in_memory(images, np.zeros(512, int), [""] * 512)
    found = predict(tiny.files[scheme], split, how, threads=2)
    assert np.array_equal(found.predicted, one_by_one(tiny.files[scheme], images, how).argmax(axis=1))


def test_splits_larger_than_memory_are_read_in_bounded_parts_one_ahead(tiny: Tiny) -> None:
    pixel_bytes = int(np.prod(SHAPE))
    requests: list[np.ndarray] = []
    threads = set()

    def read(indices: np.ndarray) -> np.ndarray:
        requests.append(indices)
        threads.add(threading.current_thread())
        return np.zeros((len(indices), *SHAPE), np.uint8)

    n = 40_000
    predict(tiny.files["fiq"], Split(np.zeros(n, np.int64), range(n), read), PREPROCESS, threads=2)  # type: ignore[arg-type]
    assert np.array_equal(np.concatenate(requests), np.arange(n))
    assert max(map(len, requests)) * pixel_bytes <= 4 << 20
    assert len(requests[0]) <= 256  # not a core waits long for the first
    assert threads - {threading.current_thread()}


@pytest.mark.parametrize("threads", [1, 2])
def test_where_an_image_cannot_be_read_the_rest_is_not_tried(tiny: Tiny, threads: int) -> None:
    requests: list[int] = []

    def read(indices: np.ndarray) -> np.ndarray:
        requests.append(indices[0])
        if indices[-1] >= 10_000:
            raise OSError("the disk is gone")
        return np.zeros((len(indices), *SHAPE), np.uint8)

    labels = np.zeros(40_000, np.int64)
    with pytest.raises(OSError, match="the disk is gone"):
        predict(tiny.files["fiq"], Split(labels, range(len(labels)), read), PREPROCESS, threads)  # type: ignore[arg-type]
    assert max(requests) < 20_000


def test_a_class_that_the_model_does_not_know_ends_it_wherever_it_stands(tiny: Tiny) -> None:
    images = np.zeros((5_000, *SHAPE), np.uint8)
    labels = np.zeros(len(images), np.int64)
    labels[4_000] = CLASSES
    with pytest.raises(UserError, match=f"but an image is of class {CLASSES}"):
        predict(tiny.files["fiq"], in_memory(images, labels, [""] * len(images)), PREPROCESS, threads=2)


def test_progress_counts_every_image_once(tiny: Tiny) -> None:
    counts: list[int] = []
    predict(tiny.files["none"], tiny.split, PREPROCESS, threads=1, progress=counts.append)
    assert sum(counts) == len(tiny.split)


def test_predictions_survive_a_file_and_the_same_give_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    found = predict(tiny.files["none"], tiny.split, PREPROCESS, threads=1)
    found.save(tmp_path / "a.npz")
    replace(found).save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = Predictions.load(tmp_path / "a.npz")
    assert loaded.accuracy == found.accuracy
    assert np.array_equal(loaded.true_confidence, found.true_confidence)


def test_accuracies_of_a_worked_example() -> None:
    # 4 of 5 rightly classified; of class 0 all three, of class 2 one of two, class 1 has no image
    labels, predicted = np.array([0, 0, 0, 2, 2]), np.array([0, 0, 0, 2, 0], np.int32)
    confidence = np.ones(5, np.float32)
    found = Predictions(labels, predicted, confidence, confidence)
    assert found.accuracy == 0.8
    assert found.balanced_accuracy == 0.75
    assert found.ece == pytest.approx(0.2)


def test_an_empty_split_has_no_predictions(tiny: Tiny) -> None:
    empty = in_memory(np.zeros((0, *SHAPE), np.uint8), np.zeros(0, int), [])
    assert len(predict(tiny.files["none"], empty, PREPROCESS, threads=1).predicted) == 0


@pytest.mark.parametrize("name", ["truncated", "empty", "text"])
def test_a_file_that_is_no_model_is_named_in_one_line(tiny: Tiny, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name}.tflite: can't be loaded") as error:
        predict(tiny.files[name], tiny.split, PREPROCESS, threads=1)
    assert "\n" not in str(error.value)


def test_a_label_beyond_the_classes_of_the_model_is_refused(tiny: Tiny) -> None:
    split = in_memory(np.zeros((2, *SHAPE), np.uint8), np.array([0, CLASSES]), ["", ""])
    with pytest.raises(UserError, match=f"gives {CLASSES} classes, but an image is of class {CLASSES}"):
        predict(tiny.files["none"], split, PREPROCESS, threads=1)


def test_images_of_another_shape_are_refused(tiny: Tiny) -> None:
    split = in_memory(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, int), ["", ""])
    with pytest.raises(UserError, match="got images of 8x8x3; takes 12x12x3"):
        predict(tiny.files["none"], split, PREPROCESS, threads=1)
