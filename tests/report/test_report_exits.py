"""The section on blocks and exits: what it shows of a run of local learning, and that other runs have none."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from report_runs import train
from test_report_page import Page

from repertoire.report import write_report
from repertoire.report._exits import exits
from repertoire.report._figures import Series, line_chart
from repertoire.train import Run


def metrics(accuracies: list[float], early: list[tuple[float, float, float]]) -> dict[str, Any]:
    """Exits of equal blocks, and (confidence, accuracy, work) of early exit."""
    count = len(accuracies)
    return {
        "exits": [
            {"block": i + 1, "last_unit": f"blocks.{i}", "accuracy": accuracy, "work": (i + 1) / count}
            for i, accuracy in enumerate(accuracies)
        ],
        "early_exit": [
            {"confidence": c, "accuracy": a, "work": w, "shares": [0.0] * (count - 1) + [1.0]} for c, a, w in early
        ],
    }


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Run:
    rule = "local:blocks=3,auxiliary=linear"
    return train(tmp_path_factory.mktemp("local"), ("a", "b<c"), 40, rule=rule, backbone="convnet:width=4", epochs=2)


def test_a_run_of_local_learning_shows_each_exit(local: Run, tmp_path: Path) -> None:
    page = Page(write_report(local, tmp_path / "report.html"))
    headings = [a.get("id") for a in page.all("h2")]
    assert headings.index("calibration") < headings.index("exits") < headings.index("images")
    assert "#exits" in [a.get("href") for a in page.all("a")]
    assert "trained in 3 blocks" in page.words
    for row in local.metrics["exits"]:
        assert f"{row['block']} {row['last_unit']} {row['accuracy']:.1%} {row['work']:.0%}" in page.words
    for row in local.metrics["early_exit"]:
        assert f"leave when {row['confidence']:.0%} sure: {row['accuracy']:.1%} right" in page.words
    labels = [a.get("aria-label") or "" for a in page.all("svg")]
    assert sum("exit after each of 3 blocks" in text or "mean work" in text for text in labels) == 2


def test_other_runs_have_no_such_section(page: Path) -> None:
    assert "exits" not in [a.get("id") for a in Page(page).all("h2")]
    assert exits({}) is None
    assert exits({"exits": [], "early_exit": []}) is None


def test_it_recommends_what_saves_most_at_nearly_the_accuracy() -> None:
    found = exits(metrics([0.6, 0.8], [(0.5, 0.7, 0.5), (0.9, 0.795, 0.7), (0.95, 0.8, 0.8)]))
    assert found is not None
    assert found["recommended"]["confidence"] == 0.9
    assert found["best"]["block"] == 2
    costly = exits(metrics([0.9, 0.8], [(0.5, 0.9, 1.2), (0.9, 0.8, 2.0)]))
    assert costly is not None
    assert costly["recommended"] is None, "an exit that costs more than it saves is no advice"
    assert costly["best"]["block"] == 1


def test_the_figures_have_the_geometry_of_the_numbers() -> None:
    found = exits(metrics([0.2, 0.4, 0.8], [(0.5, 0.6, 0.5), (0.9, 0.8, 0.75)]))
    assert found is not None
    first, second = (ElementTree.fromstring(str(found[name])) for name in ("by_block", "by_work"))

    def dots(figure: ElementTree.Element, style: str) -> list[tuple[float, float]]:
        marks = [part for part in figure.iter() if part.get("class") == f"dot {style}"]
        return [(float(part.get("cx", "nan")), float(part.get("cy", "nan"))) for part in marks]

    (x1, y1), (x2, y2), (x3, y3) = dots(first, "main")
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.02)
    assert y2 - y3 == pytest.approx(2 * (y1 - y2), abs=0.02)
    early, (whole,) = dots(second, "main"), dots(second, "aside")
    assert early[1][0] - early[0][0] == pytest.approx(whole[0] - early[1][0], abs=0.02)
    assert whole[1] == pytest.approx(early[1][1], abs=0.02)
    line = next(part for part in second.iter() if part.get("class") == "mark")
    assert float(line.get("x1", "nan")) == pytest.approx(whole[0], abs=0.02)


def test_an_axis_of_shares_has_its_ticks_within_the_data() -> None:
    figure = line_chart(
        [Series("", [(0.12, 0.5), (1.0, 0.7), (0.5, float("nan"))], hints=["a", "b", "c"])],
        description="",
        axis="mean work",
        write_across=lambda share: f"{share:.0%}",
    )
    assert figure is not None
    texts = [part.text for part in ElementTree.fromstring(str(figure)).iter()]
    assert {"20%", "100%", "mean work", "a", "b"} <= set(texts)
    assert not {"0%", "120%", "epoch", "c"} & set(texts)
