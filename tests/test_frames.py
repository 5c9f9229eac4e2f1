"""Interpolation, weights and pooling in numpy; nothing with a model."""

import numpy as np
import pytest
import torch

from skaudioemb.frames import (
    index_positions,
    interpolate,
    mean_weights,
    merge,
    pool,
    pull_back,
    resize_features,
    segment_bounds,
    time_positions,
)

rng = np.random.default_rng(0)


@pytest.mark.parametrize(("n_in", "n_out"), [(5, 4), (4, 5), (1, 3), (3, 1), (7, 49)])
def test_index_interpolation_equals_torch(n_in, n_out):
    values = rng.normal(size=(n_in, 3)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values.T[None]), n_out, mode="linear", align_corners=False
    )[0].T.numpy()
    got = interpolate(values, index_positions(n_out, n_in))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_hubert_xlarge_to_large_weights():
    """Four outputs come from five inputs, with the weights of specification 7."""
    unit = np.eye(5)
    expected = [
        [0.875, 0.125, 0, 0, 0],
        [0, 0.625, 0.375, 0, 0],
        [0, 0, 0.375, 0.625, 0],
        [0, 0, 0, 0.125, 0.875],
    ]
    np.testing.assert_allclose(resize_features(unit, 4).T, expected)


def test_time_interpolation_holds_the_ends_and_is_exact_on_a_line():
    times_in = np.array([0.0, 0.05, 0.1])
    times_out = np.array([-0.1, 0.0125, 0.0325, 0.1, 0.3])
    line = (3 * times_in + 1)[:, None]
    got = interpolate(line, time_positions(times_out, times_in))[:, 0]
    np.testing.assert_allclose(got, 3 * np.clip(times_out, 0, 0.1) + 1)


@pytest.mark.parametrize("segments", [None, 1, 3, 60])
@pytest.mark.parametrize(("n_in", "n_out"), [(11, 49), (49, 11), (1, 5), (7, 7)])
def test_pulled_back_weights_equal_interpolate_then_average(n_in, n_out, segments):
    values = rng.normal(size=(n_in, 4))
    positions = index_positions(n_out, n_in)
    weights = mean_weights(n_out, segments)
    expected = pool(interpolate(values, positions), segments=segments)
    got = pull_back(weights, positions, n_in) @ values
    np.testing.assert_allclose(got.ravel(), expected, atol=1e-6)


def test_segments_drop_the_remainder():
    values = np.arange(11.0)[:, None]
    assert pool(values, segments=5).tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert pool(values, "max", segments=5).tolist() == [1, 3, 5, 7, 9]


def test_more_segments_than_frames_repeat_frames():
    bounds = segment_bounds(2, 5)
    assert bounds == [(0, 1), (0, 1), (0, 1), (1, 2), (1, 2)]
    np.testing.assert_allclose(mean_weights(2, 5).sum(axis=1), 1)


def test_pool_kinds():
    values = rng.normal(size=(6, 2))
    mean, top, deviation = values.mean(0), values.max(0), values.std(0)
    np.testing.assert_allclose(pool(values, "mean+max"), mean + top, rtol=1e-6)
    both = np.concatenate([mean, deviation])
    np.testing.assert_allclose(pool(values, "mean-std"), both, rtol=1e-6)


def test_merge():
    a, b = np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]])
    assert merge([a, b]).tolist() == [[1, 2, 3, 5]]
    assert merge([a, b], "interleave").tolist() == [[1, 3, 2, 5]]
    assert merge([a, b], "mean").tolist() == [[2, 3.5]]
