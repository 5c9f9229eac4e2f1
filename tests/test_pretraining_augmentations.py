"""Augmentations of BYOL-A: the reference's numbers, and what is drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skaudioemb.pretraining.augmentations import (
    MemoryBank,
    Views,
    crop_sizes,
    draw_crops,
    fade,
    mixup,
    normalize_batch,
    resize_crops,
)

GOLDEN = Path(__file__).parent / "golden" / "byol" / "augmentations.npz"
SCALES, CANVAS = (0.6, 1.5), (1.0, 1.5)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def close(found, expected, atol=1e-4):
    torch.testing.assert_close(found, expected.to(found), rtol=0, atol=atol)


@pytest.mark.parametrize("ratio", ["0.0", "0.05", "0.13", "0.25", "0.4"])
def test_mixup_gives_the_golden_spectrogram(golden, ratio):
    mixed = mixup(golden["x"][None], golden["z"][None], torch.tensor([float(ratio)]))
    close(mixed[0], golden[f"mixup/lambda{ratio}"])


def test_mixup_of_logarithms_gives_the_golden_spectrogram(golden):
    x, z, ratios = golden["x"][None], golden["z"][None], torch.tensor([0.4])
    mixed = mixup(x, z, ratios, log_mixup_exp=False)
    close(mixed[0], golden["mixup_linear/lambda0.4"])


def test_memory_gives_the_golden_sequence(golden):
    bank = MemoryBank(int(golden["bank/memory_size"]), (4, 5))
    inputs, ratio = golden["bank/inputs"], float(golden["bank/ratio"])
    for k, index in enumerate(golden["bank/index"]):
        x = inputs[k : k + 1]
        u = golden["bank/u"][k : k + 1].float()
        mixed = mixup(x, bank.get(index[None]), ratio * u) if len(bank) else x
        close(mixed[0], golden["bank/outputs"][k])
        bank.push(x)


def test_memory_is_filled_the_same_in_batches_of_any_size():
    items = torch.arange(11.0).reshape(11, 1, 1)
    for sizes in ([1] * 11, [4, 4, 3], [11], [2, 9]):
        bank = MemoryBank(5, (1, 1))
        for part in items.split(sizes):
            bank.push(part)
        kept = bank.get(torch.arange(len(bank))).flatten().tolist()
        assert kept == [6.0, 7.0, 8.0, 9.0, 10.0], sizes


def test_memory_is_in_the_state_dict():
    bank, other = (MemoryBank(3, (1, 1)) for _ in range(2))
    bank.push(torch.arange(4.0).reshape(4, 1, 1))
    other.load_state_dict(bank.state_dict())
    assert len(other) == 3
    places = torch.arange(3)
    torch.testing.assert_close(other.get(places), bank.get(places))


@pytest.mark.parametrize(("name", "x"), [("t96", "x"), ("t51", "x_t51")])
def test_crops_are_resized_to_the_golden_spectrograms(golden, name, x):
    x, crops = golden[x], golden[f"rrc/{name}/ijhw"]
    n_frames = x.shape[1]
    resized = resize_crops(x.expand(len(crops), -1, -1), crops, n_frames * 3 // 2)
    for k in range(len(crops)):
        close(resized[k], golden[f"rrc/{name}/{k}"])


def test_crops_equal_torchs_interpolation_on_a_canvas():
    x = torch.randn(40, 20, 31, generator=generator())
    crops = draw_crops(40, 20, 31, SCALES, (1.3, 1.5), generator(1))
    resized = resize_crops(x, crops, 46, 26)
    canvas = F.pad(x, (7, 8, 3, 3))
    assert canvas.shape[1:] == (26, 46)
    for k, (i, j, h, w) in enumerate(crops.tolist()):
        crop = canvas[None, k : k + 1, i : i + h, j : j + w]
        expected = F.interpolate(crop, (20, 31), mode="bicubic", align_corners=True)
        close(resized[k], expected[0, 0])


def test_sizes_of_crops_are_the_golden_ones(golden):
    factors = golden["rrc/draws/scale_freq_time"]
    limits = torch.tensor([64, 144])
    sizes = crop_sizes(factors, torch.tensor([64, 96]), limits)
    expected = golden["rrc/draws/h_w_maxi_maxj"]
    assert torch.equal(sizes, expected[:, :2])
    assert torch.equal(limits - sizes, expected[:, 2:])


def test_crops_lie_on_the_canvas_and_reach_its_borders():
    top, left, height, width = draw_crops(20_000, 64, 96, SCALES, CANVAS, generator()).T
    assert (top.min(), left.min()) == (0, 0)
    assert (top + height).max() == 64
    assert (left + width).max() == 144
    assert (height.min(), width.min()) == (38, 57)
    # A height above the canvas's is cut to it: 5 in 9 of the draws.
    assert (height == 64).float().mean().item() == pytest.approx(0.556, abs=0.015)
    whole = left[width == 57]
    assert len(whole) > 50
    assert whole.max() <= 87


def test_fader_gives_the_golden_lines(golden):
    heads, tails = golden["fader/head_tail"].float().T
    faded = fade(torch.zeros(3, 1, 96), heads, tails)
    close(faded[:, 0], golden["fader/slope"])
    x = golden["x"][None]
    close(fade(x, heads[:1], tails[:1]), golden["fader/out"])


def test_batches_are_normalised_as_the_golden_ones(golden):
    close(normalize_batch(golden["normalize_batch/in"]), golden["normalize_batch/out"])
    constant = normalize_batch(golden["normalize_batch/constant_in"])
    close(constant, golden["normalize_batch/constant_out"])


def test_views_are_normalised_together_and_drawn_apart():
    x = torch.randn(6, 8, 12, generator=generator())
    first, second = Views((8, 12))(x, generator())
    both = torch.cat([first, second])
    assert both.shape == (12, 8, 12)
    assert both.mean().item() == pytest.approx(0, abs=1e-5)
    assert both.std().item() == pytest.approx(1, abs=1e-5)
    assert not torch.equal(first, second)


def test_views_without_augmentation_are_the_input():
    x = torch.randn(5, 8, 12, generator=generator())
    views = Views((8, 12), mixup_ratio=0, scales=(1, 1), canvas=(1, 1))
    for view in views(x, generator()):
        close(view, normalize_batch(torch.cat([x, x]))[:5], atol=1e-5)
    assert len(views.bank) == 0


def test_views_mix_in_earlier_batches_only():
    views = Views((4, 6), mixup_ratio=1.0, scales=(1, 1), canvas=(1, 1))
    plain = Views((4, 6), mixup_ratio=0, scales=(1, 1), canvas=(1, 1))
    batches = torch.randn(2, 5, 4, 6, generator=generator())
    seeds = generator(), generator()
    close(views(batches[0], seeds[0])[0], plain(batches[0], seeds[1])[0])
    assert torch.equal(views.bank.get(torch.arange(5)), batches[0])
    assert not torch.allclose(
        views(batches[1], seeds[0])[0], plain(batches[1], seeds[1])[0]
    )


def test_views_repeat_with_the_seed():
    x = torch.randn(5, 8, 12, generator=generator())
    options = {"fader_gain": 1.0, "memory_size": 7}
    results = []
    for seed in (3, 3, 4):
        views, drawn = Views((8, 12), **options), generator(seed)
        results.append([view for _ in range(3) for view in views(x, drawn)])
    for same, again, other in zip(*results, strict=True):
        assert torch.equal(same, again)
        assert not torch.equal(same, other)
