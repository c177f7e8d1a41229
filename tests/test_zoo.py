"""The zoo: its processes, its numbers and its page."""

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.zoo.asking import FORMATS, Asking
from scripts.zoo.child import Child, Died
from scripts.zoo.numbers import Model, append, numbers, read
from scripts.zoo.page import page

PLAIN = [{"scheme": scheme, "takes": "open"} for scheme in ("none", "drq", "fiq", "f16")]
DENSE = [{"variant": f"none-{scheme}", "dense": True} for scheme in ("none", "drq", "fiq", "f16")]
PRUNED = [{"variant": "p1-none", "dense": False}]
FLOAT = [{"training": "same"}, {"difference": 1e-7}]
MADE = {"saved": {"keras": ""}, "custom": [], "training": "same", "trains": "", "random": False}


def model(here: list[dict[str, Any]], plain: list[dict[str, Any]] = PLAIN, **made: Any) -> Model:
    return Model("3", "layer/Dense", "keras", "zoo", "code", MADE | made, plain, here)


def refused(why: str, expected: bool = True) -> list[dict[str, Any]]:
    return [{"refused": True, "why": why, "expected": expected}]


def reached(*models: Model) -> list[tuple[int, int]]:
    return [(number.reached, number.all) for number in numbers(models)]


def test_the_numbers_count_what_the_plain_converter_takes_and_what_trains() -> None:
    whole = model([*FLOAT, *DENSE, *PRUNED])
    assert reached(whole) == [(1, 1), (0, 0), (1, 1), (1, 1), (1, 1), (1, 1), (1, 1)]
    # Neither what its Keras can't save, nor what the converter takes in three schemes only.
    assert reached(model([], saved={"keras": "can't"}), model([*FLOAT, *DENSE], PLAIN[:3]))[:3] == [(0, 0)] * 3
    assert reached(model([*FLOAT, *DENSE], trains="no gradient"))[:3] == [(1, 1), (0, 0), (0, 0)]
    # A pruning that was left out, and one that failed.
    failed = [{"variant": "p1-none", "dense": False, "why": "no", "expected": True}]
    for pruned in ([], failed):
        assert reached(model([*FLOAT, *DENSE, *pruned]))[2] == (0, 1)


@pytest.mark.parametrize(
    ("here", "right"),
    [
        (refused("model.path=a.keras: layer a (A) holds code; takes a class in its place"), True),
        (refused("ValueError: None", expected=False), False),
        (refused("model.path=a.keras: can't be read (KeyError: 'a'); takes a .keras file"), False),
        (refused("two\nlines"), False),
        (refused("long " * 100), False),
        ([*FLOAT, *DENSE[:3], {"variant": "none-f16", "dense": True, "why": "no", "expected": True}], False),
        ([*FLOAT, *DENSE[:3], {"left_out": "none-f16", "why": "no", "expected": True}], True),
    ],
)
def test_a_refusal_is_right_in_one_line_that_was_written_for_it_and_before_training(
    here: list[dict[str, Any]], right: bool
) -> None:
    assert reached(model(here))[:2] == [(0, 1), (int(right), 1)]


def test_silent_differences_unexpected_errors_and_crashes_are_found() -> None:
    def enough(*here: dict[str, Any], **made: Any) -> list[bool]:
        return [number.is_enough for number in numbers([model([*here], **made)])[3:]]

    assert enough(*FLOAT) == [True] * 4
    assert enough({"difference": 2e-4}) == [False, True, True, True]
    assert enough({"difference": float("nan")}) == [False, True, True, True]
    assert enough({"difference": 0.5}, random=True) == [True] * 4  # its own predictions differ as well
    assert enough({"training": "random"}) == [True, False, True, True]
    assert enough({"variant": "none-none", "dense": True, "why": "ValueError"}) == [True, True, False, True]
    assert enough({"died": "SIGSEGV at check"}) == [True, True, True, False]


