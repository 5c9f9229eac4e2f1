"""The masked autoencoder's networks and loss against the golden vectors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from skaudioemb.encoders.encodecmae_frontends import MelFrontEnd
from skaudioemb.pretraining.autoencoder import MaskedAutoencoder
from skaudioemb.pretraining.encodecmae_task import EncodecMAETask, frame_weights
from skaudioemb.pretraining.hearing import Hearing
from skaudioemb.pretraining.masks import make_masking
from skaudioemb.pretraining.weighted_loss import weighted_cross_entropy
from tests.encodecmae_models import close, golden_clips
from tests.models import ENCODECMAE
from tests.pretraining_encodecmae import (
    CPU,
    TINY,
    batch_of,
    codec_front_end,
    load_codec,
    make_encoder,
    published_network,
)

SETTINGS = replace(TINY, targets="codec", n_codebooks=8)
FILES = {"v1": "ec-ec-v1", "v2": "ec-ec-v2", "mel256": "mel256-ec-v2"}


@pytest.fixture(scope="module")
def golden():
    with np.load(ENCODECMAE / "pretraining.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def norms():
    meta = json.loads((ENCODECMAE / "meta.json").read_text())
    return meta["gradient_norms_v1_loss"]


class Case:
    """One of the golden trainings: its batch, its mask, its networks."""

    def __init__(self, name, golden, **changes):
        clips = golden_clips()
        self.golden = {
            key.removeprefix(f"{name}/"): value
            for key, value in golden.items()
            if key.startswith(f"{name}/")
        }
        is_mel = name == "mel256"
        lengths = golden["mel256/wav_len"] if is_mel else golden["wav_lens"]
        waveforms = [clips[f"clip{k}"][:n] for k, n in enumerate(lengths)]
        front_end = MelFrontEnd(CPU) if is_mel else codec_front_end()
        self.hear = Hearing(front_end, "codec", load_codec(), 8, CPU)
        self.heard = self.hear(batch_of(waveforms))
        mask = golden["mel256/mask"] if is_mel else golden["mask"]
        self.masking = make_masking(mask, self.heard.n_whole)
        self.network = published_network(FILES[name])
        self.task = EncodecMAETask(
            self.network,
            self.hear,
            replace(SETTINGS, **changes),
            torch.from_numpy(golden["gammas"]).float(),
        )

    def loss(self):
        return self.task.loss(self.heard, self.masking)


@pytest.mark.parametrize("name", FILES)
def test_networks_equal_the_published_code(name, golden):
    case = Case(name, golden)
    features, masking, network = case.heard.features, case.masking, case.network
    with torch.no_grad():
        tokens = network.visible(features, masking)
        seen = network.encoder.stack(tokens, masking.filler)
        decoded = network(features, masking)
        logits = network.heads["targets"](decoded).unflatten(-1, (8, 16))
    close(tokens, case.golden["visible_tokens"])
    filler = case.golden["visible_padding_mask"]
    assert filler.any() == (masking.filler is not None)
    if masking.filler is not None:
        assert np.array_equal(masking.filler, filler)
    close(seen[~filler], case.golden["visible_embeddings"][~filler])
    assert np.array_equal(masking.padding, case.golden["feature_padding_mask"])
    close(decoded, case.golden["decoder_out"])
    close(logits, case.golden["logits"])
    codes = case.task.codes(case.heard)["targets"]
    assert np.array_equal(codes.movedim(2, 0), case.golden["targets"])


@pytest.mark.parametrize("name", FILES)
def test_losses_equal_the_published_code(name, golden):
    case = Case(name, golden, count_padding=True)
    figures = {key: value.item() for key, value in case.loss().items()}
    names = {"loss": "loss", "masked": "masked_loss", "visible": "unmasked_loss"}
    expected = {key: case.golden[name].item() for key, name in names.items()}
    assert figures == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_padding_is_left_out(name, golden):
    case = Case(name, golden)
    expected = float(case.golden["loss_without_padding"])
    assert case.loss()["loss"].item() == pytest.approx(expected, abs=1e-4)
    assert abs(expected - case.golden["loss"]) > 1e-3


def test_gradients_equal_the_published_code(golden, norms):
    case = Case("v1", golden, count_padding=True)
    case.loss()["loss"].backward()
    network = case.network
    ours = {
        "feat_projector": network.encoder.project,
        "visible_encoder": network.encoder.stack,
        "decoder_projector": network.decoder.project,
        "decoder": network.decoder.stack,
        "head.layer": network.heads["targets"],
    }
    found = {
        f"{prefix}.{name}": parameter.grad.norm().item()
        for prefix, module in ours.items()
        for name, parameter in module.named_parameters()
    }
    # The first release has one scale for encoder and decoder.
    both = network.encoder.scale.grad + network.decoder.scale.grad
    found["positional_encoder.scale"] = both.abs().item()
    assert found == pytest.approx(norms, rel=1e-3)


def test_the_gradient_of_the_loss_is_that_of_autograd():
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 5).double(), torch.randn(12, 5).double()
    bias, weights = torch.randn(12).double(), torch.rand(7, 3).double()
    codes = torch.randint(4, (7, 3))
    inputs = [x.requires_grad_() for x in (hidden, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda *x: weighted_cross_entropy(*x, codes, weights)[0], inputs
    )
    total, losses = weighted_cross_entropy(*inputs, codes, weights)
    scores = (hidden @ weight.T + bias).unflatten(1, (3, 4)).transpose(1, 2)
    plain = torch.nn.functional.cross_entropy(scores, codes, reduction="none")
    torch.testing.assert_close(losses, plain)
    torch.testing.assert_close(total, (plain * weights).sum())


def test_means_over_the_batch_or_over_each_clip():
    masked = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
    masking = make_masking(masked, np.array([4, 3]))
    hidden, seen = frame_weights(masking)
    assert torch.equal(hidden, torch.from_numpy(masked) / 4)
    assert torch.equal(seen, torch.tensor([[0, 0, 0, 1], [0, 1, 1, 0]]) / 3)
    hidden, seen = frame_weights(masking, per_clip=True)
    assert torch.equal(hidden[:, 0], torch.tensor([1 / 6, 1 / 2]))
    assert torch.equal(seen[:, 2:], torch.tensor([[0, 1 / 2], [1 / 4, 0]]))
    _, seen = frame_weights(masking, count_padding=True)
    assert torch.equal(seen[1], torch.tensor([0, 1, 1, 1]) / 4)


def test_clips_weigh_alike_with_their_own_means(golden):
    batch = Case("v2", golden, loss_mean="clip")
    found = batch.loss()
    parts = []
    for k in range(2):
        masked = golden["mask"][k : k + 1]
        heard = replace(
            batch.heard,
            features=batch.heard.features[k : k + 1],
            material=batch.heard.material[k : k + 1],
            n_whole=batch.heard.n_whole[k : k + 1],
        )
        masking = make_masking(masked, heard.n_whole)
        parts.append(batch.task.loss(heard, masking)["loss"])
    assert found["loss"].item() == pytest.approx(torch.stack(parts).mean().item())
    pooled = Case("v2", golden).loss()
    assert abs(found["loss"].item() - pooled["loss"].item()) > 1e-4


def test_a_learned_token_stands_for_hidden_frames(golden):
    plain, learned = (
        MaskedAutoencoder(make_encoder(), {"targets": (2, 4)}, mask_token=token)
        for token in ("zeros", "learned")
    )
    generator = torch.Generator().manual_seed(0)
    learned.initialise(generator)
    assert 0.01 < learned.decoder.token.std() < 0.03
    rest = {k: v for k, v in learned.state_dict().items() if not k.endswith("token")}
    plain.load_state_dict(rest)
    masking = make_masking(np.eye(4, 6, dtype=bool), np.full(4, 6))
    features = torch.randn(4, 6, 256, generator=generator)
    assert not torch.equal(plain(features, masking), learned(features, masking))
    learned(features, masking).square().sum().backward()
    assert learned.decoder.token.grad.abs().max() > 0
    with torch.no_grad():
        learned.decoder.token.zero_()
        assert torch.equal(plain(features, masking), learned(features, masking))


def test_the_feed_forward_network_is_shared_or_not():
    counts = [
        sum(p.numel() for p in network.decoder.stack.parameters())
        for share in (True, False)
        for network in [
            MaskedAutoencoder(make_encoder(), {"targets": (2, 4)}, 3, share)
        ]
    ]
    assert counts[1] - counts[0] == 2 * (24 * 32 + 32 + 32 * 24 + 24)


def test_a_clip_does_not_change_its_neighbour(golden):
    case = Case("v2", golden)
    with torch.no_grad():
        together = case.network(case.heard.features, case.masking)
        masking = make_masking(golden["mask"][1:], case.heard.n_whole[1:])
        alone = case.network(case.heard.features[1:], masking)
    n_whole = case.heard.n_whole[1]
    close(together[1, :n_whole].numpy(), alone[0, :n_whole].numpy())


def test_lower_precision_leaves_streams_and_loss_in_float32(golden):
    case = Case("v2", golden)
    plain = case.loss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = case.network.visible(case.heard.features, case.masking)
        decoded = case.network(case.heard.features, case.masking)
        codes = case.task.codes(case.heard)["targets"]
        figures = case.loss()
    assert tokens.dtype == decoded.dtype == torch.float32
    assert torch.equal(codes, case.task.codes(case.heard)["targets"])
    for name, value in figures.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(plain[name].item(), rel=0.02)
        assert value != plain[name]
    figures["loss"].backward()
    for parameter in case.network.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
