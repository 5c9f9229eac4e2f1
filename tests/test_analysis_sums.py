"""Centred kernel alignment of given activations: golden values and definitions."""

from itertools import permutations

import numpy as np
import pytest

from skaudioemb.analysis import MinibatchCKA
from skaudioemb.analysis_sums import FullCKA
from tests.models import GOLDEN


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "byol" / "cka.npz") as arrays:
        return dict(arrays)


def matrix_of(layers, batch_size, sums):
    for start in range(0, len(layers[0]), batch_size):
        part = [values[start : start + batch_size] for values in layers]
        sums.update(part, list(part))
    return sums.matrix()


@pytest.mark.parametrize("batch_size", [16, 64])
def test_minibatches_equal_torch_cka(golden, batch_size):
    layers = [golden[f"matrix/{name}"] for name in golden["order"]]
    found = matrix_of(layers, batch_size, MinibatchCKA())
    expected = golden[f"minibatch{batch_size}/numpy64"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    reference = golden[f"minibatch{batch_size}/torch_cka"]
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-6)


def test_all_clips_at_once(golden):
    layers = [golden[f"matrix/{name}"] for name in golden["order"]]
    expected = golden["full_biased/numpy64"]
    for batch_size in (10, 64):
        found = matrix_of(layers, batch_size, FullCKA())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_hsic_equals_its_definition(golden):
    """The mean over all sets of four different clips, by Song et al.'s equation 4."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 1, (6, 3)), rng.normal(-2, 1, (6, 2))
    k, m = x @ x.T, y @ y.T
    terms = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        for i, j, q, r in permutations(range(6), 4)
    ]
    sums = MinibatchCKA()
    sums.update([x], [y])
    np.testing.assert_allclose(sums._hsics()[0].item(), np.mean(terms), rtol=1e-10)
    for pair in ("XX", "XY"):
        sums = MinibatchCKA()
        sums.update(*([golden[f"matrix/{name}"][:16]] for name in pair))
        expected = golden[f"hsic1/{pair}_first_batch"]
        np.testing.assert_allclose(sums._hsics()[0].item(), expected, rtol=1e-10)


def test_rotations_scales_and_shifts_do_not_matter():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 10))
    y = x[:, :4] + rng.normal(0, 0.5, (64, 4))
    rotation, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    for sums in (MinibatchCKA(), FullCKA()):
        sums.update([x, 3 * x @ rotation + 1e4], [y])
        same, moved = sums.matrix()[:, 0]
        assert 0.2 < same < 0.9
        np.testing.assert_allclose(moved, same, rtol=1e-9)


def test_unrelated_layers_are_unlike_by_the_unbiased_estimate_only():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 256, 60))
    unbiased, biased = (
        matrix_of([x, y], size, sums)[0, 1]
        for size, sums in ((32, MinibatchCKA()), (256, FullCKA()))
    )
    assert abs(unbiased) < 0.03
    assert biased > 0.15
