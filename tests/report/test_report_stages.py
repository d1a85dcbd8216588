"""The report of training in stages: what it says, what it shows, and that names in it are only names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_runs import HOSTILE
from test_report_browser import CHROMIUM, browse

from repertoire.errors import RunError
from repertoire.protocols import Outcome, measure
from repertoire.report import write_stages

NAN = np.nan
MATRIX = np.array([[0.9, NAN, NAN], [0.5, 0.8, NAN], [0.3, 0.7, 1.0]])


def outcome(path: Path | None = None, names: tuple[str, ...] = HOSTILE, **options: object) -> Outcome:
    metrics = {**measure(MATRIX), "finetune": 0.4, "joint": 0.9, "memory_bytes": 2048.0}
    return Outcome(names, MATRIX, np.tril(np.ones((3, 3))), metrics, path, **options)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The directory of stages, as `follow` leaves it."""
    path = tmp_path / "<b>stages"
    path.mkdir()
    (path / "outcome.json").write_text(json.dumps(outcome().record()))
    config = {"data": "<i>photos", "method": "replay", "backbone": "convnet", "epochs": 7}
    protocol = "['ClassIncremental', {'step': 1, 'memory': 30}]"
    (path / "stages.json").write_text(json.dumps({"protocol": protocol, "config": config}))
    for number in range(3):
        (path / f"{number:02d}.json").write_text(json.dumps({"seconds": 60.0 + number}))
    return path


