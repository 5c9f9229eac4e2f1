"""Stacked networks: their arithmetic, their members' independence, and who shares one.

Golden files: tests/golden/hear, made by heareval 2021.1.3 itself.
"""

import json
import threading
from itertools import chain, repeat
from math import inf, nan

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.model_selection import ParameterGrid

from skaudioemb.probes import products, stack_training
from skaudioemb.probes.network import ProbeNetwork
from skaudioemb.probes.products import product
from skaudioemb.probes.stack_plan import Planner
from skaudioemb.probes.stack_training import Progress, Stack, train_together
from skaudioemb.probes.stacked import Shape, StackedNetwork
from tests.models import GOLDEN, small_probe

HEAR = GOLDEN / "hear"
STEP_CASES = json.loads((HEAR / "probe_steps.json").read_text())
STOP_CASES = json.loads((HEAR / "early_stopping.json").read_text())
CPU = torch.device("cpu")
GRID = {"hidden_layers": [1], "lr": [1e-2, 3e-3], "dropout": [0.0, 0.3]}


def make_stack(networks, shape, lrs, dropout=0.0, device=CPU):
    return StackedNetwork(
        [network.state_dict() for network in networks],
        shape,
        lrs,
        [dropout] * len(networks),
        list(range(len(networks))),
        device,
    )


def make_networks(shape, n_members):
    torch.manual_seed(0)
    return [
        ProbeNetwork(
            shape.n_features,
            shape.n_outputs,
            shape.hidden_layers,
            shape.hidden_units,
            0,
        )
        for _ in range(n_members)
    ]


def trained(X, y, candidates, **params):
    """Return fitted probes, one a candidate, and the trainings they came from."""
    rows = np.arange(len(X))
    probe = small_probe(**{"max_epochs": 24, **params})
    tasks = Planner(probe, X, y, [(rows, rows)], [None]).plan(candidates)
    train_together([task.training for task in tasks], Progress([], 0))
    return [task.fitted() for task in tasks], [task.training for task in tasks]


def weights_of(probe):
    return probe.net_.module_.state_dict()


