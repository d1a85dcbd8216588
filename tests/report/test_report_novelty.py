"""The page of known and unknown samples: what it shows, and that nothing in it is taken for markup."""

from __future__ import annotations

import re

import numpy as np
import pytest

from repertoire.errors import RunError
from repertoire.report import write_novelty
from repertoire.report._novelty import SIDE, score_histogram

EDGES = np.linspace(-2.0, 2.0, 5).tolist()
HISTOGRAM = {"edges": EDGES, "known": [0, 1, 3, 6], "unknown": [4, 1, 0, 0]}


def bars(figure: str, side: str) -> list[tuple[float, float]]:
    """Top and height of the bars of one side, from left to right."""
    found = re.findall(rf'<rect class="side {side}" x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', figure)
    return [(float(y), float(height)) for y, height in found]


def test_bars_are_shares_of_their_own_side():
    figure = score_histogram(HISTOGRAM, -0.5, description="what it shows")
    up, down = bars(figure, "main"), bars(figure, "aside")
    assert [height for _, height in down] == pytest.approx([SIDE, SIDE / 4], abs=0.01)
    assert [height for _, height in up] == pytest.approx(
        [0.1 / 0.8 * SIDE, 0.3 / 0.8 * SIDE, 0.6 / 0.8 * SIDE], abs=0.01
    )
    base = down[0][0]
    assert all(y + height == pytest.approx(base, abs=0.02) for y, height in up)
    assert 'aria-label="what it shows"' in figure
    assert '<line class="mark"' in figure
    assert '<line class="mark"' not in score_histogram(HISTOGRAM, None, description="")


def test_a_threshold_outside_is_drawn_at_the_edge():
    figure = score_histogram(HISTOGRAM, 99.0, description="")
    (x,) = re.findall(r'<line class="mark" x1="([\d.]+)"', figure)
    assert 0 < float(x) <= 380


def metrics(**more):
    row = {
        "score": "knn:neighbours=2",
        "auroc": 0.9,
        "fpr95": 0.4,
        "intervals": {"auroc": (0.8, 0.95), "fpr95": (0.3, 0.5)},
        "known": 10,
        "unknown": 5,
        "histogram": HISTOGRAM,
        "threshold": -0.5,
        "passed": {"known": 0.9, "unknown": 0.2},
    }
    return {
        "known": 10,
        "unknown": 5,
        "keep": 0.95,
        "coverages": [],
        "scores": [row | more, {"score": "vim", "reason": "no <layer>"}],
    }


def test_the_page_has_a_figure_for_each_score_and_says_what_was_left_out(tmp_path):
    page = write_novelty(tmp_path / "novelty.html", metrics(), source="run <a>: test and other").read_text("utf-8")
    assert "run &lt;a&gt;" in page
    assert page.count("<svg") == 1
    assert "vim was not used: no &lt;layer&gt;" in page
    assert "Of the known, 90.0% are kept; of the unknown, 20.0% pass." in page
    assert "OSCR" not in page
    known = {**metrics(oscr=0.7), "accuracy": 0.8}
    page = write_novelty(tmp_path / "classes.html", known, source="a").read_text("utf-8")
    assert "0.700" in page
    assert "80.0% are given the right class" in page


def test_too_few_validation_images_for_a_threshold(tmp_path):
    given = metrics(threshold=None)
    del given["scores"][0]["passed"]
    page = write_novelty(tmp_path / "a.html", given, source="a").read_text("utf-8")
    assert "too few validation images for a threshold" in page


def test_other_metrics_are_refused(tmp_path):
    with pytest.raises(RunError, match="with unknown samples"):
        write_novelty(tmp_path / "a.html", {"accuracy": 1.0}, source="a")
