"""A run that gives every pixel a class: from a folder to its maps, its report, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repertoire import cli, train
from repertoire.data import load
from repertoire.errors import RunError


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    splits = load("shapes:count=60,classes=2,targets=maps")
    for part in ("train", "val", "test"):
        samples = getattr(splits, part)
        for folder, values in (("images", samples.images), ("maps", samples.labels)):
            (root / part / folder).mkdir(parents=True)
            for number, value in enumerate(values):
                Image.fromarray(value).save(root / part / folder / f"{part}-{number:02d}.png")
    (root / "classes.txt").write_text("\n".join(splits.classes), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory) -> train.Run:
    out = tmp_path_factory.mktemp("runs") / "scenes"
    return train.fit(
        str(scenes), backbone="convnet:width=8,depth=2", epochs=2, batch_size=8, device="cpu", out=out, quiet=True
    )


def test_what_is_measured_again_is_what_was_measured(run, scenes):
    assert (run.config.head, run.config.method, run.config.loss) == ("dense", "supervised", "cross-entropy")
    assert run.classes == ("background", "circle", "square")
    for found in (run.evaluate(), run.evaluate(scenes / "test")):
        assert found["miou"] == pytest.approx(run.metrics["miou"], abs=1e-6)
        assert found["confusion"] == run.metrics["confusion"]
    predicted = run.predict(run.splits.test)
    assert np.mean(predicted == run.splits.test.labels) == pytest.approx(run.metrics["pixel_accuracy"])


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_commands(run, scenes, tmp_path, capsys):
    images = scenes / "test" / "images"
    assert command("predict", run.path, "--out", tmp_path / "maps", images) == 0
    expected = run.predict(sorted(images.iterdir()))
    for path, classes in zip(sorted(images.iterdir()), expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "maps" / path.name)), classes)
    capsys.readouterr()
    assert command("evaluate", run.path, "--out", tmp_path / "metrics.json") == 0
    assert f"mean IoU {run.metrics['miou']:.1%} (" in capsys.readouterr().out
    assert command("predict", run.path, images) != 0
    assert "--out" in capsys.readouterr().err


def test_the_report_shows_classes_and_maps(run, tmp_path):
    page = run.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Classes of pixels" in page
    assert page.count("predicted map of") == min(6, len(run.splits.test))
    assert "repertoire explain" not in page


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.explain(run.splits.test),
        lambda run: run.export("onnx"),
        lambda run: run.probe(),
        lambda run: run.evaluate(tta=True),
        lambda run: run.predict(run.splits.test, tta=True),
        lambda run: run.predict_proba(run.splits.test),
        lambda run: train.Ensemble([run, run]),
    ],
)
def test_what_is_of_one_answer_for_an_image_is_refused(run, call):
    with pytest.raises(RunError, match=r"pixel|predicts maps"):
        call(run)
