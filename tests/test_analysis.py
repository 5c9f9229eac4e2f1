"""Centred kernel alignment: against golden values, definitions, and embedders."""

import tracemalloc
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import transformers
from matplotlib.figure import Figure
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skaudioemb import CREPE, AudioError, Fusion, HuBERT, LogMel, Wav2Vec2
from skaudioemb.analysis import MinibatchCKA, cka
from skaudioemb.analysis_layers import make_reader
from skaudioemb.analysis_sums import FullCKA
from skaudioemb.encoders.base import Encoder
from skaudioemb.encoders.logmel import LogMelSpec
from tests.models import CHECKPOINTS, embedders

HUBERT = HuBERT(CHECKPOINTS / "hubert-large-like", layers=1)
WAV2VEC2 = Wav2Vec2(CHECKPOINTS / "wav2vec2-base-like")


@pytest.fixture(scope="module")
def recordings():
    """Chirps of one length and of different pitches and loudness."""
    rng = np.random.default_rng(1)
    time = np.arange(4000) / 16000
    chirps = [
        np.sin(2 * np.pi * (f + s * time) * time) * a + rng.normal(0, 0.01, len(time))
        for f, s, a in rng.uniform((80, 0, 0.1), (2000, 2000, 0.8), (24, 3))
    ]
    return np.float32(chirps)


def whole(values):
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)


class Rows(TransformerMixin, BaseEstimator):
    """Give the clips themselves, or what a function makes of them."""

    def __init__(self, function=None):
        self.function = function

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        rows = np.stack(X)
        return rows if self.function is None else self.function(rows)


@pytest.mark.parametrize("debiased", [True, False])
def test_layers_of_two_embedders(recordings, debiased):
    kept = (repr(HUBERT), repr(WAV2VEC2))
    found = cka(HUBERT, WAV2VEC2, recordings, batch_size=8, debiased=debiased)
    assert (repr(HUBERT), repr(WAV2VEC2)) == kept
    a, b = (
        [model(model_folder, layers=i).transform(recordings) for i in range(n_layers)]
        for model, model_folder, n_layers in (
            (HuBERT, HUBERT.checkpoint, 4),
            (Wav2Vec2, WAV2VEC2.checkpoint, 3),
        )
    )
    sums = MinibatchCKA() if debiased else FullCKA()
    for start in range(0, 24, 8):
        rows = slice(start, start + 8)
        sums.update([x[rows] for x in a], [x[rows] for x in b])
    np.testing.assert_allclose(found.matrix, sums.matrix(), atol=1e-4)
    assert found.matrix.shape == (4, 3)
    assert (found.layers_a, found.layers_b) == (list("0123"), list("012"))
    assert (found.name_a, found.name_b) == ("HuBERT", "Wav2Vec2")
    assert (found.n_clips, found.debiased) == (24, debiased)
    turned = cka(WAV2VEC2, HUBERT, recordings, batch_size=8, debiased=debiased)
    np.testing.assert_allclose(turned.matrix, found.matrix.T, rtol=1e-9)


def test_frames_side_by_side(recordings):
    found = cka(HUBERT, LogMel(), recordings, activations="frames", batch_size=12)
    alone = [HuBERT(HUBERT.checkpoint, layers=i).frames(recordings) for i in range(4)]
    layers = [np.stack([values for values, _ in frames]) for frames in alone]
    bands = np.stack([f.values for f in LogMel().frames(recordings)])
    sums = MinibatchCKA()
    for rows in (slice(12), slice(12, 24)):
        sums.update([values[rows] for values in layers], [bands[rows]])
    np.testing.assert_allclose(found.matrix, sums.matrix(), atol=1e-4)


@pytest.mark.parametrize("name", embedders())
@pytest.mark.parametrize("activations", ["scenes", "frames"])
def test_every_embedder_equals_itself(name, activations, recordings):
    embedder = embedders()[name]
    X = recordings[:8]
    alignment = cka(embedder, embedder, X, activations=activations, batch_size=4)
    np.testing.assert_allclose(np.diag(alignment.matrix), 1, atol=1e-6)
    has_layers = "layers" in embedder.get_params(deep=False)
    n_layers = embedder.fit(X).n_layers_ if has_layers else 1
    assert len(alignment.layers_a) == n_layers


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooling_and_segments_of_the_model_count(recordings, pooling):
    params = {"pooling": pooling, "segments": 2}
    model = HuBERT(HUBERT.checkpoint, layers="mean", **params)
    layers = make_reader(model, "scenes").read(recordings[:5])
    assert len(layers) == 4
    for number, values in enumerate(layers):
        alone = HuBERT(HUBERT.checkpoint, layers=number, **params)
        expected = alone.transform(recordings[:5])
        np.testing.assert_allclose(whole(values), expected, atol=1e-5)


