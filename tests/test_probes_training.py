"""MLPProbe's network, training, stopping and scores, on HEAR's golden vectors.

Golden files: tests/golden/hear, made by heareval 2021.1.3 itself.
"""

import json
import warnings
from itertools import chain, repeat
from math import inf, nan

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import (
    average_precision_score,
    get_scorer,
    make_scorer,
)

from skaudioemb.probes import mlp
from skaudioemb.probes.mlp import MLPProbe
from skaudioemb.probes.network import ProbeNetwork
from skaudioemb.probes.rows import hold_out
from skaudioemb.probes.training import TensorBatches
from skaudioemb.scores.clips import mAP
from tests.models import GOLDEN
from tests.models import small_probe as small

HEAR = GOLDEN / "hear"
INIT_CASES = json.loads((HEAR / "probe_init.json").read_text())
STEP_CASES = json.loads((HEAR / "probe_steps.json").read_text())
STOP_CASES = json.loads((HEAR / "early_stopping.json").read_text())


class TestNetwork:
    @pytest.mark.parametrize("case", INIT_CASES)
    def test_layers_and_first_weights(self, case):
        torch.manual_seed(0)
        init = case["initialization"].rstrip("_")
        network = ProbeNetwork(
            case["nfeatures"],
            case["nlabels"],
            case["hidden_layers"],
            case["hidden_dim"],
            init=init,
        )
        names = [type(module).__name__ for module in network.hidden]
        assert (names or ["Identity"]) == case["modules"]
        n_parameters = sum(value.numel() for value in network.parameters())
        assert n_parameters == case["n_parameters"]
        linear = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
        for layer, expected in zip(linear, case["layers"], strict=True):
            assert layer.weight.shape == (expected["fan_out"], expected["fan_in"])
            few = 4 / np.sqrt(layer.weight.numel())
            assert layer.weight.std().item() == pytest.approx(
                expected["weight_std"], rel=few
            )
            largest = layer.weight.abs().max().item()
            if expected["weight_bound"] is None:
                assert largest > 2 * expected["weight_std"]
            else:
                bound = expected["weight_bound"]
                assert 0.97 * bound < largest <= bound * (1 + 1e-6)
            bound = expected["bias_bound"]
            assert 0.5 * bound < layer.bias.abs().max() <= bound * (1 + 1e-6)

    @pytest.mark.parametrize("name", STEP_CASES)
    def test_adam_steps_equal_the_reference(self, name, monkeypatch):
        case = STEP_CASES[name]
        with np.load(HEAR / "probe_steps.npz") as arrays:
            golden = {
                key.removeprefix(f"{name}/"): value
                for key, value in arrays.items()
                if key.startswith(f"{name}/")
            }

        class Started(ProbeNetwork):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.load_state_dict(state(golden, "initial"))

        network = Started(12, 4, case["hidden_layers"], 16).eval()
        before = network(torch.from_numpy(golden["x_valid"])).detach().numpy()
        np.testing.assert_allclose(before, golden["valid_logits_before"], atol=1e-5)

        monkeypatch.setattr(mlp, "ProbeNetwork", Started)
        y = golden["y"]
        probe = MLPProbe(
            case["hidden_layers"],
            case["hidden_dim"],
            dropout=0.0,
            lr=case["lr"],
            batch_size=case["batch_size"],
            max_epochs=case["epochs"],
            validation=None,
            shuffle=False,
        ).fit(golden["x"], y if "multilabel" in name else y.argmax(axis=1))

        sizes = np.full(case["batches_per_epoch"], case["batch_size"])
        sizes[-1] = case["rows"] - sizes[:-1].sum()
        losses = golden["train_losses"].reshape(case["epochs"], -1)
        np.testing.assert_allclose(
            [epoch["train_loss"] for epoch in probe.history_],
            np.average(losses, axis=1, weights=sizes),
            atol=1e-5,
        )
        np.testing.assert_allclose(
            probe.predict_proba(golden["x_valid"]),
            golden["valid_probabilities_after"],
            atol=0.05 if case["hidden_layers"] else 1e-5,
        )
        final = state(golden, "final")
        free = [k for k in final if k.startswith("hidden") and k.endswith("bias")]
        # A bias before a batch normalisation has a gradient of rounding noise only.
        free = [k for k in free if f"{k[:-4]}running_mean" not in final]
        found = probe.net_.module_.state_dict()
        assert found.keys() == final.keys()
        for key in final.keys() - {*free}:
            if not key.endswith("running_mean"):
                torch.testing.assert_close(found[key], final[key], atol=1e-5, rtol=0)


