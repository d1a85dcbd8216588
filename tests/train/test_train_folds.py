from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import repertoire
from repertoire.cli import main
from repertoire.data import load
from repertoire.errors import ConfigError, DataError, Interrupted, RunError
from repertoire.report import write_folds
from repertoire.train import Folds, fit_folds, resume_folds

OPTIONS = {"backbone": "convnet:width=8,depth=2", "augment": "shift", "epochs": 2, "lr": 0.05, "device": "cpu"}


@pytest.fixture(scope="module")
def done(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Folds:
    return fit_folds(str(tiny), 3, out=tmp_path_factory.mktemp("folds") / "cv", **OPTIONS)


def test_every_sample_is_answered_by_the_run_that_had_not_seen_it(done: Folds):
    found = done.out_of_fold
    assert sorted(found["names"].tolist(), key=int) == [str(i) for i in range(240)]
    for number, run in enumerate(done.runs, 1):
        mine = found["fold"] == number
        assert run.config.fold == f"{number}/3"
        assert run.splits.test.names == found["names"][mine].tolist()
        assert not np.isin(run.splits.test.keys, run.splits.train.keys).any()
        np.testing.assert_allclose(run.predict(run.splits.test), found["values"][mine], atol=1e-5)


def test_mean_and_interval_are_those_of_the_folds(done: Folds):
    summary = done.summary
    row = summary["metrics"]["accuracy"]
    assert row["values"] == [run.metrics["accuracy"] for run in done.runs]
    assert row["mean"] == pytest.approx(np.mean(row["values"]))
    # 80 samples are tested for 144 that are trained on: of the 160 others, a tenth of each class validates.
    assert summary["overlap"] == pytest.approx(np.mean([run["test"] / run["train"] for run in summary["runs"]]))
    assert [run["test"] for run in summary["runs"]] == [80, 80, 80]
    half = 4.302653 * np.std(row["values"], ddof=1) * math.sqrt(1 / 3 + summary["overlap"])  # t with 2 degrees, 97.5 %
    expected = [max(0, row["mean"] - half), min(1, row["mean"] + half)]
    assert row["interval"] == pytest.approx(expected, abs=1e-6)
    # Folds of one size: the share that is right of all is the mean of the shares.
    assert summary["out_of_fold"]["accuracy"] == pytest.approx(row["mean"])
    assert summary["out_of_fold"]["images"] == 240
    assert summary["held_out"] is None


def test_together_they_are_an_ensemble(done: Folds, tiny: Path):
    images = load(tiny).test
    mean = np.mean([run.predict(images) for run in done.runs], axis=0)
    np.testing.assert_allclose(done.predict(images), mean, atol=1e-7)
    assert done.evaluate() == done.summary["out_of_fold"]
    assert done.evaluate(images)["images"] == len(images)


def test_what_is_finished_is_not_done_again(done: Folds, tiny: Path, tmp_path: Path):
    shutil.copytree(done.path, tmp_path / "cv")
    shutil.rmtree(tmp_path / "cv" / "fold-2")
    (tmp_path / "cv" / "summary.json").unlink()
    before = (tmp_path / "cv" / "fold-1" / "metrics.json").stat().st_mtime_ns
    with pytest.raises(RunError, match=r"fold 2 of 3 in .* is not finished; go on: repertoire\.train\.resume"):
        Folds(tmp_path / "cv")
    again = resume_folds(tmp_path / "cv")
    assert (tmp_path / "cv" / "fold-1" / "metrics.json").stat().st_mtime_ns == before
    assert again.summary == done.summary
    np.testing.assert_array_equal(again.out_of_fold["values"], done.out_of_fold["values"])


def test_a_fold_that_was_interrupted_goes_on(done: Folds, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from repertoire.train import _session

    finish = _session._finish

    def stop(directory, *arguments):
        if directory.path.name == "fold-2":
            raise Interrupted("stopped")
        finish(directory, *arguments)

    monkeypatch.setattr(_session, "_finish", stop)
    with pytest.raises(Interrupted, match="the same command goes on"):
        fit_folds(str(tiny), 3, out=tmp_path / "cv", **OPTIONS)
    monkeypatch.undo()
    assert json.loads((tmp_path / "cv" / "fold-2" / "run.json").read_text())["status"] == "interrupted"
    assert not (tmp_path / "cv" / "fold-3").exists()
    assert fit_folds(str(tiny), 3, out=tmp_path / "cv", **OPTIONS).summary == done.summary


def test_another_configuration_or_other_files_are_refused(done: Folds, tiny: Path, tmp_path: Path):
    with pytest.raises(RunError, match="another configuration: epochs was 2, is 3; choose another out"):
        fit_folds(str(tiny), 3, out=done.path, **{**OPTIONS, "epochs": 3})
    with pytest.raises(RunError, match="folds was 3, is 4"):
        fit_folds(str(tiny), 4, out=done.path, **OPTIONS)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty and holds no folds"):
        fit_folds(str(tiny), 3, out=tmp_path, **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(RunError, match=r"not a run directory: .* it holds folds, each of which is a run, such as"):
        repertoire.load(done.path)
    with pytest.raises(RunError, match="holds no folds"):
        Folds(tmp_path)


def test_what_is_refused_before_anything_is_written(tiny: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="fold is one of several, and folds all of them"):
        fit_folds(str(tiny), 3, out=tmp_path / "cv", fold="1/3", **OPTIONS)
    with pytest.raises(DataError, match="fewer than 300 folds"):
        fit_folds(str(tiny), 300, out=tmp_path / "cv", **OPTIONS)
    with pytest.raises(ConfigError, match="expected NUMBER/FOLDS"):
        repertoire.fit(str(tiny), fold="3/2", **OPTIONS)
    assert not (tmp_path / "cv").exists()


def test_plugins_of_somebody_else_are_not_imported(done: Folds, tmp_path: Path):
    shutil.copytree(done.path, tmp_path / "cv")
    manifest = json.loads((tmp_path / "cv" / "folds.json").read_text())
    manifest["config"]["plugins"] = ["evil"]
    (tmp_path / "cv" / "folds.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"names plugins, which are code .* plugins='evil'"):
        resume_folds(tmp_path / "cv")


def test_features_in_memory_with_a_test_part_of_their_own(tmp_path: Path):
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    rows = rng.normal(size=(90, 6)).astype(np.float32) + 3 * labels[:, None]
    part = np.where(np.arange(90) < 60, "train", "test")
    np.savez(tmp_path / "features.npz", features=rows, labels=labels, split=part)
    folds = fit_folds(str(tmp_path / "features.npz"), 2, out=tmp_path / "cv", epochs=3, device="cpu")
    assert folds.summary["held_out"]["images"] == 30
    assert folds.summary["out_of_fold"]["images"] == 60
    assert folds.evaluate() == folds.summary["held_out"]

    held = fit_folds((rows, labels), 2, out=tmp_path / "memory", epochs=2, device="cpu")
    assert len(held.out_of_fold["labels"]) == 90
    assert len(held.runs[1].splits.test) == 45


def test_numbers_are_in_the_units_of_the_data(tmp_path: Path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 4)).astype(np.float32)
    ages = (40 + 10 * rows[:, :1]).astype(np.float32)
    folds = fit_folds((rows, ages), 2, out=tmp_path / "cv", epochs=40, lr=0.1, device="cpu")
    found = folds.out_of_fold
    away = np.abs(found["values"] - found["labels"]).mean()
    assert away < 6  # 8 is what the mean alone would be off
    assert folds.summary["out_of_fold"]["mae"] == pytest.approx(away, rel=1e-3)
    low, high = folds.summary["metrics"]["mae"]["interval"]
    assert 0 <= low < high


def test_the_page_shows_folds_and_mistakes(done: Folds, tmp_path: Path):
    page = write_folds(done, tmp_path / "page.html").read_text()
    for words in ("3 runs, each tested", "Fold 3", "By class", "240 images", "Nadeau"):
        assert words in page
    rows = list(csv.reader((done.path / "predictions.csv").read_text().splitlines()))
    assert rows[0] == ["path", "fold", "true", "predicted", "probability"]
    wrong = [row for row in rows[1:] if row[2] != row[3]]
    assert ("Most certain mistakes" in page) == bool(wrong)
    assert len(rows) == 241
    with pytest.raises(RunError, match="is a directory"):
        write_folds(done, tmp_path)


def command(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    said = capsys.readouterr()
    return int(stop.value.code or 0), said.out, said.err


def test_on_the_command_line(done: Folds, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "cv"
    shutil.copytree(done.path, path)
    words = ("--backbone", OPTIONS["backbone"], "--augment", "shift", "--epochs", 2, "--lr", 0.05, "--device", "cpu")
    code, out, _ = command(capsys, "train", tiny, "--folds", 3, *words, "-q", "-o", path)
    assert code == 0
    assert "240 images, each tested once" in out
    assert f"report: {path}/report.html" in out
    assert (path / "report.html").exists()
    mean = done.summary["metrics"]["accuracy"]["mean"]
    assert f"{mean:.1%} (" in out.split("\n")[1]

    code, out, _ = command(capsys, "train", "--resume", path, "-q", "--no-report")
    assert code == 0
    assert "each tested once" in out
    code, _, err = command(capsys, "train", "--resume", path, "--epochs", 9)
    assert code == 2
    assert "takes no other options, found --epochs" in err
    code, _, err = command(capsys, "train", tiny, "--folds", 3, "--overwrite")
    assert code == 2
    assert "leave --overwrite out" in err

    code, out, _ = command(capsys, "evaluate", path)
    assert code == 0
    assert "each sample by the run that was not trained on it" in out
    assert f"metrics: {path}/evaluation-test/metrics.json" in out
    from PIL import Image

    Image.fromarray(load(tiny).test.pixels([0])[0, :, :, 0]).save(tmp_path / "one.png")
    code, out, _ = command(capsys, "predict", path, tmp_path / "one.png")
    assert code == 0
    best = done.predict(tmp_path / "one.png").max()
    assert f"{best:.1%}" in out
    code, _, err = command(capsys, "embed", path, tmp_path / "one.png")
    assert code == 2
    assert "it holds folds" in err
