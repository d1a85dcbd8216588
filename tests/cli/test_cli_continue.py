from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repertoire import load
from repertoire.cli import main
from repertoire.estimators import NearestCentroid, load_estimator, save_estimator
from repertoire.train import Run, fit


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def run(options: dict, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(**{**options, "epochs": 1}, out=tmp_path_factory.mktemp("runs") / "a")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One class that the run does not know, as an awkward folder has it."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("data") / "new photos" / "new, class"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (30, 8, 8), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder.parent


def test_it_learns_one_class_more_and_says_what_it_forgot(
    run: Run, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    arguments = (
        "continue",
        run.path,
        new,
        "--by",
        "replay",
        "--memory",
        "20",
        "--epochs",
        1,
        "-q",
        "-o",
        tmp_path / "b",
    )
    assert command(*arguments) == 0
    said = capsys.readouterr().out
    for words in ("stage 1: tiny", "stage 2: new-photos", "forgetting: ", "try next: repertoire predict"):
        assert words in said
    assert load(tmp_path / "b").classes == (*run.classes, "new, class")
    page = (tmp_path / "b" / "stages" / "report.html").read_text(encoding="utf-8")
    assert "new-photos" in page
    assert str(run.path) in page, "where the run of the first stage lies"
    assert (tmp_path / "b" / "report.html").exists()
    assert command(*arguments) == 0, "the same command goes on with what is finished"
    assert capsys.readouterr().out == said
    assert command("report", tmp_path / "b") == 0
    assert "report of its stages: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--by", "repaly"), "replay"),
        (("--memory", "lots"), "expected a number of samples"),
        (("--choose", "best"), "keep must be 'reservoir', 'herding' or 'typical'"),
        (("--store", "halves"), "store must be 'whole' or 'patches'"),
        (("--store", "patches"), "use --method mae-cil, or store=whole"),
        (("--store", "patches", "--share", "1"), "share must lie in (0, 1)"),
        (("--by", "simclr"), "simclr"),
        (("--epochs", "0"), "epochs"),
        (("--backbone", "resnet20"), "--backbone"),
    ],
)
def test_what_is_refused(
    run: Run, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: tuple[str, ...], words: str
):
    assert command("continue", run.path, new, *arguments, "-q", "-o", tmp_path / "b") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_no_run_and_no_data(run: Run, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert command("continue", tmp_path / "none", new) == 2
    assert "no run" in capsys.readouterr().err
    assert command("continue", run.path, tmp_path / "none") == 2
    assert "none" in capsys.readouterr().err


def rows(path: Path, classes: list[str], width: int = 4, seed: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    labels = np.arange(60) % len(classes)
    centres = np.eye(4, width, dtype=np.float32)[[ord(c) - ord("a") for c in classes]]
    features = 3 * centres[labels] + generator.normal(size=(60, width)).astype(np.float32) / 4
    np.savez(path, features=features, labels=labels, classes=np.array(classes))
    return path


def test_an_estimator_learns_further_too(tmp_path: Path, capsys: pytest.CaptureFixture):
    generator = np.random.default_rng(1)
    X = 3 * np.eye(4)[[0, 1] * 20] + generator.normal(size=(40, 4)) / 4
    save_estimator(NearestCentroid().fit(X, ["a", "b"] * 20), tmp_path / "kept")
    assert command("continue", tmp_path / "kept", rows(tmp_path / "c.npz", ["c"]), "-o", tmp_path / "more") == 0
    assert "among all 3 classes: 100.0%" in capsys.readouterr().out
    assert load_estimator(tmp_path / "more").predict(3 * np.eye(4)[:3]).tolist() == ["a", "b", "c"]
    wide = rows(tmp_path / "wide.npz", ["c"], width=5)
    assert command("continue", tmp_path / "kept", wide, "-o", tmp_path / "wide") == 2
    assert "width 5" in capsys.readouterr().err
    assert command("continue", tmp_path / "kept", tmp_path / "c.npz", "--epochs", "3", "-o", tmp_path / "x") == 2
    assert "--epochs is for networks" in capsys.readouterr().err
    assert command("continue", tmp_path / "kept", tmp_path / "c.npz", "--by", "lwf", "-o", tmp_path / "x") == 2
    assert command("continue", tmp_path / "kept", tmp_path / "c.npz", "--store", "patches", "-o", tmp_path / "x") == 2
    assert "--by is for networks" in capsys.readouterr().err


def test_stages_of_an_estimator_on_features(tmp_path: Path, capsys: pytest.CaptureFixture):
    data = rows(tmp_path / "all.npz", ["a", "b", "c", "d"])
    arguments = ("train", data, "--protocol", "classes:step=2", "--learner", "nearest-centroid", "-o", tmp_path / "s")
    assert command(*arguments) == 0
    said = capsys.readouterr().out
    assert "average accuracy at the end: 100.0%" in said
    assert "bound above, everything at once: 100.0%" in said
    last = said.split("seen all stages: ", 1)[1].split("\n", 1)[0]
    assert load_estimator(last).classes_.tolist() == ["a", "b", "c", "d"]
    assert command(*arguments) == 0
    assert capsys.readouterr().out == said
    assert command("train", data, "--learner", "nearest-centroid") == 2
    assert "--protocol" in capsys.readouterr().err
    assert command(*arguments[:4], "--learner", "nearest-centroid", "--loss", "focal") == 2
    assert "leave --loss out" in capsys.readouterr().err
    assert command(*arguments[:4], "--learner", "label-spreading", "-o", tmp_path / "t") == 2
    assert "learns from everything at once" in capsys.readouterr().err
