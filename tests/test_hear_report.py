"""Reports: what they say of results, against whom, and the page that holds it all."""

import re
from base64 import b64decode
from dataclasses import asdict
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from skaudioemb.hear.leaderboard import load_leaderboard
from skaudioemb.hear.protocol import Protocol
from skaudioemb.hear.report import (
    Report,
    load_failures,
    load_results,
    make_report,
    write_report,
)
from skaudioemb.hear.results import write_json
from skaudioemb.hear.standings import map_scores
from tests.hear_results import (
    DCASE,
    ESC,
    events,
    multiclass,
    multilabel,
    published,
    result,
    save,
    two_embedders,
)

FAST = {"n_resamples": 50}
BEEHIVE = "beehive_states_fold{}-v2-full"
NASTY = "<script>alert(1)</script> & $x_1$"


@pytest.fixture(scope="module")
def results():
    return two_embedders()


@pytest.fixture(scope="module")
def report(results):
    return Report(results, **FAST)


class Page(HTMLParser):
    """Collects what a page shows and refers to, and checks that tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.links, self.text = [], [], [], []
        self.rows, self.tags = [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        for name, value in attrs:
            if name in ("src", "href"):
                (self.images if tag == "img" else self.links).append(value)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


class TestFolder:
    def test_finished_results(self, results, tmp_path):
        save(results, tmp_path)
        found = load_results(tmp_path)
        assert {(each.embedder, each.task, each.score) for each in found} == {
            (each.embedder, each.task, each.score) for each in results
        }
        assert load_failures(tmp_path) == []

    def test_unfinished_damaged_and_failed(self, results, tmp_path):
        save(results[:3], tmp_path)
        (tmp_path / "poor" / ESC / "result.json").unlink()
        damaged = tmp_path / "poor" / DCASE / "test.npz"
        damaged.write_bytes(damaged.read_bytes()[:100])
        failure = {"embedder": "x", "task": "y", "test": "fold01", "error": "E: no"}
        content = {"failures": [{**failure, "traceback": "line 1"}]}
        (tmp_path / "x" / "y").mkdir(parents=True)
        write_json(tmp_path / "x" / "y" / "error.json", content)
        (tmp_path / "x" / "z").mkdir()
        (tmp_path / "x" / "z" / "error.json").write_text("[1, ")
        assert [each.task for each in load_results(tmp_path)] == ["mine-v1-small"]
        first, second, third = load_failures(tmp_path)
        assert first == failure
        assert (second["embedder"], second["task"]) == ("x", "z")
        assert (third["embedder"], third["task"]) == ("poor", DCASE)
        assert "cannot be read: BadZipFile" in third["error"]
        text = str(make_report(tmp_path, **FAST))
        assert "Failures: 3\nx on y (fold01): E: no\n" in text

    def test_no_folder(self, tmp_path):
        for function in (load_results, load_failures, make_report):
            with pytest.raises(FileNotFoundError, match="There is no folder"):
                function(tmp_path / "missing")

    def test_nothing_finished(self, tmp_path):
        with pytest.raises(ValueError, match=r"no finished result below .* 0 failures"):
            make_report(tmp_path)


class TestEntries:
    def test_places(self, report):
        places = {
            (entry.result.embedder, entry.result.task): entry.place
            for entry in report.entries
        }
        for task in (ESC, DCASE, "mine-v1-small"):
            assert (places["good", task], places["poor", task]) == (1, 2)

    def test_less_is_better_for_error_rates(self, report):
        poor, good = (entry.result for entry in report.entries if entry.column is None)
        assert good.score < poor.score

    def test_intervals_hold_the_scores(self, report):
        for entry in report.entries:
            interval = entry.interval
            assert interval.score == pytest.approx(entry.result.score)
            assert interval.low < interval.score < interval.high

    def test_no_intervals(self, results, tmp_path):
        report = Report(results, n_resamples=0)
        assert {entry.interval for entry in report.entries} == {None}
        assert report.write(tmp_path / "a.html").exists()

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"task": "esc50-v2.0.0-small"}, "no task of the leaderboard in this"),
            ({"n_clips": 100}, "100 clips of the published 2000"),
            ({"primary": "mAP"}, "scored by mAP, the leaderboard by top1_acc"),
        ],
    )
    def test_what_is_not_comparable(self, changes, reason):
        settings = {"task": ESC} | changes
        report = Report([result("a", parts=[multiclass()], **settings)], **FAST)
        (entry,) = report.entries
        assert entry.column is None
        assert reason in entry.reason
        assert report.standings == []
        assert any(reason in note for note in report.notes())

    def test_few_missing_clips_are_no_matter(self):
        report = Report([published("a", ESC, multiclass(), n_clips=1990)], **FAST)
        assert report.entries[0].column == "ESC-50"

    def test_nothing(self):
        with pytest.raises(ValueError, match="no result to report"):
            Report([])

    def test_twice_the_same(self, results):
        with pytest.raises(ValueError, match=f"There are 2 results of poor on {ESC}"):
            Report([results[0], results[0]])


class TestStandings:
    def test_rank_and_best(self, report):
        board = load_leaderboard()
        assert [each.column for each in report.standings] == [
            *["DCASE 2016"] * 2,
            *["ESC-50"] * 2,
        ]
        for each in report.standings:
            published = board.column(each.column)
            assert each.rank == 1 + np.sum(published > each.score)
            assert each.best == np.nanmax(published)
            assert published[board.systems.index(each.best_system)] == each.best

    def test_beehive_needs_both_folders(self):
        parts = [multiclass(n_classes=2, strength=k) for k in (1, 3)]
        folders = [BEEHIVE.format(fold) for fold in (0, 1)]
        both = [
            published("a", folder, part)
            for folder, part in zip(folders, parts, strict=True)
        ]
        (standing,) = Report(both, **FAST).standings
        scores = [part.score("aucroc") for part in parts]
        assert standing.column == "Beehive"
        assert standing.score == pytest.approx(np.mean(scores))
        lone = Report(both[:1], **FAST)
        assert lone.standings == []
        assert any("once an embedder was run on both" in note for note in lone.notes())

    def test_score_that_is_not_defined(self, tmp_path):
        nothing = events(12, 0.7)
        nothing.predicted = [[] for _ in nothing.predicted]
        results = [published("none", DCASE, nothing), published("a", DCASE, events())]
        report = Report(results, **FAST)
        assert report.standings[0].rank is None
        assert [entry.place for entry in report.entries] == [None, 1]
        assert re.search(r" nan +\[nan, nan\] +-", str(report))
        assert "none" not in map_scores(report.standings).names
        page = Page(report.write(tmp_path / "a.html").read_text())
        assert len(page.images) == 3
        only = Report(results[:1], **FAST)
        assert len(Page(only.write(tmp_path / "b.html").read_text()).images) == 1


class TestScoreMap:
    def test_means_of_clipped_z_scores(self, report):
        scores = map_scores(report.standings)
        board = load_leaderboard()
        assert len(scores.names) == 34 + 2
        assert sorted(np.array(scores.names)[scores.own]) == ["good", "poor"]
        row = scores.names.index("CREPE")
        z_scores = []
        for column in ("DCASE 2016", "ESC-50"):
            values = board.column(column)
            values = (values - np.nanmean(values)) / np.nanstd(values)
            z_scores.append(np.clip(values[board.systems.index("CREPE")], -1, 1))
        np.testing.assert_allclose(scores.z_scores[row], z_scores)
        assert scores.means[row] == pytest.approx(np.mean(z_scores))
        assert (np.diff(scores.means) <= 1e-9).all()

    def test_tasks_that_were_not_run_are_left_out(self, report):
        scores = map_scores(report.standings)
        row = scores.names.index("Kuroyanagi hearline")
        assert scores.n_tasks[row] == 1
        assert scores.means[row] == np.nanmax(scores.z_scores[row])

    def test_systems_without_any_task_are_left_out(self):
        parts = [multiclass(n_classes=2)]
        both = [published("a", BEEHIVE.format(fold), *parts) for fold in (0, 1)]
        scores = map_scores(Report(both, **FAST).standings)
        assert len(scores.names) == 16 + 1


class TestPage:
    def test_everything_is_in_one_file(self, report, tmp_path):
        page = report.write(tmp_path / "report.html")
        text = page.read_text(encoding="utf-8")
        found = Page(text)
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
        assert found.links == []
        assert not found.tags & {"link", "script", "iframe"}
        assert "url(" not in text
        assert "@import" not in text
        assert len(found.images) == 3
        for image in found.images:
            pixels = imread(BytesIO(b64decode(image.partition("base64,")[2])))
            assert np.ptp(pixels) > 0.5

    def test_folder_gets_the_figures(self, report, tmp_path):
        assert (
            report.write(tmp_path / "a" / "b") == tmp_path / "a" / "b" / "report.html"
        )
        names = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
        assert names == ["leaderboard.png", "ranks.png", "report.html", "scores.png"]
        height, width, _ = imread(tmp_path / "a" / "b" / "leaderboard.png").shape
        assert height > 36 * 20
        assert width > 400

    def test_tables(self, report, tmp_path):
        rows = Page(report.write(tmp_path / "a.html").read_text()).rows
        for entry in report.entries:
            score, name = f"{entry.result.score:.3f}", entry.result.embedder
            assert any(
                row[:2] == [name, entry.result.task] and score in row for row in rows
            )
        for standing in report.standings:
            rank = f"{standing.rank} of {standing.n_ranked}"
            start = [standing.embedder, standing.column, f"{standing.score:.3f}"]
            assert any(row[:3] == start and rank in row for row in rows)
        assert ["n_points", "8"] in rows

    def test_names_are_escaped(self, tmp_path):
        nasty = published(NASTY, ESC, multiclass(), parameters=NASTY)
        nasty.versions = {NASTY: NASTY}
        own = result(NASTY, NASTY, [multilabel()], ["mAP"])
        failures = [dict.fromkeys(["embedder", "task", "test", "error"], NASTY)]
        report = Report([nasty, own], failures, **FAST)
        text = report.write(tmp_path / "a.html").read_text()
        page = Page(text)
        assert "script" not in page.tags
        assert "".join(page.text).count(NASTY) >= 8

    def test_one_embedder_and_one_task_of_ones_own(self, tmp_path):
        page = write_report(
            [result("a", "mine-v1", [multiclass()])], tmp_path / "a.html", **FAST
        )
        text = "".join(Page(page.read_text()).text)
        assert "1 embedder, 1 task" in text
        assert "None of the tasks is one of the leaderboard" in text

    def test_of_a_folder(self, results, tmp_path):
        save(results, tmp_path / "results")
        page = write_report(tmp_path / "results", tmp_path / "a.html", **FAST)
        assert page.stat().st_size > 10_000

    def test_same_results_same_text(self, results):
        assert str(Report(results, **FAST)) == str(Report(results, **FAST))


class TestNotes:
    def test_protocols_that_differ(self, results):
        other = result("a", ESC, [multiclass()], protocol={"n_points": 3, "seed": 42})
        notes = Report([*results, other], **FAST).notes()
        assert any("protocols that differ in n_points;" in note for note in notes)

    def test_switches_against_heareval(self):
        ours, theirs = (
            Report(
                [result("a", ESC, [multiclass()], protocol=asdict(protocol))], **FAST
            )
            for protocol in (Protocol(), Protocol.heareval())
        )
        (note,) = (note for note in ours.notes() if "not that of the published" in note)
        assert "shuffle=True (heareval: False)" in note
        assert not any("not that of the published" in note for note in theirs.notes())

    def test_undefined_draws(self):
        few = events(3, 0.9)
        few.predicted[2] = []
        report = Report([result("a", "t", [few], ["event_onset_200ms_fms"])], **FAST)
        (note,) = (note for note in report.notes() if "without a defined" in note)
        assert int(re.search(r": (\d+) draws", note)[1]) > 0
