"""EAT: spectrograms are made here, and the checkpoint's own code sees them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from skaudioemb import HFAudioModel
from tests.speech_models import noise

pytestmark = pytest.mark.usefixtures("code_cache")

CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel


class EATConfig(PretrainedConfig):
    model_type = "eat"

    def __init__(self, embed_dim=12, **kwargs):
        super().__init__(**kwargs)
        self.embed_dim = embed_dim


class EATModel(PreTrainedModel):
    config_class = EATConfig

    def __init__(self, config):
        super().__init__(config)
        self.project = torch.nn.Conv2d(1, config.embed_dim, 16, 16)
        self.post_init()

    def extract_features(self, image):
        assert image.shape[1:] == (1, 1024, 128)
        tokens = self.project(image).flatten(2).transpose(1, 2)
        return torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with the interface of EAT's: patches, and a token before them."""
    folder = tmp_path_factory.mktemp("eat")
    (folder / "modeling_eat.py").write_text(CODE)
    classes = {"AutoConfig": "EATConfig", "AutoModel": "EATModel"}
    classes = {name: f"modeling_eat.{kind}" for name, kind in classes.items()}
    config = {"model_type": "eat", "auto_map": classes, "embed_dim": 12}
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    weights = {
        "project.weight": torch.randn(12, 1, 16, 16, generator=generator),
        "project.bias": torch.randn(12, generator=generator),
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def by_hand(folder, clip):
    """Return frames of one clip of at most a window, as EAT's authors describe."""
    import torchaudio
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    spectra = torchaudio.compliance.kaldi.fbank(
        (clip - clip.mean())[None],
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )
    n_full = len(spectra) // 16
    image = (spectra[None, None] + 4.268) / (2 * 4.569)
    kernel, bias = weights["project.weight"], weights["project.bias"]
    patches = torch.nn.functional.conv2d(image, kernel, bias, stride=16)
    return patches[0, :, :n_full].mean(dim=2).T.numpy()


def test_code_has_to_be_trusted(folder):
    with pytest.raises(ValueError, match="'eat' model, which runs code of its own"):
        HFAudioModel(folder).fit([np.zeros(16000)])


def test_frames(folder):
    eat = HFAudioModel(folder, trust_remote_code=True)
    clips = noise(16000, 50000, 9000)
    for clip, frames in zip(clips, eat.frames([c.numpy() for c in clips]), strict=True):
        expected = by_hand(folder, clip)
        assert len(expected) >= 3
        scale = np.abs(expected).max()
        np.testing.assert_allclose(frames.values, expected, rtol=0, atol=1e-5 * scale)
        centres = (7.5 * 160 + 200) / 16000 + 0.16 * np.arange(len(expected))
        np.testing.assert_allclose(frames.times, centres)


def test_any_length(folder):
    eat = HFAudioModel(folder, trust_remote_code=True)
    clips = [clip.numpy() for clip in noise(1, 400, 2000, 16000, 163_840, 400_000)]
    together = eat.fit_transform(clips)
    alone = np.concatenate([eat.transform([clip]) for clip in clips])
    scale = np.abs(alone).max()
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * scale)
    frames = eat.frames(clips)
    assert [len(values) for values, _ in frames] == [1, 1, 1, 6, 63, 156]
    for scene, (values, times) in zip(together, frames, strict=True):
        assert (np.diff(times) > 0).all()
        np.testing.assert_allclose(
            scene, values.mean(axis=0), rtol=0, atol=1e-5 * scale
        )