class TestArithmetic:
    @pytest.mark.parametrize("hidden_layers", [0, 1, 2])
    @pytest.mark.parametrize("multilabel", [False, True])
    def test_steps_are_those_of_autograd_and_adam(self, hidden_layers, multilabel):
        shape = Shape(12, 5, hidden_layers, 16, multilabel)
        networks, lrs = make_networks(shape, 3), [1e-2, 1e-3, 3e-3]
        stack = make_stack(networks, shape, lrs)
        X = torch.randn(40, 12)
        y = torch.randint(5, (40,))
        if multilabel:
            y = (torch.rand(40, 5) < 0.4).float()
        optimizers = [
            torch.optim.Adam(network.parameters(), lr=lr)
            for network, lr in zip(networks, lrs, strict=True)
        ]
        criterion = torch.nn.BCEWithLogitsLoss() if multilabel else None
        criterion = criterion or torch.nn.CrossEntropyLoss()
        for _ in range(10):
            losses = []
            for network, optimizer in zip(networks, optimizers, strict=True):
                optimizer.zero_grad()
                loss = criterion(network(X), y)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            found = stack.step(X, y.T if multilabel else y)
            torch.testing.assert_close(found, torch.tensor(losses), atol=1e-5, rtol=0)
        for i, network in enumerate(networks):
            self.assert_same(stack.state_of(i), network.state_dict())
            network.load_state_dict(stack.state_of(i))
            torch.testing.assert_close(
                stack.logits(X)[i].T, network.eval()(X).detach(), atol=1e-5, rtol=1e-5
            )

    @staticmethod
    def assert_same(found, expected):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            # Biases before a batch normalisation have a gradient of rounding noise,
            # of which Adam makes steps; the running mean follows them.
            noise = name.startswith("hidden") and name.split(".")[1] in "048"
            noise = (noise and name.endswith("bias")) or name.endswith("running_mean")
            atol = 0.2 if noise else 1e-5
            torch.testing.assert_close(found[name], value, atol=atol, rtol=1e-5)

    @pytest.mark.parametrize("name", STEP_CASES)
    def test_steps_equal_the_reference(self, name):
        case = STEP_CASES[name]
        with np.load(HEAR / "probe_steps.npz") as arrays:
            golden = {
                key.removeprefix(f"{name}/"): torch.from_numpy(np.array(value))
                for key, value in arrays.items()
                if key.startswith(f"{name}/")
            }
        multilabel = "multilabel" in name
        shape = Shape(12, 4, case["hidden_layers"], 16, multilabel)
        state = {
            key.removeprefix("initial/"): value
            for key, value in golden.items()
            if key.startswith("initial/")
        }
        stack = StackedNetwork(
            [state] * 2, shape, [case["lr"]] * 2, [0.0] * 2, [0, 1], CPU
        )
        losses = []
        for _ in range(case["epochs"]):
            for X, y in zip(
                golden["x"].split(case["batch_size"]),
                golden["y"].split(case["batch_size"]),
                strict=True,
            ):
                y = y.float().T if multilabel else y.argmax(dim=1)
                losses.append(stack.step(X, y).tolist())
        expected = golden["train_losses"].reshape(-1, 1).expand(-1, 2)
        np.testing.assert_allclose(losses, expected, atol=1e-5)

    def test_dropout_is_drawn_at_its_rate_and_scaled(self):
        shape = Shape(4, 2, 1, 400, False)
        stack = make_stack(make_networks(shape, 2), shape, [1e-3] * 2, dropout=0.3)
        values = torch.ones(2, 400, 300)
        kept = stack.dropout.apply_(values.clone())
        assert kept.mean(dim=(1, 2)).tolist() == pytest.approx([0.7] * 2, abs=0.01)
        assert not torch.equal(kept[0], kept[1])
        assert not torch.equal(kept, stack.dropout.apply_(values.clone()))
        torch.testing.assert_close(stack.dropout.scale.flatten(), torch.ones(2) / 0.7)

    @pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 128, 128, 128)])
    @pytest.mark.parametrize("shared", [False, True])
    def test_products_of_a_stack(self, shape, shared):
        n_members, m, r, n = shape
        left = torch.randn(n_members, r, m).mT
        right = torch.randn(n, r).T if shared else torch.randn(n_members, n, r).mT
        expected = left.double() @ right.double()
        torch.testing.assert_close(
            product(left, right).double(), expected, atol=1e-4, rtol=1e-4
        )

    def test_products_without_onednn(self, monkeypatch):
        def missing(left, right):
            raise AttributeError("no such operator")

        monkeypatch.setattr(products, "_onednn", missing)
        products.onednn_pays.cache_clear()
        assert not products.onednn_pays()
        assert product(torch.ones(1, 128, 128), torch.ones(128, 128)).max() == 128
        products.onednn_pays.cache_clear()

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_cuda_equals_cpu(self):
        shape = Shape(12, 5, 2, 16, False)
        networks = make_networks(shape, 3)
        X, y = torch.randn(40, 12), torch.randint(5, (40,))
        losses = []
        for device in (CPU, torch.device("cuda")):
            stack = make_stack(networks, shape, [1e-2] * 3, device=device)
            steps = [stack.step(X.to(device), y.to(device)) for _ in range(5)]
            losses.append(torch.stack(steps).cpu())
        torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)