def rows(page: str, title: str) -> list[list[str]]:
    """The cells of a table of the page, by its caption or label, as text."""
    (table,) = re.findall(rf'aria-label="{title}".*?</table>', page, re.DOTALL)
    found = re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
    return [
        [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in found
    ]


def test_the_matrix_is_a_table_with_the_mean_so_far(written: Path):
    page = write_stages(Outcome.read(written)).read_text(encoding="utf-8")
    assert rows(page, "Among all classes")[1:] == [
        ["after 1", "90.0", "–", "–", "90.0%"],
        ["after 2", "50.0", "80.0", "–", "65.0%"],
        ["after 3", "30.0", "70.0", "100.0", "66.7%"],
    ]
    assert rows(page, "Among the classes of its stage")[3] == ["after 3", "100.0", "100.0", "100.0", "100.0%"]
    assert re.findall(r'class="right" style="--tint:([\d.]+)"', page)[:3] == ["0.9", "0.8", "1.0"]


def test_numbers_and_sentences_are_those_of_the_matrix(written: Path):
    page = write_stages(Outcome.read(written)).read_text(encoding="utf-8")
    tiles = dict(re.findall(r"<dt>(.*?)</dt><dd><b>(.*?)</b>", page))
    # Forgotten: (0.9 - 0.3 + 0.8 - 0.7) / 2; backwards the same with the other sign; learned: (0.9 + 0.8 + 1) / 3.
    assert tiles == {
        "Forgetting": "35.0%",
        "Backward transfer": "−35.0%",
        "When learned": "90.0%",
        "On the way": "73.9%",
        "Bounds": "40.0–90.0%",
        "Kept samples": "2.0 KiB",
    }
    said = re.findall(r"<li>(.*?)</li>", page)
    assert said[0] == "After the last of 3 stages, the mean accuracy over all of them is 66.7%."
    assert said[1].endswith("at 90.0%: this is 53% of the way from the one to the other.")
    assert said[2].startswith("Most was lost of stage 1 (&lt;script&gt;")
    assert said[2].endswith("90.0% when it was known best, 30.0% in the end.")
    assert "would be 100.0%" in said[3]


def test_the_figures_hold_what_was_measured_and_nothing_else(written: Path):
    page = write_stages(Outcome.read(written)).read_text(encoding="utf-8")
    picture, curve, each = re.findall(r'<svg class="chart".*?</svg>', page, re.DOTALL)
    squares = re.findall(r'class="cell".*?opacity:([\d.]+)', picture)
    assert [float(square) for square in squares] == pytest.approx(
        [0.04 + 0.96 * v for v in MATRIX[np.isfinite(MATRIX)]]
    )
    assert re.findall(r"<title>(.*?)</title>", curve) == [
        f"after stage {t}: {v}" for t, v in ((1, "90.0%"), (2, "65.0%"), (3, "66.7%"))
    ]
    assert each.count("<polyline") == 3
    assert each.count("<circle") == 6


def test_stages_have_their_time_and_their_run_and_the_settings_are_told(written: Path):
    page = write_stages(Outcome.read(written)).read_text(encoding="utf-8")
    first, *_ = rows(page, "Table of the stages")[1:]
    assert first[1:6] == ["90.0%", "90.0%", "30.0%", "60.0%", "1 min 0 s"]
    assert first[6].endswith("/00")
    facts = {cells[0]: cells[1] for cells in rows(page, "Circumstances")}
    assert (facts["Protocol"], facts["– step"], facts["– memory"]) == ("classes", "1", "30")
    assert (facts["Data"], facts["Method"], facts["Epochs"]) == ("&lt;i&gt;photos", "replay", "7")
    assert "A convnet trained with method replay through 3 stages of protocol classes" in page


def test_nothing_comes_from_elsewhere_and_names_are_only_names(written: Path):
    page = write_stages(Outcome.read(written)).read_text(encoding="utf-8")
    for forbidden in ("http://", "https://", "<script", "<b>stages", "<i>photos", "nan"):
        assert forbidden not in page
    assert "prefers-color-scheme: dark" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_has_nothing_to_complain_about(written: Path, tmp_path: Path):
    done = browse(write_stages(Outcome.read(written)), tmp_path / "profile")
    assert "CONSOLE" not in done.stderr, done.stderr


def test_little_was_measured_and_nothing_written(tmp_path: Path):
    """Of an estimator there are no bounds and no runs; nor is anything lost by one that only gets better."""
    matrix = np.array([[0.5, 0.25], [0.75, 0.5]])
    page = write_stages(Outcome(("a", "b"), matrix, metrics=measure(matrix)), tmp_path / "page.html").read_text()
    assert "Nothing was forgotten" in page
    assert "Before its turn" in page
    assert "Bounds" not in page
    assert "Kept samples" not in page
    assert "Circumstances" not in page
    alike = {**measure(matrix), "finetune": 0.5, "joint": 0.5}
    page = write_stages(Outcome(("a", "b"), matrix, metrics=alike), tmp_path / "alike.html").read_text()
    assert "everything at once at 50.0%, so there was nothing to be gained here." in page
    one = np.array([[0.5]])
    page = write_stages(Outcome(("a",), one, metrics=measure(one)), tmp_path / "one.html").read_text()
    assert "There is a single stage, with an accuracy of 50.0%." in page


def test_many_stages_have_ten_curves(tmp_path: Path):
    matrix = np.where(np.tri(25, dtype=bool), 0.5, NAN)
    found = Outcome(tuple(map(str, range(25))), matrix, metrics=measure(matrix))
    page = write_stages(found, tmp_path / "page.html").read_text()
    assert re.findall(r'<svg class="chart".*?</svg>', page, re.DOTALL)[2].count("<polyline") == 10
    assert "Of more than ten stages, ten are shown." in page


def test_what_is_refused(written: Path, tmp_path: Path):
    with pytest.raises(RunError, match="say where the report shall be"):
        write_stages(outcome())
    with pytest.raises(RunError, match="which is a directory"):
        write_stages(outcome(written), tmp_path)
    (written / "outcome.json").write_text("{}")
    with pytest.raises(RunError, match="when all stages are over"):
        Outcome.read(written)


def test_a_record_is_read_as_it_was_written(written: Path):
    found = Outcome.read(written)
    np.testing.assert_array_equal(found.matrix, MATRIX)
    assert found.record() == outcome().record()
    assert found.path == written


def test_of_runs_that_came_one_after_another_the_record_says_what_they_took(written: Path):
    record = json.loads((written / "stages.json").read_text())
    record |= {"config": {"data": "/home/ada/photos"}, "seconds": dict(zip(HOSTILE, (3.0, None, 9.0), strict=True))}
    (written / "stages.json").write_text(json.dumps(record))
    for number in range(3):
        (written / f"{number:02d}.json").unlink()
    page = write_stages(Outcome.read(written)).read_text(encoding="utf-8")
    assert [row[5] for row in rows(page, "Table of the stages")] == ["Time", "3.0 s", "–", "9.0 s"]
    assert re.search("<h1>(.*)</h1>", page)[1] == "photos", "the whole path is among the details"
    assert "/home/ada/photos" in page


def test_without_any_time_there_is_no_column_of_it(written: Path):
    for number in range(3):
        (written / f"{number:02d}.json").unlink()
    page = write_stages(Outcome.read(written)).read_text(encoding="utf-8")
    assert "Time" not in rows(page, "Table of the stages")[0]