def hooked(network, names, X):
    """Return what submodules give for one clip after the other, flattened."""
    outputs = {name: [] for name in names}
    for name in names:

        def hook(module, inputs, output, name=name):
            outputs[name].append(output.flatten().numpy().copy())

        network.get_submodule(name).register_forward_hook(hook)
    with torch.inference_mode():
        for row in X:
            network(torch.from_numpy((row - row.mean()) / row.std())[None])
    return {name: np.stack(rows) for name, rows in outputs.items()}


def test_modules_are_what_hooks_see(recordings):
    embedder, X = embedders()["huggingface"], recordings[:3]
    network = transformers.AutoModel.from_pretrained(embedder.checkpoint).eval()
    names = [
        name
        for name, module in network.named_modules()
        if not list(module.children()) and "layer_norm" in name
    ]
    assert len(names) > 5
    reader = make_reader(embedder, "modules", ["model.*layer_norm*", "*.nothing"])
    values = reader.read(list(X))
    found = dict(zip(reader.layer_names, values, strict=True))
    assert found.keys() == {f"model.{name}" for name in names}
    for name, expected in hooked(network, names, X).items():
        np.testing.assert_allclose(found[f"model.{name}"], expected, atol=1e-3)
    alignment = cka(
        embedder, embedder, recordings, activations="modules", modules="*conv*norm"
    )
    assert alignment.matrix.shape == (len(alignment.layers_a),) * 2
    assert not any("dropout" in name for name in alignment.layers_a)