class TestMembers:
    @pytest.mark.parametrize("batch_size", [32, 1024])
    def test_do_not_depend_on_each_other(self, blobs, batch_size, monkeypatch):
        # One stack of all eight, whatever the number of cores.
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        candidates = list(ParameterGrid({**GRID, "random_state": [0, 1]}))
        params = {"batch_size": batch_size, "patience": 3}
        together, trainings = trained(*blobs, candidates, **params)
        assert len({training.stack_key for training in trainings}) == 1
        assert len({probe.n_epochs_ for probe in together}) > 1
        backwards, _ = trained(*blobs, candidates[::-1], **params)
        for i, candidate in enumerate(candidates):
            (alone,), _ = trained(*blobs, [candidate], **params)
            for other in (alone, backwards[-1 - i]):
                assert other.n_epochs_ == together[i].n_epochs_
                assert other.best_epoch_ == together[i].best_epoch_
                assert other.best_score_ == together[i].best_score_
                found, expected = weights_of(other), weights_of(together[i])
                for name in expected:
                    torch.testing.assert_close(found[name], expected[name])

    @pytest.mark.parametrize("multilabel", [False, True])
    @pytest.mark.parametrize("hidden_layers", [0, 2])
    def test_train_as_the_probe_alone(
        self, blobs, indicators, multilabel, hidden_layers
    ):
        X, y = indicators if multilabel else blobs
        params = {
            "dropout": 0.0,
            "hidden_layers": hidden_layers,
            "batch_size": 53,
            "max_epochs": 6,
            "validation": 0.2,
            "scoring": "loss",
        }
        (found,), _ = trained(X, y, [{}], **params)
        expected = small_probe(**params).fit(X, y)
        assert len(found.history_) == len(expected.history_) == 6
        for one, other in zip(found.history_, expected.history_, strict=True):
            assert one == pytest.approx(other, abs=1e-2)
        np.testing.assert_allclose(
            found.predict_proba(X), expected.predict_proba(X), atol=0.05
        )

    def test_own_number_of_epochs_and_checks(self, blobs):
        candidates = [
            {"max_epochs": 7, "check_every": 2},
            {"max_epochs": 10, "check_every": 5},
            {"max_epochs": 2},
            {"validation": None, "max_epochs": 5},
        ]
        probes, _ = trained(*blobs, candidates)
        assert [probe.n_epochs_ for probe in probes] == [7, 10, 2, 5]
        checks = [
            [e["epoch"] for e in probe.history_ if "score" in e] for probe in probes
        ]
        assert checks == [[2, 4, 6], [5, 10], [], []]
        assert probes[2].best_score_ is None

    @pytest.mark.parametrize("case", STOP_CASES, ids=lambda case: case["name"])
    def test_stop_and_keep_as_the_reference(self, case, blobs):
        sign = 1 if case["mode"] == "max" else -1
        values = [sign * float(value) for value in case["values"]]
        script = chain(values, repeat(nan))
        (probe,), _ = trained(
            *blobs,
            [{}],
            hidden_layers=0,
            patience=case["patience"],
            check_every=case["check_val_every_n_epoch"],
            max_epochs=case["max_epochs"],
            scoring=lambda *_: next(script),
            ties="first",
        )
        assert probe.best_epoch_ == case["best_epoch"] + 1
        assert probe.best_score_ == sign * float(case["validation_score"])
        if np.isfinite(values).all():
            assert probe.n_epochs_ == case["epochs_trained"]

    def test_nan_is_the_worst_score(self, blobs):
        (probe,), _ = trained(*blobs, [{"scoring": lambda *_: nan, "patience": 2}])
        assert (probe.best_score_, probe.n_epochs_) == (-inf, 9)

    def test_lowest_loss_of_equal_scores_is_kept(self, blobs):
        candidates = [{"ties": "first"}, {"ties": "loss"}]
        first, loss = trained(*blobs, candidates, scoring=lambda *_: 0.5)[0]
        losses = [e.get("valid_loss", inf) for e in loss.history_]
        assert first.best_epoch_ == 3
        assert loss.best_epoch_ == 1 + np.argmin(losses) > 3

    def test_scores_are_those_of_the_best_weights(self, blobs, indicators):
        for X, y in (blobs, indicators):
            given = X[:40], y[:40]
            (probe,), _ = trained(
                X[40:], y[40:], [{}], validation=given, batch_size=16, patience=2
            )
            expected = probe.score(*given)
            if y.ndim == 2:
                expected = average_precision_score(
                    given[1], probe.predict_proba(given[0])
                )
            assert probe.best_score_ == pytest.approx(expected, abs=1e-6)

    @pytest.mark.filterwarnings("ignore:2 of 120 validation rows:UserWarning")
    def test_labels_of_the_validation_rows_only(self, blobs):
        X, y = blobs[0], blobs[1].copy()
        y[[3, 5]] = 7
        seen = y < 7
        params = {"validation": (X, y), "dropout": 0.0, "max_epochs": 6}
        (found,), _ = trained(X[seen], y[seen], [{}], **params)
        expected = small_probe(**params).fit(X[seen], y[seen])
        assert found.history_[2] == pytest.approx(expected.history_[2], abs=0.02)

    def test_random_state_of_numpy(self, blobs):
        candidate = {"random_state": np.random.RandomState(3)}
        fits = [trained(*blobs, [candidate])[0][0].history_ for _ in range(2)]
        assert fits[0] == fits[1] != trained(*blobs, [{}])[0][0].history_

    def test_global_generators_are_left_alone(self, blobs):
        before = torch.get_rng_state()
        trained(*blobs, list(ParameterGrid(GRID)))
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_on_cuda(self, blobs):
        probes, _ = trained(*blobs, list(ParameterGrid(GRID)), device="cuda")
        assert all(probe.score(*blobs) > 0.8 for probe in probes)


