"""The report of a comparison: what it shows, and that names in it are only names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report_runs import write_data
from test_report_browser import CHROMIUM, browse

from repertoire.compare import Comparison, compare
from repertoire.errors import RunError
from repertoire.report import write_comparison
from repertoire.report._comparison_figures import Estimate, Spot, forest_chart, front, pareto_chart


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Three configurations, one of which fails, after a search."""
    root = tmp_path_factory.mktemp("<b>comparison")
    write_data(root / "data.npz", ["<script>alert(1)</script>", "b", "c"], 20)
    return compare(
        root / "data.npz",
        vary={"loss": "cross-entropy,squentropy", "momentum": "0.9"},
        search={"lr": "0.001..1e30"},
        trials=2,
        seeds=2,
        jobs=1,
        out=root / "a",
        epochs=2,
        backbone="mlp:hidden=8,depth=1",
        device="cpu",
    )


@pytest.fixture(scope="module")
def page(comparison: Comparison) -> Path:
    return write_comparison(comparison)


def test_it_has_sentences_table_figures_and_the_command(comparison: Comparison, page: Path):
    text = page.read_text(encoding="utf-8")
    assert page == comparison.path / "report.html"
    for sentence in comparison.sentences:
        assert sentence.split(" (")[0] in text
    assert text.count('<svg class="chart"') == 6
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text
    assert "<b>comparison" not in text
    assert "failed: " in text, "a trial that failed is in the table of the search"
    command = re.search(r"<pre><code>(repertoire compare .*)</code></pre>", text)
    assert command is not None
    assert "--vary loss=cross-entropy,squentropy --vary momentum=0.9 --search lr=0.001..1e+30 --trials 2" in command[1]
    assert command[1].endswith("--seeds 2")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_has_nothing_to_complain_about(page: Path, tmp_path: Path):
    done = browse(page, tmp_path / "profile")
    assert "CONSOLE" not in done.stderr, done.stderr


def test_a_directory_is_no_file(comparison: Comparison, tmp_path: Path):
    with pytest.raises(RunError, match="which is a directory"):
        write_comparison(comparison, tmp_path)


def test_the_front_is_what_nothing_beats_in_both():
    spots = [
        Spot(i, str(i), cost, quality, "k0")
        for i, (cost, quality) in enumerate([(1, 5), (2, 4), (2, 7), (3, 7), (4, 9)])
    ]
    assert [spot.number for spot in front(spots)] == [0, 2, 4]
    assert [spot.number for spot in front(spots, higher_is_better=False)] == [0, 1]


def test_figures_of_nothing_and_of_little():
    assert pareto_chart([], description="", axis="", write=str, write_cost=str) is None
    assert forest_chart([Estimate("a", None, None, [])], description="", write=str) is None
    chart = forest_chart([Estimate("<a>", 0.5, None, [0.5]), Estimate("b", None, None, [])], description="", write=str)
    assert chart is not None
    assert "&lt;a&gt;" in chart
    assert "no run is finished" in chart
    assert "whisker" not in chart
