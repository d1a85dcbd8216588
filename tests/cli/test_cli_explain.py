"""`repertoire explain` as a user would type it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repertoire import cli, train
from repertoire.cli._maps import MapArchive, file_stem
from repertoire.cli._progress import progress_bar
from repertoire.data import plain
from repertoire.explain import GradCAM, overlay, place_on

NAMES = ["a", "b c", "ünï #1?", "<b>&amp;", "A", "-dash"]


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = 0
    try:
        cli.main(["explain", *(str(a) for a in arguments)])
    except SystemExit as stop:
        status = int(stop.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    return train.fit(
        "shapes:count=200,classes=3", out=tmp_path_factory.mktemp("runs") / "a", size=16, epochs=1,
        backbone="convnet:width=8,depth=2", batch_size=32, device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def photos(run: train.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, name in enumerate(NAMES):
        Image.fromarray(run.splits.test.pixels([i])[0]).save(folder / f"{name}.png")
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "index.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_pictures_of_several_explainers_and_classes_and_where_they_came_from(run, photos, tmp_path, capsys):
    status, out, err = run_cli(
        capsys, run.path, photos, "--explainer", "grad-cam", "--explainer", "eigen-cam", "--top", 2, "--npz",
        "--out", tmp_path,
    )  # fmt: skip
    assert status == 0, err
    assert "24 pictures" in out
    index = rows(tmp_path)
    assert {row["picture"] for row in index} == {path.name for path in tmp_path.glob("*.png")}
    # "a" and "A" are one name on some disks.
    assert len({row["picture"].casefold() for row in index}) == 24
    assert {Path(row["image"]).stem for row in index} == set(NAMES)
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as saved:
        assert saved["maps"].shape == (6, 2, 2, 16, 16)
        assert saved["explainers"].tolist() == ["grad-cam", "eigen-cam"]
        assert saved["classes"].tolist() == list(run.classes)
        names, targets, maps = saved["names"].tolist(), saved["targets"], saved["maps"]
    for row in index:
        n, e = names.index(row["image"]), ["grad-cam", "eigen-cam"].index(row["explainer"])
        k = targets[n].tolist().index(run.classes.index(row["class"]))
        pixels = np.asarray(Image.open(row["image"]))
        probabilities = run.predict(pixels[None])[0]
        assert float(row["probability"]) == pytest.approx(probabilities[targets[n, k]], abs=1e-5)
        assert sorted(targets[n].tolist()) == sorted(np.argsort(-probabilities)[:2].tolist())
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / row["picture"])), overlay(pixels, maps[n, e, k]))
        if row["explainer"] == "grad-cam":
            expected = GradCAM()(run.model, plain(torch.from_numpy(pixels[None].copy())), int(targets[n, k]))
            np.testing.assert_allclose(maps[n, e, k], expected[0].numpy(), atol=1e-5)


def test_maps_that_are_not_normalised_keep_their_size(run, photos, tmp_path, capsys):
    spec = "integrated-gradients:normalize=false,samples=4"
    status, _, err = run_cli(capsys, run.path, photos, "--explainer", spec, "--npz", "--out", tmp_path)
    assert status == 0, err
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as saved:
        assert saved["maps"].min() < 0
        assert saved["targets"].shape == (6, 1)
    assert len(list(tmp_path.glob("*.png"))) == 6


def test_gallery_shows_every_picture_and_loads_nothing_from_elsewhere(run, photos, tmp_path, capsys):
    status, out, err = run_cli(
        capsys, run.path, photos, "--explainer", "grad-cam", "--explainer", "eigen-cam", "--gallery", "--out", tmp_path
    )
    assert status == 0, err
    assert f"gallery: {tmp_path / 'index.html'}" in out
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "eigen-cam gives the same map whatever the class" in page
    assert "<b>&amp;" not in page
    from urllib.parse import unquote

    sources = [unquote(source) for source in re.findall(r'<img[^>]* src="([^"]+)"', page)]
    assert len(sources) == 6 * 5
    assert all((tmp_path / source).is_file() for source in sources)
    assert "http" not in re.sub(r"http-equiv", "", page)


def test_several_classes_by_name(run, photos, tmp_path, capsys):
    status, _, err = run_cli(
        capsys, run.path, photos, "--class", run.classes[2], "--class", run.classes[0], "--out", tmp_path
    )
    assert status == 0, err
    assert {row["class"] for row in rows(tmp_path)} == {run.classes[2], run.classes[0]}
    assert len(list(tmp_path.glob("*.png"))) == 12


def test_unreadable_files_are_named_after_the_others(run, photos, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    out = tmp_path / "out"
    status, _, err = run_cli(capsys, run.path, bad, photos, "--npz", "--gallery", "--out", out)
    assert status == 2
    assert "bad.png" in err
    assert len(rows(out)) == 6
    with np.load(out / "maps.npz", allow_pickle=False) as saved:
        assert len(saved["names"]) == len(saved["maps"]) == 6
    assert run_cli(capsys, run.path, bad, photos, "--skip-unreadable", "--out", out)[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class", "cirle"], "did you mean 'circle'"),
        (["--explainer", "gradcam"], "'grad-cam'"),
        (["--explainer", "attention-rollout"], "explainer attention-rollout: "),
        (["--explainer", "grad-cam:layer=backbone.blcks.1"], "backbone.blocks.1"),
        (["--class", "circle", "--top", "2"], "give one of them"),
        (["--judge", "--gallery"], "leave out --gallery"),
    ],
)
def test_what_does_not_work_is_refused_before_an_image_is_read(run, tmp_path, capsys, options, message):
    status, _, err = run_cli(capsys, run.path, tmp_path / "missing.jpg", *options, "--out", tmp_path / "out")
    assert status == 2
    assert message in err
    assert "missing.jpg" not in err
    assert not (tmp_path / "out").exists()


def test_judge_of_the_test_images(run, tmp_path, capsys):
    options = ["--explainer", "grad-cam", "--explainer", "eigen-cam", "--explainer", "attention-rollout"]
    status, out, err = run_cli(capsys, run.path, "--judge", "--sample", 12, *options, "--out", tmp_path)
    assert status == 0, err
    assert "on object" in out.splitlines()[0]
    assert re.search(r"^random map ", out, re.MULTILINE)
    assert "warning: eigen-cam gives the same map" in out
    assert "left out: attention-rollout" in out
    saved = json.loads((tmp_path / "judge.json").read_text(encoding="utf-8"))
    assert saved["images"] == 12
    assert saved["sentence"] in out
    assert {row["name"] for row in saved["explainers"]} == {"grad-cam", "eigen-cam"}


def test_judge_of_given_images(run, photos, tmp_path, capsys):
    status, out, err = run_cli(
        capsys, run.path, photos, "--judge", "--explainer", "grad-cam", "--class", "circle", "--out", tmp_path
    )
    assert status == 0, err
    assert "on object" not in out.splitlines()[0]
    assert "on these 6 images" in out
    status, _, err = run_cli(capsys, run.path, photos / "a.png", "--judge", "--explainer", "grad-cam")
    assert status == 2
    assert "at least two images" in err


def test_archive_is_what_numpy_reads_and_vanishes_with_an_error(tmp_path):
    maps = np.random.default_rng(0).random((7, 2, 1, 5, 4), dtype=np.float32)
    with MapArchive(tmp_path / "m.npz", ["x", "y"], ["k"]) as archive:
        for part in (slice(0, 3), slice(3, 7)):
            archive.add(maps[part], [f"n{i}" for i in range(7)[part]], np.zeros((len(maps[part]), 1), np.int64))
    with np.load(tmp_path / "m.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["maps"], maps)
        assert saved["names"].tolist() == [f"n{i}" for i in range(7)]

    def fail() -> None:
        with MapArchive(tmp_path / "other.npz", ["x"], ["k"]) as archive:
            archive.add(maps[:, :1], ["n"] * 7, np.zeros((7, 1), np.int64))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["m.npz"]


def test_file_names_are_safe():
    assert file_stem("a/b:c") == "a_b_c"
    assert file_stem("..") == "image"
    assert file_stem("grad-cam++:layer=x") == "grad-cam++_layer_x"


def test_no_bar_without_a_terminal(capsys):
    with progress_bar("working", 3) as advance:
        advance(1, "")
    assert capsys.readouterr().err == ""


def test_a_photograph_gets_a_picture_of_its_own_size(run, tmp_path, capsys):
    """The map is what the network saw, the centre, put back onto the whole."""
    pixels = np.ascontiguousarray(np.broadcast_to(np.arange(120, dtype=np.uint8)[None, :, None], (80, 120, 3)))
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    status, out, err = run_cli(
        capsys, run.path, tmp_path / "photo.png", "--npz", "--gallery", "--out", tmp_path / "out"
    )
    assert status == 0, err
    assert "1 picture in" in out
    picture = np.asarray(Image.open(tmp_path / "out" / "photo.png"))
    assert picture.shape == (80, 120, 3)
    with np.load(tmp_path / "out" / "maps.npz", allow_pickle=False) as saved:
        heat = saved["maps"][0, 0, 0]
    assert heat.shape == (16, 16)
    np.testing.assert_array_equal(picture, overlay(pixels, place_on(heat, (80, 120), "crop")))
    (original,) = (tmp_path / "out" / "originals").iterdir()
    assert Image.open(original).size == (120, 80)


def test_the_index_keeps_what_is_still_there(run, photos, tmp_path, capsys):
    assert run_cli(capsys, run.path, photos / "a.png", photos / "A.png", "--out", tmp_path)[0] == 0
    assert len(rows(tmp_path)) == 2
    (tmp_path / "nothing.png").write_bytes(b"nothing")
    assert run_cli(capsys, run.path, tmp_path / "nothing.png", "--out", tmp_path)[0] == 2
    assert len(rows(tmp_path)) == 2, "a call that fails leaves the index"
    assert run_cli(capsys, run.path, photos / "b c.png", "--explainer", "layer-cam", "--out", tmp_path)[0] == 0
    assert {(Path(row["image"]).stem, row["explainer"]) for row in rows(tmp_path)} == {
        ("a", "grad-cam"), ("A", "grad-cam"), ("b c", "layer-cam"),
    }  # fmt: skip
    assert run_cli(capsys, run.path, photos / "a.png", "--explainer", "layer-cam", "--out", tmp_path)[0] == 0
    assert [row["explainer"] for row in rows(tmp_path) if Path(row["image"]).stem == "a"] == ["layer-cam"]
