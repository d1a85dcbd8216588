"""The report of runs whose targets are not classes: several labels, numbers, none."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from repertoire.errors import RunError
from repertoire.report import write_report
from repertoire.report._answers import scatter_chart
from repertoire.train import Run, fit

OPTIONS = {"epochs": 2, "backbone": "convnet:width=4,depth=2", "batch_size": 32, "device": "cpu"}


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("several")
    rng = np.random.default_rng(1)
    labels = (rng.random((90, 3)) < [0.5, 0.3, 0.6]).astype(np.uint8)
    np.savez(root / "d.npz", images=pixels(90), labels=labels, classes=["<b>sky</b>", "sea", "sand"])
    return fit(root / "d.npz", out=root / "run", **OPTIONS)


@pytest.fixture(scope="module")
def number(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("number")
    images = pixels(90)
    ages = images.reshape(90, -1).mean(1, keepdims=True).astype(np.float32)
    np.savez(root / "d.npz", images=images, labels=ages, classes=["age <years>"])
    return fit(root / "d.npz", out=root / "run", **OPTIONS)


class Tables(HTMLParser):
    """The rows of each table under the heading before it."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.heading = self.cell = ""
        self.inside: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("h2", "th", "td"):
            self.inside, self.cell = tag, ""
        if tag == "tr":
            self.rows.setdefault(self.heading, []).append([])

    def handle_data(self, data: str) -> None:
        self.cell += data

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside == "h2":
            self.heading = self.cell
        elif tag == self.inside and self.rows.get(self.heading):
            self.rows[self.heading][-1].append(self.cell)
        if tag == self.inside:
            self.inside = None


def read(run: Run, target: Path) -> tuple[str, dict[str, list[list[str]]]]:
    page = write_report(run, target / "report.html").read_text(encoding="utf-8")
    parser = Tables()
    parser.feed(page)
    return page, parser.rows


def test_several_labels_have_a_table_with_a_row_each(several: Run, tmp_path: Path) -> None:
    page, tables = read(several, tmp_path)
    head, *rows = tables["Labels"]
    assert head[:4] == ["Label", "Samples with it", "Average precision", "F1"]
    metrics = {row["label"]: row for row in several.metrics["per_label"]}
    assert {row[0] for row in rows} == {"<b>sky</b>", "sea", "sand"}
    for row in rows:
        assert row[2] == f"{100 * metrics[row[0]]['average_precision']:.1f}%"
        assert row[1] == f"{metrics[row[0]]['positives']} of {metrics[row[0]]['samples']}"
    precisions = [metrics[row[0]]["average_precision"] for row in rows]
    assert precisions == sorted(precisions)
    assert f"{100 * several.metrics['mean_average_precision']:.1f}%" in page
    assert "Confusion" not in page
    assert "<b>sky</b>" not in page
    assert page.count("<img ") == 12
    assert "Labels: &lt;b&gt;sky" in page
    assert "Validation mAP" in page


def test_the_interval_of_a_share_stays_inside(several: Run, tmp_path: Path) -> None:
    page, _ = read(several, tmp_path)
    low, high = re.search(r"all labels right; ([\d.]+)% to ([\d.]+)%", page).groups()
    assert 0 <= float(low) <= 100 * several.metrics["exact_match"] <= float(high) <= 100


def test_a_number_has_a_scatter_plot_and_its_errors(number: Run, tmp_path: Path) -> None:
    page, tables = read(number, tmp_path)
    assert tables["Numbers"][1][0] == "age <years>"
    tested = number.metrics["samples"]
    assert page.count('class="dot main sample"') == tested
    low, high = map(float, re.search(r"95% interval: ([\d.]+) to ([\d.]+)\.", page).groups())
    assert 0 <= low < number.metrics["mae"] < high
    assert "R2" in page
    assert "Validation MAE" in page
    assert "age &lt;years&gt;: predicted against true" in page
    assert "repertoire predict" in page
    assert "supcon" not in page


def test_without_labels_the_rank_is_shown_and_what_chose_the_epoch(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=pixels(80))
    run = fit(tmp_path / "d.npz", out=tmp_path / "run", method="simclr", **OPTIONS)
    page, _ = read(run, tmp_path)
    assert "There are no labels, so the epoch with the highest rank" in page
    assert "--start" in page
    assert "repertoire predict" not in page


def test_what_was_damaged_is_named(number: Run, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(number.path, tmp_path / "run")
    file = tmp_path / "run" / "predictions.npz"
    np.savez(
        file, logits=np.zeros((3, 1)), embeddings=np.zeros((3, 2)), labels=np.zeros((4, 1)), answers=np.zeros((3, 1))
    )
    with pytest.raises(RunError, match="does not fit the run"):
        write_report(Run(tmp_path / "run"))
    file.write_bytes(b"PK")
    with pytest.raises(RunError, match="is damaged"):
        write_report(Run(tmp_path / "run"))
    file.unlink()
    with pytest.raises(RunError, match=r"it has no predictions\.npz"):
        write_report(Run(tmp_path / "run"))
    metrics = tmp_path / "run" / "metrics.json"
    metrics.write_text(json.dumps({"samples": 5}))
    file.write_bytes((number.path / "predictions.npz").read_bytes())
    with pytest.raises(RunError, match=r"metrics\.json is incomplete: it lacks"):
        write_report(Run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("truth", "found", "dots"),
    [
        ([1.0, 2.0, np.nan], [1.0, 5.0, 3.0], 2),
        ([], [], 0),
        ([3.0], [3.0], 1),
        (list(range(5000)), list(range(5000)), 2000),
    ],
)
def test_scatter_plots_of_corners(truth: list[float], found: list[float], dots: int) -> None:
    drawn = scatter_chart(np.array(truth, dtype=float), np.array(found, dtype=float), description="d")
    assert drawn.count("sample") == dots
    for place in re.findall(r' c[xy]="([\d.-]+)"', drawn):
        assert 0 <= float(place) <= 320
