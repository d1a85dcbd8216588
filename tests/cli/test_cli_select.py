from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repertoire import train
from repertoire.cli import main


@pytest.fixture(scope="module")
def run(options: dict, tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    return train.fit(out=tmp_path_factory.mktemp("run") / "a", **{**options, "epochs": 1})


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    return folder


def rows(capsys: pytest.CaptureFixture, *arguments: object) -> list[dict[str, str]]:
    with pytest.raises(SystemExit) as stop:
        main(["select", *map(str, arguments)])
    assert not stop.value.code
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["select", *map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("selector", ["margin", "random", "coreset", "badge", "typical:neighbours=3"])
def test_it_prints_what_to_label_next(run: train.Run, pool: Path, capsys: pytest.CaptureFixture, selector: str):
    found = rows(capsys, run.path, pool, "--budget", 5, "--selector", selector)
    assert [row["rank"] for row in found] == ["1", "2", "3", "4", "5"]
    assert len({row["image"] for row in found}) == 5
    for row in found:
        probabilities = run.predict(row["image"])[0]
        assert row["class"] == run.classes[int(probabilities.argmax())]
        assert float(row["probability"]) == pytest.approx(probabilities.max(), abs=1e-4)


def test_margin_takes_the_closest_calls(run: train.Run, pool: Path, capsys: pytest.CaptureFixture):
    paths = sorted(pool.glob("*.png"))
    best = np.sort(run.predict(paths), axis=1)
    expected = np.argsort(best[:, -1] - best[:, -2], kind="stable")[:4]
    found = rows(capsys, run.path, pool, "-n", 4)
    assert [Path(row["image"]).name for row in found] == [paths[i].name for i in expected]


def test_what_cannot_be_done(run: train.Run, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert "budget must be from 1 to 12" in refused(capsys, run.path, pool, "--budget", 13)
    assert "did you mean 'margin'" in refused(capsys, run.path, pool, "--selector", "margn").lower()
    broken = tmp_path / "pool"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no image")
    (broken / "b.png").write_bytes((pool / "00.png").read_bytes())
    assert "a.png" in refused(capsys, run.path, broken, "--budget", 1)
    found = rows(capsys, run.path, broken, "--budget", 1, "--skip-unreadable")
    assert [Path(row["image"]).name for row in found] == ["b.png"]
