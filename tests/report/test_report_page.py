"""The page: complete, self-contained, inert whatever the names, and possible for runs that lack something."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_runs import HOSTILE, train

from repertoire.errors import RunError
from repertoire.report import write_report
from repertoire.train import Run


class Page(HTMLParser):
    """Elements with their attributes, the text outside scripts and styles, and whether every element was closed."""

    VOID = ("meta", "link", "img", "br", "input", "hr")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def test_it_has_every_section_in_order(page: Path) -> None:
    found = Page(page)
    assert [a["id"] for a in found.all("h2")] == [
        *(["warnings"] if any(a.get("class") == "warnings" for a in found.all("section")) else []),
        "curves", "classes", "confusion", "calibration", "images", "trust", "map", "next", "details",
    ]  # fmt: skip
    assert len(found.all("h1")) == 1
    assert found.all("html")[0]["lang"] == "en"
    assert {"header", "main", "nav"} <= {tag for tag, _ in found.elements}
    links = [a["href"] for a in found.all("a")]
    assert {link.removeprefix("#") for link in links if link} <= {a.get("id") for _, a in found.elements}


def test_it_fetches_nothing(page: Path) -> None:
    found = Page(page)
    for tag, attributes in found.elements:
        for key in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:")), (tag, key, value)
    assert "@import" not in found.source
    assert "url(" not in found.source
    (policy,) = [a["content"] for a in found.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert page.stat().st_size < 2_000_000


def test_names_are_inert(page: Path) -> None:
    found = Page(page)
    assert len(found.all("script")) == 1
    assert HOSTILE[0] in found.words
    assert HOSTILE[0] not in found.source
    assert "Ünïcode\\n猫" in found.words


def test_pictures_and_figures_say_what_they_are(page: Path) -> None:
    found = Page(page)
    images = found.all("img")
    assert images
    assert all(a["alt"] and str(a["src"]).startswith("data:image/png;base64,") for a in images)
    assert any("heat map" in str(a["alt"]) for a in images)
    for figure in found.all("svg"):
        assert figure.get("aria-hidden") == "true" or (figure["role"] == "img" and figure["aria-label"])
    for region in [a for tag, a in found.elements if a.get("tabindex") == "0"]:
        assert region["role"] == "region"
        assert region["aria-label"]


def test_the_result_is_that_of_the_metrics(hostile: Run, page: Path) -> None:
    words = Page(page).words
    assert f"{hostile.metrics['accuracy']:.1%} of {hostile.metrics['images']} test images" in words
    assert f"{hostile.metrics['ece']:.3g}" in words
    assert hostile.info["torch"] in words


def test_writing_goes_to_the_run_unless_told_otherwise(copy: Path, tmp_path: Path) -> None:
    assert write_report(Run(copy)) == copy / "report.html"
    first = (copy / "report.html").read_bytes()
    assert write_report(Run(copy), tmp_path / "sub" / "other.html").read_bytes() == first
    with pytest.raises(RunError, match="which is a directory"):
        write_report(Run(copy), tmp_path)


@pytest.mark.parametrize(
    ("status", "epochs", "says"),
    [
        ("running", 2, "still running, or was killed after epoch 2 of 2"),
        ("interrupted", 1, "was interrupted after epoch 1 of 2"),
        ("failed", 0, "failed before the first epoch was over. There are no test results yet. the loss became <nan>"),
    ],
)
def test_an_unfinished_run(copy: Path, edit: Callable[..., None], status: str, epochs: int, says: str) -> None:
    edit(copy / "run.json", status=status, reason="the loss became <nan>")
    (copy / "metrics.json").unlink()
    (copy / "predictions.npz").unlink()
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:epochs]) + '{"epoch": 9, "tra')
    found = Page(write_report(Run(copy)))
    assert "This run is not finished" in found.words
    assert says in found.words
    assert f"repertoire train --resume {copy}" in found.words
    assert ("curves" in [a.get("id") for a in found.all("h2")]) == (epochs > 0)


def test_data_that_is_gone(hostile: Run, copy: Path) -> None:
    data = Path(hostile.config.data)
    hidden = data.with_suffix(".hidden")
    data.rename(hidden)
    try:
        found = Page(write_report(Run(copy)))
    finally:
        hidden.rename(data)
    assert "There are no pictures. The data cannot be read any more" in found.words
    assert not found.all("img")
    assert "image 0" in found.words  # in the map's hints
    assert "of the test images" not in found.words


def test_data_that_changed(copy: Path) -> None:
    with np.load(copy / "predictions.npz") as arrays:
        changed = {**arrays, "labels": np.roll(arrays["labels"], 1)}
    np.savez(copy / "predictions.npz", **changed)
    found = Page(write_report(Run(copy)))
    assert "The data is no longer what it was" in found.words
    assert not found.all("img")


def test_weights_that_are_gone(copy: Path) -> None:
    shutil.rmtree(copy / "checkpoints")
    found = Page(write_report(Run(copy)))
    assert "There are no heat maps." in found.words
    assert found.all("img")
    assert not any("heat map" in str(a["alt"]) for a in found.all("img"))


def test_skipped_files_and_notes_are_listed(copy: Path, edit: Callable[..., None]) -> None:
    skipped = [{"path": f"cat/<b>\udcff{k}.jpg", "reason": "cut short"} for k in range(300)]
    edit(copy / "run.json", skipped=skipped, notes=["a <note>"])
    found = Page(write_report(Run(copy)))
    assert "300 files could not be used" in found.words
    assert "cat/<b>\\udcff199.jpg" in found.words
    assert "cat/<b>\\udcff200.jpg" not in found.words
    assert "a <note>" in found.words


@pytest.mark.parametrize("name", ["metrics.json", "predictions.npz"])
def test_a_finished_run_that_lacks_a_piece(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(RunError, match=f"has no {name}"):
        write_report(Run(copy))
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_predictions_cut_short(copy: Path, size: int) -> None:
    content = (copy / "predictions.npz").read_bytes()
    (copy / "predictions.npz").write_bytes(content[:size])
    with pytest.raises(RunError, match=r"predictions\.npz is damaged"):
        write_report(Run(copy))


def test_pieces_of_another_run(copy: Path, edit: Callable[..., None]) -> None:
    with np.load(copy / "predictions.npz") as arrays:
        changed = {**arrays, "logits": arrays["logits"][:, :2]}
    np.savez(copy / "predictions.npz", **changed)
    with pytest.raises(RunError, match="does not fit the run, which has 3 classes"):
        write_report(Run(copy))
    edit(copy / "metrics.json", per_class=[])
    with pytest.raises(RunError, match="not about the 3 classes"):
        write_report(Run(copy))


def test_metrics_that_lack_a_field(copy: Path, edit: Callable[..., None]) -> None:
    (copy / "metrics.json").write_text('{"images": 5}')
    with pytest.raises(RunError, match="lacks accuracy, "):
        write_report(Run(copy))
    (copy / "metrics.json").write_text('{"images": 0}')
    assert "No test image has a label" in Page(write_report(Run(copy))).words


def test_a_class_without_test_images(copy: Path, edit: Callable[..., None]) -> None:
    run = Run(copy)
    rows = run.metrics["per_class"]
    rows[0] = {**rows[0], "images": 0, "accuracy": None, "interval": [0.0, 1.0], "precision": None}
    confusion = [[0, 0, 0], *run.metrics["confusion"][1:]]
    edit(copy / "metrics.json", per_class=rows, confusion=confusion)
    counts = {**run.info["counts"], "test": [0, *run.info["counts"]["test"][1:]]}
    edit(copy / "run.json", counts=counts)
    found = Page(write_report(Run(copy)))
    assert "One class is not tested" in found.words
    assert "no test images" in found.words


def test_two_classes(tmp_path: Path) -> None:
    found = Page(write_report(train(tmp_path, ("no", "yes"))))
    assert "of 2 classes" in found.words
    assert len([a for a in found.all("button") if a.get("data-class")]) == 2


def test_fifty_classes_list_pairs_instead_of_a_matrix(tmp_path: Path) -> None:
    found = Page(write_report(train(tmp_path, [f"class {k}" for k in range(50)], 5)))
    assert "There are 50 classes; these are the pairs" in found.words
    assert not any("confusion" in str(a.get("class")) for a in found.all("table"))
    assert "The figure shows the lowest ones" in found.words


def test_a_backbone_without_feature_maps_has_those_of_its_input_and_a_reason(tmp_path: Path) -> None:
    found = Page(write_report(train(tmp_path, ("a", "b"), backbone="mlp", loss="supcon")))
    assert "Left out: grad-cam (" in found.words
    assert any("heat map by gradient" in str(a["alt"]) for a in found.all("img"))
    assert "Training loss: supcon" in found.words
    assert found.all("img")
