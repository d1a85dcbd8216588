"""Images of no known class: `predict --reject` and `evaluate --unknown`, as a user types them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repertoire import train
from repertoire.cli import main
from repertoire.openset import threshold


@pytest.fixture(scope="module")
def run(options: dict, tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    return train.fit(out=tmp_path_factory.mktemp("run") / "a", **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images like those that were learned, by class, and images with a bright column instead of a row."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(7)
    for i in range(36):
        known, other = generator.integers(0, 160, (2, 8, 8), dtype=np.uint8)
        known[1 + 2 * (i % 3) : 3 + 2 * (i % 3)] += 90
        other[:, 1 + i % 3 : 4 + i % 3] += 90
        for kind, pixels in ((("top", "middle", "bottom")[i % 3], known), ("other", other)):
            (folder / ("new" if kind == "other" else "known") / kind).mkdir(parents=True, exist_ok=True)
            path = folder / ("new" if kind == "other" else "known") / kind / f"{i:02d}.png"
            Image.fromarray(pixels).save(path)
    return folder / "known", folder / "new"


def said(capsys: pytest.CaptureFixture, *arguments: object, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    assert (stop.value.code or 0) == code
    return capsys.readouterr()


def test_reject_keeps_known_images_and_calls_others_unknown(run, folders, capsys):
    known, new = folders
    out, err = said(capsys, "predict", run.path, known, new, "--reject", 0.9, "--score", "energy", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 72
    validation = run.outputs(run.splits.val).logits.astype(float)
    energies = np.log(np.exp(validation).sum(1))
    line = threshold(energies, 0.1)
    assert f"unknown: energy below {line:.4g}, the threshold of {len(energies)} validation images" in err
    for row in rows:
        rejected = float(row["score"]) < line
        assert row["known"] == ("no" if rejected else "yes")
        assert (row["class"] == "unknown") == rejected == (row["probability"] == "")
    assert f"{sum(row['known'] == 'no' for row in rows)} of 72 images are unknown" in err


def test_every_format_says_unknown_and_python_agrees(run, folders, capsys):
    _, new = folders
    names = run.reject(0.5, "knn").predict_classes(new)
    assert "unknown" in names
    options = ("--reject", 0.5, "--score", "knn")
    found = json.loads(said(capsys, "predict", run.path, new, *options, "--format", "json")[0])
    assert [row["class"] for row in found] == names
    assert all(row["known"] == (row["class"] != "unknown") and row["top"][0]["class"] in run.classes for row in found)
    lines = said(capsys, "predict", run.path, new, *options)[0].splitlines()
    assert [line.split()[1] for line in lines] == names


def test_a_list_with_labels_says_how_good_what_is_kept_is(run, folders, tmp_path, capsys):
    known, _ = folders
    table = tmp_path / "list.csv"
    paths = sorted(known.rglob("*.png"))
    table.write_text("image,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths), encoding="utf-8")
    _, err = said(capsys, "predict", run.path, table, "--reject", 0.9, "--score", "max-softmax")
    kept = run.reject(0.9, "max-softmax").known(paths)
    assert f"on {kept.sum()} labelled images that were kept" in err


def test_by_default_a_score_is_chosen_on_classes_held_out(run, folders, capsys):
    rejector = run.reject(0.8)
    assert rejector.spec == rejector.choice.best
    assert rejector.validation == len(run.splits.val) // 2
    assert "below" in repr(rejector)
    _, err = said(capsys, "predict", run.path, folders[1], "--reject", 0.8)
    assert f"unknown: {rejector.spec} (chosen: AUROC {rejector.choice.scores[0].auroc:.3f} on classes held out)" in err


def test_evaluate_compares_scores(run, folders, tmp_path, capsys):
    known, new = folders
    target = tmp_path / "metrics.json"
    out, _ = said(
        capsys, "evaluate", run.path, known, "--unknown", new, "--score", "costarr,energy,knn", "--out", target
    )
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["score", "AUROC"]
    assert [line.split()[0] for line in lines[1:4]] == ["costarr", "energy", "knn"]
    assert "36 known images, accuracy" in lines[4]
    assert "36 unknown" in lines[4]
    metrics = json.loads(target.read_text())
    first = metrics["scores"][0]
    assert first["intervals"]["auroc"][0] <= first["auroc"] <= first["intervals"]["auroc"][1]
    assert f"{first['auroc']:.3f}" in lines[1]


def test_a_user_is_told_that_a_run_knows_the_images_already(run, options, folders, tmp_path, capsys):
    known, new = folders
    own = train.fit(out=tmp_path / "a", **{**options, "data": str(known), "epochs": 1, "batch_size": 8})
    for arguments in ((known,), (known, "--unknown", new)):
        assert f"the run was trained on most of {known}" in said(capsys, "evaluate", own.path, *arguments)[1]
    for arguments in ((own.path,), (run.path, known)):
        assert "was trained on most" not in said(capsys, "evaluate", *arguments)[1]


def test_without_unknown_images_classes_are_held_out(run, capsys):
    out, _ = said(capsys, "evaluate", run.path, "--score", "energy,max-logit")
    best = run.novelty(scores=("energy", "max-logit"))["best"]
    assert f"best on classes that were held out, 3 times: {best}" in out
    assert "evaluation-test-novelty" in out


def test_what_cannot_be_done(run, folders, tmp_path, capsys):
    known, new = folders

    def refusal(*arguments: object) -> str:
        return said(capsys, *arguments, code=2)[1]

    assert "did you mean 'energy'" in refusal("predict", run.path, new, "--reject", 0.9, "--score", "enrgy").lower()
    assert "did you mean 'energy'" in refusal("evaluate", run.path, "--score", "knn,enrgy").lower()
    assert "above 0 and below 1" in refusal("predict", run.path, new, "--reject", 95)
    assert "goes with --reject" in refusal("predict", run.path, new, "--score", "energy")
    assert "leave out --tta" in refusal("predict", run.path, new, "--reject", 0.9, "--tta")
    assert "validation samples are too few" in refusal("predict", run.path, new, "--reject", 0.9999, "--score", "knn")
    assert "does not exist" in refusal("evaluate", run.path, known, "--unknown", tmp_path / "nothing")
    assert "leave out --probe" in refusal("evaluate", run.path, known, "--unknown", new, "--probe", "knn")


@pytest.fixture(scope="module")
def normal(folders, tmp_path_factory) -> Path:
    """A run on a folder of images of one kind, without classes."""
    known, _ = folders
    flat = tmp_path_factory.mktemp("flat") / "normal"
    flat.mkdir()
    for path in known.rglob("*.png"):
        (flat / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    options = [
        "--epochs",
        1,
        "--backbone",
        "convnet:width=4,depth=2",
        "--device",
        "cpu",
        "--batch-size",
        8,
        "--val",
        0.4,
    ]
    with pytest.raises(SystemExit) as stop:
        main([*map(str, ["train", flat, "--method", "mean-shifted", "--out", flat.parent / "run", *options])])
    assert not stop.value.code
    return flat.parent / "run"


def test_a_run_on_normal_images_alone(normal, folders, tmp_path, capsys):
    _, new = folders
    rows = list(
        csv.DictReader(io.StringIO(said(capsys, "predict", normal, new, "--reject", 0.8, "--format", "csv")[0]))
    )
    assert len(rows) == 36
    assert {(row["class"], row["known"]) for row in rows} <= {("known", "yes"), ("unknown", "no")}
    assert all(row["probability"] == "" for row in rows)
    found = json.loads(said(capsys, "predict", normal, new, "--reject", 0.8, "--format", "json")[0])
    assert [row["class"] for row in found] == [row["class"] for row in rows]
    lines = said(capsys, "predict", normal, new, "--reject", 0.8)[0].splitlines()
    assert [line.split()[1] for line in lines] == [row["class"] for row in rows]
    target = tmp_path / "found.json"
    out, _ = said(capsys, "evaluate", normal, "--unknown", new, "--out", target)
    assert out.splitlines()[0].split() == ["score", "AUROC", "95", "%", "interval", "FPR95", "95", "%", "interval"]
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["knn:neighbours=2", "deep-svdd"]
    assert "36 unknown ones" in out
    assert "<svg" in target.with_suffix(".html").read_text("utf-8")
    assert "--reject 0.95" in said(capsys, "predict", normal, new, code=2)[1]
    assert "has no two classes" in said(capsys, "evaluate", normal, "--score", "knn", code=2)[1]