def state(golden, stage):
    return {
        key.removeprefix(f"{stage}/"): torch.from_numpy(np.array(value))
        for key, value in golden.items()
        if key.startswith(f"{stage}/")
    }


class TestStopping:
    @pytest.mark.parametrize("case", STOP_CASES, ids=lambda case: case["name"])
    @pytest.mark.parametrize("nonfinite", ["stop", "continue"])
    def test_stops_and_keeps_as_the_reference(self, case, nonfinite, blobs):
        sign = 1 if case["mode"] == "max" else -1
        values = [sign * float(value) for value in case["values"]]
        script = chain(values, repeat(nan))
        probe = small(
            hidden_layers=0,
            patience=case["patience"],
            check_every=case["check_val_every_n_epoch"],
            max_epochs=case["max_epochs"],
            scoring=lambda *_: next(script),
            ties="first",
            nonfinite=nonfinite,
        ).fit(*blobs)
        assert probe.best_epoch_ == case["best_epoch"] + 1
        assert probe.best_score_ == sign * float(case["validation_score"])
        checked = [epoch["epoch"] - 1 for epoch in probe.history_ if "score" in epoch]
        assert checked[: case["checks_done"]] == case["validated_at_epochs"]
        if nonfinite == "stop" or np.isfinite(values).all():
            assert len(checked) == case["checks_done"]
            assert probe.n_epochs_ == case["epochs_trained"]
        else:
            # The reference ends at once where the probe goes on for its patience.
            assert probe.n_epochs_ >= case["epochs_trained"]

    def test_lowest_loss_of_equal_scores_is_kept(self, blobs):
        fits = {
            ties: small(scoring=lambda *_: 0.5, ties=ties, patience=9).fit(*blobs)
            for ties in ("first", "loss")
        }
        assert {probe.n_epochs_ for probe in fits.values()} == {30}
        assert fits["first"].best_epoch_ == 3
        losses = [e.get("valid_loss", inf) for e in fits["loss"].history_]
        assert fits["loss"].best_epoch_ == 1 + np.argmin(losses) > 3

    def test_nan_does_not_end_the_training(self, blobs):
        script = chain([nan, 0.2, nan, 0.5], repeat(0.1))
        probe = small(patience=3, check_every=2, scoring=lambda *_: next(script)).fit(
            *blobs
        )
        assert (probe.best_score_, probe.best_epoch_, probe.n_epochs_) == (0.5, 8, 14)

    def test_weights_of_the_best_check_are_kept(self, blobs):
        seen = []

        def falling(estimator, X, y):
            seen.append(estimator.predict_proba(X))
            return -len(seen)

        given = (blobs[0][:30], blobs[1][:30])
        probe = small(validation=given, scoring=falling, patience=4).fit(*blobs)
        assert probe.best_epoch_ == 3
        assert probe.n_epochs_ == 15
        np.testing.assert_array_equal(probe.predict_proba(given[0]), seen[0])
        assert not np.array_equal(seen[0], seen[-1])

    def test_too_few_epochs_for_a_check_keep_the_last_weights(self, blobs):
        probe = small(max_epochs=2).fit(*blobs)
        last = small(max_epochs=2, validation=blobs).fit(*blobs)
        assert probe.best_score_ is None
        assert probe.best_epoch_ == probe.n_epochs_ == 2
        assert last.history_[-1]["train_loss"] < last.history_[0]["train_loss"]

    def test_without_validation_every_epoch_runs(self, blobs):
        probe = small(validation=None, max_epochs=17).fit(*blobs)
        assert probe.n_epochs_ == probe.best_epoch_ == 17
        assert all("valid_loss" not in epoch for epoch in probe.history_)

    def test_diverged_training_warns(self, blobs):
        X, y = blobs
        probe = small(lr=1e30, validation=None, hidden_layers=0, max_epochs=9)
        with pytest.warns(ConvergenceWarning, match=r"Lower lr \(now 1e\+30\)") as seen:
            probe.fit(1e8 * X, y)
        assert seen[0].filename == __file__

    def test_an_interrupt_is_not_swallowed(self, blobs):
        def interrupt(*_):
            raise KeyboardInterrupt

        probe = small(scoring=interrupt)
        with pytest.raises(KeyboardInterrupt):
            probe.fit(*blobs)
        with pytest.raises(NotFittedError):
            probe.predict(blobs[0])


