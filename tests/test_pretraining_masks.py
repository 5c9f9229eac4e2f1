"""Masks of a masked autoencoder: how many frames, which ones, and where they go."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from skaudioemb.pretraining.masks import (
    draw_mask,
    draw_masking,
    make_masking,
    mask_of_runs,
)
from tests.models import ENCODECMAE

LENGTH = 15


@pytest.fixture(scope="module")
def golden():
    with np.load(ENCODECMAE / "mask_sampler.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def meta():
    return json.loads((ENCODECMAE / "meta.json").read_text())


def test_equals_the_published_code_from_the_same_starts(golden):
    cases = [name.removesuffix("/starts") for name in golden if name.endswith("starts")]
    assert len(cases) == 18
    for case in cases:
        expected = golden[f"{case}/mask"]
        mask = mask_of_runs(
            golden[f"{case}/starts"].tolist(), len(expected), expected.sum(), LENGTH
        )
        assert_array_equal(mask, expected, err_msg=case)


def test_what_is_too_much_is_shown_within_the_clip():
    mask = mask_of_runs([25, 5], 40, 20, LENGTH)
    # Of the first run, which ends with the clip, nothing is shown.
    assert np.flatnonzero(mask).tolist() == [*range(15, 20), *range(25, 40)]
    mask = mask_of_runs([25], 40, 10, LENGTH)
    assert np.flatnonzero(mask).tolist() == [*range(30, 40)]


def test_it_hides_exactly_so_many_frames(meta):
    rng = np.random.default_rng(0)
    for n_frames, row in meta["mask_table"].items():
        for _ in range(20):
            mask = draw_mask(int(n_frames), 0.5, LENGTH, rng)
            assert mask.sum() == row["masked"] == int(n_frames) // 2


@pytest.mark.parametrize("share", [0.1, 0.65, 0.9])
@pytest.mark.parametrize("length", [1, 4, 40])
def test_other_shares_and_lengths(share, length):
    rng = np.random.default_rng(0)
    for n_frames in (2, 9, 30, 100):
        mask = draw_mask(n_frames, share, length, rng)
        assert mask.sum() == int(share * n_frames) < n_frames


def test_statistics_are_those_of_the_published_code(golden, meta):
    rng = np.random.default_rng(0)
    masks = np.stack([draw_mask(300, 0.5, LENGTH, rng) for _ in range(3000)])
    hidden = masks.mean(0)
    assert np.abs(hidden - golden["stats_L300/probability_masked"]).max() < 0.04
    expected = meta["mask_statistics_L300"]
    assert hidden[14:286].mean() == pytest.approx(
        expected["p_plateau_14_285"], abs=0.02
    )
    edges = np.diff(np.pad(masks.astype(int), ((0, 0), (1, 1))), axis=1)
    begins, ends = np.nonzero(edges == 1), np.nonzero(edges == -1)
    lengths = ends[1] - begins[1]
    assert len(lengths) / 3000 == pytest.approx(
        expected["mean_number_of_runs"], rel=0.03
    )
    assert np.median(lengths) == expected["run_length_median"]


def test_places_are_those_of_frames_neither_hidden_nor_padding():
    rng = np.random.default_rng(0)
    n_whole = np.array([40, 1, 17])
    masking = draw_masking(40, n_whole, 0.5, LENGTH, rng)
    assert masking.masked.sum(1).tolist() == [20, 0, 8]
    assert masking.padding.sum(1).tolist() == [0, 39, 23]
    assert masking.has_padding
    assert masking.places.shape == (3, 20)
    for k in range(3):
        own = masking.places[k][~masking.filler[k]]
        seen = ~(masking.masked[k] | masking.padding[k])
        assert torch.equal(own, seen.nonzero()[:, 0])


def test_nothing_is_filled_up_where_clips_are_alike():
    masked = np.array([[1, 0, 1, 0], [0, 1, 1, 0]], bool)
    masking = make_masking(masked, np.array([4, 4]))
    assert masking.filler is None
    assert not masking.has_padding
    assert masking.places.tolist() == [[1, 3], [0, 3]]
    moved = masking.to(torch.device("meta"))
    assert moved.places.is_meta
    assert moved.filler is None