class TestStacks:
    def test_share_rows_and_batches(self, blobs):
        X, y = blobs
        cv = [(np.arange(80), np.arange(80, 120)), (np.arange(40, 120), np.arange(40))]
        candidates = list(ParameterGrid({"lr": [1e-2, 1e-3], "random_state": [0, 1]}))
        tasks = Planner(small_probe(), X, y, cv, [None, None]).plan(candidates)
        trainings = [task.training for task in tasks]
        assert len({id(t.rows.X) for t in trainings}) == 1
        assert len({t.feed_key for t in trainings}) == 4
        assert len({id(t.valid) for t in trainings}) == 4
        stack = Stack(trainings, Progress([], 0), threading.Event())
        assert len(stack.network) == 8
        assert len(stack.feeds) == 4

    def test_shrink_as_members_finish(self, blobs):
        sizes = []

        class Watched(StackedNetwork):
            def step(self, *batch):
                sizes.append(len(self))
                return super().step(*batch)

        candidates = [{"max_epochs": n} for n in (2, 5, 3)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stack_training, "StackedNetwork", Watched)
            patch.setattr(torch, "get_num_threads", lambda: 1)
            trained(*blobs, candidates, validation=None)
        assert sizes == [3, 3, 2, 1, 1]

    def test_are_halved_when_memory_runs_out(self, blobs):
        class Small(StackedNetwork):
            def step(self, *batch):
                if len(self) > 2:
                    raise torch.OutOfMemoryError("out of memory")
                return super().step(*batch)

        candidates = list(ParameterGrid(GRID))
        expected, _ = trained(*blobs, candidates)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stack_training, "StackedNetwork", Small)
            patch.setattr(torch, "get_num_threads", lambda: 1)
            found, _ = trained(*blobs, candidates)
        assert [p.history_ for p in found] == [p.history_ for p in expected]

    @pytest.mark.parametrize("n_threads", [1, 2])
    def test_cores_do_not_matter(self, blobs, n_threads):
        candidates = list(ParameterGrid({**GRID, "hidden_layers": [0, 1, 2]}))
        before = torch.get_num_threads()
        torch.set_num_threads(n_threads)
        try:
            probes, _ = trained(*blobs, candidates)
            assert torch.get_num_threads() == n_threads
        finally:
            torch.set_num_threads(before)
        expected, _ = trained(*blobs, candidates)
        assert [p.history_ for p in probes] == [p.history_ for p in expected]

    def test_an_interrupt_ends_them_all(self, blobs):
        def interrupt(*_):
            raise KeyboardInterrupt

        candidates = [{"scoring": None, "max_epochs": 10**6, "patience": 10**6}] * 2
        with pytest.raises(KeyboardInterrupt):
            trained(*blobs, [*candidates, {"scoring": interrupt}], check_every=1)
