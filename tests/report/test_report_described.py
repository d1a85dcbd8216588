"""The page of classes that are only described."""

from __future__ import annotations

from pathlib import Path

import pytest

from repertoire.errors import RunError
from repertoire.report import write_described_classes


def metrics(gamma: float = 0.0) -> dict:
    return {
        "seen": 0.5,
        "unseen": 0.25,
        "harmonic": 1 / 3,
        "ausuc": 0.4321,
        "gamma": gamma,
        "without_gamma": {"seen": 0.9, "unseen": 0.0, "harmonic": 0.0},
        "among_unseen": 0.75,
        "unseen_classes": ["<b>cat", "dog"],
        "rows": 1234,
        "curve": {"unseen": [0.0, 0.25, 0.6], "seen": [0.9, 0.5, 0.0]},
    }


def test_the_page_says_what_was_measured(tmp_path: Path):
    page = write_described_classes(tmp_path / "a.html", metrics(), source="birds").read_text("utf-8")
    for words in ("birds", "2 classes were taken away", "&lt;b&gt;cat, dog", "1,234 images", "AUSUC, 0.432", "<svg"):
        assert words in page
    for cell in ("50.0%", "25.0%", "33.3%", "75.0%"):
        assert f"<td>{cell}</td>" in page
    assert "<b>cat" not in page
    assert "gave up nothing" not in page, "nothing was given up, so there is nothing to compare with"


def test_what_seen_classes_gave_up_has_a_row(tmp_path: Path):
    page = write_described_classes(tmp_path / "a.html", metrics(0.3), source="birds", noun="rows").read_text("utf-8")
    assert "If seen classes gave up nothing" in page
    assert "1,234 rows" in page


def test_other_metrics_are_refused(tmp_path: Path):
    with pytest.raises(RunError, match="no classes that are only described"):
        write_described_classes(tmp_path / "a.html", {"accuracy": 1.0}, source="birds")
    assert not list(tmp_path.iterdir())
