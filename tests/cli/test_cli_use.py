"""The command line where it is not used as its makers would: pipes, encodings, plugins, other tools' options."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from commands import run_cli
from repertoire import backbones, cli, data, train


def shell(command: str, *arguments: object, **named: object) -> subprocess.CompletedProcess[bytes]:
    """`repertoire` in a shell, as $R, and further arguments as $1, $2, ..."""
    program = f'R="{sys.executable} -m repertoire"; {command}'
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **named.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.run(
        ["bash", "-c", program, "bash", *map(str, arguments)],
        capture_output=True,
        check=False,
        env=environment,
        **named,
    )  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for k, name in enumerate(["rot", "blau 写"]):
        (root / name).mkdir()
        for i in range(20):
            pixels = generator.integers(0, 110, (20, 24, 3), dtype=np.uint8)
            pixels[..., 2 * k] += 100
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


OPTIONS = {
    "size": 16,
    "backbone": "convnet:width=8,depth=2",
    "batch_size": 16,
    "lr": 0.05,
    "device": "cpu",
    "tune": "all",
}


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    return train.fit(photos, out=tmp_path_factory.mktemp("runs") / "a", epochs=3, **OPTIONS)


class Piped:
    """Stands for standard input with something in it."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


class TestInput:
    def test_an_image_comes_on_standard_input(self, run: train.Run, photos: Path, capsys, monkeypatch):
        image = photos / "rot" / "00.png"
        monkeypatch.setattr(sys, "stdin", Piped(image.read_bytes()))
        status, out, err = run_cli(capsys, "predict", run.path, "-", "--format", "json")
        assert status == 0, err
        (row,) = json.loads(out)
        assert row["image"] == "-"
        assert row["probability"] == pytest.approx(run.predict(image).max(), abs=1e-5)

    @pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
    def test_lists_from_windows_are_lists(self, run: train.Run, photos: Path, capsys, monkeypatch, start: bytes):
        paths = sorted((photos / "rot").glob("*.png"))[:3]
        text = start + "\r\n".join(map(str, paths)).encode() + b"\r\n\r\n"
        monkeypatch.setattr(sys, "stdin", Piped(text))
        status, out, err = run_cli(capsys, "predict", run.path, "-", "--format", "csv")
        assert status == 0, err
        assert [row["image"] for row in csv.DictReader(io.StringIO(out))] == [str(p) for p in paths]

    def test_a_list_of_labels_shows_the_true_ones_and_the_accuracy(
        self, run: train.Run, photos: Path, tmp_path, capsys
    ):
        rows = [f"{path},{path.parent.name}" for path in sorted(photos.rglob("*.png"))]
        (tmp_path / "l.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
        status, out, err = run_cli(capsys, "predict", run.path, tmp_path / "l.csv", "--format", "json")
        assert status == 0, err
        found = json.loads(out)
        share = np.mean([row["class"] == row["true"] for row in found])
        assert f"accuracy {share:.1%}" in err
        assert "on 40 labelled images" in err
        status, out, err = run_cli(capsys, "evaluate", run.path, tmp_path / "l.csv", "--out", tmp_path / "m.json")
        assert status == 0, err
        assert json.loads((tmp_path / "m.json").read_text())["accuracy"] == pytest.approx(share)
        status, out, err = run_cli(capsys, "embed", run.path, tmp_path / "l.csv", "--out", tmp_path / "f.npz")
        assert status == 0, err
        with np.load(tmp_path / "f.npz") as saved:
            assert saved["labels"].tolist() == [1 - i // 20 if run.classes[0] == "rot" else i // 20 for i in range(40)]
            assert saved["classes"].tolist() == list(run.classes)

    def test_a_run_that_skipped_in_training_skips_after_it(self, run: train.Run, photos: Path, tmp_path: Path, capsys):
        copied = Path(shutil.copytree(run.path, tmp_path / "a"))
        config = copied / "config.yaml"
        config.write_text(config.read_text().replace("skip_unreadable: false", "skip_unreadable: true"))
        (tmp_path / "bad.png").write_bytes(b"nothing")
        arguments = ["predict", copied, tmp_path / "bad.png", photos / "rot" / "00.png"]
        status, _, err = run_cli(capsys, *arguments)
        assert status == 0, err
        assert "1 of 2 images were skipped" in err
        status, _, err = run_cli(capsys, *arguments, "--no-skip-unreadable")
        assert status == 2
        assert "go on without them with --skip-unreadable" in err


class TestOutput:
    @pytest.mark.parametrize("format", ["table", "csv", "json"])
    def test_what_the_encoding_does_not_know_is_escaped(self, run: train.Run, photos: Path, monkeypatch, format: str):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
        with pytest.raises(SystemExit) as stop:
            cli.main(["predict", str(run.path), str(photos / "rot" / "00.png"), "--top", "2", "--format", format])
        assert not stop.value.code
        sys.stdout.flush()
        text = raw.getvalue().decode("latin-1")
        if format == "json":
            assert {row["class"] for row in json.loads(text)[0]["top"]} == set(run.classes)
        else:
            assert r"blau \u5199" in text

    @pytest.mark.parametrize("redirection", ["2>/dev/full", ">&- 2>&-"])
    def test_nobody_watching_ends_no_training(self, photos: Path, tmp_path: Path, redirection: str):
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in OPTIONS.items())
        shell(f'$R train "$1" {flags} --epochs 2 --no-report --out "$2" {redirection}', photos, tmp_path / "a")
        found = train.load(tmp_path / "a")
        assert found.info["status"] == "finished"
        assert len(found.history) == 2


class TestSeveral:
    def test_further_runs_before_the_images_are_an_ensemble(self, run: train.Run, photos: Path, tmp_path, capsys):
        other = train.fit(photos, out=tmp_path / "b", epochs=1, seed=1, **OPTIONS)
        image = photos / "rot" / "00.png"
        expected = (run.predict(image) + other.predict(image)).max() / 2
        named = ["--format", "json"]
        for arguments in (
            [run.path, other.path, *named, "--", image],
            [run.path, image, *named, "--ensemble", other.path],
        ):
            status, out, err = run_cli(capsys, "predict", *arguments)
            assert status == 0, err
            assert json.loads(out)[0]["probability"] == pytest.approx(expected, abs=1e-5)
        status, _, err = run_cli(capsys, "evaluate", run.path, "--ensemble", other.path)
        assert status == 2
        assert "name labelled images" in err
        status, out, err = run_cli(
            capsys, "evaluate", run.path, photos, "--ensemble", other.path, "--out", tmp_path / "m.json"
        )
        assert status == 0, err

    def test_test_time_augmentation(self, run: train.Run, photos: Path, capsys):
        image = photos / "rot" / "00.png"
        status, out, err = run_cli(capsys, "predict", run.path, image, "--tta", "--format", "json")
        assert status == 0, err
        assert json.loads(out)[0]["probability"] == pytest.approx(run.predict(image, tta=True).max(), abs=1e-5)
        status, out, _ = run_cli(capsys, "evaluate", run.path, "--tta")
        assert status == 0
        assert (run.path / "evaluation-test-tta" / "metrics.json").exists()

    @pytest.mark.parametrize("command", ["predict", "embed", "evaluate", "explain"])
    def test_every_command_that_computes_has_a_device(
        self, run: train.Run, photos: Path, tmp_path, capsys, command: str
    ):
        images = [] if command == "evaluate" else [photos / "rot" / "00.png"]
        out = [] if command == "predict" else ["--out", tmp_path / "out.npz"]
        status, _, err = run_cli(capsys, command, run.path, *images, *out, "--device", "cpu")
        assert status == 0, err
        status, _, err = run_cli(capsys, command, run.path, *images, *out, "--device", "cuda:99")
        assert status == 2
        assert "device is 'cuda:99'" in err


class TestTrust:
    @pytest.fixture
    def foreign(self, run: train.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Somebody's run, unfinished, with a module beside it that leaves a mark when it is imported."""
        (tmp_path / "evilmod.py").write_text('import pathlib\npathlib.Path("ran").touch()\n')
        copied = Path(shutil.copytree(run.path, tmp_path / "a"))
        config = copied / "config.yaml"
        config.write_text(config.read_text().replace("plugins: []", "plugins: [evilmod]"))
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, "evilmod", raising=False)
        return copied

    def test_no_command_imports_what_a_run_names(self, foreign: Path, photos: Path, capsys):
        image = photos / "rot" / "00.png"
        for arguments in (
            ["predict", foreign, image],
            ["evaluate", foreign],
            ["report", foreign],
            ["embed", foreign, image],
        ):
            status, _, err = run_cli(capsys, *arguments)
            assert status == 0, err
        status, _, err = run_cli(capsys, "train", "--resume", foreign)
        assert status == 0, err  # a finished run, which needs none of them
        assert not Path("ran").exists()
        status, _, err = run_cli(capsys, "predict", foreign, image, "--plugin", "evilmod")
        assert status == 0, err
        assert Path("ran").exists()

    def test_a_configuration_that_lies_in_its_folder_stays(self, photos: Path, tmp_path: Path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        text = f"# mine\ndata: {photos}\nepochs: 1\n"
        Path("config.yaml").write_text(text)
        for more in ([], ["--overwrite"]):
            status, _, err = run_cli(capsys, "train", "-c", "config.yaml", "--out", ".", "-q", *more)
            assert status == 2
            assert "is not empty and holds no run of Repertoire (found config.yaml)" in err
            assert "Choose another --out" in err
        assert Path("config.yaml").read_text() == text
        assert [p.name for p in Path().iterdir()] == ["config.yaml"]


class TestTrain:
    def test_jobs_that_start_together_end_in_directories_of_their_own(self, python, tiny: Path, tmp_path: Path):
        flags = ["--backbone", "convnet:width=4,depth=1", "--epochs", "1", "--augment", "none", "--no-report", "-q"]
        jobs = [python("-m", "repertoire", "train", str(tiny), *flags, folder=tmp_path) for _ in range(2)]
        said = [job.communicate(timeout=120)[0] for job in jobs]
        assert [job.returncode for job in jobs] == [0, 0], said
        found = sorted(path.name for path in (tmp_path / "runs").iterdir())
        assert found == ["tiny-1", "tiny-2"]
        assert all(train.load(tmp_path / "runs" / name).info["status"] == "finished" for name in found)

    def test_a_finished_run_is_extended(self, tiny: Path, tmp_path: Path, capsys):
        flags = ["--backbone", "convnet:width=4,depth=1", "--augment", "none", "--no-report", "-q"]
        status, _, err = run_cli(capsys, "train", tiny, *flags, "--epochs", 1, "--out", tmp_path / "a")
        assert status == 0, err
        status, out, err = run_cli(capsys, "train", "--resume", tmp_path / "a", "--epochs", 3, "--no-report", "-q")
        assert status == 0, err
        assert "test accuracy" in out
        assert len(train.load(tmp_path / "a").history) == 3
        for more, message in (
            (["--epochs", 3], "has had 3 of 3 already"),
            (["--lr", 1], "takes no other options, found --lr; a finished run can be extended with --epochs"),
        ):
            status, _, err = run_cli(capsys, "train", "--resume", tmp_path / "a", *more)
            assert status == 2
            assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digits", "--learning-rate", "1"], "no such option: --learning-rate; here it is called --lr"),
        (["train", "digits", "--lr0=1"], "here it is called --lr"),
        (["train", "digits", "--imgsz", "64"], "here it is called --size"),
        (["train", "digits", "--model", "x"], "here it is called --backbone"),
        (["train", "digits", "--workers", "3"], "no workers to set"),
        (["train", "digits", "--mixup", "0.2"], "supervised:mix=mixup"),
        (["train", "digits", "--pretrained"], "backbone lite0"),
        (["train", "digits", "--loss", "ce"], "here it is called 'cross-entropy'"),
        (["train", "digits", "--backbone", "resnet18"], "timm:resnet18"),
        (["predict", "runs/a", "--gpu", "x.jpg"], "here it is called --device"),
        (["list", "loses"], "no kind of component is named 'loses'; did you mean 'losses'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_other_tools_are_answered_with_ours(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    monkeypatch.chdir(tmp_path)
    status, _, err = run_cli(capsys, *arguments)
    assert status == 2
    assert message in err


def test_a_kind_is_listed_in_the_singular_too(capsys):
    assert run_cli(capsys, "list", "loss")[1] == run_cli(capsys, "list", "losses")[1]


def test_export_says_what_precision_costs(run: train.Run, tmp_path: Path, capsys):
    status, out, err = run_cli(capsys, "export", run.path, "--format", "pt2", "--half", "--out", tmp_path / "m.pt2")
    assert status == 0, err
    assert f"how to feed it: {tmp_path / 'm.pt2.json'}" in out
    assert "accuracy" in out
    assert "the same answer for" in out
    status, out, err = run_cli(capsys, "export", run.path, "--backbone", "--out", tmp_path / "b.safetensors")
    assert status == 0, err
    assert (tmp_path / "b.safetensors").exists()


def test_long_names_in_any_script_get_pictures_of_their_own(run: train.Run, photos: Path, tmp_path: Path, capsys):
    names = ["写" * 80, "写" * 79 + "图", "ж" * 100]
    (tmp_path / "in").mkdir()
    for name in names:
        shutil.copy(photos / "rot" / "00.png", tmp_path / "in" / f"{name[:80]}.png")
    out = tmp_path / "out"
    status, _, err = run_cli(capsys, "explain", run.path, tmp_path / "in", "--top", 2, "--gallery", "--out", out)
    assert status == 0, err
    assert len(list(out.glob("*.png"))) == 6


def test_what_a_command_wrote_into_a_run_goes_with_the_run(tiny: Path, tmp_path: Path, capsys):
    flags = ["--backbone", "convnet:width=4,depth=1", "--augment", "none", "--no-report", "-q", "--epochs", 1]
    out = tmp_path / "a"
    assert run_cli(capsys, "train", tiny, *flags, "--out", out)[0] == 0
    image = tmp_path / "x.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(image)
    assert run_cli(capsys, "evaluate", out)[0] == 0
    assert run_cli(capsys, "explain", out, image)[0] == 0
    assert run_cli(capsys, "export", out, "--format", "pt2")[0] == 0
    assert run_cli(capsys, "diagnose", out)[0] == 0
    (out / "mine.txt").write_text("precious")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        status, _, err = run_cli(capsys, "train", tiny, *flags, "--out", out, "--overwrite")
    assert status == 0, err
    assert "it stays: mine.txt" in err
    ours = {"config.yaml", "run.json", "metrics.jsonl", "metrics.json", "predictions.npz", "checkpoints", ".written"}
    assert {path.name for path in out.iterdir()} - ours == {"mine.txt"}


def test_features_of_a_network_without_a_run_can_be_trained_on(photos: Path, tmp_path: Path, capsys):
    weights = tmp_path / "w.safetensors"
    save_file(backbones.ConvNet(width=4, depth=2).state_dict(), weights)
    shutil.copytree(photos, tmp_path / "photos")
    unlabelled = tmp_path / "photos" / "unlabelled"
    unlabelled.mkdir()
    for i in range(3):
        Image.new("RGB", (20, 20), (i, 9, 9)).save(unlabelled / f"{i}.png")
    network = ["--backbone", "convnet:width=4,depth=2", "--weights", weights, "--size", 16, "--seed", 5]
    status, out, _ = run_cli(
        capsys, "embed", tmp_path / "photos", *network, "--out", tmp_path / "f.npz", "--device", "cpu"
    )
    assert (status, "try next: repertoire train" in out) == (0, True)
    images = data.load(tmp_path / "photos", size=16, seed=5)
    features = data.load(tmp_path / "f.npz")
    for part in ("train", "val", "test"):
        known = getattr(features, part).known
        assert [n for n, k in zip(getattr(features, part).names, known, strict=True) if k] == [
            name.encode("utf-8", "backslashreplace").decode() for name in getattr(images, part).names
        ]
    assert (features.classes, len(features.extra["unlabelled"])) == (images.classes, 3)
    status, out, _ = run_cli(
        capsys, "train", tmp_path / "f.npz", "-o", tmp_path / "run", "-q", "--no-report", "--epochs", 2
    )
    assert status == 0
    status, _, err = run_cli(capsys, "train", tmp_path / "f.npz", "--backbone", "resnet20", "-o", tmp_path / "b")
    assert (status, "looks at images, and the data holds vectors" in err) == (2, True)
    status, _, err = run_cli(capsys, "embed", photos, "--backbone", "resnet20", "--out", tmp_path / "g.npz")
    assert (status, "has random weights" in err, (tmp_path / "g.npz").exists()) == (2, True, False)


def test_a_run_that_was_begun_without_a_report_is_resumed_without(tiny: Path, tmp_path: Path, capsys):
    options = ["--backbone", "convnet:width=4,depth=2", "--epochs", 1, "-q"]
    assert run_cli(capsys, "train", tiny, *options, "-o", tmp_path / "a", "--no-report")[0] == 0
    assert run_cli(capsys, "train", "--resume", tmp_path / "a")[0] == 0
    assert not (tmp_path / "a" / "report.html").exists()
    assert run_cli(capsys, "train", "--resume", tmp_path / "a", "--report")[0] == 0
    assert (tmp_path / "a" / "report.html").exists()
