"""`repertoire discover`, as typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import run_cli
from repertoire import recipe

QUICK = "semi-supervised-k-means"


def rows(classes: int = 5, each: int = 20) -> tuple[np.ndarray, np.ndarray]:
    truth = np.repeat(np.arange(classes), each)
    x = 6 * np.eye(classes, 8)[truth] + np.random.default_rng(0).normal(size=(len(truth), 8))
    return x.astype(np.float32), truth


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Five classes far apart, three of which are known by half of their rows."""
    x, truth = rows()
    known = (truth < 3) & (np.arange(len(truth)) % 2 == 0)
    names = np.array(["fox", "owl", "elk", "=new", "newt"])
    np.savez(
        tmp_path / "f.npz", features=x, labels=np.where(known, truth, -1), classes=names[:3], truth=names[truth],
        names=[f"{i}.jpg" for i in range(len(x))],
    )  # fmt: skip
    return tmp_path / "f.npz"


def test_groups_are_written_and_judged_where_the_truth_is_known(features: Path, tmp_path: Path, capsys):
    arguments = ("discover", features, "--method", QUICK, "--truth", "--out", tmp_path / "a")
    status, out, err = run_cli(capsys, *arguments)
    assert status == 0, err
    assert "70 rows: 30 of 3 known classes, 40 in 2 new groups; about 5 classes in all" in out
    assert "all 100.0%, old 100.0%, new 100.0%" in out
    found = list(csv.DictReader((tmp_path / "a" / "groups.csv").open()))
    assert len(found) == 70
    assert [row["group"] for row in found[:30]] == ["fox"] * 10 + ["owl"] * 10 + ["elk"] * 10
    assert {row["group"] for row in found[30:]} == {"new 1", "new 2"}
    assert {row["new"] for row in found[30:]} == {"yes"}
    assert all(float(row["outlier_score"]) >= 0 for row in found)
    kept = json.loads((tmp_path / "a" / "discovered.json").read_text())
    assert kept["estimated_classes"] == 5
    assert kept["accuracy_new"] == 1.0
    # The same command again, after it was stopped before the end, gives the same.
    before = (tmp_path / "a" / "groups.csv").read_bytes()
    (tmp_path / "a" / "groups.csv").unlink()
    assert run_cli(capsys, *arguments)[0] == 0
    assert (tmp_path / "a" / "groups.csv").read_bytes() == before
    status, _, err = run_cli(capsys, *arguments, "--classes", 6)
    assert status == 2
    assert "holds groups of another classes: 'auto'" in err


def test_known_classes_may_lie_in_another_file(features: Path, tmp_path: Path, capsys):
    x, truth = rows()
    first = truth < 3
    np.savez(tmp_path / "known.npz", features=x[first][::2], labels=truth[first][::2], classes=["fox", "owl", "elk"])
    np.savez(tmp_path / "rest.npz", features=np.concatenate([x[first][1::2], x[~first]]))
    status, out, err = run_cli(
        capsys, "discover", tmp_path / "rest.npz", "--known", tmp_path / "known.npz", "--method", QUICK, "--classes",
        5, "--out", tmp_path / "b",
    )  # fmt: skip
    assert status == 0, err
    assert "40 in 2 new groups\n" in out
    assert len(list(csv.DictReader((tmp_path / "b" / "groups.csv").open()))) == 70


def test_images_are_embedded_first(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    x, truth = rows()
    asked = []

    def embed_data(config, out, report):
        asked.append((config.data, config.unlabelled, config.backbone))
        pool = (truth >= 3) | (np.arange(len(truth)) % 2 == 1)
        names = [f"{'abcde'[t]}/{i}.jpg" for i, t in enumerate(truth)]
        split = np.where(pool, "unlabelled", "train")
        np.savez(out, features=x, labels=np.where(pool, 0, truth), names=names, split=split, classes=["a", "b", "c"])

    monkeypatch.setattr(recipe, "embed_data", embed_data)
    (tmp_path / "known").mkdir()
    for i in np.flatnonzero((truth >= 3) | (np.arange(len(truth)) % 2 == 1)):
        place = tmp_path / "photos" / "abcde"[truth[i]] / f"{i}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (40 * truth[i], 90, 200)).save(place)
    status, out, err = run_cli(
        capsys, "discover", tmp_path / "photos", "--known", tmp_path / "known", "--method", QUICK, "--truth", "--out",
        tmp_path / "c",
    )  # fmt: skip
    assert status == 0, err
    assert asked == [(str(tmp_path / "known"), str(tmp_path / "photos"), "lite0")]
    assert "new 100.0%" in out
    found = list(csv.DictReader((tmp_path / "c" / "groups.csv").open()))
    assert found[0]["file"] == "a/1.jpg"
    page = (tmp_path / "c" / "index.html").read_text()
    assert page.index("new 1") < page.index('<h2 id="group-3">a</h2>'), "new groups come first"
    assert page.count("<img") == 10 * 3 + 12 * 2, "a dozen of each group at most"
    assert "20 images, a new group; the 12 that fit it best." in page


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--method", "protogdc"), "'protogcd'"),
        (("--method", "protogcd:epoch=3"), "'epochs'"),
        (("--method", "protogcd:supervised=2"), "supervised must lie in"),
        (("--method", "k-means:classes=4"), "give it as --classes"),
        (("--classes", "many"), "--classes is 'many'"),
        (("--classes", 2, "--method", QUICK), "classes must lie in 3.."),
    ],
)
def test_what_cannot_be_done_is_said(features: Path, tmp_path: Path, capsys, more, said):
    status, _, err = run_cli(capsys, "discover", features, *more, "--out", tmp_path / "d")
    assert status == 2
    assert said in err
    assert not (tmp_path / "d" / "groups.csv").exists()


def test_data_that_says_too_little_is_refused(features: Path, tmp_path: Path, capsys):
    status, _, err = run_cli(capsys, "discover", tmp_path, "--out", tmp_path / "e")
    assert (status, "--known KNOWN/" in err) == (2, True)
    x, truth = rows()
    np.savez(tmp_path / "g.npz", features=x, labels=truth)
    status, _, err = run_cli(capsys, "discover", tmp_path / "g.npz", "--out", tmp_path / "e")
    assert (status, "nothing is left to group" in err) == (2, True)
    status, _, err = run_cli(capsys, "discover", tmp_path / "g.npz", "--truth", "--out", tmp_path / "f")
    assert (status, "no array called truth" in err) == (2, True)
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "mine.txt").write_text("keep")
    status, _, err = run_cli(capsys, "discover", features, "--out", tmp_path / "h")
    assert (status, "exists already" in err) == (2, True)


def test_nothing_new_is_not_taken_for_certain(tmp_path: Path, capsys):
    x, truth = rows(3)
    known = np.arange(len(truth)) % 2 == 0
    np.savez(tmp_path / "f.npz", features=x, labels=np.where(known, truth, -1))
    status, out, err = run_cli(capsys, "discover", tmp_path / "f.npz", "--method", QUICK, "--out", tmp_path / "a")
    assert status == 0, err
    assert "30 of 3 known classes, 0 in 0 new groups" in out
    assert "no proof that nothing is new: try --classes" in out


def test_killed_while_it_writes_its_first_file_it_begins_again(features: Path, tmp_path: Path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".settings.json.x1y2.tmp").write_text('{"data":')
    status, _, err = run_cli(capsys, "discover", features, "--method", QUICK, "--out", tmp_path / "a")
    assert status == 0, err
