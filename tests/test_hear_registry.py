"""What is known of HEAR's tasks without their data."""

import csv
from importlib.resources import files

import pytest

from skaudioemb.hear.registry import get_task_info, list_tasks
from skaudioemb.hear.scores import SCORES


@pytest.fixture(params=list_tasks())
def info(request):
    return get_task_info(request.param)


def test_names_are_made_of_their_parts(info):
    assert info.folder == f"{info.name}-{info.version}-{info.mode}"
    assert info.archive == f"hear2021-{info.folder}-48000.tar.gz"


def test_values_are_what_the_format_allows(info):
    assert set(info.evaluation) <= set(SCORES)
    assert info.primary == info.evaluation[0]
    assert (info.embedding_type, info.prediction_type) in {
        ("scene", "multiclass"),
        ("scene", "multilabel"),
        ("event", "multilabel"),
    }
    assert info.n_folds is None or info.n_folds >= 3
    assert (info.folds is None) == (info.n_folds is None)
    assert len(info.splits) == (info.n_folds or 3)
    assert info.n_clips > 0
    assert info.duration is None or info.duration > 0
    assert info.source.startswith("http")


def test_every_column_of_the_leaderboard_has_a_task():
    path = files("skaudioemb.hear").joinpath("leaderboard.csv")
    head = next(
        row
        for row in csv.reader(path.read_text(encoding="utf-8").splitlines())
        if row and row[0] == "Model"
    )
    titles = {get_task_info(name).title for name in list_tasks()}
    assert set(head[3:]) == titles
    assert len(titles) == 19


def test_scores_are_of_the_kind_that_the_task_predicts(info):
    events = any(name.startswith(("event_", "segment_")) for name in info.evaluation)
    assert events == (info.embedding_type == "event")


def test_all_names_of_a_task_lead_to_it(info):
    assert get_task_info(info.folder) is info
    assert get_task_info(info.archive) is info
    twins = [name for name in list_tasks() if get_task_info(name).name == info.name]
    if len(twins) == 1:
        assert get_task_info(info.name) is info


def test_patterns():
    assert list_tasks("mridangam*") == [
        "mridangam_stroke-v1.5-full",
        "mridangam_tonic-v1.5-full",
    ]
    assert list_tasks("nothing") == []


def test_a_name_of_several_folders_is_refused():
    with pytest.raises(ValueError, match=r"several folders: speech.*5h, speech.*full"):
        get_task_info("speech_commands")
    with pytest.raises(ValueError, match=r"several folders: beehive"):
        get_task_info("Beehive")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"no task called 'esc-51'.*esc50-v2"):
        get_task_info("esc-51")
