"""Masks against a plain sort. `make mutants` runs these: all quick."""

import numpy as np
import pytest

from src.methods.masks import mask


def smallest_zeroed(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """A mask by sorting: as TFMOT's, all that are as large as the smallest that stays stay."""
    sizes = np.sort(np.abs(weights).ravel())
    stay = max(1, round(weights.size * (1 - sparsity)))
    return (np.abs(weights) >= sizes[len(sizes) - stay]).astype(weights.dtype)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.501, 0.75, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 3, 4, 5), (64, 100)])
def test_a_mask_is_that_of_a_sort(shape: tuple[int, ...], sparsity: float) -> None:
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = mask(weights, sparsity)
    assert found.dtype == bool
    assert np.array_equal(found, smallest_zeroed(weights, sparsity))
    assert np.count_nonzero(found) == max(1, round(weights.size * (1 - sparsity)))  # no two are equal


def test_the_largest_stay_whatever_their_sign() -> None:
    weights = np.array([0.1, -0.4, 0.2, -0.3, 0.5, -0.6, 0.05, 0.0], np.float32)
    assert mask(weights, 0.5).tolist() == [0, 1, 0, 1, 1, 1, 0, 0]
    assert mask(weights, 0.25).tolist() == [1, 1, 1, 1, 1, 1, 0, 0]
    assert mask(weights, 0.0).tolist() == [1] * 8
    assert mask(weights, 1.0).tolist() == [0, 0, 0, 0, 0, 1, 0, 0]  # one always stays


def test_weights_as_large_as_the_threshold_all_stay() -> None:
    weights = np.array([1, 2, 2, 2, 3, 0, 0, 0], np.float32)
    assert mask(weights, 0.75).tolist() == [0, 1, 1, 1, 1, 0, 0, 0]
    assert mask(np.zeros(8, np.float32), 0.5).tolist() == [1] * 8
    assert mask(np.full(8, -0.0, np.float32), 0.5).tolist() == [1] * 8


@pytest.mark.parametrize("apart", ["lower bits", "upper bits", "both"])
def test_weights_that_differ_in_some_of_their_bits_only(apart: str) -> None:
    # The threshold is found in the upper half of the bits first, then in the lower half of those that share it.
    rng = np.random.default_rng(1)
    bits = {
        "lower bits": 0x3F80_0000 | rng.permutation(1000).astype(np.uint32) * 65,
        "upper bits": rng.permutation(1000).astype(np.uint32) << 20 & 0x7F00_0000 | 0x8001,
        "both": rng.integers(0, 3, 1000).astype(np.uint32) << 16 | rng.integers(0, 3, 1000).astype(np.uint32) * 0x7FFF,
    }[apart]
    weights = bits.view(np.float32)
    for sparsity in np.linspace(0, 1, 41):
        assert np.array_equal(mask(weights, sparsity), smallest_zeroed(weights, sparsity)), sparsity


@pytest.mark.parametrize("kind", ["normal", "half of them zero", "half of them near another", "all equal", "sorted"])
def test_a_kernel_of_many_values_of_which_a_sample_tells_the_threshold(kind: str) -> None:
    rng = np.random.default_rng(4)
    weights = rng.normal(size=(500, 701)).astype(np.float32)
    smaller = np.abs(weights) < np.median(np.abs(weights))
    if kind == "half of them zero":
        weights[smaller] = 0
    elif kind == "half of them near another":
        weights[smaller] = rng.choice(np.float32([-1e-4, 1e-4, 1.0001e-4]), smaller.sum())
    elif kind == "all equal":
        weights[:] = np.where(smaller, -1, 1)
    elif kind == "sorted":  # what a sample of every so many would miss: the rest is all alike
        weights = np.zeros((500, 701), np.float32)
        weights.ravel()[1::2] = np.arange(weights.size // 2)
    for sparsity in (0.0, 0.001, 0.3, 0.499, 0.5, 0.501, 0.75, 0.999, 1.0):
        assert np.array_equal(mask(weights, sparsity), smallest_zeroed(weights, sparsity)), sparsity


def test_the_smallest_and_the_largest_numbers_that_there_are() -> None:
    info = np.finfo(np.float32)
    weights = np.array([info.smallest_subnormal, -info.tiny, info.max, 0, info.eps, -info.max, np.inf, 1], np.float32)
    for sparsity in np.linspace(0, 1, 17):
        assert np.array_equal(mask(weights, sparsity), smallest_zeroed(weights, sparsity)), sparsity


def test_a_kernel_that_does_not_lie_in_one_piece() -> None:
    weights = np.random.default_rng(2).normal(size=(12, 8)).astype(np.float32)
    assert np.array_equal(mask(weights.T[::2], 0.5), smallest_zeroed(weights.T[::2], 0.5))


def test_exactly_takes_the_first_of_those_as_large_as_the_threshold() -> None:
    weights = np.array([2, 1, -2, 2, 3, 0, 0, 2], np.float32)
    assert mask(weights, 0.75, exactly=True).tolist() == [0, 0, 0, 0, 1, 0, 0, 1]
    assert mask(weights, 0.5, exactly=True).tolist() == [0, 0, 1, 1, 1, 0, 0, 1]  # one too many
    assert mask(weights, 0.375, exactly=True).tolist() == mask(weights, 0.375).tolist() == [1, 0, 1, 1, 1, 0, 0, 1]
    assert mask(weights, 0.5, exactly=False).tolist() == mask(weights, 0.5).tolist() == [1, 0, 1, 1, 1, 0, 0, 1]
    assert mask(np.full(6, 0.25, np.float32), 0.5, exactly=True).tolist() == [0, 0, 0, 1, 1, 1]


def test_exactly_reaches_the_share_of_a_kernel_however_it_lies() -> None:
    weights = np.random.default_rng(3).integers(-2, 3, (12, 8)).astype(np.float32)
    for kernel in (weights, weights.T, weights.T[::2], weights[:, ::-1]):
        for sparsity in (0.0, 0.3, 0.5, 0.8, 1.0):
            found = mask(kernel, sparsity, exactly=True)
            assert found.sum() == max(1, round(kernel.size * (1 - sparsity)))
            assert np.abs(kernel)[found == 0].max(initial=0) <= np.abs(kernel)[found == 1].min()


def test_weights_that_are_no_numbers_do_not_stay_and_take_no_other_with_them() -> None:
    weights = np.array([np.nan, np.nan, 2, 2], np.float32)
    for exactly in (False, True):
        assert mask(weights, 0.25, exactly).tolist() == [0, 0, 1, 1]
