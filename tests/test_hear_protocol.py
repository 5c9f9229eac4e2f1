"""The protocol: grid points, post-processing and settings as heareval has them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from skaudioemb import MLPProbe
from skaudioemb.hear.protocol import Protocol, as_protocol
from skaudioemb.hear.scores import chroma_acc
from tests.models import GOLDEN

GRIDS = json.loads((GOLDEN / "hear" / "grid.json").read_text())
NAMES = {"hidden_layers": "hidden_layers", "initialization": "init", "lr": "lr"}
OTHERS = {
    "batch_size": "batch_size",
    "check_val_every_n_epoch": "check_every",
    "dropout": "dropout",
    "hidden_dim": "hidden_units",
    "max_epochs": "max_epochs",
    "patience": "patience",
}


def task(evaluation=("top1_acc",), labels=("a", "b"), name="some", **metadata):
    metadata = {"task_name": name, "evaluation": list(evaluation), **metadata}
    return SimpleNamespace(
        name=f"{name}-1.0-full",
        metadata=metadata,
        evaluation=metadata["evaluation"],
        labels=list(labels),
    )


def params_of(point, fixed):
    point = {**fixed, **point}
    names = {**NAMES, **OTHERS}
    found = {names[key]: value for key, value in point.items() if key in names}
    return {**found, "init": found["init"].rstrip("_")}


class TestPoints:
    @pytest.mark.parametrize(
        ("case", "grid", "name", "own"),
        [
            ("default", "default", "some", {}),
            ("fast", "fast", "some", {}),
            ("faster", "faster", "some", {}),
            ("default_dcase2016_task2", "default", "dcase2016_task2", {}),
            (
                "default_maestro",
                "default",
                "maestro",
                {"max_epochs": [50], "check_val_every_n_epoch": [1]},
            ),
        ],
    )
    def test_are_those_of_heareval(self, case, grid, name, own):
        params = {"task_specific_param_grid": own}
        points = Protocol(grid=grid).points(task(name=name, evaluation_params=params))
        golden = GRIDS[case]
        expected = [params_of(point, golden["fixed"]) for point in golden["first_8"]]
        assert points == expected
        assert len(points) == 8
        known = MLPProbe().get_params()
        assert all(point.keys() <= known.keys() for point in points)

    def test_number_of_points(self):
        assert len(Protocol(n_points=3).points(task())) == 3
        assert len(Protocol(n_points=99).points(task())) == 16
        assert (
            Protocol(n_points=3, seed=0).points(task()) == Protocol().points(task())[:3]
        )


class TestPostprocessing:
    def test_default(self):
        golden = GRIDS["event_postprocessing_default"]["grid"]
        settings = Protocol().postprocessing(task())
        found = {(s.median_filter, s.min_duration, s.threshold) for s in settings}
        assert found == {
            (width / 1000, shortest / 1000, 0.5)
            for width in golden["median_filter_ms"]
            for shortest in golden["min_duration"]
        }
        assert settings == sorted(settings, reverse=True)

    def test_of_the_task(self):
        grid = {"median_filter_ms": [150], "min_duration": [50]}
        own = {"event_postprocessing_grid": grid}
        [setting] = Protocol().postprocessing(task(evaluation_params=own))
        assert setting == (0.15, 0.05, 0.5)

    def test_the_loss_cannot_choose(self):
        with pytest.raises(
            ValueError, match="stopped by the loss, which cannot choose"
        ):
            Protocol().postprocessing(task(use_scoring_for_early_stopping=False))


class TestSettings:
    def test_defects_are_corrected_and_reproducible(self):
        corrected, faithful = Protocol(), Protocol.heareval()
        differing = {
            name
            for name, value in vars(corrected).items()
            if value != getattr(faithful, name)
        }
        assert differing == {
            *("shuffle", "order", "nonfinite", "ties", "chroma", "keep_probes")
        }
        assert Protocol.heareval(shuffle=True).shuffle

    def test_parameters_of_the_probe(self):
        params = Protocol(shuffle=False, seed=3).probe_params(task())
        assert MLPProbe(**params).get_params()["shuffle"] is False
        assert params["random_state"] == 3
        assert "scoring" not in params
        by_loss = task(use_scoring_for_early_stopping=False)
        assert Protocol().probe_params(by_loss)["scoring"] == "loss"

    def test_chroma_of_notes_or_columns(self):
        pitched = task(["pitch_acc", "chroma_acc"], labels=["60", "62", "72"])
        truth, scores = [0], np.array([[0.1, 0.2, 0.7]])
        notes = Protocol().score_functions(pitched)["chroma_acc"]
        columns = Protocol(chroma="columns").score_functions(pitched)["chroma_acc"]
        assert notes(truth, scores) == 1
        assert columns(truth, scores) == chroma_acc(truth, scores) == 0
        named = task(["chroma_acc"], labels=["C4", "D4", "C5"])
        assert Protocol().score_functions(named)["chroma_acc"](truth, scores) == 0

    def test_unknown_score(self):
        with pytest.raises(ValueError, match=r"evaluation names \['loudness'\]; known"):
            Protocol().score_functions(task(["top1_acc", "loudness"]))

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"grid": "huge"}, "grid='huge': choose from 'default', 'fast', 'faster'"),
            ({"nonfinite": "ignore"}, "nonfinite='ignore'"),
            ({"n_points": 0}, "n_points=0 must be a whole number of at least 1"),
            ({"n_points": 2.0}, "n_points=2.0"),
            ({"seed": "abc"}, "seed='abc' must be a whole number of at least 0"),
            ({"shuffle": "false"}, "shuffle='false' must be True or False"),
            ({"keep_probes": 7}, "keep_probes=7"),
        ],
    )
    def test_refuses(self, params, message):
        with pytest.raises(ValueError, match=message):
            Protocol(**params)

    def test_by_name(self):
        assert as_protocol("hear2021") == Protocol()
        assert as_protocol("heareval") == Protocol.heareval()
        assert as_protocol(Protocol(n_points=1)).n_points == 1
        with pytest.raises(ValueError, match="protocol='hear': choose from 'hear2021'"):
            as_protocol("hear")