def recall_of(y_true, y_predicted, label):
    return np.mean(y_predicted[y_true == label] == label)


class TestScore:
    def test_default_is_accuracy(self, blobs):
        X, y = blobs
        probe = small(validation=(X[:40], y[:40])).fit(X[40:], y[40:])
        assert probe.best_score_ == probe.score(X[:40], y[:40])
        best = max(epoch.get("score", -1) for epoch in probe.history_)
        assert probe.best_score_ == best

    def test_default_for_indicators_is_macro_average_precision(self, indicators):
        X, y = indicators
        probe = small(validation=(X[:40], y[:40])).fit(X[40:], y[40:])
        expected = average_precision_score(y[:40], probe.predict_proba(X[:40]))
        assert probe.best_score_ == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("columns", [[0, 1, 2, 3], [0, 2], [2], []])
    def test_mean_average_precision_counts_absent_labels_as_zero(self, columns):
        rng = np.random.default_rng(0)
        y = np.zeros((30, 4), dtype=np.float32)
        y[:, columns] = rng.random((30, len(columns))) < 0.4
        scores = rng.random((30, 4)).round(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = average_precision_score(y, scores)
        assert mAP(y, scores) == pytest.approx(expected)

    def test_loss_is_the_lowest_of_the_checks(self, blobs):
        probe = small(scoring="loss").fit(*blobs)
        losses = [e["valid_loss"] for e in probe.history_ if "valid_loss" in e]
        assert probe.best_score_ == -min(losses)
        assert "score" not in probe.history_[2]

    @pytest.mark.parametrize(
        "scoring",
        [
            "neg_log_loss",
            "balanced_accuracy",
            "roc_auc_ovr",
            make_scorer(recall_of, label="c1"),
        ],
    )
    def test_scorers_see_the_labels_that_were_given(self, blobs, scoring):
        X, y = blobs[0], np.array(["c0", "c1", "c2"])[blobs[1]]
        probe = small(validation=(X[:40], y[:40]), scoring=scoring)
        probe.fit(X[40:], y[40:])
        expected = get_scorer(scoring)(probe, X[:40], y[:40])
        assert probe.best_score_ == pytest.approx(expected, abs=1e-6)

    def test_validation_rows_pass_the_network_once(self, blobs, monkeypatch):
        rows = []

        class Counted(ProbeNetwork):
            def forward(self, X):
                rows.append((self.training, len(X)))
                return super().forward(X)

        monkeypatch.setattr(mlp, "ProbeNetwork", Counted)
        X, y = blobs
        small(max_epochs=10, validation=(X[:20], y[:20]), scoring="neg_log_loss").fit(
            X[20:], y[20:]
        )
        assert rows.count((True, 100)) == 10
        assert rows.count((False, 20)) == 3
        assert len(rows) == 13

    def test_unknown_scorer_is_refused(self, blobs):
        with pytest.raises(ValueError, match=r"scoring='loudness' is not known"):
            small(scoring="loudness", validation=None).fit(*blobs)

    def test_scorer_may_ask_for_the_validation_rows_only(self, blobs):
        probe = small(scoring=lambda estimator, X, y: estimator.predict(X[:2]).sum())
        with pytest.raises(ValueError, match=r"2 rows, .* the 12 valid"):
            probe.fit(*blobs)


class TestValidation:
    @pytest.mark.parametrize(
        ("counts", "fraction", "expected"),
        [
            ([50, 30, 20], 0.1, [5, 3, 2]),
            ([60, 30, 1], 0.1, [6, 3, 0]),
            ([2, 2, 2], 0.9, [1, 1, 1]),
            ([1, 1, 1, 1], 0.5, [0, 0, 0, 0]),
            ([5], 0.01, [1]),
            ([1, 1], 0.5, [0, 0]),
        ],
    )
    def test_classes_are_held_out_in_proportion(self, counts, fraction, expected):
        codes = np.random.default_rng(0).permutation(
            np.repeat(np.arange(len(counts)), counts)
        )
        held_out = hold_out(codes, fraction, np.random.RandomState(0))
        found = np.bincount(codes[held_out], minlength=len(counts))
        np.testing.assert_array_equal(found, expected)

    def test_fewer_rows_than_classes_are_spread_at_random(self):
        codes = np.repeat(np.arange(100), 5)
        chosen = [hold_out(codes, 0.1, np.random.RandomState(i)) for i in range(2)]
        assert [mask.sum() for mask in chosen] == [50, 50]
        assert np.bincount(codes[chosen[0]]).max() == 1
        assert set(codes[chosen[0]]) != set(codes[chosen[1]])

    def test_every_label_keeps_a_positive_training_row(self):
        codes = (np.random.default_rng(0).random((60, 30)) < 0.05).astype(np.float32)
        held_out = hold_out(codes, 0.5, np.random.RandomState(0))
        assert held_out.sum() == pytest.approx(30, abs=6)
        np.testing.assert_array_equal(codes[~held_out].any(axis=0), codes.any(axis=0))

    def test_held_out_rows_are_not_trained_on(self, blobs):
        X, y = blobs
        rng = np.random.RandomState(0)
        rng.randint(np.iinfo(np.int32).max, size=2)
        held_out = hold_out(y.astype(np.int64), 0.25, rng)
        assert held_out.sum() == 30
        given = small(validation=(X[held_out], y[held_out]))
        given.fit(X[~held_out], y[~held_out])
        assert small(validation=0.25).fit(X, y).history_ == given.history_

    @pytest.mark.parametrize("n_rows", [2, 3, 4])
    def test_a_handful_of_rows(self, n_rows):
        X = np.eye(n_rows, 5)
        probe = small(max_epochs=200, validation=0.5).fit(X, list("abca")[:n_rows])
        assert probe.predict(X).shape == (n_rows,)

    @pytest.mark.parametrize("hidden_layers", [0, 1])
    def test_one_row_is_refused(self, hidden_layers):
        with pytest.raises(ValueError, match=r"1 sample.*minimum of 2"):
            small(hidden_layers=hidden_layers).fit([[1.0, 2.0]], ["a"])

    def test_a_label_of_the_validation_rows_only(self, blobs):
        X, y = blobs
        probe = small(validation=(X, y))
        with pytest.warns(UserWarning, match=r"no training row has \(2\)") as seen:
            probe.fit(X[y < 2], y[y < 2])
        assert seen[0].filename == __file__
        assert probe.best_score_ == probe.score(X, y) < 0.7
        assert np.isfinite(probe.history_[2]["valid_loss"])

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda X, y: (X[:, :5], y), "validation rows do not fit: X has 5 feat"),
            (lambda X, y: (X, y[:-1]), "validation rows do not fit: .*inconsistent"),
            (lambda X, y: (X * np.nan, y), "validation rows do not fit: .*NaN"),
            (lambda X, y: (X, y.astype(str)), "found '0', '1', '2', known are"),
            (lambda X, y: (X, np.eye(3)[y]), r"shape \(120, 3\), the labels of"),
            (lambda X, y: (X, y, y), "sequence of 3 items"),
        ],
    )
    def test_validation_rows_that_do_not_fit(self, blobs, spoil, message):
        with pytest.raises(ValueError, match=message):
            small(validation=spoil(*blobs)).fit(*blobs)


class Stored:
    def __init__(self, X, y=None):
        self.X, self.y = X, y


class TestBatches:
    @pytest.mark.parametrize(
        ("n_rows", "sizes"), [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (1, [1])]
    )
    def test_a_single_last_row_joins_the_batch_before(self, n_rows, sizes):
        rows = Stored(torch.arange(n_rows))
        batches = TensorBatches(rows, 4, seed=3, merge_single=True)
        assert [len(X) for X, _ in batches] == sizes
        assert len(batches) == len(sizes)
        assert sorted(torch.cat([X for X, _ in batches]).tolist()) == [*range(n_rows)]

    def test_order_changes_with_the_epoch_and_only_if_asked(self):
        rows = Stored(torch.arange(100))
        shuffled, fixed = TensorBatches(rows, 10, seed=3), TensorBatches(rows, 10)
        epochs = [torch.cat([X for X, _ in shuffled]).tolist() for _ in range(2)]
        assert epochs[0] != epochs[1]
        assert torch.cat([X for X, _ in fixed]).tolist() == [*range(100)]
