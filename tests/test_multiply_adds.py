"""Each operator multiplies and adds as often as one works out by hand, and as often as it is called."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import G, Op, T, options, tflite

from src.measure.audit import audit
from src.settings.check import UserError

Count = Callable[..., int]


@pytest.fixture
def count(tmp_path: Path) -> Count:
    """The multiply-adds of subgraphs."""

    def count(*graphs: G) -> int:
        (file := tmp_path / "m.tflite").write_bytes(tflite(*graphs))
        return audit(file).multiply_adds

    return count


# --- By operator -----------------------------------------------------------------------------------------------


def one(name: str, *inputs: Any, gives: tuple[int, ...], how: Any = None) -> G:
    """A subgraph of one operator on tensors of these shapes; None is one that is left out."""
    shapes = [shape for shape in inputs if shape is not None]
    positions = iter(range(len(shapes)))
    indices = [-1 if shape is None else next(positions) for shape in inputs]
    tensors = [T(f"t{i}", shape) for i, shape in enumerate([*shapes, gives])]
    return G(tensors, [Op(name, indices, [len(shapes)], how)], [0], [len(shapes)])


LSTM = [(5, 3)] * 4 + [(5, 4)] * 4  # of 5 cells on 3 inputs, whose outputs are projected to 4
PEEPHOLES, BIASES = [None] * 3, [(5,)] * 4
ONE_STEP = 4 * 5 * 3 + 4 * 5 * 4 + 4 * 5


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (one("CONV_2D", (1, 9, 9, 3), (8, 3, 5, 3), (8,), gives=(1, 4, 4, 8)), 4 * 4 * 8 * 3 * 5 * 3),
        # Of 8 channels in 4 groups, each output channel sees 2.
        (one("CONV_2D", (1, 4, 4, 8), (16, 3, 3, 2), None, gives=(1, 4, 4, 16)), 4 * 4 * 16 * 3 * 3 * 2),
        (one("DEPTHWISE_CONV_2D", (1, 6, 6, 4), (1, 3, 2, 8), (8,), gives=(1, 3, 3, 8)), 3 * 3 * 8 * 3 * 2),
        (one("CONV_3D", (1, 4, 4, 4, 2), (3, 2, 1, 2, 7), gives=(1, 2, 3, 4, 7)), 2 * 3 * 4 * 7 * 3 * 2 * 1 * 2),
        (one("TRANSPOSE_CONV", (4,), (8, 3, 2, 5), (1, 4, 4, 5), gives=(1, 8, 8, 8)), 4 * 4 * 5 * 8 * 3 * 2),
        (one("CONV_3D_TRANSPOSE", (5,), (2, 3, 1, 4, 5), (1, 2, 2, 2, 5), gives=(1, 4, 6, 2, 4)), 8 * 5 * 2 * 3 * 4),
        (one("FULLY_CONNECTED", (1, 12), (5, 12), (5,), gives=(1, 5)), 60),
        (one("FULLY_CONNECTED", (1, 7, 12), (5, 12), None, gives=(1, 7, 5)), 7 * 60),  # at 7 places
        (one("BATCH_MATMUL", (2, 3, 4), (2, 4, 5), gives=(2, 3, 5), how=options("BatchMatMulOptions")), 2 * 3 * 4 * 5),
        (
            one("BATCH_MATMUL", (2, 4, 3), (2, 4, 5), gives=(2, 3, 5), how=options("BatchMatMulOptions", adjX=True)),
            2 * 3 * 4 * 5,
        ),
        (one("RNN", (1, 3), (5, 3), (5, 5), (5,), (1, 5), gives=(1, 5)), 5 * 3 + 5 * 5),
        (one("UNIDIRECTIONAL_SEQUENCE_RNN", (1, 7, 3), (5, 3), (5, 5), (5,), (1, 5), gives=(1, 7, 5)), 7 * 40),
        (one("SVDF", (1, 3), (5, 3), (5, 9), None, (1, 45), gives=(1, 5)), 5 * 3 + 5 * 9),
        (one("LSTM", (1, 3), (1, 5), (20, 8), (20,), (1, 5), gives=(1, 5)), 20 * 8),  # all matrices in one
        (
            one(
                *("UNIDIRECTIONAL_SEQUENCE_LSTM", (1, 7, 3), *LSTM, *PEEPHOLES, *BIASES, (4, 5), None),
                *((1, 4), (1, 5), None, None, None, None),
                gives=(1, 7, 4),
            ),
            7 * ONE_STEP,
        ),
        (
            one(
                *("BIDIRECTIONAL_SEQUENCE_LSTM", (7, 1, 3), *LSTM, *PEEPHOLES, *BIASES, (4, 5), None),
                *(*LSTM, *PEEPHOLES, *BIASES, (4, 5), None, (1, 4), (1, 5), (1, 4), (1, 5), *[None] * 9),
                gives=(7, 1, 8),
            ),
            7 * 2 * ONE_STEP,
        ),
        (one("ADD", (1, 12), (12,), gives=(1, 12)), 0),
    ],
    ids=lambda value: value.operators[0].name if isinstance(value, G) else None,
)
def test_each_operator_multiplies_as_often_as_its_shapes_say(count: Count, graph: G, expected: int) -> None:
    assert count(graph) == expected


def dense(units: int) -> G:
    return one("FULLY_CONNECTED", (1, 4), (units, 4), None, gives=(1, units))


def whole(number: int) -> T:
    return T("", [], "INT32", values=np.array(number, np.int32))


def looping(first: int, limit: int, step: int, test: str = "LESS") -> tuple[G, G, G]:
    """A loop over a dense layer, 4 to 4, that counts from `first` by `step` while that is less than `limit`."""
    at, state = T("i", [], "INT32"), T("state", [1, 4])
    main = G(
        [whole(first), state, at, state],
        [Op("WHILE", [0, 1], [2, 3], options("WhileOptions", condSubgraphIndex=1, bodySubgraphIndex=2))],
        [1],
        [3],
    )
    condition = G([at, state, whole(limit), T("go", [], "BOOL")], [Op(test, [0, 2], [3])], [0, 1], [3])
    body = G(
        [at, state, whole(step), at, T("w", [4, 4]), state],
        [Op("ADD", [2, 0], [3], options("AddOptions")), Op("FULLY_CONNECTED", [1, 4, -1], [5])],
        [0, 1],
        [3, 5],
    )
    return main, condition, body


@pytest.mark.parametrize(
    ("loop", "runs"),
    [
        (looping(0, 7, 1), 7),
        (looping(1, 7, 2), 3),
        (looping(0, 7, 2), 4),
        (looping(7, 7, 1), 0),
        (looping(0, 7, 0), 1),  # forever: the file doesn't say how often
        (looping(0, 7, 1, "NOT_EQUAL"), 1),
    ],
)
def test_the_body_of_a_loop_counts_as_often_as_it_runs(count: Count, loop: tuple[G, ...], runs: int) -> None:
    assert count(*loop) == runs * 16


def test_of_two_branches_the_larger_counts_and_what_is_called_counts_each_time(count: Count) -> None:
    def calling(*calls: Op) -> G:
        return G([T("x", [1, 4]), T("y", [1, 4]), T("if", [1], "BOOL")], calls, [0], [1])

    branch = Op("IF", [2, 0], [1], options("IfOptions", thenSubgraphIndex=1, elseSubgraphIndex=2))
    assert count(calling(branch), dense(3), dense(5)) == 20
    call = Op("CALL", [0], [1], options("CallOptions", subgraph=1))
    assert count(calling(call, call), dense(3), dense(5)) == 24, "what is never called counts nothing"
    round_and_round = Op("CALL", [0], [1], options("CallOptions", subgraph=0))
    for broken in (calling(round_and_round), calling(branch), calling(Op("CALL", [0], [1]))):
        with pytest.raises(UserError, match="not a whole TFLite model"):
            count(broken)


def test_subgraphs_that_call_one_another_end_soon_or_are_refused(count: Count) -> None:
    def twice(index: int) -> G:
        call = Op("CALL", [0], [1], options("CallOptions", subgraph=index + 1))
        return G([T("x", [1, 4]), T("y", [1, 4])], [call, call], [0], [1])

    assert count(*map(twice, range(40)), dense(3)) == 2**40 * 12
    with pytest.raises(UserError, match="not a whole TFLite model"):
        count(*map(twice, range(60)), dense(3))
