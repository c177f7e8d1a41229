"""Promises: kept, ended or broken, through transforms of a user's own and every scheme."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import default_composer
from hydra import initialize_config_dir
from own_transforms import Own

from src.cli.compose import CONF
from src.machine import backend
from src.measure.audit.promised import confirm
from src.methods import convert
from src.models.checkpoint import promise, promised, restore, save
from src.models.promises import Broken, Ended, Promise, as_json, carried, compare, from_json, notes
from src.pipeline import checking, work
from src.settings.check import UserError
from src.settings.config import Config, Step
from src.store.names import CHECKPOINT, PROMISES

SCHEMES = {
    "none": (convert.float32, convert.Quantization()),
    "drq": (convert.dynamic_range, convert.Quantization()),
    "f16": (convert.float16, convert.Quantization()),
    "fiq": (convert.full_integer, convert.FullInteger(representative_images=10)),
}


@pytest.fixture(scope="module")
def config() -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return default_composer()(["prune=p1", "train.epochs=1", "prune.epochs=1", "seed=1"])


def done(step: Step, config: Config, parent: Path | None, folder: Path) -> tuple[Path, work.Trained]:
    """A stage's checkpoint and what it tells."""
    folder.mkdir()
    trained = work.do(work.Work(step.group, step, config, "", parent, None, (), folder))
    return folder / CHECKPOINT, trained


def own(name: str) -> Step:
    return Step("own", name, f"own_transforms.{name}", Own())