def test_the_page_has_a_line_for_each_kind_and_outcome() -> None:
    whole = model([*FLOAT, *DENSE, *PRUNED])
    others = [
        dataclasses.replace(whole, format="h5", made=MADE | {"saved": {"h5": ""}}),
        dataclasses.replace(whole, keras="2", here=refused("model.path=/a/b.keras: is | made of A"), plain=PLAIN[:1]),
    ]
    text = page([whole, *others], 5, {"3": {"layer/Layer": "a base class"}}, {"3": "3.15.1"})
    assert "| Dense | 3 | `.keras` `.h5` | 4 | 12 | 1e-07 |" in text
    assert "| Dense | 2 | `.keras` | 1 | refused: is \\| made of A |  |" in text
    assert "| Layer | 3 | a base class |" in text
    assert "of what the plain converter takes, four dense variants: 2 of 2 (100.0%)" in text


def test_results_are_read_back_the_newest_of_each_model_and_what_is_known_is_not_asked_again(tmp_path: Path) -> None:
    asking = Asking()
    known = dataclasses.replace(model(FLOAT), zoo=asking.zoo, code=asking.code)
    file = tmp_path / "results.jsonl"
    append(file, dataclasses.replace(known, code="older"))
    append(file, known)
    with file.open("a") as stream:
        stream.write('{"keras": "3", "kin')  # killed while it wrote
    assert read(file) == {known.key: known}
    assert asking.examine("3", "layer/Dense", ["keras"], read(file)) == []
    asking.end()


def test_a_process_that_dies_or_hangs_is_told_and_started_again(tmp_path: Path) -> None:
    (tmp_path / "moody.py").write_text(
        "import os, signal, time\nfrom scripts.zoo import child\n"
        "def answers(request):\n"
        "    yield {'at': request['do']}\n"
        "    match request['do']:\n"
        "        case 'die': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "        case 'hang': time.sleep(600)\n"
        "        case 'raise': raise ValueError('why')\n"
        "    yield {'pid': os.getpid()}\n"
        "child.serve(answers)\n"
    )
    process = Child("moody", {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[1]}"}, seconds=1)
    first = list(process.ask({"do": "work"}))
    with pytest.raises(Died, match=signal.SIGSEGV.name):
        list(process.ask({"do": "die"}))
    assert list(process.ask({"do": "work"})) != first
    with pytest.raises(Died, match="no answer within 1 s"):
        list(process.ask({"do": "hang"}))
    assert "ValueError: why" in list(process.ask({"do": "raise"}))[-1]["traceback"]
    process.end()


# --- The models themselves: of each group, Keras and format some ----------------------------------------------------

SOME = (
    ("3", "layer/MultiHeadAttention", "keras"),
    ("3", "activation/hard_silu", "savedmodel"),
    ("2", "initializer/HeNormal", "savedmodel"),
    ("2", "operator/a + b", "h5"),
    ("3", "ops/mean", "keras"),
    ("3", "structure/EinsumDense of seven dimensions", "keras"),
    ("2", "custom/layer, not given", "savedmodel"),
)


@pytest.fixture(scope="module")
def asking() -> Iterator[Asking]:
    asking = Asking()
    yield asking
    asking.end()


def test_some_of_each_group_become_all_that_they_can(asking: Asking) -> None:
    for keras, kind, format in SOME:
        assert kind in asking.kinds(keras)
        (found,) = asking.examine(keras, kind, [format], {})
        assert found.plainly_taken, (kind, found.plain)
        assert found.dense == 4, (kind, found.here)
        assert found.difference is not None
        assert found.difference <= 1e-4, kind
        served = format == "savedmodel" and (keras == "3" or "not given" in kind)
        assert found.pruned == (not served), (kind, found.here)


@pytest.mark.long
def test_a_sample_of_all_kinds_but_applications_reaches_every_number(asking: Asking) -> None:
    kinds = asking.chosen("^(?!application/)", sample=4)
    models = [model for keras, kind in kinds for model in asking.examine(keras, kind, FORMATS, {})]
    assert len(models) == 4 * len(FORMATS)
    missing = [number for number in numbers(models) if not number.is_enough]
    assert not missing, "\n".join(f"{each}: {[(m.key, m.plain, m.here) for m in each.missing]}" for each in missing)
