"""LayerWeightedProbe: the weights, their use, and what it shares with MLPProbe."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skaudioemb import HuBERT, LayerWeightedProbe
from skaudioemb.probes.network import LayerWeightedNetwork
from tests.models import small_probe

N_LAYERS, WIDTH, SPEAKING = 5, 8, 2


def small(n_layers=N_LAYERS, **params):
    shared = small_probe().get_params()
    return LayerWeightedProbe(n_layers, **{**shared, **params})


def tiled(X, n_layers):
    """Return rows whose layers are all alike."""
    return np.tile(X, n_layers)


@pytest.fixture(scope="module")
def layered():
    """Rows of five layers; only layer 2 knows the label, another is louder."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300)
    layers = rng.normal(size=(300, N_LAYERS, WIDTH))
    layers[:, SPEAKING] *= 0.5
    layers[np.arange(300), SPEAKING, y] += 1.2
    layers[:, 4] *= 2
    return layers.reshape(300, -1).astype(np.float32), y


@parametrize_with_checks([small(1)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


class TestWeights:
    def test_begin_as_the_mean(self):
        network = LayerWeightedNetwork(N_LAYERS * WIDTH, 3, N_LAYERS, hidden_units=4)
        assert network.layer_weights.tolist() == pytest.approx([1 / N_LAYERS] * 5)
        X = torch.randn(6, N_LAYERS * WIDTH)
        mean = X.reshape(6, N_LAYERS, WIDTH).mean(dim=1)
        network.eval()
        expected = network.projection(network.hidden(mean))
        torch.testing.assert_close(network(X), expected)

    @pytest.mark.parametrize("params", [{}, {"layer_norm": True}])
    def test_find_the_layer_that_knows(self, layered, params):
        X, y = layered
        probe = small(layer_lr=0.05, **params).fit(X[:200], y[:200])
        weights = probe.layer_weights_
        assert weights.shape == (N_LAYERS,)
        assert weights.dtype == np.float32
        assert weights.sum() == pytest.approx(1)
        assert weights.argmax() == SPEAKING
        mean = X.reshape(len(X), N_LAYERS, WIDTH).mean(axis=1)
        plain = small_probe().fit(mean[:200], y[:200])
        assert probe.score(X[200:], y[200:]) > plain.score(mean[200:], y[200:]) + 0.1

    def test_move_faster_with_a_rate_of_their_own(self, layered):
        def distance(**params):
            probe = small(lr=1e-3, max_epochs=20, validation=None, **params)
            return np.ptp(probe.fit(*layered).layer_weights_)

        assert distance(layer_lr=1e-3) == distance()
        assert distance(layer_lr=1e-2) > 3 * distance()

    def test_are_those_of_the_best_check(self, layered):
        def scores():
            yield 1.0
            while True:
                yield 0.0

        script = scores()
        best = small(scoring=lambda *_: next(script), ties="first").fit(*layered)
        short = small(max_epochs=3, scoring=lambda *_: 1.0).fit(*layered)
        assert best.best_epoch_ == 3 < best.n_epochs_
        np.testing.assert_array_equal(best.layer_weights_, short.layer_weights_)

    def test_are_missing_before_the_fit(self):
        assert not hasattr(small(), "layer_weights_")
        with pytest.raises(NotFittedError):
            _ = small().layer_weights_


class TestForward:
    @pytest.mark.parametrize("segments", [None, 2])
    @pytest.mark.parametrize("layer_norm", [False, True])
    def test_equals_numpy(self, layered, segments, layer_norm):
        X, y = layered
        if segments:
            X = np.concatenate([X, X[::-1] + 1], axis=1)
        probe = small(
            hidden_layers=0, segments=segments, layer_norm=layer_norm, layer_lr=0.1
        ).fit(X, y)
        groups = X.reshape(len(X), segments or 1, N_LAYERS, WIDTH).astype(np.float64)
        if layer_norm:
            groups = groups - groups.mean(axis=-1, keepdims=True)
            groups /= np.sqrt(groups.var(axis=-1, keepdims=True) + 1e-5)
        mixed = sum(w * groups[:, :, i] for i, w in enumerate(probe.layer_weights_))
        last = probe.net_.module_.projection
        weight, bias = (value.detach().numpy() for value in (last.weight, last.bias))
        assert weight.shape == (3, (segments or 1) * WIDTH)
        logits = mixed.reshape(len(X), -1) @ weight.T + bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = odds / odds.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probe.predict_proba(X), expected, atol=1e-5)
        assert np.ptp(probe.layer_weights_) > 0.05

    @pytest.mark.parametrize("params", [{}, {"hidden_layers": 0, "batch_size": 20}])
    @pytest.mark.parametrize("layer_lr", [None, 0.5])
    def test_one_layer_is_the_plain_probe_bit_for_bit(self, blobs, params, layer_lr):
        X, y = blobs
        plain = small_probe(**params).fit(X, y)
        probe = small(1, layer_lr=layer_lr, **params).fit(X, y)
        assert probe.history_ == plain.history_
        np.testing.assert_array_equal(probe.predict_proba(X), plain.predict_proba(X))
        assert probe.layer_weights_.tolist() == [1.0]

    def test_layers_that_are_alike_keep_equal_weights(self, blobs):
        X, y = blobs
        probe = small(4, validation=None).fit(tiled(X, 4), y)
        np.testing.assert_allclose(probe.layer_weights_, 0.25, atol=1e-3)
        assert probe.score(tiled(X, 4), y) > 0.9


class TestErrors:
    @pytest.mark.parametrize(
        ("n_layers", "params", "message"),
        [
            (13, {}, r"X has 40 columns, which n_layers=13 times segments=1 does not"),
            (5, {"segments": 3}, r"40 columns, which n_layers=5 times segments=3"),
            (0, {}, r"'n_layers' .*\[1, inf\). Got 0"),
            (2.0, {}, r"'n_layers' .* Got 2.0"),
            (5, {"segments": 0}, "'segments' .* Got 0"),
            (5, {"layer_norm": "no"}, "'layer_norm' .* Got 'no'"),
            (5, {"layer_lr": 0.0}, "'layer_lr' .* Got 0.0"),
            (5, {"dropout": 1.0}, "'dropout' .* Got 1.0"),
        ],
    )
    def test_illegal_values_are_named(self, layered, n_layers, params, message):
        with pytest.raises(ValueError, match=message):
            small(n_layers, **params).fit(*layered)

    def test_the_number_of_layers_cannot_be_left_out(self):
        with pytest.raises(TypeError, match="n_layers"):
            LayerWeightedProbe()


class TestComposition:
    def test_every_parameter_of_the_plain_probe_is_there(self):
        plain = small_probe().get_params()
        own = {"n_layers": 7, "segments": 2, "layer_norm": True, "layer_lr": 0.1}
        given = {**plain, "dropout": 0.3, "patience": 4, "ties": "first", **own}
        assert LayerWeightedProbe(**given).get_params() == given
        defaults = LayerWeightedProbe(1).get_params()
        expected = type(small_probe())().get_params()
        assert {name: defaults[name] for name in expected} == expected

    def test_grid_search_in_a_pipeline(self, layered):
        X, y = layered
        grid = {
            "layerweightedprobe__layer_lr": [None, 0.05],
            "layerweightedprobe__n_layers": [1, N_LAYERS],
        }
        probe = small(layer_norm=True, max_epochs=21)
        model = make_pipeline(StandardScaler(), probe)
        search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
        assert search.best_score_ > 0.6
        weights = search.best_estimator_[-1].layer_weights_
        assert len(weights) == search.best_params_["layerweightedprobe__n_layers"]

    def test_indicators(self, indicators):
        X, y = tiled(indicators[0], 3), indicators[1]
        rng = np.random.default_rng(0)
        X[:, :24] += rng.normal(scale=5, size=(len(X), 24))
        probe = small(3, layer_lr=0.05).fit(X, y)
        assert probe.layer_weights_.argmax() == 2
        assert probe.predict_proba(X).shape == y.shape
        assert (probe.predict(X) == y).mean() > 0.75

    def test_given_validation_rows_and_early_stopping(self, layered):
        X, y = layered
        probe = small(validation=(X[:60], y[:60]), max_epochs=300, patience=3)
        probe.fit(X[60:], y[60:])
        assert probe.n_epochs_ < 300
        assert probe.best_score_ == probe.score(X[:60], y[:60])

    def test_equal_seeds_give_equal_bits(self, layered):
        fits = [small(random_state=s, layer_lr=0.05).fit(*layered) for s in (1, 1, 2)]
        first, second, other = (probe.layer_weights_ for probe in fits)
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, other)

    def test_pickle_and_new_parameters(self, layered):
        X, y = layered
        probe = small(layer_norm=True).fit(X, y)
        again = pickle.loads(pickle.dumps(probe))
        np.testing.assert_array_equal(again.predict_proba(X), probe.predict_proba(X))
        np.testing.assert_array_equal(again.layer_weights_, probe.layer_weights_)
        other = clone(again).set_params(n_layers=4, segments=2).fit(X, y)
        assert other.layer_weights_.shape == (4,)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_weights_of_a_cuda_fit(self, layered):
        probe = small(layer_lr=0.05, device="cuda").fit(*layered)
        assert probe.layer_weights_.argmax() == SPEAKING

    @pytest.mark.parametrize("segments", [None, 2])
    def test_reads_what_an_embedder_gives(self, save_model, clips, segments):
        folder, model = save_model("hubert")
        n_layers = model.config.num_hidden_layers + 1
        embedder = HuBERT(folder, layers="all", segments=segments)
        X = embedder.transform(clips)
        network = LayerWeightedNetwork(X.shape[1], 2, n_layers, segments or 1)
        network.hidden = network.projection = torch.nn.Identity()
        found = network(torch.from_numpy(X)).detach().numpy()
        expected = embedder.set_params(layers="mean").transform(clips)
        np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())
        model = make_pipeline(
            embedder.set_params(layers="all"),
            small(n_layers, segments=segments, max_epochs=3),
        )
        y = ["a", "b"] * 3
        assert len(cross_val_score(model, clips, y, cv=2, error_score="raise")) == 2
