"""Summaries of streaming layers against the same arithmetic on whole arrays."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from skaudioemb.frames import mean_weights, pool
from skaudioemb.summaries import Collector, Kept, Reduced, Weighted, resolve_layers

N_FRAMES = (5, 1, 8)
N_LAYERS = 4


@pytest.fixture
def layers():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N_LAYERS, sum(N_FRAMES), 3)).astype(np.float32)


def collect(layers, summaries):
    collector = Collector(N_FRAMES, [list(summaries(n)) for n in N_FRAMES], N_LAYERS)
    for layer, frames in enumerate(layers):
        collector.add(layer, torch.from_numpy(frames.copy()))
    starts = np.cumsum((0, *N_FRAMES))
    parts = [layers[:, a:b] for a, b in pairwise(starts)]
    return zip(parts, collector.results(), strict=True)


@pytest.mark.parametrize("segments", [None, 3])
def test_every_layer_is_pooled(layers, segments):
    def wanted(n):
        return Weighted(mean_weights(n, segments)), Reduced("max", segments)

    for part, result in collect(layers, wanted):
        for summary, pooling in zip(
            wanted(part.shape[1]), ("mean", "max"), strict=True
        ):
            expected = [pool(layer, pooling, segments) for layer in part]
            got = result[summary.name].reshape(N_LAYERS, -1)
            np.testing.assert_allclose(got, expected, atol=1e-6)


def test_reductions_of_averaged_layers(layers):
    selection = (1, 3)
    wanted = (Reduced("max", None, selection), Reduced("std", None, selection))
    for part, result in collect(layers, lambda n: wanted):
        average = part[[1, 3]].mean(axis=0)
        top, deviation = (result[summary.name] for summary in wanted)
        np.testing.assert_allclose(top[0, 0], average.max(axis=0), atol=1e-6)
        np.testing.assert_allclose(deviation[0, 0], average.std(axis=0), atol=1e-6)


def test_kept_frames(layers):
    wanted = [Kept((2,)), Kept((0, 1, 2, 3)), Kept("all")]
    for part, result in collect(layers, lambda n: wanted):
        single, mean, everything = (result[summary.name] for summary in wanted)
        np.testing.assert_allclose(single, part[2])
        np.testing.assert_allclose(mean, part.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(everything, np.concatenate(list(part), axis=1))


def test_clips_of_a_batch_may_want_different_summaries(layers):
    wants = iter([[Kept((0,))], [Reduced("max")], [Kept((0,)), Reduced("max")]])
    results = [result for _, result in collect(layers, lambda n: next(wants))]
    assert [sorted(result) for result in results] == [
        ["frames-0"],
        ["max-whole"],
        ["frames-0", "max-whole"],
    ]


def test_names_tell_weights_apart():
    uniform = Weighted(mean_weights(4))
    assert uniform.name == Weighted(mean_weights(9)).name == "mean"
    other = Weighted(np.array([[0.1, 0.2, 0.7]]))
    assert other.name not in ("mean", Weighted(np.array([[0.1, 0.7, 0.2]])).name)
    assert other.name == Weighted(np.array([[0.1, 0.2, 0.7]])).name


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("last", (3,)),
        ("mean", (0, 1, 2, 3)),
        ("all", "all"),
        (0, (0,)),
        (-1, (3,)),
        (np.int64(2), (2,)),
        ([3, 1], (1, 3)),
        (range(2), (0, 1)),
    ],
)
def test_resolve_layers(layers, expected):
    assert resolve_layers(layers, 4) == expected


def test_one_layer_has_no_all():
    assert resolve_layers("all", 1) == (0,)


@pytest.mark.parametrize(
    ("layers", "error", "match"),
    [
        ("first", ValueError, "'last', 'mean', 'all'"),
        (4, ValueError, "names layer 4, but the model has 4: 0"),
        ([0, -5], ValueError, "names layer -5"),
        ([], ValueError, "empty list"),
        (1.0, TypeError, "an int or a list of ints"),
        (True, TypeError, "an int or a list of ints"),
        (None, TypeError, "an int or a list of ints"),
    ],
)
def test_layers_that_do_not_exist(layers, error, match):
    with pytest.raises(error, match=match):
        resolve_layers(layers, 4)