def test_inside_a_network_of_one_layer(recordings):
    """As the paper compares the convolutions of BYOL-A and BYOL-S."""
    byol = embedders()["byol"]
    inside = {"activations": "modules", "modules": ["network.*.0", "network.*.3"]}
    alignment = cka(byol, byol, recordings, batch_size=12, **inside)
    named = {f"network.{part}" for part in ("features.0", "fc.0", "fc.3")}
    assert named <= set(alignment.layers_a)
    # The scenes' one pass over the clip, not the frames' windows.
    (values, *_) = make_reader(byol, "modules", "network.features.0").read(
        list(recordings[:2])
    )
    assert values.shape == (2, 64 * 64 * (4000 // 160 + 1))


class InPlace(nn.Module):
    """A convolution whose output the next module overwrites."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 3)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.relu(self.conv(x)))


def test_modules_that_overwrite_or_do_nothing(recordings):
    """torch_cka shows the convolution as if it were the rectifier, and dropout too."""

    class Around(Encoder):
        def __init__(self):
            super().__init__()
            self.net = InPlace()

        def forward(self, waveforms):
            for waveform in waveforms:
                yield 0, self.net(waveform[None, None])[0].T

    class Spec(LogMelSpec):
        n_features = 2
        identity = "in-place"

        def n_frames(self, n_samples):
            return n_samples - 2

        def load(self, device, dtype):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                return Around().eval()

    class Model(LogMel):
        def _make_spec(self):
            return Spec()

    reader = make_reader(Model(), "modules")
    values = reader.read(list(recordings[:4]))
    assert reader.layer_names == ["net.conv", "net.relu"]
    assert (values[0] < 0).any()
    np.testing.assert_array_equal(np.maximum(values[0], 0), values[1])


def test_only_sums_are_kept():
    """Memory follows the batch, not the number of clips."""
    wide = Rows(lambda rows: np.repeat(rows, 2000, axis=1))
    peaks = []
    for n_clips in (16, 160):
        X = np.random.default_rng(0).normal(size=(n_clips, 50)).astype("f4")
        tracemalloc.start()
        cka(wide, Rows(), X, batch_size=8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_minibatches_have_one_size_and_one_length(recordings):
    X = [*recordings[:9], *recordings[9:14, :3000], *recordings[14:17, :2000]]
    assert cka(LogMel(), LogMel(), X, batch_size=4).n_clips == 16
    assert cka(LogMel(), LogMel(), X, batch_size=64).n_clips == 17
    frames = {"activations": "frames"}
    assert cka(LogMel(), LogMel(), X, batch_size=4, **frames).n_clips == 12
    assert cka(LogMel(), LogMel(), X, batch_size=6, **frames).n_clips == 6
    with pytest.raises(ValueError, match=r"3 clips of one length.*at least 4"):
        cka(LogMel(), LogMel(), X[6:12], **frames)
    with pytest.raises(ValueError, match="3 lengths, which debiased=False"):
        cka(LogMel(), LogMel(), X, debiased=False, **frames)
    assert cka(LogMel(), LogMel(), X, batch_size=4, debiased=False).n_clips == 17


def test_sorted_clips_have_to_be_shuffled():
    """Within a class nothing is alike; what tells classes apart is."""
    rng = np.random.default_rng(0)
    kind = np.repeat([0.0, 4.0], 64)
    X = np.column_stack([kind, kind, rng.normal(size=(128, 2))])
    parts = [Rows(lambda rows, i=i: rows[:, i::2]) for i in (0, 1)]
    found, shuffled, again, other = (
        cka(*parts, X, batch_size=16, shuffle=shuffle, random_state=seed).matrix.item()
        for shuffle, seed in ((False, 0), (True, 0), (True, 0), (True, 1))
    )
    assert abs(found) < 0.2
    assert shuffled > 0.7
    assert shuffled == again != other


def test_scale_is_up_to_the_caller(recordings):
    """A pipeline of a fitted scaler is a model as any other."""
    model = make_pipeline(LogMel(), StandardScaler()).fit(recordings)
    scaled = cka(model, CREPE("tiny", hop=0.1), recordings)
    plain = cka(LogMel(), CREPE("tiny", hop=0.1), recordings)
    assert scaled.name_a == "Pipeline"
    assert 0.01 < abs(scaled.matrix - plain.matrix).item() < 1
    fusion = Fusion([("hubert", HUBERT), ("logmel", LogMel())])
    assert cka(fusion, HUBERT, recordings).matrix.shape == (1, 4)


def test_layers_that_do_not_vary_are_named(recordings):
    same = Rows(lambda rows: np.full((len(rows), 3), 0.1, np.float32))
    with pytest.warns(
        UserWarning, match="Layers of Rows.*: Rows. Their.*NaN"
    ) as caught:
        found = cka(same, LogMel(), recordings)
    assert len(caught) == 1
    assert np.isnan(found.matrix).all()
    sums = MinibatchCKA()
    x = np.random.default_rng(0).normal(size=(8, 3))
    sums.update([x, np.ones((8, 2))], [x])
    assert np.isnan(sums.matrix()).ravel().tolist() == [False, True]


@pytest.mark.parametrize("activations", ["scenes", "frames", "modules"])
def test_clips_that_cannot_be_read(recordings, activations):
    X = [*recordings[:6], "nowhere.wav", *recordings[6:12]]
    names = {"activations": activations, "modules": "*layer_norm*"}
    strict = embedders()["huggingface"].set_params(layers="last")
    with pytest.raises(AudioError, match=r"clip 6.*nowhere\.wav"):
        cka(strict, strict, X, batch_size=4, **names)
    lenient = strict.set_params(on_error="nan")
    expected = cka(lenient, lenient, recordings[:12], batch_size=13, **names)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "1 of 13 clips")
        found = cka(lenient, lenient, X, batch_size=13, **names)
    assert found.n_clips == 12
    np.testing.assert_allclose(found.matrix, expected.matrix, atol=1e-6)


def test_heat_map(recordings):
    alignment = cka(HUBERT, WAV2VEC2, recordings)
    ax = Figure().add_subplot()
    assert alignment.heat_map(ax) is ax
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), alignment.matrix)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Wav2Vec2", "HuBERT")
    assert [label.get_text() for label in ax.get_yticklabels()] == list("0123")
    assert len(plt.get_fignums()) == 0
    own = alignment.heat_map()
    assert own.figure.number in plt.get_fignums()
    own.figure.canvas.draw()
    plt.close(own.figure)


@pytest.mark.parametrize(
    ("models", "params", "error", "match"),
    [
        ((LogMel(), LogMel()), {"batch_size": 3}, ValueError, "batch_size=3.* from 4"),
        ((LogMel(), LogMel()), {"debiased": 2}, ValueError, "debiased=2"),
        (
            (LogMel(), LogMel()),
            {"activations": "means"},
            ValueError,
            "activations='means' is not known. Choose one of 'scenes', 'frames', 'mod",
        ),
        ((LogMel(), "hubert"), {}, TypeError, "'hubert' has no transform"),
        ((Rows(), Rows()), {"activations": "frames"}, TypeError, "no frames"),
        ((Rows(), Rows()), {"activations": "modules"}, TypeError, "Rows is none"),
        (
            (LogMel(), LogMel()),
            {"activations": "modules"},
            TypeError,
            "No module of Log",
        ),
        ((LogMel, LogMel), {}, TypeError, "has no transform"),
    ],
)
def test_mistakes_get_a_sentence(recordings, models, params, error, match):
    with pytest.raises(error, match=match):
        cka(*models, recordings, **params)


def test_mistakes_in_minibatches(recordings):
    rows = np.random.default_rng(0).normal(size=(5, 2))
    with pytest.raises(ValueError, match=r"\[3\] clips.*at least 4"):
        MinibatchCKA().update([rows[:3]], [rows[:3]])
    with pytest.raises(ValueError, match=r"\[4, 5\] clips.*as many"):
        MinibatchCKA().update([rows], [rows[:4]])
    with pytest.raises(ValueError, match="Call update first"):
        MinibatchCKA().matrix()
    with pytest.raises(ValueError, match="3 clips at most"):
        cka(LogMel(), LogMel(), recordings[:3])