@pytest.fixture(scope="module")
def pruned(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    backend.prepare()
    folder = tmp_path_factory.mktemp("stages")
    dense, _ = done(config.train, config, None, folder / "train")
    assert promised(dense) == {}
    return done(config.steps["prune"], config, dense, folder / "prune")[0]


def test_a_pruned_checkpoint_carries_its_zeros_in_its_file_and_in_its_run(pruned: Path) -> None:
    # Half of 3 x 3 x 16 x 32 values, and so on.
    zeros = {path: (its.zeros, its.values) for path, its in promised(pruned).items()}
    assert zeros == {"conv2": (2304, 4608), "conv3": (9216, 18432), "dense1": (16384, 32768)}
    assert from_json((pruned.parent.parent / PROMISES).read_text()) == promised(pruned)


def test_a_transform_that_knows_of_no_promise_keeps_all_through_any_number_of_others(
    config: Config, pruned: Path, tmp_path: Path
) -> None:
    once, trained = done(own("keeps"), config, pruned, tmp_path / "once")
    twice, _ = done(own("keeps"), config, once, tmp_path / "twice")
    assert promised(twice) == promised(once) == promised(pruned)
    assert trained.tags["notes"] == ""
    with pytest.raises(Broken, match="layer conv2: at least 2,304 zeros promised, 0 there"):
        done(own("breaks"), config, twice, tmp_path / "broken")


def test_a_promise_that_is_broken_fails_the_stage_with_the_layer_what_was_promised_and_what_is_there(
    config: Config, pruned: Path, tmp_path: Path
) -> None:
    with pytest.raises(Broken) as caught:
        done(own("breaks"), config, pruned, tmp_path / "broken")
    assert str(caught.value) == "a promise is broken: layer conv2: at least 2,304 zeros promised, 0 there"


def test_a_promise_that_is_ended_by_name_is_a_note_and_the_others_hold(
    config: Config, pruned: Path, tmp_path: Path
) -> None:
    ended, trained = done(own("ends"), config, pruned, tmp_path / "ended")
    assert trained.tags["notes"] == "Promises no more the zeros of conv2: its weights were shifted."
    assert promised(ended) == {path: its for path, its in promised(pruned).items() if path != "conv2"}


def test_a_transform_adds_promises_of_its_own_to_those_of_its_parent(
    config: Config, pruned: Path, tmp_path: Path
) -> None:
    file, _ = done(own("adds"), config, pruned, tmp_path / "added")
    assert promised(file)["conv2"] == Promise(zeros=2304, distinct=5, channels=32, values=4608)
    for scheme, (function, settings) in SCHEMES.items():
        (artifact := tmp_path / f"{scheme}.tflite").write_bytes(function(settings, file, work._task(config)).content)
        assert confirm(artifact, promised(file)) == (), scheme
        for broken in (Promise(zeros=4608), Promise(distinct=4), Promise(channels=31), Promise(bits=4)):
            with pytest.raises(Broken, match="layer conv2: "):
                confirm(artifact, {"conv2": replace(broken, values=4608)})
        stored = {"none": 32, "f16": 16}.get(scheme, 8)
        assert confirm(artifact, {"conv2": Promise(bits=stored, values=4608)}) == ()


def test_a_promise_that_the_artifact_breaks_fails_the_variant(config: Config, pruned: Path, tmp_path: Path) -> None:
    (more := tmp_path / "more.h5").write_bytes(pruned.read_bytes())
    with h5py.File(more, "r+") as file:
        file.attrs["promises"] = as_json({"conv2": Promise(zeros=4000, values=4608)})
    with pytest.raises(Broken, match=r"layer conv2: at least 4,000 zeros promised, \d,\d{3} there"):
        done(config.quant, config, more, tmp_path / "variant")


def test_what_a_file_does_not_name_is_said_and_breaks_nothing(tmp_path: Path) -> None:
    import tf_keras

    layers = tf_keras.layers
    grouped = [layers.Conv2D(4, 3, groups=2, name="grouped"), layers.Flatten(), layers.Dense(3, name="top")]
    save(tf_keras.Sequential([layers.Input((8, 8, 2)), *grouped]), file := tmp_path / "model.h5")
    promise(file, {"grouped": Promise(channels=4), "top": Promise(channels=3)})
    (artifact := tmp_path / "model.tflite").write_bytes(convert.float32(None, file, None).content)  # type: ignore[arg-type]
    assert confirm(artifact, promised(file)) == (
        "What was promised of grouped can't be confirmed: the file doesn't name their weights.",
    )


def test_kernels_of_every_kind_are_counted_by_their_output_channels(tmp_path: Path) -> None:
    import tf_keras

    layers = tf_keras.layers
    kinds = [
        layers.Conv2D(6, 3, name="conv"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise"),
        layers.SeparableConv2D(5, 1, name="separable"),
        layers.Conv2DTranspose(7, 3, name="transpose"),
        layers.Flatten(),
        layers.Dense(3, name="dense"),
    ]
    model = tf_keras.Sequential([layers.Input((8, 8, 1)), *kinds])
    for layer in model.layers:
        for weight in layer.weights:
            # Each output channel has one value in all of its kernel, another than the others have.
            shape, name = weight.shape, weight.name
            axis = -2 if "transpose" in name and "kernel" in name else -1
            values = np.arange(1, shape[axis] + 1, dtype=np.float32)
            if "depthwise" in name and "kernel" in name:
                values = np.arange(1, shape[-1] * shape[-2] + 1, dtype=np.float32).reshape(shape[-2:])
            weight.assign(np.broadcast_to(values[:, None] if axis == -2 else values, shape))
    save(model, file := tmp_path / "model.h5")
    channels = {"conv": 6, "depthwise": 12, "separable": 5, "transpose": 7, "dense": 3}
    promises = {path: Promise(zeros=0, distinct=1, channels=n) for path, n in channels.items()}
    promise(file, promises)
    (artifact := tmp_path / "model.tflite").write_bytes(convert.float32(None, file, None).content)  # type: ignore[arg-type]
    assert confirm(artifact, promised(file)) == ()
    with pytest.raises(Broken, match="layer transpose: 6 output channels promised, 7 there"):
        promise(file, promises | {"transpose": Promise(channels=6)})


def test_a_checkpoint_of_before_promises_nothing_and_one_that_is_confirmed_anew_carries_only_that(
    pruned: Path, tmp_path: Path
) -> None:
    (copy := tmp_path / "copy.h5").write_bytes(pruned.read_bytes())
    with h5py.File(copy, "r+") as file:
        del file.attrs["promises"]
    assert promised(copy) == {}
    assert [w.shape for w in restore(copy).get_weights()] == [w.shape for w in restore(pruned).get_weights()]
    promise(copy, {"conv3": Promise(zeros=7)})
    assert promised(copy) == {"conv3": Promise(zeros=7, values=18432)}
    promise(copy, {})
    assert promised(copy) == {}
    with pytest.raises(Broken, match="layer gone is not in the model"):
        promise(copy, {"gone": Promise(zeros=1)})


def test_of_two_promises_the_stricter_holds() -> None:
    parent = {"a": Promise(zeros=5, distinct=16, bits=8, channels=4), "b": Promise(zeros=1)}
    assert carried(parent, (), {"a": Promise(zeros=3, distinct=99, bits=16, channels=2)}) == parent
    stricter = Promise(zeros=6, distinct=2, bits=4)
    assert carried(parent, (), {"a": stricter})["a"] == replace(stricter, channels=4)
    assert carried({}, (), parent) == parent


def test_what_is_ended_may_be_promised_anew() -> None:
    parent = {"a": Promise(zeros=5, channels=4), "b": Promise(zeros=1), "c": Promise(channels=3)}
    ended = (Ended("zeros", "filters were removed"), Ended("channels", "filters were removed", ("a", "d")))
    assert carried(parent, ended, {"a": Promise(channels=2)}) == {"a": Promise(channels=2), "c": Promise(channels=3)}
    assert notes(parent, ended) == (
        "Promises no more the zeros of a, b: filters were removed.",
        "Promises no more the number of channels of a: filters were removed.",
    )
    assert notes({}, ended) == ()
    with pytest.raises(ValueError, match="there is no promise 'zeroes'; takes one of zeros, distinct, bits, channels"):
        Ended("zeroes", "x")  # type: ignore[arg-type]


def test_several_broken_promises_are_one_line() -> None:
    promises = {path: Promise(zeros=5, bits=4) for path in "abc"}
    shown = {path: Promise(zeros=4, bits=8) for path in "ab"}
    with pytest.raises(Broken) as caught:
        compare(promises, shown)
    assert str(caught.value) == (
        "a promise is broken: layer a: at least 5 zeros promised, 4 there; at most 4 bits a value promised, 8 there; "
        "and so in 1 more"
    )
    compare(promises, {"a": Promise(zeros=5), "b": Promise()})


def test_promises_are_the_same_after_a_way_through_json() -> None:
    promises = {"outer/conv": Promise(zeros=5, values=9), "top": Promise(distinct=1, bits=8, channels=4)}
    assert from_json(as_json(promises)) == promises
    assert as_json(promises) == '{"outer/conv":{"values":9,"zeros":5},"top":{"bits":8,"channels":4,"distinct":1}}'


def test_the_plan_says_which_layer_gets_what_by_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that this project builds as well: it is built for that."""
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        ruled = default_composer()(["prune=p1", "prune.rules=[{layers:conv.*,final_sparsity:0.9}]"])
        wrong = default_composer()(["prune=p1", "prune.rules=[{layers:conv9,final_sparsity:0.9}]"])
    notes, unfit = checking.check([ruled])
    assert notes == (
        "p1: Prunes conv2, conv3 from 0 % to 90 %; dense1 from 0 % to 50 %.",
        "p1: The policy does not take conv1, so that no rule prunes it.",
    )
    assert unfit == []
    with pytest.raises(
        UserError, match=r"^prune\.rules\.layers=conv9: matches none of the layers conv1, conv2, conv3,"
    ):
        checking.check([wrong])
