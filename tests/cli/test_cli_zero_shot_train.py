"""`train --attributes`, as typed: classes without an image, and a run that is killed before it knows them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from commands import run_cli
from repertoire import cli
from repertoire.cli import _zero_shot
from repertoire.zeroshot import COSMO

NAMES = ["plane", "car", "cat", "ship", "truck", "horse", "frog"]
LIKE = np.array(
    [
        [0, 1, 0, 0, 1, 0, 1],
        [1, 0, 0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0, 1, 0],
        [0, 0, 0, 1, 1, 0, 1],
        [1, 0, 0, 0, 1, 0, 1],
        [0, 0, 1, 0, 0, 1, 1],
        [0, 0, 0, 1, 0, 1, 0],
    ]
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of six classes, and of a seventh that is only described."""
    root = tmp_path_factory.mktemp("described")
    generator = np.random.default_rng(0)
    way = generator.normal(size=(7, 16))
    y, new = np.repeat(np.arange(6), 40), np.repeat(np.arange(7), 5)
    x, more = (LIKE[c] @ way + 0.3 * generator.normal(size=(len(c), 16)) for c in (y, new))
    np.savez(root / "rows.npz", features=x.astype(np.float32), labels=y, classes=NAMES[:6])
    np.savez(root / "new.npz", features=more.astype(np.float32), names=np.array(NAMES)[new])
    lines = [",".join([name, *map(str, row)]) for name, row in zip(NAMES, LIKE.tolist(), strict=True)]
    (root / "like.csv").write_text("class,wheels,wings,fur,water,engine,legs,long\n" + "\n".join(lines) + "\n")
    return root


def asked(world: Path, *more: object) -> tuple[object, ...]:
    return ("train", world / "rows.npz", "--attributes", world / "like.csv", "--epochs", 1, "-q", "--no-report", *more)


@pytest.fixture
def trained(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    how = ("--method", "zero-shot:map=generator,gate=constant")
    status, out, err = run_cli(capsys, *asked(world, *how, "--unseen", "ship", "--out", tmp_path / "run"))
    assert status == 0, err
    assert "told of by attributes alone: 1 of 7 (ship)" in out
    assert f"figure: {tmp_path / 'run' / 'described' / 'described.html'}" in out
    return tmp_path / "run"


def test_a_run_answers_with_classes_that_it_had_no_image_of(trained: Path, world: Path, capsys):
    said = {
        form: run_cli(capsys, "predict", trained, world / "new.npz", "--format", form)[1]
        for form in ("table", "csv", "json")
    }
    rows = list(csv.DictReader(io.StringIO(said["csv"])))
    right = [row["class"] == row["image"] for row in rows]
    assert np.mean(right) > 0.9
    assert [row["class"] for row in rows if row["image"] == "frog"].count("frog") >= 4
    assert [found["class"] for found in json.loads(said["json"])] == [row["class"] for row in rows]
    assert "probability" not in json.loads(said["json"])[0], "its scores are no probabilities"
    assert [line.split()[0] for line in said["table"].splitlines()] == [row["class"] for row in rows]
    page = (trained / "described" / "described.html").read_text("utf-8")
    assert "<svg" in page
    assert "ship" in page
    metrics = json.loads((trained / "described" / "metrics.json").read_text())
    assert f"{metrics['ausuc']:.3f}" in page


def test_killed_before_it_knew_the_classes_it_goes_on_to_the_same_bits(
    trained: Path, world: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    cut = tmp_path / "cut"
    how = ("--method", "zero-shot:map=generator,gate=constant", "--unseen", "ship", "--out", cut)
    with monkeypatch.context() as patch:
        # What comes last says that all of it was done, so that nothing may count before.
        patch.setattr("repertoire.estimators.save_estimator", killed)
        with pytest.raises(SystemExit):
            cli.main([str(part) for part in asked(world, *how)])
    capsys.readouterr()
    status, _, err = run_cli(capsys, "predict", cut, world / "new.npz")
    assert status == 2
    assert f"repertoire train --resume {cut}" in err
    (world / "like.csv").rename(world / "gone.csv")  # what was described stands in the run
    try:
        assert run_cli(capsys, "train", "--resume", cut, "-q")[0] == 0
    finally:
        (world / "gone.csv").rename(world / "like.csv")
    for name in ("estimator.safetensors", "estimator.json", "metrics.json"):
        assert (cut / "described" / name).read_bytes() == (trained / "described" / name).read_bytes(), name


def test_the_gate_is_that_of_the_method(world: Path, tmp_path: Path, capsys):
    assert run_cli(capsys, *asked(world, "--out", tmp_path / "run"))[0] == 0
    model = _zero_shot.Described(cli_run(tmp_path / "run")).model
    assert isinstance(model, COSMO)
    assert (model.expert, model.gate) == ("eszsl", "soft")
    found = json.loads(run_cli(capsys, "predict", tmp_path / "run", world / "new.npz", "--format", "json")[1])
    assert all(0 < row["probability"] <= 1 for row in found)


def cli_run(path: Path):
    from repertoire import load

    return load(path)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--method", "zero-shot:map=bilinaer"), "did you mean 'bilinear'"),
        (("--method", "zero-shot:gate=door"), "no gate of zero-shot is named 'door'"),
        (("--method", "zero-shot:ridge=1"), "takes map=NAME and gate=NAME"),
        (("--method", "simclr"), "--attributes goes with --method zero-shot"),
        (("--tune", "all"), "Leave out --tune"),
        (("--folds", 3), "leave out --folds"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(world: Path, tmp_path: Path, capsys, more, words):
    status, _, err = run_cli(capsys, *asked(world, *more, "--out", tmp_path / "run"))
    assert status == 2
    assert words in err
    assert not (tmp_path / "run").exists()


def test_one_option_without_the_other(world: Path, tmp_path: Path, capsys):
    for more in (("--method", "zero-shot"), ("--unseen", "cat")):
        status, _, err = run_cli(capsys, "train", world / "rows.npz", *more)
        assert (status, "give --attributes FILE" in err) == (2, True)
