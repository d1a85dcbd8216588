"""The diagnosis of a run: what it finds, that its page is whole and inert, and that its map can be walked through."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from report_runs import HOSTILE, train
from test_report_browser import CHROMIUM, browse
from test_report_page import Page

from repertoire.cli import main
from repertoire.diagnostics import hierarchy
from repertoire.errors import DataError, RunError
from repertoire.recipe import make_config
from repertoire.report import Diagnosis, _bars, _measure, _treemap, diagnose
from repertoire.report._findings import findings
from repertoire.report._remedies import Remedies
from repertoire.train import Run, load


@pytest.fixture(scope="session")
def found(hostile: Run, tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    """The diagnosis of that run beside itself."""
    return diagnose(hostile, hostile)


@pytest.fixture(scope="session")
def diagnosis_page(found: Diagnosis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found.write(tmp_path_factory.mktemp("diagnosis") / "diagnosis.html")


def test_the_page_is_whole_and_no_name_is_markup(diagnosis_page: Path, found: Diagnosis) -> None:
    page = Page(diagnosis_page)
    assert page.words.count("Is this representation healthy?") == 1
    assert "<script>alert(1)</script>" not in page.source
    assert len(page.all("script")) == 2
    assert all((image["src"] or "").startswith("data:") for image in page.all("img"))
    assert "http" not in page.source.replace("http-equiv", "")
    for advice in found.findings:
        assert advice.title in page.words
    for section in (
        "Spectrum",
        "Neural collapse",
        "Alignment and",
        "Clumps",
        "What the features know",
        "Active units",
        "Distinct",
    ):
        assert section in page.words
    # A figure is followed up by one sentence that says what it means.
    for text in re.findall(r'<article.*?<p class="means">(.*?)</p>', page.source, re.DOTALL):
        assert text.strip().endswith(".")


def test_the_numbers_are_plain_and_say_the_same_of_a_run_beside_itself(found: Diagnosis, hostile: Run) -> None:
    numbers = json.loads(json.dumps(found.numbers, allow_nan=False))
    assert numbers["accuracy"] == pytest.approx(hostile.metrics["accuracy"])
    against = numbers["against"]
    assert against["last_layer_cka"] == pytest.approx(1)
    assert against["relative"]["cosine"] == pytest.approx(1)
    assert against["stitching"]["relative"] == against["stitching"]["own"]
    assert np.allclose(np.diagonal(against["cka"]), 1)
    assert {"variability", "duality", "disagreement"} <= numbers["geometry"]["neural_collapse_test"].keys()
    assert numbers["network"]["sparsity"]
    assert numbers["network"]["complexity"]


def test_the_weights_are_those_of_before(hostile: Run, found: Diagnosis) -> None:
    again = load(hostile.path).model.state_dict()
    for name, value in hostile.model.state_dict().items():
        assert torch.equal(value, again[name]), name


def test_the_command(hostile: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    with pytest.raises(SystemExit) as end:
        main(["diagnose", str(hostile.path), "-o", str(out), "--json"])
    assert not end.value.code
    printed = json.loads(capsys.readouterr().out)
    assert printed["test_images"] == 24
    assert "findings" in printed
    assert out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["-o", "{tmp}"], "is a directory"), (["--against", "{tmp}/nothing"], "no run directory")],
)
def test_what_the_command_refuses(
    arguments: list[str], message: str, hostile: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["diagnose", str(hostile.path), *(word.format(tmp=tmp_path) for word in arguments)])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_run_on_other_classes_is_no_comparison(hostile: Run, tmp_path: Path) -> None:
    other = train(tmp_path, ["a", "b"], 12)
    with pytest.raises(RunError, match="cannot be compared"):
        diagnose(hostile, other)


def test_images_whose_features_are_not_finite_are_named(hostile: Run) -> None:
    images = hostile.splits.test
    result = _measure.outputs(hostile.model, images)
    result.embeddings[[1, 4], 0] = np.nan
    with pytest.raises(DataError, match=rf"2 of {len(images)} images .*{images.names[1]}, {images.names[4]}"):
        _measure._finite(images, result)


def healthy() -> dict:
    part = {"images": 100, "surely_wrong": 0, "agreement": 0.9}
    collapse = {"variability": 0.5}
    return {
        "accuracy": 0.9, "test_images": 100,
        "geometry": {
            "width": 16, "samples": 100, "effective_rank": 9.0, "constant_features": [], "limited_by_samples": False,
            "neural_collapse_train": collapse, "neural_collapse_test": collapse,
        },
        "separability": {"knn_accuracy": 0.9, "linear_probe_accuracy": None, "overlapping_classes": []},
        "network": {"sparsity": [], "complexity": []},
        "data": {"copies": [], "train": part, "test": part, "weak_subgroups": []},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "title"),
    [
        ("data.copies", [{}] * 3, "Test images have near copies"),
        ("data.test.surely_wrong", 9, "Some labels are probably wrong"),
        (
            "data.weak_subgroups",
            [{"images": 20, "errors": 10, "error": 0.5, "p_value": 0.0}],
            "The model falls behind on a group of look-alikes",
        ),
        ("geometry.effective_rank", 1.2, "The features use few of their dimensions"),
        ("geometry.constant_features", [3], "Some features never change"),
        ("separability.linear_probe_accuracy", 0.97, "The features know more than the classifier"),
        (
            "separability.overlapping_classes",
            [{"classes": ["a", "b"], "share": 0.3}],
            "Some classes run into each other",
        ),
        ("geometry.neural_collapse_train", {"variability": 0.01}, "Training images have collapsed"),
        ("network.sparsity", [{"layer": "r", "dead": 0.5, "units": 8}], "Many units never fire"),
        ("network.complexity", [{"layer": "c", "distinct": 3, "channels": 8}], "Some layers hold the same feature"),
        ("geometry.limited_by_samples", True, "Fewer test images than features"),
    ],
)
def test_each_finding(path: str, value: object, title: str) -> None:
    numbers = json.loads(json.dumps(healthy()))
    config = make_config(data="photos", loss="cross-entropy", method="supervised", augment="crop-flip")
    assert findings(numbers, Remedies(config)) == []
    *way, last = path.split(".")
    place = numbers
    for key in way:
        place = place[key]
    place[last] = value
    (advice,) = findings(numbers, Remedies(config))
    assert advice.title.startswith(title)
    assert advice.evidence.endswith(".")
    assert advice.remedy.endswith(".")


def test_options_that_the_findings_recommend_exist() -> None:
    from repertoire import registry
    from repertoire.report import _diagnosis, _findings, _remedies

    for module in (_findings, _diagnosis, _remedies):
        source = Path(module.__file__).read_text(encoding="utf-8")
        for option, room in (("loss", "losses"), ("method", "methods"), ("augment", "augmentations")):
            for name in re.findall(rf"--{option} ([a-z][a-z-]+)", source):
                assert name in registry.names(room), f"--{option} {name}"


def test_the_map_holds_all_images_and_no_name_ends_its_script(hostile: Run) -> None:
    images = hostile.splits.test
    tree = hierarchy(torch.randn(len(images), 4, generator=torch.Generator().manual_seed(0)))
    drawn = _treemap.treemap(tree, images, images.labels, np.full(len(images), 0.5), HOSTILE)
    assert "<" not in drawn["data"]
    data = json.loads(drawn["data"])
    assert data["classes"] == list(HOSTILE)
    assert data["label"] == images.labels[tree.order].tolist()
    assert drawn["sheet"].startswith("data:image/jpeg;base64,")


def test_bars_and_matrices_are_markup_of_their_values() -> None:
    drawn = _bars.bar_chart([_bars.Bar("<b>", 0.5, "half"), _bars.Bar("over", 7.0, "7")], description="d")
    assert "&lt;b&gt;" in drawn
    assert "half" in drawn
    matrix = _bars.matrix_chart(np.eye(2), ["a", "b"], ["c", "d"], description="d", names=("x", "y"))
    assert matrix.count("<rect") == 4
    assert "b, d: 1.00" in matrix


WALK = """
<script>
addEventListener("load", () => {
  const canvas = document.querySelector(".treemap canvas");
  const seen = {start: canvas.dataset.node, crumbs: document.querySelectorAll(".treemap ol li").length};
  const press = (key) => canvas.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
  canvas.focus();
  press("ArrowRight");
  press("Enter");
  seen.entered = canvas.dataset.node;
  seen.deeper = document.querySelectorAll(".treemap ol li").length;
  press("Escape");
  seen.left = canvas.dataset.node;
  const box = canvas.getBoundingClientRect();
  const at = {clientX: box.x + 20, clientY: box.y + 30, bubbles: true};
  canvas.dispatchEvent(new PointerEvent("pointermove", at));
  seen.hint = document.querySelector(".treemap .tooltip").textContent;
  canvas.dispatchEvent(new MouseEvent("click", at));
  seen.clicked = canvas.dataset.node;
  document.querySelector(".treemap ol button").click();
  seen.back = canvas.dataset.node;
  const select = document.querySelector(".treemap select");
  const before = canvas.toDataURL();
  select.value = "class";
  select.dispatchEvent(new Event("change"));
  seen.recoloured = canvas.toDataURL() !== before;
  seen.key = document.querySelectorAll(".treemap .key li").length;
  seen.status = document.querySelector(".treemap .status").textContent;
  seen.width = document.documentElement.scrollWidth;
  seen.viewport = innerWidth;
  document.body.dataset.walk = JSON.stringify(seen);
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_map_can_be_walked_with_keys_and_pointer(diagnosis_page: Path, tmp_path: Path) -> None:
    done = browse(diagnosis_page, tmp_path / "first")
    assert "CONSOLE" not in done.stderr, done.stderr
    source = diagnosis_page.read_text(encoding="utf-8")
    source = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    asking = tmp_path / "asking.html"
    asking.write_text(source.replace("</body>", WALK + "</body>"), encoding="utf-8")
    answer = re.search(r'data-walk="([^"]*)"', browse(asking, tmp_path / "second", "--window-size=600,900").stdout)
    assert answer is not None
    seen = json.loads(html.unescape(answer[1]))
    assert (seen["start"], seen["left"], seen["back"]) == ("0", "0", "0")
    assert seen["entered"] not in ("0", None)
    assert seen["clicked"] not in ("0", None)
    assert (seen["crumbs"], seen["deeper"]) == (1, 2)
    assert "sure" in seen["hint"]
    assert seen["recoloured"] is True
    assert seen["key"] == 3
    assert "images" in seen["status"]
    assert seen["width"] == seen["viewport"]
